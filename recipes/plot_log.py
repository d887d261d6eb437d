"""Draws the curves of one or more training logs.

    python recipes/plot_log.py result/log -o curves.png
    python recipes/plot_log.py result/log other/log --log-scale

One panel for each quantity (loss apart from accuracy), training and validation together, several runs in one picture.
Where a value is NaN or infinite (null in a log) the line has a gap and the panel a mark. A lone spike that would
flatten everything else is cut off, which the panel says; --log-scale shows it. A long noisy curve has a smoothed line
over all its points. It names what it cannot draw.
"""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from extensions import curves
from extensions.log_file import checked
from recipes.parts import tool_options
from recipes.parts.parser import say
from recipes.parts.tool_options import X_KEYS
from trainer import saving
from trainer.saving.files import parse_json, read_bytes

X_LABELS = {"epoch": "epoch", "iteration": "iteration", "elapsed_time": "elapsed time [s]"}

Entries = list[dict[str, Any]]


def read_log(path: str | Path) -> Entries:
    """Returns the entries of a log: a JSON list, or JSON Lines where the name says ``.jsonl``.

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
            text = read_bytes(path)
            entries = [*map(parse_json, text.splitlines())] if ".jsonl" in path.suffixes else parse_json(text)
            break
        except ValueError as error:
            if last:
                raise ValueError(f"{path} is not a log: it is not JSON ({error}).") from error
            time.sleep(0.1)
    try:
        checked(entries)
    except ValueError as error:
        raise ValueError(f"{path} is not a log: {error}.") from error
    if not entries:
        raise ValueError(f"{path} has no entries yet.")
    return entries


def read_curves(
    logs: dict[str, Entries], keys: list[str] | None, x: str
) -> tuple[dict[str, dict[str, curves.Curve]], list[str]]:
    """Returns the curves of each log over x, and notes of what cannot be drawn.

    A null is a value that is NaN or infinite. An entry without the key is no point: validation is logged once an epoch
    and training ten times.

    Args:
        logs: The entries of each log, by its name.
        keys: What to draw; by default all but what x may be.
        x: One of X_KEYS.

    Raises:
        ValueError: If a key is in no log, or nothing can be drawn.
    """
    found: dict[str, dict[str, curves.Curve]] = {}
    told = []
    there = list(dict.fromkeys(key for entries in logs.values() for entry in entries for key in entry))
    for key in keys or ():
        if key not in there:
            raise ValueError(f"no log has the key {key!r}; there are {', '.join(there)}.")
    for name, entries in logs.items():
        where = f" in {name}" if len(logs) > 1 else ""
        placed = [entry for entry in entries if is_number(entry.get(x))]
        if len(placed) < len(entries):
            told.append(f"{len(entries) - len(placed)} entries{where} have no {x!r} and are not drawn")
        at, found[name] = positions(placed, x), {}
        for key in keys or [key for key in there if key not in X_KEYS]:
            pairs = [(place, entry[key]) for place, entry in zip(at, placed, strict=True) if key in entry]
            values = [math.nan if value is None else value for _, value in pairs]
            if other := [value for value in values if not is_number(value)]:
                told.append(f"{key}{where} is not drawn: {str(other[0])[:40]!r} is no number")
            elif pairs:
                found[name][key] = [place for place, _ in pairs], values
                if not np.isfinite(values).any():
                    told.append(f"{key}{where} is NaN or infinite in all its {len(values)} entries")
            elif keys:
                told.append(f"there is no {key}{where}")
        if not found[name]:
            told.append(f"nothing of {name} is drawn")
    drawn = [values for of_run in found.values() for _, values in of_run.values()]
    if not any(np.isfinite(values).any() for values in drawn):
        raise ValueError(f"the logs hold nothing to draw, only {', '.join(there)}. {'; '.join(told)}".strip())
    return found, told


def is_number(value: Any) -> bool:
    """Returns whether a value of a log is a number, which true and false are not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def positions(entries: Entries, x: str) -> list[float]:
    """Returns where on the axis each entry is.

    Within an epoch it is taken from the iteration, as ``epoch`` counts whole ones: the length of an epoch is the one
    that fits all entries. If none does, as where the batch size was changed, the epochs stay whole.
    """
    at = [float(entry[x]) for entry in entries]
    if x == "epoch" and all(is_number(entry.get("iteration")) for entry in entries):
        pairs = [(entry["iteration"], entry["epoch"]) for entry in entries]
        most = min((iteration / epoch for iteration, epoch in pairs if epoch > 0), default=0)
        if most > 0 and all(iteration < (epoch + 1) * most * (1 + 1e-9) for iteration, epoch in pairs):
            return [iteration / most for iteration, _ in pairs]
    return at


def main(argv: list[str] | None = None) -> None:
    """Reads the logs and writes or shows the picture."""
    parser = tool_options.make_parser("plot_log")
    args = parser.parse_args(argv)
    try:
        names = [Path(log).parent.name or Path(log).name for log in args.logs]
        if len(set(names)) < len(names):
            names = [str(Path(log).parent) for log in args.logs]
        if len(set(names)) < len(names):
            names = list(args.logs)
        logs = {name: read_log(log) for name, log in zip(names, args.logs, strict=True)}
        x = args.x or "epoch"
        everything = [entry for entries in logs.values() for entry in entries]
        if args.x is None and all("iteration" in entry and entry.get("epoch") == 0 for entry in everything):
            x = "iteration"  # all of them would lie at 0
        for name, entries in logs.items():
            if not any(is_number(entry.get(x)) for entry in entries):
                raise ValueError(f"{name} has no {x!r} to draw against.")
        found, told = read_curves(logs, args.keys, x)
        import matplotlib

        if args.o is None and matplotlib.get_backend().lower() == "agg":
            raise ValueError("there is no screen for a window: give -o FILE.")
        window = None
        if args.o is None:
            import matplotlib.pyplot as plt

            window = plt.figure()
        figure = curves.draw(found, X_LABELS[x], log_scale=args.log_scale, figure=window)
        if args.o is not None:
            path = Path(args.o)
            saving.write(path, lambda file: figure.savefig(file, format=path.suffix[1:] or None, dpi=150))
    except (OSError, ValueError) as error:
        parser.error(str(error))
    for line in told:
        say(f"{parser.prog}: {line}.", sys.stderr)
    if window is not None:
        plt.show()


if __name__ == "__main__":
    main()
