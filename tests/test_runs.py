"""A table of all runs in some folders: what of each is told, what is marked, and what is said of broken files."""

import csv
import io
import json
import os

import pytest

from recipes import runs
from recipes.parts.run_folder import write_json

ACCURACIES = [0.5, 0.9, 0.8, 0.7]


def entries(n=4):
    return [
        {"epoch": i, "iteration": 10 * i, "main/loss": 1 / i, "validation/main/accuracy": ACCURACIES[i - 1]}
        | {"elapsed_time": 1000.0 * i}
        for i in range(1, n + 1)
    ]


def write(folder, log=None, recipe="pets", test=None, splits=("train", "test"), **args):
    folder.mkdir(parents=True)
    if recipe is not None:
        known = {"data": "data", "epochs": 4, "model": "alexnet"} | args
        told = {"recipe": recipe, "args": known, "classes": ["a", "b"], "versions": {}}
        write_json(folder / "args.json", told | {"splits": dict.fromkeys(splits, 9)})
    if log is not None:
        write_json(folder / "log", log)
    if test is not None:
        write_json(folder / "test.json", {"main/accuracy": test, "n": 9})
    return folder


@pytest.fixture
def told(capsys, monkeypatch, tmp_path):
    """Returns the lines of the table and those on the standard error, for folders named from within ``tmp_path``."""

    def call(*arguments):
        monkeypatch.chdir(tmp_path)
        capsys.readouterr()
        runs.main([*map(str, arguments)])
        out, error = capsys.readouterr()
        return out.splitlines(), error.splitlines()

    return call


def rows_of(told, *arguments):
    lines, _ = told(*arguments, "--format", "json")
    return {row["run"]: row for row in json.loads("\n".join(lines))}


# -- what is told


def test_each_run_has_a_line_with_its_best_values(told, tmp_path):
    write(tmp_path / "all" / "b", entries(), test=0.75)
    splits = ("train", "valid", "test")
    write(tmp_path / "all" / "a" / "deep", entries(), "resnet_products", 0.6, splits, model="resnet18")
    write(tmp_path / "all" / "c", entries(2))
    write(tmp_path / "all" / "own", entries(), recipe=None)
    assert told("all") == (
        [
            "run         recipe           model     done          best    loss        test     time",
            "all/a/deep  resnet_products  resnet18   4/4  0.9000 at 2   0.2500      0.6000  1:06:40",
            "all/b       pets             alexnet    4/4  0.9000 at 2*  0.2500      0.7500  1:06:40",
            "all/c       pets             alexnet    2/4  0.9000 at 2*  0.5000  unfinished  0:33:20",
            "all/own     -                -            4  0.9000 at 2   0.2500           -  1:06:40",
            "",
            "* validation was on the test set: the best epoch was chosen by the test images.",
            "unfinished: still in training, or stopped before its test.",
        ],
        [],
    )


def test_where_nothing_is_marked_nothing_is_explained(told, tmp_path):
    write(tmp_path / "a", entries(), "resnet_products", 0.6, ("train", "valid", "test"))
    lines, _ = told(".")
    assert len(lines) == 2 and lines[1].startswith("a ")


def test_a_run_that_counts_iterations_says_so(told, tmp_path):
    write(tmp_path / "a", entries(), "newts", iterations=100, epochs=None)
    assert "  40/100 it  0.9000 at 20*  " in told("a")[0][1]


def test_a_run_in_its_first_epoch_and_one_without_accuracy_have_gaps(told, tmp_path):
    write(tmp_path / "a")
    write(tmp_path / "b", [{"iteration": 3, "main/loss": 1e-9}], recipe=None)
    lines, errors = told(".")
    assert [line.split() for line in lines[1:3]] == [
        ["a", "pets", "alexnet", "-/4", "-", "-", "unfinished", "-"],
        ["b", "-", "-", "3", "it", "-", "1.00e-09", "-", "-"],
    ]
    assert errors == []


def test_a_run_that_was_tested_and_resumed_is_unfinished_again(told, tmp_path):
    folder = write(tmp_path / "a", entries(), test=0.75, epochs=8)
    os.utime(folder / "log", (10, 10))
    os.utime(folder / "test.json", (20, 20))
    assert rows_of(told, ".")["a"]["test"] == 0.75, "stopped early, and tested then"
    os.utime(folder / "log", (30, 30))
    row = rows_of(told, ".")["a"]
    assert (row["finished"], row["test"], row["done"], row["asked"]) == (False, None, 4, 8)


