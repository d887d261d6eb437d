"""Trains LeNet on MNIST: which digit was written?

    python recipes/lenet_mnist.py
    python recipes/lenet_mnist.py --explain

Batches of 16, Adam, 3 epochs. The data set is torchvision's, which is fetched, or --data names a folder that has it.
--explain walks one step of training aloud, of random numbers, and trains nothing.
Validation is on the test set, as in the tutorials: choose nothing by it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import TensorDataset
from torchvision.datasets import MNIST
from torchvision.transforms.v2 import functional

import extensions
from extensions.snapshot_writers import ThreadWriter
from recipes.parts import networks, one_step, run_folder, testing
from recipes.parts.data_set import data_set, unfinished
from recipes.parts.downloads import fetch
from recipes.parts.drawn import digits as drawn_digits
from recipes.parts.image_files import read_rgb, resized
from recipes.parts.options import Args, Options
from recipes.parts.transforms import Normalize, collate_images
from trainer import Classifier, StandardUpdater, Trainer
from trainer.iterators import MultiprocessIterator
from trainer.random import set_seed

TUTORIAL: dict[str, Any] = {
    "data": "data/mnist",
    "fit": "pad",
    "mean": 0.1307,  # of the digits to train on, in 0..1
    "std": 0.3081,
    "epochs": 3,
    "batch_size": 16,
    "lr": 0.002,
}
SAMPLE = {"data": "data/drawn_digits"}
SIZES = (9_912_422, 28_881, 1_648_877, 4_542)  # of MNIST.resources, in bytes
SOURCE = "--download fetches MNIST (12 MB), or --data names a folder with MNIST/raw, as torchvision writes it"
COLUMNS = ["epoch", "lr", "main/loss", "main/accuracy", "validation/main/loss", "validation/main/accuracy"]

OPTIONS = Options(__file__, __doc__, TUTORIAL, SAMPLE, has_download=True)
OPTIONS.add("data", "--fit", choices=("pad", "resize"), help="how 28x28 pixels become the network's 32x32")
OPTIONS.add("data", "--mean", type=float, metavar="X", help="subtracted from pixels in 0..1")
OPTIONS.add("data", "--std", type=float, metavar="X", above=0, help="what they are divided by then")
explain_help = "walk one step of training aloud, and train nothing"
OPTIONS.add("run", "--explain", action="store_true", on_resume="forget", help=explain_help)


def fitted(digits: torch.Tensor, how: str) -> torch.Tensor:
    """Returns digits of shape (..., 28, 28) as (..., 32, 32)."""
    return functional.pad(digits, [2]) if how == "pad" else functional.resize(digits, [32, 32])


def reader(args: Args) -> Callable[[str], torch.Tensor]:
    """Returns what makes 32x32 pixels of an image file of a digit, white on black as those of MNIST."""

    def read(path: str) -> torch.Tensor:
        grey = resized(read_rgb(path).convert("L"), (28, 28))
        return fitted(functional.pil_to_tensor(grey), args.fit)

    return read


def load(args: Args, augment: bool = False) -> tuple[dict[str, Any], list[str]]:
    """Returns the data sets train and test, and the digits; nothing is augmented."""
    with data_set(OPTIONS, args, SOURCE, drawn_digits.write, download) as root:
        if not (root / "MNIST" / "raw").is_dir():
            raise FileNotFoundError(f"{root} has no folder MNIST/raw; {SOURCE}, and --sample draws digits.")
        sets = {"train": MNIST(root, train=True), "test": MNIST(root, train=False)}
    splits = {name: TensorDataset(fitted(s.data[:, None], args.fit), s.targets) for name, s in sets.items()}
    return splits, list("0123456789")


def download(root: Path) -> None:
    """Fetches the data set (12 MB)."""
    with unfinished(root) as folder:
        for (name, md5), size in zip(MNIST.resources, SIZES, strict=True):
            fetch(MNIST.mirrors[0] + name, folder / "MNIST" / "raw" / name, size, md5)
        MNIST(folder, download=True)  # which unpacks what is there


def make_model(args: Args, n_classes: int, fresh: bool) -> tuple[nn.Module, Normalize]:
    """Returns the network and the normalisation that goes with it."""
    return networks.lenet(n_classes), Normalize.of_unit([args.mean], [args.std])


def main(argv: list[str] | None = None) -> dict[str, float] | None:
    """Trains and tests, and returns what ``test.json`` holds; or walks one step aloud."""
    args = OPTIONS.parse(argv)
    if args.explain:
        set_seed(args.seed)
        return None if one_step.explain(networks.lenet()) else sys.exit(1)
    with run_folder.opened(OPTIONS, args) as folder:
        set_seed(args.seed)
        splits, classes = load(args, augment=True)
        network, normalize = make_model(args, len(classes), fresh=args.resume is not None)
        networks.prepare(args, network, normalize, splits["train"])
        optimizer = torch.optim.Adam(network.parameters(), args.lr)
        model = Classifier(network)

        loading = {"n_processes": args.workers, "collate_fn": collate_images, "on_bad_sample": args.on_bad_sample}
        train_iter = MultiprocessIterator(splits["train"], args.batch_size, **loading)
        valid_iter = MultiprocessIterator(splits["test"], args.batch_size, repeat=False, shuffle=False, **loading)
        updater = StandardUpdater(train_iter, optimizer, normalize, args.device, model=model, precision=args.precision)
        trainer = Trainer(updater, (args.epochs, "epoch"), out=args.out)

        trainer.extend(extensions.observe_lr(bias_corrected=True), trigger=(1, "iteration"))
        trainer.extend(extensions.Evaluator(valid_iter, model, normalize, precision=args.precision))
        trainer.extend(extensions.LogReport(trigger=(1, "epoch")))
        trainer.extend(extensions.PrintReport(COLUMNS), trigger=(1, "epoch"))
        trainer.extend(extensions.ProgressBar(update_interval=1))
        for name in ("loss", "accuracy"):
            keys = [f"main/{name}", f"validation/main/{name}"]
            trainer.extend(extensions.PlotReport(keys, "epoch", (1, "epoch"), filename=f"{name}.png"))
        each, name = run_folder.snapshot_interval(args, (1, "epoch"))
        trainer.extend(extensions.snapshot(filename=name, n_retains=2, writer=ThreadWriter()), trigger=each)
        trainer.extend(extensions.snapshot_object(network, OPTIONS.weights, writer=ThreadWriter()))
        trainer.extend(extensions.StopOnSignal(advice=folder.advice))

        folder.start(trainer, splits, classes)
        trainer.run(show_loop_exception_msg=False)
        weights = folder.save_weights(trainer, network)
        return testing.test(args, *make_model(args, len(classes), True), splits["test"], weights)


if __name__ == "__main__":
    main()
