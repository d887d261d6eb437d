"""The main job, end to end on a few drawn pictures; and what it says when something is wrong."""

import json
import math
import re
import runpy
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
import timm
import torch
from helpers import equal
from PIL import Image
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import extensions
from extensions import curves
from recipes import plot_log, resnet_products, show_samples
from recipes.parts import networks
from recipes.parts.drawn import products as drawn_products
from recipes.parts.online_products import SUPER_LABEL_NAMES
from recipes.parts.transforms import Normalize
from recipes.parts.tuning import freeze, parameter_groups
from trainer import Classifier
from trainer.iterators import SerialIterator

ROOT = Path(__file__).parent.parent
SMALL = ["--model", "test_resnet", "--image-size", "32", "--scale", "32", "--batch-size", "16", "--workers", "0"]


def train(data, out, *options):
    return resnet_products.main(["--data", str(data), "--out", str(out), *SMALL, "--epochs", "2", *options])


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "result"
    return out, train(data, out)


def refused(capsys, *arguments):
    """Runs the recipe with what it must refuse; returns what it says."""
    with pytest.raises(SystemExit) as caught:
        resnet_products.main([str(a) for a in arguments])
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_a_run_leaves_log_curves_snapshots_weights_and_test_accuracy(finished):
    out, result = finished
    names = sorted(path.name for path in out.iterdir())
    assert names == [
        *("accuracy.png", "args.json", "log", "loss.png", "model_epoch-1", "model_epoch-2"),
        *("snapshot_epoch-1", "snapshot_epoch-2", "test.json"),
    ]
    test = json.loads((out / "test.json").read_text())
    assert test == result and set(test) == {"main/accuracy", "main/loss", "n"} and test["n"] == 7
    assert 0 <= test["main/accuracy"] <= 1
    args = json.loads((out / "args.json").read_text())
    assert args["args"]["model"] == "test_resnet" and args["args"]["lr"] == 0.001 and args["classes"][11] == "toaster"
    table = pd.DataFrame(json.loads((out / "log").read_text()))
    expected = {"lr", "main/loss", "main/accuracy", "validation/main/loss", "validation/main/accuracy"}
    assert expected <= set(table) and table["epoch"].iloc[-1] == 2


def test_the_weights_are_a_plain_state_dict_and_give_the_test_accuracy(finished, data):
    out, result = finished
    model = timm.create_model("test_resnet", num_classes=12)
    model.load_state_dict(torch.load(out / "model_epoch-2", weights_only=True))
    args = resnet_products.OPTIONS.parse(["--data", str(data), *SMALL])
    test = torch.utils.data.Subset(resnet_products.load(args, False)[0]["test"], range(7))
    normalize = Normalize(resnet_products.CHAINERCV_MEAN, (1.0, 1.0, 1.0))
    iterator = SerialIterator(test, 7, repeat=False, shuffle=False)
    assert extensions.Evaluator(iterator, Classifier(model), normalize)() | {"n": 7} == pytest.approx(result)


def test_pixels_are_normalised_on_the_device_from_uint8():
    normalize = Normalize([10.0, 20.0, 30.0], [1.0, 2.0, 4.0])
    pixels, labels = normalize((torch.full((2, 3, 4, 4), 50, dtype=torch.uint8), torch.tensor([1, 2])), "cpu")
    assert pixels.dtype == torch.float32 and pixels[0, :, 0, 0].tolist() == [40, 15, 5] and labels.tolist() == [1, 2]


