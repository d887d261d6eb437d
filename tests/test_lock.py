"""One run at a time in a folder: real processes, some of them killed."""

import os
import shutil
import signal
import time

import pytest
from helpers import Augmented, make_run
from processes import call, start
from torch import nn, optim

import extensions
from trainer import Classifier, StandardUpdater, Trainer
from trainer.iterators import MultiprocessIterator
from trainer.saving.lock import FolderInUseError, FolderLock


def wait_for(path):
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} does not appear"
        time.sleep(0.01)


def hold(out):
    run = make_run(out)
    run.extend(lambda trainer: ((out / "running").touch(), time.sleep(600)), name="stay")
    run.run()


@pytest.fixture
def held(tmp_path):
    """A run in another process that goes on until it is killed."""
    process = start(hold, tmp_path)
    wait_for(tmp_path / "running")
    yield process
    process.kill()
    process.join()


def test_a_second_run_in_a_folder_is_refused_and_told_who_is_there(held, tmp_path):
    run = make_run(tmp_path)
    with pytest.raises(
        FolderInUseError, match=rf"in use by another run \(process {held.pid} on .*\); wait for its end"
    ):
        run.run()
    assert run.updater.iteration == 0


def test_a_run_that_copies_its_own_folder_keeps_others_out(tmp_path):
    run = make_run(tmp_path / "out")
    refused = []

    def copy(trainer):
        shutil.copytree(trainer.out, tmp_path / "copy", dirs_exist_ok=True)
        refused.append(call(try_to_run, tmp_path / "out"))

    run.extend(copy, name="copy", trigger=(2, "iteration"))
    run.run()
    assert refused == [3, 3]


def try_to_run(out):
    try:
        make_run(out).run()
    except FolderInUseError:
        raise SystemExit(3) from None


def test_a_killed_run_leaves_the_folder_free(held, tmp_path):
    held.kill()
    held.join()
    make_run(tmp_path).run()
    assert not (tmp_path / ".lock").exists()


def train_with_slow_workers(out):
    model = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(192, 3)))
    iterator = MultiprocessIterator(Stuck(out), 2, n_processes=2)
    Trainer(StandardUpdater(iterator, optim.SGD(model.parameters(), lr=0.1), model=model), out=out).run()


class Stuck(Augmented):
    def __init__(self, out):
        super().__init__()
        self.out = out

    def __getitem__(self, index):
        (self.out / f"worker-{os.getpid()}").touch()
        time.sleep(600)


def test_orphaned_workers_do_not_hold_the_folder(tmp_path):
    process = start(train_with_slow_workers, tmp_path)
    deadline = time.monotonic() + 60
    while not (workers := [int(path.name.split("-")[1]) for path in tmp_path.glob("worker-*")]):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.join()
    try:
        os.kill(workers[0], 0)  # it lives
        make_run(tmp_path).run()
    finally:
        os.killpg(process.pid, signal.SIGKILL)


def test_a_folder_is_free_after_a_run_that_ended_or_failed(tmp_path):
    for fails in (True, False):
        run = make_run(tmp_path)
        if fails:
            run.extend(lambda trainer: 1 / 0, name="fail")
            with pytest.raises(ZeroDivisionError):
                run.run()
        else:
            run.run()
        assert not (tmp_path / ".lock").exists()


def test_a_process_may_run_twice_in_a_folder_and_keeps_it_until_both_have_ended(tmp_path):
    first, second = FolderLock(tmp_path), FolderLock(tmp_path)
    assert (first.is_first, second.is_first) == (True, False)
    first.release()
    first.release()
    assert (tmp_path / ".lock").exists()
    second.release()
    assert not (tmp_path / ".lock").exists()


def take_often(folder):
    """Takes and gives back; while it has the folder nobody else may have it."""
    for _ in range(300):
        try:
            lock = FolderLock(folder)
        except FolderInUseError:
            continue
        os.mkdir(folder / "mine")  # fails if somebody else is in
        os.rmdir(folder / "mine")
        lock.release()


def test_no_two_processes_ever_have_the_folder_at_once(tmp_path):
    processes = [start(take_often, tmp_path, output=tmp_path.with_suffix(".out")) for _ in range(3)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0], tmp_path.with_suffix(".out").read_text()


def test_what_a_killed_write_has_left_is_removed_at_the_next_start(tmp_path):
    for name in (".snapshot_iter_5.12345.tmp", f".loss.png.{os.getpid()}.tmp"):
        (tmp_path / name).write_bytes(b"x" * 100)
    (tmp_path / ".mine.tmp").touch()  # of somebody else
    make_run(tmp_path).run()
    assert [path.name for path in tmp_path.iterdir()] == [".mine.tmp"]


def test_a_fresh_run_leaves_another_runs_snapshots_as_they_are(tmp_path):
    def train(lr):
        run = make_run(tmp_path, (3, "epoch"))
        run.updater.get_optimizer("main").param_groups[0]["lr"] = lr
        run.extend(extensions.LogReport())
        run.extend(extensions.snapshot(n_retains=2))
        run.run()
        return run.run_id

    first = train(0.1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.warns(UserWarning, match="snapshot_iter_4 is another run's and stays: this run's is snapshot_iter_4-"):
        second = train(0.2)
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert first != second
    assert {name: after[name] for name in before if name != "log"} == {n: b for n, b in before.items() if n != "log"}
    assert after["log.old"] == before["log"]
    assert set(after) - set(before) == {"log.old", f"snapshot_iter_4-{second}", f"snapshot_iter_6-{second}"}


def test_a_run_beside_another_goes_on_from_its_own_snapshot(tmp_path):
    def prepare(stop):
        run = make_run(tmp_path, stop)
        run.extend(extensions.snapshot(n_retains=1))
        return run

    first = prepare((2, "epoch"))
    first.run()
    second = prepare((2, "epoch"))
    with pytest.warns(UserWarning, match="is another run's and stays"):
        second.run()
    resumed = prepare((3, "epoch"))
    resumed.resume(tmp_path / f"snapshot_iter_4-{second.run_id}")
    resumed.run()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["snapshot_iter_4", "snapshot_iter_6"]


def test_a_full_disk_does_not_keep_a_run_from_locking_its_folder(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trainer.saving.lock.os.pwrite", refuse)
    run = make_run(tmp_path)
    run.run()
    assert run.updater.iteration == 4


def test_a_file_system_without_locks_is_warned_of(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("trainer.saving.lock.fcntl.flock", refuse)
    run = make_run(tmp_path)
    with pytest.warns(UserWarning, match=r"cannot be locked \(No locks available\): nothing keeps a second run out"):
        run.run()
    assert run.updater.iteration == 4
