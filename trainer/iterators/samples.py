"""The samples of a data set, each with the randomness of its place in the run; bad ones are told of or replaced."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable
from typing import Any

import torch

from trainer import random
from trainer.datasets.transform import drawer

# For a stretch of positions: the first, the indices that follow it in the order, and how many of them one position may
# try. The keys of these positions share the object, so that it travels to a worker once.
Spares = tuple[int, list[int], int]

# Epoch, position in its order, index into the data set, and what may stand in for a bad sample, if anything may.
Key = tuple[int, int, int, Spares | None]

MOST_TRIED = 100  # positions; where so many in a row are bad, the disk is gone


class BadSampleError(RuntimeError):
    """A data set failed to give a sample; its own error is the ``__cause__``.

    It comes with any number of workers alike. What a worker's traceback was is in the cause's notes.

    Attributes:
        index: Of the sample, in the data set.

    Example:
        >>> from trainer.datasets import TransformDataset
        >>> from trainer.iterators import BadSampleError, SerialIterator
        >>> try:
        ...     next(SerialIterator(TransformDataset(["7", "seven"], int), 2))
        ... except BadSampleError as error:
        ...     print(error.index, type(error.__cause__).__name__)
        1 ValueError
    """

    def __init__(self, message: str, index: int, cause: Exception) -> None:
        super().__init__(message)
        self.index = index
        self.__cause__ = cause

    def __reduce__(self) -> tuple[Any, ...]:
        return BadSampleError, (str(self), self.index, self.__cause__)


class Samples:
    """A data set in which the global generators are seeded before each sample, by its place in the run.

    So a sample's augmentation does not depend on what was drawn before, nor on the process that makes it. A data set
    that defines ``draw_sample(index, generator)`` is asked that way, with a generator of its own for each sample.

    Args:
        dataset: Anything with integer indices.
        seed: Of the run.
        seeds_generators: False leaves the global generators alone: threads share them.
    """

    def __init__(self, dataset: Any, seed: int, seeds_generators: bool = True) -> None:
        self.dataset = dataset
        self.seed = seed
        self._seeds_generators = seeds_generators
        self._draw_sample = drawer(dataset)

    def get(self, key: Key, skips: list[dict[str, Any]]) -> Any:
        """Returns a sample, or what stands in for a bad one, which is then added to ``skips``.

        Raises:
            BadSampleError: If the sample is bad, and so is all that might stand in for it.
        """
        try:
            return self._make(key[0], key[1], key[2])
        except Exception as error:  # whatever a data set may raise; of StopIteration the loop would end
            return self._instead(key, error, skips)

    def _make(self, epoch: int, position: int, index: int) -> Any:
        if self._draw_sample is not None:
            generator = torch.Generator()
            generator.manual_seed(self._bits(epoch, position))
            return self._draw_sample(index, generator)
        if self._seeds_generators:
            random.seed_generators(self._bits(epoch, position))
        return self.dataset[index]

    def _bits(self, epoch: int, position: int) -> int:
        return random.derive(self.seed, random.SAMPLE, epoch, position)

    def _instead(self, key: Key, error: Exception, skips: list[dict[str, Any]]) -> Any:
        epoch, position, index, spares = key
        reason = f"{type(error).__name__}: {error}"
        remedy = "; on_bad_sample='skip' goes on without it"
        if spares is not None:
            first, following, most = spares
            tried = following[position - first :][:most]
            for spare in tried:
                try:
                    sample = self._make(epoch, position, spare)
                except Exception:  # it is told of at its own position
                    continue
                skips.append(
                    {"epoch": epoch, "position": position, "index": index, "replaced_by": spare, "error": reason}
                )
                return sample
            remedy = f"; nor one of the {len(tried)} that follow it there: is the disk gone?"
        raise BadSampleError(
            f"{type(self.dataset).__name__} cannot give the sample of index {index} (position {position} in the order"
            f" of epoch {epoch}{remedy}): {reason}",
            index,
            error,
        )

    # -- in a worker

    def __getitems__(self, keys: list[Key]) -> Any:
        """Returns samples and skips, or the failure: for :func:`collate`."""
        skips: list[dict[str, Any]] = []
        try:
            return [self.get(key, skips) for key in keys], skips
        except BadSampleError as error:
            error.__cause__ = _portable(error.__cause__)
            return error


def collate(collate_fn: Callable[[list[Any]], Any] | None, fetched: Any) -> Any:
    """Makes a batch of what ``__getitems__`` returned; a failure passes as it is."""
    if isinstance(fetched, BadSampleError):
        return fetched
    samples, skips = fetched
    return (samples if collate_fn is None else collate_fn(samples)), skips


def _portable(error: Any) -> Any:
    """Returns an error that can be sent to another process, with its traceback, which cannot, as a note."""
    lines = "".join(traceback.format_exception(type(error), error, error.__traceback__)).rstrip()
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # one that needs more arguments than it keeps, or holds an open file
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.__notes__ = [*getattr(error, "__notes__", []), f"In the worker:\n{lines}"]
    return error
