"""Batches one after the other, fetched in the training process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from trainer import random
from trainer.checks import at_least
from trainer.datasets import drawer

OrderSampler = Callable[[Any, int], Any]  # (current order, current position) -> new order
Key = tuple[int, int, int]  # (epoch, position in that epoch's order, index into the data set)


class _Place(NamedTuple):
    """Where an iterator is: how many samples the user has been given, and in which order."""

    epoch: int
    position: int
    is_new_epoch: bool
    previous: tuple[int, int]  # (epoch, position) before the last batch; (-1, 0) before the first
    order: Any  # indices in this epoch's order; None for that of the data set


class Samples:
    """A data set in which the global generators are seeded before each sample, by its place in the run.

    So a sample's augmentation does not depend on what was drawn before, nor on the process that makes it. A data set
    that defines ``draw_sample(index, generator)`` is asked that way, with a generator of its own for each sample.
    """

    def __init__(self, dataset: Any, seed: int) -> None:
        self.dataset = dataset
        self.seed = seed
        self._draw_sample = drawer(dataset)

    def __getitem__(self, key: Key) -> Any:
        if self._draw_sample is None:
            random.seed_generators(self._bits(key))
        return self.get(key)

    def get(self, key: Key) -> Any:
        """Returns a sample without touching a global generator."""
        index = key[2]
        try:
            if self._draw_sample is None:
                return self.dataset[index]
            generator = torch.Generator()
            generator.manual_seed(self._bits(key))
            return self._draw_sample(index, generator)
        except StopIteration as error:  # would end the loop as if the data had come to its end
            raise RuntimeError(f"the data set raised StopIteration for index {index}.") from error

    def _bits(self, key: Key) -> int:
        return random.derive(self.seed, random.SAMPLE, key[0], key[1])


class SerialIterator:
    """Yields lists of samples, in order or shuffled. Chainer: ``iterators.SerialIterator``.

    With ``repeat`` every batch is full: one that reaches the epoch's end goes on with the next epoch's first samples.
    The order of an epoch is a function of (seed, epoch), and what a sample draws from Python's, NumPy's and torch's
    global generators one of (seed, epoch, position); the generators are put back after each batch.

    Args:
        dataset: Anything with ``len`` and integer indices. If it defines ``draw_sample(index, generator)``, that is
            called in place of ``dataset[index]``, with a ``torch.Generator`` seeded by (seed, epoch, position).
        batch_size: Samples in a batch.
        repeat: Whether to go on after the first epoch; if not, its last batch may be short.
        shuffle: Whether to draw a new order for each epoch; by default yes, unless there is an ``order_sampler``.
        order_sampler: Called as ``order_sampler(order, position)`` with the current order (an int array of shape
            (N,)) for the next epoch's, under generators seeded by (seed, epoch).
        seed: By default the run's, ``trainer.random.get_seed()``.

    Raises:
        ValueError: If the data set is empty, ``batch_size`` not positive, or both ``shuffle`` and
            ``order_sampler`` are given.

    Example:
        >>> from trainer.iterators import SerialIterator
        >>> iterator = SerialIterator(range(10), 4, shuffle=False)
        >>> for _ in range(3):
        ...     print(next(iterator), iterator.epoch, iterator.epoch_detail)
        [0, 1, 2, 3] 0 0.4
        [4, 5, 6, 7] 0 0.8
        [8, 9, 0, 1] 1 1.2
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        repeat: bool = True,
        shuffle: bool | None = None,
        order_sampler: OrderSampler | None = None,
        *,
        seed: int | None = None,
    ) -> None:
        if len(dataset) == 0:
            raise ValueError("the data set is empty: there is nothing to iterate over.")
        if shuffle is not None and order_sampler is not None:
            raise ValueError("give shuffle or order_sampler, not both: a sampler decides the order by itself.")
        self.dataset = dataset
        self.batch_size = at_least("batch_size", batch_size, 1)
        self._repeat = repeat
        self._shuffle = shuffle is not False and order_sampler is None
        self._order_sampler = order_sampler
        self._samples = Samples(dataset, random.get_seed() if seed is None else at_least("seed", seed, 0))
        self.reset()

    @property
    def seed(self) -> int:
        """The seed of order and augmentation; a loaded state brings its own."""
        return self._samples.seed

    @property
    def repeat(self) -> bool:
        """Whether the iterator goes on after its first epoch."""
        return self._repeat

    def reset(self) -> None:
        """Goes back to the beginning: the same order and augmentation come again."""
        first = self._order(0, np.arange(len(self.dataset)), 0)
        self._place = _Place(0, 0, False, (-1, 0), first)

    # -- the position

    @property
    def epoch(self) -> int:
        """Finished epochs."""
        return self._place.epoch

    @property
    def current_position(self) -> int:
        """Samples of this epoch that were given out."""
        return self._place.position

    @property
    def is_new_epoch(self) -> bool:
        """Whether the last batch finished an epoch."""
        return self._place.is_new_epoch

    @property
    def epoch_size(self) -> int:
        """Samples in an epoch."""
        order = self._place.order
        return len(self.dataset) if order is None else len(order)

    @property
    def epoch_detail(self) -> float:
        """Finished epochs and the fraction of this one."""
        return self._place.epoch + self._place.position / self.epoch_size

    @property
    def previous_epoch_detail(self) -> float | None:
        """``epoch_detail`` before the last batch; None before the first."""
        epoch, position = self._place.previous
        return None if epoch < 0 else epoch + position / self.epoch_size

    def epoch_progress(self) -> tuple[int, int]:
        """Returns ``epoch_detail`` in integers: (samples given out, samples in an epoch)."""
        size = self.epoch_size
        return self._place.epoch * size + self._place.position, size

    # -- the order

    def _order(self, epoch: int, order: Any, position: int) -> Any:
        """Returns the indices of an epoch, a function of the seed and the epoch (and a sampler's last order)."""
        if self._shuffle:
            # RandomState, because NumPy promises that its stream will never change.
            generator = np.random.RandomState(random.derive(self.seed, random.ORDER, epoch) % 2**32)
            return generator.permutation(len(self.dataset))
        if self._order_sampler is None:
            return None
        with random.preserved():
            random.seed_generators(random.derive(self.seed, random.SAMPLER, epoch))
            new = np.asarray(self._order_sampler(order, position))
        if len(new) == 0 or (epoch > 0 and len(new) != len(order)):
            raise ValueError(f"the order_sampler returned {len(new)} indices, and {len(order)} before: keep the size.")
        return new

    def _advance(self, place: _Place) -> tuple[list[Key], _Place]:
        """Returns the next batch's keys and the place after it."""
        epoch, position, _, _, order = place
        size = len(self.dataset) if order is None else len(order)
        keys: list[Key] = []
        is_new_epoch = False
        end = position + self.batch_size
        while True:
            stop = min(end, size)
            indices = range(position, stop) if order is None else order[position:stop].tolist()
            keys += [(epoch, i, index) for i, index in enumerate(indices, position)]
            if end < size:
                position = end
                break
            epoch, is_new_epoch = epoch + 1, True
            if not self._repeat:
                position = 0
                break
            order = self._order(epoch, order, position)
            end, position = end - size, 0
        return keys, _Place(epoch, position, is_new_epoch, (place.epoch, place.position), order)

    # -- the batches

    def __iter__(self) -> SerialIterator:
        return self

    def __next__(self) -> Any:
        """Returns the next batch."""
        place = self._place
        if not self._repeat and place.epoch > 0:
            self._place = place._replace(previous=(place.epoch, place.position))
            raise StopIteration
        batch, self._place = self._fetch(place)
        return batch

    next = __next__

    def _fetch(self, place: _Place) -> tuple[Any, _Place]:
        keys, after = self._advance(place)
        return self._here(keys), after

    def _here(self, keys: list[Key]) -> Any:
        """Makes a batch in this process, and leaves generators and threads as they were.

        One thread, as a worker has: sums over two may differ in the last bit.
        """
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with random.preserved():
                return self._collate(self._samples_of(keys))
        finally:
            torch.set_num_threads(threads)

    def _samples_of(self, keys: list[Key]) -> list[Any]:
        return [self._samples[key] for key in keys]

    def _collate(self, samples: list[Any]) -> Any:
        return samples

    def finalize(self) -> None:
        """Releases what the iterator holds; it may be called twice, and is at the end of a ``with``."""

    def __enter__(self) -> SerialIterator:
        return self

    def __exit__(self, *error: object) -> None:
        self.finalize()

    # -- state

    def state_dict(self) -> dict[str, Any]:
        """Returns epoch and position (what was given out, never what is prefetched), seed and data set length."""
        place = self._place
        state = {
            "epoch": place.epoch,
            "position": place.position,
            "is_new_epoch": place.is_new_epoch,
            "previous": list(place.previous),
            "seed": self.seed,
            "length": len(self.dataset),
        }
        if self._order_sampler is not None:  # its order may depend on the orders before
            state["order"] = torch.from_numpy(place.order.astype(np.int64))
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what :meth:`state_dict` returned, of an iterator with any number of workers.

        Raises:
            ValueError: If the data set has another length than it had.
        """
        if state["length"] != len(self.dataset):
            raise ValueError(
                f"the snapshot was made with {state['length']} samples and the data set now has {len(self.dataset)}:"
                " its order cannot be continued; bring the data set back, or start afresh."
            )
        if state["seed"] != self.seed:
            random.warn_of_seed(state["seed"], self.seed)
            self._samples.seed = state["seed"]
        epoch, (previous_epoch, previous_position) = state["epoch"], state["previous"]
        if (self._order_sampler is not None) != ("order" in state):
            raise ValueError("the snapshot was made with an order_sampler and there is none now, or the reverse.")
        order = state["order"].numpy() if "order" in state else self._order(epoch, None, 0)
        self._place = _Place(
            epoch, state["position"], state["is_new_epoch"], (previous_epoch, previous_position), order
        )
