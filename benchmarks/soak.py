"""A long life: does anything grow that should not?

*Iterations*: a million of a tiny model with the standard set of extensions; the time of an iteration and the memory of
the process, tenth by tenth. *Snapshots*: ten thousand with ``n_retains=2``. *Trainers*: a thousand runs in one process.
*Resumes*: a run that is stopped and resumed a thousand times, by a new Trainer each time. Of each the memory and the
open files at the end stand over those after the first tenth, which is the warm-up.

    python benchmarks/soak.py
    python benchmarks/soak.py --share 0.01  # a hundredth of everything
"""

import gc
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from harness import Results, make_parser

import extensions
from trainer import Classifier, StandardUpdater, Trainer, random
from trainer.iterators import SerialIterator

TENTHS = 10


def make_run(out: Path, end: int, every: int, autoload: bool = False) -> Trainer:
    """Returns a run of a tiny model with the standard set of extensions, which act each ``every`` iterations."""
    random.set_seed(0)
    model = Classifier(torch.nn.Linear(8, 3))
    data = [(torch.rand(8), i % 3) for i in range(64)]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    run = Trainer(StandardUpdater(SerialIterator(data, 8), optimizer, model=model), (end, "iteration"), out=out)
    acts = (every, "iteration")
    run.extend(extensions.observe_lr(), trigger=(1, "iteration"))
    valid = SerialIterator(data[:16], 8, repeat=False, shuffle=False)
    run.extend(extensions.Evaluator(valid, model), trigger=acts)
    run.extend(extensions.LogReport(trigger=acts))
    run.extend(extensions.FailOnNonNumber(), trigger=acts)
    run.extend(extensions.snapshot(n_retains=2, autoload=autoload), trigger=acts)
    run.extend(extensions.snapshot_object(model, "weights_{.updater.iteration}", n_retains=2), trigger=acts)
    run.extend(extensions.StopOnSignal())
    return run


def memory() -> float:
    """Returns the memory that this process holds, in MB."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def files() -> int:
    """Returns how many files this process has open."""
    return len(os.listdir("/proc/self/fd"))


def soak(results: Results, name: str, n: int, work: Callable[[int, int], None]) -> None:
    """Does ``work(first, last)`` in tenths, and records how time, memory and open files change."""
    seen = []
    for tenth in range(TENTHS):
        first, last = n * tenth // TENTHS, n * (tenth + 1) // TENTHS
        start = time.perf_counter()
        work(first, last)
        seen.append((1e6 * (time.perf_counter() - start) / (last - first), memory(), files()))
        print(f"{name} {last:>9,}: {seen[-1][0]:10.1f} us each, {seen[-1][1]:7.1f} MB, {seen[-1][2]} files", flush=True)
    begin, end = seen[1], seen[-1]
    results.add(f"{name}: each, in the second tenth", begin[0], "us")
    results.add(f"{name}: time of the last tenth over the second", end[0] / begin[0], "")
    results.add(f"{name}: memory gained from the second tenth on", end[1] - begin[1], "MB")
    results.add(f"{name}: files left open", end[2] - begin[2], "")


def main() -> None:
    """Soaks."""
    parser = make_parser(__doc__ or "")
    parser.add_argument("--share", type=float, default=1.0, metavar="X", help="of everything that is done (1)")
    parser.add_argument("--only", metavar="NAME", help="iterations, snapshots, trainers or resumes")
    args = parser.parse_args()
    results = Results("soak")
    torch.set_num_threads(1)
    counts = {"iterations": 1_000_000, "snapshots": 10_000, "trainers": 1_000, "resumes": 1_000}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        for name, count in counts.items():
            n = max(int(count * args.share), TENTHS)
            if args.only not in (None, name):
                continue
            if name in ("iterations", "snapshots"):
                run = make_run(out / name, n, 1000 if name == "iterations" else 1)

                def iterate(first: int, last: int, run: Trainer = run) -> None:
                    for _ in range(first, last):
                        with run.iteration():
                            run.updater.update()

                soak(results, name, n, iterate)
                run.finalize()
                continue

            def begin_anew(first: int, last: int, name: str = name) -> None:
                for number in range(first, last):
                    is_resume = name == "resumes"
                    make_run(out / name, number + 1 if is_resume else 3, 1, autoload=is_resume).run()
                    if not is_resume:
                        shutil.rmtree(out / name)

            soak(results, name, n, begin_anew)
    results.write(args.json)


if __name__ == "__main__":
    main()
