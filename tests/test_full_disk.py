"""A disk that is full, a folder that cannot be written to: what was there stays, and the path is told."""

import hashlib
import io
import json
import multiprocessing
import os
import resource
import struct
import tempfile
import time
from pathlib import Path

import pytest
import torch
from helpers import make_run
from processes import call

import extensions
from recipes import plot_log
from trainer import saving
from trainer.saving import SnapshotError

WRITERS = ["SimpleWriter", "ThreadWriter", "ThreadQueueWriter", "ProcessWriter", "ProcessQueueWriter"]


def prepare(out, writer, **kwargs):
    run = make_run(out, (4, "epoch"))
    run.extend(extensions.LogReport(trigger=(1, "iteration")))
    writer = getattr(extensions.snapshot_writers, writer)()
    run.extend(extensions.snapshot(n_retains=2, writer=writer, **kwargs))
    return run


def limit_files(size):
    """No file may grow beyond so many bytes, nor those of a writing process: a write fails half-way."""
    for pid in (0, *(child.pid for child in multiprocessing.active_children())):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def fill_up(out, writer, kwargs):
    def fill(trainer):
        if trainer.updater.iteration == 3:
            while not (out / "snapshot_iter_2").exists():  # a writer in the background has it under way
                time.sleep(0.01)
            limit_files(9000)

    run = prepare(out, writer, **kwargs)
    run.extend(fill, name="fill")
    run.run()


def in_out(out):
    return sorted(path.name for path in out.iterdir())


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.filterwarnings("ignore:extensions/fill of the snapshot. not registered by now:UserWarning")
def test_a_full_disk_stops_the_run_with_the_path_and_keeps_the_last_snapshot(tmp_path, writer):
    out = tmp_path / "out"
    assert call(fill_up, out, writer, {}, output=tmp_path / "printed") == 1
    told = (tmp_path / "printed").read_text()
    assert f"[Errno 27] File too large: '{out}/snapshot_iter_4'" in told
    assert in_out(out) == ["log", "snapshot_iter_2"]
    assert saving.load(out / "snapshot_iter_2")["iteration"] == 2
    resumed = prepare(out, writer, autoload=True)
    resumed.run()
    assert in_out(out) == ["log", "snapshot_iter_6", "snapshot_iter_8"]
    assert [entry["iteration"] for entry in json.loads((out / "log").read_text())] == list(range(1, 9))


@pytest.mark.parametrize("writer", WRITERS)
def test_training_goes_on_with_a_warning_if_that_is_asked_for(tmp_path, writer):
    out = tmp_path / "out"
    assert call(fill_up, out, writer, {"on_write_error": "warn"}, output=tmp_path / "printed") == 0
    told = (tmp_path / "printed").read_text()
    for name in ("snapshot_iter_4", "snapshot_iter_6", "snapshot_iter_8"):
        assert f"UserWarning: no snapshot: [Errno 27] File too large: '{out}/{name}'; those before it stay" in told
    assert in_out(out) == ["log", "snapshot_iter_2"]
    assert len(json.loads((out / "log").read_text())) == 8


def write_log(out, filename):
    run = make_run(out, (50, "epoch"))
    run.extend(extensions.LogReport(trigger=(1, "iteration"), filename=filename))
    limit_files(2000)
    run.run()


@pytest.mark.parametrize("filename", ["log", "log.jsonl"])
def test_a_log_for_which_there_is_no_space_stays_whole_and_is_named(tmp_path, filename):
    out = tmp_path / "out"
    assert call(write_log, out, filename, output=tmp_path / "printed") == 1
    assert f"[Errno 27] File too large: '{out}/{filename}'" in (tmp_path / "printed").read_text()
    log = plot_log.read_log(out / filename)
    assert [entry["iteration"] for entry in log] == list(range(1, len(log) + 1)) and len(log) > 5


def fill_up_weights(out, writer, on_write_error):
    run = make_run(out, (3, "epoch"))
    run.updater.get_model("main").ballast = torch.nn.Parameter(torch.zeros(100_000))
    writer = getattr(extensions.snapshot_writers, writer)()
    weights = extensions.snapshot_object(
        run.updater.get_model("main"), "weights", writer=writer, on_write_error=on_write_error
    )
    run.extend(weights, trigger=(1, "iteration"))
    limit_files(100_000)
    run.run()


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("on_write_error", ["raise", "warn"])
def test_weights_for_which_there_is_no_space_are_told_as_a_snapshot_is(tmp_path, writer, on_write_error):
    out = tmp_path / "out"
    code = call(fill_up_weights, out, writer, on_write_error, output=tmp_path / "printed")
    told = (tmp_path / "printed").read_text()
    assert code == (on_write_error == "raise") and f"[Errno 27] File too large: '{out}/weights'" in told
    assert in_out(out) == []


