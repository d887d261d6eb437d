"""What a porter from Chainer reads: the ported examples, the guide's code, and the tests that its tables name."""

import ast
import importlib.util
import json
import os
import re
import runpy
import struct
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import processes
import pytest
import torch
from helpers import equal, make_data, make_run
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import StackDataset, Subset, TensorDataset

import extensions
from extensions import snapshot_writers
from trainer import Classifier, StandardUpdater, Trainer, report, saving
from trainer.iterators import SerialIterator
from trainer.triggers import EarlyStoppingTrigger, MaxValueTrigger, MinValueTrigger

ROOT = Path(__file__).parent.parent
DATA = make_data(10)
EXAMPLES = ROOT / "docs" / "examples"
PAGE = (ROOT / "docs" / "from_chainer.md").read_text()

# 3 x 5 pixels a digit, rows from the top
GLYPHS = "75557 26227 71747 71717 55711 74717 74757 71111 75757 75717".split()


def run_example(name, *arguments, cwd):
    """Runs a script in a process of its own; returns what it printed."""
    printed = cwd / f"{name}.printed"
    printed.unlink(missing_ok=True)
    arguments = [*map(str, arguments), "--device", "cpu"]
    assert processes.call(run_script, EXAMPLES / name, arguments, cwd, output=printed) == 0, printed.read_text()
    return printed.read_text()


def run_script(path, arguments, cwd):
    os.chdir(cwd)
    sys.argv = [str(path), *arguments]
    runpy.run_path(str(path), run_name="__main__")


def load_example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read_log(out):
    entries = json.loads((out / "log").read_text())
    return [{key: value for key, value in entry.items() if key != "elapsed_time"} for entry in entries]


def assert_same_run(whole, resumed, iteration):
    """Weights, optimizers, order and random numbers are the same to the bit, and so are the logs."""
    a, b = (saving.load(out / f"snapshot_iter_{iteration}") for out in (whole, resumed))
    assert equal(a["updater"], b["updater"]) and equal(a["random"], b["random"])
    assert read_log(whole) == read_log(resumed)


# -- MNIST


def draw_digits(n, seed):
    """Digits of 28 x 28 pixels, at a random place and with noise."""
    draw = np.random.RandomState(seed)
    labels = draw.randint(0, 10, n).astype(np.uint8)
    images = draw.randint(0, 60, (n, 28, 28)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        glyph = np.array([[row >> 2 & 1, row >> 1 & 1, row & 1] for row in map(int, GLYPHS[label])])
        top, left = draw.randint(3, 6), draw.randint(7, 10)
        image[top : top + 20, left : left + 12] += (190 * np.kron(glyph, np.ones((4, 4)))).astype(np.uint8)
    return images, labels


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mnist")
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for seed, (name, n) in enumerate([("train", 400), ("t10k", 100)]):
        images, labels = draw_digits(n, seed)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 0x803, n, 28, 28) + images.tobytes())
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, n) + labels.tobytes())
    return folder


