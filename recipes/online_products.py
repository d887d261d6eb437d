"""Stanford Online Products: 120,053 photographs of 22,634 products of 12 kinds (Song et al., CVPR 2016)."""

from __future__ import annotations

import http.client
import os
import shutil
import stat
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from recipes.image_files import named
from recipes.transforms import read_rgb
from trainer.saving.files import regular

URL = "http://ftp.cs.stanford.edu/cs/cvgl/Stanford_Online_Products.zip"
HEADER = "image_id class_id super_class_id path"
LISTED = {"train": 59551, "test": 60502}  # photographs in each list of the real data set
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


class OnlineProductsDataset(Dataset[tuple[Any, int, int]]):
    """The photographs of one list, each with the product's number and its kind's. ChainerCV: the class of this name.

    A sample is (RGB Pillow image, class label, super label). Labels count from 0, though the files count from 1.
    Whatever a file is (grey, palette, CMYK, with transparency, a GIF under a .JPG name), it comes as RGB.

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
        read: Callable[[str], Any] = read_rgb,
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
        with named(path, f" ({self.list_file.name}, line {index + 2})"):
            image = self.read(path)
            if self.transform is not None:
                image = self.transform(image)
        return image, int(self.class_ids[index]), int(self.super_class_ids[index])


def _read_list(path: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    paths, class_ids, super_class_ids = [], [], []
    with open(
        path, encoding="utf-8-sig", errors="surrogateescape", opener=regular
    ) as file:  # any file name, with or without a BOM
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


def download(root: str | Path, url: str = URL, listed: dict[str, int] | None = None, tries: int = 5) -> None:
    """Fetches and unpacks the data set; a download that was cut goes on where it stopped, now or the next time.

    The archive's checksums and the presence of every listed file are verified; the folder appears when all is well.

    Args:
        root: Where the data set is to stand.
        url: The archive.
        listed: Photographs that each list must name; those of the real data set by default.
        tries: Attempts in a row that may bring nothing.

    Raises:
        FileExistsError: If ``root`` is there already.
        OSError: If the server gives no more, or the archive is damaged or incomplete; the message says what to do.
    """
    root = Path(root)
    if root.exists():
        raise FileExistsError(f"{root} is there already; remove it to download it again.")
    root.parent.mkdir(parents=True, exist_ok=True)
    archive = root.with_name(f"{root.name}.zip.part")
    _fetch(url, archive, tries)
    unpacked = root.with_name(f".{root.name}.unpacking")
    shutil.rmtree(unpacked, ignore_errors=True)
    try:
        _unpack(archive, unpacked)
        inner = next((path.parent for path in sorted(unpacked.rglob("Ebay_train.txt"))), unpacked)
        for split, count in (listed or LISTED).items():
            dataset = OnlineProductsDataset(inner, split)
            missing = [path for path in dataset.paths if not (inner / path).is_file()]
            if len(dataset) != count or missing:
                raise ValueError(
                    f"its {split} list has {len(dataset)} images, not {count}, and"
                    f" {len(missing)} files are missing{f', such as {missing[0]}' if missing else ''}."
                )
        inner.rename(root)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, ValueError, FileNotFoundError) as error:
        archive.unlink()
        raise OSError(f"what {url} gave is damaged ({error}); it was removed: download it again.") from error
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
    archive.unlink()


def _fetch(url: str, path: Path, tries: int) -> None:
    """Downloads a file, from where an earlier download of it stopped."""
    left = tries
    while True:
        have = path.stat().st_size if path.exists() else 0
        request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
        error: Exception | None = None
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                if have and answer.status != 206:
                    have = 0  # the server does not resume: from the beginning
                length = answer.headers.get("Content-Length")
                whole = have + int(length) if length is not None else None
                with open(path, "ab" if have else "wb") as file:
                    _copy(answer, file, have, whole)
            if whole is None or path.stat().st_size == whole:
                return
        except urllib.error.HTTPError as answer:
            if answer.code == 416:  # nothing lies beyond what we have: it is whole
                return
            raise OSError(f"{url}: the server says {answer.code} {answer.reason}.") from answer
        except (OSError, http.client.HTTPException) as cut:
            error = cut
        got_something = path.exists() and path.stat().st_size > have
        left = tries if got_something else left - 1
        if left <= 0:
            raise OSError(
                f"{url}: the connection failed {tries} times ({error}); what came is kept in {path}, and the same"
                " command goes on from there."
            ) from error
        time.sleep(0.1 if got_something else min(2.0 ** (tries - left), 30.0) * 0.1)


def _copy(answer: Any, file: Any, have: int, whole: int | None) -> None:
    shown = 0.0
    while chunk := answer.read(1 << 16):
        file.write(chunk)
        have += len(chunk)
        if sys.stderr.isatty() and time.monotonic() - shown > 0.5:
            shown = time.monotonic()
            print(
                f"\r{have / 1e6:.0f} of {whole / 1e6 if whole else 0:.0f} MB",
                end="",
                file=sys.stderr,
                flush=True,
            )


def _unpack(archive: Path, folder: Path) -> None:
    """Unpacks a zip into a folder; a member that would land outside it, or is a link, is refused."""
    with zipfile.ZipFile(archive) as members:
        for member in members.infolist():
            parts = PurePosixPath(member.filename.replace("\\", "/")).parts
            is_link = stat.S_ISLNK(member.external_attr >> 16)
            if ".." in parts or is_link or member.filename.startswith(("/", "\\")) or ":" in member.filename:
                raise ValueError(f"the member {member.filename!r} would land outside the folder")
        members.extractall(folder)  # every member's CRC is checked as it is read
