"""Who writes a snapshot: training itself, or a thread or process beside it.

A writer is called as ``writer(filename, outdir, state)``. Those that work in the background first take a copy, so that
training may go on changing the weights, and return a ``Future``. The snapshot raises its error at the next one, or at
the end of the run.
"""

from __future__ import annotations

import copy
import ctypes
import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import torch

from trainer import saving
from trainer.iterators.workers import SIGNALS
from trainer.saving.files import inside

__all__ = ["ProcessQueueWriter", "ProcessWriter", "SimpleWriter", "ThreadQueueWriter", "ThreadWriter"]

_PR_SET_PDEATHSIG = 1  # linux/prctl.h

SaveFunction = Callable[[Any, Any], object]


class SimpleWriter:
    """Writes at once: training goes on when the file is on the disk. Chainer: ``SimpleWriter``.

    Args:
        savefun: Called as ``savefun(state, file)``, as ``torch.save`` is, with a binary file. By default a run's
            snapshot is written with checksum, and any other state by ``torch.save``.

    Example:
        >>> from extensions import snapshot, snapshot_writers
        >>> run.extend(snapshot(writer=snapshot_writers.SimpleWriter()))
        >>> run.run()
        >>> sorted(path.name for path in tmp.iterdir())
        ['snapshot_iter_2', 'snapshot_iter_4']
    """

    def __init__(self, savefun: SaveFunction | None = None) -> None:
        self.savefun = savefun

    def __call__(self, filename: str, outdir: str | Path, target: dict[str, Any]) -> Future[None] | None:
        """Writes a state to a file of that name, whole or not at all."""
        _write(target, inside(outdir, filename), self.savefun)
        return None

    def finalize(self) -> None:
        """Waits for what is still being written."""


class ThreadWriter(SimpleWriter):
    """Writes in a thread; the next snapshot waits for this one. Chainer: ``ThreadWriter``.

    The state is copied into memory that is kept for the next one: the memory of one snapshot is held. That of a state
    on a CUDA device is pinned, and torch rounds each tensor's up to a power of two.

    Args:
        savefun: As for :class:`SimpleWriter`.

    Example:
        >>> from extensions import snapshot, snapshot_writers
        >>> run.extend(snapshot(writer=snapshot_writers.ThreadWriter()))
        >>> run.run()
        >>> sorted(path.name for path in tmp.iterdir())
        ['snapshot_iter_2', 'snapshot_iter_4']
    """

    waits = True

    def __init__(self, savefun: SaveFunction | None = None) -> None:
        super().__init__(savefun)
        self._executor: Executor | None = None
        self._copy: Any = None  # of a state that is written: memory for the next
        self._last: Future[None] | None = None

    def __call__(self, filename: str, outdir: str | Path, target: dict[str, Any]) -> Future[None]:
        """Copies the state and has it written."""
        if self.savefun is None:
            saving.check(target)  # now, where the error belongs
        if self.waits and self._last is not None:
            wait([self._last])
        path = inside(outdir, filename)
        if self._executor is None:
            self._executor = self._start()
        try:
            self._last = self._submit(self._executor, target, path)
        except BrokenExecutor:  # its process has died; the error names the file that it was writing
            self._executor = self._start()
            self._last = self._submit(self._executor, target, path)
        return self._last

    def _start(self) -> Executor:
        return ThreadPoolExecutor(1, thread_name_prefix="snapshot")

    def _submit(self, executor: Executor, target: Any, path: Path) -> Future[None]:
        memory, self._copy = self._copy, None
        return executor.submit(self._write, _copied(target, memory), path)

    def _write(self, state: Any, path: Path) -> None:
        try:
            _write(state, path, self.savefun)
        finally:
            self._copy = state

    def finalize(self) -> None:
        """Waits for what is still being written."""
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=True)
        self._copy = self._last = None


class ThreadQueueWriter(ThreadWriter):
    """Writes in a thread, one snapshot after the other; training never waits. Chainer: ``ThreadQueueWriter``.

    Each snapshot that waits its turn holds a copy of the state; the memory of one is kept for the next.

    Args:
        savefun: As for :class:`SimpleWriter`.

    Example:
        >>> from extensions import snapshot, snapshot_writers
        >>> run.extend(snapshot(writer=snapshot_writers.ThreadQueueWriter()))
        >>> run.run()
        >>> sorted(path.name for path in tmp.iterdir())
        ['snapshot_iter_2', 'snapshot_iter_4']
    """

    waits = False


