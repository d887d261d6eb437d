"""What training does to images, batches and losses, and testing does not: ``--augment``, ``--mixup`` and their kin."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode, RandomResizedCrop, v2

from recipes.parts.transforms import ScaleAndCrop, decode
from trainer import Ratio, binary_accuracy

AUGMENTS = ("none", "light", "trivial", "rand")

# What part of a photograph a crop has, and its width over its height. torchvision takes 8% or more, for the million
# photographs of ImageNet. A few hundred of one's own are learnt sooner if a crop shows its object: fastai's 35%.
CROP_AREA = (0.35, 1.0)
CROP_RATIO = (3 / 4, 4 / 3)


def training_reader(augment: str, plain: ScaleAndCrop) -> Callable[[str | Path], Tensor]:
    """Returns what makes pixels to train on of an image file: a uint8 tensor of shape (3, crop, crop).

    It draws from torch's global generator, and goes to workers. All but "none" mirror half of the images.

    Args:
        augment: ``"none"``: ``plain.read`` itself. ``"light"``: a random part of the image, of ``CROP_AREA``, with
            RandomResizedCrop's geometry. ``"trivial"``: then one operation of random strength, TrivialAugmentWide.
            ``"rand"``: then two of RandAugment, of its usual strength.
        plain: What reads the images to test on; its crop, interpolation, ``reduced`` and ``turned`` hold here too.
    """
    if augment not in AUGMENTS:
        raise ValueError(f"augment must be one of {', '.join(AUGMENTS)}, got {augment!r}.")
    if augment == "none":
        return plain.read
    steps: list[nn.Module] = [v2.RandomHorizontalFlip()]
    if augment != "light":
        kind = v2.TrivialAugmentWide if augment == "trivial" else v2.RandAugment
        steps.append(kind(interpolation=InterpolationMode.BILINEAR))
    return partial(_read_augmented, plain, v2.Compose(steps))


def _read_augmented(plain: ScaleAndCrop, transform: Callable[[Tensor], Tensor], path: str | Path) -> Tensor:
    return transform(read_random_crop(path, plain))


def read_random_crop(path: str | Path, plain: ScaleAndCrop) -> Tensor:
    """Returns a random part of an image file, resized: RandomResizedCrop, but only what it keeps is resized.

    Raises:
        BadImageError: If the file is missing, damaged, no image, or has more than ``max_pixels()``.
    """
    shortest = math.sqrt(CROP_AREA[0] * CROP_RATIO[0])  # side of a crop, over the image's shorter side
    pixels, _, _ = decode(path, plain.turned, plain.crop / shortest if plain.reduced else None)
    image = pixels[None].permute(0, 3, 1, 2)  # to torch's fast path: one image, channels last
    top, left, height, width = RandomResizedCrop.get_params(image, list(CROP_AREA), list(CROP_RATIO))
    part = image[..., top : top + height, left : left + width]
    return F.interpolate(part, (plain.crop, plain.crop), mode=plain.interpolation, antialias=True)[0]


def mixed(
    normalize: Callable[[Any, Any], tuple[Tensor, Tensor]], n_classes: int, mixup: float = 0.0, cutmix: float = 0.0
) -> Callable[[Any, Any], tuple[Tensor, Tensor]]:
    """Returns a converter for the updater alone: what ``normalize`` returns, each image mixed with its neighbour.

    Labels become floats of shape (N, n_classes): how much of an image is of which class. So ``main/accuracy`` tells
    how often the network names the class that has the larger share. It is not comparable with that of validation,
    and often the lower of the two.

    It draws from torch's global generator on the CPU, which a snapshot holds, so a resumed run mixes the same.

    Args:
        normalize: Called as ``normalize(batch, device)``; returns float pixels, and class numbers or multi-labels.
        n_classes: How many classes there are.
        mixup: Alpha of MixUp, which blends two images; torchvision's examples have 0.2. 0: not done.
        cutmix: Alpha of CutMix, which pastes a box of another image; usual is 1.0. With both, each batch draws one.

    Raises:
        ValueError: If an alpha is negative or no number.
    """
    alphas = {"mixup": (v2.MixUp, mixup), "cutmix": (v2.CutMix, cutmix)}
    for name, (_, alpha) in alphas.items():
        if not 0 <= alpha < math.inf:
            raise ValueError(f"{name} must be 0 or more, got {alpha}.")
    kinds = [kind(alpha=alpha, num_classes=n_classes) for kind, alpha in alphas.values() if alpha]
    if not kinds:
        return normalize
    mix = v2.RandomChoice(kinds)
    return lambda batch, device: mix(*normalize(batch, device))


def loss_of(
    labels: Sequence[Any],
    classes: Sequence[str],
    smoothing: float = 0.0,
    balanced: bool = False,
    multi_label: bool = False,
) -> nn.Module:
    """Returns the loss function for a ``Classifier``: cross entropy, or for multi-labels binary cross entropy.

    In evaluation mode labels are not smoothed: the validation's loss says how good the predictions are. Weights hold
    there too, as they say what is to be learnt. The mean is that of torch: by the sum of the labels' weights, and
    where labels are mixed by the number of samples; over an epoch ``Classifier`` weighs its batches likewise.

    Args:
        labels: Of the training set: class numbers, or float tensors of shape (classes,) of 0 and 1.
        classes: Their names.
        smoothing: What part of each label is spread over all classes; of a multi-label, over yes and no.
        balanced: Whether each class weighs as much as any other, however many images it has: an image weighs
            n / (classes * images of its class). Of multi-labels each yes weighs (n - yes) / yes.
        multi_label: Whether an image has any number of classes.

    Raises:
        ValueError: If the classes are to be balanced, and one has no image, or all of them; or ``smoothing`` is 1.
    """
    if not 0 <= smoothing < 1:
        raise ValueError(f"label smoothing must be 0 or more and below 1, got {smoothing}.")
    weight = None
    if balanced:
        if multi_label:
            counts = torch.stack(list(labels)).sum(0)
        else:
            counts = torch.bincount(torch.as_tensor(labels, dtype=torch.long), minlength=len(classes))
        for name, count in zip(classes, counts.tolist(), strict=True):
            if not 0 < count < len(labels):
                raise ValueError(
                    f"--class-weights: {'all' if count else 'none'} of the {len(labels)} images to train on are of"
                    f" class {name!r}, so no weight balances it; leave out the class, or the option."
                )
        weight = (len(labels) - counts) / counts if multi_label else len(labels) / (len(classes) * counts)
    return BinaryCrossEntropy(weight, smoothing) if multi_label else CrossEntropy(weight, label_smoothing=smoothing)


class CrossEntropy(nn.CrossEntropyLoss):
    """Torch's, which smooths the labels in training mode only."""

    def forward(self, y: Tensor, t: Tensor) -> Tensor:
        """Returns the mean loss of scores of shape (N, C), for class numbers or probabilities."""
        return F.cross_entropy(y, t, self.weight, label_smoothing=self.label_smoothing if self.training else 0.0)


class BinaryCrossEntropy(nn.BCEWithLogitsLoss):
    """Torch's, with labels that are smoothed in training mode only."""

    def __init__(self, pos_weight: Tensor | None = None, smoothing: float = 0.0) -> None:
        super().__init__(pos_weight=pos_weight)
        self.smoothing = smoothing

    def forward(self, y: Tensor, t: Tensor) -> Tensor:
        """Returns the mean loss of scores of shape (N, C), for labels of 0 to 1."""
        return super().forward(y, t + self.smoothing * (0.5 - t) if self.training else t)


def multi_label_accuracy(y: Tensor, t: Tensor) -> Ratio:
    """Returns how many labels are told right, of all labels of all images; a mixed one counts as the nearer of 0 and 1.

    Where most labels are 0, to say 0 always makes this large: F1 tells more. An image that counts only if all its
    labels are right, as scikit-learn's accuracy has it, stays near 0 for long where there are many.
    """
    return binary_accuracy(y, t.round())
