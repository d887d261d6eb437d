"""Parts of a data set: splits and folds."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Subset

from trainer import random
from trainer.checks import at_least

_Folds = list[tuple[Subset[Any], Subset[Any]]]
_Indices = np.ndarray[Any, np.dtype[np.int64]]


def split_dataset(dataset: Any, split_at: int, order: Iterable[int] | None = None) -> tuple[Subset[Any], Subset[Any]]:
    """Returns the first ``split_at`` samples and the rest. Chainer: ``datasets.split_dataset``.

    Args:
        dataset: Anything with ``len`` and integer indices.
        split_at: Size of the first part.
        order: Indices of all samples in the order in which they are dealt; that of the data set by default.

    Raises:
        TypeError: If ``split_at`` is not an integer.
        ValueError: If it is negative or beyond the end, or the order has another length than the data set.

    Example:
        >>> from trainer.datasets import split_dataset
        >>> first, rest = split_dataset("abcde", 3)
        >>> list(first), list(rest)
        (['a', 'b', 'c'], ['d', 'e'])
    """
    split_at = at_least("split_at", split_at, 0, len(dataset))
    indices = _indices(dataset, order)
    return _subset(dataset, indices[:split_at]), _subset(dataset, indices[split_at:])


def split_dataset_random(dataset: Any, first_size: int, seed: int | None = None) -> tuple[Subset[Any], Subset[Any]]:
    """Returns two parts of a data set drawn at random. Chainer: ``datasets.split_dataset_random``.

    The order is ``numpy.random.RandomState(seed).permutation(n)``, as Chainer's: the same seed gives the same parts.

    Args:
        dataset: Anything with ``len`` and integer indices.
        first_size: Size of the first part.
        seed: Of 0 to 2**32 - 1. By default the run's seed (``trainer.random``).

    Raises:
        TypeError: If ``first_size`` is not an integer.
        ValueError: If it is negative or beyond the end.

    Example:
        >>> from trainer.datasets import split_dataset_random
        >>> first, rest = split_dataset_random(range(10), 6, seed=0)
        >>> list(first), list(rest)
        ([2, 8, 4, 9, 1, 6], [7, 3, 0, 5])
    """
    return split_dataset(dataset, first_size, _permutation(dataset, seed))


def split_dataset_n(dataset: Any, n: int, order: Iterable[int] | None = None) -> list[Subset[Any]]:
    """Returns ``n`` parts of ``len(dataset) // n`` samples each; those left over are in no part, as in Chainer.

    Chainer: ``datasets.split_dataset_n``.

    Args:
        dataset: Anything with ``len`` and integer indices.
        n: Number of parts.
        order: Indices of all samples in the order in which they are dealt; that of the data set by default.

    Raises:
        TypeError: If ``n`` is not an integer.
        ValueError: If it is less than 1 or more than there are samples, or the order has another length.

    Example:
        >>> from trainer.datasets import split_dataset_n
        >>> [list(part) for part in split_dataset_n("abcde", 2)]
        [['a', 'b'], ['c', 'd']]
    """
    size = len(dataset) // at_least("n", n, 1, len(dataset))
    indices = _indices(dataset, order)
    return [_subset(dataset, indices[i * size : (i + 1) * size]) for i in range(n)]


def split_dataset_n_random(dataset: Any, n: int, seed: int | None = None) -> list[Subset[Any]]:
    """Returns ``n`` parts of ``len(dataset) // n`` samples each, drawn at random; those left over are in no part.

    Chainer: ``datasets.split_dataset_n_random``, with the same parts for the same seed.

    Args:
        dataset: Anything with ``len`` and integer indices.
        n: Number of parts.
        seed: Of 0 to 2**32 - 1. By default the run's seed (``trainer.random``).

    Raises:
        TypeError: If ``n`` is not an integer.
        ValueError: If it is less than 1 or more than there are samples.

    Example:
        >>> from trainer.datasets import split_dataset_n_random
        >>> [list(part) for part in split_dataset_n_random(range(10), 3, seed=0)]
        [[2, 8, 4], [9, 1, 6], [7, 3, 0]]
    """
    return split_dataset_n(dataset, n, _permutation(dataset, seed))


def get_cross_validation_datasets(dataset: Any, n_folds: int, order: Iterable[int] | None = None) -> _Folds:
    """Returns ``n_folds`` pairs (train, test); each sample is in one test part, and in the others' training parts.

    The sizes of the test parts differ by 1 at most. Chainer: ``datasets.get_cross_validation_datasets``.

    Args:
        dataset: Anything with ``len`` and integer indices.
        n_folds: Number of pairs.
        order: Indices of all samples in the order in which they are dealt; that of the data set by default.

    Raises:
        TypeError: If ``n_folds`` is not an integer.
        ValueError: If it is less than 2 or more than there are samples, or the order has another length.

    Example:
        >>> from trainer.datasets import get_cross_validation_datasets
        >>> for train, test in get_cross_validation_datasets(range(5), 2):
        ...     print(list(train), list(test))
        [0, 1] [2, 3, 4]
        [2, 3, 4] [0, 1]
    """
    n_folds = at_least("n_folds", n_folds, 2, len(dataset))
    indices = _indices(dataset, order)
    borders = list(pairwise(len(indices) * i // n_folds for i in range(n_folds + 1)))
    return [
        (_subset(dataset, np.concatenate((indices[end:], indices[:begin]))), _subset(dataset, indices[begin:end]))
        for begin, end in reversed(borders)  # the last fold first, as Chainer's
    ]


def get_cross_validation_datasets_random(dataset: Any, n_folds: int, seed: int | None = None) -> _Folds:
    """Returns the pairs of :func:`get_cross_validation_datasets` for a random order.

    Chainer: ``datasets.get_cross_validation_datasets_random``, with the same pairs for the same seed.

    Args:
        dataset: Anything with ``len`` and integer indices.
        n_folds: Number of pairs.
        seed: Of 0 to 2**32 - 1. By default the run's seed (``trainer.random``).

    Raises:
        TypeError: If ``n_folds`` is not an integer.
        ValueError: If it is less than 2 or more than there are samples.

    Example:
        >>> from trainer.datasets import get_cross_validation_datasets_random
        >>> for train, test in get_cross_validation_datasets_random(range(5), 2, seed=0):
        ...     print(list(train), list(test))
        [2, 0] [1, 3, 4]
        [1, 3, 4] [2, 0]
    """
    return get_cross_validation_datasets(dataset, n_folds, _permutation(dataset, seed))


def get_cross_validation_datasets_stratified(
    dataset: Any, n_folds: int, labels: Sequence[Any] | np.ndarray[Any, Any] | Tensor, seed: int | None = None
) -> _Folds:
    """Returns ``n_folds`` pairs (train, test) in which each class has its share of every test part.

    Between any two test parts the number of samples differs by 1 at most, and so does that of every class.

    Args:
        dataset: Anything with ``len`` and integer indices; no sample is loaded.
        n_folds: Number of pairs.
        labels: The class of each sample: a list, an array or a tensor of numbers or strings.
        seed: Of 0 to 2**32 - 1. By default the run's seed (``trainer.random``).

    Raises:
        TypeError: If ``n_folds`` is not an integer.
        ValueError: If it is less than 2 or more than there are samples, or there is not one label for each sample.

    Example:
        >>> from trainer.datasets import get_cross_validation_datasets_stratified
        >>> folds = get_cross_validation_datasets_stratified("aaaabb", 2, labels=[0, 0, 0, 0, 1, 1])
        >>> [sorted(test) for train, test in folds]
        [['a', 'a', 'b'], ['a', 'a', 'b']]
    """
    n_folds = at_least("n_folds", n_folds, 2, len(dataset))
    classes, n = np.asarray(labels), len(dataset)
    if classes.shape != (n,):
        raise ValueError(f"labels must be one label for each of the {n} samples, got the shape {classes.shape}.")
    order = _permutation(dataset, seed)
    by_class = np.argsort(np.unique(classes[order], return_inverse=True)[1], kind="stable")
    fold = np.empty(n, int)
    fold[by_class] = np.arange(n) % n_folds  # a class goes on at the fold where the last one ended
    return [(_subset(dataset, order[fold != i]), _subset(dataset, order[fold == i])) for i in range(n_folds)]


def _indices(dataset: Any, order: Iterable[int] | None) -> _Indices:
    n = len(dataset)
    if order is None:
        return np.arange(n)
    indices = np.asarray(order, np.int64).ravel() if hasattr(order, "__array__") else np.fromiter(order, np.int64)
    if len(indices) != n:
        raise ValueError(f"order has {len(indices)} indices and the data set {n} samples: give each once.")
    return indices


def _permutation(dataset: Any, seed: int | None) -> _Indices:
    seed = random.get_seed() % 2**32 if seed is None else seed
    return np.random.RandomState(seed).permutation(len(dataset))


def _subset(dataset: Any, indices: _Indices) -> Subset[Any]:
    """Returns a part of a data set, with its indices in 8 bytes each.

    A list takes 40, and again in every worker: reading one of its integers writes its reference count. An element of a
    NumPy array is not an int, which a data set may need for a dict or a file.
    """
    return Subset(dataset, array("q", indices.astype(np.int64).tobytes())[:])  # a copy has no spare memory
