"""Image files as the world has them: of every kind, turned, damaged, linked, and such as would fill the memory."""

import io
import math
import multiprocessing
import os
import resource
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from recipes import predict
from recipes.parts.image_files import BadImageError, ImageFiles, as_rgb, class_folders, images_in, read_named, read_rgb
from recipes.parts.online_products import HEADER, OnlineProductsDataset
from recipes.parts.trained import find_recipe
from recipes.parts.transforms import ScaleAndCrop, center_crop, scale
from trainer.datasets import ImageDataset

COLOUR, GREY, LUMA = (40, 80, 120), (100, 100, 100), (73, 73, 73)
W, H = 24, 16
LUMINANCE = torch.tensor([0.299, 0.587, 0.114])


def parsed(name, *options):
    return find_recipe(name).OPTIONS.parse(list(options))


READERS = {
    name: find_recipe(name).reader(parsed(name, *options))
    for name, options in {
        "alexnet_cifar10": (),
        "lenet_mnist": ("--fit", "resize"),
        "newts": (),
        "pets": ("--scale", "20", "--image-size", "16"),
        "resnet_products": ("--scale", "20", "--image-size", "16"),
    }.items()
}
READERS |= {"ScaleAndCrop": ScaleAndCrop(12, 12).read, "reduced": ScaleAndCrop(3, 2, reduced=True).read}
READERS["the transform of read_rgb"] = lambda path: ScaleAndCrop(12, 12)(read_rgb(path))


def plain(colour=COLOUR, mode="RGB"):
    return Image.new("RGB", (W, H), colour).convert(mode)


def array(value, dtype, channels=()):
    return np.full((H, W, *channels), value, dtype)


