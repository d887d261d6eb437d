"""The files that a run has written under one name: which stay, and what points to the last."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from trainer import saving
from trainer.checks import attach, warn
from trainer.saving import SnapshotError, Stateful
from trainer.saving.files import inside, refuse_other, replace
from trainer.saving.snapshots import SnapshotFile

ERROR = "_error"  # ends the name of what was saved when training failed, where the name was taken


class SnapshotFiles(Stateful):
    """Deletes the older files of a run, each when a newer one is whole, and keeps a link to the last.

    Args:
        n_retains: How many are kept; -1 keeps all.
        link: Name of a symbolic link beside them, or None.
        on_write_error: ``"raise"``, or ``"warn"`` where the system could not write one (``OSError``).

    Raises:
        ValueError: If ``on_write_error`` is something else.

    Attributes:
        kept: Their names, oldest first: written by this run and not deleted.

    Example:
        >>> from extensions.snapshot_files import SnapshotFiles
        >>> files = SnapshotFiles(1, "newest")
        >>> for name in ("a", "b"):
        ...     files.add(name, tmp, lambda: (tmp / name).write_text(name))
        >>> sorted(path.name for path in tmp.iterdir()), (tmp / "newest").read_text()
        (['b', 'newest'], 'b')
    """

    saved = ("kept",)
    examples: ClassVar[dict[str, Any]] = {"kept": [""]}

    def __init__(self, n_retains: int, link: str | None, on_write_error: str = "raise") -> None:
        if on_write_error not in ("raise", "warn"):
            raise ValueError(f"on_write_error must be 'raise' or 'warn', got {on_write_error!r}.")
        self._on_write_error = on_write_error
        self.kept: list[str] = []
        self._n_retains = n_retains
        self.link = link
        self._jobs: list[tuple[str, Path, Any]] = []  # under way, with the futures that tell when they are written

    def add(self, name: str, folder: Path, write: Callable[[], Any]) -> None:
        """Has a file written; ``write`` may return a ``Future`` and go on in the background."""
        before = self.kept
        self.kept = [kept for kept in before if kept != name] + [name]  # what is being written may hold the list
        failed = False
        try:
            job = write()
        except BaseException as error:
            self.kept, failed = before, True
            job = Future()
            job.set_exception(error)
        self._jobs.append((name, folder, job))
        self.clear_up(wait=failed)  # what is still being written may have failed before it

    def clear_up(self, wait: bool = False) -> None:
        """Clears up after every file that is written; raises the first error, with the later ones as its notes."""
        first: BaseException | None = None
        while self._jobs and (wait or _is_done(self._jobs[0][2])):
            name, folder, job = self._jobs.pop(0)
            try:
                if isinstance(job, Future):
                    _wait_for(job, folder / name)
                self._clear_up(name, folder)
            except BaseException as error:
                if name in self.kept and not (folder / name).exists():
                    self.kept.remove(name)
                if self._on_write_error == "warn" and isinstance(error, OSError):
                    warn(f"no snapshot: {error}; those before it stay, and training goes on.")
                elif first is None:
                    first = error
                elif isinstance(error, Exception):
                    attach(first, error, f"the write of {name!r}")
                else:  # an interrupt comes before any failure
                    attach(error, first, "the write of a snapshot before")
                    first = error
        try:
            if first is not None:
                raise first
        finally:
            first = None  # it would hold itself, by this frame in its traceback

    def tidy(self, folder: Path, is_own: Callable[[str], bool]) -> None:
        """Clears up after the newest file that is there, which a run that was killed may not have come to.

        Args:
            folder: The run's.
            is_own: Tells which of the names that a snapshot brought along the run may have written.
        """
        if others := [name for name in self.kept if not is_own(name)]:
            warn(f"{', '.join(others)} of the snapshot's list of files: not named as this run's are, and so they stay.")
        self.kept = [name for name in self.kept if name not in others]
        there = [name for name in self.kept if (folder / name).exists()]
        if there:
            self._clear_up(there[-1], folder)

    @property
    def is_writing(self) -> bool:
        """Whether a file is under way in the background."""
        return not all(_is_done(job) for _, _, job in self._jobs)

    def _clear_up(self, name: str, folder: Path) -> None:
        if self.link is not None:  # before the file that it pointed to goes
            replace(folder / self.link, lambda temporary: temporary.symlink_to(name))
        if self._n_retains > 0 and name in self.kept:
            under_way = {name for name, _, _ in self._jobs}
            for stale in self.kept[: max(self.kept.index(name) + 1 - self._n_retains, 0)]:
                if stale in under_way:
                    continue
                try:
                    refuse_other(path := inside(folder, stale), links=False)
                except (FileExistsError, NotADirectoryError) as error:
                    warn(f"{folder / stale} was to be deleted, and stays: {error.strerror} ({error.filename}).")
                else:
                    path.unlink(missing_ok=True)
                    with suppress(OSError):  # of a snapshot that had a folder for itself
                        if path.parent != folder:
                            path.parent.rmdir()
                self.kept.remove(stale)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back the names, unless one leads out of the run's folder: these files are going to be deleted."""
        for name in state["kept"]:
            inside("of the run", name)
        super().load_state_dict(state)

    def finalize(self) -> None:
        """Waits for what is still being written; raises as :meth:`clear_up` does."""
        self.clear_up(wait=True)


