"""Evaluates the network of a run: accuracy, F1, the classes one by one, confusion matrix, and the worst mistakes.

    python recipes/evaluate_run.py result

It tests the last weights in the run's folder on a split of its data set, and writes evaluation_<split>.json,
confusion_<split>.png and mistakes_<split>.png, the mistakes of which the network was most certain, into the folder. If
images may have several labels, those of 0.5 or more are predicted, each counts by itself, and there is no confusion
matrix.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Subset

from recipes.parts import run_folder, testing, tool_options
from recipes.parts.image_files import BadImageError, digest, path_of
from recipes.parts.parser import say
from recipes.parts.pictures import draw_confusion, draw_images, title_of, title_of_labels, write_figure
from recipes.parts.trained import Trained, load, probabilities
from trainer.checks import printable
from trainer.iterators import BadSampleError
from trainer.iterators.workers import WorkerError

TOP = 5
THRESHOLD = 0.5  # of several labels, those of this probability or more are predicted


class Evaluation(NamedTuple):
    """The predictions for a split: row ``i`` of ``probabilities`` and ``labels[i]`` belong to ``dataset[i]``.

    Where an image may have several labels (multi-label), ``labels`` and ``predictions`` are bool of shape (N, classes).
    """

    dataset: Any
    split: str
    classes: list[str]
    probabilities: np.ndarray  # float32, (N, classes)
    labels: np.ndarray  # int64, (N,); multi-label: bool, (N, classes)

    @property
    def predictions(self) -> np.ndarray:
        """The most probable classes, int64 of shape (N,)."""
        return self.probabilities >= THRESHOLD if self.multi_label else self.probabilities.argmax(1)

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several labels, or none."""
        return self.labels.ndim == 2


# -- the numbers


def evaluate(trained: Trained, split: str, data: str | None = None) -> Evaluation:
    """Runs a network over a split of its run's data set, or of the one in the folder ``data``, with nothing augmented.

    Raises:
        ValueError: If there is no such split, the data have other classes, or the network outputs NaN.
        OSError: If there are no data.
        BadSampleError: If an image is broken, unless the run was to skip such images.
    """
    args = trained.args
    if data is not None:
        args.data = data
    root = Path(getattr(args, "data", "."))  # a recipe may have no folder
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
    if data is None and trained.saved.get("files", {}).get(split) not in (None, digest(dataset, root)):
        raise ValueError(
            f"{root} has changed since the run: other files are in {split} now, of which some may have been trained on;"
            " if that is as it should be, name it by --data."
        )
    with testing.in_order(args, dataset) as iterator:
        found, labels = probabilities(trained, iterator)
    refuse_nan(found, trained)
    if iterator.bad_samples:  # the others that were taken in their place
        order = list(range(len(dataset)))
        for bad in iterator.bad_samples:
            order[bad["position"]] = bad["replaced_by"]
        dataset = Subset(dataset, order)
    return Evaluation(dataset, split, classes, found, labels if labels.ndim == 1 else labels >= THRESHOLD)


def refuse_nan(found: np.ndarray, trained: Trained) -> None:
    """Raises a ValueError if a network has diverged and outputs NaN."""
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
    """Returns the indices of wrong predictions, the most probable first; of several labels the most certain counts."""
    if evaluation.multi_label:
        certainty = _certainty_of_wrong(evaluation).max(1)
        wrong = np.flatnonzero(certainty >= 0)
    else:
        certainty = evaluation.probabilities.max(1)
        wrong = np.flatnonzero(evaluation.predictions != evaluation.labels)
    return [int(index) for index in wrong[np.argsort(-certainty[wrong], kind="stable")][:count]]


def _certainty_of_wrong(evaluation: Evaluation, rows: Any = slice(None)) -> np.ndarray:
    """Returns how far beyond the threshold each label is that is wrong, and -1 for those that are right."""
    distance = np.abs(evaluation.probabilities[rows] - THRESHOLD)
    return np.where(evaluation.predictions[rows] != evaluation.labels[rows], distance, -1)


def summary(evaluation: Evaluation) -> dict[str, Any]:
    """Returns the numbers as a dict for JSON; those with nothing to count, as of a class never predicted, are None.

    Of a network for one label: ``top5`` and ``confusion``. For several: ``multi_label`` is True, ``accuracy`` the share
    of labels that are right, ``exact_match`` that of images where all are, and there are ``micro_f1`` and the average
    precisions with their mean. Means over classes take those that occur.
    """
    labels, predictions, n = evaluation.labels, evaluation.predictions, len(evaluation.labels)
    told: dict[str, Any] = {"split": evaluation.split, "n": n}
    if evaluation.multi_label:
        right, truth, predicted = (part.sum(0).tolist() for part in (labels & predictions, labels, predictions))
        same = labels == predictions
        told |= {"multi_label": True, "accuracy": int(same.sum()) / same.size}
        told |= {"exact_match": int(same.all(1).sum()) / n, "micro_f1": _f1(sum(right), sum(truth), sum(predicted))}
    else:
        matrix = confusion(evaluation)
        right, truth, predicted = matrix.diagonal().tolist(), matrix.sum(1).tolist(), matrix.sum(0).tolist()
        top = np.argsort(-evaluation.probabilities, axis=1, kind="stable")[:, :TOP] == labels[:, None]
        told |= {"accuracy": sum(right) / n, "top5": int(top.sum()) / n if len(evaluation.classes) > TOP else None}
    classes = [
        {"name": name, "n": whole, "precision": _ratio(hits, taken), "recall": _ratio(hits, whole)}
        | {"f1": _f1(hits, whole, taken)}
        for name, hits, whole, taken in zip(evaluation.classes, right, truth, predicted, strict=True)
    ]
    if evaluation.multi_label:
        for i, one in enumerate(classes):
            one["average_precision"] = average_precision(evaluation.probabilities[:, i], labels[:, i])
        told["mean_average_precision"] = _mean(classes, "average_precision")
    told |= {"macro_f1": _mean(classes, "f1"), "classes": classes}
    if not evaluation.multi_label:
        told["confusion"] = matrix.tolist()
    return told | {"mistakes": [_mistake(evaluation, index) for index in mistakes(evaluation)]}


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _f1(right: int, truth: int, predicted: int) -> float | None:
    """Returns the harmonic mean of precision and recall: 0 where one of them is, None where neither has a meaning."""
    return _ratio(2 * right, truth + predicted)


