"""The runs that same_bits.py compares. Each is small and takes one way through the engine, the data or the plug-ins.

They must run with old code and with new code, so they use public names only. A process of its own runs them all with
the one tree that PYTHONPATH names, and writes what came out as JSON: ``same_bits_runs.py first|resumed FOLDER FILE``.
"""

import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import time
import traceback
import warnings
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import extensions as E
import trainer.random
from trainer import Classifier, Extension, Ratio, StandardUpdater, Trainer, Weighted, make_extension, report
from trainer.datasets import TransformDataset
from trainer.iterators import (
    MultiprocessIterator,
    MultithreadIterator,
    SerialIterator,
    ShuffleOrderSampler,
    StratifiedOrderSampler,
    WeightedOrderSampler,
)
from trainer.triggers import (
    BestValueTrigger,
    EarlyStoppingTrigger,
    ManualScheduleTrigger,
    MaxValueTrigger,
    MinValueTrigger,
    OnceTrigger,
)

try:
    from trainer.saving import load, load_weights
except ImportError:
    from trainer.checkpoint import load, load_weights
try:
    from trainer.datasets import CachedDataset
except ImportError:
    from trainer.cache import CachedDataset

STOP = 7  # the iteration of the snapshot that is resumed from: no epoch ends there
SKIPPED = {"elapsed_time", "run_id", "environment", "args", "format"}  # of a snapshot: clock, chance, and versions

SETUPS = {}


def setup(function):
    SETUPS[function.__name__] = function
    return function


# -- parts of runs


def points(n=23, ignore=False):
    generator = torch.Generator().manual_seed(n)
    return [(torch.randn(4, generator=generator), -100 if ignore and i % 4 == 1 else i * 7 % 3) for i in range(n)]


def network(dropout=0.0):
    layers = [nn.Linear(4, 8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 3)]
    return nn.Sequential(*layers)


class Augmented(Dataset):
    """Small images, cropped, flipped and noised from every global generator."""

    def __init__(self, n=23):
        self.images = np.random.RandomState(0).randint(0, 256, (n, 1, 5, 5)).astype(np.float32)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        top, left = random.randint(0, 1), int(np.random.randint(0, 2))
        image = torch.from_numpy(self.images[index, :, top : top + 4, left : left + 4].copy()) / 255
        if torch.rand(()) < 0.5:
            image = image.flip(2)
        return (image + 0.1 * torch.randn(image.shape)).flatten()[:4] * random.gauss(1, 0.1), index % 3


class Faulty(Augmented):
    """Two of its samples cannot be read."""

    def __getitem__(self, index):
        if index in (3, 11):
            raise OSError(f"sample {index} is broken")
        return super().__getitem__(index)


class Drawing(Dataset):
    """Draws from the generator that it is given."""

    def __len__(self):
        return 23

    def __getitem__(self, index):
        raise AssertionError("draw_sample comes first")

    def draw_sample(self, index, generator):
        return torch.randn(4, generator=generator) + index, index % 3