@pytest.fixture(scope="module")
def mnist(digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    options = ("--data", digits, "-b", 10, "-u", 200, "-f", 1, "-e", 3)
    printed = run_example("train_mnist.py", *options, cwd=folder)
    return folder, options, printed


def test_mnist_learns_and_leaves_log_curves_graph_and_snapshots(mnist):
    folder, _, printed = mnist
    out = folder / "result"
    names = {"log", "cg.dot", "loss.png", "accuracy.png", "snapshot_iter_40", "snapshot_iter_80", "snapshot_iter_120"}
    assert {path.name for path in out.iterdir()} == names
    log = read_log(out)
    kinds = {f"{prefix}main/{value}" for prefix in ("", "validation/") for value in ("loss", "accuracy")}
    assert [set(entry) for entry in log] == [kinds | {"epoch", "iteration"}] * 3
    assert log[2]["main/loss"] < 0.6 * log[0]["main/loss"] and log[2]["validation/main/accuracy"] > 0.8
    assert "main/predictor/l3" in (out / "cg.dot").read_text()
    for name in ("loss.png", "accuracy.png"):
        with Image.open(out / name) as image:
            image.load()
            assert image.size > (300, 200)
    table = [line.split() for line in printed.splitlines()[1:]]
    assert table[0][:3] == ["epoch", "main/loss", "validation/main/loss"] and [row[0] for row in table[1:]] == [*"123"]


def test_mnist_resumed_is_the_same_run(mnist):
    folder, options, _ = mnist
    resume = ("--resume", "result/snapshot_iter_40", "--out", "resumed")
    run_example("train_mnist.py", *options, *resume, cwd=folder)
    assert_same_run(folder / "result", folder / "resumed", 120)


def test_mnist_goes_on_by_itself_and_without_plots(mnist, tmp_path, monkeypatch):
    folder, options, _ = mnist
    for name in ("log", "snapshot_iter_40"):
        (tmp_path / name).write_bytes((folder / "result" / name).read_bytes())
    arguments = [*map(str, options), "-e", "2", "--out", str(tmp_path), "--autoload", "--noplot", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["train_mnist.py", *arguments])
    torch.set_num_threads(1)  # as in the snapshot
    with pytest.warns(UserWarning, match="not registered by now. The state is kept for when it is extended"):
        load_example("train_mnist").main()
    assert read_log(tmp_path) == read_log(folder / "result")[:2]
    assert {path.name for path in tmp_path.iterdir()} == {"log", "snapshot_iter_40", "snapshot_iter_80"}


def test_mnist_that_is_nowhere_is_told(tmp_path, capsys, monkeypatch):
    (tmp_path / "file").touch()  # no folder can be made there, and nothing is downloaded
    monkeypatch.setattr(sys, "argv", ["train_mnist.py", "--data", str(tmp_path / "file")])
    with pytest.raises(SystemExit) as caught:
        load_example("train_mnist").main()
    assert caught.value.code == 2
    assert re.search(r"MNIST is not in \S+file/MNIST/raw and could not be downloaded", capsys.readouterr().err)


# -- DCGAN


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    draw = np.random.RandomState(0)
    for i in range(10):
        Image.fromarray(draw.randint(0, 256, (32, 32, 3)).astype(np.uint8)).save(folder / f"{i}.png")
    (folder / "notes.txt").touch()
    return folder


@pytest.mark.full
def test_dcgan_draws_images_and_resumes_as_the_same_run(pictures, tmp_path):
    options = ("-i", pictures, "-b", 2, "-e", 1, "--snapshot_interval", 2, "--display_interval", 1)
    printed = run_example("train_dcgan.py", *options, cwd=tmp_path)
    whole, resumed = tmp_path / "result", tmp_path / "resumed"
    assert "contains 10 image files" in printed and "gen/loss" in printed
    kinds = [f"{kind}_iter_{i}" for kind in ("snapshot", "gen", "dis") for i in (2, 4)]
    assert {path.name for path in whole.iterdir()} == {"log", "preview", *kinds}
    assert [set(entry) for entry in read_log(whole)] == [{"gen/loss", "dis/loss", "epoch", "iteration"}] * 5
    for i in (2, 4):
        with Image.open(whole / "preview" / f"image{i:08}.png") as image:
            image.load()
            assert image.size == (320, 320) and image.mode == "RGB"

    run_example("train_dcgan.py", *options, "-r", whole / "snapshot_iter_2", "-o", resumed, cwd=tmp_path)
    assert_same_run(whole, resumed, 4)
    for name in ("gen_iter_4", "dis_iter_4"):
        assert equal(*(dict(torch.load(out / name, weights_only=True)) for out in (whole, resumed)))
    assert (whole / "preview/image00000004.png").read_bytes() == (resumed / "preview/image00000004.png").read_bytes()


def make_dcgan(dcgan, **options):
    gen, dis = dcgan.Generator(5, ch=16), dcgan.Discriminator(ch=16)
    images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    optimizers = {"gen": dcgan.make_optimizer(gen), "dis": dcgan.make_optimizer(dis)}
    return dcgan.DCGANUpdater(SerialIterator(images, 4), optimizers, model={"gen": gen, "dis": dis}, **options)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_dcgan_updates_both_networks_in_any_precision(tmp_path, precision):
    updater = make_dcgan(load_example("train_dcgan"), precision=precision)
    before = {name: nn.utils.parameters_to_vector(m.parameters()) for name, m in updater.get_all_models().items()}
    run = Trainer(updater, (2, "iteration"), out=tmp_path)
    run.run()
    assert set(run.observation) == {"gen/loss", "dis/loss"} and all(float(v) > 0 for v in run.observation.values())
    for name, model in updater.get_all_models().items():
        after = nn.utils.parameters_to_vector(model.parameters())
        assert torch.isfinite(after).all() and not torch.equal(after, before[name])
        assert all(p.requires_grad or bool((p == 1).all()) for p in model.parameters())


def test_the_discriminator_s_step_is_its_own():
    dcgan = load_example("train_dcgan")
    updater = make_dcgan(dcgan)
    gen, seen = updater.get_model("gen"), []
    original = updater.step

    def step(name="main"):
        seen.append((name, [p.grad is None or not p.grad.any() for p in gen.parameters()]))
        original(name)

    updater.step = step
    updater.update()
    (first, without), (second, with_gradients) = seen
    assert (first, second) == ("dis", "gen") and all(without) and not any(with_gradients[-2:])


def test_drawing_images_changes_nothing_in_the_run(tmp_path):
    dcgan = load_example("train_dcgan")
    gen = dcgan.Generator(5, ch=16)
    run = SimpleNamespace(out=tmp_path, updater=SimpleNamespace(iteration=7))
    state, weights = torch.get_rng_state(), {key: value.clone() for key, value in gen.state_dict().items()}
    make_image = dcgan.out_generated_image(gen, 2, 3, seed=1)
    make_image(run)
    first = (tmp_path / "preview" / "image00000007.png").read_bytes()
    make_image(run)
    assert first == (tmp_path / "preview" / "image00000007.png").read_bytes()
    assert torch.equal(state, torch.get_rng_state()) and equal(weights, dict(gen.state_dict()))
    assert all(module.training for module in gen.modules())


def test_images_of_another_size_are_refused(tmp_path):
    Image.new("RGB", (40, 32)).save(tmp_path / "a.png")
    images = load_example("train_dcgan").get_images(tmp_path, "")
    with pytest.raises(ValueError, match=r"RGB of 32x32 pixels, got one of shape \(3, 32, 40\)"):
        images[0]


# -- ImageNet


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    draw = np.random.RandomState(0)
    for name, n in (("train", 30), ("val", 6)):
        lines = []
        for i in range(n):
            path = f"{name}_{i}.jpg"
            Image.fromarray(draw.randint(0, 256, (40, 36, 3)).astype(np.uint8)).save(folder / path)
            lines.append(f"{path} {i % 3}\n")
        (folder / f"{name}.txt").write_text("".join(lines))
    np.save(folder / "mean.npy", np.full((3, 40, 36), 127.5))
    return folder


def test_imagenet_logs_saves_and_resumes_with_workers_as_the_same_run(photographs, tmp_path):
    lists = (photographs / "train.txt", photographs / "val.txt")
    options = (*lists, "-R", photographs, "-a", "test_resnet", "--crop", 32, "-B", 4, "-E", 3, "--test")
    options += ("--mean", photographs / "mean.npy")
    printed = run_example("train_imagenet.py", *options, "-j", 0, cwd=tmp_path)
    whole, resumed = tmp_path / "result", tmp_path / "resumed"
    kinds = [f"{kind}_iter_{i}" for kind in ("snapshot", "model") for i in (10, 20)]
    assert {path.name for path in whole.iterdir()} == {"log", "cg.dot", *kinds}
    log = read_log(whole)
    values = {f"{prefix}main/{value}" for prefix in ("", "validation/") for value in ("loss", "accuracy")}
    assert [set(entry) for entry in log] == [values | {"epoch", "iteration", "lr"}] * 2 and log[0]["lr"] == 0.01
    assert "validation/main/accuracy" in printed

    from_10 = ("-j", 2, "-r", whole / "snapshot_iter_10", "-o", resumed)  # in the second epoch
    from_10 += ("--initmodel", whole / "model_iter_20")  # which the snapshot overrules
    run_example("train_imagenet.py", *options, *from_10, cwd=tmp_path)
    assert_same_run(whole, resumed, 20)
    assert equal(*(dict(torch.load(out / "model_iter_20", weights_only=True)) for out in (whole, resumed)))


def test_training_images_are_cropped_and_flipped_at_random_and_others_in_the_middle():
    preprocess = load_example("train_imagenet").preprocess
    image = torch.arange(36.0).view(1, 6, 6).expand(3, 6, 6)
    mean = torch.ones(3, 1, 1)
    middle, label = preprocess((image, 5), mean, 4, is_training=False)
    assert label == 5 and torch.equal(middle, (image[:, 1:5, 1:5] - 1) / 255)
    crops = [preprocess((image, 5), mean, 4, is_training=True)[0] for _ in range(200)]
    corners = {round(float(crop[0, 0, 0] * 255 + 1)) for crop in crops}
    flipped = {bool(crop[0, 0, 0] > crop[0, 0, 1]) for crop in crops}
    assert flipped == {True, False} and len(corners) == 3 * 6  # three columns from the left, three from the right
    with pytest.raises(ValueError, match="an image of 6x6 is smaller than the crop, 8x8"):
        preprocess((image, 5), mean, 8, is_training=True)


# -- the guide


def side(diff, sign):
    """Returns one side of a diff: what stays, and the lines with that sign."""
    return "\n".join(line[1:] for line in diff.splitlines() if not line or line[0] in (" ", sign))


def test_the_guide_s_code_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    draw = torch.Generator().manual_seed(0)
    train, test = (TensorDataset(torch.rand(n, 784, generator=draw), torch.arange(n) % 10) for n in (200, 50))
    (tmp_path / "images").mkdir()
    for i in range(8):
        Image.new("RGB", (32, 28)).save(tmp_path / "images" / f"{i}.png")
    (tmp_path / "train.txt").write_text("".join(f"{i}.png {i}\n" for i in range(8)))
    arrays = {}
    for name, (n_in, n_out) in {"l1": (784, 20), "l2": (20, 20), "l3": (20, 10)}.items():
        arrays[f"predictor/{name}/W"] = np.random.normal(size=(n_out, n_in)).astype(np.float32)
        arrays[f"predictor/{name}/b"] = np.random.normal(size=n_out).astype(np.float32)
    np.savez_compressed("mlp.npz", **arrays)

    names = {"train": train, "test": test, "resume": None, "images": torch.rand(20, 12)}
    names["windows"] = [(torch.rand(5, 4, 3), torch.randint(6, (5, 4))) for _ in range(7)]
    names |= {"gen": nn.Linear(100, 12), "dis": nn.Linear(12, 1)}
    blocks = re.findall(r"```(python|diff)\n(.*?)```", PAGE, re.DOTALL)
    assert [kind for kind, _ in blocks].count("diff") == 2 and len(blocks) == 15
    for kind, code in blocks:
        if kind == "diff":
            ast.parse(side(code, "-"))
            code = side(code, "+").replace('"cuda"', '"cpu"')
        exec(code.replace("n_processes=8", "n_processes=0"), names)

    assert "validation/main/accuracy" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "result").iterdir()} == {"log", "cg.dot", "loss.png", "snapshot_iter_40"}
    assert set(names["gan_trainer"].observation) == {"gen/loss", "dis/loss"}
    assert len(names["accuracies"]) == 3
    assert [set(entry) for entry in names["search"].get_extension("LogReport").log] == [
        {"main/loss", "epoch", "iteration", "elapsed_time"}
    ] * 4
    weights = names["model"].state_dict()
    for key, array in arrays.items():
        key = key.replace("/", ".").replace(".W", ".weight").replace(".b", ".bias")
        assert np.array_equal(weights[key], array)


