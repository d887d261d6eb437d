"""The best value of an observation, when it was observed, and how it is shown."""

import json
import math

import pytest
import torch
from helpers import make_data, make_run

import extensions
from trainer import report
from trainer.iterators import SerialIterator

VALUES = [0.3, 0.1, 0.7, 0.2, 0.6, 0.9, 0.9, 0.1, 0.4, 0.5, 0.8, 0.35]


def observed(out, best, values=VALUES, stop=None, trigger=(1, "iteration")):
    """A run that observes a value in each iteration, and logs its best."""
    run = make_run(out, (stop or len(values), "iteration"))
    run.extend(lambda t: report({"x": values[t.updater.iteration - 1]}), "observe", priority=300)
    run.extend(best, name="best")
    run.extend(extensions.LogReport(trigger=trigger))
    run.extend(extensions.snapshot(filename="s_{.updater.iteration}"), trigger=(1, "iteration"))
    return run


def facts(best):
    return best.best_value, best.best_iteration, best.best_epoch


@pytest.mark.parametrize(("kind", "expected"), [(extensions.MaxValue, (0.9, 6, 3)), (extensions.MinValue, (0.1, 2, 1))])
def test_the_first_of_the_best_values_is_kept_with_its_iteration_and_epoch(tmp_path, kind, expected):
    best = kind("x", (1, "iteration"))
    assert facts(best) == (None, None, None)
    run = observed(tmp_path, best)
    run.run()
    assert best.best_value == pytest.approx(expected[0], rel=1e-15) and facts(best)[1:] == expected[1:]


@pytest.mark.parametrize("trigger", [(1, "iteration"), (3, "iteration"), (1, "epoch")])
def test_log_and_table_have_the_best_of_the_log_s_means_to_the_bit(tmp_path, capsys, trigger):
    best = extensions.MaxValue("x", trigger)
    run = observed(tmp_path, best, trigger=trigger)
    run.extend(extensions.PrintReport(["x", "best/x"]))
    run.run()
    log = run.get_extension("LogReport").log
    greatest = [max(entry["x"] for entry in log[: i + 1]) for i in range(len(log))]
    assert [entry["best/x"] for entry in log] == greatest and len(log) == 12 / run_length(trigger)
    assert best.best_value == greatest[-1]
    assert best.best_iteration == next(entry["iteration"] for entry in log if entry["x"] == greatest[-1])
    assert capsys.readouterr().out.splitlines()[-1].split() == [f"{log[-1]['x']:g}", f"{greatest[-1]:g}"]


def run_length(trigger):
    period, unit = trigger
    return period * (2 if unit == "epoch" else 1)


def test_it_is_reported_at_the_end_of_its_interval_only(tmp_path):
    run = observed(tmp_path, extensions.MinValue("x", (4, "iteration")))
    run.run()
    there = [entry["iteration"] for entry in run.get_extension("LogReport").log if "best/x" in entry]
    assert there == [4, 8, 12]


def test_a_comparison_of_ones_own_decides(tmp_path):
    best = extensions.BestValue("x", lambda best, new: new > best + 0.5, (1, "iteration"))
    observed(tmp_path, best).run()
    assert best.best_iteration == 6  # 0.7 was too little


def test_nan_is_never_the_best(tmp_path):
    best = extensions.MinValue("x", (1, "iteration"))
    run = observed(tmp_path, best, [math.nan, 2.0, math.nan, 1.0])
    run.run()
    assert facts(best) == (1.0, 4, 2)
    assert [entry.get("best/x") for entry in run.get_extension("LogReport").log] == [None, 2.0, 2.0, 1.0]


def test_a_key_that_nobody_reports_is_named(tmp_path):
    run = observed(tmp_path, extensions.MaxValue("y", (2, "iteration")))
    with pytest.raises(KeyError, match="'y' was not observed since the last question, only .*'x'"):
        run.run(show_loop_exception_msg=False)


def test_it_needs_a_name_and_a_comparison():
    with pytest.raises(TypeError, match="key must be the name of an observation, got 3"):
        extensions.MaxValue(3)
    with pytest.raises(TypeError, match="compare must be a function of the best value and a new one, got 'max'"):
        extensions.BestValue("x", "max")


@pytest.mark.parametrize("stop", range(1, 12))
def test_a_run_resumed_at_any_iteration_has_the_same_bests(tmp_path, stop):
    def run(out, until=None, snapshot=None):
        best = extensions.MaxValue("x", (3, "iteration"))
        run = observed(out, best, stop=until or len(VALUES), trigger=(3, "iteration"))
        if snapshot:
            run.resume(snapshot)
            assert best.best_value == kept[0] and facts(best) == kept
        run.run()
        log = json.loads((out / "log").read_text()) if stop > 2 or until is None else []
        return facts(best), [(entry["x"], entry.get("best/x")) for entry in log]

    whole = run(tmp_path / "whole")
    kept = run(tmp_path / "parts", stop)[0]
    assert run(tmp_path / "parts", snapshot=tmp_path / "parts" / f"s_{stop}") == whole


def test_the_best_of_a_validation_is_that_of_the_log(tmp_path):
    run = make_run(tmp_path, (4, "epoch"))
    model = run.updater.get_model("main")
    run.extend(extensions.MinValue("validation/main/loss"))  # registered first, and called after the evaluation
    run.extend(extensions.Evaluator(SerialIterator(make_data(7), 3, repeat=False), model))
    run.extend(extensions.LogReport(trigger=(0.5, "epoch")))
    torch.nn.init.normal_(model.predictor.weight)
    run.run()
    log = run.get_extension("LogReport").log
    losses = [entry["validation/main/loss"] for entry in log if "validation/main/loss" in entry]
    assert len(losses) == 4 and log[-1]["best/validation/main/loss"] == min(losses)
    assert "best/validation/main/loss" not in log[-2]
