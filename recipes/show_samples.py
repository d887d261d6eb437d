"""Draws five random images of each split, titled label:name, into one picture.

    python recipes/show_samples.py -o samples.png

Data and split are those of resnet_products.py with the same options; images are drawn as they are scaled and cropped.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from recipes.online_products import SUPER_LABEL_NAMES
from recipes.resnet_products import load_splits, make_parser, settle

COUNT = 5


def draw(splits: dict[str, Any], seed: int) -> Any:
    """Returns a matplotlib figure: a row for each split, ``COUNT`` images in it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.0 * COUNT, 2.3 * len(splits)), layout="constrained")
    grid = figure.subplots(len(splits), COUNT, squeeze=False)
    rng = np.random.RandomState(seed % 2**32)
    for row, (name, data) in zip(grid, splits.items(), strict=True):
        for panel, index in zip(row, rng.choice(len(data), COUNT, replace=len(data) < COUNT), strict=True):
            pixels, label = data[int(index)]
            panel.imshow(pixels.permute(1, 2, 0).numpy())
            panel.set_title(f"{label}:{SUPER_LABEL_NAMES[label]}", fontsize=11)
            panel.set(xticks=[], yticks=[])
        row[0].set_ylabel(f"{name} ({len(data):,})", fontsize=11)
    return figure


def main(argv: list[str] | None = None) -> None:
    """Loads the splits and writes the picture."""
    parser = make_parser()
    parser.description = __doc__
    parser.add_argument("-o", metavar="FILE", default="samples.png", help="the picture to write (samples.png)")
    args = parser.parse_args(argv)
    try:
        splits = load_splits(settle(args))
        draw(splits, args.seed).savefig(args.o, dpi=100)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(f"Wrote {args.o}.")


if __name__ == "__main__":
    main()
