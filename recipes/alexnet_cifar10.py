"""Trains a small AlexNet on CIFAR-10: which of ten things is on a photograph of 32x32 pixels?

    python recipes/alexnet_cifar10.py

Batches of 256, SGD with momentum, 50 epochs; the images to train on are shifted by up to 4 pixels and mirrored at
random. The data set is torchvision's, which is fetched, or --data names a folder of train/<class>/* and test/<class>/*.
Validation is on the test set, as in the tutorials: choose nothing by it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torchvision.datasets import CIFAR10
from torchvision.transforms import v2

import extensions
from extensions.snapshot_writers import ThreadWriter
from recipes.parts import networks, run_folder, testing
from recipes.parts.data_set import data_set, unfinished
from recipes.parts.downloads import fetch
from recipes.parts.drawn import cifar10 as drawn_cifar10
from recipes.parts.image_files import class_folders
from recipes.parts.options import Args, Options
from recipes.parts.transforms import Normalize, ScaleAndCrop, collate_images
from trainer import Classifier, StandardUpdater, Trainer
from trainer.iterators import MultiprocessIterator
from trainer.iterators.serial import OrderSampler
from trainer.random import set_seed

TUTORIAL: dict[str, Any] = {"data": "data/cifar10", "epochs": 50, "batch_size": 256, "lr": 0.01, "drop_last": False}
SAMPLE = {"data": "data/drawn_cifar10", "epochs": 10, "batch_size": 64, "lr": 0.02}
SOURCE = "--download fetches CIFAR-10 (170 MB), or --data names a folder of train/<class>/* and test/<class>/*"
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)  # of the photographs to train on, RGB in 0..1
COLUMNS = ["epoch", "lr", "main/loss", "main/accuracy", "validation/main/loss", "validation/main/accuracy"]

OPTIONS = Options(__file__, __doc__, TUTORIAL, SAMPLE, has_download=True, weights="{.updater.epoch}.pth")


def reader(args: Args) -> Callable[[str], torch.Tensor]:
    """Returns what makes 32x32 pixels of an image file."""
    return ScaleAndCrop(32, 32).read


def load(args: Args, augment: bool = False) -> tuple[dict[str, Any], list[str]]:
    """Returns the data sets train and test, and the ten things."""
    shift = v2.Compose([v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip()]) if augment else v2.Identity()
    with data_set(OPTIONS, args, SOURCE, drawn_cifar10.write, download) as root:
        if not (root / CIFAR10.base_folder).is_dir():
            return class_folders(root, reader(args), shift)
        pixels = ScaleAndCrop(32, 32)
        train = CIFAR10(root, train=True, transform=v2.Compose([pixels, shift]))
        return {"train": train, "test": CIFAR10(root, train=False, transform=pixels)}, train.classes


def download(root: Path) -> None:
    """Fetches the data set (170 MB)."""
    with unfinished(root) as folder:
        fetch(CIFAR10.url, folder / CIFAR10.filename, 170_498_071, CIFAR10.tgz_md5)
        CIFAR10(folder, download=True)  # which unpacks what is there


def whole_batches(n: int, batch_size: int) -> OrderSampler:
    """Returns an order of ``n`` shuffled samples without the last ones, if they fill no batch: another few each epoch.

    PyTorch: ``DataLoader(shuffle=True, drop_last=True)``.
    """
    return lambda order, position: np.random.permutation(n)[: n - n % batch_size]


def make_model(args: Args, n_classes: int, fresh: bool) -> tuple[nn.Module, Normalize]:
    """Returns the network and the normalisation that goes with it."""
    return networks.alexnet_small(n_classes), Normalize.of_unit(MEAN, STD)


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Trains and tests; returns what ``test.json`` holds."""
    args = OPTIONS.parse(argv)
    with run_folder.opened(OPTIONS, args) as folder:
        set_seed(args.seed)
        splits, classes = load(args, augment=True)
        network, normalize = make_model(args, len(classes), fresh=args.resume is not None)
        networks.prepare(args, network, normalize, splits["train"])
        optimizer = torch.optim.SGD(network.parameters(), args.lr, momentum=0.9, weight_decay=5e-4)
        model = Classifier(network)

        loading = {"n_processes": args.workers, "collate_fn": collate_images, "on_bad_sample": args.on_bad_sample}
        order = whole_batches(len(splits["train"]), args.batch_size) if args.drop_last else None
        train_iter = MultiprocessIterator(splits["train"], args.batch_size, order_sampler=order, **loading)
        valid_iter = MultiprocessIterator(splits["test"], args.batch_size, repeat=False, shuffle=False, **loading)
        updater = StandardUpdater(train_iter, optimizer, normalize, args.device, model=model, precision=args.precision)
        trainer = Trainer(updater, (args.epochs, "epoch"), out=args.out)

        trainer.extend(extensions.observe_lr(), trigger=(1, "iteration"))
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
