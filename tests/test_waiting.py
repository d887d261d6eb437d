"""Between two entries of the log nothing is read from a tensor, so that training never waits for its device."""

import io

import pytest
import torch
from helpers import make_data
from torch.utils._python_dispatch import TorchDispatchMode

import extensions
from trainer import Classifier, StandardUpdater, Trainer
from trainer.iterators import SerialIterator
from trainer.summary import CHUNK, Summary

READS = [torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default, torch.ops.aten.equal.default]


class Reads(TorchDispatchMode):
    """Counts what would wait for the device."""

    def __init__(self, monkeypatch):
        super().__init__()
        self.count = 0
        for name in ("tolist", "numpy", "cpu", "item"):
            monkeypatch.setattr(torch.Tensor, name, self.counted(getattr(torch.Tensor, name)))

    def counted(self, function):
        def call(*args, **kwargs):
            self.count += 1
            return function(*args, **kwargs)

        return call

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function in READS
        return function(*args, **(kwargs or {}))


class Terminal(io.StringIO):
    def isatty(self):
        return True


def standard_run(out, optimizer, precision, device="cpu"):
    """A run with everything that a usual one has: epochs of 10 iterations, with an entry and a snapshot each."""
    torch.manual_seed(0)
    model = Classifier(torch.nn.Linear(2, 3).to(device))
    optimizer = optimizer(model.parameters())
    train_iter = SerialIterator(make_data(100), 10)
    valid_iter = SerialIterator(make_data(12), 5, repeat=False, shuffle=False)
    updater = StandardUpdater(train_iter, optimizer, model=model, device=device, precision=precision)
    run = Trainer(updater, (30, "iteration"), out=out)
    run.extend(extensions.observe_lr(bias_corrected="betas" in optimizer.defaults), trigger=(1, "iteration"))
    run.extend(extensions.Evaluator(valid_iter, model, precision=precision), trigger=(10, "iteration"))
    run.extend(extensions.LogReport(trigger=(10, "iteration")))
    run.extend(extensions.PrintReport(["iteration", "main/loss", "lr"], out=Terminal()), trigger=(10, "iteration"))
    run.extend(extensions.ProgressBar(update_interval=1, out=Terminal()))
    run.extend(extensions.snapshot(), trigger=(10, "iteration"))
    run.extend(extensions.StopOnSignal())
    return run


OPTIMIZERS = {
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
    "fused Adam": lambda parameters: torch.optim.Adam(parameters, fused=True),
}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_nothing_is_read_from_a_tensor_between_two_entries_of_the_log(tmp_path, monkeypatch, optimizer, precision):
    run = standard_run(tmp_path, OPTIMIZERS[optimizer], precision)
    reads, counts = Reads(monkeypatch), {}

    def note(trainer):
        counts[trainer.updater.iteration] = reads.count
        reads.count = 0

    run.extend(note, trigger=(1, "iteration"), priority=-99)
    with reads:
        run.run()
    assert [iteration for iteration, count in counts.items() if count] == [10, 20, 30]


def test_an_extension_that_reads_a_value_each_iteration_is_seen_to(tmp_path, monkeypatch):
    run = standard_run(tmp_path, OPTIMIZERS["SGD"], "fp32")
    reads = Reads(monkeypatch)
    run.extend(lambda trainer: float(trainer.observation["main/loss"]), "reader", trigger=(1, "iteration"))
    run.stop_trigger = lambda trainer: trainer.updater.iteration == 5
    with reads:
        run.run()
    assert reads.count >= 5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_cuda_is_not_waited_for_between_two_entries_of_the_log(tmp_path, optimizer, precision):
    run = standard_run(tmp_path, OPTIMIZERS[optimizer], precision, "cuda")

    def watch(trainer):
        is_free = trainer.updater.iteration % 10 == 9  # an entry follows
        torch.cuda.set_sync_debug_mode("default" if is_free else "error")

    run.extend(watch, trigger=(1, "iteration"), priority=-1000)
    try:
        run.run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert run.updater.iteration == 30


def test_what_is_pending_on_a_device_is_not_read_before_it_is_asked_for():
    summary = Summary()
    summary.add(float("nan"), 0)  # as observe_lr does before the first step
    for _ in range(2 * CHUNK):
        summary.add(torch.zeros((), device="meta"))  # to read it is an error
    with pytest.raises(RuntimeError, match="meta"):
        summary.compute_mean()
