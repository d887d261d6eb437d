"""Intervals: every so many iterations or epochs, exactly."""

from fractions import Fraction

import pytest
from helpers import at, make_run

from trainer.iterators import SerialIterator
from trainer.triggers import IntervalTrigger, get_trigger


def fired(trigger, trainers):
    return [i for i, trainer in enumerate(trainers, 1) if trigger(trainer)]


def test_it_fires_at_each_multiple_of_iterations():
    assert fired(IntervalTrigger(3, "iteration"), [at(i) for i in range(1, 11)]) == [3, 6, 9]


def test_a_tenth_of_an_epoch_is_a_tenth():
    # Chainer's floats skip 3, 5 and 9
    assert fired(IntervalTrigger(0.1, "epoch"), [at(i, i / 10) for i in range(1, 21)]) == list(range(1, 21))


@pytest.mark.parametrize(
    ("period", "per_epoch", "iterations"),
    [
        (1, 5, [5, 10]),
        (2, 5, [10]),
        (0.5, 5, [3, 5, 8, 10]),
        (0.5, 3, [2, 3, 5, 6, 8, 9]),
        (Fraction(1, 3), 10, [4, 7, 10]),
    ],
)
def test_a_fraction_of_an_epoch_fires_at_the_first_iteration_at_or_past_it(period, per_epoch, iterations):
    assert fired(IntervalTrigger(period, "epoch"), [at(i, i / per_epoch) for i in range(1, 11)]) == iterations


def test_batches_that_straddle_epochs_fire_when_the_boundary_is_crossed():
    iterator = SerialIterator(range(10), 4)
    trigger, seen = IntervalTrigger(1, "epoch"), []
    trainer = at()
    trainer.updater = iterator
    for i in range(1, 11):
        next(iterator)
        if trigger(trainer):
            seen.append(i)
    assert seen == [3, 5, 8, 10]


def test_it_does_not_drift_over_a_million_iterations():
    trigger = IntervalTrigger(0.1, "epoch")
    per_epoch, seen = 70, 0
    trainer = at()
    progress = [0, per_epoch]
    trainer.updater.epoch_progress = lambda: progress
    for i in range(1, 10**6 + 1):
        progress[0] = i
        if trigger(trainer):
            seen += 1
            assert i % 7 == 0
    assert seen == 10**6 // 7


def test_it_catches_up_when_it_was_not_asked():
    trigger = IntervalTrigger(5, "iteration")
    assert [trigger(at(i)) for i in (4, 6, 7, 16, 17)] == [False, True, False, True, False]


@pytest.mark.parametrize("resume", range(1, 10))
@pytest.mark.parametrize("period", [(3, "iteration"), (0.3, "epoch"), (1, "epoch")])
def test_a_resumed_trigger_fires_as_if_nothing_had_happened(period, resume):
    trainers = [at(i, i / 7) for i in range(1, 22)]
    whole = IntervalTrigger(*period)
    expected = [whole(trainer) for trainer in trainers]
    first, second = IntervalTrigger(*period), IntervalTrigger(*period)
    got = [first(trainer) for trainer in trainers[:resume]]
    second.load_state_dict(first.state_dict())
    assert got + [second(trainer) for trainer in trainers[resume:]] == expected


def test_a_resumed_trigger_may_have_another_period():
    old, new = IntervalTrigger(10, "iteration"), IntervalTrigger(2, "iteration")
    old(at(7))
    new.load_state_dict(old.state_dict())
    assert [new(at(i)) for i in (7, 8, 9, 10)] == [False, True, False, True]


@pytest.mark.parametrize(
    ("period", "unit", "message"),
    [
        (10, "epochs", r"unit must be 'iteration' or 'epoch', got 'epochs'; e.g. \(10, 'epoch'\)\."),
        (0, "epoch", r"period must be a positive number of epochs, got 0; e.g. \(10, 'epoch'\)\."),
        (-1, "iteration", "period must be a positive number of iterations, got -1"),
        (None, "epoch", "period must be a positive number of epochs, got None"),
        (float("nan"), "epoch", "period must be a positive number of epochs, got nan"),
    ],
)
def test_a_wrong_interval_is_refused(period, unit, message):
    with pytest.raises(ValueError, match=message):
        IntervalTrigger(period, unit)


def test_get_trigger_takes_pairs_callables_and_none():
    assert repr(get_trigger((20, "epoch"))) == str(get_trigger((20, "epoch"))) == "IntervalTrigger(20, 'epoch')"
    assert get_trigger(len) is len
    assert get_trigger(None)(at(1)) is False
    assert get_trigger((20, "epoch")).get_training_length() == (20, "epoch")
    with pytest.raises(
        TypeError, match=r"a trigger must be \(period, unit\), a function of the trainer, or None, got 5"
    ):
        get_trigger(5)


def test_a_period_of_iterations_may_be_fractional():
    assert fired(IntervalTrigger(2.5, "iteration"), [at(i) for i in range(1, 11)]) == [3, 5, 8, 10]


@pytest.mark.parametrize("period", [1, 0.1, 0.25, Fraction(1, 3), Fraction(1, 7)])
def test_an_epoch_detail_in_floating_point_fires_where_the_exact_number_does(period):
    for per_epoch in (*range(1, 60), 744, 997):
        trigger, iterations = IntervalTrigger(period, "epoch"), range(1, 3 * per_epoch + 1)
        expected = [i for i in iterations if Fraction(i, per_epoch) // _exact(period) != _before(i, per_epoch, period)]
        assert fired(trigger, (at(i, i / per_epoch) for i in iterations)) == expected, per_epoch


def _exact(period):
    return Fraction(period).limit_denominator(10**6)


def _before(i, per_epoch, period):
    return Fraction(i - 1, per_epoch) // _exact(period)


def test_a_resumed_run_may_do_every_other_iteration_what_it_did_in_each(tmp_path):
    def run(period, stop):
        trainer, calls = make_run(tmp_path, (stop, "iteration")), []
        trainer.extend(lambda t: calls.append(t.updater.iteration), "note", trigger=(period, "iteration"))
        return trainer, calls

    first, calls = run(1, 3)
    first.run()
    assert calls == [1, 2, 3]
    resumed, calls = run(2, 8)
    resumed.load_state_dict(first.state_dict())
    resumed.run()
    assert calls == [4, 6, 8]
