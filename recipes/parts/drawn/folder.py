"""Writes a drawn data set to a folder once, on all cores, whole or not at all."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from trainer.iterators.workers import end_with

FEWEST = 200  # pictures for which a process is worth its start
CHUNK = 20  # pictures that a process takes at once: what Ctrl-C waits for


def write_once(root: str | Path, name: str, version: str, fill: Callable[[Path], None]) -> Path:
    """Fills a folder, unless it is there in this version; returns it.

    It is filled under another name and renamed at the end, so an interrupted drawing starts again.

    Raises:
        FileExistsError: If the folder exists and is not a drawn set of that name.
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


def write_all(write: Callable[..., object], pictures: Iterable[tuple[Any, ...]]) -> None:
    """Calls ``write`` with each picture's arguments, in a process for each core.

    The processes are forked, so they import nothing. An error, or Ctrl-C, ends them all before it is raised here.
    """
    pictures = list(pictures)
    # Elsewhere than on Linux a fork may fail, and a daemon may have no children: this process then draws alone.
    can_fork = sys.platform == "linux" and not multiprocessing.current_process().daemon
    n_processes = min(len(os.sched_getaffinity(0)), len(pictures) // FEWEST) if can_fork else 1
    if n_processes < 2:
        for picture in pictures:
            write(*picture)
        return
    # Ctrl-C reaches them too, but they inherit that it is blocked. It stays so while they end.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    executor = ProcessPoolExecutor(n_processes, multiprocessing.get_context("fork"), _begin, (os.getpid(),))
    try:
        written = executor.map(write, *zip(*pictures, strict=True), chunksize=CHUNK)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for _ in written:
            pass
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        executor.shutdown(cancel_futures=True)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _begin(parent: int) -> None:
    threading.Thread(target=end_with, args=(parent,), daemon=True).start()  # when that is killed


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
    pictures = []
    for label, name in enumerate(classes):
        number = 0
        for split, count in counts.items():
            (folder / split / name).mkdir(parents=True)
            for _ in range(count):
                number += 1
                path = folder / split / name / f"{name}_{number:04d}{ending}"
                pictures.append((path, name, (seed, label, number)))
    write_all(partial(_write, draw), pictures)


def _write(
    draw: Callable[[str, np.random.RandomState], Image.Image], path: Path, name: str, seed: tuple[int, ...]
) -> None:
    draw(name, np.random.RandomState(seed)).save(path, quality=90)
