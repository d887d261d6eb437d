"""Classifies images by the network of a run.

    python recipes/predict.py result photo.jpg
    python recipes/predict.py result/model_epoch-4 photos --format csv -o predictions.csv --grid predictions.png

Classes, network and what is done to an image are those of the run. A folder stands for all images in it and in its
folders, sorted (.jpg, .png and whatever Pillow reads; nothing whose name begins with a dot); other files in it are told
on the standard error. An image that is broken is told there and left out; the others are predicted, and the exit code
is 1.
"""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from recipes.evaluate_run import THRESHOLD, chosen, open_run, refuse_nan
from recipes.parts import tool_options
from recipes.parts.image_files import BadImageError, files_in, read_named, unfit
from recipes.parts.own_images import left_out
from recipes.parts.parser import csv_line, say, stop
from recipes.parts.pictures import draw_images, some, title_of, write_figure
from recipes.parts.tool_options import FEW, MOST_DRAWN, TOP
from recipes.parts.trained import Trained, probabilities
from recipes.parts.transforms import collate_images
from trainer.checks import printable


class Prediction(NamedTuple):
    """The probability of each class, float32 of shape (classes,), for the image (uint8, (C, H, W)) of a file."""

    path: str
    image: torch.Tensor
    probabilities: np.ndarray


def find_images(names: Iterable[str]) -> list[str]:
    """Returns the given files, and the images in the given folders.

    Raises:
        FileNotFoundError: If there is no such file, or no image in a folder.
    """
    paths = []
    for name in names:
        if os.path.isdir(name):
            files = files_in(name)
            left = defaultdict(list)  # out, by the reason
            for path in files:
                if why := unfit(path):
                    left[why].append(os.path.relpath(path, name))
            found, told = [path for path in files if not unfit(path)], left_out(left)
            if not found:
                what = "; ".join([f"{name} holds no image (.jpg, .png and the like)", *told])
                raise FileNotFoundError(f"{what}; name another folder.")
            for line in told:
                say(f"{name}: {line}.", sys.stderr)
            paths += found
        elif os.path.exists(name):
            paths.append(name)
        else:
            raise FileNotFoundError(f"there is no {name}: name image files, or folders of images.")
    return paths


def predict(trained: Trained, paths: Iterable[str], broken: list[str]) -> Iterator[Prediction]:
    """Yields the predictions of image files, batch after batch; errors of broken files are added to ``broken``.

    Raises:
        ValueError: If the network outputs NaN.
    """
    read, batch = trained.recipe.reader(trained.args), []
    for path in paths:
        try:
            batch.append((path, read_named(read, path)))
        except BadImageError as error:
            say(str(error), sys.stderr)
            broken.append(str(error))
        if len(batch) == trained.args.batch_size:
            yield from _predicted(trained, batch)
            batch = []
    if batch:
        yield from _predicted(trained, batch)


def _predicted(trained: Trained, batch: list[tuple[str, torch.Tensor]]) -> Iterator[Prediction]:
    found, _ = probabilities(trained, [collate_images([(image, 0) for _, image in batch])])  # no labels are known
    refuse_nan(found, trained)
    for (path, image), row in zip(batch, found, strict=True):
        yield Prediction(path, image, row)


def truth_of(path: str, classes: list[str]) -> str | None:
    """Returns the class that a file is named after, or None; ``--help`` says how."""
    file = Path(path).absolute()
    names = (file.parent.name, file.parent.name.rpartition("_")[0], file.stem.rpartition("_")[0])
    return next((name for name in names if name in classes), None)


# -- the output


def text_lines(
    found: Iterable[Prediction], classes: list[str], paths: list[str], top: int | None, several: bool = False
) -> Iterator[str]:
    """Yields a line for each image: its path, and the most probable classes in columns.

    Where an image may have ``several`` labels, all that are predicted come first, then a bar, then others up to
    ``top``.
    """
    count = top or (len(classes) if len(classes) <= FEW else TOP)
    classes = [printable(name) for name in classes]
    path_width, width = (max(len(printable(name)) for name in names) for names in (paths, classes))
    for path, _, row in found:
        best = np.argsort(-row, kind="stable")
        columns = [f"{classes[i]:{width}} {row[i]:.4f}" for i in best]
        if several:
            n = int((row >= THRESHOLD).sum())
            columns = [*columns[:n], "|", *columns[n : max(n, count)]]
        else:
            columns = columns[:count]
        yield "  ".join([f"{printable(path):{path_width}}", *columns]) + "\n"


