"""One run at a time in a folder."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from contextlib import suppress
from pathlib import Path

from trainer.checks import warn
from trainer.saving.files import make_folder, refuse_other

NAME = ".lock"
_CONTENT = b"process "  # begins the file

_held: list[FolderLock] = []  # by this process


def _forget() -> None:
    for file in {lock.file for lock in _held if lock.file >= 0}:
        os.close(file)
    _held.clear()


os.register_at_fork(after_in_child=_forget)  # a worker that outlives a killed run must not hold its folder


class FolderInUseError(RuntimeError):
    """Another process's run writes to the folder; the message says which.

    Example:
        >>> from trainer.saving.lock import FolderInUseError
        >>> issubclass(FolderInUseError, RuntimeError)
        True
    """


class FolderLock:
    """Keeps other processes' runs out of a folder until it is released, or this process ends, however it ends.

    An ``flock`` on a file in the folder. It belongs to the open file: a POSIX record lock would be lost when anything
    in the process opens and closes that file, to copy the folder say. Forked processes close it, so that data-loading
    workers which outlive a killed run do not hold it. In the process that holds it, it may be taken again.

    Args:
        folder: An existing folder.

    Raises:
        FolderInUseError: If another process holds it.
        OSError: If the folder cannot be written to, or somebody else's file, a folder or a link is called .lock.

    Attributes:
        folder: Absolute.
        path: The file that is locked.
        file: Its descriptor; -1 where the file system knows no locks.
        is_first: Whether it keeps others out from now on: not where this process had it already, or where the file
            system knows no locks.

    Example:
        >>> from trainer.saving.lock import FolderLock
        >>> lock = FolderLock(tmp)
        >>> (tmp / ".lock").exists()
        True
        >>> lock.release()
        >>> (tmp / ".lock").exists()
        False
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).absolute()
        self.path = self.folder.resolve() / NAME
        outer = next((lock for lock in _held if lock.path == self.path), None)
        self.file: int = outer.file if outer else _lock(self.path)
        self.is_first = outer is None and self.file >= 0
        _held.append(self)

    def keep(self) -> None:
        """Takes the lock anew if the folder was removed, emptied or replaced while it was held; warns of it.

        Raises:
            FolderInUseError: If another process's run was faster.
            OSError: If the folder cannot be made anew.
        """
        old = self.file
        if old < 0 or self not in _held or _is_at(old, self.folder / NAME):
            return
        make_folder(self.folder)
        path = self.folder.resolve() / NAME
        told = f"{self.folder} is no longer as this run left it, its {NAME} is gone: removed, or the folder replaced"
        try:
            file = _lock(path)
        except FolderInUseError as error:
            raise FolderInUseError(f"{told}. This run stops, for {error}") from None
        for lock in _held:
            if lock.file == old:
                lock.path, lock.file = path, file
        os.close(old)
        warn(f"{told}. The run goes on there under a new lock; what it wrote before may be elsewhere.")

    def release(self) -> None:
        """Lets others in; a second call does nothing."""
        if self not in _held:
            return
        _held.remove(self)
        if self.file >= 0 and all(lock.file != self.file for lock in _held):
            with suppress(OSError):  # of a folder that has become read-only: an unlocked file keeps nobody out
                if _is_at(self.file, self.path):  # else the folder was replaced, and another run may hold it
                    self.path.unlink()  # while it is held: whoever has just opened it sees that it is gone
            os.close(self.file)


def _lock(path: Path) -> int:
    """Returns the open file that is locked; -1 where the file system knows no locks."""
    while True:
        refuse_other(path, links=False)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(file, 1000).decode(errors="replace").strip()
            os.close(file)
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise FolderInUseError(
                    f"{path.parent} is in use by another run ({holder or 'which has just started'}); wait for its end,"
                    " or take another folder."
                ) from None
            warn(f"{path.parent} cannot be locked ({error.strerror}): nothing keeps a second run out.")
            return -1
        if not _is_at(file, path):  # its last holder has removed it in between
            os.close(file)
            continue
        if os.pread(file, len(_CONTENT), 0).strip(b"\0") not in (b"", _CONTENT):  # zeros: of a loss of power
            os.close(file)
            told = "somebody else's file stands where the run's lock is to be: move it, or take another folder"
            raise FileExistsError(errno.EEXIST, told, str(path))
        with suppress(OSError):  # of a full disk: who holds it is only a courtesy
            os.ftruncate(file, 0)
            os.pwrite(file, _CONTENT + f"{os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        return file


def _is_at(file: int, path: Path) -> bool:
    """Tells whether an open file stands at a path."""
    try:
        return os.path.samestat(os.fstat(file), os.lstat(path))
    except (FileNotFoundError, NotADirectoryError):
        return False
