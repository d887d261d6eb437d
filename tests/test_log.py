"""The log file and the printed table."""

import io
import json
import math
import os
import re
import sys
import warnings
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from helpers import at_the_end, make_data, make_run
from test_extensions import Terminal

import extensions
from recipes import plot_log
from trainer import Classifier, Extension, Ratio, Weighted
from trainer.classifier import IGNORED
from trainer.iterators import SerialIterator
from trainer.triggers import TimeTrigger


def logged(out, stop=(4, "iteration"), trigger=(1, "iteration"), **kwargs):
    run = make_run(out, stop)
    run.extend(extensions.LogReport(trigger=trigger, **kwargs))
    run.extend(extensions.snapshot(filename="s"), trigger=(2, "iteration"))
    return run


def test_the_log_is_a_json_list_that_pandas_reads(tmp_path):
    run = logged(tmp_path)
    run.run()
    text = (tmp_path / "log").read_text()
    assert text.startswith('[\n    {\n        "main/loss": ') and text.endswith("\n    }\n]")
    table = pd.DataFrame(json.loads(text))
    assert list(table) == ["main/loss", "main/accuracy", "epoch", "iteration", "elapsed_time"]
    assert list(table["iteration"]) == [1, 2, 3, 4] and list(table["epoch"]) == [0, 1, 1, 2]
    assert json.loads(text) == run.get_extension("LogReport").log


def test_an_entry_is_the_mean_of_its_interval(tmp_path):
    run = make_run(tmp_path)
    values = []
    run.extend(lambda t: values.append(float(t.observation["main/loss"])), name="keep")
    run.extend(extensions.LogReport(trigger=(1, "epoch")))
    run.run()
    expected = [(values[0] + values[1]) / 2, (values[2] + values[3]) / 2]
    assert [e["main/loss"] for e in run.get_extension("LogReport").log] == pytest.approx(expected, rel=1e-15)


def test_the_file_is_valid_json_after_every_entry_and_only_grows_at_its_end(tmp_path):
    run = logged(tmp_path)
    texts = []
    run.extend(at_the_end(lambda t: texts.append((tmp_path / "log").read_text())), name="read", priority=0)
    run.run()
    assert [len(json.loads(text)) for text in texts] == [1, 2, 3, 4]
    for before, after in zip(texts, texts[1:], strict=False):
        assert after.startswith(before[:-2])


def test_a_name_that_ends_in_jsonl_makes_one_object_a_line(tmp_path):
    run = logged(tmp_path, filename="log.jsonl", postprocess=lambda entry: entry.update(note="a\nb", bad=math.nan))
    texts = []
    run.extend(at_the_end(lambda t: texts.append((tmp_path / "log.jsonl").read_text())), name="read", priority=0)
    run.run()
    assert [text.count("\n") for text in texts] == [1, 2, 3, 4] and texts[-1].endswith("}\n")
    assert all(after.startswith(before) for before, after in zip(texts, texts[1:], strict=False))
    entries = [json.loads(line) for line in texts[-1].splitlines()]
    assert entries == plot_log.read_log(tmp_path / "log.jsonl")
    assert [entry["iteration"] for entry in entries] == [1, 2, 3, 4]
    assert entries[0]["note"] == "a\nb" and entries[0]["bad"] is None
    assert list(pd.read_json(tmp_path / "log.jsonl", lines=True)["iteration"]) == [1, 2, 3, 4]


def test_a_fresh_run_keeps_the_lines_of_another(tmp_path):
    for stop in (4, 1):
        logged(tmp_path, (stop, "iteration"), filename="log.jsonl").run()
    assert len(plot_log.read_log(tmp_path / "log.jsonl")) == 1
    assert len(plot_log.read_log(tmp_path / "log.jsonl.old")) == 4


def test_a_resume_without_its_lines_says_so_and_goes_on(tmp_path):
    logged(tmp_path, filename="log.jsonl").run()
    (tmp_path / "log.jsonl").write_text("")
    resumed = logged(tmp_path, (6, "iteration"), filename="log.jsonl")
    resumed.resume(tmp_path / "s")
    with pytest.warns(UserWarning, match="log.jsonl is missing or is not the log that the snapshot was made with"):
        resumed.run()
    assert [entry["iteration"] for entry in plot_log.read_log(tmp_path / "log.jsonl")] == [5, 6]


