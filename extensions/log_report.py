"""Averages what is observed and keeps it as a log."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakSet

from extensions.log_file import END, LogFile, head, put_aside
from trainer import DictSummary, Extension, Trainer
from trainer.checks import warn
from trainer.saving.files import inside
from trainer.triggers import get_trigger

_WARNED: WeakSet[Trainer] = WeakSet()  # runs in which a loss was NaN or infinite: one warning each


class LogReport(Extension):
    """Writes the means of the observed values to a JSON list of objects. Chainer: ``extensions.LogReport``.

    An entry has each observed value, then ``epoch``, ``iteration`` and ``elapsed_time`` (seconds). It is appended in
    constant time. A snapshot holds the log's length and SHA-256; a resumed run cuts the log back to it, so that no
    entry stands twice. A fresh run keeps another's log that it finds in its folder as ``log.old``.
    ``pd.DataFrame(json.load(open("result/log")))`` reads it; NaN and infinity are ``null``. The first mean of a loss
    (what has "loss" in the last part of its name) that is NaN or infinite is warned of.

    Args:
        keys: Values to log; all by default.
        trigger: When an entry is made; values are averaged in between.
        postprocess: Called with each entry, a dict, which it may change.
        filename: In the trainer's ``out``; formatted with the entry (``"log_{epoch}"`` makes a file an epoch, each
            with the whole log so far). None writes no file.

    Attributes:
        log: The entries, a list of dicts.

    Example:
        >>> from extensions import LogReport
        >>> run.extend(LogReport(["main/loss"], trigger=(1, "epoch")))
        >>> run.run()
        >>> entry = run.get_extension("LogReport").log[-1]
        >>> list(entry), entry["epoch"]
        (['main/loss', 'epoch', 'iteration', 'elapsed_time'], 2)
    """

    saved = ("_trigger", "_summary", "_file")

    def __init__(
        self,
        keys: Sequence[str] | str | None = None,
        trigger: Any = (1, "epoch"),
        postprocess: Callable[[dict[str, Any]], None] | None = None,
        filename: str | None = "log",
    ) -> None:
        self.log: list[dict[str, Any]] = []
        self._keys = (keys,) if isinstance(keys, str) else keys
        self._trigger = get_trigger(trigger)
        self._postprocess = postprocess
        self._filename = filename
        self._summary = DictSummary()
        self._file = LogFile()

    def __call__(self, trainer: Trainer) -> None:
        """Adds the observation to the means; makes an entry if it is time."""
        self._summary.add(trainer.observation, self._keys)
        if trainer.updater.iteration == 0 or self._trigger(trainer):  # before training, or it is time
            self._make_entry(trainer)

    def _make_entry(self, trainer: Trainer) -> None:
        entry: dict[str, Any] = self._summary.compute_mean()
        bad = [key for key in entry if "loss" in key.rpartition("/")[2].lower() and not math.isfinite(entry[key])]
        told = [f"{key} is {entry[key]}" for key in bad if key not in self._summary.weightless()]
        entry["epoch"] = trainer.updater.epoch
        entry["iteration"] = trainer.updater.iteration
        entry["elapsed_time"] = trainer.elapsed_time
        if self._postprocess is not None:
            self._postprocess(entry)
        self.log.append(entry)
        self._summary.clear()
        if self._filename is not None:
            name = self._filename.format(**entry)
            if name == self._file.name and self._file.is_there():
                self._file.append([entry])
            else:
                if trainer.resumed_from is None:
                    put_aside(Path(trainer.out) / name)  # another run's
                self._file.open(Path(trainer.out), name)
                self._file.append(self.log)
        if told and trainer not in _WARNED:
            _WARNED.add(trainer)
            what = f"iteration {trainer.updater.iteration}: {', '.join(told)} (means since the last entry of the log)"
            warn(
                f"{what}. Training has diverged, or no label of a batch counts; extend(FailOnNonNumber()) stops at the"
                " first such iteration, before a snapshot is taken."
            )

    def initialize(self, trainer: Trainer) -> None:
        """On a resume, takes up the log where the snapshot left it."""
        saved, self._file.wanted = self._file.wanted, {}
        if not saved.get("bytes"):
            return
        path = inside(trainer.out, saved["name"])
        candidates = [path, *path.parent.glob(f"{path.name}.old*")]
        if trainer.resumed_from is not None:
            candidates.append(trainer.resumed_from.parent / saved["name"])
        for candidate in candidates:
            body = head(candidate, saved["bytes"])
            if body is not None and hashlib.sha256(body).hexdigest() == saved["sha256"]:
                self.log = [
                    {key: float("nan") if value is None else value for key, value in entry.items()}
                    for entry in json.loads(body + END)
                ]
                if candidate != path:
                    put_aside(path)  # another run's
                self._file.open(Path(trainer.out), saved["name"], body)
                return
        told = f"{candidates[-1]} is missing or is not the log that the snapshot was made with: the log goes on without"
        told += " the entries before the resume"
        if put_aside(path):  # nothing is lost: perhaps somebody has only formatted it anew
            told += "; what there was is kept as .old"
        warn(f"{told}.")

    def finalize(self) -> None:
        """Closes the file."""
        self._file.close()

    def state_dict(self) -> dict[str, Any]:
        """Returns the means under way and what is said of the file; without a file the log has no other place."""
        return {**super().state_dict(), "log": self.log if self._filename is None else []}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what :meth:`state_dict` returned; the log itself is read by :meth:`initialize`."""
        if self._filename is None:
            self.log = list(state["log"])
        super().load_state_dict({key: value for key, value in state.items() if key != "log"})
