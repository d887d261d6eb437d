"""One's own photographs in one command: what is found, trained, kept as the best, tested and shown; what is refused."""

import json
import re
import shutil
import tempfile

import numpy as np
import pytest
import timm
import torch
import torchvision
from helpers import bits
from PIL import Image

from recipes import finetune, predict, show_samples
from recipes.parts import trained
from trainer import saving

SMALL = ["--model", "test_resnet", "--image-size", "32", "--batch-size", "8", "--workers", "0"]
COLOURS = {"blue": (40, 60, 200), "green": (50, 180, 60), "red": (200, 50, 40)}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Folders of ten noisy pictures for each of three colours."""
    root, noise = tmp_path_factory.mktemp("photographs"), np.random.RandomState(0)
    for name, colour in COLOURS.items():
        (root / name).mkdir()
        for i in range(10):
            pixels = np.clip(np.array(colour) + noise.normal(0, 60, (40, 48, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


def train(data, out, *options, epochs=3):
    return finetune.main([str(data), "--out", str(out), *SMALL, "--epochs", str(epochs), *options])


EVERYTHING = ["--freeze", "trunk", "--unfreeze-after", "1", "--ema", "--mixup", "0.2", "--cutmix", "1"]
EVERYTHING += ["--class-weights", "--label-smoothing", "0.1", "--augment", "trivial", "--lr", "0.02"]


@pytest.fixture(scope="module")
def finished(photographs, tmp_path_factory):
    """The folder of a run with every option, and what main returned."""
    out = tmp_path_factory.mktemp("finished") / "run"
    return out, train(photographs, out, *EVERYTHING)


def log_of(out):
    return json.loads((out / "log").read_text())


def test_one_command_finds_trains_tests_and_writes_the_page(photographs, tmp_path, capsys):
    result = train(photographs, tmp_path / "run", "--lr", "0.02")
    out = capsys.readouterr().out
    assert "30 images of 3 classes" in out and "drawn from each class by the seed 0" in out
    assert (
        "test_resnet from random weights (no --pretrained); learning rate 0.02, of the trunk 0.02; frozen: none." in out
    )
    assert result == json.loads((tmp_path / "run/test.json").read_text())
    assert result["n"] == 6 and result["main/accuracy"] > 0.6
    told = json.loads((tmp_path / "run/args.json").read_text())["data"]
    page = (tmp_path / "run/report.html").read_text()
    assert len(told) > 3 and all(line in out for line in told) and told[0].split(": ")[1] in page
    there = {path.name for path in (tmp_path / "run").iterdir()}
    assert there >= {"log", "args.json", "evaluation_test.json", "confusion_test.png", "report.html", "accuracy.png"}


def test_the_best_epoch_s_weights_are_tested_and_the_tools_take_them(finished, photographs, capsys):
    out, result = finished
    accuracies = [entry["validation/main/accuracy"] for entry in log_of(out)]
    best = accuracies.index(max(accuracies)) + 1
    weights = out / f"best_epoch-{best}"
    assert sorted(out.glob("best_epoch-*"))[-1] == weights
    assert trained.load(out).weights == weights
    evaluation = json.loads((out / "evaluation_test.json").read_text())
    assert evaluation["accuracy"] == pytest.approx(result["main/accuracy"])
    predict.main([str(out), str(photographs / "red" / "0.png")])
    told = capsys.readouterr().out
    assert all(name in told for name in COLOURS)


def test_a_run_killed_before_the_trunk_learns_goes_on_to_the_same_bits(finished, photographs, tmp_path):
    out, _ = finished
    short = tmp_path / "short"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(finetune, "WarmupCosine", interrupted_after(3))  # in its second epoch
        train(photographs, short, *EVERYTHING)
    finetune.main(["--resume", "--out", str(short), "--workers", "0"])
    assert (short / "test.json").read_bytes() == (out / "test.json").read_bytes()
    for entry, other in zip(log_of(short), log_of(out), strict=True):
        assert entry | {"elapsed_time": 0} == other | {"elapsed_time": 0}
    ours, others = (saving.load(path / "snapshot_epoch-3") for path in (short, out))
    assert bits(ours["updater"]["model"]) == bits(others["updater"]["model"])
    assert bits(ours["updater"]["optimizer"]) == bits(others["updater"]["optimizer"])


def interrupted_after(iterations):
    """The schedule, and a kill at its call of that number."""

    class WarmupCosine(finetune.WarmupCosine):
        def __call__(self, trainer):
            if trainer.updater.iteration > iterations:
                raise KeyboardInterrupt
            super().__call__(trainer)

    return WarmupCosine


def test_a_frozen_trunk_learns_after_its_epoch(finished):
    out, _ = finished
    states = [saving.load(out / f"snapshot_epoch-{epoch}")["updater"] for epoch in (2, 3)]
    assert not states[1]["modes"]["main"]
    before, after = (state["model"]["main"] for state in states)
    same = {key for key in before if torch.equal(before[key], after[key])}
    assert same == {"lossfun.weight"}


def test_a_file_of_weights_is_where_it_starts_and_patience_where_it_ends(photographs, tmp_path, capsys):
    network = timm.create_model("test_resnet", num_classes=7)
    torch.save(network.state_dict(), tmp_path / "w.pth")
    options = ["--weights", str(tmp_path / "w.pth"), "--freeze", "trunk", "--lr", "0", "--patience", "1"]
    options += ["--unfreeze-after", "5"]
    train(photographs, tmp_path / "run", *options, epochs=9)
    out = capsys.readouterr().out
    assert "its head (fc.weight, fc.bias) is of another size and is replaced by a new one" in out
    assert f"from {tmp_path}/w.pth; learning rate 0, of the trunk 0; frozen: trunk for 5 epochs." in out
    assert (
        "Epoch 1 of 2 (--patience 1 ended the run, before --unfreeze-after) was the best: validation/main/accuracy 0."
        in out
    )
    assert len(log_of(tmp_path / "run")) == 2
    saved = torch.load(tmp_path / "run/best_epoch-1", weights_only=True)
    same = {key for key, value in network.state_dict().items() if torch.equal(value, saved[key])}
    assert network.state_dict().keys() - same == {"fc.weight", "fc.bias"}


@pytest.mark.full
def test_torchvision_s_trained_weights_mean_size_and_interpolation(photographs, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    weights = torchvision.models.ShuffleNet_V2_X0_5_Weights.DEFAULT
    network = torchvision.models.shufflenet_v2_x0_5()
    torch.save(network.state_dict(), tmp_path / "hub/checkpoints" / weights.url.rpartition("/")[2])
    options = ["--model", "shufflenet_v2_x0_5", "--pretrained", "--batch-size", "2", "--workers", "0"]
    finetune.main([str(photographs), "--out", str(tmp_path / "run"), *options, "--dry-run"])
    assert (
        "shufflenet_v2_x0_5 from its trained weights; learning rate 0.001, of the trunk 0.0001;"
        in capsys.readouterr().out
    )
    args = finetune.OPTIONS.parse([str(photographs), *options])
    assert finetune.load(args)[0]["test"][0][0].shape == (3, 224, 224)
    loaded, normalize = finetune.make_model(args, 3, fresh=False)
    assert torch.equal(loaded.conv1[0].weight, network.conv1[0].weight) and loaded.fc.out_features == 3
    assert (normalize.mean.flatten() / 255).tolist() == pytest.approx([0.485, 0.456, 0.406])


def test_a_dry_run_goes_through_everything_and_keeps_nothing(photographs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    train(photographs, tmp_path / "run", *EVERYTHING, "--dry-run", "--snapshot-interval", "1000", epochs=50)
    out = capsys.readouterr().out
    assert "on the 6 images of test" in out and "report.html" in out
    assert out.splitlines()[-1].startswith("The dry run went through: training, validation, snapshot, weights, test")
    assert [path.name for path in tmp_path.iterdir()] == ["temporary"]
    assert not list((tmp_path / "temporary").iterdir())


def test_samples_of_several_labels_are_drawn_and_of_none(photographs, tmp_path):
    shutil.copytree(photographs, tmp_path / "data")
    lines = ["file,tags", *(f"{name}/{i}.png,{name * (i > 4)} dark" for name in COLOURS for i in range(10))]
    (tmp_path / "data/tags.csv").write_text("\n".join(lines).replace(", dark", ","))
    options = [str(tmp_path / "data"), "--multi-label", *SMALL, "-o", str(tmp_path / "samples.png")]
    show_samples.main(["finetune", *options])
    assert (tmp_path / "samples.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.full
def test_a_table_of_several_labels(photographs, tmp_path):
    lines = ["file,labels"]
    for name in COLOURS:
        lines += [f"{name}/{i}.png,{name};{'even' if i % 2 == 0 else 'odd'}" for i in range(10)]
    shutil.copytree(photographs, tmp_path / "data")
    (tmp_path / "data/labels.csv").write_text("\n".join(lines))
    options = ["--multi-label", "--class-weights", "--mixup", "0.2", "--model", "test_vit"]
    result = train(tmp_path / "data", tmp_path / "run", *options, epochs=1)
    assert 0 <= result["main/accuracy"] <= 1 and result["n"] == 6
    assert json.loads((tmp_path / "run/args.json").read_text())["classes"] == ["blue", "even", "green", "odd", "red"]
    assert "report.html" in {path.name for path in (tmp_path / "run").iterdir()}


def test_a_table_is_found_here_and_in_the_folder_of_the_photographs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for i in range(6):
        Image.new("RGB", (8, 8), (40 * i, 0, 0)).save(f"data/{i}.png")
    lines = [f"{i},{'ab'[i % 2]}\n" for i in range(6)]
    for table in ("data/l.csv", "m.csv"):
        (tmp_path / table).write_text("id,label\n" + "".join(lines))
    for table in ("l.csv", "data/l.csv", "m.csv"):
        args = finetune.OPTIONS.parse(["data", "--table", table, "--model", "test_resnet"])
        finetune.check(args)
        assert finetune.load(args)[1] == ["a", "b"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], r"name the folder of the photographs: finetune\.py DIR\."),
        (["nowhere"], "nowhere is no folder: name the one of the photographs"),
        (["{data}", "--pretrained", "--weights", "w"], "give --pretrained or --weights, not both"),
        (
            ["{data}", "--unfreeze-after", "2"],
            "--unfreeze-after 2 needs --freeze stem or trunk, and more --epochs than",
        ),
        (["{data}", "--freeze", "trunk", "--unfreeze-after", "30"], "and more --epochs than that, got --freeze trunk"),
        (["{data}", "--model", "resnet5"], "timm has no model 'resnet5', but .*resnet50"),
        (["{data}", "--model", "lenet"], r"the network cannot take images of shape \(3, 32, 32\)"),
        (
            ["{data}", "--batch-size", "1", "--image-size", "32"],
            "batches of one image leave one value for a batch norm",
        ),
        (["{data}", "--weights", "absent.pth"], "absent.pth"),
        (["{data}", "--label-smoothing", "1"], r"--label-smoothing must be 0 to 0.9, got 1"),
        (["{data}", "--mixup", "nan"], "--mixup must be 0 or more, got nan"),
        (["{data}", "--patience", "0"], "--patience must be 1 or more, got 0"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line_and_nothing_is_written(
    photographs, tmp_path, monkeypatch, capsys, options, told
):
    monkeypatch.chdir(tmp_path)
    options = [option.format(data=photographs) for option in options]
    options = [*options, "--workers", "0"] if "--model" in options else [*options, *SMALL[:2], *SMALL[-2:]]
    with pytest.raises(SystemExit) as caught:
        finetune.main(options)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert re.fullmatch(rf"\S+: error: .*{told}.*\n", error)
    assert not list(tmp_path.iterdir())


def test_a_new_head_begins_near_zero_and_one_that_fits_as_it_is(finished, tmp_path):
    out, _ = finished
    weights = next(out.glob("best_epoch-*"))
    options = ["--model", "test_resnet", "--image-size", "32", "--weights", str(weights)]
    args = finetune.OPTIONS.parse([str(tmp_path), *options])
    state = torch.load(weights, weights_only=True)
    own, _ = finetune.make_model(args, len(state["fc.bias"]), fresh=False)
    assert torch.equal(own.fc.weight, state["fc.weight"])
    other, _ = finetune.make_model(args, len(state["fc.bias"]) + 1, fresh=False)
    assert 0 < other.fc.weight.abs().max() < 0.01
    assert all(torch.equal(value, state[key]) for key, value in other.state_dict().items() if not key.startswith("fc."))
