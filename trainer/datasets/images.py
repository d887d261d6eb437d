"""Images read from their files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, StackDataset

from trainer.datasets.transform import TransformDataset
from trainer.saving.files import regular

_Path = str | os.PathLike[str]


class ImageDataset(Dataset[Tensor]):
    """Images read from their files one by one, as tensors of shape (C, H, W). Chainer: ``ImageDataset``.

    Values are as in the file, 0 to 255 for 8 bits. A grey image has one channel, one with transparency keeps it as
    the fourth, and a palette becomes RGB; of several frames the first counts. An image is not rotated as its EXIF data
    say, as in Chainer; and images of different sizes do not make a batch without a transform, or
    ``concat_examples(padding=)``.

    Needs Pillow.

    Args:
        paths: The images' paths, or the name of a text file with one in each line.
        root: The folder from which these paths start.
        dtype: Of the tensors.

    Raises:
        TypeError: If ``dtype`` is not torch's.
        ValueError: If a line of the file is empty.
        OSError: When an image is asked for that cannot be read, has more than twice Pillow's ``MAX_IMAGE_PIXELS``, or
            values that ``dtype`` cannot hold.

    Example:
        >>> from PIL import Image
        >>> from trainer.datasets import ImageDataset
        >>> Image.new("RGB", (4, 3), "red").save(tmp / "red.png")
        >>> ImageDataset(["red.png"], root=tmp)[0].shape
        torch.Size([3, 3, 4])
    """

    def __init__(self, paths: _Path | Iterable[_Path], root: _Path = ".", dtype: torch.dtype = torch.float32) -> None:
        _check_dtype("dtype", dtype)
        self._paths = _entries(paths, str)
        self._root = root
        self._dtype = dtype

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Tensor:
        return _read_image(os.path.join(self._root, self._paths[index]), self._dtype)


class LabeledImageDataset(StackDataset[Any]):
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
        pairs = _entries(pairs, str, int)
        images = ImageDataset([path for path, _ in pairs], root, dtype)
        labels = TransformDataset([label for _, label in pairs], partial(torch.tensor, dtype=label_dtype))
        super().__init__(images, labels)


def _check_dtype(name: str, dtype: torch.dtype) -> None:
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"{name} must be a torch.dtype, got {dtype!r}; e.g. torch.float32.")


def _entries(given: Any, *fields: Callable[[str], Any]) -> list[Any]:
    """Returns a list, which may be given by the name of a file that has an entry in each line."""
    if not isinstance(given, (str, os.PathLike)):
        return list(given)
    entries = []
    with open(given, encoding="utf-8", opener=regular) as file:
        for number, line in enumerate(file, 1):
            words = line.strip().split(maxsplit=len(fields) - 1)  # a path alone on its line may hold spaces
            try:
                entry = [read(word) for read, word in zip(fields, words, strict=True)]
                entries.append(entry if len(fields) > 1 else entry[0])
            except ValueError:
                expected = "a path" if len(fields) == 1 else "a path and an integer label"
                raise ValueError(f"{given}, line {number}: expected {expected}, got {line.rstrip()!r}.") from None
    return entries


def _read_image(path: str, dtype: torch.dtype) -> Tensor:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("to read images Pillow is needed: pip install pillow.") from error
    try:
        with open(path, "rb", opener=regular) as stream, Image.open(stream) as file:
            turn = file.getexif().get(0x0112, 1) if file.format == "TIFF" else 1  # Pillow turns it as it loads
            image: Image.Image = file
            if file.mode in ("P", "PA"):
                image = file.convert("RGBA").convert("RGB")  # at once it would warn of transparent colours
            elif file.mode == "1":
                image = file.convert("L")  # 0 and 255, as any other grey image
            pixels = np.asarray(image)
        back = [-1 if turn in those else 1 for those in ((3, 4, 7, 8), (2, 3, 6, 7))]
        pixels = pixels[:: back[0], :: back[1]]
        if turn in (5, 6, 7, 8):
            pixels = pixels.swapaxes(0, 1)
        pixels = pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1)
        tensor = torch.from_numpy(pixels.astype(pixels.dtype.newbyteorder("="), "C")).to(dtype)
        if not (dtype.is_floating_point or dtype == torch.bool or np.array_equal(tensor, pixels)):
            raise ValueError(f"it has values that are no {dtype}, between {pixels.min()} and {pixels.max()}")
    except Exception as error:  # Pillow raises nearly anything for a damaged file
        raise OSError(f"cannot read the image {path}: {error}") from error
    return tensor
