"""Averages what is observed and keeps it as a log."""

from __future__ import annotations

import glob
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from weakref import WeakSet

from extensions.log_file import LogFile, body_of, checked, entries_of, put_aside
from trainer import DictSummary, Extension, Trainer
from trainer.checks import near, warn
from trainer.extension import PHASE_PLUGIN, always
from trainer.saving.files import inside, leads_out, refuse_other
from trainer.saving.state import fitting
from trainer.triggers import ProgressTrigger, get_trigger

LAST = ("epoch", "iteration", "elapsed_time")  # in an entry
_WARNED: WeakSet[Trainer] = WeakSet()  # runs in which a loss was NaN or infinite: one warning each


class LogReport(Extension):
    """Writes the means of the observed values to a JSON list of objects. Chainer: ``extensions.LogReport``.

    An entry has each observed value, then ``epoch``, ``iteration`` and ``elapsed_time`` (seconds). It is in ``log`` at
    once, for the extensions that come after; what they report in the same iteration is added at the iteration's end,
    when it is post-processed and appended to the file, in constant time. A snapshot holds the log's length and SHA-256;
    a resumed run cuts the log back to it, so that no entry stands twice. A fresh run keeps another's log that it finds
    in its folder as ``log.old``. ``pd.DataFrame(json.load(open("result/log")))`` reads it; NaN and infinity are
    ``null``. The first mean of a loss (what has "loss" in the last part of its name) that is NaN or infinite is warned
    of, and so are names in ``keys`` that nobody reports.

    Args:
        keys: Values to log; all by default.
        trigger: When an entry is made; values are averaged in between.
        postprocess: Called with each entry, a dict, which it may change, when it is complete.
        filename: In the trainer's ``out``; formatted with the entry (``"log_{epoch}"`` makes a file an epoch, each
            with the whole log so far). A name that ends in ``.jsonl`` makes it JSON Lines: one object a line. None
            writes no file.
        statistics: What an entry has of each value beside the mean: ``"std"``, ``"min"``, ``"max"``, under
            ``key.std`` and so on. The deviation is weighted as the mean is; the extremes are those of single
            iterations.

    Attributes:
        log: The entries, a list of dicts.

    Raises:
        ValueError: If a statistic is not one of the three.

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
        *,
        statistics: Sequence[str] | str = (),
    ) -> None:
        if filename is not None and leads_out(filename):
            raise ValueError(f"filename must lie in the run's folder, got {filename!r}: give Trainer another out.")
        self.log: list[dict[str, Any]] = []
        self._keys = names_of(keys, "keys")
        self._trigger = get_trigger(trigger)
        self._postprocess = postprocess
        self._filename = filename
        self._summary = DictSummary(statistics)
        self._ends = tuple(f".{name}" for name in self._summary.statistics)  # of what is not observed
        self._file = LogFile()
        self._observation: dict[str, Any] = {}  # of this iteration
        self._seen: tuple[str, ...] = ()  # its keys so far
        self._entry: dict[str, Any] | None = None  # not written yet
        self._reported: set[str] | None = set()  # names, until it is known whether one of the keys is misspelt
        self._waits_for: list[str] = []  # extensions
        self._has_missed = False  # whether a value that came too late was warned of

    def __call__(self, trainer: Trainer) -> None:
        """Adds the observation to the means; makes an entry if it is time."""
        if len(self._observation) > len(self._seen) and not self._has_missed:
            self._warn_of_missed()
        observation = trainer.observation
        self._summary.add(observation, self._keys)
        self._observation, self._seen = observation, tuple(observation)
        if trainer.updater.iteration == 0 or self._trigger(trainer):  # before training, or it is time
            self._entry = self._summary.make_statistics()
            if taken := sorted(self._entry.keys() & set(LAST)):
                warn(f"{self.name or 'LogReport'}: {taken} were reported and are the log's own: give them other names.")
            self._entry |= {name: getattr(trainer.updater, name) for name in ("epoch", "iteration")}
            self._entry["elapsed_time"] = trainer.elapsed_time
            self.log.append(self._entry)

    def end_iteration(self, trainer: Trainer) -> None:
        """Adds what was reported since; writes the entry if there is one."""
        observation, seen = self._observation, self._seen
        is_same = len(observation) == len(seen) and (not seen or next(reversed(observation)) == seen[-1])
        if is_same and self._entry is None and self._reported is None:
            return
        late = [] if is_same else [key for key in observation if key not in seen]
        if late:
            self._seen = tuple(observation)
            late = [key for key in late if self._keys is None or key in self._keys]
            self._summary.add(observation, late)
            if self._entry is not None:
                values = self._summary.make_statistics()
                names = [key + end for key in late for end in ("", *self._ends)]
                last = {name: self._entry.pop(name) for name in LAST if name in self._entry}
                self._entry.update({name: values[name] for name in names if name in values} | last)
        if self._reported is not None:
            self._reported.update(observation)
        if self._entry is not None:
            self._write_entry(trainer, self._entry)
            if self._reported is not None:
                self._waits_for, is_known = not_yet_called(trainer)
                if is_known and not self._waits_for:
                    self._warn_of_unreported()

    def _warn_of_unreported(self) -> None:
        reported, self._reported = self._reported, None
        if not reported and not any(entry.keys() - set(LAST) for entry in self.log):
            warn(
                f"{self.name or 'LogReport'}: nothing was reported, so the log has no value. A model reports its loss"
                " by trainer.report({'loss': loss}, self), as Classifier does."
            )
        elif self._keys is not None and reported is not None:
            known = reported.union(*self.log)
            warn_of_unreported(self.name or "LogReport", self._keys, known, self._waits_for)

    def _warn_of_missed(self) -> None:
        """Warns of values that came when the iteration's entry was complete, from an extension of phase 1, say."""
        self._has_missed = True
        names = ", ".join(repr(key) for key in self._observation if key not in self._seen)
        warn(
            f"{self.name or 'LogReport'}: {names} came after the end of the iteration, too late for the log: report in"
            " __call__, in phase 0."
        )

    def _write_entry(self, trainer: Trainer, entry: dict[str, Any]) -> None:
        self._entry = None
        losses = [key for key in entry if "loss" in key.rpartition("/")[2].lower() and not key.endswith(self._ends)]
        bad = [key for key in losses if not math.isfinite(entry[key])]
        told = [f"{key} is {entry[key]}" for key in bad if key not in self._summary.weightless()]
        if self._postprocess is not None:
            self._postprocess(entry)
        self._summary.clear()
        if self._filename is not None:
            try:
                name = self._filename.format(**entry)
            except KeyError as error:
                hint = near(error.args[0], entry)
                raise ValueError(f"filename {self._filename!r}: an entry has no {error}.{hint}") from None
            if name == self._file.name and self._file.is_there():  # then so is the folder
                self._file.append([entry])
            else:
                path = trainer.path(name)
                if trainer.resumed_from is None or name == self._file.name:
                    put_aside(path)  # another run's
                self._file.open(Path(trainer.out), name)
                self._file.append(self.log)
        if told and trainer not in _WARNED:
            _WARNED.add(trainer)
            what = f"iteration {trainer.updater.iteration}: {', '.join(told)} (means since the last entry of the log)"
            warn(
                f"{what}. Training has diverged, or no label of a batch counts; extend(FailOnNonNumber()) stops at the"
                " first such iteration, before a snapshot is taken."
            )

    def on_error(self, trainer: Trainer, exc: BaseException, tb: TracebackType | None) -> None:
        """Writes the entry of an iteration that failed after it was made."""
        if self._entry is not None:
            self._write_entry(trainer, self._entry)

    def initialize(self, trainer: Trainer) -> None:
        """On a resume, takes up the log where the snapshot left it."""
        if self._filename is not None and "{" not in self._filename:
            refuse_other(trainer.path(self._filename), links=False)
        saved, self._file.wanted = self._file.wanted, {}
        if not saved.get("bytes"):
            return
        path = inside(trainer.out, saved["name"])
        candidates = [path, *path.parent.glob(f"{glob.escape(path.name)}.old*")]
        if trainer.resumed_from is not None:
            candidates += [folder / saved["name"] for folder in [*trainer.resumed_from.parents][2::-1]]
        for candidate in candidates:
            body = body_of(candidate, saved)
            if body is not None:
                with fitting(str(candidate)):
                    entries = entries_of(saved["name"], body)
                self.log = [
                    {key: float("nan") if value is None else value for key, value in entry.items()} for entry in entries
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
        """Closes the file; warns of keys that nobody has reported, if that was not clear before."""
        self._file.close()
        if len(self._observation) > len(self._seen) and not self._has_missed:
            self._warn_of_missed()
        if self._reported is not None and self.log:
            self._warn_of_unreported()

    def state_dict(self) -> dict[str, Any]:
        """Returns the means under way and what is said of the file; without a file also the log.

        A file that was removed is written anew: a resume reads the log from it.
        """
        if self._file.name and not self._file.is_there():  # the folder was removed
            self._file.open(self._file.folder, self._file.name)
            self._file.append(self.log)
        return {**super().state_dict(), "log": self.log if self._filename is None else []}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what :meth:`state_dict` returned; the log itself is read by :meth:`initialize`."""
        if self._filename is None:
            self.log = list(checked(state["log"]))
        super().load_state_dict({key: value for key, value in state.items() if key != "log"})


def names_of(given: Sequence[str] | str | None, argument: str) -> list[str] | None:
    """Returns names as a list; a single one may come without.

    Raises:
        TypeError: If one is no string.

    Example:
        >>> from extensions.log_report import names_of
        >>> names_of("main/loss", "keys"), names_of(None, "keys")
        (['main/loss'], None)
    """
    if given is None or isinstance(given, str):
        return given if given is None else [given]
    if not isinstance(given, Iterable) or not all(isinstance(name, str) for name in given):
        meant = " Write trigger=... for a trigger." if isinstance(given, tuple) else ""
        raise TypeError(f"{argument} must be names of values, such as ['main/loss'], got {given!r}.{meant}")
    return list(given)


def not_yet_called(trainer: Trainer) -> tuple[list[str], bool]:
    """Returns the names of the extensions whose first interval is not over, and whether all others have had a turn.

    Those with a trigger of another kind, a function say, may come at any time.

    Example:
        >>> from extensions.log_report import not_yet_called
        >>> run.extend(lambda trainer: None, "each epoch", trigger=(1, "epoch"))
        >>> not_yet_called(run)
        (['each epoch'], True)
        >>> run.run()
        >>> not_yet_called(run)
        ([], True)
    """
    plugins = [e for name, e in trainer.extensions.items() if name != "training" and e.order[0] == PHASE_PLUGIN]
    waiting = [e.name for e in plugins if isinstance(e.trigger, ProgressTrigger) and not e.trigger.reached(trainer)]
    return waiting, all(e.trigger is always or isinstance(e.trigger, ProgressTrigger) for e in plugins)


def warn_of_unreported(
    owner: str,
    wanted: Iterable[str],
    reported: Collection[str],
    waits_for: Collection[str] = (),
    lack: str = "nobody has reported",
) -> None:
    """Warns of names that nobody has reported, with near ones.

    If extensions had no turn yet, what may be theirs is passed over: names whose first part nobody has reported.

    Example:
        >>> import warnings
        >>> from extensions.log_report import warn_of_unreported
        >>> with warnings.catch_warnings(record=True) as told:
        ...     warnings.simplefilter("always")
        ...     warn_of_unreported("LogReport", ["epoch", "main/los"], ["epoch", "main/loss"])
        >>> str(told[0].message)
        "LogReport: nobody has reported 'main/los'. Did you mean 'main/loss'? There are epoch, main/loss."
    """
    for name in wanted:
        is_known = any(key.partition("/")[0] == name.partition("/")[0] for key in reported)
        if name not in reported and (is_known or not waits_for):
            warn(f"{owner}: {lack} {name!r}.{near(name, reported)} There are {', '.join(sorted(reported))}.")
