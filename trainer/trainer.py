"""The training loop, then the life of a run."""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from trainer import random
from trainer.checks import attach, headline, log, warn
from trainer.extension import PHASE_REPORT, always
from trainer.iterators.waiting import Interrupted
from trainer.registry import Registry
from trainer.reporter import THREAD, Reporter
from trainer.saving.files import make_folder, remove_scraps
from trainer.saving.lock import FolderLock
from trainer.summary import Observation
from trainer.triggers import ProgressTrigger, epoch_progress
from trainer.triggers.interval import PARTS
from trainer.updaters.modes import prepare_training, train_optimizers

MANY = 1000  # iterations: as many as an epoch may have that does not tell its length


class _Loop:
    """The training loop. What comes before and after it stands below, in :class:`Trainer`."""

    def run(self: Any, show_loop_exception_msg: bool = True) -> None:
        """Trains until the stop trigger fires.

        Args:
            show_loop_exception_msg: Whether an error in the loop is logged, in one line, before extensions are
                finalized, as well as raised afterwards.

        Raises:
            RuntimeError: If it has already run to its end.
            trainer.saving.lock.FolderInUseError: If another process runs in ``out``.
        """
        if self._phase == "over":
            raise RuntimeError("cannot run training loop multiple times; make a new Trainer.")
        if self._phase == "closed":  # it was interrupted, and goes on
            self._phase = "new"
        self._show_error = show_loop_exception_msg
        depth = len(THREAD.reporters)
        try:
            while not self.finished:
                with self.iteration():
                    self.updater.update()
        finally:
            del THREAD.reporters[depth:]  # of an iteration that was interrupted where it begins or ends
            self.finalize()  # nothing is left to close, unless the loop was interrupted between two iterations

    def __enter__(self: Any) -> None:
        """Begins an iteration: what is reported from here on is observed in it."""
        if self._phase in ("new", "closed"):
            self._start()
        if self._phase != "running":
            raise RuntimeError(
                "training is over; end the loop with: while not trainer.finished. Leave a loop within it by: if"
                " trainer.finished: break."
            )
        if self._are_calls_stale:
            self._order_calls()
        self._before = self.updater.iteration
        self._outer = self.reporter.observation
        self.observation = self.reporter.observation = Observation()
        THREAD.reporters.append(self.reporter)

    def __exit__(self: Any, kind: object, error: BaseException | None, tb: object) -> None:
        """Does what follows the update: calls the plug-ins, the stop trigger and the snapshots, each if it is due."""
        try:
            if error is None and self.updater.iteration == self._before:  # a block without updater.update()
                self._complete_update()
            self.reporter.observation.weight = getattr(self.updater, "batch_size", 1)
            for trigger, extension in self._calls if error is None else ():
                if trigger is always or trigger(self):
                    extension(self)
        except BaseException as raised:
            error = raised
            raise
        finally:
            THREAD.reporters.pop().observation = self._outer
            if error is not None:
                self._fail(error)
            error = None  # it would hold itself, by this frame in its traceback
            self._done = self.updater.iteration
        if self._is_over:
            self.finalize()


