"""What a training loop costs beside the same loop written by hand.

``Linear(32, 10)``, SGD, batches of 64 that are ready in memory, one thread: the network is so small that what is left
is the loop's own time. Three jobs:

* *bare*: forward, cross entropy, backward, step. The loop by hand does just that.
* *reporting*: loss and accuracy of each iteration are there to be read, and nobody reads them. Kusari alone.
* *full*: loss and accuracy averaged, the learning rate observed in each iteration, a log entry and a printed row each
  100, a progress bar on a terminal, and each 1,000, an epoch, an evaluation over 10 batches and a snapshot. The loop by
  hand does the same work: it sums up on the device, and reads the sums when a row is due.

The machine's speed may swing threefold within seconds. So after every 100 iterations of the measured loop come 100 of
the loop by hand, in the same process, and what is given is the median of the differences between neighbours, a window
in the bare job and an epoch in the full one. The time for which files are written and flushed is taken out of both and
told apart. The loop by hand measured against itself is the zero.

Every peer that is installed is measured too (``peers.py``); nothing is installed. Of files the time for which they are
opened, flushed, renamed and removed is told apart, and to make their content is the loop's own. No peer flushes them to
the disk, as Kusari and the loop by hand do.

    python benchmarks/overhead.py
    python benchmarks/overhead.py --only Kusari Ignite
"""

import builtins
import contextlib
import io
import json
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
from harness import Results, make_parser
from torch import nn
from torch.nn import functional as F

import extensions
from trainer import Classifier, StandardUpdater, Trainer

WINDOW = 100  # iterations between two readings of the clock
EPOCH = 1000
PEERS = ("pytorch-pfn-extras", "lightning", "pytorch-ignite", "skorch")  # names of distributions


class Disk:
    """Adds up the time for which files are written, flushed and renamed, while it is entered."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns a function whose time counts as the disk's."""

        def call(*args: Any, **kwargs: Any) -> Any:
            start, before = time.perf_counter(), self.seconds
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds = before + time.perf_counter() - start  # what it calls in turn is within

        return call


DISK = Disk()
OS_CALLS = ("open", "stat", "mkdir", "chmod", "listdir", "scandir", "fsync", "rename", "replace", "remove", "unlink")
OS_CALLS += ("pwrite", "ftruncate", "fstat")


@contextlib.contextmanager
def files_told_apart() -> Iterator[None]:
    """Counts as the disk's what opens, renames, flushes and removes files; serialisation stays the loop's own."""
    calls = [(builtins, "open"), (io, "open"), *((os, name) for name in OS_CALLS)]
    with contextlib.ExitStack() as stack:
        for module, name in calls:
            stack.callback(setattr, module, name, getattr(module, name))
            setattr(module, name, DISK.timed(getattr(module, name)))
        yield