def test_every_test_that_the_guide_names_is_there():
    cited = re.findall(r"`(tests/\w+\.py)::(\w+)`", PAGE)
    assert len(set(cited)) > 20
    for path, name in cited:
        tree = ast.parse((ROOT / path).read_text())
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, f"{path}::{name}"


def test_the_guide_s_table_has_a_test_in_each_row():
    chapter = PAGE.split("## Where Chainer is not followed")[1].split("\n## ")[0]
    rows = [line for line in chapter.splitlines() if line.startswith("| ") and "---" not in line]
    rows = [row for row in rows if not row.endswith("| shown by |")]
    assert len(rows) == 17 + 13 and all("::test_" in row.split(" | ")[2] for row in rows)


# -- where Chainer is not followed


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_a_shifted_lr_is_right_from_the_first_update_after_autoload(tmp_path, k):
    def rates(out, stop):
        seen = []
        run = make_run(out, (stop, "iteration"))
        run.extend(extensions.WarmupShift("lr", warmup_start=0.01, warmup_iter=2))
        run.extend(extensions.MultistepShift("momentum", 0.5, [3, 4], init=0.8))
        run.extend(extensions.snapshot(autoload=True), trigger=(1, "iteration"))
        original = run.updater.update_core

        def update_core():
            group = run.updater.get_optimizer("main").param_groups[0]
            seen.append((group["lr"], group["momentum"]))
            original()

        run.updater.update_core = update_core
        run.run()
        return seen

    whole = rates(tmp_path / "whole", 6)
    assert whole[0] == (0.01, 0.8) and len(set(whole)) > 3
    assert rates(tmp_path / "parts", k) + rates(tmp_path / "parts", 6) == whole