def tiff(values, bits, kind, sample=1, extra=()):
    """A bare TIFF file: ``kind`` is its photometric interpretation, ``sample`` 1 for whole numbers to 3 for floats."""
    order = ">" if values.dtype.str[0] == ">" else "<"
    data = values.tobytes()
    if bits == 12:  # two values in three bytes
        pairs = values.reshape(-1, 2).astype(int)
        data = b"".join(int(a << 12 | b).to_bytes(3, "big") for a, b in pairs)
    n = values.shape[2] if values.ndim == 3 else 1
    entries = {256: [W], 257: [H], 258: [bits] * n, 259: [1], 262: [kind], 273: [0], 277: [n], 278: [H]}
    entries |= {279: [len(data)], **({338: list(extra)} if extra else {}), 339: [sample] * n}
    behind = 8 + 2 + 12 * len(entries) + 4
    longer = b"".join(struct.pack(f"{order}{n}H", *e) for e in entries.values() if len(e) > 2)
    entries[273] = [behind + len(longer)]
    head = struct.pack(f"{order}H", len(entries))
    for tag, numbers in entries.items():
        if len(numbers) > 2:
            head += struct.pack(f"{order}HHII", tag, 3, len(numbers), behind)
            behind += 2 * len(numbers)
        elif tag in (273, 279):
            head += struct.pack(f"{order}HHII", tag, 4, 1, *numbers)
        else:
            head += struct.pack(f"{order}HHI{len(numbers)}H", tag, 3, len(numbers), *numbers).ljust(12, b"\0")
    return {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", 8) + head + bytes(4) + longer + data


def png16(values, kind):
    """A bare PNG of 16 bits: ``kind`` 0 is grey, 2 RGB, 4 grey with alpha, 6 RGBA."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", W, H, 16, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def saved(image, form, **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def ycck():
    """A JPEG of four channels as Photoshop writes it: brightness, colours and black, inverted."""
    inks = Image.new("RGB", (W, H), tuple(255 - value for value in COLOUR)).convert("YCbCr")
    channels = [channel.point(lambda value: 255 - value) for channel in inks.split()]
    data = bytearray(saved(Image.merge("CMYK", [*channels, Image.new("L", (W, H), 0)]), "JPEG", quality=95))
    data[data.index(b"Adobe") + 11] = 2
    return bytes(data)


def lab():
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    return ImageCms.profileToProfile(plain(), *profiles, outputMode="LAB")


PALETTE = plain().quantize(4)
KINDS = {
    "JPEG": (lambda: saved(plain(), "JPEG", quality=95), COLOUR),
    "JPEG, progressive": (lambda: saved(plain(), "JPEG", quality=95, progressive=True), COLOUR),
    "JPEG, RGB": (lambda: saved(plain(), "JPEG", quality=95, keep_rgb=True), COLOUR),
    "JPEG, grey": (lambda: saved(plain(mode="L"), "JPEG"), LUMA),
    "JPEG, CMYK": (lambda: saved(plain(mode="CMYK"), "JPEG", quality=95), COLOUR),
    "JPEG, YCCK": (ycck, COLOUR),
    "PNG": (lambda: saved(plain(), "PNG"), COLOUR),
    "PNG, one transparent colour": (lambda: saved(plain(), "PNG", transparency=COLOUR), COLOUR),
    "PNG, RGBA": (lambda: saved(Image.new("RGBA", (W, H), (*COLOUR, 0)), "PNG"), COLOUR),
    "PNG, LA": (lambda: saved(plain(mode="LA"), "PNG"), LUMA),
    "PNG, 1 bit": (lambda: saved(plain((255, 255, 255), "1"), "PNG"), (255, 255, 255)),
    "PNG, palette": (lambda: saved(PALETTE, "PNG"), COLOUR),
    "PNG, transparent palette": (lambda: saved(PALETTE, "PNG", transparency=bytes([0, 7, 255])), COLOUR),
    "PNG, 16 bits": (lambda: png16(array(25700, int), 0), GREY),
    "PNG, 16 bits, RGB": (lambda: png16(array(COLOUR, int, (3,)) * 257, 2), COLOUR),
    "PNG, 16 bits, LA": (lambda: png16(array((25700, 9), int, (2,)), 4), GREY),
    "PNG, 16 bits, RGBA": (lambda: png16(array((*COLOUR, 9), int, (4,)) * 257, 6), COLOUR),
    "PGM, 16 bits": (lambda: b"P5 %d %d 65535\n" % (W, H) + array(25700, ">u2").tobytes(), GREY),
    "PGM, 12 bits": (lambda: b"P5 %d %d 4095\n" % (W, H) + array(1606, ">u2").tobytes(), GREY),
    "PFM": (lambda: b"Pf %d %d -1.0\n" % (W, H) + array(100 / 255, "<f4").tobytes(), GREY),
    "TIFF": (lambda: saved(plain(), "TIFF", compression="tiff_lzw"), COLOUR),
    "TIFF, palette": (lambda: saved(PALETTE, "TIFF"), COLOUR),
    "TIFF, PA": (lambda: saved(PALETTE.convert("PA"), "TIFF"), COLOUR),
    "TIFF, CMYK": (lambda: saved(plain(mode="CMYK"), "TIFF"), COLOUR),
    "TIFF, YCbCr": (lambda: saved(plain(mode="YCbCr"), "TIFF"), COLOUR),
    "TIFF, LAB": (lambda: saved(lab(), "TIFF"), COLOUR),
    "TIFF, 1 bit": (lambda: saved(plain((255, 255, 255), "1"), "TIFF"), (255, 255, 255)),
    "TIFF, white is 0": (lambda: tiff(array(155, "<u1"), 8, 0), GREY),
    "TIFF, 12 bits": (lambda: tiff(array(1606, "<u2"), 12, 1), GREY),
    "TIFF, 16 bits": (lambda: tiff(array(25700, "<u2"), 16, 1), GREY),
    "TIFF, 16 bits, big-endian": (lambda: tiff(array(25700, ">u2"), 16, 1), GREY),
    "TIFF, 16 bits, white is 0": (lambda: tiff(array(65535 - 25700, "<u2"), 16, 0), GREY),
    "TIFF, 16 bits, RGB": (lambda: tiff(array(COLOUR, "<u2", (3,)) * 257, 16, 2), COLOUR),
    "TIFF, 16 bits, RGB, big-endian": (lambda: tiff((array(COLOUR, ">u2", (3,)) * 257).astype(">u2"), 16, 2), COLOUR),
    "TIFF, 32 bits": (lambda: tiff(array(100 * 2**24 + 100, "<u4"), 32, 1, 1), GREY),
    "TIFF, 32 bits, bright": (lambda: tiff(array(200 * 2**24, "<u4"), 32, 1, 1), [200, 200, 200]),
    "TIFF, signed 32 bits": (lambda: tiff(array(100 * 2**23 + 50, "<i4"), 32, 1, 2), GREY),
    "TIFF, signed 16 bits": (lambda: tiff(array(100 * 128 + 50, "<i2"), 16, 1, 2), GREY),
    "TIFF, floats": (lambda: tiff(array(100 / 255, "<f4"), 32, 1, 3), GREY),
    "TIFF, floats, big-endian": (lambda: tiff(array(100 / 255, ">f4"), 32, 1, 3), GREY),
    "TIFF, floats, white is 0": (lambda: tiff(array(155 / 255, "<f4"), 32, 0, 3), GREY),
    "TIFF, alpha multiplied in": (lambda: tiff(array((100, 255), "<u1", (2,)), 8, 1, extra=[1]), GREY),
    "TIFF, RGB, alpha multiplied in": (lambda: tiff(array((20, 40, 60, 128), "<u1", (4,)), 8, 2, extra=[1]), COLOUR),
    "GIF": (lambda: saved(PALETTE, "GIF", transparency=0), COLOUR),
    "GIF, of several frames": (lambda: saved(PALETTE, "GIF", save_all=True, append_images=[plain(GREY)]), COLOUR),
    "WebP": (lambda: saved(plain(), "WEBP", lossless=True), COLOUR),
    "WebP, of several frames": (
        lambda: saved(plain(), "WEBP", lossless=True, save_all=True, append_images=[plain(GREY)]),
        COLOUR,
    ),
    "AVIF": (lambda: saved(plain(), "AVIF", quality=95), COLOUR),
    "BMP": (lambda: saved(plain(), "BMP"), COLOUR),
    "JPEG 2000": (lambda: saved(plain(), "JPEG2000"), COLOUR),
    "JPEG 2000, 16 bits": (lambda: saved(Image.fromarray(array(25700, np.uint16)), "JPEG2000"), GREY),
}
UNKNOWN = {
    "TIFF, 16 bits in 32": (lambda: tiff(array(25700, "<i4"), 32, 1, 2), "its grey goes from 25700 to 25700, and 2"),
    "TIFF, signed": (lambda: tiff(array(-5, "<i2"), 16, 1, 2), "its grey goes from -5 to -5, and 32767 would be white"),
    "TIFF, floats to 100": (lambda: tiff(array(100, "<f4"), 32, 1, 3), r"its floats go from 100.0 to 100.0, and only"),
    "TIFF, NaN": (lambda: tiff(array(math.nan, "<f4"), 32, 1, 3), "its floats go from nan to nan"),
    "EPS": (
        lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n{} loop\n",
        "PostScript",
    ),
    "TIFF, infinite": (lambda: tiff(array(math.inf, "<f4"), 32, 1, 3), "its floats go from inf to inf"),
}


# -- the pixels


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_any_kind_has_its_colour_through_every_reader(tmp_path, kind):
    make, colour = KINDS[kind]
    path = tmp_path / "a.jpg"
    path.write_bytes(make())
    try:
        with Image.open(path) as image:
            image.load()
    except OSError:
        pytest.skip("a later Pillow reads it")
    for name, read in READERS.items():
        pixels = read_named(read, str(path)).float()
        expected = torch.tensor(
            colour if len(pixels) == 3 else [0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]]
        )
        assert (pixels.mean((1, 2)) - expected).abs().max() < 6, name
        assert pixels.std((1, 2)).max() < 1.5, name


@pytest.mark.parametrize("kind", UNKNOWN)
def test_a_file_that_does_not_say_its_colours_is_refused_by_every_reader(tmp_path, kind):
    make, told = UNKNOWN[kind]
    path = tmp_path / "a.tif"
    path.write_bytes(make())
    for read in READERS.values():
        with pytest.raises(BadImageError, match=rf"a\.tif cannot be used: {told}"):
            read(str(path))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "La", "P", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"])
def test_an_image_of_any_mode_is_cropped_as_rgb(mode):
    step = {"La": "LA", "RGBa": "RGBA"}.get(mode, mode)
    image = plain((255, 255, 255) if mode == "1" else COLOUR, step).convert(mode)
    expected = {"1": (255, 255, 255), "L": LUMA, "LA": LUMA, "La": LUMA}.get(mode, COLOUR)
    assert as_rgb(image).mode == "RGB"
    assert (ScaleAndCrop(8, 8)(image).float().mean((1, 2)) - torch.tensor(expected)).abs().max() < 3


QUARTERS = np.zeros((32, 48, 3), np.uint8)
QUARTERS[:16, :24], QUARTERS[:16, 24:], QUARTERS[16:, :24] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
FORMS = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "PNG": {},
    "WEBP": {"lossless": True},
    "TIFF": {"compression": "tiff_lzw"},
    "AVIF": {"quality": 95, "subsampling": "4:4:4"},
}


def turned(form, how):
    """A file whose EXIF data ask for a turn that makes it QUARTERS, and its image as it is stored."""
    image, exif = Image.fromarray(QUARTERS), Image.Exif()
    exif[0x0112] = how
    image = image.transpose(STORED[how]) if how in STORED else image
    return saved(image, form, exif=exif, **FORMS[form]), np.asarray(image)


def quarters(pixels):
    """The colours of the middles of the four quarters."""
    height, width = pixels.shape[1:]
    return pixels[:, height // 4 :: height // 2, width // 4 :: width // 2].float()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("how", range(1, 9))
def test_a_photograph_stands_upright_in_every_recipe_but_chainercv_s(tmp_path, form, how):
    path = tmp_path / "a.jpg"
    data, stored = turned(form, how)
    path.write_bytes(data)
    upright, lying = (torch.from_numpy(p.copy()).permute(2, 0, 1) for p in (QUARTERS, stored))
    for name, read in READERS.items():
        pixels = read(str(path))
        expected = quarters(lying if name == "resnet_products" else upright)
        if len(pixels) == 1:
            expected = (LUMINANCE.view(3, 1, 1) * expected).sum(0, keepdim=True)
        if name != "reduced":  # of 3 pixels no middles are left
            assert (quarters(pixels) - expected).abs().max() < 40, name
    assert np.abs(np.asarray(read_rgb(path), int) - QUARTERS).max() < 40
    for told in (np.asarray(read_rgb(path, turned=False), int), ImageDataset([path])[0].permute(1, 2, 0).numpy()):
        assert told.shape == stored.shape and np.abs(told - stored).max() < 40
    for crop in (ScaleAndCrop(20, 15), ScaleAndCrop(20, 15, turned=False)):
        assert torch.equal(crop.read(path), crop(read_rgb(path, crop.turned)))
    assert read_rgb(path).getexif().get(0x0112, 1) == 1, "nobody turns it again"


@pytest.mark.filterwarnings("ignore:.*[Cc]orrupt:UserWarning")
def test_damaged_exif_data_turn_nothing(tmp_path):
    data, stored = turned("JPEG", 6)
    start = data.index(b"Exif\0\0") + 6
    for junk in (b"\xff" * 8, b"II*\0\xff\xff\xff\x7f"):
        (tmp_path / "a.jpg").write_bytes(data[:start] + junk + data[start + 8 :])
        assert read_rgb(tmp_path / "a.jpg").size == stored.shape[1::-1]
        assert ScaleAndCrop(8, 8).read(tmp_path / "a.jpg").shape == (3, 8, 8)


def test_the_version_of_the_decoding_is_in_the_transform_s_repr():
    told = "ScaleAndCrop(scale=9, crop=8, reduced=False, turned=True, decoder=2)"
    assert repr(ScaleAndCrop(9, 8)) == told


# -- what cannot be used


def test_whatever_a_damaged_file_makes_its_decoder_raise_the_image_is_bad(tmp_path):
    path, image = tmp_path / "a.jpg", Image.fromarray(QUARTERS)
    forms = ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "GIF", "BMP", "PPM", "JPEG2000", "ICO", "ICNS", "DDS", "SGI"]
    bad = 0
    for form in forms:
        data = saved(image, form)
        for cut in (len(data) // 2, len(data) - 3):
            for spoilt in (data[:cut], data[:cut] + bytes(len(data) - cut), data[:20] + b"\xff" * 30 + data[50:]):
                path.write_bytes(spoilt)
                for read in (read_rgb, ScaleAndCrop(8, 8).read):
                    try:
                        read(path)
                    except BadImageError as error:
                        assert str(error).startswith(f"{path} cannot be used: ")
                        bad += 1
    assert bad > 3 * len(forms)


@pytest.mark.parametrize(
    "error", [struct.error("a"), KeyError("b"), EOFError(), MemoryError(), RuntimeError("c"), OverflowError("d")]
)
def test_no_error_of_a_decoder_ends_a_run_that_skips_bad_images(tmp_path, monkeypatch, error):
    def fail(*args, **kwargs):
        raise error

    (tmp_path / "a.png").write_bytes(saved(plain(), "PNG"))
    monkeypatch.setattr(Image, "open", fail)
    for read in READERS.values():
        with pytest.raises(
            BadImageError, match=rf"a\.png cannot be used: (\w+\.)*{type(error).__name__.split('.')[-1]}"
        ):
            read_named(read, str(tmp_path / "a.png"))


def test_an_error_of_one_s_own_transform_is_no_bad_image(tmp_path):
    (tmp_path / "a.png").write_bytes(saved(plain(), "PNG"))
    (tmp_path / "cut.png").write_bytes(saved(plain(), "PNG")[:60])
    path = str(tmp_path / "a.png")

    def mistaken(path):
        return read_rgb(path).nothing

    def without_its_table(path):
        return read_rgb(path), open(tmp_path / "table.npy")

    def by_another_decoder(path):
        with Image.open(path) as image:
            return torch.from_numpy(np.array(image))

    with pytest.raises(AttributeError, match="nothing"):
        ImageFiles([path], [0], mistaken)[0]
    with pytest.raises(FileNotFoundError, match="table.npy"):
        ImageFiles([path], [0], without_its_table)[0]
    with pytest.raises(ZeroDivisionError):
        ImageFiles([path], [0], read_rgb, lambda image: 1 // 0)[0]
    (tmp_path / "Ebay_train.txt").write_text(f"{HEADER}\n1 1 1 a.png\n")
    with pytest.raises(ZeroDivisionError):
        OnlineProductsDataset(tmp_path, transform=lambda image: 1 // 0)[0]
    with pytest.raises(BadImageError, match=r"a.png \(Ebay_train.txt, line 2\) cannot be used: the image is 16x24"):
        OnlineProductsDataset(tmp_path, transform=lambda image: center_crop(image, (20, 20)))[0]
    for read in (mistaken, by_another_decoder):
        with pytest.raises(BadImageError, match="cut.png cannot be used"):
            ImageFiles([str(tmp_path / "cut.png")], [0], read)[0]


def test_what_is_no_file_is_refused_and_waited_for_by_nobody(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    (tmp_path / "dangling.jpg").symlink_to("nowhere")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")

    def opens_anything(path):
        return open(path, "rb").read()

    for name, told in {
        "pipe": "it is a folder, a pipe or a device, and no file",
        "folder": "it is a folder, a pipe or a device, and no file",
        "device": "it is a folder, a pipe or a device, and no file",
        "dangling": "there is no such file",
        "loop": r".*symbolic links",
    }.items():
        path = str(tmp_path / f"{name}.jpg")
        for read in (*READERS.values(), opens_anything):
            with pytest.raises(BadImageError, match=rf"{name}\.jpg cannot be used: {told}"):
                read_named(read, path)
        with pytest.raises(OSError, match=f"cannot read the image .*{name}.jpg"):
            ImageDataset([path])[0]


@pytest.mark.filterwarnings("ignore:Image size:PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "GIF"])
def test_no_decoder_takes_more_than_twice_pillow_s_limit_of_pixels(tmp_path, monkeypatch, form):
    path = tmp_path / "a.jpg"
    path.write_bytes(saved(Image.new("RGB", (40, 30)), form))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 600)
    for read in (*READERS.values(), lambda path: ImageDataset([path])[0]):
        read(str(path))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 599)
    for read in READERS.values():
        with pytest.raises(BadImageError, match="1200 pixels.* exceeds limit of 1198 pixels"):
            read(str(path))
    with pytest.raises(OSError, match="cannot read the image .* exceeds limit of 1198 pixels"):
        ImageDataset([path])[0]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert READERS["newts"](str(path)).shape == (3, 64, 64)


def test_what_scale_would_make_too_large_is_said(monkeypatch):
    with pytest.raises(ValueError, match="the image is 1x5000, and too large when scaled: 256x1280000"):
        scale(Image.new("RGB", (5000, 1)), 256)


def read_strips(folder):
    """Reads images one pixel high or wide with 100 MB more than there is already."""
    for read in READERS.values():
        read(folder / "small.png")
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 100_000_000,) * 2)
    for read in (*READERS.values(), ScaleAndCrop(256, 224).read):
        for name in ("wide", "high"):
            assert read(folder / f"{name}.png").float().mean() == pytest.approx(7, abs=3)


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="Linux tells there how much memory is used")
def test_a_strip_one_pixel_high_or_wide_needs_little_memory(tmp_path):
    for name, size in {"small": (9, 7), "wide": (1_000_000, 1), "high": (1, 1_000_000)}.items():
        Image.new("RGB", size, (7, 7, 7)).save(tmp_path / f"{name}.png")
    process = multiprocessing.get_context("fork").Process(target=read_strips, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == 0


# -- the files of a folder


def photographs(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(saved(plain(), "PNG"))


def names(paths, folder):
    return [os.path.relpath(path, folder) for path in paths]


def test_links_to_files_and_folders_elsewhere_count_like_what_they_lead_to(tmp_path, caplog):
    photographs(tmp_path / "elsewhere", "a/1.png", "a/deep/2.png", "3.png")
    root = tmp_path / "root"
    root.mkdir()
    (root / "x.png").symlink_to("../elsewhere/3.png")
    (root / "link").symlink_to("../elsewhere/a")
    (root / "gone.png").symlink_to("nowhere")
    assert names(images_in(str(root)), root) == ["gone.png", "link/1.png", "link/deep/2.png", "x.png"]
    assert predict.find_images([str(root)]) == images_in(str(root))
    assert caplog.text == ""


@pytest.mark.parametrize("target", [".", "..", "../..", "../../root/a", "{root}"])
def test_a_link_to_a_folder_above_counts_nothing_twice(tmp_path, target, caplog):
    root = tmp_path / "root"
    photographs(root, "a/1.png", "a/b/2.png", "c/3.png")
    photographs(tmp_path, "beside.png")
    (root / "a" / "loop").symlink_to(target.format(root=root))
    assert names(images_in(str(root)), root) == ["a/1.png", "a/b/2.png", "c/3.png"]
    images_in(str(root))
    told = f"Passed over in {root}, as it leads to what is there already: {root}/a/loop."
    assert caplog.messages == [told], "it is said once"


def test_folders_that_link_to_each_other_end(tmp_path, caplog):
    photographs(tmp_path, "root/1.png", "pool/a/2.png", "pool/b/3.png")
    (tmp_path / "root" / "a").symlink_to("../pool/a")
    (tmp_path / "pool" / "a" / "b").symlink_to("../b")
    (tmp_path / "pool" / "b" / "a").symlink_to("../a")
    (tmp_path / "pool" / "b" / "up").symlink_to("..")
    root = tmp_path / "root"
    assert names(images_in(str(root)), root) == ["1.png", "a/2.png", "a/b/3.png"]
    assert "root/a/b/up and 1 more." in caplog.text


def test_of_two_paths_to_a_folder_one_counts_and_a_link_to_a_file_is_a_file(tmp_path, caplog):
    photographs(tmp_path, "z/1.png", "z/2.png", "elsewhere/3.png")
    root = tmp_path / "root"
    (tmp_path / "z").rename(root)
    photographs(root, "z/1.png")
    (root / "a").symlink_to("z")
    (root / "b.png").symlink_to("2.png")
    (root / "c.png").symlink_to("../elsewhere/3.png")
    (root / "d.png").symlink_to("c.png")
    for name in (f"{root}", f"{root}/", f"{root}//"):
        assert names(images_in(name), root) == ["1.png", "2.png", "b.png", "c.png", "d.png", "z/1.png"]
    assert "root/a." in caplog.text


def test_classes_may_be_links_and_no_photograph_gets_into_another_class_by_one(tmp_path, caplog):
    for split in ("train", "test"):
        photographs(tmp_path / "pool" / split, "cat/1.png", "cat/more/2.png", "dog/1.png", "dog/.hidden/2.png")
    (tmp_path / "data" / "train").mkdir(parents=True)
    (tmp_path / "data" / "test").symlink_to("../pool/test")
    for name in ("cat", "dog"):
        (tmp_path / "data" / "train" / name).symlink_to(f"../../pool/train/{name}")
    sets, classes = class_folders(tmp_path / "data", read_rgb)
    assert classes == ["cat", "dog"] and caplog.text == ""
    for split in ("train", "test"):
        root = tmp_path / "data" / split
        assert names([path for path, _ in sets[split].samples], root) == ["cat/1.png", "cat/more/2.png", "dog/1.png"]
        assert sets[split].targets == [0, 0, 1]
    before = sets["train"].samples
    (tmp_path / "pool" / "train" / "cat" / "loop").symlink_to("..")
    (tmp_path / "pool" / "train" / "cat" / "dogs").symlink_to("../dog")
    (tmp_path / "data" / "train" / "all").symlink_to(".")
    sets, classes = class_folders(tmp_path / "data", read_rgb)
    assert classes == ["cat", "dog"] and sets["train"].samples == before
    assert len(caplog.messages) == 1 and "train/all and 2 more." in caplog.text


def test_the_order_of_class_folders_is_torchvision_s(tmp_path):
    from torchvision.datasets import ImageFolder

    for split in ("train", "test"):
        photographs(
            tmp_path / split, "a/2.png", "a/10.png", "a/b/1.png", "a/b-c/1.png", "a-b/1.png", "a/z.png", "stray.png"
        )
    sets, _ = class_folders(tmp_path, read_rgb)
    assert sets["train"].samples == ImageFolder(tmp_path / "train").samples


def test_pets_in_a_folder_that_links_to_itself_are_counted_once(tmp_path):
    from recipes.pets import list_images

    photographs(tmp_path, "pug_1.png", "Birman_2.png", "more/pug_7.png")
    (tmp_path / "pug_3.png").symlink_to("pug_1.png")
    (tmp_path / "loop").symlink_to(".")
    paths, breeds = list_images(tmp_path)
    assert names(paths, tmp_path) == ["Birman_2.png", "pug_1.png", "pug_3.png"]
    assert breeds == ["Birman", "pug", "pug"]
