"""Every so many iterations or epochs, counted in integers."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.trainer import Trainer


def epoch_progress(source: Any) -> tuple[int, int]:
    """Returns how far an updater or iterator is, in integers: (samples, samples an epoch).

    One that cannot tell has its ``epoch_detail`` read, to the nearest millionth's fraction.

    Example:
        >>> from types import SimpleNamespace
        >>> from trainer.triggers import epoch_progress
        >>> epoch_progress(SimpleNamespace(epoch_detail=0.3))
        (3, 10)
    """
    tell = getattr(source, "epoch_progress", None)
    if tell is not None:
        samples, size = tell()
        return samples, size
    return Fraction(source.epoch_detail).limit_denominator(10**6).as_integer_ratio()


class IntervalTrigger:
    """Fires when a multiple of the period was crossed since it was last asked. Chainer: ``IntervalTrigger``.

    The period is taken as a fraction and progress comes in integers, so 0.1 epoch is exactly a tenth, for ever.

    Args:
        period: A positive number; epochs may be fractional.
        unit: ``"iteration"`` or ``"epoch"``.

    Raises:
        ValueError: If the unit is another, or the period not a positive number (a whole one for iterations).

    Example:
        >>> from types import SimpleNamespace
        >>> from trainer.triggers import IntervalTrigger
        >>> trigger = IntervalTrigger(2, "iteration")
        >>> [trigger(SimpleNamespace(updater=SimpleNamespace(iteration=i))) for i in (1, 2, 3, 4)]
        [False, True, False, True]
    """

    def __init__(self, period: float, unit: str) -> None:
        if unit not in ("iteration", "epoch"):
            raise ValueError(f"unit must be 'iteration' or 'epoch', got {unit!r}; e.g. (10, 'epoch').")
        try:
            exact = Fraction(period).limit_denominator(10**6)
        except (TypeError, ValueError, OverflowError):
            exact = Fraction(0)
        if exact <= 0 or (unit == "iteration" and exact.denominator != 1):
            kind = "whole " if unit == "iteration" else ""
            raise ValueError(f"period must be a positive {kind}number of {unit}s, got {period!r}; e.g. (10, 'epoch').")
        self.period = period
        self.unit = unit
        self._p, self._q = exact.numerator, exact.denominator
        self._progress = (0, 1)  # when it was last asked
        self._count = 0  # multiples of the period up to there

    def _now(self, trainer: Trainer) -> tuple[int, int]:
        updater = trainer.updater
        return (updater.iteration, 1) if self.unit == "iteration" else epoch_progress(updater)

    def __call__(self, trainer: Trainer) -> bool:
        """Tells whether a multiple of the period was crossed since the last call."""
        n, per = self._progress = self._now(trainer)
        previous = self._count
        self._count = n * self._q // (per * self._p)
        return self._count != previous

    def reached(self, trainer: Trainer) -> bool:
        """Tells whether the period has passed since the beginning: what an interval means as a stop trigger."""
        n, per = self._now(trainer)
        return n * self._q >= per * self._p

    def get_training_length(self) -> tuple[float, str]:
        """Returns period and unit: how long training takes with this as stop trigger."""
        return self.period, self.unit

    def state_dict(self) -> dict[str, Any]:
        """Returns the progress at the last call."""
        return {"progress": list(self._progress)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what :meth:`state_dict` returned, perhaps of a trigger with another period."""
        n, per = state["progress"]
        self._progress = (n, per)
        self._count = n * self._q // (per * self._p)

    def __repr__(self) -> str:
        return f"IntervalTrigger({self.period!r}, {self.unit!r})"
