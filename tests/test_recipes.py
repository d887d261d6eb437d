"""The recipes beside the main job, each end to end on a few drawn pictures; and what they say of bad input."""

import errno
import gzip
import hashlib
import json
import multiprocessing
import pickle
import re
import runpy
import shutil
import signal
import sys
import urllib.error
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import equal
from matplotlib import font_manager
from PIL import Image
from servers import serving
from torch import nn
from torch.nn import functional as F
from torchvision.datasets import CIFAR10, MNIST
from torchvision.transforms.v2 import functional

import trainer.random
from extensions.snapshot_files import snapshots_in
from recipes import alexnet_cifar10, evaluate_run, lenet_mnist, newts, pets, predict, report, show_samples
from recipes.parts import data_set, networks
from recipes.parts.drawn import cifar10 as drawn_cifar10
from recipes.parts.drawn import digits as drawn_digits
from recipes.parts.drawn import newts as drawn_newts
from recipes.parts.drawn import pets as drawn_pets
from recipes.parts.image_files import BadImageError
from recipes.parts.run_folder import RunFolder, read_args, weights_files, write_json
from recipes.parts.trained import find_recipe, recipe_names
from recipes.parts.transforms import collate_images
from trainer import Trainer
from trainer.iterators import MultiprocessIterator

ROOT = Path(__file__).parent.parent
MODULES = {"alexnet_cifar10": alexnet_cifar10, "pets": pets, "newts": newts, "lenet_mnist": lenet_mnist}
DRAWN = {"alexnet_cifar10": drawn_cifar10, "pets": drawn_pets, "newts": drawn_newts, "lenet_mnist": drawn_digits}
OPTIONS = {
    "alexnet_cifar10": ["--batch-size", "16"],
    "pets": ["--model", "test_resnet", "--scale", "36", "--image-size", "32", "--batch-size", "8"],
    "newts": [],
    "lenet_mnist": [],
}
LENGTH = {name: "epochs" for name in MODULES} | {"newts": "iterations"}
ALEXNET_SMALL, VGG_NEWTS = networks.alexnet_small, networks.vgg_newts
every_recipe = pytest.mark.parametrize("name", MODULES)


@pytest.fixture(scope="module", autouse=True)
def small():
    """Few pictures, and small networks in place of alexnet_small (160 MB) and vgg_newts (14 MB)."""
    with pytest.MonkeyPatch.context() as patch:
        for module, counts in (
            (drawn_cifar10, {"TRAIN": 4, "TEST": 2}),
            (drawn_digits, {"TRAIN": 320, "TEST": 50}),
            (drawn_pets, {"PICTURES": 6}),
        ):
            for key, count in counts.items():
                patch.setattr(module, key, count)
        patch.setattr(
            networks, "alexnet_small", lambda n: nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, n))
        )
        patch.setattr(
            networks,
            "vgg_newts",
            lambda n: nn.Sequential(
                nn.AvgPool2d(8), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, n)
            ),
        )
        yield


@pytest.fixture(scope="module")
def drawn(small, tmp_path_factory):
    """The folder of each recipe's drawn data."""
    root = tmp_path_factory.mktemp("drawn")
    return {name: drawing.write(root / name) for name, drawing in DRAWN.items()}


def train(name, data, out, *options, length=2):
    options = [*OPTIONS[name], f"--{LENGTH[name]}", str(length), "--workers", "0", *options]
    return MODULES[name].main(["--data", str(data), "--out", str(out), *options])


@pytest.fixture(scope="module")
def finished(drawn, tmp_path_factory):
    """The folder of a finished run of each recipe, and what main returned."""
    runs = {}
    for name in MODULES:
        trainer.random.set_seed(0)
        out = tmp_path_factory.mktemp(name) / "result"
        runs[name] = out, train(name, drawn[name], out)
    return runs


def refused(capsys, name, *arguments):
    """Runs a recipe with what it must refuse; returns what it says."""
    with pytest.raises(SystemExit) as caught:
        MODULES[name].main([str(a) for a in arguments])
    assert caught.value.code == 2
    return " ".join(capsys.readouterr().err.split())


def weights(out, name):
    return dict(torch.load(weights_files(MODULES[name].OPTIONS.weights, out)[-1], weights_only=True))


# -- what holds for each


@every_recipe
def test_a_run_leaves_arguments_log_curves_snapshots_weights_and_test_accuracy(name, finished):
    out, result = finished[name]
    names = {path.name for path in out.iterdir()}
    assert {"args.json", "test.json"} <= names
    assert "log" in names or name == "newts"  # two iterations of it are no entry, and less than a round
    assert json.loads((out / "test.json").read_text()) == result and 0 <= result["main/accuracy"] <= 1
    saved = read_args(out)
    assert saved["recipe"] == name and len(saved["classes"]) >= 2 and "torch" in saved["versions"]
    assert snapshots_in(out, "snapshot_{}") or name == "newts"


@every_recipe
def test_the_evaluator_on_the_test_set_is_called_validation_and_tells_the_test_accuracy(name, drawn, tmp_path):
    result = train(name, drawn[name], tmp_path, length=2 if name != "newts" else 50)
    entries = [entry for entry in json.loads((tmp_path / "log").read_text()) if "validation/main/loss" in entry]
    assert entries[-1]["validation/main/accuracy"] == pytest.approx(result["main/accuracy"], abs=1e-9)
    assert entries[-1]["validation/main/loss"] == pytest.approx(result["main/loss"], rel=1e-5)
    assert (tmp_path / "loss.png").read_bytes()[:4] == (tmp_path / "accuracy.png").read_bytes()[:4] == b"\x89PNG"


@every_recipe
def test_a_resumed_run_with_workers_is_the_same_run(name, drawn, finished, tmp_path, caplog):
    train(name, drawn[name], tmp_path, "--snapshot-interval", "1", length=1)
    MODULES[name].main(["--out", str(tmp_path), "--resume", f"--{LENGTH[name]}", "2", "--workers", "2"])
    assert sum(message.startswith("resumed from ") for message in caplog.messages) == 1
    assert equal(weights(tmp_path, name), weights(finished[name][0], name))


