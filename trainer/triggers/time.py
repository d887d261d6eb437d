"""Every so many seconds of training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from trainer.saving.state import Stateful

if TYPE_CHECKING:
    from trainer.trainer import Trainer


class TimeTrigger(Stateful):
    """Fires when another period of ``trainer.elapsed_time`` has passed. Chainer: ``TimeTrigger``.

    Time before a resume counts. Of several periods passed at once each fires, one a question.

    Args:
        period: Seconds, a positive number.

    Raises:
        ValueError: If the period is not positive.

    Example:
        >>> from types import SimpleNamespace
        >>> from trainer.triggers import TimeTrigger
        >>> trigger = TimeTrigger(60)
        >>> [trigger(SimpleNamespace(elapsed_time=t)) for t in (30, 61, 90, 125)]
        [False, True, False, True]
    """

    saved = ("_next",)
    examples: ClassVar[dict[str, Any]] = {"_next": 0.0}

    def __init__(self, period: float) -> None:
        if not isinstance(period, (int, float)) or not period > 0:
            raise ValueError(f"period must be a positive number of seconds, got {period!r}.")
        self.period = period
        self._next: float | None = None  # when it fires next; before the first question, a period after the start

    def begin(self, trainer: Trainer) -> None:
        """Has it count from now on, if it was never asked."""
        self._next = trainer.elapsed_time + self.period if self._next is None else self._next

    def __call__(self, trainer: Trainer) -> bool:
        """Tells whether the time has come."""
        if self._next is None:
            self._next = (getattr(trainer, "start", None) or {"time": 0.0})["time"] + self.period
        if trainer.elapsed_time <= self._next:
            return False
        self._next += self.period
        return True

    def __repr__(self) -> str:
        return f"TimeTrigger({self.period!r})"
