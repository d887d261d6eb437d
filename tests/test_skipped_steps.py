"""fp16: where the scaler leaves out a step, a schedule that counts steps leaves it out too."""

import pytest
import torch
from timm.optim import Lookahead
from timm.scheduler import CosineLRScheduler
from torch import nn

import extensions
from trainer import Classifier, StandardUpdater, Trainer, triggers
from trainer.iterators import SerialIterator

BAD = (2, 3, 6)  # iterations whose gradients overflow
STEPS = 8 - len(BAD)


def data():
    torch.manual_seed(0)
    return [(torch.full((2,), float("inf")) if i // 2 + 1 in BAD else torch.rand(2), i % 3) for i in range(16)]


def make_run(out, schedule, optimizer=torch.optim.SGD, stop=8, trigger=(1, "iteration"), precision="fp16"):
    torch.manual_seed(1)
    model = Classifier(nn.Linear(2, 3))
    optimizer = optimizer(model.parameters(), lr=0.1)
    iterator = SerialIterator(data(), 2, shuffle=False)
    updater = StandardUpdater(iterator, optimizer, model=model, precision=precision)
    run = Trainer(updater, (stop, "iteration"), out=out)
    run.extend(schedule(optimizer), trigger=trigger)
    return run


def lr(run):
    return run.updater.get_optimizer("main").param_groups[0]["lr"]


SCHEDULES = {
    "torch": lambda o: extensions.LRScheduler(torch.optim.lr_scheduler.ExponentialLR(o, 0.5)),
    "timm": lambda o: extensions.LRScheduler(
        CosineLRScheduler(o, 10, lr_min=0.01, t_in_epochs=False, warmup_t=2, warmup_lr_init=0.02)
    ),
    "shift": lambda o: extensions.ExponentialShift("lr", 0.5),
}


def fused(parameters, lr):
    return torch.optim.SGD(parameters, lr=lr, fused=True)


def lookahead(parameters, lr):
    """An optimizer around another: it does not call torch's ``__init__``, so no hook on its step is ever called."""
    return Lookahead(torch.optim.SGD(parameters, lr=lr))


class Bare(torch.optim.Optimizer):
    """As others wrap one: with a ``step`` and the groups, and nothing else of torch's."""

    def __init__(self, parameters, lr):
        self.inner = torch.optim.SGD(parameters, lr=lr)
        self.param_groups, self.defaults, self.state = self.inner.param_groups, self.inner.defaults, self.inner.state

    def step(self, closure=None):
        return self.inner.step(closure)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, fused, lookahead, Bare])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_an_iteration_without_a_step_does_not_advance_a_schedule(tmp_path, schedule, optimizer):
    run = make_run(tmp_path / "a", SCHEDULES[schedule], optimizer)
    skipped = []
    run.extend(lambda t: skipped.append(t.updater.has_skipped(t.updater.get_optimizer("main"))), "note")
    run.run()
    assert [i for i, was in enumerate(skipped, start=1) if was] == list(BAD)
    plain = make_run(tmp_path / "b", SCHEDULES[schedule], stop=STEPS, precision="fp32")
    plain.run()
    assert lr(run) == lr(plain) != 0.1


def test_a_trigger_object_of_each_iteration_is_one_too(tmp_path):
    run = make_run(tmp_path, SCHEDULES["shift"], trigger=triggers.IntervalTrigger(1, "iteration"))
    run.run()
    assert lr(run) == 0.1 * 0.5**STEPS


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_resumed_schedule_goes_on_where_it_was(tmp_path, schedule):
    whole = make_run(tmp_path / "whole", SCHEDULES[schedule])
    whole.run()
    for n in range(1, 8):
        first = make_run(tmp_path / f"first{n}", SCHEDULES[schedule], stop=n)
        first.run()
        state = first.state_dict()
        resumed = make_run(tmp_path / f"resumed{n}", SCHEDULES[schedule])
        resumed.load_state_dict(state)
        resumed.run()
        assert lr(resumed) == lr(whole)


def test_a_schedule_goes_on_from_a_snapshot_of_before_steps_were_left_out(tmp_path):
    run = make_run(tmp_path / "old", SCHEDULES["timm"], stop=1)
    run.run()
    scheduler = run.get_extension("LRScheduler")
    state = scheduler.state_dict()
    del state["left_out"]
    scheduler._left_out = 3
    scheduler.load_state_dict(state)
    assert scheduler._left_out == 0


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_schedule_by_the_epoch_counts_epochs_whatever_was_left_out(tmp_path, schedule):
    # Iterations 2 and 6 are the ends of epochs here.
    runs = [
        make_run(tmp_path / precision, SCHEDULES[schedule], trigger=(2, "iteration"), precision=precision)
        for precision in ("fp16", "bf16")
    ]
    for run in runs:
        run.run()
    assert lr(runs[0]) == lr(runs[1])


def test_a_step_that_nobody_tried_is_not_one_that_was_left_out(tmp_path):
    class Alternating(StandardUpdater):
        def update_core(self):
            name = ("main", "other")[self.iteration % 2]
            batch = self.next_batch()
            self.get_optimizer(name).zero_grad()
            self.backward(self.compute_loss(batch))
            self.step(name)

    model = Classifier(nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 3)))
    optimizers = {"main": torch.optim.SGD(model.predictor[0].parameters(), 0.1)}
    optimizers["other"] = torch.optim.SGD(model.predictor[1].parameters(), 0.1)
    updater = Alternating(SerialIterator(data(), 2, shuffle=False), optimizers, model=model, precision="fp16")
    run = Trainer(updater, (8, "iteration"), out=tmp_path)
    run.extend(extensions.ExponentialShift("lr", 0.5))
    run.run()
    assert optimizers["main"].param_groups[0]["lr"] == pytest.approx(0.1 * 0.5**7)  # it failed in iteration 3 alone


def test_of_two_optimizers_each_has_its_own_steps(tmp_path):
    class Both(StandardUpdater):
        def update_core(self):
            x, t = self.next_batch()
            bad = float("inf") if self.iteration + 1 in BAD else 1.0
            for name, factor in (("main", 1.0), ("other", bad)):
                self.get_optimizer(name).zero_grad()
                self.backward(self.get_model(name)(x, t) * factor)
                self.step(name)

    torch.manual_seed(0)
    models = {name: Classifier(nn.Linear(2, 3)) for name in ("main", "other")}
    optimizers = {name: torch.optim.SGD(model.parameters(), 0.1) for name, model in models.items()}
    good = [(torch.rand(2), i % 3) for i in range(16)]
    updater = Both(SerialIterator(good, 2), optimizers, model=models, precision="fp16")
    run = Trainer(updater, (8, "iteration"), out=tmp_path)
    skipped = {name: [] for name in models}
    run.extend(lambda t: [skipped[name].append(updater.has_skipped(optimizers[name])) for name in models], "note")
    run.run()
    assert not any(skipped["main"])
    assert [i for i, was in enumerate(skipped["other"], start=1) if was] == list(BAD)
