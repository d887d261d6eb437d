"""A run is a value: resumed in a new process from any iteration, with any number of workers, it is the same run."""

import contextlib
import functools
import os
import random
import re
import shutil
import subprocess
import sys
import warnings

import numpy as np
import processes
import pytest
import torch
from helpers import Augmented, bits
from torch import nn
from torch.nn import functional as F
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader

import extensions as E
import trainer.random
from trainer import Classifier, Extension, StandardUpdater, Trainer, report, saving
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

VALID = {"repeat": False, "shuffle": True}


class Drawn(Augmented):
    """Draws from the generator that it is handed, so that threads may fetch it."""

    def __getitem__(self, index):
        raise AssertionError("draw_sample is asked in its place")

    def draw_sample(self, index, generator):
        image = torch.from_numpy(self.images[index, :, 2:10, 2:10]) / 255
        return image + 0.3 * torch.randn(image.shape, generator=generator), index % 3


class Drawing(Extension):
    """Draws from every generator of the model's stream, when it starts too, and adds up what it has drawn."""

    total = 0.0

    def initialize(self, trainer):
        random.random(), np.random.rand(), torch.rand(())

    def __call__(self, trainer):
        self.total += random.gauss(0, 1) + float(np.random.randn()) + float(torch.rand(()))
        report({"drawn": self.total})

    def state_dict(self):
        return {"total": self.total}

    def load_state_dict(self, state):
        self.total = state["total"]


def classifier():
    return Classifier(
        nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(144, 3)
        )
    )


# -- the runs: each a function of the folder, the device and the number of workers


def stops_early(out, device, workers):
    """Workers for training and evaluation; the best is kept; a plateau lowers the rate, and another ends the run."""
    model = classifier()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3)
    iterator = MultiprocessIterator(Augmented(), 6, n_processes=workers)
    updater = StandardUpdater(iterator, optimizer, model=model, device=device, clip_norm=1.0)
    stop = EarlyStoppingTrigger(monitor="score", patience=2, mode="min", max_trigger=(6, "epoch"))
    run = Trainer(updater, stop, out)
    run.extend(E.Evaluator(MultiprocessIterator(Augmented(13), 5, n_processes=workers, **VALID), model))
    test = E.Evaluator(SerialIterator(Augmented(7), 4, repeat=False, shuffle=False), model)
    run.extend(test, name="test", trigger=(0.4, "epoch"), call_before_training=True)
    run.extend(E.LRScheduler(lr_scheduler.ReduceLROnPlateau(optimizer, patience=0), "validation/main/loss"))
    run.extend(E.observe_value("score", lambda t: [3.0, 2.0, 2.5, 2.2][t.updater.epoch - 1]))  # on any machine
    run.extend(E.observe_lr(), trigger=(1, "iteration"))
    run.extend(Drawing(), priority=1000)
    run.extend(E.LogReport(trigger=(0.3, "epoch"), postprocess=lambda entry: entry.update(twice=2 * entry["epoch"])))
    run.extend(E.PrintReport(["iteration", "main/loss", "test/main/accuracy"]), trigger=(0.5, "epoch"))
    best = E.snapshot(filename="best_{.updater.iteration}", n_retains=1, link="best")
    run.extend(best, name="best", trigger=MinValueTrigger("score"))
    return run


def has_a_scaler(out, device, workers):
    """fp16 whose scale grows and overflows, three weighted batches an update, a warm-up, statistics of everything."""
    model = classifier()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, amsgrad=True)
    order = WeightedOrderSampler([1, 2, 3, 4] * 5, size=17)
    if workers == 0:
        iterator = SerialIterator(Augmented(), 4, order_sampler=order)  # goes on where workers left off
    else:
        iterator = MultiprocessIterator(Augmented(), 4, n_processes=workers, order_sampler=order)
    updater = StandardUpdater(
        iterator, optimizer, model=model, device=device, accumulate=3, clip_value=0.01, precision="fp16"
    )
    updater.scaler.set_growth_interval(2)
    updater.scaler.set_growth_factor(64.0)
    run = Trainer(updater, (12, "iteration"), out)
    run.extend(E.MultistepShift("lr", 0.1, [5, 9]))
    run.extend(E.WarmupShift("lr", 0.001, 4))
    run.extend(E.StepShift("weight_decay", 0.5, 3, init=0.1))
    run.extend(E.observe_lr(bias_corrected=True), trigger=(1, "iteration"))
    run.extend(E.observe_value("scale", lambda t: t.updater.scaler.get_scale()), trigger=(1, "iteration"))
    run.extend(E.ParameterStatistics(model, trigger=(1.3, "epoch")))
    run.extend(E.VariableStatisticsPlot(model, max_sample_size=5, trigger=(20, "iteration")))
    run.extend(E.FailOnNonNumber(), trigger=(0.7, "epoch"))
    run.extend(E.LogReport(trigger=(4, "iteration")), call_before_training=True)
    best = E.snapshot(filename="best_{.updater.iteration}", n_retains=2, link="best")
    run.extend(best, name="best", trigger=MaxValueTrigger("main/accuracy", (0.6, "epoch")))
    return run


