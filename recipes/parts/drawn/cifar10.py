"""Draws the ten kinds of thing of CIFAR-10, for machines without the photographs.

The pictures stand in a folder per class. As in the real ones the place says something, since airplanes are in the sky
and horses on grass, and the shape the rest: the colours of the things, their size, position and lighting are drawn from
the same distributions for all. Without any help from colour AlexNet, which has no batch norm, takes an hour to begin.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from recipes.parts.drawn.folder import write_classes, write_once
from recipes.parts.drawn.pen import Pen, colours, distance, gradient, seen

VERSION = "1"  # to be raised when the pictures change: an older folder is then drawn anew
TRAIN, TEST = 200, 40  # pictures of a class
SIDE = 32


def airplane(pen: Pen) -> None:
    tail, wing = pen.vary(0.22, 0.2), pen.vary(0.3, 0.2)
    pen.polygon((0.42, 0.5), (0.58, 0.5), (0.44, 0.48 - wing * 0.8), (0.36, 0.48 - wing * 0.8))  # the wing behind
    pen.polygon((0.07, 0.52), (0.05, 0.48 - tail), (0.14, 0.48 - tail), (0.3, 0.5))
    pen.disc(0.5, 0.53, 0.46, pen.vary(0.085))
    pen.polygon((0.42, 0.54), (0.62, 0.54), (0.36, 0.56 + wing), (0.24, 0.56 + wing), colour=pen.second)
    pen.line((0.3, 0.5), (0.8, 0.5), width=0.025, colour=pen.second)


def automobile(pen: Pen) -> None:
    roof, front = pen.vary(0.3, 0.12), pen.vary(0.74, 0.06)
    pen.polygon((0.14, 0.5), (0.28, roof), (0.62, roof), (front + 0.06, 0.5))
    pen.polygon((0.24, 0.48), (0.32, roof + 0.05), (0.44, roof + 0.05), (0.44, 0.48), colour=pen.second)
    pen.polygon((0.49, 0.48), (0.49, roof + 0.05), (0.6, roof + 0.05), (front - 0.03, 0.48), colour=pen.second)
    pen.box(0.03, 0.47, 0.97, 0.7, radius=0.08)
    for x in (0.25, 0.75):
        pen.disc(x, 0.7, 0.115, colour=pen.second)
        pen.disc(x, 0.7, 0.05)


def bird(pen: Pen) -> None:
    tail, back = pen.vary(0.46, 0.25), pen.vary(0.5, 0.06)
    for x in (0.46, 0.56):
        pen.line((x, 0.65), (x + 0.02, 0.9), (x + 0.09, 0.9), width=0.03, colour=pen.second)
    pen.polygon((0.36, back - 0.06), (0.02, tail), (0.06, tail + 0.12), (0.4, back + 0.1))
    pen.disc(0.5, back + 0.04, 0.24, 0.17)
    pen.polygon((0.5, back - 0.1), (0.68, 0.26), (0.82, 0.36), (0.72, back + 0.04))
    pen.disc(0.74, 0.3, 0.115)
    pen.polygon((0.83, 0.25), (0.99, 0.32), (0.83, 0.36), colour=pen.second)
    pen.polygon((0.62, back - 0.04), (0.56, back + 0.14), (0.2, back + 0.12), colour=pen.second)
    pen.disc(0.76, 0.28, 0.025, colour=pen.second)


def cat(pen: Pen) -> None:
    ear, tail = pen.vary(0.19, 0.15), pen.vary(0.24, 0.25)
    pen.stroke((0.62, 0.86), (0.86, 0.84), (0.88, 0.66), (0.76 + tail / 2, 0.5), width=0.075)
    pen.disc(0.48, 0.7, pen.vary(0.21), 0.24)
    pen.disc(0.48, 0.86, 0.24, 0.09)
    pen.disc(0.48, 0.34, 0.21, 0.18)
    for side in (-1, 1):
        pen.polygon((0.48 + 0.2 * side, 0.34), (0.48 + 0.19 * side, 0.24 - ear), (0.48 + 0.02 * side, 0.19))
        pen.disc(0.48 + 0.09 * side, 0.32, 0.038, colour=pen.second)
        pen.line((0.48 + 0.06 * side, 0.7), (0.48 + 0.06 * side, 0.94), width=0.025, colour=pen.second)
    pen.polygon((0.44, 0.4), (0.52, 0.4), (0.48, 0.45), colour=pen.second)


def deer(pen: Pen) -> None:
    reach = pen.vary(0.16, 0.2)
    _legs(pen, (0.26, 0.33, 0.58, 0.65), 0.55, 0.97, 0.035)
    pen.disc(0.45, 0.53, 0.25, 0.115)
    pen.disc(0.19, 0.46, 0.045, 0.06, colour=pen.second)  # the short tail
    pen.polygon((0.54, 0.5), (0.7, 0.26), (0.79, 0.3), (0.7, 0.58))
    pen.polygon((0.69, 0.25), (0.78, 0.22), (0.96, 0.36), (0.93, 0.41), (0.74, 0.37))
    for lean in (-0.1, 0.08):  # the antlers
        x = 0.73 + lean
        pen.line((0.73, 0.25), (x, 0.16), (x + lean / 3, 0.02), width=0.032)
        pen.line((x, 0.16), (x + reach / 1.6, 0.05), width=0.028)
        pen.line((x, 0.16), (x - reach / 1.6, 0.06), width=0.028)
    pen.disc(0.79, 0.29, 0.02, colour=pen.second)


def dog(pen: Pen) -> None:
    tail, back = pen.vary(0.16, 0.3), pen.vary(0.46, 0.04)
    _legs(pen, (0.22, 0.32, 0.58, 0.68), 0.6, 0.93, 0.075)
    pen.stroke((0.2, back + 0.05), (0.1, back - 0.02), (0.06, back - tail), width=0.06)
    pen.box(0.16, back, 0.74, 0.7, radius=0.1)
    pen.polygon((0.56, back + 0.05), (0.62, 0.24), (0.8, 0.3), (0.74, back + 0.14))
    pen.disc(0.72, 0.28, 0.14, 0.13)
    pen.box(0.74, 0.26, 0.96, 0.39, radius=0.05)
    pen.disc(0.95, 0.29, 0.035, colour=pen.second)
    pen.disc(0.63, 0.33, 0.07, pen.vary(0.145, 0.15), colour=pen.second)  # the hanging ear
    pen.disc(0.77, 0.24, 0.025, colour=pen.second)


def frog(pen: Pen) -> None:
    wide, top = pen.vary(0.3, 0.08), pen.vary(0.45, 0.05)
    for side in (-1, 1):
        pen.disc(0.5 + 0.3 * side, 0.72, 0.17, 0.13)  # the thigh
        pen.polygon((0.5 + 0.3 * side, 0.76), (0.5 + 0.49 * side, 0.9), (0.5 + 0.22 * side, 0.9))
        pen.line((0.5 + 0.12 * side, 0.75), (0.5 + 0.14 * side, 0.93), width=0.07, colour=pen.second)
    pen.disc(0.5, 0.7, 0.24, 0.19)
    pen.disc(0.5, top + 0.05, wide, 0.17)
    for side in (-1, 1):
        pen.disc(0.5 + 0.18 * side, top - 0.13, 0.105)
        pen.disc(0.5 + 0.18 * side, top - 0.14, 0.055, colour=pen.second)
    pen.line(
        *((0.5 + x * wide, top + 0.15 - 0.12 * x * x) for x in (-0.8, -0.4, 0.0, 0.4, 0.8)),
        width=0.03,
        colour=pen.second,
    )


def horse(pen: Pen) -> None:
    back, lift = pen.vary(0.44, 0.04), pen.vary(0.12, 0.5)
    _legs(pen, (0.22, 0.31, 0.58, 0.67), 0.6, 0.97, 0.055)
    pen.stroke((0.18, back + 0.06), (0.08, back + 0.1), (0.07, 0.78), width=0.07, colour=pen.second)
    pen.disc(0.44, back + 0.12, 0.29, 0.16)
    pen.polygon((0.5, back + 0.08), (0.68, 0.26 - lift), (0.82, 0.3 - lift), (0.73, back + 0.2))
    pen.polygon((0.68, 0.25 - lift), (0.78, 0.2 - lift), (0.98, 0.44 - lift), (0.92, 0.5 - lift), (0.74, 0.4 - lift))
    pen.polygon((0.7, 0.27 - lift), (0.69, 0.16 - lift), (0.76, 0.22 - lift))  # the ear
    pen.line((0.5, back), (0.58, 0.38 - lift / 2), (0.68, 0.24 - lift), width=0.075, colour=pen.second)  # the mane


def ship(pen: Pen) -> None:
    deck, funnel = pen.vary(0.6, 0.05), pen.vary(0.42, 0.1)
    pen.polygon((0.01, deck - 0.04), (0.12, deck + 0.02), (0.99, deck - 0.08), (0.86, 0.84), (0.14, 0.84))
    pen.box(0.24, deck - 0.15, 0.74, deck + 0.02, colour=pen.second)
    pen.box(0.32, deck - 0.27, 0.62, deck - 0.14)
    pen.box(funnel, deck - 0.46, funnel + 0.11, deck - 0.26, colour=pen.second)
    pen.line((0.8, deck), (0.8, pen.vary(0.16, 0.4)), width=0.025)
    for x in (0.3, 0.42, 0.54, 0.66):
        pen.disc(x, deck + 0.11, 0.024, colour=pen.second)


def truck(pen: Pen) -> None:
    top, cab = pen.vary(0.2, 0.25), pen.vary(0.4, 0.1)
    pen.box(0.02, top, 0.64, 0.68)
    pen.line((0.02, 0.7), (0.96, 0.7), width=0.05, colour=pen.second)
    pen.polygon((0.68, 0.7), (0.68, cab), (0.86, cab), (0.97, 0.55), (0.97, 0.7))
    pen.polygon((0.75, 0.54), (0.75, cab + 0.04), (0.84, cab + 0.04), (0.92, 0.54), colour=pen.second)
    for x in (0.14, 0.34, 0.82):
        pen.disc(x, 0.75, 0.095, colour=pen.second)
        pen.disc(x, 0.75, 0.04)


def _legs(pen: Pen, places: tuple[float, ...], top: float, bottom: float, width: float) -> None:
    for x in places:
        pen.line((x, top), (x + pen.rng.uniform(-0.04, 0.04), bottom), width=width)


DRAWINGS = {
    drawing.__name__: drawing for drawing in (airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck)
}


# The colour of the place in which a thing is seen; each picture's differs from it.
SKY, WATER, ROAD, ROOM, WOOD, GRASS = (
    (150, 190, 235),
    (50, 100, 150),
    (130, 130, 130),
    (205, 180, 150),
    (85, 75, 45),
    (110, 160, 70),
)
PLACES = {"airplane": SKY, "bird": SKY, "ship": WATER, "automobile": ROAD, "truck": ROAD, "cat": ROOM, "dog": ROOM}
PLACES |= {"deer": WOOD, "frog": WOOD, "horse": GRASS}


def draw(name: str, rng: np.random.RandomState) -> Image.Image:
    place, other = (rng.normal(PLACES[name], 25).clip(0, 255) for _ in range(2))
    main, second = colours(rng)
    while min(distance(main, place), distance(main, other)) < 110:
        main, second = colours(rng)
    pen = Pen(main, second, rng)
    DRAWINGS[name](pen)
    return seen(pen.image, gradient(rng, SIDE, SIDE, place, other), rng)


def write(root: str | Path, seed: int = 0) -> Path:
    """Writes ``train/<class>/*.png`` and ``test/<class>/*.png`` to a folder, unless it is there; returns the folder."""
    counts = {"train": TRAIN, "test": TEST}
    return write_once(
        root, "drawn cifar10", VERSION, lambda folder: write_classes(folder, draw, DRAWINGS, counts, ".png", seed)
    )
