"""What the recipes share: the command line, the training, and the folder of a run.

A recipe says where its data is, which network learns, and how: a :class:`Recipe`. :func:`main` does the rest.
"""

from __future__ import annotations

import argparse
import dataclasses
import errno
import functools
import importlib
import json
import logging
import math
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import extensions
import trainer.random
from extensions.own_run import own_run_first
from extensions.snapshot_files import load_first, snapshots_in
from recipes.parts.image_files import DECODER, BadImageError
from recipes.parts.parser import Parser, say, stop
from recipes.parts.transforms import Normalize, collate_images
from recipes.parts.tuning import WarmupCosine
from trainer import Classifier, StandardUpdater, Trainer, saving
from trainer.checks import at_least, log, logger
from trainer.iterators import BadSampleError, MultiprocessIterator
from trainer.iterators.serial import OrderSampler
from trainer.iterators.workers import LESS, WorkerError
from trainer.mistakes import as_device
from trainer.saving import check
from trainer.saving.files import make_folder, parse_json, read_bytes, refuse_other, remove_all, remove_scraps
from trainer.saving.lock import FolderInUseError, FolderLock
from trainer.saving.snapshots import read_tail
from trainer.saving.state import refuse_kind
from trainer.updaters.precision import DTYPES

Args = argparse.Namespace
Splits = dict[str, Any]  # data sets by name, of samples (uint8 tensor of shape (C, H, W), label)

SETTINGS = {"out": "result", "precision": "fp32", "on_bad_sample": "raise", "seed": 0}  # of every recipe
# What a resumed run keeps, beside what the recipe says: its state, or what it has learnt, would not fit another value.
FIXED = ("model", "pretrained", "scale", "image_size", "lr", "drop_last", "seed")
# What it may change, so that it is no longer the run that it would have been: it is warned of. So it is of batch size
# and precision, which iterator and updater know.
TOLD = ("deterministic", "on_bad_sample", "channels_last", "compile")
OF_MACHINE = ("cache", "device", "workers")  # what a run does not keep: it may go on elsewhere
OF_COMMAND = ("resume", "force", "overwrite", "download", "train", "test", "explain")  # what is done, not with what
MOST_PIXELS = 2**14  # of a side
SNAPSHOTS = "snapshot_{}"  # their names, whatever they count
# What stands in a run's folder beside snapshots and weights.
FILES = ("log", "log.old*", "args.json", "test.json", "bad_samples*.json", "evaluation_*.json", "confusion_*.png")
FILES += ("mistakes_*.png", "loss.png", "accuracy.png", "report.html")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """What tells one recipe from another.

    Args:
        name: Of its file.
        description: What ``--help`` begins with.
        settings: Its options' defaults, by name. An option that only some recipes have is there if it is among them.
        sample: The defaults that differ for the drawn data set; ``data`` is where that is drawn.
        source: How to come by the real data, for the one who has none.
        draw: Draws the sample into a folder, unless it is there.
        load: Returns the data sets ``train`` and ``test`` (and ``valid``, if it is not ``test`` that validates) and
            the names of the classes; its second argument is whether images to train on are augmented.
        reader: Returns what makes a sample's image of an image file, without augmentation.
        make_model: Returns the network for a number of classes and what makes its input of a batch; its third
            argument is whether it comes without any trained weights, as they will be loaded.
        make_optimizer: Returns the optimizer of a network.
        download: Fetches the real data into a folder; None if there is no such place.
        sample_by_default: Whether the sample is drawn where there is no data; else it is fetched, or refused.
        weights: Name of the files of weights.
        log: How often the log gets an entry.
        round: How often there is validation, curves, weights and a snapshot.
        fixed: Names of the recipe's own options that a resumed run keeps.
        add_options: Adds the recipe's own options.
        check: Refuses values out of range.
        test: Tests a file of weights by :func:`test` in its own way, and returns what that returned.
    """

    name: str
    description: str
    settings: dict[str, Any]
    sample: dict[str, Any]
    source: str
    draw: Callable[[Path], Path]
    load: Callable[[Args, bool], tuple[Splits, list[str]]]
    reader: Callable[[Args], Callable[[str], torch.Tensor]]
    make_model: Callable[[Args, int, bool], tuple[nn.Module, Normalize]]
    make_optimizer: Callable[[Args, nn.Module], torch.optim.Optimizer]
    download: Callable[[Path], None] | None = None
    sample_by_default: bool = False
    weights: str = "model_epoch-{.updater.epoch}"
    log: tuple[float, str] = (1, "epoch")
    round: tuple[int, str] = (1, "epoch")
    fixed: tuple[str, ...] = ()
    add_options: Callable[[Callable[..., None]], None] = lambda add: None
    check: Callable[[Args], None] = lambda args: None
    test: Callable[[Args, Splits, list[str], Path], dict[str, float]] | None = None