def _mean(classes: list[dict[str, Any]], key: str) -> float | None:
    """Returns the mean over the classes that occur."""
    there = [one[key] for one in classes if one["n"]]
    return sum(there) / len(there) if there else None


def average_precision(probabilities: np.ndarray, truth: np.ndarray) -> float | None:
    """Returns the mean precision over the images with a label, each at its rank; None without such images.

    scikit-learn: ``average_precision_score``.
    """
    if not truth.any():
        return None
    order = np.argsort(-probabilities, kind="stable")
    ends = np.flatnonzero(np.diff(probabilities[order], append=-1))  # equal ones are found together
    found = np.cumsum(truth[order])[ends]
    return float((np.diff(found, prepend=0) * found / (ends + 1)).sum() / found[-1])


def _mistake(evaluation: Evaluation, index: int) -> dict[str, Any]:
    truth, prediction = evaluation.labels[index], evaluation.predictions[index]
    told: dict[str, Any] = {"index": index, "path": path_of(evaluation.dataset, index)}
    if evaluation.multi_label:
        worst = int(_certainty_of_wrong(evaluation, index).argmax())
        told |= {"truth": chosen(evaluation.classes, truth), "prediction": chosen(evaluation.classes, prediction)}
        return told | {"label": evaluation.classes[worst], "probability": float(evaluation.probabilities[index, worst])}
    told |= {"truth": evaluation.classes[truth], "prediction": evaluation.classes[prediction]}
    return told | {"probability": float(evaluation.probabilities[index, prediction])}


def chosen(classes: Sequence[str], which: np.ndarray) -> list[str]:
    """Returns the names of the classes at which an array is true."""
    return [name for name, is_chosen in zip(classes, which, strict=True) if is_chosen]


def table(told: dict[str, Any]) -> str:
    """Returns the table of a :func:`summary` for the terminal."""
    n, of_classes, several = told["n"], len(told["classes"]), "multi_label" in told
    whole, things = (n * of_classes, " labels") if several else (n, "")
    rows = [("accuracy", told["accuracy"], f"({round(told['accuracy'] * whole)} of {whole}{things})")]
    if several:
        rows.append(("exact match", told["exact_match"], f"({round(told['exact_match'] * n)} of {n} images)"))
    elif told["top5"] is not None:
        rows.append((f"top-{TOP}", told["top5"], ""))
    rows.append(("macro F1", told["macro_f1"], "(mean over the classes that occur)"))
    if several:
        rows.append(("micro F1", told["micro_f1"], "(all labels together)"))
        rows.append(("mean AP", told["mean_average_precision"], "(AP: average precision)"))
    width = max(len(name) for name, *_ in rows)
    lines = [
        f"{name:{width}}  {'-' if value is None else f'{value:.4f}'}  {remark}".rstrip() for name, value, remark in rows
    ]
    names = [printable(one["name"]) for one in told["classes"]]
    width = max(len("class"), *map(len, names))
    columns = {"precision": "precision", "recall": "recall", "f1": "F1", "average_precision": "AP"}
    columns = {key: f"{head:>{max(len(head), 5)}}" for key, head in columns.items() if key in told["classes"][0]}
    lines += ["", "  ".join([f"{'class':{width}}", *columns.values(), f"{'n':>6}"])]
    for name, one in zip(names, told["classes"], strict=True):
        cells = ("-" if one[key] is None else f"{one[key]:.3f}" for key in columns)
        aligned = (f"{cell:>{len(head)}}" for cell, head in zip(cells, columns.values(), strict=True))
        lines.append("  ".join([f"{name:{width}}", *aligned, f"{one['n']:6}"]))
    return "\n".join(lines)


# -- the files


def draw_mistakes(evaluation: Evaluation, told: dict[str, Any]) -> Any:
    """Returns a matplotlib figure of the mistakes in a :func:`summary`."""
    found = told["mistakes"]
    if evaluation.multi_label:
        titles = [title_of_labels(one["prediction"], one["truth"]) for one in found]
    else:
        titles = [title_of(one["prediction"], one["probability"], one["truth"]) for one in found]
    return draw_images([evaluation.dataset[one["index"]][0] for one in found], titles)


def write(trained: Trained, split: str, folder: Path, data: str | None = None) -> dict[str, Any]:
    """Evaluates, prints, and writes the files into a folder; returns what evaluation_<split>.json holds."""
    evaluation = evaluate(trained, split, data)
    told = summary(evaluation)
    pictures = {}
    if not evaluation.multi_label:
        pictures["confusion"] = draw_confusion(confusion(evaluation), evaluation.classes)
    if told["mistakes"]:
        pictures["mistakes"] = draw_mistakes(evaluation, told)
    files = {name: folder / f"{name}_{split}.png" for name in ("confusion", "mistakes")}
    say(f"{trained.weights} on the {told['n']} images of {split}")
    if split == "test" and data is None and "valid" not in trained.saved["splits"]:
        say("The run validated on them, too: a best epoch chosen by that was chosen on the test set.")
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
    parser = tool_options.make_parser("evaluate_run")
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
