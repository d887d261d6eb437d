"""Bad samples, which a data set fails to give: an error, or replaced and listed."""

from __future__ import annotations

import json
import pickle
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from trainer import saving
from trainer.checks import warn

Key = tuple[int, int, int, list[int]]  # seed, epoch, position, and candidates: the sample's index, then replacements
MOST_TRIED = 100  # replacements of a sample; if so many in a row are bad, the storage is at fault


class BadSampleError(RuntimeError):
    """A data set failed to give a sample; its own error is the ``__cause__``.

    It is the same with any number of workers. A worker's traceback is in the notes of the cause.

    Attributes:
        index: Of the sample, in the data set.

    Example:
        >>> from trainer.datasets import TransformDataset
        >>> from trainer.iterators import BadSampleError, SerialIterator
        >>> try:
        ...     next(SerialIterator(TransformDataset(["7", "seven"], int), 2))
        ... except BadSampleError as error:
        ...     print(error.index, type(error.__cause__).__name__)
        1 ValueError
    """

    def __init__(self, message: str, index: int, cause: Exception) -> None:
        super().__init__(message)
        self.index = index
        self.__cause__ = cause

    def __reduce__(self) -> tuple[Any, ...]:
        """Goes to another process, with the traceback of the cause, which cannot be sent, as a note."""
        cause: Any = self.__cause__
        lines = "".join(traceback.format_exception(cause)).rstrip()
        try:
            pickle.loads(pickle.dumps(cause))
        except Exception:  # it needs more arguments than it keeps, or holds an open file
            cause = RuntimeError(f"{type(cause).__name__}: {cause}")
        cause.__notes__ = [*getattr(cause, "__notes__", []), f"In the worker:\n{lines}"]
        return BadSampleError, (str(self), self.index, cause)


class BadSamples(list[dict[str, Any]]):
    """The samples that an iterator skipped, and what it does about a bad one. Workers have a copy.

    Args:
        policy: ``"raise"`` or ``"skip"``.
        source: Names the data set in messages.
    """

    def __init__(self, policy: str, source: str) -> None:
        if policy not in ("raise", "skip"):
            raise ValueError(f"on_bad_sample must be 'raise' or 'skip', got {policy!r}.")
        super().__init__()
        self.skips = policy == "skip"
        self._source = source
        self._known: set[Any] = set()  # places and indices in the list: a search for each would take quadratic time
        self._written = 0  # how many of them the file has

    def replace(self, key: Key, error: Exception, make: Callable[[int], Any]) -> tuple[Any, dict[str, Any]]:
        """Returns what replaces a sample, and the entry for the list.

        Args:
            key: Of the bad sample.
            error: What the data set raised.
            make: Makes a sample of an index, with the randomness of this place.

        Raises:
            BadSampleError: If all candidates are bad, or none may replace it.
        """
        _, epoch, position, (index, *others) = key
        reason = f"{type(error).__name__}: {error}"
        for other in others:
            with suppress(Exception):  # a bad replacement is reported at its own position
                bad = {"epoch": epoch, "position": position, "index": index, "replaced_by": other, "error": reason}
                return make(other), bad
        remedy = "on_bad_sample='skip' goes on without it"
        if self.skips:
            remedy = f"the {len(others)} replacements tried failed too, check the storage"
        where = f"index {index} (position {position} in the order of epoch {epoch}; {remedy})"
        raise BadSampleError(f"{self._source} cannot give the sample of {where}: {reason}", index, error)

    def add(self, skipped: list[dict[str, Any]], warns: bool = True) -> None:
        """Lists what was skipped, unless it is listed: ``reset()`` goes back. Warns of each index once."""
        for bad in skipped:
            index = bad["index"]
            if warns and index not in self._known:
                warn(f"{self._source} cannot give the sample of index {index}, which is skipped: {bad['error']}")
            place = bad["epoch"], bad["position"], index
            if place not in self._known:
                self.append(bad)
            self._known |= {place, index}

    def write(self, path: Path | None, growth: float = 1.0) -> None:
        """Writes the list to a file, unless the file has it, or the list has grown by less than a factor since."""
        if path is not None and len(self) > growth * self._written:
            saving.write(path, lambda file: file.write(json.dumps(self, indent=4).encode()))
            self._written = len(self)

    def load(self, listed: list[dict[str, Any]]) -> None:
        """Replaces the list by that of a loaded state."""
        self.clear()
        self._known.clear()
        self._written = 0
        self.add(listed, warns=False)