@every_recipe
def test_the_sample_is_drawn_where_it_is_said_and_trained_on(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = [*OPTIONS[name], f"--{LENGTH[name]}", "1", "--snapshot-interval", "1", "--workers", "0"]
    MODULES[name].main(["--sample", *options])
    out = capsys.readouterr().out
    assert "as asked by --sample; " in out
    assert all(len(line.rstrip()) <= 100 for line in out.splitlines() if re.match("epoch  |iteration  |[0-9]", line))
    folder = MODULES[name].OPTIONS.sample["data"]
    assert (tmp_path / folder / "drawn.txt").exists() and (tmp_path / "result/test.json").exists()
    MODULES[name].main(["--resume", f"--{LENGTH[name]}", "2", "--workers", "0"])
    assert json.loads((tmp_path / "result/args.json").read_text())["args"]["data"] == str(tmp_path / folder)


@every_recipe
def test_without_data_it_is_said_what_to_do(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    told = refused(capsys, name, "--data", "absent")
    assert "error: no data set at absent: there is no such folder; " in told and "and --sample draws one." in told
    assert "--data names a folder " in told and ("--download" in told or name == "newts")
    (tmp_path / "empty").mkdir()
    assert re.search(r"error: .*empty has no (folder|file) ", refused(capsys, name, "--data", "empty"))
    (tmp_path / "mine").mkdir()
    assert "mine holds what was not drawn here" in refused(capsys, name, "--sample", "--data", "mine")


@pytest.mark.parametrize("name", ["alexnet_cifar10", "pets", "lenet_mnist"])
def test_where_the_data_is_missing_it_is_fetched_and_without_network_that_is_said(name, tmp_path, monkeypatch, capsys):
    def offline(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("urllib.request.urlopen", offline)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    for _ in range(2):  # what the first attempt leaves does not pass for the data
        told = refused(capsys, name)
        folder = MODULES[name].OPTIONS.defaults["data"]
        assert f"the data set cannot be fetched into {folder}: " in told and "no network" in told
        assert "give a folder that has it by --data, or draw a small data set in its place by --sample." in told
    (tmp_path / "here").mkdir()
    assert "here is there already; remove it" in refused(capsys, name, "--download", "--data", "here")


@pytest.fixture
def served(tmp_path):
    """A folder, and the address at which a server gives its files."""
    folder = tmp_path / "served"
    folder.mkdir()
    with serving(folder) as address:
        yield folder, address


def test_a_download_that_is_interrupted_says_how_it_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", lambda *args, **kwargs: signal.raise_signal(signal.SIGINT))
    with pytest.raises(SystemExit, match="interrupted: the same command continues the download"):
        lenet_mnist.main(["--download", "--data", str(tmp_path / "mnist"), "--out", str(tmp_path)])


def test_what_torchvision_has_is_fetched_verified_and_unpacked(drawn, served, tmp_path, monkeypatch, capsys):
    folder, url = served
    names = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]
    for name in names:
        content = (drawn["lenet_mnist"] / "MNIST" / "raw" / name).read_bytes()
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))
    files = [folder / f"{name}.gz" for name in names]
    monkeypatch.setattr(MNIST, "mirrors", [url])
    monkeypatch.setattr(MNIST, "resources", [(f.name, hashlib.md5(f.read_bytes()).hexdigest()) for f in files])
    monkeypatch.setattr(lenet_mnist, "SIZES", [file.stat().st_size for file in files])
    lenet_mnist.download(tmp_path / "mnist")
    assert len(MNIST(tmp_path / "mnist", train=False)) == 50
    content = bytearray(files[3].read_bytes())
    content[-9] ^= 1
    files[3].write_bytes(content)
    told = refused(capsys, "lenet_mnist", "--download", "--data", tmp_path / "other")
    assert f"cannot be fetched into {tmp_path / 'other'}: what {url}t10k-labels-idx1-ubyte.gz gave is damaged" in told
    assert told.endswith(
        "download it again; give a folder that has it by --data, or draw a small data set in its place by --sample."
    )
    assert not (tmp_path / "other").exists()


def test_what_was_fetched_appears_when_it_is_whole(tmp_path):
    root = tmp_path / "deep" / "data"
    with pytest.raises(OSError, match="cut"), data_set.unfinished(root) as folder:
        (folder / "raw" / "images").mkdir(parents=True)
        (folder / "raw" / "images.gz").touch()
        (folder / "raw" / "images" / "1.jpg").touch()
        raise OSError("cut")
    assert not root.exists()
    with data_set.unfinished(root) as folder:
        assert [path.name for path in folder.rglob("*")] == ["raw", "images.gz"], "what is unpacked may be a part"
    assert [path.name for path in root.iterdir()] == ["raw"]


@pytest.mark.parametrize(("name", "folder"), [("alexnet_cifar10", CIFAR10.base_folder), ("lenet_mnist", "MNIST/raw")])
def test_a_data_set_that_is_not_whole_is_told_with_what_to_do(name, folder, tmp_path, capsys):
    (tmp_path / "data" / folder).mkdir(parents=True)
    told = refused(capsys, name, "--data", tmp_path / "data", "--out", tmp_path / "out")
    assert "is incomplete: --download fetches " in told and "and --sample draws one." in told
    with pytest.raises(SystemExit):
        show_samples.main([name, "--data", str(tmp_path / "data")])
    assert "is incomplete" in capsys.readouterr().err


def test_overwrite_removes_the_weights_of_a_run_that_left_no_snapshot(drawn, tmp_path, capsys):
    train("pets", drawn["pets"], tmp_path, "--snapshot-interval", "1000")
    told = refused(capsys, "pets", "--data", drawn["pets"], "--out", tmp_path, *OPTIONS["pets"])
    assert "holds the files of a run, such as model_epoch-1: go on with --resume, take another --out, or" in told
    told = refused(capsys, "pets", "--resume", "--out", tmp_path)
    assert "to go on from, though there are weights such as model_epoch-2: start anew with --overwrite" in told
    train("pets", drawn["pets"], tmp_path, "--overwrite", length=1)
    assert [path.name for path in tmp_path.glob("model_epoch-*")] == ["model_epoch-1"]


