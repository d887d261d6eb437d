"""What a part of a run saves: it names its attributes, and here they are read, checked and put back."""

from __future__ import annotations

from collections import Counter, OrderedDict
from contextvars import ContextVar
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from trainer.checks import warn

_PLAIN = (type(None), bool, int, float, str, bytes, Tensor, torch.nn.Parameter, torch.nn.Buffer)

FORCED = ContextVar("FORCED", default=False)  # whether an iterator loads a state that was made with other data


class Stateful:
    """A part of a run that names what is saved of it: trainer, updater, iterator, trigger and plug-in alike.

    A snapshot can hold None, numbers, strings, bytes, tensors, and lists, tuples and dicts of these. NumPy's scalars
    become Python's. A part with a ``state_dict`` of its own, or a dict of such parts, is saved through it. Tensors are
    loaded onto the attribute's device, in place where shape and dtype fit.

    Attributes:
        saved: Names of the attributes that training changes. A subclass adds to those of its bases.
        settings: Names of attributes that decide the results: a resume is warned where the script has changed one.

    Example:
        >>> from trainer.saving import Stateful
        >>> class Best(Stateful):
        ...     saved = ("best",)
        ...     best = None
        >>> first, second = Best(), Best()
        >>> first.best = 0.5
        >>> second.load_state_dict(first.state_dict())
        >>> second.best, first.state_dict()
        (0.5, {'best': 0.5})
    """

    saved: ClassVar[tuple[str, ...]] = ()
    settings: ClassVar[tuple[str, ...]] = ()

    def state_dict(self) -> dict[str, Any]:
        """Returns the values of the attributes that ``saved`` names, without their leading underscores."""
        return {key: state_of(getattr(self, name)) for key, name in declared(self).items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what :meth:`state_dict` returned.

        Raises:
            ValueError: If the state lacks a name.
        """
        load_declared(self, state, type(self).__name__)


def declared(part: Any, attribute: str = "saved") -> dict[str, str]:
    """Returns the attributes that a part's classes name in ``saved`` (or ``settings``), by their keys in a state.

    Raises:
        AttributeError: If the part has no attribute of a name.

    Example:
        >>> from trainer.saving.state import declared
        >>> from trainer.triggers import TimeTrigger
        >>> declared(TimeTrigger(60))
        {'next': '_next'}
    """
    found: dict[str, str] = {}
    for kind in reversed(type(part).__mro__):
        names = vars(kind).get(attribute, ())
        for name in (names,) if isinstance(names, str) else names:
            if not hasattr(part, name):
                raise AttributeError(
                    f"{kind.__name__} names {name!r} in {attribute!r} and has no such attribute: set it in __init__."
                )
            found[name.lstrip("_")] = name
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


def state_of(value: Any) -> Any:
    """Returns what a snapshot holds of a value, or of a part: its ``state_dict()``, or an empty dict without one.

    Example:
        >>> import numpy
        >>> from trainer.saving.state import state_of
        >>> from trainer.triggers import OnceTrigger
        >>> state_of({"best": numpy.float64(0.5), "trigger": OnceTrigger(), "function": print})
        {'best': 0.5, 'trigger': {'finished': False}, 'function': {}}
    """
    if isinstance(value, dict):
        return {key: state_of(part) for key, part in value.items()}
    if is_part(value):
        return value.state_dict() if hasattr(value, "state_dict") else Stateful.state_dict(value)
    if isinstance(value, np.generic):
        return value.item()
    if type(value) in (list, tuple):
        return type(value)(map(state_of, value))
    return value


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
        for name, value in part.items():
            if name in state:
                load_into(value, state[name], f"{path}/{name}")
            else:
                warn(f"{path}/{name} is not in the snapshot: it starts fresh.")
        for name in state.keys() - part.keys():
            warn(f"{path}/{name} of the snapshot is gone from the script: dropped.")
        return
    if not state:  # it was not there, or had none
        return
    if getattr(type(part), "load_state_dict", Stateful.load_state_dict) is Stateful.load_state_dict:
        load_declared(part, state, path)
        return
    try:
        part.load_state_dict(state)
    except KeyError as error:
        raise ValueError(f"the state of {path} lacks {error}: it was saved by something else.") from error


def load_declared(part: Any, state: dict[str, Any], path: str) -> None:
    """Puts a state back into the attributes that a part names in ``saved``; ``path`` names the part in messages.

    Example:
        >>> from trainer.saving.state import load_declared
        >>> from trainer.triggers import OnceTrigger
        >>> load_declared(OnceTrigger(), {}, "the trigger")
        Traceback (most recent call last):
        ValueError: the state of the trigger lacks 'finished': it was saved by something else.
    """
    names = declared(part)
    if missing := [key for key in names if key not in state]:
        raise ValueError(f"the state of {path} lacks {', '.join(map(repr, missing))}: it was saved by something else.")
    if gone := [key for key in state if key not in names]:
        warn(f"the snapshot's {', '.join(map(repr, gone))} of {path} is gone from the script: dropped.")
    for key, name in names.items():
        current, saved = getattr(part, name), state[key]
        if (value := _put_back(current, saved, f"{path}/{key}" if path else key)) is not current:
            setattr(part, name, value)


def _put_back(current: Any, saved: Any, path: str) -> Any:
    """Returns what an attribute is to be: itself, if it could take the saved value in."""
    if is_part(current):
        load_into(current, saved, path)
        return current
    if isinstance(saved, Tensor) and isinstance(current, Tensor):
        if (current.shape, current.dtype) != (saved.shape, saved.dtype):
            return saved.to(current.device)
        with torch.no_grad():
            return current.copy_(saved)
    return state_of(saved)  # a list of its own


def check_declared(part: Any, path: str) -> None:
    """Refuses what a part names in ``saved`` and no snapshot can hold; parts with a state of their own are not asked.

    Raises:
        TypeError: With the path of what cannot be saved.

    Example:
        >>> from extensions import MicroAverage
        >>> from trainer.saving.state import check_declared
        >>> check_declared(MicroAverage("correct", "count", "accuracy"), "extensions/MicroAverage")
    """
    for key, name in declared(part).items():
        value = getattr(part, name)
        if not is_part(value):
            check(state_of(value), f"{path}/{key}")


def check(state: Any, path: str = "") -> None:
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
    if kind in (list, tuple, dict, OrderedDict, Counter):
        for key, value in state.items() if isinstance(state, dict) else enumerate(state):
            parts = key if type(key) is tuple else (key,)
            if any(type(part) not in (str, int, float, bool, type(None)) for part in parts):
                raise TypeError(f"{path or 'the state'} has the key {key!r} of {_name(type(key))}: make it a str.")
            check(value, f"{path}/{key}" if path else str(key))
    elif kind not in _PLAIN:
        value = state.item() if isinstance(state, np.generic) else state
        simple = next((t.__name__ for t in (bool, int, float, str, bytes, dict, list) if isinstance(value, t)), None)
        remedy = f"{simple}(...)" if simple else "numbers, strings, tensors, lists and dicts"
        raise TypeError(f"{path or 'the state'} is {_name(kind)}: save {remedy}.")


def _name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