def has_threads(out, device, workers):
    """bf16; threads that hand a generator to the data set; stratified; schedules; once; a log that has no file."""
    data, labels = Drawn(), [index % 3 for index in range(20)]
    model = classifier()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    iterator = MultithreadIterator(data, 6, n_threads=workers or 1, order_sampler=StratifiedOrderSampler(labels))
    updater = StandardUpdater(iterator, optimizer, model=model, device=device, precision="bf16")
    run = Trainer(updater, ManualScheduleTrigger([3.4], "epoch"), out)
    run.extend(E.Evaluator(MultiprocessIterator(data, 7, n_processes=workers, **VALID), model, precision="bf16"))
    run.extend(E.ExponentialShift("lr", 0.5), trigger=ManualScheduleTrigger([2, 1.35, 0.9], "epoch"))
    run.extend(E.LinearShift("weight_decay", (0.5, 0.1), (2, 9)))
    run.extend(E.observe_value("correct", lambda t: t.observation["main/accuracy"].total), trigger=(1, "iteration"))
    run.extend(E.observe_value("count", lambda t: t.updater.batch_size), trigger=(1, "iteration"))
    run.extend(E.MicroAverage("correct", "count", "micro", trigger=(0.8, "epoch")))
    run.extend(Drawing(), trigger=OnceTrigger())
    run.extend(E.LogReport(["main/loss", "micro", "drawn"], (0.7, "epoch"), filename=None), name="unwritten")
    run.extend(E.LogReport(trigger=ManualScheduleTrigger([1, 5, 6], "iteration")))
    run.extend(E.snapshot_object(model, "model_{.updater.iteration}", n_retains=1), trigger=(0.45, "epoch"))
    return run


class Adversaries(StandardUpdater):
    def update_core(self):
        generator, critic = self.get_model("generator"), self.get_model("critic")
        real = self.next_batch()[0].flatten(1)
        fake = generator(torch.randn(len(real), 4, device=self.device) + self.next_batch("other")[0].mean())
        self.get_optimizer("critic").zero_grad()
        loss = F.softplus(-critic(real)).mean() + F.softplus(critic(fake.detach())).mean()
        self.backward(loss)
        self.step("critic")
        report({"loss": loss}, critic)
        self.get_optimizer("generator").zero_grad()
        loss = F.softplus(-critic(fake)).mean()
        self.backward(loss)
        self.step("generator")
        report({"loss": loss}, generator)


def has_two_optimizers(out, device, workers):
    """Generator and critic, each with its rate; two iterators; the noise comes from the model's stream."""
    models = {
        "generator": nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 192)),
        "critic": nn.Sequential(nn.Linear(192, 16), nn.LeakyReLU(), nn.Dropout(0.5), nn.Linear(16, 1)),
    }
    optimizers = {
        "generator": torch.optim.RMSprop(models["generator"].parameters(), lr=0.01, momentum=0.5, centered=True),
        "critic": torch.optim.Adam(models["critic"].parameters(), lr=0.01, betas=(0.5, 0.9)),
    }
    iterators = {
        "main": SerialIterator(Augmented(), 6, order_sampler=ShuffleOrderSampler()),
        "other": MultiprocessIterator(Drawn(9), 6, n_processes=workers),
    }
    updater = Adversaries(iterators, optimizers, model=models, device=device, clip_norm=2.0, clip_value=0.5)
    run = Trainer(updater, (3.5, "epoch"), out)
    run.extend(E.InverseShift("lr", 0.1, 1, optimizer=optimizers["generator"]))
    run.extend(E.PolynomialShift("lr", 1, 20, optimizer=optimizers["critic"]))
    run.extend(E.observe_lr("generator", "generator/lr"), trigger=(1, "iteration"))
    run.extend(E.LogReport(["generator/loss", "critic/loss", "generator/lr"], (0.25, "epoch")))
    run.extend(E.PrintReport(["iteration", "generator/lr"], E.LogReport(trigger=(0.6, "epoch"), filename="log2")))
    good = E.snapshot(filename="good_{.updater.iteration}", n_retains=1, link="good")
    run.extend(good, trigger=BestValueTrigger("critic/loss", lambda best, new: new < 1.2 * best, (2, "iteration")))
    return run


