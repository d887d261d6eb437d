"""Trains a network on your own photographs: any model of timm or torchvision, best from trained weights on.

    python recipes/finetune.py DIR --model resnet50 --pretrained

DIR holds a folder of images for each class; or train/, valid/ and test/ of such folders; or a CSV of files and labels.
What is found, and what is left out, is printed first. AdamW; the learning rate rises in a line and falls along half a
cosine; the head learns faster than the rest. Each epoch is validated. At the end the weights of the best one are
tested, and report.html shows it all. --dry-run tries everything in seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import extensions
from extensions.snapshot_writers import ThreadWriter
from recipes import evaluate_run, report
from recipes.parts import networks, own_images, run_folder, testing, trained
from recipes.parts.augment import loss_of, mixed, multi_label_accuracy, training_reader
from recipes.parts.image_files import ImageFiles
from recipes.parts.options import MOST_PIXELS, Args, Options
from recipes.parts.parser import say
from recipes.parts.transforms import Normalize, ScaleAndCrop, collate_images
from recipes.parts.tuning import WarmupCosine, freeze, parameter_groups, rehearsal, some
from trainer import Classifier, StandardUpdater, Trainer, accuracy
from trainer.iterators import MultiprocessIterator
from trainer.random import set_seed
from trainer.triggers import EarlyStoppingTrigger, ManualScheduleTrigger

DEFAULTS: dict[str, Any] = {
    "model": "resnet50",
    "pretrained": False,
    "epochs": 20,
    "batch_size": 32,
    "lr": 0.001,  # of the head, which is new
    "augment": "light",  # thousands of photographs are few: without it they are learnt by heart
    "mixup": 0.0,
    "cutmix": 0.0,
    "label_smoothing": 0.0,
    "freeze": "none",
    "warmup": 0.1,
}
TRUNK_LR_SCALE = 0.1  # of a trunk that has learnt already: at the head's rate it would forget
WEIGHT_DECAY = 0.01  # torch's for AdamW; not of biases and norms, as timm has it
COLUMNS = ["epoch", "lr", "main/loss", "main/accuracy", "validation/main/loss", "validation/main/accuracy"]

OPTIONS = Options(__file__, __doc__, DEFAULTS, weights="best_epoch-{.updater.epoch}")
add = OPTIONS.add
add("data", "data", nargs="?", metavar="DIR", on_resume="free", help="folder of the photographs")
add("data", "--table", metavar="FILE", on_resume="free", help="CSV of files and labels, if it is not the one in DIR")
several = "a photograph may have several labels, or none; the CSV gives them"
add("data", "--multi-label", action="store_true", help=several)
size = "pixels of the square cut from the middle (the model's own)"
add("data", "--image-size", type=int, metavar="N", least=1, most=MOST_PIXELS, help=size)
told = "crops and mirror images; then one random operation, or two; of the training images only"
add("data", "--augment", choices=("none", "light", "trivial", "rand"), help=told)
add("data", "--mixup", type=float, metavar="A", least=0, help="blend training images, by that alpha (0.2 is usual)")
add("data", "--cutmix", type=float, metavar="A", least=0, help="paste parts of others into them (1.0 is usual)")
add("model", "--weights", metavar="FILE", help="start from a state_dict file; a head of another size is replaced")
frozen = "keep the first layers, or all but the head, as they are"
add("model", "--freeze", choices=("none", "stem", "trunk"), help=frozen)
add("model", "--unfreeze-after", type=float, metavar="EPOCHS", above=0, help="from then on let them learn too")
scale = f"learning rate of all but the head, times this ({TRUNK_LR_SCALE} from trained weights, else 1)"
add("model", "--trunk-lr-scale", type=float, metavar="X", least=0, help=scale)
part = "the part of the run in which the learning rate rises"
add("training", "--warmup", type=float, metavar="F", least=0, most=0.9, help=part)
add("training", "--label-smoothing", type=float, metavar="F", least=0, most=0.9, help="part of a label spread over all")
add("training", "--class-weights", action="store_true", help="let each class weigh as much, however many images it has")
add("training", "--ema", action="store_true", help="validate and keep a moving average of the weights")
patience = "stop when so many epochs in a row were no better than the best"
add("training", "--patience", type=int, metavar="N", least=1, on_resume="free", help=patience)
add("run", "--dry-run", action="store_true", help="try everything on two batches, in a folder that is then removed")


def check(args: Args) -> None:
    """Refuses options that do not go together, before anything is written."""
    if args.table:  # here, or in DIR; a resume may come from another folder
        table = Path(args.table)
        args.table = str((table if table.exists() else Path(args.data or "", table)).resolve())
    if args.pretrained and args.weights:
        OPTIONS.error("give --pretrained or --weights, not both: the file's weights would replace the others.")
    after = args.unfreeze_after
    if after is not None and (args.freeze == "none" or after >= args.epochs):
        told = f"--freeze {args.freeze} --epochs {args.epochs}"
        OPTIONS.error(
            f"--unfreeze-after {after:g} needs --freeze stem or trunk, and more --epochs than that, got {told}."
        )


def reader(args: Args) -> Callable[[str], torch.Tensor]:
    """Returns what makes scaled and cropped pixels of an image file, as the model is used to."""
    return geometry(args).read


def geometry(args: Args) -> ScaleAndCrop:
    """Returns the scaling and cropping that the model was trained for."""
    taken = networks.input_of(args.model, args.image_size)
    return ScaleAndCrop(taken.scale, taken.size, reduced=True, interpolation=taken.interpolation)


def load(args: Args, augment: bool = False, tell: Callable[[str], object] | None = None) -> tuple[Any, list[str]]:
    """Returns the data sets train, valid and test, and the classes; ``tell`` gets what was found, a line at a time."""
    if args.data is None:
        raise ValueError("name the folder of the photographs: finetune.py DIR.")
    skip, several = args.on_bad_sample == "skip", bool(args.multi_label)
    found = own_images.find(args.data, table=args.table, multi_label=several, seed=args.seed, skip_bad=skip)
    for line in found.told if tell else ():
        tell(line)
    read = dict.fromkeys(found.files, reader(args))
    if augment:
        read["train"] = training_reader(args.augment, geometry(args))
    splits = {name: ImageFiles(files, found.labels[name], read[name]) for name, files in found.files.items()}
    if args.dry_run:
        return {name: some(split, 2 * args.batch_size) for name, split in splits.items()}, found.classes
    return splits, found.classes


def make_model(args: Args, n_classes: int, fresh: bool) -> tuple[nn.Module, Normalize]:
    """Returns the network and the normalisation that goes with it; ``fresh``: without any trained weights."""
    taken = networks.input_of(args.model, args.image_size)
    network = networks.create(args.model, n_classes, bool(args.pretrained and not fresh), taken.size)
    heads, new = networks.head_names(network), list[str]()
    if args.weights and not fresh:
        new = networks.load_weights(network, args.weights, heads)
    elif args.pretrained and not fresh and n_classes != getattr(network, "pretrained_cfg", {}).get("num_classes"):
        new = [name for name, _ in network.named_parameters() if name.startswith(tuple(f"{head}." for head in heads))]
    for name in new:  # large, it would spoil the trunk before it has learnt: benchmarks/README.md, Fine-tuning
        network.get_parameter(name).data.mul_(0.01)  # not 0: before a ReLU, as in SqueezeNet, that would never learn
    return network, Normalize.of_unit(taken.mean, taken.std)


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Trains and tests; returns what ``test.json`` holds."""
    args = OPTIONS.parse(argv)
    check(args)
    several = bool(args.multi_label)
    with rehearsal(args), run_folder.opened(OPTIONS, args) as folder:
        set_seed(args.seed)
        found: list[str] = []
        splits, classes = load(args, augment=True, tell=lambda line: (say(line), found.append(line)))
        if args.batch_size > (n := len(splits["train"])):
            say(f"The batch size is {n}, not {args.batch_size}: there are no more images to train on.")
            args.batch_size = n
        network, normalize = make_model(args, len(classes), fresh=args.resume is not None)
        networks.prepare(args, network, normalize, splits["train"])
        labels = getattr(splits["train"], "dataset", splits["train"]).labels
        lossfun = loss_of(labels, classes, args.label_smoothing, bool(args.class_weights), several)
        classifier = partial(Classifier, lossfun=lossfun, accfun=multi_label_accuracy if several else accuracy)
        model = classifier(network)
        usual_scale = TRUNK_LR_SCALE if args.pretrained or args.weights else 1.0
        scale = usual_scale if args.trunk_lr_scale is None else args.trunk_lr_scale
        optimizer = torch.optim.AdamW(parameter_groups(network, args.lr, scale, WEIGHT_DECAY), args.lr)
        unfreeze = freeze(network, args.freeze)
        start = "its trained weights" if args.pretrained else args.weights or "random weights (no --pretrained)"
        frozen = args.freeze + (f" for {args.unfreeze_after:g} epochs" if args.unfreeze_after else "")
        say(
            f"{args.model} from {start}; learning rate {args.lr:g}, of the trunk {scale * args.lr:g}; frozen: {frozen}."
        )

        loading = {"n_processes": args.workers, "collate_fn": collate_images, "on_bad_sample": args.on_bad_sample}
        train_iter = MultiprocessIterator(splits["train"], args.batch_size, **loading)
        valid_iter = MultiprocessIterator(splits["valid"], args.batch_size, repeat=False, shuffle=False, **loading)
        mix = mixed(normalize, len(classes), args.mixup, args.cutmix)
        updater = StandardUpdater(train_iter, optimizer, mix, args.device, model=model, precision=args.precision)
        end = (args.epochs, "epoch")
        mode, monitor = ("min", "validation/main/loss") if several else ("max", "validation/main/accuracy")
        early = EarlyStoppingTrigger(monitor=monitor, patience=args.patience, mode=mode, max_trigger=end)
        trainer = Trainer(updater, early if args.patience else end, out=args.out)

        total = math.ceil(args.epochs * len(splits["train"]) / args.batch_size)
        trainer.extend(WarmupCosine(optimizer, int(args.warmup * total), total))
        if args.unfreeze_after is not None:
            at = ManualScheduleTrigger([args.unfreeze_after], "epoch")
            trainer.extend(lambda trainer: unfreeze(), name="unfreeze", trigger=at)
        kept: Any = model  # what is validated, saved and tested
        if args.ema:
            ema = extensions.ExponentialMovingAverage(model)
            trainer.extend(ema)
            kept = ema.average
        trainer.extend(extensions.observe_lr(), trigger=(1, "iteration"))
        trainer.extend(extensions.Evaluator(valid_iter, kept, normalize, precision=args.precision))
        best = (extensions.MinValue if several else extensions.MaxValue)(monitor)
        trainer.extend(best, name="best")
        trainer.extend(extensions.LogReport(trigger=(1, "epoch")))
        trainer.extend(extensions.PrintReport(COLUMNS))
        trainer.extend(extensions.ProgressBar(update_interval=1))
        for name in ("loss", "accuracy"):
            keys = [f"main/{name}", f"validation/main/{name}"]
            trainer.extend(extensions.PlotReport(keys, "epoch", (1, "epoch"), filename=f"{name}.png"))
        each, name = run_folder.snapshot_interval(args)
        trainer.extend(extensions.snapshot(filename=name, n_retains=2, writer=ThreadWriter()), trigger=each)
        # Two: if the run is killed after a new best and before its snapshot, it goes on from one that has the other.
        weights = extensions.snapshot_object(kept.predictor, OPTIONS.weights, n_retains=2, writer=ThreadWriter())
        trainer.extend(weights, trigger=lambda trainer: best.best_iteration == trainer.updater.iteration)
        trainer.extend(extensions.StopOnSignal(advice=folder.advice))

        folder.start(trainer, splits, classes, found)
        trainer.run(show_loop_exception_msg=False)
        path = folder.path / f"best_epoch-{best.best_epoch}"
        if path.is_file():
            too_soon = ", before --unfreeze-after" if updater.epoch_detail < (args.unfreeze_after or 0) else ""
            ended = f" (--patience {args.patience} ended the run{too_soon})" if updater.epoch < args.epochs else ""
            say(f"Epoch {best.best_epoch} of {updater.epoch}{ended} was the best: {monitor} {best.best_value:.4f}.")
        else:
            path = folder.save_weights(trainer, kept.predictor)
            say(f"There are no weights of a best epoch ({monitor}): the last are tested, {path.name}.")
        network, normalize = make_model(args, len(classes), fresh=True)
        result = testing.test(args, network, normalize, splits["test"], path, classifier)
        try:
            evaluate_run.write(trained.load(path, args.device, args.workers, __file__), "test", folder.path)
        except ValueError as error:
            say(f"There is no confusion matrix: {error}")
        report.main([str(folder.path), "--recipe", __file__, "--device", args.device, "--workers", str(args.workers)])
        return result


if __name__ == "__main__":
    main()
