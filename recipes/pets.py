"""Trains a network on Oxford-IIIT Pet: of which of 37 breeds is the cat or dog on the photograph?

    python recipes/pets.py
    python recipes/pets.py --model resnet18 --pretrained

AlexNet from random weights by default; a fifth of the photographs, drawn by the seed, is to test on. The data set is
torchvision's, which is fetched, or --data names a folder of files such as Great_Pyrenees_123.jpg. A confusion matrix
is drawn at the end.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision.datasets import OxfordIIITPet
from torchvision.transforms import v2

from recipes import evaluate_run
from recipes.parts import common, networks, trained
from recipes.parts.downloads import fetch
from recipes.parts.drawn import pets as drawn_pets
from recipes.parts.image_files import ImageFiles, images_in
from recipes.parts.parser import say
from recipes.parts.transforms import Normalize, ScaleAndCrop
from trainer.datasets import split_dataset_random

TUTORIAL: dict[str, Any] = {
    "data": "data/pets",
    "target": "breed",
    "model": "alexnet",
    "pretrained": False,
    "epochs": 30,
    "batch_size": 32,
    "lr": 0.0001,  # Adam's default of 0.001 is too high for AlexNet, which has no batch norm: it does not start
    "scale": 256,
    "image_size": 224,
}
SAMPLE: dict[str, Any] = {"data": "data/drawn_pets", "epochs": 20, "scale": 96, "image_size": 96}
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CATEGORIES = ["cat", "dog"]
URL = "https://www.robots.ox.ac.uk/~vgg/data/pets/data/"
ARCHIVES = (  # with size in bytes and MD5
    ("images.tar.gz", 791_918_971, "5c4f3ee8e5d25df40f4fd59a7f44e54c"),
    ("annotations.tar.gz", 19_173_078, "95a8c909bbe2e81eed6a22bccdf3f68f"),
)


def add_options(add: Callable[..., None]) -> None:
    """Adds what only this recipe has."""
    add("data", "--target", choices=("breed", "category"), help="what is to be told: the breed, or cat from dog")


def reader(args: common.Args) -> Callable[[str], torch.Tensor]:
    """Returns what makes scaled and cropped pixels of an image file."""
    return ScaleAndCrop(args.scale, args.image_size).read


def load(args: common.Args, augment: bool) -> tuple[common.Splits, list[str]]:
    """Returns the data sets train and test, and the breeds or the two species."""
    paths, breeds = list_images(Path(args.data))
    if args.target == "breed":
        classes = sorted(set(breeds))
        labels = [classes.index(breed) for breed in breeds]
    else:
        classes = CATEGORIES
        labels = [int(breed[0].islower()) for breed in breeds]  # the published set writes Persian, but pug
    if len(set(labels)) < 2:
        raise ValueError(f"{args.data}: all of the {len(paths)} images are of one class, {classes[labels[0]]}.")
    first, seed = int(len(paths) * 0.8), args.seed % 2**32
    train, test = split_dataset_random(ImageFiles(paths, labels, reader(args)), first, seed)
    if augment:
        shift = v2.Compose([v2.RandomCrop(args.image_size), v2.RandomHorizontalFlip()])
        whole = ImageFiles(paths, labels, ScaleAndCrop(args.scale, args.scale).read, shift)
        train, _ = split_dataset_random(whole, first, seed)
    return {"train": train, "test": test}, classes


def list_images(root: Path) -> tuple[list[str], list[str]]:
    """Returns the paths of a folder's images and the breed of each, which is its name before the number.

    Raises:
        FileNotFoundError: If there are none.
        ValueError: If a name has no number.
    """
    places = (root / "oxford-iiit-pet" / "images", root / "images", root)
    folder = next(place for place in places if place.is_dir())
    paths = images_in(str(folder), deep=False)
    if not paths:
        raise FileNotFoundError(f"{folder} has no file such as Great_Pyrenees_123.jpg; {SOURCE}.")
    names = [re.fullmatch(r"(.+)_\d+", Path(path).stem) for path in paths]
    if None in names:
        raise ValueError(
            f"{paths[names.index(None)]}: expected a name such as Great_Pyrenees_123.jpg, breed and number."
        )
    return paths, [name[1] for name in names if name]


def make_model(args: common.Args, n_classes: int, fresh: bool) -> tuple[nn.Module, Normalize]:
    """Returns the network and the normalisation that goes with it; ``fresh``: without any trained weights."""
    network = networks.create(args.model, n_classes, bool(args.pretrained and not fresh))
    if args.pretrained:
        return network, Normalize.of_unit(network.pretrained_cfg["mean"], network.pretrained_cfg["std"])
    return network, Normalize.of_unit(IMAGENET_MEAN, IMAGENET_STD)


def make_optimizer(args: common.Args, network: nn.Module) -> torch.optim.Optimizer:
    """Returns Adam."""
    return torch.optim.Adam(network.parameters(), args.lr)


def download(root: Path) -> None:
    """Fetches the data set (800 MB)."""
    with common.unfinished(root) as folder:
        for name, size, md5 in ARCHIVES:
            fetch(URL + name, folder / "oxford-iiit-pet" / name, size, md5)
        OxfordIIITPet(folder, download=True)  # which unpacks what is there


def test(args: common.Args, splits: common.Splits, classes: list[str], weights: Path) -> dict[str, float]:
    """Tests the weights, and draws which breed was taken for which."""
    result = common.test(RECIPE, args, splits["test"], classes, weights)
    try:
        evaluate_run.write(trained.load(weights, args.device, args.workers), "test", Path(args.out))
    except ValueError as error:
        say(f"There is no confusion matrix: {error}")
    return result


SOURCE = "--download fetches Oxford-IIIT Pet (800 MB), or --data names a folder of files such as Great_Pyrenees_123.jpg"
RECIPE = common.Recipe(
    name="pets",
    description=__doc__,
    settings=TUTORIAL,
    sample=SAMPLE,
    source=SOURCE,
    draw=drawn_pets.write,
    download=download,
    load=load,
    reader=reader,
    make_model=make_model,
    make_optimizer=make_optimizer,
    fixed=("target",),
    add_options=add_options,
    test=test,
)

if __name__ == "__main__":
    common.main(RECIPE)
