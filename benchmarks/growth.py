"""How the cost of a run grows: with extensions, reported keys, log entries and samples.

*Extensions and keys*: microseconds an iteration of a loop that trains nothing, the differences taken between
neighbours; one iteration that trains ``Linear(32, 10)`` is there for scale. *Samples*: the order of an epoch, each
size in a fresh process, whose peak of memory is the kernel's (``VmHWM``, so Linux only), the place of an iterator in a
snapshot, and splits. With *log entries* nothing grows: see ``log.py``. With *ranks*: there is no distributed updater
yet, so there is nothing to measure.

    python benchmarks/growth.py
"""

import io
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from harness import Results, interleaved, make_parser

import extensions
from trainer import Classifier, StandardUpdater, Trainer, report
from trainer.datasets import split_dataset_random
from trainer.iterators import SerialIterator, ShuffleOrderSampler, StratifiedOrderSampler, WeightedOrderSampler

ITERATIONS = 100  # between two readings of the clock


class Idle:
    """An updater that trains nothing and reports given values."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values
        self.iteration = self.epoch = 0
        self.epoch_detail = 0.0

    def update(self) -> None:
        """Counts, and reports."""
        report(self.values)
        self.iteration += 1


def timed(run: Trainer) -> Callable[[], float]:
    """Returns a function that returns the microseconds of an iteration."""

    def measure() -> float:
        start = time.perf_counter()
        for _ in range(ITERATIONS):
            with run.iteration():
                run.updater.update()
        return 1e6 * (time.perf_counter() - start) / ITERATIONS

    return measure


def idle(folder: Path, name: str, values: dict[str, Any] | None = None) -> Trainer:
    """Returns a run that trains nothing and never ends."""
    return Trainer(Idle(values or {}), out=folder / name)


def training(folder: Path) -> Trainer:
    """Returns a run that trains a small network, with a batch that is there."""
    model = Classifier(torch.nn.Linear(32, 10))
    batch = torch.rand(32, 32), torch.arange(32) % 10
    loader = torch.utils.data.DataLoader([batch] * 1000, batch_size=None)
    updater = StandardUpdater(loader, torch.optim.SGD(model.parameters(), lr=0.1), model=model)
    return Trainer(updater, out=folder / "training")


def grow_extensions(results: Results, folder: Path, rounds: int) -> None:
    """Measures an iteration with more and more extensions."""
    runs = {"none": idle(folder, "none")}
    for n in (1, 10, 100):
        runs[f"{n} called each iteration"] = idle(folder, f"each{n}")
        for number in range(n):
            runs[f"{n} called each iteration"].extend(lambda trainer: None, name=f"extension{number}")
    runs["100 called each 10,000"] = idle(folder, "seldom")
    for number in range(100):
        seldom = runs["100 called each 10,000"]
        seldom.extend(lambda trainer: None, name=f"extension{number}", trigger=(10_000, "iteration"))
    measured = interleaved({"training": timed(training(folder))} | {n: timed(run) for n, run in runs.items()}, rounds)
    results.add("an iteration of Linear(32, 10)", median(measured["training"]), "us", "for scale")
    results.add("an iteration that trains nothing", median(measured["none"]), "us")
    for name in list(runs)[1:]:
        more = median(a - b for a, b in zip(measured[name], measured["none"], strict=True))
        results.add(f"extensions: {name}", more, "us", f"more; {more / int(name.split()[0]):.3f} us each")


def grow_keys(results: Results, folder: Path, rounds: int) -> None:
    """Measures an iteration with more and more reported values, averaged by LogReport."""
    kinds: dict[str, Callable[[int], Any]] = {"numbers": float, "tensors": lambda i: torch.tensor(float(i))}
    for kind, make in kinds.items():
        runs = {}
        for n in (0, 1, 10, 100, 1000):
            runs[n] = idle(folder, f"{kind}{n}", {f"main/key{i}": make(i) for i in range(n)})
            runs[n].extend(extensions.LogReport(trigger=(ITERATIONS, "iteration")))
        measured = interleaved({str(n): timed(run) for n, run in runs.items()}, rounds)
        for n in list(runs)[1:]:
            more = median(a - b for a, b in zip(measured[str(n)], measured["0"], strict=True))
            note = f"more; {more / n:.3f} us each, an entry each {ITERATIONS} iterations"
            results.add(f"keys: {n} {kind} in LogReport", more, "us", note)


# -- samples


def peak() -> int:
    """Returns the most memory that this process has had, in bytes."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def probe_order(n: int, kind: str) -> dict[str, float]:
    """Starts, saves, resumes and ends epochs of n samples; called in a fresh process."""
    samplers: dict[str, Callable[[], Any]] = {
        "shuffled": lambda: None,
        "weighted": lambda: WeightedOrderSampler(weights),
        "stratified": lambda: StratifiedOrderSampler(labels),
    }
    labels = np.arange(n) % 100
    weights = np.ones(n)
    SerialIterator(range(100), 32, order_sampler=ShuffleOrderSampler())  # the code is loaded
    before = peak()
    iterator = SerialIterator(range(n), 32, order_sampler=samplers[kind]())
    first = median(step(iterator) for _ in range(100))
    orders = []
    for _ in range(3):
        iterator.load_state_dict(iterator.state_dict() | {"position": n - 1})
        orders.append(step(iterator))  # over the end of the epoch
    later = median(step(iterator) for _ in range(100))
    memory = peak() - before
    file = io.BytesIO()
    torch.save(iterator.state_dict(), file)
    return {"order": median(orders) - later, "memory": memory, "first": first, "later": later, "state": file.tell()}


