"""Seven schedules of an optimizer's learning rate, or of any other number in its parameter groups.

Each is a function of time, ``value(t, init)``. A shift counts its own calls and sets the value after each, for the
next update: on ``(1, "iteration")`` its time is iterations, extended with ``trigger=(1, "epoch")`` it is epochs. An
iteration in which the scaler of fp16 left out the optimizer's step does not count. A resumed run has the very value it
had.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import accumulate
from numbers import Real
from typing import Any, ClassVar

import torch
from torch.optim import Optimizer

from trainer import Extension, Trainer
from trainer.extension import has_no_step
from trainer.mistakes import near_names

NEEDED: Any = None  # the default of an argument that must be given: it stands behind attr, which has one
OPTIONAL = ("attr", "init", "target", "optimizer", "warmup_start")


class _Shift(Extension):
    """Counts calls and sets values; a subclass lists its arguments as fields and gives the formula.

    Attributes:
        attr: The number to change in each parameter group.
        init: Its value at the start; None for the one that each group has.
        target: Where the change ends; None for nowhere.
        optimizer: An optimizer or a list of them; None for the updater's main one.
        not_negative: The argument that may not be negative.
        positive: The argument that must be more than 0.
    """

    attr: str
    init: float | None = None
    target: float | None = None
    optimizer: Any
    not_negative = positive = ""

    saved = ("_t", "_inits", "_values")
    examples: ClassVar[dict[str, Any]] = {"_inits": [0.0], "_values": [0.0]}

    def __post_init__(self) -> None:
        kind = type(self).__name__
        needed = [f.name for f in fields(self) if f.name not in OPTIONAL]  # type: ignore[arg-type]
        if not isinstance(self.attr, str):
            raise TypeError(f"attr must be the name of a number in the parameter groups, got {self.attr!r}; e.g. 'lr'.")
        types = {f.name: str(f.type) for f in fields(self)}  # type: ignore[arg-type]
        for name in needed:
            value = getattr(self, name)
            is_one = types[name] in ("float", "int")
            numbers = [value] if is_one else value
            if value is not None and not (
                isinstance(numbers, (list, tuple))
                and all(isinstance(x, Real) and not isinstance(x, bool) for x in numbers)
            ):
                wanted = f"{name} must be {'a number' if is_one else 'numbers'}, got {value!r}"
                raise TypeError(f"{wanted}; the arguments of {kind} are {', '.join(types)}.")
            if value is None:
                raise TypeError(f"{kind} needs {name}; e.g. {kind}('lr', {', '.join(f'{n}=...' for n in needed)}).")
            if name == self.not_negative and value < 0:
                raise ValueError(f"{kind} does not support negative {name}, got {value}.")
            if name == self.positive and value <= 0:
                raise ValueError(f"{name} must be positive, got {value}.")
        self._t = 0
        self._inits: list[float] = []  # one a parameter group
        self._loaded: list[float] = []  # the values of a snapshot, until they are set
        given = self.optimizer
        self.optimizer = [given] if hasattr(given, "param_groups") else [*(given or ())]
        self._optimizers: list[Optimizer] = []  # once there is a trainer
        self._check(self.optimizer)

    def value(self, t: int, init: float) -> float | None:
        """Returns the value after call ``t``, short of the target; None leaves it as it is."""
        raise NotImplementedError

    def initialize(self, trainer: Trainer) -> None:
        """Sets the first value, or after a resume the one that there was."""
        self._optimizers = self.optimizer or [trainer.updater.get_optimizer("main")]
        self._check(self._optimizers)
        saved, now = len(self._loaded), len(self._groups())
        if saved and saved != now:
            raise ValueError(
                f"{self.name} was saved with {saved} parameter groups and now has {now}: give it the optimizers that it"
                " had."
            )
        if saved:
            self._set(self._loaded)
            self._loaded = []
        elif not self._inits:  # else it was interrupted, and goes on
            self._inits = self._starts()
            self._set_next()

    def __call__(self, trainer: Trainer) -> None:
        """Sets the next value."""
        if not self._optimizers:
            self.initialize(trainer)
        if has_no_step(trainer, self, self._optimizers):
            return
        self._t += 1
        self._set_next()

    def _check(self, optimizers: list[Optimizer]) -> None:
        for kind, group in [(type(optimizer), group) for optimizer in optimizers for group in optimizer.param_groups]:
            if not isinstance(group.get(self.attr), (int, float, torch.Tensor)):
                numbers = sorted(key for key, value in group.items() if isinstance(value, float))
                raise ValueError(
                    f"attr {self.attr!r} is not a number in the parameter groups of {kind.__name__}; there are"
                    f" {numbers}."
                )

    def _groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self._optimizers for group in optimizer.param_groups]

    def _starts(self) -> list[float]:
        return self._values if self.init is None else [self.init] * len(self._groups())

    def _set_next(self) -> None:
        for group in self._groups()[len(self._inits) :]:  # added since: in proportion to the first
            first, value = self._values[0], float(group[self.attr])
            self._inits.append(self._inits[0] * value / first if first else value)
        self._set([_until(self.target, self.value(self._t, init), init) for init in self._inits])

    def _set(self, values: Sequence[float | None]) -> None:
        for group, value in zip(self._groups(), values, strict=True):
            if value is not None and isinstance(group[self.attr], torch.Tensor):  # a compiled optimizer holds on to it
                group[self.attr].fill_(value)
            elif value is not None:
                group[self.attr] = float(value)

    @property
    def _values(self) -> list[float]:
        return self._loaded or [float(group[self.attr]) for group in self._groups()]

    @_values.setter
    def _values(self, values: list[float]) -> None:
        self._loaded = list(values)


def _until(target: float | None, value: float | None, init: float) -> float | None:
    """Returns the value, or the target once it lies behind."""
    if target is None or value is None or value == init:
        return value
    is_beyond = abs(value) > abs(target) if abs(value) > abs(init) else abs(value) < abs(target)
    return target if is_beyond else value


@near_names
@dataclass(eq=False)
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

    attr: str = "lr"
    rate: float = NEEDED
    init: float | None = None
    target: float | None = None
    optimizer: Any = None
    not_negative = "rate"

    def value(self, t: int, init: float) -> float:
        """Returns ``init * rate**t``."""
        return init * self.rate**t


@near_names
@dataclass(eq=False)
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

    attr: str = "lr"
    gamma: float = NEEDED
    power: float = NEEDED
    init: float | None = None
    target: float | None = None
    optimizer: Any = None
    not_negative = "gamma"

    def value(self, t: int, init: float) -> float:
        """Returns ``init * (1 + gamma * t) ** -power``."""
        return init * (1 + self.gamma * t) ** -self.power  # type: ignore[no-any-return]


@near_names
@dataclass(eq=False)
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

    attr: str = "lr"
    value_range: tuple[float, float] = NEEDED
    time_range: tuple[int, int] = NEEDED
    optimizer: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, got in (("value_range", self.value_range), ("time_range", self.time_range)):
            if len(got) != 2:
                raise ValueError(f"{name} must be a pair, got {got!r}; e.g. value_range=(0.1, 0), time_range=(0, 100).")
        if self.time_range[0] > self.time_range[1]:
            raise ValueError(f"time_range must go forwards, got {self.time_range!r}.")

    def value(self, t: int, init: float) -> float:
        """Returns the point of the line."""
        (v1, v2), (t1, t2) = self.value_range, self.time_range
        if t <= t1:
            return v1
        return v2 if t >= t2 else v1 + (t - t1) / (t2 - t1) * (v2 - v1)


@near_names
@dataclass(eq=False)
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

    attr: str = "lr"
    gamma: float = NEEDED
    step_value: Sequence[int] = NEEDED
    init: float | None = None
    optimizer: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if [*self.step_value] != sorted(self.step_value):
            raise ValueError(f"step_value must rise, got {self.step_value!r}.")
        self._steps = [*accumulate(self.step_value, lambda last, step: max(last + 1, step), initial=0)][1:]

    def value(self, t: int, init: float) -> float:
        """Returns ``init * gamma**k``, k being the steps up to call t."""
        return init * self.gamma ** bisect_right(self._steps, t)


@near_names
@dataclass(eq=False)
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

    attr: str = "lr"
    rate: float = NEEDED
    max_count: float = NEEDED
    init: float | None = None
    target: float | None = None
    optimizer: Any = None
    positive = "max_count"

    def value(self, t: int, init: float) -> float:
        """Returns ``init * (1 - t / max_count) ** rate``."""
        decay = max(1 - t / self.max_count, 0.0)
        return init * (decay**self.rate if decay or self.rate >= 0 else math.inf)


@near_names
@dataclass(eq=False)
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

    attr: str = "lr"
    gamma: float = NEEDED
    step: float = NEEDED
    init: float | None = None
    target: float | None = None
    optimizer: Any = None
    positive = "step"

    def value(self, t: int, init: float) -> float:
        """Returns ``init * gamma ** floor(t / step)``."""
        return init * self.gamma ** math.floor(t / self.step)


@near_names
@dataclass(eq=False)
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

    attr: str = "lr"
    warmup_start: float | None = None
    warmup_iter: int = NEEDED
    init: float | None = None
    optimizer: Any = None
    positive = "warmup_iter"

    def __post_init__(self) -> None:
        if self.warmup_start is None and self.init is None:
            raise TypeError("WarmupShift needs warmup_start or init; e.g. WarmupShift('lr', 0.01, 500).")
        super().__post_init__()

    def _starts(self) -> list[float]:
        return self._values  # init is the value at the end

    def value(self, t: int, init: float) -> float | None:
        """Returns the point of the line; None when the warm-up is over."""
        if t > self.warmup_iter:
            return None
        start = init if self.warmup_start is None else self.warmup_start
        end = init if self.init is None else self.init
        return (t * end + (self.warmup_iter - t) * start) / self.warmup_iter
