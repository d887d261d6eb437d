"""Trains an image classifier on Stanford Online Products: which of 12 kinds of product is on the photograph?

    python recipes/resnet_products.py

It follows the ChainerCV tutorial: ResNet50 from random weights, shorter side scaled to 256, the middle 224 cropped,
the mean subtracted; Adam, batches of 64, 10 epochs; then the accuracy on the first 30% of the test list. Without the
photographs it draws a small data set of the same layout and trains on that, in a few minutes on two cores.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import json
import os
import sys
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn
from torch.utils.data import Subset

import extensions
import trainer.random
from recipes import transforms
from recipes.drawn import products as drawn_products
from recipes.online_products import SUPER_LABEL_NAMES, URL, BadImageError, OnlineProductsDataset, download
from recipes.transforms import ScaleAndCrop, collate_images
from trainer import Classifier, StandardUpdater, Trainer, checkpoint, concat_examples
from trainer.cache import CachedDataset, describe_files
from trainer.checkpoint import SnapshotError
from trainer.datasets import TransformDataset, split_dataset, split_dataset_random
from trainer.iterators import BadSampleError, MultiprocessIterator
from trainer.lock import FolderLock
from trainer.precision import DTYPES

DATA = Path("data/Stanford_Online_Products")
DRAWN = Path("data/drawn_products")
CHAINERCV_MEAN = (
    123.15163084,
    115.90288257,
    103.0626238,
)  # of ImageNet, RGB in 0..255; nothing is divided by

TUTORIAL: dict[str, Any] = {
    "data": str(DATA),
    "out": "result",
    "model": "resnet50",
    "epochs": 10,
    "batch_size": 64,
    "lr": 0.001,  # Adam's own default
    "image_size": 224,
    "scale": 256,
    "split": "random",
    "test_fraction": 0.3,
    "precision": "fp32",
    "on_bad_sample": "raise",
    "freeze": "none",
    "trunk_lr_scale": 1.0,
    "seed": 0,
}
# About 12,000 small images through the network: what two cores do in a few minutes. Many pictures and few epochs,
# because drawing is cheap and variety prevents over-fitting; the lower rate makes the last epoch steadier.
SAMPLE: dict[str, Any] = {"epochs": 4, "batch_size": 32, "lr": 0.0007, "image_size": 48, "scale": 48}


# What a resumed run keeps: its state, or what it has learnt, would not fit another value.
FIXED = ("model", "pretrained", "weights", "freeze", "lr", "trunk_lr_scale", "split", "seed")
FIXED += ("scale", "image_size", "reduced_decoding", "fused")
# What it may change, so that it is no longer the run that it would have been: it is warned of. So it is of batch size
# and precision, which iterator and updater know.
TOLD = ("deterministic", "on_bad_sample", "channels_last", "compile")


def make_parser() -> argparse.ArgumentParser:
    """Returns the command line. Every default is None, so that what was asked for can be told from what was not."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, argument_default=None
    )

    def add(group: Any, *names: str, **kwargs: Any) -> None:
        key = names[0].lstrip("-").replace("-", "_")
        if key in TUTORIAL:
            kwargs["help"] += f" ({TUTORIAL[key]}"
            kwargs["help"] += f"; {SAMPLE[key]} for the drawn sample)" if key in SAMPLE else ")"
        group.add_argument(*names, **kwargs)

    data = parser.add_argument_group("data")
    add(data, "--data", metavar="DIR", help="folder with Ebay_train.txt and Ebay_test.txt")
    add(data, "--download", action="store_true", help="fetch the photographs (2.9 GB) into --data first")
    add(data, "--sample", action="store_true", help=f"train on pictures drawn into {DRAWN}")
    add(
        data,
        "--split",
        choices=("random", "tutorial"),
        help="80/20 into train and valid, at random or by the list",
    )
    add(data, "--test-fraction", type=float, metavar="F", help="the first part of the test list to test on")
    add(data, "--scale", type=int, metavar="N", help="pixels of the shorter side")
    add(data, "--image-size", type=int, metavar="N", help="pixels of the square cut from the middle")
    add(
        data,
        "--on-bad-sample",
        choices=("raise", "skip"),
        help="stop at an image that is broken, or take the next one of the order and list it in bad_samples.json",
    )
    add(data, "--reduced-decoding", action="store_true", help="decode large JPEGs at 1/2, 1/4 or 1/8: other pixels")
    add(data, "--cache", metavar="DIR", help="keep the scaled training images in a file there (150 KB each of 224)")
    add(data, "--workers", type=int, metavar="N", help="processes that load images (one for each CPU, up to 8)")

    model = parser.add_argument_group("model")
    add(model, "--model", metavar="NAME", help="any model of timm")
    add(model, "--pretrained", action="store_true", help="start from timm's weights, with their mean and std")
    add(
        model,
        "--weights",
        metavar="FILE",
        help="start from a state_dict file; a head of another size is replaced",
    )
    add(
        model,
        "--freeze",
        choices=("none", "stem", "trunk"),
        help="keep the first layers, or all but the head, as they are",
    )
    add(
        model,
        "--trunk-lr-scale",
        type=float,
        metavar="X",
        help="learning rate of all but the head, times this",
    )

    training = parser.add_argument_group("training")
    add(training, "--epochs", type=int, metavar="N", help="passes over the training part")
    add(training, "--batch-size", type=int, metavar="N", help="images in a batch")
    add(training, "--lr", type=float, metavar="X", help="Adam's learning rate")
    add(training, "--device", help="such as cpu or cuda:1 (CUDA where there is one)")
    add(training, "--precision", choices=tuple(DTYPES), help="fp32, or torch's autocast")
    add(training, "--channels-last", action="store_true", help="keep images and weights in that memory format")
    add(training, "--fused", action="store_true", help="let Adam update all weights in one kernel")
    add(training, "--compile", action="store_true", help="compile the network; the first iteration takes minutes")
    add(
        training,
        "--deterministic",
        action="store_true",
        help="only algorithms that give the same bits each time, on CUDA too; slower",
    )
    add(training, "--seed", type=int, metavar="N", help="decides the initial weights, the split and the order")

    run = parser.add_argument_group("run")
    add(run, "--out", metavar="DIR", help="folder of whatever the run writes")
    add(
        run,
        "--resume",
        nargs="?",
        const="",
        metavar="FILE",
        help="go on from a snapshot, the newest good one in --out",
    )
    add(run, "--force", action="store_true", help="resume although the data set has another length")
    add(run, "--overwrite", action="store_true", help="remove the run that is in --out")
    add(run, "--snapshot-interval", type=int, metavar="N", help="iterations between snapshots (one an epoch)")
    for action in parser._actions:
        if isinstance(action, argparse._StoreTrueAction):
            action.default = None
    return parser