def test_early_stopping_keeps_its_patience_over_a_resume(tmp_path):
    def run_until_stopped(out, limit=None):
        trigger = EarlyStoppingTrigger((1, "iteration"), "main/gain", patience=4, mode="max", max_trigger=(20, "epoch"))
        run = make_run(out, trigger)
        gains = [0, 1, 2, 5, 4, 3, 2, 1, 6, 7]
        observe = extensions.observe_value("main/gain", lambda run: gains[run.updater.iteration])
        run.extend(observe, trigger=(1, "iteration"))
        run.extend(extensions.snapshot(autoload=True), trigger=(1, "iteration"))
        while not run.finished and run.updater.iteration != limit:
            with run.iteration():
                run.updater.update()
        run.finalize()
        return run.updater.iteration

    whole = run_until_stopped(tmp_path / "whole")
    assert whole == 7  # the best is at 3
    assert run_until_stopped(tmp_path / "parts", 5) == 5
    assert run_until_stopped(tmp_path / "parts") == whole


def test_early_stopping_asks_for_the_mode_of_an_unknown_quantity():
    with pytest.raises(ValueError, match="mode must be 'max' or 'min' here: 'validation/main/bleu'"):
        EarlyStoppingTrigger(monitor="validation/main/bleu")
    assert EarlyStoppingTrigger(monitor="validation/main/bleu", mode="max").mode == "max"


