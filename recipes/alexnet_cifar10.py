"""Trains a small AlexNet on CIFAR-10: which of ten things is on a photograph of 32x32 pixels?

    python recipes/alexnet_cifar10.py

Batches of 256, SGD with momentum, 50 epochs; the images to train on are shifted by up to 4 pixels and mirrored at
random. The data set is torchvision's, which is fetched, or --data names a folder of train/<class>/* and test/<class>/*.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision.datasets import CIFAR10
from torchvision.transforms import v2

from recipes.parts import common, networks
from recipes.parts.downloads import fetch
from recipes.parts.drawn import cifar10 as drawn_cifar10
from recipes.parts.image_files import class_folders
from recipes.parts.transforms import Normalize, ScaleAndCrop

TUTORIAL: dict[str, Any] = {"data": "data/cifar10", "epochs": 50, "batch_size": 256, "lr": 0.01, "drop_last": False}
SAMPLE: dict[str, Any] = {"data": "data/drawn_cifar10", "epochs": 10, "batch_size": 64, "lr": 0.02}
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)  # of the photographs to train on, RGB in 0..1


def reader(args: common.Args) -> Callable[[str], torch.Tensor]:
    """Returns what makes 32x32 pixels of an image file."""
    return ScaleAndCrop(32, 32).read


def load(args: common.Args, augment: bool) -> tuple[common.Splits, list[str]]:
    """Returns the data sets train and test, and the ten things."""
    shift = v2.Compose([v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip()]) if augment else v2.Identity()
    if not (Path(args.data) / CIFAR10.base_folder).is_dir():
        return class_folders(args.data, reader(args), shift)
    pixels = ScaleAndCrop(32, 32)
    train = CIFAR10(args.data, train=True, transform=v2.Compose([pixels, shift]))
    return {"train": train, "test": CIFAR10(args.data, train=False, transform=pixels)}, train.classes


def make_model(args: common.Args, n_classes: int, fresh: bool) -> tuple[nn.Module, Normalize]:
    """Returns the network and the normalisation that goes with it."""
    return networks.alexnet_small(n_classes), Normalize.of_unit(MEAN, STD)


def make_optimizer(args: common.Args, network: nn.Module) -> torch.optim.Optimizer:
    """Returns the tutorial's SGD."""
    return torch.optim.SGD(network.parameters(), args.lr, momentum=0.9, weight_decay=5e-4)


def download(root: Path) -> None:
    """Fetches the data set (170 MB)."""
    with common.unfinished(root) as folder:
        fetch(CIFAR10.url, folder / CIFAR10.filename, 170_498_071, CIFAR10.tgz_md5)
        CIFAR10(folder, download=True)  # which unpacks what is there


RECIPE = common.Recipe(
    name="alexnet_cifar10",
    description=__doc__,
    settings=TUTORIAL,
    sample=SAMPLE,
    source="--download fetches CIFAR-10 (170 MB), or --data names a folder of train/<class>/* and test/<class>/*",
    draw=drawn_cifar10.write,
    download=download,
    load=load,
    reader=reader,
    make_model=make_model,
    make_optimizer=make_optimizer,
    weights="{.updater.epoch}.pth",
)

if __name__ == "__main__":
    common.main(RECIPE)
