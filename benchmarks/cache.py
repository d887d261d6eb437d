"""What a cache of decoded images brings: images/s from the list of indices to the collated uint8 batch.

Without the cache an image is read, decoded, scaled to 256 and cropped to 224 x 224, as resnet_products.py does it; the
first pass with the cache does that too and fills the file; later passes read it. Each is measured with
MultiprocessIterator and the same seed, from where its workers are under way; the three are interleaved, the first pass
each round into a new file. Without ``--images`` the JPEG files are made: 500 x 375 pixels of smooth noise with texture,
about 50 KB each. The cache (150 KB an image) fits into memory here; a larger one is read as fast as its disk gives it.

    python benchmarks/cache.py
    python benchmarks/cache.py --images FOLDER
"""

import tempfile
import time
from functools import partial
from pathlib import Path

import PIL
from harness import Results, interleaved, make_images, make_parser, ratio

from recipes.parts.transforms import ScaleAndCrop, collate_images
from trainer.datasets.cached import CachedDataset, describe_files
from trainer.iterators import MultiprocessIterator

BATCH = 64
LEAST = 1024  # images in an epoch: the files are taken again until there are so many


class Images:
    """Image files as uint8 tensors of shape (3, 224, 224), each with a label."""

    def __init__(self, paths):
        self.paths = paths
        self.read = ScaleAndCrop(256, 224).read

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        return self.read(self.paths[index]), index % 12


def images_per_second(dataset, n_processes, n_batches, n_before=0):
    """Times batches of workers that have just been started, from where they are under way."""
    iterator = MultiprocessIterator(dataset, BATCH, n_processes=n_processes, collate_fn=collate_images, seed=0)
    for _ in range(n_before + 3 * n_processes):  # what was fetched ahead does not count
        next(iterator)
    start = time.perf_counter()
    for _ in range(n_batches):
        next(iterator)
    seconds = time.perf_counter() - start
    iterator.finalize()
    return n_batches * BATCH / seconds


def first_pass(images, folder, key, n_processes, n_batches):
    cached = CachedDataset(images, folder / "first", key)
    speed = images_per_second(cached, n_processes, n_batches)
    cached.path.unlink()
    return speed


def main():
    parser = make_parser(__doc__)
    parser.add_argument("--images", type=Path, help="a folder of JPEG files; by default they are made")
    parser.add_argument("--folder", type=Path, help="where the cache is put; by default a temporary folder")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="0, 1 and 2 by default")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        folder = Path(folder)
        if args.images is None:
            make_images(folder, 64)
        paths = sorted((args.images or folder).glob("*.jpg"))
        if not paths:
            parser.error(f"--images {args.images} has no *.jpg files; name a folder that has.")
        paths = (paths * -(-LEAST // len(paths)))[: max(len(paths), LEAST)]
        images = Images(paths)
        key = {"files": describe_files(paths), "scale": 256, "crop": 224, "Pillow": PIL.__version__}
        results = Results(f"{len(paths)} images of 224 x 224 in batches of {BATCH}", "Pillow", "torchvision")
        cached = CachedDataset(images, folder / "all", key)
        epoch = len(images) // BATCH
        for _ in range(2):  # made, then verified, as every process does once
            images_per_second(cached, 0, epoch + 1)
        for n_processes in args.workers:
            n = epoch - 3 * n_processes - 1
            functions = {
                "without the cache": partial(images_per_second, images, n_processes, n),
                "first pass, which fills it": partial(first_pass, images, folder, key, n_processes, n),
                "later passes": partial(images_per_second, cached, n_processes, 3 * epoch, epoch),
            }
            measured = interleaved(functions, args.rounds or 5)
            for name in functions:
                times = ratio(measured, name, "without the cache")
                note = "" if name == "without the cache" else f"{times:.2f} times"
                speed = sorted(measured[name])[len(measured[name]) // 2]
                results.add(f"{n_processes} workers: {name}", speed, "images/s", note, more_is_better=True)
        results.write(args.json)


if __name__ == "__main__":
    main()