def test_a_short_run_of_newts_is_not_replaced_unasked(drawn, tmp_path, capsys):
    train("newts", drawn["newts"], tmp_path)
    before = (tmp_path / "cnn.pt").read_bytes()
    told = refused(capsys, "newts", "--data", drawn["newts"], "--out", tmp_path, "--iterations", "3")
    assert "holds the files of a run, such as cnn.pt" in told and (tmp_path / "cnn.pt").read_bytes() == before
    (tmp_path / "loss.png").write_bytes(b"the curve of a longer run")
    train("newts", drawn["newts"], tmp_path, "--overwrite")
    assert not (tmp_path / "loss.png").exists()


def test_a_network_that_cannot_take_the_images_is_refused_before_anything_is_written(drawn, tmp_path, capsys):
    data = ["--data", drawn["pets"], "--out", tmp_path, "--batch-size", "8"]
    told = refused(capsys, "pets", *data, "--model", "vit_tiny_patch16_224", "--scale", "36", "--image-size", "32")
    assert "(3, 32, 32) (Input height (32) doesn't match model (224)); choose another size or network." in told
    told = refused(capsys, "pets", *data, "--model", "lenet", "--scale", "36", "--image-size", "32")
    assert "the network cannot take images of shape (3, 32, 32) (Given groups=1, weight of size" in told
    assert "choose another size or network." in told and not (tmp_path / "args.json").exists()


def test_pets_are_not_evaluated_when_their_folder_has_changed(drawn, finished, tmp_path, capsys):
    data = shutil.copytree(drawn["pets"], tmp_path / "data")
    train("pets", data, tmp_path / "out", length=1)
    shutil.copy(data / "images" / "pug_2.jpg", data / "images" / "pug_98.jpg")
    shutil.copy(data / "images" / "pug_2.jpg", data / "images" / "pug_99.jpg")
    with pytest.raises(SystemExit):
        evaluate_run.main([str(tmp_path / "out"), "--split", "train"])
    assert "has changed since the run: train had 28 images and has 30, of which some" in capsys.readouterr().err
    assert evaluate_run.main([str(tmp_path / "out"), "--data", str(data)])["n"] == 8


def test_one_help_looks_like_the_other():
    helps = [find_recipe(name).OPTIONS for name in recipe_names()]
    options = [{action.dest: action for action in parser._actions} for parser in helps]
    shared = set.intersection(*(set(actions) for actions in options))
    assert {"data", "workers", "batch_size", "lr", "device", "precision", "seed", "out", "resume"} <= shared
    plain = re.compile(r" \([^()]*(?:\([^()]*\)[^()]*)*\)$")  # without the default, which is the recipe's own
    for dest in set.union(*(set(actions) for actions in options)):
        kinds = {
            (plain.sub("", actions[dest].help), actions[dest].metavar, tuple(actions[dest].option_strings))
            for actions in options
            if dest in actions and actions[dest].option_strings  # finetune.py names its folder first, without an option
        }
        assert len(kinds) == 1, kinds


def test_an_unknown_recipe_is_refused_with_those_that_there_are():
    with pytest.raises(
        ValueError,
        match="there is no recipe 'cifar'; there are alexnet_cifar10, finetune, lenet_mnist, newts, pets, resnet",
    ):
        find_recipe("cifar")


def test_a_run_is_resumed_by_its_own_recipe_only(finished, capsys):
    told = refused(capsys, "pets", "--resume", "--out", finished["lenet_mnist"][0])
    assert "is of lenet_mnist, not of pets." in told


