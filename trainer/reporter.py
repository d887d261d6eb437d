"""Observed values: how a model reports them, and how they are averaged.

A value is kept where it was made, on its device, until somebody reads it: reporting never waits for the device.
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

CHUNK = 1024  # waiting values are stacked, on their device, whenever there are so many of them


class Ratio(NamedTuple):
    """A total and what it was counted over; the mean of several is sum(total) / sum(count).

    Report one where a mean of means would be wrong: accuracy over a short last batch, say. It compares, calculates and
    prints as the number that it is.

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
        >>> float(Ratio(3, 4)), Ratio(3, 4) > 0.5, f"{Ratio(3, 4):.3f}"
        (0.75, True, '0.750')
    """

    total: Any
    count: Any

    def item(self) -> float:
        """Returns the number, as a tensor's ``item`` does."""
        return float(self)

    def __float__(self) -> float:
        return float(self.total) / float(self.count) if self.count else float("nan")


class Weighted(NamedTuple):
    """A value with its weight in the mean: what a plain ``(value, weight)`` in a report means.

    It compares, calculates and prints as the value.

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

    value: Any
    weight: Any

    def item(self) -> float:
        """Returns the value, as a tensor's ``item`` does."""
        return float(self)

    def __float__(self) -> float:
        return float(self.value)


