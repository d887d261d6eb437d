"""The recipes beside the main job, each end to end on a few drawn pictures; and what they say of bad input."""

import errno
import gzip
import hashlib
import json
import multiprocessing
import os
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
from processes import call
from servers import serving
from torch import nn
from torch.nn import functional as F
from torchvision.datasets import CIFAR10, MNIST
from torchvision.transforms.v2 import functional

import trainer.random
from extensions.snapshot_files import snapshots_in
from recipes import alexnet_cifar10, evaluate_run, lenet_mnist, newts, pets, show_samples
from recipes.parts import common, networks
from recipes.parts.drawn import cifar10 as drawn_cifar10
from recipes.parts.drawn import digits as drawn_digits
from recipes.parts.drawn import pets as drawn_pets
from recipes.parts.image_files import BadImageError

MODULES = {"alexnet_cifar10": alexnet_cifar10, "pets": pets, "newts": newts, "lenet_mnist": lenet_mnist}
RECIPES = {name: module.RECIPE for name, module in MODULES.items()}
OPTIONS = {
    "alexnet_cifar10": ["--batch-size", "16"],
    "pets": ["--model", "test_resnet", "--scale", "36", "--image-size", "32", "--batch-size", "8"],
    "newts": [],
    "lenet_mnist": [],
}
LENGTH = {name: "epochs" for name in RECIPES} | {"newts": "iterations"}
ALEXNET_SMALL, VGG_NEWTS = networks.alexnet_small, networks.vgg_newts
every_recipe = pytest.mark.parametrize("name", RECIPES)


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
    return {name: recipe.draw(root / name) for name, recipe in RECIPES.items()}


def train(name, data, out, *options, length=2):
    options = [*OPTIONS[name], f"--{LENGTH[name]}", str(length), "--workers", "0", *options]
    return common.main(RECIPES[name], ["--data", str(data), "--out", str(out), *options])


@pytest.fixture(scope="module")
def finished(drawn, tmp_path_factory):
    """The folder of a finished run of each recipe, and what main returned."""
    runs = {}
    for name in RECIPES:
        trainer.random.set_seed(0)
        out = tmp_path_factory.mktemp(name) / "result"
        runs[name] = out, train(name, drawn[name], out)
    return runs


def refused(capsys, name, *arguments):
    """Runs a recipe with what it must refuse; returns what it says."""
    with pytest.raises(SystemExit) as caught:
        common.main(RECIPES[name], [str(a) for a in arguments])
    assert caught.value.code == 2
    return " ".join(capsys.readouterr().err.split())


def weights(out, name):
    return dict(torch.load(common.weights_files(RECIPES[name], out)[-1], weights_only=True))


# -- what holds for each


@every_recipe
def test_a_run_leaves_arguments_log_curves_snapshots_weights_and_test_accuracy(name, finished):
    out, result = finished[name]
    names = {path.name for path in out.iterdir()}
    assert {"args.json", "test.json"} <= names
    assert "log" in names or name == "newts"  # two iterations of it are no entry, and less than a round
    assert json.loads((out / "test.json").read_text()) == result and 0 <= result["main/accuracy"] <= 1
    saved = common.read_args(out)
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
    common.main(RECIPES[name], ["--out", str(tmp_path), "--resume", f"--{LENGTH[name]}", "2", "--workers", "2"])
    assert sum(message.startswith("resumed from ") for message in caplog.messages) == 1
    assert equal(weights(tmp_path, name), weights(finished[name][0], name))


