"""Reported values: their names, and their means."""

import copy
import math
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from helpers import make_data
from torch import nn

import extensions
import trainer
from trainer import (
    Classifier,
    DictSummary,
    Observation,
    Ratio,
    Reporter,
    StandardUpdater,
    Summary,
    Trainer,
    Weighted,
    report,
    report_scope,
)
from trainer.iterators import SerialIterator


def test_values_are_named_after_their_observer():
    reporter, model = Reporter(), nn.Linear(1, 1)
    reporter.add_observer("main", model)
    with reporter.scope({}) as observation:
        report({"loss": 1, "x": 2.5}, model)
        report({"anonymous": 3})
    assert observation == {"main/loss": 1, "main/x": 2.5, "anonymous": 3}


def test_nested_modules_are_named_by_their_path():
    reporter = Reporter()
    model = nn.Sequential(nn.Sequential(nn.Linear(1, 1)))
    reporter.add_model("main", model)
    with reporter.scope({}) as observation:
        report({"z": 1}, model[0][0])
        report({"z": 2}, model)
    assert observation == {"main/0/0/z": 1, "main/z": 2}


def test_add_observers_puts_nothing_between():
    reporter, a = Reporter(), nn.Linear(1, 1)
    reporter.add_observers("pre", [("/a", a)])
    with reporter.scope({}) as observation:
        report({"x": 1}, a)
    assert observation == {"pre/a/x": 1}


def test_an_unknown_observer_is_refused_with_the_names_that_are_known():
    reporter = Reporter()
    reporter.add_observer("main", object())
    with reporter.scope({}), pytest.raises(KeyError) as caught:
        report({"x": 1}, nn.Linear(1, 1))
    assert str(caught.value) == (
        "Given observer is not registered to the reporter: a Linear, and only ['main'] are; report from a model that"
        " the updater or the Evaluator was given, or call report(values) without an observer."
    )


def test_reporting_outside_a_scope_does_nothing():
    report({"x": 1})
    report({"x": 1}, object())


def test_scopes_nest_and_are_put_back_after_an_error():
    reporter = Reporter()
    with reporter.scope({}) as outer:
        with pytest.raises(ValueError), report_scope({}) as inner:
            report({"x": 1})
            raise ValueError
        report({"y": 2})
    assert (outer, inner) == ({"y": 2}, {"x": 1})


def test_a_thread_may_have_its_own_reporter():
    own = {}

    def evaluate():
        with Reporter().scope(own):
            report({"x": 1})

    with Reporter().scope({}) as observation:
        in_a_thread(evaluate)
    assert (observation, own) == ({}, {"x": 1})


def test_reported_tensors_are_detached_and_those_that_will_change_are_copied():
    parameter, counter = nn.Parameter(torch.ones(())), torch.zeros(())
    loss = parameter * 2
    with report_scope({}) as observation:
        report({"loss": loss, "parameter": parameter, "counter": counter, "pair": (counter, 1)})
        report({"ratio": Ratio(counter, counter)})
    with torch.no_grad():
        parameter += 1
        counter += 1
    assert not observation["loss"].requires_grad
    assert float(observation["loss"]) == 2 and float(observation["parameter"]) == 1
    assert float(observation["counter"]) == 0 and float(observation["pair"]) == 0
    assert observation["ratio"].total == 0


def test_statistics_are_the_mean_and_the_population_deviation():
    summary = Summary()
    for x in (1, 2, 3):
        summary.add(x)
    mean, deviation = summary.make_statistics()
    assert mean == 2 and round(deviation, 5) == 0.81650
    summary = DictSummary()
    summary.add({"x": (1, 3)})
    summary.add({"x": (5, 1)})
    assert summary.make_statistics() == {"x": 2.0, "x.std": math.sqrt(3)}


