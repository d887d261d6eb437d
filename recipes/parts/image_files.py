"""Image files: what their pixels are, what is wrong with one, and which there are in a folder."""

from __future__ import annotations

import hashlib
import importlib
import logging
import math
import os
import stat
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, SAMPLEFORMAT
from torch.utils.data import Dataset, Subset
from torchvision.datasets import ImageFolder

from trainer.checks import headline, log, printable

# The version of the pixels that a file has here, to be raised with each change of them: runs and caches record it.
# 2: turned as the EXIF data say; 16 bits and floats scaled to 8 bits; LAB.
DECODER = 2

# Plug-ins of Pillow's, where they are installed: HEIC, and AVIF for a Pillow without it.
with suppress(ImportError):
    importlib.import_module("pillow_heif").register_heif_opener()
with suppress(ImportError):
    importlib.import_module("pillow_avif")
# Pillow knows their names, but has no decoder of them; or they are videos and programs.
_NO_PHOTOGRAPHS = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "PALM", "PDF", "WMF"}

PLUGINS = {".heic": "pillow-heif", ".heif": "pillow-heif", ".hif": "pillow-heif", ".avif": "pillow-avif-plugin"}
NO_IMAGE = "not an image"
RAW = {".3fr", ".arw", ".cr2", ".cr3", ".dng", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".srw", ".x3f"}

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BACK = {6: 8, 8: 6}  # any other turn undoes itself
_say = cache(partial(log, logging.WARNING))  # each message once


class BadImageError(OSError):
    """An image that cannot be used; the message has its path, and its line if it is one of a list."""


class UnfitImageError(ValueError):
    """What a transform says of an image whose size it cannot take."""


@contextmanager
def named(path: str | Path, where: str = "", faults: type[Exception] = Exception) -> Iterator[None]:
    """Makes a :class:`BadImageError` of each of the ``faults`` within the ``with``, and tells it where it was."""
    try:
        yield
    except BadImageError as error:
        if not where:
            raise
        raise BadImageError(str(error).replace(shown := printable(str(path)), f"{shown}{where}", 1)) from error
    except faults as error:
        reason = str(error) if isinstance(error, (OSError, ValueError)) else headline(error)
        if isinstance(error, FileNotFoundError):
            reason = "there is no such file"
        elif isinstance(error, UnidentifiedImageError):
            reason = "it is not an image"
        raise BadImageError(printable(f"{path}{where} cannot be used: {reason}")) from error


def size_of(path: str | Path) -> int:
    """Returns the bytes of a file; an OSError is what must not be opened, such as a pipe, which waits."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is a folder, a pipe or a device, and no file")
    return status.st_size


def read_named(read: Callable[[str], Any], path: str, where: str = "") -> Any:
    """Returns what ``read`` makes of a file.

    An error of ``read`` is the image's only if the file is damaged, or if ``read`` says so by an
    :class:`UnfitImageError`; any other comes as it is.

    Raises:
        BadImageError: If the file is missing, cut short, or no image; its path is named.
    """
    try:
        size_of(path)
        return read(path)
    except Exception as error:
        with named(path, where, UnfitImageError):
            if not isinstance(error, (BadImageError, UnfitImageError)):
                read_rgb(path)  # raises what is wrong with the file
            raise


def max_pixels() -> float:
    """Returns how many pixels an image may have: twice Pillow's ``Image.MAX_IMAGE_PIXELS``, as Pillow has it."""
    return 2 * (Image.MAX_IMAGE_PIXELS or math.inf)


