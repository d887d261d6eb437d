"""Durable files: whole, verified, safe."""

import collections
import io
import os
import pickle
import threading

import numpy as np
import pytest
import torch
from helpers import equal

from trainer import saving
from trainer.saving import SnapshotError, files, snapshots

STATE = {
    "none": None,
    "bool": True,
    "int": 2**40,
    "float": 0.1,
    "text": "é",
    "bytes": b"\0x",
    "tensor": torch.arange(3),
    "nest": [(1, [2.5]), {"a": {1: torch.ones(2, dtype=torch.bfloat16)}}],
}


def test_what_is_saved_comes_back(tmp_path):
    saving.save(STATE, tmp_path / "s", run_id="0123456789abcdef", iteration=7)
    assert equal(saving.load(tmp_path / "s"), STATE)
    (found,) = saving.find(tmp_path)
    assert (found.path, found.run_id, found.iteration) == (tmp_path / "s", "0123456789abcdef", 7)


def test_torch_alone_reads_a_snapshot(tmp_path):
    saving.save(STATE, tmp_path / "s")
    assert equal(torch.load(tmp_path / "s", weights_only=True), STATE)


@pytest.mark.parametrize("n", [1, 300_000], ids=["gathered", "streamed"])
def test_a_file_is_what_torch_writes_and_a_snapshot_has_its_tail_behind_it(tmp_path, n):
    state = {**STATE, "large": torch.rand(n), "small": [torch.rand(3) for _ in range(20)]}
    torch.save(state, written := io.BytesIO())
    saving.save_weights(state, tmp_path / "w")
    beside = threading.Thread(target=saving.save, args=(state, tmp_path / "s"))
    beside.start()
    beside.join()
    assert (tmp_path / "w").read_bytes() == (tmp_path / "s").read_bytes()[:-64] == written.getvalue()
    assert equal(saving.load(tmp_path / "s"), state) and equal(saving.load_weights(tmp_path / "w"), state)


