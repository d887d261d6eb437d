"""The wait for a batch, and how a signal handler ends it: a dead file server would make it last for ever."""

from __future__ import annotations

from collections.abc import Callable
from types import FrameType
from typing import Any

from torch.utils.data.dataloader import _BaseDataLoaderIter

from trainer.iterators.serial import Samples
from trainer.iterators.workers import Workers

# Within these the training process waits for data, and an error changes nothing that a snapshot holds.
_WAITS = (Samples.batch.__code__, Workers.__next__.__code__, _BaseDataLoaderIter.__next__.__code__)


class Interrupted(SystemExit):
    """Raised by a signal handler where the training process waits for a batch, which is then fetched anew.

    Args:
        code: Exit code of the process.
        before_closing: Called with the trainer when the iteration has been left, before anything is finalized.

    Example:
        >>> from trainer.iterators.waiting import Interrupted
        >>> run.extend(lambda trainer: trainer.updater.iteration == 2 and stop(), name="stop")
        >>> def stop():
        ...     raise Interrupted(75, lambda trainer: print("stopped in iteration", trainer.updater.iteration))
        >>> try:
        ...     run.run()
        ... except SystemExit as error:
        ...     print(error.code)
        stopped in iteration 2
        75
    """

    def __init__(self, code: int, before_closing: Callable[[Any], None]) -> None:
        super().__init__(code)
        self.before_closing = before_closing


def is_waiting(frame: FrameType | None) -> bool:
    """Tells whether a thread waits for a batch.

    Args:
        frame: Where the thread is: what a signal handler is given, or one of ``sys._current_frames()``.

    Example:
        >>> import sys
        >>> from trainer.iterators import SerialIterator
        >>> from trainer.iterators.waiting import is_waiting
        >>> class Data:
        ...     def __len__(self):
        ...         return 4
        ...     def __getitem__(self, index):
        ...         return is_waiting(sys._getframe())
        >>> next(SerialIterator(Data(), 2)), is_waiting(sys._getframe())
        ([True, True], False)
    """
    return is_within(frame, *_WAITS)


def is_within(frame: FrameType | None, *codes: Any) -> bool:
    """Tells whether a frame, or one that has called it, runs one of these code objects."""
    while frame is not None and frame.f_code not in codes:
        frame = frame.f_back
    return frame is not None
