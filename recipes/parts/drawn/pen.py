"""Draws shapes in two colours, and shows a drawing as it is seen on one occasion."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

S = 192  # side of the canvas on which a thing is drawn before it is made small

Point = tuple[float, float]
Colour = tuple[int, int, int]


class Pen:
    """Draws in units of the canvas, (0, 0) top left to (1, 1), in its main colour unless told another."""

    def __init__(self, main: Colour, second: Colour, rng: np.random.RandomState) -> None:
        self.image = Image.new("RGBA", (S, S))
        self.draw = ImageDraw.Draw(self.image)
        self.main, self.second, self.rng = main, second, rng

    def vary(self, value: float, by: float = 0.12) -> float:
        return value * self.rng.uniform(1 - by, 1 + by)

    def box(
        self, x0: float, y0: float, x1: float, y1: float, colour: Colour | None = None, radius: float = 0.0
    ) -> None:
        self.draw.rounded_rectangle((x0 * S, y0 * S, x1 * S, y1 * S), radius * S, fill=colour or self.main)

    def polygon(self, *points: Point, colour: Colour | None = None) -> None:
        self.draw.polygon([(x * S, y * S) for x, y in points], fill=colour or self.main)

    def disc(self, x: float, y: float, rx: float, ry: float | None = None, colour: Colour | None = None) -> None:
        ry = rx if ry is None else ry
        self.draw.ellipse(((x - rx) * S, (y - ry) * S, (x + rx) * S, (y + ry) * S), fill=colour or self.main)

    def ring(self, x: float, y: float, r: float, width: float = 0.05, ry: float | None = None) -> None:
        ry = r if ry is None else ry
        box = ((x - r) * S, (y - ry) * S, (x + r) * S, (y + ry) * S)
        self.draw.ellipse(box, outline=self.main, width=round(width * S))

    def arc(self, x: float, y: float, rx: float, ry: float, start: float, end: float, width: float = 0.05) -> None:
        box = ((x - rx) * S, (y - ry) * S, (x + rx) * S, (y + ry) * S)
        self.draw.arc(box, start, end, fill=self.main, width=round(width * S))

    def line(self, *points: Point, width: float = 0.05, colour: Colour | None = None) -> None:
        pixels = [(x * S, y * S) for x, y in points]
        self.draw.line(pixels, fill=colour or self.main, width=round(width * S), joint="curve")

    def stroke(self, *points: Point, width: float = 0.05, colour: Colour | None = None) -> None:
        """Draws a smooth line through the points, with round ends."""
        self.line(*smooth(points), width=width, colour=colour)
        for x, y in (points[0], points[-1]):
            self.disc(x, y, width / 2, colour=colour)


def smooth(points: tuple[Point, ...], parts: int = 8) -> list[Point]:
    """Returns a Catmull-Rom spline through points: `parts` pieces from each to the next."""
    p = np.asarray([points[0], *points, points[-1]], float)
    a, b, c, d = (p[i : len(p) - 3 + i, None] for i in range(4))
    t = (np.arange(parts) / parts)[:, None]
    curve = b + (c - a) * t / 2 + (a - 2.5 * b + 2 * c - d / 2) * t**2 + (1.5 * (b - c) + (d - a) / 2) * t**3
    return [(float(x), float(y)) for x, y in (*curve.reshape(-1, 2), points[-1])]


def colours(rng: np.random.RandomState) -> tuple[Colour, Colour]:
    """Returns any colour and a second one that shows on it: darker if that is light, lighter if it is dark."""
    main: Colour = tuple(int(c) for c in rng.randint(0, 256, 3))
    light = sum(main) > 3 * 127
    return main, tuple(int(0.5 * c) if light else 255 - int(0.5 * (255 - c)) for c in main)


def seen(drawing: Image.Image, image: Image.Image, view: np.random.RandomState, tilt: float = 5.0) -> Image.Image:
    """Returns a drawing as seen on one occasion: on a background in some size, place and light, from either side,
    turned by up to `tilt` degrees.
    """
    width, height = image.size
    size = int(min(height, width) * view.uniform(0.8, 1.0))
    drawn = drawing.rotate(view.uniform(-tilt, tilt), Image.Resampling.BICUBIC)
    if view.rand() < 0.5:
        drawn = drawn.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    drawn = drawn.resize((size, size), Image.Resampling.BOX)
    image.paste(drawn, (int(view.randint(0, width - size + 1)), int(view.randint(0, height - size + 1))), drawn)
    noisy = np.asarray(image, np.float32) * view.uniform(0.85, 1.1) + view.normal(0, 5, (height, width, 1))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def background(view: np.random.RandomState, height: int, width: int, main: Colour) -> Image.Image:
    """Returns a gradient between two colours that a thing of a main colour stands out from."""
    ends = []
    while len(ends) < 2:
        colour = view.randint(0, 256, 3)
        if distance(colour, main) >= 150:
            ends.append(colour)
    return gradient(view, height, width, *ends)


def gradient(view: np.random.RandomState, height: int, width: int, first: object, second: object) -> Image.Image:
    """Returns a picture that goes in some direction from a colour towards another.

    Not the whole way: the middle of two colours may be the thing's own.
    """
    angle = view.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j] - 0.5
    weight = np.clip(0.5 + 0.7 * (x * np.cos(angle) + y * np.sin(angle)), 0, 1)[..., None]
    weight = 0.2 * weight
    return Image.fromarray((np.asarray(first) * (1 - weight) + np.asarray(second) * weight).astype(np.uint8))


def distance(a: object, b: object) -> float:
    """Returns how far two colours are apart."""
    return float(np.linalg.norm(np.asarray(a, float) - np.asarray(b, float)))
