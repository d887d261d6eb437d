"""A trained network, as the folder of its run describes it."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
import sys
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from recipes.parts import networks, run_folder, settling
from recipes.parts.tool_options import RECIPES, recipe_names
from recipes.parts.transforms import Normalize
from trainer.checks import log
from trainer.updaters.precision import autocast


class Trained(NamedTuple):
    """A network, with its run's ``args`` and ``args.json`` (``saved``), and the file of its ``weights``."""

    recipe: ModuleType
    args: Namespace
    classes: list[str]
    network: nn.Module
    normalize: Normalize
    weights: Path
    saved: dict[str, Any]


NEEDED = ("OPTIONS", "load", "reader", "make_model")  # of a recipe, to rebuild what it has trained


def find_recipe(name: str, needed: tuple[str, ...] = NEEDED) -> ModuleType:
    """Returns a recipe of ours by its name, or any other by the path that the user typed.

    Args:
        name: The name or the path.
        needed: The names that the recipe must define.

    Raises:
        ValueError: If we have no recipe of that name, or the file is not a recipe.
        FileNotFoundError: If there is no such file.
    """
    if not name.endswith(".py"):
        if name not in recipe_names():
            raise ValueError(
                f"there is no recipe {name!r}; there are {', '.join(recipe_names())}, or give the path of a file (.py)."
            )
        return importlib.import_module(f"recipes.{name}")
    path = Path(name).resolve()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {name}: give the path of a recipe.")
    if path.parent == RECIPES and path.stem in recipe_names():
        return importlib.import_module(f"recipes.{path.stem}")
    found = sys.modules.get(path.stem)
    other = importlib.util.find_spec(path.stem) if found is None and path.stem.isidentifier() else None
    if found is None and (other is None or Path(other.origin or "").resolve() == path):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        found = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
        sys.path.append(str(path.parent))  # where processes that load data find it
        try:
            spec.loader.exec_module(found)
        except BaseException:
            del sys.modules[path.stem]
            raise
    if found is None or Path(getattr(found, "__file__", None) or "").resolve() != path:
        raise ValueError(f"{name} has the name of another module, {path.stem}: rename the file.")
    if missing := [part for part in needed if not hasattr(found, part)]:
        raise ValueError(f"{name} is not a recipe: it has no {', '.join(missing)}; docs/recipes.md shows one.")
    return found


def recipe_of(saved: dict[str, Any], folder: str | Path, typed: str | None = None) -> ModuleType:
    """Returns the recipe of a run: one of ours, or the file that the user typed.

    A run's folder may come from a stranger, so it never leads to any other code.

    Raises:
        ValueError: If the run is of another recipe, or of one that is not ours and was not typed.
    """
    if typed is None:
        if "sha256" in saved or saved["recipe"] not in recipe_names():
            raise ValueError(
                f"the run in {folder} is of a recipe that is not one of ours, {saved['recipe']}: if you trust its file,"
                " name it by --recipe FILE."
            )
        return find_recipe(saved["recipe"])
    recipe = find_recipe(typed)
    if recipe.OPTIONS.name != saved["recipe"]:
        raise ValueError(f"the run in {folder} is of {saved['recipe']}, not of {typed}.")
    if saved.get("sha256") not in (None, run_folder.hash_of(recipe.OPTIONS.file)):
        log(logging.WARNING, f"{typed} has changed since the run in {folder}; its network may differ.")
    return recipe


def load(path: str | Path, device: str | None = None, workers: int | None = None, recipe: str | None = None) -> Trained:
    """Returns the network of a file of weights in a run's folder, or of the last weights of a folder.

    Args:
        path: The file or the folder.
        device: Where the network goes: CUDA by default, where there is one.
        workers: Processes that load images; one for each CPU, up to 8, by default.
        recipe: Path of the recipe's file, if it is not one of ours.

    Raises:
        OSError: If there is no such file.
        ValueError: If it is not such a file, or the weights are of another network.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}: name a run's folder, or a file of weights in one.")
    if not (folder / "args.json").is_file():
        raise FileNotFoundError(f"{folder} is not a run's folder: it has no args.json with network and classes.")
    module = recipe_of(run_folder.read_args(folder), folder, recipe)
    options = module.OPTIONS
    saved = run_folder.read_args(folder, options)
    run_folder.warn_of_decoder(saved, folder)
    args = settling.of_run(options, saved["args"] | {"out": str(folder)}, device, workers)  # it may have moved
    if path.is_dir():
        files = run_folder.weights_files(options.weights, folder)
        files = [file for file in files if file.is_file()] or files  # a folder, say
        if not files:
            raise FileNotFoundError(f"{folder} has no weights yet: they are written with its first validation.")
        path = files[-1]
    network, normalize = module.make_model(args, len(saved["classes"]), fresh=True)
    networks.as_asked(args, network, normalize)
    networks.load_weights(network, path)
    return Trained(module, args, saved["classes"], network.to(args.device).eval(), normalize, path, saved)


def probabilities(trained: Trained, batches: Iterable[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the classes' probabilities, float32 of shape (N, classes), and the labels, int64 of shape (N,).

    Where an image may have several labels, each has a probability of its own, and the labels are of shape (N, classes).

    Args:
        trained: What :func:`load` returned.
        batches: Of images and labels, such as an iterator gives them.

    Raises:
        ValueError: If the device has too little memory.
    """
    device = torch.device(trained.args.device)
    multi_label = getattr(trained.args, "multi_label", False)
    of_scores = torch.sigmoid if multi_label else functools.partial(torch.softmax, dim=1)
    found, known = [], []
    with torch.no_grad(), autocast(trained.args.precision, device):
        for batch in batches:
            try:
                images, labels = trained.normalize(batch, device)
                found.append(of_scores(trained.network(images).float()).cpu())
            except torch.OutOfMemoryError as error:
                reason = str(error).splitlines()[0].rstrip(".")
                raise ValueError(f"{reason}; take a smaller --batch-size, or --device cpu.") from error
            known.append(labels.cpu())
    return torch.cat(found).numpy(), torch.cat(known).numpy()
