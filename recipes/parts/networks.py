"""The networks of the tutorials, and one function that makes them, or any model of timm or torchvision, by name."""

from __future__ import annotations

import difflib
import os
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import timm
import timm.data
import torch
import torchvision
from torch import nn

import trainer.random
from recipes.parts.image_files import BadImageError
from recipes.parts.label_table import few
from recipes.parts.parser import say
from recipes.parts.transforms import Normalize, collate_images
from recipes.parts.weights import state_dict_in
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


NETWORKS = {"alexnet": alexnet, "alexnet_small": alexnet_small, "lenet": lenet, "vgg_newts": vgg_newts}

# (channels, height, width) of what each takes; for a model of timm it is in its pretrained_cfg["input_size"].
INPUTS = {"alexnet": (3, 224, 224), "alexnet_small": (3, 32, 32), "lenet": (1, 32, 32), "vgg_newts": (3, 64, 64)}

TORCHVISION = tuple(torchvision.models.list_models(module=torchvision.models))  # its image classifiers


class Input(NamedTuple):
    """The images that a network takes: the middle of ``size`` pixels a side, when the shorter side is ``scale``.

    Mean and standard deviation are of pixels from 0 to 1; ``interpolation`` is ``"bilinear"``, ``"bicubic"`` and so on.
    That timm squeezes the images of some models into a square (``crop_mode``) is left out.
    """

    size: int
    scale: int
    mean: Sequence[float]
    std: Sequence[float]
    interpolation: str


def input_of(name: str, size: int | None = None) -> Input:
    """Returns what a network was trained with; another ``size`` is cut from the middle in the same proportion.

    Raises:
        ValueError: If there is no network of that name.
    """
    refuse_unknown(name)
    if theirs := _of_torchvision(name):
        made = torchvision.models.get_model_weights(theirs).DEFAULT.transforms()
        own, scale = made.crop_size[0], made.resize_size[0]
        found = {"mean": made.mean, "std": made.std, "interpolation": made.interpolation.value}
    else:
        config = None if name in NETWORKS else timm.get_pretrained_cfg(name)
        known = config.to_dict() if config else {"input_size": INPUTS.get(name, (3, 224, 224))}
        found = timm.data.resolve_data_config(pretrained_cfg=known)
        own = found["input_size"][-1]
        scale = int(own / found["crop_pct"])
    size = size or own
    return Input(size, max(size, size * scale // own), found["mean"], found["std"], found["interpolation"])


def refuse_unknown(name: str, pretrained: bool = False) -> None:
    """Refuses a name that no network has or, if it is to be pretrained, one without trained weights.

    Raises:
        ValueError: With names that are like it.
    """
    architecture, dot, _ = name.partition(".")
    theirs = _of_torchvision(name)
    is_timm = timm.is_model(name) and (not dot or name in timm.list_models(include_tags=True))
    if name not in NETWORKS and not theirs and not is_timm:
        known = timm.list_models(f"{architecture}*", include_tags=True) if timm.is_model(name) else timm.list_models()
        others = [f"torchvision/{other}" if "/" in name else other for other in TORCHVISION]
        near = difflib.get_close_matches(name, list(dict.fromkeys([*NETWORKS, *known, *others])), 5, 0.5)
        raise ValueError(
            f"timm has no model {name!r}{', but ' + ', '.join(near) if near else ''};"
            f' python -c "import timm; print(timm.list_models())" lists all of timm\'s, ours are {", ".join(NETWORKS)}.'
            " torchvision's are written torchvision/resnet50 and so on."
        )
    if pretrained and not theirs and not timm.is_model_pretrained(name):
        raise ValueError(
            f"there are no trained weights for {name!r}; start without --pretrained, or take a model of timm that has"
            ' some: python -c "import timm; print(timm.list_pretrained())" lists them.'
        )


def create(name: str, num_classes: int | None, pretrained: bool = False, size: int | None = None) -> nn.Module:
    """Returns a network of this module, or a model of timm or torchvision, by its name.

    Args:
        name: Such as ``"lenet"``, ``"resnet50"`` or, with the tag of its weights, ``"resnet50.a1_in1k"``. A name that
            timm has too means torchvision's as ``"torchvision/resnet50"``.
        num_classes: None: as many as the network has of its own.
        pretrained: Start from its trained weights, which are fetched unless they are in the cache.
        size: The side of its images, if not its own: timm's transformers are made for one size.

    Raises:
        ValueError: If there is no network of that name, there are no trained weights for it, or it cannot be made
            for images of that size.
        OSError: If the trained weights cannot be fetched or read.
    """
    refuse_unknown(name, pretrained)
    if name in NETWORKS:
        return NETWORKS[name]() if num_classes is None else NETWORKS[name](num_classes)
    theirs = _of_torchvision(name)
    make: Callable[..., nn.Module] = partial(_torchvision, theirs) if theirs else partial(timm.create_model, name)
    if not theirs and size not in (None, input_of(name).size):
        config = timm.get_pretrained_cfg(name)
        if config and config.fixed_input_size:
            make = _resized(make, name, num_classes, size)
    if not pretrained:
        return make(num_classes=num_classes)
    try:
        return make(num_classes=num_classes, pretrained=True)
    except Exception as error:  # OSError, or what httpx, xet and safetensors raise, which have no base in common
        raise OSError(
            f"the trained weights of {name!r} cannot be fetched or read ({type(error).__name__}: {error}); connect"
            f" once, so that they are kept in the cache, or let {'TORCH_HOME' if theirs else 'HF_HOME'} name a cache"
            " that has them, or start without --pretrained."
        ) from error


def _of_torchvision(name: str) -> str | None:
    """Returns torchvision's name of a network: of one that is asked of it, or that nobody else here has."""
    plain = name.removeprefix("torchvision/")
    is_other = plain == name and (name in NETWORKS or timm.is_model(name))
    return plain if plain in TORCHVISION and not is_other else None


def _resized(make: Callable[..., nn.Module], name: str, num_classes: int | None, size: int | None) -> Any:
    """Returns what makes a network for images of another size, as timm's transformers can be; tries it."""
    make = partial(make, img_size=size)
    try:
        with trainer.random.preserved():
            make(num_classes=num_classes)
    except Exception as error:  # whatever its own code raises, or its asserts
        told = str(error) or type(error).__name__
        raise ValueError(
            f"{name!r} cannot be made for images of {size}x{size} ({told}); its own size is {input_of(name).size}."
        ) from error
    return make


def _torchvision(name: str, num_classes: int | None, pretrained: bool = False) -> Any:
    more: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):  # one output, and pixels of the same scale with trained weights or not
        more = {"aux_logits": False, "transform_input": True} | ({} if pretrained else {"init_weights": True})
    if not pretrained:
        return torchvision.models.get_model(name, **more, **({"num_classes": num_classes} if num_classes else {}))
    network = torchvision.models.get_model(name, weights="DEFAULT", **more)
    (head,) = head_names(network)
    layer: Any = network.get_submodule(head)
    if num_classes not in (None, len(layer.weight)):
        is_conv = isinstance(layer, nn.Conv2d)  # of 1x1, in SqueezeNet
        new = nn.Conv2d(layer.in_channels, num_classes, 1) if is_conv else nn.Linear(layer.in_features, num_classes)
        network.set_submodule(head, new)
    return network


def head_names(network: nn.Module) -> list[str]:
    """Returns the names of the layers that tell the classes: timm knows them, else the last that is linear or conv."""
    if names := getattr(network, "pretrained_cfg", {}).get("classifier"):
        return [names] if isinstance(names, str) else list(names)
    return [[name for name, module in network.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))][-1]]


