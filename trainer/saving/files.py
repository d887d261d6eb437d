"""Files that are written whole or not at all."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO


def write(path: str | Path, fill: Callable[[BinaryIO], object]) -> None:
    """Writes a file so that a reader, or whoever comes after a crash, sees all of it or what was there before.

    Args:
        path: Where it will stand.
        fill: Writes the content to the binary file that it is given, in memory: it may seek and read there, and cannot
            hide that a disk is full.

    Raises:
        OSError: If it cannot be written, for want of space say: the path is named, and what was there stays.

    Example:
        >>> from trainer import saving
        >>> saving.write(tmp / "greeting", lambda file: file.write(b"hello"))
        >>> (tmp / "greeting").read_bytes()
        b'hello'
    """
    content = io.BytesIO()
    fill(content)
    replace_file(Path(path), lambda file: file.write(content.getbuffer()))


def replace_file(path: Path, fill: Callable[[BinaryIO], object]) -> None:
    """Writes a file as :func:`write` does; ``fill`` writes to the file itself, and must not hide an error of it."""
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


def remove_scraps(folder: str | Path) -> None:
    """Removes what writes that were killed have left in a folder. Nobody else may be writing there.

    Example:
        >>> from trainer.saving.files import remove_scraps
        >>> (tmp / ".snapshot.123.tmp").touch()
        >>> remove_scraps(tmp)
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
        >>> from trainer.saving.files import inside
        >>> inside("result", "../secret")
        Traceback (most recent call last):
        ValueError: the file name '../secret' leads out of the folder result: do not trust its source, take another.
    """
    if leads_out(name):
        raise ValueError(
            f"the file name {name!r} leads out of the folder {folder}: do not trust its source, take another."
        )
    return Path(folder) / name


def leads_out(name: str) -> bool:
    """Tells whether the name of a file leads out of the folder that it is to lie in.

    Example:
        >>> from trainer.saving.files import leads_out
        >>> leads_out("logs/log"), leads_out("../log")
        (False, True)
    """
    path = Path(name)
    return path.is_absolute() or ".." in path.parts or not path.parts
