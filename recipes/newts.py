"""Tells two newts apart, akahara and madara; or the pictures of any two folders, or more.

    python recipes/newts.py --train --test

--train trains a VGG-like network for 100 iterations on 64x64 pixels and writes its weights, cnn.pt, into --out; --test
loads them from there and prints each test image with the probability of each class. The images stand in
train/<class>/* and test/<class>/* of --data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torchvision.transforms.v2.functional import pil_to_tensor

from recipes import predict
from recipes.parts import common, networks
from recipes.parts.drawn import newts as drawn_newts
from recipes.parts.image_files import class_folders, read_rgb, resized
from recipes.parts.transforms import Normalize

TUTORIAL: dict[str, Any] = {"data": "data/newts", "iterations": 100, "batch_size": 8, "lr": 0.01}
SAMPLE: dict[str, Any] = {"data": "data/drawn_newts"}


def add_options(add: Callable[..., None]) -> None:
    """Adds what only this recipe has."""
    add("run", "--train", action="store_true", help="train, and write cnn.pt; so it is without --test, too")
    add("run", "--test", action="store_true", help="print the test images with their probabilities by cnn.pt")


def read(path: str) -> torch.Tensor:
    """Returns an image file as 64x64 pixels: all of it, for a newt may lie across."""
    return pil_to_tensor(resized(read_rgb(path), (64, 64)))


def load(args: common.Args, augment: bool) -> tuple[common.Splits, list[str]]:
    """Returns the data sets train and test, and the newts."""
    return class_folders(args.data, read)


def make_model(args: common.Args, n_classes: int, fresh: bool) -> tuple[nn.Module, Normalize]:
    """Returns the network, and what divides pixels by 255."""
    return networks.vgg_newts(n_classes), Normalize([0.0], [255.0])


def make_optimizer(args: common.Args, network: nn.Module) -> torch.optim.Optimizer:
    """Returns the tutorial's SGD."""
    return torch.optim.SGD(network.parameters(), args.lr, momentum=0.9)


RECIPE = common.Recipe(
    name="newts",
    description=__doc__,
    settings=TUTORIAL,
    sample=SAMPLE,
    source="--data names a folder of train/<class>/* and test/<class>/*",
    draw=drawn_newts.write,
    load=load,
    reader=lambda args: read,
    make_model=make_model,
    make_optimizer=make_optimizer,
    weights="cnn.pt",
    log=(10, "iteration"),
    round=(50, "iteration"),
    add_options=add_options,
)


def main(argv: list[str] | None = None) -> None:
    """Trains, or tests, or both."""
    parser = common.make_parser(RECIPE)
    args = parser.parse_args(argv)
    if args.train or not args.test:
        common.main(RECIPE, argv)
    if args.test:
        try:
            print_test(args)
        except (OSError, ValueError) as error:
            parser.error(str(error))


def print_test(args: common.Args) -> None:
    """Prints each test image with the probability of each class."""
    out = common.folder(args)
    if not (out / "args.json").is_file():
        raise FileNotFoundError(
            f"there is no run in {out} to test: train one first, with --train, or name it by --out."
        )
    saved = common.read_args(out)
    data = args.data or saved["args"]["data"]
    splits, classes = class_folders(data, read)
    if classes != saved["classes"]:
        known = ", ".join(saved["classes"])
        raise ValueError(f"{data} has the classes {', '.join(classes)}, and the run in {out} knows {known}.")
    paths = [path for path, _ in splits["test"].samples]
    options = [f"--top={len(classes)}", f"--batch-size={args.batch_size or saved['args']['batch_size']}"]
    if args.device is not None:
        options.append(f"--device={args.device}")
    predict.main([str(out / RECIPE.weights), *paths, *options])


if __name__ == "__main__":
    main()
