"""From JPEG files to the batch: ours beside torchvision's way, ChainerCV's way, and decoding alone.

Ours is the data set of the products recipe, read by ``ScaleAndCrop.read`` and collated into a uint8 batch, which is
normalised on the device. torchvision's is ``ImageFolder`` with Resize(256), CenterCrop(224), ToTensor and Normalize in
a ``DataLoader``; ChainerCV's, in the same loader, resizes the channels as 32-bit floats, crops and subtracts the mean.
Each has the same files, workers and cores; one thread a process. Decoding alone is libjpeg-turbo on bytes in memory.

Then large photographs, made of the same files by enlarging them, with noise: whole decoding beside reduced decoding
(``ScaleAndCrop(..., reduced=True)``), and by how many grey levels the pixels differ; this also for the files
themselves, scaled to fewer pixels, because what is enlarged is softer than a photograph.

Without ``--images`` the JPEG files are made: 500 x 375 pixels of smooth noise with texture, about 50 KB each.

    python benchmarks/data.py
    python benchmarks/data.py --images FOLDER --workers 0 2
"""

import importlib
import io
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import torch
from harness import Results, interleaved, make_images, make_parser, ratio
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets import ImageFolder

from recipes.parts.online_products import HEADER, OnlineProductsDataset
from recipes.parts.transforms import REDUCED_MARGIN, ScaleAndCrop, collate_images
from trainer.datasets import TransformDataset
from trainer.iterators import MultiprocessIterator

BATCH = 64
LEAST = 2048  # files in the data set: they are taken again until there are so many
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CHAINERCV_MEAN = np.array([123.15163084, 115.90288257, 103.0626238], np.float32)[:, None, None]
LARGE = ((2000, 1500), (4000, 3000))
NOISE = 4.0  # grey levels, standard deviation


def optional(name: str) -> Any:
    """Returns a module, or None where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


cv2 = optional("cv2")  # ChainerCV resizes by it where it is installed


class ChainerCV(Dataset[tuple[np.ndarray, int]]):
    """What ``chainercv.datasets`` and ``chainercv.transforms`` do to a file: float32 from the beginning."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        with Image.open(self.paths[index]) as file:
            image = np.asarray(file.convert("RGB"), dtype=np.float32).transpose(2, 0, 1)
        height, width = image.shape[1:]
        if height < width:
            image = self.resize(image, 256, int(256 * width / height))
        elif width < height or width != 256:
            image = self.resize(image, int(256 * height / width), 256)
        top, left = (round((side - 224) / 2) for side in image.shape[1:])
        return image[:, top : top + 224, left : left + 224] - CHAINERCV_MEAN, 0

    @staticmethod
    def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
        """Resizes by OpenCV where it is installed, else channel by channel by Pillow."""
        if cv2 is not None:
            cv2.setNumThreads(1)
            return cv2.resize(image.transpose(1, 2, 0), (width, height)).transpose(2, 0, 1)
        size, bilinear = (width, height), Image.Resampling.BILINEAR
        return np.stack([np.asarray(Image.fromarray(channel).resize(size, bilinear)) for channel in image])


def lay_out(paths: list[Path], root: Path) -> list[Path]:
    """Links the files into a folder that both ``OnlineProductsDataset`` and ``ImageFolder`` read."""
    (root / "bicycle_final").mkdir(parents=True)
    links = [root / "bicycle_final" / f"{i}.jpg" for i in range(max(LEAST, len(paths)))]
    for i, link in enumerate(links):
        link.symlink_to(paths[i % len(paths)].resolve())
    rows = [f"{i + 1} 1 1 {link.relative_to(root)}" for i, link in enumerate(links)]
    (root / "Ebay_train.txt").write_text("\n".join([HEADER, *rows]) + "\n")
    return links


