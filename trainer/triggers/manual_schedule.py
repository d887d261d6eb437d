"""At chosen iterations or epochs."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable

from trainer.triggers.interval import ProgressTrigger, exact


class ManualScheduleTrigger(ProgressTrigger):
    """Fires when one of the points was reached since it was last asked. Chainer: ``ManualScheduleTrigger``.

    Args:
        points: A number, or a sequence of them in any order; they may be fractional.
        unit: ``"iteration"`` or ``"epoch"``.

    Attributes:
        finished: Whether it has fired for the last point.

    Raises:
        ValueError: If the unit is another, there is no point, or one is not a number.

    Example:
        >>> from types import SimpleNamespace
        >>> from trainer.triggers import ManualScheduleTrigger
        >>> trigger = ManualScheduleTrigger([2, 3], "iteration")
        >>> [trigger(SimpleNamespace(updater=SimpleNamespace(iteration=i))) for i in (1, 2, 3, 4)]
        [False, True, True, False]
    """

    def __init__(self, points: float | Iterable[float], unit: str) -> None:
        super().__init__(unit)
        self.points = list(points) if isinstance(points, Iterable) and not isinstance(points, str) else [points]
        fractions = sorted(exact(point, f"points must be numbers of {unit}s") for point in self.points)
        if not fractions:
            raise ValueError(f"points must name at least one {unit}, got {points!r}; e.g. [30, 60].")
        self._q = math.lcm(*(point.denominator for point in fractions))
        self._points = [int(point * self._q) for point in fractions]
        self._first = self._points[0]

    def _mark(self, n: int, per: int) -> float:
        return [*self._points, math.inf][bisect_right(self._points, n * self._q // per)]

    @property
    def finished(self) -> bool:
        """Whether no point is left."""
        return self._progress is not None and self._mark(*self._progress) == math.inf

    def __repr__(self) -> str:
        return f"ManualScheduleTrigger({self.points!r}, {self.unit!r})"