def load_weights(network: nn.Module, path: str | Path, head: Sequence[str] = ()) -> list[str]:
    """Loads a file of weights; layers of ``head`` that are of another size are left as they are, and that is said.

    Returns:
        The names of what was left.

    Raises:
        ValueError: If it is no such file, or does not fit the network; what differs is named.
        OSError: If it cannot be read.
    """
    weights = state_dict_in(path)
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
        told = "; ".join(f"{what}: {few(keys, 5)}" for what, keys in wrong.items() if keys)
        raise ValueError(f"{path} does not fit the model ({told}); choose the model it was saved from.")
    with fitting(str(path)):
        network.load_state_dict(weights)
    return replaced


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
    _check_fit(network, normalize, dataset, args.batch_size)
    if args.compile:
        network.compile()


def _check_fit(network: nn.Module, normalize: Normalize, dataset: Any, batch_size: int) -> None:
    """Refuses images that a network cannot take, before anything is written; leaves the generators as they were."""
    with trainer.random.preserved():
        try:
            image, label = dataset[0]
        except BadImageError:
            return  # the run will tell of it, or skip it
    modes = [module.training for module in network.modules()]
    pixels, _ = normalize(collate_images([(image, label)]), torch.device("cpu"))
    hook = nn.modules.module.register_module_forward_pre_hook(partial(_refuse_single, batch_size))
    try:
        with torch.no_grad():
            scores = network.eval()(pixels)
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
        hook.remove()
    if not isinstance(scores, torch.Tensor) or scores.ndim != 2:
        raise ValueError(f"{type(network).__name__} gives no score for each class; choose a network that classifies.")


def _refuse_single(batch_size: int, module: nn.Module, inputs: tuple[torch.Tensor]) -> None:
    is_norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
    if batch_size == 1 and is_norm and inputs[0].numel() == inputs[0].shape[1]:  # in training torch refuses it
        raise ValueError("batches of one image leave one value for a batch norm: give --batch-size 2 or more.")
