"""How a reported value gets its name.

A value stays where it was made, on its device, until somebody reads it: reporting never waits for the device.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainer.checks import UnknownKeyError
from trainer.summary import Ratio, Weighted, is_weighted


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
        self._observers: dict[int, tuple[str, object]] = {}  # by id, held so that none is used a second time
        self._compiled: set[int] = set()  # what may not report

    def add_observer(self, name: str, observer: object) -> None:
        """Registers an object: what it reports is called ``name/key``."""
        self._observers[id(observer)] = (name, observer)

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

    def name_of(self, observer: object) -> str | None:
        """Returns the name that an object is registered under, or None."""
        return self._observers.get(id(observer), (None,))[0]

    @contextmanager
    def scope(self, observation: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Makes this the current reporter and ``observation`` its target, until the block ends."""
        outer, self.observation = self.observation, observation
        try:
            with self:
                yield observation
        finally:
            self.observation = outer

    def __enter__(self) -> Reporter:
        """Makes this the current reporter until the block ends."""
        THREAD.reporters.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        THREAD.reporters.pop()

    def report(self, values: Mapping[str, Any], observer: object | None = None, *, copy: bool = True) -> None:
        """Stores values in the observation; see :func:`report`."""
        prefix = ""
        if observer is not None:
            if id(observer) not in self._observers:
                raise UnknownKeyError(
                    f"Given observer is not registered to the reporter: a {type(observer).__name__}, and only"
                    f" {sorted({name for name, _ in self._observers.values()})} are; report from a model that the"
                    " updater or the Evaluator was given, or call report(values) without an observer."
                )
            prefix = self._observers[id(observer)][0] + "/"
            if id(observer) in self._compiled:
                raise RuntimeError(
                    f"{prefix[:-1]} reports {sorted(values)} and is compiled: the graph would break at the report."
                    " Report from the module that calls it, as Classifier does, or compile the parts below it."
                )
        if not hasattr(values, "items"):
            raise TypeError(f"report takes values by name, a dict such as {{'loss': loss}}, got {values!r}.")
        try:
            for key, value in values.items():
                self.observation[prefix + key] = kept(value) if copy else value
        except TypeError:
            if all(isinstance(key, str) for key in values):
                raise
            raise TypeError(f"the names of reported values must be str, got {list(values)}.") from None


class _Thread(threading.local):
    def __init__(self) -> None:
        self.reporters: list[Reporter] = []  # that it has entered, the current one last
        _STACKS[threading.get_ident()] = self.reporters


_STACKS: dict[int, list[Reporter]] = {}  # of all threads
THREAD = _Thread()


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
    if not THREAD.reporters:
        raise IndexError("there is no current reporter outside an iteration; enter one: with Reporter() as reporter.")
    return THREAD.reporters[-1]


def report(values: Mapping[str, Any], observer: object | None = None, *, copy: bool = True) -> None:
    """Reports values to the current reporter; without one (a model called outside training) it does nothing.

    A thread reports to the reporter that it has entered, ``with reporter:``; those of autograd report to the run.

    Args:
        values: Numbers, arrays or tensors of one element, ``(value, weight)`` or :class:`Ratio`, by name. A tensor
            is detached and copied where it is, so that what its owner does with it afterwards changes nothing.
        observer: The reporting object, whose registered name is put before each key: ``main/loss``. Without it
            keys are stored as they are.
        copy: False for tensors without a graph that nobody else has: they are stored as they are. It saves a few
            microseconds each.

    Raises:
        KeyError: If the observer is not registered.
        RuntimeError: If it was compiled, or is part of what was; or a thread that has entered no reporter reports
            for a model of a run in another thread.

    Example:
        >>> import trainer
        >>> with trainer.report_scope({}) as observation:
        ...     trainer.report({"temperature": 20.5})
        >>> observation
        {'temperature': 20.5}
    """
    if THREAD.reporters:
        THREAD.reporters[-1].report(values, observer, copy=copy)
    elif others := {id(reporter): reporter for stack in list(_STACKS.values()) for reporter in stack[-1:]}:
        _report_from_thread([*others.values()], values, observer, copy)


def _report_from_thread(reporters: list[Reporter], values: Any, observer: object | None, copy: bool) -> None:
    """Reports from a thread without a reporter, while runs are under way in others.

    In a backward pass, autograd's own thread works for the one run there is. Any other may have nothing to do with it:
    what it says would stand in the log in place of the run's own values.
    """
    fitting = reporters if observer is None else [r for r in reporters if r.name_of(observer) is not None]
    if not fitting:  # a model of no run
        return
    if len(fitting) > 1 or torch._C._current_graph_task_id() == -1:
        raise RuntimeError(
            f"{list(values)} reported in thread {threading.current_thread().name!r}, which belongs to no run. Call"
            " reporter = trainer.get_current_reporter() before starting the thread, and use `with reporter:` inside it;"
            " or `with trainer.report_scope({}):` to drop them."
        )
    fitting[0].report(values, observer, copy=copy)


def report_scope(observation: dict[str, Any]) -> AbstractContextManager[dict[str, Any]]:
    """Collects what is reported inside the block into ``observation``, under the current reporter's names.

    Example:
        >>> import trainer
        >>> with trainer.report_scope({}) as observation:
        ...     trainer.report({"x": 1})
        >>> observation
        {'x': 1}
    """
    return (THREAD.reporters[-1] if THREAD.reporters else Reporter()).scope(observation)


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
    if isinstance(value, Tensor):
        copy = value.detach().clone()  # about 1 microsecond, and no waiting for the device
        return copy.reshape(()) if copy.dim() and copy.numel() == 1 else copy
    if type(value) is Ratio or (isinstance(value, tuple) and is_weighted(value)):
        return (Ratio if type(value) is Ratio else Weighted)(*map(kept, value))
    return value.copy() if isinstance(value, np.ndarray) else value
