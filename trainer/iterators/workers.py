"""Worker processes: they outlive the signals of their job, and their death is an error at the next batch."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing import resource_tracker
from typing import Any

from torch._C import _remove_worker_pids, _set_worker_pids
from torch.utils.data import DataLoader

# What schedulers and Ctrl-C send to every process of a job: only the training process is to act on it.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Workers:
    """One pass over a ``DataLoader`` that has workers.

    torch's ``SIGCHLD`` handler raises an error for a dead worker wherever the main thread is: in the middle of a step
    of the optimizer, or of writing a snapshot. So torch knows of the workers only while this process waits for a
    batch; there it has to interrupt, for the reader of half a message would wait for ever.

    Args:
        loader: With ``num_workers`` of 1 or more; its ``worker_init_fn`` is called too.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        self._loader = loader
        # Persistent workers, if they were started before; torchdata keeps others there, which have ended.
        self._batches: Any = loader._iterator if loader.persistent_workers else None
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # they would kill a worker that is not ready yet
        try:
            if (loader.multiprocessing_context or multiprocessing).get_start_method() != "fork":
                resource_tracker.ensure_running()  # now, for its start unblocks signals
                signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            self._batches = self._start(iter, loader)
            self._release()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        self._is_started = bool(self._workers())  # not a generator, which starts them when it is asked first

    def __iter__(self) -> Workers:
        return self

    def __next__(self) -> Any:
        """Returns the next batch.

        Raises:
            RuntimeError: If a worker has died.
        """
        if not self._is_started:
            self._is_started = True
            return self._start(next, self._batches)
        return self._attend(next, self._batches)

    def close(self) -> None:
        """Ends the workers, in whatever state they are.

        Left to the garbage collector, which is where an error's traceback leaves them, each would take 5 seconds: it
        may close the pipes first that tell them to end.
        """
        if hasattr(self._batches, "_shutdown_workers"):
            self._batches._shutdown_workers()
            self._loader._iterator = None  # where persistent workers would be looked for
        elif hasattr(self._batches, "close"):
            self._batches.close()  # a generator, which has an iterator with workers

    def _start(self, function: Callable[[Any], Any], source: Any) -> Any:
        """Calls a function that starts workers, and prepares these for signals."""
        given, others = self._loader.worker_init_fn, multiprocessing.active_children()
        self._loader.worker_init_fn = partial(_begin, given)
        try:
            return self._attend(function, source)
        finally:
            self._loader.worker_init_fn = given
            workers: list[Any] = [process for process in multiprocessing.active_children() if process not in others]
            for worker in workers:
                # What ends a stuck worker, in torch and at the interpreter's exit: SIGTERM would do nothing.
                worker._popen.terminate = partial(os.kill, worker.pid, signal.SIGKILL)

    def _attend(self, function: Callable[[Any], Any], source: Any) -> Any:
        """Calls a function that waits for workers: not for dead ones, and one that dies meanwhile interrupts it.

        No context manager: with its generator a batch takes 12 us more.
        """
        batches = self._batches
        try:
            if hasattr(batches, "_worker_pids_set"):  # not a generator, of a loader with an __iter__ of its own
                # torch's handler runs in the main thread
                if threading.current_thread() is threading.main_thread() and not batches._worker_pids_set:
                    _set_worker_pids(id(batches), tuple([process.pid for process in batches._workers]))
                    batches._worker_pids_set = True
                if self._dead():
                    raise RuntimeError("a DataLoader worker has died")
            return function(source)
        except StopIteration:
            raise
        except Exception as error:  # of any kind: what torch raises for a death may come out as another error
            self._release()  # or torch would raise its own error here
            if isinstance(error, (ConnectionError, EOFError)):  # a worker may have died while it handed the batch over
                for process in self._workers():
                    process.join(0.2)  # it has closed its files; its exit code comes a moment later
            how = self._dead()
            if not how and str(error).startswith("DataLoader worker (pid"):  # while they start, torch alone knows
                how = str(error).rstrip(". ")
            if not how:
                raise
            raise RuntimeError(
                f"a process that loads the data has died: {how}. The system kills what takes too much memory: take"
                " fewer workers (n_processes, num_workers), fewer batches ahead (n_prefetch, prefetch_factor) or a"
                " smaller batch; then resume from the last snapshot."
            ) from error
        finally:
            self._release()

    def _release(self) -> None:
        """Has torch forget the workers."""
        if getattr(self._batches, "_worker_pids_set", False):
            self._batches._worker_pids_set = False
            _remove_worker_pids(id(self._batches))

    def _dead(self) -> str:
        """Says which workers died, and how; 0 is the exit code of one that has come to the end of its data."""
        dead = []
        for process in self._workers():
            if code := process.exitcode:
                how = f"by signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"with exit code {code}"
                dead.append(f"process {process.pid} {how}")
        return ", ".join(dead)

    def _workers(self) -> Sequence[Any]:
        return getattr(self._batches, "_workers", ())


def start_method() -> str | None:
    """Returns how workers are to be started: as the script has chosen, or forked from the training process.

    From Python 3.14 on they would by default come from a server process: a signal to the job would end that, and the
    workers with it.
    """
    has_chosen = multiprocessing.get_start_method(allow_none=True) is not None
    return None if has_chosen or sys.platform != "linux" else "fork"


def _begin(init: Callable[[int], object] | None, worker: int) -> None:
    """Called in a worker before it fetches: from here on the signals of the job do nothing to it."""
    for number in SIGNALS:
        signal.signal(number, lambda number, frame: None)  # SIG_IGN would be inherited by programs that it starts
        signal.siginterrupt(number, False)  # what C code reads, it goes on reading
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    if init is not None:
        init(worker)
