"""The data set of the main job: reading, downloading, drawing, and the transform."""

import errno
import functools
import hashlib
import os
import re
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from servers import serving

from recipes.parts.drawn import products as drawn_products
from recipes.parts.image_files import BadImageError
from recipes.parts.online_products import (
    HEADER,
    SUPER_LABEL_NAMES,
    OnlineProductsDataset,
    download,
)
from recipes.parts.transforms import ScaleAndCrop, center_crop, scale
from trainer.iterators import MultiprocessIterator


def photograph(width=40, height=30, seed=0):
    pixels = np.random.RandomState(seed).randint(0, 256, (height // 5 + 1, width // 5 + 1, 3)).astype(np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def write_data(root, rows=None, header=HEADER):
    """Writes a data set of three images in the real layout."""
    rows = rows or ["1 1 1 bicycle_final/111085122871_0.JPG", "2 1 1 bicycle_final/b.JPG", "3 2 12 toaster_final/t.JPG"]
    root.mkdir(parents=True, exist_ok=True)
    for name in ("train", "test"):
        (root / f"Ebay_{name}.txt").write_text("\n".join([header, *rows]) + "\n")
    for i, row in enumerate(rows):
        path = root / row.split()[-1]
        path.parent.mkdir(exist_ok=True)
        photograph(seed=i).save(path, "JPEG")
    return root


# -- reading


def test_a_sample_is_an_image_its_product_and_its_kind_counted_from_zero(tmp_path):
    data = OnlineProductsDataset(write_data(tmp_path), "train")
    image, class_label, super_label = data[2]
    assert len(data) == 3 and data.paths[0] == "bicycle_final/111085122871_0.JPG"
    assert (image.mode, image.size, class_label, super_label) == ("RGB", (40, 30), 1, 11)
    assert data.class_ids.tolist() == [0, 0, 1] and data.super_class_ids.tolist() == [0, 0, 11]
    assert SUPER_LABEL_NAMES[11] == "toaster" and len(SUPER_LABEL_NAMES) == 12


def test_a_missing_folder_or_list_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="no data set at .*/absent: .* there is no such folder; unpack http"):
        OnlineProductsDataset(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match=r"Ebay_test.txt is missing from it"):
        OnlineProductsDataset(tmp_path, "test")
    with pytest.raises(ValueError, match="split must be 'train' or 'test', got 'valid'"):
        OnlineProductsDataset(tmp_path, "valid")


@pytest.mark.parametrize(
    "line",
    ["1 1 1", "x 1 1 a.JPG", "0 1 1 a.JPG", "1 1 13 a.JPG", "1 1 1 a b.JPG", "", "1 1 1 ../a.JPG", "1 1 1 /etc/passwd"],
)
def test_a_malformed_line_is_named(tmp_path, line):
    write_data(tmp_path)
    with open(tmp_path / "Ebay_train.txt", "a") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match=rf"Ebay_train.txt, line 5: expected .* got {re.escape(repr(line))}"):
        OnlineProductsDataset(tmp_path)


def test_a_list_without_header_or_images_is_refused(tmp_path):
    write_data(tmp_path, header="1 1 1 bicycle_final/b.JPG")
    with pytest.raises(ValueError, match="Ebay_train.txt, line 1: expected the header 'image_id class_id"):
        OnlineProductsDataset(tmp_path)
    (tmp_path / "Ebay_train.txt").write_text(HEADER + "\n")
    with pytest.raises(ValueError, match="Ebay_train.txt lists no images"):
        OnlineProductsDataset(tmp_path)