def settle(args: argparse.Namespace) -> argparse.Namespace:
    """Fills in what was not asked for: from the run that is resumed, else the tutorial's or the sample's settings."""
    asked = {key: value for key, value in vars(args).items() if value is not None}
    saved = saved_args(args)
    if args.resume == "" and saved and not snapshots(saved["out"]):
        del asked["resume"]
        args.resume = None  # it was stopped before its first snapshot
        print(f"There is no snapshot in {saved['out']} yet: the run begins anew.", flush=True)
    for key in FIXED:
        if key in asked and key in saved and asked[key] != saved[key]:
            raise ValueError(
                f"--{key.replace('_', '-')} cannot change on --resume: the run has {saved[key]}, not {asked[key]};"
                " leave it out, or start a new run, with --weights and a model_epoch file of this one."
            )
    chosen = saved | asked
    if "data" in asked:
        chosen["sample"] = asked.get("sample")
    elif "data" not in chosen and not args.download and not DATA.exists():
        chosen["sample"] = True
    vars(args).update(TUTORIAL | (SAMPLE if chosen.get("sample") else {}) | chosen)
    if args.workers is None:
        args.workers = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2, 8)
    if args.device is None:
        args.device = "cuda" if torch.cuda.is_available() else "cpu"
    check(args)
    return args


