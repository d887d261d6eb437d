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
from trainer.datasets.transform import epoch_setter

# They know their length, and draw from the global generators at their first index only.
_KNOWN = (SequentialSampler, RandomSampler, SubsetRandomSampler, WeightedRandomSampler, DistributedSampler)
_END: Any = object()


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

    def bits(self, *place: int) -> int:
        """Returns 64 bits for a place, or for the start of the pass."""
        return random.derive(*self.words, *place)

    def start(self, *place: int) -> None:
        """Starts all the generators from these."""
        random.seed_generators(self.bits(*place))
        self.start_given(*place)

    def start_given(self, *place: int) -> None:
        """Starts those that the loader was given."""
        for generator in self.generators:
            generator.manual_seed(self.bits(*place))


class Indices:
    """Gives the batches of indices that a sampler draws. torch's loader has it in place of the sampler.

    torch draws ahead for workers. An error in that is kept until the batch is asked for.

    Args:
        sampler: A sampler, or a batch sampler.
        seeds: For its draws, and those of workers.
        for_workers: Whether what is given goes to workers.
        sends_epoch: Whether it has to tell the data set there the epoch.
    """

    def __init__(self, sampler: Any, seeds: Seeds, for_workers: bool, sends_epoch: bool) -> None:
        self._sampler = sampler
        self._is_known = is_known(sampler)
        self._seeds = seeds
        self._for_workers = for_workers
        self._sends_epoch = sends_epoch

    def begin(self, n: int) -> None:
        """Starts the sampler; the first ``n`` are skipped."""
        self._drawn, self._is_over = 0, False
        self._ahead: list[Any] = []
        self.n_handed = self._first = n  # those skipped, and those that torch has taken
        self.error: Exception | None = None
        self._indices = iter(self._sampler)

    def __iter__(self) -> Indices:
        return self

    def __len__(self) -> int:
        return len(self._sampler)

    def __next__(self) -> Any:
        if not self.has_more():
            raise StopIteration
        k, indices = self.n_handed, self._ahead.pop()
        self.n_handed += 1
        if not self._for_workers:
            return indices
        return _Seeded(self._seeds.bits(2 * k + 1), self._seeds.words[-1] if self._sends_epoch else None, indices)

    def has_more(self) -> bool:
        """Tells whether there is one more, drawing it if need be."""
        try:
            while not (self._ahead or self._is_over):
                indices = self._draw()
                self._drawn += 1
                self._is_over = indices is _END
                if not self._is_over and self._drawn > self._first:
                    self._ahead = [indices]
        except Exception as error:
            self.error, self._is_over = error, True
        return bool(self._ahead)

    def _draw(self) -> Any:
        if self._drawn == 0:
            return next(self._indices, _END)  # under the seeds of the pass
        if self._is_known:
            self._seeds.start_given(2 * self._drawn)
            return next(self._indices, _END)
        with random.preserved():
            self._seeds.start(2 * self._drawn)
            return next(self._indices, _END)


class _Seeded:
    """Arrives in a worker as the indices alone, and seeds its generators there, just before they are fetched."""

    def __init__(self, *content: Any) -> None:
        self._content = content

    def __reduce__(self) -> tuple[Any, ...]:
        return _seeded, self._content


_epoch: int | None = None  # of the data set in this worker


def _seeded(bits: int, epoch: int | None, indices: Any) -> Any:
    global _epoch
    worker = get_worker_info()
    if worker is not None and epoch not in (None, _epoch):
        _epoch = epoch
        if set_epoch := epoch_setter(worker.dataset):
            set_epoch(epoch)
    random.seed_generators(bits)
    return indices
