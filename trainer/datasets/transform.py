"""A data set seen through a function."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch.utils.data import Dataset, Subset, TensorDataset

from trainer import random

_PLAIN = (list, tuple, range, str, np.ndarray, torch.Tensor, TensorDataset)


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
        self._draw: Any = drawer(dataset)
        if self._draw is not None:
            self.draw_sample = self._draw_sample

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self.transform(self.dataset[index])

    def _draw_sample(self, index: int, generator: torch.Generator) -> Any:
        return self.transform(self._draw(index, generator))


def drawer(dataset: Any) -> Callable[[int, torch.Generator], Any] | None:
    """Returns the ``draw_sample(index, generator)`` of a data set, or of the one that a ``Subset`` is part of, or None.

    Example:
        >>> from trainer.datasets import drawer
        >>> drawer([1, 2, 3]) is None
        True
    """
    if isinstance(dataset, Subset):
        draw = drawer(dataset.dataset)
        return None if draw is None else partial(_draw_of_subset, draw, dataset.indices)
    return getattr(dataset, "draw_sample", None)


def _draw_of_subset(draw: Callable[..., Any], indices: Sequence[int], index: int, generator: torch.Generator) -> Any:
    return draw(indices[index], generator)


class EpochSetter:
    """Calls ``set_epoch`` of data sets and samplers: once for each epoch, and again if another setter came between.

    So a data set that training and an evaluation share is at the right epoch for each batch of both.

    Args:
        parts: Data sets, of which those in a ``Subset`` or ``TransformDataset`` are found, and samplers. Those without
            ``set_epoch`` are left out.

    Example:
        >>> from trainer.datasets.transform import EpochSetter
        >>> class Data(list):
        ...     def set_epoch(self, epoch):
        ...         print("epoch", epoch)
        >>> data = Data()
        >>> training, evaluation = EpochSetter(data), EpochSetter(data)
        >>> training(1), training(1), evaluation(0), training(1)
        epoch 1
        epoch 0
        epoch 1
        (None, None, None, None)
    """

    def __init__(self, *parts: Any) -> None:
        owners = [part for part in map(_with_epoch, parts) if part is not None]
        self._owners = list({id(owner): owner for owner in owners}.values())
        self._epoch: int | None = None

    def __bool__(self) -> bool:
        return bool(self._owners)

    def __call__(self, *words: int) -> None:
        """Sets the epoch, the last of the words, where it is another; under generators seeded by all of them."""
        epoch = words[-1]
        others = [x for x in self._owners if epoch != self._epoch or _last_setters.get(id(x)) is not self]
        if others:
            with random.preserved():
                random.seed_generators(random.derive(*words))
                for owner in others:
                    owner.set_epoch(epoch)
                    _last_setters[id(owner)] = self
            self._epoch = epoch


# Who set the epoch of an object last, by its id: a setter keeps its objects alive, so no other gets the id meanwhile.
_last_setters: WeakValueDictionary[int, EpochSetter] = WeakValueDictionary()


def _with_epoch(part: Any) -> Any:
    """Returns what has ``set_epoch``: the object, or the data set that it is a part or a view of; or None."""
    while isinstance(part, (Subset, TransformDataset)) and not hasattr(part, "set_epoch"):
        part = part.dataset
    return part if hasattr(part, "set_epoch") else None


def is_plain(dataset: Any) -> bool:
    """Tells whether a data set is of a kind that is known to draw no random numbers, or a ``Subset`` of one.

    Example:
        >>> from trainer.datasets.transform import TransformDataset, is_plain
        >>> is_plain([1, 2, 3]), is_plain(TransformDataset([1, 2, 3], float))
        (True, False)
    """
    while type(dataset) is Subset:
        dataset = dataset.dataset
    return type(dataset) in _PLAIN


@contextmanager
def single_thread() -> Iterator[None]:
    """Computes with one thread in the block, as a worker process does: sums over two may differ in the last bit.

    Example:
        >>> from trainer.datasets.transform import single_thread
        >>> with single_thread():
        ...     torch.get_num_threads()
        1
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
