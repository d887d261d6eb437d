"""Durable files: written whole or not at all, checksummed, safe to load.

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
from collections import Counter, OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import numpy as np
import torch

__all__ = [
    "SnapshotError",
    "SnapshotFile",
    "branched",
    "check",
    "find",
    "free_path",
    "inside",
    "load",
    "load_weights",
    "read_tail",
    "remove_scraps",
    "save",
    "save_weights",
    "write",
]

MAGIC = b"KUSARI01"
_HEAD = struct.Struct("<8s8sQQ")  # magic, run id, iteration, length
_DIGEST = hashlib.sha256().digest_size
_TAIL = _HEAD.size + _DIGEST
_CHUNK = 1 << 20  # bytes: what is smaller is gathered before it is written, or read at a time

_PLAIN = (bool, int, float, str, bytes, torch.Tensor, torch.nn.Parameter, torch.nn.Buffer)


class SnapshotError(ValueError):
    """A file that is not a whole snapshot; the message says which and what to do.

    Example:
        >>> from trainer import checkpoint
        >>> checkpoint.write(tmp / "foreign", lambda file: file.write(b"x" * 100))
        >>> try:
        ...     checkpoint.load(tmp / "foreign")
        ... except checkpoint.SnapshotError as error:
        ...     print(str(error).split(",")[0].split("/")[-1])
        foreign is not a snapshot
    """


@dataclass(frozen=True)
class SnapshotFile:
    """A snapshot file as its tail describes it; not verified.

    Attributes:
        path: The file.
        run_id: Of the run that wrote it, 16 hexadecimal digits.
        iteration: Updates done.
        mtime: When it was written, in seconds since 1970.

    Example:
        >>> from trainer import checkpoint
        >>> checkpoint.save({}, tmp / "snapshot", iteration=5)
        >>> checkpoint.find(tmp)[0].iteration
        5
    """

    path: Path
    run_id: str
    iteration: int
    mtime: float


def write(path: str | Path, fill: Callable[[BinaryIO], object]) -> None:
    """Writes a file so that a reader, or whoever comes after a crash, sees all of it or what was there before.

    Args:
        path: Where it will stand.
        fill: Writes the content to the binary file that it is given, in memory: it may seek and read there, and cannot
            hide that a disk is full.

    Raises:
        OSError: If it cannot be written, for want of space say: the path is named, and what was there stays.

    Example:
        >>> from trainer import checkpoint
        >>> checkpoint.write(tmp / "greeting", lambda file: file.write(b"hello"))
        >>> (tmp / "greeting").read_bytes()
        b'hello'
    """
    content = io.BytesIO()
    fill(content)
    _put(Path(path), lambda file: file.write(content.getbuffer()))


def _put(path: Path, fill: Callable[[BinaryIO], object]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(temporary, "wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error  # a full disk does not say where
    finally:
        with suppress(OSError):  # it must not hide the error; the next start removes what is left
            temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # else the new name may be lost with the power
    finally:
        os.close(folder)


class _Archive(io.RawIOBase):
    """What ``torch.save`` writes to: hands everything on to a file, counted and hashed; nothing is held in memory.

    torch makes another error of what a full disk raises: the first is kept here, and what comes after it passed over.
    """

    def __init__(self, file: BinaryIO, update: Callable[[Any], object]) -> None:
        self._file = file
        self._update = update
        self.length = 0
        self.error: BaseException | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if self.error is None:
            try:
                self._file.write(data)
                self._update(data)
                self.length += len(data)
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


def _archive(state: dict[str, Any], file: BinaryIO, update: Callable[[Any], object]) -> int:
    """Writes a state to a file, and shows each piece to ``update``; returns the length."""
    archive = _Archive(file, update)
    pickling = pickle if threading.current_thread() is threading.main_thread() else _PATIENT
    with io.BufferedWriter(archive, _CHUNK) as gathered:
        torch.save(state, gathered, pickle_module=pickling)
    if archive.error is not None:
        raise archive.error
    return archive.length


def remove_scraps(folder: str | Path) -> None:
    """Removes what writes that were killed have left in a folder. Nobody else may be writing there.

    Example:
        >>> from trainer import checkpoint
        >>> (tmp / ".snapshot.123.tmp").touch()
        >>> checkpoint.remove_scraps(tmp)
        >>> list(tmp.iterdir())
        []
    """
    for path in Path(folder).glob(".*.tmp"):
        if path.suffixes[-2:-1] and path.suffixes[-2][1:].isdigit():
            path.unlink(missing_ok=True)


def inside(folder: str | Path, name: str) -> Path:
    """Returns the path of a file in a folder, by a name that was read from somewhere.

    Raises:
        ValueError: If the name leads out of the folder.

    Example:
        >>> from trainer import checkpoint
        >>> checkpoint.inside("result", "../secret")
        Traceback (most recent call last):
        ValueError: the file name '../secret' leads out of the folder result: do not trust its source, take another.
    """
    if Path(name).is_absolute() or ".." in Path(name).parts or not Path(name).parts:
        raise ValueError(
            f"the file name {name!r} leads out of the folder {folder}: do not trust its source, take another."
        )
    return Path(folder) / name


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
        >>> from trainer import checkpoint
        >>> checkpoint.save({"iteration": 3}, tmp / "snapshot", iteration=3)
        >>> checkpoint.load(tmp / "snapshot")
        {'iteration': 3}
    """
    check(state)

    def fill(file: BinaryIO) -> None:
        digest = hashlib.sha256()
        length = _archive(state, file, digest.update)
        head = _HEAD.pack(MAGIC, bytes.fromhex(run_id), iteration, length)
        digest.update(head)
        file.write(head + digest.digest())

    _put(Path(path), fill)