def json_lines(found: Iterable[Prediction], classes: list[str], several: bool = False) -> Iterator[str]:
    """Yields the lines of a JSON list; with ``several`` labels to an image the prediction is a list, too."""
    start = "[\n"
    for path, _, row in found:
        best, all_of_them = int(row.argmax()), row.tolist()
        told: dict[str, Any] = {"path": path}
        if several:
            told["prediction"] = chosen(classes, row >= THRESHOLD)
        else:
            told |= {"prediction": classes[best], "probability": all_of_them[best]}
        told["probabilities"] = dict(zip(classes, all_of_them, strict=True))
        yield start + json.dumps(told)
        start = ",\n"
    yield "\n]\n" if start != "[\n" else "[]\n"


def csv_lines(
    found: Iterable[Prediction], classes: list[str], shown: Callable[[str], str] = str, several: bool = False
) -> Iterator[str]:
    """Yields the lines of a table: path, prediction, probability, and a column for each class; names as ``shown``.

    With ``several`` labels to an image ``;`` joins them, and only the columns of the classes have probabilities.
    """
    classes = [shown(name) for name in classes]
    yield csv_line(["path", "prediction", *([] if several else ["probability"]), *classes])
    for path, _, row in found:
        best, all_of_them = int(row.argmax()), row.tolist()
        first = [";".join(chosen(classes, row >= THRESHOLD))] if several else [classes[best], all_of_them[best]]
        yield csv_line([shown(path), *first, *all_of_them])


def draw(found: list[Prediction], classes: list[str], several: bool = False) -> Any:
    """Returns a matplotlib figure of images with what they were taken for and, if it is known, the truth."""
    titles = []
    for path, _, row in found:
        best = np.argsort(-row, kind="stable")
        if several:
            labels = [f"{classes[i]} ({row[i]:.2f})" for i in best if row[i] >= THRESHOLD]
            titles.append(some(labels, "\n") or "no label")
        else:
            titles.append(title_of(classes[best[0]], row[best[0]], truth_of(path, classes)))
    return draw_images([one.image for one in found], titles)


def kept(found: Iterable[Prediction], drawn: list[Prediction] | None) -> Iterator[Prediction]:
    """Yields predictions, and adds the first few to ``drawn``, if that is a list."""
    for one in found:
        if drawn is not None and len(drawn) < MOST_DRAWN:
            drawn.append(one)
        yield one


# -- the command line


def main(argv: list[str] | None = None) -> None:
    """Predicts, prints and draws."""
    parser = tool_options.make_parser("predict")
    args = parser.parse_args(argv)
    if args.top is not None and args.top < 1:
        parser.error(f"--top must be 1 or more, got {args.top}.")
    if args.grid and not args.grid.lower().endswith((".png", ".svg", ".pdf")):
        parser.error(f"--grid must end in .png, .svg or .pdf, got {args.grid}.")
    if args.grid and not Path(args.grid).absolute().parent.is_dir():
        parser.error(f"--grid {args.grid}: there is no folder {Path(args.grid).parent}.")
    broken: list[str] = []
    try:
        paths = find_images(args.images)
        trained = open_run(parser, args, args.weights, workers=0)
        drawn: list[Prediction] = []
        found = kept(predict(trained, paths, broken), drawn if args.grid else None)
        several = bool(getattr(trained.args, "multi_label", False))
        lines = {
            "text": text_lines(found, trained.classes, paths, args.top, several),
            "json": json_lines(found, trained.classes, several),
            "csv": csv_lines(found, trained.classes, printable if args.o is None else str, several),
        }[args.format]  # none has begun
        any_name = {"encoding": "utf-8", "errors": "surrogateescape", "newline": "\n"}
        with nullcontext(sys.stdout) if args.o is None else open(args.o, "w", **any_name) as out:
            out.writelines(lines)
            out.flush()
        if drawn:
            write_figure(Path(args.grid), draw(drawn, trained.classes, several))
    except BrokenPipeError:  # head, say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python reports it at exit
        if args.grid:
            stop(f"{args.grid} is not drawn: the output was closed.")
        sys.exit(1)
    except (OSError, ValueError) as error:
        if args.o is not None and getattr(error, "errno", None) and getattr(error, "filename", None) is None:
            if os.path.isfile(args.o):  # and no device
                os.remove(args.o)  # a table without its end
            error = OSError(error.errno, error.strerror, args.o)  # type: ignore[union-attr]
        parser.error(str(error))
    if broken:
        stop(f"{len(broken)} of {len(paths)} images could not be used.")


if __name__ == "__main__":
    main()
