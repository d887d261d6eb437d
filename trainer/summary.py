"""How observed values are averaged: a metric merges with others of its kind, and computes to a number.

A value stays where it was made, on its device, until somebody reads it: nothing here waits for the device before.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import partial
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.lib.mixins import NDArrayOperatorsMixin
from torch import Tensor

from trainer.checks import UnknownKeyError, warn
from trainer.saving.state import refuse_kind

STATISTICS = ("std", "min", "max")  # of a DictSummary, beside the mean
CHUNK = 1024  # pending values are stacked, on their device, whenever there are so many of them


class Metric(NDArrayOperatorsMixin):
    """A value that merges with others of its kind, and reads as the number that it computes to.

    So ``observation["main/loss"] > 10``, ``2 * loss`` or ``f"{loss:.3f}"`` mean the number; each waits for the device.

    Example:
        >>> from trainer import Ratio
        >>> hits = Ratio(3, 4).merge(Ratio(0, 1))
        >>> hits.compute(), hits > 0.5, f"{hits:.3f}"
        (0.6, True, '0.600')
    """

    __slots__ = ()

    def merge(self, *others: Any) -> Any:
        """Returns the metric of all the samples together."""
        raise NotImplementedError

    def compute(self) -> Any:
        """Returns the number: a float or a 0-d tensor."""
        raise NotImplementedError

    def item(self) -> float:
        """Returns the number, as a tensor's ``item`` does."""
        return float(self)

    def __float__(self) -> float:
        return float(self.compute())

    def __int__(self) -> int:
        return int(float(self))

    def __round__(self, digits: int | None = None) -> float:
        return round(float(self), digits)

    def __format__(self, spec: str) -> str:
        return format(float(self), spec)

    def __str__(self) -> str:
        return str(float(self))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.asarray(float(self), dtype)

    def __array_ufunc__(self, function: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        numbers = [float(x) if isinstance(x, (Metric, Tensor)) else x for x in inputs]
        result = getattr(function, method)(*numbers, **kwargs)
        return result.item() if isinstance(result, np.generic) else result

    def __eq__(self, other: Any) -> Any:
        return tuple.__eq__(self, other) if isinstance(other, tuple) else float(self) == other  # type: ignore[operator]

    def __ne__(self, other: Any) -> Any:
        return not self == other

    def __hash__(self) -> int:
        return tuple.__hash__(self)  # type: ignore[arg-type]


class Ratio(Metric, NamedTuple("Ratio", [("total", Any), ("count", Any)])):
    """A total and what it was counted over; the mean of several is sum(total) / sum(count).

    Report one where a mean of means would be wrong: accuracy over a short last batch, say.

    Args:
        total: A number or 0-d tensor.
        count: A number or 0-d tensor.

    Example:
        >>> from trainer import DictSummary, Ratio
        >>> summary = DictSummary()
        >>> summary.add({"accuracy": Ratio(3, 4)})
        >>> summary.add({"accuracy": Ratio(0, 1)})
        >>> summary.compute_mean()
        {'accuracy': 0.6}
    """

    __slots__ = ()

    def merge(self, *others: Ratio) -> Ratio:
        """Returns the ratio over all samples."""
        totals, counts = (map(_read, part) for part in zip(self, *others, strict=True))
        return Ratio(sum(totals), sum(counts))

    def compute(self) -> float:
        """Returns total / count; NaN over nothing."""
        return float(self.total) / float(self.count) if self.count else float("nan")


class Weighted(Metric, NamedTuple("Weighted", [("value", Any), ("weight", Any)])):
    """A value with its weight in the mean: what a plain ``(value, weight)`` in a report means.

    Args:
        value: A number or 0-d tensor.
        weight: A number or 0-d tensor.

    Example:
        >>> from trainer import DictSummary, Weighted
        >>> summary = DictSummary()
        >>> summary.add({"loss": Weighted(1.0, 3)})
        >>> summary.add({"loss": (5.0, 1)})
        >>> summary.compute_mean()
        {'loss': 2.0}
    """

    __slots__ = ()

    def merge(self, *others: Weighted) -> Weighted:
        """Returns the weighted mean with the sum of the weights, in float64 on the values' device."""
        pairs = [(_read(value), _read(weight)) for value, weight in (self, *others)]
        if not any(isinstance(part, Tensor) for pair in pairs for part in pair):
            weight = sum(weight for _, weight in pairs)
            total = sum(value * weight for value, weight in pairs if weight != 0)  # what weighs 0 may be NaN
            return Weighted(total / weight if weight else float("nan"), weight)
        device = next(part.device for pair in pairs for part in pair if isinstance(part, Tensor))
        x, weights = (
            torch.stack([on_device(part, device, torch.float64) for part in parts])
            for parts in zip(*pairs, strict=True)
        )
        total = torch.where(weights == 0, 0.0, x * weights).sum()  # what weighs 0 may be NaN
        return Weighted(total / weights.sum(), weights.sum())

    def compute(self) -> Any:
        """Returns the value."""
        return self.value


def _read(value: Any) -> Any:
    """Returns a number for what the CPU has: to add up a few is 2 microseconds a tensor dearer."""
    if isinstance(value, Decimal):
        return float(value)
    return value.item() if isinstance(value, np.ndarray) or (isinstance(value, Tensor) and value.is_cpu) else value


def on_device(value: Any, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Returns a number or one-element tensor as a 0-d tensor there; to copy a number there would wait for the device.

    Example:
        >>> import torch
        >>> from trainer.summary import on_device
        >>> on_device(3, torch.device("cpu"), torch.float64)
        tensor(3., dtype=torch.float64)
    """
    if isinstance(value, Tensor):
        return value.to(device, dtype).reshape(())
    return torch.full((), float(value), dtype=dtype, device=device)


class Observation(dict[str, Any]):
    """The values observed in one iteration, by name.

    ``weight`` is what a plain value weighs in a mean: the number of samples in the batch.

    Example:
        >>> from trainer import DictSummary, Observation
        >>> summary = DictSummary()
        >>> for loss, samples in [(1.0, 3), (5.0, 1)]:
        ...     observation = Observation(loss=loss)
        ...     observation.weight = samples
        ...     summary.add(observation)
        >>> summary.compute_mean()
        {'loss': 2.0}
    """

    weight: float = 1

    def __missing__(self, key: str) -> Any:
        raise UnknownKeyError(f"{key!r} is not observed in this iteration, only {sorted(self)}.", key, self)


def averaged(observations: Iterable[Observation]) -> dict[str, Any]:
    """Returns each value merged over several observations, without waiting for the device.

    What is no number is taken from the last observation.

    Example:
        >>> from trainer import Observation, Ratio
        >>> from trainer.summary import averaged
        >>> mean = averaged([Observation(x=1.0, hits=Ratio(1, 2)), Observation(x=2.0, hits=Ratio(0, 2))])
        >>> float(mean["x"]), tuple(mean["hits"])
        (1.5, (1, 4))
    """
    columns: dict[str, list[Any]] = defaultdict(list)
    for observation in observations:
        for key, value in observation.items():
            columns[key].append(Weighted(value, observation.weight) if is_scalar(value) else value)
    means: dict[str, Any] = {}
    for key, values in columns.items():
        is_metric = all(isinstance(value, Metric) for value in values)
        if is_metric and len(set(map(type, values))) > 1:  # a Ratio in one batch and a plain number in another
            values = [Weighted(torch.as_tensor(v.total) / v.count, v.count) if type(v) is Ratio else v for v in values]
        means[key] = values[0].merge(*values[1:]) if is_metric else values[-1]
    return means


class Summary:
    """Mean and deviation of a sequence of values, added on the host in float64, strictly left to right.

    Tensors stay on their device until the sums are asked for; then they are fetched in one go. So when they are
    fetched changes no bit. Chainer: ``chainer.reporter.Summary``.

    Args:
        extremes: Whether to keep the least and the greatest value too.

    Example:
        >>> from trainer import Summary
        >>> summary = Summary()
        >>> for x in (1, 2, 3):
        ...     summary.add(x)
        >>> mean, deviation = summary.make_statistics()
        >>> mean, round(deviation, 5)
        (2.0, 0.8165)
    """

    def __init__(self, extremes: bool = False) -> None:
        self._x = self._x2 = self._n = 0.0
        self._extremes = [float("inf"), float("-inf")] if extremes else None
        self._is_empty = True
        self._columns: list[tuple[Any, Any, tuple[bool, ...]]] = []
        self._pending: list[tuple[Any, Any, bool]] = []  # (value, weight, False) or (total, count, True)

    def add(self, value: Any, weight: Any = 1) -> None:
        """Adds a number or one-element tensor with a weight, or a :class:`Ratio`, which is its own weight.

        What weighs 0 (a batch whose labels are all ignored) counts for nothing, even NaN.
        """
        self._pending.append((*value, True) if type(value) is Ratio else (value, weight, False))
        if len(self._pending) >= CHUNK:
            self._stack()

    def _stack(self) -> None:
        if self._pending:
            values, weights, is_ratio = zip(*self._pending, strict=True)
            self._columns.append((_column(values), _column(weights), is_ratio))
            self._pending = []
            self._is_empty = False

    def _fetch(self) -> None:
        self._stack()
        columns, self._columns = self._columns, []
        x, x2, n = self._x, self._x2, self._n
        for *stacks, is_ratio in columns:
            values, weights = (s.flatten().tolist() if isinstance(s, Tensor) else map(float, s) for s in stacks)
            if self._extremes is not None:
                values, weights = list(values), list(weights)
                parts = zip(values, weights, is_ratio, strict=True)
                single = [value / weight if ratio else value for value, weight, ratio in parts if weight]
                low, high = self._extremes
                self._extremes = [float(np.min([low, *single])), float(np.max([high, *single]))]  # NaN if one is NaN
            for value, weight, ratio in zip(values, weights, is_ratio, strict=True):
                if weight:
                    total = value if ratio else value * weight
                    x += total
                    x2 += total * total / weight
                    n += weight
        self._x, self._x2, self._n = x, x2, n

    def compute_mean(self) -> float:
        """Returns the weighted mean; NaN if every weight was 0.

        Raises:
            ZeroDivisionError: If nothing was added.
        """
        self._fetch()
        if self._is_empty:
            raise ZeroDivisionError("the mean of no values: nothing was added to this Summary.")
        return self._x / self._n if self._n else float("nan")

    def make_statistics(self) -> tuple[float, float]:
        """Returns the weighted mean and population standard deviation."""
        mean = self.compute_mean()
        return mean, max(self._x2 / self._n - mean * mean, 0.0) ** 0.5 if self._n else mean

    def extremes(self) -> tuple[float, float]:
        """Returns the least and the greatest value; NaN if they are not kept, or every weight was 0."""
        self._fetch()
        low, high = self._extremes if self._extremes is not None and self._n else (float("nan"),) * 2
        return low, high

    def state_dict(self) -> dict[str, float]:
        """Returns the three sums: of values, of squares, of weights; and the extremes, if they are kept."""
        self._fetch()
        extremes = {} if self._extremes is None else dict(zip(("min", "max"), self._extremes, strict=True))
        return {"x": self._x, "x2": self._x2, "n": self._n} | extremes

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Puts back what :meth:`state_dict` returned; extremes that were not kept before are NaN."""
        refuse_kind({name: 0.0 for name in ("x", "x2", "n", "min", "max")}, dict(state), "the sums")
        self.__init__(self._extremes is not None)  # type: ignore[misc]
        self._x, self._x2, self._n = state["x"], state["x2"], state["n"]
        if self._extremes is not None:
            self._extremes = [state.get(name, float("nan")) for name in ("min", "max")]
        self._is_empty = False


def _column(values: tuple[Any, ...]) -> Any:
    """Reads the CPU's tensors, stacks those of one shape, dtype and device there, and leaves the rest as it is."""
    if set(map(type, values)) != {Tensor}:
        return [value.item() if isinstance(value, np.ndarray) else value for value in values]
    if values[0].is_cpu:
        return [value.item() for value in values]
    is_even = len({(value.dtype, value.device, value.shape) for value in values}) == 1
    return torch.stack(values) if is_even else values


class DictSummary:
    """A :class:`Summary` for each key of a sequence of observations. Chainer: ``chainer.DictSummary``.

    Numbers, arrays and tensors of one element, ``(value, weight)`` and :class:`Ratio` are averaged. Anything else is
    left out, with a warning the first time.

    Args:
        statistics: What :meth:`make_statistics` returns beside the mean: ``"std"``, ``"min"``, ``"max"``.

    Raises:
        ValueError: If a statistic is not one of these.

    Example:
        >>> from trainer import DictSummary
        >>> summary = DictSummary()
        >>> summary.add({"loss": 2.0})
        >>> summary.add({"loss": 4.0})
        >>> summary.compute_mean()
        {'loss': 3.0}
    """

    def __init__(self, statistics: Iterable[str] = ("std",)) -> None:
        self.statistics = (statistics,) if isinstance(statistics, str) else tuple(statistics)
        if unknown := [name for name in self.statistics if name not in STATISTICS]:
            raise ValueError(f"a statistic is 'std', 'min' or 'max', got {unknown[0]!r}; the mean always comes.")
        has_extremes = not {"min", "max"}.isdisjoint(self.statistics)
        self._summaries: dict[str, Summary] = defaultdict(partial(Summary, True) if has_extremes else Summary)
        self._left_out: set[tuple[str, type]] = set()  # what was warned of

    def add(self, observation: Mapping[str, Any], keys: Iterable[str] | None = None) -> None:
        """Adds one observation, or the named values of it that there are.

        A plain value weighs ``observation.weight`` if there is one, else 1.

        Raises:
            ValueError: If the weight in a ``(value, weight)`` is not a number.
        """
        plain_weight = getattr(observation, "weight", 1)
        for key in observation if keys is None else keys:
            value: Any = observation.get(key)
            weight, kind = plain_weight, type(value)
            if kind is Ratio or kind is Weighted:
                if key not in self._summaries and not all(map(is_scalar, value)):  # once an interval: it costs 0.5 us
                    warn_left_out(self._left_out, key, next(part for part in value if not is_scalar(part)))
                    continue
                value, weight = value
            elif isinstance(value, tuple):
                if not is_weighted(value):
                    warn_left_out(self._left_out, key, value)
                    continue
                value, weight = value
            elif kind is not float and not is_scalar(value):
                if value is not None or key in observation:
                    warn_left_out(self._left_out, key, value)
                continue
            summary = self._summaries[key]
            summary._pending.append((value, weight, kind is Ratio))  # as Summary.add does, which costs 2 us for three
            if len(summary._pending) >= CHUNK:
                summary._stack()

    def clear(self) -> None:
        """Starts anew, without what was added; what was left out is not warned of again."""
        self._summaries.clear()

    def compute_mean(self) -> dict[str, float]:
        """Returns the mean of each key, in the order in which the keys came."""
        return {key: summary.compute_mean() for key, summary in self._summaries.items()}

    def make_statistics(self) -> dict[str, float]:
        """Returns the mean of each key and its ``statistics``: the standard deviation as ``key.std``, and so on."""
        result = {}
        for key, summary in self._summaries.items():
            result[key] = summary.compute_mean()
            if self.statistics:
                found = dict(zip(STATISTICS, (summary.make_statistics()[1], *summary.extremes()), strict=True))
                result |= {f"{key}.{name}": found[name] for name in self.statistics}
        return result

    def weightless(self) -> set[str]:
        """Returns the keys of which every value weighed 0: their means are NaN, and say nothing."""
        return {key for key, sums in self.state_dict().items() if not sums["n"]}

    def state_dict(self) -> dict[str, dict[str, float]]:
        """Returns the sums of each key."""
        return {key: summary.state_dict() for key, summary in self._summaries.items()}

    def load_state_dict(self, state: Mapping[str, Mapping[str, float]]) -> None:
        """Puts back what :meth:`state_dict` returned."""
        self._summaries.clear()
        for key, sums in state.items():
            self._summaries[key].load_state_dict(sums)


def warn_left_out(told: set[tuple[str, type]], key: str, value: Any) -> None:
    """Warns of an observed value that is no number, once a key and class.

    Args:
        told: What was warned of before.
        key: Its name.
        value: The value.

    Example:
        >>> import warnings
        >>> from trainer.summary import warn_left_out
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     warn_left_out(set(), "boxes", [1, 2])
        >>> str(caught[0].message).split(":")[0]
        "'boxes' is left out of the means"
    """
    if (key, type(value)) not in told:
        told.add((key, type(value)))
        warn(
            f"{key!r} is left out of the means: it is {kind_of(value)}, not one real number. Report its mean, or each"
            " element under its own key."
        )


def is_weighted(value: tuple[Any, ...]) -> bool:
    """Tells whether a tuple is a number with its weight.

    Raises:
        ValueError: If the weight is not a number.

    Example:
        >>> from trainer.summary import is_weighted
        >>> is_weighted((1.5, 3)), is_weighted(("text", 3))
        (True, False)
    """
    if len(value) != 2 or not is_scalar(value[0]):
        return False
    if not is_scalar(value[1]) or getattr(value[1], "ndim", 0) > 0:
        raise ValueError(f"the weight in (value, weight) must be a number or 0-d tensor, got {value[1]!r}.")
    return True


def is_scalar(value: Any) -> bool:
    """Tells whether a value is a real number, or an array or tensor of one.

    Example:
        >>> import torch
        >>> from trainer.summary import is_scalar
        >>> is_scalar(1.5), is_scalar(torch.zeros(1, 1)), is_scalar("1.5"), is_scalar(1j)
        (True, True, False, False)
    """
    if isinstance(value, Tensor):
        return value.numel() == 1 and not value.is_complex()
    if isinstance(value, (np.ndarray, np.generic)):
        return value.size == 1 and value.dtype.kind in "biuf"
    return isinstance(value, (Real, Decimal)) or getattr(value, "ndim", None) == 0  # another library's array


def kind_of(value: Any) -> str:
    """Returns what a value is that is no number, for messages.

    Example:
        >>> import torch
        >>> from trainer.summary import kind_of
        >>> kind_of(torch.zeros(3)), kind_of([1, 2]), kind_of("fine")
        ('a Tensor of float32 and shape (3,)', 'a list', 'a str')
    """
    if value is None:
        return "None"
    name = type(value).__name__
    article = "an" if name[:1] in "aeiouAEIOU" else "a"
    if isinstance(value, (Tensor, np.ndarray)):
        return f"{article} {name} of {str(value.dtype).removeprefix('torch.')} and shape {tuple(value.shape)}"
    return f"{article} {name}"
