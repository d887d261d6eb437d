"""From an image or its file to pixels: the geometry, the decoders, and what is refused."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from recipes.parts.image_files import BadImageError, read_rgb
from recipes.parts.transforms import ScaleAndCrop, center_crop, scale

SIZES = [
    *[(500, 375), (375, 500), (333, 501), (640, 480), (1024, 700), (257, 256), (4000, 300)],  # shrunk
    *[(200, 150), (150, 200), (255, 256), (240, 240), (9, 1), (1, 9), (1, 1), (2, 3), (600, 20), (1, 700)],  # enlarged
    *[(256, 256), (256, 300), (300, 256)],  # exactly fitting
]


def photograph(width, height, seed=0, blob=5):
    pixels = np.random.RandomState(seed).randint(0, 256, (height // blob + 1, width // blob + 1, 3)).astype(np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def noise(width, height, seed=0):
    return Image.fromarray(np.random.RandomState(seed).randint(0, 256, (height, width, 3)).astype(np.uint8))


def in_two_steps(image, size=256, crop=224):
    return np.asarray(center_crop(scale(image, size), (crop, crop))).transpose(2, 0, 1)


def difference(a, b):
    return np.abs(np.asarray(a, int) - np.asarray(b, int))


def saved(path, image, **options):
    image.save(path, **options)
    return path


@pytest.mark.parametrize("make", [photograph, noise])
@pytest.mark.parametrize("size", SIZES)
def test_one_step_is_scale_and_center_crop_within_one_grey_level(make, size):
    image = make(*size)
    got = ScaleAndCrop(256, 224)(image)
    assert got.dtype == torch.uint8 and got.shape == (3, 224, 224)
    off = difference(got, in_two_steps(image))
    assert off.max() <= 1 and off.mean() < 0.3
    if min(size) == 256:
        assert off.max() == 0


@pytest.mark.parametrize(("size", "crop"), [(48, 48), (32, 31), (33, 1), (1, 1)])
def test_scale_and_crop_may_have_any_size(size, crop):
    for shape in [(40, 30), (100, 77), (48, 48), (5, 60)]:
        image = photograph(*shape)
        assert difference(ScaleAndCrop(size, crop)(image), in_two_steps(image, size, crop)).max() <= 1


@pytest.mark.parametrize("size", [(700, 1), (2, 700), (400, 3), (7, 500), (2000, 90)])
def test_what_is_cropped_away_makes_no_difference_though_it_is_not_computed(size):
    image = noise(*size)
    new = [int(48 * side / min(size)) for side in size]
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    for shape in ((new[1], size[0]), (new[1], new[0])):  # rows first
        pixels = torch.nn.functional.interpolate(pixels, size=shape, mode="bilinear", antialias=True)
    top, left = (round((side - 40) / 2) for side in new[::-1])
    expected = pixels[0, :, top : top + 40, left : left + 40]
    got = ScaleAndCrop(48, 40)(image)
    assert torch.equal(got, expected) and torch.empty_like(got).stride() == (1, 120, 3)


@pytest.mark.parametrize("quality", [{}, {"subsampling": 0}, {"subsampling": 1}, {"progressive": True}])
@pytest.mark.parametrize("size", [(50, 38), (31, 57), (8, 8)])
def test_a_file_gives_the_pixels_of_its_pillow_image(tmp_path, quality, size):
    path = saved(tmp_path / "a.jpg", photograph(*size), **quality)
    crop = ScaleAndCrop(32, 28)
    assert torch.equal(crop.read(path), crop(read_rgb(path)))


def test_whatever_is_no_colour_jpeg_comes_as_pillow_makes_it_rgb(tmp_path):
    image = photograph(50, 38)
    turned = image.getexif()
    turned[274] = 6  # "turn by 90 degrees"
    palette = image.convert("P")
    crop = ScaleAndCrop(32, 28)
    for form, picture, options in [
        ("JPEG", image.convert("L"), {}),
        ("JPEG", image.convert("CMYK"), {}),
        ("JPEG", image, {"exif": turned}),
        ("JPEG", image, {"comment": b"c" * 60000}),
        ("PNG", image, {}),
        ("PNG", image.convert("L"), {}),
        ("PNG", palette, {"transparency": 3}),
        ("GIF", palette, {}),
    ]:
        path = saved(tmp_path / "a.JPG", picture, format=form, **options)
        assert torch.equal(crop.read(path), crop(read_rgb(path)))


def test_a_jpeg_with_a_rare_subsampling_comes_as_pillow_makes_it(tmp_path):
    path = saved(tmp_path / "a.jpg", photograph(40, 30), subsampling=0)
    data = bytearray(path.read_bytes())
    data[data.index(b"\xff\xc0") + 11] = 0x14  # brightness has four times the rows of the colours
    path.write_bytes(data)
    crop = ScaleAndCrop(20, 20)
    assert torch.equal(crop.read(path), crop(read_rgb(path)))


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_cut_anywhere_is_refused_as_pillow_refuses_it(tmp_path, progressive):
    image, path = io.BytesIO(), tmp_path / "a.jpg"
    photograph(40, 30).save(image, "JPEG", progressive=progressive)
    whole = image.getvalue()
    for n_bytes in [*range(0, len(whole) - 2, 41), len(whole) - 2]:
        path.write_bytes(whole[:n_bytes])
        told = []
        for read in (read_rgb, ScaleAndCrop(20, 20).read, ScaleAndCrop(4, 4, reduced=True).read):
            with pytest.raises(BadImageError, match="not an image|cannot load|truncated|Truncated|broken") as refused:
                read(path)
            told.append(str(refused.value))
        assert told[0] == told[1] == told[2]
    path.write_bytes(whole + b"behind it")
    assert ScaleAndCrop(20, 20).read(path).shape == (3, 20, 20)


@pytest.mark.parametrize("size", [(801, 603), (602, 800), (400, 301)])
def test_reduced_decoding_changes_a_large_jpeg_by_less_than_a_grey_level(tmp_path, size):
    path = saved(tmp_path / "a.jpg", photograph(*size, blob=20), quality=90)
    whole, reduced = ScaleAndCrop(60, 50).read(path), ScaleAndCrop(60, 50, reduced=True).read(path)
    off = difference(whole, reduced)
    assert 0 < off.mean() < 1 and off.max() < 12


def test_reduced_decoding_leaves_what_is_not_large_as_it_is(tmp_path):
    crop = ScaleAndCrop(64, 56)
    path = saved(tmp_path / "a.jpg", photograph(400, 319), quality=90)
    assert torch.equal(crop.read(path), ScaleAndCrop(64, 56, reduced=True).read(path))
    path = saved(tmp_path / "a.png", photograph(800, 640))
    assert torch.equal(crop.read(path), ScaleAndCrop(64, 56, reduced=True).read(path))
