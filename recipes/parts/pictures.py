"""The pictures that tools draw: a confusion matrix, and images with titles; names may hold any character."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recipes.parts.parser import say
from trainer import saving
from trainer.checks import printable

FEW = 3  # classes
MOST_NUMBERED = 100  # classes: beyond, the numbers in the confusion matrix could not be read
CJK_FONTS = ("Noto Sans CJK JP", "Noto Sans JP", "IPAexGothic", "IPAGothic", "Hiragino Sans", "Yu Gothic", "Meiryo")
WRONG, RIGHT = "\N{BALLOT X}", "\N{CHECK MARK}"


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


def title_of_labels(prediction: Sequence[str], truth: Sequence[str]) -> str:
    """Returns the title of an image with wrong labels: the missing ones, and those too much."""
    missing, extra = (
        [name for name in names if name not in others] for names, others in ((truth, prediction), (prediction, truth))
    )
    parts = [f"{word}: {some(names)}" for word, names in (("missing", missing), ("too much", extra)) if names]
    return f"{WRONG} " + "\n".join(parts)


def some(names: Sequence[str], between: str = ", ") -> str:
    """Returns the first few of some names, and how many more there are."""
    more = [f"and {len(names) - FEW} more"] if len(names) > FEW else []
    return between.join([*names[:FEW], *more])


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


def write_figure(path: Path, figure: Any, dpi: int = 120) -> None:
    """Writes a picture, whole or not at all; its suffix says of which format."""
    with warnings.catch_warnings(record=True) as caught:  # matplotlib warns of each character, in two lines
        warnings.simplefilter("always")
        saving.write(path, lambda file: figure.savefig(file, format=path.suffix[1:] or None, dpi=dpi))
    told = [str(warning.message) for warning in caught]
    if any(line.startswith("Glyph ") for line in told):
        needed = f"install one, such as {CJK_FONTS[0]}."
        say(f"{path.name} has boxes for characters that no font here has: {needed}", sys.stderr)
    for line in dict.fromkeys(line for line in told if not line.startswith("Glyph ")):
        say(f"{path.name}: {line}", sys.stderr)
