"""Writes a drawn data set to a folder once, whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image


def write_once(root: str | Path, name: str, version: str, fill: Callable[[Path], None]) -> Path:
    """Has a folder filled unless it is there in this version; returns it.

    It is filled under another name and renamed at the end, so what was interrupted is drawn anew.

    Raises:
        FileExistsError: If the folder holds anything else than a drawn set of that name.
    """
    root = Path(root)
    stamp, mark = root / "drawn.txt", f"{name} {version}"

    def is_there() -> bool:
        found = stamp.read_text() if stamp.is_file() else ""
        if root.exists() and not found.startswith(f"{name} "):
            raise FileExistsError(f"{root} holds what was not drawn here; {name} go into a folder of their own.")
        return found == mark

    if is_there():
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}.", dir=root.parent) as folder:
        unfinished = Path(folder) / root.name
        unfinished.mkdir()
        fill(unfinished)
        (unfinished / stamp.name).write_text(mark)
        if not is_there():  # another process may have drawn it meanwhile
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
