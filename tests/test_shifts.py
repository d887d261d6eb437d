"""Schedules of learning rates: Chainer's own values, and the same after a resume."""

import warnings

import pytest
import torch
from helpers import make_run

import extensions
from trainer.triggers import ManualScheduleTrigger

E = extensions


def values(run, shift, calls, attr="lr", **kwargs):
    """What each update saw; the shift is called after it."""
    seen, optimizer = [], run.updater.get_optimizer("main")
    run.stop_trigger = lambda t: len(seen) == calls
    run.extend(lambda t: seen.append(optimizer.param_groups[0][attr]), name="see", priority=1000)
    run.extend(shift, **kwargs)
    run.run()
    return seen


CHAINER = [
    (E.ExponentialShift, dict(rate=0.5, init=2.0), [2.0, 1.0, 0.5]),
    (E.ExponentialShift, dict(rate=0.5, init=2.0, target=1.2), [2.0, 1.2, 1.2]),
    (E.ExponentialShift, dict(rate=0.5, init=-2.0, target=-1.2), [-2.0, -1.2, -1.2]),
    (E.ExponentialShift, dict(rate=2.0, init=2.0, target=5.0), [2.0, 4.0, 5.0]),
    (E.ExponentialShift, dict(rate=2.0, init=-2.0, target=-5.0), [-2.0, -4.0, -5.0]),
    (E.ExponentialShift, dict(rate=0.5, init=2.0, target=0.0), [2.0, 1.0, 0.5]),  # divides by zero in Chainer
    (E.InverseShift, dict(gamma=1, power=-1.0, init=2.0), [2.0, 4.0, 6.0]),
    (E.InverseShift, dict(gamma=1, power=-1.0, init=2.0, target=5.0), [2.0, 4.0, 5.0]),
    (E.InverseShift, dict(gamma=1, power=1.0, init=2.0), [2.0, 1.0, 2 / 3]),
    (E.InverseShift, dict(gamma=1, power=1.0, init=2.0, target=0.8), [2.0, 1.0, 0.8]),
    (E.LinearShift, dict(value_range=(2.0, 6.0), time_range=(1, 3)), [2.0, 2.0, 4.0, 6.0, 6.0]),
    (E.MultistepShift, dict(gamma=0.1, step_value=[1, 3, 5], init=2.0), [2.0, 0.2, 0.2, 0.02, 0.02, 0.002]),
    (E.MultistepShift, dict(gamma=2, step_value=[1, 3, 5], init=-2.0), [-2.0, -4.0, -4.0, -8.0, -8.0, -16.0]),
    (E.MultistepShift, dict(gamma=0.5, step_value=[1, 1, 1], init=8.0), [8.0, 4.0, 2.0, 1.0]),  # one step a call
    (
        E.PolynomialShift,
        dict(rate=0.5, max_count=10, init=2.0),
        [2.0, 1.8973665961010275, 1.7888543819998317],
    ),
    (E.PolynomialShift, dict(rate=0.5, max_count=10, init=2.0, target=1.8), [2.0, 1.8973665961010275, 1.8]),
    (E.PolynomialShift, dict(rate=1, max_count=2, init=2.0, target=0.5), [2.0, 1.0, 0.5, 0.5]),
    (E.PolynomialShift, dict(rate=1, max_count=2, init=2.0), [2.0, 1.0, 0.0, 0.0]),
    (E.StepShift, dict(gamma=0.5, step=1, init=2.0), [2.0, 1.0, 0.5]),
    (E.StepShift, dict(gamma=0.5, step=2, init=2.0), [2.0, 2.0, 1.0, 1.0, 0.5]),
    (E.StepShift, dict(gamma=2.0, step=1, init=2.0, target=5.0), [2.0, 4.0, 5.0]),
    (E.WarmupShift, dict(warmup_start=-1, warmup_iter=2, init=1), [-1.0, 0.0, 1.0, 1.0]),
    (E.WarmupShift, dict(warmup_start=1, warmup_iter=2, init=0.1), [1.0, 0.55, 0.1, 0.1]),
    (E.WarmupShift, dict(warmup_start=0.5, warmup_iter=2), [0.5, 0.3, 0.1, 0.1]),  # ends at the optimizer's 0.1
    (E.WarmupShift, dict(warmup_iter=2, init=0.3), [0.1, 0.2, 0.3, 0.3]),  # starts there
]


