"""Image files as data sets: what is wrong with a file is told with its path."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError
from torch.utils.data import Dataset
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS, has_file_allowed_extension

from trainer.checks import printable


class BadImageError(OSError):
    """An image that cannot be used; the message has its path, and its line if it is one of a list."""


@contextmanager
def named(path: str | Path, where: str = "") -> Iterator[None]:
    """Makes a :class:`BadImageError` of whatever goes wrong with an image file within the ``with``."""
    try:
        yield
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # SyntaxError: broken PNG
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else str(error)
        if isinstance(error, UnidentifiedImageError):
            reason = "it is not an image"
        raise BadImageError(printable(f"{path}{where} cannot be used: {reason}")) from error


def read_named(read: Callable[[str], Any], path: str) -> Any:
    """Returns what ``read`` makes of a file.

    Raises:
        BadImageError: If the file is missing, cut short, or no image; its path is named.
    """
    with named(path):
        return read(path)


def is_image(path: str) -> bool:
    """Returns whether a file's name is that of an image; what is hidden is none."""
    return has_file_allowed_extension(path, IMG_EXTENSIONS) and not os.path.basename(path).startswith(".")


class _ClassFolder(ImageFolder):
    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        """Leaves hidden folders out, such as .ipynb_checkpoints."""
        names = [name for name in super().find_classes(directory)[0] if not name.startswith(".")]
        return names, {name: label for label, name in enumerate(names)}


def class_folders(
    root: str | Path, read: Callable[[str], Any], augment: Callable[[Any], Any] | None = None
) -> tuple[dict[str, ImageFolder], list[str]]:
    """Returns the data sets of ``train/<class>/*`` and ``test/<class>/*``, and the names of the classes.

    Args:
        root: The folder of ``train`` and ``test``.
        read: Makes a sample's image of a file's path.
        augment: Applied to the images to train on.

    Raises:
        FileNotFoundError: If a folder is missing, or holds no image.
        ValueError: If there are fewer than two classes, or other ones to test on.
    """
    root = Path(root)
    for split in ("train", "test"):
        if not (root / split).is_dir():
            raise FileNotFoundError(f"{root} has no folder {split!r}: images belong into {root / split}/<class>/.")
    loader = partial(read_named, read)
    sets = {}
    for split, transform in (("train", augment), ("test", None)):
        try:
            sets[split] = _ClassFolder(root / split, transform, loader=loader, is_valid_file=is_image)
        except FileNotFoundError as error:
            reason = str(error).splitlines()[0].rstrip(". ")
            raise FileNotFoundError(
                f"{root / split}: {reason}; each folder in it is a class and must hold images"
                f" ({', '.join(IMG_EXTENSIONS)})."
            ) from error
    train, test = sets["train"], sets["test"]
    if len(train.classes) < 2:
        raise ValueError(f"{root / 'train'} has one class only, {train.classes[0]}: two folders or more are needed.")
    if train.classes != test.classes:
        other = sorted(set(train.classes) ^ set(test.classes))
        raise ValueError(f"{root}: train and test must have the same classes; only one of them has {', '.join(other)}.")
    return sets, train.classes


class ImageFiles(Dataset[tuple[Any, int]]):
    """Image files with their labels.

    Args:
        paths: Of the files.
        labels: One for each.
        read: Makes a sample's image of a file's path.
        augment: Applied to each image.
    """

    def __init__(
        self,
        paths: Sequence[str],
        labels: Sequence[int],
        read: Callable[[str], Any],
        augment: Callable[[Any], Any] | None = None,
    ) -> None:
        self.paths = paths
        self.labels = labels
        self.read = read
        self.augment = augment

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Returns an image and its label.

        Raises:
            BadImageError: If the file is missing, cut short, or no image; its path is named.
        """
        image = read_named(self.read, self.paths[index])
        return image if self.augment is None else self.augment(image), self.labels[index]
