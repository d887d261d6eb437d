"""Plots how parameters and gradients are distributed while training goes on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from extensions.percentiles import flat, percentiles
from trainer import Extension, Trainer, saving
from trainer.random import derive, get_seed
from trainer.saving.state import refuse_kind
from trainer.triggers import get_trigger

RESERVOIR = 1000  # a stream of derive(), apart from those of trainer.random


class VariableStatisticsPlot(Extension):
    """Draws mean, deviation and percentiles of parameters against iterations. Chainer: ``VariableStatisticsPlot``.

    The numbers of all targets are put together. Of all iterations a uniform sample is kept and drawn; which ones
    depends on the run's seed, and no random generator is touched.

    Args:
        targets: A parameter, a module, or a list of these.
        max_sample_size: How many iterations are kept at most.
        report_data: Whether to look at the parameters.
        report_grad: Whether to look at their gradients.
        plot_mean: Whether to draw the mean.
        plot_std: Whether to draw the standard deviation (of the population) around the mean.
        percentile_sigmas: The percentiles to draw, from 0 to 100; each pair bounds a band.
        trigger: When the picture is drawn; the statistics are taken at every call.
        filename: In the trainer's ``out``; its suffix decides the format.
        figsize: Width and height in inches; by default it depends on what is drawn.
        marker: matplotlib's mark of a point.
        grid: Whether to draw a grid.

    Raises:
        TypeError: If ``targets`` holds something else.
        ValueError: If there is nothing to look at or nothing to draw, or a number is out of its range.

    Example:
        >>> from extensions import VariableStatisticsPlot
        >>> run.extend(VariableStatisticsPlot(run.updater.get_model("main").predictor))
        >>> run.run()
        >>> (tmp / "statistics.png").stat().st_size > 1000
        True
    """

    saved = ("_seed", "_count", "_trigger")
    examples: ClassVar[dict[str, Any]] = {"_seed": 0}

    def __init__(
        self,
        targets: Tensor | nn.Module | Sequence[Tensor | nn.Module],
        max_sample_size: int = 1000,
        report_data: bool = True,
        report_grad: bool = True,
        plot_mean: bool = True,
        plot_std: bool = True,
        percentile_sigmas: float | Sequence[float] = (0, 0.13, 2.28, 15.87, 50, 84.13, 97.72, 99.87, 100),
        trigger: Any = (1, "epoch"),
        filename: str = "statistics.png",
        figsize: tuple[float, float] | None = None,
        marker: str | None = None,
        grid: bool = True,
    ) -> None:
        self._parameters = _parameters(targets)
        if not self._parameters:
            raise ValueError(f"targets has no parameters: {targets!r}; give a parameter, a module, or a list of these.")
        if max_sample_size < 1:
            raise ValueError(f"max_sample_size must be 1 or more, got {max_sample_size}; it is 1000 by default.")
        self._percents = [percentile_sigmas] if isinstance(percentile_sigmas, (int, float)) else [*percentile_sigmas]
        self._percents.sort()
        if not all(0 <= percent <= 100 for percent in self._percents):
            raise ValueError(f"percentile_sigmas must lie between 0 and 100, got {percentile_sigmas!r}.")
        self._kinds = [kind for kind, wanted in (("data", report_data), ("grad", report_grad)) if wanted]
        self._rows = [bool(plot_mean or plot_std), bool(self._percents)]
        if not self._kinds or not any(self._rows):
            raise ValueError(
                "there is nothing to plot: report_data or report_grad must be true, and plot_mean, plot_std or"
                f" percentile_sigmas too; got {report_data}, {report_grad}, {plot_mean}, {plot_std},"
                f" {percentile_sigmas!r}."
            )
        self._max_sample_size = max_sample_size
        self._plot_mean, self._plot_std = plot_mean, plot_std
        self._trigger = get_trigger(trigger)
        self._filename = filename
        self._figsize = figsize
        self._marker = marker
        self._grid = grid
        self._seed: int | None = None  # the run's, when its first iteration is looked at: a resumed run keeps it
        self._count = 0
        self._sample: list[tuple[int, Tensor]] = []  # iteration; mean, std and percentiles of each kind

    def initialize(self, trainer: Trainer) -> None:
        """Refuses a file that could not be written."""
        trainer.path(self._filename)

    def __call__(self, trainer: Trainer) -> None:
        """Adds the iteration to the sample, perhaps; draws if it is time."""
        if self._seed is None:
            self._seed = get_seed()
        slot = self._count
        self._count += 1
        if slot >= self._max_sample_size:  # Vitter's algorithm R: the n-th is kept with probability size / n
            slot = derive(self._seed, RESERVOIR, self._count) % self._count
        if slot < self._max_sample_size:
            self._sample[slot : slot + 1] = [(trainer.updater.iteration, self._statistics())]
        if self._trigger(trainer):
            self._draw(trainer.path(self._filename))

    def _statistics(self) -> Tensor:
        rows = []
        for kind in self._kinds:
            parts = [getattr(parameter, kind) for parameter in self._parameters]
            numbers = [flat(part) for part in parts if part is not None and part.numel()]
            x = torch.cat(numbers or [torch.full((1,), torch.nan, device=self._parameters[0].device)])
            rows.append(torch.cat([torch.stack([x.mean(), x.std(correction=0)]), percentiles(x, self._percents)]))
        return torch.stack(rows)

    def _draw(self, path: Path) -> None:
        from matplotlib import colormaps
        from matplotlib.figure import Figure  # without pyplot: no screen is needed, no figure is left open

        sample = sorted(self._sample, key=lambda kept: kept[0])
        iterations = [iteration for iteration, _ in sample]
        statistics = torch.stack([values for _, values in sample]).cpu().numpy()
        names = [name for name, wanted in zip(("mean", "percentiles"), self._rows, strict=True) if wanted]
        size = self._figsize or (5.2 * len(self._kinds) + 1.6, 3.4 * len(names) + 0.4)
        figure = Figure(figsize=size, layout="constrained")
        numbers, count = sum(parameter.numel() for parameter in self._parameters), len(self._parameters)
        figure.suptitle(f"{numbers:,} numbers in {count} parameter{'s' * (count > 1)}")
        grid = figure.subplots(len(names), len(self._kinds), sharex=True, squeeze=False)
        for column, kind in enumerate(self._kinds):
            mean, std, *bounds = statistics[:, column].T
            for row, name in enumerate(names):
                axes = grid[row, column]
                if self._grid:
                    axes.grid(color="0.9")
                    axes.set_axisbelow(True)
                axes.set_title(f"{name} of {kind}")
                axes.set_ylabel(kind)
                if name == "mean":
                    if self._plot_std:
                        axes.fill_between(iterations, mean - std, mean + std, color="C0", alpha=0.25, label="± std")
                    if self._plot_mean:
                        axes.plot(iterations, mean, color="C0", marker=self._marker, label="mean")
                else:
                    pairs = len(bounds) // 2
                    for i in range(pairs):  # from the widest inwards, each over the last
                        label = f"{self._percents[i]:g} to {self._percents[-1 - i]:g} %"
                        shade = colormaps["Blues"](0.2 + 0.5 * i / pairs)
                        axes.fill_between(iterations, bounds[i], bounds[-1 - i], color=shade, label=label)
                    if len(bounds) % 2:
                        label = f"{self._percents[pairs]:g} %"
                        axes.plot(iterations, bounds[pairs], color="C1", marker=self._marker, label=label)
        for axes in grid[-1]:
            axes.set_xlabel("iteration")
        for axes in grid[:, -1]:
            axes.legend(bbox_to_anchor=(1.02, 1), loc="upper left", borderaxespad=0)
        saving.write(path, lambda file: figure.savefig(file, format=path.suffix[1:] or "png"))

    def state_dict(self) -> dict[str, Any]:
        """Returns the sample, in one tensor."""
        statistics = torch.stack([values for _, values in self._sample]) if self._sample else None
        return {
            **super().state_dict(),
            "iterations": [iteration for iteration, _ in self._sample],
            "statistics": statistics,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what :meth:`state_dict` returned.

        Raises:
            ValueError: If it was saved with other percentiles, or with or without gradients.
        """
        self._sample = []
        refuse_kind([0], state["iterations"], "iterations")
        if state["statistics"] is not None:
            saved, shape = tuple(state["statistics"].shape[1:]), (len(self._kinds), 2 + len(self._percents))
            if saved != shape:
                raise ValueError(
                    f"the saved statistics of an iteration have shape {saved}, these {shape}: report_data, report_grad"
                    " and percentile_sigmas of VariableStatisticsPlot must stay as they were."
                )
            statistics = state["statistics"].to(self._parameters[0].device)
            self._sample = list(zip(state["iterations"], statistics, strict=True))
        super().load_state_dict(state)


def _parameters(targets: Any) -> list[Tensor]:
    """Returns every parameter of the targets once."""
    found: dict[int, Tensor] = {}
    for target in targets if isinstance(targets, (list, tuple)) else [targets]:
        if not isinstance(target, (Tensor, nn.Module)):
            raise TypeError(f"targets must be a parameter, a module, or a list of these, got {targets!r}.")
        for parameter in [target] if isinstance(target, Tensor) else target.parameters():
            found[id(parameter)] = parameter
    return list(found.values())