def recipe_names() -> list[str]:
    """Returns the names of the files in this folder that define a ``RECIPE``."""
    folder = Path(__file__).parent.parent
    return sorted(path.stem for path in folder.glob("*.py") if b"\nRECIPE = " in path.read_bytes())


def load_recipe(name: str) -> Recipe:
    """Returns the recipe of a file in this folder.

    Raises:
        ValueError: If there is none of that name.
    """
    if name not in recipe_names():
        raise ValueError(f"there is no recipe {name!r}; there are {', '.join(recipe_names())}.")
    recipe: Recipe = importlib.import_module(f"recipes.{name}").RECIPE
    return recipe


# -- the command line


def make_parser(recipe: Recipe) -> argparse.ArgumentParser:
    """Returns the command line. Every default is None, so that what was asked for can be told from what was not."""
    parser = Parser(description=recipe.description, formatter_class=argparse.RawDescriptionHelpFormatter)
    groups = {name: parser.add_argument_group(name) for name in ("data", "model", "training", "run")}
    settings, sample = SETTINGS | recipe.settings, recipe.sample

    def add(group: str, *names: str, **kwargs: Any) -> None:
        key = names[0].lstrip("-").replace("-", "_")
        if settings.get(key, False) is not False:
            drawn = f"; {sample[key]} for the drawn sample" if key in sample else ""
            kwargs["help"] += f" ({settings[key]}{drawn})"
        groups[group].add_argument(*names, default=None, **kwargs)

    def add_if_set(group: str, name: str, **kwargs: Any) -> None:
        if name[2:].replace("-", "_") in settings:
            add(group, name, **kwargs)

    add("data", "--data", metavar="DIR", help="folder of the data set")
    if recipe.download is not None:
        add("data", "--download", action="store_true", help="fetch the data set into --data first")
    add("data", "--sample", action="store_true", help="train on a small data set, which is drawn")
    add_if_set("data", "--scale", type=int, metavar="N", help="pixels of the shorter side")
    add_if_set("data", "--image-size", type=int, metavar="N", help="pixels of the square cut from the middle")
    add(
        "data",
        "--on-bad-sample",
        choices=("raise", "skip"),
        help="stop at an image that is broken, or take the next one of the order and list it in bad_samples.json",
    )
    add("data", "--workers", type=int, metavar="N", help="processes that load images (one for each CPU, up to 8)")

    add_if_set("model", "--model", metavar="NAME", help="any model of timm, or of recipes/parts/networks.py")
    add_if_set("model", "--pretrained", action="store_true", help="start from timm's weights, with their mean and std")

    add_if_set("training", "--epochs", type=int, metavar="N", help="passes over the images to train on")
    add_if_set("training", "--iterations", type=int, metavar="N", help="updates")
    add("training", "--batch-size", type=int, metavar="N", help="images in a batch")
    add_if_set(
        "training", "--drop-last", action="store_true", help="leave the last images of an epoch out that fill no batch"
    )
    add("training", "--lr", type=float, metavar="X", help="learning rate")
    rises = "the learning rate stays, or rises for a fifth of the run and then falls to 0 along half a cosine"
    add_if_set("training", "--schedule", choices=("constant", "cosine"), help=rises)
    add("training", "--device", help="such as cpu or cuda:1 (CUDA where there is one)")
    pays = "bf16 pays on GPUs of compute capability 8.0 or more and CPUs with AMX or avx512_bf16 (see lscpu), and is"
    pays += " slower on others, up to 14 times"
    add("training", "--precision", choices=tuple(DTYPES), help=f"fp32, or torch's autocast; {pays}")
    pays = "pays for large images, on the same processors, and most with bf16"
    add("training", "--channels-last", action="store_true", help=f"images and weights in that memory format; {pays}")
    add("training", "--compile", action="store_true", help="compile the network; the first iteration takes minutes")
    add(
        "training",
        "--deterministic",
        action="store_true",
        help="only algorithms that give the same bits each time, on CUDA too; slower",
    )
    decides = "decides the initial weights, the order and all that is drawn"
    add("training", "--seed", type=int, metavar="N", help=decides)

    add("run", "--out", metavar="DIR", help="folder of whatever the run writes")
    resumed = "go on from a snapshot, the newest good one in --out"
    add("run", "--resume", nargs="?", const="", metavar="FILE", help=resumed)
    add("run", "--force", action="store_true", help="resume although the data set has another length")
    add("run", "--overwrite", action="store_true", help="remove the run that is in --out")
    often = "an epoch" if recipe.round == (1, "epoch") else "every {} {}s".format(*recipe.round)
    add("run", "--snapshot-interval", type=int, metavar="N", help=f"iterations between snapshots (one {often})")
    recipe.add_options(add)
    return parser


