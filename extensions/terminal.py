"""Where tables and bars are written: a terminal, a notebook, a file, or a stream that nobody reads any more."""

from __future__ import annotations

import errno
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

from trainer.checks import log, printable

MINUTE = 60.0  # seconds to the first line where there is no terminal, and between two lines
BLOCKS = "▏▎▍▌▋▊▉█"  # of tqdm's bars
GONE = (errno.EPIPE, errno.EIO, errno.EINVAL, errno.EBADF)  # the reader or the terminal is gone (EINVAL on Windows)

_TOLD: set[str] = set()  # what was said of streams, once each


def write(out: Any, text: str, lost: str) -> None:
    """Writes to a stream and flushes it. Training goes on where the stream is closed, or fails, or is None.

    Characters that its encoding lacks are written as Python's escapes.

    Args:
        out: What ``sys.stdout`` is at the moment, or anything else with ``write``.
        text: What to write.
        lost: What to say, once, through logging, if it cannot be written; the reason is put before it.

    Raises:
        Exception: What a stream raises beside the operating system's errors: it is a mistake in the stream.

    Example:
        >>> import io
        >>> from extensions import terminal
        >>> out = io.StringIO()
        >>> terminal.write(out, "epoch", "the table is lost.")
        >>> terminal.write(None, "epoch", "the table is lost.")  # python script.py >&-
        >>> out.getvalue()
        'epoch'
    """
    reason = "is closed"
    try:
        if out is not None:
            _write(out, text)
            return
    except OSError as error:
        if error.errno is None:  # not one of the operating system's
            raise
        reason = f"takes no more ({error.strerror})"
        _let_go(out, error)
    except ValueError:
        if not getattr(out, "closed", False):
            raise
    name = next((name for name in ("stdout", "stderr") if getattr(sys, name) is out), "the stream")
    told = f"{name} {reason}: {lost}"
    if told not in _TOLD:
        _TOLD.add(told)
        log(logging.WARNING, told)
        flush()


def _write(out: Any, text: str) -> None:
    try:
        out.write(text)
    except UnicodeEncodeError:
        encoding = getattr(out, "encoding", None) or "ascii"
        out.write(text.encode(encoding, "backslashreplace").decode(encoding))
    if hasattr(out, "flush"):
        out.flush()


def flush() -> None:
    """Flushes the standard streams; one that nobody reads any more would make Python exit with code 120, and is let go.

    Example:
        >>> from extensions import terminal
        >>> terminal.flush()
    """
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        try:
            stream.flush()  # type: ignore[union-attr]
        except OSError as error:
            _let_go(stream, error)
        except (AttributeError, ValueError):  # there is none, or it is closed
            pass


def _let_go(stream: Any, error: OSError) -> None:
    """Redirects a standard stream to os.devnull if its reader is gone, so that later prints do not raise."""
    if error.errno in GONE and stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        with suppress(AttributeError, OSError):  # it has no number
            number, nowhere = stream.fileno(), os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            os.close(nowhere)


def is_terminal(out: Any) -> bool:
    """Tells whether a stream is a terminal: what is closed, None, or cannot tell, is not.

    Example:
        >>> from extensions import terminal
        >>> terminal.is_terminal(None)
        False
    """
    try:
        return bool(out.isatty())
    except (AttributeError, ValueError):
        return False


def is_notebook() -> bool:
    """Tells whether this runs in a notebook's kernel.

    Example:
        >>> from extensions import terminal
        >>> terminal.is_notebook()
        False
    """
    ipython = sys.modules.get("IPython")  # if it is one, it is loaded
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


def has_blocks(out: Any) -> bool:
    """Tells whether a stream can show the blocks of tqdm's bars; else they are drawn in ASCII.

    Example:
        >>> import io
        >>> from extensions import terminal
        >>> terminal.has_blocks(io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
        False
    """
    try:
        BLOCKS.encode(getattr(out, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def followed(batches: Iterable[Any], name: str, size: int | None, done: Callable[[int], int]) -> Iterator[Any]:
    """Yields batches, and shows on ``sys.stderr`` how far it is: tqdm's bar, or a line now and then.

    Args:
        batches: What to yield.
        name: What the bar begins with.
        size: What ``done`` comes to, or None if that is not known.
        done: Returns how much is done after a number of batches.

    Example:
        >>> from extensions import terminal
        >>> list(terminal.followed("ab", "letters", 2, int))
        ['a', 'b']
    """
    name = printable(name)
    if is_notebook() or is_terminal(sys.stderr):
        from tqdm.auto import tqdm

        line = 0 if is_notebook() else None  # where tqdm has no widgets, lines below each other come out as many
        with tqdm(total=size, desc=name, leave=False, position=line) as bar:
            for count, batch in enumerate(batches, 1):
                yield batch
                bar.update(done(count) - bar.n)
        return
    from tqdm import tqdm

    start = last = time.monotonic()
    for count, batch in enumerate(batches, 1):
        yield batch
        if (now := time.monotonic()) - last >= MINUTE:
            last = now
            line = tqdm.format_meter(done(count), size, now - start, ncols=0, prefix=name)
            write(sys.stderr, f"{line}\n", f"the progress of {name} is not shown.")
