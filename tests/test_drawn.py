"""The drawn data sets: each stands on the disk as the real one does, and is drawn once."""

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import MNIST, ImageFolder

from recipes.parts.drawn import cifar10, digits, folder, newts, pets, products

SMALL = {
    cifar10: {"TRAIN": 12, "TEST": 4},
    digits: {"TRAIN": 200, "TEST": 50},
    newts: {},
    pets: {"PICTURES": 6},
    products: {"TRAIN_PRODUCTS": 1, "TEST_PRODUCTS": 1},
}
every_set = pytest.mark.parametrize("module", SMALL, ids=lambda module: module.__name__.split(".")[-1])


@pytest.fixture(scope="module", autouse=True)
def small():
    with pytest.MonkeyPatch.context() as patch:
        for module, counts in SMALL.items():
            for name, count in counts.items():
                patch.setattr(module, name, count)
        yield


@pytest.fixture(scope="module")
def drawn(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    return {module: module.write(folder / module.__name__) for module in SMALL}


def contents(root):
    """The MD5 of each file by its path in the folder."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): hashlib.md5(path.read_bytes()).hexdigest() for path in files}


def opened(path):
    with Image.open(path) as image:
        image.load()
    return image


@every_set
def test_the_same_seed_draws_the_same_files_and_another_one_others(module, drawn, tmp_path):
    before = contents(drawn[module])
    assert contents(module.write(tmp_path / "again")) == before
    other = contents(module.write(str(tmp_path / "other"), seed=1))
    pictures = [name for name in other if name.endswith(("jpg", "JPG", "png", "images-idx3-ubyte"))]
    assert other.keys() == before.keys() and pictures
    assert all(other[name] != before[name] for name in pictures)


@every_set
def test_a_set_that_is_there_is_not_drawn_again(module, drawn):
    root = drawn[module]
    times = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert module.write(root) == root
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == times


@every_set
def test_a_set_of_another_version_is_replaced(module, tmp_path, monkeypatch):
    root = module.write(tmp_path / "set")
    whole = contents(root)
    monkeypatch.setattr(module, "VERSION", "next")
    (root / "old").touch()
    module.write(root)
    assert contents(root).keys() == whole.keys() and (root / "drawn.txt").read_text().endswith(" next")


@every_set
def test_what_was_interrupted_is_drawn_anew_and_never_passes_for_a_whole_set(module, drawn, tmp_path, monkeypatch):
    draw, calls = module.draw, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return draw(*args)

    root = tmp_path / "deep" / "set"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "draw", interrupted)
        module.write(root)
    assert not root.exists()
    assert contents(module.write(root)) == contents(drawn[module])
    assert [path.name for path in root.parent.iterdir()] == ["set"]


@every_set
def test_no_two_pictures_are_the_same(module, drawn):
    if module is digits:
        pictures = [image for train in (True, False) for image in MNIST(drawn[digits], train).data.numpy()]
    else:
        paths = [path for path in drawn[module].rglob("*.*") if path.suffix.lower() in (".jpg", ".png")]
        pictures = [np.asarray(opened(path).convert("RGB")) for path in paths]
    assert len(pictures) >= 22
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)


def test_cifar10_is_a_folder_per_class_of_png_images_of_32_pixels(drawn):
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    for split, count in (("train", 12), ("test", 4)):
        data = ImageFolder(drawn[cifar10] / split)
        assert data.classes == names and np.bincount(data.targets).tolist() == [count] * 10
        for path, _ in data.samples:
            image = opened(path)
            assert (image.format, image.mode, image.size) == ("PNG", "RGB", (32, 32))


def test_in_cifar10_mean_colours_tell_the_place_and_not_the_thing(drawn):
    def colours(split):
        data = ImageFolder(drawn[cifar10] / split)
        return np.stack([np.asarray(image, float).mean((0, 1)) for image, _ in data]), np.array(data.targets)

    (train, labels), (test, test_labels) = colours("train"), colours("test")
    means = np.stack([train[labels == label].mean(0) for label in range(10)])
    nearest = ((test[:, None] - means) ** 2).sum(-1).argmin(1)
    assert 0.2 < (nearest == test_labels).mean() < 0.75


def test_pets_are_named_by_breed_and_number_cats_with_a_capital(drawn):
    paths = list((drawn[pets] / "images").iterdir())
    found = [re.fullmatch(r"(\w+)_(\d+)\.jpg", path.name).groups() for path in paths]
    assert {breed for breed, _ in found} == {
        *("Siamese", "Bengal", "British_Shorthair"),
        *("beagle", "pug", "american_bulldog"),
    }
    assert sorted(found) == sorted((breed, str(n)) for breed in {breed for breed, _ in found} for n in range(1, 7))
    sizes = [opened(path).size for path in paths]
    assert len(set(sizes)) > 10
    assert all(110 <= width <= 130 and 90 <= height <= 110 for width, height in sizes)


def test_one_pet_is_a_gif_and_one_a_png_with_an_alpha_channel_behind_jpg_names(drawn):
    kinds = {}
    for path in (drawn[pets] / "images").glob("*.jpg"):
        image = opened(path)
        kinds.setdefault((image.format, image.mode), []).append(path.name)
    assert {kind: len(names) for kind, names in kinds.items()} == {
        ("JPEG", "RGB"): 34,
        ("GIF", "P"): 1,
        ("PNG", "RGBA"): 1,
    }


def test_newts_are_eight_and_three_photographs_each_numbered_throughout(drawn):
    for split, numbers in (("train", range(1, 9)), ("test", range(9, 12))):
        data = ImageFolder(drawn[newts] / split)
        assert data.classes == ["akahara", "madara"]
        names = [f"{name}/{name}_{number:04d}.jpg" for name in data.classes for number in numbers]
        assert [path for path, _ in data.samples] == [str(drawn[newts] / split / name) for name in names]
        for path, _ in data.samples:
            image = opened(path)
            assert (image.format, image.mode) == ("JPEG", "RGB") and 120 <= image.width <= 136


def test_digits_are_read_by_torchvision_as_mnist(drawn):
    for train, count in ((True, 200), (False, 50)):
        data = MNIST(drawn[digits], train=train, download=False)
        assert data.data.shape == (count, 28, 28) and data.targets.bincount().tolist() == [count // 10] * 10
        assert data.targets.tolist() != sorted(data.targets.tolist())
        image, label = data[0]
        assert image.size == (28, 28) and image.mode == "L" and label == data.targets[0]


def test_digits_are_white_on_black_and_wholly_in_the_picture(drawn):
    images = MNIST(drawn[digits]).data.numpy()
    ink = (images > 127).mean((1, 2))
    assert 0.02 < ink.min() and ink.max() < 0.35
    assert (images.max((1, 2)) > 200).all()
    edges = [images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]]
    assert np.mean([(edge > 127).any(1) for edge in edges]) < 0.01


@every_set
def test_a_folder_with_something_of_the_user_s_is_left_alone(module, tmp_path):
    (tmp_path / "photograph.jpg").write_bytes(b"mine")
    (tmp_path / "drawn.txt").write_text("notes on what was drawn")
    with pytest.raises(FileExistsError, match=r"holds what was not drawn here; drawn \w+ go into a folder of"):
        module.write(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["drawn.txt", "photograph.jpg"]


def test_one_drawn_set_does_not_pass_for_another(drawn):
    with pytest.raises(FileExistsError, match="holds what was not drawn here; drawn pets go"):
        pets.write(drawn[newts])


def test_two_processes_may_draw_the_same_set_at_once(drawn, tmp_path, monkeypatch):
    draw, inner = newts.draw, []

    def meanwhile(*args):
        if not inner:
            inner.append(True)
            newts.write(tmp_path / "set")
        return draw(*args)

    monkeypatch.setattr(newts, "draw", meanwhile)
    newts.write(tmp_path / "set")
    assert contents(tmp_path / "set") == contents(drawn[newts])
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.fixture
def three_processes(monkeypatch):
    monkeypatch.setattr(folder.os, "sched_getaffinity", lambda pid: {0, 1, 2}, raising=False)
    monkeypatch.setattr(folder, "FEWEST", 1)
    monkeypatch.setattr(folder, "CHUNK", 2)


only_linux = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")


@every_set
def test_the_files_do_not_depend_on_the_number_of_processes(module, drawn, tmp_path, three_processes):
    assert contents(module.write(tmp_path / "set")) == contents(drawn[module])


@only_linux
def test_pictures_are_written_by_several_processes(tmp_path, three_processes):
    folder.write_all(_write_pid, [(tmp_path / str(number), 0.05) for number in range(12)])
    writers = {path.read_text() for path in tmp_path.iterdir()}
    assert len(list(tmp_path.iterdir())) == 12 and len(writers) > 1 and str(os.getpid()) not in writers


def _write_pid(path, seconds):
    time.sleep(seconds)
    path.write_text(str(os.getpid()))


@only_linux
@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyboardInterrupt(), SystemExit(1)])
def test_what_goes_wrong_in_a_process_is_raised_here(fault, three_processes, tmp_path):
    with pytest.raises(type(fault)) as raised:
        folder.write_all(_fail, [(tmp_path, number, fault) for number in range(30)])
    assert raised.value.args == fault.args
    assert len(list(tmp_path.iterdir())) < 29  # the others stopped


def _fail(folder, number, fault):
    if number == 3:
        raise fault
    time.sleep(0.01)
    (folder / str(number)).touch()


@only_linux
def test_a_process_that_is_killed_is_an_error_and_nothing_waits_for_it(three_processes):
    with pytest.raises(BrokenProcessPool):
        folder.write_all(_kill, [(number,) for number in range(30)])


def _kill(number):
    if number == 7:
        os.kill(os.getpid(), signal.SIGKILL)


DRAWING = """
import sys
from recipes.parts.drawn import folder, products
folder.os.sched_getaffinity = lambda pid: {0, 1}
print("draws", flush=True)
products.write(sys.argv[1])
"""


@only_linux
@pytest.mark.full
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_drawing_that_is_interrupted_leaves_no_process(number, tmp_path):
    arguments = [sys.executable, "-c", DRAWING, str(tmp_path / "set")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(arguments, start_new_session=True, **pipes)
    assert process.stdout.readline() == "draws\n"
    while not list(tmp_path.glob(".set.*/set/*/*.JPG")):
        time.sleep(0.01)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        process.kill()
    told = process.communicate()[1]  # which waits until the last process that has the pipe has ended
    assert not (tmp_path / "set").exists()
    if number == signal.SIGINT:
        assert told.count("Traceback") == 1 and told.endswith("KeyboardInterrupt\n")
        assert list(tmp_path.iterdir()) == []