def test_keys_and_postprocess_shape_an_entry(tmp_path):
    run = make_run(tmp_path)
    run.extend(
        extensions.LogReport(["main/loss", "absent"], postprocess=lambda entry: entry.update(note="text", epoch=7))
    )
    with pytest.warns(UserWarning, match="LogReport: nobody has reported 'absent'"):
        run.run()
    entry = json.loads((tmp_path / "log").read_text())[0]
    assert list(entry) == ["main/loss", "epoch", "iteration", "elapsed_time", "note"]
    assert entry["note"] == "text" and entry["epoch"] == 7


def told_by(run):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        run.run()
    return told


def spoiled(out, **values):
    """A run that observes other values from its second iteration on."""
    run = logged(out)
    run.extend(extensions.LogReport(trigger=(2, "iteration"), filename="second"), name="second")
    run.extend(lambda t: t.observation.update(values if t.updater.iteration > 1 else {}), "spoil", priority=400)
    return run


def test_the_first_loss_that_is_no_number_is_warned_of_once_at_the_users_line(tmp_path):
    (told,) = told_by(
        spoiled(tmp_path, **{"main/loss": math.nan, "gen/loss_cls": -math.inf, "lossless/rate": math.nan})
    )
    assert str(told.message) == (
        "iteration 2: main/loss is nan, gen/loss_cls is -inf (means since the last entry of the log)."
        " Training has diverged, or no label of a batch counts; extend(FailOnNonNumber()) stops at the first such"
        " iteration, before a snapshot is taken."
    )
    assert told.filename == __file__
    assert len(told_by(spoiled(tmp_path / "other", loss=math.inf))) == 1  # each run has its own


def test_what_is_no_loss_or_a_mean_over_nothing_is_not_warned_of(tmp_path):
    values = {"main/accuracy": math.nan, "loss": Weighted(math.nan, 0), "a/loss": (math.nan, 0), "b/loss": Ratio(0, 0)}
    assert not told_by(spoiled(tmp_path, **values))


@pytest.mark.parametrize("label", [0, IGNORED])
def test_an_evaluation_that_diverges_is_warned_of_and_one_without_labels_is_not(tmp_path, label):
    run = logged(tmp_path)
    model = Classifier(torch.nn.Linear(2, 3))
    if label == 0:
        torch.nn.init.constant_(model.predictor.bias, math.nan)
    data = SerialIterator([(torch.rand(2), label)] * 4, 2, repeat=False)
    run.extend(extensions.Evaluator(data, model), trigger=(2, "iteration"))
    run.extend(extensions.FailOnNonNumber() if label == IGNORED else lambda t: None, "check")
    told = [warning for warning in told_by(run) if " is nan " in str(warning.message)]
    assert math.isnan(run.observation["validation/main/loss"])
    assert len(told) == (label == 0)
    if told:
        assert "iteration 2: validation/main/loss is nan (means " in str(told[0].message)
    assert type(run.get_extension("validation")()["validation/main/loss"]) is float


def test_a_step_that_fp16_skips_is_no_divergence(tmp_path):
    run = make_run(tmp_path, (4, "iteration"), precision="fp16")
    run.extend(extensions.LogReport(trigger=(1, "iteration")))
    run.updater.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24, backoff_factor=2.0**-12)
    before = run.updater.get_model("main").predictor.weight.detach().clone()
    weights = []
    run.extend(lambda t: weights.append(t.updater.get_model("main").predictor.weight.detach().clone()), "see")
    assert not told_by(run)  # its gradients overflowed, its loss did not
    assert torch.equal(weights[0], before) and not torch.equal(weights[-1], before)


def test_nan_and_infinity_are_null(tmp_path):
    run = make_run(tmp_path, (1, "iteration"))
    run.extend(lambda t: t.observation.update(nan=math.nan, inf=math.inf), name="bad")
    run.extend(extensions.LogReport(trigger=(1, "iteration")))
    run.run()
    entry = json.loads((tmp_path / "log").read_text(), parse_constant=lambda c: pytest.fail(c))[0]
    assert entry["nan"] is None and entry["inf"] is None
    assert math.isnan(run.get_extension("LogReport").log[0]["nan"])


def test_what_the_log_cannot_hold_is_named(tmp_path):
    run = make_run(tmp_path)
    run.extend(extensions.LogReport(postprocess=lambda entry: entry.update(bad=object())))
    with pytest.raises(TypeError, match="the log takes numbers and strings, got object"):
        run.run()


