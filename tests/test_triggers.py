"""When triggers fire, before and after a resume: Chainer's own cases, and what is better here."""

from types import SimpleNamespace

import pytest
import torch
from helpers import at, make_run

import extensions
from trainer import Ratio, Trainer, report
from trainer.triggers import (
    BestValueTrigger,
    EarlyStoppingTrigger,
    ManualScheduleTrigger,
    MaxValueTrigger,
    MinValueTrigger,
    OnceTrigger,
    TimeTrigger,
)

MANUAL = [
    (2, (2, "iteration"), 3, [2]),
    (2, ([2, 4], "iteration"), 3, [2, 4]),
    (3, (1, "epoch"), 3, [3]),
    (3, ([1, 2], "epoch"), 4, [3, 6]),
    (2, (1.5, "epoch"), 4, [3]),
    (2, ([1.5, 2.5], "epoch"), 4, [3, 5]),
    (2.5, (1, "epoch"), 4, [3]),
    (2.5, ([1, 2], "epoch"), 4, [3, 5]),
    (0.5, (1, "epoch"), 4, [1]),
    (0.5, ([1, 2], "epoch"), 4, [1]),
    (100, ([0.29, 1.5, 2], "epoch"), 30, [29, 150, 200]),
    (1, ((5, 2, 3), "iteration"), 2, [2, 3, 5]),  # a tuple, and in no order
    (1, ([0, 2.5], "iteration"), 1, [3]),  # 0 is past from the beginning
]


@pytest.mark.parametrize(("per_epoch", "schedule", "resume", "expected"), MANUAL)
def test_a_manual_schedule_fires_once_when_each_point_is_reached(per_epoch, schedule, resume, expected):
    whole, first, second = (ManualScheduleTrigger(*schedule) for _ in range(3))
    moments = [at(i, i / per_epoch) for i in range(1, 206)]
    assert [m.updater.iteration for m in moments if whole(m)] == expected
    before = [m.updater.iteration for m in moments[:resume] if first(m)]
    second.load_state_dict(first.state_dict())
    assert before + [m.updater.iteration for m in moments[resume:] if second(m)] == expected


def test_a_manual_schedule_that_is_asked_now_and_then_still_fires():
    trigger = ManualScheduleTrigger([3, 4, 10], "iteration")
    assert [trigger(at(i)) for i in (2, 5, 6, 12, 20)] == [False, True, False, True, False]


def test_a_manual_schedule_is_finished_after_its_last_point():
    trigger = ManualScheduleTrigger([2, 3], "iteration")
    finished = []
    for i in (1, 2, 3):
        trigger(at(i))
        finished.append(trigger.finished)
    assert finished == [False, False, True]
    assert repr(trigger) == "ManualScheduleTrigger([2, 3], 'iteration')"


@pytest.mark.parametrize(
    ("points", "unit", "message"),
    [
        ([], "epoch", r"points must name at least one epoch, got \[\]"),
        (["a"], "epoch", r"points must be numbers of epochs, got 'a'"),
        (float("nan"), "iteration", "points must be numbers of iterations, got nan"),
        (None, "iteration", "points must be numbers of iterations, got None"),
        (1, "day", "unit must be 'iteration' or 'epoch', got 'day'"),
    ],
)
def test_a_manual_schedule_of_no_points_is_refused(points, unit, message):
    with pytest.raises(ValueError, match=message):
        ManualScheduleTrigger(points, unit)


def test_once_fires_at_the_first_question_only_and_not_after_a_resume():
    first, second = OnceTrigger(), OnceTrigger()
    assert [first(at(i)) for i in (1, 2, 3)] == [True, False, False]
    second.load_state_dict(first.state_dict())
    assert second.finished
    assert [second(at(i)) for i in (4, 5)] == [False, False]


def test_once_with_call_on_resume_fires_again_after_each_resume():
    first, second, third = (OnceTrigger(call_on_resume=True) for _ in range(3))
    assert [first(at(i)) for i in (1, 2)] == [True, False]
    second.load_state_dict(first.state_dict())
    third.load_state_dict(second.state_dict())  # never asked in between
    for trigger in (second, third):
        assert not trigger.finished
        assert [trigger(at(i)) for i in (3, 4)] == [True, False]


