"""What a part of a run saves: it names its attributes, and here they are read, checked and put back."""

from __future__ import annotations

import copy
import inspect
import math
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from numbers import Real
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from trainer.checks import headline, reworded, warn
from trainer.mistakes import near_arguments

_PLAIN = (type(None), bool, int, float, str, bytes, Tensor, torch.nn.Parameter, torch.nn.Buffer)

DEPTH = 100  # of the lists and dicts in a state; Python compares and copies a thousand or so
KINDS = "_classes"  # the key of a state under which the classes of its parts stand
TAKEN: ContextVar[set[int] | None] = ContextVar("TAKEN", default=None)  # memory that this load has written to
FORCED = ContextVar("FORCED", default=False)  # whether an iterator loads a state that was made with other data


class Stateful:
    """A part of a run that names what is saved of it: trainer, updater, iterator, trigger and plug-in alike.

    A snapshot can hold None, numbers, strings, bytes, tensors, and lists, tuples and dicts of these. NumPy's scalars
    become Python's. A part with a ``state_dict`` of its own, or a dict of such parts, is saved through it. A loaded
    tensor goes to the device of the one that it replaces, and into its memory where shape and dtype fit, unless that
    memory is a model's, or has just been loaded into.

    Attributes:
        saved: Names of the attributes that training changes. A subclass adds to those of its bases.
        settings: Names of attributes that decide the results: a resume is warned where the script has changed one.
        examples: Values of those attributes that begin as None, 0 or an empty list and hold something else later: what
            a snapshot has for them must be of the kind of the example.

    Example:
        >>> from trainer.saving import Stateful
        >>> class Best(Stateful):
        ...     saved = ("best",)
        ...     examples = {"best": 0.5}
        ...     best = None
        >>> first, second = Best(), Best()
        >>> first.best = 0.5
        >>> second.load_state_dict(first.state_dict())
        >>> second.best, first.state_dict()
        (0.5, {'best': 0.5})
    """

    saved: ClassVar[tuple[str, ...]] = ()
    settings: ClassVar[tuple[str, ...]] = ()
    examples: ClassVar[dict[str, Any]] = {}

    def __init_subclass__(cls, **named: Any) -> None:
        """Adds "Did you mean ...?" to the error for an unknown argument of the class."""
        super().__init_subclass__(**named)
        if "__init__" in vars(cls):
            cls.__init__ = near_arguments(cls.__init__)  # type: ignore[method-assign]

    def state_dict(self) -> dict[str, Any]:
        """Returns the values of the attributes that ``saved`` names, without their leading underscores."""
        return declared_state(self, type(self).__name__)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what :meth:`state_dict` returned.

        Raises:
            ValueError: If the state lacks a name.
        """
        load_declared(self, state, type(self).__name__)


def declared(part: Any, attribute: str = "saved") -> dict[str, str]:
    """Returns the attributes that a part's classes name in ``saved`` (or ``settings``), by their keys in a state.

    Raises:
        TypeError: If ``saved`` is no tuple of names.
        AttributeError: If the part has no attribute of a name.
        ValueError: If two names have the same key.

    Example:
        >>> from trainer.saving.state import declared
        >>> from trainer.triggers import TimeTrigger
        >>> declared(TimeTrigger(60))
        {'next': '_next'}
    """
    found: dict[str, str] = {}
    owner = type(part).__name__
    for kind in [*reversed(type(part).__mro__), part]:  # a function, or an object, may name some by itself
        names = getattr(kind, "__dict__", {}).get(attribute, ())
        names = (names,) if isinstance(names, str) else names
        if kind is part and isinstance(names, list) and isinstance(part, Stateful):  # that of somebody who appends
            raise TypeError(f"{owner}.saved names the attributes to save: write a tuple in the class, or rename yours.")
        if not (isinstance(names, (tuple, list)) and all(isinstance(name, str) for name in names)):
            if attribute == "saved" and isinstance(part, Stateful):
                raise TypeError(f"{owner}.saved must be names of attributes, got {names!r}; e.g. ('best',).")
            continue  # something else that happens to be called so
        for name in names:
            if not (hasattr(type(part), name) or hasattr(part, name)):  # no property is read
                raise AttributeError(
                    f"{owner} names {name!r} in {attribute!r} and has no such attribute: set it in __init__."
                )
            if found.setdefault(name.lstrip("_"), name) != name:
                raise ValueError(f"{owner} saves {name!r} and {found[name.lstrip('_')]!r}: rename one of them.")
    return found


def is_part(value: Any) -> bool:
    """Tells whether a value has a state of its own, or is a dict of such parts. A function is a part without any.

    Example:
        >>> from trainer.saving.state import is_part
        >>> is_part({"main": print}), is_part({"main": 1})
        (True, False)
    """
    if isinstance(value, dict):
        return bool(value) and all(map(is_part, value.values()))
    return callable(value) or hasattr(value, "state_dict")


def state_of(value: Any, path: str = "") -> Any:
    """Returns what a snapshot holds of a value, or of a part: its ``state_dict()``, or an empty dict without one.

    Raises:
        TypeError: If a part stands in a list, or in a dict beside other values.

    Example:
        >>> import numpy
        >>> from trainer.saving.state import state_of
        >>> from trainer.triggers import OnceTrigger
        >>> state_of({"trigger": OnceTrigger(), "function": print}), state_of([numpy.float64(0.5)])
        ({'trigger': {'finished': False}, 'function': {}}, [0.5])
    """
    if is_part(value) and isinstance(value, dict):
        return {key: state_of(part, f"{path}/{key}") for key, part in value.items()}
    if is_part(value):
        return value.state_dict() if hasattr(value, "state_dict") else declared_state(value, path)
    return _plain(value, path)


def _plain(value: Any, path: str) -> Any:
    if hasattr(value, "state_dict"):
        raise TypeError(
            f"{path} is {_name(type(value))}, which has a state of its own: make it an attribute that `saved` names, or"
            " put such parts into a dict by themselves."
        )
    if isinstance(value, dict):
        return {key: _plain(part, f"{path}/{key}") for key, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_plain(part, f"{path}/{index}") for index, part in enumerate(value))
    return value.item() if isinstance(value, np.generic) else value


def declared_state(part: Any, path: str) -> dict[str, Any]:
    """Returns the values of the attributes that a part names in ``saved``, and the classes of those that are parts.

    Example:
        >>> from extensions import MicroAverage
        >>> from trainer.saving.state import declared_state
        >>> declared_state(MicroAverage("correct", "count", "accuracy"), "")["_classes"]
        {'numerator': 'Summary', 'denominator': 'Summary', 'trigger': 'IntervalTrigger'}
    """
    values = {key: getattr(part, name) for key, name in declared(part).items()}
    state = {key: state_of(value, f"{path}/{key}") for key, value in values.items()}
    if kinds := {key: type(value).__name__ for key, value in values.items() if is_part(value)}:
        state[KINDS] = kinds
    return state


def load_into(part: Any, state: Any, path: str) -> None:
    """Puts a state back into a part, unless it is empty, or into a dict of parts; ``path`` names it in messages.

    Raises:
        ValueError: If the state lacks a key: part and key are named.

    Example:
        >>> from trainer.saving.state import load_into, state_of
        >>> from trainer.triggers import IntervalTrigger
        >>> trigger = IntervalTrigger(1, "epoch")
        >>> load_into(trigger, {"progress": [3, 2]}, "the trigger")
        >>> state_of(trigger)
        {'progress': [3, 2]}
    """
    if isinstance(part, dict):
        refuse_kind({}, state, path)
        for name, value in part.items():
            if name in state:
                load_into(value, state[name], f"{path}/{name}")
            else:
                warn(f"{path}/{name} is not in the snapshot: it starts fresh.")
        for name in state.keys() - part.keys():
            warn(f"{path}/{name} of the snapshot is gone from the script: dropped.")
        return
    if state is None or (isinstance(state, dict) and not state):  # it was not there, or had none
        return
    own = getattr(type(part), "load_state_dict", None)
    with fitting(path):
        if not hasattr(part, "load_state_dict") or own is Stateful.load_state_dict:
            refuse_kind({}, state, path)
            if gone := [key for key in state if key not in (*declared(part), KINDS)]:
                warn(f"the snapshot's {', '.join(map(repr, gone))} of {path} has no place in the script: dropped.")
            load_declared(part, state, path)
            return
        is_module = isinstance(part, torch.nn.Module)
        if is_module or type(part).__module__.startswith("torch."):  # they take too much
            like = {k: v for k, v in part.state_dict().items() if not is_module or isinstance(v, Tensor)}
            refuse_kind(like, state, path, takes_tensors=True)  # of a module's extra state nothing is known
        part.load_state_dict(state)


@contextmanager
def fitting(path: str) -> Iterator[None]:
    """Within the block, an error of what is loaded names the part; one that Python raises becomes a ``ValueError``.

    Example:
        >>> from trainer.saving.state import fitting
        >>> with fitting("extensions/Best"):  # doctest: +ELLIPSIS
        ...     "best" + 1
        Traceback (most recent call last):
        ValueError: extensions/Best: it was saved by something else (TypeError: can only concatenate str (not "int")...
    """
    try:
        yield
    except (OSError, Warning):
        raise
    except KeyError as error:
        raise ValueError(f"the state of {path} lacks {error}: it was saved by something else.") from error
    except Exception as error:
        kind = type(error)
        is_worded = kind in (ValueError, RuntimeError) or kind.__module__ != "builtins"
        if issubclass(kind, (ValueError, RuntimeError)) and is_worded:  # ours, or torch's, which lists a model's keys
            raise error if path in str(error) else reworded(error, f"{path}: {error}")  # noqa: B904  # the same error
        raise ValueError(f"{path}: it was saved by something else ({headline(error).rstrip('.')}).") from error


def refuse_kind(like: Any, saved: Any, path: str, takes_tensors: bool = False) -> None:
    """Refuses a loaded value of another kind than its place takes: a number, text, a list, a dict, or a tensor.

    Args:
        like: What stands there, or an example of it. None is like anything. Further elements of a list are like its
            last, and those of a dict that it does not have like that under ``...``.
        saved: The value.
        path: Names it in the message.
        takes_tensors: Whether it is of torch: a tensor of one element may stand for a number, and the other way round,
            and one of whole numbers may not stand for floats.

    Raises:
        ValueError: With the path of what differs.

    Example:
        >>> from trainer.saving.state import refuse_kind
        >>> refuse_kind({"lr": 0.1, "betas": [0.9]}, {"lr": 0.2, "betas": [0.9, "much"]}, "optimizer")
        Traceback (most recent call last):
        ValueError: optimizer/betas/1 holds a value of type str, not float: it was saved by something else.
    """
    if like is None or (saved is None and isinstance(like, (bool, str) if takes_tensors else bool)):
        return
    told, kinds = "", {_kind(like), _kind(saved)}
    if takes_tensors and kinds == {Real, Tensor} and (like if isinstance(like, Tensor) else saved).numel() == 1:
        return
    if len(kinds) > 1 or (isinstance(like, tuple) and len(like) != len(saved)):
        told = f"a value of type {type(saved).__name__}, not {type(like).__name__}"
    elif isinstance(like, Tensor) and takes_tensors and like.dtype.is_floating_point != saved.dtype.is_floating_point:
        told = f"a tensor of {saved.dtype}, not {like.dtype}"
    elif isinstance(saved, int) and abs(saved) >= 2**63:
        told = "a number too large"
    elif isinstance(like, int) and isinstance(saved, float) and not math.isfinite(saved):
        told = f"{saved}, not a whole number"
    if told:
        raise ValueError(f"{path} holds {told}: it was saved by something else.")
    if isinstance(like, dict):
        for key in saved:
            refuse_kind(like.get(key, like.get(...)), saved[key], f"{path}/{key}", takes_tensors)
    elif isinstance(like, (list, tuple)) and like:
        for index, value in enumerate(saved):
            refuse_kind(like[min(index, len(like) - 1)], value, f"{path}/{index}", takes_tensors)


def _kind(value: Any) -> Any:
    kinds: tuple[Any, ...] = (Tensor, bool, Real, str, bytes, (list, tuple), dict)
    return next((kind for kind in kinds if isinstance(value, kind)), type(value))


def _refuse_value(part: Any, name: str, current: Any, saved: Any, path: str) -> None:
    """Refuses a value of another kind than an attribute of ours has, or than its example; a user's may become any."""
    examples = getattr(type(part), "examples", {})
    if isinstance(examples, dict) and name in examples:  # a user may call something else so
        if saved is not None or (isinstance(current, (list, dict)) and not current):
            refuse_kind(examples[name], saved, path)
    elif type(part).__module__.partition(".")[0] in ("trainer", "extensions"):
        refuse_kind(current if current is not None or saved is None else (), saved, path)


def load_declared(part: Any, state: dict[str, Any], path: str) -> None:
    """Puts a state back into the attributes that a part names in ``saved``; ``path`` names the part in messages.

    A part of another class than the one that was saved starts fresh, with a warning.

    Raises:
        ValueError: If the state lacks a name.

    Example:
        >>> from trainer.saving.state import load_declared
        >>> from trainer.triggers import OnceTrigger
        >>> load_declared(OnceTrigger(), {}, "the trigger")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: the state of the trigger lacks 'finished': it was saved by something else. Take what saved it, or...
    """
    refuse_kind({KINDS: {...: ""}}, state, path or "the run")
    names, kinds = declared(part), state.get(KINDS, {})
    if missing := [key for key in names if key not in state]:
        lacks = ", ".join(map(repr, missing))
        raise ValueError(
            f"the state of {path or 'the run'} lacks {lacks}: it was saved by something else. Take what saved it, or"
            " give the extension another name to let it start fresh."
        )
    for key, name in names.items():
        current, saved, where = getattr(part, name), state[key], f"{path}/{key}" if path else key
        kind, now = kinds.get(key), type(current).__name__
        if is_part(current) and (kind == now or (isinstance(current, dict) and isinstance(saved, dict))):
            load_into(current, saved, where)
        elif is_part(current) or kind is not None:
            advice = "it starts fresh" if is_part(current) else "it is not restored; make it in __init__"
            is_empty = saved is None or (isinstance(saved, dict) and not saved)
            if not is_empty and not (is_part(current) and not state_of(current, where)):  # else nothing is lost
                warn(f"{where} was {kind or 'a plain value'} and is {now} now: {advice}.")
        else:
            _refuse_value(part, name, current, saved, where)
            setattr(part, name, _restored(current, saved))


def _restored(current: Any, saved: Any) -> Any:
    """Returns what an attribute, or a value in it, is to be: in the memory of a tensor, and of the class of a dict."""
    if isinstance(saved, Tensor):
        if not isinstance(current, Tensor):
            return saved.clone()
        taken, fits = TAKEN.get(), (current.shape, current.dtype) == (saved.shape, saved.dtype)
        if not fits or current.layout is not torch.strided or (taken and memory_of(current) in taken):
            return saved.to(current.device, copy=True)
        if taken is not None:
            taken.add(memory_of(current))
        with torch.no_grad():
            return current.copy_(saved)
    if isinstance(saved, dict):
        old = current if isinstance(current, dict) else {}
        restored = copy.copy(old)  # of its own class: a Counter, a defaultdict
        restored.clear()
        restored.update({key: _restored(old.get(key), value) for key, value in saved.items()})
        return restored
    if isinstance(saved, (list, tuple)):
        fits = isinstance(current, (list, tuple)) and len(current) == len(saved)
        return type(saved)(map(_restored, current if fits else [None] * len(saved), saved))
    return saved


def memory_of(tensor: Tensor) -> int:
    """Returns where a tensor's memory begins: the same for two that share it.

    Example:
        >>> import torch
        >>> from trainer.saving.state import memory_of
        >>> weight = torch.zeros(3)
        >>> memory_of(weight) == memory_of(weight[1:])
        True
    """
    return tensor.untyped_storage().data_ptr()


def check_declared(part: Any, path: str) -> None:
    """Refuses what a part names in ``saved`` and no snapshot can hold. A part with its own ``state_dict`` is not asked.

    Raises:
        TypeError: With the path of what cannot be saved.

    Example:
        >>> from extensions import MicroAverage
        >>> from trainer.saving.state import check_declared
        >>> check_declared(MicroAverage("correct", "count", "accuracy"), "extensions/MicroAverage")
    """
    names = declared(part)
    if getattr(type(part), "state_dict", Stateful.state_dict) is not Stateful.state_dict:
        return
    for key, name in names.items():
        value, where = getattr(part, name), f"{path}/{key}"
        if not is_part(value):
            check(_plain(value, where), where)
            if getattr(getattr(type(part), name, None), "fset", ...) is None:
                raise TypeError(f"{where} is a property without a setter: a resume could not set it.")
        elif callable(value) and not key.endswith("trigger") and not (hasattr(value, "state_dict") or declared(value)):
            raise TypeError(f"{where} is {_name(type(value))}, without state_dict: give it one, or do not save it.")


def refuse_serialize(part: Any, path: str) -> None:
    """Refuses a part that keeps its state in Chainer's ``serialize``, which nothing calls.

    Raises:
        TypeError: If no class as derived as the one with ``serialize`` defines ``saved`` or ``state_dict``.

    Example:
        >>> from trainer.saving.state import refuse_serialize
        >>> class Trigger:
        ...     def serialize(self, serializer): ...
        >>> refuse_serialize(Trigger(), "the trigger")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        TypeError: the trigger: Trigger has Chainer's serialize, which nothing calls: name in `saved` the attributes...
    """
    for kind in type(part).__mro__:
        if vars(kind).keys() & {"saved", "state_dict"}:
            return
        if "serialize" in vars(kind):
            name = type(part).__name__
            raise TypeError(
                f"{f'{path}: ' if path else ''}{name} has Chainer's serialize, which nothing calls: name in `saved` the"
                " attributes to save, or write state_dict and load_state_dict."
            )


def refuse_stateless(part: Any, path: str) -> None:
    """Refuses an object that a snapshot would leave out: one with neither ``saved`` nor ``state_dict``.

    Raises:
        TypeError: Unless it is a function.

    Example:
        >>> from trainer.saving.state import refuse_stateless
        >>> refuse_stateless(print, "extensions/LogReport/trigger")
    """
    if inspect.isroutine(part) or isinstance(part, partial) or hasattr(part, "saved"):
        return
    if not (hasattr(part, "state_dict") and hasattr(part, "load_state_dict")):
        names = tuple(getattr(part, "__dict__", {})) or ("count",)
        raise TypeError(
            f"{path} is {_name(type(part))}, without state_dict and load_state_dict: no snapshot could restore it. Name"
            f" in its class the attributes that training changes, such as saved = {names}; saved = () if there are"
            " none."
        )


def check(state: Any, path: str = "", depth: int = 0) -> None:
    """Refuses a state that could not be loaded back, when it is saved and not when it is needed.

    Raises:
        TypeError: With the path of what cannot be saved.

    Example:
        >>> import numpy, trainer.saving
        >>> trainer.saving.check({"extensions": {"BestValue": {"best": numpy.float64(0.5)}}})
        Traceback (most recent call last):
        TypeError: extensions/BestValue/best is numpy.float64: save float(...).
    """
    kind = type(state)
    if depth > DEPTH:
        raise TypeError(f"{path[:80]}... is nested more than {DEPTH} deep: save lists and dicts side by side.")
    if kind in (list, tuple, dict, OrderedDict, Counter):
        for key, value in state.items() if isinstance(state, dict) else enumerate(state):
            parts = key if type(key) is tuple else (key,)
            if any(type(part) not in (str, int, float, bool, type(None)) for part in parts):
                raise TypeError(f"{path or 'the state'} has the key {key!r} of {_name(type(key))}: make it a str.")
            check(value, f"{path}/{key}" if path else str(key), depth + 1)
    elif kind not in _PLAIN:
        value = state.item() if isinstance(state, np.generic) else state
        simple = next((t.__name__ for t in (bool, int, float, str, bytes, dict, list) if isinstance(value, t)), None)
        simple = simple or ("float" if isinstance(value, tuple) and hasattr(value, "__float__") else None)  # a metric
        remedy = f"{simple}(...)" if simple else "numbers, strings, tensors, lists and dicts"
        raise TypeError(f"{path or 'the state'} is {_name(kind)}: save {remedy}.")


def _name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
