"""Draws the curves of one or more training logs.

    python recipes/plot_log.py result/log -o curves.png

One panel for each quantity (loss apart from accuracy), training and validation together, several runs in one picture.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import pandas as pd

X_KEYS = ("epoch", "iteration", "elapsed_time")
X_LABELS = {"epoch": "epoch", "iteration": "iteration", "elapsed_time": "elapsed time [s]"}
# Told apart in grey and by the colour-blind: Okabe and Ito 2008.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", ":", "-.")


def read_log(path: str | Path) -> pd.DataFrame:
    """Returns a log as a table, one row an entry; NaN where an entry lacks a key.

    A log may be read in the very moment in which it grows: what cannot be read is read once more.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a log, with the reason.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name the log in it, such as {path / 'log'}.")
    for last in (False, True):
        try:
            entries = json.loads(path.read_bytes())
            break
        except ValueError as error:
            if last:
                raise ValueError(f"{path} is not a log: it is not JSON ({error}).") from error
            time.sleep(0.1)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{path} is not a log: a log is a JSON list of objects, as LogReport writes it.")
    if not entries:
        raise ValueError(f"{path} has no entries yet.")
    return pd.DataFrame(entries)


def plotted_keys(tables: list[pd.DataFrame], keys: list[str] | None) -> list[str]:
    """Returns the keys to draw: those asked for, or every number that is not an x-axis.

    Raises:
        ValueError: If a key is in no log.
    """
    there = list(dict.fromkeys(key for table in tables for key in table.select_dtypes("number").columns))
    if keys is None:
        keys = [key for key in there if key not in X_KEYS]
    for key in keys:
        if key not in there:
            raise ValueError(f"no log has the key {key!r}; there are {', '.join(there)}.")
    if not keys:
        raise ValueError(f"the logs hold nothing to draw, only {', '.join(there)}.")
    return keys


def curve(table: pd.DataFrame, key: str, x: str) -> pd.Series[Any]:
    """Returns the logged values of a key over x; a line through them bridges the gaps.

    Validation is logged once an epoch and training ten times: x within an epoch is not in the log, as ``epoch``
    counts whole ones, so it is taken from the iteration.
    """
    values = table[key].astype(float)
    position = table[x].astype(float)
    if x == "epoch" and "iteration" in table and (ends := table[position.diff() > 0]).shape[0] > 0:
        per_epoch = (ends["iteration"] / ends["epoch"]).iloc[-1]
        position = table["iteration"] / per_epoch
    return pd.Series(values.to_numpy(), index=position.to_numpy()).dropna()


def draw(logs: dict[str, pd.DataFrame], keys: list[str], x: str) -> Any:
    """Returns a matplotlib figure: a row of panels, one for each last part of the keys."""
    import matplotlib.pyplot as plt

    quantities = list(dict.fromkeys(key.rsplit("/", 1)[-1] for key in keys))
    columns = min(len(quantities), 2)
    rows = -(-len(quantities) // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(5.0 * columns, 3.3 * rows), squeeze=False, layout="constrained")
    panels = list(grid.flat)
    lines: dict[str, Any] = {}
    kinds = list(dict.fromkeys(key.rsplit("/", 1)[0] for key in keys if "/" in key))
    for panel, quantity in zip(panels, quantities, strict=False):
        for run, (name, table) in enumerate(logs.items()):
            for key in keys:
                if key.rsplit("/", 1)[-1] != quantity or key not in table:
                    continue
                kind = kinds.index(key.rsplit("/", 1)[0]) if "/" in key else 0
                # Several runs: a colour each, train and validation by dash. One run: a colour for each of the two.
                colour, dash = (run, kind + 2 * (run // len(COLOURS))) if len(logs) > 1 else (kind, 0)
                label = " ".join(word for word in (name if len(logs) > 1 else "", _part(key)) if word)
                series = curve(table, key, x)
                (line,) = panel.plot(
                    series.index,
                    series.to_numpy(),
                    DASHES[dash % len(DASHES)],
                    color=COLOURS[colour % len(COLOURS)],
                    linewidth=1.8,
                    marker="o" if len(series) <= 20 else None,
                    markersize=3.5,
                )
                if "/" in key or not kinds:  # what has no kind, the learning rate, is told by its axis
                    lines.setdefault(label, line)
        panel.set_xlabel(X_LABELS[x])
        panel.set_ylabel("learning rate" if quantity == "lr" else quantity)
        panel.grid(color="0.9")
        panel.spines[["top", "right"]].set_visible(False)
        if x == "epoch":
            panel.xaxis.get_major_locator().set_params(integer=True)
    for panel in panels[len(quantities) :]:
        panel.remove()
    names = [label.replace("$", r"\$") for label in lines]  # a folder may be called so, and means no formula
    figure.legend(lines.values(), names, loc="outside upper center", ncols=min(len(lines), 4), frameon=False)
    return figure


def _part(key: str) -> str:
    """Returns what a curve is of: main/loss is training, validation/main/loss validation."""
    first = key.split("/", 1)[0] if "/" in key else ""
    return "training" if first == "main" else first.replace("_", " ")


def main(argv: list[str] | None = None) -> None:
    """Reads the logs and writes or shows the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logs", nargs="+", metavar="LOG", help="a log, such as result/log")
    parser.add_argument("-o", metavar="FILE", help="write a PNG, SVG or PDF, by its suffix; else a window opens")
    parser.add_argument("--keys", nargs="+", metavar="KEY", help="what to draw, such as main/loss (every number)")
    parser.add_argument("--x", choices=X_KEYS, default="epoch", help="the horizontal axis (epoch)")
    args = parser.parse_args(argv)
    try:
        names = [Path(log).parent.name or Path(log).name for log in args.logs]
        if len(set(names)) < len(names):
            names = [str(Path(log).parent) for log in args.logs]
        if len(set(names)) < len(names):
            names = list(args.logs)
        logs = {name: read_log(log) for name, log in zip(names, args.logs, strict=True)}
        keys = plotted_keys(list(logs.values()), args.keys)
        for name, table in logs.items():
            if args.x not in table:
                raise ValueError(f"{name} has no {args.x!r} to draw against.")
        import matplotlib

        if args.o is None and matplotlib.get_backend().lower() == "agg":
            raise ValueError("there is no screen for a window: give -o FILE.")
        figure = draw(logs, keys, args.x)
        if args.o is not None:
            figure.savefig(args.o, dpi=150)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    if args.o is None:
        import matplotlib.pyplot as plt

        plt.show()


if __name__ == "__main__":
    main()
