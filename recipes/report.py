"""Writes one HTML page about a run, or about several side by side: curves, test, timing, arguments.

    python recipes/report.py result
    python recipes/report.py result other -o report.html
    python recipes/report.py result --watch

The page is one file, which needs no network and no script. Whatever the folder has is shown, also of a run that is
still in training. The network is tested when the page is made; without its data or weights the page says so. With
--watch the page is made again whenever the log has grown, and a browser that shows it reloads it; the network is tested
at the end of the run.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from recipes import evaluate_run, plot_log
from recipes.parts import image_files, run_folder, tool_options, trained
from recipes.parts.page import charts, picture, render, text_of
from recipes.parts.page.arguments import arguments, differing
from recipes.parts.page.watch import end_reloading, log_in, watch, write
from recipes.parts.parser import say, stop
from recipes.parts.tool_options import WATCH
from trainer.iterators import BadSampleError
from trainer.saving import check
from trainer.saving.files import parse_json, read_bytes

SAMPLES, LOG_ENTRIES = 12, 10
ACCURACY = "validation/main/accuracy"
SPEED, EPOCH_TIME = "iterations per second", "seconds per epoch"
DAY = 86_400  # seconds

Tested = evaluate_run.Evaluation | str  # or why it failed


class Run(NamedTuple):
    """The files of a run's folder; ``saved`` and ``test`` are empty if their file is missing or broken."""

    folder: Path
    name: str
    entries: plot_log.Entries
    log: pd.DataFrame  # the same
    saved: dict[str, Any]  # args.json
    test: dict[str, Any]
    problems: dict[str, str]  # by file
    weights: str = "The network"  # the file that was tested for the page


