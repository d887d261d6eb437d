"""Draws faces of cats and dogs of six breeds, for machines without the photographs of the Oxford-IIIT Pet data set.

The ears tell the species, markings and the form of face and muzzle the breed; coats are of the same hues for all.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from recipes.parts.drawn.folder import write_all, write_once
from recipes.parts.drawn.pen import Colour, Pen, background, seen

VERSION = "1"  # to be raised when the pictures change: an older folder is then drawn anew
PICTURES = 60  # of a breed
COATS = ((226, 200, 160), (200, 140, 85), (150, 100, 62), (135, 135, 142), (110, 90, 78), (215, 165, 110))
BLACK, WHITE, CREAM = (25, 20, 20), (250, 247, 240), (246, 232, 208)
# Behind their .jpg names some of the real pictures are of other kinds; so are these.
OTHER_FORMATS = {"Bengal_1.jpg": ("GIF", "P"), "beagle_1.jpg": ("PNG", "RGBA")}


def Siamese(pen: Pen) -> None:
    points = _mix(pen.main, BLACK, 0.8)
    pen.main = _mix(pen.main, CREAM, 0.75)
    _upright_ears(pen, 0.27, points, pen.second)
    pen.polygon((0.18, 0.4), (0.3, 0.24), (0.7, 0.24), (0.82, 0.4), (0.6, 0.88), (0.4, 0.88))
    pen.disc(0.5, 0.42, 0.325, 0.2)
    pen.disc(0.5, 0.6, pen.vary(0.18), pen.vary(0.26, 0.08), colour=points)  # the mask
    _cat_eyes(pen, 0.145, 0.46, (90, 150, 225))
    _cat_nose(pen, 0.66, points)


def Bengal(pen: Pen) -> None:
    marks = _mix(pen.main, BLACK, 0.75)
    _upright_ears(pen, 0.2, pen.main, pen.second)
    pen.disc(0.5, 0.53, 0.34, pen.vary(0.32, 0.06))
    for x, lean in ((-0.17, -0.05), (-0.06, -0.01), (0.06, 0.01), (0.17, 0.05)):  # the stripes of the forehead
        pen.line((0.5 + x, 0.38), (0.5 + x + lean, pen.vary(0.25, 0.05)), width=0.035, colour=marks)
    for side in (-1, 1):
        pen.line((0.5 + 0.22 * side, 0.52), (0.5 + 0.32 * side, 0.5), width=0.03, colour=marks)
        for _ in range(9):
            x, y = pen.rng.uniform(0.14, 0.3), pen.rng.uniform(0.54, 0.76)
            if x + (y - 0.5) < 0.45:
                pen.disc(0.5 + x * side, y, pen.vary(0.02, 0.4), colour=marks)
    pen.disc(0.5, 0.71, 0.13, 0.1, colour=_mix(pen.main, WHITE, 0.6))
    _cat_eyes(pen, 0.14, 0.48, (150, 190, 90))
    _cat_nose(pen, 0.65, (190, 100, 95))


def British_Shorthair(pen: Pen) -> None:
    _upright_ears(pen, 0.12, pen.main, pen.second)
    pen.disc(0.5, 0.53, pen.vary(0.4, 0.04), 0.33)
    for side in (-1, 1):
        pen.disc(0.5 + 0.2 * side, 0.66, 0.22, 0.19)  # the cheeks
        pen.disc(0.5 + 0.07 * side, 0.7, 0.1, 0.08, colour=_mix(pen.main, WHITE, 0.25))
    _cat_eyes(pen, 0.17, 0.47, (230, 160, 50))
    _cat_nose(pen, 0.63, _mix(pen.main, BLACK, 0.5))


def beagle(pen: Pen) -> None:
    ears = _mix(pen.main, BLACK, 0.35)
    pen.disc(0.5, 0.48, 0.27, pen.vary(0.33, 0.06))
    pen.polygon((0.46, 0.16), (0.54, 0.16), (0.6, 0.5), (0.4, 0.5), colour=WHITE)  # the blaze
    pen.disc(0.5, 0.68, pen.vary(0.17), 0.2, colour=WHITE)
    for side in (-1, 1):
        pen.disc(0.5 + 0.3 * side, 0.52, 0.105, pen.vary(0.31, 0.08), colour=ears)
    _dog_eyes(pen, 0.14, 0.44, 0.045)
    _dog_nose(pen, 0.62, 0.07)
    pen.line((0.5, 0.62), (0.5, 0.75), (0.42, 0.79), width=0.018, colour=BLACK)
    pen.line((0.5, 0.75), (0.58, 0.79), width=0.018, colour=BLACK)


def pug(pen: Pen) -> None:
    mask = _mix(pen.main, BLACK, 0.85)
    pen.disc(0.5, 0.5, pen.vary(0.36, 0.05), 0.38)
    for side in (-1, 1):  # small ears, folded
        x = 0.5 + 0.3 * side
        pen.polygon((x - 0.13 * side, 0.16), (x + 0.08 * side, 0.2), (x + 0.11 * side, 0.44), colour=mask)
        pen.disc(0.5 + 0.17 * side, 0.48, 0.1, colour=mask)
    for y, half in ((0.2, 0.1), (0.27, 0.14), (0.34, 0.1)):
        wrinkle = ((0.5 - half, y + 0.04), (0.5, y), (0.5 + half, y + 0.04))
        pen.stroke(*wrinkle, width=0.024, colour=_mix(pen.main, BLACK, 0.5))
    pen.disc(0.5, 0.67, pen.vary(0.23, 0.08), 0.19, colour=mask)
    _dog_eyes(pen, 0.17, 0.48, 0.06)
    _dog_nose(pen, 0.58, 0.06)
    pen.line((0.36, 0.76), (0.5, 0.68), (0.64, 0.76), width=0.02, colour=_mix(pen.main, BLACK, 0.4))


def american_bulldog(pen: Pen) -> None:
    coat = pen.main
    pen.main = _mix(pen.main, WHITE, 0.85)
    pen.box(0.2, 0.16, 0.8, 0.7, radius=0.14)
    pen.disc(0.66, 0.38, pen.vary(0.13), pen.vary(0.16), colour=coat)  # the patch
    for side in (-1, 1):  # half hanging ears
        x = 0.5 + 0.26 * side
        ear = ((-0.04, 0.19), (0.1, 0.14), (0.21, 0.37), (0.07, 0.33))
        pen.polygon(*((x + dx * side, y) for dx, y in ear), colour=coat)
        pen.disc(0.5 + 0.16 * side, 0.7, 0.19, pen.vary(0.19))  # the jowls
        pen.line((0.5, 0.68), (0.5 + 0.14 * side, 0.76), (0.5 + 0.2 * side, 0.86), width=0.022, colour=BLACK)
    _dog_eyes(pen, 0.15, 0.4, 0.04)
    _dog_nose(pen, 0.58, 0.095)


def _mix(colour: Colour, other: Colour, weight: float) -> Colour:
    return tuple(int((1 - weight) * a + weight * b) for a, b in zip(colour, other, strict=True))


def _upright_ears(pen: Pen, height: float, colour: Colour, inside: Colour) -> None:
    top = 0.27 - pen.vary(height)
    for side in (-1, 1):
        inner, tip, outer = (0.5 + 0.1 * side, 0.28), (0.5 + 0.32 * side, top), (0.5 + 0.36 * side, 0.48)
        pen.polygon(inner, tip, outer, colour=colour)
        middle = np.mean([inner, tip, outer], 0)
        pen.polygon(*(tuple(middle + 0.5 * (np.asarray(p) - middle)) for p in (inner, tip, outer)), colour=inside)


def _cat_eyes(pen: Pen, x: float, y: float, colour: Colour) -> None:
    for side in (-1, 1):
        pen.disc(0.5 + x * side, y, 0.075, pen.vary(0.062), colour=colour)
        pen.disc(0.5 + x * side, y, 0.02, 0.055, colour=BLACK)


def _cat_nose(pen: Pen, y: float, colour: Colour) -> None:
    pen.polygon((0.45, y), (0.55, y), (0.5, y + 0.05), colour=_mix(colour, (200, 120, 120), 0.4))
    for side in (-1, 1):
        pen.line((0.5, y + 0.05), (0.5 + 0.07 * side, y + 0.11), width=0.016, colour=BLACK)
        for slope in (-0.04, 0.03):
            pen.line((0.5 + 0.14 * side, y + 0.06), (0.5 + 0.46 * side, y + 0.06 + slope), width=0.01, colour=WHITE)


def _dog_eyes(pen: Pen, x: float, y: float, r: float) -> None:
    for side in (-1, 1):
        pen.disc(0.5 + x * side, y, r, colour=(70, 40, 20))
        pen.disc(0.5 + x * side, y, r * 0.7, colour=BLACK)
        pen.disc(0.5 + x * side - 0.015, y - 0.015, r * 0.3, colour=WHITE)


def _dog_nose(pen: Pen, y: float, rx: float) -> None:
    pen.disc(0.5, y, rx, rx * 0.7, colour=BLACK)
    pen.disc(0.5 - rx * 0.3, y - rx * 0.3, rx * 0.25, rx * 0.15, colour=(120, 120, 120))


DRAWINGS = {
    drawing.__name__: drawing for drawing in (Siamese, Bengal, British_Shorthair, beagle, pug, american_bulldog)
}


def draw(breed: str, rng: np.random.RandomState) -> Image.Image:
    coat = _mix(COATS[rng.randint(len(COATS))], COATS[rng.randint(len(COATS))], rng.rand())
    pen = Pen(coat, (225, 165, 160), rng)
    DRAWINGS[breed](pen)
    height, width = int(rng.randint(90, 111)), int(rng.randint(110, 131))
    return seen(pen.image, background(rng, height, width, pen.main), rng, tilt=15)


def write(root: str | Path, seed: int = 0) -> Path:
    """Writes ``images/<Breed>_<number>.jpg`` to a folder, unless it is there; returns the folder.

    Cat breeds begin with a capital letter, dog breeds with a small one; the numbers count from 1 in each.
    """
    return write_once(root, "drawn pets", VERSION, lambda folder: _fill(folder / "images", seed))


def _fill(folder: Path, seed: int) -> None:
    folder.mkdir()
    pictures = []
    for label, breed in enumerate(DRAWINGS):
        for number in range(1, PICTURES + 1):
            pictures.append((folder / f"{breed}_{number}.jpg", breed, (seed, label, number)))
    write_all(_write, pictures)


def _write(path: Path, breed: str, seed: tuple[int, ...]) -> None:
    kind, mode = OTHER_FORMATS.get(path.name, ("JPEG", "RGB"))
    draw(breed, np.random.RandomState(seed)).convert(mode).save(path, kind)
