"""Lists all runs in some folders, with their best values.

    python recipes/runs.py results
    python recipes/runs.py results --sort best --format csv

A run is a folder with args.json, which recipes write, or with a log (log or log.jsonl). Of each: how many epochs are
done, the best validation accuracy and its epoch, the last training loss, the test accuracy and the time. Files that
cannot be read are named on the standard error, and the rest of their run is listed.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from recipes.parts import run_folder, tool_options
from recipes.parts.parser import csv_line, say
from recipes.parts.tool_options import RUN_COLUMNS
from recipes.plot_log import Entries, is_number, read_log
from trainer.checks import printable
from trainer.saving.files import parse_json, read_bytes

LOGS = ("log", "log.jsonl")
UNFINISHED = "unfinished"
ACCURACY = "validation/main/accuracy"

Row = dict[str, Any]


def find_runs(tops: Iterable[str], problems: list[str]) -> list[str]:
    """Returns the folders of runs below some folders, sorted; errors of folders are added to ``problems``.

    Raises:
        FileNotFoundError: If a folder is missing, or none has a run.
    """
    found: list[str] = []
    seen: set[str] = set()
    for top in tops:
        if not os.path.isdir(top):
            raise FileNotFoundError(f"{top} is not a folder: name one with runs in it, or in its folders.")
        for folder, below, files in os.walk(top, onerror=lambda error: problems.append(str(error)), followlinks=True):
            real = os.path.realpath(folder)
            if real in seen:
                below.clear()
                continue
            seen.add(real)
            links = {name for name in below if os.path.islink(os.path.join(folder, name))}
            below[:] = [*sorted({*below} - links), *sorted(links)]  # a run is named by its own folder, not by a link
            if {"args.json", *LOGS}.intersection(files):
                found.append(os.path.normpath(folder))
    if not found:
        raise FileNotFoundError(f"there is no run in {', '.join(tops)}: no folder with args.json or a log.")
    return sorted(found)


def read_run(folder: str) -> Row:
    """Returns a row about a run: None where its files do not say; ``problems`` are the errors of its files."""
    problems: list[str] = []

    def attempt(name: str, read: Callable[[Path], Any]) -> Any:
        path = Path(folder) / name
        try:
            return read(path) if os.path.lexists(path) else None
        except (OSError, ValueError) as error:
            problems.append(str(error))
            return None

    saved = attempt("args.json", lambda path: run_folder.read_args(path.parent)) or {}
    log = next((name for name in LOGS if os.path.lexists(Path(folder) / name)), LOGS[0])
    entries = attempt(log, read_log) or []
    test = attempt("test.json", read_test)

    args = saved.get("args", {})
    counts_epochs = "epochs" in args or any("epoch" in entry for entry in entries)
    unit = "epoch" if counts_epochs and "iterations" not in args else "iteration"
    asked, done, model = number(args.get(f"{unit}s")), last(entries, unit), args.get("model")
    measured = [entry for entry in entries if number(entry.get(ACCURACY)) is not None]
    best: Row = max(measured, key=lambda entry: entry[ACCURACY], default={})
    if any("main/loss" in entry for entry in entries) and last(entries, "main/loss") is None:
        problems.append(f"{Path(folder) / log}: the last main/loss is NaN or infinite; the training has diverged.")
    is_finished = None if not saved else test is not None
    if is_finished and None not in (asked, done) and done < asked:
        logged, tested = (os.stat(os.path.join(folder, name)).st_mtime for name in (log, "test.json"))
        if logged > tested:  # it was tested, and then resumed with more epochs
            is_finished, test = False, None
    return {
        "run": folder,
        "recipe": saved.get("recipe"),
        "model": model if isinstance(model, str) else None,
        "done": done,
        "asked": asked,
        "unit": unit,
        "best": best.get(ACCURACY),
        "best_at": number(best.get(unit)),
        "validation_is_test": "valid" not in saved["splits"] if saved and best else None,
        "loss": last(entries, "main/loss"),
        "test": test,
        "time": last(entries, "elapsed_time"),
        "finished": is_finished,
        "problems": problems,
    }


def read_test(path: Path) -> float:
    """Returns the accuracy in a test.json."""
    try:
        test = parse_json(read_bytes(path))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}).") from error
    accuracy: float | None = number(test.get("main/accuracy")) if isinstance(test, dict) else None
    if accuracy is None:
        raise ValueError(f"{path} has no number main/accuracy: it is not what a recipe writes.")
    return accuracy


def number(value: Any) -> Any:
    """Returns a value of a log if it is a finite number, else None."""
    return value if is_number(value) and math.isfinite(value) else None


def last(entries: Entries, key: str) -> Any:
    """Returns the last value of a key, or None if there is none or it is no finite number."""
    return number(next((entry[key] for entry in reversed(entries) if key in entry), None))


# -- the output


def in_order(rows: list[Row], column: str) -> list[Row]:
    """Returns rows sorted by a column, those without a value last."""
    sign = -1 if RUN_COLUMNS[column] in ("most", "highest") else 1
    there = [row for row in rows if row[column] is not None]
    there.sort(key=lambda row: row[column] if isinstance(row[column], str) else sign * row[column])
    return there + [row for row in rows if row[column] is None]


def text(rows: list[Row]) -> str:
    """Returns a table for the terminal, with what its marks mean."""
    cells = [list(RUN_COLUMNS), *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines, notes = [], []
    for run, recipe, model, *values in cells:
        left = [f"{cell:{width}}" for cell, width in zip((run, recipe, model), widths, strict=False)]
        right = [f"{cell:>{width}}" for cell, width in zip(values, widths[3:], strict=True)]
        lines.append("  ".join(left + right))
    if any(row["validation_is_test"] for row in rows):
        notes.append("* validation was on the test set: the best epoch was chosen by the test images.")
    if any(row["finished"] is False for row in rows):
        notes.append(f"{UNFINISHED}: still in training, or stopped before its test.")
    return "\n".join([*lines, *([""] if notes else []), *notes])


def _cells(row: Row) -> list[str]:
    done = "-" if row["done"] is None else f"{row['done']:g}"
    done += f"/{row['asked']}" if row["asked"] is not None else ""
    done += " it" if done != "-" and row["unit"] == "iteration" else ""
    best = _number(row["best"]) + (f" at {row['best_at']:g}" if row["best_at"] is not None else "")
    best += "*" if row["validation_is_test"] else " "
    test = UNFINISHED if row["finished"] is False else _number(row["test"])
    seconds = None if row["time"] is None else round(row["time"])
    time = "-" if seconds is None else f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    names = [printable(row[key] or "-") for key in ("run", "recipe", "model")]
    return [*names, done, best, _number(row["loss"]), test, time]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}" if 1e-3 <= abs(value) < 1e3 or value == 0 else f"{value:.2e}"


def main(argv: list[str] | None = None) -> None:
    """Reads the runs and prints the table."""
    parser = tool_options.make_parser("runs")
    args = parser.parse_args(argv)
    problems: list[str] = []
    try:
        rows = in_order([read_run(folder) for folder in find_runs(args.folders, problems)], args.sort)
    except OSError as error:
        parser.error(str(error))
    if args.format == "text":
        say(text(rows), kept="\n")
    elif args.format == "json":
        say(json.dumps(rows, indent=4), kept="\n")
    else:
        columns = [key for key in rows[0] if key != "problems"]
        table = [columns, *([row[key] for key in columns] for row in rows)]
        shown = ([printable(cell) if isinstance(cell, str) else cell for cell in line] for line in table)
        say("".join(map(csv_line, shown)).rstrip("\n"), kept="\n")
    for problem in (*problems, *(problem for row in rows for problem in row["problems"])):
        say(problem, sys.stderr)


if __name__ == "__main__":
    main()