@every_recipe
def test_five_random_images_of_each_split_are_drawn(name, drawn, tmp_path, capsys):
    show_samples.main([name, "--data", str(drawn[name]), *OPTIONS[name], "-o", str(tmp_path / "s.png")])
    assert (tmp_path / "s.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(SystemExit):
        show_samples.main(["--sample", "newts"])
    assert "unrecognized arguments: newts" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        show_samples.main(["absent"])
    assert "there is no recipe 'absent'; there are alexnet_cifar10" in capsys.readouterr().err


# -- CIFAR-10


def test_the_small_alexnet_s_losses_are_those_of_a_loop_by_hand_to_the_bit(drawn, tmp_path, monkeypatch):
    monkeypatch.setattr(networks, "alexnet_small", ALEXNET_SMALL)
    losses = []

    def iterate(run, **kwargs):
        for _ in range(4):
            with run.iteration():
                run.updater.update()
            losses.append(float(run.observation["main/loss"]))

    monkeypatch.setattr(Trainer, "run", iterate)
    options = ["--data", str(drawn["alexnet_cifar10"]), "--out", str(tmp_path), "--workers", "0", "--batch-size", "8"]
    alexnet_cifar10.main(options)

    args = alexnet_cifar10.OPTIONS.parse([*options, "--overwrite"])
    splits, _ = alexnet_cifar10.load(args, True)
    trainer.random.set_seed(args.seed)
    network = networks.alexnet_small(10)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    mean, std = (
        torch.tensor([255 * value for value in values]).view(3, 1, 1)  # Python's floats: rounded to float32 once
        for values in ([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010])
    )
    by_hand = []
    for images, labels in islice(MultiprocessIterator(splits["train"], 8, collate_fn=collate_images), 4):
        pixels = images.to(torch.float32, memory_format=torch.contiguous_format)  # they lie as they were decoded
        loss = F.cross_entropy(network((pixels - mean) / std), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        by_hand.append(loss.item())
    assert losses == by_hand and len(set(losses)) == 4


def test_images_to_train_on_are_shifted_and_mirrored_and_those_to_test_on_are_not(drawn):
    args = alexnet_cifar10.OPTIONS.parse(["--data", str(drawn["alexnet_cifar10"])])
    (augmented, _), (plain, classes) = (alexnet_cifar10.load(args, augment) for augment in (True, False))
    assert classes == sorted(drawn_cifar10.DRAWINGS)
    views = torch.stack([augmented["train"][0][0] for _ in range(40)])
    original = plain["train"][0][0]
    assert views.shape == (40, 3, 32, 32) and views.dtype == torch.uint8
    padded = F.pad(original, [4] * 4)
    expected = [padded[:, y : y + 32, x : x + 32] for y in range(9) for x in range(9)]
    expected = torch.stack(
        [*expected, *(F.pad(original.flip(2), [4] * 4)[:, y : y + 32, x : x + 32] for y in range(9) for x in range(9))]
    )
    assert all((expected == view).flatten(1).all(1).any() for view in views)
    assert len({view.numpy().tobytes() for view in views}) > 20
    assert torch.equal(augmented["test"][0][0], plain["test"][0][0])


def test_drop_last_leaves_out_the_images_that_fill_no_batch_other_ones_each_epoch(drawn, tmp_path):
    train("alexnet_cifar10", drawn["alexnet_cifar10"], tmp_path / "a", "--batch-size", "12", "--drop-last")
    train("alexnet_cifar10", drawn["alexnet_cifar10"], tmp_path / "b", "--batch-size", "12")
    last = [json.loads((tmp_path / out / "log").read_text())[-1]["iteration"] for out in "ab"]
    assert last == [6, 7]  # of 40 images
    order = alexnet_cifar10.whole_batches(40, 12)
    epochs = [order(np.arange(40), 0) for _ in range(2)]
    assert [len(set(epoch.tolist())) for epoch in epochs] == [36, 36]
    assert set(epochs[0].tolist()) != set(epochs[1].tolist())


def test_weights_of_each_epoch_are_saved_under_its_number(finished):
    out, _ = finished["alexnet_cifar10"]
    (out / "12.pth").touch()
    (out / "mine.pth").touch()
    assert [path.name for path in weights_files(alexnet_cifar10.OPTIONS.weights, out)] == ["1.pth", "2.pth", "12.pth"]
    (out / "12.pth").unlink()


def test_overwrite_leaves_what_no_run_wrote(drawn, tmp_path):
    train("alexnet_cifar10", drawn["alexnet_cifar10"], tmp_path)
    (tmp_path / "mine.pth").touch()
    train("alexnet_cifar10", drawn["alexnet_cifar10"], tmp_path, "--overwrite", length=1)
    assert sorted(path.name for path in tmp_path.glob("*.pth")) == ["1.pth", "mine.pth"]


@pytest.mark.parametrize(
    "name", ["args.json", "test.json", "log", "loss.png", "bad_samples.json", "report.html", "2.pth"]
)
def test_a_folder_in_the_place_of_a_file_is_named_before_training_and_nothing_is_removed(
    name, drawn, finished, tmp_path, capsys
):
    out = shutil.copytree(finished["alexnet_cifar10"][0], tmp_path / "out")
    if (out / name).exists():
        (out / name).unlink()
    (out / name).mkdir()
    before = sorted(out.iterdir())
    for options in (["--overwrite"], ["--resume"]):
        told = refused(
            capsys, "alexnet_cifar10", "--data", drawn["alexnet_cifar10"], "--out", out, "--workers", 0, *options
        )
        place = f"a folder stands where a file is to be: move it, or choose another name: '{out}/{name}'"
        assert place in told or f"{out}/{name} is a folder: name a regular file" in told
        assert sorted(out.iterdir()) == before


@pytest.mark.parametrize("name", ["snapshot_epoch-3", "3.pth"])
def test_a_file_that_cannot_be_written_ends_the_run_with_one_line(name, drawn, finished, tmp_path, monkeypatch):
    out = shutil.copytree(finished["alexnet_cifar10"][0], tmp_path / "out")

    start = RunFolder.start
    monkeypatch.setattr(RunFolder, "start", lambda *args: (start(*args), (out / name).mkdir()))
    with pytest.raises(SystemExit, match=rf"stands where a file is to be.*'{out}/{name}'; once that is fixed --"):
        train("alexnet_cifar10", drawn["alexnet_cifar10"], out, "--resume", length=3)


@pytest.mark.parametrize("below", [".", "a/b"])
def test_an_out_that_is_no_folder_is_refused_in_one_line(below, tmp_path, capsys):
    (tmp_path / "file").touch()
    told = refused(capsys, "newts", "--sample", "--out", tmp_path / "file" / below)
    assert (
        "--out must name a folder, got" in told
        or f"a file stands where a folder is to be: move it, or name another: '{tmp_path}/file'" in told
    )


def test_torchvision_s_cifar10_is_read_too(tmp_path, monkeypatch):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    rng = np.random.RandomState(0)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        pixels = rng.randint(0, 256, (8, 3072), dtype=np.uint8)
        (folder / name).write_bytes(pickle.dumps({"data": pixels, "labels": list(range(8))}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": sorted(drawn_cifar10.DRAWINGS)}))
    monkeypatch.setattr(CIFAR10, "_check_integrity", lambda self: True)  # of the real files' sums
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *args: True)
    args = alexnet_cifar10.OPTIONS.parse(["--data", str(tmp_path)])
    splits, classes = alexnet_cifar10.load(args, False)
    assert (len(splits["train"]), len(splits["test"]), classes[9]) == (40, 8, "truck")
    image, label = splits["test"][3]
    assert label == 3 and torch.equal(image, torch.from_numpy(pixels[3].reshape(3, 32, 32)))
    assert alexnet_cifar10.load(args, True)[0]["train"][0][0].shape == (3, 32, 32)


# -- pets


def pictures(folder, names):
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        Image.new("RGB", (40 + number, 50), (number, 0, 0)).save(folder / name, "JPEG")
    return folder


def load_pets(data, *options, augment=False):
    return pets.load(pets.OPTIONS.parse(["--data", str(data), *OPTIONS["pets"], *options]), augment)


def test_the_label_of_a_pet_is_its_name_before_the_number(tmp_path):
    names = ["Maine_Coon_1.jpg", "Maine_Coon_2.JPG", "pug_1.jpg", "pug_10.jpeg", "yorkshire_terrier_7.jpg"]
    pictures(tmp_path, names)
    (tmp_path / "Maine_Coon_1.mat").touch()
    (tmp_path / "._pug_1.jpg").touch()
    splits, classes = load_pets(tmp_path)
    assert classes == ["Maine_Coon", "pug", "yorkshire_terrier"]
    found = sorted(
        s.dataset.paths[i].rsplit("/")[-1] + f" {s[k][1]}" for s in splits.values() for k, i in enumerate(s.indices)
    )
    assert found == [f"{name} {label}" for name, label in zip(names, (0, 0, 1, 1, 2))]
    splits, classes = load_pets(tmp_path, "--target", "category")
    assert classes == ["cat", "dog"]
    assert sorted(s[k][1] for s in splits.values() for k in range(len(s))) == [0, 0, 1, 1, 1]


@pytest.mark.parametrize("folder", [".", "images", "oxford-iiit-pet/images"])
def test_pets_may_lie_bare_or_as_they_are_published(tmp_path, folder):
    pictures(tmp_path / folder, ["Birman_1.jpg", "pug_1.jpg", "pug_2.jpg"])
    splits, _ = load_pets(tmp_path)
    assert (len(splits["train"]), len(splits["test"])) == (2, 1)


def test_pets_are_split_by_the_seed_with_and_without_augmentation(drawn):
    data = drawn["pets"]
    plain, again, other = load_pets(data)[0], load_pets(data, augment=True)[0], load_pets(data, "--seed", "1")[0]
    assert plain["train"].indices == again["train"].indices != other["train"].indices
    assert not set(plain["train"].indices) & set(plain["test"].indices)
    assert (len(plain["train"]), len(plain["test"])) == (28, 8)
    assert again["train"][0][0].shape == plain["train"][0][0].shape == (3, 32, 32)


def test_a_pet_without_a_number_is_named_and_one_class_alone_refused(tmp_path, capsys):
    pictures(tmp_path / "a", ["pug_1.jpg", "holiday.jpg"])
    told = refused(capsys, "pets", "--data", tmp_path / "a", "--out", tmp_path / "o")
    assert "holiday.jpg: expected a name such as Great_Pyrenees_123.jpg, breed and number." in told
    pictures(tmp_path / "b", ["pug_1.jpg", "beagle_1.jpg"])
    told = refused(capsys, "pets", "--data", tmp_path / "b", "--target", "category", "--out", tmp_path / "o")
    assert "all of the 2 images are of one class, dog." in told


def test_a_gif_and_a_png_with_transparency_behind_jpg_names_are_images_like_any_other(drawn):
    starts = {path.read_bytes()[:3] for path in (drawn["pets"] / "images").iterdir()}
    assert starts == {b"GIF", b"\x89PN", b"\xff\xd8\xff"}
    splits, _ = load_pets(drawn["pets"])
    assert all(s[k][0].shape == (3, 32, 32) for s in splits.values() for k in range(len(s)))


def test_a_broken_pet_stops_the_run_with_its_path(drawn, tmp_path):
    data = shutil.copytree(drawn["pets"], tmp_path / "data")
    for path in (data / "images").glob("pug_*"):
        path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(SystemExit, match=r"error: .*images/pug_\d\.jpg cannot be used: "):
        train("pets", data, tmp_path / "out")
    splits, _ = load_pets(data)
    with pytest.raises(BadImageError, match=r"pug_\d\.jpg cannot be used"):
        [s[k] for s in splits.values() for k in range(len(s))]


def test_pets_end_with_a_confusion_matrix(finished):
    out, _ = finished["pets"]
    assert (out / "confusion_test.png").read_bytes()[:4] == b"\x89PNG"
    told = json.loads((out / "evaluation_test.json").read_text())
    assert [one["name"] for one in told["classes"]] == sorted(drawn_pets.DRAWINGS)
    assert np.array(told["confusion"]).sum() == 8


def test_alexnet_is_the_pets_own_network_with_imagenet_s_mean_and_timm_s_comes_with_its_own(drawn):
    args = pets.OPTIONS.parse(["--data", str(drawn["pets"])])
    network, normalize = pets.make_model(args, 37, False)
    assert network(torch.zeros(1, 3, 224, 224)).shape == (1, 37)
    assert normalize.mean.flatten().tolist() == pytest.approx([255 * m for m in (0.485, 0.456, 0.406)])
    args = pets.OPTIONS.parse(["--data", str(drawn["pets"]), "--model", "vit_tiny_patch16_224", "--pretrained"])
    _, normalize = pets.make_model(args, 37, True)
    assert normalize.mean.flatten().tolist() == [127.5] * 3


# -- newts


@pytest.fixture
def trained_newts(drawn, tmp_path, capsys):
    options = ["--iterations", "2", "--snapshot-interval", "2", "--workers", "0", "--train"]
    newts.main(["--data", str(drawn["newts"]), "--out", str(tmp_path), *options])
    capsys.readouterr()
    return tmp_path


def test_newts_are_trained_into_cnn_pt_and_tested_from_there(drawn, trained_newts, capsys):
    state = torch.load(trained_newts / "cnn.pt", weights_only=True)
    network = networks.vgg_newts(2)
    network.load_state_dict(state)
    newts.main(["--test", "--out", str(trained_newts)])
    lines = capsys.readouterr().out.splitlines()
    paths = sorted((drawn["newts"] / "test").rglob("*.jpg"))
    assert [line.split()[0] for line in lines] == [str(path) for path in paths] and len(paths) == 6
    for path, line in zip(paths, lines):
        _, first, p, second, q = line.split()
        told = {first: float(p), second: float(q)}
        assert sum(told.values()) == pytest.approx(1, abs=2e-4)
        with torch.no_grad():
            expected = network.eval()(newts.read(str(path))[None] / 255).softmax(1)[0]
        assert [told["akahara"], told["madara"]] == pytest.approx(expected.tolist(), abs=1e-4)


def test_a_run_is_not_resumed_on_other_classes(drawn, trained_newts, tmp_path, capsys):
    data = tmp_path / "data"
    for split in ("train", "test"):
        shutil.copytree(drawn["newts"] / split / "akahara", data / split / "z")
        shutil.copytree(drawn["newts"] / split / "madara", data / split / "a")
    before = (trained_newts / "args.json").read_bytes()
    told = refused(capsys, "newts", "--resume", "--out", trained_newts, "--data", data, "--iterations", "3")
    assert "has other classes than the run in" in told and "(a, akahara, madara, z); start a new run." in told
    assert (trained_newts / "args.json").read_bytes() == before


@pytest.mark.parametrize(("change", "then"), [(lambda v: v.pop("decoder"), 1), (lambda v: v.update(decoder="0"), 0)])
def test_a_run_whose_images_were_decoded_otherwise_is_warned_of(drawn, trained_newts, capsys, caplog, change, then):
    newts.main(["--test", "--out", str(trained_newts)])
    train("newts", drawn["newts"], trained_newts, "--resume", length=3)
    assert "decoded" not in caplog.text
    saved = read_args(trained_newts)
    change(saved["versions"])
    write_json(trained_newts / "args.json", saved)
    told = f"The run in {trained_newts} decoded images by version {then}, and this is version"
    newts.main(["--test", "--out", str(trained_newts)])
    assert caplog.messages[-1].startswith(told)
    train("newts", drawn["newts"], trained_newts, "--resume", length=4)
    assert sum(message.startswith(told) for message in caplog.messages) == 2
    assert "decoder" in read_args(trained_newts)["versions"]


def test_classes_may_have_japanese_names_and_bad_test_images_are_listed(drawn, tmp_path, capsys):
    for split in ("train", "test"):
        shutil.copytree(drawn["newts"] / split / "akahara", tmp_path / split / "赤腹 イモリ")
        shutil.copytree(drawn["newts"] / split / "madara", tmp_path / split / '<b>&"')
    broken = next((tmp_path / "test" / "赤腹 イモリ").iterdir())
    broken.write_text("no image")
    with pytest.warns(UserWarning, match="it is not an image"):
        train("newts", tmp_path, tmp_path / "out", "--on-bad-sample", "skip")
    (listed,) = json.loads((tmp_path / "out" / "bad_samples_test.json").read_text())
    assert broken.name in listed["error"]
    if "Noto Sans CJK JP" in font_manager.get_font_names():  # without such a font matplotlib warns and draws boxes
        broken.unlink()
        evaluate_run.main([str(tmp_path / "out"), "--data", str(tmp_path)])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--lr", "inf"], "--lr must be 0 or more, got inf."),
        (["--out", ""], "--out must name a folder, got ''."),
        (["--out", __file__], "--out must name a folder, got '"),
        (["--device", "foo"], "--device must be such as 'cpu', 'cuda' or 'cuda:1', got 'foo'."),
    ],
)
def test_values_out_of_range_are_refused(options, told, drawn, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert told in refused(capsys, "newts", "--data", drawn["newts"], *options)
    assert not list(tmp_path.iterdir())


def test_another_length_may_be_forced_by_the_option_that_is_named(drawn, trained_newts, tmp_path, capsys):
    data = shutil.copytree(drawn["newts"], tmp_path / "data")
    next((data / "train" / "madara").iterdir()).unlink()
    told = refused(capsys, "newts", "--resume", "--out", trained_newts, "--data", data, "--iterations", "3")
    assert "with the data of now: --force" in told


def test_a_full_disk_ends_the_run_with_one_line(drawn, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device", "snapshot")

    monkeypatch.setattr("trainer.updaters.standard.StandardUpdater.update_core", full)
    with pytest.raises(
        SystemExit, match=r"No space left on device: 'snapshot'; with more space --overwrite --out .* begins"
    ):
        train("newts", drawn["newts"], tmp_path)


def test_newts_are_tested_by_the_run_that_was_resumed_and_not_on_other_classes(drawn, trained_newts, tmp_path, capsys):
    newts.main(["--resume", str(trained_newts / "snapshot_iter_2"), "--iterations", "3", "--train", "--test"])
    assert capsys.readouterr().out.count("akahara_00") == 3
    with pytest.raises(SystemExit):
        newts.main(["--test", "--out", str(trained_newts), "--data", str(drawn["alexnet_cifar10"])])
    assert "truck, and the run in " in capsys.readouterr().err


def test_newts_train_and_test_at_once_and_tell_iteration_loss_and_accuracy(drawn, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(networks, "vgg_newts", VGG_NEWTS)
    options = ["--data", str(drawn["newts"]), "--out", str(tmp_path), "--iterations", "10", "--workers", "0"]
    newts.main([*options, "--train", "--test"])
    out = capsys.readouterr().out
    assert "iteration" in out and "main/loss" in out and "main/accuracy" in out and re.search(r"^10 ", out, re.M)
    assert out.count("akahara_00") == 3


def test_three_folders_of_anything_may_stand_for_two_newts(tmp_path, capsys):
    for split, count in (("train", 4), ("test", 2)):
        for name in ("red", "green", "blue"):
            pictures(tmp_path / split / name, [f"{name}{n}.jpg" for n in range(count)])
        (tmp_path / split / ".ipynb_checkpoints").mkdir()
        (tmp_path / split / "red" / "._red0.jpg").touch()
    newts.main(["--data", str(tmp_path), "--out", str(tmp_path / "o"), "--iterations", "1", "--train", "--test"])
    lines = [line for line in capsys.readouterr().out.splitlines() if ".jpg" in line]
    assert len(lines) == 6 and all(len(line.split()) == 7 for line in lines)


def test_newts_without_weights_or_folders_are_told_what_to_do(tmp_path, drawn, capsys):
    with pytest.raises(SystemExit):
        newts.main(["--test", "--out", str(tmp_path)])
    assert f"there is no run in {tmp_path} to test: train one first, with --train, or" in capsys.readouterr().err
    (tmp_path / "train" / "only").mkdir(parents=True)
    assert "has no folder 'test': images belong into" in refused(capsys, "newts", "--data", tmp_path, "--out", tmp_path)
    shutil.copytree(drawn["newts"], tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "test" / "madara")
    told = refused(capsys, "newts", "--data", tmp_path / "data", "--out", tmp_path)
    assert "train and test must have the same classes; only one of them has madara." in told
    (tmp_path / "data" / "test" / "madara").mkdir()
    told = refused(capsys, "newts", "--data", tmp_path / "data", "--out", tmp_path)
    assert re.search(r"data/test: .*madara; each folder in it is a class and must hold images \(.jpg, ", told)
    shutil.rmtree(tmp_path / "data" / "test" / "madara")
    shutil.rmtree(tmp_path / "data" / "train" / "madara")
    told = refused(capsys, "newts", "--data", tmp_path / "data", "--out", tmp_path)
    assert "has one class only, akahara: two folders or more are needed." in told


# -- digits


def drawn_digits_of(drawn):
    return MNIST(drawn["lenet_mnist"], train=True).data[:1]


@pytest.mark.parametrize("fit", ["pad", "resize"])
def test_digits_become_32_by_32(drawn, fit):
    args = lenet_mnist.OPTIONS.parse(["--data", str(drawn["lenet_mnist"]), "--fit", fit])
    splits, classes = lenet_mnist.load(args, True)
    image, label = splits["train"][0]
    assert image.shape == (1, 32, 32) and image.dtype == torch.uint8 and classes[int(label)] in "0123456789"
    raw = drawn_digits_of(drawn)
    inner = raw if fit == "pad" else functional.resize(raw, [32, 32])
    assert torch.equal(image[:, 2:-2, 2:-2] if fit == "pad" else image, inner)
    assert fit == "resize" or image.sum() == raw.sum(), "there is nothing in the margin"
    network, normalize = lenet_mnist.make_model(args, 10, False)
    pixels, _ = normalize((image[None], label[None]), "cpu")
    assert torch.allclose(pixels, (image / 255 - 0.1307) / 0.3081, atol=1e-5)
    assert network(pixels).shape == (1, 10)


def test_a_digit_of_a_file_is_read_as_those_of_the_set(drawn, tmp_path):
    args = lenet_mnist.OPTIONS.parse(["--data", str(drawn["lenet_mnist"])])
    image, _ = lenet_mnist.load(args, False)[0]["test"][0]
    Image.fromarray(image[0, 2:-2, 2:-2].numpy()).save(tmp_path / "digit.png")
    assert torch.equal(lenet_mnist.reader(args)(str(tmp_path / "digit.png")), image)


def test_lenet_learns_drawn_digits(tmp_path, monkeypatch):
    monkeypatch.setattr(drawn_digits, "TRAIN", 1600)
    data = drawn_digits.write(tmp_path / "digits")
    assert train("lenet_mnist", data, tmp_path / "out")["main/accuracy"] > 0.6


def test_explain_walks_one_step_and_trains_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lenet_mnist.main(["--explain"])
    out = capsys.readouterr().out
    assert "61,706" in out and "They agree to the bit" in out and not list(tmp_path.iterdir())


def test_a_mean_or_std_that_is_no_number_is_refused(drawn, tmp_path, capsys):
    told = refused(capsys, "lenet_mnist", "--data", drawn["lenet_mnist"], "--out", tmp_path, "--mean", "nan")
    assert "--mean must be a number, got nan." in told
    told = refused(capsys, "lenet_mnist", "--data", drawn["lenet_mnist"], "--out", tmp_path, "--std", "0")
    assert "--std must be above 0, got 0.0." in told


# -- one of the reader's own


@pytest.fixture
def shapes(drawn, tmp_path, monkeypatch):
    """The recipe of the docs in a folder of its own, which has trained there."""
    text = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "recipes.md").read_text(), re.S)[1]
    assert len(text.splitlines()) <= 60
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "shapes.py").write_text(text.replace("resnet10t", "test_resnet"))
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", ["shapes.py", "--data", str(drawn["newts"]), "--workers", "0"])
    runpy.run_path("shapes.py", run_name="__main__")
    yield folder
    sys.modules.pop("shapes", None)
    sys.path[:] = [path for path in sys.path if path != str(folder)]


def test_every_tool_takes_a_run_of_the_reader_s_own_recipe_whose_path_is_typed(shapes, drawn, capsys):
    own = ["--recipe", "shapes.py"]
    assert (shapes / "result" / "model_epoch-2").exists() and "main/accuracy" in (
        shapes / "result" / "test.json"
    ).read_text()
    predict.main(["result", str(drawn["newts"] / "test"), *own])
    assert capsys.readouterr().out.count("madara ") == 6
    assert evaluate_run.main(["result", *own])["n"] == 6
    report.main(["result", *own])
    assert "model_epoch-2" in capsys.readouterr().out or (shapes / "result" / "report.html").exists()
    assert "could not be tested" not in (shapes / "result" / "report.html").read_text()
    show_samples.main(["shapes.py", "--data", str(drawn["newts"])])
    assert (shapes / "samples.png").exists()


@pytest.mark.parametrize("when", ["training", "evaluation"])
def test_too_little_memory_of_a_gpu_is_one_line_with_what_to_do(when, drawn, tmp_path, monkeypatch, capsys):
    def fill(*args):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.\nmore")

    if when == "training":
        monkeypatch.setattr(newts.StandardUpdater, "update_core", fill)
        told = f"CUDA out of memory. Tried to allocate 9 GiB; with a smaller --batch-size --overwrite --out {tmp_path} "
        with pytest.raises(SystemExit, match=re.escape(told)):
            train("newts", drawn["newts"], tmp_path)
        return
    train("newts", drawn["newts"], tmp_path, length=1)
    monkeypatch.setattr("recipes.newts.Normalize.__call__", fill)
    with pytest.raises(SystemExit):
        evaluate_run.main([str(tmp_path), "--workers", "0"])
    assert "Tried to allocate 9 GiB; take a smaller --batch-size, or --device cpu." in capsys.readouterr().err


def test_a_recipe_may_make_its_data_and_have_no_folder_of_them(tmp_path, monkeypatch, capsys):
    text = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "recipes.md").read_text(), re.S)[1]
    text = text.replace("resnet10t", "test_resnet").replace('"data": "photos", ', "")
    made = "torch.zeros(8, 3, 32, 32, dtype=torch.uint8), torch.arange(8) % 2"
    own = f'data = torch.utils.data.TensorDataset({made})\n    return {{"train": data, "test": data}}, ["a", "b"]'
    (tmp_path / "made.py").write_text(text.replace("return class_folders(args.data, reader(args))", own))
    monkeypatch.chdir(tmp_path)
    for extra in (["--epochs", "1"], ["--resume", "--epochs", "2"]):
        monkeypatch.setattr("sys.argv", ["made.py", "--workers", "0", *extra])
        runpy.run_path("made.py", run_name="__main__")
    monkeypatch.setattr("sys.path", [*sys.path])
    assert evaluate_run.main(["result", "--recipe", "made.py", "--workers", "0"])["n"] == 8
    assert "model_epoch-2" in capsys.readouterr().out
    del sys.modules["made"]