def test_an_image_of_any_mode_comes_as_rgb(tmp_path):
    write_data(tmp_path)
    path = tmp_path / "bicycle_final" / "b.JPG"
    image = photograph()
    rgba = image.convert("RGBA")
    rgba.putalpha(100)
    palette = image.convert("P")
    for form, picture, options in [
        ("JPEG", image.convert("L"), {}),
        ("JPEG", image.convert("CMYK"), {}),
        ("PNG", palette, {}),
        ("PNG", palette, {"transparency": 3}),
        ("PNG", palette, {"transparency": bytes(range(256))}),
        ("PNG", rgba, {}),
        ("PNG", image.convert("LA"), {}),
        ("PNG", image.convert("1"), {}),
        ("GIF", palette, {}),
    ]:
        picture.save(path, form, **options)
        got = OnlineProductsDataset(tmp_path)[1][0]
        assert got.mode == "RGB" and got.size == (40, 30)
        if picture.mode not in ("1", "L", "LA"):
            assert np.abs(np.asarray(got, int) - np.asarray(image, int)).mean() < 40


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: path.unlink(), "there is no such file"),
        (lambda path: path.write_bytes(path.read_bytes()[:400]), "truncated|Truncated|broken"),
        (lambda path: path.write_bytes(b"<html>404</html>"), "it is not an image"),
        (lambda path: path.write_bytes(b""), "it is not an image"),
        (lambda path: photograph(8, 8).save(path, "JPEG"), "the image is 8x8 .* smaller than the crop of 30x30"),
    ],
)
def test_an_image_that_cannot_be_used_is_named_with_its_line(tmp_path, spoil, reason):
    write_data(tmp_path)
    spoil(tmp_path / "bicycle_final" / "b.JPG")
    data = OnlineProductsDataset(tmp_path, transform=lambda image: center_crop(image, (30, 30)))
    with pytest.raises(OSError, match=rf"bicycle_final/b.JPG \(Ebay_train.txt, line 3\) cannot be used: .*({reason})"):
        data[1]
    data[0]


@pytest.mark.parametrize("n_bytes", [0, 2, 20, 300, 600, -2])
def test_a_file_cut_short_is_told_alike_however_it_is_read(tmp_path, n_bytes):
    write_data(tmp_path)
    path = tmp_path / "bicycle_final" / "b.JPG"
    path.write_bytes(path.read_bytes()[:n_bytes])
    told = []
    for options in ({}, {"read": ScaleAndCrop(30, 30).read}, {"read": ScaleAndCrop(3, 3, reduced=True).read}):
        with pytest.raises(BadImageError, match=r"bicycle_final/b.JPG \(Ebay_train.txt, line 3\) cannot") as info:
            OnlineProductsDataset(tmp_path, **options)[1]
        told.append(re.sub(r"\d+ bytes", "n bytes", str(info.value)))
    assert told[0] == told[1] == told[2]
    path.unlink()
    with pytest.raises(BadImageError, match=r"line 3\) cannot be used: there is no such file"):
        OnlineProductsDataset(tmp_path, read=ScaleAndCrop(30, 30).read)[1]


def test_pixels_read_at_once_are_those_of_the_transform_with_any_number_of_workers(tmp_path):
    root, crop = write_data(tmp_path), ScaleAndCrop(20, 16)
    data = OnlineProductsDataset(root, transform=crop)
    expected = torch.stack([data[i][0] for i in range(3)])
    for n_processes in (0, 1):
        iterator = MultiprocessIterator(
            OnlineProductsDataset(root, read=crop.read), 3, shuffle=False, n_processes=n_processes
        )
        pixels, classes, kinds = next(iterator)
        iterator.finalize()
        assert torch.equal(pixels, expected) and pixels.is_contiguous()
        assert classes.tolist() == [0, 0, 1] and kinds.tolist() == [0, 0, 11]


# -- the transform


@pytest.mark.parametrize(
    ("size", "expected"),
    [((500, 375), (341, 256)), ((375, 500), (256, 341)), ((256, 300), (256, 300)), ((100, 100), (256, 256))],
)
def test_scale_has_chainercv_s_sizes(size, expected):
    image = photograph(*size)
    scaled = scale(image, 256)
    assert scaled.size == expected
    assert (scaled is image) == (min(size) == 256)


@pytest.mark.parametrize(("difference", "offset"), [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (5, 2), (33, 16)])
def test_center_crop_has_chainercv_s_offsets(difference, offset):
    height, width = 20 + difference, 20
    image = Image.fromarray(np.arange(height * width, dtype=np.uint16).reshape(height, width).astype(np.int32))
    assert center_crop(image, (20, 20)).getpixel((0, 0)) == offset * width
    image = Image.fromarray(np.arange(height * width, dtype=np.int32).reshape(width, height))
    assert center_crop(image, (20, 20)).getpixel((0, 0)) == offset


