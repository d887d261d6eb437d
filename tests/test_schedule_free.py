"""Optimizers with modes of their own, which train with other weights than they are to be evaluated with."""

import copy

import pytest
import torch
from helpers import equal, make_data
from torch import nn

from extensions import Evaluator, LogReport, snapshot, snapshot_object, snapshot_writers
from trainer import Classifier, Extension, StandardUpdater, Trainer, saving
from trainer.iterators import SerialIterator
from trainer.random import set_seed
from trainer.updaters.modes import averaged_weights


class ScheduleFree(torch.optim.Optimizer):
    """SGD of Defazio et al. 2024: gradients at y, the average x; the parameters are y in training mode, else x."""

    def __init__(self, params, lr=0.3, beta=0.9):
        super().__init__(params, {"lr": lr, "beta": beta, "k": 0, "is_training": False})

    def _to(self, is_training):
        for group in self.param_groups:
            end = 1 - group["beta"] if is_training else 1 - 1 / group["beta"]
            for p in group["params"] if group["is_training"] != is_training else ():
                if "z" in self.state[p]:
                    p.data.lerp_(self.state[p]["z"], end)
            group["is_training"] = is_training

    def train(self):
        self._to(True)

    def eval(self):
        self._to(False)

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            assert group["is_training"]
            group["k"] += 1
            for p in group["params"]:
                z = self.state[p].setdefault("z", p.clone())
                x = p.lerp(z, 1 - 1 / group["beta"])
                z.sub_(p.grad, alpha=group["lr"])
                x.lerp_(z, 1 / group["k"])
                p.copy_(x.lerp(z, 1 - group["beta"]))


class Wrapped(ScheduleFree):
    """Keeps its mode where no state_dict finds it, as schedulefree's wrapper of another optimizer does."""

    mode = False

    def _to(self, is_training):
        for group in self.param_groups:
            group["is_training"] = self.mode
        super()._to(is_training)
        self.mode = is_training

    def state_dict(self):
        state = super().state_dict()
        return {**state, "param_groups": [{**group, "is_training": False} for group in state["param_groups"]]}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        for group in self.param_groups:
            group["is_training"] = self.mode


def real(name):
    def make(parameters):
        return getattr(pytest.importorskip("schedulefree"), name)(parameters, lr=0.1)

    return pytest.param(make, id=name)


def wrapper(parameters):
    """schedulefree's wrapper of another optimizer, which is no torch optimizer itself."""
    sgd = torch.optim.SGD(parameters, lr=0.1)
    return pytest.importorskip("schedulefree").ScheduleFreeWrapper(sgd, momentum=0.9)


OPTIMIZERS = [ScheduleFree, Wrapped, wrapper, *map(real, ["SGDScheduleFree", "AdamWScheduleFree", "RAdamScheduleFree"])]
each = pytest.mark.parametrize("optimizer", OPTIMIZERS)


def make(out, optimizer, stop=(8, "iteration")):
    set_seed(0)
    model = Classifier(nn.Sequential(nn.Linear(2, 99), nn.Dropout(), nn.ReLU(), nn.Linear(99, 3)))
    updater = StandardUpdater(SerialIterator(make_data(), 5), optimizer(model.parameters()), model=model)
    run = Trainer(updater, stop, out=out)
    run.extend(LogReport(trigger=(1, "iteration")))
    return run


def parts(run):
    return run.updater.get_model("main"), run.updater.get_optimizer("main")


def state(run):
    """A copy of all bits of model and optimizer."""
    return copy.deepcopy([part.state_dict() for part in parts(run)])


def observed(run):
    run.extend(Evaluator(SerialIterator(make_data(), 4, repeat=False), parts(run)[0]), trigger=(1, "iteration"))
    run.extend(snapshot_object(parts(run)[0], "weights_{.updater.iteration}"), trigger=(1, "iteration"))
    run.extend(snapshot(target=parts(run)[0], filename="target"), "target", trigger=(3, "iteration"))
    return run


def averaged(run):
    """The weights that eval() makes; those of training are put back."""
    model, optimizer = parts(run)
    before = copy.deepcopy(model.state_dict())
    optimizer.eval()
    weights = copy.deepcopy(model.state_dict())
    optimizer.train()
    model.load_state_dict(before)
    return weights


@each
def test_evaluating_and_saving_weights_change_no_bit_of_a_run(tmp_path, optimizer):
    plain = make(tmp_path / "plain", optimizer)
    plain.run()
    other = observed(make(tmp_path / "other", optimizer))
    other.run()
    assert equal(state(plain), state(other))
    assert not equal(averaged(plain), parts(plain)[0].state_dict())


@each
def test_weights_are_evaluated_and_saved_as_eval_makes_them(tmp_path, optimizer):
    run = observed(make(tmp_path, optimizer))
    run.run()
    assert equal(saving.load_weights(tmp_path / "weights_8"), averaged(run))
    observed_loss = run.observation["validation/main/loss"]
    model, optimizer = parts(run)
    optimizer.eval()  # what a script does after training
    evaluator = Evaluator(SerialIterator(make_data(), 4, repeat=False), model)
    assert evaluator()["main/loss"] == observed_loss


@each
def test_a_run_is_resumed_to_the_bit(tmp_path, optimizer):
    whole = observed(make(tmp_path / "whole", optimizer))
    whole.run()
    first = observed(make(tmp_path / "halves", optimizer, (4, "iteration")))
    first.extend(snapshot(filename="run"), "run", trigger=(4, "iteration"))
    first.run()
    second = observed(make(tmp_path / "halves", optimizer))
    second.extend(snapshot(filename="run"), "run", trigger=(4, "iteration"))
    second.resume(tmp_path / "halves" / "run")
    second.run()
    assert equal(state(whole), state(second))
    assert whole.observation["validation/main/loss"] == second.observation["validation/main/loss"]