def test_a_run_s_folder_leads_to_no_code(shapes, drawn, capsys):
    (shapes / "shapes.py").write_text("raise SystemExit('the stranger's code ran')")
    images = str(drawn["newts"] / "test")
    saved = read_args("result")
    for name in ("shapes", "shapes.py", str(shapes / "shapes.py"), "os", "../mine/shapes", "recipes.pets"):
        write_json(shapes / "result" / "args.json", saved | {"recipe": name})
        for main, arguments in ((predict.main, ["result", images]), (evaluate_run.main, ["result"])):
            with pytest.raises(SystemExit) as caught:
                main(arguments)
            assert caught.value.code == 2
            assert f"is of a recipe that is not one of ours, {name}: if you trust its file" in capsys.readouterr().err
        report.main(["result"])
        assert "by --recipe FILE" in capsys.readouterr().out


def test_a_recipe_that_has_changed_since_the_run_or_is_another_is_told(shapes, drawn, caplog, capsys):
    (shapes / "shapes.py").write_text((shapes / "shapes.py").read_text() + "# more\n")
    evaluate_run.main(["result", "--recipe", "shapes.py"])
    assert "shapes.py has changed since the run in result; its network may differ." in caplog.messages
    for text, told in (
        ("x = 1", "other.py is not a recipe: it has no OPTIONS, load, reader, make_model"),
        (None, "no file"),
    ):
        if text is None:
            (shapes / "other.py").unlink()
        else:
            (shapes / "other.py").write_text(text)
        with pytest.raises(SystemExit):
            evaluate_run.main(["result", "--recipe", "other.py"])
        assert told in capsys.readouterr().err
    with pytest.raises(SystemExit):
        evaluate_run.main(["result", "--recipe", "pets"])
    assert "the run in result is of shapes, not of pets." in capsys.readouterr().err


