"""Orders of an epoch: functions ``(current order, position) -> new order`` for ``order_sampler``.

An iterator calls them under global generators seeded by (seed, epoch), so what they draw there is the run's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

GOLDEN = (5**0.5 - 1) / 2  # its multiples, modulo 1, lie more evenly than those of any other number


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
        ValueError: If a weight is negative or not finite, all are 0, or ``size`` is not positive. When called, if
            there is not one for each sample.

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
        if len(order) not in (len(self._p), self.size):
            raise ValueError(f"there are {len(self._p)} weights and {len(order)} samples: give one for each.")
        return np.random.choice(len(self._p), self.size, p=self._p)


class StratifiedOrderSampler:
    """Shuffles so that each class is spread evenly: every batch has its share of each, give or take one or two.

    The samples, shuffled within each class, are laid side by side and dealt out in steps of the golden ratio: so few
    of many small classes come together, and neither do many of a large one.

    Args:
        labels: The class of each sample, so that no sample has to be loaded.

    Raises:
        ValueError: If there is no label. When called, if there is not one for each sample.

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
        self._n_classes = len(classes)

    def __call__(self, order: Any, position: int) -> Any:
        """Returns a new order of all samples."""
        n = len(self._class)
        if len(order) != n:
            raise ValueError(f"there are {n} labels and {len(order)} samples: give one for each.")
        shuffled = np.random.permutation(n)
        side_by_side = np.random.permutation(self._n_classes)[self._class[shuffled]]  # the classes too in any order
        by_class = shuffled[np.argsort(side_by_side, kind="stable")]
        place = (np.arange(n) * GOLDEN + np.random.random()) % 1  # of any stretch of samples evenly over the epoch
        return by_class[np.argsort(place, kind="stable")]