@pytest.mark.parametrize("step", [13, pytest.param(1, marks=pytest.mark.full)])
def test_every_single_flipped_bit_is_found(tmp_path, step):
    saving.save({"x": torch.ones(2)}, tmp_path / "s")
    data = bytearray((tmp_path / "s").read_bytes())
    passed = []
    for bit in range(0, 8 * len(data), step):
        data[bit // 8] ^= 1 << bit % 8
        (tmp_path / "bad").write_bytes(data)
        try:
            saving.load(tmp_path / "bad")
            passed.append(bit)
        except SnapshotError as error:
            assert "/bad " in str(error)
        data[bit // 8] ^= 1 << bit % 8
    assert passed == [] and len(data) > 1000


def test_bytes_before_or_behind_a_snapshot_are_found(tmp_path):
    saving.save(STATE, tmp_path / "s")
    good = (tmp_path / "s").read_bytes()
    for bad in (b"x" + good, good + b"x", good + good, b""):
        (tmp_path / "bad").write_bytes(bad)
        with pytest.raises(SnapshotError):
            saving.load(tmp_path / "bad")


@pytest.mark.parametrize("good", [0, 1])
def test_a_file_that_the_disk_no_longer_gives_is_named(tmp_path, monkeypatch, good):
    saving.save({"x": torch.ones(1_000_000)}, tmp_path / "s")
    read = []

    class Disk(io.FileIO):
        def readinto(self, buffer):
            read.append(len(buffer))
            if sum(read) > good * 2_000_000:
                raise OSError(5, "Input/output error")
            return super().readinto(buffer)

    monkeypatch.setattr(snapshots, "open", lambda path, mode, opener: io.BufferedReader(Disk(path)), raising=False)
    with pytest.raises(SnapshotError, match=r"/s cannot be read \(Input/output error\); take another"):
        saving.load(tmp_path / "s")


def test_a_file_that_is_written_to_between_its_check_and_its_loading_is_refused(tmp_path, monkeypatch):
    saving.save({"x": torch.ones(1000)}, tmp_path / "s")
    os.utime(tmp_path / "s", (1, 1))
    load = torch.load

    def change_and_load(*args, **kwargs):
        with open(tmp_path / "s", "r+b") as file:
            file.seek(2000)
            file.write(b"!")
        return load(*args, **kwargs)

    monkeypatch.setattr("torch.load", change_and_load)
    with pytest.raises(SnapshotError, match="/s has been written to while it was read; take another, or try again"):
        saving.load(tmp_path / "s")


def test_a_file_that_is_replaced_while_it_is_loaded_is_the_one_that_was_checked(tmp_path, monkeypatch):
    saving.save({"x": 1}, tmp_path / "s")
    load = torch.load

    def replace_and_load(*args, **kwargs):
        saving.save({"x": 2}, tmp_path / "s")
        return load(*args, **kwargs)

    monkeypatch.setattr("torch.load", replace_and_load)
    assert saving.load(tmp_path / "s") == {"x": 1}


@pytest.mark.parametrize("keep", [0, 10, 63, 64, 500, -1])
def test_a_cut_file_is_named(tmp_path, keep):
    saving.save(STATE, tmp_path / "s")
    (tmp_path / "s").write_bytes((tmp_path / "s").read_bytes()[:keep])
    with pytest.raises(SnapshotError, match=r"/s is not a snapshot, or is cut short \(\d+ bytes"):
        saving.load(tmp_path / "s")


def test_a_damaged_file_is_named(tmp_path):
    saving.save(STATE, tmp_path / "s")
    data = bytearray((tmp_path / "s").read_bytes())
    data[200] ^= 1
    (tmp_path / "s").write_bytes(data)
    with pytest.raises(SnapshotError, match="/s is damaged: its checksum does not match; take another"):
        saving.load(tmp_path / "s")


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError):
        saving.load(tmp_path / "absent")
    with pytest.raises(SnapshotError, match=r"is a folder, and there is no snapshot in it: name a file"):
        saving.load(tmp_path)


class Malicious:
    def __reduce__(self):
        return os.system, ("touch /tmp/kusari-was-here",)


def test_no_code_runs_from_a_file_of_weights(tmp_path):
    torch.save({"w": Malicious()}, tmp_path / "w")
    with pytest.raises(
        SnapshotError, match=r"/w cannot be read as a file of weights \(not a file of weights, or it contains code\)"
    ):
        saving.load_weights(tmp_path / "w")
    (tmp_path / "p").write_bytes(pickle.dumps(Malicious()))
    with pytest.raises(SnapshotError, match="/p cannot be read as a file of weights"):
        saving.load_weights(tmp_path / "p")
    torch.save([1], tmp_path / "l")
    with pytest.raises(SnapshotError, match="/l holds a list, not a file of weights"):
        saving.load_weights(tmp_path / "l")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a": {"b": np.float64(1)}}, r"a/b is numpy.float64: save float\(...\)\."),
        ({"a": [np.int64(1)]}, r"a/0 is numpy.int64: save int\(...\)"),
        ({"a": np.bool_(True)}, r"a is numpy.bool_?: save bool\(...\)"),
        ({"a": {1}}, "a is set: save numbers, strings, tensors, lists and dicts"),
        ({"a": collections.defaultdict(int)}, r"a is collections.defaultdict: save dict\(...\)"),
        ({("k", np.int64(1)): 1}, "the state has the key .* of tuple: make it a str"),
        ({"a": np.ones(2)}, "a is numpy.ndarray: save numbers, strings, tensors"),
    ],
)
def test_what_could_not_be_loaded_back_is_refused_when_saved_with_its_path(tmp_path, state, message):
    with pytest.raises(TypeError, match=message):
        saving.save(state, tmp_path / "s")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_what_was_there_and_nothing_else(tmp_path):
    (tmp_path / "f").write_text("old")

    def fill(file):
        file.write(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        saving.write(tmp_path / "f", fill)
    assert [p.name for p in tmp_path.iterdir()] == ["f"] and (tmp_path / "f").read_text() == "old"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "Ctrl-C"])
@pytest.mark.parametrize("passed", [0, 1_000_000])
@pytest.mark.parametrize("save", [saving.save, saving.save_weights])
def test_what_stops_a_write_in_its_middle_is_told_as_it_is(tmp_path, monkeypatch, error, passed, save):
    (tmp_path / "f").write_text("old")

    class Disk(io.FileIO):
        def write(self, data):
            if self.tell() > passed:
                raise error
            return super().write(data)

    monkeypatch.setattr(files, "open", lambda path, mode: Disk(path, mode), raising=False)
    told = f"No space left on device: '{tmp_path}/f'" if isinstance(error, OSError) else "^$"
    with pytest.raises(type(error), match=told):
        save({str(i): torch.ones(300_000) for i in range(4)}, tmp_path / "f")
    assert [p.name for p in tmp_path.iterdir()] == ["f"] and (tmp_path / "f").read_text() == "old"


def test_snapshots_are_found_by_run_and_iteration_not_by_name(tmp_path):
    for name, run, iteration, mtime in [("900", "a", 900, 9), ("1000", "a", 1000, 9), ("x", "b", 5000, 1)]:
        saving.save({}, tmp_path / name, run_id=run * 16, iteration=iteration)
        os.utime(tmp_path / name, (mtime, mtime))
    (tmp_path / "foreign").write_bytes(b"x" * 100)
    (tmp_path / "folder").mkdir()
    assert [file.path.name for file in saving.find(tmp_path)] == ["1000", "900", "x"]
