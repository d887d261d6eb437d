"""A small run with all that a real one has, and the places at which it can be killed."""

import functools
import importlib
import io
import itertools
import json
import multiprocessing
import operator
import os
import pathlib
import re
import signal
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import torch
from helpers import Augmented

import extensions
import trainer.random
from extensions import snapshot_writers
from trainer import Classifier, Extension, StandardUpdater, Trainer, saving
from trainer.iterators import MultiprocessIterator
from trainer.saving import files
from trainer.triggers import BestValueTrigger, EarlyStoppingTrigger

LENGTH = 23  # iterations; no snapshot but the final one is due in the last


class Setup(NamedTuple):
    """What may change from one start of a run to the next; ``plots`` and ``kind`` may not."""

    workers: int = 0
    evaluation_workers: int = 0
    writer: str = "SimpleWriter"
    plots: bool = False
    kind: str = "plain"  # of updater: one of KINDS
    method: str = "fork"  # by which workers are started


class Data(Augmented):
    def __init__(self, name, n):
        super().__init__(n)
        self.name = name


class Gan(StandardUpdater):
    """Two models that learn in turn, each on a batch of its own, with noise drawn in between."""

    def update_core(self):
        for name in ("main", "critic"):
            x, t = self.next_batch()
            noise = torch.randn(())
            loss = self.get_model(name)(x + noise, t) + 0.1 * self.get_model("main").predictor(x).square().mean()
            self.get_optimizer(name).zero_grad()
            loss.backward()
            self.step(name)


class Recurrent(torch.nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net, self.rnn = net, torch.nn.LSTM(8, 8, batch_first=True)

    def forward(self, x):
        return self.net(x)


class Carried(StandardUpdater):
    """An LSTM over the rows of an image, whose state is carried on from batch to batch."""

    saved = ("hidden",)
    hidden = None

    def update_core(self):
        x, t = self.next_batch()
        net = self.get_model("main").predictor
        self.hidden = self.hidden or (torch.zeros(1, 1, 8), torch.zeros(1, 1, 8))
        _, hidden = net.rnn(x.mean(1).mean(0, keepdim=True), self.hidden)
        self.hidden = tuple(part.detach() for part in hidden)
        loss = self.get_model("main")(x, t) + hidden[0].square().mean()
        self.get_optimizer("main").zero_grad()
        loss.backward()
        self.step()


class Average(Extension):
    """An exponential moving average of the weights, which is evaluated too."""

    trigger = (1, "iteration")
    saved = ("average",)

    def __init__(self, model):
        multi_avg_fn = torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)
        self.average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=multi_avg_fn, use_buffers=True)

    def __call__(self, trainer):
        self.average.update_parameters(trainer.updater.get_model("main"))


KINDS = ("plain", "gan", "lbfgs", "lstm", "ema")


def make_updater(kind, net, iterator):
    model = Classifier(net)
    if kind == "lbfgs":
        return StandardUpdater(iterator, torch.optim.LBFGS(net.parameters(), lr=0.1, max_iter=3), model=model)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    if kind == "lstm":
        return Carried(iterator, optimizer, model=model)
    if kind == "gan":
        critic = Classifier(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.BatchNorm1d(192), torch.nn.Linear(192, 3)))
        optimizers = {"main": optimizer, "critic": torch.optim.RMSprop(critic.parameters(), lr=0.01)}
        return Gan(iterator, optimizers, model={"main": model, "critic": critic})
    return StandardUpdater(iterator, optimizer, model=model)


def train(out, setup, ready, place=None, marker=None):
    """Trains, from the newest snapshot in ``out`` if there is one, to the end or to a place at which it is killed.

    The file ``ready`` appears when training is about to begin.
    """
    torch.set_num_threads(1)
    warnings.filterwarnings("error", category=UserWarning)  # a resume has nothing to say
    warnings.filterwarnings("ignore", "This DataLoader will create")
    multiprocessing.set_start_method(setup.method, force=True)
    if place is not None:
        arm(place, Path(marker))
    trainer.random.set_seed(3)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(),
        torch.nn.Dropout(0.3),
        torch.nn.Flatten(),
        torch.nn.Linear(144, 3),
    )
    if setup.kind == "lstm":
        net = Recurrent(net)
    iterator = MultiprocessIterator(Data("training", 32), 6, n_processes=setup.workers)
    updater = make_updater(setup.kind, net, iterator)
    model, optimizer = updater.get_model("main"), updater.get_optimizer("main")
    validation = MultiprocessIterator(
        Data("validation", 14), 6, repeat=False, shuffle=False, n_processes=setup.evaluation_workers
    )
    stop = EarlyStoppingTrigger((3, "iteration"), "main/loss", patience=20, max_trigger=(LENGTH, "iteration"))
    run = Trainer(updater, stop, out=out)
    run.extend(extensions.observe_lr(bias_corrected=setup.kind != "lbfgs"), trigger=(1, "iteration"))
    if setup.kind == "ema":
        run.extend(average := Average(model))
        other = MultiprocessIterator(Data("validation", 14), 6, repeat=False, shuffle=False)
        run.extend(extensions.Evaluator(other, average.average.module), "average", trigger=(1, "epoch"))
    run.extend(extensions.ExponentialShift("lr", 0.9), trigger=(4, "iteration"))
    run.extend(extensions.LRScheduler(torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)), trigger=(1, "epoch"))
    run.extend(extensions.Evaluator(validation, model), trigger=(0.5, "epoch"))
    run.extend(extensions.LogReport(trigger=(0.3, "epoch")))
    run.extend(extensions.PrintReport(["iteration", "main/loss", "validation/main/loss"]), trigger=(0.3, "epoch"))
    if setup.plots:
        run.extend(extensions.PlotReport(["main/loss"], trigger=(9, "iteration")))
    writer = getattr(snapshot_writers, setup.writer)
    run.extend(
        extensions.snapshot_object(net, "weights_{.updater.iteration}", n_retains=2, writer=writer()),
        trigger=(3, "iteration"),
    )
    run.extend(extensions.snapshot(n_retains=2, autoload=True, writer=writer()), trigger=(2, "iteration"))
    run.extend(
        extensions.snapshot(filename="best_{.updater.iteration}", n_retains=1, link="best"),
        trigger=BestValueTrigger("validation/main/loss", operator.ne, (0.5, "epoch")),  # many a new best
    )
    run.extend(extensions.snapshot(filename="final"), trigger=stop.reached)
    Path(ready).touch()
    run.run()


