"""From JPEG files to pixels to train on: the random crop in one step, the usual path, and decoding alone.

One step is ``training_reader("light", ...)``: simplejpeg decodes, torch resizes the crop alone, both to 224 x 224
pixels, mirrored half of the time. The usual path opens the file by Pillow and applies torchvision's v2
RandomResizedCrop, RandomHorizontalFlip and ToImage. Both draw the same boxes. Decoding alone is what simplejpeg takes
on bytes in memory. One thread; without workers.

Without ``--images`` the JPEG files are made: 500 x 375 pixels of smooth noise with texture, about 50 KB each.

    python benchmarks/augment.py
    python benchmarks/augment.py --images FOLDER
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import torch
from harness import Results, interleaved, make_images, make_parser, ratio
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from recipes.parts.augment import CROP_AREA, CROP_RATIO, training_reader
from recipes.parts.transforms import ScaleAndCrop

FILES = 64  # in a round


def microseconds(read: Callable[[Any], Any], files: list[Any]) -> float:
    """Returns microseconds for a file, with the same boxes each time."""
    torch.manual_seed(0)
    start = time.perf_counter()
    for file in files:
        read(file)
    return 1e6 * (time.perf_counter() - start) / len(files)


def usual(interpolation: str) -> Callable[[Path], torch.Tensor]:
    """Returns torchvision's way, with our boxes."""
    kind = InterpolationMode(interpolation)
    steps = v2.Compose(
        [v2.RandomResizedCrop(224, CROP_AREA, CROP_RATIO, kind), v2.RandomHorizontalFlip(), v2.ToImage()]
    )

    def read(path: Path) -> torch.Tensor:
        with Image.open(path) as file:
            return steps(file.convert("RGB"))

    return read


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="JPEG files; by default they are made")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        if args.images is None:
            make_images(made)
        folder = args.images or Path(made)
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".jpeg"))
        if not paths:
            parser.error(f"--images {args.images} has no *.jpg files; name a folder that has.")
        results = Results("From files to pixels to train on", "torchvision", "pillow", "simplejpeg")
        some = [paths[i % len(paths)] for i in range(FILES)]
        data = [path.read_bytes() for path in some]
        functions: dict[str, Callable[[], float]] = {
            "decoding alone": lambda: microseconds(simplejpeg.decode_jpeg, data)
        }
        for kind in ("bilinear", "bicubic"):
            plain = ScaleAndCrop(256, 224, interpolation=kind)
            ways = {f"none, {kind}": plain.read, f"usual path, {kind}": usual(kind)}
            ways |= {f"{name}, {kind}": training_reader(name, plain) for name in ("light", "trivial", "rand")}
            for name, read in ways.items():
                functions[name] = lambda read=read: microseconds(read, some)
        measured = interleaved(functions, args.rounds or 7)
        for name, values in measured.items():
            taken = float(np.median(values))
            results.add(name, taken, "us", f"{ratio(measured, name, 'decoding alone'):.2f} of decoding alone")
        for kind in ("bilinear", "bicubic"):
            results.add(
                f"usual path / light, {kind}", ratio(measured, f"usual path, {kind}", f"light, {kind}"), "times"
            )
    results.write(args.json)


if __name__ == "__main__":
    main()
