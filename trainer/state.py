"""The state of a part that may have none: a plain function is an extension and a trigger too."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_is_forced = False


def state_of(part: Any) -> Any:
    """Returns ``part.state_dict()``, or an empty dict if it has no state.

    Example:
        >>> from trainer.state import state_of
        >>> from trainer.triggers import IntervalTrigger
        >>> state_of(IntervalTrigger(1, "epoch")), state_of(print)
        ({'progress': [0, 1]}, {})
    """
    return part.state_dict() if hasattr(part, "state_dict") else {}


def load_into(part: Any, state: Any, name: str) -> None:
    """Calls ``part.load_state_dict(state)``, unless either is empty.

    Raises:
        ValueError: If the state lacks a key: part and key are named.

    Example:
        >>> from trainer.state import load_into, state_of
        >>> from trainer.triggers import IntervalTrigger
        >>> trigger = IntervalTrigger(1, "epoch")
        >>> load_into(trigger, {"progress": [3, 2]}, "the trigger")
        >>> state_of(trigger)
        {'progress': [3, 2]}
    """
    if not hasattr(part, "load_state_dict") or not state:
        return
    try:
        part.load_state_dict(state)
    except KeyError as error:
        raise ValueError(f"the state of {name} lacks {error}: it was saved by something else.") from error


@contextmanager
def forced(force: bool = True) -> Iterator[None]:
    """Lets parts load, in the block, what they would refuse: the state of an iterator over other data.

    Example:
        >>> from trainer.state import forced, is_forced
        >>> with forced():
        ...     print(is_forced())
        True
    """
    global _is_forced
    before, _is_forced = _is_forced, force
    try:
        yield
    finally:
        _is_forced = before


def is_forced() -> bool:
    """Tells whether a state is to be loaded although it was made with other data.

    Example:
        >>> from trainer.state import is_forced
        >>> is_forced()
        False
    """
    return _is_forced


def warn_of_changes(saved: dict[str, Any], now: dict[str, Any]) -> None:
    """Warns of settings that are other than they were when the state was saved; older states may lack some.

    Example:
        >>> from trainer.state import warn_of_changes
        >>> warn_of_changes({"batch_size": 8}, {"batch_size": 8, "shuffle": True})
    """
    for name in saved.keys() & now.keys():
        if saved[name] != now[name]:
            warnings.warn(
                f"the snapshot was made with {name} {saved[name]} and the script asks for {now[name]}: the run goes on"
                " with that, but is not the one it would have been.",
                stacklevel=5,
            )
