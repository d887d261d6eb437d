"""How long a snapshot holds the training loop, and what its writing costs the iterations that go on beside it.

A state of 640 tensors, as of a ResNet50 with Adam, is saved in turn by each writer of ``extensions.snapshot_writers``
and by plain ``torch.save`` with an ``fsync``, round by round. Shown are a synchronous save (``SimpleWriter``); for how
long each of the others holds the loop, at its first save and from the second on, when its memory is there; iterations
of a small convolution net while a file is written, beside the same with nothing written; by how many iterations the
weights in the file are older or newer than those that were to be saved, when training goes on at once; and the peak of
the memory that a save takes, beside the state. torch uses one thread, so that another core is free for the writing.

    python benchmarks/snapshots.py
    python benchmarks/snapshots.py --sizes 100 --out FOLDER
"""

import multiprocessing
import os
import sys
import tempfile
import time
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from statistics import median

import torch
from harness import Results, interleaved, make_parser, ratio

from extensions import snapshot_writers as writers
from trainer import saving

WRITERS = [writers.ThreadWriter, writers.ThreadQueueWriter, writers.ProcessWriter]


def make_state(megabytes):
    n = int(megabytes * 1e6 / 480 / 4)
    names = ("weight", "exp_avg", "exp_avg_sq")
    parts = {f"{i}.{name}": torch.rand(n) for i in range(160) for name in names}
    return {"run_id": "0" * 16, "iteration": 0, "parts": parts | {f"{i}.step": torch.zeros(()) for i in range(160)}}


def seconds(function, *args):
    start = time.perf_counter()
    function(*args)
    return time.perf_counter() - start


def save_plainly(state, path):
    with open(path, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())


def save(writer, out, state, go_on=lambda: None):
    """Returns for how long the call holds; calls a function until the file is written, then removes it."""
    start = time.perf_counter()
    job = writer("file", out, state)
    held = time.perf_counter() - start
    while not (job.done() if isinstance(job, Future) else (out / "file").exists()):
        go_on()
    if isinstance(job, Future):
        job.result()
    (out / "file").unlink()
    return held


def in_new_process(function, *args):
    """Calls a function where nothing has been allocated before: freed memory is there at once, new memory is not."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def save_first(megabytes, out, name):
    torch.set_num_threads(1)
    writer = getattr(writers, name)()
    held = save(writer, out, make_state(megabytes), lambda: time.sleep(0.001))
    writer.finalize()
    return held


def measure_holding(results, label, state, out, rounds):
    """Each writer in turn with the synchronous one alone: what a process's writer leaves behind slows the next."""

    def synchronously():
        return save(writers.SimpleWriter(), out, state)

    plain = {"torch.save": lambda: seconds(save_plainly, state, out / "plain"), "SimpleWriter": synchronously}
    measured = interleaved(plain, rounds)
    (out / "plain").unlink()
    results.add(f"{label}: torch.save and fsync", 1e3 * median(measured["torch.save"]), "ms")
    results.add(f"{label}: SimpleWriter, a synchronous save", 1e3 * median(measured["SimpleWriter"]), "ms")
    results.add(f"{label}: SimpleWriter / torch.save", ratio(measured, "SimpleWriter", "torch.save"), "ratio")
    for kind in WRITERS:
        writer, name = kind(), kind.__name__
        held = {name: lambda writer=writer: save(writer, out, state, lambda: time.sleep(0.001))}
        measured = interleaved({"SimpleWriter": synchronously} | held, rounds)
        writer.finalize()
        results.add(f"{label}: {name}, held", 1e3 * median(measured[name]), "ms")
        results.add(f"{label}: {name}, held / synchronous", ratio(measured, name, "SimpleWriter"), "ratio")


def make_step():
    convolutions = [torch.nn.Conv2d(3, 32, 3), torch.nn.ReLU(), torch.nn.Conv2d(32, 32, 3)]
    net = torch.nn.Sequential(*convolutions, torch.nn.Flatten(), torch.nn.LazyLinear(9))
    x, t = torch.rand(16, 3, 32, 32), torch.arange(16) % 9
    net(x)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)

    def step():
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x), t).backward()
        optimizer.step()

    return step