@pytest.mark.parametrize(("kind", "settings", "expected"), CHAINER)
def test_an_update_sees_the_value_set_after_the_one_before(tmp_path, kind, settings, expected):
    exact = kind not in (E.MultistepShift, E.WarmupShift)  # of these Chainer tests closeness
    seen = values(make_run(tmp_path), kind("lr", **settings), len(expected))
    assert seen == (expected if exact else pytest.approx(expected))
    assert all(type(value) is float for value in seen)


@pytest.mark.parametrize("kind", [case[0] for case in CHAINER if "init" not in case[1]] + [E.ExponentialShift])
def test_attr_is_lr_by_default(tmp_path, kind):
    settings = {
        E.LinearShift: dict(value_range=(0.2, 0.2), time_range=(0, 1)),
        E.WarmupShift: dict(warmup_start=0.2, warmup_iter=1000),
        E.ExponentialShift: dict(rate=1.0, init=0.2),
    }
    assert values(make_run(tmp_path), kind(**settings[kind]), 1) == [0.2]


def test_the_trigger_decides_what_a_call_is(tmp_path):
    seen = values(make_run(tmp_path), E.ExponentialShift("lr", 0.5, init=2.0), 6, trigger=(1, "epoch"))
    assert seen == [2.0, 2.0, 1.0, 1.0, 0.5, 0.5]
    seen = values(
        make_run(tmp_path), E.StepShift("lr", 0.5, 1, 2.0), 5, trigger=ManualScheduleTrigger([1, 4], "iteration")
    )
    assert seen == [2.0, 1.0, 1.0, 1.0, 0.5]


def test_each_parameter_group_and_each_optimizer_is_shifted_from_its_own_value(tmp_path):
    a, b = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    first = torch.optim.SGD([{"params": [a], "lr": 1.0}, {"params": [b], "lr": 3.0}], lr=1.0, momentum=0.8)
    second = torch.optim.SGD([a], lr=5.0, momentum=0.4)
    run = make_run(tmp_path, (1, "iteration"))
    run.extend(E.ExponentialShift("lr", 0.5, optimizer=[first, second]))
    run.extend(E.LinearShift("momentum", (0.5, 0.9), (0, 2), optimizer=second))
    run.run()
    assert [g["lr"] for g in first.param_groups + second.param_groups] == [0.5, 1.5, 2.5]
    assert [g["momentum"] for g in first.param_groups + second.param_groups] == [0.8, 0.8, pytest.approx(0.7)]


def test_a_rate_that_is_a_tensor_stays_the_same_tensor(tmp_path):
    run = make_run(tmp_path, (1, "iteration"))
    group = run.updater.get_optimizer("main").param_groups[0]
    group["lr"] = rate = torch.tensor(0.5)
    run.extend(E.ExponentialShift("lr", 0.5))
    run.run()
    assert group["lr"] is rate and rate == 0.25


def shifted(out, stop, with_snapshot=False):
    """A warm-up, then steps; and a momentum that falls when a schedule says so and is then never asked again."""
    run = make_run(out, stop)
    run.updater.get_optimizer("main").param_groups[0]["momentum"] = 0.8
    run.extend(E.MultistepShift("lr", 0.1, [4, 6]))
    run.extend(E.WarmupShift("lr", 0.01, 3))
    run.extend(E.ExponentialShift("momentum", 0.5), trigger=ManualScheduleTrigger([2], "iteration"), name="m")
    seen, optimizer = [], run.updater.get_optimizer("main")

    def see(trainer):
        group = optimizer.param_groups[0]
        seen.append((group["lr"], group["momentum"]))

    run.extend(see, priority=1000)
    if with_snapshot:
        run.extend(extensions.snapshot(filename="s", autoload=True), trigger=(1, "iteration"))
    return run, seen


@pytest.mark.parametrize("stop", range(1, 8))
@pytest.mark.parametrize("autoload", [False, True])
def test_a_resumed_run_has_the_very_rates_that_it_had(tmp_path, stop, autoload):
    whole, expected = shifted(tmp_path / "whole", (8, "iteration"))
    whole.run()
    assert expected[0] == (0.01, 0.8) and expected[3] == (pytest.approx(0.1), 0.4)
    first, before = shifted(tmp_path, (stop, "iteration"), True)
    first.run()
    resumed, after = shifted(tmp_path, (8, "iteration"), autoload)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if not autoload else "error")  # the snapshot extension is gone
        if not autoload:
            resumed.resume(tmp_path / "s")
        resumed.run()
    assert before + after == expected