def has_a_data_loader(out, device, workers):
    """A DataLoader with a generator of its own, a scheduler that also moves Adam's betas, and a plot."""
    model = classifier()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    loader = DataLoader(Augmented(), 6, shuffle=True, generator=torch.Generator())
    updater = StandardUpdater(loader, optimizer, model=model, device=device)
    run = Trainer(updater, (13, "iteration"), out)
    run.extend(E.Evaluator(DataLoader(Augmented(8), 3, shuffle=True), model), trigger=(0.5, "epoch"))
    schedule = lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=20)
    run.extend(E.LRScheduler(schedule), trigger=(1, "iteration"))
    run.extend(E.observe_lr(), trigger=(1, "iteration"))
    run.extend(E.PlotReport(["main/loss", "lr"], trigger=ManualScheduleTrigger(2, "iteration")))
    run.extend(E.LogReport(trigger=(0.3, "epoch")))
    return run


SETUPS = [stops_early, has_a_scaler, has_threads, has_two_optimizers, has_a_data_loader]


def has_happened(setup, states):
    """Whether a run, by its states, has been through what makes it hard to resume."""
    state = states[-1]
    extensions = {name: entry["extension"] for name, entry in state["extensions"].items()}
    histories = [{name: entry["trigger"] for name, entry in state["extensions"].items()} for state in states]
    triggers, stop = histories[-1], histories[-1]["training"]
    if setup is stops_early:
        bests = {triggers["best"]["best_value"] for triggers in histories}
        return len(bests) > 2 and state["stop_fired"] and stop["count"] == 2 and not stop["has_max_fired"]
    if setup is has_a_scaler:
        scales = [state["updater"]["scaler"]["scale"] for state in states]
        return max(scales) > scales[0] and sorted(scales) != scales and triggers["best"]["best_value"] > 0
    if setup is has_threads:
        entries = extensions["unwritten"]["log"]
        return sum("drawn" in entry for entry in entries) == 1 and any("micro" in entry for entry in entries)
    if setup is has_two_optimizers:
        return len({triggers["_Snapshot"]["best_value"] for triggers in histories}) > 2
    return extensions["PlotReport"]["data"]["lr"] and len(set(map(str, histories))) == len(states)


# -- running them in processes of their own


def train(setup, device, workers, out, source=None, start=0):
    """Trains to the end, with a snapshot of each iteration; with a source, from the snapshot of one that is there."""
    warnings.simplefilter("error", UserWarning)
    warnings.filterwarnings("ignore", "This DataLoader will create")
    if device == "cuda":
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
        torch.use_deterministic_algorithms(True)
    trainer.random.set_seed(3)
    run = setup(out, device, workers)
    run.extend(E.snapshot(), name="snapshot", trigger=(1, "iteration"))
    if source is not None:
        others = [path.name for path in source.glob("snapshot_iter_*") if path.name != f"snapshot_iter_{start}"]
        shutil.copytree(source, out, symlinks=True, ignore=shutil.ignore_patterns(*others, ".*"))
        run.resume(out / f"snapshot_iter_{start}")
    out.mkdir(exist_ok=True)
    with open(out / "table", "w") as file, contextlib.redirect_stdout(file):
        run.run()


def train_each(jobs):
    for job in jobs:
        train(*job)


def run_all(jobs, tmp_path):
    """Two processes at a time, each for one job; on CUDA, whose start takes seconds, one for all."""
    lists = [[job] for job in jobs] if jobs[0][1] == "cpu" else [jobs]
    errors = tmp_path / "errors"
    for i in range(0, len(lists), 2):
        running = [processes.start(train_each, some, output=errors) for some in lists[i : i + 2]]
        for process in running:
            process.join()
        assert [process.exitcode for process in running] == [0] * len(running), errors.read_text()


def snapshots(out):
    return {int(path.name.rpartition("_")[2]): path for path in out.glob("snapshot_iter_*")}


