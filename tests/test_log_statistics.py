"""What an entry of the log has of each value beside its mean."""

import json
import math
import warnings

import numpy as np
import pytest
import torch
from helpers import make_run

import extensions
from trainer import DictSummary, Ratio, report

VALUES = [0.3, 0.1, 0.7, 0.2, 0.6, 0.9, 0.9, 0.1, 0.4, 0.5, 0.8, 0.35]
ALL = ("std", "min", "max")


def logged(out, values=VALUES, stop=12, interval=4, **kwargs):
    """A run that reports a value in each iteration, and logs it every fourth."""
    run = make_run(out, (stop, "iteration"))
    run.extend(lambda t: report({"x": values[t.updater.iteration - 1]}), "observe", priority=300)
    run.extend(extensions.LogReport(trigger=(interval, "iteration"), **({"statistics": ALL} | kwargs)))
    run.extend(extensions.snapshot(filename="s_{.updater.iteration}"), trigger=(1, "iteration"))
    return run


def entries(out):
    return [{k: v for k, v in e.items() if k != "elapsed_time"} for e in json.loads((out / "log").read_text())]


def test_deviation_and_extremes_of_each_interval_stand_beside_the_mean(tmp_path):
    run = logged(tmp_path, keys=["x"])
    run.run()
    for part, entry in zip(np.split(np.array(VALUES), 3), entries(tmp_path), strict=True):
        assert list(entry)[:4] == ["x", "x.std", "x.min", "x.max"]
        assert entry["x"] == pytest.approx(part.mean(), rel=1e-14)
        assert entry["x.std"] == pytest.approx(part.std(), rel=1e-12)
        assert (entry["x.min"], entry["x.max"]) == (part.min(), part.max())  # to the bit


def test_only_what_was_asked_for_is_there_and_by_default_the_mean(tmp_path):
    logged(tmp_path / "one", statistics="max").run()
    names = {name for entry in entries(tmp_path / "one") for name in entry if name.startswith("x")}
    assert names == {"x", "x.max"}
    logged(tmp_path / "none", statistics=()).run()
    assert not any("." in name for entry in entries(tmp_path / "none") for name in entry)
    with pytest.raises(ValueError, match="a statistic is 'std', 'min' or 'max', got 'median'; the mean always comes"):
        extensions.LogReport(statistics=["std", "median"])


def test_weights_count_in_the_deviation_and_extremes_are_the_single_values():
    summary = DictSummary(ALL)
    for value in [(1.0, 3), (5.0, 1), (-9.0, 0)]:
        summary.add({"loss": value, "hits": Ratio(value[0], 10)})
    found = summary.make_statistics()
    many = np.array([1.0, 1.0, 1.0, 5.0])
    assert (found["loss"], found["loss.std"]) == (many.mean(), many.std())
    assert (found["loss.min"], found["loss.max"]) == (1.0, 5.0)  # what weighs 0 does not count
    assert (found["hits.min"], found["hits.max"]) == (-0.9, 0.5)


def test_nan_makes_every_statistic_nan_and_is_warned_of_by_its_mean(tmp_path):
    run = make_run(tmp_path, (3, "iteration"))
    values = [1.0, math.nan, 2.0]
    run.extend(lambda t: report({"loss": values[t.updater.iteration - 1]}), "observe", priority=300)
    run.extend(extensions.LogReport(trigger=(3, "iteration"), statistics=ALL))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        run.run()
    assert len(told) == 1 and str(told[0].message).startswith("iteration 3: loss is nan (means since")
    assert all(entries(tmp_path)[0][name] is None for name in ("loss", "loss.std", "loss.min", "loss.max"))


def test_a_value_of_which_nothing_counts_has_no_statistics_and_no_warning(tmp_path):
    run = make_run(tmp_path, (2, "iteration"))
    run.extend(lambda t: report({"loss": (1.0, 0)}), "observe", priority=300)
    run.extend(extensions.LogReport(statistics=ALL))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        run.run()
    assert not told and [entries(tmp_path)[0][f"loss.{name}"] for name in ALL] == [None, None, None]


@pytest.mark.parametrize("stop", range(1, 12))
def test_a_run_resumed_within_an_interval_logs_the_same_bits(tmp_path, stop):
    values = [torch.tensor(value) for value in VALUES]
    logged(tmp_path / "whole", values).run()
    logged(tmp_path / "parts", values, stop).run()
    resumed = logged(tmp_path / "parts", values)
    resumed.resume(tmp_path / "parts" / f"s_{stop}")
    resumed.run()
    assert entries(tmp_path / "parts") == entries(tmp_path / "whole")


def test_extremes_that_a_resume_cannot_know_are_null_and_then_known(tmp_path):
    logged(tmp_path, stop=6, statistics=()).run()
    resumed = logged(tmp_path)
    resumed.resume(tmp_path / "s_6")
    resumed.run()
    _, cut, last = entries(tmp_path)
    assert (cut["x.min"], cut["x.max"]) == (None, None) and cut["x.std"] > 0
    assert (last["x.min"], last["x.max"]) == (min(VALUES[8:]), max(VALUES[8:]))


def test_statistics_that_are_asked_for_no_more_are_gone_after_a_resume(tmp_path):
    logged(tmp_path, stop=6).run()
    resumed = logged(tmp_path, statistics=())
    resumed.resume(tmp_path / "s_6")
    resumed.run()
    assert ["x.min" in entry for entry in entries(tmp_path)] == [True, False, False]


def test_a_value_reported_after_the_log_s_place_has_its_statistics_too(tmp_path):
    run = logged(tmp_path)
    run.extend(lambda t: report({"late": float(t.updater.iteration)}), "late", priority=10)
    run.run()
    for entry, first in zip(entries(tmp_path), (1, 5, 9), strict=True):
        assert (entry["late"], entry["late.min"], entry["late.max"]) == (first + 1.5, first, first + 3)
        assert list(entry)[-2:] == ["epoch", "iteration"]


def test_many_values_on_their_device_are_fetched_once(tmp_path):
    summary, values = DictSummary(ALL), torch.rand(3000, dtype=torch.float64)
    for value in values:
        summary.add({"x": value})
    found = summary.make_statistics()
    assert (found["x.min"], found["x.max"]) == (values.min(), values.max())


def test_table_and_plot_show_them(tmp_path, capsys):
    run = logged(tmp_path)
    run.extend(extensions.PrintReport(["iteration", "x.max"]))
    run.extend(extensions.PlotReport(["x.min", "x.max"], "iteration", trigger=(4, "iteration")))
    run.run()
    assert capsys.readouterr().out.splitlines()[-1].split() == ["12", "0.8"]
    assert (tmp_path / "plot.png").stat().st_size > 1000