def read_run(folder: str | Path) -> Run:
    """Reads a run's folder.

    Raises:
        FileNotFoundError: If there is no such folder, or no log in it.
        ValueError: If its log cannot be read, or has no entry yet.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}: name that of a run, as a recipe's --out does.")
    if (path := log_in(folder)) is None:
        raise FileNotFoundError(f"{folder} has no log: name a run's folder; a run that has just begun has none yet.")
    entries = plot_log.read_log(path)
    log = pd.DataFrame(entries)
    if not set(log.columns).intersection(plot_log.X_KEYS):
        raise ValueError(f"{path} has no epoch, iteration or elapsed_time: it is no log of a run.")
    for key in set(log.columns).intersection(plot_log.X_KEYS):
        log[key] = pd.to_numeric(log[key], errors="coerce")
    saved, test, problems = dict[str, Any](), dict[str, Any](), dict[str, str]()
    try:
        saved = run_folder.read_args(folder)
        if saved["recipe"] in tool_options.recipe_names():
            saved = run_folder.read_args(folder, trained.find_recipe(saved["recipe"]).OPTIONS)
    except FileNotFoundError:
        problems["args.json"] = "There is no args.json in the folder."
    except (OSError, ValueError) as error:
        problems["args.json"] = str(error)
    try:
        test = parse_json(read_bytes(folder / "test.json"))
        if not isinstance(test, dict):
            raise ValueError("it is no JSON object")
        check(test)
    except FileNotFoundError:
        problems["test.json"] = "There is no test.json: the run is still in training, or was stopped before its end."
    except (OSError, TypeError, ValueError) as error:
        test = {}
        problems["test.json"] = f"{folder / 'test.json'} cannot be read ({error})."
    return Run(folder, folder.resolve().name, entries, log, saved, test, problems)


# -- what is in the logs


def x_of(runs: Sequence[Run]) -> str:
    """Returns the horizontal axis of the curves: the unit of the runs' length, if every log has it.

    Raises:
        ValueError: If the logs have no axis in common.
    """
    there = [x for x in plot_log.X_KEYS if all(x in run.log and run.log[x].notna().any() for run in runs)]
    if not there:
        raise ValueError(f"the logs have none of {', '.join(plot_log.X_KEYS)} in common to draw curves over.")
    units = {"iteration" if "iterations" in run.saved["args"] else "epoch" for run in runs if run.saved}
    return next((x for x in there if units == {x}), there[0])


def curves_of(runs: dict[str, Run]) -> dict[str, Any]:
    """Returns charts of all numbers in the logs, and notes of what cannot be drawn."""
    x = x_of(list(runs.values()))
    try:
        found, told = plot_log.read_curves({name: run.entries for name, run in runs.items()}, None, x)
    except ValueError as error:
        return {"charts": [], "missing": [f"There are no curves: {error}"]}
    return {"charts": charts(found, plot_log.X_LABELS[x]), "missing": [f"{line}." for line in told]}


def validated_on(run: Run) -> str | None:
    """Returns which images the run validated on, or None if it did not or that is not known."""
    if not run.saved or not any(key.startswith("validation/") for key in run.log):
        return None
    return "images of its own" if "valid" in run.saved["splits"] else "the test set"


def numbers(run: Run, key: str) -> pd.Series[Any]:
    """Returns the numbers under a key of the log, by row; empty if there is none."""
    return pd.to_numeric(run.log[key], errors="coerce").dropna() if key in run.log else pd.Series(dtype=float)


def last_of(run: Run, key: str) -> float | None:
    """Returns the last number under a key of the log, or None."""
    values = numbers(run, key)
    return float(values.iloc[-1]) if len(values) else None


def timing(run: Run) -> dict[str, Any]:
    """Returns total time, speed and epochs, by the log."""
    if not set(run.log.columns) >= {"iteration", "elapsed_time"}:
        return {"missing": ["The log has no iteration and elapsed_time."]}
    log = run.log.dropna(subset=["iteration", "elapsed_time"])
    log = log[log["iteration"] > 0]
    if not len(log) or not log["elapsed_time"].iloc[-1] > 0:
        return {"missing": ["The log has no iteration with an elapsed time yet."]}
    start = pd.DataFrame([dict.fromkeys(plot_log.X_KEYS, 0.0)])
    rows = pd.concat([start, log[[x for x in plot_log.X_KEYS if x in log]].astype(float)], ignore_index=True)
    iterations, seconds = rows["iteration"].diff(), rows["elapsed_time"].diff()
    rows[SPEED] = (iterations / seconds).where(seconds > 0)
    last = rows.iloc[-1]
    epochs = pd.Series(dtype=float)
    if "epoch" in log:
        ends = rows[(rows["epoch"].diff() > 0) | (rows.index == 0)]
        rows[EPOCH_TIME] = ends["elapsed_time"].diff() / ends["epoch"].diff()
        epochs = rows[EPOCH_TIME].dropna()
    x = "epoch" if "epoch" in log else "iteration"
    at = pd.Series(plot_log.positions(rows.to_dict("records"), x), index=rows.index)
    drawn = {key: rows[key].dropna() for key in (SPEED, EPOCH_TIME) if key in rows and rows[key].count() > 1}
    speeds = {key: (at[values.index].tolist(), values.tolist()) for key, values in drawn.items()}
    return {
        "missing": [],
        "total": last["elapsed_time"],
        "speed": last["iteration"] / last["elapsed_time"],
        "epochs": {"n": len(epochs), "median": epochs.median(), "least": epochs.min(), "most": epochs.max()},
        "charts": charts({"": speeds}, plot_log.X_LABELS[x]) if speeds else [],
    }


def log_end(run: Run) -> dict[str, Any]:
    """Returns the last entries of the log."""
    columns = [x for x in plot_log.X_KEYS if x in run.log] + [key for key in run.log if key not in plot_log.X_KEYS]
    last = run.log[columns].iloc[-LOG_ENTRIES:].astype(object)
    return {"n": len(run.log), "columns": columns, "rows": list(last.itertuples(index=False, name=None))}


# -- what is in the other files


def written(run: Run) -> str:
    """Returns when the files of a run were written."""
    names = {"args.json": "begun or last resumed", "log": "last entry of the log", "test.json": "tested"}
    times = [
        f"{told} {time.strftime('%Y-%m-%d %H:%M', time.localtime((run.folder / name).stat().st_mtime))}"
        for name, told in names.items()
        if (run.folder / name).exists()
    ]
    return f"{run.folder.resolve()}. By the times of its files: {', '.join(times)}."


def profile(run: Run) -> list[str]:
    """Returns both parts of ProfileReport's file, if there is one."""
    try:
        parts, _, operators = read_bytes(run.folder / "profile.txt").decode(errors="replace").partition("\n\n")
    except OSError:
        return []
    return [parts, operators.strip()]


# -- the network, tested


def tested(run: Run, args: argparse.Namespace) -> tuple[Run, Tested]:
    """Returns the run with the name of its weights, and their evaluation on the test images or why that failed."""
    try:
        network = trained.load(run.folder, args.device, args.workers, args.recipe)
        return run._replace(weights=network.weights.name), evaluate_run.evaluate(network, "test", args.data)
    except BadSampleError as error:
        return run, str(error.__cause__)
    except (OSError, ValueError, RuntimeError) as error:
        return run, str(error)


def test_of(run: Run, evaluation: Tested) -> dict[str, Any]:
    """Returns numbers, samples and mistakes of the network's test."""
    if isinstance(evaluation, str):
        return {"missing": [f"The network could not be tested when this page was made: {evaluation}"]}
    told, n = evaluate_run.summary(evaluation), len(evaluation.labels)
    chosen = np.sort(np.random.default_rng(0).choice(n, min(SAMPLES, n), replace=False)).tolist()
    found = {"missing": [], "told": told, "classes": evaluation.classes}
    try:
        samples = [image_of(evaluation, index) for index in chosen]
        return found | {
            "samples": samples,
            "mistakes": [image_of(evaluation, one["index"]) for one in told["mistakes"]],
        }
    except OSError as error:  # removed since
        return found | {"missing": [str(error)], "samples": [], "mistakes": []}