def test_what_a_killed_write_left_is_removed_at_the_next_start(drawn, tmp_path):
    (scrap := tmp_path / ".snapshot_iter_2.123456.tmp").touch()
    train("newts", drawn["newts"], tmp_path, length=1)
    assert not scrap.exists()


@pytest.mark.parametrize("link", [None, "nowhere", "/dev/zero"])
def test_a_run_without_its_arguments_is_not_resumed_with_others(drawn, finished, tmp_path, capsys, link):
    out = shutil.copytree(finished["alexnet_cifar10"][0], tmp_path / "out")
    (out / "args.json").unlink()
    if link is not None:
        (out / "args.json").symlink_to(link)
    told = refused(capsys, "alexnet_cifar10", "--data", drawn["alexnet_cifar10"], "--out", out, "--resume")
    assert "args.json" in told and ("has no args.json" in told) == (link is None)


def test_the_arguments_come_back_with_a_folder_that_was_removed(drawn, tmp_path, monkeypatch):
    out, start = tmp_path / "out", RunFolder.start

    def remove(trainer):
        shutil.rmtree(out)

    def add_and_start(folder, trainer, splits, classes):
        trainer.extend(remove, "remove", trigger=(2, "iteration"))
        start(folder, trainer, splits, classes)

    monkeypatch.setattr(RunFolder, "start", add_and_start)
    with pytest.warns(UserWarning, match="is no longer as this run left it"):
        train("newts", drawn["newts"], out, length=3)
    assert read_args(out)["recipe"] == "newts" and (out / "cnn.pt").exists()


