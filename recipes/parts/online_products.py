"""Stanford Online Products: 120,053 photographs of 22,634 products of 12 kinds (Song et al., CVPR 2016)."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import stat
import zipfile
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from recipes.parts import image_files, transforms
from recipes.parts.downloads import fetch
from recipes.parts.image_files import UnfitImageError, named, read_named, read_rgb
from trainer.datasets import TransformDataset
from trainer.datasets.cached import CachedDataset, describe_files
from trainer.saving.files import regular

# By http, as it is published; the SHA-256, which TensorFlow Datasets knows too, says whether it is that file.
URL = "http://ftp.cs.stanford.edu/cs/cvgl/Stanford_Online_Products.zip"
SIZE = 3_083_860_082  # bytes
SHA256 = "b04fa78210e69fab050ce73939550e1cd0f96890bdd98ec9fee732c3b756ef48"
HEADER = "image_id class_id super_class_id path"
LISTED = {"train": 59551, "test": 60502}  # photographs in each list of the real data set
LONGEST_NAME = 255  # bytes, of a member of the archive
SUPER_LABEL_NAMES = (
    "bicycle",
    "cabinet",
    "chair",
    "coffee_maker",
    "fan",
    "kettle",
    "lamp",
    "mug",
    "sofa",
    "stapler",
    "table",
    "toaster",
)
_read_stored = partial(read_rgb, turned=False)


class OnlineProductsDataset(Dataset[tuple[Any, int, int]]):
    """The photographs of one list, each with the product's number and its kind's. ChainerCV: the class of this name.

    A sample is (RGB Pillow image, class label, super label). Labels count from 0, though the files count from 1.
    Whatever a file is (grey, palette, CMYK, with transparency, a GIF under a .JPG name), it comes as RGB. It is not
    turned as its EXIF data say, as in ChainerCV.

    Args:
        root: The folder with ``Ebay_train.txt`` and ``Ebay_test.txt``.
        split: ``"train"`` or ``"test"``.
        transform: Applied to each image.
        read: Makes an image of a file's path, by default the Pillow image; ``ScaleAndCrop.read`` goes to the scaled
            pixels at once.

    Attributes:
        paths: Of the images, as the list has them, relative to ``root``.
        class_ids: Product numbers, int64, shape (N,).
        super_class_ids: Numbers of the kinds, 0 to 11, int64, shape (N,).

    Raises:
        FileNotFoundError: If the folder or the list is missing.
        ValueError: If a line of the list is malformed (file and line are named), or there are none.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        transform: Callable[[Any], Any] | None = None,
        read: Callable[[str], Any] = _read_stored,
    ) -> None:
        if split not in LISTED:
            raise ValueError(f"split must be 'train' or 'test', got {split!r}.")
        self.root = Path(root)
        self.transform = transform
        self.read = read
        self.list_file = self.root / f"Ebay_{split}.txt"
        if not self.list_file.is_file():
            what = "is missing from it" if self.root.is_dir() else "cannot be there: there is no such folder"
            raise FileNotFoundError(
                f"no data set at {self.root}: {self.list_file.name} {what}; unpack {URL} there, or let"
                " resnet_products.py --download do it."
            )
        self.paths, self.class_ids, self.super_class_ids = _read_list(self.list_file)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Any, int, int]:
        """Returns one sample.

        Raises:
            BadImageError: If the file is missing, cut short, or no image; its path and its line are named.
        """
        path = os.path.join(self.root, self.paths[index])  # a Path takes ten times as long to make
        where = f" ({self.list_file.name}, line {index + 2})"
        image = read_named(self.read, path, where)
        if self.transform is not None:
            with named(path, where, UnfitImageError):
                image = self.transform(image)
        return image, int(self.class_ids[index]), int(self.super_class_ids[index])


