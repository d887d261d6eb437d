"""Whose snapshots a folder holds: which of several runs is the one to go on with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.nn.parameter import is_lazy

from extensions.log_file import body_of
from extensions.snapshot_files import may_be
from trainer import Trainer
from trainer.checks import warn
from trainer.saving.files import leads_out
from trainer.saving.settings import differences
from trainer.saving.snapshots import SnapshotError, SnapshotFile, load

Rank = tuple[int, int, bool]
BAD: Rank = (2, 0, False)  # of no good file: first of all, to be named and passed over


def own_run_first(trainer: Trainer, found: list[SnapshotFile], filename: str = "") -> list[Path]:
    """Orders the snapshots of several runs in one folder: first those of the run that a trainer goes on with.

    That is the run with the trainer's models, and the fewest differences in settings, ``args``, extensions and
    filename. Of runs that are equal in this, it is the one that wrote the log. Clocks decide only between those that
    are still equal, with a warning.

    Args:
        trainer: Not resumed yet.
        found: As :func:`trainer.saving.find` returns them.
        filename: A format string of which the script makes their names, if it has one.

    Example:
        >>> from extensions import snapshot
        >>> from extensions.own_run import own_run_first
        >>> from trainer import saving
        >>> run.extend(snapshot())
        >>> run.run()
        >>> [path.name for path in own_run_first(run, saving.find(tmp))]
        ['snapshot_iter_4', 'snapshot_iter_2']
    """
    runs: dict[str, list[SnapshotFile]] = {}
    for file in found:
        runs.setdefault(file.run_id[:12], []).append(file)
    if len(runs) > 1:
        ranks = {run: _rank(trainer, files, filename) for run, files in runs.items()}
        order = sorted(runs, key=lambda run: ranks[run], reverse=True)  # of equals the last written stays first
        good = [run for run in order if ranks[run] != BAD]
        if len(good) > 1 and ranks[good[0]] == ranks[good[1]]:
            first, second = (runs[run][0] for run in good[:2])
            warn(
                f"{first.path} (run {first.run_id}) and {second.path} (run {second.run_id}) are of two runs that this"
                " script may mean: the first has the later clock and is taken. Name one, trainer.resume(path), or give"
                " each run a folder of its own."
            )
        runs = {run: runs[run] for run in order}
    return [file.path for files in runs.values() for file in files]


def _rank(trainer: Trainer, files: list[SnapshotFile], filename: str) -> Rank:
    """Tells how far a run, by its newest good snapshot, is the trainer's; more is better."""
    own: dict[str, Any] = getattr(trainer.updater, "get_all_models", dict)()
    models = {name: model.state_dict() for name, model in own.items()}
    for file in files:
        try:
            state = load(file.path)
            saved, extensions = state["settings"] | {"environment": {}}, state["extensions"]
            unlike = len(list(differences(saved, trainer.settings_tree())))
            unlike += not any(may_be(filename or file.path.name, file.path.name) for file in files)
            unlike += len(extensions.keys() ^ trainer.extensions.keys())
            has_models = _shapes(state["updater"].get("model", {})) == _shapes(models)
            return has_models, -unlike, any(_is_log_of(trainer, part) for part in extensions.values())
        except (SnapshotError, OSError, AttributeError, KeyError, TypeError):
            continue  # what is wrong with it is told when it is loaded
    return BAD


def _shapes(models: Any) -> dict[str, Any]:
    entries = [(name, key, value) for name, state in models.items() for key, value in state.items()]
    return {
        f"{name}/{key}": value.shape
        for name, key, value in entries
        if isinstance(value, torch.Tensor) and not is_lazy(value)
    }


def _is_log_of(trainer: Trainer, part: dict[str, Any]) -> bool:
    """Tells whether the log that lies in the folder is the one of which a loaded extension speaks."""
    saved = part["extension"].get("file") if isinstance(part["extension"], dict) else None
    if not isinstance(saved, dict) or not saved.get("bytes") or leads_out(saved["name"]):
        return False
    return body_of(Path(trainer.out) / saved["name"], saved) is not None