def parse(recipe: Recipe, argv: list[str] | None = None) -> Args:
    """Returns the settled arguments of a command line."""
    return settle(recipe, make_parser(recipe).parse_args(argv))


def settle(recipe: Recipe, args: Args) -> Args:
    """Fills in what was not asked for: from the run that is resumed, else the recipe's settings or its sample's."""
    asked = {key: value for key, value in vars(args).items() if value is not None}
    saved = _saved_args(recipe, args)
    if args.resume == "" and saved and not snapshots_in(Path(saved["out"]), SNAPSHOTS):
        if found := weights_files(recipe, saved["out"]):
            raise ValueError(
                f"there is no snapshot in {saved['out']} to go on from, though there are weights such as"
                f" {found[-1].name}: start anew with --overwrite and not --resume, or take another --out."
            )
        del asked["resume"]
        args.resume, args.overwrite = None, True  # it was stopped before its first snapshot
        log(logging.WARNING, f"There is no snapshot in {saved['out']} yet: the run begins anew.")
    for key in _fixed(recipe, args):
        if key in asked and key in saved and asked[key] != saved[key]:
            raise ValueError(
                f"--{key.replace('_', '-')} cannot change on --resume: the run has {saved[key]}, not {asked[key]};"
                " leave it out, or start a new run."
            )
    chosen = saved | asked
    if "data" in asked:
        chosen["sample"] = asked.get("sample")
    elif recipe.sample_by_default and "data" not in chosen and not asked.get("download"):
        chosen["sample"] = asked.get("sample") or not Path(recipe.settings["data"]).exists()
    # What the args.json of a resumed run lacks came after that: its default changes nothing, the sample's might.
    settings = SETTINGS | recipe.settings | (recipe.sample if chosen.get("sample") and not saved else {})
    vars(args).update(settings | chosen)
    _use_this_machine(args)
    _check(args)
    recipe.check(args)
    return args


def of_run(recipe: Recipe, saved: dict[str, Any], device: str | None, workers: int | None) -> Args:
    """Returns the arguments of a run, to use its network here: the machine's are those of now."""
    args = make_parser(recipe).parse_args([])
    kept = {key: value for key, value in saved.items() if key not in (*OF_MACHINE, *OF_COMMAND)}
    vars(args).update(SETTINGS | recipe.settings | kept | {"device": device, "workers": workers})
    _use_this_machine(args)
    _check(args)
    return args


