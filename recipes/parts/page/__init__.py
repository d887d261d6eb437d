"""The page about runs: renders the templates beside this file with numbers, curves and images.

All values are escaped, also where a template forgets to; an undefined name is an error.
"""

from __future__ import annotations

import base64
import html
import io
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import torch
from markupsafe import Markup
from PIL import Image

from extensions import curves
from trainer.checks import printable

SMALL = 64  # pixels: up to here an image is stored as it is, and shown with its pixels; above as a JPEG
LARGE = 224  # pixels that are stored at most
TITLES = {"lr": "Learning rate"}
NOTHING = "\N{EN DASH}"  # where a table has no value

# The colours of curves.py become the page's own, which differ in light and dark mode.
COLOURS = {colour.lower(): f"var(--line-{i})" for i, colour in enumerate(curves.COLOURS)}
COLOURS |= {"#000000": "currentColor", "#e6e6e6": "var(--rule)"}
MARKS = {"X": "✖ ", curves.INFINITE: "∞ "}

_numbers = itertools.count()  # of charts


def render(name: str, **data: Any) -> str:
    """Returns a template filled with data, without characters that a terminal would obey."""
    return printable(ENVIRONMENT.get_template(name).render(data), "\n")


# -- values


def text_of(value: Any) -> str:
    """Returns a value as text for a table."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return NOTHING
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e9 else f"{value:.4g}"
    return str(value)


def escaped(value: Any) -> Markup:
    """Returns a value as HTML, for attributes too; HTML stays as it is."""
    return value if isinstance(value, Markup) else Markup(html.escape(text_of(value)))


def breakable(value: Any) -> Markup:
    """Returns a value as HTML that may break after an underscore or slash."""
    return Markup(re.sub(r"([_/])", r"\1<wbr>", str(escaped(value))))


def places(value: float | None) -> str | None:
    """Returns a number with four places."""
    return None if value is None else f"{value:.4f}"


def percent(value: float | None) -> str:
    """Returns a share of 1 as a percentage."""
    return NOTHING if value is None else f"{100 * value:.1f} %"


def duration(seconds: float | None) -> str:
    """Returns seconds in words."""
    if seconds is None:
        return NOTHING
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    return f"{seconds / 60:.1f} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def kinds(rows: Sequence[Sequence[Any]]) -> list[str]:
    """Returns the CSS class of each column of a table: ``number`` if all are numbers, but for the first."""
    columns = list(zip(*rows, strict=True))
    are_numbers = [all(isinstance(value, (int, float, type(None))) for value in column) for column in columns]
    return ["number" if is_number and i else "wrap" for i, is_number in enumerate(are_numbers)]


ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    finalize=escaped,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
ENVIRONMENT.filters |= {f.__name__: f for f in (breakable, duration, kinds, percent, places, text_of)}


# -- pictures


def picture(pixels: torch.Tensor) -> dict[str, Any]:
    """Returns a uint8 image of shape (C, H, W), C being 1 or 3, as attributes of an element that holds it."""
    image = Image.fromarray(pixels.permute(1, 2, 0).squeeze(2).numpy())
    file, is_small = io.BytesIO(), max(image.size) <= SMALL
    if is_small:
        image.save(file, "PNG", optimize=True)
    else:
        image.thumbnail((LARGE, LARGE))
        image.save(file, "JPEG", quality=80)
    content = f"data:image/{'png' if is_small else 'jpeg'};base64,{base64.b64encode(file.getvalue()).decode()}"
    return {"src": content, "width": image.width, "height": image.height, "is_small": is_small}


def charts(runs: Mapping[str, Mapping[str, curves.Curve]], x_label: str) -> list[dict[str, Any]]:
    """Returns a chart of each quantity, as plot_log.py draws it, in the page's own font and colours."""
    found = []
    for quantity, lines in curves.panels(runs).items():
        title = TITLES.get(quantity, quantity[:1].upper() + quantity[1:])
        named = [line for line in lines if line.label != quantity]
        alt = f"{title} over {x_label}" + (f": {', '.join(line.label for line in named)}" if named else "")
        legend = [
            {
                "label": line.label,
                "colour": COLOURS[line.colour.lower()],
                "dash": " ".join(f"{2.5 * length:g}" for length in line.dash) or "none",
            }
            for line in named
        ]
        found.append({"title": title, "alt": alt, "legend": legend, **_drawn(lines, x_label)})
    return found


def _drawn(lines: Sequence[curves.Line], x_label: str) -> dict[str, Any]:
    """Returns the curves of one quantity as SVG, its view box, and the notes of the legend."""
    import matplotlib
    from matplotlib.figure import Figure

    style = {"svg.fonttype": "none", "svg.hashsalt": "report", "font.size": 11, "path.simplify_threshold": 0.5}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(4.4, 2.9), layout="constrained")
        entries = curves.draw_panel(figure.add_subplot(), lines, x_label)
        file = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    notes = [mark + curves.MARKS[key] for key, mark in MARKS.items() if curves.MARKS[key] in entries]
    view_box, svg = plain_svg(file.getvalue())
    return {"view_box": view_box, "svg": svg, "notes": [curves.SMOOTHING] * (curves.SMOOTHING in entries) + notes}


def plain_svg(text: str) -> tuple[str, Markup]:
    """Returns view box and content of matplotlib's SVG, in the page's colours and without styles and unused ids."""
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)
    view_box, svg = re.findall(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>(.*)</svg>', text, re.DOTALL)[0]
    svg = svg.replace("xlink:href", "href")
    svg = re.sub('#[0-9a-f]{6}(?=[;"])', lambda match: COLOURS.get(match[0], match[0]), svg)
    # Several stand in one page, in which each id may be there once.
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', svg))
    prefix = f"c{next(_numbers)}-"
    svg = re.sub(r'\sid="([^"]*)"', lambda match: f' id="{prefix}{match[1]}"' if match[1] in used else "", svg)
    svg = re.sub(r'(href="|url\()#', rf"\1#{prefix}", svg)
    return view_box, Markup(re.sub(r"\s*\n\s*", " ", svg))