def image_of(evaluation: evaluate_run.Evaluation, index: int) -> dict[str, Any]:
    """Returns an image with truth and prediction."""
    label, shares = evaluation.labels[index], evaluation.probabilities[index]
    if np.ndim(label):  # several at once
        truth, taken = (
            ", ".join(name for name, is_on in zip(evaluation.classes, row, strict=True) if is_on) or "nothing"
            for row in (label > 0.5, shares >= 0.5)
        )
        probability = ""
    else:
        truth, taken = evaluation.classes[label], evaluation.classes[shares.argmax()]
        probability = f"{100 * shares.max():.0f}\N{NO-BREAK SPACE}%"
    path = image_files.path_of(evaluation.dataset, index)
    source = "/".join(Path(path).parts[-2:]) if path else f"test image {index}"
    told = {"truth": truth, "taken": taken, "probability": probability, "source": source}
    return told | picture(evaluation.dataset[index][0])


# -- the page


def names_of(runs: Sequence[Run]) -> list[str]:
    """Returns a unique name of each run."""
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        names = [str(run.folder) for run in runs]
    return names if len(set(names)) == len(names) else [f"{name} ({i})" for i, name in enumerate(names, 1)]


def about(name: str, run: Run, evaluation: Tested) -> dict[str, Any]:
    """Returns all about a run, as run.html shows it."""
    valid, data, x = numbers(run, ACCURACY), run.saved.get("data", []), x_of([run])
    return run._asdict() | {
        "name": name,
        "written": written(run),
        "accuracy": accuracy if plot_log.is_number(accuracy := run.test.get("main/accuracy")) else None,
        "best": valid.max() if len(valid) else None,
        "best_at": f"{plot_log.X_LABELS[x]} {text_of(run.log[x][valid.idxmax()])}" if len(valid) else "",
        "last": last_of(run, ACCURACY),
        "validated_on": validated_on(run),
        "reached": {key: last_of(run, key) for key in plot_log.X_KEYS},
        "data": data if isinstance(data, list) else [data],
        "curves": curves_of({run.name: run}),
        "tested": test_of(run, evaluation),
        "timing": timing(run),
        "profile": profile(run),
        "log": log_end(run),
        "arguments": arguments(run.saved),
    }


def page(runs: Sequence[Run], evaluations: Sequence[Tested], refresh: int = 0) -> str:
    """Returns the whole page; it reloads itself every so many seconds, if any."""
    named = dict(zip(names_of(runs), runs, strict=True))
    return render(
        "page.html",
        runs=[about(name, run, told) for (name, run), told in zip(named.items(), evaluations, strict=True)],
        differing=differing([run.saved for run in runs]),
        curves=curves_of(named) if len(runs) > 1 else {},
        refresh=refresh,
        made=time.strftime("%Y-%m-%d %H:%M"),
    )


# -- the command line


def main(argv: list[str] | None = None) -> None:
    """Reads the runs, tests their networks and writes the page."""
    parser = tool_options.make_parser("report")
    args = parser.parse_args(argv)
    if isinstance(args.watch, str):
        try:
            args.watch = float(args.watch)
        except ValueError:  # report.py --watch result
            args.runs, args.watch = [args.watch, *args.runs], WATCH
    if not args.runs:
        parser.error("the following arguments are required: RUN")
    if args.watch is not None and not 0 < args.watch <= DAY:
        parser.error(f"--watch takes more than 0 and at most {DAY} seconds, got {args.watch:g}.")
    folders = [Path(run) for run in args.runs]
    out = Path(args.o or folders[0] / "report.html")
    try:
        try:
            if args.watch is not None:
                # To test the networks each time would take long, and slow the runs down.
                untested = ["the run goes on; it is tested when that has ended."] * len(folders)
                watch(
                    folders, out, args.watch, lambda: page([*map(read_run, folders)], untested, math.ceil(args.watch))
                )
            runs = [read_run(folder) for folder in folders]
            x_of(runs)
            found = [tested(run, args) for run in runs]
            write(out, page(*zip(*found, strict=True)).encode())
        except BaseException:
            if args.watch is not None:
                end_reloading(out)
            raise
    except KeyboardInterrupt:
        stop(f"{parser.prog}: interrupted.")
    except (OSError, ValueError) as error:
        parser.error(str(error))
    for run, evaluation in found:
        if isinstance(evaluation, str):
            say(f"{run.folder} could not be tested: {evaluation}")
    say(f"Wrote {out}.")


if __name__ == "__main__":
    main()
