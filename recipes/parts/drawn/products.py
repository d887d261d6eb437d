"""Draws the twelve kinds of product, for machines without the photographs.

The pictures stand on the disk as those of Stanford Online Products do, so whatever reads the one reads the other.
Only the shape tells the class: colours, background, size, position and lighting are drawn from the same
distributions for all.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from recipes.parts.drawn.folder import write_all, write_once
from recipes.parts.drawn.pen import Pen, background, colours, seen
from recipes.parts.online_products import HEADER, SUPER_LABEL_NAMES

VERSION = "1"  # to be raised when the pictures change: an older folder is then drawn anew
TRAIN_PRODUCTS, TEST_PRODUCTS, VIEWS = 125, 20, 2  # products of a kind in each list, photographs of a product


def bicycle(pen: Pen) -> None:
    r, y = pen.vary(0.19), 0.68
    left, right, seat, bar, pedals = (0.24, y), (0.76, y), (0.4, 0.4), (0.66, 0.36), (0.48, y)
    for x, _ in (left, right):
        pen.ring(x, y, r, 0.035)
        pen.disc(x, y, 0.03)
    pen.line(left, seat, pedals, left, width=0.03)
    pen.line(seat, bar, pedals, width=0.03)
    pen.line(bar, right, width=0.03)
    pen.line(bar, (0.64, 0.27), (0.74, 0.25), width=0.035)
    pen.line((0.39, 0.4), (0.375, 0.32), width=0.03)
    pen.line((0.3, 0.31), (0.45, 0.31), width=0.045, colour=pen.second)
    pen.disc(*pedals, 0.045, colour=pen.second)


def cabinet(pen: Pen) -> None:
    half, top = pen.vary(0.25), pen.vary(0.12, 0.4)
    x0, x1, bottom = 0.5 - half, 0.5 + half, 0.88
    pen.box(x0, top, x1, bottom)
    for x in (x0, x1 - 0.06):
        pen.box(x, bottom, x + 0.06, bottom + 0.06)
    drawer = top + 0.3 * (bottom - top)
    pen.line((x0, drawer), (x1, drawer), width=0.02, colour=pen.second)
    pen.line((0.5, drawer), (0.5, bottom), width=0.02, colour=pen.second)
    pen.line((x0 + 0.03, top + 0.03), (x1 - 0.03, top + 0.03), width=0.02, colour=pen.second)
    pen.line((0.44, (top + drawer) / 2), (0.56, (top + drawer) / 2), width=0.03, colour=pen.second)
    for x in (0.45, 0.55):
        pen.disc(x, (drawer + bottom) / 2, 0.022, colour=pen.second)


def chair(pen: Pen) -> None:
    x0, x1, seat = 0.3, pen.vary(0.7, 0.06), pen.vary(0.56, 0.06)
    pen.polygon((x0 - 0.06, 0.1), (x0 + 0.01, 0.1), (x0 + 0.08, seat), (x0 - 0.0, seat))
    pen.box(x0 - 0.01, seat, x1 + 0.02, seat + 0.08, colour=pen.second)
    for x, lean in ((x0 + 0.03, -0.06), (x1 - 0.03, 0.05)):
        pen.line((x, seat + 0.06), (x + lean, 0.93), width=0.05)
    pen.line((x0 + 0.01, 0.78), (x1, 0.78), width=0.03)


def coffee_maker(pen: Pen) -> None:
    x0, x1 = 0.22, pen.vary(0.78, 0.05)
    pen.box(x0, 0.12, x1, 0.34, radius=0.03)  # the tank and the filter above
    pen.box(x0, 0.12, x0 + 0.17, 0.9)  # the column behind
    pen.box(x0, 0.81, x1, 0.9, radius=0.02)  # the hot plate
    pen.polygon((0.46, 0.48), (x1 - 0.1, 0.48), (x1 - 0.06, 0.78), (0.43, 0.78), colour=pen.second)  # the jug
    pen.box(0.47, 0.43, x1 - 0.11, 0.48)
    pen.arc(x1 - 0.06, 0.62, 0.08, 0.1, -90, 90, 0.035)
    pen.disc(x0 + 0.085, 0.85, 0.022, colour=pen.second)


def fan(pen: Pen) -> None:
    r, y = pen.vary(0.29, 0.08), 0.37
    turn = pen.rng.uniform(0, 2 * np.pi)
    blades = int(pen.rng.choice([3, 4]))
    for blade in range(blades):
        angle = turn + 2 * np.pi * blade / blades
        side = [
            (0.5 + r * d * np.cos(angle + a), y + r * d * np.sin(angle + a))
            for d, a in ((0.1, 0), (0.6, -0.45), (0.88, -0.25), (0.88, 0.25), (0.5, 0.3))
        ]
        pen.polygon(*side, colour=pen.second)
    pen.ring(0.5, y, r, 0.03)
    pen.disc(0.5, y, 0.06)
    pen.box(0.475, y + r - 0.02, 0.525, 0.9)
    pen.box(0.32, 0.88, 0.68, 0.94, radius=0.02)


def kettle(pen: Pen) -> None:
    half, top = pen.vary(0.23, 0.08), 0.42
    pen.polygon((0.5 - half * 0.7, top), (0.5 + half * 0.7, top), (0.5 + half, 0.86), (0.5 - half, 0.86))
    pen.disc(0.5, 0.84, half, 0.05)
    pen.disc(0.5, top, half * 0.7, 0.06, colour=pen.second)
    pen.disc(0.5, top - 0.07, 0.035)
    pen.polygon((0.5 + half * 0.75, 0.66), (0.5 + half * 0.75, 0.54), (0.9, 0.36), (0.95, 0.42))  # the spout
    pen.arc(0.5, top, half * 0.95, pen.vary(0.27), 180, 360, 0.045)  # the handle, over the lid


def lamp(pen: Pen) -> None:
    top, bottom, shade = pen.vary(0.12, 0.2), pen.vary(0.26, 0.1), pen.vary(0.42, 0.06)
    pen.box(0.48, shade - 0.02, 0.52, 0.88)
    pen.polygon((0.5 - top, 0.1), (0.5 + top, 0.1), (0.5 + bottom, shade), (0.5 - bottom, shade), colour=pen.second)
    pen.disc(0.5, 0.89, pen.vary(0.17), 0.045)


def mug(pen: Pen) -> None:
    half, top = pen.vary(0.23, 0.1), pen.vary(0.28, 0.15)
    x = 0.44
    pen.arc(x + half, 0.56, 0.17, 0.17, -95, 95, 0.06)  # the handle
    pen.box(x - half, top, x + half, 0.84)
    pen.disc(x, 0.84, half, 0.05)
    pen.disc(x, top, half, 0.06)
    pen.disc(x, top, half * 0.86, 0.042, colour=pen.second)


def sofa(pen: Pen) -> None:
    top, seat = pen.vary(0.34, 0.08), 0.58
    pen.box(0.12, top, 0.88, 0.74, radius=0.05)
    for x0, x1 in ((0.18, 0.495), (0.505, 0.82)):
        pen.box(x0, seat, x1, 0.68, colour=pen.second, radius=0.02)
        pen.line((x1 if x0 < 0.3 else x0, top + 0.03), (x1 if x0 < 0.3 else x0, seat), width=0.012, colour=pen.second)
    for x in (0.04, 0.82):
        pen.box(x, 0.48, x + 0.14, 0.8, radius=0.05)
    for x in (0.09, 0.87):
        pen.box(x, 0.78, x + 0.04, 0.86)


def stapler(pen: Pen) -> None:
    lift = pen.vary(0.2, 0.3)
    pen.polygon((0.06, 0.7), (0.94, 0.7), (0.96, 0.77), (0.04, 0.77))  # the base
    pen.polygon((0.9, 0.66), (0.94, 0.5), (0.12, 0.5 - lift), (0.04, 0.56 - lift), (0.1, 0.62 - lift))  # the arm
    pen.polygon((0.88, 0.66), (0.12, 0.66 - lift), (0.12, 0.7 - lift), (0.8, 0.7), colour=pen.second)  # the magazine
    pen.disc(0.88, 0.62, 0.07)
    pen.disc(0.88, 0.62, 0.025, colour=pen.second)


def table(pen: Pen) -> None:
    top, inset = pen.vary(0.36, 0.1), pen.vary(0.06, 0.5)
    pen.polygon((0.14, top), (0.86, top), (0.96, top + 0.1), (0.04, top + 0.1), colour=pen.second)
    pen.box(0.04, top + 0.1, 0.96, top + 0.15)
    for x in (0.05 + inset, 0.9 - inset):
        pen.box(x, top + 0.14, x + 0.05, 0.88)
    for x in (0.17 + inset, 0.79 - inset):
        pen.box(x, top + 0.14, x + 0.035, 0.78)


def toaster(pen: Pen) -> None:
    top = pen.vary(0.42, 0.06)
    for x in (0.27, 0.52):
        pen.box(x, top - pen.vary(0.16), x + 0.19, top + 0.1, colour=pen.second, radius=0.05)  # two slices
    pen.box(0.14, top, 0.84, 0.82, radius=0.09)
    pen.box(0.2, 0.82, 0.28, 0.87)
    pen.box(0.7, 0.82, 0.78, 0.87)
    pen.line((0.84, 0.52), (0.84, 0.72), width=0.02, colour=pen.second)
    pen.box(0.82, pen.vary(0.56, 0.05), 0.94, 0.62)  # the lever
    pen.disc(0.3, 0.7, 0.045, colour=pen.second)


DRAWINGS: tuple[Callable[[Pen], None], ...] = (
    bicycle,
    cabinet,
    chair,
    coffee_maker,
    fan,
    kettle,
    lamp,
    mug,
    sofa,
    stapler,
    table,
    toaster,
)


def draw(kind: int, product_seed: int, view_seed: int) -> Image.Image:
    """Returns one picture: a product (its proportions and colours) as seen on one occasion (everything else)."""
    product = np.random.RandomState(product_seed)
    pen = Pen(*colours(product), product)
    DRAWINGS[kind](pen)
    view = np.random.RandomState(view_seed)
    height, width = (int(side) for side in view.randint(60, 73, 2))
    return seen(pen.image, background(view, height, width, pen.main), view)


def write(root: str | Path, seed: int = 0) -> Path:
    """Writes the drawn data set to a folder, unless it is there; returns the folder.

    ``Ebay_train.txt`` and ``Ebay_test.txt`` are sorted by class, as the real ones are, and hold different products.
    """
    return write_once(root, "drawn products", VERSION, lambda folder: _fill(folder, seed))


def _fill(root: Path, seed: int) -> None:
    rows: dict[str, list[str]] = {"train": [], "test": []}
    pictures = []
    image_id = class_id = 0
    for split, products in (("train", TRAIN_PRODUCTS), ("test", TEST_PRODUCTS)):
        for kind, name in enumerate(SUPER_LABEL_NAMES):
            (root / f"{name}_final").mkdir(exist_ok=True)
            for _ in range(products):
                class_id += 1
                for view in range(VIEWS):
                    image_id += 1
                    path = f"{name}_final/{100000 + class_id}_{view}.JPG"
                    seeds = seed * 1000003 + class_id, seed * 1000003 + 500000 + image_id
                    pictures.append((root / path, kind, *seeds))
                    rows[split].append(f"{image_id} {class_id} {kind + 1} {path}")
    write_all(_write, pictures)
    for split, lines in rows.items():
        (root / f"Ebay_{split}.txt").write_text("\n".join([HEADER, *lines]) + "\n")


def _write(path: Path, kind: int, product_seed: int, view_seed: int) -> None:
    draw(kind, product_seed, view_seed).save(path, "JPEG", quality=90)