def _use_this_machine(args: Args) -> None:
    if args.workers is None:
        args.workers = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2, 8)
    if args.device is None:
        args.device = "cuda" if torch.cuda.is_available() else "cpu"


def _fixed(recipe: Recipe, args: Args) -> list[str]:
    return [key for key in (*FIXED, *recipe.fixed) if hasattr(args, key)]


def folder(args: Args) -> Path:
    """Returns where the run of a command line writes, before it is settled."""
    return Path(args.out) if args.out else _resumed(args)


def read_args(folder: str | Path) -> dict[str, Any]:
    """Returns what ``args.json`` of a run's folder holds: recipe, args, classes, splits (their lengths), versions.

    Raises:
        ValueError: If it is not such a file.
        OSError: If it cannot be read.
    """
    path = Path(folder) / "args.json"
    try:
        saved: dict[str, Any] = parse_json(read_bytes(path))
        like = {"recipe": "", "args": {}, "classes": [""], "splits": {...: 0}, "versions": {...: ""}}
        refuse_kind(like, saved, "it")
        if missing := [key for key in like if saved.get(key) is None]:
            raise ValueError(f"it has no {', '.join(missing)}")
        if not saved["classes"] or len(set(saved["classes"])) < len(saved["classes"]) or None in saved["classes"]:
            raise ValueError("its classes are not different names")
        check(saved)
        _check_args(saved["recipe"], saved["args"])
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be read ({str(error).rstrip('.')}): it is not what a recipe writes."
        ) from error
    return saved


def _check_args(name: str, args: dict[str, Any]) -> None:
    """Refuses values of ``args.json`` that the recipe's command line would not have taken."""
    if name not in recipe_names():
        return  # nothing will be made of them
    recipe = load_recipe(name)
    for action in make_parser(recipe)._actions:
        value, kind = args.get(action.dest), bool if action.const is True else action.type or str
        fits = type(value) is kind or (kind is float and type(value) is int)
        if value is None:
            fits = action.dest not in args or (SETTINGS | recipe.settings).get(action.dest) is None
        if not fits or (action.choices is not None and value is not None and value not in action.choices):
            raise ValueError(f"its args/{action.dest} is {str(value)[:40]!r}")


def _resumed(args: Args) -> Path:
    """Returns the folder of the run that is to be resumed."""
    return Path(args.resume).parent if args.resume else Path(args.out or SETTINGS["out"])


def _saved_args(recipe: Recipe, args: Args) -> dict[str, Any]:
    """Returns the arguments of the run that is to be resumed, but for those that belong to the machine."""
    folder = _resumed(args)
    if args.resume is None or not os.path.lexists(folder / "args.json"):
        if args.resume is not None and (read_tail(args.resume) if args.resume else snapshots_in(folder, SNAPSHOTS)):
            raise ValueError(
                f"{folder} has no args.json, which says how its run was made: put it back, or start a new run."
            )
        return {}
    saved = read_args(folder)
    if saved["recipe"] != recipe.name:
        raise ValueError(f"the run in {folder} is one of recipes/{saved['recipe']}.py: resume it with that.")
    warn_of_decoder(saved, folder)
    kept = {key: value for key, value in saved["args"].items() if key not in (*OF_MACHINE, *OF_COMMAND)}
    return kept | {"out": str(folder)}


def warn_of_decoder(saved: dict[str, Any], folder: str | Path) -> None:
    """Warns if the images of a run were decoded otherwise than they are now."""
    if (then := saved["versions"].get("decoder", "1")) != str(DECODER):
        log(
            logging.WARNING,
            f"The run in {folder} had its images decoded by version {then}, and this is version {DECODER}: some images"
            " have other pixels now; docs/recipes.md says which.",
        )