def _is_done(job: Any) -> bool:
    return not isinstance(job, Future) or job.done()


def _wait_for(job: Future[Any], path: Path) -> None:
    try:
        job.result()
    except BrokenExecutor:
        told = f"{path}: the process that was writing it has died (the system kills what takes too much memory)"
        raise OSError(told) from None


def matching(out: Path, filename: str) -> list[Path]:
    """Returns the files in a folder whose names a format string could have made, the last written first.

    Anything else of such a name comes first, for :func:`load_first` to report. A link to one of the files is left out.

    Example:
        >>> from extensions.snapshot_files import matching
        >>> for name in ("model_9", "model_10", "other"):
        ...     (tmp / name).touch()
        >>> sorted(path.name for path in matching(tmp, "model_{.updater.epoch}"))
        ['model_10', 'model_9']
    """
    pattern = _pattern(Path(filename).name)
    paths = [p for folder in folders_of(out, filename) for p in folder.iterdir() if pattern.fullmatch(p.name)]
    paths = [path for path in paths if not path.name.endswith(ERROR)]
    files = [path for path in paths if path.is_file() and not path.is_symlink()]
    places = {os.path.realpath(path.parent) for path in paths}
    links = {path for path in paths if path.is_file() and os.path.dirname(os.path.realpath(path)) in places}
    files.sort(key=lambda path: (path.stat().st_mtime, _natural(path.name)), reverse=True)
    return [*sorted(set(paths) - links), *files]


def snapshots_in(
    out: Path, filename: str, order: Callable[[list[SnapshotFile]], list[Path]] | None = None
) -> list[Path]:
    """Returns the snapshots of runs in a folder, those of the last writing run first, newest iteration first.

    Anything else of a name that the format string could have made comes before them: it has lost its tail, or is no
    file. ``order`` may put the snapshots into another order.

    Example:
        >>> from extensions.snapshot_files import snapshots_in
        >>> from trainer import saving
        >>> for iteration in (900, 1000):
        ...     saving.save({}, tmp / f"snapshot_{iteration}", iteration=iteration)
        >>> (tmp / "snapshot_1100").touch()
        >>> [path.name for path in snapshots_in(tmp, "snapshot_{.updater.iteration}")]
        ['snapshot_1100', 'snapshot_1000', 'snapshot_900']
    """
    found = saving.find(*folders_of(out, filename))
    whole = [file.path for file in found] if order is None else order(found)
    return [path for path in matching(out, filename) if path not in whole] + whole


def load_first(paths: list[Path], load: Callable[[Path], object], tell: Callable[[str], object]) -> Path | None:
    """Loads the first whole file and returns its path; ``tell`` is given the reason for each that is passed over.

    Example:
        >>> import os
        >>> from extensions.snapshot_files import load_first, matching
        >>> from trainer import saving
        >>> os.symlink("/dev/null", tmp / "model_2")
        >>> saving.save_weights({}, tmp / "model_1")
        >>> path = load_first(matching(tmp, "model_{.updater.epoch}"), saving.load_weights, print)  # doctest: +ELLIPSIS
        /.../model_2 is a link: name what it leads to, or remove it.
        >>> path.name
        'model_1'
    """
    for path in paths:
        try:
            if path.is_symlink():
                raise SnapshotError(f"{path} is a link: name what it leads to, or remove it.")
            load(path)
        except SnapshotError as error:
            tell(str(error))
        else:
            return path
    return None


def folders_of(out: Path, filename: str) -> list[Path]:
    """Returns the folders in which the files of a format string may lie: several if it names the folder too.

    Example:
        >>> from extensions.snapshot_files import folders_of
        >>> for name in ("epoch_1", "epoch_2", "other"):
        ...     (tmp / name).mkdir()
        >>> sorted(folder.name for folder in folders_of(tmp, "epoch_{.updater.epoch}/snapshot"))
        ['epoch_1', 'epoch_2']
    """
    folders = [out] if out.is_dir() else []
    for part in Path(filename).parts[:-1]:
        pattern = _pattern(part)
        there = [path for folder in folders for path in folder.iterdir() if pattern.fullmatch(path.name)]
        folders = [path for path in there if path.is_dir() and not path.is_symlink()]
    return folders


def may_be(filename: str, name: str) -> bool:
    """Tells whether a format string could have made the name of a file, or that of another run's beside it.

    Example:
        >>> from extensions.snapshot_files import may_be
        >>> may_be("models/{.updater.epoch}", "models/3"), may_be("models/{.updater.epoch}", "log")
        (True, False)
    """
    return re.fullmatch(f"{_pattern(filename).pattern}(-[0-9a-f]{{16}})?", name) is not None


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(".+".join(map(re.escape, re.split(r"{[^}]*}", name))))


def _natural(name: str) -> list[Any]:
    """Returns a key by which 1000 comes after 900."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name)]
