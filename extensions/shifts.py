"""Seven schedules of an optimizer's learning rate, or of any other number in its parameter groups.

A shift counts its own calls and sets the value after each, for the next update: on ``(1, "iteration")`` its time is
iterations, extended with ``trigger=(1, "epoch")`` it is epochs. A resumed run has the very value it had.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import torch
from torch.optim import Optimizer

from trainer import Extension, Trainer


class _Shift(Extension):
    """Counts calls and sets values; a subclass gives the formula, ``value(t, init)``.

    Args:
        attr: The number to change in each parameter group.
        init: Its value at the start; by default the one that each group has.
        target: Where the change ends.
        optimizer: An optimizer or a list of them; by default the updater's main one.
        settings: The formula's own numbers, by name: become attributes. None is refused.
    """

    def __init__(
        self,
        attr: str,
        init: float | None,
        target: float | None,
        optimizer: Optimizer | Sequence[Optimizer] | None,
        **settings: Any,
    ) -> None:
        kind = type(self).__name__
        if not isinstance(attr, str):
            raise TypeError(f"attr must be the name of a number in the parameter groups, got {attr!r}; e.g. 'lr'.")
        for name, value in settings.items():
            if value is None:
                raise TypeError(f"{kind} needs {name}; e.g. {kind}('lr', {', '.join(f'{s}=...' for s in settings)}).")
            setattr(self, name, value)
        self.attr = attr
        self.target = target
        self._init = init
        self._given = None if optimizer is None else [optimizer] if isinstance(optimizer, Optimizer) else [*optimizer]
        self._optimizers: list[Optimizer] = []
        self._t = 0
        self._inits: list[float] = []  # one a parameter group
        self._loaded: list[float] = []
        for optimizer_ in self._given or ():
            self._check(optimizer_)

    def value(self, t: int, init: float) -> float | None:
        """Returns the value after call ``t``; None leaves it as it is."""
        raise NotImplementedError

    def initialize(self, trainer: Trainer) -> None:
        """Sets the first value, or after a resume the one that there was."""
        self._optimizers = self._given or [trainer.updater.get_optimizer("main")]
        for optimizer in self._optimizers:
            self._check(optimizer)
        if self._loaded:
            if len(self._loaded) != len(self._groups()):
                raise ValueError(
                    f"{self.name} was saved with {len(self._loaded)} parameter groups and now has"
                    f" {len(self._groups())}: give it the optimizers that it had."
                )
            self._set(self._loaded)
            self._loaded = []
        elif not self._inits:  # else it was interrupted, and goes on
            self._inits = self._get() if self._init is None else [self._init] * len(self._groups())
            self._set([self.value(0, init) for init in self._inits])

    def __call__(self, trainer: Trainer) -> None:
        """Sets the next value."""
        if not self._optimizers:
            self.initialize(trainer)
        self._t += 1
        self._set([self.value(self._t, init) for init in self._inits])

    def _clamped(self, value: float, init: float) -> float:
        """Returns the value, or the target once it lies behind."""
        target = self.target
        if target is None or value == init:
            return value
        is_beyond = abs(value) > abs(target) if abs(value) > abs(init) else abs(value) < abs(target)
        return target if is_beyond else value

    def _groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self._optimizers for group in optimizer.param_groups]

    def _get(self) -> list[float]:
        return [float(group[self.attr]) for group in self._groups()]

    def _set(self, values: Sequence[float | None]) -> None:
        for group, value in zip(self._groups(), values, strict=True):
            if value is None:
                continue
            if isinstance(group[self.attr], torch.Tensor):  # a compiled optimizer holds on to it
                group[self.attr].fill_(value)
            else:
                group[self.attr] = float(value)

    def _check(self, optimizer: Optimizer) -> None:
        for group in optimizer.param_groups:
            if not isinstance(group.get(self.attr), (int, float, torch.Tensor)):
                numbers = sorted(key for key, value in group.items() if isinstance(value, float))
                raise ValueError(
                    f"attr {self.attr!r} is not a number in the parameter groups of {type(optimizer).__name__}; there"
                    f" are {numbers}."
                )

    def state_dict(self) -> dict[str, Any]:
        """Returns the calls counted, the values at the start, and those of now."""
        return {"t": self._t, "inits": self._inits, "values": self._loaded or self._get()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what :meth:`state_dict` returned."""
        self._t, self._inits, self._loaded = state["t"], list(state["inits"]), list(state["values"])


