"""Trains a network on Oxford-IIIT Pet: of which of 37 breeds is the cat or dog on the photograph?

    python recipes/pets.py
    python recipes/pets.py --model resnet18 --pretrained

AlexNet from random weights by default; a fifth of the photographs, drawn by the seed, is to test on. The data set is
torchvision's, which is fetched, or --data names a folder of files such as Great_Pyrenees_123.jpg. A confusion matrix
is drawn at the end. Validation is on the test set: choose nothing by it.
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

import extensions
from extensions.snapshot_writers import ThreadWriter
from recipes import evaluate_run
from recipes.parts import networks, run_folder, testing, trained
from recipes.parts.data_set import data_set, unfinished
from recipes.parts.downloads import fetch
from recipes.parts.drawn import pets as drawn_pets
from recipes.parts.image_files import ImageFiles, images_in
from recipes.parts.options import Args, Options
from recipes.parts.parser import say
from recipes.parts.transforms import Normalize, ScaleAndCrop, collate_images
from trainer import Classifier, StandardUpdater, Trainer
from trainer.datasets import split_dataset_random
from trainer.iterators import MultiprocessIterator
from trainer.random import set_seed

TUTORIAL: dict[str, Any] = {"data": "data/pets", "target": "breed", "model": "alexnet", "pretrained": False}
# Adam's default of 0.001 is too high for AlexNet, which has no batch norm: it does not start.
TUTORIAL |= {"epochs": 30, "batch_size": 32, "lr": 0.0001, "scale": 256, "image_size": 224}
SAMPLE = {"data": "data/drawn_pets", "epochs": 20, "scale": 96, "image_size": 96}
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CATEGORIES = ["cat", "dog"]
URL = "https://www.robots.ox.ac.uk/~vgg/data/pets/data/"
ARCHIVES = (  # with size in bytes and MD5
    ("images.tar.gz", 791_918_971, "5c4f3ee8e5d25df40f4fd59a7f44e54c"),
    ("annotations.tar.gz", 19_173_078, "95a8c909bbe2e81eed6a22bccdf3f68f"),
)
SOURCE = "--download fetches Oxford-IIIT Pet (800 MB), or --data names a folder of files such as Great_Pyrenees_123.jpg"
COLUMNS = ["epoch", "lr", "main/loss", "main/accuracy", "validation/main/loss", "validation/main/accuracy"]

OPTIONS = Options(__file__, __doc__, TUTORIAL, SAMPLE, has_download=True)
OPTIONS.add("data", "--target", choices=("breed", "category"), help="what is to be told: the breed, or cat from dog")


def reader(args: Args) -> Callable[[str], torch.Tensor]:
    """Returns what makes scaled and cropped pixels of an image file."""
    return ScaleAndCrop(args.scale, args.image_size).read


def load(args: Args, augment: bool = False) -> tuple[dict[str, Any], list[str]]:
    """Returns the data sets train and test, and the breeds or the two species."""
    with data_set(OPTIONS, args, SOURCE, drawn_pets.write, download) as root:
        paths, breeds = list_images(root)
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


def download(root: Path) -> None:
    """Fetches the data set (800 MB)."""
    with unfinished(root) as folder:
        for name, size, md5 in ARCHIVES:
            fetch(URL + name, folder / "oxford-iiit-pet" / name, size, md5)
        OxfordIIITPet(folder, download=True)  # which unpacks what is there


def make_model(args: Args, n_classes: int, fresh: bool) -> tuple[nn.Module, Normalize]:
    """Returns the network and the normalisation that goes with it; ``fresh``: without any trained weights."""
    network = networks.create(args.model, n_classes, bool(args.pretrained and not fresh))
    if args.pretrained:
        taken = networks.input_of(args.model)
        return network, Normalize.of_unit(taken.mean, taken.std)
    return network, Normalize.of_unit(IMAGENET_MEAN, IMAGENET_STD)


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Trains and tests; returns what ``test.json`` holds."""
    args = OPTIONS.parse(argv)
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
        result = testing.test(args, *make_model(args, len(classes), True), splits["test"], weights)
        try:
            evaluate_run.write(trained.load(weights, args.device, args.workers, recipe=__file__), "test", folder.path)
        except ValueError as error:
            say(f"There is no confusion matrix: {error}")
        return result


if __name__ == "__main__":
    main()