def test_an_entry_before_training(tmp_path):
    run = make_run(tmp_path)
    run.extend(lambda t: t.observation.update(x=1.0), name="x", call_before_training=True, trigger=lambda t: False)
    run.extend(extensions.LogReport(), call_before_training=True)
    run.run()
    assert [(e["iteration"], e.get("x")) for e in run.get_extension("LogReport").log] == [
        (0, 1.0),
        (2, None),
        (4, None),
    ]


def test_a_filename_may_be_formatted_and_none_writes_nothing(tmp_path):
    run = logged(tmp_path / "a", filename="logs/log_{epoch}.json", trigger=(1, "epoch"))
    run.run()
    assert [len(json.loads((tmp_path / f"a/logs/log_{e}.json").read_text())) for e in (1, 2)] == [1, 2]
    run = logged(tmp_path / "b", filename=None)
    run.run()
    assert [p.name for p in (tmp_path / "b").iterdir()] == ["s"]
    resumed = logged(tmp_path / "b", (6, "iteration"), filename=None)
    resumed.resume(tmp_path / "b" / "s")
    resumed.run()
    assert [e["iteration"] for e in resumed.get_extension("LogReport").log] == [1, 2, 3, 4, 5, 6]


def test_two_reports_cannot_write_one_file(run):
    run.extend(extensions.LogReport())
    run.extend(extensions.LogReport())
    with pytest.raises(ValueError, match="two LogReports write to .*log: give one of them another filename"):
        run.run()


@pytest.mark.parametrize("filename", ["log", "logs/log", "log.jsonl"])
def test_a_resume_cuts_the_log_back_so_that_no_entry_stands_twice(tmp_path, filename):
    whole = logged(tmp_path / "whole", (6, "iteration"), filename=filename)
    whole.run()
    first = logged(tmp_path / "cut", (5, "iteration"), filename=filename)  # the snapshot is of iteration 4
    first.run()
    with open(tmp_path / "cut" / filename, "ab") as file:
        file.write(b'{"torn' if filename == "log.jsonl" else b",\n    {torn")
    resumed = logged(tmp_path / "cut", (6, "iteration"), filename=filename)
    resumed.resume(tmp_path / "cut" / "s")
    resumed.run()

    def entries(folder):
        return [{k: v for k, v in e.items() if k != "elapsed_time"} for e in plot_log.read_log(folder / filename)]

    assert entries(tmp_path / "cut") == entries(tmp_path / "whole")


def test_a_resume_in_another_folder_takes_the_log_along(tmp_path):
    logged(tmp_path / "a").run()
    resumed = logged(tmp_path / "b", (5, "iteration"))
    resumed.resume(tmp_path / "a" / "s")
    resumed.run()
    assert [e["iteration"] for e in json.loads((tmp_path / "b" / "log").read_text())] == [1, 2, 3, 4, 5]
    assert len(json.loads((tmp_path / "a" / "log").read_text())) == 4


@pytest.mark.parametrize("damage", ["missing", "other"])
def test_a_resume_without_its_log_says_so_and_goes_on(tmp_path, damage):
    logged(tmp_path).run()
    if damage == "missing":
        os.remove(tmp_path / "log")
    else:
        (tmp_path / "log").write_text((tmp_path / "log").read_text().replace("1", "2"))
    resumed = logged(tmp_path, (6, "iteration"))
    resumed.resume(tmp_path / "s")
    with pytest.warns(UserWarning, match="log is missing or is not the log that the snapshot was made with"):
        resumed.run()
    assert [e["iteration"] for e in json.loads((tmp_path / "log").read_text())] == [5, 6]
    if damage == "other":
        assert len(json.loads((tmp_path / "log.old").read_text())) == 4


def test_a_snapshot_does_not_carry_the_log(tmp_path):
    run = logged(tmp_path, (200, "iteration"))
    run.run()
    assert len(str(run.state_dict()["extensions"]["LogReport"])) < 500


# -- the table


class Fixed(Extension):
    """Stands in for a run: observes given values."""

    priority = 300

    def __init__(self, rows):
        self.rows = rows

    def __call__(self, trainer):
        trainer.observation.clear()
        trainer.observation.update(self.rows[trainer.updater.iteration - 1])