def test_a_loaded_shift_brings_its_value_to_an_optimizer_that_has_not_got_it(tmp_path):
    run = make_run(tmp_path, (3, "iteration"))
    run.extend(E.ExponentialShift("lr", 0.5, init=2.0))
    run.run()
    other = make_run(tmp_path, (3, "iteration"))
    shift = E.ExponentialShift("lr", 0.5, init=2.0)
    shift.load_state_dict(run.get_extension("ExponentialShift").state_dict())
    shift.initialize(other)
    assert other.updater.get_optimizer("main").param_groups[0]["lr"] == 0.25


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: E.ExponentialShift("lr", -1.0), ValueError, "does not support negative rate, got -1.0"),
        (lambda: E.ExponentialShift("lr"), TypeError, r"needs rate; e.g. ExponentialShift\('lr', rate=...\)"),
        (lambda: E.ExponentialShift(0.5), TypeError, "attr must be the name of a number .* got 0.5"),
        (lambda: E.InverseShift("lr", -1, 1), ValueError, "does not support negative gamma, got -1"),
        (lambda: E.InverseShift("lr", 1), TypeError, r"needs power; e.g. InverseShift\('lr', gamma=..., power=...\)"),
        (lambda: E.LinearShift("lr", (1,), (0, 1)), ValueError, r"value_range must be a pair, got \(1,\)"),
        (lambda: E.LinearShift("lr", (1, 2), (3, 1)), ValueError, r"time_range must go forwards, got \(3, 1\)"),
        (lambda: E.LinearShift("lr", (1, 2)), TypeError, "needs time_range"),
        (lambda: E.MultistepShift("lr", 0.1, [3, 1]), ValueError, r"step_value must rise, got \[3, 1\]"),
        (lambda: E.MultistepShift("lr", 0.1), TypeError, "needs step_value"),
        (lambda: E.PolynomialShift("lr", 1, 0), ValueError, "max_count must be positive, got 0"),
        (lambda: E.StepShift("lr", 0.1, 0), ValueError, "step must be positive, got 0"),
        (lambda: E.WarmupShift("lr", warmup_iter=5), TypeError, "needs warmup_start or init"),
        (lambda: E.WarmupShift("lr", 0.1, 0), ValueError, "warmup_iter must be positive, got 0"),
        (
            lambda: E.StepShift("lrr", 0.1, 1, optimizer=torch.optim.SGD([torch.zeros(1)], lr=1.0)),
            ValueError,
            r"attr 'lrr' is not a number in the parameter groups of SGD; there are \[.*'lr'.*\]",
        ),
    ],
)
def test_bad_settings_are_refused_when_the_shift_is_made(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_wrong_attr_is_named_before_the_first_update(run):
    run.extend(E.ExponentialShift("alpha", 0.5))
    with pytest.raises(ValueError, match="attr 'alpha' is not a number in the parameter groups of SGD"):
        run.run()
    assert run.updater.iteration == 0


# -- torch's and timm's own

SCHEDULERS = {
    "StepLR": lambda o, s: s.StepLR(o, 2, gamma=0.5),
    "MultiStepLR": lambda o, s: s.MultiStepLR(o, [2, 2, 5], gamma=0.5),
    "ExponentialLR": lambda o, s: s.ExponentialLR(o, 0.5),
    "CosineAnnealingLR": lambda o, s: s.CosineAnnealingLR(o, 8),
    "CosineAnnealingWarmRestarts": lambda o, s: s.CosineAnnealingWarmRestarts(o, 3),
    "LinearLR": lambda o, s: s.LinearLR(o, total_iters=4),
    "LambdaLR": lambda o, s: s.LambdaLR(o, lambda t: 1 / (1 + t)),
    "OneCycleLR": lambda o, s: s.OneCycleLR(o, 0.2, total_steps=20),
    "CyclicLR": lambda o, s: s.CyclicLR(o, 0.1, 0.3, step_size_up=3, cycle_momentum=False),
    "SequentialLR": lambda o, s: s.SequentialLR(o, [s.LinearLR(o, 0.1, total_iters=3), s.ExponentialLR(o, 0.5)], [3]),
    "ReduceLROnPlateau": lambda o, s: s.ReduceLROnPlateau(o, patience=1),
}


def scheduled(out, name, stop, trigger):
    run = make_run(out, stop)
    optimizer = run.updater.get_optimizer("main")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SequentialLR warns of its own use of its parts
        scheduler = SCHEDULERS[name](optimizer, torch.optim.lr_scheduler)
    monitor = "steady" if "Plateau" in name else None
    run.extend(E.observe_value("steady", lambda t: 1.0), trigger=(1, "iteration"))
    run.extend(E.LRScheduler(scheduler, monitor=monitor), trigger=trigger)
    run.extend(E.snapshot(filename="s"), trigger=(1, "iteration"))
    seen = []
    run.extend(lambda t: seen.append(optimizer.param_groups[0]["lr"]), name="see")
    return run, seen


@pytest.mark.filterwarnings("ignore:The epoch parameter in:UserWarning")  # SequentialLR's own, in torch 2.6
@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("trigger", [(1, "iteration"), (1, "epoch")])
def test_a_scheduler_of_torch_goes_on_exactly_after_a_resume(tmp_path, name, trigger):
    whole, expected = scheduled(tmp_path / "whole", name, (12, "iteration"), trigger)
    whole.run()
    assert len(set(expected)) > 1
    for stop in (3, 4):
        first, before = scheduled(tmp_path / str(stop), name, (stop, "iteration"), trigger)
        first.run()
        resumed, after = scheduled(tmp_path / str(stop), name, (12, "iteration"), trigger)
        resumed.resume(tmp_path / str(stop) / "s")
        resumed.run()
        assert before + after == expected


@pytest.mark.filterwarnings("ignore:PlateauLRScheduler is deprecated:FutureWarning")
def test_a_scheduler_of_timm_counts_what_it_was_built_for(tmp_path):
    from timm.scheduler import CosineLRScheduler, PlateauLRScheduler

    def rates(trigger, make, monitor=None):
        run, seen = make_run(tmp_path, (3, "epoch")), []
        optimizer = run.updater.get_optimizer("main")
        run.extend(E.observe_value("steady", lambda t: 1.0), trigger=(1, "iteration"))
        run.extend(E.LRScheduler(make(optimizer), monitor), trigger=trigger)
        run.extend(lambda t: seen.append(optimizer.param_groups[0]["lr"]), name="see")
        run.run()
        return seen

    by_epoch = rates((1, "epoch"), lambda o: CosineLRScheduler(o, t_initial=3))
    assert by_epoch[0] == 0.1 and by_epoch[1] == by_epoch[2] != by_epoch[3]
    by_update = rates((1, "iteration"), lambda o: CosineLRScheduler(o, t_initial=6, t_in_epochs=False))
    assert len(set(by_update)) == 6
    plateau = rates((1, "epoch"), lambda o: PlateauLRScheduler(o, patience_t=0, decay_rate=0.5), "steady")
    assert plateau[-1] < 0.1


class Forgetful:
    """A scheduler of one's own that halves the rate every third step, by a second one that its state leaves out."""

    def __init__(self, optimizer, inner=None):
        self.optimizer, self.inner, self.count, self.history = optimizer, inner, 0, []

    def step(self):
        self.count += 1
        self.history.append(self.count)
        if self.inner is not None:
            self.inner.step()
        elif self.count % 3 == 0:
            for group in self.optimizer.param_groups:
                group["lr"] /= 2

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        assert state == {}


@pytest.mark.filterwarnings("ignore:PlateauLRScheduler is deprecated:FutureWarning")
@pytest.mark.parametrize("kind", ["timm", "one's own"])
def test_what_a_scheduler_s_own_state_forgets_is_saved_too(tmp_path, kind):
    from timm.scheduler import PlateauLRScheduler

    def scheduled(out, stop):
        run, seen = make_run(out, (stop, "epoch")), []
        optimizer = run.updater.get_optimizer("main")
        run.extend(E.observe_value("flat", lambda trainer: 1.0))
        if kind == "timm":
            scheduler = E.LRScheduler(PlateauLRScheduler(optimizer, patience_t=2, cooldown_t=1), monitor="flat")
        else:
            scheduler = E.LRScheduler(Forgetful(optimizer, Forgetful(optimizer)))
        run.extend(scheduler)
        run.extend(lambda trainer: seen.append(optimizer.param_groups[0]["lr"]), "see", (1, "epoch"), 0)
        run.extend(E.snapshot(autoload=True))
        run.run()
        return seen

    whole = scheduled(tmp_path / "whole", 9)
    assert len(set(whole)) > 2
    assert [rate for stop in (1, 2, 4, 5, 7, 9) for rate in scheduled(tmp_path / "parts", stop)] == whole


def test_a_scheduler_needs_to_be_one_and_to_be_told_what_to_follow(run):
    optimizer = run.updater.get_optimizer("main")
    with pytest.raises(
        TypeError, match=r"scheduler must be one of torch.optim.lr_scheduler or timm.scheduler, got SGD"
    ):
        E.LRScheduler(optimizer)
    with pytest.raises(TypeError, match="ReduceLROnPlateau needs monitor; e.g. monitor='validation/main/loss'"):
        E.LRScheduler(torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer))
    run.extend(E.LRScheduler(torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer), "validation/main/loss"))
    message = r"monitor 'validation/main/loss' is not observed in this iteration, only \['main/accuracy', 'main/loss'\]"
    with pytest.raises(ValueError, match=message):
        run.run()