def saved_args(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the arguments of the run that is to be resumed, but for those that belong to the machine."""
    if args.resume is None:
        return {}
    folder = Path(args.resume).parent if args.resume else Path(args.out or TUTORIAL["out"])
    path = folder / "args.json"
    if not path.is_file():
        return {}
    try:
        saved = json.loads(path.read_text())["args"]
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path} cannot be read ({error}); remove it, and give the run's arguments again.") from error
    of_machine = ("cache", "device", "workers")
    return {key: value for key, value in saved.items() if key not in of_machine} | {"out": str(folder)}


def check(args: argparse.Namespace) -> None:
    """Refuses values out of range, before anything is written."""
    if args.force and args.resume is None:
        raise ValueError("--force goes with --resume.")
    if args.resume is not None and args.overwrite:
        raise ValueError("give --resume or --overwrite, not both: one goes on with the run in --out, one removes it.")
    for name in ("epochs", "batch_size", "image_size", "scale", "snapshot_interval"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be 1 or more, got {value}.")
    for name in ("workers", "lr", "trunk_lr_scale"):
        if not getattr(args, name) >= 0:
            raise ValueError(f"--{name.replace('_', '-')} must be 0 or more, got {getattr(args, name)}.")
    if args.cache == "":
        raise ValueError("--cache must name a folder, got ''; is the variable that holds it set?")
    if not 0 < args.test_fraction <= 1:
        raise ValueError(f"--test-fraction must be above 0 and at most 1, got {args.test_fraction}.")
    if args.scale < args.image_size:
        raise ValueError(f"--scale must not be smaller than --image-size, got {args.scale} < {args.image_size}.")
    if torch.device(args.device).type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"--device {args.device}: torch sees no CUDA device here; use --device cpu.")


# -- data


def load_splits(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the data sets train, valid and test, of samples (uint8 tensor of shape (3, size, size), kind)."""
    root = Path(args.data)
    if args.download:
        download(root)
    if args.sample:
        root = drawn_products.write(DRAWN, seed=0)
    read = ScaleAndCrop(args.scale, args.image_size, bool(args.reduced_decoding)).read
    train, test = (TransformDataset(OnlineProductsDataset(root, name, read=read), _kind) for name in ("train", "test"))
    if args.cache is not None:
        train = cached(args, train)
    first = int(len(train) * 0.8)
    if args.split == "tutorial":
        train, valid = split_dataset(train, first)  # the list is sorted: the last kinds are in valid only
    else:
        train, valid = split_dataset_random(train, first, args.seed % 2**32)
    return {"train": train, "valid": valid, "test": test}


def cached(args: argparse.Namespace, dataset: Any) -> CachedDataset:
    """Returns a data set whose pixels are kept in a file, which is named by all that decides them."""
    images = dataset.dataset
    packages = ("pillow", "simplejpeg", "torch")
    key = {
        "files": describe_files([images.list_file.name, *images.paths], images.root),  # the list: labels are kept too
        "scale": args.scale,
        "image_size": args.image_size,
        "reduced_decoding": bool(args.reduced_decoding),
        "code": hashlib.sha256(Path(transforms.__file__).read_bytes()).hexdigest()[:16],
        "versions": {package: metadata.version(package) for package in packages},
    }
    return CachedDataset(dataset, Path(args.cache) / "train", key)


def check_sizes(args: argparse.Namespace, data: dict[str, Any]) -> None:
    """Refuses what the data set is too small for, before it has been trained on."""
    if args.batch_size > len(data["train"]):
        raise ValueError(f"--batch-size {args.batch_size} is more than the {len(data['train'])} training images.")
    if int(len(data["test"]) * args.test_fraction) == 0:
        raise ValueError(f"--test-fraction {args.test_fraction} of {len(data['test'])} test images leaves none.")


def announce_sample(args: argparse.Namespace) -> None:
    """Says that the pictures are drawn, how they are trained on, and how to get the real ones."""
    reason = "as asked by --sample" if DATA.exists() else f"no photographs at {DATA}"
    print(
        f"Training on pictures drawn into {DRAWN} ({args.image_size}x{args.image_size}, batch {args.batch_size},"
        f" {args.epochs} epochs, Adam {args.lr:g}): {reason}; the real ones come by --download (2.9 GB), or unpack"
        f" {URL} there.",
        flush=True,
    )


def _kind(sample: tuple[Any, int, int]) -> tuple[Any, int]:
    image, _, super_label = sample
    return image, super_label


class Normalize:
    """Moves a batch to the device and there makes floats of its pixels: ``(pixels - mean) / std``, for 0..255."""

    def __init__(self, mean: Any, std: Any, memory_format: torch.memory_format = torch.contiguous_format) -> None:
        self.mean = torch.tensor(mean).view(3, 1, 1)
        self.std = torch.tensor(std).view(3, 1, 1)
        self.memory_format = memory_format

    def __call__(self, batch: Any, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns float pixels of shape (N, 3, size, size) and labels of shape (N,)."""
        pixels, labels = concat_examples(batch, device)
        self.mean, self.std = self.mean.to(device), self.std.to(device)
        return (pixels.to(torch.float32, memory_format=self.memory_format) - self.mean) / self.std, labels


# -- model


def make_model(args: argparse.Namespace, fresh: bool = False) -> tuple[nn.Module, Normalize]:
    """Returns the network and the normalisation that goes with it; ``fresh``: without any trained weights."""
    if not timm.is_model(args.model):
        near = difflib.get_close_matches(args.model, timm.list_models(), 5, 0.5)
        raise ValueError(
            f"timm has no model {args.model!r}{', but ' + ', '.join(near) if near else ''};"
            ' python -c "import timm; print(timm.list_models())" lists all.'
        )
    pretrained = bool(args.pretrained and not args.weights and not fresh)
    model = timm.create_model(args.model, pretrained=pretrained, num_classes=len(SUPER_LABEL_NAMES))
    if args.weights and not fresh:
        load_weights(model, args.weights)
    if args.pretrained:
        config = model.pretrained_cfg
        mean, std = ([255 * value for value in config[key]] for key in ("mean", "std"))
    else:
        mean, std = list(CHAINERCV_MEAN), [1.0, 1.0, 1.0]
    memory_format = torch.channels_last if args.channels_last else torch.contiguous_format
    return model.to(memory_format=memory_format), Normalize(mean, std, memory_format)


def load_weights(model: nn.Module, path: str) -> None:
    """Loads a state_dict file; the head is left as it is, and that is said, where it has another size."""
    weights = checkpoint.load_weights(path)
    if "updater" in weights:
        raise ValueError(f"{path} is the snapshot of a run; give the weights beside it, a model_epoch file.")
    if other := [str(key) for key, value in weights.items() if not isinstance(value, torch.Tensor)]:
        raise ValueError(f"{path} is no file of weights: {', '.join(other[:5])} is no tensor; give a state_dict.")
    mine, head = model.state_dict(), _head_names(model)
    other = [key for key in weights if key in mine and weights[key].shape != mine[key].shape]
    replaced = [key for key in other if any(key.startswith(name + ".") for name in head)]
    if replaced:
        print(f"{path}: its head ({', '.join(replaced)}) is of another size and is replaced by a new one.")
    for key in replaced:
        weights[key] = mine[key]
    wrong = {
        "missing": sorted(mine.keys() - weights.keys()),
        "unexpected": sorted(weights.keys() - mine.keys()),
        "of another size": [key for key in other if key not in replaced],
    }
    if any(wrong.values()):
        told = "; ".join(
            f"{what}: {', '.join(keys[:5])}{' ...' * (len(keys) > 5)}" for what, keys in wrong.items() if keys
        )
        raise ValueError(f"{path} does not fit the model ({told}); choose the --model it was saved from.")
    model.load_state_dict(weights)


def _head_names(model: nn.Module) -> list[str]:
    names = model.pretrained_cfg["classifier"]
    return [names] if isinstance(names, str) else list(names)


def freeze(model: nn.Module, what: str) -> None:
    """Freezes the stem or everything but the head: no gradients, and batch norms keep their statistics."""
    if what == "none":
        return
    head = _head_names(model)
    if what == "trunk":
        frozen = [name for name, _ in model.named_parameters() if not name.startswith(tuple(h + "." for h in head))]
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


def make_optimizer(
    model: nn.Module, lr: float, trunk_lr_scale: float, fused: bool | None = None
) -> torch.optim.Optimizer:
    """Returns Adam; with a scale, the head at ``lr`` and the rest at ``lr * trunk_lr_scale``."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if trunk_lr_scale == 1:
        return torch.optim.Adam(trained.values(), lr=lr, fused=fused)
    heads = tuple(name + "." for name in _head_names(model))
    head = [p for name, p in trained.items() if name.startswith(heads)]
    trunk = [p for name, p in trained.items() if not name.startswith(heads)]
    groups = [
        {"params": head, "lr": lr},
        {"params": trunk, "lr": lr * trunk_lr_scale},
    ]  # the log shows the first's
    return torch.optim.Adam([group for group in groups if group["params"]], lr=lr, fused=fused)


# -- the run


def snapshots(out: str | Path) -> list[Path]:
    """Returns the snapshots in a folder: first what has lost its tail, then the whole ones, the newest first."""
    whole = [file.path for file in checkpoint.find(out)]
    return [*sorted(set(Path(out).glob("snapshot_*")) - set(whole)), *whole]


def old_files(args: argparse.Namespace) -> list[Path]:
    """Returns what is to be removed of the run in the folder, and refuses if that was not asked for."""
    out = Path(args.out)
    old = sorted(snapshots(out))
    if args.resume is not None or not old:
        return []
    if not args.overwrite:
        raise ValueError(
            f"{out} holds the snapshots of a run, such as {old[0].name}: go on with --resume, take another --out,"
            " or remove that run with --overwrite."
        )
    names = ("model_epoch-*", "bad_samples*.json", "log", "log.old*", "args.json", "test.json")
    return [*old, *(path for name in names for path in out.glob(name))]


def write_args(args: argparse.Namespace) -> None:
    """Writes what the run was asked for, and with which versions."""
    versions = {"torch": torch.__version__, "timm": timm.__version__, "python": sys.version.split()[0]}
    kept = {key: value for key, value in vars(args).items() if key not in ("resume", "force", "overwrite", "download")}
    kept["data"] = str(Path(args.data).resolve())  # a resume may come from another folder
    write_json(Path(args.out) / "args.json", {"args": kept, "classes": SUPER_LABEL_NAMES, "versions": versions})


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file, whole or not at all."""
    checkpoint.write(path, lambda file: file.write(json.dumps(value, indent=4).encode()))


def resume(run: Trainer, path: str, force: bool) -> None:
    """Loads a snapshot, or the newest good one in the run's folder."""
    if path:
        run.resume(path, force=force)
    else:
        for file in snapshots(run.out):
            try:
                run.resume(file, only_whole=True, force=force)
                break
            except SnapshotError as error:
                print(f"passed over: {error}")
        else:
            raise ValueError(f"there is no good snapshot in {run.out}: start anew, with --overwrite and not --resume.")
    print(f"Resumed from {run.resumed_from}, iteration {run.updater.iteration}.", flush=True)


def make_iterator(args: argparse.Namespace, dataset: Any, **kwargs: Any) -> MultiprocessIterator:
    """Returns an iterator over batches of uint8 images and labels."""
    return MultiprocessIterator(
        dataset,
        args.batch_size,
        n_processes=args.workers,
        collate_fn=collate_images,
        on_bad_sample=args.on_bad_sample,
        **kwargs,
    )


def make_run(args: argparse.Namespace, data: dict[str, Any]) -> tuple[Trainer, Normalize]:
    """Puts model, data and extensions together."""
    predictor, normalize = make_model(args, fresh=args.resume is not None)
    freeze(predictor, args.freeze)
    model = Classifier(predictor)
    if args.compile:
        predictor.compile()
    optimizer = make_optimizer(predictor, args.lr, args.trunk_lr_scale, args.fused)
    train_iter = make_iterator(args, data["train"])
    valid_iter = make_iterator(args, data["valid"], repeat=False, shuffle=False)
    updater = StandardUpdater(
        train_iter, optimizer, model=model, device=args.device, converter=normalize, precision=args.precision
    )

    run = Trainer(updater, (args.epochs, "epoch"), out=args.out)
    run.args = {key: getattr(args, key) for key in (*FIXED, *TOLD)}
    run.extend(extensions.observe_lr(bias_corrected=True), trigger=(1, "iteration"))
    run.extend(extensions.Evaluator(valid_iter, model, normalize, precision=args.precision))
    run.extend(extensions.LogReport(trigger=(0.1, "epoch")))
    columns = ["iteration", "epoch", "elapsed_time", "lr", "main/loss", "main/accuracy"]
    columns += ["validation/main/loss", "validation/main/accuracy"]
    run.extend(extensions.PrintReport(columns), trigger=(0.1, "epoch"))
    run.extend(extensions.ProgressBar(update_interval=1))
    for quantity in ("loss", "accuracy"):
        keys = [f"main/{quantity}", f"validation/main/{quantity}"]
        run.extend(extensions.PlotReport(keys, "epoch", (1, "epoch"), filename=f"{quantity}.png"))
    if args.snapshot_interval is None:
        run.extend(extensions.snapshot(filename="snapshot_epoch-{.updater.epoch}", n_retains=2))
    else:
        run.extend(extensions.snapshot(n_retains=2), trigger=(args.snapshot_interval, "iteration"))
    run.extend(extensions.snapshot_object(predictor, "model_epoch-{.updater.epoch}"))
    advice = f"python recipes/resnet_products.py --resume --out {args.out} goes on."
    run.extend(extensions.StopOnSignal(advice=advice))
    if args.resume is not None:
        resume(run, args.resume, bool(args.force))
    return run, normalize


def test_weights(args: argparse.Namespace, data: Any, weights: Path, normalize: Normalize) -> dict[str, float]:
    """Evaluates a fresh network, loaded from the weights file, on the first part of the test list."""
    n = int(len(data) * args.test_fraction)
    kinds = sorted(set(data.dataset.super_class_ids[:n]))
    names = ", ".join(SUPER_LABEL_NAMES[kind] for kind in kinds)
    print(
        f"Testing on the first {n} of {len(data)} test images: {len(kinds)} of the 12 classes ({names}).",
        flush=True,
    )
    predictor, _ = make_model(args, fresh=True)
    predictor.load_state_dict(checkpoint.load_weights(weights))
    iterator = make_iterator(args, Subset(data, range(n)), repeat=False, shuffle=False)
    model = Classifier(predictor).to(args.device)
    evaluator = extensions.Evaluator(iterator, model, normalize, precision=args.precision)
    result = evaluator() | {"n": n}
    evaluator.finalize()
    print(f"Test accuracy: {result['main/accuracy']:.4f}")
    write_json(Path(args.out) / "test.json", result)
    return result


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Trains and tests; returns what ``test.json`` holds."""
    parser = make_parser()
    args = parser.parse_args(argv)
    with ExitStack() as stack:
        try:
            settle(args)
            if args.deterministic:
                os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA is first used
                torch.use_deterministic_algorithms(True)
            trainer.random.set_seed(args.seed)
            Path(args.out).mkdir(parents=True, exist_ok=True)
            stack.callback(FolderLock(args.out).release)  # already here: files may be removed before the run starts
            old = old_files(args)
            if args.sample:
                announce_sample(args)
            data = load_splits(args)
            check_sizes(args, data)
            run, normalize = make_run(args, data)
            for path in old:  # only now: nothing is lost to a mistyped option
                path.unlink(missing_ok=True)
            write_args(args)
        except (OSError, ValueError, RuntimeError) as error:
            parser.error(str(error))
        try:
            run.run(show_loop_exception_msg=False)
            weights = Path(args.out) / f"model_epoch-{run.updater.epoch}"
            if not weights.exists():  # resumed at its end, from another folder
                predictor = run.updater.get_model("main").predictor
                checkpoint.save_weights(predictor.state_dict(), weights)
            return test_weights(args, data["test"], weights, normalize)
        except BadSampleError as error:
            if not isinstance(error.__cause__, BadImageError):
                raise
            sys.exit(f"{parser.prog}: error: {error.__cause__}")
        except KeyboardInterrupt:
            iteration = run.updater.iteration
            sys.exit(
                f"{parser.prog}: interrupted at iteration {iteration}; --resume --out {args.out} goes on from the last"
                " snapshot."
            )


if __name__ == "__main__":
    main()
