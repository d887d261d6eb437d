"""Writes digits as a hand does, for machines without MNIST, in the files that torchvision's ``MNIST`` reads."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from PIL import Image

from recipes.parts.drawn.folder import write_once
from recipes.parts.drawn.pen import Pen, Point

VERSION = "1"  # to be raised when the pictures change: an older folder is then drawn anew
TRAIN, TEST = 4000, 1000  # pictures of all digits
SIDE = 28

Strokes = tuple[tuple[Point, ...], ...]

# The ways to write each digit: every line is a way, every tuple in it a stroke through points.
WAYS: tuple[tuple[Strokes, ...], ...] = (
    (
        (((0.52, 0.14), (0.3, 0.3), (0.28, 0.68), (0.5, 0.86), (0.72, 0.66), (0.7, 0.3), (0.52, 0.14)),),
    ),
    (
        (((0.5, 0.14), (0.5, 0.5), (0.5, 0.86)),),
        (((0.36, 0.3), (0.52, 0.14)), ((0.52, 0.14), (0.52, 0.86))),
        (((0.38, 0.28), (0.52, 0.14)), ((0.52, 0.14), (0.52, 0.86)), ((0.34, 0.86), (0.7, 0.86))),
    ),
    (
        (((0.3, 0.3), (0.5, 0.14), (0.7, 0.3), (0.5, 0.6), (0.28, 0.85)), ((0.28, 0.85), (0.74, 0.84))),
        (((0.3, 0.28), (0.54, 0.14), (0.68, 0.36), (0.36, 0.82), (0.3, 0.7), (0.5, 0.76), (0.76, 0.84)),),
    ),
    (
        (((0.3, 0.2), (0.56, 0.14), (0.66, 0.3), (0.46, 0.46), (0.7, 0.64), (0.56, 0.84), (0.28, 0.8)),),
        (((0.3, 0.16), (0.68, 0.16)), ((0.68, 0.16), (0.46, 0.44), (0.7, 0.62), (0.54, 0.86), (0.28, 0.78))),
    ),
    (
        (((0.34, 0.16), (0.28, 0.52)), ((0.28, 0.52), (0.74, 0.52)), ((0.66, 0.16), (0.64, 0.86))),
        (((0.6, 0.14), (0.24, 0.6)), ((0.24, 0.6), (0.78, 0.6)), ((0.6, 0.14), (0.6, 0.86))),
    ),
    (
        (((0.68, 0.15), (0.34, 0.16)), ((0.34, 0.16), (0.32, 0.46)), ((0.32, 0.46), (0.7, 0.62), (0.28, 0.8))),
        (((0.7, 0.15), (0.38, 0.18), (0.32, 0.46), (0.6, 0.46), (0.68, 0.7), (0.48, 0.86), (0.26, 0.78)),),
    ),
    (
        (((0.62, 0.14), (0.36, 0.4), (0.3, 0.7), (0.5, 0.87), (0.68, 0.7), (0.52, 0.54), (0.33, 0.66)),),
    ),
    (
        (((0.28, 0.16), (0.72, 0.16)), ((0.72, 0.16), (0.52, 0.5), (0.44, 0.86))),
        (((0.28, 0.16), (0.72, 0.16)), ((0.72, 0.16), (0.52, 0.5), (0.44, 0.86)), ((0.36, 0.52), (0.68, 0.5))),
        (((0.28, 0.28), (0.3, 0.16)), ((0.3, 0.16), (0.72, 0.16)), ((0.72, 0.16), (0.54, 0.5), (0.5, 0.86))),
    ),
    (
        (((0.66, 0.2), (0.34, 0.22), (0.5, 0.48), (0.7, 0.7), (0.5, 0.87), (0.3, 0.7), (0.5, 0.48), (0.66, 0.2)),),
    ),
    (
        (((0.68, 0.3), (0.5, 0.14), (0.32, 0.32), (0.48, 0.48), (0.67, 0.32)), ((0.68, 0.26), (0.66, 0.86))),
        (((0.68, 0.3), (0.5, 0.14), (0.32, 0.32), (0.48, 0.48), (0.68, 0.3), (0.64, 0.7), (0.36, 0.84)),),
    ),
)  # fmt: skip


def draw(digit: int, rng: np.random.RandomState) -> np.ndarray:
    """Returns a digit in one of its ways, by a hand that shakes, slants, stretches, presses and misses the middle."""
    pen = Pen((255, 255, 255), (0, 0, 0), rng)
    strokes = WAYS[digit][rng.randint(len(WAYS[digit]))]
    slant, turn = rng.normal(0.08, 0.15), rng.normal(0, 0.08)
    stretch = np.diag(rng.uniform((0.75, 0.75), (1.15, 1.0)))
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    hand = stretch @ np.array([[1, -slant], [0, 1]]) @ rotation
    place, width = 0.5 + rng.normal(0, 0.025, 2), rng.uniform(0.05, 0.115)
    shaken: dict[Point, Point] = {}  # strokes that meet still nearly meet
    for stroke in strokes:
        for point in stroke:
            if point not in shaken:
                shaken[point] = tuple(place + hand @ (np.asarray(point) - 0.5 + rng.normal(0, 0.025, 2)))
        pen.stroke(*(shaken[point] for point in stroke), width=width)
    ink = pen.image.getchannel("A").resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(ink)


def write(root: str | Path, seed: int = 0) -> Path:
    """Writes ``MNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte`` to a folder, unless it is there; returns it."""
    return write_once(root, "drawn digits", VERSION, lambda folder: _fill(folder / "MNIST" / "raw", seed))


def _fill(folder: Path, seed: int) -> None:
    folder.mkdir(parents=True)
    rng = np.random.RandomState(seed)
    for split, count in (("train", TRAIN), ("t10k", TEST)):
        labels = rng.permutation(np.arange(count) % 10).astype(np.uint8)
        images = np.stack([draw(label, rng) for label in labels])
        _write_idx(folder / f"{split}-images-idx3-ubyte", images)
        _write_idx(folder / f"{split}-labels-idx1-ubyte", labels)


def _write_idx(path: Path, array: np.ndarray) -> None:
    """Writes bytes after the header of the format: the element type 8 (a byte), the shape as big-endian numbers."""
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(header + array.tobytes())
