"""What a snapshot holds of a run, and how a run is resumed from it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from trainer import random
from trainer.checks import log, warn
from trainer.saving.settings import describe, settings_of, warn_of_differences
from trainer.saving.snapshots import SnapshotError, branched, load
from trainer.saving.state import (
    FORCED,
    KINDS,
    TAKEN,
    Stateful,
    declared_state,
    is_part,
    load_declared,
    load_into,
    memory_of,
    state_of,
)

FORMAT = 3  # of a run's state


class SavedRun(Stateful):
    """The part of a :class:`~trainer.Trainer` that saves and resumes it."""

    resumed_from: Path | None
    _told: Path | None = None  # the snapshot that the log has said it goes on from
    saved = ("extensions", "_snapshots", "_stop_fired", "run_id")

    def settings_tree(self: Any) -> dict[str, Any]:
        """Returns what the run's bits depend on beside its state: the machine, ``args``, the settings of its parts."""
        device = getattr(self.updater, "device", None)
        own = {"environment": describe(device), "args": dict(self.args), "updater": settings_of(self.updater)}
        return own | settings_of(self)

    def state_dict(self: Any) -> dict[str, Any]:
        """Returns the state of the whole run: model, optimizer, data order, extensions, triggers, random state."""
        return {
            "format": FORMAT,
            "iteration": self.updater.iteration,
            "error": self._error,
            "settings": self.settings_tree(),
            "elapsed_time": self._elapsed if self._phase == "new" else self.elapsed_time,
            "random": random.capture(),
            "updater": (state_of if is_part(self.updater) else declared_state)(self.updater, "updater"),
            **declared_state(self, "the run"),
        }

    def load_state_dict(self: Any, state: dict[str, Any]) -> None:
        """Puts back what :meth:`state_dict` returned; call it when every extension is registered.

        An extension that the state does not know starts fresh, and one that is gone is dropped, with a warning. It
        warns too of what changes results: another version of torch, another kind of machine, other settings.

        Raises:
            trainer.saving.SnapshotError: If the state has another format.
            ValueError: If a part's state lacks a key or was made with other data.
            RuntimeError: If the model is another: torch lists the keys.
        """
        number = state.get("format", 1)
        if number != FORMAT:
            is_newer = not isinstance(number, int) or number > FORMAT
            remedy = "update Kusari" if is_newer else "take the Kusari that wrote it, or start afresh"
            raise SnapshotError(f"it has format {number} and this Kusari reads {FORMAT}: {remedy}.")
        warn_of_differences(state["settings"], self.settings_tree())
        load_into(self.updater, state["updater"], "updater")
        models: list[Any] = [*getattr(self.updater, "get_all_models", dict)().values()]
        weights = [tensor for model in models for tensor in (*model.parameters(), *model.buffers())]
        token = TAKEN.set({memory_of(tensor) for tensor in weights if tensor.layout is torch.strided})
        try:
            load_declared(self, state, "")
        finally:
            TAKEN.reset(token)
        if state["extensions"]["training"].get(KINDS, {}).get("trigger") != type(self.stop_trigger).__name__:
            self._stop_fired = False  # it was another trigger's
        self._elapsed, self._random = state["elapsed_time"], state["random"]
        random.restore(self._random)

    def resume(self: Any, path: str | Path, *, strict: bool = False, force: bool = False) -> None:
        """Loads a snapshot file into the run; call it when every extension is registered.

        Args:
            path: The file.
            strict: Refuse one that was taken on an error, in the middle of an iteration; else it is warned of.
            force: Go on although a data set has another length: the epoch under way begins anew with it.

        Raises:
            FileNotFoundError: If there is no such file.
            trainer.saving.SnapshotError: If the file is damaged, not a snapshot of a run, or of another format.
            ValueError: If a part's state does not fit it, or a data set has another length.
            RuntimeError: If the model is another: torch lists the keys.
        """
        state = load(path)
        if "updater" not in state:
            raise SnapshotError(f"{path} is not the snapshot of a run; name one that snapshot() wrote.")
        if state.get("error") is not None:
            told = f"{path} was taken when iteration {state['iteration']} or the next had failed with {state['error']}"
            if strict:
                raise SnapshotError(f"{told}; name it to go on from there all the same.")
            warn(f"{told}: part of that iteration may be done twice or not at all.")
        token = FORCED.set(force)
        try:
            self.load_state_dict(state)
        except (ValueError, RuntimeError) as error:
            kind = next(kind for kind in (SnapshotError, ValueError, RuntimeError) if isinstance(error, kind))
            raise kind(f"{path} does not fit this run: {error}") from error
        finally:
            FORCED.reset(token)
        self.resumed_from = Path(path)
        if self.is_resumed_in_place and not strict:  # else what is newer is damaged, or half of an iteration
            self.run_id = branched(self.run_id, state["iteration"], Path(path).parent)

    def _tell_resume(self: Any) -> None:
        """Logs, once, where the run goes on from."""
        if self.resumed_from is self._told:
            return
        self._told = self.resumed_from
        updater = self.updater
        where = f"iteration {updater.iteration}, epoch {updater.epoch}"
        log(logging.INFO, f"resumed from {self.resumed_from} at {where}.")
        if self._is_over:
            told = f"the run was resumed at its end (stop trigger {self.stop_trigger!r}): nothing is trained"
            log(logging.WARNING, f"{told}; give a later stop trigger to go on.")