def microseconds(batches: Iterator[Any], workers: int, n_batches: int) -> float:
    """Returns microseconds for an image, from where the workers are under way."""
    for _ in range(3 * workers):  # what was fetched ahead does not count
        next(batches)
    start = time.perf_counter()
    for _ in range(n_batches):
        next(batches)
    return 1e6 * (time.perf_counter() - start) / (n_batches * BATCH)


def image_and_kind(sample: Any) -> Any:
    return sample[0], sample[2]


def ours(data: OnlineProductsDataset, workers: int, n_batches: int) -> float:
    iterator = MultiprocessIterator(
        TransformDataset(data, image_and_kind), BATCH, shuffle=False, n_processes=workers, collate_fn=collate_images
    )
    taken = microseconds(iterator, workers, n_batches)
    iterator.finalize()
    return taken


def loader(data: Any, workers: int, n_batches: int) -> float:
    return microseconds(iter(DataLoader(data, BATCH, num_workers=workers)), workers, n_batches)


def alone(decode: Callable[[Any], Any], files: list[Any]) -> float:
    """Returns microseconds for a file in memory."""
    start = time.perf_counter()
    for file in files:
        decode(file)
    return 1e6 * (time.perf_counter() - start) / len(files)


def by_pillow(data: bytes) -> None:
    with Image.open(io.BytesIO(data)) as image:
        image.convert("RGB")


def by_torchvision(data: bytes) -> None:
    torchvision_io.decode_jpeg(torch.frombuffer(data, dtype=torch.uint8))


def by_opencv(data: bytes) -> None:
    cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


# From bytes in memory to pixels in memory. simplejpeg is what ours uses, and libjpeg-turbo at its barest.
DECODERS = {"simplejpeg": simplejpeg.decode_jpeg, "Pillow": by_pillow}
if hasattr(torchvision_io := optional("torchvision.io"), "decode_jpeg"):  # deprecated since torchvision 0.29
    DECODERS["torchvision.io"] = by_torchvision
if cv2 is not None:
    DECODERS["OpenCV"] = by_opencv


def enlarge(paths: list[Path], folder: Path, size: tuple[int, int]) -> list[Path]:
    """Writes photographs of about a size, with the noise of a sensor; upright ones stay upright."""
    generator = np.random.default_rng(0)
    made = []
    for i, path in enumerate(paths):
        with Image.open(path) as file:
            image = file.convert("RGB")
        upright = image.height > image.width
        image = image.resize(size[::-1] if upright else size, Image.Resampling.LANCZOS)
        noise = generator.normal(0, NOISE, (image.height, image.width, 3)).astype(np.float32)
        pixels = (np.asarray(image) + noise).clip(0, 255).astype(np.uint8)
        made.append(folder / f"{size[0]}_{i}.jpg")
        Image.fromarray(pixels).save(made[-1], quality=90)
    return made


