"""Worker processes: they outlive the signals of their job, and their death is an error at the next batch."""

from __future__ import annotations

import multiprocessing
import os
import re
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

from torch._C import _remove_worker_pids, _set_worker_pids
from torch._utils import ExceptionWrapper
from torch.utils.data import DataLoader

# What schedulers and Ctrl-C send to every process of a job: only the training process is to act on it.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
PATIENCE = 2.0  # seconds that workers have to end when they are asked to
_GRACE = 0.5  # seconds from the error that a dying worker causes to its exit code
_SHM = "/dev/shm"
LESS = "take fewer workers (n_processes, num_workers), fewer batches ahead (n_prefetch, prefetch_factor) or a smaller"
LESS += " batch"
_print_error = Queue._on_queue_feeder_error  # type: ignore[attr-defined]


class WorkerError(RuntimeError):
    """A process that loads data has died, or cannot be started, or cannot hand over what it has made.

    Example:
        >>> from trainer.iterators.workers import WorkerError
        >>> issubclass(WorkerError, RuntimeError)
        True
    """


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
        self._is_broken = False  # whether a wait for a batch has failed
        self._oom_kills = _count_oom_kills()
        # Persistent workers, if they were started before; torchdata keeps others there, which have ended.
        self._batches: Any = loader._iterator if loader.persistent_workers else None
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # they would kill a worker that is not ready yet
        try:
            if (loader.multiprocessing_context or multiprocessing).get_start_method() != "fork":
                resource_tracker.ensure_running()  # now, for its start unblocks signals
                signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            self._batches = self._start(iter, loader)
            self._release()
        except RuntimeError as error:  # torch's, for one that has died at once
            if isinstance(error, WorkerError) or not (told := self._explain(error)):
                raise
            raise WorkerError(told) from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        self._is_started = bool(self._workers())  # not a generator, which starts them when it is asked first

    def __iter__(self) -> Workers:
        return self

    def __next__(self) -> Any:
        """Returns the next batch.

        Raises:
            WorkerError: If a worker has died.
        """
        if not self._is_started:
            self._is_started = True
            return self._start(next, self._batches)
        return self._attend(next, self._batches)

    def close(self) -> None:
        """Ends the workers, in whatever state they are."""
        if hasattr(self._batches, "_shutdown_workers"):
            end_workers(self._batches, at_once=self._is_broken)
            self._loader._iterator = None  # where persistent workers would be looked for
        elif hasattr(self._batches, "close"):
            self._batches.close()  # a generator, which has an iterator with workers

    def _start(self, function: Callable[[Any], Any], source: Any) -> Any:
        """Calls a function that starts workers, and prepares these for signals."""
        given, others = self._loader.worker_init_fn, multiprocessing.active_children()
        self._loader.worker_init_fn = partial(_begin, given, os.getpid())
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
            if told := self._explain(error):
                self._is_broken = True
                raise WorkerError(told) from error
            raise
        except BaseException:
            self._is_broken = True
            raise
        finally:
            self._release()

    def _release(self) -> None:
        """Has torch forget the workers."""
        if getattr(self._batches, "_worker_pids_set", False):
            self._batches._worker_pids_set = False
            _remove_worker_pids(id(self._batches))

    def _explain(self, error: Exception) -> str:
        """Says what to do about an error that the death of a worker has caused, or a lack of shared memory."""
        text = str(error)
        if "Caught " not in text:  # else a worker has sent it, and lives
            closed = wait([process.sentinel for process in self._workers()], _GRACE)
            for process in self._workers():
                process.join(_GRACE if process.sentinel in closed else 0)  # its exit code comes a moment later
        how = self._dead()
        if not how and text.startswith("DataLoader worker (pid"):  # while they start, torch alone knows
            how = text.rstrip(". ")
        died, resume = f"a process that loads the data has died: {how}.", "; then resume from the last snapshot."
        failed = (
            died if how else "the processes that load the data could not be started, or could not hand over a batch."
        )
        is_full = re.search("unable to (allocate shared memory|write to file </torch_)", text)
        if is_full or re.search(r"signal 7\b|[Bb]us error", how):
            return f"{failed} {_room()}: give it more (docker run --shm-size=8g), or {LESS}{resume}"
        if "Too many open files" in text:
            most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            return f"{failed} A process may open {most} files: raise that (ulimit -n), or {LESS}{resume}"
        if isinstance(error, BlockingIOError):
            return f"{failed} The user may have no more processes: raise that (ulimit -u), or {LESS}{resume}"
        if not how:
            return ""
        if re.search(r"signal 9\b|signal: Killed", how):
            n = _count_oom_kills() - self._oom_kills
            reason = "The kernel's out-of-memory killer has struck meanwhile (oom_kill in /proc/vmstat)"
            return f"{died} {reason if n > 0 else 'The system kills what takes too much memory'}: {LESS}{resume}"
        return f"{died} Its own output may say why, or a run without workers (n_processes=0, num_workers=0){resume}"

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