def test_a_time_trigger_counts_the_time_before_a_resume():
    def asked(trigger, *times):
        return [trigger(SimpleNamespace(elapsed_time=t)) for t in times]

    first, second = TimeTrigger(1), TimeTrigger(1)
    assert asked(first, 0.9, 1.2, 1.3, 2.1) == [False, True, False, True]
    second.load_state_dict(first.state_dict())
    assert asked(second, 2.2, 3.05, 5.5, 5.6, 5.7) == [False, True, True, True, False]  # one period a question


@pytest.mark.parametrize("period", [0, -1, float("nan"), None, "60"])
def test_a_time_trigger_needs_a_positive_number_of_seconds(period):
    with pytest.raises(ValueError, match="period must be a positive number of seconds, got"):
        TimeTrigger(period)


# -- the best value


class Updates:
    """The least that a Trainer takes for an updater."""

    def __init__(self, per_epoch=1):
        self.iteration = 0
        self.per_epoch = per_epoch

    def update(self):
        self.iteration += 1

    @property
    def epoch(self):
        return self.iteration // self.per_epoch

    @property
    def epoch_detail(self):
        return self.iteration / self.per_epoch

    def state_dict(self):
        return {"iteration": self.iteration}

    def load_state_dict(self, state):
        self.iteration = state["iteration"]


def train(out, trigger, values, stop, per_epoch=1, state=None, key="main/accuracy"):
    """Runs with an observation a iteration; returns where the trigger fired, and the state at the end."""
    trainer, fired = Trainer(Updates(per_epoch), (stop, "iteration"), out=out), []
    trainer.extend(lambda t: report({key: values[t.updater.iteration - 1]}), name="observe", priority=2)
    trainer.extend(lambda t: fired.append(t.updater.iteration), name="record", trigger=trigger, priority=1)
    if state:
        trainer.load_state_dict(state)
    trainer.run()
    return fired, trainer.state_dict()


FOUR, EIGHT = [0.5, 0.5, 0.4, 0.6], [0.5, 0.5, 0.5, 0.5, 0.4, 0.4, 0.6, 0.6]
BEST = [
    (MaxValueTrigger, (1, "iteration"), 1, FOUR, 1, [1], [4]),
    (MaxValueTrigger, (2, "iteration"), 1, EIGHT, 2, [2], [8]),
    (MaxValueTrigger, (2, "iteration"), 1, EIGHT, 3, [2], [8]),
    (MaxValueTrigger, (1, "epoch"), 2, EIGHT, 2, [2], [8]),
    (MaxValueTrigger, (1, "epoch"), 2, EIGHT, 3, [2], [8]),
    (MinValueTrigger, (1, "iteration"), 1, FOUR, 1, [1], [3]),
    (MinValueTrigger, (2, "iteration"), 1, EIGHT, 2, [2], [6]),
    (MinValueTrigger, (2, "iteration"), 1, EIGHT, 3, [2], [6]),
    (MinValueTrigger, (1, "epoch"), 2, EIGHT, 2, [2], [6]),
    (MinValueTrigger, (1, "epoch"), 2, EIGHT, 3, [2], [6]),
]


@pytest.mark.parametrize(("kind", "interval", "per_epoch", "values", "resume", "before", "after"), BEST)
def test_a_best_value_trigger_fires_at_strictly_better_means(
    tmp_path, kind, interval, per_epoch, values, resume, before, after
):
    def trigger():
        return kind("main/accuracy", trigger=interval)

    assert train(tmp_path, trigger(), values, len(values), per_epoch)[0] == before + after
    fired, state = train(tmp_path, trigger(), values, resume, per_epoch)
    assert fired == before
    assert train(tmp_path, trigger(), values, len(values), per_epoch, state)[0] == after


def test_the_mean_of_a_best_value_trigger_is_weighted():
    trigger = MaxValueTrigger("accuracy", trigger=(2, "iteration"))
    moments = [at(i) for i in range(1, 5)]
    for moment, ratio in zip(moments, [(3, 4), (0, 1), (1, 1), (5, 9)], strict=True):  # 3/5, then 6/10
        moment.observation = {"accuracy": Ratio(*ratio)}
        trigger(moment)
    assert trigger.best_value == 3 / 5


def test_nan_is_never_the_best_value():
    trigger, fired = MinValueTrigger("loss", trigger=(1, "iteration")), []
    for i, loss in enumerate([float("nan"), 2.0, float("nan"), 1.0], 1):
        moment = at(i)
        moment.observation = {"loss": torch.tensor(loss)}
        fired.append(trigger(moment))
    assert fired == [False, True, False, True]


