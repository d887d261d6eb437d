"""Tells two newts apart, akahara and madara; or the pictures of any two folders, or more.

    python recipes/newts.py --train --test

--train trains a VGG-like network for 100 iterations on 64x64 pixels and writes its weights, cnn.pt, into --out; --test
loads them from there and prints each test image with the probability of each class. The images stand in
train/<class>/* and test/<class>/* of --data. Validation is on the test set: choose nothing by it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision.transforms.v2.functional import pil_to_tensor

import extensions
from extensions.snapshot_writers import ThreadWriter
from recipes import predict
from recipes.parts import networks, run_folder, testing
from recipes.parts.data_set import data_set
from recipes.parts.drawn import newts as drawn_newts
from recipes.parts.image_files import class_folders, read_rgb, resized
from recipes.parts.options import Args, Options
from recipes.parts.transforms import Normalize, collate_images
from trainer import Classifier, StandardUpdater, Trainer
from trainer.iterators import MultiprocessIterator
from trainer.random import set_seed

TUTORIAL = {"data": "data/newts", "iterations": 100, "batch_size": 8, "lr": 0.01}
SAMPLE = {"data": "data/drawn_newts"}
SOURCE = "--data names a folder of train/<class>/* and test/<class>/*"
EVERY = (50, "iteration")
COLUMNS = ["iteration", "lr", "main/loss", "main/accuracy", "validation/main/loss", "validation/main/accuracy"]

OPTIONS = Options(__file__, __doc__, TUTORIAL, SAMPLE, weights="cnn.pt")
train_help = "train, and write cnn.pt; so it is without --test, too"
OPTIONS.add("run", "--train", action="store_true", on_resume="forget", help=train_help)
test_help = "print the test images with their probabilities by cnn.pt"
OPTIONS.add("run", "--test", action="store_true", on_resume="forget", help=test_help)


def read(path: str) -> torch.Tensor:
    """Returns an image file as 64x64 pixels: all of it, for a newt may lie across."""
    return pil_to_tensor(resized(read_rgb(path), (64, 64)))


def reader(args: Args) -> Callable[[str], torch.Tensor]:
    """Returns what makes 64x64 pixels of an image file."""
    return read


def load(args: Args, augment: bool = False) -> tuple[dict[str, Any], list[str]]:
    """Returns the data sets train and test, and the newts; nothing is augmented."""
    with data_set(OPTIONS, args, SOURCE, drawn_newts.write) as root:
        return class_folders(root, read)


def make_model(args: Args, n_classes: int, fresh: bool) -> tuple[nn.Module, Normalize]:
    """Returns the network, and what divides pixels by 255."""
    return networks.vgg_newts(n_classes), Normalize([0.0], [255.0])


def main(argv: list[str] | None = None) -> dict[str, float] | None:
    """Trains, or tests, or both; returns what ``test.json`` holds, if it has trained."""
    args, result = OPTIONS.parse_args(argv), None
    if args.train or not args.test:
        args = OPTIONS.parse(argv)
        result = train(args)
    elif args.config is not None:
        OPTIONS.error("--config needs --train: --test alone takes the options of the run in --out.")
    if args.test:
        try:
            print_test(args)
        except (OSError, ValueError) as error:
            OPTIONS.error(str(error))
    return result


def train(args: Args) -> dict[str, float]:
    """Trains and tests; returns what ``test.json`` holds."""
    with run_folder.opened(OPTIONS, args) as folder:
        set_seed(args.seed)
        splits, classes = load(args, augment=True)
        network, normalize = make_model(args, len(classes), fresh=args.resume is not None)
        networks.prepare(args, network, normalize, splits["train"])
        optimizer = torch.optim.SGD(network.parameters(), args.lr, momentum=0.9)
        model = Classifier(network)

        loading = {"n_processes": args.workers, "collate_fn": collate_images, "on_bad_sample": args.on_bad_sample}
        train_iter = MultiprocessIterator(splits["train"], args.batch_size, **loading)
        valid_iter = MultiprocessIterator(splits["test"], args.batch_size, repeat=False, shuffle=False, **loading)
        updater = StandardUpdater(train_iter, optimizer, normalize, args.device, model=model, precision=args.precision)
        trainer = Trainer(updater, (args.iterations, "iteration"), out=args.out)

        trainer.extend(extensions.observe_lr(), trigger=(1, "iteration"))
        trainer.extend(extensions.Evaluator(valid_iter, model, normalize, precision=args.precision), trigger=EVERY)
        trainer.extend(extensions.LogReport(trigger=(10, "iteration")))
        trainer.extend(extensions.PrintReport(COLUMNS), trigger=(10, "iteration"))
        trainer.extend(extensions.ProgressBar(update_interval=1))
        for name in ("loss", "accuracy"):
            keys = [f"main/{name}", f"validation/main/{name}"]
            trainer.extend(extensions.PlotReport(keys, "iteration", EVERY, filename=f"{name}.png"))
        each, name = run_folder.snapshot_interval(args, EVERY)
        trainer.extend(extensions.snapshot(filename=name, n_retains=2, writer=ThreadWriter()), trigger=each)
        trainer.extend(extensions.snapshot_object(network, OPTIONS.weights, writer=ThreadWriter()), trigger=EVERY)
        trainer.extend(extensions.StopOnSignal(advice=folder.advice))

        folder.start(trainer, splits, classes)
        trainer.run(show_loop_exception_msg=False)
        weights = folder.save_weights(trainer, network)
        return testing.test(args, *make_model(args, len(classes), True), splits["test"], weights)


def print_test(args: Args) -> None:
    """Prints each test image with the probability of each class."""
    out = Path(args.out) if args.out else run_folder.resumed(args)
    if not (out / "args.json").is_file():
        raise FileNotFoundError(
            f"there is no run in {out} to test: train one first, with --train, or name it by --out."
        )
    saved = run_folder.read_args(out, OPTIONS)
    data = args.data or saved["args"]["data"]
    splits, classes = class_folders(data, read)
    if classes != saved["classes"]:
        known = ", ".join(saved["classes"])
        raise ValueError(f"{data} has the classes {', '.join(classes)}, and the run in {out} knows {known}.")
    paths = [path for path, _ in splits["test"].samples]
    options = [f"--top={len(classes)}", f"--batch-size={args.batch_size or saved['args']['batch_size']}"]
    if args.device is not None:
        options.append(f"--device={args.device}")
    predict.main([str(out / OPTIONS.weights), *paths, *options])


if __name__ == "__main__":
    main()