@functools.cache
def essence(out):
    """What must be the same: everything saved in each iteration, and the logs, but for the clock."""
    states = {}
    for iteration, path in snapshots(out).items():
        state = saving.load(path)
        del state["run_id"], state["elapsed_time"]
        parts = [entry["extension"] for entry in state["extensions"].values()]
        for part in [*parts, *(p["own"] for p in parts if p.get("own"))]:
            for key in ("sha256", "bytes"):  # the clock's digits
                part.get("file", {}).pop(key, None)
            for entry in part.get("log", []):
                del entry["elapsed_time"]
        states[iteration] = bits(state)
    logs = {path.name: re.sub(r'("elapsed_time": )[\d.e-]+', r"\1", path.read_text()) for path in out.glob("log*")}
    return states, logs


def assert_same(out, whole, start=0):
    """The later snapshots, the logs, the files that are kept, and what was printed since."""
    (states, logs), (expected, expected_logs) = essence(out), essence(whole)
    for iteration in range(start + 1, len(expected) + 1):
        state, other = states[iteration], expected[iteration]
        different = [path for path in state.keys() | other.keys() if state.get(path) != other.get(path)]
        assert not different, f"iteration {iteration}, resumed from {start}"
    assert logs == expected_logs
    names = {path.name for path in whole.glob("[!.]*")} - {f"snapshot_iter_{i}" for i in range(1, start)}
    assert {path.name for path in out.glob("[!.]*")} == names
    links = [path for path in whole.iterdir() if path.is_symlink()]
    assert all(os.readlink(out / link.name) == os.readlink(link) for link in links)
    printed = (out / "table").read_text()
    assert (whole / "table").read_text().endswith("".join(printed.splitlines(keepends=True)[bool(start) :]))


cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
PARAMS = [pytest.param((setup, "cpu"), id=setup.__name__) for setup in SETUPS]
PARAMS += [pytest.param((setup, "cuda"), id=f"{setup.__name__}-cuda", marks=cuda) for setup in SETUPS]


@pytest.fixture(scope="module", params=PARAMS)
def whole(request, tmp_path_factory):
    """A run that was never interrupted: its setup, its device, its folder."""
    folder = tmp_path_factory.mktemp("whole")
    run_all([(*request.param, 2, folder / "run")], folder)
    return (*request.param, folder / "run")


@pytest.mark.parametrize("part", ["four", pytest.param("all", marks=pytest.mark.full)])
def test_a_run_resumed_from_any_iteration_in_a_new_process_is_the_same_run_to_the_bit(whole, tmp_path, part):
    setup, device, folder = whole
    starts = range(1, len(snapshots(folder)) + 1)
    assert len(starts) >= 10
    if part == "four":
        starts = [1, 4, 6, len(starts) - 1]
    run_all([(setup, device, (0, 1, 4)[k % 3], tmp_path / f"{k}", folder, k) for k in starts], tmp_path)
    for k in starts:
        assert_same(tmp_path / f"{k}", folder, k)


def test_a_resumed_run_is_resumed_to_the_bit_too(whole, tmp_path):
    setup, device, folder = whole
    run_all([(setup, device, 1, tmp_path / "second", folder, 2)], tmp_path)
    run_all([(setup, device, 4, tmp_path / "third", tmp_path / "second", 7)], tmp_path)
    run_all([(setup, device, 0, tmp_path / "fourth", tmp_path / "third", 9)], tmp_path)
    assert_same(tmp_path / "fourth", folder, 9)


def test_a_run_is_the_same_to_the_bit_with_any_number_of_workers(whole, tmp_path):
    setup, device, folder = whole
    run_all([(setup, device, workers, tmp_path / f"{workers}") for workers in (0, 4)], tmp_path)
    for workers in (0, 4):  # the whole run has 2
        assert_same(tmp_path / f"{workers}", folder)


def test_these_runs_have_been_through_what_is_hard_to_resume(whole):
    setup, device, folder = whole
    if device != "cpu":
        pytest.skip("their rates and thresholds were chosen on the CPU")
    assert has_happened(setup, [saving.load(path) for _, path in sorted(snapshots(folder).items())])


def test_an_interpreter_of_its_own_with_other_hashes_resumes_the_same_run(tmp_path):
    run_all([(has_two_optimizers, "cpu", 2, tmp_path / "whole")], tmp_path)
    code = (
        "import pathlib, test_exact_resume as t; here = pathlib.Path();"
        "t.train(t.has_two_optimizers, 'cpu', 1, here / 'resumed', here / 'whole', 5)"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "1"}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, check=True)
    assert_same(tmp_path / "resumed", tmp_path / "whole", 5)