COLUMNS = ["epoch", "iteration", "main/loss", "validation/main/loss", "lr"]
ROWS = [{"main/loss": 5.402064, "lr": 0.1}, {"main/loss": 1234567.0, "validation/main/loss": 1e-5, "lr": 1}]
# What Chainer 7.8.1 prints, but for ESC[J
TABLE = (
    "epoch       iteration   main/loss   validation/main/loss  lr        \n"
    "0           1           5.40206                           0.1         \n"
    "1           2           1.23457e+06  1e-05                 1           \n"
)


comes_later = pytest.mark.filterwarnings("ignore:PrintReport. no entry of the log has 'validation/main/loss'")


def printing(out, stream, stop=(2, "iteration"), rows=ROWS, print_trigger=None):
    run = make_run(out, stop)
    run.extend(Fixed(rows))
    run.extend(extensions.LogReport(trigger=(1, "iteration")))
    run.extend(extensions.PrintReport(COLUMNS, out=stream), trigger=print_trigger)
    return run


@comes_later
def test_the_table_is_chainer_s_to_the_byte(tmp_path):
    out = io.StringIO()
    printing(tmp_path, out).run()
    assert out.getvalue() == TABLE


@comes_later
def test_on_a_terminal_each_row_first_erases_what_is_below(tmp_path):
    out = Terminal()
    printing(tmp_path, out).run()
    header, *rows = TABLE.splitlines(keepends=True)
    assert out.getvalue() == header + "".join("\033[J" + row for row in rows)


@comes_later
def test_a_table_that_prints_less_often_prints_all_that_is_new(tmp_path):
    out = io.StringIO()
    printing(tmp_path, out, print_trigger=(2, "iteration")).run()
    assert out.getvalue() == TABLE


@pytest.mark.parametrize("lost", [False, True])
@comes_later
def test_a_resumed_table_goes_on_where_it_was(tmp_path, lost):
    first = printing(tmp_path, io.StringIO(), (3, "iteration"), ROWS * 3, (2, "iteration"))
    first.extend(extensions.snapshot(filename="s"), trigger=(3, "iteration"))
    first.run()
    if lost:
        os.remove(tmp_path / "log")
    out = io.StringIO()
    resumed = printing(tmp_path, out, (4, "iteration"), ROWS * 3, (2, "iteration"))
    resumed.extend(extensions.snapshot(filename="s"), trigger=(3, "iteration"))
    resumed.resume(tmp_path / "s")
    if lost:
        with pytest.warns(UserWarning, match="missing"):
            resumed.run()
    else:
        resumed.run()
    printed = [line.split()[1] for line in out.getvalue().splitlines()]
    assert printed == ["iteration", *(["4"] if lost else ["3", "4"])]


@comes_later
def test_in_a_notebook_the_table_shows_the_last_thousand_entries(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=True)))
    display = SimpleNamespace(HTML=str, display=lambda html, display_id: shown.append(html))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    run = printing(tmp_path, None, (1200, "iteration"), ROWS * 600, (1200, "iteration"))
    run.run()
    assert [html.count("<tr") - 1 for html in shown] == [1000]
    iterations = re.findall(r"<tr>\s*<td>\d+</td>\s*<td>(\d+)</td>", shown[0])  # epoch, iteration
    assert [int(iteration) for iteration in iterations] == list(range(201, 1201))


def test_a_table_may_drive_a_log_of_its_own(tmp_path):
    out = io.StringIO()
    run = make_run(tmp_path)
    run.extend(extensions.PrintReport(["epoch"], extensions.LogReport(filename="own"), out=out))
    run.run()
    assert out.getvalue().split() == ["epoch", "1", "2"]
    assert len(json.loads((tmp_path / "own").read_text())) == 2


def test_a_table_needs_a_log(tmp_path):
    run = make_run(tmp_path)
    run.extend(extensions.PrintReport(["epoch"]))
    with pytest.raises(ValueError, match="extension LogReport not found"):
        run.run()
    run = make_run(tmp_path)
    run.extend(extensions.PrintReport(["epoch"], log_report=5))
    with pytest.raises(TypeError, match="log_report must be a LogReport or the name of one, got 5"):
        run.run()


def test_the_table_is_written_to_anything_that_can_write(run):
    class Out:
        text = ""

        def write(self, text):
            self.text += text

    out = Out()
    run.extend(extensions.LogReport())
    run.extend(extensions.PrintReport(["epoch"], out=out))
    run.run()
    assert out.text.split() == ["epoch", "1", "2"]


