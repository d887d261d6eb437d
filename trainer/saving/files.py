"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from trainer.checks import warn

DIGITS = 300  # of a whole number in JSON: with a few more it is no float
_SCRAP = re.compile(r"\..+\.\d+\.tmp", re.DOTALL)  # the name that a file has while it is written
_KINDS = {stat.S_IFREG: "a file", stat.S_IFDIR: "a folder", stat.S_IFLNK: "a link"}
_KINDS |= {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}


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

    def make(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())

    replace(path, make)


def replace(path: Path, make: Callable[[Path], object]) -> None:
    """Puts what ``make`` makes under the name that it is given in the place of a file or a link, at once.

    Raises:
        OSError: If that cannot be done, or something else stands there, a folder say; the path is named.

    Example:
        >>> from trainer.saving.files import replace
        >>> replace(tmp / "best", lambda temporary: temporary.symlink_to("model_4"))
        >>> (tmp / "best").readlink().name
        'model_4'
    """
    refuse_other(path)
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{secrets.randbelow(10**9)}.tmp")
    try:
        make(temporary)
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


def refuse_other(path: Path, links: bool = True) -> None:
    """Refuses a path that is taken by a folder, a pipe or a device; with ``links=False`` by a link too.

    Raises:
        FileExistsError: If it is; the path is named.

    Example:
        >>> from trainer.saving.files import refuse_other
        >>> (tmp / "log").mkdir()
        >>> try:
        ...     refuse_other(tmp / "log")
        ... except FileExistsError as error:
        ...     print(error.strerror)
        a folder stands where a file is to be: move it, or choose another name
    """
    try:
        kind = _kind(os.lstat(path))
    except (FileNotFoundError, NotADirectoryError, PermissionError):  # who writes there tells
        return
    if kind != "a file" and not (links and kind == "a link"):
        told = f"{kind} stands where a file is to be: move it, or choose another name"
        raise FileExistsError(errno.EEXIST, told, str(path))


def make_folder(folder: str | Path) -> None:
    """Makes a folder, and those that it lies in, unless it is there.

    Raises:
        NotADirectoryError: If a file stands there, or on the way; it is named.

    Example:
        >>> from trainer.saving.files import make_folder
        >>> make_folder(tmp / "a" / "b")
        >>> (tmp / "a" / "b").is_dir()
        True
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        there = next(path for path in (Path(folder), *Path(folder).parents) if os.path.lexists(path))
        raise _no_folder("a link that leads to no folder" if there.is_symlink() else "a file", there) from None


def _no_folder(kind: str, path: Path) -> NotADirectoryError:
    told = f"{kind} stands where a folder is to be: move it, or name another"
    return NotADirectoryError(errno.ENOTDIR, told, str(path))


def regular(path: str | os.PathLike[str], flags: int = os.O_RDONLY) -> int:
    """Opens a file, by ``open(path, opener=regular)``: never a pipe, which would keep us waiting, or a device.

    Raises:
        OSError: If it is no regular file, nor a link to one; the message says what it is.

    Example:
        >>> import os
        >>> from trainer.saving.files import regular
        >>> os.mkfifo(tmp / "log")
        >>> open(tmp / "log", opener=regular)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        OSError: .../log is a named pipe: name a regular file.
    """
    _refuse_odd(os.stat(path), path)
    file = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _refuse_odd(os.fstat(file), path)  # it may have been replaced in between
    except BaseException:
        os.close(file)
        raise
    return file


def _refuse_odd(status: os.stat_result, path: str | os.PathLike[str]) -> None:
    if (kind := _kind(status)) != "a file":
        raise OSError(f"{os.fspath(path)} is {kind}: name a regular file.")


def _kind(status: os.stat_result) -> str:
    return _KINDS.get(stat.S_IFMT(status.st_mode), "a device")


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Returns the content of a regular file.

    Raises:
        OSError: As :func:`regular`.

    Example:
        >>> from trainer.saving.files import read_bytes
        >>> read_bytes("/dev/zero")
        Traceback (most recent call last):
        OSError: /dev/zero is a device: name a regular file.
    """
    with open(path, "rb", opener=regular) as file:
        return file.read()


def parse_json(text: bytes) -> Any:
    """Returns what a JSON text holds.

    Raises:
        ValueError: If it is not JSON, has a key twice or a number of more than 300 digits, or is nested too deep.

    Example:
        >>> from trainer.saving.files import parse_json
        >>> parse_json(b'{"lr": 0.1, "lr": 0.2}')
        Traceback (most recent call last):
        ValueError: the key 'lr' stands there twice
    """
    try:
        return json.loads(text.decode(json.detect_encoding(text)), parse_int=_whole, object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _whole(digits: str) -> int:
    if len(digits) > DIGITS:
        raise ValueError(f"the number {digits[:10]}... has {len(digits)} digits")
    return int(digits)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands there twice")
    return found


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
        if _SCRAP.fullmatch(path.name) and (path.is_symlink() or path.is_file()):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                warn(f"{path}, which a killed write has left, cannot be removed: {error.strerror}.")


def remove_all(paths: Iterable[Path]) -> None:
    """Removes files and links: all of them or none.

    Each first gets the name of a scrap, which needs the permissions that its removal needs.

    Raises:
        OSError: If one cannot be removed, or is something else; it is named.

    Example:
        >>> from trainer.saving.files import remove_all
        >>> (tmp / "a").touch(), (tmp / "b").mkdir()
        (None, None)
        >>> try:
        ...     remove_all([tmp / "a", tmp / "b"])
        ... except FileExistsError:
        ...     print(sorted(path.name for path in tmp.iterdir()))
        ['a', 'b']
    """
    moved: list[tuple[Path, Path]] = []
    path = Path()
    try:
        for path in filter(os.path.lexists, paths):
            refuse_other(path)
            aside = path.with_name(f".{path.name}.{secrets.randbelow(10**9)}.tmp")
            path.rename(aside)
            moved.append((path, aside))
    except OSError as error:
        for before, aside in moved:
            aside.rename(before)
        raise OSError(error.errno, f"nothing is removed: {error.strerror}", str(path)) from error
    for _, aside in moved:
        aside.unlink()


def inside(folder: str | Path, name: str) -> Path:
    """Returns the path of a file in a folder, by a name that was read from somewhere.

    The folder itself may be a link; what lies behind a link in it is somebody else's.

    Raises:
        ValueError: If the name leads out of the folder.
        NotADirectoryError: If a link or a file stands where the name has a folder.

    Example:
        >>> from trainer.saving.files import inside
        >>> inside("result", "../secret")
        Traceback (most recent call last):
        ValueError: the file name '../secret' leads out of the folder result: do not trust its source, take another.
    """
    if leads_out(name) or "\0" in name:
        raise ValueError(
            f"the file name {name!r} leads out of the folder {folder}: do not trust its source, take another."
        )
    path = Path(folder)
    for part in Path(name).parts[:-1]:
        path /= part
        if os.path.lexists(path) and (path.is_symlink() or not path.is_dir()):
            raise _no_folder("a link (what is behind it is not the run's)" if path.is_symlink() else "a file", path)
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
