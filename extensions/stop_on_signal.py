"""Saves a run and stops it on a signal."""

from __future__ import annotations

import _thread
import atexit
import copy
import logging
import signal
import sys
import threading
import time
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from extensions import terminal
from extensions.snapshot_writers import SimpleWriter
from trainer import Extension, StandardUpdater, Trainer, random, saving
from trainer.checks import log
from trainer.extension import PHASE_EXIT
from trainer.iterators.serial import BaseIterator
from trainer.iterators.sources import has_state
from trainer.iterators.waiting import Interrupted, is_waiting, is_within
from trainer.iterators.workers import SIGNALS
from trainer.saving.snapshots import free_path

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: "try again later"; no signal and no error of Python's ends with it
PATIENCE = 4.0  # seconds that data may take after a signal: schedulers kill, some after 10 s
_BREAK = signal.SIGUSR1  # what breaks off the wait


class StopOnSignal(Extension):
    """On SIGTERM, SIGINT (Ctrl-C) or SIGUSR1 finishes the iteration, saves the run and exits with code 75.

    Schedulers send these before they take a machine away; Slurm's ``--signal=USR1@60`` does a minute ahead. The
    other snapshots of the iteration are taken first, then all extensions are finalized. A second SIGINT stops at
    once. The file is found by ``snapshot(autoload=True)``, as the newest of the run, and by ``trainer.resume``.

    An iteration that waits for data (the file server is dead, say) is left 4 seconds after the signal. The run is then
    saved as it was at the start of the iteration. If the iteration has done more than fetch, such as the step of one
    of two optimizers, nothing is written, and the last snapshot is named.

    Args:
        filename: In the trainer's ``out``. There is one such file, written anew at each stop.
        advice: Logged when the run was stopped: how to go on.

    Raises:
        RuntimeError: When the run starts, if that is not in the main thread: nowhere else may signals be handled.

    Example:
        >>> import signal
        >>> from extensions import StopOnSignal
        >>> run.extend(StopOnSignal())
        >>> run.extend(lambda trainer: signal.raise_signal(signal.SIGTERM), name="preempt")
        >>> try:
        ...     run.run()
        ... except SystemExit as stop:
        ...     print(stop.code, run.updater.iteration, [path.name for path in tmp.iterdir()])
        75 1 ['snapshot_stopped']
    """

    phase = PHASE_EXIT  # after the snapshots, whose lists of files it saves
    priority = 1000  # the first to be initialized, so the last to be finalized: a writer may take its time

    def __init__(self, filename: str = "snapshot_stopped", advice: str = "resume it from there.") -> None:
        self.filename = filename
        self.advice = advice
        self._received: list[int] = []
        self._has_stopped = False
        self._before: dict[int, Any] = {}  # what handled the signals until now
        self._start: _Start | None = None
        self._deadline = 0.0  # of data that are waited for
        self._reason = ""  # why the iteration that was left could not be saved
        self._lock = threading.Lock()

    def initialize(self, trainer: Trainer) -> None:
        """Takes over the signals."""
        self._received, self._has_stopped, self._reason = [], False, ""
        trainer.path(self.filename)  # what stands in its way is told now
        try:
            self._before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        except ValueError as error:
            raise RuntimeError("StopOnSignal works in the main thread only: leave it out here.") from error
        self._start = _Start(trainer)

    def _receive(self, number: int, frame: Any) -> None:
        if number == signal.SIGINT and number in self._received:
            raise KeyboardInterrupt
        self._received.append(number)
        if len(self._received) == 1:  # no threading.Thread: the handler may have come amid the start of another
            self._deadline = time.monotonic() + PATIENCE
            _thread.start_new_thread(self._watch, (threading.get_ident(),))
        elif number == _BREAK and time.monotonic() > self._deadline and is_waiting(frame):
            self._reason = "the run had not begun"
            raise Interrupted(EXIT_CODE, self._leave)

    def _watch(self, main: int) -> None:
        """Breaks off the main thread's wait for data."""
        while True:
            time.sleep(0.2)
            with self._lock:
                if not self._before:  # the signals are given back
                    return
                if time.monotonic() > self._deadline and is_waiting(sys._current_frames().get(main)):
                    signal.pthread_kill(main, _BREAK)

    def _leave(self, trainer: Trainer) -> None:
        """Saves the run as it was when the iteration began that waits for data."""
        assert self._start is not None
        self._reason = self._start.go_back()
        if not self._reason:
            self._save(trainer, f"; the data of the next did not come within {PATIENCE:.0f} seconds")

    @property
    def saves_run(self) -> bool:
        """Whether it is going to."""
        return bool(self._received)

    def __call__(self, trainer: Trainer) -> None:
        """If there was a signal, saves the run and ends it."""
        if not self._received:
            assert self._start is not None
            self._start.renew()
            return
        self._save(trainer)
        raise SystemExit(EXIT_CODE)

    def _save(self, trainer: Trainer, why: str = "") -> None:
        path = free_path(trainer.path(self.filename), trainer.run_id)
        SimpleWriter()(path.name, path.parent, trainer.state_dict())
        self._end(f"after iteration {trainer.updater.iteration}{why}. The run is saved in {path}: {self.advice}")

    def _end(self, told: str) -> None:
        self._has_stopped = True
        atexit.register(_ignore_signals)  # the interpreter takes its time to end
        log(logging.WARNING, f"Stopped by {signal.Signals(self._received[0]).name} {told}")
        terminal.flush()  # where that is gone, it would make another exit code

    def _tell_unsaved(self, trainer: Trainer, iteration: int) -> None:
        own = [file.path for file in saving.find(trainer.out) if file.run_id[:12] == trainer.run_id[:12]]
        last = [*own, trainer.resumed_from][0]
        told = f"the last snapshot is {last}: {self.advice}" if last else "there is no snapshot yet."
        left = f"in iteration {iteration + 1}, for data that did not come within {PATIENCE:.0f} seconds"
        self._end(f"{left}. It is not saved, because {self._reason}; {told}")

    def finalize(self) -> None:
        """Gives the signals back; after a stop only SIGINT, for the others would end what is left of the process."""
        start, self._start = self._start, None
        if start is not None:
            start.close()
            if self._reason:  # by now the other snapshots are written
                self._tell_unsaved(start.trainer, start.iteration)
        with self._lock:
            before, self._before = self._before, {}
        for number, handler in before.items():
            if number == signal.SIGINT or not self._has_stopped:
                signal.signal(number, handler)
        if self._received and not self._has_stopped:  # in the last iteration, or one that failed: it ends anyway
            log(logging.WARNING, f"{signal.Signals(self._received[0]).name} came when the run was ending.")


