"""What exact augmentation costs: seeding each sample, beside decoding it.

An iterator seeds Python's, NumPy's and torch's generators before each sample (``trainer.random.derive`` and
``seed_generators``), and saves and puts back the main process's once a batch (``trainer.random.preserved``). This
measures both, and how long Pillow takes to decode a JPEG to RGB; rounds of all three are interleaved, so that a busy
machine slows each alike, and the medians are printed. Without ``--images`` the JPEG files are made: 500 x 375 pixels
of smooth noise with texture, about 50 KB each, in a temporary folder.

    python benchmarks/seeding.py
    python benchmarks/seeding.py --images FOLDER
"""

import itertools
import tempfile
import time
from pathlib import Path
from statistics import median

from harness import Results, interleaved, make_images, make_parser
from PIL import Image

from trainer import random

BATCH = 64
ROUNDS = 50


def seed_samples(n=1000):
    for position in range(n):
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
    parser = make_parser(__doc__)
    parser.add_argument("--images", type=Path, help="a folder of JPEG files to decode; by default they are made")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        if args.images is None:
            make_images(made)
        paths = sorted((args.images or Path(made)).glob("*.jpg"))
        if not paths:
            parser.error(f"--images {args.images} has no *.jpg files; name a folder that has.")
        results = Results("What exact augmentation costs", "numpy", "pillow")
        decode(paths)  # from the disk into memory, once
        turns = itertools.count()

        def decode_some():
            turn = next(turns)
            return seconds(decode, [paths[(16 * turn + j) % len(paths)] for j in range(16)])

        functions = {
            "seeding a sample": lambda: seconds(seed_samples),
            "saving and restoring, once a batch": lambda: seconds(preserve),
            f"decoding a JPEG of {sum(p.stat().st_size for p in paths) / len(paths) / 1000:.1f} KB": decode_some,
        }
        measured = interleaved(functions, args.rounds or ROUNDS)
    for name, values in measured.items():
        results.add(name, 1e6 * median(values), "us")
    seeding, saving, decoding = (median(values) for values in measured.values())
    results.add("seeding / decoding, a sample", 100 * seeding / decoding, "%")
    results.add(f"the same with saving, batches of {BATCH}", 100 * (seeding + saving / BATCH) / decoding, "%")
    results.write(args.json)


if __name__ == "__main__":
    main()