def essence(out):
    """What must be the same: the log and everything saved at the end, but for the clock and what names the run."""
    state, log = saving.load(out / "final"), json.loads((out / "log").read_text())
    for entry in log:
        del entry["elapsed_time"]
    del state["run_id"], state["elapsed_time"]
    parts = {name: entry["extension"] for name, entry in state["extensions"].items()}
    del parts["LogReport"]["file"]["sha256"], parts["LogReport"]["file"]["bytes"]  # the clock's digits
    for part in parts.values():
        if "files" in part:
            del part["files"]["kept"][:-1]  # a writer in the background may not be done with the older ones yet
    return state, log


# -- places


class Place(NamedTuple):
    """Where a process is killed: before, halfway through, or after a call.

    Attributes:
        operation: What is called: a key of ``OPERATIONS``.
        subject: A regular expression that is searched for in what it is called on.
        moment: ``"before"``, ``"half"`` (of the bytes) or ``"after"``.
        passage: The how many-th call that matches.
        victim: ``"itself"``, or ``"parent"`` when a data-loading worker or a writer kills the training process.
        lingers: Whether the one that killed its parent goes on only when the file ``marker`` is gone.
    """

    operation: str
    subject: str
    moment: str = "before"
    passage: int = 1
    victim: str = "itself"
    lingers: bool = False


class File(io.BufferedWriter):
    """The file that ``saving.write`` opens, with a method ``write`` that can be replaced."""


def _open(path, mode):
    return File(io.FileIO(path, mode)) if mode == "wb" else open(path, mode)


def _path(args):
    return str(args[0])


def _target(args):
    return str(args[1])


def _file(args):
    return os.readlink(f"/proc/self/fd/{args[0] if isinstance(args[0], int) else args[0].fileno()}")


OPERATIONS = {  # where the function is, its name, and what tells the subject from its arguments
    "open": (files, "open", _path),
    "write": (File, "write", _file),
    "append": (os, "pwrite", _file),
    "truncate": (os, "ftruncate", _file),
    "fsync": (os, "fsync", _file),
    "replace": (os, "replace", _target),
    "unlink": (pathlib.Path, "unlink", _path),
    "symlink": (pathlib.Path, "symlink_to", _path),
    "load": (importlib.import_module("trainer.saving.run"), "load", _path),
    "fetch": (Data, "__getitem__", lambda args: args[0].name),
    "forward": (torch.nn.Sequential, "forward", lambda args: "training" if args[0].training else "evaluation"),
    "backward": (StandardUpdater, "backward", lambda args: str(args[0].iteration)),
    "step": (
        importlib.import_module("torch.optim.adam"),
        "adam",
        lambda args: "",
    ),  # inside Adam.step, when its state is at hand
}


def arm(place, marker):
    """Has the process killed at a place; the file ``marker`` then says which processes outlive it."""
    files.open = _open
    owner, name, subject = OPERATIONS[place.operation]
    original, passages = getattr(owner, name), itertools.count(1)

    @functools.wraps(original)
    def wrapped(*args, **kwargs):
        if not re.search(place.subject, subject(args)) or next(passages) != place.passage:
            return original(*args, **kwargs)
        if place.moment == "half":
            original(*[arg[: len(arg) // 2] if isinstance(arg, (bytes, memoryview)) else arg for arg in args])
        result = original(*args, **kwargs) if place.moment == "after" else None
        if place.operation == "write":
            args[0].flush()
        is_itself = place.victim == "itself"
        lasting = [child.pid for child in multiprocessing.active_children()] if is_itself else [os.getpid()]
        marker.write_text(" ".join(map(str, lasting)))
        os.kill(os.getpid() if is_itself else os.getppid(), signal.SIGKILL)
        deadline = time.monotonic() + 60
        while place.lingers and marker.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        if place.moment == "half":
            args = [arg[len(arg) // 2 :] if isinstance(arg, (bytes, memoryview)) else arg for arg in args]
        return result if place.moment == "after" else original(*args, **kwargs)

    setattr(owner, name, wrapped)
