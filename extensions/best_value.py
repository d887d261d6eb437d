"""Keeps the best value of an observation, and when it was observed."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, ClassVar

from trainer import Extension, Trainer, report
from trainer.triggers import BestValueTrigger


class BestValue(Extension):
    """Reports the best mean so far of a value as ``best/<key>``, for log and table. pytorch-pfn-extras: ``BestValue``.

    The means are those over an interval, as a :class:`~trainer.triggers.BestValueTrigger` takes them, and the best is
    reported at the end of each; a LogReport with the same trigger has the same numbers. The first value is the best;
    NaN never is.

    Args:
        key: The observed value.
        compare: Called as ``compare(best, new)``; tells whether the new one is better.
        trigger: When the mean is taken and compared.

    Attributes:
        best_iteration: The iteration of the best mean; None before the first.
        best_epoch: Its epoch.

    Raises:
        TypeError: If the key is no string, or ``compare`` cannot be called.
        KeyError: When called, if the value was not observed in a whole interval.

    Example:
        >>> from extensions import BestValue
        >>> run.extend(BestValue("main/loss", lambda best, new: new < 0.9 * best))
        >>> run.run()
        >>> "best/main/loss" in run.observation
        True
    """

    saved = ("_trigger", "best_iteration", "best_epoch")
    examples: ClassVar[dict[str, Any]] = {"best_iteration": 0, "best_epoch": 0}

    def __init__(self, key: str, compare: Callable[[float, float], bool], trigger: Any = (1, "epoch")) -> None:
        self._trigger = BestValueTrigger(key, compare, trigger)
        self.best_iteration: int | None = None
        self.best_epoch: int | None = None

    @property
    def best_value(self) -> float | None:
        """The best mean so far; None before the first."""
        return self._trigger.best_value

    def __call__(self, trainer: Trainer) -> None:
        """Adds the value to the mean; when that is due, compares it and reports the best."""
        is_better = self._trigger.ask(trainer)
        if is_better:
            self.best_iteration, self.best_epoch = trainer.updater.iteration, trainer.updater.epoch
        if is_better is not None and self.best_value is not None:
            report({f"best/{self._trigger.key}": (self.best_value, 1)})  # x * weight / weight may differ from x


class MaxValue(BestValue):
    """Reports the greatest mean so far of a value as ``best/<key>``. pytorch-pfn-extras: ``MaxValue``.

    Args:
        key: The observed value.
        trigger: When the mean is taken and compared.

    Example:
        >>> from extensions import MaxValue
        >>> best = MaxValue("main/accuracy", (1, "iteration"))
        >>> run.extend(best)
        >>> run.run()
        >>> best.best_value == run.observation["best/main/accuracy"], best.best_iteration <= 4
        (True, True)
    """

    def __init__(self, key: str, trigger: Any = (1, "epoch")) -> None:
        super().__init__(key, operator.lt, trigger)


class MinValue(BestValue):
    """Reports the least mean so far of a value as ``best/<key>``. pytorch-pfn-extras: ``MinValue``.

    Args:
        key: The observed value.
        trigger: When the mean is taken and compared.

    Example:
        >>> from extensions import LogReport, MinValue
        >>> run.extend(MinValue("main/loss"))
        >>> run.extend(LogReport())
        >>> run.run()
        >>> log = run.get_extension("LogReport").log
        >>> log[-1]["best/main/loss"] == min(entry["main/loss"] for entry in log)
        True
    """

    def __init__(self, key: str, trigger: Any = (1, "epoch")) -> None:
        super().__init__(key, operator.gt, trigger)
