"""When an observed value is better than ever before."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from trainer.checks import UnknownKeyError
from trainer.saving.state import Stateful
from trainer.summary import DictSummary
from trainer.triggers.interval import get_trigger

if TYPE_CHECKING:
    from trainer.trainer import Trainer


class BestValueTrigger(Stateful):
    """Fires when the mean of a value over an interval is better than the best so far. Chainer: ``BestValueTrigger``.

    The first value is the best; NaN never is.

    Args:
        key: The observed value.
        compare: Called as ``compare(best, new)``; tells whether the new one is better.
        trigger: When the mean is taken and compared.

    Attributes:
        best_value: The best mean so far; None before the first.

    Raises:
        TypeError: If the key is no string, or ``compare`` cannot be called.
        KeyError: When asked, if the value was not observed in a whole interval.

    Example:
        >>> from extensions import snapshot
        >>> from trainer.triggers import BestValueTrigger
        >>> trigger = BestValueTrigger("main/loss", lambda best, new: new < 0.9 * best)
        >>> run.extend(snapshot(filename="good_{.updater.epoch}"), trigger=trigger)
        >>> run.run()
        >>> (tmp / "good_1").exists()
        True
    """

    saved = ("best_value", "_summary", "_trigger")
    examples: ClassVar[dict[str, Any]] = {"best_value": 0.0}

    def __init__(self, key: str, compare: Callable[[float, float], bool], trigger: Any = (1, "epoch")) -> None:
        if not isinstance(key, str):
            raise TypeError(f"key must be the name of an observation, got {key!r}; e.g. 'validation/main/loss'.")
        if not callable(compare):
            raise TypeError(f"compare must be a function of the best value and a new one, got {compare!r}.")
        self.key = key
        self.best_value: float | None = None
        self._compare = compare
        self._trigger = get_trigger(trigger)
        self._summary = DictSummary()

    def __call__(self, trainer: Trainer) -> bool:
        """Adds the value to the mean; when that is due, tells whether it is the best."""
        return bool(self.ask(trainer))

    def ask(self, trainer: Trainer) -> bool | None:
        """Does what a call does, and tells an interval without a better mean, False, from one under way, None."""
        self._summary.add(trainer.observation, (self.key,))
        if not self._trigger(trainer):
            return None
        means = self._summary.compute_mean()
        if self.key not in means:
            raise UnknownKeyError(
                f"{self.key!r} was not observed since the last question, only {sorted(trainer.observation)} now;"
                " correct the key, let what reports it come first, or ask as seldom as it reports.",
                self.key,
                trainer.observation,
            )
        self._summary.clear()
        value, best = means[self.key], self.best_value
        if value != value or not (best is None or self._compare(best, value)):
            return False
        self.best_value = value
        return True

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.key!r})"


class MaxValueTrigger(BestValueTrigger):
    """Fires when the mean of a value is greater than ever before. Chainer: ``MaxValueTrigger``.

    Args:
        key: The observed value.
        trigger: When the mean is taken and compared.

    Example:
        >>> from extensions import snapshot
        >>> from trainer.triggers import MaxValueTrigger
        >>> run.extend(snapshot(filename="best_{.updater.epoch}"), trigger=MaxValueTrigger("main/accuracy"))
        >>> run.run()
        >>> (tmp / "best_1").exists()
        True
    """

    def __init__(self, key: str, trigger: Any = (1, "epoch")) -> None:
        super().__init__(key, operator.lt, trigger)


class MinValueTrigger(BestValueTrigger):
    """Fires when the mean of a value is less than ever before. Chainer: ``MinValueTrigger``.

    Args:
        key: The observed value.
        trigger: When the mean is taken and compared.

    Example:
        >>> from extensions import snapshot
        >>> from trainer.triggers import MinValueTrigger
        >>> run.extend(snapshot(filename="best_{.updater.epoch}"), trigger=MinValueTrigger("main/loss"))
        >>> run.run()
        >>> (tmp / "best_1").exists()
        True
    """

    def __init__(self, key: str, trigger: Any = (1, "epoch")) -> None:
        super().__init__(key, operator.gt, trigger)