def _check(args: Args) -> None:
    """Refuses values out of range, before anything is written."""
    if args.force and args.resume is None:
        raise ValueError("--force goes with --resume.")
    if args.resume is not None and args.overwrite:
        raise ValueError("give --resume or --overwrite, not both: one goes on with the run in --out, one removes it.")
    for name in ("epochs", "iterations", "batch_size", "image_size", "scale", "snapshot_interval"):
        if (value := getattr(args, name, None)) is not None:
            at_least(f"--{name.replace('_', '-')}", value, 1, MOST_PIXELS if name in ("image_size", "scale") else None)
    for name in ("workers", "lr"):
        if not 0 <= getattr(args, name) < math.inf:
            raise ValueError(f"--{name} must be 0 or more, got {getattr(args, name)}.")
    if args.out == "" or (Path(args.out).exists() and not Path(args.out).is_dir()):
        raise ValueError(f"--out must name a folder, got {args.out!r}.")
    if hasattr(args, "scale") and args.scale < args.image_size:
        raise ValueError(f"--scale must not be smaller than --image-size, got {args.scale} < {args.image_size}.")
    try:
        as_device(args.device)
    except ValueError as error:
        raise ValueError(f"--{error}") from None


# -- data


def bring_data(recipe: Recipe, args: Args) -> None:
    """Draws or fetches the data set if that is to be done.

    Raises:
        OSError: If there is none, or it cannot be fetched; the message says what to do.
    """
    root, usual = Path(args.data), recipe.settings["data"]
    if args.sample:
        is_wanted = not recipe.sample_by_default or args.data != recipe.sample["data"] or Path(usual).exists()
        reason = "as asked by --sample" if is_wanted else f"no data at {usual}"
        other = [f"{key.replace('_', ' ')} {getattr(args, key)}" for key in recipe.sample if key != "data"]
        told = f" ({', '.join(other)})" if other else ""
        say(f"Pictures drawn into {root}{told}: {reason}; {recipe.source}.")
        try:
            recipe.draw(root)
        except KeyboardInterrupt:
            stop("interrupted: nothing is kept of the pictures, and the same command draws them anew.")
    elif recipe.download and (args.download or (args.data == usual and not root.exists())):
        say(f"Fetching the data set into {root}.")
        try:
            recipe.download(root)
        except FileExistsError:
            raise
        except KeyboardInterrupt:
            stop("interrupted: what came is kept, and the same command goes on from there.")
        except (OSError, RuntimeError) as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise OSError(
                f"the data set cannot be fetched into {root}: {reason}; give a folder that has it by --data, or draw a"
                " small data set in its place by --sample."
            ) from error
    elif not root.is_dir():
        raise FileNotFoundError(
            f"no data set at {root}: there is no such folder; {recipe.source}, and --sample draws one."
        )


@contextmanager
def unfinished(root: Path) -> Iterator[Path]:
    """Gives the ``with`` a folder of another name to fill, which becomes ``root`` when all went well.

    Of an earlier attempt it holds the archives (.gz) only: what was unpacked may be a part, and torchvision looks no
    further than whether it is there.

    Raises:
        FileExistsError: If ``root`` is there already.
    """
    if root.exists():
        raise FileExistsError(f"{root} is there already; remove it to fetch it again.")
    folder = root.with_name(f".{root.name}.unfinished")
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.rglob("*"), reverse=True):  # a folder after what is in it
        if not path.is_dir() and path.suffix != ".gz":
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    yield folder
    folder.rename(root)


def load(recipe: Recipe, args: Args, augment: bool) -> tuple[Splits, list[str]]:
    """Returns the recipe's data sets and classes.

    Raises:
        ValueError: If the data set is not what the recipe reads.
        OSError: If a part of it is missing.
    """
    try:
        return recipe.load(args, augment)
    except RuntimeError as error:  # torchvision's; its advice is an argument that is no option here
        raise FileNotFoundError(
            f"the data set in {args.data} is not whole: {recipe.source}, and --sample draws one."
        ) from error


def make_iterator(args: Args, dataset: Any, **kwargs: Any) -> MultiprocessIterator:
    """Returns an iterator over batches of uint8 images of shape (N, C, H, W) and labels of shape (N,)."""
    return MultiprocessIterator(
        dataset,
        args.batch_size,
        n_processes=args.workers,
        collate_fn=collate_images,
        on_bad_sample=args.on_bad_sample,
        **kwargs,
    )