class Trainer(_Loop, Registry):
    """Repeats updates until a trigger says stop, and calls the extensions after each. Chainer: ``training.Trainer``.

    The order of one iteration: a fresh ``observation`` and one update; the extensions, highest priority first, each
    trigger asked right before its extension; the stop trigger; the snapshots.

    The run trains what its optimizers hold: at the start a predictor that is in eval mode with all its modules is put
    into training mode, with a warning; one such part of it, under a parent in training mode, is only warned of.
    Parameters of the models that are in no optimizer, and those of an optimizer in no model, are warned of too. A
    schedule-free optimizer (with ``train()`` and ``eval()`` of its own) trains in its training mode: after a run call
    ``optimizer.eval()`` for the averaged weights. Evaluator and ``snapshot_object`` switch by themselves.

    Args:
        updater: Does one update, as :class:`~trainer.StandardUpdater`: anything with ``update()``, ``iteration``,
            ``epoch`` and ``epoch_detail``. Used where it has them: ``get_all_models`` (whose reports get names),
            ``get_all_optimizers`` (what is trained), ``connect_trainer`` (called with the trainer), ``finalize``,
            ``state_dict`` and ``load_state_dict``.
        stop_trigger: ``(10, "epoch")`` stops when ten epochs are reached; a function of the trainer stops when it
            returns True; None never.
        out: Folder of whatever the extensions write; made at the start. One process at a time runs in it.
        extensions: Extensions to register.

    Attributes:
        updater: As given.
        out: As given; absolute from the start of the run on, so that a ``chdir`` changes nothing.
        observation: The values observed in this iteration, by name.
        reporter: What ``report`` reports to during an iteration.
        args: What the run was asked for and its results depend on, plain values by name: a script may put its own in.
            They are kept in the snapshots; a resume with others is warned of.
        run_id: Names the run in its snapshots: drawn at a fresh start, kept by a resumed run; the last four digits
            count how often it has gone back to an older snapshot.
        resumed_from: The snapshot file that was loaded, or None.
        start: Where this process began: ``"iteration"`` and ``"epoch"`` as a fraction's two integers, ``"time"`` in
            seconds. A trigger that is new to a resumed run counts from there.

    Example:
        >>> import torch
        >>> from trainer import Classifier, StandardUpdater, Trainer
        >>> from trainer.iterators import SerialIterator
        >>> model = Classifier(torch.nn.Linear(2, 3))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> data = [(torch.rand(2), i % 3) for i in range(10)]
        >>> updater = StandardUpdater(SerialIterator(data, 5), optimizer, model=model)
        >>> run = Trainer(updater, (3, "epoch"), out=tmp)
        >>> run.extend(lambda trainer: print("epoch", trainer.updater.epoch), trigger=(1, "epoch"))
        >>> run.run()
        epoch 1
        epoch 2
        epoch 3
    """

    def __init__(
        self, updater: Any, stop_trigger: Any = None, out: str | Path = "result", extensions: Any = ()
    ) -> None:
        super().__init__()
        if not (hasattr(updater, "update") and hasattr(updater, "iteration")):
            kind = type(updater).__name__
            raise TypeError(f"updater must have update() and iteration, got {kind}; e.g. StandardUpdater(...).")
        if not isinstance(out, (str, Path)) or out == "":
            raise TypeError(f"out must name a folder, got {out!r}.")
        self.updater = updater
        self._phase = "new"  # then "running", then "over", or "closed" if it ended otherwise
        self.stop_trigger = stop_trigger
        self.out = out
        self.observation = Observation()
        self.reporter = Reporter()
        self._register_models()
        self.args: dict[str, Any] = {}
        self.run_id = secrets.token_hex(6) + "0000"
        self.resumed_from = None
        self.start: dict[str, Any] = {}

        self._closers: list[Callable[[], None]] = []  # of what is running, in the order of its start
        self._show_error = True
        self._is_over = False
        self._elapsed: float = 0.0  # before this start; after the end, all of it
        self._untouched: tuple[int, int] | None = None  # epoch progress at the start; None once it has advanced
        self._error: str | None = None  # in which the iteration under way has failed
        self._random: dict[str, Any] | None = None  # loaded, to be put back when everything is initialized

        train_optimizers(updater)  # before anything is loaded: a snapshot holds the weights of training mode
        if connect := getattr(updater, "connect_trainer", None):
            connect(self)
        for extension in extensions or ():
            self.extend(extension)

    @property
    def finished(self) -> bool:
        """Whether training is over; the first question starts the run. A run resumed at or past its end is over."""
        if self._phase == "new":
            self._start()
        elif self._phase == "running":
            if self.updater.iteration != self._done:
                raise RuntimeError(
                    "an update was made outside of an iteration, so no extension was called: write, in the loop, with"
                    " trainer.iteration(): trainer.updater.update()."
                )
            if self._is_over:  # the end was moved between two iterations
                self.finalize()
        return self._phase == "over"

    def iteration(self) -> AbstractContextManager[None]:
        """One iteration: the block is the update, then come the extensions. ``run`` is made of these.

        Example:
            Your own loop, with the same extensions, log and resume as ``run``::

                while not trainer.finished:
                    with trainer.iteration():
                        x, t = updater.next_batch()
                        optimizer.zero_grad()
                        model(x, t).backward()
                        optimizer.step()

        Raises:
            RuntimeError: If training is over.
        """
        return self

    # -- the update

    def _ask_stop(self, resumed: bool = False) -> None:
        """Asks the stop trigger whether the end is reached; one with ``reached()`` can be extended on a resume."""
        trigger = self._stop_trigger
        if isinstance(trigger, ProgressTrigger):  # it needs no memory for this
            self._is_over = trigger.reached(self)
            return
        if not (resumed and self._stop_entry.triggers()):  # else it was asked, before the save
            self._stop_fired = bool(trigger(self)) or self._stop_fired
        reached = getattr(trigger, "reached", None)
        self._is_over = self._stop_fired if reached is None else bool(reached(self))

    def _register_models(self) -> None:
        for name, model in getattr(self.updater, "get_all_models", dict)().items():
            self.reporter.add_model(name, model)

    def _complete_update(self) -> None:
        if hasattr(self.updater, "complete_update"):
            self.updater.complete_update()
        else:
            self.updater.iteration += 1
        if self._untouched is not None:
            self._look_whether_epochs_pass(self._untouched)

    def _look_whether_epochs_pass(self, place: tuple[int, int]) -> None:
        """Warns a loop of one's own that takes no batch from the updater, after as many iterations as an epoch has."""
        self._untouched = place if epoch_progress(self.updater) == place else None
        done, per = self.updater.iteration - self.start["iteration"][0], place[1]
        iterator = self.updater.get_iterator("main") if hasattr(self.updater, "get_iterator") else None
        batches = -(-per // (getattr(iterator, "batch_size", None) or 1))
        if self._untouched is not None and done >= (batches if 1 < per < PARTS else MANY):
            self._untouched = None
            warn(
                f"{done} iterations, and no batch was taken from the updater: its epochs do not pass, and a trigger"
                " such as (1, 'epoch') never fires. Take the batches from it, batch = trainer.updater.next_batch(), or"
                " count iterations: (1000, 'iteration')."
            )

    # -- start and end

    def _start(self) -> None:
        """Opens what the run needs: state first, then every extension, highest priority first."""
        self.out = type(self.out)(os.path.abspath(self.out))
        make_folder(self.out)
        self._lock = lock = FolderLock(self.out)
        self._clean = {Path(self.out)}
        self._order_calls()
        self._start_time = time.perf_counter()
        self._phase = "running"
        self._error = None
        self._closers = [lock.release, getattr(self.updater, "finalize", lambda: None)]
        try:
            if lock.is_first:
                remove_scraps(self.out)
            # MKL may choose fewer threads until a number is set; an iterator that fetches in this process sets one.
            torch.set_num_threads(torch.get_num_threads())
            self._register_models()  # once more: it may have been compiled since, or have other parts
            self._open_extensions()
            self._snapshots.make_up(self)
            self._done = self.updater.iteration
            self._ask_stop(resumed=not self.is_before_training)
            self._tell_resume()
        except BaseException as error:
            self._close(error)
            raise
        if self._is_over:
            self.finalize()

    def _open_extensions(self) -> None:
        updater, entries = self.updater, self._ordered()
        for entry in entries:
            entry.hook("restore")(self)
        entries = self._ordered()  # with those that were registered just now
        prepare_training(updater)
        self.check_savable(self.extensions)
        self.start = {"iteration": (updater.iteration, 1), "time": self._elapsed}
        if self.has_epoch_trigger or getattr(updater, "get_all_iterators", lambda: True)():
            self.start["epoch"] = epoch_progress(updater)
            self._untouched = self.start["epoch"] if self.has_epoch_trigger else None
        self._is_open = True
        for entry in sorted(entries, key=lambda entry: -entry.priority):
            entry.hook("initialize")(self)
            self._closers.append(entry.hook("finalize"))
        self.warn_of_unclaimed()
        if self.is_before_training and self._random is None:
            first = [entry for entry in self._ordered() if entry.call_before_training]
            with self.reporter.scope(self.observation):
                for _, call in self._lay_out(first):
                    call(self)
                for entry in first:
                    if entry.order[0] > PHASE_REPORT:
                        entry.extension(self)
            self.observation = Observation()  # the stop trigger is not asked of what was before the first update
        if self._random is not None:  # only now: what was initialized may have drawn
            random.restore(self._random)
            self._random = None

    def finalize(self) -> None:
        """Closes everything; a loop of your own calls it if it ends before the stop trigger fires."""
        if error := self._close():
            raise error

    def _fail(self, error: BaseException) -> None:
        """Calls every extension's ``on_error``, then closes all."""
        if isinstance(error, Exception):
            self._error = repr(error)
            if self._show_error:
                what = f"Exception in main training loop: {headline(error)}"
                log(logging.ERROR, f"{what}; finalizing the extensions before it is raised.")
            for entry in self._ordered():
                try:
                    entry.hook("on_error")(self, error, error.__traceback__)
                except Exception as other:
                    attach(error, other, f"on_error of {entry.name!r}")
        try:
            if isinstance(error, Interrupted):
                error.before_closing(self)
        finally:
            self._close(error)

    def _close(self, first: BaseException | None = None) -> BaseException | None:
        """Finalizes everything in the reverse order of its start; returns the first error, with the others on it."""
        self._is_open = False
        if self._phase == "running":
            self._elapsed = self.elapsed_time
            self._phase = "over" if self._is_over and first is None else "closed"
        while self._closers:
            try:
                self._closers.pop()()
            except Exception as error:
                if first is None:
                    first = error
                else:
                    attach(first, error, "finalize")
        return first

    # -- what the extensions ask

    @property
    def is_before_training(self) -> bool:
        """Whether no update was done yet, in this process or before a resume."""
        return bool(self.updater.iteration == 0)

    @property
    def is_resumed_in_place(self) -> bool:
        """Whether the snapshot that was loaded lies in ``out``, with the other files of the run."""
        return self.resumed_from is not None and self.resumed_from.resolve().is_relative_to(Path(self.out).resolve())

    @property
    def elapsed_time(self) -> float:
        """Seconds of training, those before a resume included.

        Raises:
            RuntimeError: If training has not been started yet.
        """
        if self._phase == "running":
            return time.perf_counter() - self._start_time + self._elapsed
        if self._phase == "new":
            raise RuntimeError("training has not been started yet")
        return self._elapsed
