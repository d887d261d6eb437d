"""The snapshots of one iteration, and what each owes the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from trainer.checks import warn
from trainer.saving.state import Stateful


class SnapshotQueue(Stateful):
    """Takes the snapshots that are due in an iteration, one after the other.

    All triggers are asked before the first file is written, for their state is in it. Each snapshot records which
    others are still pending, for a resume. What is still being written since an earlier iteration could not be made up
    for: it is waited for.

    Attributes:
        entries: The snapshots in their order, each with what to call.
        pending: Names of the snapshots of this iteration that are not whole yet, without the one under way.
    """

    saved = ("pending",)
    examples: ClassVar[dict[str, Any]] = {"pending": [""]}

    def __init__(self) -> None:
        self.entries: list[tuple[Any, Callable[[Any], Any]]] = []
        self.pending: list[str] = []
        self._due: list[tuple[Any, Callable[[Any], Any]]] = []

    def is_due(self, trainer: Any) -> bool:
        """Asks all triggers."""
        self._due = [(entry, call) for entry, call in self.entries if entry.trigger(trainer)]
        return bool(self._due)

    def __call__(self, trainer: Any) -> None:
        """Takes the snapshots that are due."""
        due = self._due
        saving = [entry for entry, _ in due if getattr(entry.extension, "saves_run", False)]
        for other, _ in self.entries if saving else ():
            if saving != [other] and getattr(other.extension, "is_writing", False):
                other.extension.wait()
        for index, (_, call) in enumerate(due):
            self.pending = [entry.name for entry, _ in due[:index] if getattr(entry.extension, "is_writing", False)]
            self.pending += [entry.name for entry, _ in due[index + 1 :]]
            call(trainer)
        self.pending = []

    def make_up(self, trainer: Any) -> None:
        """Takes those of the loaded iteration that were pending when the run was killed."""
        pending = self.pending if trainer.is_resumed_in_place else []
        self._due = [(entry, call) for entry, call in self.entries if entry.name in pending]
        try:
            self(trainer)
        except OSError:
            raise
        except Exception as error:  # a file name, say, that is made of an observation, which is no more
            missed = f"{', '.join(pending)}: what was due in iteration {trainer.updater.iteration} could not be made up"
            warn(f"{missed} for ({error!r}).")
            self.pending = []
