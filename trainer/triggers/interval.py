"""Every so many iterations or epochs, counted in integers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trainer.triggers.progress import ProgressTrigger, exact


class IntervalTrigger(ProgressTrigger):
    """Fires when a multiple of the period was crossed since it was last asked. Chainer: ``IntervalTrigger``.

    The period is taken as a fraction and progress comes in integers, so 0.1 epoch is exactly a tenth, for ever.

    Args:
        period: A positive number, which may be fractional.
        unit: ``"iteration"`` or ``"epoch"``.

    Raises:
        ValueError: If the unit is another, or the period not a positive number.

    Example:
        >>> from types import SimpleNamespace
        >>> from trainer.triggers import IntervalTrigger
        >>> trigger = IntervalTrigger(2, "iteration")
        >>> [trigger(SimpleNamespace(updater=SimpleNamespace(iteration=i))) for i in (1, 2, 3, 4)]
        [False, True, False, True]
    """

    def __init__(self, period: float, unit: str) -> None:
        super().__init__(unit)
        try:
            self._p, self._q = exact(period).as_integer_ratio()
        except ValueError:
            self._p = 0
        if self._p <= 0:
            raise ValueError(f"period must be a positive number of {unit}s, got {period!r}; e.g. (10, 'epoch').")
        self.period = period

    def _passed(self, n: int, per: int) -> int:
        return n * self._q // (per * self._p)

    def get_training_length(self) -> tuple[float, str]:
        """Returns period and unit: how long training takes with this as stop trigger."""
        return self.period, self.unit

    def __repr__(self) -> str:
        return f"IntervalTrigger({self.period!r}, {self.unit!r})"


def get_trigger(trigger: Any) -> Callable[..., bool]:
    """Returns a trigger: a callable as it is, ``(period, unit)`` as :class:`IntervalTrigger`, None as never.

    Raises:
        TypeError: If it is none of these.

    Example:
        >>> from trainer.triggers import get_trigger
        >>> get_trigger((0.1, "epoch"))
        IntervalTrigger(0.1, 'epoch')
    """
    if trigger is None:
        return _never
    if callable(trigger):
        return trigger  # type: ignore[no-any-return]
    if isinstance(trigger, (tuple, list)) and len(trigger) == 2:
        return IntervalTrigger(*trigger)
    raise TypeError(
        f"a trigger must be (period, unit), a function of the trainer, or None, got {trigger!r}; e.g. (1, 'epoch')."
    )


def _never(trainer: Any) -> bool:
    return False


def always(trainer: Any) -> bool:
    """Says yes, as ``IntervalTrigger(1, "iteration")`` does when it is asked in each iteration, in less time."""
    return True
