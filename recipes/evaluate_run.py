"""Evaluates the network of a run: accuracy, the classes one by one, which was taken for which, and the worst mistakes.

    python recipes/evaluate_run.py result

The last weights of the run's folder go over a split of its data set. Into the folder come evaluation_<split>.json,
confusion_<split>.png and mistakes_<split>.png, which shows the mistakes that the network was most certain of.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Subset

from recipes.parts import run_folder, testing
from recipes.parts.image_files import BadImageError
from recipes.parts.parser import Parser, say
from recipes.parts.trained import Trained, load, probabilities
from trainer import saving
from trainer.checks import printable
from trainer.iterators import BadSampleError
from trainer.iterators.workers import WorkerError

TOP = 5
FEW = 3  # classes
MOST_NUMBERED = 100  # classes: beyond, the numbers in the confusion matrix could not be read
CJK_FONTS = ("Noto Sans CJK JP", "Noto Sans JP", "IPAexGothic", "IPAGothic", "Hiragino Sans", "Yu Gothic", "Meiryo")
WRONG, RIGHT = "\N{BALLOT X}", "\N{CHECK MARK}"


class Evaluation(NamedTuple):
    """What a network makes of a split: row ``i`` of ``probabilities`` and ``labels[i]`` belong to ``dataset[i]``."""

    dataset: Any
    split: str
    classes: list[str]
    probabilities: np.ndarray  # float32, (N, classes)
    labels: np.ndarray  # int64, (N,)

    @property
    def predictions(self) -> np.ndarray:
        """The most probable classes, int64 of shape (N,)."""
        return self.probabilities.argmax(1)


# -- the numbers


def evaluate(trained: Trained, split: str, data: str | None = None) -> Evaluation:
    """Runs a network over a split of its run's data set, or of the one in the folder ``data``, with nothing augmented.

    Raises:
        ValueError: If there is no such split, the data have other classes, or the network gives no numbers.
        OSError: If there are no data.
        BadSampleError: If an image is broken, unless the run was asked to skip such ones.
    """
    args = trained.args
    if data is not None:
        args.data = data
    root = Path(args.data)
    if not root.is_dir():
        raise FileNotFoundError(f"no data set at {root}: there is no such folder; --data names the one that it is in.")
    splits, classes = trained.recipe.load(args, augment=False)
    if split not in splits:
        raise ValueError(
            f"a run of {trained.recipe.OPTIONS.name} has no split {split!r}; there are {', '.join(splits)}."
        )
    if classes != trained.classes:
        other = ", ".join(sorted(set(classes) ^ set(trained.classes))[:10]) or "their order"
        raise ValueError(f"{root} has other classes than the run ({other}); --data must name a set with the run's own.")
    dataset = splits[split]
    if data is None and len(dataset) != (then := trained.saved["splits"].get(split)):
        raise ValueError(
            f"{root} has changed since the run: {split} had {then} images and has {len(dataset)}, of which some may"
            " have been trained on; if that is as it should be, name it by --data."
        )
    with testing.in_order(args, dataset) as iterator:
        found, labels = probabilities(trained, iterator)
    refuse_nan(found, trained)
    if iterator.bad_samples:  # the others that were taken in their place
        order = list(range(len(dataset)))
        for bad in iterator.bad_samples:
            order[bad["position"]] = bad["replaced_by"]
        dataset = Subset(dataset, order)
    return Evaluation(dataset, split, classes, found, labels)


def refuse_nan(found: np.ndarray, trained: Trained) -> None:
    """Raises a ValueError if a network that has diverged gave what is no probability."""
    if np.isnan(found).any():
        raise ValueError(
            f"{trained.weights} gives NaN and no probabilities: the training has diverged; take the weights of an"
            " earlier epoch, or train anew with a smaller --lr."
        )


def confusion(evaluation: Evaluation) -> np.ndarray:
    """Returns how often the class of a row was taken for the class of a column, int64 of shape (classes, classes)."""
    n = len(evaluation.classes)
    return np.bincount(evaluation.labels * n + evaluation.predictions, minlength=n * n).reshape(n, n)


def mistakes(evaluation: Evaluation, count: int = 16) -> list[int]:
    """Returns the indices of wrong predictions, the most probable first."""
    wrong = np.flatnonzero(evaluation.predictions != evaluation.labels)
    certainty = evaluation.probabilities[wrong].max(1)
    return wrong[np.argsort(-certainty, kind="stable")][:count].tolist()


def summary(evaluation: Evaluation) -> dict[str, Any]:
    """Returns the numbers as a dict for JSON; those of a class that was never predicted, or never there, are None."""
    matrix, n = confusion(evaluation), len(evaluation.labels)
    right, truth, predicted = matrix.diagonal().tolist(), matrix.sum(1).tolist(), matrix.sum(0).tolist()
    top = np.argsort(-evaluation.probabilities, axis=1, kind="stable")[:, :TOP] == evaluation.labels[:, None]
    classes = [
        {"name": name, "n": truth[i], "precision": _ratio(right[i], predicted[i]), "recall": _ratio(right[i], truth[i])}
        for i, name in enumerate(evaluation.classes)
    ]
    return {
        "split": evaluation.split,
        "n": n,
        "accuracy": sum(right) / n,
        "top5": int(top.sum()) / n if len(classes) > TOP else None,
        "classes": classes,
        "confusion": matrix.tolist(),
        "mistakes": [_mistake(evaluation, index) for index in mistakes(evaluation)],
    }


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _mistake(evaluation: Evaluation, index: int) -> dict[str, Any]:
    prediction = evaluation.predictions[index]
    return {
        "index": index,
        "path": path_of(evaluation.dataset, index),
        "truth": evaluation.classes[evaluation.labels[index]],
        "prediction": evaluation.classes[prediction],
        "probability": float(evaluation.probabilities[index, prediction]),
    }


def path_of(dataset: Any, index: int) -> str | None:
    """Returns the file of a sample, or None if a data set has no files."""
    while hasattr(dataset, "dataset"):
        if isinstance(dataset, Subset):
            index = dataset.indices[index]
        dataset = dataset.dataset
    if hasattr(dataset, "samples"):
        return str(dataset.samples[index][0])
    if hasattr(dataset, "paths"):
        return str(Path(getattr(dataset, "root", "")) / dataset.paths[index])
    return None


def table(told: dict[str, Any]) -> str:
    """Returns what is told on the terminal of a :func:`summary`."""
    right = sum(row[i] for i, row in enumerate(told["confusion"]))
    lines = [f"accuracy  {told['accuracy']:.4f}  ({right} of {told['n']})"]
    if told["top5"] is not None:
        lines.append(f"top-{TOP}     {told['top5']:.4f}")
    names = [printable(one["name"]) for one in told["classes"]]
    width = max(len("class"), *map(len, names))
    lines += ["", f"{'class':{width}}  precision  recall  {'n':>6}"]
    for name, one in zip(names, told["classes"], strict=True):
        precision, recall = ("-" if one[key] is None else f"{one[key]:.3f}" for key in ("precision", "recall"))
        lines.append(f"{name:{width}}  {precision:>9}  {recall:>6}  {one['n']:6}")
    return "\n".join(lines)


# -- the pictures


def use_installed_fonts() -> None:
    """Lets matplotlib draw Chinese, Japanese and Korean names, where a font for them is installed."""
    from matplotlib import font_manager, rcParams

    installed = set(font_manager.get_font_names())
    rcParams["font.family"] = ["DejaVu Sans", *(name for name in CJK_FONTS if name in installed)]


def draw_confusion(matrix: np.ndarray, classes: Sequence[str]) -> Any:
    """Returns a matplotlib figure of a confusion matrix: counts, coloured by their share of the row."""
    from matplotlib.figure import Figure

    use_installed_fonts()
    classes, n = [printable(name) for name in classes], len(classes)
    matrix = np.asarray(matrix)
    side = max(2.4, min(0.34 * n, 40.0))  # inches
    longest = 0.085 * max(map(len, classes))
    margin = 0.6 + longest
    figure = Figure(figsize=(side + margin + 0.9, side + margin), layout="constrained")
    panel = figure.subplots()
    share = matrix / matrix.sum(1, keepdims=True).clip(1)
    image = panel.imshow(share, cmap="Blues", vmin=0, vmax=1)
    panel.set(xlabel="prediction", ylabel="truth")
    panel.set_xticks(range(n), classes, rotation=90 if longest > side / n else 0, fontsize=9, parse_math=False)
    panel.set_yticks(range(n), classes, fontsize=9, parse_math=False)
    panel.set_xticks(np.arange(n + 1) - 0.5, minor=True)
    panel.set_yticks(np.arange(n + 1) - 0.5, minor=True)
    panel.grid(which="minor", color="0.9", linewidth=0.6)
    panel.tick_params(which="both", length=0)
    if n <= MOST_NUMBERED:
        size = min(12.0, 72 * side / n * 1.3 / max(3, len(str(matrix.max()))))  # points: a digit is 0.64 as wide
        # Among many classes a blank is read faster than a 0.
        for row, column in np.argwhere((matrix > 0) | np.eye(n, dtype=bool) | (n <= FEW)):
            colour = "white" if share[row, column] > 0.65 else "black"
            panel.text(column, row, matrix[row, column], ha="center", va="center", fontsize=size, color=colour)
    figure.colorbar(image, ax=panel, shrink=min(1.0, 4 / side), aspect=25, label="share of the truth's images")
    return figure


def title_of(prediction: str, probability: float, truth: str | None) -> str:
    """Returns the title of an image: a mark, if the truth is known, the prediction, and the truth if it is another."""
    mark = "" if truth is None else f"{RIGHT if prediction == truth else WRONG} "
    title = f"{mark}{prediction} ({probability:.2f})"
    return title if truth in (None, prediction) else f"{title}\nin truth {truth}"


def draw_images(images: Sequence[torch.Tensor], titles: Sequence[str]) -> Any:
    """Returns a matplotlib figure: a grid of uint8 images of shape (C, H, W), C being 1 or 3, with their titles.

    Titles are those of :func:`title_of`, or any; those that begin with its mark of a mistake are coloured.
    """
    from matplotlib.figure import Figure

    use_installed_fonts()
    columns = min(len(images), max(4, min(8, round(len(images) ** 0.5))))
    rows = -(-len(images) // columns)
    titles = [printable(title, "\n") for title in titles]
    longest = max(len(line) for title in titles for line in title.split("\n"))
    size = max(6.0, min(10.0, 240 / longest))  # points; a line fits the width of its image
    figure = Figure(figsize=(2.0 * columns, 2.5 * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for panel, image, title in zip(panels, images, titles, strict=False):
        panel.imshow(image.permute(1, 2, 0).squeeze(2).numpy(), cmap="gray", vmin=0, vmax=255)
        colour = "#B22222" if title.startswith(WRONG) else "black"
        panel.set_title(title, fontsize=size, color=colour, parse_math=False)
        panel.set(xticks=[], yticks=[])
    for panel in panels[len(images) :]:
        panel.remove()
    return figure


def draw_mistakes(evaluation: Evaluation, told: dict[str, Any]) -> Any:
    """Returns a matplotlib figure of the mistakes in a :func:`summary`."""
    found = told["mistakes"]
    titles = [title_of(one["prediction"], one["probability"], one["truth"]) for one in found]
    return draw_images([evaluation.dataset[one["index"]][0] for one in found], titles)


def write_figure(path: Path, figure: Any, dpi: int = 120) -> None:
    """Writes a picture, whole or not at all; its suffix says of which format."""
    saving.write(path, lambda file: figure.savefig(file, format=path.suffix[1:] or None, dpi=dpi))


def write(trained: Trained, split: str, folder: Path, data: str | None = None) -> dict[str, Any]:
    """Evaluates, prints, and writes the files into a folder; returns what evaluation_<split>.json holds."""
    evaluation = evaluate(trained, split, data)
    told = summary(evaluation)
    pictures = {"confusion": draw_confusion(confusion(evaluation), evaluation.classes)}
    if told["mistakes"]:
        pictures["mistakes"] = draw_mistakes(evaluation, told)
    files = {name: folder / f"{name}_{split}.png" for name in ("confusion", "mistakes")}
    say(f"{trained.weights} on the {told['n']} images of {split}")
    say(f"\n{table(told)}\n", kept="\n")
    run_folder.write_json(folder / f"evaluation_{split}.json", told)
    for name, path in files.items():
        if name in pictures:
            write_figure(path, pictures[name])
        else:
            path.unlink(missing_ok=True)  # of an earlier evaluation
    names = [f"evaluation_{split}.json", *(path.name for name, path in files.items() if name in pictures)]
    say(f"Wrote {', '.join(names)}.")
    return told


# -- the command line


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what predict.py has, too."""
    parser.add_argument("--device", help="such as cpu or cuda:1 (CUDA where there is one)")
    parser.add_argument("--batch-size", type=int, metavar="N", help="images in a batch (the run's)")
    parser.add_argument("--recipe", metavar="FILE", help="the file of the run's recipe, if it is none of the package")