def test_a_run_that_is_interrupted_and_goes_on_goes_on_with_its_rates(tmp_path):
    def rates(interrupt_at):
        run, seen = make_run(tmp_path, (6, "iteration")), []
        group = run.updater.get_optimizer("main").param_groups[0]
        pending = [interrupt_at]

        def interrupt(trainer):
            if pending and trainer.updater.iteration == pending[0]:
                pending.clear()
                raise KeyboardInterrupt

        run.extend(lambda t: seen.append(group["lr"]), name="see", priority=1000)
        run.extend(E.MultistepShift("lr", 0.5, [2, 4], init=0.2))
        run.extend(E.WarmupShift("lr", 0.01, 3))
        run.extend(E.ExponentialShift("weight_decay", 0.5, init=1.0))
        run.extend(interrupt, priority=-1)
        if interrupt_at:
            with pytest.raises(KeyboardInterrupt):
                run.run()
        run.run()
        return seen, group["weight_decay"]

    assert rates(3) == rates(None)


def test_a_state_that_is_saved_again_before_training_is_the_same_state(tmp_path):
    first = make_run(tmp_path, (3, "iteration"))
    first.extend(E.ExponentialShift("lr", 0.5))
    first.run()
    between = make_run(tmp_path)
    between.extend(E.ExponentialShift("lr", 0.5))
    between.load_state_dict(first.state_dict())
    name = "ExponentialShift"
    assert between.state_dict()["extensions"][name] == first.state_dict()["extensions"][name]