def _read_list(path: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    paths, class_ids, super_class_ids = [], [], []
    # With or without a BOM, and a file's name may be any bytes.
    with open(path, encoding="utf-8-sig", errors="surrogateescape", opener=regular) as file:
        for number, line in enumerate(file, 1):
            if number == 1:
                if line.split() != HEADER.split():
                    raise ValueError(f"{path}, line 1: expected the header {HEADER!r}, got {line.rstrip()!r}.")
                continue
            try:
                image_id, class_id, super_class_id, name = line.split()
                ids = int(image_id), int(class_id), int(super_class_id)
                inside = not name.startswith("/") and ".." not in PurePosixPath(name).parts
                if min(ids) < 1 or ids[2] > len(SUPER_LABEL_NAMES) or not inside:
                    raise ValueError
            except ValueError:
                raise ValueError(
                    f"{path}, line {number}: expected 'image_id class_id super_class_id path' with ids from 1 (super"
                    f" classes to {len(SUPER_LABEL_NAMES)}) and a path inside the folder, got {line.rstrip()!r}."
                ) from None
            paths.append(name)
            class_ids.append(ids[1] - 1)
            super_class_ids.append(ids[2] - 1)
    if not paths:
        raise ValueError(f"{path} lists no images.")
    return paths, np.array(class_ids, np.int64), np.array(super_class_ids, np.int64)


def cached(dataset: TransformDataset, folder: str | Path) -> CachedDataset:
    """Returns a data set whose pixels are kept in a file, which is named by all that decides them.

    Args:
        dataset: A transform of an :class:`OnlineProductsDataset` that reads by ``ScaleAndCrop.read``.
        folder: Where the file is.
    """
    images = dataset.dataset
    packages = ("pillow", "simplejpeg", "torch")
    code = b"".join(Path(module.__file__).read_bytes() for module in (image_files, transforms))
    key = {
        "files": describe_files([images.list_file.name, *images.paths], images.root),  # the list: labels are kept too
        **vars(images.read.__self__),
        "decoder": image_files.DECODER,
        "code": hashlib.sha256(code).hexdigest()[:16],
        "versions": {package: metadata.version(package) for package in packages},
    }
    return CachedDataset(dataset, Path(folder) / "train", key)


def download(
    root: str | Path,
    url: str = URL,
    size: int = SIZE,
    sha256: str = SHA256,
    listed: dict[str, int] | None = None,
    tries: int = 5,
) -> None:
    """Fetches and unpacks the data set; a download that was cut goes on where it stopped, now or the next time.

    The archive's SHA-256, its names and the presence of every listed file are verified; the folder appears when all
    is well.

    Args:
        root: Where the data set is to stand.
        url: The archive.
        size: Of the archive, in bytes.
        sha256: Of the archive.
        listed: Photographs that each list must name; those of the real data set by default.
        tries: Attempts in a row that may bring nothing.

    Raises:
        FileExistsError: If ``root`` is there already.
        OSError: If the server gives no more, or the archive is damaged or incomplete, or the disk is full; the
            message says what to do.
    """
    root, listed = Path(root), listed or LISTED
    if root.exists():
        raise FileExistsError(f"{root} is there already; remove it to download it again.")
    archive = root.with_name(f"{root.name}.zip.part")
    fetch(url, archive, size, sha256, tries)
    unpacked = root.with_name(f".{root.name}.unpacking")
    shutil.rmtree(unpacked, ignore_errors=True)
    try:
        _unpack(archive, unpacked, 2 * sum(listed.values()) + 1000, 4 * size)
        inner = next((path.parent for path in sorted(unpacked.rglob("Ebay_train.txt"))), unpacked)
        for split, count in listed.items():
            dataset = OnlineProductsDataset(inner, split)
            missing = [path for path in dataset.paths if not (inner / path).is_file()]
            if len(dataset) != count or missing:
                raise ValueError(
                    f"its {split} list has {len(dataset)} images, not {count}, and"
                    f" {len(missing)} files are missing{f', such as {missing[0]}' if missing else ''}."
                )
        inner.rename(root)
    except Exception as error:  # zipfile lets through whatever zlib and struct raise
        if isinstance(error, OSError) and error.errno is not None:  # of this machine, such as a full disk
            raise OSError(
                f"{archive} cannot be unpacked into {unpacked} ({error.strerror}); it is kept, and the same command"
                " goes on from there."
            ) from error
        archive.unlink()
        raise OSError(f"what {url} gave is damaged ({error}); it was removed: download it again.") from error
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
    archive.unlink()


def _unpack(archive: Path, folder: Path, most_members: int, most_bytes: int) -> None:
    """Unpacks a zip of files and folders into a folder.

    Raises:
        ValueError: If a member is anything else, or there are too many, too large or overlapping ones.
        zipfile.BadZipFile: If it is no zip, or a member has another checksum.
    """
    with zipfile.ZipFile(archive) as file:
        members = file.infolist()
        n_bytes = sum(member.file_size for member in members)  # no more is unpacked, whatever a member holds
        if len(members) > most_members or n_bytes > most_bytes:
            raise ValueError(f"its {len(members):,} members take {n_bytes:,} bytes unpacked, which are too many")
        spans = sorted((member.header_offset, member.header_offset + 30 + member.compress_size) for member in members)
        if any(end > start for (_, end), (start, _) in itertools.pairwise(spans)):
            raise ValueError("its members overlap")  # Python itself looks since 3.11.8 only
        places = [PurePosixPath(member.filename.replace("\\", "/").casefold()) for member in members]
        files = {place for place, member in zip(places, members, strict=True) if not member.is_dir()}
        seen: set[PurePosixPath] = set()
        for place, member in zip(places, members, strict=True):
            kind = stat.S_IFMT(member.external_attr >> 16)  # 0: not told
            is_common = member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
            faults = {
                "would land outside the folder": place.is_absolute() or ".." in place.parts or ":" in str(place),
                "has too long a name": len(str(place).encode()) > LONGEST_NAME,
                "is neither file nor folder": not place.parts or kind not in (0, stat.S_IFREG, stat.S_IFDIR),
                "is encrypted, or compressed in an unusual way": member.flag_bits & 1 or not is_common,
                "is there twice, or is both file and folder": place in seen or not files.isdisjoint(place.parents),
            }
            if fault := next((fault for fault, is_so in faults.items() if is_so), None):
                raise ValueError(f"the member {member.filename!r} {fault}")
            seen.add(place)
        file.extractall(folder)  # every member's CRC is checked as it is read
