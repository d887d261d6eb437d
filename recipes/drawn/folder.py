"""Writes a drawn data set to a folder once, whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image


def write_once(root: str | Path, version: str, fill: Callable[[Path], None]) -> Path:
    """Has a folder filled unless it is there in this version; returns it.

    It is filled under another name and renamed at the end, so what was interrupted is drawn anew.

    Raises:
        FileExistsError: If the folder holds what was not drawn here.
    """
    root = Path(root)
    stamp = root / "drawn.txt"
    if stamp.is_file() and stamp.read_text() == version:
        return root
    if root.exists() and not stamp.is_file():
        raise FileExistsError(f"{root} holds what was not drawn here; pictures are drawn into a folder of their own.")
    unfinished = root.with_name(f".{root.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    fill(unfinished)
    (unfinished / stamp.name).write_text(version)
    shutil.rmtree(root, ignore_errors=True)
    unfinished.rename(root)
    return root


def write_classes(
    folder: Path,
    draw: Callable[[str, np.random.RandomState], Image.Image],
    classes: Iterable[str],
    counts: dict[str, int],
    ending: str,
    seed: int,
) -> None:
    """Writes ``<split>/<class>/<class>_<number><ending>``; the numbers run on from one split to the next.

    Args:
        folder: Where to.
        draw: Returns a picture of a class.
        classes: Their names.
        counts: Pictures of a class in each split.
        ending: Of the file names; it gives the format.
        seed: Of all pictures together.
    """
    for label, name in enumerate(classes):
        number = 0
        for split, count in counts.items():
            (folder / split / name).mkdir(parents=True)
            for _ in range(count):
                number += 1
                picture = draw(name, np.random.RandomState((seed, label, number)))
                picture.save(folder / split / name / f"{name}_{number:04d}{ending}", quality=90)
