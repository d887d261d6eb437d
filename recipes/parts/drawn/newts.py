"""Draws two newts, for machines without the photographs: akahara, the red-bellied, and madara, the mottled.

The pictures stand in a folder per class, as few of them as there are photographs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from recipes.parts.drawn.folder import write_classes, write_once
from recipes.parts.drawn.pen import Colour, Pen, seen

VERSION = "1"  # to be raised when the pictures change: an older folder is then drawn anew
TRAIN, TEST = 8, 3  # pictures of a class
CLASSES = ("akahara", "madara")
PARTS = 60  # points of the spine


def draw(name: str, rng: np.random.RandomState) -> Image.Image:
    dark, red, green = _near(rng, (62, 46, 42)), _near(rng, (225, 75, 35)), _near(rng, (125, 175, 70))
    red_bellied = name == "akahara"
    pen = Pen(dark if red_bellied else green, red if red_bellied else dark, rng)
    spine, half = _spine(rng)
    _legs(pen, spine, half)
    for (x, y), r in zip(spine, half, strict=True):
        pen.disc(x, y, r)
    _spots(pen, spine, half, on_flanks=red_bellied)
    _, across = _directions(spine)
    for side in (-1, 1):
        x, y = spine[4] + side * 0.75 * half[4] * across[4]
        pen.disc(x, y, 0.016, colour=(235, 215, 150))
        pen.disc(x, y, 0.01, colour=(15, 15, 15))
    return seen(pen.image, _gravel(rng), rng, tilt=180)


def _gravel(rng: np.random.RandomState) -> Image.Image:
    """Returns the ground, which is of the same colours for both newts."""
    height, width, ground = int(rng.randint(90, 111)), int(rng.randint(120, 137)), _near(rng, (165, 155, 140))
    image = Image.new("RGB", (width, height), ground)
    draw = ImageDraw.Draw(image)
    for x, y, r in rng.rand(250, 3) * (width, height, 5):
        tone = _near(rng, ground)
        draw.ellipse((x - r - 1, y - r - 1, x + r + 1, y + r + 1), fill=tone)
    return image


def _near(rng: np.random.RandomState, colour: Colour) -> Colour:
    return tuple(int(c) for c in np.clip(np.asarray(colour) * rng.uniform(0.75, 1.2) + rng.uniform(-12, 12, 3), 0, 255))


def _spine(rng: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    """Returns points from the nose to the end of the tail, bent at random, and half the body's width at each."""
    s = np.linspace(0, 1, PARTS)
    heading = rng.uniform(0.5, 1.5) * np.sin(2 * np.pi * rng.uniform(0.5, 1.0) * s + rng.uniform(0, 2 * np.pi))
    spine = np.stack([np.cos(heading), np.sin(heading)], 1).cumsum(0) / PARTS
    places = (0, 0.03, 0.09, 0.15, 0.19, 0.33, 0.47, 0.56, 0.75, 1)
    widths = (0.035, 0.06, 0.078, 0.062, 0.056, 0.088, 0.075, 0.045, 0.032, 0.008)
    half = np.interp(s, places, widths) * rng.uniform(0.9, 1.2)
    spine -= (spine.min(0) + spine.max(0)) / 2
    scale = 0.48 / (np.linalg.norm(spine, axis=1) + 0.06).max()  # in a circle: it will be turned
    return 0.5 + scale * spine, scale * half


def _directions(spine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    along = np.gradient(spine, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    return along, along[:, ::-1] * (-1, 1)


def _legs(pen: Pen, spine: np.ndarray, half: np.ndarray) -> None:
    along, across = _directions(spine)
    for at, forward in ((13, -1), (29, 1)):
        for side in (-1, 1):
            out, length = side * across[at], pen.vary(0.085)
            lean = pen.rng.uniform(-0.3, 0.8) * forward * along[at]
            hip = spine[at] + 0.7 * half[at] * out
            knee = hip + length * (out + lean)
            foot = knee + 0.8 * length * (0.5 * out - lean + pen.rng.uniform(-0.2, 0.6) * -along[at])
            pen.stroke(tuple(hip), tuple(knee), tuple(foot), width=0.042)
            for spread in (-0.7, 0.0, 0.7):
                toe = foot + 0.036 * (out + spread * along[at])
                pen.line(tuple(foot), tuple(toe), width=0.014)


def _spots(pen: Pen, spine: np.ndarray, half: np.ndarray, on_flanks: bool) -> None:
    """Draws the second colour's spots, each of a few discs, on the flanks or anywhere."""
    _, across = _directions(spine)
    for at in range(2, PARTS - 2, 2):
        for side in (-1, 1):
            if pen.rng.rand() < 0.3:
                continue
            place = spine[at] + side * half[at] * across[at] * (0.72 if on_flanks else pen.rng.uniform(0.15, 0.95))
            for _ in range(3):
                r = half[at] * pen.rng.uniform(0.13, 0.32)
                pen.disc(*(place + pen.rng.uniform(-0.25, 0.25, 2) * half[at]), r, colour=pen.second)


def write(root: str | Path, seed: int = 0) -> Path:
    """Writes ``train/<class>/*.jpg`` and ``test/<class>/*.jpg`` to a folder, unless it is there; returns the folder."""
    counts = {"train": TRAIN, "test": TEST}
    return write_once(
        root, "drawn newts", VERSION, lambda folder: write_classes(folder, draw, CLASSES, counts, ".jpg", seed)
    )
