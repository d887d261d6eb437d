"""Snapshot files: checksummed, and safe to load.

A snapshot is torch's own file format with a tail of 64 bytes: a magic word, the run's id, the iteration, the length
of what comes before, and the SHA-256 of everything before the digest. ``torch.load(path, weights_only=True)`` reads
it as it is, for the tail lies behind the archive.

A run's id is 16 hexadecimal digits. The last four count how often the run has gone back to an older snapshot while
newer ones stayed: they are its branch.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import struct
import threading
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, NamedTuple

import torch

from trainer.checks import warn
from trainer.saving.files import regular, replace_file
from trainer.saving.state import DEPTH, check

MAGIC = b"KUSARI01"
_HEAD = struct.Struct("<8s8sQQ")  # magic, run id, iteration, length
_DIGEST = hashlib.sha256().digest_size
_TAIL = _HEAD.size + _DIGEST
_IS_FOLDER = 0x10  # among the attributes of a part
_END_OF_ARCHIVE = 22  # bytes of the record that ends what torch.save writes
_CHUNK = 1 << 20  # bytes: what is smaller is gathered before it is written, or read at a time
_MOST_VALUES = 10**6  # in a state whose lists stand in it more than once
_MOST_REPEATED = 1 << 30  # bytes of a tensor that repeats its elements, as expand() makes it


class SnapshotError(ValueError):
    """A file that is not a whole snapshot; the message says which and what to do.

    Example:
        >>> from trainer import saving
        >>> saving.write(tmp / "foreign", lambda file: file.write(b"x" * 100))
        >>> try:
        ...     saving.load(tmp / "foreign")
        ... except saving.SnapshotError as error:
        ...     print(str(error).split(",")[0].split("/")[-1])
        foreign is not a snapshot
    """


class SnapshotFile(NamedTuple):
    """A snapshot file as its tail describes it; not verified.

    Attributes:
        path: The file.
        run_id: Of the run that wrote it, 16 hexadecimal digits.
        iteration: Updates done.
        mtime: When it was written, in seconds since 1970.

    Example:
        >>> from trainer import saving
        >>> saving.save({}, tmp / "snapshot", iteration=5)
        >>> saving.find(tmp)[0].iteration
        5
    """

    path: Path
    run_id: str
    iteration: int
    mtime: float


class _Archive(io.RawIOBase):
    """What ``torch.save`` writes to: hands each piece on to a file and to ``update``; nothing is held in memory.

    torch makes another error of what a full disk raises: the first is kept here, and what comes after it passed over.
    """

    def __init__(self, file: BinaryIO, update: Callable[[Any], object]) -> None:
        self._file = file
        self._update = update
        self.error: BaseException | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if self.error is None:
            try:
                self._file.write(data)
                self._update(data)
            except BaseException as error:  # Ctrl-C too
                self.error = error
        return len(data)


class _Pickler(pickle.Pickler):
    """Lets other threads run now and then: each would wait 5 ms for every operation of its own, while this pickles."""

    _last = 0.0

    def reducer_override(self, obj: Any) -> Any:
        if time.perf_counter() - self._last > 1e-4:
            time.sleep(1e-6)
            self._last = time.perf_counter()
        return NotImplemented


_PATIENT = SimpleNamespace(__name__="pickle", Pickler=_Pickler)  # as much of a module as torch.save asks for


def _archive(state: dict[str, Any], file: BinaryIO, update: Callable[[Any], object]) -> None:
    """Writes a state to a file, and shows each piece to ``update``."""
    archive = _Archive(file, update)
    pickling = pickle if threading.current_thread() is threading.main_thread() else _PATIENT
    with io.BufferedWriter(archive, _CHUNK) as gathered:
        torch.save(state, gathered, pickle_module=pickling)
    if archive.error is not None:
        raise archive.error


def save(state: dict[str, Any], path: str | Path, *, run_id: str = "0" * 16, iteration: int = 0) -> None:
    """Writes a snapshot.

    Args:
        state: None, bool, int, float, str, bytes, tensors, and lists, tuples and dicts of these.
        path: The file.
        run_id: 16 hexadecimal digits.
        iteration: Updates done.

    Raises:
        TypeError: If the state holds something that could not be loaded back; its path is named.

    Example:
        >>> from trainer import saving
        >>> saving.save({"iteration": 3}, tmp / "snapshot", iteration=3)
        >>> saving.load(tmp / "snapshot")
        {'iteration': 3}
    """
    check(state)

    def fill(file: BinaryIO) -> None:
        digest = hashlib.sha256()
        _archive(state, file, digest.update)
        head = _HEAD.pack(MAGIC, bytes.fromhex(run_id), iteration, file.tell())
        digest.update(head)
        file.write(head + digest.digest())

    replace_file(Path(path), fill)


def save_weights(state: dict[str, Any], path: str | Path) -> None:
    """Writes a plain file of a ``state_dict``, as ``torch.save`` does, but whole or not at all.

    Args:
        state: As for :func:`save`.
        path: The file.

    Raises:
        TypeError: As :func:`save`.

    Example:
        >>> import torch
        >>> from trainer import saving
        >>> saving.save_weights({"weight": torch.ones(1)}, tmp / "weights")
        >>> torch.load(tmp / "weights", weights_only=True)
        {'weight': tensor([1.])}
    """
    check(state)
    replace_file(Path(path), lambda file: _archive(state, file, lambda data: None))


def load(path: str | Path) -> dict[str, Any]:
    """Reads a snapshot, verified, onto the CPU. No code in it can run: it is read with ``weights_only=True``.

    Raises:
        FileNotFoundError: If there is no such file.
        SnapshotError: If it is damaged, cut short, or no snapshot.

    Example:
        >>> from trainer import saving
        >>> saving.save({"weights": [0.5]}, tmp / "snapshot")
        >>> saving.load(tmp / "snapshot")
        {'weights': [0.5]}
    """
    if Path(path).is_dir():
        there = find(path)
        hint = f"its newest snapshot is {there[0].path}" if there else "there is no snapshot in it"
        raise SnapshotError(f"{path} is a folder, and {hint}: name a file.")
    state = _read(path, "a snapshot", is_snapshot=True)
    try:
        check(state)
    except TypeError as error:
        raise SnapshotError(f"{path} holds what no snapshot does ({error}); take another.") from error
    return state


def _verify(file: BinaryIO, path: str | Path) -> None:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - _TAIL, 0))
    head, digest = file.read(_HEAD.size), file.read()
    if size < _TAIL or not head.startswith(MAGIC[:6]):
        file.seek(max(size - _END_OF_ARCHIVE, 0))
        is_whole = file.read(4) == b"PK\x05\x06"
        raise SnapshotError(
            f"{path} is not a snapshot, or is cut short ({size} bytes without a snapshot's tail); take another, or"
            f" start afresh.{' Weights are read by model.load_state_dict(torch.load(path)).' if is_whole else ''}"
        )
    file.seek(0)
    found, rest = hashlib.sha256(), size - _DIGEST
    while chunk := file.read(min(rest, _CHUNK)):
        found.update(chunk)
        rest -= len(chunk)
    if found.digest() != digest:
        raise SnapshotError(f"{path} is damaged: its checksum does not match; take another, or start afresh.")
    if not head.startswith(MAGIC):
        raise SnapshotError(f"{path} was written by a newer Kusari, in the file format {head[:8]!r}: update Kusari.")


def load_weights(path: str | Path) -> dict[str, Any]:
    """Reads a plain ``state_dict`` file onto the CPU, with ``weights_only=True``.

    It is verified by the checksums that torch writes for each part of such a file. One that has none (of before torch
    1.6, or written under ``torch.serialization.set_crc32_options(False)``) is loaded with a warning.

    Raises:
        FileNotFoundError: If there is no such file.
        SnapshotError: If it is damaged, or torch cannot read it as one.

    Example:
        >>> import torch
        >>> from trainer import saving
        >>> torch.save({"weight": torch.ones(1)}, tmp / "weights")
        >>> saving.load_weights(tmp / "weights")
        {'weight': tensor([1.])}
    """
    return _read(path, "a file of weights", is_snapshot=False)


def _read(path: str | Path, kind: str, is_snapshot: bool) -> dict[str, Any]:
    try:
        with open(path, "rb", opener=regular) as file:
            written = os.fstat(file.fileno())
            if is_snapshot:
                _verify(file, path)
            is_verified = _verify_members(file, path, has_digest=is_snapshot)
            file.seek(0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's, of how the file was made
                state = torch.load(file, map_location="cpu", weights_only=True)
            if os.fstat(file.fileno()).st_mtime_ns != written.st_mtime_ns:  # what was loaded is not what was verified
                raise SnapshotError(f"{path} has been written to while it was read; take another, or try again.")
        if not isinstance(state, dict):
            raise SnapshotError(f"{path} holds a {type(state).__name__}, not {kind}; take another.")
        if reason := _swollen(state, written.st_size):
            raise SnapshotError(f"{path} holds {reason}: no run wrote that; take another.")
    except (FileNotFoundError, SnapshotError):
        raise
    except OSError as error:  # a bad disk, another user's file, or a pipe
        told = f"{path} cannot be read ({error.strerror}); take another." if error.strerror else str(error)
        raise SnapshotError(told) from error
    except Exception as error:  # whatever the unpickler and the archive reader make of a damaged or foreign file
        # Not torch's own text: for a file that wants to run code it recommends to let it.
        is_foreign = isinstance(error, pickle.UnpicklingError)
        reason = f"not {kind}, or it contains code" if is_foreign else type(error).__name__
        raise SnapshotError(f"{path} cannot be read as {kind} ({reason}); take another.") from error
    if not is_verified:
        warn(f"{path} has no checksums: whether it is damaged cannot be known.")
    return state


def _verify_members(file: BinaryIO, path: str | Path, has_digest: bool) -> bool:
    """Refuses what torch's writer does not write: a part that is compressed, or does not match its checksum.

    Tells whether the file has checksums. Of a file that torch writes, every part has one or none has: no flipped bit
    makes the one of the other.
    """
    if not zipfile.is_zipfile(file):  # of torch before 1.6
        return has_digest
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        is_packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
        if is_packed or sum(member.file_size for member in members) > file.seek(0, os.SEEK_END):
            raise SnapshotError(f"{path} is compressed, or its parts claim to be larger than the file; take another.")
        if has_digest or not any(member.CRC for member in members):
            return has_digest
        for member in members:
            try:
                if member.external_attr & _IS_FOLDER:  # torch would take what it has in memory for the content
                    raise zipfile.BadZipFile
                with archive.open(member) as part:
                    while part.read(_CHUNK):
                        pass
            except OSError:
                raise
            except Exception as error:  # whatever zipfile makes of a damaged header
                told = f"{path} is damaged: its part {member.filename!r} does not match its checksum or its header"
                raise SnapshotError(f"{told}; take another.") from error
    return True


def _swollen(state: Any, size: int) -> str | None:
    """Says what in a state takes far more memory, or depth, than any that a file of this size was written from."""
    pending, values = [(state, 0)], 0
    storages: dict[int, int] = {}
    while pending:
        value, depth = pending.pop()
        if isinstance(value, (dict, list, tuple)):
            values += len(value)
            pending += [(part, depth + 1) for part in (value.values() if isinstance(value, dict) else value)]
            if depth > DEPTH or values > max(size, _MOST_VALUES):  # perhaps a list holds itself, or another many times
                return f"lists and dicts that are nested more than {DEPTH} deep, or hold too many values"
        elif isinstance(value, torch.Tensor) and value.layout is torch.strided:
            storage = value.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            if value.device.type != "cpu" or value.nbytes > storage.nbytes() + _MOST_REPEATED:
                return f"a tensor of shape {tuple(value.shape)} without so many values"
    return "tensors that are larger than the file" if sum(storages.values()) > size else None


def find(*folders: str | Path) -> list[SnapshotFile]:
    """Returns the snapshots directly in some folders, those of the last writing run first, newest iteration first.

    What a run has written since it went back to an older snapshot comes before the newer ones that it left behind.

    Only their tails are read: :func:`load` verifies.

    Example:
        >>> from trainer import saving
        >>> for iteration in (900, 1000):
        ...     saving.save({}, tmp / f"snapshot_{iteration}", iteration=iteration)
        >>> [file.path.name for file in saving.find(tmp)]
        ['snapshot_1000', 'snapshot_900']
    """
    paths = [path for folder in folders for path in Path(folder).iterdir()]
    paths = [path for path in paths if not path.is_symlink() and not path.name.startswith(".")]
    found = [file for path in paths if (file := read_tail(path)) is not None]  # a link is no second snapshot
    last_write = {file.run_id[:12]: file.mtime for file in sorted(found, key=lambda file: file.mtime)}
    return sorted(found, key=lambda f: (last_write[f.run_id[:12]], f.run_id, f.iteration, f.mtime), reverse=True)


def read_tail(path: str | Path) -> SnapshotFile | None:
    """Returns what the tail of a snapshot says of it; None if the file has none, or cannot be read.

    Example:
        >>> from trainer.saving.snapshots import read_tail, save
        >>> save({}, tmp / "snapshot", iteration=5)
        >>> read_tail(tmp / "snapshot").iteration, read_tail(tmp / "absent")
        (5, None)
    """
    try:
        with open(path, "rb", opener=regular) as file:
            file.seek(-_TAIL, os.SEEK_END)  # an OSError, too, if the file is shorter
            magic, run_id, iteration, _ = _HEAD.unpack(file.read(_HEAD.size))
            mtime = os.fstat(file.fileno()).st_mtime
    except OSError:  # load() says why, when it is asked for this file
        return None
    return SnapshotFile(Path(path), run_id.hex(), iteration, mtime) if magic == MAGIC else None


def free_path(path: str | Path, run_id: str) -> Path:
    """Returns where a run may write a snapshot: not over another run's, beside which its own gets the run's id.

    Example:
        >>> from trainer.saving.snapshots import free_path, save
        >>> save({}, tmp / "snapshot", run_id="aaaaaaaaaaaa0000")
        >>> free_path(tmp / "snapshot", "bbbbbbbbbbbb0000").name
        'snapshot-bbbbbbbbbbbb0000'
    """
    path = Path(path)
    there = read_tail(path)
    return path if there is None or there.run_id[:12] == run_id[:12] else path.with_name(f"{path.name}-{run_id}")


def branched(run_id: str, iteration: int, *folders: str | Path) -> str:
    """Returns the id with which a run goes on from an iteration: another branch's if there are newer snapshots of it.

    Example:
        >>> from trainer.saving.snapshots import branched, save
        >>> for iteration in (1, 2):
        ...     save({}, tmp / f"snapshot_{iteration}", run_id="0123456789ab0000", iteration=iteration)
        >>> branched("0123456789ab0000", 2, tmp), branched("0123456789ab0000", 1, tmp)
        ('0123456789ab0000', '0123456789ab0001')
    """
    own = [(file.run_id, file.iteration) for file in find(*folders) if file.run_id[:12] == run_id[:12]]
    newest, _ = max(own, default=(run_id, iteration))
    if not any(other > (run_id, iteration) for other in own):
        return run_id
    return f"{newest[:12]}{min(int(newest[12:], 16) + 1, 0xFFFF):04x}"