def test_json_and_csv_have_all_of_it(told, tmp_path):
    write(tmp_path / "=a", entries(), test=0.75)
    write(tmp_path / "b", entries(), recipe=None)
    row = rows_of(told, ".")["=a"]
    assert row == {
        "run": "=a", "recipe": "pets", "model": "alexnet", "done": 4, "asked": 4, "unit": "epoch", "best": 0.9,
        "best_at": 2, "validation_is_test": True, "loss": 0.25, "test": 0.75, "time": 4000, "finished": True,
        "problems": [],
    }  # fmt: skip
    lines, _ = told(".", "--format", "csv")
    table = list(csv.DictReader(io.StringIO("\n".join(lines))))
    expected = {key: str(value) for key, value in row.items() if key != "problems"}
    assert table[0] == expected | {"run": "'=a", "time": "4000.0"}, "no spreadsheet takes it for a formula"
    assert (table[1]["recipe"], table[1]["validation_is_test"], table[1]["finished"]) == ("", "", "")


def test_runs_are_sorted_by_a_column_the_best_first(told, tmp_path):
    write(tmp_path / "a", entries(1), test=0.7, model="vgg11")
    write(tmp_path / "b", entries(3), test=0.9, model="alexnet")
    write(tmp_path / "c", [], recipe=None)
    orders = {"run": "abc", "model": "bac", "done": "bac", "best": "bac", "loss": "bac", "test": "bac", "time": "abc"}
    assert {column: "".join(rows_of(told, ".", "--sort", column)) for column in orders} == orders


# -- which folders


def test_a_run_counts_once_and_by_its_own_name(told, tmp_path):
    write(tmp_path / "x" / "run", entries())
    (tmp_path / "x" / "latest").symlink_to("run")
    (tmp_path / "x" / "up").symlink_to("..")
    assert list(rows_of(told, "x", ".", "x/run")) == ["x/run"]
    assert list(rows_of(told, "x/latest")) == ["x/latest"]


def test_a_log_of_lines_is_one_too(told, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries()))
    assert rows_of(told, ".")["a"]["best"] == 0.9


# -- what is broken


def test_broken_files_are_named_and_the_rest_is_told(told, tmp_path):
    for name in ("args.json", "log", "test.json"):
        (write(tmp_path / name[:3], entries(), test=0.75) / name).write_text("{")
    os.mkfifo(write(tmp_path / "pipe", test=0.75) / "log")
    (write(tmp_path / "zero", entries()) / "test.json").write_text('{"main/accuracy": null}')
    rows, errors = rows_of(told, "."), told(".")[1]
    assert {name: (row["best"], row["test"]) for name, row in rows.items()} == {
        "arg": (0.9, 0.75), "log": (None, 0.75), "tes": (0.9, None), "pipe": (None, 0.75), "zero": (0.9, None),
    }  # fmt: skip
    named = ["arg/args.json cannot be read", "log/log is not a log", "pipe/log is a named pipe"]
    named += ["tes/test.json is not JSON"]
    named += ["zero/test.json has no number main/accuracy"]
    assert len(errors) == 5 and all(error.startswith(name) for error, name in zip(errors, named))
    assert errors == [problem for row in rows.values() for problem in row["problems"]]


def test_a_run_that_has_diverged_is_named(told, tmp_path):
    write(tmp_path / "a", [*entries(3), {"epoch": 4, "main/loss": None, "validation/main/accuracy": None}])
    lines, errors = told(".")
    assert errors == ["a/log: the last main/loss is NaN or infinite; the training has diverged."]
    assert "  4/4  0.9000 at 2*  " in lines[1]


def test_whatever_stands_in_the_files_of_a_stranger_s_run_is_told(told, tmp_path):
    hostile = [{"epoch": "x", "main/loss": "y", "validation/main/accuracy": [1], "elapsed_time": True}]
    hostile += [{"epoch": -(10**250), "main/loss": 10**250, "validation/main/accuracy": 1e300, "elapsed_time": 1e300}]
    write(tmp_path / "a\x1b[2J", hostile, recipe="no_such", epochs=[1], model={"a": 1})
    lines, errors = told(".")
    assert "\x1b" not in "".join(lines) and lines[1].startswith(r"a\x1b[2J") and errors == []
    for column in runs.RUN_COLUMNS:
        told(".", "--sort", column)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent"], "absent is not a folder: name one with runs in it, or in its folders."),
        (["file"], "file is not a folder: name one with runs in it, or in its folders."),
        (["empty"], "there is no run in empty: no folder with args.json or a log."),
        (["empty", "--sort", "bset"], "argument --sort: invalid choice: 'bset'"),
    ],
)
def test_bad_input_is_told_with_what_to_do(told, tmp_path, capsys, arguments, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as stop:
        told(*arguments)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and f"error: {message}" in error and len(error.splitlines()) == 1
