"""The same batches, fetched by worker processes."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from trainer.checks import at_least
from trainer.convert import as_tuple, concat_examples
from trainer.iterators.serial import Key, OrderSampler, SerialIterator, _Place


class MultiprocessIterator(SerialIterator):
    """Yields collated batches that worker processes fetch ahead. Chainer: ``iterators.MultiprocessIterator``.

    The batches are those of :class:`SerialIterator` with the same seed, to the bit, whatever the number of workers,
    random augmentation included.

    The workers are those of torch's ``DataLoader``. They live until ``finalize`` and hold the data set as it was when
    they started, at the first batch: what is changed in it afterwards they do not see.

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

    Attributes:
        pin_memory: Set by the updater before the first batch when training is on CUDA: batches come in pinned memory.

    Raises:
        ValueError: As :class:`SerialIterator`, or if a number of workers or batches is out of range.

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
        order_sampler: OrderSampler | None = None,
        collate_fn: Callable[[list[Any]], Any] | None = concat_examples,
        seed: int | None = None,
    ) -> None:
        if n_processes is None:
            n_processes = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.n_processes = at_least("n_processes", n_processes, 0)
        self.n_prefetch = at_least("n_prefetch", n_prefetch, 1)
        self.collate_fn = collate_fn
        self.pin_memory = False
        self._loader: DataLoader[Any] | None = None
        self._batches: Iterator[Any] | None = None
        self._ahead: deque[_Place] = deque()  # the place after each batch that is under way
        super().__init__(dataset, batch_size, repeat, shuffle, order_sampler, seed=seed)

    def _collate(self, samples: list[Any]) -> Any:
        return samples if self.collate_fn is None else as_tuple(self.collate_fn(samples))

    def _fetch(self, place: _Place) -> tuple[Any, _Place]:
        if self.n_processes == 0:
            return super()._fetch(place)
        if self._batches is None:
            self._ahead.clear()
            self._batches = iter(self._workers())
        try:
            batch, after = next(self._batches), self._ahead.popleft()
        except BaseException:
            self.finalize()  # a worker may be dead: new ones fetch this batch at the next call
            raise
        return (batch if self.collate_fn is None else as_tuple(batch)), after

    def _workers(self) -> DataLoader[Any]:
        if self._loader is None:
            self._loader = DataLoader(
                self._samples,  # type: ignore[arg-type]
                batch_sampler=_Requests(self),
                num_workers=self.n_processes,
                prefetch_factor=self.n_prefetch,
                collate_fn=self.collate_fn or _as_it_is,
                pin_memory=self.pin_memory and self.collate_fn is not None,
                worker_init_fn=_ignore_interrupt,
                persistent_workers=True,
                generator=torch.Generator(),  # the loader draws a seed; not from the model's stream
            )
        return self._loader

    def reset(self) -> None:
        """Goes back to the beginning: the same order and augmentation come again."""
        super().reset()
        self._batches = None

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what ``state_dict`` returned, of an iterator with any number of workers."""
        seed = self.seed
        super().load_state_dict(state)
        self._batches = None
        if self.seed != seed:
            self._loader = None  # workers hold the seed with which they started

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_loader": None, "_batches": None, "_ahead": deque()}  # a copy starts its own workers

    def finalize(self) -> None:
        """Ends the workers; the next batch, if there is one, starts new ones."""
        self._batches = self._loader = None


class _Requests:
    """What the workers are to fetch, from the iterator's place onwards."""

    def __init__(self, iterator: MultiprocessIterator) -> None:
        self.iterator = iterator

    def __iter__(self) -> Iterator[list[Key]]:
        iterator = self.iterator
        place = iterator._place
        while iterator.repeat or place.epoch == 0:
            keys, place = iterator._advance(place)
            iterator._ahead.append(place)
            yield keys


def _as_it_is(samples: list[Any]) -> list[Any]:
    return samples


def _ignore_interrupt(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the training process ends them