def test_a_crop_larger_than_the_image_is_refused():
    with pytest.raises(ValueError, match=r"the image is 30x40 \(height x width\), smaller than the crop of 31x20"):
        center_crop(photograph(40, 30), (31, 20))
    with pytest.raises(ValueError, match="the scale must not be smaller than the crop, got 200 < 224"):
        ScaleAndCrop(200, 224)


def chainercv(image, size, crop):
    """The definition: each channel resized as 32-bit floats, then the middle."""
    width, height = image.size
    if min(width, height) != size:
        if height < width:
            new = (int(size * width / height), size)
        else:
            new = (size, int(size * height / width))
        channels = [Image.fromarray(np.asarray(c, np.float32)) for c in image.split()]
        image = np.stack([np.asarray(c.resize(new, Image.Resampling.BILINEAR)) for c in channels])
    else:
        image = np.asarray(image, np.float32).transpose(2, 0, 1)
    top, left = (int(round((side - crop) / 2.0)) for side in image.shape[1:])
    return image[:, top : top + crop, left : left + crop]


@pytest.mark.parametrize("size", [(500, 375), (333, 501), (256, 300), (200, 150), (1024, 700)])
def test_the_transform_is_chainercv_s_within_one_grey_level(size):
    image = photograph(*size)
    got = ScaleAndCrop(256, 224)(image)
    assert got.dtype == torch.uint8 and got.shape == (3, 224, 224)
    assert np.abs(got.numpy().astype(float) - chainercv(image, 256, 224)).max() <= 1.0


# -- the drawn sample