def test_a_comparison_of_ones_own_decides_what_is_better():
    trigger, fired = BestValueTrigger("loss", lambda best, new: new < best - 0.5, trigger=(1, "iteration")), []
    for i, loss in enumerate([2.0, 1.8, 1.4, 1.0], 1):
        moment = at(i)
        moment.observation = {"loss": loss}
        fired.append(trigger(moment))
    assert fired == [True, False, True, False]


def test_a_value_that_is_never_observed_is_named(run):
    run.extend(extensions.snapshot(), trigger=MaxValueTrigger("main/acuracy"))
    message = r"'main/acuracy' was not observed since the last question, only \['main/accuracy', 'main/loss'\] now"
    with pytest.raises(KeyError, match=message):
        run.run()


# -- early stopping


def stop_after(trigger, values, key):
    answers = []
    for i, value in enumerate(values, 1):
        moment = at(i, i)
        moment.observation = {} if value is None else {key: torch.tensor(value)}
        answers.append(trigger(moment))
    return answers


@pytest.mark.parametrize(
    ("key", "values", "patience", "expected"),
    [
        ("main/accuracy", [0.5, 0.5, 0.6, 0.7, 0.6, 0.4, 0.3, 0.2], 3, [7]),
        ("main/loss", [100, 80, 30, 10, 20, 24, 30, 35], 3, [7, 8]),
        ("main/loss", [0.5, 0.5, 0.5], 2, [3]),
        ("main/loss", [1.0, float("nan"), 0.5, float("nan"), float("nan")], 2, [5]),
        ("main/loss", [float("nan"), 1.0, 2.0, 3.0], 2, [4]),
    ],
)
def test_early_stopping_fires_when_patience_ends(key, values, patience, expected):
    trigger = EarlyStoppingTrigger(check_trigger=(1, "iteration"), monitor=key, patience=patience)
    fired = [i for i, answer in enumerate(stop_after(trigger, values, key), 1) if answer]
    assert fired == expected if len(fired) == len(expected) else fired[: len(expected)] == expected


def test_early_stopping_ends_with_max_trigger():
    trigger = EarlyStoppingTrigger(check_trigger=(1, "epoch"), max_trigger=(3, "epoch"))
    assert stop_after(trigger, [100.0, 80.0, 30.0], "main/loss") == [False, False, True]
    assert trigger.get_training_length() == (3, "epoch")
    assert repr(trigger) == "EarlyStoppingTrigger(monitor='main/loss', patience=3)"


def test_early_stopping_takes_the_mean_between_checks(caplog):
    trigger = EarlyStoppingTrigger(check_trigger=(2, "iteration"), patience=1, verbose=True)
    assert stop_after(trigger, [2.0, 0.0, 1.5, 0.4, 1.0, 0.9], "main/loss") == [False] * 5 + [False]
    assert stop_after(trigger, [], "main/loss") == []
    assert caplog.messages[0] == "early stopping: main/loss 1, best 1, 0 of 1"
    assert caplog.records[0].levelname == "WARNING"  # shown where nobody has configured logging


def test_early_stopping_passes_over_a_check_without_its_value():
    trigger = EarlyStoppingTrigger(check_trigger=(1, "iteration"), patience=1)
    assert stop_after(trigger, [1.0], "main/loss") == [False]
    with pytest.warns(UserWarning, match=r"'main/loss' is not observed in this iteration, only \[\]"):
        assert stop_after(trigger, [1.0, None], "main/loss")[1] is False


@pytest.mark.parametrize("stop_at", range(1, 8))
def test_a_resumed_run_keeps_its_patience(tmp_path, stop_at):
    values = [1.0, 0.8, 0.9, 0.7, 0.9, 0.9, 0.75, 0.5, 0.4]  # patience 3 ends at 7

    def run(stop, state=None):
        trainer = Trainer(Updates(), stop, out=tmp_path)
        trainer.extend(lambda t: report({"main/loss": values[t.updater.iteration - 1]}), name="observe")
        if state:
            trainer.load_state_dict(state)
        return trainer

    def stopping():
        return EarlyStoppingTrigger(check_trigger=(1, "iteration"), patience=3)

    whole = run(stopping())
    whole.run()
    assert whole.updater.iteration == 7
    first = run(stopping())
    while not first.finished and first.updater.iteration < stop_at:
        with first.iteration():
            first.updater.update()
    resumed = run(stopping(), first.state_dict())
    resumed.run()
    assert resumed.updater.iteration == 7
    assert resumed.stop_trigger.state_dict() == whole.stop_trigger.state_dict()


