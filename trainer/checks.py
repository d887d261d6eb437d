"""Arguments that must be whole numbers, warnings that name the user's line, and messages: the logger and errors."""

from __future__ import annotations

import difflib
import logging
import operator
import os
import re
import sys
import traceback
import warnings
from collections.abc import Iterable
from contextlib import suppress

# Control characters, which a terminal obeys; what reorders text; and what no encoding has.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

logger = logging.getLogger("kusari")  # of all messages; Python shows warnings and errors unless it is configured


def at_least(name: str, value: int, low: int, high: int | None = None) -> int:
    """Returns a whole number within its bounds.

    Raises:
        TypeError: If it is no integer.
        ValueError: If it is less than ``low`` or more than ``high``.

    Example:
        >>> from trainer.checks import at_least
        >>> at_least("batch_size", 0, 1)
        Traceback (most recent call last):
        ValueError: batch_size must be 1 or more, got 0.
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        value = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}.") from None
    if value < low or (high is not None and value > high):
        raise ValueError(f"{name} must be {f'{low} or more' if high is None else f'{low} to {high}'}, got {value}.")
    return value


def near(name: object, names: Iterable[str]) -> str:
    """Returns " Did you mean ...?" for the closest name, or an empty string.

    Names that share the first part of a path come first. A name that is only the end of the path is not suggested.

    Example:
        >>> from trainer.checks import near
        >>> near("main/los", ["main/loss", "main/accuracy"]), near("validation/main/loss", ["main/loss"])
        (" Did you mean 'main/loss'?", '')
    """
    wanted = str(name)
    others = [known for known in map(str, names) if not wanted.endswith(f"/{known}")]
    found = difflib.get_close_matches(wanted, others, 5)
    found.sort(key=lambda known: known.partition("/")[0] != wanted.partition("/")[0])
    return f" Did you mean {found[0]!r}?" if found else ""


class UnknownKeyError(KeyError):
    """A ``KeyError`` that prints its message as it is, not in quotes, and names what was perhaps meant.

    Args:
        message: What is wrong.
        name: The key.
        names: Those there are: the nearest is looked for when the error is printed.

    Example:
        >>> from trainer.checks import UnknownKeyError
        >>> str(UnknownKeyError("'main/los' was not observed.", "main/los", ["main/loss"]))
        "'main/los' was not observed. Did you mean 'main/loss'?"
    """

    def __init__(self, message: str = "", name: str = "", names: Iterable[str] = ()) -> None:
        super().__init__(message, name, list(names))

    def __str__(self) -> str:
        message, name, names = self.args
        return f"{message}{near(name, names)}"


def printable(text: str, kept: str = "") -> str:
    r"""Returns text with Python's escapes for what must not reach a terminal: a file's name may hold anything.

    Args:
        text: A line.
        kept: Characters that stay: a newline, in a text of several lines.

    Example:
        >>> from trainer.checks import printable
        >>> print(printable("猫.jpg, \x1b[2J\udcff\n.jpg"))
        猫.jpg, \x1b[2J\udcff\n.jpg
    """
    return _UNPRINTABLE.sub(lambda found: found[0] if found[0] in kept else ascii(found[0])[1:-1], text)


def warn(message: str) -> None:
    """Warns at the line of the script that called into ``trainer`` or ``extensions``, also where torch is in between.

    Example:
        >>> import warnings
        >>> from trainer.checks import warn
        >>> with warnings.catch_warnings(record=True) as told:
        ...     warnings.simplefilter("always")
        ...     warn("the disk is nearly full.")
        >>> str(told[0].message)
        'the disk is nearly full.'
    """
    level, frame = 2, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in ("trainer", "extensions", "torch"):
        level, frame = level + 1, frame.f_back
    warnings.warn(printable(message), stacklevel=level)


def reworded(error: Exception, text: str) -> Exception:
    """Returns the same error with another text, so that no traceback tells it twice.

    One that has no text of its own to change (a KeyError, say) gets it as a note, which Python 3.11 and later print.

    Example:
        >>> from trainer.checks import reworded
        >>> reworded(ValueError("too long"), "snapshot_4 does not fit this run: too long")
        ValueError('snapshot_4 does not fit this run: too long')
    """
    if error.args == (str(error),):
        error.args = (text,)
    else:
        error.__notes__ = [*getattr(error, "__notes__", []), text]  # type: ignore[attr-defined]  # add_note: 3.11
    return error


def log(level: int, message: str, kept: str = "") -> None:
    """Logs a message of the library; goes on where ``sys.stderr`` is a closed file, which makes logging itself fail.

    Example:
        >>> import logging
        >>> from trainer.checks import log
        >>> log(logging.INFO, "resumed from result/snapshot_iter_10")  # shown if logging is configured so
    """
    with suppress(ValueError):
        logger.log(level, printable(message, kept), stacklevel=2)


def headline(error: BaseException) -> str:
    """Returns an error's type and text in one line; type and place if it has no text.

    Example:
        >>> from trainer.checks import headline
        >>> headline(ValueError("no data"))
        'ValueError: no data'
        >>> try:
        ...     assert 1 > 2
        ... except AssertionError as error:
        ...     headline(error).partition(" at ")[0]
        'AssertionError'
    """
    line = traceback.format_exception_only(type(error), error)[0].splitlines()[0].rstrip(": ")
    frames = traceback.extract_tb(error.__traceback__)
    if ": " in line or not frames:
        return line
    return f"{line} at {os.path.basename(frames[-1].filename)}:{frames[-1].lineno} in {frames[-1].name}"


def attach(first: BaseException, other: BaseException, where: str) -> None:
    """Logs a second error and leaves it as a note on the first.

    Example:
        >>> from trainer.checks import attach
        >>> first = OSError("no space left")
        >>> attach(first, ValueError("and more"), "finalize")
        >>> first.__notes__[0].splitlines()[0]
        'Another error in finalize:'
    """
    text = "".join(traceback.format_exception(type(other), other, other.__traceback__)).rstrip()
    note = f"Another error in {where}:\n{text}"
    log(logging.ERROR, note, kept="\n")
    first.__notes__ = [*getattr(first, "__notes__", []), note]  # type: ignore[attr-defined]  # add_note: 3.11
