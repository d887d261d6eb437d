"""Whatever an iteration reports is in that iteration's entry, whatever the order of the extensions."""

import json
import math

import pytest
from helpers import at_the_end, make_run

import extensions
from trainer import PRIORITY_WRITER, Extension, make_extension, report
from trainer.triggers import MaxValueTrigger


def reporter(key, function, priority, trigger=(1, "iteration")):
    @make_extension(trigger=trigger, priority=priority, default_name=key)
    def say(trainer):
        report({key: function(trainer)})

    return say


def iteration(trainer):
    return trainer.updater.iteration


@pytest.mark.parametrize("first", [True, False], ids=["before LogReport", "after LogReport"])
@pytest.mark.parametrize("priority", [PRIORITY_WRITER, 100, 50, -5, -2000])
def test_a_value_is_in_its_iterations_entry_whatever_the_priority(tmp_path, priority, first):
    run = make_run(tmp_path, (4, "iteration"))
    parts = [extensions.LogReport(trigger=(2, "iteration")), reporter("late", iteration, priority)]
    for part in parts if not first else reversed(parts):
        run.extend(part)
    run.run()
    log = json.loads((tmp_path / "log").read_text())
    assert [entry["late"] for entry in log] == [1.5, 3.5]
    assert list(log[0])[-3:] == ["epoch", "iteration", "elapsed_time"]
    assert log == run.get_extension("LogReport").log


def test_an_extension_after_the_log_reads_the_entry_and_reports_into_it(tmp_path):
    class Gap(Extension):
        priority = 50

        def __call__(self, trainer):
            entry = trainer.get_extension("LogReport").log[-1]
            assert entry["iteration"] == trainer.updater.iteration
            report({"twice": 2 * entry["main/loss"]})

    run = make_run(tmp_path, (3, "iteration"))
    run.extend(extensions.LogReport(trigger=(1, "iteration")))
    run.extend(Gap())
    run.run()
    assert all(entry["twice"] == 2 * entry["main/loss"] for entry in json.loads((tmp_path / "log").read_text()))


def test_postprocess_table_and_plot_see_the_complete_entry(tmp_path, capsys):
    run = make_run(tmp_path, (2, "epoch"))
    run.extend(extensions.PrintReport(["epoch", "late", "sum"]))  # before the LogReport
    run.extend(extensions.PlotReport(["late"], filename="late.png"))
    run.extend(extensions.LogReport(postprocess=lambda entry: entry.update(sum=entry["late"] + entry["epoch"])))
    run.extend(reporter("late", iteration, -5))
    run.run()
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows == [["epoch", "late", "sum"], ["1", "1.5", "2.5"], ["2", "3.5", "5.5"]]
    assert run.get_extension("PlotReport").state_dict()["data"] == {"late": [[2, 1.5], [4, 3.5]]}


def test_a_row_is_printed_in_its_iteration_whichever_was_registered_first(tmp_path, capsys):
    for order in (1, -1):
        run = make_run(tmp_path / str(order), (3, "iteration"))
        parts = [extensions.LogReport(trigger=(1, "iteration")), extensions.PrintReport(["iteration"])]
        for part in parts[::order]:
            run.extend(part)
        printed = []
        run.extend(at_the_end(lambda t: printed.append(capsys.readouterr().out.split()[-1])), name="read", priority=0)
        run.run()
        assert printed == ["1", "2", "3"]


def test_a_value_trigger_sees_what_was_reported_before_it_is_asked(tmp_path):
    run = make_run(tmp_path, (3, "iteration"))
    seen = []
    run.extend(reporter("before", iteration, 200))
    trigger = MaxValueTrigger("before", (1, "iteration"))
    run.extend(lambda trainer: seen.append(dict(trainer.observation)), name="see", trigger=trigger)
    run.extend(reporter("after", iteration, 50))
    run.run()
    assert [observation["before"] for observation in seen] == [1, 2, 3] and "after" not in seen[0]


def test_only_the_keys_that_were_asked_for_are_added_late(tmp_path):
    run = make_run(tmp_path)
    run.extend(extensions.LogReport(["main/loss", "late"]))
    run.extend(reporter("late", iteration, -5))
    run.extend(reporter("other", iteration, -5))
    run.run()
    assert list(run.get_extension("LogReport").log[0]) == ["main/loss", "late", "epoch", "iteration", "elapsed_time"]


def test_a_late_value_that_comes_now_and_then_is_its_own_mean(tmp_path):
    run = make_run(tmp_path, (6, "iteration"))
    run.extend(extensions.LogReport(trigger=(3, "iteration")))
    run.extend(reporter("late", iteration, -5, trigger=(2, "iteration")))
    run.run()
    assert [entry["late"] for entry in run.get_extension("LogReport").log] == [2, 5]


def test_the_entry_before_training_is_complete_too(tmp_path):
    run = make_run(tmp_path, (1, "iteration"))
    run.extend(extensions.LogReport(trigger=(1, "iteration")), call_before_training=True)
    run.extend(reporter("late", iteration, -5), call_before_training=True)
    run.extend(extensions.PrintReport(["iteration", "late"]), call_before_training=True)
    run.run()
    assert [entry["late"] for entry in run.get_extension("LogReport").log] == [0, 1]


def test_a_resumed_run_logs_late_values_alike(tmp_path):
    def prepare(out, stop):
        run = make_run(tmp_path / out, (stop, "iteration"))
        run.extend(reporter("late", iteration, -5))
        run.extend(extensions.LogReport(trigger=(3, "iteration")))
        run.extend(extensions.snapshot(), trigger=(1, "iteration"))
        return run

    whole = prepare("whole", 6)
    whole.run()
    for stop in (1, 2, 3, 4):
        prepare(str(stop), stop).run()
        resumed = prepare(str(stop), 6)
        resumed.resume(tmp_path / str(stop) / f"snapshot_iter_{stop}")
        resumed.run()
        for a, b in zip(resumed.get_extension("LogReport").log, whole.get_extension("LogReport").log, strict=True):
            assert a | {"elapsed_time": 0} == b | {"elapsed_time": 0}


def test_the_entry_of_an_iteration_that_fails_is_written(tmp_path):
    run = make_run(tmp_path, (3, "iteration"))
    run.extend(extensions.LogReport(trigger=(1, "iteration")))
    run.extend(lambda trainer: 1 / (2 - trainer.updater.iteration), name="fail", priority=50)
    with pytest.raises(ZeroDivisionError):
        run.run(show_loop_exception_msg=False)
    assert [entry["iteration"] for entry in json.loads((tmp_path / "log").read_text())] == [1, 2]


def test_a_loss_that_is_reported_late_and_is_nan_is_warned_of(tmp_path):
    run = make_run(tmp_path)
    run.extend(extensions.LogReport())
    run.extend(reporter("auxiliary/loss", lambda trainer: math.nan, -5))
    with pytest.warns(UserWarning, match="auxiliary/loss is nan"):
        run.run()


def test_an_end_of_ones_own_comes_after_all_plug_ins_of_each_iteration(tmp_path):
    class Last(Extension):
        trigger = (1, "epoch")

        def __init__(self):
            self.seen = []

        def __call__(self, trainer):
            self.seen.append("call")

        def end_iteration(self, trainer):
            self.seen.append(trainer.observation.get("late"))

    run, last = make_run(tmp_path, (4, "iteration")), Last()
    run.extend(last)
    run.extend(reporter("late", iteration, -5))
    run.run()
    assert last.seen == [1, "call", 2, 3, "call", 4]