def whole_batches(n: int, batch_size: int) -> OrderSampler:
    """Returns an order of ``n`` shuffled samples without the last ones, if they fill no batch: another few each epoch.

    PyTorch: ``DataLoader(shuffle=True, drop_last=True)``.
    """
    return lambda order, position: np.random.permutation(n)[: n - n % batch_size]


def check_classes(args: Args, classes: list[str]) -> None:
    """Refuses to resume a run on data of other classes: its labels would mean something else."""
    if args.resume is None:
        return
    where = _resumed(args)
    if (where / "args.json").is_file() and (known := read_args(where)["classes"]) != classes:
        other = ", ".join(sorted(set(known) ^ set(classes))[:10]) or "their order"
        raise ValueError(f"{args.data} has other classes than the run in {where} ({other}); start a new run.")


# -- the run


def make_model(recipe: Recipe, args: Args, n_classes: int, fresh: bool) -> tuple[nn.Module, Normalize]:
    """Returns the recipe's network and normalisation, in the memory format that was asked for."""
    network, normalize = recipe.make_model(args, n_classes, fresh)
    if args.channels_last:
        network.to(memory_format=torch.channels_last)
        normalize.memory_format = torch.channels_last
    return network, normalize


def check_fit(network: nn.Module, normalize: Normalize, dataset: Any) -> None:
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