def batches(results: Results, links: list[Path], n_files: int, workers: int, rounds: int, n_batches: int) -> None:
    """Measures from files to batches: the three ways, and without workers decoding alone too."""
    root = links[0].parent.parent
    steps = [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    ways = {
        "ours": (ours, OnlineProductsDataset(root, read=ScaleAndCrop(256, 224).read)),
        "torchvision's ImageFolder": (loader, ImageFolder(root, transforms.Compose(steps))),
        f"ChainerCV's way ({'OpenCV' if cv2 else 'Pillow'})": (loader, ChainerCV(links)),
    }
    functions = {name: (lambda way=way, data=data: way(data, workers, n_batches)) for name, (way, data) in ways.items()}
    some = [link.read_bytes() for link in links[: min(n_files, n_batches * BATCH)]]
    decoders = {} if workers else {f"decoding alone, {name}": decode for name, decode in DECODERS.items()}
    for name, decode in decoders.items():
        functions[name] = lambda decode=decode: alone(decode, some)
    measured = interleaved(functions, rounds)
    for name, values in measured.items():
        speed = 1e6 / float(np.median(values))
        results.add(f"{name}, {workers} workers", speed, "images/s", f"{1e6 / speed:,.0f} us", more_is_better=True)
    names = list(ways)
    for other in names[1:]:
        results.add(f"ours / {other}, {workers} workers", ratio(measured, other, "ours"), "times", "", True)
    for name in decoders:
        results.add(f"cost of ours / {name}", ratio(measured, "ours", name), "times")
    print()


def reduced(results: Results, paths: list[Path], folder: Path, rounds: int) -> None:
    """Measures what reduced decoding of large photographs saves, and what it changes."""
    whole, fewer = ScaleAndCrop(256, 224), ScaleAndCrop(256, 224, reduced=True)
    for size in LARGE:
        large, told = enlarge(paths[:8], folder, size), f"{size[0]} x {size[1]}"
        functions = {
            "whole": lambda large=large: alone(whole.read, large),
            "reduced": lambda large=large: alone(fewer.read, large),
        }
        measured = interleaved(functions, rounds)
        for name, values in measured.items():
            results.add(f"{told}, {name}", 1e6 / float(np.median(values)), "images/s", "", True)
        results.add(f"{told}, reduced / whole", ratio(measured, "whole", "reduced"), "times", "", True)
        errors = [(whole.read(path).float() - fewer.read(path).float()).abs().mean().item() for path in large]
        results.add(f"{told}, mean error of reduced", float(np.mean(errors)), "grey levels")
        results.add(f"{told}, mean error of the worst photograph", max(errors), "grey levels")
    for times in (2, 4, 8):  # enlarged ones are softer than photographs: the files themselves, to fewer pixels
        errors = [error_at(path, times) for path in paths[:64]]
        results.add(f"files decoded at 1/{times}, mean error", float(np.mean(errors)), "grey levels")
        results.add(f"files decoded at 1/{times}, worst photograph", max(errors), "grey levels")


def error_at(path: Path, times: int) -> float:
    """Returns the mean error of a file that is scaled just far enough to be decoded at ``1 / times``."""
    with Image.open(path) as image:
        size = int(min(image.size) / times / REDUCED_MARGIN)
    whole, fewer = ScaleAndCrop(size, size * 224 // 256), ScaleAndCrop(size, size * 224 // 256, reduced=True)
    return float((whole.read(path).float() - fewer.read(path).float()).abs().mean())


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="JPEG files; by default they are made")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2], metavar="N", help="numbers of them (0 2)")
    parser.add_argument("--batches", type=int, default=4, metavar="N", help="batches of 64 in a round (4)")
    args = parser.parse_args()
    rounds = args.rounds or 7
    if not all(0 <= 3 * workers + args.batches <= LEAST // BATCH for workers in args.workers):
        parser.error(f"--workers and --batches are for {LEAST // BATCH} batches: 3 x workers + batches.")
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "The image decoding", DeprecationWarning)  # torchvision's, of its decoder
    warnings.filterwarnings("ignore", "The given buffer is not writable", UserWarning)  # nobody writes to it
    with tempfile.TemporaryDirectory() as made:
        if args.images is None:
            make_images(made)
        folder = args.images or Path(made)
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".jpeg"))
        if not paths:
            parser.error(f"--images {args.images} has no *.jpg files; name a folder that has.")
        results = Results("From files to the batch", "torchvision", "pillow", "simplejpeg", "opencv-python-headless")
        size = sum(path.stat().st_size for path in paths) / len(paths) / 1000
        print(f"{len(paths)} files, {size:.0f} KB on average: {args.images or 'made, 500 x 375 pixels'}")
        links = lay_out(paths, Path(made) / "data")
        for workers in args.workers:
            batches(results, links, len(paths), workers, rounds, args.batches)
        print("Large photographs: the first 8 files enlarged, with noise; then up to 64 files themselves")
        reduced(results, paths, Path(made), rounds)
    results.write(args.json)


if __name__ == "__main__":
    main()
