"""Saves the run, or one object of it, to files."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import nn

from extensions.own_run import own_run_first
from extensions.snapshot_files import ERROR, SnapshotFiles, folders_of, load_first, matching, may_be, snapshots_in
from extensions.snapshot_writers import SimpleWriter
from trainer import Extension, Trainer, saving
from trainer.checks import warn
from trainer.extension import PHASE_OBJECT, PHASE_RUN
from trainer.mistakes import near_arguments
from trainer.saving.files import leads_out, refuse_other, remove_scraps
from trainer.saving.snapshots import free_path, read_tail
from trainer.saving.state import fitting
from trainer.updaters.modes import averaged_weights


class _Snapshot(Extension):
    """What :func:`snapshot` and :func:`snapshot_object` share."""

    trigger = (1, "epoch")
    priority = -100
    saved = ("_files",)
    _state: Callable[[Trainer], dict[str, Any]]  # what is to be saved
    _load: Callable[[Trainer, Path], None]
    _candidates: Callable[[Trainer], list[Path]]  # what to load, the first that is good

    def __init__(
        self,
        target: Any,
        filename: str | Callable[[Trainer], str],
        savefun: Callable[[Any, Any], object] | None,
        condition: Callable[[], bool] | None,
        writer: Callable[..., Any] | None,
        snapshot_on_error: bool,
        n_retains: int,
        autoload: bool,
        link: str | None,
        on_write_error: str,
    ) -> None:
        methods = ("state_dict", "load_state_dict") if autoload else ("state_dict",)
        if self.phase == PHASE_OBJECT and not all(hasattr(target, method) for method in methods):
            raise TypeError(
                f"target must be a model or another object with {' and '.join(methods)}, got {type(target).__name__};"
                " save the parts of a dict by a snapshot_object each."
            )
        if not isinstance(filename, str) and not callable(filename):
            raise TypeError(f"filename must be a string or a function of the trainer, got {filename!r}.")
        if isinstance(savefun, str):
            raise TypeError(f"savefun must be a function, got {savefun!r}; for a name write filename={savefun!r}.")
        if isinstance(filename, str) and leads_out(filename):
            raise ValueError(f"filename must lie in the run's folder, got {filename!r}: give Trainer another out.")
        if link is not None and (leads_out(link) or Path(link).name != link):
            raise ValueError(f"link must be a name in the run's folder, got {link!r}.")
        if savefun is not None and writer is not None:
            raise TypeError("savefun and writer cannot be given together: give savefun to the writer.")
        if not isinstance(n_retains, int) or n_retains == 0 or n_retains < -1:
            raise ValueError(f"n_retains must be 1 or more, or -1 for all, got {n_retains}.")
        if autoload and not isinstance(filename, str):
            raise ValueError("autoload needs a filename that is a string: a function does not tell which files match.")
        if autoload and savefun is not None:
            raise ValueError("autoload reads what is written without savefun; load your own format yourself.")
        self._target = target
        self._filename = filename
        self._condition = condition
        self._writer = SimpleWriter(savefun) if writer is None else writer
        self._snapshot_on_error = snapshot_on_error
        self._autoload = autoload
        self._files = SnapshotFiles(n_retains, link, on_write_error)
        self._has_started = False

    def __call__(self, trainer: Trainer) -> None:
        """Has a file written; when it is, those of this run beyond the last ``n_retains`` are deleted."""
        if self._condition is None or self._condition():
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        name = self._name(trainer)
        self._files.add(name, Path(trainer.out), lambda: self._write(trainer, name))

    def _write(self, trainer: Trainer, name: str) -> Any:
        trainer.path(name)
        return self._writer(name, trainer.out, self._state(trainer))

    def _name(self, trainer: Trainer) -> str:
        return self._filename(trainer) if callable(self._filename) else self._filename.format(trainer)

    def on_error(self, trainer: Trainer, exc: BaseException, tb: TracebackType | None) -> None:
        """With ``snapshot_on_error`` saves what there is; overwrites nothing, and does not count for ``n_retains``."""
        if self._snapshot_on_error:
            name = self._name(trainer)
            if name in self._files.kept or (Path(trainer.out) / name).exists():  # kept: perhaps still under way
                name += ERROR
            job = self._write(trainer, name)
            if isinstance(job, Future):
                job.result()  # there is no next snapshot that would raise what the writer meets with

    def finalize(self) -> None:
        """Waits for what is still being written."""
        try:
            self._files.finalize()
        finally:
            if finalize := getattr(self._writer, "finalize", None):
                finalize()

    def _is_own(self, trainer: Trainer, name: str) -> bool:
        """Tells whether this run may have written a file of this name, whatever a snapshot says."""
        return callable(self._filename) or may_be(self._filename, name)

    def restore(self, trainer: Trainer) -> None:
        """With ``autoload``, loads the newest good file; those that are not are named and passed over."""
        if isinstance(self._filename, str) and len(Path(self._filename).parts) > 1:
            for folder in folders_of(Path(trainer.out), self._filename):
                remove_scraps(folder)  # those in the run's own folder are gone
        if not self._autoload:
            return
        if not trainer.is_before_training:
            if self._target is not None and not self._has_started:
                warn(f"{self.name}: no autoload, for the run was resumed by name; load its file too.")
            return
        load = partial(self._load, trainer)
        load_first(self._candidates(trainer), load, lambda told: warn(f"autoload passes over a file: {told}"))

    def initialize(self, trainer: Trainer) -> None:
        """On a resume, forgets the files if they are in another folder, else deletes what the kill came before."""
        self._check_name(trainer)
        source = trainer.resumed_from
        if source is not None and not self._has_started:
            if trainer.is_resumed_in_place:
                self._files.tidy(Path(trainer.out), lambda name: self._is_own(trainer, name))
            else:
                self._files.kept = []
        self._has_started = True

    def _check_name(self, trainer: Trainer) -> None:
        """Refuses now what would fail at the first file; observed values are not there yet."""
        if self._files.link is not None:
            refuse_other(Path(trainer.out) / self._files.link)
        if callable(self._filename) or "observation" in self._filename:
            return
        try:
            if "<" in (name := self._filename.format(trainer)):  # an object that is no number or text
                raise ValueError(name)
            trainer.path(name)
        except (AttributeError, KeyError, IndexError, ValueError) as error:
            known = difflib.get_close_matches(getattr(error, "name", None) or "", dir(trainer.updater), 1, 0.8)
            if known or not isinstance(error, AttributeError):  # else the first update may set it
                meant = f"Did you mean {known[0]!r}?" if known else "Write '{.updater.iteration}', say."
                raise ValueError(f"filename {self._filename!r} does not fit the trainer ({error!r}). {meant}") from None

    @property
    def is_writing(self) -> bool:
        """Whether a writer in the background is still at work."""
        return self._files.is_writing

    def wait(self) -> None:
        """Waits for it."""
        self._files.clear_up(wait=True)

    @property
    def default_name(self) -> str:
        """The name in Chainer, of both."""
        return "_Snapshot"


class _RunSnapshot(_Snapshot):
    phase = PHASE_RUN  # after the other snapshots, whose lists of files it saves
    saves_run = True
    _has_made_way = False  # for files of another run

    def _name(self, trainer: Trainer) -> str:
        name = super()._name(trainer)
        path = Path(trainer.out) / name
        free = free_path(path, trainer.run_id)
        if free == path:
            return name
        if not self._has_made_way:
            self._has_made_way = True
            told = f"{path} is another run's and stays: this run's is {free.name}, and so on"
            other = "" if self._autoload else ", or snapshot(autoload=True),"
            warn(f"{told}; another folder{other} would be simpler.")
        return str(Path(name).with_name(free.name))

    def _state(self, trainer: Trainer) -> dict[str, Any]:
        return trainer.state_dict()

    def _load(self, trainer: Trainer, path: Path) -> None:
        trainer.resume(path, strict=True)

    def _candidates(self, trainer: Trainer) -> list[Path]:
        filename = str(self._filename)
        return snapshots_in(Path(trainer.out), filename, lambda found: own_run_first(trainer, found, filename))

    def _is_own(self, trainer: Trainer, name: str) -> bool:
        tail = read_tail(Path(trainer.out) / name)
        return super()._is_own(trainer, name) if tail is None else tail.run_id[:12] == trainer.run_id[:12]


class _ObjectSnapshot(_Snapshot):
    phase = PHASE_OBJECT

    def _state(self, trainer: Trainer) -> dict[str, Any]:
        if not isinstance(self._target, nn.Module):  # an optimizer, say, whose mode goes with the run's weights
            return self._target.state_dict()  # type: ignore[no-any-return]
        with averaged_weights(trainer.updater) as are_others:
            state = self._target.state_dict()
            return copy.deepcopy(state) if are_others else state  # a writer may read it only later

    def _load(self, trainer: Trainer, path: Path) -> None:
        state = saving.load_weights(path)
        with fitting(f"{path} does not fit {self.name}"):
            self._target.load_state_dict(state)

    def _candidates(self, trainer: Trainer) -> list[Path]:
        return matching(Path(trainer.out), str(self._filename))


@near_arguments
def snapshot(
    savefun: Callable[[Any, Any], object] | None = None,
    filename: str | Callable[[Trainer], str] = "snapshot_iter_{.updater.iteration}",
    *,
    target: Any = None,
    condition: Callable[[], bool] | None = None,
    writer: Callable[..., Any] | None = None,
    snapshot_on_error: bool = False,
    n_retains: int = -1,
    autoload: bool = False,
    link: str | None = None,
    on_write_error: str = "raise",
) -> Extension:
    """Returns an extension that saves the whole run. Chainer: ``extensions.snapshot``.

    It is taken when every other extension of the iteration has run, and written whole or not at all; never over
    another run's, beside which it gets the run's id. ``trainer.resume(path)`` loads it. To keep the best beside the
    last, use two; see the example.

    Args:
        savefun: Writes a format of your own, which neither ``resume`` nor ``autoload`` reads; as for
            :class:`~extensions.snapshot_writers.SimpleWriter`.
        filename: In the trainer's ``out``: a format string that is given the trainer, or a function of it.
        target: What to save in place of the run, as :func:`snapshot_object` does.
        condition: Asked without arguments each time; no snapshot is taken when it says False.
        writer: One of :mod:`extensions.snapshot_writers`, or a function of (filename, folder, state); by default
            ``SimpleWriter()``.
        snapshot_on_error: Take one also when training fails, whatever trigger and condition say. The iteration that
            failed may be half done in it: it is written over no other (``_error`` is added to the name), does not
            count for ``n_retains``, and ``autoload`` passes it over.
        n_retains: How many of the files that this run wrote are kept; -1 keeps all.
        autoload: Start from the newest good snapshot in ``out``, if there is one.
        link: Name of a symbolic link in ``out`` that is kept on the file last written.
        on_write_error: ``"raise"``, or ``"warn"`` to go on training when a file cannot be written, for want of space
            say. The files before it stay either way.

    Raises:
        TypeError: If ``savefun`` and ``writer`` are both given, or an argument is of the wrong kind.
        ValueError: If ``n_retains`` is 0, ``on_write_error`` not known, or ``autoload`` is asked with a function as
            filename or with ``savefun``.

    Example:
        >>> from extensions import snapshot
        >>> from trainer.triggers import MaxValueTrigger
        >>> run.extend(snapshot(filename="snapshot_epoch-{.updater.epoch}", n_retains=1))
        >>> best = snapshot(filename="best_epoch-{.updater.epoch}", n_retains=1, link="best")
        >>> run.extend(best, trigger=MaxValueTrigger("main/accuracy"))
        >>> run.run()
        >>> sorted(path.name.split("-")[0] for path in tmp.iterdir())
        ['best', 'best_epoch', 'snapshot_epoch']
    """
    target = None if isinstance(target, Trainer) else target
    kind = _RunSnapshot if target is None else _ObjectSnapshot
    return kind(
        target, filename, savefun, condition, writer, snapshot_on_error, n_retains, autoload, link, on_write_error
    )


@near_arguments
def snapshot_object(
    target: Any,
    filename: str | Callable[[Trainer], str],
    savefun: Callable[[Any, Any], object] | None = None,
    *,
    condition: Callable[[], bool] | None = None,
    writer: Callable[..., Any] | None = None,
    snapshot_on_error: bool = False,
    n_retains: int = -1,
    autoload: bool = False,
    link: str | None = None,
    on_write_error: str = "raise",
) -> Extension:
    """Returns an extension that saves one object's ``state_dict``. Chainer: ``extensions.snapshot_object``.

    The file is a plain one: ``torch.load(path, weights_only=True)`` reads it without Kusari. Of a model that a
    schedule-free optimizer trains, it holds the averaged weights, as its authors ask; the snapshot of a run holds those
    that training goes on from.

    Args:
        target: A model, or anything with ``state_dict`` and ``load_state_dict``.
        filename: As for :func:`snapshot`, and so are the others.
        savefun: Writes another format, such as safetensors'.
        condition: Whether to save this time.
        writer: Who writes.
        snapshot_on_error: Save also when training fails.
        n_retains: How many files are kept.
        autoload: Load the last written good file into the target before training.
        link: Name of a symbolic link to the file last written.
        on_write_error: What to do when a file cannot be written.

    Raises:
        TypeError: As :func:`snapshot`.
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
    return _ObjectSnapshot(
        target, filename, savefun, condition, writer, snapshot_on_error, n_retains, autoload, link, on_write_error
    )