def make_run(recipe: Recipe, args: Args, splits: Splits, classes: list[str]) -> Trainer:
    """Puts network, data and extensions together."""
    network, normalize = make_model(recipe, args, len(classes), fresh=args.resume is not None)
    check_fit(network, normalize, splits["train"])
    optimizer = recipe.make_optimizer(args, network)
    model = Classifier(network)
    if args.compile:
        network.compile()
    order = whole_batches(len(splits["train"]), args.batch_size) if getattr(args, "drop_last", False) else None
    train_iter = make_iterator(args, splits["train"], order_sampler=order)
    valid_iter = make_iterator(args, splits.get("valid", splits["test"]), repeat=False, shuffle=False)
    updater = StandardUpdater(
        train_iter, optimizer, model=model, device=args.device, converter=normalize, precision=args.precision
    )

    stop = (args.epochs, "epoch") if "epochs" in args else (args.iterations, "iteration")
    run = Trainer(updater, stop, out=args.out)
    run.args = {key: getattr(args, key) for key in (*_fixed(recipe, args), *TOLD)}
    add_extensions(recipe, args, run, extensions.Evaluator(valid_iter, model, normalize, precision=args.precision))
    if getattr(args, "schedule", "constant") == "cosine":
        total = math.ceil(args.epochs * len(splits["train"]) / args.batch_size)
        run.extend(WarmupCosine(optimizer, total // 5, total))
    if args.resume is not None:
        resume(run, args.resume, bool(args.force))
    return run


def add_extensions(recipe: Recipe, args: Args, run: Trainer, evaluator: extensions.Evaluator) -> None:
    """Adds to a run what every recipe has: validation, log, curves, snapshots and weights."""
    is_adam = isinstance(run.updater.get_optimizer("main"), torch.optim.Adam)
    run.extend(extensions.observe_lr(bias_corrected=is_adam), trigger=(1, "iteration"))
    run.extend(evaluator, trigger=recipe.round)
    run.extend(extensions.LogReport(trigger=recipe.log))
    position = "epoch" if recipe.log == (1, "epoch") else "iteration"  # not both: a row has 99 columns, the log has all
    columns = [position, "lr", "main/loss", "main/accuracy", "validation/main/loss", "validation/main/accuracy"]
    run.extend(extensions.PrintReport(columns), trigger=recipe.log)
    run.extend(extensions.ProgressBar(update_interval=1))
    for quantity in ("loss", "accuracy"):
        keys = [f"main/{quantity}", f"validation/main/{quantity}"]
        run.extend(extensions.PlotReport(keys, recipe.round[1], recipe.round, filename=f"{quantity}.png"))
    every = (args.snapshot_interval, "iteration") if args.snapshot_interval else recipe.round
    named = {"filename": "snapshot_epoch-{.updater.epoch}"} if every[1] == "epoch" else {}
    run.extend(extensions.snapshot(n_retains=2, **named), trigger=every)
    weights = extensions.snapshot_object(run.updater.get_model("main").predictor, recipe.weights)
    run.extend(weights, trigger=recipe.round)
    command = f"python recipes/{recipe.name}.py --resume --out {shlex.quote(str(args.out))}"
    run.extend(extensions.StopOnSignal(advice=f"{command} goes on."))


def resume(run: Trainer, path: str, force: bool) -> None:
    """Loads a snapshot, or the newest good one in the run's folder."""
    if path:
        run.resume(path, force=force)
    else:
        paths = snapshots_in(Path(run.out), SNAPSHOTS, functools.partial(own_run_first, run))
        read = functools.partial(run.resume, strict=True, force=force)
        if load_first(paths, read, lambda told: log(logging.WARNING, f"passed over: {told}")) is None:
            raise ValueError(f"there is no good snapshot in {run.out}: start anew, with --overwrite and not --resume.")


def test(recipe: Recipe, args: Args, dataset: Any, classes: list[str], weights: Path) -> dict[str, float]:
    """Evaluates a fresh network, loaded from the weights file, and writes ``test.json``."""
    network, normalize = make_model(recipe, args, len(classes), fresh=True)
    network.load_state_dict(saving.load_weights(weights))
    iterator = make_iterator(args, dataset, repeat=False, shuffle=False)
    iterator.bad_samples_file = Path(args.out) / "bad_samples_test.json"
    model = Classifier(network).to(args.device)
    evaluator = extensions.Evaluator(iterator, model, normalize, precision=args.precision)
    result = evaluator() | {"n": len(dataset)}
    evaluator.finalize()
    say(f"Test accuracy: {result['main/accuracy']:.4f}")
    write_json(Path(args.out) / "test.json", result)
    return result


def in_options(error: WorkerError, then: str = "then try again") -> str:
    """Returns an error of the processes that load data, in the words of the command line."""
    text = str(error).replace(LESS, "take fewer --workers or a smaller --batch-size")
    text = text.replace("(n_processes=0, num_workers=0)", "(--workers 0)")
    return text.replace("then resume from the last snapshot", then)


def main(recipe: Recipe, argv: list[str] | None = None) -> dict[str, float]:
    """Trains and tests; returns what ``test.json`` holds."""
    logging.basicConfig(format="%(message)s")  # to stderr, unless it is configured already
    logger.setLevel(logging.INFO)
    parser = make_parser(recipe)
    args = parser.parse_args(argv)
    with ExitStack() as stack:
        try:
            settle(recipe, args)
            if args.deterministic:
                os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA is first used
                torch.use_deterministic_algorithms(True)
            trainer.random.set_seed(args.seed)
            make_folder(args.out)
            lock = FolderLock(args.out)  # already here: files may be removed before the run starts
            stack.callback(lock.release)
            if lock.is_first:
                remove_scraps(args.out)
            old = old_files(recipe, args)
            bring_data(recipe, args)
            splits, classes = load(recipe, args, True)
            check_classes(args, classes)
            if args.batch_size > len(splits["train"]):
                raise ValueError(
                    f"--batch-size {args.batch_size} is more than the {len(splits['train'])} training images."
                )
            run = make_run(recipe, args, splits, classes)
            remove_all(old)  # only now: nothing is lost to a mistyped option
            write_args(recipe, args, splits, classes)
        except (OSError, ValueError, RuntimeError) as error:
            told = str(error).replace("trainer.resume(path, force=True)", "--force")
            parser.error(told.replace("device='cpu'", "--device cpu"))
        goes_on = f"--resume --out {shlex.quote(args.out)} goes on"
        try:
            try:
                run.run(show_loop_exception_msg=False)
            finally:
                with suppress(FolderInUseError):  # which is raised below, unless the run raises it
                    try:
                        lock.keep()
                        if not os.path.lexists(Path(args.out) / "args.json"):  # the folder was removed
                            write_args(recipe, args, splits, classes)
                    except OSError as error:
                        log(logging.WARNING, f"args.json is gone and cannot be written: {error}.")
            lock.keep()
            weights = Path(args.out) / recipe.weights.format(run)
            # A run that was resumed at its end, from another folder, or that ends between two rounds has none yet.
            saving.save_weights(run.updater.get_model("main").predictor.state_dict(), weights)
            if recipe.test is not None:
                return recipe.test(args, splits, classes, weights)
            return test(recipe, args, splits["test"], classes, weights)
        except BadSampleError as error:
            if not isinstance(error.__cause__, BadImageError):
                raise
            stop(f"{parser.prog}: error: {error.__cause__}")
        except WorkerError as error:
            stop(f"{parser.prog}: error: {in_options(error, f'then {goes_on}')}")
        except FolderInUseError as error:  # the folder was replaced
            stop(f"{parser.prog}: error: {error}")
        except OSError as error:
            if error.filename is None:
                raise
            remedy = "with more space" if error.errno == errno.ENOSPC else "when that is mended"
            stop(f"{parser.prog}: error: {error}; {remedy} {goes_on}.")
        except KeyboardInterrupt:
            iteration = run.updater.iteration
            stop(f"{parser.prog}: interrupted at iteration {iteration}; {goes_on} from the last snapshot.")


# -- the folder


def weights_files(recipe: Recipe, out: str | Path) -> list[Path]:
    """Returns the files of weights in a run's folder, the last epoch's last."""
    return [path for path in named_as_weights(recipe, out) if path.is_file()]


def named_as_weights(recipe: Recipe, out: str | Path) -> list[Path]:
    """Returns whatever is called as weights are, in the same order."""
    name = re.compile(re.sub(r"\\\{.*?\\\}", r"(\\d+)", re.escape(recipe.weights)))
    found = [(match.groups(), path) for path in Path(out).glob("*") if (match := name.fullmatch(path.name))]
    return [path for _, path in sorted(found, key=lambda item: [int(number) for number in item[0]])]


def old_files(recipe: Recipe, args: Args) -> list[Path]:
    """Returns what is to be removed of the run in the folder, and refuses if that was not asked for."""
    out = Path(args.out)
    old = [*sorted(snapshots_in(out, SNAPSHOTS)), *named_as_weights(recipe, out)]
    others = [path for name in FILES for path in out.glob(name)]
    for path in (*old, *others):
        refuse_other(path)
    if args.resume is not None:
        return []
    if args.overwrite:
        return [*old, *others]
    if old:
        raise ValueError(
            f"{out} holds the files of a run, such as {old[0].name}: go on with --resume, take another --out,"
            " or remove that run with --overwrite."
        )
    return []


def write_args(recipe: Recipe, args: Args, splits: Splits, classes: list[str]) -> None:
    """Writes what the run was asked for, and with which versions."""
    packages = ("torch", "torchvision", "timm", "numpy", "pillow", "simplejpeg")
    versions: dict[str, Any] = {package: metadata.version(package) for package in packages}
    versions |= {"python": sys.version.split()[0], "decoder": str(DECODER)}
    kept = {key: value for key, value in vars(args).items() if key not in OF_COMMAND}
    kept["data"] = str(Path(args.data).resolve())  # a resume may come from another folder
    lengths = {name: len(split) for name, split in splits.items()}
    told = {"recipe": recipe.name, "args": kept, "classes": classes, "splits": lengths, "versions": versions}
    write_json(Path(args.out) / "args.json", told)


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file, whole or not at all."""
    saving.write(path, lambda file: file.write(json.dumps(value, indent=4).encode()))
