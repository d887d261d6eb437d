"""What a snapshot holds of a run, and how a run is resumed from it."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from trainer import random
from trainer.checks import at_least, log, warn
from trainer.saving.files import inside, leads_out, refuse_other, remove_scraps
from trainer.saving.lock import FolderLock
from trainer.saving.settings import describe, settings_of, warn_of_differences
from trainer.saving.snapshots import SnapshotError, branched, load
from trainer.saving.state import (
    FORCED,
    KINDS,
    TAKEN,
    Stateful,
    check_declared,
    declared_state,
    fitting,
    is_part,
    load_declared,
    load_into,
    memory_of,
    refuse_kind,
    refuse_serialize,
    refuse_stateless,
    state_of,
)

FORMAT = 3  # of a run's state


class SavedRun(Stateful):
    """The part of a :class:`~trainer.Trainer` that saves and resumes it."""

    resumed_from: Path | None = None
    _told: Path | None = None  # the snapshot that the log has said it goes on from
    saved = ("extensions", "_snapshots", "_stop_fired", "run_id")

    def __init__(self) -> None:
        self._unclaimed: dict[str, Any] = {}  # states of extensions that were not registered when the run was resumed
        self._unclaimed_settings: dict[str, Any] = {}
        self._taken: set[int] | None = None  # memory of the models, or written to by a load
        self._is_forced = False  # whether a data set may have another length
        self._lock: FolderLock | None = None  # of out; None before the first start
        self._clean: set[Path] = set()  # folders without scraps of killed writes

    def path(self: Any, name: str) -> Path:
        """Returns where to write a file of the run. Call it before each write, and at the start if the name is known.

        A folder that was removed or replaced meanwhile is made and locked anew, with a warning.

        Args:
            name: Relative to ``out``. It may lead out of it, for the script has chosen it.

        Raises:
            trainer.saving.lock.FolderInUseError: If another run has taken the folder since.
            OSError: If a link stands on the way, or something that is no file where the file is to be.

        Example:
            >>> run.path("preview/image.png").relative_to(tmp)
            PosixPath('preview/image.png')
        """
        if self._lock is not None:
            self._lock.keep()
        if leads_out(name):
            return Path(self.out) / name
        path = inside(self.out, name)
        refuse_other(path)
        if self._lock is not None and self._lock.is_first and path.parent not in self._clean:
            remove_scraps(path.parent)
            self._clean.add(path.parent)
        return path

    def settings_tree(self: Any) -> dict[str, Any]:
        """Returns what the run's bits depend on beside its state: the machine, ``args``, the settings of its parts."""
        device = getattr(self.updater, "device", None)
        own = {"environment": describe(device), "args": dict(self.args), "updater": settings_of(self.updater)}
        tree = own | settings_of(self)
        settings = self._unclaimed_settings | tree.get("extensions", {})
        return tree | ({"extensions": settings} if settings else {})

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
            **(own := declared_state(self, "the run")),
            "extensions": own["extensions"] | self._unclaimed,
            "end": self._end,
        }

    def load_state_dict(self: Any, state: dict[str, Any]) -> None:
        """Puts back what :meth:`state_dict` returned.

        The state of an extension that is not registered yet is kept until it is; one that the state does not know
        starts fresh, with a warning. It warns too of what changes results: another version of torch, another kind of
        machine, other settings.

        Raises:
            trainer.saving.SnapshotError: If the state has another format.
            ValueError: If a part's state lacks a key, holds a value of another kind or out of range, or was made with
                other data.
            RuntimeError: If the model is another: torch lists the keys.
        """
        if "updater" not in state or "extensions" not in state:
            raise SnapshotError("it is not the state of a run of Kusari: take one that snapshot() wrote.")
        number = state.get("format", 1)
        if number != FORMAT:
            is_newer = not isinstance(number, int) or number > FORMAT
            remedy = "update Kusari" if is_newer else "take the Kusari that wrote it, or start afresh"
            raise SnapshotError(f"it has format {number} and this Kusari reads {FORMAT}: {remedy}.")
        _refuse_odd(state)
        self._unclaimed, self._unclaimed_settings = {}, {}
        warn_of_differences(state["settings"], self.settings_tree())
        known, settings = self.extensions, state["settings"].get("extensions", {})
        self._taken = None
        with self._loading():
            load_into(self.updater, state["updater"], "updater")
        models: list[Any] = [*getattr(self.updater, "get_all_models", dict)().values()]
        weights = [tensor for model in models for tensor in (*model.parameters(), *model.buffers())]
        self._taken = {memory_of(tensor) for tensor in weights if tensor.layout is torch.strided}
        with self._loading():
            own = {name: part for name, part in state["extensions"].items() if name in known}
            load_declared(self, state | {"extensions": own}, "")
        self._unclaimed = {name: part for name, part in state["extensions"].items() if name not in known}
        self._unclaimed_settings = {name: part for name, part in settings.items() if name not in known}
        if state["extensions"]["training"].get(KINDS, {}).get("trigger") != type(self.stop_trigger).__name__:
            self._stop_fired = False  # it was another trigger's
        self.restore_end(state.get("end", self._end))  # older snapshots have none
        self._elapsed, self._random = state["elapsed_time"], state["random"]
        random.restore(self._random)

    @contextmanager
    def _loading(self) -> Iterator[None]:
        """Within the block, parts are loaded: not into each other's memory."""
        taken, forced = TAKEN.set(self._taken), FORCED.set(self._is_forced)
        try:
            yield
        finally:
            TAKEN.reset(taken)
            FORCED.reset(forced)

    def claim(self: Any, entry: Any, is_new: bool) -> None:
        """Gives an extension that is registered after the resume its state; ``is_new`` if the run has not started.

        Raises:
            ValueError: If the state does not fit it.
        """
        name = entry.name
        if name in self._unclaimed:
            state, settings = self._unclaimed.pop(name), self._unclaimed_settings.pop(name, {})
            warn_of_differences({"extensions": {name: settings}}, {"extensions": {name: settings_of(entry)}})
            with self._loading(), fitting(f"{self.resumed_from or 'the state'} does not fit this run"):
                load_into(entry, state, f"extensions/{name}")
        elif is_new and self.resumed_from is not None:
            warn(f"extensions/{name} is not in the snapshot: it starts fresh.")

    def check_savable(self: Any, entries: dict[str, Any]) -> None:
        """Refuses what no snapshot could hold of these extensions and triggers, and of the updater and its iterators.

        Raises:
            TypeError: With the path of the part, and what to write.
        """
        updater = self.updater
        parts = {"updater": updater}
        if getattr(type(updater), "state_dict", None) in (None, Stateful.state_dict):  # else it saves them its own way
            for name, part in getattr(updater, "get_all_iterators", dict)().items():
                parts[f"updater/iterator/{name}"] = part
        triggers = {f"extensions/{entry.name}/trigger": entry.trigger for entry in entries.values()}
        for path, part in {**parts, **triggers}.items():
            refuse_serialize(part, path)
        if any(hasattr(type(entry.extension), "saves_run") for entry in self.extensions.values()):
            for path, part in parts.items():
                refuse_stateless(part, path)
            for path, part in triggers.items():
                if vars(part) if hasattr(part, "__dict__") else hasattr(part, "__slots__"):
                    refuse_stateless(part, path)
        check_declared(updater, "updater")
        for entry in entries.values():
            check_declared(entry.extension, f"extensions/{entry.name}/extension")
            check_declared(entry.trigger, f"extensions/{entry.name}/trigger")

    def warn_of_unclaimed(self) -> None:
        """Warns of extensions that the snapshot has and the script has not registered."""
        if names := ", ".join(f"extensions/{name}" for name in self._unclaimed):
            warn(f"{names} of the snapshot: not registered by now. The state is kept for when it is extended.")

    def resume(self: Any, path: str | Path, *, strict: bool = False, force: bool = False) -> None:
        """Loads a snapshot file into the run, before or after its extensions are registered.

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
        if not state.keys() >= {"updater", "extensions"}:
            raise SnapshotError(f"{path} is not the snapshot of a run; name one that snapshot() wrote.")
        if state.get("error") is not None:
            told = f"{path} was taken when iteration {state['iteration']} or the next had failed with {state['error']}"
            if strict:
                raise SnapshotError(f"{told}; name it to go on from there all the same.")
            warn(f"{told}: part of that iteration may be done twice or not at all.")
        self._is_forced = force
        with fitting(f"{path} does not fit this run"):
            self.load_state_dict(state)
        self.resumed_from = Path(path).absolute()
        if self.is_resumed_in_place and not strict:  # else what is newer is damaged, or half of an iteration
            depth = len(self.resumed_from.resolve().relative_to(Path(self.out).resolve()).parts) - 1
            folders = [Path(self.out)]
            for _ in range(depth):
                folders = [path for folder in folders for path in folder.iterdir() if path.is_dir()]
            self.run_id = branched(self.run_id, state["iteration"], *folders)

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


def _refuse_odd(state: dict[str, Any]) -> None:
    """Refuses, before anything is loaded, what no run of this format has saved."""
    words, like = torch.zeros(1), {"iteration": 0, "elapsed_time": 0.0, "run_id": "", "end": {}}
    like["random"] = {"python": (0, words, None), "numpy": ("", words, 0, 0, 0.0), "cpu": words, "cuda": []}
    like |= {"settings": {"extensions": {}}, "extensions": {"training": {}, ...: {}}}
    if missing := [key for key in like if key not in state and key != "end"]:  # older ones have none
        raise ValueError(f"it lacks {', '.join(missing)}: it was saved by something else.")
    refuse_kind(like, state, "the run")
    if "training" not in state["extensions"] or not re.fullmatch("[0-9a-f]{16}", state["run_id"]):
        told = f"it lacks extensions/training, or its run_id {state['run_id']!r} is not 16 hexadecimal digits"
        raise ValueError(f"{told}: it was saved by something else.")
    at_least("iteration", state["iteration"], 0)
    if not 0 <= state["elapsed_time"] < math.inf:
        raise ValueError(f"elapsed_time must be 0 or more seconds, got {state['elapsed_time']}.")
    with fitting("random"), random.preserved():
        try:
            random.restore(state["random"] | {"cuda": []})
        except RuntimeError as error:
            raise ValueError(str(error)) from error