def end_workers(batches: Any, at_once: bool = False) -> None:
    """Ends the workers of a ``DataLoader``'s iterator; those that are stuck after ``PATIENCE`` seconds.

    Left to torch, each that is stuck would take 5 seconds; left to the garbage collector, which is where an error's
    traceback leaves them, so would any: it may close the pipes first that tell them to end.
    """

    def kill() -> None:
        for process in batches._workers:
            process.kill()
        batches._workers_done_event = threading.Event()  # one may have died with the lock of torch's
        if vars(batches).pop("_pin_memory_thread", None):  # torch would wait for it, and it for half a message
            batches._pin_memory_thread_done_event.set()

    if at_once or any(process.exitcode for process in batches._workers):
        kill()
    guard = threading.Timer(PATIENCE, kill)
    guard.daemon = True
    try:
        guard.start()
    except RuntimeError:  # there is no memory for a thread
        kill()
    batches._shutdown_workers()
    guard.cancel()


def start_method() -> str | None:
    """Returns how workers are to be started: as the script has chosen, or forked from the training process.

    From Python 3.14 on they would by default come from a server process: a signal to the job would end that, and the
    workers with it.
    """
    has_chosen = multiprocessing.get_start_method(allow_none=True) is not None
    return None if has_chosen or sys.platform != "linux" else "fork"


def _begin(init: Callable[[int], object] | None, trainer: int, worker: int) -> None:
    """Called in a worker before it fetches: from here on the signals of the job do nothing to it."""
    for number in SIGNALS:
        signal.signal(number, lambda number, frame: None)  # SIG_IGN would be inherited by programs that it starts
        signal.siginterrupt(number, False)  # what C code reads, it goes on reading
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    threading.Thread(target=end_with, args=(trainer,), daemon=True).start()
    Queue._on_queue_feeder_error = _send_error  # type: ignore[attr-defined]
    if init is not None:
        init(worker)


def end_with(pid: int) -> None:
    """Kills this process when another one has ended; called in a thread of its own.

    Linux could do so by itself (``PR_SET_PDEATHSIG``), but counts as the end of a parent that of the thread which
    started its child; and a forkserver is the parent of the workers that it starts.
    """
    try:
        wait([os.pidfd_open(pid)])
    except ProcessLookupError:
        pass
    except (AttributeError, OSError):  # not Linux, or an old one
        with suppress(ProcessLookupError):
            while True:
                os.kill(pid, 0)
                time.sleep(1)
    os.kill(os.getpid(), signal.SIGKILL)


def _send_error(queue: Any, error: Exception, item: Any) -> None:
    """Sends the error in place of what cannot be sent; Python only prints it, and the reader would wait for ever."""
    if not (isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], int)):
        _print_error(queue, error, item)  # of a queue of the user's
        return
    number, made = item
    if isinstance(made, ExceptionWrapper):  # of a class that is defined within a function, say
        made.exc_type = RuntimeError
    else:
        made = ExceptionWrapper((type(error), error, error.__traceback__), "in a DataLoader worker process")  # type: ignore[no-untyped-call]
    queue.put((number, made))


def _count_oom_kills() -> int:
    """Returns how many processes the kernel has killed for want of memory; 0 where it does not say."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/vmstat").read_text().split("oom_kill ")[1].split()[0])
    return 0


def _room() -> str:
    try:
        room = os.statvfs(_SHM)
    except OSError:
        return "There is no shared memory"
    return f"Its shared memory, {_SHM}, has {room.f_blocks * room.f_frsize / 2**20:.0f} MB"