WRITERS = ["ThreadWriter", "ThreadQueueWriter", "ProcessWriter", "ProcessQueueWriter"]


def write_slowly(state, file):
    time.sleep(0.05)
    torch.save(state, file)


@pytest.mark.parametrize("name", WRITERS)
def test_a_writer_in_the_background_saves_what_was_and_keeps_to_retention(tmp_path, name):
    run = make_run(tmp_path)
    model, weights = run.updater.get_model("main"), {}
    run.extend(lambda run: weights.update({run.updater.iteration: model.predictor.weight.tolist()}), name="remember")
    writer = getattr(snapshot_writers, name)(savefun=write_slowly)
    run.extend(
        extensions.snapshot_object(model, "m_{.updater.iteration}", writer=writer, n_retains=2),
        trigger=(1, "iteration"),
    )
    run.run()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m_3", "m_4"]
    for i in (3, 4):
        assert torch.load(tmp_path / f"m_{i}", weights_only=True)["predictor.weight"].tolist() == weights[i]


def fail(state, file):
    raise OSError("the disk is full")


@pytest.mark.parametrize("name", WRITERS)
def test_a_failure_in_the_background_is_raised(tmp_path, name):
    run = make_run(tmp_path, (1, "iteration"))
    writer = getattr(snapshot_writers, name)(savefun=fail)
    run.extend(extensions.snapshot(writer=writer), trigger=(1, "iteration"))
    with pytest.raises(OSError, match="the disk is full"):
        run.run(show_loop_exception_msg=False)
    assert list(tmp_path.iterdir()) == []