def test_the_death_of_a_worker_is_told_in_the_words_of_the_command_line(drawn, tmp_path, monkeypatch):
    start = RunFolder.start

    def kill(trainer):
        for process in multiprocessing.active_children():
            process.kill()
            process.join()

    def add_and_start(folder, trainer, splits, classes):
        trainer.extend(kill, "kill", trigger=(1, "iteration"))
        start(folder, trainer, splits, classes)

    monkeypatch.setattr(RunFolder, "start", add_and_start)
    expected = (
        rf"error: a process .* by signal 9 .*take fewer --workers .*; then --overwrite --out {tmp_path} begins anew\.$"
    )
    with pytest.raises(SystemExit, match=expected):
        train("newts", drawn["newts"], tmp_path, "--workers", "1", length=5)


def test_a_run_goes_on_and_is_tested_with_its_own_files_only(drawn, tmp_path, capsys):
    data = shutil.copytree(drawn["pets"], tmp_path / "data")
    train("pets", data, tmp_path / "out", "--snapshot-interval", "1", length=1)
    (data / "images" / "pug_1.jpg").rename(data / "images" / "pug_77.jpg")  # as many as before
    with pytest.raises(SystemExit):
        evaluate_run.main([str(tmp_path / "out"), "--split", "train"])
    assert "has changed since the run: other files are in train now" in capsys.readouterr().err
    told = refused(capsys, "pets", "--resume", "--out", tmp_path / "out", "--epochs", "2", "--workers", "0")
    assert "has changed since the run in" in told and told.endswith("or go on with the data of now: --force.")
    shutil.move(data, tmp_path / "elsewhere")  # a folder may move
    args = ["--resume", "--out", str(tmp_path / "out"), "--epochs", "2", "--workers", "0", "--force"]
    pets.main([*args, "--data", str(tmp_path / "elsewhere")])
    assert evaluate_run.main([str(tmp_path / "out"), "--split", "train"])["n"] == 28