class _Start:
    """Where an iteration began, and what tells whether more than fetching was done in it since.

    The update of ``StandardUpdater`` fetches before it does anything else. Of another, or in a loop of one's own, the
    versions of parameters and buffers and the optimizers' steps tell; random generators are put back. That takes 20 to
    40 us an iteration.
    """

    def __init__(self, trainer: Trainer) -> None:
        updater: Any = trainer.updater
        names = ("update", "update_core", "next_batch", "fetch")
        is_usual = all(getattr(type(updater), name, None) is getattr(StandardUpdater, name) for name in names)
        self.trainer = trainer
        self._fetches_first = is_usual and is_within(sys._getframe(), Trainer.run.__code__)
        self._fetches_once = self._fetches_first and updater.accumulate == 1
        self._iterators: dict[str, Any] = getattr(updater, "get_all_iterators", dict)()
        models: dict[str, nn.Module] = getattr(updater, "get_all_models", dict)()
        tensors = [t for model in models.values() for t in (*model.parameters(), *model.buffers())]
        self._tensors = [t for t in tensors if is_lazy(t) or not t.is_inference()]  # else they have no version
        optimizers: dict[str, Any] = {} if self._fetches_first else getattr(updater, "get_all_optimizers", dict)()
        own = [optimizer for optimizer in optimizers.values() if isinstance(optimizer, Optimizer)]
        self._hooks = [optimizer.register_step_post_hook(self._count_step) for optimizer in own]
        self.renew()
        self._put_back: Any = None  # not yet: the generators are restored after this

    def renew(self) -> None:
        """An iteration begins."""
        self.iteration, self._n_steps = self.trainer.updater.iteration, 0
        if not self._fetches_once:
            own = {name: each for name, each in self._iterators.items() if isinstance(each, BaseIterator)}
            self._cursors = {name: copy.copy(iterator) for name, iterator in own.items()}
        if not self._fetches_first:
            self._put_back, self._versions = random.mark(cuda=True), self._versions_now()

    def _versions_now(self) -> list[int]:
        return [tensor._version for tensor in self._tensors]

    def _count_step(self, *args: object) -> None:
        self._n_steps += 1

    def go_back(self) -> str:
        """Puts the iterators back to where the iteration began, or says why that is not enough."""
        if self.trainer.updater.iteration != self.iteration:
            return "its update is done"
        if self._n_steps:
            return "an optimizer has stepped in it"
        if not self._fetches_first:
            if self._put_back is None:
                return "it is the first since the start"
            if self._versions_now() != self._versions:
                return "it has changed the model"
            self._put_back()
        for name, iterator in self._iterators.items():
            if not isinstance(iterator, BaseIterator):
                return f"the position of its iterator, {type(iterator).__name__}, is unknown"
            start, loader = iterator if self._fetches_once else self._cursors[name], getattr(iterator, "loader", None)
            if (start.epoch, start.current_position) != (iterator.epoch, iterator.current_position):
                if has_state(loader):
                    return f"its {type(loader).__name__} cannot go back"
                iterator.load_state_dict(start.state_dict())
        return ""

    def close(self) -> None:
        """Counts no more steps."""
        for hook in self._hooks:
            hook.remove()


def _ignore_signals() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
