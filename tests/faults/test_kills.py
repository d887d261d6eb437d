"""``kill -9`` at any moment, then a resume: the run goes on, and ends as if nothing had happened, to the bit."""

import functools
import itertools
import os
import random
import re
import time
from pathlib import Path

import processes
import pytest
import runs
from helpers import equal
from runs import Place, Setup

from trainer import saving

DEADLINE = 60  # seconds in which anything here is done; what takes longer hangs
AT_ONCE = 5  # random kills in one test


def pytest_generate_tests(metafunc):
    if "kills" in metafunc.fixturenames:
        number = metafunc.config.getoption("--kills")
        shares = [min(AT_ONCE, number - start) for start in range(0, number, AT_ONCE)]
        marks = [[pytest.mark.full] if seed else [] for seed in range(len(shares))]
        cases = [pytest.param(seed, kills, marks=marks[seed]) for seed, kills in enumerate(shares)]
        metafunc.parametrize(("seed", "kills"), cases)


# -- starting, waiting, comparing


def begin(folder, setup, *place):
    """Starts a run, or goes on with it; returns its process when training is about to begin."""
    ready = folder / "ready"
    ready.unlink(missing_ok=True)
    process = processes.start(runs.train, folder / "run", setup, ready, *place, output=folder / "output")
    until(lambda: ready.exists() or process.exitcode is not None, process, folder, "the start")
    return process


