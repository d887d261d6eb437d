"""A DataLoader as an iterator."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import islice
from operator import length_hint
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from trainer import random
from trainer.checks import warn
from trainer.datasets.convert import as_tuple
from trainer.iterators.serial import BaseIterator
from trainer.iterators.workers import Workers

_END = object()


class DataLoaderIterator(BaseIterator):
    """Wraps a ``DataLoader`` so that its batches depend on (seed, epoch), and its position can be saved.

    The updater and the Evaluator wrap a loader themselves. An epoch is ``len(loader)`` batches, short ones included.
    Everything the loader does in this process runs under generators of its own, seeded for each epoch, so that it
    does not disturb the model's; a ``generator`` it was given is seeded likewise, and a sampler's ``set_epoch`` is
    called.

    A resumed map-style loader skips to its position without loading what it skips. What a data set draws in the
    loader's own workers then differs until the next epoch (with ``persistent_workers``, to the end of the run): this
    is warned of. ``MultiprocessIterator`` resumes exactly.

    Args:
        loader: A ``torch.utils.data.DataLoader``, of a map-style or iterable data set.
        repeat: Whether to go on after the first epoch.
        seed: By default the run's.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> from trainer.iterators import DataLoaderIterator
        >>> iterator = DataLoaderIterator(DataLoader(range(5), batch_size=3))
        >>> next(iterator), next(iterator), iterator.epoch
        (tensor([0, 1, 2]), tensor([3, 4]), 1)
    """

    saved = ("stream",)
    counts = ("batches an epoch", "DataLoader")

    def __init__(self, loader: DataLoader[Any], repeat: bool = True, seed: int | None = None) -> None:
        self.loader = loader
        self._stream: random.Raw | None = None  # the global generators as the loader left them, in mid-epoch
        self._own: list[torch.Tensor] = []  # and those that it was given
        length = length_hint(loader, -1)  # -1 for an iterable data set of unknown length: an epoch ends when it does
        if length == 0:
            raise ValueError("the DataLoader has no batches: its data set is empty, or drop_last leaves nothing.")
        super().__init__(length if length > 0 else None, repeat, seed)

    def _fetch(self) -> Any:
        try:
            with random.preserved():
                if self.current_position == 0:
                    random.seed_generators(self._epoch_seed())
                else:
                    self._set_stream()
                if self._batches is None:
                    self._batches = self._open()
                batch = next(self._batches, _END)
                self._stream = random.raw_state()
                self._own = [generator.get_state() for generator in self._generators()]
        except BaseException:
            self._batches = None  # the next call opens the loader at this batch once more
            raise
        if batch is _END:
            if self.current_position == 0:
                raise ValueError("the DataLoader gave no batch in a whole epoch: is its data set used up?")
            self._end_epoch()
            if not self.repeat:
                raise StopIteration
            return self._fetch()
        self.current_position += 1
        if self.current_position == self.epoch_size:
            self._end_epoch()
        return as_tuple(batch)

    def _end_epoch(self) -> None:
        self.epoch, self.current_position = self.epoch + 1, 0
        self._batches, self._stream = None, None

    def _epoch_seed(self) -> int:
        return random.derive(self.seed, random.LOADER, self.epoch)

    def _generators(self) -> list[torch.Generator]:
        """Returns the generators that the loader and its samplers were given."""
        batch_sampler = self.loader.batch_sampler
        owners = (self.loader, self.loader.sampler, batch_sampler, getattr(batch_sampler, "sampler", None))
        found = [getattr(owner, "generator", None) for owner in owners]
        return list({id(g): g for g in found if isinstance(g, torch.Generator)}.values())

    def _open(self) -> Iterator[Any]:
        """Starts the loader's epoch, at the position that was loaded."""
        loader, n = self.loader, self.current_position
        for sampler in (loader.sampler, loader.batch_sampler):
            if set_epoch := getattr(sampler, "set_epoch", None):
                set_epoch(self.epoch)
        for generator in self._generators():
            generator.manual_seed(self._epoch_seed())
        if n == 0:
            return _batches_of(loader)

        # Resumed: the sampler draws as it did at the epoch's start, then the generators go on where they were.
        random.seed_generators(self._epoch_seed())
        if loader.num_workers > 0:
            warn(
                "a DataLoader with workers is resumed in mid-epoch: its order is exact, but what the data set draws"
                " at random in the workers differs until the next epoch (with persistent_workers, to the end);"
                " MultiprocessIterator resumes exactly."
            )
        if loader.batch_sampler is None or isinstance(loader.dataset, IterableDataset):
            batches = _batches_of(loader)
            next(islice(batches, n, n), None)  # skips n, which have to be loaded: there is no index
        else:
            torch.empty((), dtype=torch.int64).random_(generator=loader.generator)  # as iter(loader) does first
            indices = iter(loader.batch_sampler)
            next(islice(indices, n, n), None)  # skips n
            rest = copy.copy(loader)
            vars(rest).update(batch_sampler=indices, persistent_workers=False, _iterator=None)
            batches = _batches_of(rest)
        self._set_stream()
        for generator, state in zip(self._generators(), self._own, strict=True):
            generator.set_state(state)
        return batches

    def _set_stream(self) -> None:
        if self._stream is not None:
            random.set_raw_state(self._stream)

    @property
    def stream(self) -> dict[str, Any]:
        """The generators as the loader left them in mid-epoch, as values that a snapshot may hold."""
        return {} if self._stream is None else random.packed(self._stream) | {"own": self._own}

    @stream.setter
    def stream(self, state: dict[str, Any]) -> None:
        self._own = state.get("own", [])
        self._stream = random.unpacked(state) if state else None


def _batches_of(loader: DataLoader[Any]) -> Iterator[Any]:
    return Workers(loader) if loader.num_workers > 0 else iter(loader)


_TRAINS = ("__next__", "epoch", "epoch_detail", "is_new_epoch", "state_dict", "load_state_dict", "finalize")


def as_iterator(source: Any, repeat: bool = True) -> Any:
    """Returns an iterator: a ``DataLoader`` wrapped, an iterator as it is.

    Raises:
        TypeError: If it is neither.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> from trainer.iterators import as_iterator
        >>> type(as_iterator(DataLoader(range(4)))).__name__
        'DataLoaderIterator'
    """
    if isinstance(source, DataLoader):
        return DataLoaderIterator(source, repeat)
    needed = _TRAINS if repeat else ("__next__",)  # an evaluation asks for no progress
    if lacks := [name for name in needed if not hasattr(source, name)]:
        raise TypeError(
            f"expected an iterator or a DataLoader, got {type(source).__name__}, which lacks {', '.join(lacks)}; e.g."
            " SerialIterator(dataset, batch_size)."
        )
    return source