def orientation(image: Image.Image) -> int:
    """Returns how the EXIF data ask to turn an image, 1 to 8; 1 where they are damaged, as viewers do."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:
        return 1
    return found if found in _TURNS else 1


def read_rgb(path: str | Path, turned: bool = True) -> Image.Image:
    """Returns an image file of any mode as RGB; of several frames the first. What is transparent keeps its colour.

    Grey of 16 bits is divided by 257, signed and 32-bit grey likewise by its largest value, and floats of 0 to 1 are
    multiplied by 255. Where that leaves nothing but black, and of other floats or negative grey, no file says which
    value is white: they are refused.

    Args:
        path: Of the file.
        turned: Whether it is turned as its EXIF data say.

    Raises:
        BadImageError: If the file is missing, damaged, no image, or has more than :func:`max_pixels`.
    """
    with named(path):
        size_of(path)
        with Image.open(path) as image:
            if image.format == "EPS":
                raise ValueError("PostScript is a program, and is not run")
            loaded = orientation(image) if image.format == "TIFF" else 1  # Pillow turns it as it loads
            image.load()
            turn = orientation(image) if turned else _BACK.get(loaded, loaded)
            rgb = as_rgb(image)
        if turn != 1:
            rgb = rgb.transpose(_TURNS[turn])
            rgb.info.clear()  # else who reads the EXIF data would turn it again
        return rgb


def as_rgb(image: Image.Image) -> Image.Image:
    """Returns an image of any mode as RGB, as :func:`read_rgb` does; the very image if it is.

    Raises:
        ValueError: If nothing says which of its values is white.
    """
    if image.mode == "RGB":
        return image
    if image.mode[0] in "IF":
        image = Image.fromarray(_in_8_bits(image))
    elif image.mode == "LAB":
        lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, lab, rgb, outputMode="RGB")  # type: ignore[return-value]
    elif image.mode in ("La", "RGBa"):
        image = image.convert(image.mode.upper())
    elif "transparency" in image.info:  # a palette with transparency converts by way of RGBA only
        image = image.convert("RGBA")
    return image.convert("RGB")


def resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Returns an image resized bilinearly; a side that is more than 1000 times as long is averaged in parts first.

    Pillow's weights for it would take five times the memory of an image one pixel high.
    """
    return image.resize(size, Image.Resampling.BILINEAR, reducing_gap=1000.0)


def _in_8_bits(image: Image.Image) -> np.ndarray:
    """Returns grey values of 12 bits, 16 bits or floats as 8 bits."""
    values, tags = np.asarray(image), getattr(image, "tag_v2", {})
    if image.mode == "F":
        white, low, high = 1, values.min(), values.max()
        if not 0 <= low <= high <= 1:  # nor is NaN
            raise ValueError(f"its floats go from {low} to {high}, and only of those of 0 to 1 the white is known")
    elif image.mode != "I" or image.format in ("PNG", "PPM"):  # Pillow gives their 16 bits as mode I too
        white = 4095 if tags.get(BITSPERSAMPLE) == (12,) else 65535
    else:
        is_signed, bits = tags.get(SAMPLEFORMAT) == (2,), tags.get(BITSPERSAMPLE, (32,))[0]
        if not is_signed and bits == 32:
            values = values.view(np.uint32)  # Pillow has them as signed
        white, low, high = 2 ** (bits - is_signed) - 1, values.min(), values.max()
        if low < 0 or 0 < high < white / 255:
            raise ValueError(
                f"its grey goes from {low} to {high}, and {white} would be white: save it with 8 or 16 bits"
            )
    grey = np.rint(values * np.float32(255 / white))
    return (255 - grey if tags.get(PHOTOMETRIC_INTERPRETATION) == 0 else grey).astype(np.uint8)


def is_image(path: str) -> bool:
    """Returns whether a file's name is that of an image which Pillow reads; what is hidden is none."""
    return os.path.splitext(path)[1].lower() in _extensions() and not os.path.basename(path).startswith(".")


def unfit(path: str) -> str:
    """Returns why a file is no image by its name, and what helps; an empty string if it is one."""
    if is_image(path):
        return ""
    extension = os.path.splitext(path)[1].lower()
    if extension in PLUGINS:
        return f"which Pillow reads after: pip install {PLUGINS[extension]}"
    return "RAW, to be converted to JPEG or TIFF" if extension in RAW else NO_IMAGE


@cache
def _extensions() -> frozenset[str]:
    known = Image.registered_extensions()  # with those of the plug-ins
    return frozenset(extension for extension, kind in known.items() if kind not in _NO_PHOTOGRAPHS)


def images_in(root: str, deep: bool = True) -> list[str]:
    """Returns the images among :func:`files_in` a folder."""
    return [path for path in files_in(root, deep) if is_image(path)]