class ExponentialShift(_Shift):
    """Multiplies by ``rate`` at each call: ``init * rate**t``. Chainer: ``ExponentialShift``.

    Args:
        attr: Which number of the parameter groups.
        rate: The factor, not negative.
        init: The value at the start; by default the one there is.
        target: The change ends at this value.
        optimizer: An optimizer or several; by default the updater's main one.

    Raises:
        ValueError: If the rate is negative.

    Example:
        >>> from extensions import ExponentialShift
        >>> run.extend(ExponentialShift("lr", 0.5), trigger=(1, "epoch"))
        >>> run.run()
        >>> run.updater.get_optimizer("main").param_groups[0]["lr"]
        0.025
    """

    rate: float

    def __init__(
        self,
        attr: str = "lr",
        rate: float | None = None,
        init: float | None = None,
        target: float | None = None,
        optimizer: Any = None,
    ) -> None:
        if rate is not None and rate < 0:
            raise ValueError(f"ExponentialShift does not support negative rate, got {rate}.")
        super().__init__(attr, init, target, optimizer, rate=rate)

    def value(self, t: int, init: float) -> float:
        """Returns ``init * rate**t``."""
        return self._clamped(init * self.rate**t, init)


class InverseShift(_Shift):
    """Decays as ``init * (1 + gamma * t) ** -power``. Chainer: ``InverseShift``.

    Args:
        attr: Which number of the parameter groups.
        gamma: Speed of the decay, not negative.
        power: Its exponent; a negative one makes the value grow.
        init: The value at the start; by default the one there is.
        target: The change ends at this value.
        optimizer: An optimizer or several; by default the updater's main one.

    Raises:
        ValueError: If gamma is negative.

    Example:
        >>> from extensions import InverseShift
        >>> run.extend(InverseShift("lr", gamma=1, power=1), trigger=(1, "epoch"))
        >>> run.run()
        >>> round(run.updater.get_optimizer("main").param_groups[0]["lr"], 6)
        0.033333
    """

    gamma: float
    power: float

    def __init__(
        self,
        attr: str = "lr",
        gamma: float | None = None,
        power: float | None = None,
        init: float | None = None,
        target: float | None = None,
        optimizer: Any = None,
    ) -> None:
        if gamma is not None and gamma < 0:
            raise ValueError(f"InverseShift does not support negative gamma, got {gamma}.")
        super().__init__(attr, init, target, optimizer, gamma=gamma, power=power)

    def value(self, t: int, init: float) -> float:
        """Returns ``init * (1 + gamma * t) ** -power``."""
        return self._clamped(init * (1 + self.gamma * t) ** -self.power, init)


class LinearShift(_Shift):
    """Goes from one value to another in a straight line. Chainer: ``LinearShift``.

    Args:
        attr: Which number of the parameter groups.
        value_range: First and last value.
        time_range: The calls between which it changes.
        optimizer: An optimizer or several; by default the updater's main one.

    Raises:
        ValueError: If a range is not a pair, or time does not go forwards.

    Example:
        >>> from extensions import LinearShift
        >>> run.extend(LinearShift("lr", (0.1, 0.3), (0, 8)))
        >>> run.run()
        >>> run.updater.get_optimizer("main").param_groups[0]["lr"]
        0.2
    """

    value_range: tuple[float, float]
    time_range: tuple[int, int]

    def __init__(
        self,
        attr: str = "lr",
        value_range: tuple[float, float] | None = None,
        time_range: tuple[int, int] | None = None,
        optimizer: Any = None,
    ) -> None:
        for name, pair in (("value_range", value_range), ("time_range", time_range)):
            if pair is not None and len(pair) != 2:
                raise ValueError(
                    f"{name} must be a pair, got {pair!r}; e.g. value_range=(0.1, 0), time_range=(0, 100)."
                )
        if time_range is not None and time_range[0] > time_range[1]:
            raise ValueError(f"time_range must go forwards, got {time_range!r}.")
        super().__init__(attr, None, None, optimizer, value_range=value_range, time_range=time_range)

    def value(self, t: int, init: float) -> float:
        """Returns the point of the line."""
        (v1, v2), (t1, t2) = self.value_range, self.time_range
        if t <= t1:
            return v1
        return v2 if t >= t2 else v1 + (t - t1) / (t2 - t1) * (v2 - v1)


class MultistepShift(_Shift):
    """Multiplies by ``gamma`` at each of the given calls. Chainer: ``MultistepShift``.

    Args:
        attr: Which number of the parameter groups.
        gamma: The factor.
        step_value: The calls, in rising order. A call makes at most one step.
        init: The value at the start; by default the one there is.
        optimizer: An optimizer or several; by default the updater's main one.

    Raises:
        ValueError: If the steps do not rise.

    Example:
        >>> from extensions import MultistepShift
        >>> run.extend(MultistepShift("lr", 0.1, [1, 3]))
        >>> run.run()
        >>> round(run.updater.get_optimizer("main").param_groups[0]["lr"], 6)
        0.001
    """

    gamma: float
    step_value: Sequence[int]

    def __init__(
        self,
        attr: str = "lr",
        gamma: float | None = None,
        step_value: Sequence[int] | None = None,
        init: float | None = None,
        optimizer: Any = None,
    ) -> None:
        self._steps: list[float] = []
        for step in step_value or ():
            if self._steps and step < step_value[len(self._steps) - 1]:  # type: ignore[index]
                raise ValueError(f"step_value must rise, got {step_value!r}.")
            self._steps.append(max(step, self._steps[-1] + 1 if self._steps else 1))
        super().__init__(attr, init, None, optimizer, gamma=gamma, step_value=step_value)

    def value(self, t: int, init: float) -> float:
        """Returns ``init * gamma**k``, k being the steps up to call t."""
        return init * self.gamma ** bisect_right(self._steps, t)


