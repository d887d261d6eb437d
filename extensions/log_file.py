"""The file of a log: whole after each entry, in constant time."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from trainer.checks import at_least
from trainer.saving import check
from trainer.saving.files import inside, make_folder, parse_json, refuse_other, regular
from trainer.saving.state import refuse_kind

END, LINES = b"\n]", ".jsonl"


class LogFile:
    """A JSON list that grows by one write at its end, over the closing bracket; or JSON Lines, by the name.

    Example:
        >>> from extensions.log_file import LogFile
        >>> file = LogFile()
        >>> file.open(tmp, "log")
        >>> file.append([{"epoch": 1}])
        >>> file.close()
        >>> (tmp / "log").read_text().split()
        ['[', '{', '"epoch":', '1', '}', ']']
    """

    in_use: ClassVar[set[Path]] = set()  # files of this process

    def __init__(self) -> None:
        self.name = ""  # relative to the run's folder
        self.path = self.folder = Path()
        self._file = -1
        self._size = 0  # without the closing bracket
        self._hash = hashlib.sha256()
        self.wanted: dict[str, Any] = {}  # what a loaded snapshot says of the file

    def open(self, folder: Path, name: str, body: bytes = b"") -> None:
        """Starts the file with what it is to hold, without the closing bracket."""
        self.close()
        path = inside(folder, name)
        refuse_other(path, links=False)
        self.folder = folder
        self.name, self.path = name, path.parent.resolve() / path.name
        if self.path in self.in_use:
            raise ValueError(
                f"two LogReports write to {folder / name}: give one of them another filename, or call finalize() on the"
                " trainer of a loop that ended early."
            )
        make_folder(self.path.parent)
        self._open()
        self._size = len(body)
        self._hash = hashlib.sha256(body)
        whole = body + self._end
        self._write(whole, 0)
        os.ftruncate(self._file, len(whole))

    def append(self, entries: list[dict[str, Any]]) -> None:
        """Adds entries; what JSON does not have (NaN, infinity) becomes null."""
        if self._file < 0:  # the run was finalized, and goes on
            self._open()
        is_list = not self.name.endswith(LINES)
        indent = 4 if is_list else None
        texts = [json.dumps(_finite(entry), indent=indent, allow_nan=False, default=_plain) for entry in entries]
        if is_list:
            new = ((",\n" if self._size else "[\n") + ",\n".join(texts)).replace("\n", "\n    ").encode()
        else:
            new = "".join(f"{text}\n" for text in texts).encode()
        self._write(new + (END if is_list else b""), self._size)
        self._size += len(new)
        self._hash.update(new)

    @property
    def _end(self) -> bytes:
        return b"" if self._size == 0 or self.name.endswith(LINES) else END

    def is_there(self) -> bool:
        """Whether the file still stands under its name: somebody may have deleted it."""
        try:
            return self._file < 0 or os.path.samestat(self._status, os.stat(self.path))
        except (FileNotFoundError, NotADirectoryError):
            return False

    def _open(self) -> None:
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        self._status = os.fstat(self._file)
        self.in_use.add(self.path)

    def _write(self, data: bytes, offset: int) -> None:
        try:
            while data:
                written = os.pwrite(self._file, data, offset)
                data, offset = data[written:], offset + written
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._file, self._size)  # what was whole stays so
                os.pwrite(self._file, self._end, self._size)
            raise OSError(error.errno, error.strerror, str(self.path)) from error  # a full disk does not say where

    def state_dict(self) -> dict[str, Any]:
        """Returns name, length and SHA-256 of the file without its closing bracket; it is on the disk then."""
        if self._file >= 0:
            os.fsync(self._file)
        return {"name": self.name, "bytes": self._size, "sha256": self._hash.hexdigest()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what :meth:`state_dict` returned as the file that is wanted."""
        refuse_kind({"name": "", "bytes": 0, "sha256": ""}, state, "the log's file")
        at_least("bytes", state["bytes"], 0)
        self.wanted = state

    def close(self) -> None:
        """Closes the file."""
        if self._file >= 0:
            os.close(self._file)
            self.in_use.discard(self.path)
        self._file = -1


def entries_of(name: str, body: bytes) -> list[dict[str, Any]]:
    """Returns what a log's file holds, given its name and what is in it without a closing bracket.

    Raises:
        ValueError: If it is not JSON, or not a list of objects, or a value is nested too deep.

    Example:
        >>> from extensions.log_file import entries_of
        >>> entries_of("log", b'[{"epoch": 1}') == entries_of("log.jsonl", b'{"epoch": 1}')
        True
    """
    text = b"[" + b",".join(body.splitlines()) if name.endswith(LINES) else body
    return checked(parse_json(text + END))


def checked(entries: Any) -> list[dict[str, Any]]:
    """Returns what was read of a log, if it is a list of objects.

    Example:
        >>> from extensions.log_file import checked
        >>> checked([{"epoch": 1}, 2])
        Traceback (most recent call last):
        ValueError: a log is a JSON list of objects, as LogReport writes it
    """
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError("a log is a JSON list of objects, as LogReport writes it")
    nested = (value for entry in entries for value in entry.values() if isinstance(value, (dict, list)))
    try:
        for value in nested:
            check(value)
    except TypeError as error:
        raise ValueError(str(error)) from None
    return entries


def body_of(path: Path, saved: dict[str, Any]) -> bytes | None:
    """Returns what a file held when a snapshot said this of it, without the closing bracket; None if it is another.

    Example:
        >>> from extensions.log_file import body_of
        >>> body_of(tmp / "missing", {"name": "log", "bytes": 10, "sha256": ""}) is None
        True
    """
    if not path.is_file() or path.stat().st_size < saved["bytes"]:
        return None
    with open(path, "rb", opener=regular) as file:
        body = file.read(saved["bytes"])
    return body if hashlib.sha256(body).hexdigest() == saved["sha256"] else None


def put_aside(path: Path) -> bool:
    """Tells whether there is a log that is about to be written anew; keeps it as .old, or .old2 and so on.

    Example:
        >>> from extensions.log_file import put_aside
        >>> (tmp / "log").write_text("[]")
        2
        >>> put_aside(tmp / "log")
        True
        >>> [path.name for path in tmp.iterdir()]
        ['log.old']
    """
    is_there = path.is_file() and not path.is_symlink() and path.stat().st_size > 0
    if is_there:
        names = (f"{path.name}.old{number if number > 1 else ''}" for number in itertools.count(1))
        path.rename(next(free for name in names if not os.path.lexists(free := path.with_name(name))))
    return is_there


def _finite(entry: Any) -> Any:
    """Returns the entry with null for NaN and infinity, which JSON does not have."""
    if isinstance(entry, float):
        return entry if math.isfinite(entry) else None
    if isinstance(entry, dict):
        return {key: _finite(value) for key, value in entry.items()}
    if isinstance(entry, (list, tuple)):
        return [_finite(value) for value in entry]
    return entry


def _plain(value: Any) -> Any:
    if getattr(value, "ndim", None) == 0:
        return _finite(value.item())
    raise TypeError(f"the log takes numbers and strings, got {type(value).__name__} {value!r} from postprocess.")