def until(condition, process, folder, what):
    """Waits for something; fails, and ends the process and its group, when that hangs."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > deadline:
            os.killpg(process.pid, 9)
            pytest.fail(f"{what} hangs: not done in {DEADLINE} s. {told(folder)}")
        time.sleep(0.001)


def end(process, folder, what):
    """Waits for the end of a process; returns its exit code."""
    until(lambda: process.exitcode is not None, process, folder, what)
    return process.exitcode


def told(folder):
    return f"It printed:\n{(folder / 'output').read_text()[-3000:]}"


def kill_at(folder, setup, place, n):
    """Goes on with a run until it is killed at a place; returns the numbers of the processes that outlive it."""
    marker = folder / f"marker-{n}"
    code = end(begin(folder, setup, place, marker), folder, f"the run that is to be killed at {place}")
    assert marker.exists(), f"the run ended with {code} and never came to {place}. {told(folder)}"
    assert code == -9, f"killed at {place}, it ended with {code}. {told(folder)}"
    check(folder)
    return [int(number) for number in marker.read_text().split()]


def check(folder):
    """What stands in the folder of a killed run is whole, and its link leads somewhere."""
    out = folder / "run"
    if out.exists():
        for file in saving.find(out):
            saving.load(file.path)
        assert not (out / "best").is_symlink() or (out / "best").exists(), "the link to the best snapshot is broken"


def finish(folder, setup, expected):
    """Goes on with a run to its end, which must be that of the uninterrupted one."""
    assert end(begin(folder, setup), folder, "the resumed run") == 0, told(folder)
    compare(folder, expected)


def compare(folder, expected):
    state, log = runs.essence(folder / "run")
    expected_state, expected_log = runs.essence(expected)
    assert log == expected_log
    for part in expected_state:
        assert equal(state[part], expected_state[part]), f"{part} of the final state differs"
    assert state.keys() == expected_state.keys()
    assert not list((folder / "run").glob(".*.tmp")), "a killed write has left its temporary file"
    assert names(folder / "run") == names(expected), "the folder does not hold what it should"


def names(out):
    paths = [path for path in out.iterdir() if not path.name.startswith("log.old")]  # of a run that got to no snapshot
    return sorted(f"{path.name} -> {os.readlink(path)}" if path.is_symlink() else path.name for path in paths)


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory):
    """Returns the folder of a run that was left alone, by whether it has plots and its kind; and how long it took."""

    @functools.cache
    def left_alone(plots, kind="plain"):
        folder = tmp_path_factory.mktemp("uninterrupted")
        process, start = begin(folder, Setup(plots=plots, kind=kind)), time.monotonic()
        assert end(process, folder, "the uninterrupted run") == 0, told(folder)
        return folder / "run", time.monotonic() - start

    return left_alone


# -- at random


def test_a_run_killed_at_random_moments_ends_as_if_it_had_not_been(tmp_path, uninterrupted, seed, kills):
    draw = random.Random(seed)
    for number in itertools.count():
        folder = tmp_path / str(number)
        folder.mkdir()
        plots, done, times = draw.random() < 0.2, False, []
        kind = draw.choice(runs.KINDS)
        expected, seconds = uninterrupted(plots, kind)
        try:
            while not done:
                setup = Setup(
                    draw.randint(0, 3),
                    draw.randint(0, 2),
                    draw.choice(["SimpleWriter", "ThreadWriter", "ProcessWriter"]),
                    plots,
                    kind,
                    draw.choices(["fork", "spawn", "forkserver"], [18, 1, 1])[0],  # a new interpreter takes seconds
                )
                process = begin(folder, setup)
                if kills and len(times) < 4:
                    times.append(draw.uniform(0, 1.5 * seconds))
                    process.join(times[-1])
                    if process.exitcode is None:
                        kills -= 1
                        (process.kill if kills % 2 else lambda: os.killpg(process.pid, 9))()
                code = end(process, folder, "the run")
                assert code in (0, -9), told(folder)
                check(folder)
                done = code == 0
            compare(folder, expected)
        except (AssertionError, ValueError, OSError) as error:
            raise AssertionError(
                f"with seed {seed}, run {number}, last {setup}, killed after {times} s: {error}"
            ) from error
        if not kills:
            return


# -- at places

PLACES = {
    "a snapshot is opened": Place("open", r"\.snapshot_iter_6\.", "after"),
    "a snapshot is about to be written": Place("write", r"\.snapshot_iter_6\."),
    "half of a snapshot is written": Place("write", r"\.snapshot_iter_6\.", "half"),
    "a snapshot's tail is still to be written": Place("write", r"\.snapshot_iter_6\.", "after"),
    "half of a snapshot's tail is written": Place("write", r"\.snapshot_iter_6\.", "half", 2),
    "a snapshot is written": Place("write", r"\.snapshot_iter_6\.", "after", 2),
    "a snapshot is about to be flushed": Place("fsync", r"\.snapshot_iter_6\."),
    "a snapshot is flushed": Place("fsync", r"\.snapshot_iter_6\.", "after"),
    "a snapshot is about to be renamed": Place("replace", "/snapshot_iter_6$"),
    "a snapshot is renamed": Place("replace", "/snapshot_iter_6$", "after"),
    "the folder is about to be flushed": Place("fsync", "/run$", "before", 6),
    "the folder is flushed": Place("fsync", "/run$", "after", 6),
    "an old snapshot is about to be deleted": Place("unlink", "/snapshot_iter_2$"),
    "an old snapshot is deleted": Place("unlink", "/snapshot_iter_2$", "after"),
    "half of the weights are written": Place("write", r"\.weights_6\.", "half"),
    "the weights are renamed": Place("replace", "/weights_6$", "after"),
    "old weights are deleted": Place("unlink", "/weights_3$", "after"),
    "half of the best snapshot is written": Place("write", r"\.best_6\.", "half"),
    "the best snapshot is about to be renamed": Place("replace", "/best_6$"),
    "the best snapshot is renamed": Place("replace", "/best_6$", "after"),
    "the best but one is about to be deleted": Place("unlink", "/best_3$"),
    "the best but one is deleted": Place("unlink", "/best_3$", "after"),
    "the new link is made": Place("symlink", r"/\.best\.", "after", 2),
    "the link is about to be replaced": Place("replace", "/best$", "before", 2),
    "the link is replaced": Place("replace", "/best$", "after", 2),
    "the log is about to be started": Place("append", "/log$"),
    "half of the first entry is appended": Place("append", "/log$", "half"),
    "the first entry is appended": Place("append", "/log$", "after"),
    "an entry is about to be appended": Place("append", "/log$", "before", 4),
    "half of an entry is appended": Place("append", "/log$", "half", 4),
    "an entry is appended": Place("append", "/log$", "after", 4),
    "the log is about to be flushed": Place("fsync", "/log$", "before", 3),
    "the log is flushed": Place("fsync", "/log$", "after", 3),
    "half of the plot is drawn": Place("write", r"\.plot\.png\.", "half"),
    "it is between forward and backward": Place("backward", "^7$"),
    "it is between backward and the optimizer": Place("backward", "^7$", "after"),
    "the optimizer is about to change weights": Place("step", "", "before", 8),
    "the optimizer has changed the weights": Place("step", "", "after", 8),
    "evaluation passes forward": Place("forward", "evaluation", "before", 5),
    "the last but one snapshot is renamed, the best of that iteration not yet written": Place(
        "replace", "/snapshot_iter_22$", "after"
    ),
    "the best snapshot of all is renamed": Place("replace", "/best_22$", "after"),
    "half of the last snapshot is written": Place("write", r"\.final\.", "half"),
    "the last snapshot is about to be renamed": Place("replace", "/final$"),
    "the last snapshot is renamed": Place("replace", "/final$", "after"),
}


BESIDE_TRAINING = {
    "a worker fetches a sample": (Setup(2, 1), Place("fetch", "training", "after", 20, "parent")),
    "a worker fetches for evaluation": (Setup(2, 1), Place("fetch", "validation", "after", 10, "parent")),
} | {
    f"{writer} writes: {moment}": (Setup(1, 0, writer), Place("write", r"\.snapshot_iter_6\.", moment, 1, victim))
    for writer, victim in (("ThreadWriter", "itself"), ("ProcessWriter", "parent"))
    for moment in ("before", "half", "after")
}
CASES = {
    when: (Setup(n % 2, n % 3, plots="plot" in when), place) for n, (when, place) in enumerate(PLACES.items())
} | BESIDE_TRAINING


# One of each kind; the others are for the full tier.
ALWAYS = [
    "half of a snapshot is written",
    "a snapshot is about to be renamed",
    "an old snapshot is deleted",
    "the best but one is about to be deleted",
    "the link is about to be replaced",
    "half of an entry is appended",
    "half of the plot is drawn",
    "the optimizer has changed the weights",
    "the last but one snapshot is renamed, the best of that iteration not yet written",
    "a worker fetches a sample",
    "ThreadWriter writes: half",
    "ProcessWriter writes: half",
]
assert set(ALWAYS) <= CASES.keys()


@pytest.mark.parametrize(
    "when", [when if when in ALWAYS else pytest.param(when, marks=pytest.mark.full) for when in CASES]
)
def test_a_run_killed_when(tmp_path, uninterrupted, when):
    setup, place = CASES[when]
    kill_at(tmp_path, setup, place, 0)
    finish(tmp_path, setup._replace(workers=(setup.workers + 1) % 3), uninterrupted(setup.plots)[0])


@pytest.mark.parametrize(
    "place",
    [
        pytest.param(Place("load", "/best_6$"), marks=pytest.mark.full),
        pytest.param(Place("load", "/best_6$", "after"), marks=pytest.mark.full),
        pytest.param(Place("append", "/log$", "before"), marks=pytest.mark.full),
        Place("append", "/log$", "half"),
        pytest.param(Place("truncate", "/log$"), marks=pytest.mark.full),
        Place("truncate", "/log$", "after"),
        pytest.param(Place("backward", "^6$"), marks=pytest.mark.full),
    ],
)
def test_a_run_killed_again_while_it_resumes(tmp_path, uninterrupted, place):
    kill_at(tmp_path, Setup(2, 1), Place("backward", "^7$"), 0)
    kill_at(tmp_path, Setup(1, 0), place, 1)
    kill_at(tmp_path, Setup(0, 1), place, 2)
    finish(tmp_path, Setup(3, 0), uninterrupted(False)[0])


@pytest.mark.parametrize("operation", ["open", "replace"])
def test_a_writer_that_outlives_the_killed_run_does_not_disturb_the_resumed_one(tmp_path, uninterrupted, operation):
    place = Place(operation, "snapshot_iter_4", victim="parent", lingers=True)
    orphans = kill_at(tmp_path, Setup(writer="ProcessWriter"), place, 0)
    kill_at(tmp_path, Setup(), Place("append", "/log$", "after", 2), 1)  # its entry of iteration 4 has another time
    (tmp_path / "marker-0").unlink()
    gone(orphans)
    finish(tmp_path, Setup(), uninterrupted(False)[0])


# -- the workers


DIED = r"DataLoader worker .*(killed by signal|exited unexpectedly)|process that loads the data has died"


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (Place("fetch", "training", "before", 20), DIED),
        (Place("fetch", "validation", "before", 10), DIED),
        (Place("write", r"\.snapshot_iter_6\.", "half"), "the process that was writing it has died"),
    ],
)
def test_a_run_whose_worker_is_killed_ends_with_an_error_that_says_so(tmp_path, uninterrupted, place, message):
    marker = tmp_path / "marker"
    code = end(begin(tmp_path, Setup(2, 1, "ProcessWriter"), place, marker), tmp_path, "the run without its worker")
    assert marker.exists() and code == 1
    assert re.search(message, told(tmp_path)), told(tmp_path)
    check(tmp_path)
    finish(tmp_path, Setup(1, 2, "ProcessWriter"), uninterrupted(False)[0])


def test_orphaned_workers_end_and_do_not_disturb_a_resume_that_starts_at_once(tmp_path, uninterrupted):
    orphans = kill_at(tmp_path, Setup(2, 1, "ProcessWriter"), Place("backward", "^7$"), 0)
    assert len(orphans) == 5  # two and one that load data, two that write
    finish(tmp_path, Setup(3, 1), uninterrupted(False)[0])
    gone(orphans)


def gone(numbers):
    deadline = time.monotonic() + DEADLINE
    while left := [number for number in numbers if is_alive(number)]:
        assert time.monotonic() < deadline, f"the orphaned processes {left} still live after {DEADLINE} s"
        time.sleep(0.1)


def is_alive(number):
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