def test_a_run_that_stopped_early_goes_on_when_it_is_given_more_patience(tmp_path):
    def run(patience, max_trigger=(8, "iteration")):
        trainer = Trainer(Updates(), EarlyStoppingTrigger((1, "iteration"), patience=patience, max_trigger=max_trigger))
        trainer.out = tmp_path
        trainer.extend(lambda t: report({"main/loss": 1.0}), name="observe")
        return trainer

    first = run(2)
    first.run()
    assert first.updater.iteration == 3
    same, longer = run(2), run(4)
    same.load_state_dict(first.state_dict())
    same.run()
    assert same.updater.iteration == 3
    longer.load_state_dict(first.state_dict())
    longer.run()
    assert longer.updater.iteration == 5
    past = run(100, (5, "iteration"))
    past.load_state_dict(longer.state_dict())
    past.run()
    assert past.updater.iteration == 5


def test_early_stopping_asks_for_the_mode_where_the_key_does_not_tell():
    assert EarlyStoppingTrigger(monitor="validation/main/accuracy").mode == "max"
    assert EarlyStoppingTrigger(monitor="accuracy_net/loss").mode == "min"
    assert EarlyStoppingTrigger(monitor="main/f1", mode="max").mode == "max"
    with pytest.raises(ValueError, match="mode must be 'max' or 'min' here: 'main/f1' does not say"):
        EarlyStoppingTrigger(monitor="main/f1")


def test_early_stopping_refuses_what_it_cannot_use():
    with pytest.raises(ValueError, match="mode must be 'auto', 'max' or 'min', got 'less'"):
        EarlyStoppingTrigger(mode="less")
    with pytest.raises(ValueError, match="patience must be 1 or more checks, got 0"):
        EarlyStoppingTrigger(patience=0)
    with pytest.raises(TypeError, match="patience and patients are one thing"):
        EarlyStoppingTrigger(patience=1, patients=2)
    assert EarlyStoppingTrigger(patients=2).patience == 2


def test_a_shared_trigger_is_refused_whatever_its_kind(run):
    trigger = MaxValueTrigger("main/accuracy")
    run.extend(extensions.snapshot(), trigger=trigger)
    with pytest.raises(ValueError, match="it would fire for the first one only"):
        run.extend(extensions.snapshot(), trigger=trigger)


def test_a_new_schedule_at_a_resume_does_not_catch_up(tmp_path):
    first = make_run(tmp_path, (3, "iteration"))
    first.run()
    resumed, fired = make_run(tmp_path), []
    resumed.extend(
        lambda t: fired.append(t.updater.iteration), name="new", trigger=ManualScheduleTrigger([2, 4], "iteration")
    )
    with pytest.warns(UserWarning, match="extensions/new is not in the snapshot: it starts fresh"):
        resumed.load_state_dict(first.state_dict())
    resumed.run()
    assert fired == [4]


def test_a_best_value_trigger_needs_a_name_and_a_comparison():
    with pytest.raises(TypeError, match="key must be the name of an observation, got None"):
        MaxValueTrigger(None)
    with pytest.raises(TypeError, match="compare must be a function of the best value and a new one, got 'max'"):
        BestValueTrigger("main/loss", "max")


@pytest.mark.parametrize("limit", [lambda: TimeTrigger(1e-9), lambda: lambda t: t.updater.iteration >= 3, OnceTrigger])
def test_any_trigger_may_end_early_stopping_at_the_latest(tmp_path, limit):
    trainer = Trainer(Updates(), EarlyStoppingTrigger((1, "iteration"), max_trigger=limit()), out=tmp_path)
    trainer.extend(lambda t: report({"main/loss": 1 / t.updater.iteration}), name="observe")
    trainer.extend(extensions.ProgressBar())
    trainer.run()
    assert trainer.updater.iteration <= 3
    resumed = Trainer(Updates(), EarlyStoppingTrigger((1, "iteration"), max_trigger=limit()), out=tmp_path)
    state = trainer.state_dict()
    resumed.load_state_dict({**state, "extensions": {"training": state["extensions"]["training"]}})
    resumed.run()
    assert resumed.updater.iteration == trainer.updater.iteration
    assert resumed.stop_trigger.get_training_length() is None