def test_images_and_weights_may_be_channels_last_and_the_network_compiled(finished, data, tmp_path, monkeypatch):
    compile, seen = torch.nn.Module.compile, []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compile(self, backend="eager"))  # no compiler needed
    call = Classifier.forward

    def forward(self, x, t):
        seen.append((x.is_contiguous(memory_format=torch.channels_last), x.is_contiguous()))
        return call(self, x, t)

    monkeypatch.setattr(Classifier, "forward", forward)
    train(data, tmp_path, "--channels-last", "--compile")
    torch._dynamo.reset()
    assert set(seen) == {(True, False)}
    run = torch.load(tmp_path / "snapshot_epoch-2", weights_only=True)
    assert run["settings"]["args"]["channels_last"] and run["settings"]["args"]["compile"]
    assert run["updater"]["optimizer"]["main"]["param_groups"][0]["fused"] is True
    whole, weights = (torch.load(out / "model_epoch-2", weights_only=True) for out in (finished[0], tmp_path))
    assert weights.keys() == whole.keys()
    assert weights["conv1.0.weight"].is_contiguous(memory_format=torch.channels_last)
    assert not equal(dict(whole), dict(weights)), "other kernels give other bits: they are options, and recorded"


def test_a_run_with_a_cache_is_the_same_run(finished, data, tmp_path):
    for out in ("first", "second"):  # it is filled, then read; by two workers, then by none
        train(data, tmp_path / out, "--cache", str(tmp_path / "cache"), "--workers", "2" if out == "first" else "0")
        for name in ("model_epoch-2", "test.json"):
            assert (tmp_path / out / name).read_bytes() == (finished[0] / name).read_bytes()
    (cache,) = (tmp_path / "cache").glob("train-*.cache")
    assert cache.stat().st_size > 48 * 3 * 32 * 32
    with pytest.warns(UserWarning, match=r"was made with other scale: remove it if no run needs it"):
        train(data, tmp_path / "third", "--cache", str(tmp_path / "cache"), "--scale", "40")
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_large_photographs_may_be_decoded_at_less_than_their_size(finished, data, tmp_path):
    pictures = sorted((data / "bicycle_final").iterdir())
    large = shutil.copytree(data, tmp_path / "large")
    for path in pictures:
        with Image.open(path) as image:
            image.resize((400, 300)).save(large / "bicycle_final" / path.name)
    train(large, tmp_path / "whole", "--epochs", "1")
    train(large, tmp_path / "reduced", "--epochs", "1", "--reduced-decoding")
    whole, reduced = (torch.load(tmp_path / out / "model_epoch-1", weights_only=True) for out in ("whole", "reduced"))
    assert not equal(dict(whole), dict(reduced)), "other pixels: it is an option, and recorded"
    assert json.loads((tmp_path / "reduced" / "args.json").read_text())["args"]["reduced_decoding"] is True


def test_a_resumed_run_is_the_same_run(finished, data, tmp_path, caplog):
    whole, _ = finished
    train(data, tmp_path, "--epochs", "1")
    (tmp_path / "snapshot_iter_9").write_bytes(b"x" * 100)
    assert "resumed" not in caplog.text
    resnet_products.main(["--out", str(tmp_path), "--resume", "--epochs", "2", "--workers", "1"])
    assert f"resumed from {tmp_path}/snapshot_epoch-1 at iteration " in caplog.text
    weights = [torch.load(out / "model_epoch-2", weights_only=True) for out in (whole, tmp_path)]
    assert equal(*map(dict, weights))
    logs = [
        pd.DataFrame(json.loads((out / "log").read_text())).drop(columns="elapsed_time") for out in (whole, tmp_path)
    ]
    pd.testing.assert_frame_equal(*logs, check_exact=True)


def test_a_damaged_newest_snapshot_is_passed_over(data, tmp_path, caplog):
    train(data, tmp_path)
    newest = bytearray((tmp_path / "snapshot_epoch-2").read_bytes())
    newest[1000] ^= 1
    (tmp_path / "snapshot_epoch-2").write_bytes(newest)
    resnet_products.main(["--out", str(tmp_path), "--resume"])
    assert "passed over: " in caplog.text and "snapshot_epoch-2 is damaged" in caplog.text
    assert "snapshot_epoch-1 at iteration" in caplog.text


def test_snapshots_may_come_every_so_many_iterations(data, tmp_path):
    train(data, tmp_path, "--snapshot-interval", "1")
    assert sorted(path.name for path in tmp_path.glob("snapshot_*")) == ["snapshot_iter_4", "snapshot_iter_5"]


