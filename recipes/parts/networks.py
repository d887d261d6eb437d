"""The networks of the tutorials, and one function that makes them or any model of timm by name."""

from __future__ import annotations

import difflib
import os
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from torch import nn

import trainer.random
from recipes.parts.image_files import BadImageError
from recipes.parts.parser import say
from recipes.parts.transforms import Normalize, collate_images
from trainer import saving
from trainer.saving.state import fitting


def alexnet_small(num_classes: int = 10) -> nn.Module:
    """Returns an AlexNet for images of shape (3, 32, 32): its first convolution takes every pixel, not every fourth."""
    features = nn.Sequential(
        nn.Conv2d(3, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
    )
    classifier = nn.Sequential(
        nn.Dropout(),
        nn.Linear(256 * 6 * 6, 4096),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(4096, num_classes),
    )
    # Only 2x2 is left of an image: the average pool repeats it to AlexNet's 6x6.
    return _named(features=features, avgpool=nn.AdaptiveAvgPool2d(6), flatten=nn.Flatten(), classifier=classifier)


def alexnet(num_classes: int = 1000) -> nn.Module:
    """Returns the full AlexNet for images of shape (3, 224, 224), which is torchvision's."""
    return torchvision.models.alexnet(num_classes=num_classes)


def lenet(num_classes: int = 10) -> nn.Module:
    """Returns the LeNet of PyTorch's tutorial "Neural Networks", for images of shape (1, 32, 32)."""
    return _named(
        conv1=nn.Conv2d(1, 6, 5),
        relu1=nn.ReLU(),
        pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(6, 16, 5),
        relu2=nn.ReLU(),
        pool2=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
        fc1=nn.Linear(16 * 5 * 5, 120),
        relu3=nn.ReLU(),
        fc2=nn.Linear(120, 84),
        relu4=nn.ReLU(),
        fc3=nn.Linear(84, num_classes),
    )


def vgg_newts(num_classes: int = 2) -> nn.Module:
    """Returns a small VGG with batch norm for images of shape (3, 64, 64)."""
    return _named(
        block1=_vgg_block(3, 32),
        block2=_vgg_block(32, 64),
        block3=_vgg_block(64, 128),
        block4=_vgg_block(128, 256),
        flatten=nn.Flatten(),
        classifier=nn.Sequential(
            nn.Linear(256 * 4 * 4, 512),
            nn.ReLU(),
            nn.Linear(512, 512),
            nn.ReLU(),
            nn.Linear(512, num_classes),
        ),
    )


def _vgg_block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )


def _named(**parts: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(parts))


_OWN: tuple[Callable[..., nn.Module], ...] = (alexnet, alexnet_small, lenet, vgg_newts)
NETWORKS = {network.__name__: network for network in _OWN}

# (channels, height, width) of what each takes; for a model of timm it is in its pretrained_cfg["input_size"].
INPUTS: dict[str, tuple[int, int, int]] = {
    "alexnet": (3, 224, 224),
    "alexnet_small": (3, 32, 32),
    "lenet": (1, 32, 32),
    "vgg_newts": (3, 64, 64),
}


def create(name: str, num_classes: int | None, pretrained: bool = False) -> nn.Module:
    """Returns a network of this module or a model of timm, by its name.

    Args:
        name: Such as ``"lenet"``, ``"resnet50"`` or, with the tag of its weights, ``"resnet50.a1_in1k"``.
        num_classes: None: as many as the network has of its own.
        pretrained: Start from timm's weights, which are fetched unless they are in its cache.

    Raises:
        ValueError: If there is no network of that name, or there are no trained weights for it.
        OSError: If the trained weights cannot be fetched or read.
    """
    architecture, dot, _ = name.partition(".")
    if name not in NETWORKS and not (timm.is_model(name) and (not dot or name in timm.list_models(include_tags=True))):
        known = timm.list_models(f"{architecture}*", include_tags=True) if timm.is_model(name) else timm.list_models()
        near = difflib.get_close_matches(name, [*NETWORKS, *known], 5, 0.5)
        raise ValueError(
            f"timm has no model {name!r}{', but ' + ', '.join(near) if near else ''};"
            f' python -c "import timm; print(timm.list_models())" lists all of timm\'s, ours are {", ".join(NETWORKS)}.'
        )
    if pretrained and not timm.is_model_pretrained(name):
        raise ValueError(
            f"there are no trained weights for {name!r}; start without --pretrained, or take a model of timm that has"
            ' some: python -c "import timm; print(timm.list_pretrained())" lists them.'
        )
    if name in NETWORKS:
        return NETWORKS[name]() if num_classes is None else NETWORKS[name](num_classes)
    if not pretrained:
        return timm.create_model(name, num_classes=num_classes)
    try:
        return timm.create_model(name, num_classes=num_classes, pretrained=True)
    except Exception as error:  # OSError, or what httpx, xet and safetensors raise, which have no base in common
        raise OSError(
            f"the trained weights of {name!r} cannot be fetched or read ({type(error).__name__}: {error}); connect"
            " once, so that they are kept in the cache, or let HF_HOME name a cache that has them, or start without"
            " --pretrained."
        ) from error


