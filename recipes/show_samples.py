"""Draws five random images of each split, titled label:name, into one picture.

    python recipes/show_samples.py -o samples.png
    python recipes/show_samples.py pets --sample -o samples.png

Data and splits are those of the recipe (resnet_products) with the same options. Images are drawn as the network gets
them, training images augmented.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from recipes.parts.parser import Parser, as_typed, say
from recipes.parts.pictures import use_installed_fonts, write_figure
from recipes.parts.trained import find_recipe
from trainer.checks import printable
from trainer.random import set_seed

COUNT = 5


def draw(splits: dict[str, Any], classes: list[str], seed: int) -> Any:
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
            several = label.nonzero().flatten().tolist() if getattr(label, "ndim", 0) else [int(label)]
            title = "\n".join(printable(f"{number}:{classes[number]}") for number in several) or "no label"
            panel.set_title(title, fontsize=11 if len(several) < 2 else 7, parse_math=False)
            panel.set(xticks=[], yticks=[])
        row[0].set_ylabel(f"{name} ({len(data):,})", fontsize=11)
    return figure


def main(argv: list[str] | None = None) -> None:
    """Loads the splits and writes the picture."""
    argv = sys.argv[1:] if argv is None else argv
    parser = Parser(description=as_typed(__doc__ or "", "show_samples"), allow_abbrev=False)
    parser.add_argument("-o", metavar="FILE", default="samples.png", help="the picture to write (samples.png)")
    name, *rest = argv if argv and not argv[0].startswith("-") else ["resnet_products", *argv]
    args, rest = parser.parse_known_args(rest)
    try:
        recipe = find_recipe(name)
        of_recipe = recipe.OPTIONS.parse(rest)
        set_seed(of_recipe.seed)
        write_figure(Path(args.o), draw(*recipe.load(of_recipe, augment=True), of_recipe.seed), dpi=100)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    say(f"Wrote {args.o}.")


if __name__ == "__main__":
    main()
