"""Trains an image classifier on Stanford Online Products: which of 12 kinds of product is on the photograph?

    python recipes/resnet_products.py

It follows the ChainerCV tutorial: ResNet50 from random weights, shorter side scaled to 256, the middle 224 cropped,
the mean subtracted; Adam, batches of 64, 10 epochs; then the accuracy on the first 30% of the test list. As in
ChainerCV, and unlike in the other recipes, photographs are not turned as their EXIF data say. Without photographs it
draws a small data set of the same layout and trains on that, in a minute or two on two cores.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.data import Subset

import extensions
from extensions.snapshot_writers import ThreadWriter
from recipes.parts import networks, run_folder, testing
from recipes.parts.data_set import data_set
from recipes.parts.drawn import products as drawn_products
from recipes.parts.online_products import SUPER_LABEL_NAMES, URL, OnlineProductsDataset, cached, download
from recipes.parts.options import Args, Options
from recipes.parts.parser import say
from recipes.parts.transforms import Normalize, ScaleAndCrop, collate_images
from recipes.parts.tuning import WarmupCosine, freeze, parameter_groups
from trainer import Classifier, StandardUpdater, Trainer
from trainer.datasets import TransformDataset, split_dataset, split_dataset_random
from trainer.iterators import MultiprocessIterator
from trainer.random import set_seed

CHAINERCV_MEAN = (123.15163084, 115.90288257, 103.0626238)  # of ImageNet, RGB in 0..255; nothing is divided by

TUTORIAL: dict[str, Any] = {
    "data": "data/Stanford_Online_Products",
    "model": "resnet50",
    "pretrained": False,
    "epochs": 10,
    "batch_size": 64,
    "lr": 0.001,  # Adam's own default
    "schedule": "constant",
    "image_size": 224,
    "scale": 256,
    "split": "random",
    "test_fraction": 0.3,
    "freeze": "none",
    "trunk_lr_scale": 1.0,
}
# What two cores do in a minute or two. A rate that rises and then falls to 0 gets there with half the images of a
# constant one. Of 32 pixels the last layers of ResNet50 would see one position: it learns much more slowly then.
SAMPLE = {"data": "data/drawn_products", "epochs": 2, "batch_size": 16, "lr": 0.002, "schedule": "cosine"}
SAMPLE |= {"image_size": 40, "scale": 40}
SOURCE = f"the real ones come by --download (3.1 GB), or unpack {URL} there"

COLUMNS = ["iteration", "lr", "main/loss", "main/accuracy", "validation/main/loss", "validation/main/accuracy"]

OPTIONS = Options(__file__, __doc__, TUTORIAL, SAMPLE, sample_by_default=True, has_download=True)
add = OPTIONS.add
add("data", "--split", choices=("random", "tutorial"), help="80/20 into train and valid, at random or by the list")
part = "the first part of the test list to test on"
add("data", "--test-fraction", type=float, metavar="F", above=0, most=1, on_resume="free", help=part)
add("data", "--reduced-decoding", action="store_true", help="decode large JPEGs at 1/2, 1/4 or 1/8: other pixels")
kept = "keep the scaled training images in a file there (150 KB each of 224)"
add("data", "--cache", metavar="DIR", on_resume="machine", help=kept)
add("model", "--weights", metavar="FILE", help="start from a state_dict file; a head of another size is replaced")
frozen = "keep the first layers, or all but the head, as they are"
add("model", "--freeze", choices=("none", "stem", "trunk"), help=frozen)
add("model", "--trunk-lr-scale", type=float, metavar="X", least=0, help="learning rate of all but the head, times this")
rises = "the learning rate stays, or rises for a fifth of the run and then falls to 0 along half a cosine"
add("training", "--schedule", choices=("constant", "cosine"), help=rises)


def reader(args: Args) -> Callable[[str], torch.Tensor]:
    """Returns what makes scaled and cropped pixels of an image file."""
    return ScaleAndCrop(args.scale, args.image_size, bool(args.reduced_decoding), turned=False).read


def load(args: Args, augment: bool = False) -> tuple[dict[str, Any], list[str]]:
    """Returns the data sets train, valid and test, and the kinds of product; nothing is augmented."""
    with data_set(OPTIONS, args, SOURCE, drawn_products.write, download) as root:
        sets = (OnlineProductsDataset(root, name, read=reader(args)) for name in ("train", "test"))
        train, test = (TransformDataset(images, kind) for images in sets)
    if int(len(test) * args.test_fraction) == 0:
        raise ValueError(f"--test-fraction {args.test_fraction} of {len(test)} test images leaves none.")
    if args.cache is not None:
        train = cached(train, args.cache)
    first = int(len(train) * 0.8)
    if args.split == "tutorial":
        train, valid = split_dataset(train, first)  # the list is sorted: the last kinds are in valid only
    else:
        train, valid = split_dataset_random(train, first, args.seed % 2**32)
    return {"train": train, "valid": valid, "test": test}, list(SUPER_LABEL_NAMES)


def kind(sample: tuple[Any, int, int]) -> tuple[Any, int]:
    """Returns the image and the label that is learnt: which kind of product it is."""
    image, _, super_label = sample
    return image, super_label


def make_model(args: Args, n_classes: int, fresh: bool) -> tuple[nn.Module, Normalize]:
    """Returns the network and the normalisation that goes with it; ``fresh``: without any trained weights."""
    network = networks.create(args.model, n_classes, bool(args.pretrained and not args.weights and not fresh))
    if args.weights and not fresh:
        networks.load_weights(network, args.weights, networks.head_names(network))
    if args.pretrained:
        taken = networks.input_of(args.model)
        return network, Normalize.of_unit(taken.mean, taken.std)
    return network, Normalize(CHAINERCV_MEAN, (1.0, 1.0, 1.0))


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Trains and tests; returns what ``test.json`` holds."""
    args = OPTIONS.parse(argv)
    with run_folder.opened(OPTIONS, args) as folder:
        set_seed(args.seed)
        splits, classes = load(args, augment=True)
        network, normalize = make_model(args, len(classes), fresh=args.resume is not None)
        networks.prepare(args, network, normalize, splits["train"])
        freeze(network, args.freeze)
        groups = parameter_groups(network, args.lr, args.trunk_lr_scale)
        optimizer = torch.optim.Adam(groups, args.lr, fused=True)
        model = Classifier(network)

        loading = {"n_processes": args.workers, "collate_fn": collate_images, "on_bad_sample": args.on_bad_sample}
        train_iter = MultiprocessIterator(splits["train"], args.batch_size, **loading)
        valid_iter = MultiprocessIterator(splits["valid"], args.batch_size, repeat=False, shuffle=False, **loading)
        updater = StandardUpdater(train_iter, optimizer, normalize, args.device, model=model, precision=args.precision)
        trainer = Trainer(updater, (args.epochs, "epoch"), out=args.out)

        if args.schedule == "cosine":
            total = math.ceil(args.epochs * len(splits["train"]) / args.batch_size)
            trainer.extend(WarmupCosine(optimizer, total // 5, total))
        trainer.extend(extensions.observe_lr(bias_corrected=True), trigger=(1, "iteration"))
        trainer.extend(extensions.Evaluator(valid_iter, model, normalize, precision=args.precision))
        trainer.extend(extensions.LogReport(trigger=(0.1, "epoch")))
        trainer.extend(extensions.PrintReport(COLUMNS), trigger=(0.1, "epoch"))
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

        n = int(len(splits["test"]) * args.test_fraction)
        kinds = sorted(set(splits["test"].dataset.super_class_ids[:n]))
        names = ", ".join(classes[kind] for kind in kinds)
        say(f"Testing on the first {n} of {len(splits['test'])} test images: {len(kinds)} of the 12 classes ({names}).")
        return testing.test(args, *make_model(args, len(classes), True), Subset(splits["test"], range(n)), weights)


if __name__ == "__main__":
    main()