@pytest.fixture(scope="module", params=[15, pytest.param(125, marks=pytest.mark.full)])
def drawn(request, tmp_path_factory):
    """The training and test pictures at 48 pixels: (images, labels) each. Of few products, or the whole sample."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param != drawn_products.TRAIN_PRODUCTS:
            patch.setattr(drawn_products, "TRAIN_PRODUCTS", request.param)
            patch.setattr(drawn_products, "TEST_PRODUCTS", 5)
        root = drawn_products.write(tmp_path_factory.mktemp("data") / "drawn")
    sets = [OnlineProductsDataset(root, split, ScaleAndCrop(48, 48)) for split in ("train", "test")]
    return root, sets, [np.stack([data[i][0].numpy() for i in range(len(data))]) for data in sets]


def test_the_drawn_sample_has_the_data_set_s_layout_and_is_sorted_by_class(drawn):
    root, (train, test), _ = drawn
    assert (len(train), len(test)) in ((360, 120), (3000, 480))
    for data in (train, test):
        assert (np.diff(data.super_class_ids) >= 0).all()
        assert np.bincount(data.super_class_ids).tolist() == [len(data) // 12] * 12
    assert not set(train.class_ids) & set(test.class_ids)
    assert {path.name for path in root.iterdir() if path.is_dir()} == {f"{name}_final" for name in SUPER_LABEL_NAMES}


def nearest_mean(train, labels, test, test_labels):
    means = np.stack([train[labels == kind].mean(0) for kind in range(12)])
    distances = ((test[:, None] - means[None]) ** 2).sum(-1)
    return (distances.argmin(1) == test_labels).mean()


def histograms(images):
    return np.stack([[np.histogram(c, 16, (0, 256))[0] for c in image] for image in images]).reshape(len(images), -1)


def test_colour_background_size_and_position_say_nothing_of_the_class(drawn):
    _, sets, images = drawn
    labels = [data.super_class_ids for data in sets]
    for feature in (
        lambda x: x.reshape(len(x), -1) / 255.0,
        lambda x: x.mean(1).reshape(len(x), -1) / 255.0,
        histograms,
        lambda x: np.sort(x.reshape(len(x), -1))[:, ::48].astype(float),
    ):
        train, test = (feature(x).astype(float) for x in images)
        assert nearest_mean(train, labels[0], test, labels[1]) < 0.3


def test_the_sample_is_written_once_and_is_the_same_everywhere(drawn, tmp_path, monkeypatch):
    root, (train, _), _ = drawn
    before = (root / train.paths[0]).stat().st_mtime_ns
    assert drawn_products.write(root) == root
    assert (root / train.paths[0]).stat().st_mtime_ns == before
    again = drawn_products.draw(3, 17, 18)
    assert np.array_equal(np.asarray(again), np.asarray(drawn_products.draw(3, 17, 18)))
    monkeypatch.setattr(drawn_products, "TRAIN_PRODUCTS", 1)
    monkeypatch.setattr(drawn_products, "TEST_PRODUCTS", 1)
    small = drawn_products.write(tmp_path / "small")
    assert len(OnlineProductsDataset(small)) == 24
    assert [path.name for path in tmp_path.iterdir()] == ["small"]


# -- the download


@pytest.fixture
def serve(tmp_path):
    """Serves bytes; returns what the download is called with."""
    folder = tmp_path / "served"
    folder.mkdir()
    with serving(folder) as address:  # what a worse server does is told in test_downloads.py

        def start(data):
            (folder / "a.zip").write_bytes(data)
            return {"url": f"{address}a.zip", "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}

        yield start


@pytest.fixture
def archive(tmp_path):
    """The data set as a zip, as bytes."""
    return zipped(write_data(tmp_path / "src" / "Stanford_Online_Products"))


def zipped(source, change=lambda z: None):
    path = source.parent / "a.zip"
    with zipfile.ZipFile(path, "w") as z:
        for file in sorted(source.rglob("*")):
            z.write(file, file.relative_to(source.parent))
        change(z)
    return path.read_bytes()


fetch = functools.partial(download, listed={"train": 3, "test": 3})


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_data_set_is_fetched_and_unpacked(tmp_path, serve, archive):
    fetch(tmp_path / "data" / "sop", **serve(archive))
    assert OnlineProductsDataset(tmp_path / "data" / "sop")[2][2] == 11
    assert names(tmp_path / "data") == ["sop"]


def test_a_download_goes_on_the_next_time(tmp_path, serve, archive):
    (tmp_path / "sop.zip.part").write_bytes(archive[:700])
    with pytest.raises(
        OSError, match=r"2 times in a row nothing came .*; the 700 of .* kept in .*/sop.zip.part, and the"
    ):
        fetch(tmp_path / "sop", **serve(archive) | {"url": "http://127.0.0.1:9/"}, tries=2)
    assert (tmp_path / "sop.zip.part").read_bytes() == archive[:700]
    fetch(tmp_path / "sop", **serve(archive))
    assert len(OnlineProductsDataset(tmp_path / "sop")) == 3


def test_a_damaged_archive_is_removed_and_said(tmp_path, serve, archive):
    bad = bytearray(archive)
    bad[len(bad) // 3] ^= 0xFF
    told = r"what http.* gave is damaged.*; it was removed: download it again"
    for other in ({}, {"sha256": hashlib.sha256(archive).hexdigest()}):
        with pytest.raises(OSError, match=told):
            fetch(tmp_path / "sop", **serve(bytes(bad)) | other)
        assert not [name for name in names(tmp_path) if "sop" in name]


def member(name, content="x", **attributes):
    """Adds a member to a zip."""

    def add(z):
        info = zipfile.ZipInfo("x")
        for key, value in {"filename": name, "compress_type": zipfile.ZIP_DEFLATED, **attributes}.items():
            setattr(info, key, value)
        z.writestr(info, content)

    return add


def overlapping(z):
    member("S/late")(z)
    z.infolist()[-1].header_offset = z.infolist()[-2].header_offset


@pytest.mark.parametrize(
    ("change", "told"),
    [
        *((member(name), "would land outside the folder") for name in ("../evil", "/evil", "a/../../evil", "C:\\evil")),
        *((member(name), "would land outside the folder") for name in ("..\\evil", "\\\\host\\evil", "S/..")),
        (member("S/link", "/etc/passwd", external_attr=0o120777 << 16), "is neither file nor folder"),
        (member("S/device", external_attr=0o060666 << 16), "is neither file nor folder"),
        (member("S/pipe", external_attr=0o010666 << 16), "is neither file nor folder"),
        (member("."), "is both file and folder"),
        (member("S/" + "x" * 300), "has too long a name"),
        (member("S/" + "x/" * 300), "has too long a name"),
        (member("s/ebay_TRAIN.txt"), "is there twice"),
        (member("S/./Ebay_train.txt"), "is there twice"),
        (member("S/Ebay_train.txt/x"), "is both file and folder"),
        (member("S/Ebay_train.txt/"), "is there twice"),
        (member("S/x", compress_type=zipfile.ZIP_BZIP2), "compressed in an unusual way"),
        (lambda z: [member(f"S/{i}")(z) for i in range(1010)], "its 1,017 members take .* too many"),
        (member("S/bomb", bytes(1 << 20)), r"its 8 members take 1,\d+,\d+ bytes unpacked, which are too many"),
        (overlapping, "its members overlap"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_an_archive_of_anything_but_files_and_folders_is_refused_and_removed(tmp_path, serve, change, told):
    data = zipped(write_data(tmp_path / "src" / "S"), change)
    (tmp_path / "in").mkdir()
    with pytest.raises(
        OSError, match=rf"what http.* gave is damaged \(.*({told}).*\); it was removed: download it again"
    ):
        fetch(tmp_path / "in" / "sop", **serve(data))
    assert names(tmp_path / "in") == [] and "evil" not in names(tmp_path)


def test_an_encrypted_archive_is_refused(tmp_path, serve, archive):
    data = bytearray(archive)
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.index(signature) + flags] |= 1
    with pytest.raises(OSError, match=r"damaged \(the member .* is encrypted"):
        fetch(tmp_path / "sop", **serve(bytes(data)))


@pytest.mark.parametrize("position", [0.1, 0.5, 0.9, 0.97, 0.99])
@pytest.mark.parametrize("how", [lambda data, i: data[:i], lambda data, i: data[:i] + b"\xff" * 40 + data[i + 40 :]])
def test_a_spoilt_archive_is_refused(tmp_path, serve, archive, position, how):
    with pytest.raises(OSError, match="damaged .*; it was removed: download it again"):
        fetch(tmp_path / "sop", **serve(how(archive, int(position * len(archive)))))
    assert not [name for name in names(tmp_path) if "sop" in name]


def test_without_space_to_unpack_the_archive_is_kept(tmp_path, serve, archive, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with (
        monkeypatch.context() as patch,
        pytest.raises(OSError, match="sop.zip.part cannot be unpacked into .*No space left"),
    ):
        patch.setattr(zipfile.ZipFile, "extractall", full)
        fetch(tmp_path / "sop", **serve(archive))
    assert (tmp_path / "sop.zip.part").read_bytes() == archive
    fetch(tmp_path / "sop", url="http://127.0.0.1:9/", **{k: v for k, v in serve(archive).items() if k != "url"})
    assert (tmp_path / "sop").is_dir()


def test_an_incomplete_archive_is_refused(tmp_path, serve):
    source = write_data(tmp_path / "src" / "S")
    (source / "toaster_final" / "t.JPG").unlink()
    with pytest.raises(OSError, match=r"its train list has 3 images, not 3, and 1 files are missing, such as toaster"):
        fetch(tmp_path / "sop", **serve(zipped(source)))
    with pytest.raises(OSError, match="its train list has 3 images, not 59551"):
        download(tmp_path / "sop", **serve(zipped(source)))
    assert not (tmp_path / "sop").exists()


def test_nothing_is_downloaded_over_what_is_there(tmp_path, serve, archive):
    (tmp_path / "sop").mkdir()
    with pytest.raises(FileExistsError, match="sop is there already; remove it to download it again"):
        fetch(tmp_path / "sop", **serve(archive))


def test_a_server_that_has_no_such_file_is_told(tmp_path, serve, archive):
    given = serve(archive)
    with pytest.raises(OSError, match="/absent: the server says 404 File not found"):
        fetch(tmp_path / "sop", **given | {"url": given["url"].replace("a.zip", "absent")})
