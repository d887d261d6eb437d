"""Worker processes that outlive the signals of their job, and whose death is told where the next batch is taken."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing import connection, resource_tracker
from typing import Any

from torch._C import _remove_worker_pids, _set_worker_pids
from torch.utils.data import DataLoader

# What schedulers and Ctrl-C send to every process of a job: only the training process is to act on it.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Workers:
    """One pass over a ``DataLoader`` that has workers.

    torch's ``SIGCHLD`` handler raises an error for a dead worker wherever the main thread is: in the middle of a step
    of the optimizer, or of writing a snapshot. So torch is told of the workers only while a batch is waited for; there
    it has to interrupt, for the reader of a message whose writer was killed would wait for ever.

    Args:
        loader: With ``num_workers`` of 1 or more; its ``worker_init_fn`` is called too.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        self._batches: Any = loader._iterator  # persistent workers, if they were started before
        given = loader.worker_init_fn
        loader.worker_init_fn = partial(_begin, given)
        try:
            with _blocked_signals():
                if (loader.multiprocessing_context or multiprocessing).get_start_method() != "fork":
                    resource_tracker.ensure_running()  # now, for its start unblocks signals
                    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
                self._attentively(lambda: self._start(loader))
        finally:
            loader.worker_init_fn = given

    def _start(self, loader: DataLoader[Any]) -> None:
        before = multiprocessing.active_children()
        try:
            self._batches = iter(loader)
        finally:
            for process in multiprocessing.active_children():
                if process not in before:
                    # What ends a stuck worker, in torch and at the interpreter's exit: SIGTERM would do nothing.
                    worker: Any = process
                    worker._popen.terminate = partial(os.kill, worker.pid, signal.SIGKILL)

    def __iter__(self) -> Workers:
        return self

    def __next__(self) -> Any:
        """Returns the next batch.

        Raises:
            RuntimeError: If a worker has died.
        """
        return self._attentively(lambda: next(self._batches))

    def _attentively(self, fetch: Callable[[], Any]) -> Any:
        """Calls a function, unless a worker has died; one that dies meanwhile interrupts it."""
        try:
            if self._batches is not None:
                self._register(threading.current_thread() is threading.main_thread())  # it is where the handler runs
                if self._dead():
                    raise RuntimeError("a DataLoader worker has died")
            try:
                return fetch()
            except (ConnectionError, EOFError):  # a worker may have died while it handed the batch over
                ended = connection.wait([process.sentinel for process in self._workers()], timeout=1)
                for process in self._workers():
                    if process.sentinel in ended:
                        process.join(1)  # it has closed its files; its exit code comes a moment later
                raise
        except (RuntimeError, ConnectionError, EOFError) as error:
            how = self._dead()
            if not how and str(error).startswith("DataLoader worker (pid"):  # while they start, torch alone knows
                how = str(error).rstrip(". ")
            if not how:
                raise
            raise RuntimeError(
                f"a process that loads the data has died: {how}. The system kills what takes too much memory: take"
                " fewer workers (n_processes, or a DataLoader's num_workers), fewer batches ahead (n_prefetch, or"
                " prefetch_factor) or a smaller batch; then resume from the last snapshot."
            ) from error
        finally:
            if self._batches is not None:
                self._register(False)

    def _dead(self) -> str:
        """Tells which workers died, and how; 0 is the exit code of one that has come to the end of its data."""
        dead = []
        for process in self._workers():
            if code := process.exitcode:
                how = f"by signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"with exit code {code}"
                dead.append(f"process {process.pid} {how}")
        return ", ".join(dead)

    def _workers(self) -> Sequence[Any]:
        return self._batches._workers if self._batches is not None else ()

    def _register(self, on: bool) -> None:
        """Tells torch's handler of the workers, or no longer, as torch does itself at their start and end."""
        batches = self._batches
        if on and not batches._worker_pids_set:
            _set_worker_pids(id(batches), tuple(process.pid for process in batches._workers))
            batches._worker_pids_set = True
        elif not on and batches._worker_pids_set:
            batches._worker_pids_set = False
            _remove_worker_pids(id(batches))


def start_method() -> str | None:
    """Returns how workers are to be started: as the script has chosen, or forked from the training process.

    From Python 3.14 on they would by default come from a server process: a signal to the job would end that, and the
    workers with it.
    """
    has_chosen = multiprocessing.get_start_method(allow_none=True) is not None
    return None if has_chosen or sys.platform != "linux" else "fork"


@contextmanager
def _blocked_signals() -> Iterator[None]:
    """Keeps the signals of a job waiting: a worker that is not ready for them yet would be killed."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(init: Callable[[int], object] | None, worker: int) -> None:
    """Called in a worker before it fetches: from here on the signals of the job do nothing to it."""
    for number in SIGNALS:
        signal.signal(number, _do_nothing)  # not SIG_IGN, which the programs that a data set starts would inherit
        signal.siginterrupt(number, False)  # what C code reads, it goes on reading
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    if init is not None:
        init(worker)


def _do_nothing(number: int, frame: object) -> None:
    pass
