"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import io
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from trainer.checks import warn

_SCRAP = re.compile(r"\..+\.\d+\.tmp", re.DOTALL)  # the name that a file has while it is written


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
    """Refuses a path where something stands that is no file: a folder, a pipe, a device; or a link, if asked to.

    Raises:
        FileExistsError: If it does; the path is named.

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
        mode = os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError, PermissionError):  # who writes there tells
        return
    if not stat.S_ISREG(mode) and not (links and stat.S_ISLNK(mode)):
        kind = "a folder" if stat.S_ISDIR(mode) else "a link" if stat.S_ISLNK(mode) else "a pipe, socket or device"
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
        kind = "a link that leads to no folder" if there.is_symlink() else "a file"
        told = f"{kind} stands where a folder is to be: move it, or name another"
        raise NotADirectoryError(errno.ENOTDIR, told, str(there)) from None


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
    if leads_out(name):
        raise ValueError(
            f"the file name {name!r} leads out of the folder {folder}: do not trust its source, take another."
        )
    path = Path(folder)
    for part in Path(name).parts[:-1]:
        path /= part
        if os.path.lexists(path) and (path.is_symlink() or not path.is_dir()):
            kind = "a link (what is behind it is not the run's)" if path.is_symlink() else "a file"
            told = f"{kind} stands where a folder is to be: move it, or name another"
            raise NotADirectoryError(errno.ENOTDIR, told, str(path))
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
