"""The same batches, fetched by worker processes."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from trainer.checks import at_least
from trainer.datasets.convert import concat_examples
from trainer.iterators.bad_samples import BadSampleError
from trainer.iterators.packed import Packed
from trainer.iterators.serial import Cursor, Made, SerialIterator, Stretch
from trainer.iterators.workers import Workers, end_workers, start_method


class MultiprocessIterator(SerialIterator):
    """Yields collated batches that worker processes fetch ahead. Chainer: ``iterators.MultiprocessIterator``.

    The batches are those of :class:`SerialIterator` with the same seed, to the bit, whatever the number of workers,
    random augmentation included.

    The workers are those of torch's ``DataLoader``. They live until ``finalize`` and hold the data set as it was when
    they started, at the first batch: what is changed in it afterwards they do not see. The signals that end a whole
    job (SIGINT, SIGTERM, SIGUSR1) do nothing to them: the training process ends them when it is done.

    Args:
        dataset: As for :class:`SerialIterator`.
        batch_size: Samples in a batch.
        repeat: Whether to go on after the first epoch.
        shuffle: Whether to draw a new order for each epoch.
        n_processes: Workers; one for each CPU by default. 0 fetches in the training process.
        n_prefetch: Batches that each worker fetches ahead.
        order_sampler: As for :class:`SerialIterator`; it is called in the training process.
        collate_fn: Makes a batch of a list of samples, in the worker. With None the batches are lists of samples.
        seed: By default the run's.
        on_bad_sample: As for :class:`SerialIterator`.

    Attributes:
        pin_memory: Set by the updater before the first batch when training is on CUDA: batches come in pinned memory.

    Raises:
        ValueError: As :class:`SerialIterator`, or if a number of workers or batches is out of range.
        RuntimeError: When a batch is fetched, if a worker has died.

    Example:
        >>> from trainer.iterators import MultiprocessIterator
        >>> iterator = MultiprocessIterator(range(10), 4, shuffle=False, n_processes=1)
        >>> next(iterator), next(iterator), next(iterator)
        (tensor([0, 1, 2, 3]), tensor([4, 5, 6, 7]), tensor([8, 9, 0, 1]))
        >>> iterator.finalize()
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        repeat: bool = True,
        shuffle: bool | None = None,
        n_processes: int | None = None,
        *,
        n_prefetch: int = 2,
        collate_fn: Callable[[list[Any]], Any] | None = concat_examples,
        **kwargs: Any,
    ) -> None:
        if n_processes is None:
            n_processes = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.n_processes = at_least("n_processes", n_processes, 0)
        self.n_prefetch = at_least("n_prefetch", n_prefetch, 1)
        self.collate_fn = collate_fn
        self.pin_memory = False
        self._ahead: deque[Cursor] = deque()  # after each batch that is under way
        super().__init__(dataset, batch_size, repeat, shuffle, **kwargs)

    def _next_batch(self) -> tuple[Made, Cursor]:
        if self.n_processes == 0:
            return super()._next_batch()
        try:
            if self._batches is None:
                self._ahead.clear()
                self._workers = self._new_workers() if self._workers is None else self._workers
                self._batches = Workers(self._workers)
            made = next(self._batches)
            if isinstance(made, BadSampleError):
                raise made
            return made, self._ahead.popleft()
        except BaseException:
            if self._batches is not None:
                self._batches.close()
            self._workers = self._batches = None  # one may be dead: new ones fetch this batch at the next call
            raise

    def finalize(self) -> None:
        """Ends the workers, and writes the list of bad samples."""
        if self._workers is not None and self._workers._iterator is not None:
            end_workers(self._workers._iterator)
        super().finalize()

    def _new_workers(self) -> DataLoader[Any]:
        return DataLoader(
            self._samples,  # type: ignore[arg-type]
            batch_size=None,  # each item is a batch
            sampler=_Requests(self),
            num_workers=self.n_processes,
            prefetch_factor=self.n_prefetch,
            collate_fn=Packed if self.collate_fn is None else _as_it_is,
            pin_memory=self.pin_memory and self.collate_fn is not None,
            persistent_workers=True,
            multiprocessing_context=start_method(),
            generator=torch.Generator(),  # the loader draws a seed; not from the model's stream
        )


class _Requests:
    """What the workers are to fetch, from the iterator's position onwards."""

    def __init__(self, iterator: MultiprocessIterator) -> None:
        self.iterator = iterator

    def __iter__(self) -> Iterator[list[Stretch]]:
        it = self.iterator
        epoch, position, order = it.epoch, it.current_position, it._order
        while it.repeat or epoch == 0:
            stretches, cursor = it._advance(epoch, position, order)
            epoch, position, order, _ = cursor
            it._ahead.append(cursor)
            yield stretches


def _as_it_is(batch: Any) -> Any:
    return batch