def test_a_used_folder_is_refused_unless_the_run_in_it_may_go(finished, data, tmp_path, capsys):
    out, _ = finished
    before = (out / "log").read_bytes()
    told = refused(capsys, "--data", data, "--out", out)
    assert "result holds the files of a run, such as snapshot_epoch-1: go on with --resume, take another" in told
    assert (out / "log").read_bytes() == before
    train(data, tmp_path)
    train(data, tmp_path, "--epochs", "1", "--overwrite")
    assert sorted(p.name for p in tmp_path.glob("*epoch*")) == ["model_epoch-1", "snapshot_epoch-1"]


def test_bad_input_is_told_with_what_to_do(data, tmp_path, capsys):
    base = ("--data", data, "--out", tmp_path / "out", *SMALL)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    told = refused(capsys, "--data", tmp_path / "absent", "--out", tmp_path / "o1")
    assert "no data set at" in told and "--download" in told
    assert "Ebay_train.txt is missing" in refused(capsys, "--data", tmp_path / "empty", "--out", tmp_path / "o2")
    told = refused(capsys, *base, "--model", "resnet5")
    assert "timm has no model 'resnet5', but " in told and "resnet50" in told
    assert "--out must name a folder, got " in refused(capsys, "--data", data, *SMALL, "--out", tmp_path / "file")
    assert "No such file" in refused(capsys, *base, "--resume", tmp_path / "absent")
    assert "is not a snapshot, or is cut short" in refused(capsys, *base, "--resume", tmp_path / "file")
    assert "there is no good snapshot in" in refused(capsys, *base, "--resume")
    assert "--scale must not be smaller than --image-size" in refused(capsys, *base, "--scale", 20)
    assert "--test-fraction must be above 0 and at most 1" in refused(capsys, *base, "--test-fraction", 1.5)
    assert "--test-fraction 0.01 of 24 test images leaves none" in refused(
        capsys, *base, "--test-fraction", 0.01, *SMALL
    )
    assert "--batch-size 39 is more than the 38 training images" in refused(capsys, *base, "--batch-size", 39)
    assert "--trunk-lr-scale must be 0 or more, got nan" in refused(capsys, *base, "--trunk-lr-scale", "nan")
    assert "--batch-size must be 1 or more, got 0" in refused(capsys, *base, "--batch-size", 0)
    assert "torch sees no CUDA device here" in refused(capsys, *base, "--device", "cuda") or torch.cuda.is_available()
    assert "--workers must be 0 or more, got -1" in refused(capsys, *base, "--workers", -1)
    assert "invalid choice: 'fp8'" in refused(capsys, *base, "--precision", "fp8")


def test_what_a_resumed_run_cannot_change_is_refused(finished, tmp_path, capsys):
    out, _ = finished
    for option, value in [("model", "resnet18"), ("lr", 0.1), ("seed", 5), ("split", "tutorial"), ("freeze", "stem")]:
        told = refused(capsys, "--out", out, "--resume", f"--{option}", value)
        assert f"--{option} cannot change on --resume: the run has " in told
    assert "give --resume or --overwrite, not both" in refused(capsys, "--out", out, "--resume", "--overwrite")
    (tmp_path / "args.json").write_text("{")
    assert "args.json cannot be read" in refused(capsys, "--out", tmp_path, "--resume")


def test_a_finished_run_may_be_resumed_into_another_folder_and_on_from_there(finished, tmp_path):
    out, result = finished
    again = resnet_products.main(["--resume", str(out / "snapshot_epoch-2"), "--out", str(tmp_path)])
    assert again == pytest.approx(result)
    resnet_products.main(["--resume", str(out / "snapshot_epoch-1"), "--out", str(tmp_path), "--epochs", "3"])
    assert json.loads((tmp_path / "args.json").read_text())["args"]["epochs"] == 3
    assert (tmp_path / "model_epoch-3").exists()


