"""Saves a run and stops it on a signal."""

from __future__ import annotations

import atexit
import logging
import signal
from typing import Any

from extensions import terminal
from extensions.snapshot_writers import SimpleWriter
from trainer import Extension, Trainer
from trainer.checks import log
from trainer.extension import PHASE_EXIT
from trainer.iterators.workers import SIGNALS
from trainer.saving.snapshots import free_path

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: "try again later"; no signal and no error of Python's ends with it


class StopOnSignal(Extension):
    """On SIGTERM, SIGINT (Ctrl-C) or SIGUSR1 finishes the iteration, saves the run and exits with code 75.

    Schedulers send these before they take a machine away; Slurm's ``--signal=USR1@60`` does a minute ahead. The
    other snapshots of the iteration are taken first, then all extensions are finalized. A second SIGINT stops at
    once. The file is found by ``snapshot(autoload=True)``, as the newest of the run, and by ``trainer.resume``.

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

    def initialize(self, trainer: Trainer) -> None:
        """Takes over the signals."""
        trainer.path(self.filename)  # what stands in its way is told now
        self._received, self._has_stopped = [], False
        try:
            self._before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        except ValueError as error:
            raise RuntimeError("StopOnSignal works in the main thread only: leave it out here.") from error

    def _receive(self, number: int, frame: Any) -> None:
        if number == signal.SIGINT and number in self._received:
            raise KeyboardInterrupt
        self._received.append(number)

    @property
    def saves_run(self) -> bool:
        """Whether it is going to."""
        return bool(self._received)

    def __call__(self, trainer: Trainer) -> None:
        """If there was a signal, saves the run and ends it."""
        if not self._received:
            return
        path = free_path(trainer.path(self.filename), trainer.run_id)
        SimpleWriter()(path.name, path.parent, trainer.state_dict())
        name = signal.Signals(self._received[0]).name
        self._has_stopped = True
        atexit.register(_ignore_signals)  # the interpreter takes its time to end
        told = f"Stopped by {name} after iteration {trainer.updater.iteration}."
        log(logging.WARNING, f"{told} The run is saved in {path}: {self.advice}")
        terminal.flush()  # where that is gone, it would make another exit code
        raise SystemExit(EXIT_CODE)

    def finalize(self) -> None:
        """Gives the signals back; after a stop only SIGINT, for the others would end what is left of the process."""
        before, self._before = self._before, {}
        for number, handler in before.items():
            if number == signal.SIGINT or not self._has_stopped:
                signal.signal(number, handler)
        if self._received and not self._has_stopped:  # in the last iteration, or one that failed: it ends anyway
            log(logging.WARNING, f"{signal.Signals(self._received[0]).name} came when the run was ending.")


def _ignore_signals() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
