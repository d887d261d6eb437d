"""Trains an image classifier on Stanford Online Products: which of 12 kinds of product is on the photograph?

    python recipes/resnet_products.py

It follows the ChainerCV tutorial: ResNet50 from random weights, shorter side scaled to 256, the middle 224 cropped,
the mean subtracted; Adam, batches of 64, 10 epochs; then the accuracy on the first 30% of the test list. As in
ChainerCV, and unlike in the other recipes, photographs are not turned as their EXIF data say. Without photographs it
draws a small data set of the same layout and trains on that, in a minute or two on two cores.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn
from torch.utils.data import Subset

from recipes.parts import common, image_files, networks, transforms
from recipes.parts.drawn import products as drawn_products
from recipes.parts.online_products import SUPER_LABEL_NAMES, URL, OnlineProductsDataset, download
from recipes.parts.parser import say
from recipes.parts.transforms import Normalize, ScaleAndCrop
from trainer.datasets import TransformDataset, split_dataset, split_dataset_random
from trainer.datasets.cached import CachedDataset, describe_files

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
SAMPLE: dict[str, Any] = {
    "data": "data/drawn_products",
    "epochs": 2,
    "batch_size": 16,
    "lr": 0.002,
    "schedule": "cosine",
    "image_size": 40,
    "scale": 40,
}


def add_options(add: Callable[..., None]) -> None:
    """Adds what only this recipe has."""
    add("data", "--split", choices=("random", "tutorial"), help="80/20 into train and valid, at random or by the list")
    add("data", "--test-fraction", type=float, metavar="F", help="the first part of the test list to test on")
    add("data", "--reduced-decoding", action="store_true", help="decode large JPEGs at 1/2, 1/4 or 1/8: other pixels")
    add("data", "--cache", metavar="DIR", help="keep the scaled training images in a file there (150 KB each of 224)")
    add("model", "--weights", metavar="FILE", help="start from a state_dict file; a head of another size is replaced")
    frozen = "keep the first layers, or all but the head, as they are"
    add("model", "--freeze", choices=("none", "stem", "trunk"), help=frozen)
    add("model", "--trunk-lr-scale", type=float, metavar="X", help="learning rate of all but the head, times this")


def check(args: common.Args) -> None:
    """Refuses values out of range."""
    if not args.trunk_lr_scale >= 0:
        raise ValueError(f"--trunk-lr-scale must be 0 or more, got {args.trunk_lr_scale}.")
    if args.cache == "":
        raise ValueError("--cache must name a folder, got ''; is the variable that holds it set?")
    if not 0 < args.test_fraction <= 1:
        raise ValueError(f"--test-fraction must be above 0 and at most 1, got {args.test_fraction}.")


# -- data


def reader(args: common.Args) -> Callable[[str], torch.Tensor]:
    """Returns what makes scaled and cropped pixels of an image file."""
    return ScaleAndCrop(args.scale, args.image_size, bool(args.reduced_decoding), turned=False).read


def load(args: common.Args, augment: bool) -> tuple[common.Splits, list[str]]:
    """Returns the data sets train, valid and test, and the kinds of product; nothing is augmented."""
    root, read = Path(args.data), reader(args)
    train, test = (TransformDataset(OnlineProductsDataset(root, name, read=read), _kind) for name in ("train", "test"))
    if int(len(test) * args.test_fraction) == 0:
        raise ValueError(f"--test-fraction {args.test_fraction} of {len(test)} test images leaves none.")
    if args.cache is not None:
        train = cached(args, train)
    first = int(len(train) * 0.8)
    if args.split == "tutorial":
        train, valid = split_dataset(train, first)  # the list is sorted: the last kinds are in valid only
    else:
        train, valid = split_dataset_random(train, first, args.seed % 2**32)
    return {"train": train, "valid": valid, "test": test}, list(SUPER_LABEL_NAMES)


def cached(args: common.Args, dataset: Any) -> CachedDataset:
    """Returns a data set whose pixels are kept in a file, which is named by all that decides them."""
    images = dataset.dataset
    packages = ("pillow", "simplejpeg", "torch")
    code = b"".join(Path(module.__file__).read_bytes() for module in (image_files, transforms))
    key = {
        "files": describe_files([images.list_file.name, *images.paths], images.root),  # the list: labels are kept too
        **vars(images.read.__self__),
        "decoder": image_files.DECODER,
        "code": hashlib.sha256(code).hexdigest()[:16],
        "versions": {package: metadata.version(package) for package in packages},
    }
    return CachedDataset(dataset, Path(args.cache) / "train", key)


def _kind(sample: tuple[Any, int, int]) -> tuple[Any, int]:
    image, _, super_label = sample
    return image, super_label


# -- model


def make_model(args: common.Args, n_classes: int, fresh: bool) -> tuple[nn.Module, Normalize]:
    """Returns the network and the normalisation that goes with it; ``fresh``: without any trained weights."""
    pretrained = bool(args.pretrained and not args.weights and not fresh)
    model = networks.create(args.model, n_classes, pretrained)
    if args.weights and not fresh:
        networks.load_weights(model, args.weights, networks.head_names(model))
    if args.pretrained:
        return model, Normalize.of_unit(model.pretrained_cfg["mean"], model.pretrained_cfg["std"])
    return model, Normalize(CHAINERCV_MEAN, (1.0, 1.0, 1.0))


def freeze(model: nn.Module, what: str) -> None:
    """Freezes the stem or everything but the head: no gradients, and batch norms keep their statistics."""
    if what == "none":
        return
    head = networks.head_names(model)
    if what == "trunk":
        frozen = [name for name, _ in model.named_parameters() if not name.startswith(tuple(h + "." for h in head))]
    elif not hasattr(model, "group_matcher"):
        raise ValueError("--freeze stem needs a model of timm, which says what its stem is.")
    else:
        groups = timm.models.group_parameters(model, model.group_matcher(coarse=True), reverse=True)
        frozen = [name for name, group in groups.items() if group == 0]
    parameters = dict(model.named_parameters())
    for name in frozen:
        parameters[name].requires_grad = False
    for module in model.modules():
        own = list(module.parameters())
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and own and not any(p.requires_grad for p in own):
            module.eval()


def make_optimizer(args: common.Args, model: nn.Module) -> torch.optim.Optimizer:
    """Freezes what is to be frozen and returns Adam; the head learns at ``lr``, the rest at ``lr * trunk_lr_scale``."""
    freeze(model, args.freeze)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    fused = getattr(args, "fused", True)  # one kernel for all weights; args.json of an older run may say otherwise
    if args.trunk_lr_scale == 1:
        return torch.optim.Adam(trained.values(), lr=args.lr, fused=fused)
    heads = tuple(name + "." for name in networks.head_names(model))
    head = [p for name, p in trained.items() if name.startswith(heads)]
    trunk = [p for name, p in trained.items() if not name.startswith(heads)]
    # The log shows the first one's learning rate.
    groups = [{"params": head, "lr": args.lr}, {"params": trunk, "lr": args.lr * args.trunk_lr_scale}]
    return torch.optim.Adam([group for group in groups if group["params"]], lr=args.lr, fused=fused)


# -- the end


def test(args: common.Args, splits: common.Splits, classes: list[str], weights: Path) -> dict[str, float]:
    """Tests the weights on the first part of the test list, as the tutorial does."""
    data = splits["test"]
    n = int(len(data) * args.test_fraction)
    kinds = sorted(set(data.dataset.super_class_ids[:n]))
    names = ", ".join(classes[kind] for kind in kinds)
    say(f"Testing on the first {n} of {len(data)} test images: {len(kinds)} of the 12 classes ({names}).")
    return common.test(RECIPE, args, Subset(data, range(n)), classes, weights)


RECIPE = common.Recipe(
    name="resnet_products",
    description=__doc__,
    settings=TUTORIAL,
    sample=SAMPLE,
    source=f"the real ones come by --download (3.1 GB), or unpack {URL} there",
    draw=drawn_products.write,
    download=download,
    sample_by_default=True,
    load=load,
    reader=reader,
    make_model=make_model,
    make_optimizer=make_optimizer,
    log=(0.1, "epoch"),
    # What a resumed run keeps: its state, or what it has learnt, would not fit another value.
    fixed=("weights", "freeze", "trunk_lr_scale", "split", "reduced_decoding", "schedule"),
    add_options=add_options,
    check=check,
    test=test,
)

if __name__ == "__main__":
    common.main(RECIPE)
