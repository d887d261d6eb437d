"""Saves the run, or one object of it, to files."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from trainer import Extension, Trainer, checkpoint
from trainer.checkpoint import SnapshotError


class _Snapshot(Extension):
    """What :func:`snapshot` and :func:`snapshot_object` share: names, retention, autoload."""

    trigger = (1, "epoch")
    priority = -100
    runs_last: int = True

    def __init__(self, target: Any, filename: str | Callable[[Trainer], str], n_retains: int, autoload: bool) -> None:
        if n_retains == 0 or n_retains < -1:
            raise ValueError(f"n_retains must be 1 or more, or -1 for all, got {n_retains}.")
        if autoload and not isinstance(filename, str):
            raise ValueError("autoload needs a filename that is a string: a function does not tell which files match.")
        self._target = target
        self._filename = filename
        self._n_retains = n_retains
        self._autoload = autoload
        self._kept: list[str] = []  # written by this run and not deleted, oldest first

    def __call__(self, trainer: Trainer) -> None:
        """Writes a file, then deletes those of this run beyond the last ``n_retains``."""
        name = self._filename(trainer) if callable(self._filename) else self._filename.format(trainer)
        before = self._kept
        self._kept = [kept for kept in before if kept != name] + [name]
        try:
            self._save(trainer, Path(trainer.out) / name)
        except BaseException:
            self._kept = before
            raise
        while 0 < self._n_retains < len(self._kept):
            (Path(trainer.out) / self._kept.pop(0)).unlink(missing_ok=True)

    def _save(self, trainer: Trainer, path: Path) -> None:
        raise NotImplementedError

    def _load(self, trainer: Trainer, path: Path) -> None:
        raise NotImplementedError

    def _candidates(self, folder: Path) -> list[Path]:
        raise NotImplementedError

    def restore(self, trainer: Trainer) -> None:
        """With ``autoload``, loads the newest good file; those that are not are named and passed over."""
        if not self._autoload or not trainer.is_before_training or not Path(trainer.out).is_dir():
            return
        for path in self._candidates(Path(trainer.out)):
            try:
                self._load(trainer, path)
            except SnapshotError as error:
                warnings.warn(f"autoload passes over a file: {error}", stacklevel=2)
            else:
                return

    def initialize(self, trainer: Trainer) -> None:
        """Forgets the files of a run that was resumed from another folder: those here are not its own."""
        source = trainer.resumed_from
        if source is not None and source.parent.resolve() != Path(trainer.out).resolve():
            self._kept = []

    @property
    def default_name(self) -> str:
        """The name in Chainer, of both."""
        return "_Snapshot"

    def _matching(self, folder: Path) -> list[Path]:
        """Returns the files whose names the filename could have made, the last written first."""
        assert isinstance(self._filename, str)
        fixed = re.split(r"{[^}]*}", self._filename)
        pattern = re.compile(".+".join(map(re.escape, fixed)))
        paths = [path for path in folder.iterdir() if pattern.fullmatch(path.name) and path.is_file()]
        return sorted(paths, key=lambda path: (path.stat().st_mtime, _natural(path.name)), reverse=True)

    def state_dict(self) -> dict[str, Any]:
        """Returns the names of the files that were written and not deleted."""
        return {"kept": self._kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what :meth:`state_dict` returned."""
        self._kept = list(state["kept"])


def _natural(name: str) -> list[Any]:
    """Returns a key by which 1000 comes after 900."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name)]


class _RunSnapshot(_Snapshot):
    runs_last = 2  # after the other snapshots, whose lists of files it saves

    def _save(self, trainer: Trainer, path: Path) -> None:
        checkpoint.save(trainer.state_dict(), path, run_id=trainer.run_id, iteration=trainer.updater.iteration)

    def _load(self, trainer: Trainer, path: Path) -> None:
        trainer.resume(path)

    def _candidates(self, folder: Path) -> list[Path]:
        """Snapshots by run and iteration; first of all, to be named, what has lost its tail."""
        whole = [file.path for file in checkpoint.find(folder)]
        return [path for path in self._matching(folder) if path not in whole] + whole


class _ObjectSnapshot(_Snapshot):
    def _save(self, trainer: Trainer, path: Path) -> None:
        state = self._target.state_dict()
        checkpoint.check(state)
        checkpoint.write(path, lambda file: torch.save(state, file))

    def _load(self, trainer: Trainer, path: Path) -> None:
        self._target.load_state_dict(checkpoint.load_weights(path))

    def _candidates(self, folder: Path) -> list[Path]:
        return self._matching(folder)


def snapshot(
    filename: str | Callable[[Trainer], str] = "snapshot_iter_{.updater.iteration}",
    *,
    n_retains: int = -1,
    autoload: bool = False,
) -> Extension:
    """Returns an extension that saves the whole run. Chainer: ``extensions.snapshot``.

    It is taken when every other extension of the iteration has run, and written whole or not at all.
    ``trainer.resume(path)`` loads it.

    Args:
        filename: In the trainer's ``out``: a format string that is given the trainer, or a function of it.
        n_retains: How many of the files that this run wrote are kept; -1 keeps all.
        autoload: Start from the newest good snapshot in ``out``, if there is one.

    Raises:
        ValueError: If ``n_retains`` is 0, or ``autoload`` is asked with a function as filename.

    Example:
        >>> from extensions import snapshot
        >>> run.extend(snapshot("snapshot_epoch-{.updater.epoch}", n_retains=1))
        >>> run.run()
        >>> [path.name for path in tmp.iterdir()]
        ['snapshot_epoch-2']
    """
    return _RunSnapshot(None, filename, n_retains, autoload)


def snapshot_object(
    target: Any,
    filename: str | Callable[[Trainer], str],
    *,
    n_retains: int = -1,
    autoload: bool = False,
) -> Extension:
    """Returns an extension that saves one object's ``state_dict``. Chainer: ``extensions.snapshot_object``.

    The file is a plain one: ``torch.load(path, weights_only=True)`` reads it, with nothing of ours.

    Args:
        target: A model, or anything with ``state_dict`` and ``load_state_dict``.
        filename: As for :func:`snapshot`.
        n_retains: As for :func:`snapshot`.
        autoload: Load the last written good file into the target before training.

    Raises:
        ValueError: As :func:`snapshot`.

    Example:
        >>> import torch
        >>> from extensions import snapshot_object
        >>> model = run.updater.get_model("main")
        >>> run.extend(snapshot_object(model.predictor, "model_epoch-{.updater.epoch}"))
        >>> run.run()
        >>> sorted(torch.load(tmp / "model_epoch-2", weights_only=True))
        ['bias', 'weight']
    """
    return _ObjectSnapshot(target, filename, n_retains, autoload)