@every_recipe
def test_the_sample_is_drawn_where_it_is_said_and_trained_on(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = [*OPTIONS[name], f"--{LENGTH[name]}", "1", "--snapshot-interval", "1", "--workers", "0"]
    common.main(RECIPES[name], ["--sample", *options])
    out = capsys.readouterr().out
    assert "as asked by --sample; " in out
    assert all(len(line.rstrip()) <= 100 for line in out.splitlines() if re.match("epoch  |iteration  |[0-9]", line))
    folder = RECIPES[name].sample["data"]
    assert (tmp_path / folder / "drawn.txt").exists() and (tmp_path / "result/test.json").exists()
    common.main(RECIPES[name], ["--resume", f"--{LENGTH[name]}", "2", "--workers", "0"])
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
        assert (
            f"the data set cannot be fetched into {RECIPES[name].settings['data']}: " in told and "no network" in told
        )
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
    with pytest.raises(SystemExit, match="interrupted: what came is kept, and the same command goes on from there"):
        common.main(lenet_mnist.RECIPE, ["--download", "--data", str(tmp_path / "mnist"), "--out", str(tmp_path)])


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
    with pytest.raises(OSError, match="cut"), common.unfinished(root) as folder:
        (folder / "raw" / "images").mkdir(parents=True)
        (folder / "raw" / "images.gz").touch()
        (folder / "raw" / "images" / "1.jpg").touch()
        raise OSError("cut")
    assert not root.exists()
    with common.unfinished(root) as folder:
        assert [path.name for path in folder.rglob("*")] == ["raw", "images.gz"], "what is unpacked may be a part"
    assert [path.name for path in root.iterdir()] == ["raw"]


@pytest.mark.parametrize(("name", "folder"), [("alexnet_cifar10", CIFAR10.base_folder), ("lenet_mnist", "MNIST/raw")])
def test_a_data_set_that_is_not_whole_is_told_with_what_to_do(name, folder, tmp_path, capsys):
    (tmp_path / "data" / folder).mkdir(parents=True)
    told = refused(capsys, name, "--data", tmp_path / "data", "--out", tmp_path / "out")
    assert "is not whole: --download fetches " in told and "and --sample draws one." in told
    with pytest.raises(SystemExit):
        show_samples.main([name, "--data", str(tmp_path / "data")])
    assert "is not whole" in capsys.readouterr().err


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
    helps = [common.make_parser(common.load_recipe(name)) for name in common.recipe_names()]
    options = [{action.dest: action for action in parser._actions} for parser in helps]
    shared = set.intersection(*(set(actions) for actions in options))
    assert {"data", "sample", "workers", "batch_size", "lr", "device", "precision", "seed", "out", "resume"} <= shared
    plain = re.compile(r" \([^()]*(?:\([^()]*\)[^()]*)*\)$")  # without the default, which is the recipe's own
    for dest in set.union(*(set(actions) for actions in options)):
        kinds = {
            (plain.sub("", actions[dest].help), actions[dest].metavar, tuple(actions[dest].option_strings))
            for actions in options
            if dest in actions
        }
        assert len(kinds) == 1, kinds


def test_an_unknown_recipe_is_refused_with_those_that_there_are():
    with pytest.raises(
        ValueError, match="there is no recipe 'cifar'; there are alexnet_cifar10, lenet_mnist, newts, pets, resnet"
    ):
        common.load_recipe("cifar")


def test_a_run_is_resumed_by_its_own_recipe_only(finished, capsys):
    told = refused(capsys, "pets", "--resume", "--out", finished["lenet_mnist"][0])
    assert "is one of recipes/lenet_mnist.py: resume it with that." in told


@every_recipe
def test_five_random_images_of_each_split_are_drawn(name, drawn, tmp_path, capsys):
    show_samples.main([name, "--data", str(drawn[name]), *OPTIONS[name], "-o", str(tmp_path / "s.png")])
    assert (tmp_path / "s.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(SystemExit):
        show_samples.main(["--sample", "newts"])
    assert "the recipe's name comes first: show_samples.py newts ..." in capsys.readouterr().err
    with pytest.raises(SystemExit, match="there is no recipe 'absent'; there are alexnet_cifar10"):
        show_samples.main(["absent"])


# -- CIFAR-10


def test_the_small_alexnet_s_losses_are_those_of_a_loop_by_hand_to_the_bit(drawn, tmp_path, monkeypatch):
    monkeypatch.setattr(networks, "alexnet_small", ALEXNET_SMALL)
    args = common.parse(
        alexnet_cifar10.RECIPE,
        ["--data", str(drawn["alexnet_cifar10"]), "--out", str(tmp_path), "--workers", "0", "--batch-size", "8"],
    )
    splits, classes = alexnet_cifar10.load(args, True)

    trainer.random.set_seed(args.seed)
    run = common.make_run(alexnet_cifar10.RECIPE, args, splits, classes)
    losses = []
    for _ in range(4):
        with run.iteration():
            run.updater.update()
        losses.append(float(run.observation["main/loss"]))

    trainer.random.set_seed(args.seed)
    network = networks.alexnet_small(10)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    mean, std = (
        torch.tensor([255 * value for value in values]).view(3, 1, 1)  # Python's floats: rounded to float32 once
        for values in ([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010])
    )
    by_hand = []
    for images, labels in islice(common.make_iterator(args, splits["train"]), 4):
        pixels = images.to(torch.float32, memory_format=torch.contiguous_format)  # they lie as they were decoded
        loss = F.cross_entropy(network((pixels - mean) / std), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        by_hand.append(loss.item())
    assert losses == by_hand and len(set(losses)) == 4


def test_images_to_train_on_are_shifted_and_mirrored_and_those_to_test_on_are_not(drawn):
    args = common.parse(alexnet_cifar10.RECIPE, ["--data", str(drawn["alexnet_cifar10"])])
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
    order = common.whole_batches(40, 12)
    epochs = [order(np.arange(40), 0) for _ in range(2)]
    assert [len(set(epoch.tolist())) for epoch in epochs] == [36, 36]
    assert set(epochs[0].tolist()) != set(epochs[1].tolist())


def test_weights_of_each_epoch_are_saved_under_its_number(finished):
    out, _ = finished["alexnet_cifar10"]
    (out / "12.pth").touch()
    (out / "mine.pth").touch()
    assert [path.name for path in common.weights_files(alexnet_cifar10.RECIPE, out)] == ["1.pth", "2.pth", "12.pth"]
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

    resume = common.resume
    monkeypatch.setattr(common, "resume", lambda *args: (resume(*args), (out / name).mkdir()))
    with pytest.raises(SystemExit, match=rf"stands where a file is to be.*'{out}/{name}'; when that is mended --res"):
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
    args = common.parse(alexnet_cifar10.RECIPE, ["--data", str(tmp_path)])
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
    return pets.load(common.parse(pets.RECIPE, ["--data", str(data), *OPTIONS["pets"], *options]), augment)


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
    args = common.parse(pets.RECIPE, ["--data", str(drawn["pets"])])
    network, normalize = pets.make_model(args, 37, False)
    assert network(torch.zeros(1, 3, 224, 224)).shape == (1, 37)
    assert normalize.mean.flatten().tolist() == pytest.approx([255 * m for m in (0.485, 0.456, 0.406)])
    args = common.parse(pets.RECIPE, ["--data", str(drawn["pets"]), "--model", "vit_tiny_patch16_224", "--pretrained"])
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
    saved = common.read_args(trained_newts)
    change(saved["versions"])
    common.write_json(trained_newts / "args.json", saved)
    told = f"The run in {trained_newts} had its images decoded by version {then}, and this is version"
    newts.main(["--test", "--out", str(trained_newts)])
    assert caplog.messages[-1].startswith(told)
    train("newts", drawn["newts"], trained_newts, "--resume", length=4)
    assert sum(message.startswith(told) for message in caplog.messages) == 2
    assert "decoder" in common.read_args(trained_newts)["versions"]


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
        SystemExit, match=r"No space left on device: 'snapshot'; with more space --resume --out .* goes"
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
    args = common.parse(lenet_mnist.RECIPE, ["--data", str(drawn["lenet_mnist"]), "--fit", fit])
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
    args = common.parse(lenet_mnist.RECIPE, ["--data", str(drawn["lenet_mnist"])])
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


def run_in_copy(root, *command):
    """Runs a script of a copy of the packages, in place of those that the process has imported."""
    for name in [name for name in sys.modules if name.split(".")[0] in ("trainer", "extensions", "recipes")]:
        del sys.modules[name]
    sys.path.insert(0, str(root))
    os.chdir(root)
    sys.argv = list(command)
    runpy.run_path(command[0], run_name="__main__")


def test_the_recipe_of_the_docs_runs_and_the_tools_know_its_runs(tmp_path):
    root = Path(__file__).parent.parent
    for name in ("trainer", "extensions", "recipes"):
        shutil.copytree(root / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    text = (root / "docs" / "recipes.md").read_text()
    recipe = re.search(r"```python\n(.*?)```", text, re.S)[1].replace("resnet10t", "test_resnet")
    (tmp_path / "recipes" / "shapes.py").write_text(recipe)

    def run(*command):
        printed = tmp_path / "printed"
        printed.unlink(missing_ok=True)
        assert call(run_in_copy, tmp_path, *command, output=printed) == 0, printed.read_text()
        return printed.read_text()

    assert "Test accuracy: " in run("recipes/shapes.py", "--sample", "--workers", "0")
    assert "madara" in run("recipes/predict.py", "result", "data/drawn_shapes/test")
    assert (tmp_path / "result" / "model_epoch-2").exists()


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
    out, add = tmp_path / "out", common.add_extensions

    def remove(trainer):
        shutil.rmtree(out)

    def add_and_remove(recipe, args, run, evaluator):
        add(recipe, args, run, evaluator)
        run.extend(remove, "remove", trigger=(2, "iteration"))

    monkeypatch.setattr(common, "add_extensions", add_and_remove)
    with pytest.warns(UserWarning, match="is no longer as this run left it"):
        train("newts", drawn["newts"], out, length=3)
    assert common.read_args(out)["recipe"] == "newts" and (out / "cnn.pt").exists()


def test_the_death_of_a_worker_is_told_in_the_words_of_the_command_line(drawn, tmp_path, monkeypatch):
    add = common.add_extensions

    def kill(trainer):
        for process in multiprocessing.active_children():
            process.kill()
            process.join()

    def add_and_kill(recipe, args, run, evaluator):
        add(recipe, args, run, evaluator)
        run.extend(kill, "kill", trigger=(1, "iteration"))

    monkeypatch.setattr(common, "add_extensions", add_and_kill)
    expected = rf"error: a process .* by signal 9 .*take fewer --workers .*; then --resume --out {tmp_path} goes on\.$"
    with pytest.raises(SystemExit, match=expected):
        train("newts", drawn["newts"], tmp_path, "--workers", "1", length=5)