def test_numbers_of_any_kind_are_averaged():
    summary = DictSummary()
    values = {
        "i": 1,
        "f": 0.5,
        "b": True,
        "n": np.float32(2),
        "a": np.array(3),
        "t": torch.tensor(4),
        "w": (5, 2),
        "one": torch.full((1, 1), 6.0),
        "array": np.full((1,), 7),
        "weighted": (torch.full((1,), 8.0), 2),
        "fraction": Fraction(9),
        "decimal": Decimal(10),
    }
    summary.add(values)
    assert list(summary.compute_mean().values()) == [1, 0.5, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert DictSummary().compute_mean() == {}


def test_a_weight_must_be_a_number():
    with pytest.raises(ValueError, match=r"the weight in \(value, weight\) must be a number or 0-d tensor, got \[1\]"):
        DictSummary().add({"x": (1.0, [1])})


def test_an_empty_summary_has_no_mean():
    with pytest.raises(ZeroDivisionError, match="the mean of no values"):
        Summary().compute_mean()


def test_ratios_are_added_before_they_are_divided():
    summary = DictSummary()
    for total, count in [(3, 4), (4, 4), (0, 2)]:
        summary.add({"accuracy": Ratio(torch.tensor(total), torch.tensor(count))})
    assert summary.compute_mean() == {"accuracy": 7 / 10}


def test_a_plain_value_weighs_the_samples_of_its_batch():
    summary = DictSummary()
    for size in (4, 4, 2):
        observation = Observation(size=size)
        observation.weight = size
        summary.add(observation)
    assert summary.compute_mean() == {"size": 3.6}


def test_what_weighs_nothing_counts_for_nothing():
    summary = DictSummary()
    summary.add({"loss": Weighted(torch.tensor(math.nan), torch.tensor(0)), "accuracy": Ratio(0, 0)})
    assert all(math.isnan(value) for value in summary.compute_mean().values())
    summary.add({"loss": Weighted(2.0, 1), "accuracy": Ratio(1, 2)})
    assert summary.compute_mean() == {"loss": 2.0, "accuracy": 0.5}


def test_sums_go_left_to_right_in_float64_whenever_they_are_fetched():
    values = [torch.rand(()) for _ in range(3000)]
    total = 0.0
    for value in values:
        total += value.item()
    at_once, bit_by_bit, saved = Summary(), Summary(), Summary()
    for i, value in enumerate(values):
        for summary in (at_once, bit_by_bit, saved):
            summary.add(value)
        if i % 7 == 0:
            bit_by_bit.compute_mean()
        if i % 997 == 0:
            copy = Summary()
            copy.load_state_dict(saved.state_dict())
            saved = copy
    assert at_once.compute_mean() == bit_by_bit.compute_mean() == saved.compute_mean() == total / 3000


def test_a_resumed_summary_keeps_fractional_weights():
    summary, resumed = DictSummary(), DictSummary()
    summary.add({"x": (1.0, 0.25), "y": 2})
    resumed.load_state_dict(summary.state_dict())
    resumed.add({"x": (2.0, 0.5)})
    assert resumed.compute_mean() == {"x": 1.25 / 0.75, "y": 2.0}


def test_mixed_dtypes_and_plain_numbers_may_alternate():
    summary = DictSummary()
    for value in (torch.tensor(1.0), 2, torch.tensor(3.0, dtype=torch.float64), torch.tensor(4)):
        summary.add({"x": value})
    assert summary.compute_mean() == {"x": 2.5}


def test_what_is_observed_reads_as_a_number():
    loss, accuracy = Weighted(torch.tensor(2.0), 4), Ratio(3, torch.tensor(4))
    assert loss > 1 and loss < 2.5 and loss >= accuracy and 1 < loss
    assert (loss + 1, 1 - loss, 2 * loss, loss / accuracy, loss**2, -loss, abs(-loss)) == (3, -1, 4, 2 / 0.75, 4, -2, 2)
    assert (f"{loss:.3f}", round(accuracy, 1), accuracy.item(), sum([loss, loss])) == ("2.000", 0.8, 0.75, 4)
    assert not np.isnan(loss) and np.isclose(accuracy, 0.75)
    assert loss == 2 and accuracy == 0.75 and accuracy != 1 and 2.0 == loss
    assert accuracy == Ratio(3, 4) != Ratio(6, 8) and tuple(accuracy) == (3, 4) and loss.weight == 4


def test_a_reporter_is_current_inside_its_with():
    with pytest.raises(IndexError, match="there is no current reporter outside an iteration"):
        trainer.get_current_reporter()
    outer, inner = trainer.Reporter(), trainer.Reporter()
    with outer:
        with inner:
            assert trainer.get_current_reporter() is inner
        assert trainer.get_current_reporter() is outer
        trainer.report({"x": 1})
    assert (outer.observation, inner.observation) == ({"x": 1}, {})


def test_numbers_in_arrays_of_one_element_are_averaged_too():
    summary = Summary()
    summary.add(torch.tensor([3.0]))
    summary.add(torch.tensor([1.0]))
    assert summary.compute_mean() == 2.0
    summary = DictSummary()
    summary.add({"x": Ratio(torch.tensor([3]), torch.tensor([4]))})
    assert summary.compute_mean() == {"x": 0.75}


def test_observed_values_print_and_convert_as_the_number():
    loss, accuracy = Weighted(torch.tensor(2.5), 4), Ratio(torch.tensor(3), 4)
    assert (str(loss), f"{accuracy}", int(loss)) == ("2.5", "0.75", 2)


def in_a_thread(function, *args):
    """Runs a function in a thread of its own, and raises its error here."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *args).result()


class Threaded(torch.nn.Linear):
    """Reports in a thread of its own, which enters the run's reporter or does not."""

    def __init__(self, enters):
        super().__init__(2, 3)
        self.enters = enters

    def forward(self, x, t):
        loss = torch.nn.functional.cross_entropy(super().forward(x), t)
        reporter = trainer.get_current_reporter() if self.enters else nullcontext()

        def say():
            with reporter:
                report({"loss": loss, "in a thread": 3}, self)

        in_a_thread(say)
        return loss


def threaded_run(out, enters):
    model = Threaded(enters)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    run = Trainer(StandardUpdater(SerialIterator(make_data(), 5), optimizer, model=model), (1, "epoch"), out=out)
    run.extend(extensions.LogReport())
    return run


def test_a_report_from_a_thread_that_enters_the_reporter_arrives(tmp_path):
    run = threaded_run(tmp_path, True)
    run.run()
    (entry,) = run.get_extension("LogReport").log
    assert entry["main/in a thread"] == 3 and entry["main/loss"] > 0


def test_a_report_from_any_other_thread_is_refused_where_it_is_made(tmp_path):
    told = (
        r"\['loss', 'in a thread'\] reported in thread .*, which belongs to no run. Call reporter = trainer.get_current"
    )
    with pytest.raises(RuntimeError, match=told):
        threaded_run(tmp_path, False).run(show_loop_exception_msg=False)


def test_a_report_from_a_backward_hook_arrives_in_autograd_s_own_thread_too():
    reporter, x = Reporter(), torch.ones(2, requires_grad=True)
    x.register_hook(lambda gradient: report({"norm": gradient.norm()}))
    with reporter.scope({}) as observation:
        in_a_thread(lambda: (x * 3).sum().backward())
    assert float(observation["norm"]) == pytest.approx(18**0.5)


def test_a_model_of_no_run_reports_nothing_in_another_thread():
    model = Classifier(torch.nn.Identity())
    with Reporter().scope({}) as observation:
        in_a_thread(model, torch.eye(3), torch.tensor([0, 1, 2]))
    assert observation == {}
    in_a_thread(report, {"x": 1})  # no run is under way


def test_a_copy_of_the_model_that_nobody_registered_is_refused_where_it_reports():
    reporter, model = Reporter(), Classifier(torch.nn.Identity())
    reporter.add_model("main", model)
    with reporter.scope({}), pytest.raises(KeyError, match="Given observer is not registered to the reporter: a Class"):
        copy.deepcopy(model)(torch.eye(3), torch.tensor([0, 1, 2]))