def head_names(network: nn.Module) -> list[str]:
    """Returns the names of the layers that tell the classes: timm knows them, else it is the last linear one."""
    if hasattr(network, "pretrained_cfg"):
        names = network.pretrained_cfg["classifier"]
        return [names] if isinstance(names, str) else list(names)
    return [[name for name, module in network.named_modules() if isinstance(module, nn.Linear)][-1]]


def load_weights(network: nn.Module, path: str | Path, head: Sequence[str] = ()) -> None:
    """Loads a file of weights; layers of ``head`` that are of another size are left as they are, and that is said.

    Raises:
        ValueError: If it is no such file, or does not fit the network; what differs is named.
        OSError: If it cannot be read.
    """
    weights = saving.load_weights(path)
    if "updater" in weights:
        raise ValueError(f"{path} is the snapshot of a run; give the weights beside it, such as a model_epoch file.")
    if other := [str(key) for key, value in weights.items() if not isinstance(value, torch.Tensor)]:
        raise ValueError(f"{path} is no file of weights: {', '.join(other[:5])} is no tensor; give a state_dict.")
    mine = network.state_dict()
    other = [key for key in weights if key in mine and weights[key].shape != mine[key].shape]
    replaced = [key for key in other if any(key.startswith(name + ".") for name in head)]
    if replaced:
        say(f"{path}: its head ({', '.join(replaced)}) is of another size and is replaced by a new one.")
    for key in replaced:
        weights[key] = mine[key]
    wrong = {
        "missing": sorted(mine.keys() - weights.keys()),
        "unexpected": sorted(map(str, weights.keys() - mine.keys())),
        "of another size": [key for key in other if key not in replaced],
        "of another type": [key for key in mine if key in weights and _is_other(weights[key], mine[key])],
    }
    if any(wrong.values()):
        told = "; ".join(
            f"{what}: {', '.join(keys[:5])}{' ...' * (len(keys) > 5)}" for what, keys in wrong.items() if keys
        )
        raise ValueError(f"{path} does not fit the model ({told}); choose the model it was saved from.")
    with fitting(str(path)):
        network.load_state_dict(weights)


def _is_other(given: torch.Tensor, own: torch.Tensor) -> bool:
    return given.dtype.is_floating_point != own.dtype.is_floating_point or given.layout is not own.layout


def as_asked(args: Namespace, network: nn.Module, normalize: Normalize) -> None:
    """Brings a network and its input into the memory format that was asked for."""
    if args.channels_last:
        network.to(memory_format=torch.channels_last)
        normalize.memory_format = torch.channels_last


def prepare(args: Namespace, network: nn.Module, normalize: Normalize, dataset: Any) -> None:
    """Makes a network ready for training: ``--channels-last``, ``--compile`` and ``--deterministic``, if asked for.

    Raises:
        ValueError: If it cannot take the images of the data set.
    """
    if args.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA is first used
        torch.use_deterministic_algorithms(True)
    as_asked(args, network, normalize)
    _check_fit(network, normalize, dataset)
    if args.compile:
        network.compile()


def _check_fit(network: nn.Module, normalize: Normalize, dataset: Any) -> None:
    """Refuses images that a network cannot take, before anything is written; leaves the generators as they were."""
    with trainer.random.preserved():
        try:
            image, label = dataset[0]
        except BadImageError:
            return  # the run will tell of it, or skip it
    modes = [module.training for module in network.modules()]
    pixels, _ = normalize(collate_images([(image, label)]), torch.device("cpu"))
    try:
        with torch.no_grad():
            network.eval()(pixels)
    except (AssertionError, RuntimeError) as error:  # timm's transformers assert
        if "memory" in str(error):
            raise
        reason = str(error).splitlines()[0].rstrip(".")
        raise ValueError(
            f"the network cannot take images of shape {tuple(image.shape)} ({reason}); choose another size or network."
        ) from error
    finally:
        for module, mode in zip(network.modules(), modes, strict=True):
            module.training = mode