class ProcessWriter(ThreadWriter):
    """Writes in a process; the next snapshot waits for this one. Chainer: ``ProcessWriter``.

    The state is sent there, which holds training about as long as to write it: :class:`ThreadWriter` is the faster.

    Args:
        savefun: As for :class:`SimpleWriter`; a function that can be pickled.

    Example:
        >>> from extensions import snapshot, snapshot_writers
        >>> run.extend(snapshot(writer=snapshot_writers.ProcessWriter()))
        >>> run.run()
        >>> sorted(path.name for path in tmp.iterdir())
        ['snapshot_iter_2', 'snapshot_iter_4']
    """

    def _start(self) -> Executor:
        return ProcessPoolExecutor(1, multiprocessing.get_context("fork"), _prepare_process, (os.getpid(),))

    def _submit(self, executor: Executor, target: Any, path: Path) -> Future[None]:
        # Bytes: tensors as such would go through shared memory, a file descriptor each.
        return executor.submit(_write_pickled, pickle.dumps(_copied(target, None)), path, self.savefun)


class ProcessQueueWriter(ProcessWriter):
    """Writes in a process, one snapshot after the other; training never waits. Chainer: ``ProcessQueueWriter``.

    Args:
        savefun: As for :class:`SimpleWriter`; a function that can be pickled.

    Example:
        >>> from extensions import snapshot, snapshot_writers
        >>> run.extend(snapshot(writer=snapshot_writers.ProcessQueueWriter()))
        >>> run.run()
        >>> sorted(path.name for path in tmp.iterdir())
        ['snapshot_iter_2', 'snapshot_iter_4']
    """

    waits = False


def _write(state: Any, path: Path, savefun: SaveFunction | None) -> None:
    if savefun is not None:
        saving.write(path, lambda file: savefun(state, file))
    elif "run_id" in state:
        saving.save(state, path, run_id=state["run_id"], iteration=state["iteration"])
    else:
        saving.save_weights(state, path)


def _write_pickled(state: bytes, path: Path, savefun: SaveFunction | None) -> None:
    _write(pickle.loads(state), path, savefun)


def _copied(state: Any, memory: Any) -> Any:
    """Returns a copy of a state on the CPU, in the memory of an earlier copy where it fits."""
    devices: set[torch.device] = set()
    copied = _copy(state, memory, devices)
    for device in devices:  # all copies of one are under way at once
        torch.cuda.current_stream(device).synchronize()
    return copied


def _copy(state: Any, memory: Any, devices: set[torch.device]) -> Any:
    if isinstance(state, torch.Tensor):
        return _copy_tensor(state.detach(), memory, devices)
    if isinstance(state, dict):
        old = memory if isinstance(memory, dict) else {}
        copied = copy.copy(state)  # of its own kind: a Counter would count what it is made of
        if hasattr(state, "__dict__"):
            copied.__dict__.update(state.__dict__)  # the version of each module, in torch's state_dict
        for key, value in state.items():
            copied[key] = _copy(value, old.get(key), devices)
        return copied
    if isinstance(state, (list, tuple)):
        old_ = memory if isinstance(memory, type(state)) and len(memory) == len(state) else [None] * len(state)
        values = (_copy(value, part, devices) for value, part in zip(state, old_, strict=True))
        return type(state)(*values) if hasattr(state, "_fields") else type(state)(values)
    return state


def _copy_tensor(tensor: torch.Tensor, memory: Any, devices: set[torch.device]) -> torch.Tensor:
    if tensor.layout is not torch.strided:
        return tensor.to("cpu", copy=True)
    fits = (
        isinstance(memory, torch.Tensor)
        and memory.layout is torch.strided
        and (memory.dtype, memory.shape, memory.stride()) == (tensor.dtype, tensor.shape, tensor.stride())
    )
    if not fits:
        memory = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
    if tensor.is_cuda:
        devices.add(tensor.device)
    return memory.copy_(tensor, non_blocking=tensor.is_cuda)  # type: ignore[no-any-return]


def _prepare_process(parent: int) -> None:
    """Lets the file under way be finished when a signal reaches the whole group; ends when training is killed.

    At once, by the kernel: what came into the folder after a resume has begun would confuse it.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was killed just before
        os._exit(1)
