"""What torch.utils.data lacks."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from torch.utils.data import Dataset, Subset

from trainer import random


class TransformDataset(Dataset[Any]):
    """A data set with a function applied to each sample, when it is asked for. Chainer: ``TransformDataset``.

    Args:
        dataset: Anything with ``len`` and integer indices.
        transform: Called with one sample; returns the new one.

    Example:
        >>> from trainer.datasets import TransformDataset
        >>> doubled = TransformDataset([1, 2, 3], lambda x: 2 * x)
        >>> doubled[2], len(doubled)
        (6, 3)
    """

    def __init__(self, dataset: Any, transform: Callable[[Any], Any]) -> None:
        self.dataset = dataset
        self.transform = transform

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self.transform(self.dataset[index])


def split_dataset(dataset: Any, split_at: int, order: Iterable[int] | None = None) -> tuple[Subset[Any], Subset[Any]]:
    """Returns the first ``split_at`` samples and the rest. Chainer: ``datasets.split_dataset``.

    Args:
        dataset: Anything with ``len`` and integer indices.
        split_at: Size of the first part.
        order: Indices of all samples in the order in which they are dealt; that of the data set by default.

    Raises:
        TypeError: If ``split_at`` is no integer.
        ValueError: If it is negative or beyond the end, or the order has another length than the data set.

    Example:
        >>> from trainer.datasets import split_dataset
        >>> first, rest = split_dataset("abcde", 3)
        >>> list(first), list(rest)
        (['a', 'b', 'c'], ['d', 'e'])
    """
    n = len(dataset)
    try:
        split_at = operator.index(split_at)
    except TypeError:
        raise TypeError(f"split_at must be int, got {type(split_at).__name__}; e.g. int(0.8 * n).") from None
    if not 0 <= split_at <= n:
        raise ValueError(f"split_at must be 0 to {n}, the size of the data set, got {split_at}.")
    indices = [int(i) for i in (range(n) if order is None else order)]
    if len(indices) != n:
        raise ValueError(f"order has {len(indices)} indices and the data set {n} samples: give each once.")
    return Subset(dataset, indices[:split_at]), Subset(dataset, indices[split_at:])


def split_dataset_random(dataset: Any, first_size: int, seed: int | None = None) -> tuple[Subset[Any], Subset[Any]]:
    """Returns two parts of a data set drawn at random. Chainer: ``datasets.split_dataset_random``.

    The order is ``numpy.random.RandomState(seed).permutation(n)``, as Chainer's: the same seed gives the same parts.

    Args:
        dataset: Anything with ``len`` and integer indices.
        first_size: Size of the first part.
        seed: Of 0 to 2**32 - 1. By default the run's seed (``trainer.random``).

    Raises:
        TypeError: If ``first_size`` is no integer.
        ValueError: If it is negative or beyond the end.

    Example:
        >>> from trainer.datasets import split_dataset_random
        >>> first, rest = split_dataset_random(range(10), 6, seed=0)
        >>> list(first), list(rest)
        ([2, 8, 4, 9, 1, 6], [7, 3, 0, 5])
    """
    seed = random.get_seed() % 2**32 if seed is None else seed
    return split_dataset(dataset, first_size, np.random.RandomState(seed).permutation(len(dataset)))