def save_weights(state: dict[str, Any], path: str | Path) -> None:
    """Writes a plain file of a ``state_dict``, as ``torch.save`` does, but whole or not at all.

    Args:
        state: As for :func:`save`.
        path: The file.

    Raises:
        TypeError: As :func:`save`.

    Example:
        >>> import torch
        >>> from trainer import checkpoint
        >>> checkpoint.save_weights({"weight": torch.ones(1)}, tmp / "weights")
        >>> torch.load(tmp / "weights", weights_only=True)
        {'weight': tensor([1.])}
    """
    check(state)
    _put(Path(path), lambda file: _archive(state, file, lambda data: None))


def load(path: str | Path) -> dict[str, Any]:
    """Reads a snapshot, verified, onto the CPU. No code in it can run: it is read with ``weights_only=True``.

    Raises:
        FileNotFoundError: If there is no such file.
        SnapshotError: If it is damaged, cut short, or no snapshot.

    Example:
        >>> from trainer import checkpoint
        >>> checkpoint.save({"weights": [0.5]}, tmp / "snapshot")
        >>> checkpoint.load(tmp / "snapshot")
        {'weights': [0.5]}
    """
    path = Path(path)
    if path.is_dir():
        raise SnapshotError(f"{path} is a folder, not a snapshot; name a file in it.")
    try:
        with open(path, "rb") as file:
            written = os.fstat(file.fileno()).st_mtime_ns
            _verify(file, path)
            state = _read(file, path, "a snapshot")
            if os.fstat(file.fileno()).st_mtime_ns != written:  # what was loaded is not what was verified
                raise SnapshotError(f"{path} has been written to while it was read; take another, or try again.")
    except FileNotFoundError:
        raise
    except OSError as error:  # a bad disk, or another user's file
        raise SnapshotError(f"{path} cannot be read ({error.strerror}); take another.") from error
    return state


def _verify(file: BinaryIO, path: Path) -> None:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - _TAIL, 0))
    head, digest = file.read(_HEAD.size), file.read()
    if size < _TAIL or not head.startswith(MAGIC[:6]):
        raise SnapshotError(
            f"{path} is not a snapshot, or is cut short ({size} bytes without a snapshot's tail);"
            " take another, or start afresh."
        )
    file.seek(0)
    found, rest = hashlib.sha256(), size - _DIGEST
    while chunk := file.read(min(rest, _CHUNK)):
        found.update(chunk)
        rest -= len(chunk)
    is_damaged = found.digest() != digest
    if not is_damaged and not head.startswith(MAGIC):
        raise SnapshotError(f"{path} was written by a newer Kusari, in the file format {head[:8]!r}: update Kusari.")
    if is_damaged or _HEAD.unpack(head)[-1] != size - _TAIL:
        raise SnapshotError(f"{path} is damaged: its checksum does not match; take another, or start afresh.")
    file.seek(0)


def load_weights(path: str | Path) -> dict[str, Any]:
    """Reads a plain ``state_dict`` file onto the CPU, with ``weights_only=True``.

    Raises:
        FileNotFoundError: If there is no such file.
        SnapshotError: If torch cannot read it as one.

    Example:
        >>> import torch
        >>> from trainer import checkpoint
        >>> torch.save({"weight": torch.ones(1)}, tmp / "weights")
        >>> checkpoint.load_weights(tmp / "weights")
        {'weight': tensor([1.])}
    """
    return _read(path, path, "a file of weights")


