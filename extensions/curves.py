"""Draws curves so that a reader is not misled: what ``plot_log.py``, ``report.py`` and :class:`PlotReport` draw with.

Each quantity has a panel, each curve an entry in the legend. What a picture cannot show as it is, it says: NaN and
infinity are marked, points beyond the range are counted, a smoothed line has all points behind it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from trainer.checks import printable

# Told apart in grey and by the colour-blind: Okabe and Ito 2008.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES: tuple[tuple[float, ...], ...] = (
    *((), (3.5, 1.5), (1, 1.5), (6, 1.5, 1, 1.5)),
    *((9, 2.5), (4, 1.2, 1, 1.2, 1, 1.2)),
)  # points on, points off; in widths of the line
WIDTHS = (6.4, 10.0, 12.6)  # inches, of 1, 2 and 3 panels in a row
HEIGHT = 3.4  # inches, of a row
FOLD = 60  # letters in a line of the legend
MARKED = 50  # a curve of at most so many points shows each
DRAWN = 4000  # points of a curve that are drawn, more or less; of a longer one the least and the largest of each part
SMOOTHED = 100  # a noisy curve of so many points has a smoothed line
SMOOTHING = "pale: all points; line: the median of the nearest 5% of them"
INFINITE = r"$\infty$"
MARKS = {"X": "NaN or infinite", INFINITE: "infinite"}

Floats = np.ndarray[Any, np.dtype[np.float64]]
Indices = np.ndarray[Any, np.dtype[np.intp]]
Curve = tuple[Sequence[float], Sequence[float]]  # x and y; what was logged as no finite number is NaN or infinite


class Line(NamedTuple):
    """A curve with its entry in the legend; ``dash`` is empty where it is solid."""

    label: str
    colour: str
    dash: tuple[float, ...]
    x: Floats
    y: Floats


def draw(
    runs: Mapping[str, Mapping[str, Curve]],
    x_label: str,
    *,
    log_scale: bool = False,
    marker: str | None = "o",
    grid: bool = True,
    postprocess: Callable[[Any, Any], None] | None = None,
    figure: Any = None,
) -> Any:
    """Returns a figure with a panel for each quantity and one legend; it grows with what it holds.

    Args:
        runs: By run and key, the curves.
        x_label: What x is.
        log_scale: Whether y is logarithmic, where anything is above 0.
        marker: matplotlib's mark of a point; long curves have none.
        grid: Whether to draw a grid.
        postprocess: Called with figure and axes before the legend is drawn; then all curves are in one panel.
        figure: To draw in; by default a new one that pyplot does not know of, so no screen is needed.

    Example:
        >>> from extensions.curves import draw
        >>> figure = draw({"": {"main/loss": ([1, 2], [0.7, 0.5]), "lr": ([1, 2], [0.1, 0.1])}}, "epoch")
        >>> [axes.get_title(loc="left") for axes in figure.axes]
        ['loss', 'lr']
        >>> [text.get_text() for text in figure.legends[0].get_texts()]
        ['training', 'lr']
    """
    from matplotlib.figure import Figure  # without pyplot: no figure is left open

    figure = figure or Figure()
    figure.set_layout_engine("constrained")
    found = panels(runs, apart=postprocess is None)
    n_rows = -(-len(found) // 3)
    sizes = [len(found) // n_rows + (row < len(found) % n_rows) for row in range(n_rows)]
    cells = figure.add_gridspec(n_rows, 6)
    width, height = WIDTHS[max(sizes) - 1], HEIGHT * n_rows + 0.6 * (n_rows == 1)
    figure.set_size_inches(width, height)
    slots = [cells[row, 6 // n * i : 6 // n * (i + 1)] for row, n in enumerate(sizes) for i in range(n)]
    entries: dict[str, Any] = {}
    crowded = 0
    for slot, (title, lines) in zip(slots, found.items(), strict=True):
        axes = figure.add_subplot(slot)
        entries |= draw_panel(axes, lines, x_label, title, log_scale, marker, grid)
        crowded = max(crowded, len(lines) - len({(line.colour, line.dash) for line in lines}))
    places = np.concatenate([line.x[np.isfinite(line.x)] for lines in found.values() for line in lines])
    if places.size and np.ptp(places) > 0:  # one range for all: what begins late is seen to
        for axes in figure.axes:
            axes.set_xlim(places.min() - 0.05 * np.ptp(places), places.max() + 0.05 * np.ptp(places))
    notes = [SMOOTHING] if SMOOTHING in entries else []
    if crowded:
        notes.append(f"{crowded} curves have the colour and dash of another: draw fewer at a time")
    entries.pop(SMOOTHING, None)
    entries = {label: entries[label] for label in sorted(entries, key=lambda label: label in MARKS.values())}
    formulas: dict[str, Any] = {}  # a label of postprocess may hold some, a key none
    if postprocess is not None:
        postprocess(figure, axes)
        formulas = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    _add_legend(
        figure, entries, {k: v for k, v in formulas.items() if k not in entries}, "\n".join(notes), width, height
    )
    return figure


def panels(runs: Mapping[str, Mapping[str, Curve]], apart: bool = True) -> dict[str, list[Line]]:
    """Returns the lines of each panel, by its title.

    A key is a kind and a quantity: ``main/loss/loc`` is ``loss/loc`` of the training, ``validation/main/loss`` is
    ``loss`` of the validation; where there is no ``main``, the last part is the quantity. Kinds of one quantity share
    a panel. Of one run, each kind has a colour; of several, each run has one, and the kinds differ by their dashes; of
    more runs than colours, each kind has a panel of its own.

    Args:
        runs: By run and key, the curves.
        apart: Whether each quantity has a panel; if not, there is one, and a key is its own label.

    Example:
        >>> from extensions.curves import panels
        >>> found = panels({"": {key: ([1], [0.5]) for key in ("main/loss", "validation/main/loss", "main/loss/loc")}})
        >>> {title: [line.label for line in lines] for title, lines in found.items()}
        {'loss': ['training', 'validation'], 'loss/loc': ['training']}
    """
    parts = {key: _split(key) if apart else (key, "") for curves in runs.values() for key in curves}
    kinds = list(dict.fromkeys(kind for kind, _ in parts.values()))
    kinds.sort(key=lambda kind: (kind != "main", kind == ""))
    names = {kind: _name(kind) if apart else kind for kind in kinds}
    names = {kind: name if list(names.values()).count(name) == 1 else kind for kind, name in names.items()}
    quantities = list(dict.fromkeys(quantity for _, quantity in parts.values()))
    keys = sorted(parts, key=lambda key: (quantities.index(parts[key][1]), kinds.index(parts[key][0])))
    n, is_crowded = len(COLOURS), apart and len(runs) > len(COLOURS)
    found: dict[str, list[Line]] = {}
    for i, (run, short) in enumerate(zip(runs, _shortened(list(runs)), strict=True)):
        for key in (key for key in keys if key in runs[run]):
            kind, title = parts[key]
            k, label = kinds.index(kind), names[kind]
            if len(runs) == 1:
                colour, dash, label = k % n, k // n, label or key
            elif is_crowded:
                colour, dash, label, title = i % n, i // n, short, f"{title} ({label})" if label else title
            else:
                colour, dash, label = i % n, k + len(kinds) * (i // n), f"{short} {label}".rstrip()
            x, y = (np.asarray(column, float) for column in runs[run][key])
            label, title = printable(label), printable(title)
            found.setdefault(title, []).append(Line(label, COLOURS[colour], DASHES[dash % len(DASHES)], x, y))
    return found


def _shortened(names: list[str]) -> list[str]:
    """Returns long names without the middle of what they have in common; where they differ they stay whole."""
    if len(names) < 2 or max(map(len, names)) <= 30:
        return names
    head = names[0][: _common(names)]
    tail = names[0][len(names[0]) - _common([name[len(head) :][::-1] for name in names]) :]
    middles = [name[len(head) : len(name) - len(tail)] for name in names]
    head, tail = (f"{part[:6]}\N{HORIZONTAL ELLIPSIS}{part[-3:]}" if len(part) > 10 else part for part in (head, tail))
    return [head + middle + tail for middle in middles]


def _common(names: Sequence[str]) -> int:
    """Returns how many first letters all names share."""
    columns = zip(*names, strict=False)
    return next((i for i, letters in enumerate(columns) if len(set(letters)) > 1), min(map(len, names)))


def _split(key: str) -> tuple[str, str]:
    """Returns what a value is of, up to ``main`` if there is one, and what it is."""
    *above, _ = parts = key.split("/")
    n = above.index("main") + 1 if "main" in above else len(above)
    return "/".join(parts[:n]), "/".join(parts[n:])


def _name(kind: str) -> str:
    return "training" if kind == "main" else kind.removesuffix("/main")


def draw_panel(
    axes: Any,
    lines: Sequence[Line],
    x_label: str,
    title: str = "",
    log_scale: bool = False,
    marker: str | None = "o",
    grid: bool = True,
) -> dict[str, Any]:
    """Draws the lines of a panel and returns the entries of the legend: matplotlib's artists, by label.

    Where they occur, there are some of ``MARKS`` beside the lines, and ``SMOOTHING``, which is a sentence without an
    artist. What holds for this panel alone, as what lies above its range, is written over it.

    Example:
        >>> from matplotlib.figure import Figure
        >>> from extensions.curves import draw_panel, panels
        >>> nan, axes = float("nan"), Figure().add_subplot()
        >>> lines = panels({"": {"main/loss": ([1, 2, 3], [0.7, nan, 0.5])}})["loss"]
        >>> list(draw_panel(axes, lines, "epoch"))
        ['training', 'NaN or infinite']
    """
    from matplotlib.lines import Line2D

    low, high, is_log, notes = _scale(axes, [line.y[np.isfinite(line.y)] for line in lines], log_scale)
    entries: dict[str, Any] = {}
    rows = {0: 0, 1: 0}  # of marks at the bottom and at the top: so that marks of different curves do not overlap
    for label, colour, dash, x, y in lines:
        is_shown = np.isfinite(y) & ((y > 0) if is_log else True)
        shown = np.where(is_shown, y, np.nan)
        kept, is_noisy = _thinned(shown), _is_noisy(shown)
        style: dict[str, Any] = {"color": colour, "linestyle": (0, dash), "label": label}
        if is_noisy:
            axes.plot(x[kept], shown[kept], color=colour, linewidth=0.8, alpha=0.3)
            entries[SMOOTHING] = None
            at = np.union1d(np.linspace(0, len(y) - 1, 500).astype(int), kept[~is_shown[kept]])
            (entries[label],) = axes.plot(x[at], _smooth(shown, at), linewidth=1.8, **style)
        else:
            style |= {"marker": marker if len(y) <= MARKED else None, "markersize": 3.5 if marker == "o" else 6}
            (entries[label],) = axes.plot(x[kept], shown[kept], linewidth=1.8, **style)
        before, after = np.append(False, is_shown[:-1]), np.append(is_shown[1:], False)
        if len(y) > MARKED or marker is None:
            alone = np.flatnonzero(is_shown & ~before & ~after)  # no line leads there
            axes.plot(x[alone], y[alone], "o", color=colour, markersize=3.5)
        for mark, edge, there in (
            *(("^", 1, is_shown & (y > high)), ("v", 0, is_shown & (y < low))),
            *(("X", 0, np.isnan(y)), (INFINITE, 0, y == -np.inf), (INFINITE, 1, y == np.inf)),
        ):
            if there.any():
                row = rows[edge] if mark in MARKS else 0
                rows[edge] += mark in MARKS
                _mark(axes, x[there], abs(edge - 0.04 * (row % 10)), mark, colour)
                if mark in MARKS:
                    entries[MARKS[mark]] = Line2D([], [], color="#000000", marker=mark, linestyle="none")
    if np.isfinite(high):
        bottom, top = (0.05 + 0.05 * min(rows[edge], 10) for edge in (0, 1))
        axes.set_ylim(low - bottom * (high - low), high + top * (high - low))
    _label(axes, x_label, title, np.concatenate([line.x for line in lines]), notes)
    if grid:
        axes.grid(color="0.9")
        axes.set_axisbelow(True)
    return entries


def _scale(axes: Any, finite: Sequence[Floats], log_scale: bool) -> tuple[float, float, bool, list[str]]:
    """Returns the range of y to show, whether it is logarithmic, and in words what of the values is not to be seen."""
    values, notes = np.concatenate(finite), []
    if not values.size:
        axes.set_yticks([])
        return -np.inf, np.inf, False, ["no finite value"]
    hidden = int((values <= 0).sum()) if log_scale else 0
    if log_scale and hidden < values.size:
        axes.set_yscale("log")
        return -np.inf, np.inf, True, [f"{_points(hidden)} at or below 0 not shown"] * (hidden > 0)
    if log_scale:
        notes.append("no value above 0: not logarithmic")
    low, high = _range(finite)
    if (above := values[values > high]).size:
        notes.append(f"{_points(above.size)} above the range, up to {above.max():.3g}")
    if (below := values[values < low]).size:
        notes.append(f"{_points(below.size)} below the range, down to {below.min():.3g}")
    if high - low <= 1e-6 * max(abs(low), abs(high)):
        if high > low:
            notes.append(f"constant but for {high - low:.1g}")
        low, high = low - (0.05 * abs(low) or 0.5), high + (0.05 * abs(high) or 0.5)
    axes.ticklabel_format(axis="y", useOffset=False)
    return low, high, False, notes


def _label(axes: Any, x_label: str, title: str, x: Floats, notes: list[str]) -> None:
    axes.set_xlabel(textwrap.fill(printable(x_label), 40), parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.ticklabel_format(axis="x", useOffset=False)
    x = x[np.isfinite(x)]
    if x.size and x.min() == x.max():
        axes.set_xlim(x[0] - 1, x[0] + 1)
        axes.set_xticks([x[0]])
    elif x.size and x_label.startswith(("epoch", "iteration")) and np.ptp(x) >= 2:
        axes.xaxis.get_major_locator().set_params(integer=True)
    axes.annotate("\n".join(notes), (0, 1), (0, 4), xycoords="axes fraction", textcoords="offset points", fontsize=8)
    axes.set_title(textwrap.fill(title, 36), loc="left", pad=6 + 11 * len(notes), parse_math=False)


def _points(n: int) -> str:
    return f"{n:,} point{'s' * (n > 1)}"


def _range(curves: Sequence[Floats]) -> tuple[float, float]:
    """Returns the range of finite values to show: the whole, if lone points do not flatten all the rest.

    A median over five points is rid of a spike but not of a steep fall. The ends count as they are, for a loss begins
    high; unless they are a thousand times everything else.
    """
    whole = np.concatenate(curves)
    full = whole.min(), whole.max()
    windows = [np.lib.stride_tricks.sliding_window_view(y, 5) if len(y) >= 5 else y[:, None] for y in curves]
    inner = np.concatenate([np.median(window, axis=1) for window in windows])
    with_ends = np.concatenate([inner, *(y[[0, -1]] for y in curves if len(y))])
    for values, factor, weight in ((with_ends, 20, 0.1), (inner, 1000, 1)):
        low, high = values.min(), values.max()
        scale = max(high - low, weight * max(abs(low), abs(high)))
        if 0 < factor * scale < full[1] - full[0]:
            usual = whole[(whole >= low - 3 * scale) & (whole <= high + 3 * scale)]
            return usual.min(), usual.max()
    return full


def _thinned(y: Floats) -> Indices:
    """Returns which points to draw: of a long curve the least and the largest of each part, and where it breaks."""
    size = -(-len(y) // (DRAWN // 4))
    if len(y) <= DRAWN:
        return np.arange(len(y))
    blocks = np.pad(y, (0, -len(y) % size), mode="edge").reshape(-1, size)
    is_bad = ~np.isfinite(blocks)
    columns = [
        np.where(is_bad, np.inf, blocks).argmin(1),
        np.where(is_bad, -np.inf, blocks).argmax(1),
        is_bad.argmax(1),
        size - 1 - is_bad[:, ::-1].argmax(1),
    ]
    at = np.concatenate([np.arange(len(blocks)) * size + column for column in columns])
    return np.unique(np.append(np.minimum(at, len(y) - 1), 0))


def _is_noisy(y: Floats) -> bool:
    """Tells whether a long curve turns at more than three points of ten; noise turns at two of three."""
    steps = np.sign(np.diff(y[np.isfinite(y)]))
    return len(steps) >= SMOOTHED - 1 and bool((steps[1:] * steps[:-1] < 0).mean() > 0.3)


def _smooth(y: Floats, at: Indices) -> Floats:
    """Returns the median around some points, of as many on either side; NaN too near an end for that."""
    half, smoothed = max(len(y) // 40, 2), np.full(len(at), np.nan)
    for i, j in enumerate(at):
        reach = min(half, j, len(y) - 1 - j)
        if np.isfinite(y[j]) and reach > half // 2:
            smoothed[i] = np.nanmedian(y[j - reach : j + reach + 1])
    return smoothed


def _mark(axes: Any, x: Floats, height: float, marker: str, colour: str) -> None:
    """Draws marks at a height of the axes, a hundred at most."""
    x = x[np.unique(np.linspace(0, len(x) - 1, 100).astype(int))]
    heights = np.full(len(x), height)
    style = {"marker": marker, "linestyle": "none", "color": colour, "markersize": 7, "clip_on": False, "zorder": 3}
    axes.plot(x, heights, transform=axes.get_xaxis_transform(), **style)


def _add_legend(
    figure: Any, entries: dict[str, Any], formulas: dict[str, Any], notes: str, width: float, height: float
) -> None:
    """Draws the legend below the panels, in as many columns as fit, and makes the figure as much larger."""
    labels = [textwrap.fill(label, FOLD) for label in entries]

    def make(columns: int, title: str) -> tuple[Any, float, float]:
        legend = figure.legend(
            [*entries.values(), *formulas.values()],
            [*("-" for _ in labels), *formulas],
            loc="outside lower center",
            ncols=columns,
            title=title,
            fontsize=9,
            title_fontsize=9,
            handlelength=3.5,  # a whole pattern of dashes
            frameon=False,
        )
        for text, label in zip(legend.get_texts(), labels, strict=False):
            text.set_text(label)  # here a name may begin with an underscore
            text.set_parse_math(False)  # and a dollar means no formula
        box = legend.get_window_extent()
        return legend, box.width / figure.dpi, box.height / figure.dpi

    legend, column, _ = make(1, "")
    legend.remove()
    n = len(entries) + len(formulas)
    rows = -(-n // max(1, int((width - 0.2) / (column + 0.25))))
    _, wide, tall = make(-(-n // rows), notes)
    figure.set_size_inches(max(width, wide + 0.2), height + tall)