def test_a_cut_snapshot_is_passed_over_with_a_word(data, tmp_path, caplog):
    train(data, tmp_path)
    newest = tmp_path / "snapshot_epoch-2"
    newest.write_bytes(newest.read_bytes()[:10000])
    resnet_products.main(["--out", str(tmp_path), "--resume"])
    assert "snapshot_epoch-2 is not a snapshot, or is cut short" in caplog.text
    assert "snapshot_epoch-1 at iteration" in caplog.text


def test_an_interrupted_run_says_how_to_go_on(data, tmp_path, monkeypatch):
    def interrupt(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(resnet_products.StandardUpdater, "update_core", interrupt)
    with pytest.raises(SystemExit, match=r"interrupted at iteration 0; --overwrite --out .* begins anew\."):
        train(data, tmp_path)


def test_a_mistyped_option_loses_nothing(data, tmp_path, capsys):
    train(data, tmp_path, "--epochs", "1")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    refused(capsys, "--data", data, "--out", tmp_path, "--overwrite", "--model", "resnet5")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_broken_photograph_stops_the_run_with_its_path(data, tmp_path):
    broken = tmp_path / "data"
    shutil.copytree(data, broken)
    path = broken / "sofa_final" / "100017_0.JPG"
    path.write_bytes(path.read_bytes()[:500])
    for workers in ("0", "1"):
        with pytest.raises(
            SystemExit, match=r"error: .*sofa_final/100017_0.JPG \(Ebay_train.txt, line \d+\) cannot be"
        ):
            train(broken, tmp_path / workers, "--workers", workers)


# -- the split


def splits(data, *options):
    return resnet_products.load(resnet_products.OPTIONS.parse(["--data", str(data), *SMALL, *options]), True)[0]


def kinds(split):
    return {split[i][1] for i in range(len(split))}


def test_the_random_split_is_80_20_by_the_seed_and_the_tutorial_s_cuts_the_list(data):
    random, again, other = splits(data), splits(data), splits(data, "--seed", "1")
    assert (len(random["train"]), len(random["valid"]), len(random["test"])) == (38, 10, 24)
    assert random["train"].indices == again["train"].indices != other["train"].indices
    tutorial = splits(data, "--split", "tutorial")
    assert list(tutorial["train"].indices) == list(range(38))
    assert kinds(tutorial["valid"]) == {9, 10, 11}


def test_it_says_which_classes_the_test_part_holds(data, tmp_path, capsys):
    train(data, tmp_path, "--epochs", "1", "--test-fraction", "0.25")
    out = capsys.readouterr().out
    assert "Testing on the first 6 of 24 test images: 3 of the 12 classes (bicycle, cabinet, chair)." in out
    assert re.search(r"Test accuracy: \d\.\d{4}\n", out)


# -- fine-tuning


def parse(*options):
    return resnet_products.OPTIONS.parse([*SMALL, "--sample", *options])


def make_model(*options):
    return resnet_products.make_model(parse(*options), 12, False)


def test_weights_of_a_file_are_loaded_and_a_head_of_another_size_replaced(tmp_path, capsys):
    other = timm.create_model("test_resnet", num_classes=5)
    torch.save(other.state_dict(), tmp_path / "w.pth")
    model, _ = make_model("--weights", str(tmp_path / "w.pth"))
    assert "its head (fc.weight, fc.bias) is of another size and is replaced by a new one" in capsys.readouterr().out
    assert torch.equal(model.layer1[0].conv1.weight, other.layer1[0].conv1.weight)
    assert model.fc.weight.shape[0] == len(SUPER_LABEL_NAMES)


def test_a_snapshot_is_no_file_of_weights(finished):
    with pytest.raises(ValueError, match="is the snapshot of a run; give the weights beside it, such as a model_epoch"):
        make_model("--weights", str(finished[0] / "snapshot_epoch-2"))


def test_weights_that_do_not_fit_are_refused_with_the_keys(tmp_path):
    torch.save(timm.create_model("resnet18", num_classes=12).state_dict(), tmp_path / "w.pth")
    with pytest.raises(
        ValueError, match=r"w.pth does not fit the model \(missing: .*; unexpected: .*; of another size"
    ):
        make_model("--weights", str(tmp_path / "w.pth"))


def test_pretrained_brings_the_model_s_own_mean_and_std(monkeypatch):
    asked = []
    create = timm.create_model

    def offline(name, pretrained=False, **kwargs):
        asked.append(pretrained)
        return create(name, **kwargs)

    monkeypatch.setattr(timm, "create_model", offline)
    _, normalize = make_model("--pretrained")
    config = create("test_resnet").pretrained_cfg
    assert asked == [True]
    assert normalize.mean.flatten().tolist() == pytest.approx([255 * m for m in config["mean"]])
    assert normalize.std.flatten().tolist() == pytest.approx([255 * s for s in config["std"]])
    _, normalize = make_model()
    assert normalize.mean.flatten().tolist() == pytest.approx(resnet_products.CHAINERCV_MEAN)
    assert normalize.std.flatten().tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("what", "trained", "frozen_norms"),
    [("none", "all", 0), ("stem", "but the stem", 3), ("trunk", "fc", "all")],
)
def test_freezing_leaves_out_gradients_and_statistics(what, trained, frozen_norms):
    model, _ = make_model()
    freeze(model, what)
    learning = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    expected = {"all": {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"}, "fc": {"fc"}}
    expected["but the stem"] = expected["all"] - {"conv1", "bn1"}
    assert learning == expected[trained]
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    frozen = [m for m in norms if not m.training]
    assert len(frozen) == (len(norms) if frozen_norms == "all" else frozen_norms)


def test_frozen_batch_norms_stay_frozen_through_training_and_evaluation(data, tmp_path):
    train(data, tmp_path, "--freeze", "trunk")
    first, last = (torch.load(tmp_path / f"model_epoch-{e}", weights_only=True) for e in (1, 2))
    changed = {key for key in first if not torch.equal(first[key], last[key])}
    assert changed == {"fc.weight", "fc.bias"}


def test_the_trunk_may_learn_at_a_rate_of_its_own(data, tmp_path):
    model, _ = make_model()
    groups = parameter_groups(model, 0.01, 0.1)
    assert [(group["lr"], len(group["params"])) for group in groups][0] == (0.01, 2)
    assert groups[1]["lr"] == pytest.approx(0.001)
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    train(data, tmp_path, "--trunk-lr-scale", "0", "--epochs", "1")


class Kernels(TorchDispatchMode):
    """Counts the operators that are dispatched; a step's number that is read is none."""

    count = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.count += operator.namespace == "aten" and operator._opname != "_local_scalar_dense"
        return operator(*args, **(kwargs or {}))


def test_adam_s_step_takes_one_kernel_and_not_some_for_each_weight():
    model = networks.create("resnet50", 12)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)

    def kernels_of(optimizer):
        with Kernels() as kernels:
            optimizer.step()
            kernels.count = 0  # the first makes the state
            optimizer.step()
        return kernels.count

    assert kernels_of(torch.optim.Adam(model.parameters(), fused=False)) > 1000
    assert kernels_of(torch.optim.Adam(parameter_groups(model, 0.001), fused=True)) < 5
    assert kernels_of(torch.optim.Adam(parameter_groups(model, 0.001, 0.1), fused=True)) < 2 * 5


@pytest.fixture(scope="module")
def scheduled(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("scheduled")
    train(data, out, "--schedule", "cosine")
    return out


def test_with_a_schedule_the_log_has_the_step_size_that_each_update_had(scheduled):
    rates = [entry["lr"] for entry in json.loads((scheduled / "log").read_text())]
    factors = [0.5, *((1 + math.cos(math.pi * t / 4)) / 2 for t in range(4))]  # a rise of one update, a fall of four
    steps = [math.sqrt(1 - 0.999**t) / (1 - 0.9**t) for t in range(1, 6)]
    assert rates == pytest.approx([0.001 * factor * step for factor, step in zip(factors, steps, strict=True)])


def test_a_run_with_a_schedule_is_resumed_to_the_bit(scheduled, tmp_path, capsys):
    resume(scheduled / "snapshot_epoch-1", tmp_path)
    whole, resumed = (torch.load(out / "model_epoch-2", weights_only=True) for out in (scheduled, tmp_path))
    assert equal(dict(whole), dict(resumed)) and "learning rate goes" not in capsys.readouterr().out


def test_another_end_of_the_schedule_is_said(scheduled, tmp_path, capsys):
    resume(scheduled / "snapshot_epoch-1", tmp_path, "--epochs", "3")
    assert "follows the curve that ends after 8 iterations" in capsys.readouterr().out


def test_a_run_from_before_schedules_and_fused_kernels_goes_on_as_it_was(data, tmp_path, monkeypatch, caplog):
    class Adam(torch.optim.Adam):
        def __init__(self, parameters, lr, fused):
            super().__init__(parameters, lr)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim, "Adam", Adam)
        train(data, tmp_path / "whole", "--schedule", "constant")
    file = tmp_path / "whole" / "args.json"
    saved = json.loads(file.read_text())
    del saved["args"]["schedule"]
    file.write_text(json.dumps(saved | {"args": saved["args"] | {"sample": True, "fused": None}}))
    caplog.clear()
    with pytest.warns(UserWarning, match="fused None, now True: .* hyperparameters and modes stay the snapshot's"):
        resume(tmp_path / "whole" / "snapshot_epoch-1", tmp_path / "on")
    run = torch.load(tmp_path / "on" / "snapshot_epoch-2", weights_only=True)
    assert run["updater"]["optimizer"]["main"]["param_groups"][0]["fused"] is None
    whole, on = (torch.load(tmp_path / name / "model_epoch-2", weights_only=True) for name in ("whole", "on"))
    assert equal(dict(whole), dict(on))
    assert json.loads((tmp_path / "on" / "args.json").read_text())["args"]["schedule"] == "constant"


def resume(snapshot, out, *options):
    resnet_products.main(["--resume", str(snapshot), "--out", str(out), *options])


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_trains(data, tmp_path, precision):
    assert 0 <= train(data, tmp_path, "--precision", precision, "--epochs", "1")["main/accuracy"] <= 1


# -- the command line


def test_help_reads_well(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["resnet_products.py", "--help"])
    with pytest.raises(SystemExit):
        runpy.run_path(str(ROOT / "recipes" / "resnet_products.py"), run_name="__main__")
    text = capsys.readouterr().out
    for option in (
        "data out epochs batch-size model pretrained image-size scale lr workers device precision seed resume"
        " snapshot-interval split freeze weights overwrite test-fraction sample download trunk-lr-scale"
    ).split():
        assert f"--{option}" in text
    assert "passes over the training images (10; 2 for the drawn sample)" in " ".join(text.split())


def test_without_photographs_it_says_so_in_one_line_and_draws(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(drawn_products, "TRAIN_PRODUCTS", 1)
    monkeypatch.setattr(drawn_products, "TEST_PRODUCTS", 1)
    resnet_products.main([*SMALL, "--epochs", "1"])
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("Pictures drawn into data/drawn_products (epochs 1, batch size 16, lr 0.002, schedule")
    assert (
        "no data at data/Stanford_Online_Products; the real ones come by --download (3.1 GB), or unpack http" in first
    )
    assert (tmp_path / "data/drawn_products/Ebay_train.txt").exists() and (tmp_path / "result/test.json").exists()


# -- pictures of it


def test_samples_are_drawn_with_label_and_name(data, tmp_path, monkeypatch):
    figure = show_samples.draw(splits(data), list(SUPER_LABEL_NAMES), 0)
    titles = [panel.get_title() for panel in figure.axes]
    assert len(titles) == 15
    assert all(re.fullmatch(r"(\d+):(\w+)", t) and SUPER_LABEL_NAMES[int(t.split(":")[0])] in t for t in titles)
    show_samples.main(["--data", str(data), "-o", str(tmp_path / "s.png"), *SMALL])
    assert (tmp_path / "s.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(("suffix", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_curves_are_drawn_in_the_format_of_the_suffix(finished, tmp_path, suffix, magic):
    path = tmp_path / f"c.{suffix}"
    plot_log.main([str(finished[0] / "log"), "-o", str(path)])
    assert path.read_bytes().startswith(magic)


def log_of(path, values):
    entries = [
        {
            "main/loss": 1 / i,
            "validation/main/loss": v,
            "lr": 0.1,
            "epoch": i // 2,
            "iteration": i * 5,
            "elapsed_time": i,
        }
        for i, v in enumerate(values, 1)
    ]
    for entry in entries:
        if entry["validation/main/loss"] is None and entry["iteration"] % 10:
            del entry["validation/main/loss"]
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(entries))
    return path


def test_each_quantity_has_a_panel_with_training_and_validation_and_several_runs(tmp_path):
    logs = {name: plot_log.read_log(log_of(tmp_path / name / "log", [None, 0.5, None, 0.7])) for name in "ab"}
    figure = curves.draw(plot_log.read_curves({"a": logs["a"]}, None, "epoch")[0], "epoch")
    assert [(p.get_xlabel(), p.get_title(loc="left"), len(p.lines)) for p in figure.axes] == [
        ("epoch", "loss", 2),
        ("epoch", "lr", 1),
    ]
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["training", "validation", "lr"]
    both = plot_log.read_curves(logs, ["main/loss", "validation/main/loss"], "iteration")[0]
    assert [t.get_text() for t in curves.draw(both, "iteration").legends[0].get_texts()] == [
        *("a training", "a validation", "b training", "b validation"),
    ]


def test_gaps_between_known_values_are_bridged_and_nothing_is_invented(tmp_path):
    logs = {"run": plot_log.read_log(log_of(tmp_path / "log", [None, 0.5, None, 0.7]))}
    found = plot_log.read_curves(logs, None, "iteration")[0]["run"]
    assert found["validation/main/loss"] == ([10, 20], [0.5, 0.7])
    assert plot_log.read_curves(logs, None, "epoch")[0]["run"]["main/loss"][0] == [0.5, 1, 1.5, 2]


def test_what_is_no_log_is_refused(tmp_path, capsys):
    def told(*arguments):
        with pytest.raises(SystemExit):
            plot_log.main([str(a) for a in arguments])
        return capsys.readouterr().err

    good = log_of(tmp_path / "good", [1.0])
    (tmp_path / "text").write_text("[1, 2")
    (tmp_path / "number").write_text("5")
    (tmp_path / "empty").write_text("[]")
    out = tmp_path / "o.png"
    assert "text is not a log: it is not JSON" in told(tmp_path / "text", "-o", out)
    assert "number is not a log: a log is a JSON list of objects" in told(tmp_path / "number", "-o", out)
    assert "empty has no entries yet" in told(tmp_path / "empty", "-o", out)
    assert "is a folder; name the log in it" in told(tmp_path, "-o", out)
    assert "No such file" in told(tmp_path / "absent", "-o", out)
    assert "no log has the key 'x'; there are main/loss" in told(good, "--keys", "x", "-o", out)
    assert "there is no screen for a window: give -o FILE" in told(good)
    assert "not supported" in told(good, "-o", tmp_path / "o.xyz")


def test_a_log_caught_while_it_grows_is_read_once_more(tmp_path, monkeypatch):
    path = log_of(tmp_path / "log", [1.0])
    whole = path.read_text()
    path.write_text(whole[:-5])
    monkeypatch.setattr(plot_log.time, "sleep", lambda seconds: path.write_text(whole))
    assert len(plot_log.read_log(path)) == 1
