"""What exact augmentation costs: seeding each sample, beside decoding it.

An iterator seeds Python's, NumPy's and torch's generators before each sample (``trainer.random.derive`` and
``seed_generators``), and saves and puts back the main process's once a batch (``trainer.random.preserved``). This
measures both, and how long Pillow takes to decode a JPEG to RGB; rounds of all three are interleaved, so that a busy
machine slows each alike, and the medians are printed. Without ``--images`` the JPEG files are made: 500 x 375 pixels
of smooth noise with texture, about 50 KB each, in a temporary folder.

    python benchmarks/seeding.py
    python benchmarks/seeding.py --images FOLDER
"""

import argparse
import platform
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import PIL
import torch
from harness import make_images
from PIL import Image

from trainer import random

BATCH = 64
ROUNDS = 50


def seed_samples(first, n=1000):
    for position in range(first, first + n):
        random.seed_generators(random.derive(0, random.SAMPLE, 0, position))
    return n


def preserve(n=100):
    for _ in range(n):
        with random.preserved():
            pass
    return n


def decode(paths):
    for path in paths:
        with Image.open(path) as image:
            image.convert("RGB")
    return len(paths)


def seconds(function, *args):
    """Seconds for one of the things that a function does several times."""
    start = time.perf_counter()
    n = function(*args)
    return (time.perf_counter() - start) / n


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, help="a folder of JPEG files to decode; by default they are made")
    images = parser.parse_args().images
    with tempfile.TemporaryDirectory() as made:
        if images is None:
            make_images(made)
        paths = sorted((images or Path(made)).glob("*.jpg"))
        if not paths:
            parser.error(f"--images {images} has no *.jpg files; name a folder that has.")
        decode(paths)  # from the disk into memory, once
        rounds = []
        for i in range(ROUNDS):
            some = [paths[(16 * i + j) % len(paths)] for j in range(16)]
            rounds.append((seconds(seed_samples, 1000 * i), seconds(preserve), seconds(decode, some)))
        size = sum(path.stat().st_size for path in paths) / len(paths)
    seeding, saving, decoding = (median(column) for column in zip(*rounds, strict=True))
    per_image = seeding + saving / BATCH

    print(f"Python {platform.python_version()}, torch {torch.__version__}, NumPy {np.__version__}, ", end="")
    print(f"Pillow {PIL.__version__}; medians of {ROUNDS} interleaved rounds")
    print(f"seeding a sample                     {1e6 * seeding:8.1f} us")
    print(f"saving and restoring, once a batch   {1e6 * saving:8.1f} us")
    print(f"decoding a JPEG of {size / 1000:5.1f} KB         {1e6 * decoding:8.1f} us")
    print(f"seeding / decoding, a sample         {100 * seeding / decoding:8.2f} %")
    print(f"the same with saving, batches of {BATCH}  {100 * per_image / decoding:8.2f} %")


if __name__ == "__main__":
    main()
