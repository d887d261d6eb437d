"""Averages over an epoch what was counted batch by batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trainer import PRIORITY_EDITOR, Extension, Ratio, Summary, Trainer, report
from trainer.checks import near, warn
from trainer.summary import is_scalar, warn_left_out
from trainer.triggers import get_trigger


class MicroAverage(Extension):
    """Reports the sum of one observation over the sum of another, such as correct over all. Chainer: ``MicroAverage``.

    A mean of the batches' means gives every batch the same weight; this gives it to every sample. (What is reported
    as :class:`~trainer.Ratio` is averaged so in any case.) An iteration that lacks one of the two, or has one
    that is no number, is passed over.

    Args:
        numerator_key: The observation to sum up.
        denominator_key: The observation whose sum it is divided by; where that is 0 the result is NaN.
        result_key: The name of the result in the observation, as it is.
        trigger: When the result is reported and the sums start anew.

    Example:
        >>> from extensions import MicroAverage, observe_value
        >>> run.extend(observe_value("correct", lambda trainer: trainer.updater.iteration), trigger=(1, "iteration"))
        >>> run.extend(observe_value("count", lambda trainer: 5), trigger=(1, "iteration"))
        >>> run.extend(MicroAverage("correct", "count", "accuracy"))
        >>> run.run()
        >>> run.observation["accuracy"]
        0.7
    """

    priority = PRIORITY_EDITOR
    _is_in_use = False  # whether both were observed together
    saved = ("_numerator", "_denominator", "_trigger")

    def __init__(self, numerator_key: str, denominator_key: str, result_key: str, trigger: Any = (1, "epoch")) -> None:
        self._numerator_key = numerator_key
        self._denominator_key = denominator_key
        self._result_key = result_key
        self._trigger = get_trigger(trigger)
        self._numerator, self._denominator = Summary(), Summary()
        self._observed: list[str] = []  # where one of the two was missing
        self._left_out: set[tuple[str, type]] = set()  # what was warned of

    def __call__(self, trainer: Trainer) -> None:
        """Adds both to their sums; reports the quotient if it is time."""
        observation = trainer.observation
        if self._numerator_key not in observation or self._denominator_key not in observation:
            self._observed = self._observed or sorted(observation)
            return
        self._is_in_use = True
        values = {key: _plain(observation[key]) for key in (self._numerator_key, self._denominator_key)}
        if left_out := [key for key, value in values.items() if not is_scalar(value)]:
            for key in left_out:
                warn_left_out(self._left_out, key, values[key])
            return
        self._numerator.add(values[self._numerator_key])
        self._denominator.add(values[self._denominator_key])
        if self._trigger(trainer):
            numerator, denominator = self._numerator.state_dict()["x"], self._denominator.state_dict()["x"]
            report({self._result_key: numerator / denominator if denominator else float("nan")})
            self._numerator, self._denominator = Summary(), Summary()

    def finalize(self) -> None:
        """Warns if there was nothing to average in the whole run."""
        if self._observed and not self._is_in_use:
            keys = [self._numerator_key, self._denominator_key]
            hint = near(next(key for key in keys if key not in self._observed), self._observed)
            warn(f"{self.name}: {keys} were never observed together, only {self._observed}.{hint}")


def _plain(value: Any) -> Any:
    """Returns what ``float(value)`` would, as a tensor where it is one: nothing waits for the device."""
    if isinstance(value, Ratio):
        total, count = value.total, value.count
        if not isinstance(total, Tensor) and not isinstance(count, Tensor):
            return float(value)
        return torch.as_tensor(total, dtype=torch.float64) / count
    return value[0] if isinstance(value, tuple) else value  # (value, weight): each counts once, whatever its weight
