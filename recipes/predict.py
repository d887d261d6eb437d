"""Says what is on images, by the network of a run.

    python recipes/predict.py result photo.jpg
    python recipes/predict.py result/model_epoch-4 photos --format csv -o predictions.csv --grid predictions.png

Classes, network and what is done to an image are those of the run. A folder stands for all images in it and in its
folders, sorted (.jpg, .png and whatever Pillow reads; nothing whose name begins with a dot). An image that is broken is
told on the standard error and left out; the others are predicted, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from recipes.evaluate_run import add_options, draw_images, open_run, refuse_nan, title_of, write_figure
from recipes.parts.image_files import BadImageError, images_in, read_named
from recipes.parts.parser import Parser, say, stop
from recipes.parts.trained import Trained, probabilities
from recipes.parts.transforms import collate_images
from trainer.checks import printable

FEW = 5  # classes: all of them fit a line of the terminal
TOP = 3  # of more
# A spreadsheet takes a text that begins with one of these for a formula; with an apostrophe before it, for a text. An
# apostrophe gets one, too: to read a table, take one away.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "'")
MOST_DRAWN = 64  # images: more would be too small to see, and have to be kept


class Prediction(NamedTuple):
    """The probability of each class, float32 of shape (classes,), for the image (uint8, (C, H, W)) of a file."""

    path: str
    image: torch.Tensor
    probabilities: np.ndarray


def find_images(names: Iterable[str]) -> list[str]:
    """Returns the files that are named, and the images in the folders that are.

    Raises:
        FileNotFoundError: If there is no such file, or no image in a folder.
    """
    paths = []
    for name in names:
        if os.path.isdir(name):
            found = images_in(name)
            if not found:
                raise FileNotFoundError(f"{name} holds no image (.jpg, .png and the like); name another folder.")
            paths += found
        elif os.path.exists(name):
            paths.append(name)
        else:
            raise FileNotFoundError(f"there is no {name}: name image files, or folders of images.")
    return paths


def predict(trained: Trained, paths: Iterable[str], broken: list[str]) -> Iterator[Prediction]:
    """Yields the predictions of image files, batch after batch; what is wrong with others is put on a list.

    Raises:
        ValueError: If the network gives no numbers.
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


# -- how it is told


def text_lines(found: Iterable[Prediction], classes: list[str], paths: list[str], top: int | None) -> Iterator[str]:
    """Yields a line for each image: its path, and the most probable classes in columns."""
    count = top or (len(classes) if len(classes) <= FEW else TOP)
    classes = [printable(name) for name in classes]
    path_width, width = (max(len(printable(name)) for name in names) for names in (paths, classes))
    for path, _, row in found:
        best = np.argsort(-row, kind="stable")[:count]
        columns = [f"{classes[i]:{width}} {row[i]:.4f}" for i in best]
        yield "  ".join([f"{printable(path):{path_width}}", *columns]) + "\n"


def json_lines(found: Iterable[Prediction], classes: list[str]) -> Iterator[str]:
    """Yields the lines of a JSON list."""
    start = "[\n"
    for path, _, row in found:
        best, all_of_them = int(row.argmax()), row.tolist()
        told = {"path": path, "prediction": classes[best], "probability": all_of_them[best]}
        told["probabilities"] = dict(zip(classes, all_of_them, strict=True))
        yield start + json.dumps(told)
        start = ",\n"
    yield "\n]\n" if start != "[\n" else "[]\n"


def csv_lines(found: Iterable[Prediction], classes: list[str], shown: Callable[[str], str] = str) -> Iterator[str]:
    """Yields the lines of a table: path, prediction, probability, and a column for each class; names as ``shown``."""
    classes = [shown(name) for name in classes]
    yield _csv_line(["path", "prediction", "probability", *classes])
    for path, _, row in found:
        best, all_of_them = int(row.argmax()), row.tolist()
        yield _csv_line([shown(path), classes[best], all_of_them[best], *all_of_them])


def _csv_line(values: list[Any]) -> str:
    line = io.StringIO()
    cells = [f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value for value in values]
    csv.writer(line).writerow(cells)  # with \r\n, for until Python 3.13 it quotes only what its lines end with
    return line.getvalue()[:-2] + "\n"


def draw(found: list[Prediction], classes: list[str]) -> Any:
    """Returns a matplotlib figure of images with what they were taken for and, if it is known, the truth."""
    best = [int(row.argmax()) for _, _, row in found]
    titles = [
        title_of(classes[i], one.probabilities[i], truth_of(one.path, classes))
        for i, one in zip(best, found, strict=True)
    ]
    return draw_images([one.image for one in found], titles)


def kept(found: Iterable[Prediction], drawn: list[Prediction] | None) -> Iterator[Prediction]:
    """Yields predictions; the first few are put on a list, if there is one."""
    for one in found:
        if drawn is not None and len(drawn) < MOST_DRAWN:
            drawn.append(one)
        yield one


# -- the command line


def make_parser() -> argparse.ArgumentParser:
    """Returns the command line."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    weights = "a file of weights in the folder of a run, or that folder: then the last ones"
    parser.add_argument("weights", metavar="WEIGHTS", help=weights)
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="image files, or folders of them")
    parser.add_argument("--format", choices=("text", "json", "csv"), default="text", help="of what is told (text)")
    top = f"classes in a line of text (all, if there are no more than {FEW}; else {TOP})"
    parser.add_argument("--top", type=int, metavar="N", help=top)
    parser.add_argument("-o", metavar="FILE", help="where it is written (the standard output)")
    grid = f"draw the first {MOST_DRAWN} images into a PNG, SVG or PDF, with the prediction and, if the folder or the"
    grid += " file is named after it (pug/, pug_final/ or pug_12.jpg), the truth"
    parser.add_argument("--grid", metavar="FILE", help=grid)
    add_options(parser)
    return parser


def main(argv: list[str] | None = None) -> None:
    """Predicts and tells."""
    parser = make_parser()
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
        lines = {
            "text": text_lines(found, trained.classes, paths, args.top),
            "json": json_lines(found, trained.classes),
            "csv": csv_lines(found, trained.classes, printable if args.o is None else str),
        }[args.format]  # none has begun
        any_name = {"encoding": "utf-8", "errors": "surrogateescape", "newline": "\n"}
        with nullcontext(sys.stdout) if args.o is None else open(args.o, "w", **any_name) as out:
            out.writelines(lines)
            out.flush()
        if drawn:
            write_figure(Path(args.grid), draw(drawn, trained.classes))
    except BrokenPipeError:  # head, say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python tells of it when it exits
        if args.grid:
            stop(f"{args.grid} is not drawn: the output was closed.")
        sys.exit(1)
    except (OSError, ValueError) as error:
        if args.o is not None and getattr(error, "errno", None) and getattr(error, "filename", None) is None:
            os.remove(args.o)  # a table without its end
            error = OSError(error.errno, error.strerror, args.o)  # type: ignore[union-attr]
        parser.error(str(error))
    if broken:
        stop(f"{len(broken)} of {len(paths)} images could not be used.")


if __name__ == "__main__":
    main()