def open_run(parser: argparse.ArgumentParser, args: argparse.Namespace, path: str, workers: int | None) -> Trained:
    """Returns the network of a file of weights or a run's folder, with the batch size that was asked for."""
    try:
        if args.batch_size is not None and args.batch_size < 1:
            raise ValueError(f"--batch-size must be 1 or more, got {args.batch_size}.")
        trained = load(path, args.device, workers, args.recipe)
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: torch, of a word that is no device
        parser.error(str(error))
    if args.batch_size is not None:
        trained.args.batch_size = args.batch_size
    return trained


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Evaluates, prints and writes; returns what evaluation_<split>.json holds."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", help="the folder of a run, which has args.json and weights")
    parser.add_argument("--split", default="test", help="test, train, or valid if the recipe has it (test)")
    parser.add_argument("--data", metavar="DIR", help="folder of the data set (the run's)")
    add_options(parser)
    parser.add_argument("--workers", type=int, metavar="N", help="processes that load images (one for each CPU)")
    args = parser.parse_args(argv)
    run = Path(args.run)
    if run.is_file():
        parser.error(f"{run} is a file; name its folder: the last weights in it are evaluated.")
    trained = open_run(parser, args, args.run, args.workers)
    try:
        return write(trained, args.split, run, args.data)
    except BadSampleError as error:
        if not isinstance(error.__cause__, BadImageError):
            raise
        parser.error(str(error.__cause__))
    except WorkerError as error:
        parser.error(run_folder.in_options(error))
    except (OSError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
