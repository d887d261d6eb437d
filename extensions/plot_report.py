"""Plots observed values while training goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from trainer import DictSummary, Extension, Trainer, saving
from trainer.checks import warn
from trainer.extension import PHASE_REPORT
from trainer.triggers import get_trigger


class PlotReport(Extension):
    """Draws the means of observed values against iterations or epochs, anew at each point. Chainer: ``PlotReport``.

    Args:
        y_keys: What to plot.
        x_key: ``"iteration"``, ``"epoch"``, ``"epoch_detail"`` (with fractions), or an observed value.
        trigger: When a point is added and the picture drawn; values are averaged in between.
        postprocess: Called with figure, axes and the :class:`~trainer.DictSummary` before the legend is drawn.
        filename: In the trainer's ``out``; its suffix decides the format.
        marker: matplotlib's mark of a point.
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
        self._y_keys = (y_keys,) if isinstance(y_keys, str) else tuple(y_keys)
        self._x_key = x_key
        self._trigger = get_trigger(trigger)
        self._postprocess = postprocess
        self._filename = filename
        self._marker = marker
        self._grid = grid
        self._summary = DictSummary()
        self._observed: list[str] = []  # what there was when a point was due
        self._data: dict[str, list[list[float]]] = {}

    def __call__(self, trainer: Trainer) -> None:
        """Adds the observation to the means; adds a point and draws if it is time."""
        self._summary.add(trainer.observation, dict.fromkeys((*self._y_keys, self._x_key)))
        if not (trainer.is_before_training or self._trigger(trainer)):
            return
        means = self._summary.compute_mean()
        means |= {name: getattr(trainer.updater, name) for name in ("epoch", "epoch_detail", "iteration")}
        self._observed = sorted(means)
        for key in self._y_keys:
            if key in means and self._x_key in means:
                self._data.setdefault(key, []).append([means[self._x_key], means[key]])
        self._draw(Path(trainer.out) / self._filename, self._summary)
        self._summary.clear()

    def _draw(self, path: Path, summary: DictSummary) -> None:
        from matplotlib.figure import Figure  # without pyplot: no screen is needed, no figure is left open

        figure = Figure(figsize=(6.4, 4.8))
        axes = figure.add_subplot(xlabel=self._x_key)
        if self._grid:
            axes.grid(color="0.9")
        drawn = False
        for key in self._y_keys:
            if points := self._data.get(key):
                axes.plot(*zip(*points, strict=True), marker=self._marker, label=key)
                drawn = True
        if not drawn:
            return
        if self._postprocess is not None:
            self._postprocess(figure, axes, summary)
        legend = axes.legend(bbox_to_anchor=(1.02, 1), loc="upper left", borderaxespad=0)
        saving.write(
            path,
            lambda file: figure.savefig(
                file, format=path.suffix[1:] or "png", bbox_extra_artists=(legend,), bbox_inches="tight"
            ),
        )

    def finalize(self) -> None:
        """Warns if there was nothing to draw whenever a point was due."""
        if self._observed and not any(self._data.values()):
            warn(
                f"{self._filename} was not drawn: no value of {list(self._y_keys)} came with {self._x_key!r}, only"
                f" {self._observed}."
            )