def _reads_as_a_number(kind: type) -> None:
    """Lets ``observation["main/loss"] > 10``, ``2 * loss`` or ``f"{loss:.3f}"`` mean the value; each reads it."""

    def unary(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda self, *args: function(float(self), *args)

    def binary(function: Callable[..., Any], is_reversed: bool = False) -> Callable[..., Any]:
        def call(self: Any, other: Any) -> Any:
            other = float(other) if isinstance(other, (Ratio, Weighted)) else other
            return function(other, float(self)) if is_reversed else function(float(self), other)

        return call

    for name in ("lt", "le", "gt", "ge", "add", "sub", "mul", "truediv", "pow"):
        setattr(kind, f"__{name}__", binary(getattr(operator, name)))
    for name in ("add", "sub", "mul", "truediv"):
        setattr(kind, f"__r{name}__", binary(getattr(operator, name), is_reversed=True))
    functions: dict[str, Any] = {
        "neg": operator.neg,
        "abs": abs,
        "round": round,
        "format": format,
        "int": int,
        "str": str,
    }
    for name, function in functions.items():
        setattr(kind, f"__{name}__", unary(function))

    def equals(self: Any, other: Any) -> bool:
        return bool(tuple.__eq__(self, other) if isinstance(other, tuple) else float(self) == other)

    def differs(self: Any, other: Any) -> bool:
        return not equals(self, other)

    kind.__eq__, kind.__ne__ = equals, differs  # type: ignore[assignment,method-assign]
    kind.__array__ = lambda self, *args, **kwargs: np.asarray(float(self))  # type: ignore[attr-defined]


class Later:
    """A 0-d tensor that is computed when it is read, and then with all others that wait, in a few operations.

    One by one, amid a step of training, small operations take five times as long. It does what the tensor would.

    Args:
        source: Has ``results``, which is None before ``compute(sources)``, of its class, has set it for several of
            them to (columns, row, computed): 1-d tensors, where in them its own values are, and whose the others are.
        index: Which of the columns it is.

    Example:
        >>> import torch
        >>> from trainer.classifier import Counts
        >>> from trainer.reporter import Later
        >>> correct = Later(Counts(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([1, 1])), 0)
        >>> float(correct), correct.dtype
        (1.0, torch.int64)
    """

    __slots__ = ("index", "source")

    ndim = 0

    def __init__(self, source: Any, index: int) -> None:
        self.source = source
        self.index = index

    def read(self) -> Tensor:
        """Returns the tensor."""
        if self.source.results is None:
            self.source.compute([self.source])
        columns, row, _ = self.source.results
        return columns[self.index][row]  # type: ignore[no-any-return]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # Python looks for these by itself
            raise AttributeError(name)
        return getattr(self.read(), name)

    def __reduce__(self) -> Any:
        return self.read().clone().__reduce_ex__(2)  # type: ignore[no-untyped-call]

    def __deepcopy__(self, memo: Any) -> Tensor:
        return self.read().clone()

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tree_map(read, (args, kwargs or {}))
        return function(*args, **kwargs)


def _reads_as_a_tensor(name: str) -> Callable[..., Any]:
    return lambda self, *args: getattr(self.read(), name)(*args)


for _name in (
    *("float", "int", "index", "bool", "repr", "format", "array", "neg", "abs", "lt", "le", "gt", "ge", "eq", "ne"),
    *("add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "pow", "rpow"),
):
    setattr(Later, f"__{_name}__", _reads_as_a_tensor(f"__{_name}__"))
Later.__hash__ = object.__hash__  # type: ignore[method-assign]

_reads_as_a_number(Ratio)
_reads_as_a_number(Weighted)


def read(value: Any) -> Any:
    """Returns the tensor of a :class:`Later`; anything else as it is.

    Example:
        >>> from trainer.reporter import read
        >>> read(0.5)
        0.5
    """
    return value.read() if type(value) is Later else value


class Observation(dict[str, Any]):
    """The values observed in one iteration, by name.

    ``weight`` is what a plain value weighs in a mean: the number of samples in the batch, where it is known.

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


class Reporter:
    """Collects reported values under the names of the objects that report them. Chainer: ``chainer.Reporter``.

    Example:
        >>> import torch, trainer
        >>> model = torch.nn.Linear(1, 1)
        >>> reporter = trainer.Reporter()
        >>> reporter.add_observer("main", model)
        >>> with reporter.scope({}) as observation:
        ...     trainer.report({"loss": 0.5}, model)
        >>> observation
        {'main/loss': 0.5}
    """

    def __init__(self) -> None:
        self.observation: dict[str, Any] = {}
        self._names: dict[int, str] = {}
        self._observers: dict[int, object] = {}  # held, so that no id is used a second time
        self._compiled: set[int] = set()  # what may not report

    def add_observer(self, name: str, observer: object) -> None:
        """Registers an object: what it reports is called ``name/key``."""
        self._names[id(observer)] = name
        self._observers[id(observer)] = observer

    def add_observers(self, prefix: str, observers: Iterable[tuple[str, object]]) -> None:
        """Registers several objects, each as ``prefix + name``, nothing put between."""
        for name, observer in observers:
            self.add_observer(prefix + name, observer)

    def add_model(self, name: str, model: torch.nn.Module) -> None:
        """Registers a model as ``name`` and every module in it as ``name/path/to/it``."""
        for path, module in model.named_modules():
            self.add_observer(f"{name}/{path.replace('.', '/')}" if path else name, module)
            if getattr(module, "_compiled_call_impl", None) is not None:  # set by Module.compile()
                self._compiled.update(id(part) for part in module.modules())

    def scope(self, observation: dict[str, Any]) -> _Scope:
        """Makes this the current reporter and ``observation`` its target, until the block ends."""
        return _Scope(self, observation)

    def __enter__(self) -> Reporter:
        """Makes this the current reporter until the block ends."""
        reporters_of_thread().append(self)
        return self

    def __exit__(self, *error: object) -> None:
        reporters_of_thread().pop()

    def report(self, values: Mapping[str, Any], observer: object | None = None, *, copy: bool = True) -> None:
        """Stores values in the observation; see :func:`report`."""
        if observer is None:
            prefix = ""
        else:
            try:
                prefix = self._names[id(observer)] + "/"
            except KeyError:
                raise UnknownKeyError(
                    f"Given observer is not registered to the reporter: a {type(observer).__name__}, and only"
                    f" {sorted(set(self._names.values()))} are; report from a model that the updater or the Evaluator"
                    " was given, or call report(values) without an observer."
                ) from None
            if id(observer) in self._compiled:
                raise RuntimeError(
                    f"{prefix[:-1]} reports {sorted(values)} and is compiled: the graph would break at the report."
                    " Report from the module that calls it, as Classifier does, or compile the parts below it."
                )
        observation = self.observation
        for key, value in values.items():
            observation[prefix + key] = kept(value) if copy else value


class _Scope:
    """The block of :meth:`Reporter.scope`; a generator would cost four microseconds more each time."""

    def __init__(self, reporter: Reporter, observation: dict[str, Any]) -> None:
        self._reporter = reporter
        self._observation = observation

    def __enter__(self) -> dict[str, Any]:
        reporter = self._reporter
        self._outer, reporter.observation = reporter.observation, self._observation
        reporters_of_thread().append(reporter)
        return self._observation

    def __exit__(self, *error: object) -> None:
        reporters_of_thread().pop()
        self._reporter.observation = self._outer


class UnknownKeyError(KeyError):
    """A ``KeyError`` that prints its message as it is, not in quotes.

    Example:
        >>> from trainer.reporter import UnknownKeyError
        >>> str(UnknownKeyError("'main/los' was not observed."))
        "'main/los' was not observed."
    """

    def __str__(self) -> str:
        return str(self.args[0])


_local = threading.local()


def reporters_of_thread() -> list[Reporter]:
    """Returns the reporters that this thread has entered, the current one last."""
    try:
        stack: list[Reporter] = _local.stack
    except AttributeError:
        stack = _local.stack = []
    return stack


def get_current_reporter() -> Reporter:
    """Returns what :func:`report` reports to. Chainer: ``get_current_reporter``.

    Raises:
        IndexError: If there is none: outside an iteration, an evaluation and ``with reporter``.

    Example:
        >>> import trainer
        >>> with trainer.Reporter() as reporter:
        ...     trainer.get_current_reporter() is reporter
        True
    """
    stack = reporters_of_thread()
    if not stack:
        raise IndexError("there is no current reporter outside an iteration; enter one: with Reporter() as reporter.")
    return stack[-1]


def is_reporting() -> bool:
    """Tells whether there is a current reporter.

    Example:
        >>> from trainer.reporter import is_reporting
        >>> is_reporting()
        False
    """
    return bool(reporters_of_thread())


def report(values: Mapping[str, Any], observer: object | None = None, *, copy: bool = True) -> None:
    """Reports values to the current reporter; without one (a model called outside training) it does nothing.

    Args:
        values: Numbers, 0-d arrays, 0-d tensors, ``(value, weight)`` or :class:`Ratio`, by name. A tensor is
            detached and copied where it is, so that what its owner does with it afterwards changes nothing.
        observer: The reporting object, whose registered name is put before each key: ``main/loss``. Without it
            keys are stored as they are.
        copy: False for tensors without a graph that nobody else has: they are stored as they are. It saves a few
            microseconds each.

    Raises:
        KeyError: If the observer is not registered.
        RuntimeError: If it was compiled, or is part of what was.

    Example:
        >>> import trainer
        >>> with trainer.report_scope({}) as observation:
        ...     trainer.report({"temperature": 20.5})
        >>> observation
        {'temperature': 20.5}
    """
    stack = reporters_of_thread()
    if stack:
        stack[-1].report(values, observer, copy=copy)


def report_scope(observation: dict[str, Any]) -> _Scope:
    """Collects what is reported inside the block into ``observation``, under the current reporter's names.

    Example:
        >>> import trainer
        >>> with trainer.report_scope({}) as observation:
        ...     trainer.report({"x": 1})
        >>> observation
        {'x': 1}
    """
    stack = reporters_of_thread()
    return (stack[-1] if stack else Reporter()).scope(observation)


def kept(value: Any) -> Any:
    """Returns what may be kept of an observed value: without its graph, and a copy of what can change in place.

    Example:
        >>> import torch
        >>> from trainer.reporter import kept
        >>> counter = torch.zeros(())
        >>> value = kept(counter)
        >>> counter += 1
        >>> value
        tensor(0.)
    """
    if type(value) is float:
        return value
    if isinstance(value, Tensor):
        return value.detach().clone()  # about 1 microsecond, and no waiting for the device
    if type(value) is Ratio:
        return Ratio(kept(value.total), kept(value.count))
    if isinstance(value, tuple) and len(value) == 2:
        return Weighted(kept(value[0]), kept(value[1]))
    return value.copy() if isinstance(value, np.ndarray) else value


def averaged(observations: Iterable[Observation]) -> dict[str, Any]:
    """Returns the weighted mean of each value over several observations, without waiting for the device.

    A :class:`Ratio` stays one, with both parts added up; what is no number is taken from the last observation.

    Example:
        >>> from trainer import Observation, Ratio
        >>> from trainer.reporter import averaged
        >>> mean = averaged([Observation(x=1.0, hits=Ratio(1, 2)), Observation(x=2.0, hits=Ratio(0, 2))])
        >>> float(mean["x"]), mean["hits"]
        (1.5, Ratio(total=1, count=4))
    """
    columns: dict[str, list[tuple[Any, float]]] = {}
    for observation in observations:
        for key, value in observation.items():
            columns.setdefault(key, []).append((value, observation.weight))
    means: dict[str, Any] = {}
    for key, column in columns.items():
        values = [value for value, _ in column]
        if all(type(value) is Ratio for value in values):
            means[key] = Ratio(sum(read(value.total) for value in values), sum(read(value.count) for value in values))
            continue
        pairs = [tuple(map(read, _weighed(value, weight))) for value, weight in column]
        if not all(is_scalar(value) for value, _ in pairs):
            means[key] = values[-1]
            continue
        device = next((value.device for value, _ in pairs if isinstance(value, Tensor)), None)
        x, weights = (torch.stack([_float64(part, device) for part in parts]) for parts in zip(*pairs, strict=True))
        total = torch.where(weights == 0, 0.0, x * weights).sum()  # what weighs 0 may be NaN
        means[key] = Weighted(total / weights.sum(), weights.sum())
    return means


def _weighed(value: Any, weight: float) -> tuple[Any, Any]:
    if type(value) is Ratio:
        return torch.as_tensor(read(value.total)) / read(value.count), value.count
    return tuple(value) if type(value) is Weighted else (value, weight)


def _float64(value: Any, device: torch.device | None) -> Tensor:
    return torch.as_tensor(value).to(device, torch.float64)


class Summary:
    """Mean and deviation of a sequence of values, added on the host in float64, strictly left to right.

    Tensors wait on their device until the sums are asked for; then they are fetched in one go. So when they are
    fetched changes no bit. Chainer: ``chainer.reporter.Summary``.

    Example:
        >>> from trainer import Summary
        >>> summary = Summary()
        >>> for x in (1, 2, 3):
        ...     summary.add(x)
        >>> mean, deviation = summary.make_statistics()
        >>> mean, round(deviation, 5)
        (2.0, 0.8165)
    """

    def __init__(self) -> None:
        self._x = self._x2 = self._n = 0.0
        self._is_empty = True
        self._columns: list[tuple[Any, Any, tuple[bool, ...]]] = []
        self._waiting: list[tuple[Any, Any, bool]] = []  # (value, weight, False) or (total, count, True)

    def add(self, value: Any, weight: Any = 1) -> None:
        """Adds a number or 0-d tensor with a weight, or a :class:`Ratio`, which is its own weight.

        What weighs 0 (a batch whose labels are all ignored) counts for nothing, be it NaN.
        """
        self._waiting.append((*value, True) if type(value) is Ratio else (value, weight, False))
        if len(self._waiting) >= CHUNK:
            self._stack()

    def _stack(self) -> None:
        if self._waiting:
            values, weights, is_ratio = zip(*self._waiting, strict=True)
            self._columns.append((_column(values), _column(weights), is_ratio))
            self._waiting = []
            self._is_empty = False

    def _fetch(self) -> None:
        self._stack()
        columns, self._columns = self._columns, []
        x, x2, n = self._x, self._x2, self._n
        for values, weights, is_ratio in columns:
            for value, weight, ratio in zip(_numbers(values), _numbers(weights), is_ratio, strict=True):
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

    def state_dict(self) -> dict[str, float]:
        """Returns the three sums: of values, of squares, of weights."""
        self._fetch()
        return {"x": self._x, "x2": self._x2, "n": self._n}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Puts back what :meth:`state_dict` returned."""
        self.__init__()  # type: ignore[misc]
        self._x, self._x2, self._n = state["x"], state["x2"], state["n"]
        self._is_empty = False


def _column(values: tuple[Any, ...]) -> Any:
    """Stacks tensors of one device and dtype; gives anything else back as it is."""
    kinds = set(map(type, values))
    if kinds == {Later}:
        return _computed(values)
    if Later in kinds:
        return _column(tuple(map(read, values)))
    if not all(issubclass(kind, Tensor) for kind in kinds):
        return values
    is_even = len({value.dtype for value in values}) == 1 == len({value.device for value in values})
    return torch.stack(values) if is_even and {value.ndim for value in values} == {0} else values


def _computed(values: tuple[Later, ...]) -> Tensor:
    """Computes what has not been computed yet, all at once, and stacks it."""
    sources = [value.source for value in values]
    if waiting := [source for source in sources if source.results is None]:
        waiting[0].compute(waiting)
    columns, _, computed = sources[0].results
    indices = {value.index for value in values}
    if sources == computed and len(indices) == 1:
        return columns[indices.pop()]  # type: ignore[no-any-return]  # of these very values, in their order
    return torch.stack([value.read() for value in values])


def _numbers(column: Any) -> list[float]:
    if isinstance(column, Tensor):
        return column.tolist()
    return [float(value) for value in column]


class DictSummary:
    """A :class:`Summary` for each key of a sequence of observations. Chainer: ``chainer.DictSummary``.

    Numbers, 0-d arrays and tensors, ``(value, weight)`` and :class:`Ratio` are averaged; anything else is left out.

    Example:
        >>> from trainer import DictSummary
        >>> summary = DictSummary()
        >>> summary.add({"loss": 2.0, "note": "text is left out"})
        >>> summary.add({"loss": 4.0})
        >>> summary.compute_mean()
        {'loss': 3.0}
    """

    def __init__(self) -> None:
        self._summaries: dict[str, Summary] = {}

    def add(self, observation: Mapping[str, Any], keys: Iterable[str] | None = None) -> None:
        """Adds one observation, or the named values of it that there are.

        A plain value weighs ``observation.weight`` if there is one, else 1.

        Raises:
            ValueError: If the weight in a ``(value, weight)`` is not a number.
        """
        plain_weight = getattr(observation, "weight", 1)
        if keys is not None:
            observation = {key: observation[key] for key in keys if key in observation}
        for key, value in observation.items():
            weight, is_ratio = plain_weight, type(value) is Ratio
            if is_ratio:
                value, weight = value
            elif isinstance(value, tuple):
                if len(value) != 2 or not is_scalar(value[0]):
                    continue
                value, weight = value
                if type(weight) is not Later and not is_scalar(weight):
                    raise ValueError(f"the weight of {key!r} must be a number or 0-d tensor, got {weight!r}.")
            elif type(value) is not float and not is_scalar(value):
                continue
            try:
                summary = self._summaries[key]
            except KeyError:
                summary = self._summaries[key] = Summary()
            summary._waiting.append((value, weight, is_ratio))  # as Summary.add does; a call of it takes as long again
            if len(summary._waiting) >= CHUNK:
                summary._stack()

    def compute_mean(self) -> dict[str, float]:
        """Returns the mean of each key, in the order in which the keys came."""
        return {key: summary.compute_mean() for key, summary in self._summaries.items()}

    def make_statistics(self) -> dict[str, float]:
        """Returns the mean of each key and its standard deviation as ``key.std``."""
        statistics = {}
        for key, summary in self._summaries.items():
            statistics[key], statistics[key + ".std"] = summary.make_statistics()
        return statistics

    def state_dict(self) -> dict[str, dict[str, float]]:
        """Returns the sums of each key."""
        return {key: summary.state_dict() for key, summary in self._summaries.items()}

    def load_state_dict(self, state: Mapping[str, Mapping[str, float]]) -> None:
        """Puts back what :meth:`state_dict` returned."""
        self._summaries = {}
        for key, sums in state.items():
            self._summaries[key] = summary = Summary()
            summary.load_state_dict(sums)


def is_scalar(value: Any) -> bool:
    """Tells whether a value is a number, or an array or tensor with 0 dimensions.

    Example:
        >>> from trainer.reporter import is_scalar
        >>> is_scalar(1.5), is_scalar("1.5")
        (True, False)
    """
    ndim = getattr(value, "ndim", None)
    return isinstance(value, (float, int)) if ndim is None else ndim == 0
