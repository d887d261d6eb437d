"""The indices of a DataLoader's batches, and the seeds under which they and the data are drawn."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import (
    BatchSampler,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
    get_worker_info,
)

from trainer import random
from trainer.datasets.transform import EpochSetter

# They know their length, and draw from the global generators at their first index only.
_KNOWN = (SequentialSampler, RandomSampler, SubsetRandomSampler, WeightedRandomSampler, DistributedSampler)


def is_known(sampler: Any) -> bool:
    """Tells whether a sampler is of a kind that knows its length, and draws nothing global after its first index."""
    while type(sampler) is BatchSampler:
        sampler = sampler.sampler
    return type(sampler) in _KNOWN


class Seeds:
    """Seeds generators for places in a pass: 2k for the k-th draw of a sampler, 2k + 1 for the k-th batch.

    Args:
        generators: Those that a loader was given, beside the global ones.
    """

    def __init__(self, generators: list[torch.Generator]) -> None:
        self.generators = generators
        self.words: tuple[int, ...] = ()  # seed, stream, and number of the pass

    def start(self, *place: int) -> None:
        """Starts all the generators from the seed of a place, or from that of the pass."""
        random.seed_generators(random.derive(*self.words, *place))
        self.start_given(*place)

    def start_given(self, *place: int) -> None:
        """Starts those that the loader was given."""
        for generator in self.generators:
            generator.manual_seed(random.derive(*self.words, *place))


class Ahead:
    """Looks ahead by one. The end, or an error, is kept until what stands there is asked for."""

    def begin(self) -> None:
        """Forgets what was ahead."""
        self._is_ahead = False
        self._ahead: Any = None
        self.error: Exception | None = None

    def draw(self) -> Any:
        """Returns the next one; ``StopIteration`` is the end."""
        raise NotImplementedError

    def look(self) -> bool:
        """Tells whether there is one more."""
        if not self._is_ahead:
            try:
                self._ahead = self.draw()
            except Exception as error:
                self.error = error
            self._is_ahead = True
        return self.error is None

    def is_at_end(self) -> bool:
        """Tells whether the end is next, and not an error."""
        return not self.look() and isinstance(self.error, StopIteration)

    def take(self) -> Any:
        """Returns the next one, or raises what stands there."""
        self.look()
        if self.error is not None:
            raise self.error
        self._is_ahead = False
        return self._ahead


class Indices(Ahead):
    """Gives the batches of indices that a sampler draws. torch's loader has it in place of the sampler.

    torch draws ahead for workers: an error in that passes for the end there, and is kept for who asks for the batch.

    Args:
        sampler: A sampler, or a batch sampler.
        seeds: For its draws, and those of workers.
        seeds_workers: Whether what is given seeds the generators of the worker that it goes to.
        sets_epoch: Whether the data set there has to be given the epoch.

    Attributes:
        n_handed: Batches of the pass that torch has taken, and those skipped.
    """

    def __init__(self, sampler: Any, seeds: Seeds, seeds_workers: bool, sets_epoch: bool) -> None:
        self._sampler = sampler
        self._is_known = is_known(sampler)
        self._seeds = seeds
        self._seeds_workers = seeds_workers
        self._sets_epoch = sets_epoch

    def start(self, n: int) -> None:
        """Starts the sampler; the first ``n`` are skipped."""
        self.begin()
        self._drawn = 0
        self._first = self.n_handed = n
        self._indices = iter(self._sampler)

    def __iter__(self) -> Indices:
        return self

    def __len__(self) -> int:
        return len(self._sampler)

    def __next__(self) -> Any:
        if not self.look():
            raise StopIteration
        k, self.n_handed = self.n_handed, self.n_handed + 1
        indices = self.take()
        return _Seeded(self._seeds.words, k, self._sets_epoch, indices) if self._seeds_workers else indices

    def draw(self) -> Any:
        """Returns the next indices, under their seeds, after those that are skipped."""
        while self._drawn < self._first:
            self._draw()
        return self._draw()

    def _draw(self) -> Any:
        k, self._drawn = self._drawn, self._drawn + 1
        if k == 0:
            return next(self._indices)  # under the seeds of the pass
        if self._is_known:
            self._seeds.start_given(2 * k)
            return next(self._indices)
        with random.preserved():
            self._seeds.start(2 * k)
            return next(self._indices)


class _Seeded:
    """Arrives in a worker as the indices alone, and seeds its generators there, just before they are fetched."""

    def __init__(self, *content: Any) -> None:
        self._content = content

    def __reduce__(self) -> tuple[Any, ...]:
        return _seeded, self._content


_set_epoch: EpochSetter | None = None  # of the data set in this worker


def _seeded(words: tuple[int, ...], k: int, sets_epoch: bool, indices: Any) -> Any:
    global _set_epoch
    if sets_epoch:
        _set_epoch = _set_epoch or EpochSetter(getattr(get_worker_info(), "dataset", None))
        _set_epoch(*words)
    random.seed_generators(random.derive(*words, 2 * k + 1))
    return indices
