"""A trained network, as the folder of its run describes it."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from recipes.parts import common, networks
from recipes.parts.transforms import Normalize
from trainer.updaters.precision import autocast


class Trained(NamedTuple):
    """A network with what belongs to it: ``args`` are its run's, ``weights`` the file that was loaded.

    ``saved`` is what the run's ``args.json`` holds.
    """

    recipe: common.Recipe
    args: common.Args
    classes: list[str]
    network: nn.Module
    normalize: Normalize
    weights: Path
    saved: dict[str, Any]


def load(path: str | Path, device: str | None = None, workers: int | None = None) -> Trained:
    """Returns the network of a file of weights beside its run's ``args.json``, or the last one of a run's folder.

    Args:
        path: The file or the folder.
        device: Where the network goes: CUDA by default, where there is one.
        workers: Processes that load images; one for each CPU, up to 8, by default.

    Raises:
        OSError: If there is no such file.
        ValueError: If it is no such file, or the weights are of another network.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}: name a run's folder, or a file of weights in one.")
    if not (folder / "args.json").is_file():
        raise FileNotFoundError(f"{folder} is no run's folder: it has no args.json, which tells network and classes.")
    saved = common.read_args(folder)
    common.warn_of_decoder(saved, folder)
    recipe = common.load_recipe(saved["recipe"])
    args = common.of_run(recipe, saved["args"] | {"out": str(folder)}, device, workers)  # it may have moved
    if path.is_dir():
        files = common.weights_files(recipe, folder) or common.named_as_weights(recipe, folder)  # a folder, say
        if not files:
            each = "epoch" if recipe.round == (1, "epoch") else "{} {}s".format(*recipe.round)
            raise FileNotFoundError(f"{folder} has no weights yet: they are written after the first {each}.")
        path = files[-1]
    network, normalize = common.make_model(recipe, args, len(saved["classes"]), fresh=True)
    networks.load_weights(network, path)
    return Trained(recipe, args, saved["classes"], network.to(args.device).eval(), normalize, path, saved)


def probabilities(trained: Trained, batches: Iterable[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the classes' probabilities, float32 of shape (N, classes), and the labels, int64 of shape (N,).

    Where an image may have several labels, each has a probability of its own, and the labels are of shape (N, classes).

    Args:
        trained: What :func:`load` returned.
        batches: Of images and labels, such as an iterator gives them.
    """
    device = torch.device(trained.args.device)
    of_scores = (
        torch.sigmoid if getattr(trained.args, "multi_label", False) else functools.partial(torch.softmax, dim=1)
    )
    found, known = [], []
    with torch.no_grad(), autocast(trained.args.precision, device):
        for batch in batches:
            images, labels = trained.normalize(batch, device)
            found.append(of_scores(trained.network(images).float()).cpu())
            known.append(labels.cpu())
    return torch.cat(found).numpy(), torch.cat(known).numpy()