def files_in(root: str, deep: bool = True, hidden: list[str] | None = None) -> list[str]:
    """Returns the files in a folder, and if ``deep`` in the folders in it, sorted.

    Links to files and folders are followed, but for a link to a folder in which it lies itself, or that was searched
    already. Such a link is logged. Of what is hidden only ``hidden`` gets the path.
    """
    paths, twice, known = list[str](), list[str](), set[str]()  # known: real paths of folders
    folders, links = deque([root]), deque[str]()
    while folders or links:
        folder = (folders or links).popleft()
        if (place := os.path.realpath(folder)) in known:
            twice.append(folder)
            continue
        known.add(place)
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            path, is_link = entry.path, entry.is_symlink()
            if entry.name.startswith("."):
                if hidden is not None:
                    hidden.append(path)
            elif os.path.isdir(path) if is_link else entry.is_dir():
                if deep:
                    (folders if not is_link else twice if leads_up(path, root) else links).append(path)
            else:
                paths.append(path)
    if twice:
        more = f" and {len(twice) - 1} more" if len(twice) > 1 else ""
        _say(f"Passed over in {root}, as it leads to what is there already: {twice[0]}{more}.")
    return sorted(paths)


def leads_up(path: str, root: str) -> bool:
    """Returns whether a link leads to a folder that it lies in itself, or that ``root`` lies in."""
    target = os.path.realpath(path)
    return any(Path(os.path.realpath(place)).is_relative_to(target) for place in (root, os.path.dirname(path)))


class _ClassFolder(ImageFolder):
    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        """Leaves hidden folders out, such as .ipynb_checkpoints, and links to a folder above."""
        root = str(directory)
        names = [name for name in super().find_classes(root)[0] if not name.startswith(".")]
        names = [name for name in names if not leads_up(os.path.join(root, name), root)]
        return names, {name: label for label, name in enumerate(names)}

    @staticmethod
    def make_dataset(directory: str | Path, class_to_idx: dict[str, int], *_: Any, **__: Any) -> list[tuple[str, int]]:
        """Returns paths and labels in torchvision's order, but each file once."""
        found: dict[str, list[str]] = {name: [] for name in class_to_idx}
        for path in images_in(str(directory)):
            name, inside, _rest = path[len(str(directory)) + 1 :].partition(os.sep)
            if inside and name in found:
                found[name].append(path)
        empty = [name for name, paths in found.items() if not paths]
        if empty or not found:
            raise FileNotFoundError(f"there is no image of {', '.join(empty) or 'any class'}")
        return [(path, class_to_idx[name]) for name in found for path in sorted(found[name], key=os.path.split)]


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
            sets[split] = _ClassFolder(root / split, transform, loader=loader)
        except FileNotFoundError as error:
            reason = str(error).splitlines()[0].rstrip(". ")
            raise FileNotFoundError(
                f"{root / split}: {reason}; each folder in it is a class and must hold images (.jpg, .png, ...)."
            ) from error
    train, test = sets["train"], sets["test"]
    if len(train.classes) < 2:
        raise ValueError(f"{root / 'train'} has one class only, {train.classes[0]}: two folders or more are needed.")
    if train.classes != test.classes:
        other = sorted(set(train.classes) ^ set(test.classes))
        raise ValueError(f"{root}: train and test must have the same classes; only one of them has {', '.join(other)}.")
    return sets, train.classes


def path_of(dataset: Any, index: int) -> str | None:
    """Returns the file of a sample, or None if a data set has no files."""
    while hasattr(dataset, "dataset"):
        if isinstance(dataset, Subset):
            index = dataset.indices[index]
        dataset = dataset.dataset
    if hasattr(dataset, "samples"):
        return str(dataset.samples[index][0])
    if hasattr(dataset, "paths"):
        return str(Path(getattr(dataset, "root", "")) / dataset.paths[index])
    return None


def digest(dataset: Any, root: str | Path) -> str | None:
    """Returns a number for the names of a data set's files, from ``root`` on, and their order; None: it has none."""
    if not len(dataset) or path_of(dataset, 0) is None:
        return None
    names = (os.path.relpath(str(path_of(dataset, index)), root) for index in range(len(dataset)))
    return hashlib.sha256("\n".join(names).encode(errors="surrogateescape")).hexdigest()[:16]


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