def test_a_script_may_call_eval_between_resume_and_run(tmp_path):
    run = make(tmp_path, ScheduleFree, (4, "iteration"))
    run.extend(snapshot(filename="run"), "run", trigger=(4, "iteration"))
    run.run()
    expected = state(run)
    run = make(tmp_path, ScheduleFree)
    run.extend(snapshot(filename="run"), "run", trigger=(4, "iteration"))
    run.resume(tmp_path / "run")
    parts(run)[1].eval()
    assert not torch.allclose(state(run)[0]["predictor.0.weight"], expected[0]["predictor.0.weight"])
    assert not run.finished
    weights, groups = state(run)[0], state(run)[1]["param_groups"]
    assert groups == expected[1]["param_groups"]
    assert all(torch.allclose(weights[key], expected[0][key]) for key in weights)
    run.finalize()


@pytest.mark.parametrize("writer", [*snapshot_writers.__all__, "own"])
def test_every_writer_writes_the_averaged_weights(tmp_path, writer):
    run = make(tmp_path, ScheduleFree)
    kept = []
    # One of the user's own reads the state only when training has gone on.
    used = (lambda *args: kept.append(args[2])) if writer == "own" else getattr(snapshot_writers, writer)()
    run.extend(snapshot_object(parts(run)[0], "weights_{.updater.iteration}", writer=used), trigger=(4, "iteration"))
    expected = []
    run.extend(lambda t: expected.append(averaged(t)), "see", trigger=(4, "iteration"))
    run.run()
    written = kept if writer == "own" else [saving.load_weights(tmp_path / f"weights_{i}") for i in (4, 8)]
    assert equal([dict(w) for w in written], [dict(w) for w in expected])


def test_weights_saved_on_an_error_are_the_averaged_ones_too(tmp_path):
    run = make(tmp_path, ScheduleFree)
    run.extend(snapshot_object(parts(run)[0], "weights", snapshot_on_error=True), trigger=(99, "epoch"))
    evaluator = Evaluator(SerialIterator(make_data(), 4, repeat=False), parts(run)[0], eval_func=lambda *batch: 1 / 0)
    run.extend(evaluator, trigger=(3, "iteration"))
    with pytest.raises(ZeroDivisionError):
        run.run(show_loop_exception_msg=False)
    assert parts(run)[1].param_groups[0]["is_training"]
    assert equal(saving.load_weights(tmp_path / "weights"), averaged(run))


def test_an_optimizer_is_saved_in_training_mode(tmp_path):
    run = make(tmp_path, ScheduleFree, (2, "iteration"))
    run.extend(snapshot_object(parts(run)[1], "optimizer"), trigger=(2, "iteration"))
    run.run()
    assert equal(saving.load_weights(tmp_path / "optimizer"), parts(run)[1].state_dict())


def test_plug_ins_that_switch_by_hand_still_work(tmp_path):
    """As scripts did before: eval() ahead of the evaluation, train() after it."""

    class Switch(Extension):
        trigger = (2, "iteration")

        def __init__(self, mode, priority):
            self.mode, self.priority = mode, priority

        def __call__(self, trainer):
            getattr(trainer.updater.get_optimizer("main"), self.mode)()

    losses, weights = [], []
    for number in range(2):
        run = observed(make(tmp_path / str(number), ScheduleFree))
        if number:
            run.extend(Switch("eval", 400), "eval")
            run.extend(Switch("train", 50), "train")
        run.run()
        losses.append(run.observation["validation/main/loss"])
        weights.append(torch.cat([p.detach().flatten() for p in parts(run)[0].parameters()]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4) and torch.allclose(*weights, atol=1e-5)


def test_two_optimizers_of_which_one_has_modes(tmp_path):
    torch.manual_seed(0)
    model = Classifier(nn.Sequential(nn.Linear(2, 8), nn.Linear(8, 3)))
    optimizers = {
        "main": torch.optim.SGD(model.predictor[0].parameters(), 0.1),
        "head": ScheduleFree(model.predictor[1].parameters()),
    }

    class Both(StandardUpdater):
        def update_core(self):
            loss = self.compute_loss(self.next_batch())
            for optimizer in optimizers.values():
                optimizer.zero_grad()
            self.backward(loss)
            self.step("main"), self.step("head")

    run = Trainer(Both(SerialIterator(make_data(), 5), optimizers, model=model), (4, "iteration"), out=tmp_path)
    run.run()
    before = copy.deepcopy(model.predictor.state_dict())
    with averaged_weights(run.updater) as are_others:
        inside = copy.deepcopy(model.predictor.state_dict())
    assert are_others and equal(model.predictor.state_dict(), before)
    assert [key for key in before if not torch.equal(before[key], inside[key])] == ["1.weight", "1.bias"]


def test_an_optimizer_without_modes_or_that_is_a_module_is_left_alone(tmp_path):
    class Learned(nn.Module, torch.optim.Optimizer):
        def __init__(self, parameters):
            nn.Module.__init__(self)
            torch.optim.Optimizer.__init__(self, parameters, {})
            self.training = False

        def train(self, mode=True):
            raise AssertionError("not asked for")

        def step(self, closure=None):
            pass

    for optimizer in (Learned, torch.optim.SGD):
        run = observed(make(tmp_path / optimizer.__name__, optimizer, (2, "iteration")))
        run.run()
        with averaged_weights(run.updater) as are_others:
            assert not are_others