def test_logs_that_were_there_before_are_kept_and_found_again(tmp_path):
    def prepare(stop):
        run = make_run(tmp_path, stop)
        run.extend(extensions.LogReport(trigger=(1, "iteration")))
        run.extend(extensions.snapshot(filename="first"), trigger=lambda trainer: trainer.updater.iteration == 4)
        return run

    prepare((2, "epoch")).run()
    for _ in range(2):
        run = make_run(tmp_path, (1, "epoch"))
        run.extend(extensions.LogReport(trigger=(1, "iteration")))
        run.run()
    assert {"log", "log.old", "log.old2"} <= {path.name for path in tmp_path.iterdir()}
    resumed = prepare((3, "epoch"))
    resumed.resume(tmp_path / "first")
    resumed.run()
    assert [entry["iteration"] for entry in json.loads((tmp_path / "log").read_text())] == [1, 2, 3, 4, 5, 6]


def test_a_log_that_is_deleted_while_the_run_goes_on_is_written_anew(tmp_path):
    run = make_run(tmp_path)
    run.extend(extensions.LogReport(trigger=(1, "iteration")))
    run.extend(lambda trainer: trainer.updater.iteration == 2 and (tmp_path / "log").unlink(), name="delete")
    run.run()
    assert [entry["iteration"] for entry in json.loads((tmp_path / "log").read_text())] == [1, 2, 3, 4]


def test_the_log_of_another_run_is_kept_when_an_older_run_goes_on_in_its_folder(tmp_path):
    def prepare(stop):
        run = make_run(tmp_path, stop)
        run.extend(extensions.LogReport(trigger=(1, "iteration")))
        run.extend(extensions.snapshot(filename="s_{.updater.iteration}"), trigger=(4, "iteration"))
        return run

    prepare((4, "iteration")).run()
    second = prepare((4, "iteration"))
    with pytest.warns(UserWarning, match="another run's and stays"):
        second.run()
    for name, stop in (("s_4", 6), (f"s_4-{second.run_id}", 7), ("s_4", 8)):
        run = prepare((stop, "iteration"))
        run.resume(tmp_path / name)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*another run's and stays")
            run.run()
        assert [e["iteration"] for e in json.loads((tmp_path / "log").read_text())] == list(range(1, stop + 1))


def test_a_key_that_nobody_reports_is_named_with_its_like(tmp_path):
    run = make_run(tmp_path)
    run.extend(extensions.LogReport(["main/los", "main/accuracy"]))
    (told,) = told_by(run)
    assert str(told.message).startswith("LogReport: nobody has reported 'main/los'. Did you mean 'main/loss'? There")


def test_a_key_that_comes_only_once_an_epoch_is_waited_for(tmp_path):
    run = make_run(tmp_path, (4, "iteration"))
    run.extend(extensions.LogReport(["rare", "main/loss"], trigger=(1, "iteration")))
    run.extend(extensions.observe_value("rare", lambda trainer: 1.0), trigger=(3, "iteration"))
    assert told_by(run) == []


def test_a_key_that_is_misspelt_is_named_at_the_end_if_an_extension_had_no_turn(tmp_path):
    run = make_run(tmp_path, (2, "iteration"))
    run.extend(extensions.LogReport(["rare", "main/los"], trigger=(1, "iteration")))
    run.extend(extensions.observe_value("rare", lambda trainer: 1.0), trigger=(3, "iteration"))
    (told,) = told_by(run)
    assert "nobody has reported 'main/los'. Did you mean 'main/loss'?" in str(told.message)


@pytest.mark.parametrize("trigger", [lambda trainer: trainer.updater.iteration > 2, TimeTrigger(1e-9)])
def test_a_value_of_an_extension_that_may_come_at_any_time_is_waited_for(tmp_path, trigger):
    run = make_run(tmp_path, (4, "iteration"))
    run.extend(extensions.LogReport(["rare", "main/loss"], trigger=(1, "iteration")))
    run.extend(extensions.PrintReport(["rare"]))
    run.extend(extensions.observe_value("rare", lambda trainer: 1.0), trigger=trigger)
    assert told_by(run) == []