def batch(samples: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns inputs of shape (samples, 32) and labels of shape (samples,)."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(samples, 32, generator=generator), torch.randint(0, 10, (samples,), generator=generator)


class Neighbours:
    """An iterator over ready batches that runs the loop by hand after every window, and keeps the times of both.

    Args:
        by_hand: Called with a number of iterations.
        windows: After how many it ends.
    """

    def __init__(self, by_hand: Callable[[int], None], windows: int) -> None:
        self.batch = batch()
        self.by_hand = by_hand
        self.windows = windows
        self.times: list[tuple[float, float]] = []  # of a window, in seconds without the disk's: measured, by hand
        self.disk: list[tuple[float, float]] = []
        self.count = 0  # batches given
        self.clock = 0.0

    def __iter__(self) -> "Neighbours":
        return self

    def __next__(self) -> Any:
        if self.count % WINDOW == 0:
            now, written = time.perf_counter(), DISK.seconds
            if self.count:
                measured, on_disk = now - self.clock - written, written
                start, DISK.seconds = time.perf_counter(), 0.0
                self.by_hand(WINDOW)
                by_hand = time.perf_counter() - start - DISK.seconds
                self.times.append((measured, by_hand))
                self.disk.append((on_disk, DISK.seconds))
            if self.count == self.windows * WINDOW:
                raise StopIteration
            self.clock, DISK.seconds = time.perf_counter(), 0.0
        self.count += 1
        return self.batch

    # What Kusari asks of an iterator.

    @property
    def epoch(self) -> int:
        """Finished epochs."""
        return self.count // EPOCH

    @property
    def epoch_detail(self) -> float:
        """Finished epochs and the fraction of this one."""
        return self.count / EPOCH

    @property
    def is_new_epoch(self) -> bool:
        """Whether the last batch ended an epoch."""
        return self.count % EPOCH == 0

    @property
    def previous_epoch_detail(self) -> float | None:
        """``epoch_detail`` before the last batch."""
        return (self.count - 1) / EPOCH if self.count else None

    def state_dict(self) -> dict[str, Any]:
        """Returns the position."""
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back the position."""
        self.count = state["count"]

    def finalize(self) -> None:
        """Holds nothing."""

    def overhead(self, windows: int) -> float:
        """Returns the microseconds an iteration over the loop by hand, with so many windows taken together."""
        first = windows if len(self.times) > windows else 0  # the first is slower, and counts only where it is all
        groups = [self.times[i : i + windows] for i in range(first, len(self.times) - windows + 1, windows)]
        return median(1e6 * sum(a - b for a, b in group) / (len(group) * WINDOW) for group in groups)

    def disk_time(self) -> float:
        """Returns the milliseconds an epoch that the measured loop spends on files."""
        each = EPOCH // WINDOW
        groups = [self.disk[i : i + each] for i in range(each, len(self.disk) - each + 1, each)]
        return median(1e3 * sum(a for a, _ in group) for group in groups) if groups else 0.0

    def by_hand_time(self) -> float:
        """Returns the microseconds of an iteration of the loop by hand."""
        return median(1e6 * seconds / WINDOW for _, seconds in self.times[1:])


def make_model() -> tuple[nn.Module, torch.optim.Optimizer]:
    """Returns the network and its optimizer."""
    torch.manual_seed(0)
    network = nn.Linear(32, 10)
    return network, torch.optim.SGD(network.parameters(), lr=0.01)


# -- by hand


class RawLoop:
    """The bare job by hand."""

    def __init__(self) -> None:
        self.network, self.optimizer = make_model()
        self.batch = batch()

    def __call__(self, iterations: int) -> None:
        """Does so many iterations."""
        network, optimizer = self.network, self.optimizer
        for _ in range(iterations):
            x, t = self.batch
            optimizer.zero_grad()
            F.cross_entropy(network(x), t).backward()
            optimizer.step()


class ReportingLoop(RawLoop):
    """The bare job by hand, with the loss and the number of correct answers of the last iteration."""

    def __call__(self, iterations: int) -> None:
        """Does so many iterations."""
        network, optimizer = self.network, self.optimizer
        for _ in range(iterations):
            x, t = self.batch
            optimizer.zero_grad()
            y = network(x)
            loss = F.cross_entropy(y, t)
            loss.backward()
            optimizer.step()
            self.loss, self.correct = loss.detach(), (y.argmax(1) == t).sum()


class FullLoop(RawLoop):
    """The full job by hand."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.folder.mkdir()
        self.iteration = 0
        self.start = time.perf_counter()
        self.log: list[dict[str, float]] = []
        self.terminal = Terminal()

    def __call__(self, iterations: int) -> None:
        """Does so many iterations, of which the last is one of a row in the log."""
        network, optimizer = self.network, self.optimizer
        losses, right = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.int64)
        count, lr = 0, 0.0
        for _ in range(iterations):
            x, t = self.batch
            optimizer.zero_grad()
            y = network(x)
            loss = F.cross_entropy(y, t)
            loss.backward()
            optimizer.step()
            losses += loss.detach() * len(t)
            right += (y.argmax(1) == t).sum()
            count += len(t)
            lr += optimizer.param_groups[0]["lr"]
        self.iteration += iterations
        entry = {"main/loss": losses.item() / count, "main/accuracy": right.item() / count, "lr": lr / iterations}
        entry |= {"iteration": self.iteration, "elapsed_time": time.perf_counter() - self.start}
        if self.iteration % EPOCH == 0:
            entry |= self.evaluate()
        self.log.append(entry)
        print(*(f"{value:<12g}" for value in entry.values()), file=self.terminal, flush=True)
        print(f"\r{self.iteration} {self.iteration % EPOCH / EPOCH:.0%}", end="", file=self.terminal, flush=True)
        self.write(self.folder / "log", json.dumps(self.log[-1]).encode())
        if self.iteration % EPOCH == 0:
            state = {"model": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}
            buffer = io.BytesIO()
            torch.save(state | {"iteration": self.iteration, "torch": torch.get_rng_state()}, buffer)
            self.write(self.folder / f"snapshot_{self.iteration}", buffer.getvalue())

    def evaluate(self) -> dict[str, float]:
        """Returns loss and accuracy over ten batches."""
        loss, correct, samples = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.int64), 0
        self.network.eval()
        with torch.no_grad():
            for _ in range(10):
                x, t = self.batch
                y = self.network(x)
                loss += F.cross_entropy(y, t) * len(t)
                correct += (y.argmax(1) == t).sum()
                samples += len(t)
        self.network.train()
        return {"validation/main/loss": loss.item() / samples, "validation/main/accuracy": correct.item() / samples}

    def write(self, path: Path, content: bytes) -> None:
        """Writes or goes on writing a file."""
        with open(path, "ab") as file:
            file.write(content)
            file.flush()
            if path.name != "log":
                os.fsync(file.fileno())