# -- a folder that cannot be written to


def become_nobody():
    torch.save({}, io.BytesIO())  # what it imports, nobody may not be allowed to read
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)


def train_in_closed_folder(out, kwargs):
    become_nobody()
    run = prepare(out, "SimpleWriter", **kwargs)
    run.extend(lambda trainer: trainer.updater.iteration == 3 and out.chmod(0o555), name="close")
    run.run()


def start_in_closed_folder(out):
    become_nobody()
    make_run(out).run()


@pytest.fixture
def public():
    """A folder that any user may write to."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


def test_a_folder_that_became_read_only_stops_the_run_with_the_path(public):
    out = public / "out"
    assert call(train_in_closed_folder, out, {}, output=public / "printed") == 1
    assert f"PermissionError: [Errno 13] Permission denied: '{out}/snapshot_iter_4'" in (public / "printed").read_text()
    assert saving.load(out / "snapshot_iter_2")["iteration"] == 2


def test_a_folder_that_became_read_only_is_warned_of_if_that_is_asked_for(public):
    out = public / "out"
    assert call(train_in_closed_folder, out, {"on_write_error": "warn"}, output=public / "printed") == 0
    assert "no snapshot: [Errno 13] Permission denied: " in (public / "printed").read_text()
    assert len(json.loads((out / "log").read_text())) == 8


def test_a_run_in_a_folder_that_is_read_only_does_not_start(public):
    (public / "out").mkdir(mode=0o755)
    (public / "out").chmod(0o555)
    assert call(start_in_closed_folder, public / "out", output=public / "printed") == 1
    assert f"PermissionError: [Errno 13] Permission denied: '{public}/out/.lock'" in (public / "printed").read_text()


# -- names that a snapshot brings along


@pytest.mark.parametrize("name", ["../precious", "/etc/passwd", "a/../../precious", "", "."])
def test_no_file_outside_of_the_folder_is_deleted_by_the_names_in_a_snapshot(tmp_path, name):
    out = tmp_path / "out"
    (tmp_path / "precious").write_text("mine")
    run = prepare(out, "SimpleWriter")
    run.run()
    state = saving.load(out / "snapshot_iter_8")
    state["extensions"]["_Snapshot"]["extension"]["files"]["kept"] = [name]
    saving.save(state, out / "evil", run_id=state["run_id"], iteration=8)
    resumed = prepare(out, "SimpleWriter")
    with pytest.raises(
        ValueError,
        match="evil does not fit this run: extensions/_Snapshot/.*: the file name .* leads out of the folder of the",
    ):
        resumed.resume(out / "evil")
    assert (tmp_path / "precious").read_text() == "mine"


def test_no_file_outside_of_the_folder_is_written_as_the_log_of_a_snapshot(tmp_path):
    out = tmp_path / "out"
    (tmp_path / "precious").write_text("mine")
    run = prepare(out, "SimpleWriter")
    run.run()
    state = saving.load(out / "snapshot_iter_6")
    state["extensions"]["LogReport"]["extension"]["file"]["name"] = "../precious"
    saving.save(state, out / "evil", run_id=state["run_id"], iteration=6)
    resumed = prepare(out, "SimpleWriter")
    with pytest.raises(ValueError, match="the file name '../precious' leads out of the folder"):
        resumed.resume(out / "evil")
        resumed.run()
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_snapshot_that_would_run_code_is_refused_and_named(tmp_path):
    class Malicious:
        def __reduce__(self):
            return Path.touch, (tmp_path / "was-here",)

    body = tmp_path / "body"
    torch.save({"updater": Malicious(), "run_id": "0" * 16}, body)
    saving.save({}, tmp_path / "good")  # its tail, made anew, vouches for the body
    data = body.read_bytes()
    head = struct.pack("<8s8sQQ", b"KUSARI01", bytes(8), 9, len(data))
    (tmp_path / "evil").write_bytes(data + head + hashlib.sha256(data + head).digest())
    assert saving.find(tmp_path)[0].path.name == "evil"
    with pytest.raises(
        SnapshotError, match=r"/evil cannot be read as a snapshot \(not a snapshot, or it contains code\)"
    ):
        saving.load(tmp_path / "evil")
    assert not (tmp_path / "was-here").exists()