def test_a_run_in_which_nothing_is_reported_says_so(tmp_path):
    run = make_run(tmp_path, loss_func=lambda x, t: run.updater.get_model("main").predictor(x).mean())
    run.extend(extensions.LogReport())
    (told,) = told_by(run)
    assert str(told.message).startswith("LogReport: nothing was reported, so the log has no value. A model reports")


def test_a_resumed_run_knows_the_keys_of_its_log(tmp_path):
    run = make_run(tmp_path)
    run.extend(extensions.LogReport(["once", "main/loss"]))
    run.extend(lambda trainer: trainer.observation.update(once=1.0), name="once", trigger=(2, "iteration"))
    run.extend(extensions.snapshot())
    run.run()
    resumed = make_run(tmp_path, (3, "epoch"))
    resumed.extend(extensions.LogReport(["once", "main/loss"]))
    resumed.extend(lambda trainer: None, name="once", trigger=(2, "iteration"))
    resumed.extend(extensions.snapshot())
    resumed.resume(tmp_path / "snapshot_iter_4")
    assert told_by(resumed) == []


def test_a_column_that_no_entry_has_is_named_with_its_like(tmp_path):
    run = make_run(tmp_path)
    run.extend(extensions.LogReport())
    run.extend(extensions.PrintReport(["epoch", "main/los", "elapsed_time"]))
    (told,) = told_by(run)
    message = (
        "PrintReport: no entry of the log has 'main/los'. Did you mean 'main/loss'? There are elapsed_time, epoch,"
    )
    assert str(told.message).startswith(message)


def test_a_run_that_ends_before_its_first_evaluation_misses_no_column(tmp_path):
    run = make_run(tmp_path, (1, "iteration"))
    iterator = SerialIterator(make_data(), 4, repeat=False)
    run.extend(extensions.Evaluator(iterator, run.updater.get_model("main")))
    run.extend(extensions.LogReport(["main/loss", "validation/main/loss"], trigger=(1, "iteration")))
    run.extend(extensions.PrintReport(["main/loss", "validation/main/accuracy"]))
    assert told_by(run) == []


def test_a_column_that_comes_once_an_epoch_is_waited_for(tmp_path):
    run = make_run(tmp_path, (4, "iteration"))
    run.extend(extensions.PrintReport(["rare", "main/loss"]))
    run.extend(extensions.LogReport(trigger=(1, "iteration")))
    run.extend(extensions.observe_value("rare", lambda trainer: 1.0), trigger=(3, "iteration"))
    assert told_by(run) == []


def test_a_column_that_is_misspelt_is_named_at_the_end_if_an_extension_had_no_turn(tmp_path):
    run = make_run(tmp_path, (2, "iteration"))
    run.extend(extensions.PrintReport(["rare", "main/los"]))
    run.extend(extensions.LogReport(trigger=(1, "iteration")))
    run.extend(extensions.observe_value("rare", lambda trainer: 1.0), trigger=(3, "iteration"))
    (told,) = told_by(run)
    assert str(told.message).startswith("PrintReport: no entry of the log has 'main/los'. Did you mean 'main/loss'?")


@pytest.mark.parametrize("phase", [1, 2, 3])
def test_a_value_that_comes_after_the_end_of_an_iteration_is_told_of(tmp_path, phase):
    def late(trainer):
        trainer.observation["late"] = 1.0

    late.phase = phase
    run = make_run(tmp_path)
    run.extend(extensions.LogReport())
    run.extend(late)
    (told,) = told_by(run)
    assert str(told.message).startswith("LogReport: 'late' came after the end of the iteration, too late for the log")


def test_a_value_that_gets_another_name_after_the_log_is_logged_under_it(tmp_path):
    def rename(trainer):
        trainer.observation["renamed"] = trainer.observation.pop("main/accuracy")

    run = make_run(tmp_path)
    run.extend(extensions.LogReport())
    run.extend(rename, priority=0)
    run.run()
    assert "renamed" in run.get_extension("LogReport").log[0]


def test_the_log_s_own_names_are_not_overwritten_without_a_word(tmp_path):
    run = make_run(tmp_path, (1, "iteration"))
    run.extend(extensions.LogReport(trigger=(1, "iteration")))
    run.extend(lambda trainer: trainer.observation.update(epoch=7.5), name="say", priority=300)
    (told,) = told_by(run)
    assert str(told.message) == "LogReport: ['epoch'] were reported and are the log's own: give them other names."