class Wide(nn.Module):
    """Reports values of every kind, and of any weight."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x, t):
        y = self.linear(x)
        loss = nn.functional.cross_entropy(y, t)
        hits = (y.argmax(1) == t).sum()
        report({"loss": loss, "ratio": Ratio(hits, len(t)), "plain": len(t) / 3, "tensor": y.mean()}, self)
        report({"weighted": Weighted(y.max(), int((t == 0).sum()))}, self)
        report({"double": y.double().std(), "integer": int(hits)}, self)
        if len(t) > 2:
            report({"at_times": Weighted(float(y[2, 0]), 2)}, self)
        return loss


def updater_of(iterator, model=None, optimizer=torch.optim.Adam, lr=0.01, **kwargs):
    model = Classifier(network(0.2)) if model is None else model
    return StandardUpdater(iterator, optimizer(model.parameters(), lr=lr), model=model, **kwargs)


def run_of(updater, out, stop=(3, "epoch"), log=(0.4, "epoch")):
    """A trainer with a log, a snapshot at STOP, and a list ``seen`` for what a set-up itself wants compared."""
    run = Trainer(updater, stop, out=out)
    run.seen = []
    run.extend(E.LogReport(trigger=log, postprocess=lambda entry: entry.pop("elapsed_time")))
    at_stop = ManualScheduleTrigger([STOP], "iteration")
    run.extend(E.snapshot(filename="snapshot_{.updater.iteration}"), trigger=at_stop, name="saver")
    return run


# -- the runs


@setup
def plain(out):
    run = run_of(updater_of(SerialIterator(points(), 5)), out)
    run.extend(E.observe_lr(), trigger=(1, "iteration"))
    run.printed = io.StringIO()
    run.extend(E.PrintReport(["epoch", "iteration", "main/loss", "main/accuracy", "lr"], out=run.printed))
    return run


@setup
def in_order(out):
    return run_of(updater_of(SerialIterator(points(), 4, shuffle=False), optimizer=torch.optim.SGD), out)


@setup
def drawn_samples(out):
    return run_of(updater_of(SerialIterator(Drawing(), 5)), out)


@setup
def accumulated(out):
    loader = DataLoader(points(ignore=True), batch_size=5, shuffle=True)  # batches of 5 and 3
    updater = updater_of(loader, accumulate=3, clip_norm=0.5, clip_value=0.3)
    return run_of(updater, out, stop=(11, "iteration"))


@setup
def accumulated_wide(out):
    return run_of(updater_of(SerialIterator(points(), 5), Wide(), accumulate=2), out, stop=(6, "epoch"))


@setup
def bf16(out):
    return run_of(updater_of(SerialIterator(points(), 5), precision="bf16", clip_norm=1.0), out)


class GANUpdater(StandardUpdater):
    def update_core(self):
        generator, critic = self.get_model("generator"), self.get_model("critic")
        x, _ = self.next_batch()
        fake = generator(torch.randn(len(x), 2))
        loss = (critic(fake.detach()) - critic(x)).mean()
        self.get_optimizer("critic").zero_grad()
        self.backward(loss)
        self.step("critic")
        report({"loss": loss}, critic)
        other, _ = self.next_batch("second")
        loss = -critic(generator(torch.randn(len(other), 2))).mean()
        self.get_optimizer("generator").zero_grad()
        self.backward(loss)
        self.step("generator")
        report({"loss": loss}, generator)


@setup
def gan(out):
    models = {"generator": nn.Linear(2, 4), "critic": nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))}
    optimizers = {name: torch.optim.Adam(model.parameters(), lr=0.02) for name, model in models.items()}
    iterators = {"main": SerialIterator(points(), 5), "second": SerialIterator(points(13), 4, seed=5)}
    return run_of(GANUpdater(iterators, optimizers, model=models), out)


@setup
def workers(out):
    return run_of(updater_of(MultiprocessIterator(Augmented(), 5, n_processes=2)), out)


@setup
def threads(out):
    return run_of(updater_of(MultithreadIterator(Drawing(), 5, n_threads=2)), out)


@setup
def loader(out):
    return run_of(updater_of(DataLoader(Augmented(), batch_size=5, shuffle=True)), out)


@setup
def loader_with_generator(out):
    given = torch.Generator().manual_seed(3)
    return run_of(updater_of(DataLoader(points(), batch_size=6, shuffle=True, generator=given, drop_last=True)), out)


@setup
def evaluator(out):
    wide = Wide()
    run = run_of(updater_of(SerialIterator(points(), 5), wide), out)
    short = SerialIterator(points(11), 4, repeat=False, shuffle=False)
    run.extend(E.Evaluator(short, wide), trigger=(4, "iteration"))
    ignored = SerialIterator(points(11, ignore=True), 4, repeat=False, shuffle=False)
    run.extend(E.Evaluator(ignored, Classifier(wide.linear)), name="ignored")
    many = MultithreadIterator(points(90), 37, repeat=False, shuffle=False, n_threads=2)
    run.extend(E.Evaluator(many, Classifier(nn.Sequential(wide.linear, nn.Linear(3, 200)))), name="many_classes")
    loader = DataLoader(points(11), batch_size=4)
    run.extend(E.Evaluator(loader, wide, eval_func=lambda x, t: report({"sum": x.sum()}, wide)), name="loader")
    return run


@setup
def ignored_labels(out):
    return run_of(updater_of(SerialIterator(points(ignore=True), 5)), out)


@setup
def dense_labels(out):
    """Scores and labels of shape (N, C, 2); then a run of which the labels are probabilities, evaluated."""
    data = [(torch.stack([x, x.flip(0)], 1), torch.tensor([t, -100 if t == 2 else t])) for x, t in points()]
    model = Classifier(nn.Conv1d(4, 3, 1))
    run = run_of(updater_of(SerialIterator(data, 5), model), out)
    soft = [(x, torch.softmax(x[:3], 0)) for x, _ in points(11)]
    target = Classifier(nn.Linear(4, 3))
    run.extend(E.Evaluator(SerialIterator(soft, 4, repeat=False, shuffle=False), target), name="soft")
    return run


@setup
def dict_batches(out):
    data = [{"input": x, "target": t} for x, t in points()]
    model = Classifier(network(), label_key="target")
    return run_of(updater_of(SerialIterator(data, 5), model), out)


@setup
def shifts(out):
    run = run_of(updater_of(SerialIterator(points(), 5), optimizer=torch.optim.SGD, lr=0.1), out)
    optimizers = []

    def optimizer(*rates):
        groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates or (0.3,)]
        optimizers.append(torch.optim.SGD(groups, momentum=0.9))
        return optimizers[-1]

    run.extend(E.ExponentialShift("lr", 0.9))
    for shift in (
        E.ExponentialShift("lr", 0.7, target=0.05, optimizer=optimizer(0.3, 0.7)),
        E.ExponentialShift("momentum", 1.2, init=-0.3, target=-1.1, optimizer=optimizer()),
        E.InverseShift("lr", 0.3, 0.75, optimizer=optimizer()),
        E.InverseShift("lr", gamma=0.3, power=-0.75, init=0.7, target=1.3, optimizer=optimizer()),
        E.LinearShift("momentum", (0.5, 0.95), (2, 12), optimizer=[optimizer(), optimizer(0.1, 0.2)]),
        E.MultistepShift("lr", 0.3, [2, 2, 7, 11], optimizer=optimizer()),
        E.MultistepShift("lr", 0.3, [4, 9], 0.77, optimizer=optimizer()),
        E.PolynomialShift("lr", 0.9, 11, optimizer=optimizer()),
        E.PolynomialShift("lr", 0.9, 11, 0.77, 0.2, optimizer=optimizer()),
        E.StepShift("lr", 0.7, 3, optimizer=optimizer()),
        E.StepShift("lr", 0.7, 2.5, 0.77, 0.3, optimizer=optimizer()),
        E.WarmupShift("lr", 0.01, 9, optimizer=optimizer(0.3, 0.7)),
        E.WarmupShift("lr", warmup_iter=9, init=0.123, optimizer=optimizer()),
    ):
        run.extend(shift)
    by_epoch = optimizer()
    run.extend(E.ExponentialShift("lr", 0.7, optimizer=by_epoch), trigger=(0.5, "epoch"), name="by_epoch")
    numbers = [g for o in (*optimizers, run.updater.get_optimizer("main")) for g in o.param_groups]
    run.extend(lambda t: t.seen.append([[g["lr"], g["momentum"]] for g in numbers]), name="see", priority=1000)
    return run


@setup
def warmup_then_steps(out):
    run = run_of(updater_of(SerialIterator(points(), 5), lr=0.2), out)
    run.updater.get_optimizer("main").param_groups[0]["lr"] = torch.tensor(0.2)
    run.extend(E.MultistepShift("lr", 0.1, [8, 11]))
    run.extend(E.WarmupShift("lr", 0.01, 5))
    run.extend(E.observe_lr(bias_corrected=True), trigger=(1, "iteration"))
    return run


@setup
def scheduler(out):
    run = run_of(updater_of(SerialIterator(points(), 5), optimizer=torch.optim.SGD, lr=0.1), out)
    schedulers = torch.optim.lr_scheduler
    optimizer = run.updater.get_optimizer("main")
    run.extend(E.LRScheduler(schedulers.CosineAnnealingLR(optimizer, 9)), trigger=(1, "iteration"))
    plateau = schedulers.ReduceLROnPlateau(optimizer, patience=0, threshold=10)
    run.extend(E.LRScheduler(plateau, "main/loss"), trigger=(0.5, "epoch"), name="plateau")
    run.extend(E.observe_lr(), trigger=(1, "iteration"))
    return run


def bumpy(trainer):
    return abs(trainer.updater.iteration - 9) + 0.1 * (trainer.updater.iteration % 3)


@setup
def early_stopping(out):
    trigger = EarlyStoppingTrigger((2, "iteration"), "bumpy/loss", 3, max_trigger=(9, "epoch"))
    run = run_of(updater_of(SerialIterator(points(), 5)), out, stop=trigger)
    run.extend(E.observe_value("bumpy/loss", bumpy), trigger=(1, "iteration"))
    return run


@setup
def best_value(out):
    run = run_of(updater_of(SerialIterator(points(), 5)), out)
    run.extend(E.observe_value("bumpy", bumpy), trigger=(1, "iteration"))
    model = run.updater.get_model("main")
    least = MinValueTrigger("bumpy", (2, "iteration"))
    run.extend(E.snapshot_object(model.predictor, "least_{.updater.iteration}"), trigger=least)
    most = MaxValueTrigger("main/accuracy", (0.5, "epoch"))
    run.extend(E.snapshot_object(model, "most_{.updater.iteration}", n_retains=2), trigger=most)
    much = BestValueTrigger("main/loss", lambda best, new: new < 0.98 * best, (2, "iteration"))
    run.extend(lambda trainer: trainer.seen.append(trainer.updater.iteration), name="much", trigger=much)
    return run


@setup
def micro_average(out):
    run = run_of(updater_of(SerialIterator(points(), 5), Wide()), out)
    run.extend(E.MicroAverage("main/integer", "main/plain", "micro", trigger=(0.7, "epoch")))
    run.extend(E.MicroAverage("main/ratio", "main/weighted", "odd", trigger=(3, "iteration")), name="odd")
    return run


@setup
def statistics(out):
    run = run_of(updater_of(SerialIterator(points(), 5), Wide()), out)
    model = run.updater.get_model("main")
    run.extend(E.ParameterStatistics(model.linear, trigger=(0.5, "epoch")))
    run.extend(E.ParameterStatistics(model, {"max": torch.max}, prefix="own", trigger=(3, "iteration")), name="own")
    run.extend(E.PlotReport(["main/loss", "main/at_times"], "epoch_detail", trigger=(1, "epoch")))
    run.extend(E.VariableStatisticsPlot(model, max_sample_size=5, trigger=(2, "epoch")))
    return run


@setup
def bad_samples(out):
    run = run_of(updater_of(SerialIterator(Faulty(), 5, on_bad_sample="skip")), out)
    test = SerialIterator(Faulty(), 4, repeat=False, shuffle=False, on_bad_sample="skip")
    run.extend(E.Evaluator(test, run.updater.get_model("main")))
    return run


@setup
def bad_samples_of_workers(out):
    return run_of(updater_of(MultiprocessIterator(Faulty(), 5, n_processes=1, on_bad_sample="skip")), out)


def sampled(out, sampler):
    return run_of(updater_of(SerialIterator(points(), 5, order_sampler=sampler)), out)


@setup
def weighted_order(out):
    return sampled(out, WeightedOrderSampler([i % 4 for i in range(23)], 21))


@setup
def stratified_order(out):
    return sampled(out, StratifiedOrderSampler([label for _, label in points()]))


@setup
def shuffled_order(out):
    return sampled(out, ShuffleOrderSampler())


def noisy(sample):
    x, t = sample
    return x + 0.1 * torch.randn(x.shape) * random.random(), t


@setup
def cached(out):
    data = TransformDataset(CachedDataset(points(), Path(out) / "cache" / "points", "23 points"), noisy)
    return run_of(updater_of(SerialIterator(data, 5)), out)


class Counter(Extension):
    priority = 150
    trigger = (2, "iteration")

    def __init__(self):
        self.count, self.last = 0, torch.zeros(2)

    def __call__(self, trainer):
        self.count += 1
        self.last = self.last + torch.rand(2)
        trainer.seen.append(["counter", trainer.updater.iteration, self.count])

    def state_dict(self):
        return {"count": self.count, "last": self.last}

    def load_state_dict(self, state):
        self.count, self.last = state["count"], state["last"]


@setup
def order_of_calls(out):
    run = run_of(updater_of(SerialIterator(points(), 5)), out)
    triggers = {
        "often": (0.3, "epoch"),
        "seldom": (1.5, "epoch"),
        "third": (3, "iteration"),
        "listed": ManualScheduleTrigger([0.5, 1, 1.7], "epoch"),
        "once": OnceTrigger(),
        "on_resume": OnceTrigger(call_on_resume=True),
        "own": lambda trainer: trainer.updater.epoch_detail % 0.4 < 0.2,
    }

    def say(what):
        return lambda trainer: trainer.seen.append([what, trainer.updater.iteration, trainer.updater.epoch_detail])

    for index, (name, trigger) in enumerate(triggers.items()):
        run.extend(say(name), name=name, trigger=trigger, priority=[100, 300, -200, 100, -1000, 200, 100][index])
    run.extend(say("before"), name="before", trigger=(1, "epoch"), call_before_training=True)
    run.extend(make_extension(trigger=(1, "epoch"), priority=250)(say("made")), name="made")
    run.extend(Counter())
    return run


@setup
def seeded_iterator(out):
    return run_of(updater_of(SerialIterator(points(), 5, seed=12345)), out)


@setup
def failing(out):
    """Fails in the middle of an iteration, is saved then, and is not resumed but in STOP."""
    run = run_of(updater_of(SerialIterator(points(), 5)), out)
    run.extend(E.snapshot(filename="last_{.updater.iteration}", snapshot_on_error=True), trigger=(5, "iteration"))

    def fail(trainer):
        if trainer.updater.iteration == 12:
            raise ZeroDivisionError("on purpose")

    run.extend(fail, name="fail")
    return run


@setup
def own_loop(out):
    run = run_of(updater_of(SerialIterator(points(), 5)), out)

    def loop():
        updater = run.updater
        model, optimizer = updater.get_model("main"), updater.get_optimizer("main")
        while not run.finished:
            with run.iteration():
                x, t = updater.next_batch()
                optimizer.zero_grad()
                model(x, t).backward()
                optimizer.step()

    run.loop = loop
    return run


# -- what came out


def leaves(value, path="", found=None):
    """The leaves of a nest by path, as text: a tensor's kind and a digest of its bits, or Python's ``repr``."""
    found = {} if found is None else found
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(value.astype(np.int64) if value.dtype == np.uint32 else value)
    if isinstance(value, (dict, list, tuple)):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            if key not in SKIPPED:
                leaves(part, f"{path}/{key}" if path else str(key), found)
    elif isinstance(value, torch.Tensor):
        flat = value.detach().cpu().contiguous().flatten()
        digest = hashlib.sha256(flat.view(torch.uint8).numpy().tobytes()).hexdigest()[:16]
        begin = ", ".join(f"{x:.9g}" for x in flat[:2].tolist())
        found[path] = f"{value.dtype}{list(value.shape)} {digest} ({begin}, ...)"
    else:
        found[path] = repr(value)
    return found


def outcome(run, out, error):
    updater = run.updater
    parts = {
        "error": error,
        "weights": {name: model.state_dict() for name, model in updater.get_all_models().items()},
        "optimizer": {name: part.state_dict() for name, part in updater.get_all_optimizers().items()},
        "iterator": {
            name: getattr(updater, name)
            for name in ("iteration", "epoch", "epoch_detail", "previous_epoch_detail", "is_new_epoch", "batch_size")
        },
        "random": {
            "python": random.getstate()[1:],
            "numpy": np.random.get_state()[1:],
            "torch": torch.get_rng_state(),
        },
        "seen": run.seen,
        "log": run.get_extension("LogReport").log,
        "observation": {key: float(value) for key, value in run.observation.items()},
        "state at the end": run.state_dict(),
    }
    if hasattr(run, "printed"):
        parts["printed"] = run.printed.getvalue().splitlines()
    files = sorted(path for path in Path(out).rglob("*") if path.is_file() and not path.name.startswith("."))
    parts["names of files"] = [str(path.relative_to(out)) for path in files]
    digests = {}
    for path in files:
        name = str(path.relative_to(out))
        if path.name.startswith(("snapshot_", "last_")):
            parts[f"snapshot {name}"] = load(path)
        elif path.name.startswith(("least_", "most_")):
            parts[f"weights {name}"] = load_weights(path)
        else:
            digests[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    parts["contents of files"] = digests
    return {part: leaves(value) for part, value in parts.items()}


# The sample runs of the recipes, short; and what their resumed runs are asked for.
RECIPES = {
    "resnet_products": ("--epochs 1", "--epochs 2"),
    "alexnet_cifar10": ("--epochs 1 --batch-size 250", "--epochs 2"),
    "pets": ("--epochs 1", "--epochs 2"),
    "newts": ("--iterations 10 --snapshot-interval 5", "--iterations 15"),
    "lenet_mnist": ("--epochs 1 --batch-size 200", "--epochs 2"),
}


def train(name, out, options):
    """Runs a recipe in a process of its own; returns what it has left in its folder."""
    command = [sys.executable, "-m", f"recipes.{name}", "--out", str(out), *options.split()]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    parts = {"error": None if done.returncode == 0 else done.stdout.splitlines()[-1:]}
    for path in sorted(path for path in Path(out).iterdir() if not path.name.startswith(".")):
        if path.name == "log" or path.name.startswith(("test.", "evaluation_")):
            parts[f"entries of {path.name}"] = json.loads(path.read_text())
        elif path.name.startswith("snapshot_"):  # the log's digest in it is of a file that holds times
            snapshot = leaves(load(path))
            parts[f"snapshot {path.name}"] = {key: leaf for key, leaf in snapshot.items() if "LogReport" not in key}
        elif path.suffix in (".pth", ".pt") or path.name.startswith("model_"):
            parts[f"weights {path.name}"] = load_weights(path)
    parts["names of files"] = sorted(path.name for path in Path(out).iterdir() if not path.name.startswith("."))
    return {part: leaves(value) for part, value in parts.items()}


class Killed(BaseException):
    """No Exception: nothing is saved on it."""


def perform(name, out, stop=None, resume=None):
    trainer.random.set_seed(3)
    run = SETUPS[name](out)
    if resume is not None:
        run.resume(resume)
    if stop is not None:

        def kill(trainer):
            if trainer.updater.iteration == stop + 1:
                raise Killed

        run.extend(kill, name="kill", priority=10_000)
    error = None
    try:
        run.loop() if hasattr(run, "loop") else run.run(show_loop_exception_msg=False)
    except Killed:
        return None
    except Exception as raised:
        error = repr(raised)
    return outcome(run, out, error)


def main(part, folder, file, *names):
    warnings.simplefilter("ignore")
    folder = Path(folder)
    outcomes, times = {}, {}
    for name in names or [*SETUPS, *RECIPES]:
        begin = time.perf_counter()
        stopped = folder / "stopped" / name
        try:
            if name in RECIPES:
                options = ("--sample " + RECIPES[name][0], "--resume " + RECIPES[name][1])[part != "first"]
                outcomes[name] = train(name, stopped, options)
            elif part == "first":
                outcomes[name] = perform(name, folder / "whole" / name)
                shutil.rmtree(folder / "whole" / name)
                perform(name, stopped, stop=STOP)
            else:
                outcomes[name] = perform(name, stopped, resume=stopped / f"snapshot_{STOP}")
        except Exception:
            outcomes[name] = {"cannot run": {"traceback": traceback.format_exc()}}
        times[name] = time.perf_counter() - begin
    result = {"root": str(Path(trainer.__file__).parent.parent), "outcomes": outcomes, "times": times}
    Path(file).write_text(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
