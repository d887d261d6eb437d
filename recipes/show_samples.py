"""Draws five random images of each split, titled label:name, into one picture.

    python recipes/show_samples.py -o samples.png
    python recipes/show_samples.py pets --sample -o samples.png

Data and split are those of the named recipe (resnet_products) with the same options; images are drawn as the network
gets them, augmented if they are to train on.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

import trainer.random
from recipes.parts import common
from recipes.parts.parser import say, stop
from recipes.parts.pictures import use_installed_fonts, write_figure
from trainer.checks import printable

COUNT = 5


def draw(splits: common.Splits, classes: list[str], seed: int) -> Any:
    """Returns a matplotlib figure: a row for each split, ``COUNT`` images in it."""
    from matplotlib.figure import Figure

    use_installed_fonts()
    figure = Figure(figsize=(2.0 * COUNT, 2.3 * len(splits)), layout="constrained")
    grid = figure.subplots(len(splits), COUNT, squeeze=False)
    rng = np.random.RandomState(seed % 2**32)
    for row, (name, data) in zip(grid, splits.items(), strict=True):
        for panel, index in zip(row, rng.choice(len(data), COUNT, replace=len(data) < COUNT), strict=True):
            pixels, label = data[int(index)]
            panel.imshow(pixels.permute(1, 2, 0).numpy(), cmap="gray", vmin=0, vmax=255)
            panel.set_title(printable(f"{int(label)}:{classes[int(label)]}"), fontsize=11, parse_math=False)
            panel.set(xticks=[], yticks=[])
        row[0].set_ylabel(f"{name} ({len(data):,})", fontsize=11)
    return figure


def main(argv: list[str] | None = None) -> None:
    """Loads the splits and writes the picture."""
    argv = sys.argv[1:] if argv is None else argv
    name = argv[0] if argv and not argv[0].startswith("-") else "resnet_products"
    try:
        recipe = common.load_recipe(name)
    except ValueError as error:
        stop(f"show_samples.py: error: {error}")
    parser = common.make_parser(recipe)
    parser.description = __doc__
    parser.add_argument("recipe", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("-o", metavar="FILE", default="samples.png", help="the picture to write (samples.png)")
    args = parser.parse_args(argv)
    if args.recipe not in (None, name):
        parser.error(f"the recipe's name comes first: show_samples.py {args.recipe} ...")
    del args.recipe
    try:
        common.settle(recipe, args)
        common.bring_data(recipe, args)
        trainer.random.set_seed(args.seed)
        write_figure(Path(args.o), draw(*common.load(recipe, args, True), args.seed), dpi=100)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    say(f"Wrote {args.o}.")


if __name__ == "__main__":
    main()