def test_what_was_observed_before_training_is_no_part_of_the_first_mean(tmp_path):
    stop = EarlyStoppingTrigger((2, "iteration"), patience=1, max_trigger=(2, "iteration"))
    trainer = Trainer(Updates(), stop, out=tmp_path)
    trainer.extend(
        lambda t: report({"main/loss": 100.0 if t.is_before_training else 1.0}),
        name="observe",
        call_before_training=True,
    )
    trainer.run()
    assert stop.state_dict()["summary"]["main/loss"]["x"] == 2.0


@pytest.mark.parametrize("stop_at", range(1, 9))
@pytest.mark.parametrize("kind", ["max", "early"])
def test_a_mean_under_way_is_part_of_the_state(tmp_path, kind, stop_at):
    values = [1.0, 5.0, 4.0, 0.0, 9.0, 0.5, 3.0, 7.0, 2.0, 6.0]  # means of 3: 10/3, 9.5/3, 12/3

    def run(stop):
        fired = []
        if kind == "max":
            trainer = Trainer(Updates(), (stop, "iteration"), out=tmp_path)
            trigger = MaxValueTrigger("main/loss", (3, "iteration"))
        else:
            trigger = EarlyStoppingTrigger((3, "iteration"), mode="max", patience=1, max_trigger=(stop, "iteration"))
            trainer = Trainer(Updates(), trigger, out=tmp_path)
            trigger = (1, "iteration")
        trainer.extend(lambda t: report({"main/loss": values[t.updater.iteration - 1]}), name="observe", priority=2)
        trainer.extend(lambda t: fired.append(t.updater.iteration), name="record", trigger=trigger, priority=1)
        return trainer, fired

    whole, expected = run(10)
    whole.run()
    assert expected[-1] == (9 if kind == "max" else 6)
    first, before = run(10)
    while not first.finished and first.updater.iteration < stop_at:
        with first.iteration():
            first.updater.update()
    resumed, after = run(10)
    resumed.load_state_dict(first.state_dict())
    resumed.run()
    assert before + after == expected


def test_inner_triggers_that_are_new_at_a_resume_count_from_there(tmp_path):
    first = make_run(tmp_path, (5, "iteration"))
    first.run()
    resumed = make_run(tmp_path, (13, "iteration"))
    resumed.extend(extensions.LogReport(trigger=(4, "iteration"), filename=None))
    fired = []
    best = MinValueTrigger("main/loss", (4, "iteration"))
    resumed.extend(lambda t: fired.append(t.updater.iteration), name="best", trigger=best)
    resumed.extend(lambda t: fired.append(-1), name="minute", trigger=TimeTrigger(1000))
    state = first.state_dict()
    state["elapsed_time"] = 5000.0  # a long run: the minutes before are past
    with pytest.warns(UserWarning, match="starts fresh"):
        resumed.load_state_dict(state)
    resumed.run()
    assert [entry["iteration"] for entry in resumed.get_extension("LogReport").log] == [8, 12]
    assert fired[0] == 8 and -1 not in fired


def test_a_trigger_of_another_kind_at_a_resume_starts_fresh(tmp_path):
    first = make_run(tmp_path, (3, "iteration"))
    first.extend(lambda t: None, name="x", trigger=(1, "epoch"))
    first.run()
    resumed = make_run(tmp_path, EarlyStoppingTrigger((1, "iteration"), max_trigger=(4, "iteration")))
    resumed.extend(lambda t: None, name="x", trigger=OnceTrigger())
    with pytest.warns(UserWarning) as caught:
        resumed.load_state_dict(first.state_dict())
    assert [str(warning.message) for warning in caught] == [
        "extensions/training/trigger was IntervalTrigger and is EarlyStoppingTrigger now: it starts fresh.",
        "extensions/x/trigger was IntervalTrigger and is OnceTrigger now: it starts fresh.",
    ]
    resumed.run()
    assert resumed.updater.iteration == 4


def test_an_inner_trigger_shared_by_two_extensions_is_refused(run):
    trigger = MaxValueTrigger("main/accuracy")
    run.extend(extensions.LogReport(trigger=trigger))
    for extension in (extensions.PlotReport(["main/loss"], trigger=trigger), extensions.snapshot()):
        with pytest.raises(ValueError, match="is already that of 'LogReport'"):
            run.extend(extension, trigger=None if isinstance(extension, extensions.PlotReport) else trigger)
