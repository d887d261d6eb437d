"""What torch.utils.data lacks.

What it has is not here: Chainer's ``TupleDataset`` and ``DictDataset`` are ``torch.utils.data.StackDataset``,
``ConcatenatedDataset`` is ``ConcatDataset``, and ``SubDataset`` is ``Subset``.
"""

from __future__ import annotations

import operator
import os
from array import array
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from trainer import random

_Path = str | os.PathLike[str]
_Folds = list[tuple[Subset[Any], Subset[Any]]]
_Indices = np.ndarray[Any, np.dtype[np.int64]]


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
        self._draw = drawer(dataset)
        if self._draw is not None:
            self.draw_sample = self._draw_sample

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self.transform(self.dataset[index])

    def _draw_sample(self, index: int, generator: torch.Generator) -> Any:
        assert self._draw is not None
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
    split_at = _checked("split_at", split_at, 0, len(dataset))
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
        TypeError: If ``first_size`` is no integer.
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
        TypeError: If ``n`` is no integer.
        ValueError: If it is less than 1 or more than there are samples, or the order has another length.

    Example:
        >>> from trainer.datasets import split_dataset_n
        >>> [list(part) for part in split_dataset_n("abcde", 2)]
        [['a', 'b'], ['c', 'd']]
    """
    size = len(dataset) // _checked("n", n, 1, len(dataset))
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
        TypeError: If ``n`` is no integer.
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
        TypeError: If ``n_folds`` is no integer.
        ValueError: If it is less than 2 or more than there are samples, or the order has another length.

    Example:
        >>> from trainer.datasets import get_cross_validation_datasets
        >>> for train, test in get_cross_validation_datasets(range(5), 2):
        ...     print(list(train), list(test))
        [0, 1] [2, 3, 4]
        [2, 3, 4] [0, 1]
    """
    n_folds = _checked("n_folds", n_folds, 2, len(dataset))
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
        TypeError: If ``n_folds`` is no integer.
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
        TypeError: If ``n_folds`` is no integer.
        ValueError: If it is less than 2 or more than there are samples, or there is not one label for each sample.

    Example:
        >>> from trainer.datasets import get_cross_validation_datasets_stratified
        >>> folds = get_cross_validation_datasets_stratified("aaaabb", 2, labels=[0, 0, 0, 0, 1, 1])
        >>> [sorted(test) for train, test in folds]
        [['a', 'a', 'b'], ['a', 'a', 'b']]
    """
    n_folds = _checked("n_folds", n_folds, 2, len(dataset))
    classes = np.asarray(labels)
    if classes.shape != (len(dataset),):
        raise ValueError(
            f"labels must be one label for each of the {len(dataset)} samples, got an array of shape {classes.shape}."
        )
    order = _permutation(dataset, seed)
    by_class = np.argsort(np.unique(classes[order], return_inverse=True)[1], kind="stable")
    fold = np.empty(len(order), int)
    fold[by_class] = np.arange(len(order)) % n_folds  # a class goes on at the fold where the last one ended
    return [(_subset(dataset, order[fold != i]), _subset(dataset, order[fold == i])) for i in range(n_folds)]


def _checked(name: str, value: int, low: int, high: int) -> int:
    try:
        value = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be int, got {type(value).__name__}; e.g. int({value!r}).") from None
    if not low <= value <= high:
        raise ValueError(f"{name} must be {low} to {high}, the size of the data set, got {value}.")
    return value


def _indices(dataset: Any, order: Iterable[int] | None) -> _Indices:
    n = len(dataset)
    if order is None:
        order = np.arange(n)
    indices = np.asarray(order, np.int64).ravel() if hasattr(order, "__array__") else np.fromiter(order, np.int64)
    if len(indices) != n:
        raise ValueError(f"order has {len(indices)} indices and the data set {n} samples: give each once.")
    return indices


def _permutation(dataset: Any, seed: int | None) -> _Indices:
    seed = random.get_seed() % 2**32 if seed is None else seed
    return np.random.RandomState(seed).permutation(len(dataset))


def _subset(dataset: Any, indices: _Indices) -> Subset[Any]:
    """Returns a part of a data set, with its indices in 8 bytes each.

    A list takes 40, and again in every worker: to read one of its integers is to write its count of references. An
    element of a NumPy array would be no int, for which a data set may look in a dict or a file.
    """
    compact = array("q", [0]) * len(indices)
    np.asarray(compact)[:] = indices  # into its memory
    return Subset(dataset, compact)


class ImageDataset(Dataset[Tensor]):
    """Images read from their files one by one, as tensors of shape (C, H, W). Chainer: ``ImageDataset``.

    Values are as in the file, 0 to 255 for 8 bits. A grey image has one channel, one with transparency keeps it as
    the fourth, and a palette becomes RGB. An image is not rotated as its EXIF data say, as in Chainer; and images of
    different sizes do not make a batch without a transform, or ``concat_examples(padding=)``.

    Needs Pillow.

    Args:
        paths: The images' paths, or the name of a text file with one in each line.
        root: The folder from which these paths start.
        dtype: Of the tensors.

    Raises:
        TypeError: If ``dtype`` is not torch's.
        ValueError: If a line of the file is empty.
        OSError: When an image that cannot be read is asked for.

    Example:
        >>> from PIL import Image
        >>> from trainer.datasets import ImageDataset
        >>> Image.new("RGB", (4, 3), "red").save(tmp / "red.png")
        >>> ImageDataset(["red.png"], root=tmp)[0].shape
        torch.Size([3, 3, 4])
    """

    def __init__(self, paths: _Path | Iterable[_Path], root: _Path = ".", dtype: torch.dtype = torch.float32) -> None:
        _check_dtype("dtype", dtype)
        if isinstance(paths, (str, os.PathLike)):
            paths = [path for (path,) in _read_list(paths, str)]
        self._paths = list(paths)
        self._root = root
        self._dtype = dtype

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Tensor:
        return _read_image(os.path.join(self._root, self._paths[index]), self._dtype)


class LabeledImageDataset(Dataset[tuple[Tensor, Tensor]]):
    """Pairs of an image, as :class:`ImageDataset` reads it, and its label. Chainer: ``LabeledImageDataset``.

    Args:
        pairs: Pairs (path, integer label), or the name of a text file with a path and a label in each line,
            separated by white space.
        root: The folder from which the paths start.
        dtype: Of the images.
        label_dtype: Of the labels, tensors without dimensions.

    Raises:
        TypeError: If a dtype is not torch's.
        ValueError: If a line of the file holds anything else.
        OSError: When an image that cannot be read is asked for.

    Example:
        >>> from PIL import Image
        >>> from trainer.datasets import LabeledImageDataset
        >>> Image.new("L", (4, 3)).save(tmp / "black.png")
        >>> image, label = LabeledImageDataset([("black.png", 7)], root=tmp)[0]
        >>> image.shape, label
        (torch.Size([1, 3, 4]), tensor(7))
    """

    def __init__(
        self,
        pairs: _Path | Iterable[tuple[_Path, int]],
        root: _Path = ".",
        dtype: torch.dtype = torch.float32,
        label_dtype: torch.dtype = torch.int64,
    ) -> None:
        _check_dtype("label_dtype", label_dtype)
        pairs = _read_list(pairs, str, int) if isinstance(pairs, (str, os.PathLike)) else list(pairs)
        self._images = ImageDataset([path for path, _ in pairs], root, dtype)
        self._labels = [label for _, label in pairs]
        self._label_dtype = label_dtype

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self._images[index], torch.tensor(self._labels[index], dtype=self._label_dtype)


def _check_dtype(name: str, dtype: torch.dtype) -> None:
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"{name} must be a torch.dtype, got {dtype!r}; e.g. torch.float32.")


def _read_list(name: _Path, *fields: Callable[[str], Any]) -> list[tuple[Any, ...]]:
    entries = []
    with open(name, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            words = line.strip().split(maxsplit=len(fields) - 1)  # a path alone on its line may hold spaces
            try:
                entries.append(tuple(read(word) for read, word in zip(fields, words, strict=True)))
            except ValueError:
                expected = "a path" if len(fields) == 1 else "a path and an integer label"
                raise ValueError(f"{name}, line {number}: expected {expected}, got {line.rstrip()!r}.") from None
    return entries


def _read_image(path: str, dtype: torch.dtype) -> Tensor:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("to read images Pillow is needed: pip install pillow.") from error
    try:
        with Image.open(path) as file:
            image: Image.Image = file
            if file.mode in ("P", "PA"):
                image = file.convert("RGBA").convert("RGB")  # at once it would warn of transparent colours
            elif file.mode == "1":
                image = file.convert("L")  # 0 and 255, as any other grey image
            pixels = torch.from_numpy(np.array(image))
    except Exception as error:  # Pillow raises nearly anything for a damaged file
        raise OSError(f"cannot read the image {path}: {error}") from error
    return pixels.reshape(*pixels.shape[:2], -1).permute(2, 0, 1).contiguous().to(dtype)
