"""Trains LeNet on MNIST: which digit was written?

    python recipes/lenet_mnist.py
    python recipes/lenet_mnist.py --explain

Batches of 16, Adam, 3 epochs. The data set is torchvision's, which is fetched, or --data names a folder that has it.
--explain walks one step of training aloud, of random numbers, and trains nothing.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import TensorDataset
from torchvision.datasets import MNIST
from torchvision.transforms.v2 import functional

import trainer.random
from recipes.parts import common, networks, one_step
from recipes.parts.downloads import fetch
from recipes.parts.drawn import digits as drawn_digits
from recipes.parts.image_files import read_rgb, resized
from recipes.parts.transforms import Normalize

TUTORIAL: dict[str, Any] = {
    "data": "data/mnist",
    "fit": "pad",
    "mean": 0.1307,  # of the digits to train on, in 0..1
    "std": 0.3081,
    "epochs": 3,
    "batch_size": 16,
    "lr": 0.002,
}
SAMPLE: dict[str, Any] = {"data": "data/drawn_digits"}
SIZES = (9_912_422, 28_881, 1_648_877, 4_542)  # of MNIST.resources, in bytes


def add_options(add: Callable[..., None]) -> None:
    """Adds what only this recipe has."""
    add("data", "--fit", choices=("pad", "resize"), help="how 28x28 pixels become the network's 32x32")
    add("data", "--mean", type=float, metavar="X", help="subtracted from pixels in 0..1")
    add("data", "--std", type=float, metavar="X", help="what they are divided by then")
    add("run", "--explain", action="store_true", help="walk one step of training aloud, and train nothing")


def check(args: common.Args) -> None:
    """Refuses values out of range."""
    if not 0 < args.std < math.inf:
        raise ValueError(f"--std must be above 0, got {args.std}.")
    if not math.isfinite(args.mean):
        raise ValueError(f"--mean must be a number, got {args.mean}.")


def fitted(digits: torch.Tensor, how: str) -> torch.Tensor:
    """Returns digits of shape (..., 28, 28) as (..., 32, 32)."""
    return functional.pad(digits, [2]) if how == "pad" else functional.resize(digits, [32, 32])


def reader(args: common.Args) -> Callable[[str], torch.Tensor]:
    """Returns what makes 32x32 pixels of an image file of a digit, white on black as those of MNIST."""

    def read(path: str) -> torch.Tensor:
        grey = resized(read_rgb(path).convert("L"), (28, 28))
        return fitted(functional.pil_to_tensor(grey), args.fit)

    return read


def load(args: common.Args, augment: bool) -> tuple[common.Splits, list[str]]:
    """Returns the data sets train and test, and the digits; nothing is augmented."""
    if not (Path(args.data) / "MNIST" / "raw").is_dir():
        raise FileNotFoundError(f"{args.data} has no folder MNIST/raw; {SOURCE}, and --sample draws digits.")
    sets = {"train": MNIST(args.data, train=True), "test": MNIST(args.data, train=False)}
    return {name: TensorDataset(fitted(s.data[:, None], args.fit), s.targets) for name, s in sets.items()}, list(
        "0123456789"
    )


def make_model(args: common.Args, n_classes: int, fresh: bool) -> tuple[nn.Module, Normalize]:
    """Returns the network and the normalisation that goes with it."""
    return networks.lenet(n_classes), Normalize.of_unit([args.mean], [args.std])


def make_optimizer(args: common.Args, network: nn.Module) -> torch.optim.Optimizer:
    """Returns Adam."""
    return torch.optim.Adam(network.parameters(), args.lr)


def download(root: Path) -> None:
    """Fetches the data set (12 MB)."""
    with common.unfinished(root) as folder:
        for (name, md5), size in zip(MNIST.resources, SIZES, strict=True):
            fetch(MNIST.mirrors[0] + name, folder / "MNIST" / "raw" / name, size, md5)
        MNIST(folder, download=True)  # which unpacks what is there


SOURCE = "--download fetches MNIST (12 MB), or --data names a folder with MNIST/raw, as torchvision writes it"
RECIPE = common.Recipe(
    name="lenet_mnist",
    description=__doc__,
    settings=TUTORIAL,
    sample=SAMPLE,
    source=SOURCE,
    draw=drawn_digits.write,
    download=download,
    load=load,
    reader=reader,
    make_model=make_model,
    make_optimizer=make_optimizer,
    fixed=("fit", "mean", "std"),
    add_options=add_options,
    check=check,
)


def main(argv: list[str] | None = None) -> None:
    """Trains, or walks one step aloud."""
    parser = common.make_parser(RECIPE)
    args = parser.parse_args(argv)
    if not args.explain:
        common.main(RECIPE, argv)
        return
    try:
        trainer.random.set_seed(args.seed or 0)
    except ValueError as error:
        parser.error(str(error))
    if not one_step.explain(networks.lenet()):
        sys.exit(1)


if __name__ == "__main__":
    main()
