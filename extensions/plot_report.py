"""Plots observed values while training goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from extensions import curves
from extensions.log_report import LogReport, names_of
from trainer import DictSummary, Extension, Trainer, saving
from trainer.checks import near, warn
from trainer.extension import PHASE_REPORT
from trainer.triggers import get_trigger


class PlotReport(Extension):
    """Draws the means of observed values against iterations or epochs, anew at each point. Chainer: ``PlotReport``.

    Each quantity has a panel: ``main/loss`` and ``validation/main/loss`` share one, accuracy has another. Where the
    run's :class:`LogReport` has more points of a value, because its trigger fires more often, those are drawn. NaN,
    infinity and lone spikes beyond the range are marked. A key that never came is warned of when the run ends.

    Args:
        y_keys: What to plot.
        x_key: ``"iteration"``, ``"epoch"``, ``"epoch_detail"`` (with fractions), or an observed value.
        trigger: When a point is added and the picture drawn; values are averaged in between.
        postprocess: Called with figure, axes and the :class:`~trainer.DictSummary` before the legend is drawn; then
            all curves share these axes.
        filename: In the trainer's ``out``; its suffix decides the format.
        marker: matplotlib's mark of a point; a curve of more than 50 points has none.
        grid: Whether to draw a grid.

    Raises:
        TypeError: If ``y_keys`` is None.

    Example:
        >>> from extensions import PlotReport
        >>> run.extend(PlotReport(["main/loss"], x_key="epoch", filename="loss.png"))
        >>> run.run()
        >>> (tmp / "loss.png").stat().st_size > 1000
        True
    """

    phase = PHASE_REPORT  # when the iteration's values are complete
    saved = ("_data", "_summary", "_trigger")
    examples: ClassVar[dict[str, Any]] = {"_data": {...: [[0.0]]}}

    def __init__(
        self,
        y_keys: Sequence[str] | str,
        x_key: str = "iteration",
        trigger: Any = (1, "epoch"),
        postprocess: Callable[[Any, Any, DictSummary], None] | None = None,
        filename: str = "plot.png",
        marker: str | None = "x",
        grid: bool = True,
    ) -> None:
        if y_keys is None:
            raise TypeError("y_keys must name what to plot, got None; e.g. ['main/loss', 'validation/main/loss'].")
        self._y_keys = names_of(y_keys, "y_keys") or []
        self._x_key = x_key
        self._trigger = get_trigger(trigger)
        self._postprocess = postprocess
        self._filename = filename
        self._marker = marker
        self._grid = grid
        self._summary = DictSummary()
        self._observed: list[str] = []  # what there was when a point was due, and which keys never were
        self._missing: list[str] = []
        self._data: dict[str, list[list[float]]] = {}

    def initialize(self, trainer: Trainer) -> None:
        """Refuses a second PlotReport of the same file, and one that could not be written.

        Raises:
            ValueError: If another one writes to it.
            OSError: If a folder stands there, say.
        """
        trainer.path(self._filename)
        for entry in trainer.extensions.values():
            other = entry.extension
            if isinstance(other, PlotReport) and other is not self and other._filename == self._filename:
                raise ValueError(f"two PlotReports draw {self._filename}: give one of them another filename.")

    def __call__(self, trainer: Trainer) -> None:
        """Adds the observation to the means; adds a point and draws if it is time."""
        self._summary.add(trainer.observation, dict.fromkeys((*self._y_keys, self._x_key)))
        if not (trainer.is_before_training or self._trigger(trainer)):
            return
        means = self._summary.compute_mean()
        means |= {name: getattr(trainer.updater, name) for name in ("epoch", "epoch_detail", "iteration")}
        self._observed = sorted({*means, *trainer.observation})
        for key in self._y_keys:
            if key in means and self._x_key in means:
                self._data.setdefault(key, []).append([means[self._x_key], means[key]])
        points = self._points(trainer)
        self._missing = [key for key in self._y_keys if key not in points]
        if points:
            self._draw(trainer.path(self._filename), points, self._summary)
        self._summary.clear()

    def _points(self, trainer: Trainer) -> dict[str, list[list[float]]]:
        """Returns the points of each key: our own, or the log's where it has more."""
        try:
            report = trainer.get_extension("LogReport")
        except ValueError:
            report = None
        log = report.log if isinstance(report, LogReport) else []
        found: dict[str, list[list[float]]] = {}
        for key in self._y_keys:
            pairs = [[entry.get(self._x_key), entry.get(key)] for entry in log]
            logged: list[list[Any]] = [pair for pair in pairs if all(isinstance(value, (int, float)) for value in pair)]
            own = self._data.get(key, [])
            is_finer = len({x for x, _ in logged}) == len(logged) > len(own)  # ten entries of one epoch share an x
            if points := logged if is_finer else own:
                found[key] = points
        return found

    def _draw(self, path: Path, points: dict[str, list[list[float]]], summary: DictSummary) -> None:
        finish = self._postprocess
        figure = curves.draw(
            {"": {key: ([x for x, _ in pairs], [y for _, y in pairs]) for key, pairs in points.items()}},
            self._x_key,
            marker=self._marker,
            grid=self._grid,
            postprocess=None if finish is None else lambda figure, axes: finish(figure, axes, summary),
        )
        saving.write(path, lambda file: figure.savefig(file, format=path.suffix[1:] or "png"))

    def finalize(self) -> None:
        """Warns about keys that had no value to plot."""
        if self._missing:
            drawn = "was not drawn" if len(self._missing) == len(self._y_keys) else "lacks a curve"
            told = f"no value of {self._missing} came with {self._x_key!r}, only {self._observed}"
            wrong = self._missing[0] if self._x_key in self._observed else self._x_key
            warn(f"{self._filename} {drawn}: {told}.{near(wrong, self._observed)}")
