"""Arguments that must be whole numbers."""

from __future__ import annotations

import operator


def at_least(name: str, value: int, low: int) -> int:
    """Returns a whole number that is not too small.

    Raises:
        TypeError: If it is no integer.
        ValueError: If it is less than ``low``.

    Example:
        >>> from trainer.checks import at_least
        >>> at_least("batch_size", 0, 1)
        Traceback (most recent call last):
        ValueError: batch_size must be 1 or more, got 0.
    """
    try:
        value = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}.") from None
    if value < low:
        raise ValueError(f"{name} must be {low} or more, got {value}.")
    return value