def test_seven_shifts_share_one_mechanism():
    seven = [extensions.ExponentialShift, extensions.InverseShift, extensions.LinearShift, extensions.MultistepShift]
    seven += [extensions.PolynomialShift, extensions.StepShift, extensions.WarmupShift]
    for shift in seven:
        own = {name for name, value in vars(shift).items() if callable(value) and not name.startswith("_")}
        assert shift.__bases__ == seven[0].__bases__ and own == {"value"}


@pytest.mark.parametrize("kind", [MaxValueTrigger, MinValueTrigger])
def test_nan_is_never_a_best_value(tmp_path, kind):
    run, values, fired = (
        make_run(tmp_path),
        [float("nan"), 2.0, float("nan"), 3.0 if kind is MaxValueTrigger else 1.0],
        [],
    )
    run.extend(extensions.observe_value("x", lambda run: values[run.updater.iteration - 1]), trigger=(1, "iteration"))
    run.extend(lambda run: fired.append(run.updater.iteration), name="best", trigger=kind("x", (1, "iteration")))
    run.run()
    assert fired == [2, 4]


def test_savefun_is_called_as_torch_save_is(tmp_path):
    run = make_run(tmp_path, (1, "iteration"))
    model = run.updater.get_model("main")
    run.extend(extensions.snapshot_object(model, "weights", savefun=torch.save), trigger=(1, "iteration"))
    run.run()
    assert equal(dict(torch.load(tmp_path / "weights", weights_only=True)), dict(model.state_dict()))


# -- what differs without a word


def block_with(text):
    (block,) = [block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if text in block]
    return block


@pytest.mark.parametrize("is_told", [False, True])
def test_functional_dropout_is_off_in_evaluation_only_if_it_is_told(is_told):
    class Net(nn.Module):
        def forward(self, x):
            return F.dropout(x, 0.5, self.training) if is_told else F.dropout(x, 0.5)

    x = torch.ones(1000)
    assert torch.equal(Net().eval()(x), x) == is_told


def test_the_state_of_the_guide_s_lstm_comes_back_on_a_resume(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw = torch.Generator().manual_seed(0)
    windows = [
        (torch.rand(5, 4, 3, generator=draw), torch.randint(6, (5, 4), generator=draw)) for _ in range(4)
    ]  # an epoch is four iterations
    script = block_with("class BPTTUpdater").replace('(2, "epoch"), out="text").run()', "stop, out=out)")
    script = script.replace("Trainer(", "run = Trainer(")
    names = {"windows": windows, "torch": torch, "F": F, "report": report, "Trainer": Trainer}
    names |= {"StandardUpdater": StandardUpdater, "SerialIterator": SerialIterator}

    def make(out, stop):
        torch.manual_seed(0)
        exec(script, names | {"stop": (stop, "iteration"), "out": out}, made := {})
        made["run"].extend(extensions.snapshot(filename="s"), trigger=(stop, "iteration"))
        return made["run"]

    def state(run):
        return {**run.updater.get_model("main").state_dict(), "hidden": run.updater.hidden}

    whole = make("whole", 9)
    whole.run()
    assert any(part.abs().sum() > 0 for part in whole.updater.hidden)
    for stop in range(1, 9):
        make(f"parts_{stop}", stop).run()
        resumed = make(f"rest_{stop}", 9)
        resumed.resume(f"parts_{stop}/s")
        resumed.run()
        assert equal(state(resumed), state(whole))


def test_a_link_without_gradient_is_not_trained_and_its_batch_norm_goes_on_counting(tmp_path):
    body = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).requires_grad_(False)
    model = Classifier(nn.Sequential(body, nn.Linear(2, 3)))
    before = body[0].weight.clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    run = Trainer(StandardUpdater(SerialIterator(DATA, 5), optimizer, model=model), (4, "iteration"), out=tmp_path)
    run.run()
    assert torch.equal(body[0].weight, before) and body[1].num_batches_tracked == 4