class PolynomialShift(_Shift):
    """Decays as ``init * (1 - t / max_count) ** rate``, then stays. Chainer: ``PolynomialShift``.

    Args:
        attr: Which number of the parameter groups.
        rate: The exponent.
        max_count: The call at which 0 is reached.
        init: The value at the start; by default the one there is.
        target: The change ends at this value.
        optimizer: An optimizer or several; by default the updater's main one.

    Raises:
        ValueError: If ``max_count`` is not positive.

    Example:
        >>> from extensions import PolynomialShift
        >>> run.extend(PolynomialShift("lr", rate=2, max_count=8))
        >>> run.run()
        >>> run.updater.get_optimizer("main").param_groups[0]["lr"]
        0.025
    """

    rate: float
    max_count: float

    def __init__(
        self,
        attr: str = "lr",
        rate: float | None = None,
        max_count: float | None = None,
        init: float | None = None,
        target: float | None = None,
        optimizer: Any = None,
    ) -> None:
        if max_count is not None and max_count <= 0:
            raise ValueError(f"max_count must be positive, got {max_count}.")
        super().__init__(attr, init, target, optimizer, rate=rate, max_count=max_count)

    def value(self, t: int, init: float) -> float:
        """Returns ``init * (1 - t / max_count) ** rate``."""
        decay = max(1 - t / self.max_count, 0.0)
        factor = decay**self.rate if decay or self.rate >= 0 else math.inf
        return self._clamped(init * factor, init)


class StepShift(_Shift):
    """Multiplies by ``gamma`` every ``step`` calls. Chainer: ``StepShift``.

    Args:
        attr: Which number of the parameter groups.
        gamma: The factor.
        step: Calls between two changes.
        init: The value at the start; by default the one there is.
        target: The change ends at this value.
        optimizer: An optimizer or several; by default the updater's main one.

    Raises:
        ValueError: If ``step`` is not positive.

    Example:
        >>> from extensions import StepShift
        >>> run.extend(StepShift("lr", gamma=0.5, step=2))
        >>> run.run()
        >>> run.updater.get_optimizer("main").param_groups[0]["lr"]
        0.025
    """

    gamma: float
    step: float

    def __init__(
        self,
        attr: str = "lr",
        gamma: float | None = None,
        step: float | None = None,
        init: float | None = None,
        target: float | None = None,
        optimizer: Any = None,
    ) -> None:
        if step is not None and step <= 0:
            raise ValueError(f"step must be positive, got {step}.")
        super().__init__(attr, init, target, optimizer, gamma=gamma, step=step)

    def value(self, t: int, init: float) -> float:
        """Returns ``init * gamma ** floor(t / step)``."""
        return self._clamped(init * self.gamma ** math.floor(t / self.step), init)


class WarmupShift(_Shift):
    """Goes from ``warmup_start`` to ``init`` in a straight line, then leaves the value alone. Chainer: ``WarmupShift``.

    Another shift may go on from there; extend the trainer with it first.

    Args:
        attr: Which number of the parameter groups.
        warmup_start: The value at the start; by default the one there is.
        warmup_iter: The call at which ``init`` is reached.
        init: The value at the end; by default the one there is.
        optimizer: An optimizer or several; by default the updater's main one.

    Raises:
        ValueError: If ``warmup_iter`` is not positive.
        TypeError: If neither ``warmup_start`` nor ``init`` is given: there is no way to go.

    Example:
        >>> from extensions import WarmupShift
        >>> run.extend(WarmupShift("lr", warmup_start=0.01, warmup_iter=8))
        >>> run.run()
        >>> run.updater.get_optimizer("main").param_groups[0]["lr"]
        0.055
    """

    warmup_iter: int

    def __init__(
        self,
        attr: str = "lr",
        warmup_start: float | None = None,
        warmup_iter: int | None = None,
        init: float | None = None,
        optimizer: Any = None,
    ) -> None:
        if warmup_start is None and init is None:
            raise TypeError("WarmupShift needs warmup_start or init; e.g. WarmupShift('lr', 0.01, 500).")
        if warmup_iter is not None and warmup_iter <= 0:
            raise ValueError(f"warmup_iter must be positive, got {warmup_iter}.")
        super().__init__(attr, None, None, optimizer, warmup_iter=warmup_iter)
        self.warmup_start = warmup_start
        self.init = init

    def value(self, t: int, init: float) -> float | None:
        """Returns the point of the line; None when the warm-up is over."""
        if t > self.warmup_iter:
            return None
        start = init if self.warmup_start is None else self.warmup_start
        end = init if self.init is None else self.init
        return (t * end + (self.warmup_iter - t) * start) / self.warmup_iter
