"""When things happen: a trigger is a function from the trainer to a bool."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trainer.triggers.interval import IntervalTrigger, epoch_progress

__all__ = ["IntervalTrigger", "epoch_progress", "get_trigger"]


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