def test_a_hook_scales_the_gradient_of_one_parameter_before_it_is_clipped(tmp_path):
    def step(scale, **kwargs):
        torch.manual_seed(0)
        model = Classifier(nn.Linear(2, 3))
        before = model.predictor.weight.detach().clone()
        model.predictor.weight.register_hook(lambda grad: scale * grad)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        updater = StandardUpdater(SerialIterator(DATA, 5, shuffle=False), optimizer, model=model, **kwargs)
        updater.update()
        return model.predictor.weight.detach() - before

    assert torch.allclose(step(0.5), 0.5 * step(1.0))
    assert step(1000.0, clip_value=0.01).abs().max() <= 0.01 + 1e-6


@pytest.mark.parametrize(("init", "expected"), [(None, [0.005, 0.05]), (0.1, [0.05, 0.05])])
def test_init_of_a_shift_is_that_of_all_groups(tmp_path, init, expected):
    model = Classifier(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 3)))
    body, head = model.predictor
    optimizer = torch.optim.SGD([{"params": body.parameters(), "lr": 0.01}, {"params": head.parameters()}], lr=0.1)
    run = Trainer(StandardUpdater(SerialIterator(DATA, 5), optimizer, model=model), (1, "iteration"), out=tmp_path)
    run.extend(extensions.ExponentialShift("lr", 0.5, init=init))
    run.run()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(expected)


def test_a_slice_of_a_stack_is_no_data_set_of_six():
    stack = StackDataset(np.zeros((10, 2), "f"), np.arange(10))
    assert type(stack[:6]) is tuple and len(stack[:6]) == 2
    assert len(Subset(stack, range(6))) == 6 and len(Subset(stack, range(6))[5]) == 2


def test_a_loss_function_stands_in_for_the_model_in_training_and_evaluation(tmp_path):
    net, calls = nn.Linear(2, 3), []

    def lossfun(x, t):
        calls.append(net.training)
        loss = F.cross_entropy(net(x), t)
        report({"loss": loss}, net)
        return loss

    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    updater = StandardUpdater(SerialIterator(DATA, 5), optimizer, model=net, loss_func=lossfun)
    run = Trainer(updater, (1, "epoch"), out=tmp_path)
    run.extend(extensions.Evaluator(SerialIterator(DATA, 5, repeat=False), net, eval_func=lossfun))
    run.run()
    assert {"main/loss", "validation/main/loss"} <= set(run.observation) and calls == [True, True, False, False]


def test_without_an_iterator_epochs_are_refused_at_the_start(tmp_path):
    names = {"torch": torch, "extensions": extensions, "report": report, "Trainer": Trainer}
    names["StandardUpdater"] = StandardUpdater
    script = block_with("class Search").replace('trigger=(5, "iteration")', "").replace('"search"', "out")
    with pytest.raises(ValueError, match="Search has no iterator, so there are no epochs: count iterations"):
        exec(script, names | {"out": tmp_path})


def test_a_resume_may_come_before_the_extensions(tmp_path):
    first = make_run(tmp_path, (1, "epoch"))
    first.extend(extensions.LogReport(trigger=(1, "iteration")))
    first.extend(extensions.snapshot(filename="s"))
    first.run()
    run = make_run(tmp_path)
    run.resume(tmp_path / "s")
    run.extend(extensions.LogReport(trigger=(1, "iteration")))
    run.extend(extensions.snapshot(filename="s"))
    run.run()
    assert [entry["iteration"] for entry in json.loads((tmp_path / "log").read_text())] == [1, 2, 3, 4]