def step(iterator: SerialIterator) -> float:
    """Returns the seconds for a batch."""
    start = time.perf_counter()
    next(iterator)
    return time.perf_counter() - start


def probe_split(n: int) -> dict[str, float]:
    """Splits n samples in two; called in a fresh process."""
    start = time.perf_counter()
    parts = split_dataset_random(range(n), n // 2, seed=0)
    return {"time": time.perf_counter() - start, "memory": sum(sys.getsizeof(part.indices) for part in parts)}


def grow_samples(results: Results, sizes: list[int]) -> None:
    """Measures orders and splits of data sets that are larger and larger."""
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as fresh:
        for kind in ("shuffled", "weighted", "stratified"):
            for n in sizes:
                found = fresh.apply(probe_order, (n, kind))
                name = f"{n:,} samples, {kind}"
                is_plain = kind == "shuffled"
                seconds, size = ("at most 2 wanted", "at most 16 wanted") if is_plain and n >= 10**7 else ("", "")
                results.add(f"{name}: an epoch's order", found["order"], "s", seconds)
                results.add(f"{name}: peak of memory", found["memory"] / n, "bytes each", size)
                results.add(f"{name}: the iterator in a snapshot", found["state"], "bytes")
                if is_plain:
                    results.add(f"{name}: a batch of 32 of the first epoch", 1e6 * found["first"], "us")
                    results.add(f"{name}: a batch of 32 of a later one", 1e6 * found["later"], "us")
        for n in sizes:
            found = fresh.apply(probe_split, (n,))
            results.add(f"{n:,} samples: split_dataset_random", found["time"], "s")
            results.add(f"{n:,} samples: the indices of both parts", found["memory"] / n, "bytes each")


def main() -> None:
    """Measures and prints."""
    parser = make_parser(str(__doc__))
    parser.add_argument(
        "--samples",
        type=float,
        nargs="+",
        default=[1e4, 1e5, 1e6, 1e7],
        metavar="N",
        help="of the data sets (1e4 to 1e7)",
    )
    parser.set_defaults(rounds=30)
    args = parser.parse_args()
    torch.set_num_threads(1)
    results = Results("What grows with the size of a run", "numpy")
    with tempfile.TemporaryDirectory() as folder:
        grow_extensions(results, Path(folder), args.rounds)
        grow_keys(results, Path(folder), args.rounds)
    grow_samples(results, [int(n) for n in args.samples])
    print("\nlog entries: see log.py. Ranks: there is no distributed updater yet, so nothing is measured.")
    results.write(args.json)


if __name__ == "__main__":
    main()