def _read(source: Any, path: str | Path, kind: str) -> dict[str, Any]:
    try:
        state = torch.load(source, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # whatever the unpickler and the archive reader make of a damaged or foreign file
        # Not torch's own text: for a file that wants to run code it recommends to let it.
        is_foreign = isinstance(error, pickle.UnpicklingError)
        reason = "it is none, or would run code" if is_foreign else type(error).__name__
        raise SnapshotError(f"{path} cannot be read as {kind} ({reason}); take another.") from error
    if not isinstance(state, dict):
        raise SnapshotError(f"{path} holds a {type(state).__name__}, not {kind}; take another.")
    return state


def find(folder: str | Path) -> list[SnapshotFile]:
    """Returns the snapshots directly in a folder, those of the last writing run first, newest iteration first.

    What a run has written since it went back to an older snapshot comes before the newer ones that it left behind.

    Only their tails are read: :func:`load` verifies.

    Example:
        >>> from trainer import checkpoint
        >>> for iteration in (900, 1000):
        ...     checkpoint.save({}, tmp / f"snapshot_{iteration}", iteration=iteration)
        >>> [file.path.name for file in checkpoint.find(tmp)]
        ['snapshot_1000', 'snapshot_900']
    """
    paths = [path for path in Path(folder).iterdir() if not path.is_symlink() and not path.name.startswith(".")]
    found = [file for path in paths if (file := read_tail(path)) is not None]  # a link is no second snapshot
    last_write: dict[str, float] = {}
    for file in found:
        last_write[file.run_id[:12]] = max(file.mtime, last_write.get(file.run_id[:12], 0.0))
    return sorted(found, key=lambda f: (last_write[f.run_id[:12]], f.run_id, f.iteration, f.mtime), reverse=True)


def read_tail(path: str | Path) -> SnapshotFile | None:
    """Returns what the tail of a snapshot says of it; None if the file has none, or cannot be read.

    Example:
        >>> from trainer import checkpoint
        >>> checkpoint.save({}, tmp / "snapshot", iteration=5)
        >>> checkpoint.read_tail(tmp / "snapshot").iteration, checkpoint.read_tail(tmp / "absent")
        (5, None)
    """
    if not Path(path).is_file():  # a pipe would keep us waiting
        return None
    try:
        with open(path, "rb") as file:
            if file.seek(0, os.SEEK_END) < _TAIL:
                return None
            file.seek(-_TAIL, os.SEEK_END)
            magic, run_id, iteration, _ = _HEAD.unpack(file.read(_HEAD.size))
            mtime = os.fstat(file.fileno()).st_mtime
    except OSError:  # load() says why, when it is asked for this file
        return None
    return SnapshotFile(Path(path), run_id.hex(), iteration, mtime) if magic == MAGIC else None


def free_path(path: str | Path, run_id: str) -> Path:
    """Returns where a run may write a snapshot: not over another run's, beside which its own gets the run's id.

    Example:
        >>> from trainer import checkpoint
        >>> checkpoint.save({}, tmp / "snapshot", run_id="aaaaaaaaaaaa0000")
        >>> checkpoint.free_path(tmp / "snapshot", "bbbbbbbbbbbb0000").name
        'snapshot-bbbbbbbbbbbb0000'
    """
    path = Path(path)
    there = read_tail(path)
    return path if there is None or there.run_id[:12] == run_id[:12] else path.with_name(f"{path.name}-{run_id}")


def branched(run_id: str, iteration: int, folder: str | Path) -> str:
    """Returns the id with which a run goes on from an iteration: another branch's if there are newer snapshots of it.

    Example:
        >>> from trainer import checkpoint
        >>> for iteration in (1, 2):
        ...     checkpoint.save({}, tmp / f"snapshot_{iteration}", run_id="0123456789ab0000", iteration=iteration)
        >>> checkpoint.branched("0123456789ab0000", 2, tmp), checkpoint.branched("0123456789ab0000", 1, tmp)
        ('0123456789ab0000', '0123456789ab0001')
    """
    own = [(file.run_id, file.iteration) for file in find(folder) if file.run_id[:12] == run_id[:12]]
    newest, _ = max(own, default=(run_id, iteration))
    if not any(other > (run_id, iteration) for other in own):
        return run_id
    return f"{newest[:12]}{min(int(newest[12:], 16) + 1, 0xFFFF):04x}"


def check(state: Any, path: str = "") -> None:
    """Refuses a state that ``weights_only`` could not load back, when it is saved and not when it is needed.

    Raises:
        TypeError: With the path of what cannot be saved.

    Example:
        >>> import numpy, trainer.checkpoint
        >>> trainer.checkpoint.check({"extensions": {"BestValue": {"best": numpy.float64(0.5)}}})
        Traceback (most recent call last):
        TypeError: extensions/BestValue/best is numpy.float64: return float(...) from state_dict().
    """
    kind = type(state)
    if state is None or kind in _PLAIN:
        return
    if kind in (list, tuple):
        for index, value in enumerate(state):
            check(value, f"{path}/{index}" if path else str(index))
    elif kind in (dict, OrderedDict, Counter):
        for key, value in state.items():
            parts = key if type(key) is tuple else (key,)
            if any(type(part) not in (str, int, float, bool, type(None)) for part in parts):
                raise TypeError(f"{path or 'the state'} has the key {key!r} of {_name(type(key))}: make it a str.")
            check(value, f"{path}/{key}" if path else str(key))
    else:
        simple = next((t.__name__ for t in (bool, int, float, str, bytes, dict, list) if issubclass(kind, t)), None)
        if simple is None and isinstance(state, np.generic):
            simple = type(state.item()).__name__
        remedy = f"return {simple}(...)" if simple else "return numbers, strings, tensors, lists and dicts"
        raise TypeError(f"{path or 'the state'} is {_name(kind)}: {remedy} from state_dict().")


def _name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
