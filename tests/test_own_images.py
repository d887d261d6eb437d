"""One's own photographs: which are found, of which classes, how they are split, and what is refused."""

import itertools
import os
import random
import shutil
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
import torch
from PIL import Image

from recipes.parts.image_files import is_image
from recipes.parts.own_images import find

SPLITS = ("train", "valid", "test")
shades = itertools.count()


def put(root, *names):
    """Writes images, no two alike."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        number = next(shades)
        form = "PNG" if path.suffix in ("", ".x") else None
        Image.new("RGB", (8, 6), (number % 256, number // 256 % 256, 99)).save(path, form)


def many(folder, n, extension="png"):
    return [f"{folder}/{number:02}.{extension}" for number in range(n)]


def write(path, text, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))


def names(found, root):
    return {split: [os.path.relpath(path, root) for path in found.files[split]] for split in SPLITS}


def counts(found):
    """For each split the number of images of each class."""
    return {split: Counter(found.classes[label] for label in found.labels[split]) for split in SPLITS}


def by_name(found):
    return {
        Path(path).name: found.classes[label] for s in SPLITS for path, label in zip(found.files[s], found.labels[s])
    }


def told(found):
    return "\n".join(found.told)


def refused(root, *parts, **options):
    before = sorted(root.rglob("*")) if root.is_dir() else []
    with pytest.raises((OSError, ValueError)) as error:
        find(root, **options)
    text = str(error.value)
    for part in parts:
        assert part in text
    assert text.endswith(".") and "\n" not in text
    assert before == (sorted(root.rglob("*")) if root.is_dir() else []), "nothing is written"


# -- class folders


def test_class_folders_are_split_15_percent_to_validate_and_as_many_to_test_on(tmp_path):
    put(tmp_path, *many("dog", 20), *many("cat", 3), *many("猫 A", 10))
    found = find(tmp_path)
    assert found.classes == ["cat", "dog", "猫 A"]
    assert counts(found) == {
        "train": {"dog": 14, "cat": 1, "猫 A": 6},
        "valid": {"dog": 3, "cat": 1, "猫 A": 2},
        "test": {"dog": 3, "cat": 1, "猫 A": 2},
    }
    assert len(set(sum(found.files.values(), []))) == 33, "each image is in one split"
    assert found.told == [
        f"{tmp_path}: 33 images of 3 classes.",
        "Classes are the folders <class>.",
        "15% to validate on and 15% to test on, drawn from each class by the seed 0.",
        "    train    valid     test",
        "        1        1        1  cat",
        "       14        3        3  dog",
        "        6        2        2  猫 A",
        "       21        6        6  images",
        "Width x height: the smallest 8x6, the median 8x6, the largest 8x6.",
    ]


def test_the_split_is_a_function_of_the_names_and_the_seed(tmp_path, monkeypatch):
    put(tmp_path / "a", *many("cat", 20), *many("dog", 20))
    first = names(find(tmp_path / "a"), tmp_path / "a")
    assert names(find(tmp_path / "a", seed=1), tmp_path / "a") != first
    order = os.scandir

    class Shuffled(list):
        __enter__, __exit__ = (lambda self: self), (lambda self, *_: None)

    monkeypatch.setattr(os, "scandir", lambda path: Shuffled(random.sample(entries := list(order(path)), len(entries))))
    (tmp_path / "a").rename(tmp_path / "b")
    assert names(find(tmp_path / "b"), tmp_path / "b") == first
    monkeypatch.chdir(tmp_path)
    assert names(find("b"), "b") == first


@pytest.mark.parametrize(
    ("folders", "told"),  # the folder of each split
    [
        (("train", "train", "test"), "15% to validate on, drawn from each class of train by the seed 0."),
        (("Training", "Training", "Testing"), "15% to validate on, drawn from each class of train by the seed 0."),
        (("TRAIN", "val", "TRAIN"), "15% to test on, drawn from each class of train by the seed 0."),
        (("train_set", "validation", "train_set"), "15% to test on, drawn from each class of train by the seed 0."),
        (("train", "dev", "test"), "The splits are those given."),
        (("train_images", "ValidationSet", "test-data"), "The splits are those given."),
        (("trainval", "trainval", "test"), "15% to validate on, drawn from each class of train by the seed 0."),
        (("train",) * 3, "15% to validate on and 15% to test on, drawn from each class by the seed 0."),
    ],
)
def test_splits_that_are_given_are_kept_and_the_others_come_from_train(tmp_path, folders, told):
    for folder in set(folders):
        put(tmp_path, *many(f"{folder}/cat", 10), *many(f"{folder}/dog", 10))
    found = find(tmp_path)
    assert told in found.told
    for split, folder in zip(SPLITS, folders):
        assert {name.partition("/")[0] for name in names(found, tmp_path)[split]} == {folder}
        assert set(found.labels[split]) == {0, 1}


@pytest.mark.parametrize("top", ["dataset", "dataset/dataset", "archive/My photos/raw"])
def test_folders_around_the_data_set_and_rubbish_beside_it_are_passed_by(tmp_path, top):
    for split in ("seg_train", "seg_test"):
        put(tmp_path / top, *many(f"{split}/{split}/cat", 4), *many(f"{split}/{split}/dog", 4))
    put(tmp_path / top, "seg_pred/1.png")
    put(tmp_path, "banner.png")
    for name in ("__MACOSX/dataset/._01.png", "README.md", f"{top}/annotations.json", f"{top}/seg_test/Thumbs.db"):
        write(tmp_path / name, "x")
    found = find(tmp_path)
    assert counts(found) == {"train": {"cat": 3, "dog": 3}, "valid": {"cat": 1, "dog": 1}, "test": {"cat": 4, "dog": 4}}
    assert f"Classes are the folders {top}/seg_train/seg_train/<class>, {top}/seg_test/seg_test/<class>." in found.told
    assert "1 file left out: __MACOSX/dataset/._01.png, hidden." in found.told
    assert f"3 files left out: README.md, {top}/annotations.json, {top}/seg_test/Thumbs.db, not images." in found.told
    assert "2 files left out" in told(found) and "banner.png" in told(found) and f"{top}/seg_pred/1.png" in told(found)


def test_folders_in_class_folders_count_to_the_class(tmp_path):
    put(tmp_path, *many("cat/in", 3), *many("cat/out/deep", 3), *many("cat", 3), *many("train", 9))
    assert sum(counts(find(tmp_path)).values(), Counter()) == {"cat": 9, "train": 9}
    assert "Classes are the folders <class>; the folders in them count to the class." in find(tmp_path).told


@pytest.mark.skipif(is_image("a.heic"), reason="pillow-heif is installed")
def test_what_is_left_out_is_said(tmp_path):
    put(tmp_path, *many("cat", 5), *many("dog", 5), "loose.png")
    for name in ("notes.txt", "cat/.DS_Store", "cat/a.HEIC", "dog/b.dng", "dog/c.h5", "dog/d.eps"):
        write(tmp_path / name, "x")
    found = find(tmp_path)
    assert found.told[7:] == [
        "Width x height: the smallest 8x6, the median 8x6, the largest 8x6.",
        "1 file left out: cat/.DS_Store, hidden.",
        "1 file left out: cat/a.HEIC, which Pillow reads after: pip install pillow-heif.",
        "1 file left out: dog/b.dng, RAW, to be converted to JPEG or TIFF.",
        "3 files left out: dog/c.h5, dog/d.eps, notes.txt, not images.",
        "1 file left out: loose.png, in no class folder.",
    ]


@pytest.mark.parametrize(
    ("images", "beside"),
    [
        ("images", ["masks"]),
        ("JPEGImages", ["SegmentationClass/deep"]),
        ("data/images", ["data/annotations/trimaps", "data/labels"]),
        ("images/Images", ["annotations/xmls"]),
    ],
)
def test_what_stands_beside_images_is_no_class(tmp_path, images, beside):
    """Oxford-IIIT Pet, CUB-200, Stanford Dogs, and masks for segmentation."""
    for folder in beside:
        put(tmp_path, *(f"{folder}/{label}_{n}.png" for label in ("a", "b") for n in range(3)))
    put(tmp_path / "flat", *(f"{images}/{label}_{n}.png" for label in ("a", "b") for n in range(3)))
    for folder in beside:
        shutil.copytree(tmp_path / folder, tmp_path / "flat" / folder)
    refused(tmp_path / "flat", "flat has no class folders, and no CSV")
    shutil.rmtree(tmp_path / "flat")
    put(tmp_path, *many(f"{images}/a", 5), *many(f"{images}/b", 5))
    assert f"Classes are the folders {images}/<class>." in find(tmp_path).told
    assert "in no class folder." in told(find(tmp_path))


def test_tiny_imagenet_s_folders_of_images_in_class_folders(tmp_path):
    put(tmp_path, *many("train/n01/images", 5), *many("train/n02/images", 5), *many("val/images", 5))
    found = find(tmp_path)
    assert found.classes == ["n01", "n02"]
    assert "val has no class folders: it cannot be used to validate on." in found.told


@pytest.mark.parametrize("name", ["HAM10000_images_part_{}", "images_00{}", "Fold {}", "data batch {}"])
def test_numbered_parts_of_a_data_set_are_no_classes(tmp_path, name):
    put(tmp_path, *(path for n in range(3) for path in many(name.format(n), 3)))
    refused(tmp_path, "has no class folders, and no CSV; of images it has 9", "(no class is called images, part1 or")
    lines = "".join(
        f"{name.format(n)}/{i:02}.png,{'even' if i % 2 == 0 else 'odd'}\n" for n in range(3) for i in range(3)
    )
    write(tmp_path / "labels.csv", "file,label\n" + lines)
    assert find(tmp_path).classes == ["even", "odd"]


@pytest.mark.parametrize("outer", [("color", "grayscale", "segmented"), ("day", "night"), ("original", "augmented")])
def test_the_same_folders_in_several_class_folders_may_be_the_classes(tmp_path, outer):
    put(tmp_path, *(path for folder in outer for label in "ab" for path in many(f"{folder}/{label}", 3)))
    refused(tmp_path, f"{tmp_path}/{min(outer)} is taken for a class, with the folders a, b: name it if it is the data")
    assert find(tmp_path / outer[0]).classes == ["a", "b"]


def test_images_to_test_on_without_classes_cannot_be_used(tmp_path):
    put(tmp_path, *many("train/cat", 8), *many("train/dog", 8), *many("test", 5))
    found = find(tmp_path)
    assert "test has no class folders: it cannot be used to test on." in found.told
    assert "5 files left out: test/00.png, test/01.png, test/02.png and 2 more, in no class folder." in found.told
    assert all(name.startswith("train/") for files in names(found, tmp_path).values() for name in files)


def test_all_that_pillow_reads_is_found_and_sizes_are_those_of_the_upright_image(tmp_path):
    for folder in ("a", "b"):
        put(
            tmp_path,
            *(f"{folder}/{n}{end}" for n, end in enumerate((".JPG", ".gif", ".bmp", ".tif", ".webp", ".jp2", ".ppm"))),
        )
    exif = Image.Exif()
    exif[0x112] = 6
    Image.new("RGB", (40, 20)).save(tmp_path / "a" / "phone.jpg", exif=exif)
    found = find(tmp_path)
    assert sum(map(len, found.files.values())) == 15
    assert "Width x height: the smallest 8x6, the median 8x6, the largest 20x40." in found.told


def test_copies_are_warned_of(tmp_path):
    put(tmp_path, *many("train/cat", 5), *many("train/dog", 5), *many("test/cat", 2), *many("test/dog", 2))
    put(tmp_path, *many("valid/cat", 2), *many("valid/dog", 2))
    assert "Warning" not in told(find(tmp_path))
    shutil.copy(tmp_path / "train/cat/00.png", tmp_path / "test/cat/00.png")
    text = told(find(tmp_path))
    assert "1 file is a copy of another" in text and "in another split: 1." in text
    shutil.copy(tmp_path / "train/cat/01.png", tmp_path / "train/dog/01.png")
    text = told(find(tmp_path))
    assert "2 files are copies of another" in text and "; in another split: 1; with another label: 1." in text


def test_names_of_classes_are_the_same_however_a_system_writes_their_letters(tmp_path):
    for split, form in (("train", "NFC"), ("test", "NFD")):
        for name in ("ゴジラ", "カピバラ"):
            put(tmp_path, *many(f"{split}/{unicodedata.normalize(form, name)}", 3))
    assert find(tmp_path).classes == ["カピバラ", "ゴジラ"]


def test_names_may_be_any_bytes_and_numbers_are_in_their_order(tmp_path):
    odd = os.fsdecode(b"\xff\xfe")
    put(tmp_path / "a", *many(odd, 3), *many("b\n", 3), f"{odd}/{odd}.png")
    assert find(tmp_path / "a").classes == ["b\n", odd]
    put(tmp_path / "b", *(name for label in ("10", "9", "0", "9" * 200) for name in many(label, 3)))
    assert find(tmp_path / "b").classes == ["0", "9", "10", "9" * 200]
    put(tmp_path / "c", *many("Cat", 3), *many("cat", 3))
    assert "Warning: classes that differ only by capitals: cat." in find(tmp_path / "c").told


def test_links_to_folders_above_end_and_are_no_classes(tmp_path):
    put(tmp_path, *many("cat", 3), *many("dog", 3))
    (tmp_path / "loop").symlink_to(".")
    (tmp_path / "cat" / "up").symlink_to("..")
    assert find(tmp_path).classes == ["cat", "dog"]


# -- what of folders is refused


def test_too_few_images_or_classes_are_refused_by_name(tmp_path):
    refused(tmp_path / "absent", "absent is no folder")
    refused(tmp_path, "no class folders, and no CSV; of images it has 0")
    put(tmp_path, *many("cat", 5))
    refused(tmp_path, f"{tmp_path}: two classes or more are needed, and there is only 'cat'; put images into")
    put(tmp_path, "dog/1.png")
    write(tmp_path / "dog/2.dng", "x")
    why = "a class needs 3 images or more, to train, validate and test on; too few: dog (1)"
    refused(tmp_path, why, "1 file left out: dog/2.dng, RAW, to be converted to JPEG or TIFF.")
    (tmp_path / "bird").mkdir()
    refused(tmp_path, f"{tmp_path}/bird has no image")
    write(tmp_path / "bird/notes.txt", "x")
    refused(tmp_path, f"{tmp_path}/bird has no image")


def test_splits_must_agree_on_the_classes(tmp_path):
    put(tmp_path, *many("train/cat", 5), *many("train/dog", 1), *many("test/cat", 2), *many("test/Dog", 2))
    refused(tmp_path, "train and test must have the same classes; only one has Dog, dog")
    (tmp_path / "test/Dog").rename(tmp_path / "test/dog")
    refused(tmp_path, "a class needs 2 images or more, to train and validate on; too few: dog (1)")
    put(tmp_path, *many("train/dog", 2))
    (tmp_path / "val").mkdir()
    refused(tmp_path, f"{tmp_path}/val has no image")
    (tmp_path / "val").rename(tmp_path / "test" / "empty")
    refused(tmp_path, f"{tmp_path}/test/empty has no image")


def test_folders_that_may_mean_two_things_are_refused(tmp_path):
    put(tmp_path / "a", *many("cat/train", 3), *many("cat/test", 3), *many("dog/train", 3))
    refused(tmp_path / "a", "a/cat is taken for a class, with the folders test, train")
    put(tmp_path / "b", *many("train/cat", 3), *many("train/dog", 3), *many("other", 3))
    refused(tmp_path / "b", "b/train is taken for a class, with the folders cat, dog")
    put(tmp_path / "c", *many("train/a", 3), *many("train_small/a", 3), *many("test/a", 3))
    refused(tmp_path / "c", "c: train and train_small are both to train on: rename or remove one of them.")
    put(tmp_path / "e", *many("train", 3), *many("test", 3), *many("more", 3))
    refused(tmp_path / "e", "has no class folders, and no CSV; of images it has 9.")
    put(tmp_path / "d", *many("test/a", 3), *many("val/a", 3), *many("test/b", 3), *many("val/b", 3))
    refused(tmp_path / "d", "there are images to", "and none to train on")


def damage(path, how):
    content = path.read_bytes()
    path.unlink()
    if how == "pipe":
        os.mkfifo(path)
    elif how == "link to nothing":
        path.symlink_to("nowhere")
    else:
        half = content[: len(content) // 2]
        path.write_bytes({"empty": b"", "text": b"hello", "cut": half, "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0"}[how])


@pytest.mark.parametrize(
    "extension", [e for e in ("jpg", "png", "webp", "gif", "bmp", "tif", "avif", "heic") if is_image(f"a.{e}")]
)
@pytest.mark.parametrize("how", ["empty", "text", "cut", "pipe", "link to nothing", "PostScript"])
def test_damaged_files_are_refused_by_name_or_left_out(tmp_path, extension, how):
    put(tmp_path, *many("cat", 5, extension), *many("dog", 5, extension))
    damage(tmp_path / "cat" / f"01.{extension}", how)
    named = f"cat/01.{extension} ("
    refused(tmp_path, f"{tmp_path}: 1 image is damaged: {named}", "--on-bad-sample skip leaves them out.")
    found = find(tmp_path, skip_bad=True)
    assert f"1 file left out: {named}" in told(found) and "damaged." in told(found)
    assert sum(map(len, found.files.values())) == 9


# -- a CSV


LINES = [(f"{n:02}.png", "cat" if n < 10 else "dog") for n in range(20)]
TABLES = {
    "file": "file,label\n{name},{label}\n",
    "id": "id,breed\n{stem},{label}\n",
    "path": "path,class\nimages/{name},{label}\n",
    "path from elsewhere": "path,class\n./images/../images/{name},{label}\n",
    "Windows": "\ufeffImage_ID;Class Name\r\nimages\\{name};{label}\r\n",
    "tabs": "filename\tspecies\n{name}\t{label}\n",
    "quotes": '"width","file","label"\n"8","{name}","{label}"\n',
    "spaces": "file, label\n{name}, {label}\n",
    "no header": "{name},{label}\n",
    "labels first": "y|x\n{label}|{stem}\n",
    "Finding Labels": "Image Index,Finding Labels,Patient ID\n{name},{label},7\n",
    "Japanese": "ファイル名,ラベル,備考\n{name},{label},なし\n",
    "row numbers": ",file,label\n{number},{name},{label}\n",
    "0 and 1": "file,cat,dog\n{name},{cat},{dog}\n",
    "other columns": "file,width,label,height\n{name},8,{label},6\n",
    "empty lines": "file,label,\n\n{name},{label},\n,,\n",
}


def table(form, lines=LINES):
    first, _, rest = form.partition("\n")
    head, line = (first + "\n", rest) if "{" not in first else ("", form)
    for n, (name, label) in enumerate(lines):
        flags = {"cat": int(label == "cat"), "dog": int(label == "dog")}
        head += line.format(name=name, stem=Path(name).stem, label=label, number=n, **flags)
    return head


@pytest.mark.parametrize("form", TABLES)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_table_of_any_usual_form_is_read(tmp_path, form, encoding):
    put(tmp_path, *(f"images/{name}" for name, _ in LINES))
    write(tmp_path / "labels.csv", table(TABLES[form]), encoding)
    found = find(tmp_path)
    assert by_name(found) == dict(LINES)
    assert sum(counts(found).values(), Counter()) == {"cat": 10, "dog": 10}
    assert "labels.csv: files by the column" in found.told[1]
    write(tmp_path / "images" / "01.xml", "the same name")
    (tmp_path / "labels.csv").rename(tmp_path / "images" / "labels.csv")
    if "images" not in TABLES[form]:
        assert find(tmp_path).files == found.files, "it may stand beside the images"


def test_a_table_may_lie_elsewhere(tmp_path):
    put(tmp_path / "a", *(f"images/{name}" for name, _ in LINES))
    write(tmp_path / "b" / "labels.csv", table(TABLES["file"]))
    assert by_name(find(tmp_path / "a", table=tmp_path / "b" / "labels.csv")) == dict(LINES)
    write(tmp_path / "b" / "labels.csv", table(f"file,label\n{tmp_path}/a/images/{{name}},{{label}}\n"))
    assert by_name(find(tmp_path / "a", table=tmp_path / "b" / "labels.csv")) == dict(LINES)


def test_ids_of_images_to_train_on_beside_unlabelled_ones(tmp_path):
    put(tmp_path, *(f"{split}/{name}" for split in ("train", "test") for name, _ in LINES))
    write(tmp_path / "labels.csv", table(TABLES["id"]))
    found = find(tmp_path)
    assert all(name.startswith("train/") for files in names(found, tmp_path).values() for name in files)
    assert "20 files left out: test/00.png, test/01.png, test/02.png and 17 more, in no line of the CSV." in found.told


@pytest.mark.parametrize("column", ["split", "data set", "Usage", "x"])
def test_splits_may_be_a_column(tmp_path, column):
    put(tmp_path, *(f"images/{name}" for name, _ in LINES))
    words = ["Training", "val", "TEST"]
    lines = "".join(f"{name},{label},{words[n % 3]}\n" for n, (name, label) in enumerate(LINES))
    write(tmp_path / "labels.csv", f"image,label,{column}\n{lines}")
    found = find(tmp_path)
    assert f"splits by {column!r}" in told(found) and "The splits are those given." in found.told
    for place, split in enumerate(SPLITS):
        assert names(found, tmp_path)[split] == [f"images/{name}" for name, _ in LINES[place::3]]


def test_the_column_with_the_names_of_files_goes_before_one_of_numbers_that_are_names_too(tmp_path):
    put(tmp_path, *(f"images/{name}" for name, _ in LINES))
    lines = "".join(f"{19 - n:02},{name},{label}\n" for n, (name, label) in enumerate(LINES))
    write(tmp_path / "labels.csv", "id,image,label\n" + lines)
    assert by_name(find(tmp_path)) == dict(LINES)


def test_a_submission_of_kaggle_s_is_no_table_of_labels(tmp_path):
    put(tmp_path, *(f"train/t{name}" for name, _ in LINES), *(f"test/s{name}" for name, _ in LINES))
    write(tmp_path / "sample_submission.csv", table("id,label\ns{name},{number}\n"))
    refused(tmp_path, "has no class folders, and no CSV; of images it has 40")
    write(tmp_path / "labels.csv", table("id,label\nt{stem},{label}\n"))
    assert by_name(find(tmp_path)) == {f"t{name}": label for name, label in LINES}


@pytest.mark.parametrize("wrong", ["tarin", ""])
def test_a_slip_in_the_column_of_the_splits_is_refused(tmp_path, wrong):
    put(tmp_path, *(f"images/{name}" for name, _ in LINES))
    words = [wrong, *("train", "val", "test") * len(LINES)]
    lines = "".join(f"{name},{label},{word}\n" for (name, label), word in zip(LINES, words, strict=False))
    write(tmp_path / "labels.csv", f"image,label,set\n{lines}")
    refused(tmp_path, f"labels.csv, line 2: {wrong!r} in 'set' is not train, valid or test.")


def test_splits_may_be_the_folders_of_the_paths_or_several_tables_or_a_flag(tmp_path):
    expected = {split: [f"{split}/{name}" for name, _ in LINES[place::3]] for place, split in enumerate(SPLITS)}
    put(tmp_path, *(f"{SPLITS[n % 3]}/{name}" for n, (name, _) in enumerate(LINES)))
    lines = "".join(f"{SPLITS[n % 3]}/{name},{label}\n" for n, (name, label) in enumerate(LINES))
    write(tmp_path / "labels.csv", "file,label\n" + lines)
    found = find(tmp_path)
    assert names(found, tmp_path) == expected and "Splits are those of the folders." in found.told
    (tmp_path / "labels.csv").unlink()
    for place, split in enumerate(SPLITS):
        write(tmp_path / split / "_classes.csv", table(TABLES["0 and 1"], LINES[place::3]))
    assert names(find(tmp_path), tmp_path) == expected
    for split in SPLITS:
        (tmp_path / split / "_classes.csv").unlink()
    lines = "".join(f"{name},{label},{n % 2 == 0}\n" for n, (name, label) in enumerate(LINES))
    write(tmp_path / "labels.csv", "fname,labels,is_valid\n" + lines)
    assert len(find(tmp_path).files["valid"]) == 10 and len(find(tmp_path).files["train"]) == 8


@pytest.mark.parametrize(
    "labels", [("NA", "null"), ("001", "1"), ("1.0", "1"), ("True", "nan"), ("=1+1", "-"), ("犬", "猫")]
)
def test_labels_are_what_is_written(tmp_path, labels):
    put(tmp_path, *(f"images/{name}" for name, _ in LINES))
    lines = [(name, labels[label == "dog"]) for name, label in LINES]
    write(tmp_path / "labels.csv", table(TABLES["file"], lines))
    assert by_name(find(tmp_path)) == dict(lines)


def test_class_folders_go_before_a_table_that_is_not_named(tmp_path):
    put(tmp_path, *many("a", 10), *many("b", 10))
    lines = "".join(f"{folder}/{n:02}.png,{'even' if n % 2 == 0 else 'odd'}\n" for folder in "ab" for n in range(10))
    write(tmp_path / "x.csv", "file,label\n" + lines)
    found = find(tmp_path)
    assert found.classes == ["a", "b"] and f"Warning: not used is {tmp_path}/x.csv; --table takes" in told(found)
    assert find(tmp_path, table=tmp_path / "x.csv").classes == ["even", "odd"]


# -- several labels


MULTI = [{"cat"} | ({"big"} if n % 3 == 0 else set()) | ({"old"} if n % 4 == 0 else set()) for n in range(40)]
MULTI[7] = set()


@pytest.mark.parametrize(
    "form", ["a b", "a;b", "a, b", "a|b", "['a', 'b']", "0 1", "-1 1", "False True", "a line each"]
)
def test_several_labels_in_a_cell_or_in_columns_of_0_and_1(tmp_path, form):
    put(tmp_path, *(f"images/{n}.png" for n in range(40)))
    every = ["big", "cat", "old"]
    if form in ("0 1", "-1 1", "False True"):
        no, yes = form.split()
        cells = [",".join(yes if name in labels else no for name in every) for labels in MULTI]
        text = "file,big,cat,old\n" + "".join(f"{n},{cell}\n" for n, cell in enumerate(cells))
    elif form == "a line each":
        text = "file,label\n" + "".join(
            f"{n},{label}\n" for n, found in enumerate(MULTI) for label in sorted(found) or [""]
        )
    else:
        brackets, mark = form.startswith("["), form.strip("[']ab'").replace("'", "")
        cells = [mark.join(f"'{label}'" if brackets else label for label in sorted(labels)) for labels in MULTI]
        text = "file,tags\n" + "".join(f'{n},"{f"[{cell}]" if brackets else cell}"\n' for n, cell in enumerate(cells))
    write(tmp_path / "labels.csv", text)
    found = find(tmp_path, multi_label=True)
    assert found.classes == every
    seen = {}
    for split in SPLITS:
        for path, label in zip(found.files[split], found.labels[split]):
            assert label.dtype == torch.float32 and label.shape == (3,)
            seen[int(Path(path).stem)] = {name for name, value in zip(every, label) if value == 1}
    assert [seen[n] for n in range(40)] == MULTI
    sums = {split: sum(found.labels[split]).tolist() for split in SPLITS}
    assert all(min(values) >= 1 for values in sums.values()), "each label is in each split"
    assert abs(sums["test"][1] - 6) <= 1 and abs(sums["valid"][1] - 6) <= 1


def test_several_labels_are_asked_for(tmp_path):
    put(tmp_path, *many("cat", 5), *many("dog", 5))
    refused(tmp_path, "has no CSV of files and labels, which --multi-label needs", multi_label=True)
    lines = "".join(f"{name},cat|big\n" for name in many("cat", 5)) + "".join(
        f"{name},dog\n" for name in many("dog", 5)
    )
    write(tmp_path / "labels.csv", "file,label\n" + lines)
    text = told(find(tmp_path, table=tmp_path / "labels.csv"))
    assert "some labels hold '|': with --multi-label they are several" in text
    write(tmp_path / "labels.csv", "file,a,b\n" + "".join(f"{name},1,1\n" for name in many("cat", 5)))
    refused(tmp_path, "line 2: several labels; with --multi-label", table=tmp_path / "labels.csv")


def test_a_label_of_too_few_images_for_each_split_is_warned_of(tmp_path):
    put(tmp_path, *many("images", 10))
    write(tmp_path / "l.csv", "file,label\n" + "".join(f"{n:02},{'a rare' if n == 0 else 'a'}\n" for n in range(10)))
    found = find(tmp_path, multi_label=True)
    assert "Warning: not in every split: rare." in found.told
    assert sum(found.labels["train"])[1] == 1, "it is trained on"


# -- what of a CSV is refused


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column names files that are in the folder of the images; it is empty"),
        ("file,label\nnone.png,cat\n", "no column names files that are in the folder of the images"),
        ("file,label\n00.png,cat\n99.png,dog\n", "l.csv: 1 file is not there: 99.png (line 3)"),
        ("99.png,cat\n00.png,dog\n", "1 file is not there: 99.png (line 1)"),
        ("file,label\n00.png,cat\n../secret.png,dog\n", "line 3: ../secret.png lies outside of the folder"),
        ("file,label\n00.png,cat\n/etc/passwd,dog\n", "line 3: /etc/passwd lies outside of the folder"),
        ("file,label\n00.png,cat\nC:\\x\\01.png,dog\n", "line 3: C:\\x\\01.png lies outside of the folder"),
        (
            "file,label\n00.png,cat\n00.png,dog\n",
            "line 3: 00.png is 'cat' in a line before, and 'dog' here; with --multi",
        ),
        ("file,label\n00.png,cat\n,dog\n", "line 3: no file is named"),
        ("file,label\n00.png,cat\n01.png,\n", "line 3: no label; with --multi-label"),
        ("file,label\n00.png,cat\n01.png\n", "line 3: got 1 cells, and line 1 has 2"),
        ("my photographs\ncat,00.png\n", "line 2: got 2 cells, and line 1 has 1"),
        ("file,label\n00.png,cat,dog\n", "line 2: got 3 cells, and line 1 has 2"),
        ('file,label\n00.png,"cat\n01.png,dog\n', "is no CSV: unexpected end of data"),
        ("file,label,label\n00.png,cat,dog\n", "two columns have the name 'label'"),
        ("file\n00.png\n", "or name another CSV by --table; there is no other column"),
        ("file,a,b\n00.png,x,y\n", "Call one of them 'label', or name another CSV by --table; there is 'a', 'b'"),
        ("file,class,species\n00.png,x,y\n", "or name another CSV by --table; there is 'class', 'species'"),
        (
            "file,label\n00,cat\ndouble,dog\n",
            "line 3: double may be images/double.bmp, images/double.png: write the path",
        ),
        (
            "file,label,split\n00.png,a,train\n00.png,a,test\n",
            "00.png is 'train a' in a line before, and 'test a' here",
        ),
        ("file,label,split\n00.png,a,test\n01.png,b,test\n", "there are images to test on, and none to train on"),
        (
            "file,label\n" + "".join(f"{n:02}.png,cat\n" for n in range(9)),
            "two classes or more are needed, and there is only 'cat'",
        ),
        ("file,label\n" + "".join(f"{n:02}.png,{n}\n" for n in range(9)), "too few: 0 (1), 1 (1)"),
    ],
)
def test_a_table_that_is_not_clear_is_refused_by_line(tmp_path, text, message):
    put(tmp_path / "data", *many("images", 10), "images/double.png", "images/double.bmp")
    put(tmp_path, "secret.png")
    write(tmp_path / "data" / "l.csv", text)
    refused(tmp_path / "data", "l.csv" if "line" in message else "", message)


def test_a_table_must_be_one(tmp_path, monkeypatch):
    put(tmp_path, *many("images", 3))
    place = tmp_path / "l.csv"
    place.write_bytes("file,label\n00.png,猫\n".encode("shift_jis"))
    refused(tmp_path, f"{place} is no text in UTF-8: save it as 'CSV UTF-8'")
    shutil.copy(tmp_path / "images/00.png", place)
    refused(tmp_path, f"{place} is no text in UTF-8")
    with open(place, "wb") as file:
        file.truncate(10**12)
    refused(tmp_path, f"{place} has more than 200,000,000 bytes")
    place.unlink()
    os.mkfifo(place)
    refused(tmp_path, f"{place} is a named pipe")
    place.unlink()
    for name in ("a.csv", "b.csv"):
        write(tmp_path / name, "file,label\n00.png,cat\n")
    refused(tmp_path, "has 2 CSVs: a.csv, b.csv; name one by --table")
    refused(tmp_path, f"there is no {tmp_path}/c.csv.", table="c.csv")


def test_an_id_means_the_image_and_not_what_is_beside_it(tmp_path):
    put(tmp_path, *many("images", 10))
    write(tmp_path / "images" / "00.dng", "RAW")
    write(tmp_path / "images" / "new.nef", "RAW")
    write(tmp_path / "l.csv", "id,label\n" + "".join(f"{n:02},{n % 2}\n" for n in range(10)) + "new,0\n")
    found = find(tmp_path)
    assert sum(map(len, found.files.values())) == 10
    assert "2 files left out: images/00.dng, images/new.nef, RAW, to be converted to JPEG or TIFF." in found.told


def test_labels_of_a_table_must_be_trained_on(tmp_path):
    put(tmp_path, *many("images", 10))
    lines = "".join(f"{n:02},{'a b' if n % 2 else 'b'},{'train' if n < 7 else 'val'}\n" for n in range(9))
    write(tmp_path / "l.csv", "id,labels,split\n" + lines + "09,a c,val\n")
    refused(tmp_path, "train and valid must have the same classes; only one has c", multi_label=True)


def test_files_that_a_table_names_are_judged_by_what_they_hold(tmp_path):
    put(tmp_path, *many("images", 10), "images/odd.x", "images/none")
    write(tmp_path / "l.csv", "file,label\n" + "".join(f"{n:02},{n % 2}\n" for n in range(10)) + "odd.x,1\nnone,0\n")
    found = find(tmp_path)
    assert sum(map(len, found.files.values())) == 12
    write(tmp_path / "images" / "odd.x", "text")
    refused(tmp_path, "1 image is damaged: images/odd.x (it is not an image)")
    (tmp_path / "images" / "00.png").unlink()
    found = find(tmp_path, skip_bad=True)
    assert "1 file left out: 00 (line 2), in l.csv, but not there." in found.told
    assert "1 file left out: images/odd.x (it is not an image), damaged." in found.told
