"""Batches one after the other, fetched in the training process."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from trainer import random, saving
from trainer.checks import at_least
from trainer.iterators.samples import MOST_TRIED, Key, Samples, Spares
from trainer.saving.state import Stateful, is_forced

OrderSampler = Callable[[Any, int], Any]  # (current order, current position) -> new order


class _Place(NamedTuple):
    """Where an iterator is: how many samples the user has been given, and in which order."""

    epoch: int
    position: int
    is_new_epoch: bool
    previous: tuple[int, int]  # (epoch, position) before the last batch; (-1, 0) before the first
    order: Any  # indices in this epoch's order; None for that of the data set


class SerialIterator(Stateful):
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
        on_bad_sample: What to do when the data set fails to give a sample: ``"raise"``, or ``"skip"`` to put in its
            place the first good one of those that follow in the epoch's order, drawn with the randomness of that
            place. Each is warned of once, and listed. When a hundred in a row are bad it is an error all the same.

    Attributes:
        bad_samples: What was skipped so far, in the order of the run: dicts with ``"epoch"``, ``"position"`` (in the
            epoch's order), ``"index"``, ``"replaced_by"`` (the index of the other) and ``"error"``.
        bad_samples_file: Where that list is kept as JSON, if there is anything on it: written now and then while it
            grows, and by ``finalize``. Set by the trainer's parts.

    Raises:
        ValueError: If the data set is empty, ``batch_size`` not positive, both ``shuffle`` and ``order_sampler``
            are given, or ``on_bad_sample`` is another word.
        BadSampleError: When a batch is fetched, if the data set fails to give a sample.

    Example:
        >>> from trainer.iterators import SerialIterator
        >>> iterator = SerialIterator(range(10), 4, shuffle=False)
        >>> for _ in range(3):
        ...     print(next(iterator), iterator.epoch, iterator.epoch_detail)
        [0, 1, 2, 3] 0 0.4
        [4, 5, 6, 7] 0 0.8
        [8, 9, 0, 1] 1 1.2
    """

    settings = ("batch_size", "_shuffle", "seed")

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        repeat: bool = True,
        shuffle: bool | None = None,
        order_sampler: OrderSampler | None = None,
        *,
        seed: int | None = None,
        on_bad_sample: str = "raise",
    ) -> None:
        if len(dataset) == 0:
            raise ValueError("the data set is empty: there is nothing to iterate over.")
        if shuffle is not None and order_sampler is not None:
            raise ValueError("give shuffle or order_sampler, not both: a sampler decides the order by itself.")
        if on_bad_sample not in ("raise", "skip"):
            raise ValueError(f"on_bad_sample must be 'raise' or 'skip', got {on_bad_sample!r}.")
        self.dataset = dataset
        self.batch_size = at_least("batch_size", batch_size, 1)
        self._repeat = repeat
        self._shuffle = shuffle is not False and order_sampler is None
        self._order_sampler = order_sampler
        self._skips = on_bad_sample == "skip"
        self._samples = Samples(dataset, random.get_seed() if seed is None else at_least("seed", seed, 0))
        self.bad_samples: list[dict[str, Any]] = []
        self.bad_samples_file: Path | None = None
        self._listed_places: set[tuple[int, int, int]] = set()
        self._listed_indices: set[int] = set()
        self._listed = 0  # how many of them the file has
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
        given = None if self._order_sampler is None else np.arange(len(self.dataset))
        first = self._order(0, given, 0)
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
            spares = self._spares(order, position, stop, size) if self._skips else None
            keys += [(epoch, i, index, spares) for i, index in enumerate(indices, position)]
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

    def _spares(self, order: Any, first: int, stop: int, size: int) -> Spares:
        """Returns what may stand in for the samples of some positions: what follows, round the epoch's order."""
        most = min(MOST_TRIED, size - 1)
        positions = np.arange(first + 1, stop + most) % size
        return first, (positions if order is None else order[positions]).tolist(), most

    # -- the batches

    def __iter__(self) -> SerialIterator:
        return self

    def __next__(self) -> Any:
        """Returns the next batch."""
        place = self._place
        if not self._repeat and place.epoch > 0:
            self._place = place._replace(previous=(place.epoch, place.position))
            raise StopIteration
        batch, skips, self._place = self._fetch(place)
        if skips:
            self._tell(skips)
        return batch

    next = __next__

    def _fetch(self, place: _Place) -> tuple[Any, list[dict[str, Any]], _Place]:
        """Returns the batch at a place, what was skipped in it, and the place after it."""
        keys, after = self._advance(place)
        skips: list[dict[str, Any]] = []
        return self._here(keys, skips), skips, after

    def _here(self, keys: list[Key], skips: list[dict[str, Any]]) -> Any:
        """Makes a batch in this process, and leaves generators and threads as they were.

        One thread, as a worker has: sums over two may differ in the last bit.
        """
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with random.preserved():
                return self._collate(self._samples_of(keys, skips))
        finally:
            torch.set_num_threads(threads)

    def _samples_of(self, keys: list[Key], skips: list[dict[str, Any]]) -> list[Any]:
        return [self._samples.get(key, skips) for key in keys]

    def _collate(self, samples: list[Any]) -> Any:
        return samples

    def _tell(self, skips: list[dict[str, Any]]) -> None:
        """Lists what was skipped in a batch, in memory and in the file, and warns of each index once."""
        new = [bad for bad in skips if _place_of(bad) not in self._listed_places]  # reset() goes back
        unknown = {bad["index"]: bad["error"] for bad in new if bad["index"] not in self._listed_indices}
        self.bad_samples += new
        self._note(new)
        if len(self.bad_samples) > 1.1 * self._listed:  # a file that is written anew for each one costs their square
            self._list_bad_samples()
        for index, error in unknown.items():
            warnings.warn(
                f"{type(self.dataset).__name__} cannot give the sample of index {index}, which is skipped: {error}",
                stacklevel=3,
            )

    def _note(self, bad_samples: list[dict[str, Any]]) -> None:
        """Remembers what is on the list; to look through the list for each batch would cost its square."""
        self._listed_places.update(map(_place_of, bad_samples))
        self._listed_indices.update(bad["index"] for bad in bad_samples)

    def _list_bad_samples(self) -> None:
        """Writes the list to its file, unless the file has it all."""
        if self.bad_samples_file is not None and len(self.bad_samples) > self._listed:
            text = json.dumps(self.bad_samples, indent=4).encode()
            self.bad_samples_file.parent.mkdir(parents=True, exist_ok=True)
            saving.write(self.bad_samples_file, lambda file: file.write(text))
            self._listed = len(self.bad_samples)

    def finalize(self) -> None:
        """Releases what the iterator holds; it may be called twice, and is at the end of a ``with``."""
        self._list_bad_samples()

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
            "batch_size": self.batch_size,
            "shuffle": self._shuffle,
            "bad_samples": list(self.bad_samples),
        }
        if self._order_sampler is not None:  # its order may depend on the orders before
            state["order"] = torch.from_numpy(place.order.astype(np.int64))
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what :meth:`state_dict` returned, of an iterator with any number of workers.

        Raises:
            ValueError: If the data set has another length than it had. If that is forced, the epoch under way begins
                anew with the data of now.
        """
        is_other = state["length"] != len(self.dataset)
        if is_other and not is_forced():
            raise ValueError(
                f"the snapshot was made with {state['length']} samples and the data set now has {len(self.dataset)}:"
                " its order cannot be continued; bring the data set back, start afresh, or begin the epoch anew with"
                " the data of now: trainer.resume(path, force=True)."
            )
        if (self._order_sampler is not None) != ("order" in state):
            raise ValueError("the snapshot was made with an order_sampler and there is none now, or the reverse.")
        if state["seed"] != self.seed:
            self._samples.seed = state["seed"]
        self.bad_samples, self._listed = list(state.get("bad_samples", [])), 0
        self._listed_places, self._listed_indices = set(), set()
        self._note(self.bad_samples)
        epoch, (previous_epoch, previous_position) = state["epoch"], state["previous"]
        if is_other:
            self.reset()
            order = self._place.order if epoch == 0 else self._order(epoch, self._place.order, 0)
            self._place = _Place(epoch, 0, state["is_new_epoch"], (epoch, 0), order)
        else:
            order = state["order"].numpy() if "order" in state else self._order(epoch, None, 0)
            previous = (previous_epoch, previous_position)
            self._place = _Place(epoch, state["position"], state["is_new_epoch"], previous, order)


def _place_of(bad: dict[str, Any]) -> tuple[int, int, int]:
    return bad["epoch"], bad["position"], bad["index"]