class Terminal(io.StringIO):
    """A terminal that nobody looks at."""

    def isatty(self) -> bool:
        """Says yes."""
        return True

    def write(self, text: str) -> int:
        """Throws it away."""
        return len(text)


# -- Kusari


class TenBatches:
    """An evaluation's data."""

    repeat = False

    def __init__(self) -> None:
        self.batch = batch()
        self.reset()

    def reset(self) -> None:
        """Begins anew."""
        self.left = 10

    def __next__(self) -> Any:
        self.left -= 1
        if self.left < 0:
            raise StopIteration
        return self.batch

    epoch_detail = 0.0
    epoch = 0

    def state_dict(self) -> dict[str, Any]:
        """Returns nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Needs nothing."""

    def finalize(self) -> None:
        """Holds nothing."""


def kusari(batches: Neighbours, out: Path, job: str) -> None:
    """Runs one of the jobs."""
    network, optimizer = make_model()
    model: nn.Module = network if job == "bare" else Classifier(network)
    loss_func = (lambda x, t: F.cross_entropy(network(x), t)) if job == "bare" else None
    updater = StandardUpdater(batches, optimizer, model=model, loss_func=loss_func)
    run = Trainer(updater, (batches.windows * WINDOW, "iteration"), out=out)
    if job == "full":
        terminal = Terminal()
        run.extend(extensions.observe_lr(), trigger=(1, "iteration"))
        run.extend(extensions.Evaluator(TenBatches(), model), trigger=(EPOCH, "iteration"))
        run.extend(extensions.LogReport(trigger=(WINDOW, "iteration")))
        keys = ["iteration", "main/loss", "main/accuracy", "lr", "validation/main/accuracy", "elapsed_time"]
        run.extend(extensions.PrintReport(keys, out=terminal), trigger=(WINDOW, "iteration"))
        run.extend(extensions.ProgressBar(out=terminal))
        run.extend(extensions.snapshot(n_retains=1), trigger=(EPOCH, "iteration"))
    run.run()


def run_kusari(batches: Neighbours, out: Path, job: str) -> None:
    """Runs one of the jobs, to the last window."""
    kusari(batches, out, job)
    with contextlib.suppress(StopIteration):
        next(batches)


JOBS: dict[str, tuple[int, Callable[[Path], Callable[[int], None]]]] = {
    "bare": (1, lambda folder: RawLoop()),
    "reporting": (1, lambda folder: ReportingLoop()),
    "full": (EPOCH // WINDOW, lambda folder: FullLoop(folder)),
}


def by_hand(batches: Neighbours, loop: Callable[[int], None]) -> None:
    """The loop by hand against itself."""
    for _ in iter(lambda: next(batches, None), None):
        if batches.count % WINDOW == 0:
            loop(WINDOW)


def measure(run: Callable[[Neighbours, Path, str], None], job: str, epochs: int) -> Neighbours:
    """Runs a job beside the same by hand."""
    _, make = JOBS[job]
    with tempfile.TemporaryDirectory() as folder:
        batches = Neighbours(make(Path(folder) / "by_hand"), epochs * EPOCH // WINDOW)
        with files_told_apart():
            run(batches, Path(folder) / "out", job)
    return batches


def main() -> None:
    import peers

    parser = make_parser(__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", help='measure only these: "by hand", Kusari, a peer')
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    epochs = args.rounds or 12

    def hand(batches: Neighbours, out: Path, job: str) -> None:
        by_hand(batches, JOBS[job][1](out))

    runs = {"by hand": hand, "Kusari": run_kusari} | {name: peers.run_peer(name) for name in peers.installed()}
    if missing := set(args.only or ()) - set(runs):
        parser.error(f"not installed or not known: {', '.join(missing)}; there are: {', '.join(runs)}")
    results = Results("Microseconds an iteration over the loop by hand", *PEERS)
    for name in args.only or runs:
        for job in JOBS:
            if job == "reporting" and name in peers.PEERS:  # some average what they report in any case
                continue
            try:
                neighbours = measure(runs[name], job, epochs)
            except Exception as error:
                if name not in peers.PEERS:
                    raise
                # A peer that does not run here is no reason not to measure the others.
                print(f"{name}, {job}: {type(error).__name__}: {str(error).partition(chr(10))[0]}", flush=True)
                break
            note = f"(by hand {neighbours.by_hand_time():.1f})"
            results.add(f"{name}, {job}", neighbours.overhead(JOBS[job][0]), "us/iteration", note)
            if job == "full":
                note = "(no peer flushes)" if name in peers.PEERS else ""
                results.add(f"{name}, {job}: files", neighbours.disk_time(), "ms/epoch", note)
    results.write(args.json)


if __name__ == "__main__":
    import overhead  # so that peers.py, which imports it by this name, finds the same ``DISK``

    overhead.main()