def test_other_parameter_groups_at_a_resume_are_refused(tmp_path):
    a = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    b = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    first, second = make_run(tmp_path, (1, "iteration")), make_run(tmp_path, (2, "iteration"))
    first.extend(E.StepShift("lr", 0.5, 1, optimizer=a))
    second.extend(E.StepShift("lr", 0.5, 1, optimizer=[a, b]))
    first.run()
    second.load_state_dict(first.state_dict())
    with pytest.raises(ValueError, match="StepShift was saved with 1 parameter groups and now has 2: give it the"):
        second.run()


def test_a_shift_may_be_called_without_a_trainer_s_start(tmp_path):
    run = make_run(tmp_path)
    shift = E.LinearShift("lr", (2.0, 6.0), (1, 3))
    shift(run), shift(run)
    assert run.updater.get_optimizer("main").param_groups[0]["lr"] == 4.0


def test_a_scheduler_that_follows_nothing_takes_no_monitor_and_needs_the_updater_s_optimizer(run):
    scheduler = torch.optim.lr_scheduler.StepLR(run.updater.get_optimizer("main"), 1)
    with pytest.raises(TypeError, match="StepLR follows no observed value: leave monitor='main/loss' out"):
        E.LRScheduler(scheduler, monitor="main/loss")
    other = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    run.extend(E.LRScheduler(torch.optim.lr_scheduler.StepLR(other, 1)))
    with pytest.raises(ValueError, match=r"the optimizer of StepLR is none of the updater's \['main'\]"):
        run.run()