def measure_steps(results, label, state, out, rounds):
    step = make_step()

    def alone():
        return seconds(lambda: [step() for _ in range(20)]) / 20

    def beside(writer):
        durations = []
        save(writer, out, state, lambda: durations.append(seconds(step)))
        return sum(durations) / len(durations)

    for kind in WRITERS:
        writer, name = kind(), kind.__name__
        measured = interleaved({"alone": alone, name: lambda writer=writer: beside(writer)}, rounds)
        writer.finalize()
        told = f"{label}: an iteration while {name} writes / without"
        results.add(told, ratio(measured, name, "alone"), "ratio", f"of {1e3 * median(measured['alone']):.1f} ms")


def measure_age(results, label, state, out):
    """Each iteration adds one to all weights; the file should hold those of the iteration that asked for it."""
    for kind in WRITERS:
        writer, name, ages = kind(), kind.__name__, []
        for iteration in (1000, 2000, 3000):
            for part in state["parts"].values():
                part.fill_(iteration)

            def train():
                for part in state["parts"].values():
                    part.add_(1)

            keep, path = out / "kept", out / "file"
            keep.unlink(missing_ok=True)
            job = writer("file", out, state)
            while not (job.done() if isinstance(job, Future) else path.exists()):
                train()
            path.rename(keep)
            parts = torch.load(keep, weights_only=True)["parts"].values()
            ages += [abs(part.max().item() - iteration) for part in parts]
            ages += [abs(part.min().item() - iteration) for part in parts]
        keep.unlink()
        writer.finalize()
        results.add(f"{label}: {name}, weights off by up to", max(ages), "iterations")


def peak(megabytes, out, what):
    """Returns the memory that saving or loading takes at its peak, over the size of the state; in a new process."""
    state = make_state(megabytes)
    size = sum(part.nbytes for part in state["parts"].values())
    path = out / "state"
    saving.save(state, path)
    if what == "load":
        del state
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    if what == "load":
        state = saving.load(path)
    else:
        writer = getattr(writers, what)()
        for _ in range(2):
            save(writer, out, state, lambda: time.sleep(0.001))
    taken = _status("VmHWM") - before
    path.unlink()
    return taken / size


def _status(name):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:"))
    return 1024 * int(line.split()[1])


def measure_new_processes(results, label, megabytes, out):
    for kind in WRITERS:
        held = median(in_new_process(save_first, megabytes, out, kind.__name__) for _ in range(3))
        results.add(f"{label}: {kind.__name__}, first save of a process, held", 1e3 * held, "ms")
    for what in ("SimpleWriter", "ThreadWriter", "load"):
        results.add(f"{label}: {what}, memory taken / state", in_new_process(peak, megabytes, out, what), "ratio")


def main():
    parser = make_parser(__doc__)
    parser.add_argument(
        "--sizes", type=float, nargs="+", default=[100, 1000], metavar="MB", help="of states (100 1000)"
    )
    parser.add_argument("--out", type=Path, default=Path(), metavar="FOLDER", help="where to write (current folder)")
    args = parser.parse_args()
    rounds = args.rounds or 7
    torch.set_num_threads(1)
    results = Results(f"Medians of {rounds} interleaved rounds; a file is flushed to the disk.")
    with tempfile.TemporaryDirectory(dir=args.out, prefix="snapshots-") as folder:
        for size in args.sizes:
            label, state = f"{size:g} MB", make_state(size)
            measure_holding(results, label, state, Path(folder), rounds)
            measure_steps(results, label, state, Path(folder), rounds)
            measure_new_processes(results, label, size, Path(folder))
        measure_age(results, "20 MB", make_state(20), Path(folder))
    results.write(args.json)


if __name__ == "__main__":
    sys.exit(main())
