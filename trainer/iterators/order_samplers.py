"""Orders of an epoch: functions ``(current order, position) -> new order`` for ``order_sampler``.

An iterator calls them under global generators seeded by (seed, epoch), so what they draw there is the run's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


class ShuffleOrderSampler:
    """Shuffles. Chainer: ``ShuffleOrderSampler``; here ``shuffle=True`` does it too.

    Example:
        >>> from trainer.iterators import SerialIterator, ShuffleOrderSampler
        >>> sorted(next(SerialIterator(range(4), 4, order_sampler=ShuffleOrderSampler())))
        [0, 1, 2, 3]
    """

    def __call__(self, order: Any, position: int) -> Any:
        """Returns a permutation of the current order."""
        return np.random.permutation(order)


class WeightedOrderSampler:
    """Draws each index with a probability in proportion to its weight, with replacement.

    With ``1 / (samples of its class)`` as the weight of each sample, all classes come equally often on average.
    PyTorch: ``WeightedRandomSampler``.

    Args:
        weights: One for each sample, not negative, of any sum.
        size: Samples in an epoch; as many as there are weights by default.

    Raises:
        ValueError: If a weight is negative or not finite, all are 0, or ``size`` is not positive.

    Example:
        >>> from trainer.iterators import SerialIterator, WeightedOrderSampler
        >>> next(SerialIterator("abc", 4, order_sampler=WeightedOrderSampler([0, 1, 0])))
        ['b', 'b', 'b', 'b']
    """

    def __init__(self, weights: Sequence[float], size: int | None = None) -> None:
        p = np.asarray(weights, dtype=np.float64)
        if p.ndim != 1 or not np.isfinite(p).all() or (p < 0).any() or p.sum() == 0:
            raise ValueError("weights must be one number for each sample, none negative, and not all 0.")
        self.size = len(p) if size is None else size
        if self.size < 1:
            raise ValueError(f"size must be 1 or more, got {size}.")
        self._p = p / p.sum()

    def __call__(self, order: Any, position: int) -> Any:
        """Returns ``size`` indices."""
        return np.random.choice(len(self._p), self.size, p=self._p)


class StratifiedOrderSampler:
    """Shuffles so that each class is spread evenly: every batch has its share of each, give or take one or two.

    Args:
        labels: The class of each sample, so that no sample has to be loaded.

    Raises:
        ValueError: If there is no label.

    Example:
        >>> from trainer.iterators import SerialIterator, StratifiedOrderSampler
        >>> labels = "aaaaaabb"
        >>> iterator = SerialIterator(labels, 4, order_sampler=StratifiedOrderSampler(labels))
        >>> sorted(next(iterator) + next(iterator)) == sorted(labels)
        True
    """

    def __init__(self, labels: Sequence[Any]) -> None:
        if len(labels) == 0:
            raise ValueError("labels must be the class of each sample, got none.")
        classes, self._class = np.unique(np.asarray(list(labels)), return_inverse=True)
        self._counts = np.bincount(self._class, minlength=len(classes))

    def __call__(self, order: Any, position: int) -> Any:
        """Returns a new order of all samples."""
        n = len(self._class)
        shuffled = np.random.permutation(n)
        by_class = shuffled[np.argsort(self._class[shuffled], kind="stable")]
        starts = np.concatenate(([0], np.cumsum(self._counts)[:-1]))
        rank = np.arange(n) - np.repeat(starts, self._counts)
        # The k-th of a class of m comes somewhere in the k-th of m equal parts of the epoch.
        place = (rank + np.random.random(n)) / np.repeat(self._counts, self._counts)
        return by_class[np.argsort(place, kind="stable")]
