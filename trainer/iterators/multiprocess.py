"""The same batches, fetched by worker processes."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader

from trainer.checks import at_least
from trainer.datasets.convert import as_tuple, concat_examples
from trainer.iterators.samples import BadSampleError, Key, collate
from trainer.iterators.serial import OrderSampler, SerialIterator, _Place
from trainer.iterators.workers import Workers, start_method


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
        order_sampler: OrderSampler | None = None,
        collate_fn: Callable[[list[Any]], Any] | None = concat_examples,
        seed: int | None = None,
        on_bad_sample: str = "raise",
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
        super().__init__(dataset, batch_size, repeat, shuffle, order_sampler, seed=seed, on_bad_sample=on_bad_sample)

    def _collate(self, samples: list[Any]) -> Any:
        return samples if self.collate_fn is None else as_tuple(self.collate_fn(samples))

    def _fetch(self, place: _Place) -> tuple[Any, list[dict[str, Any]], _Place]:
        if self.n_processes == 0:
            return super()._fetch(place)
        try:
            if self._batches is None:
                self._ahead.clear()
                self._batches = Workers(self._workers())
            fetched, after = next(self._batches), self._ahead.popleft()
            if isinstance(fetched, BadSampleError):
                raise fetched
        except BaseException:
            self._end_workers()  # one may be dead: new ones fetch this batch at the next call
            raise
        batch, skips = fetched
        return (batch if self.collate_fn is None else as_tuple(batch)), skips, after

    def _workers(self) -> DataLoader[Any]:
        if self._loader is None:
            self._loader = DataLoader(
                self._samples,  # type: ignore[arg-type]
                batch_sampler=_Requests(self),
                num_workers=self.n_processes,
                prefetch_factor=self.n_prefetch,
                collate_fn=partial(collate, self.collate_fn),
                pin_memory=self.pin_memory and self.collate_fn is not None,
                persistent_workers=True,
                multiprocessing_context=start_method(),
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
        self._end_workers()
        super().finalize()

    def _end_workers(self) -> None:
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
