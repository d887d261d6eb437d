"""How the cost of the log grows with its length.

An entry is ten values, averaged by ``LogReport``, written to the file, and printed by ``PrintReport`` to nowhere. An
old log, grown to 100,000 entries, is measured beside a young one that has just begun, entry by entry in turn. Then what
is done with the whole of it: the part of a snapshot that is the log's (its flush to the disk told apart), a resume,
the plotter's table and its picture. Last a point of ``PlotReport``, which draws all of its points anew for each.

    python benchmarks/log.py
"""

import contextlib
import io
import os
import pickle
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any
from unittest import mock

os.environ["MPLBACKEND"] = "Agg"  # the picture goes to a file

from harness import Results, interleaved, make_parser, ratio

import extensions
from extensions import curves
from recipes import plot_log
from trainer import Observation, Trainer

KEYS = [f"main/key{number}" for number in range(10)]
WINDOW = 100  # entries whose median is taken


class Nowhere(io.TextIOBase):
    """What is printed to it is gone."""

    def write(self, text: str) -> int:
        """Forgets a text."""
        return len(text)


class Logged:
    """A run that trains nothing and logs ten values in each iteration."""

    def __init__(self, folder: Path, state: dict[str, Any] | None = None) -> None:
        self.log = extensions.LogReport(trigger=(1, "iteration"))
        self.table = extensions.PrintReport(KEYS, out=Nowhere())
        self.updater = SimpleNamespace(iteration=0, epoch=0, epoch_detail=0.0)
        self.trainer = Trainer(self.updater, out=folder)
        self.trainer.extend(self.log)
        self.trainer.extend(self.table)
        if state is not None:
            self.log.load_state_dict(state)
        self.trainer.finished  # noqa: B018  # the first question starts the run

    def entries(self, n: int) -> tuple[float, float]:
        """Makes entries; returns the median microseconds of LogReport and of PrintReport."""
        times = []
        for _ in range(n):
            self.updater.iteration += 1
            values = {key: self.updater.iteration / (number + 3) for number, key in enumerate(KEYS)}
            self.trainer.observation = Observation(values)
            start = time.perf_counter()
            self.log(self.trainer)
            between = time.perf_counter()
            self.table(self.trainer)
            times.append((between - start, time.perf_counter() - between))
        log, table = (1e6 * median(column) for column in zip(*times, strict=True))
        return log, table

    def part_of_snapshot(self) -> tuple[float, float]:
        """Returns the microseconds for the log's state without flushing it to the disk, and for that."""
        flushed = []
        fsync = os.fsync

        def timed(file: int) -> None:
            start = time.perf_counter()
            fsync(file)
            flushed.append(time.perf_counter() - start)

        with mock.patch("os.fsync", timed):
            start = time.perf_counter()
            self.log.state_dict()
            whole = time.perf_counter() - start
        return 1e6 * (whole - sum(flushed)), 1e6 * sum(flushed)


def seconds(function: Callable[[], Any]) -> float:
    """Returns how long a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


@contextlib.contextmanager
def young() -> Iterator[Logged]:
    """A log that has no entries yet, in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        run = Logged(Path(folder))
        yield run
        run.trainer.finalize()


def compare(results: Results, old: Logged, at: str, rounds: int) -> None:
    """Measures entries of the old log, as it is now, and of young ones in turn."""

    def first_entries() -> tuple[float, float]:
        with young() as run:
            return run.entries(WINDOW)

    pairs = interleaved({"young": first_entries, "old": lambda: old.entries(WINDOW)}, rounds)
    for part, name in enumerate(("LogReport", "PrintReport")):
        measured = {who: [pair[part] for pair in column] for who, column in pairs.items()}
        if at == "1,000":
            results.add(f"{name}, entry 1", median(measured["young"]), "us")
        times = f"{ratio(measured, 'old', 'young'):.3f} times entry 1"
        results.add(f"{name}, entry {at}", median(measured["old"]), "us", times)


def compare_states(results: Results, old: Logged, at: str, rounds: int) -> None:
    """Measures what the log is in a snapshot, each time after some new entries."""
    with young() as new:
        for name, run in (("entry 1", new), (f"entry {at}", old)):
            parts = []
            for _ in range(rounds):
                run.entries(10)
                parts.append(run.part_of_snapshot())
            state, flush = (median(column) for column in zip(*parts, strict=True))
            results.add(f"its part of a snapshot, {name}", len(pickle.dumps(run.log.state_dict())), "bytes")
            results.add(
                f"the time for it, {name}", state, "us", f"and {flush:,.0f} us to flush ten entries to the disk"
            )


def plot_report(results: Results, points: int, folder: Path) -> None:
    """Measures one more point of a plot that has so many, and its part of a snapshot."""
    plot = extensions.PlotReport(KEYS[:2], trigger=(1, "iteration"))
    state = plot.state_dict()
    state["data"] = {key: [[float(i), i / 7] for i in range(points - 1)] for key in KEYS[:2]}
    plot.load_state_dict(state)
    run = Trainer(SimpleNamespace(iteration=points, epoch=0, epoch_detail=0.0), out=folder)
    run.observation = Observation(dict.fromkeys(KEYS, 0.5))
    drawn = []
    for _ in range(3):
        drawn.append(seconds(lambda: plot(run)))
        run.updater.iteration += 1
    results.add(f"PlotReport, point {points:,} of two curves", 1e3 * median(drawn), "ms")
    results.add(f"its part of a snapshot, point {points:,}", len(pickle.dumps(plot.state_dict())), "bytes")


def main() -> None:
    """Measures and prints."""
    parser = make_parser(str(__doc__))
    parser.add_argument("--entries", type=int, default=100_000, metavar="N", help="of the old log (100,000)")
    parser.set_defaults(rounds=7)
    args = parser.parse_args()
    if args.entries < 10_000:
        parser.error(f"--entries must be 10,000 or more, got {args.entries}.")
    results = Results("The log, as it grows", "numpy", "pandas", "matplotlib")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        old = Logged(folder)
        for n in (1000, *([10_000] if args.entries > 20_000 else []), args.entries):
            old.entries(n - old.updater.iteration)
            compare(results, old, f"{n:,}", args.rounds)
        at = f"{args.entries:,}"
        compare_states(results, old, at, args.rounds)

        state = old.log.state_dict()
        old.trainer.finalize()
        results.add(f"resume of a log of {at} entries", seconds(lambda: Logged(folder, state).trainer.finalize()), "s")
        path = folder / "log"
        results.add("the log's file, an entry", path.stat().st_size / len(old.log.log), "bytes")
        loads = [seconds(lambda: plot_log.read_log(path)) for _ in range(args.rounds)]
        results.add(f"plot_log reads {at} entries of {len(KEYS)} keys", median(loads), "s", "at most 2 wanted")
        entries = plot_log.read_log(path)

        def picture(entries: plot_log.Entries) -> None:
            found, _ = plot_log.read_curves({"run": entries}, None, "iteration")
            curves.draw(found, "iteration").savefig(folder / "curves.png", dpi=150)

        picture(entries[:10])  # matplotlib is imported
        results.add("plot_log draws all curves of them", seconds(lambda: picture(entries)), "s")

        plot_report(results, 1, folder)  # the first picture looks for fonts
        for points in (100, 10_000, 100_000):
            plot_report(results, points, folder)
    results.write(args.json)


if __name__ == "__main__":
    main()
