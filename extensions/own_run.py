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
BAD: Rank = (2, 0, False)  # no file of it can be read: it comes first, and autoload reports why


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
    ranked = [(_rank(trainer, files, filename) if len(runs) > 1 else BAD, files) for files in runs.values()]
    ranked.sort(key=lambda pair: pair[0], reverse=True)  # of equals the last written stays first
    good = [(rank, files[0]) for rank, files in ranked if rank != BAD]
    if len(good) > 1 and good[0][0] == good[1][0]:
        first, second = good[0][1], good[1][1]
        warn(
            f"{first.path} (run {first.run_id}) and {second.path} (run {second.run_id}) are of two runs that this"
            " script may mean: the first has the later clock and is taken. Name one, trainer.resume(path), or give"
            " each run a folder of its own."
        )
    return [file.path for _, files in ranked for file in files]


def _rank(trainer: Trainer, files: list[SnapshotFile], filename: str) -> Rank:
    """Tells how far a run, by its newest good snapshot, is the trainer's; more is better."""
    own: dict[str, Any] = getattr(trainer.updater, "get_all_models", dict)()
    models = {name: model.state_dict() for name, model in own.items()}
    for file in files:
        try:
            state = load(file.path)
            saved, extensions = state["settings"] | {"environment": {}}, state["extensions"]
            unlike = len(list(differences(saved, trainer.settings_tree())))
            unlike += not any(may_be(Path(filename or file.path).name, file.path.name) for file in files)
            unlike += len(extensions.keys() ^ trainer.extensions.keys())
            has_models = _shapes(state["updater"].get("model", {})) == _shapes(models)
            return has_models, -unlike, any(_is_log_of(trainer, part) for part in extensions.values())
        except (SnapshotError, OSError, AttributeError, KeyError, TypeError):
            continue  # what is wrong with it is told when it is loaded
    return BAD


def _shapes(models: Any) -> dict[Any, torch.Size]:
    entries = [((name, key), value) for name, state in models.items() for key, value in state.items()]
    return {key: value.shape for key, value in entries if isinstance(value, torch.Tensor) and not is_lazy(value)}


def _is_log_of(trainer: Trainer, part: dict[str, Any]) -> bool:
    """Tells whether the log that lies in the folder is the one of which a loaded extension speaks."""
    saved = part["extension"].get("file") if isinstance(part["extension"], dict) else None
    if not isinstance(saved, dict) or not saved.get("bytes") or leads_out(saved["name"]):
        return False
    return body_of(Path(trainer.out) / saved["name"], saved) is not None
