"""The training loop, and nothing but the loop."""

from __future__ import annotations

import secrets
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trainer import random, saving
from trainer.extension import PRIORITY_READER, Extension, refuse_old
from trainer.reporter import Observation, Reporter, reporters_of_thread
from trainer.saving import settings as environment
from trainer.saving.lock import FolderLock
from trainer.saving.state import forced, load_into, state_of
from trainer.triggers import ProgressTrigger, epoch_progress, get_trigger
from trainer.triggers.interval import always


@dataclass
class _Entry:
    """An extension as it was registered."""

    name: str
    extension: Any
    trigger: Callable[[Trainer], bool]
    priority: int
    call_before_training: bool

    @property
    def runs_last(self) -> int:
        return int(getattr(self.extension, "runs_last", False))

    def hook(self, name: str) -> Callable[..., Any] | None:
        return getattr(self.extension, name, None) or None


class Trainer:
    """Repeats updates until a trigger says stop, and calls the extensions after each. Chainer: ``training.Trainer``.

    The order of one iteration: a fresh ``observation`` and one update; the extensions, highest priority first, each
    trigger asked right before its extension; the stop trigger; the snapshots.

    Args:
        updater: Does one update, as :class:`~trainer.StandardUpdater`: anything with ``update()``, ``iteration``,
            ``epoch`` and ``epoch_detail``. Used where it has them: ``get_all_models`` (whose reports get names),
            ``connect_trainer`` (told of the trainer), ``finalize``, ``state_dict`` and ``load_state_dict``.
        stop_trigger: ``(10, "epoch")`` stops when ten epochs are reached; a function of the trainer stops when it
            says so; None never.
        out: Folder of whatever the extensions write; made at the start. One process at a time runs in it.
        extensions: Extensions to register.

    Attributes:
        updater: As given.
        stop_trigger: The trigger made of what was given.
        out: As given.
        observation: The values observed in this iteration, by name.
        reporter: What ``report`` reports to during an iteration.
        args: What the run was asked for and its results depend on, plain values by name: a script may put its own in.
            They are kept in the snapshots; a resume with others is warned of.
        run_id: Names the run in its snapshots: drawn at a fresh start, kept by a resumed run; the last four digits
            count how often it has gone back to an older snapshot.
        resumed_from: The snapshot file that was loaded, or None.
        start: Where this process began: ``"iteration"`` and ``"epoch"`` as a fraction's two integers, ``"time"`` in
            seconds. A trigger that is new to a resumed run counts from there.

    Example:
        >>> import torch
        >>> from trainer import Classifier, StandardUpdater, Trainer
        >>> from trainer.iterators import SerialIterator
        >>> model = Classifier(torch.nn.Linear(2, 3))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> data = [(torch.rand(2), i % 3) for i in range(10)]
        >>> updater = StandardUpdater(SerialIterator(data, 5), optimizer, model=model)
        >>> run = Trainer(updater, (3, "epoch"), out=tmp)
        >>> run.extend(lambda trainer: print("epoch", trainer.updater.epoch), trigger=(1, "epoch"))
        >>> run.run()
        epoch 1
        epoch 2
        epoch 3
    """

    def __init__(
        self, updater: Any, stop_trigger: Any = None, out: str | Path = "result", extensions: Any = ()
    ) -> None:
        self.updater = updater
        self.stop_trigger = get_trigger(stop_trigger)
        self.out = out
        self.observation: dict[str, Any] = {}
        self.reporter = Reporter()
        self._register_models()
        self.args: dict[str, Any] = {}
        self.run_id = secrets.token_hex(6) + "0000"
        self.resumed_from: Path | None = None
        self.start: dict[str, Any] = {}

        self._entries: dict[str, _Entry] = {}
        self._loop: list[tuple[Callable[[Trainer], bool], Callable[[Trainer], Any]]] = []
        self._last: list[tuple[_Entry, Callable[[Trainer], Any]]] = []
        self._due: list[str] = []  # the snapshots of this iteration, but for the one being taken, that are not whole
        self._closers: list[Callable[[], None]] = []  # of what is running, in the order of its start
        self._phase = "new"  # then "running", then "over", or "closed" if it ended otherwise
        self._show_error = True
        self._stop_fired = False
        self._start_time = 0.0
        self._elapsed = 0.0  # before this start; after the end, all of it
        self._error: str | None = None  # in which the iteration under way has failed
        self._random: dict[str, Any] | None = None  # loaded, to be put back when everything is initialized

        if connect := getattr(updater, "connect_trainer", None):
            connect(self)
        for extension in extensions or ():
            self.extend(extension)

    def _register_models(self) -> None:
        for name, model in getattr(self.updater, "get_all_models", dict)().items():
            self.reporter.add_model(name, model)

    # -- extensions

    def extend(
        self,
        extension: Callable[[Trainer], Any],
        name: str | None = None,
        trigger: Any = None,
        priority: int | None = None,
        *,
        call_before_training: bool = False,
        **kwargs: Any,
    ) -> None:
        """Registers an extension: any function of the trainer, or a :class:`~trainer.Extension`.

        Args:
            extension: Called as ``extension(trainer)`` in iterations in which the trigger fires.
            name: For ``get_extension`` and the snapshot; by default the extension's own. A second one of a name
                becomes ``name_1``.
            trigger: By default the extension's own, or every iteration.
            priority: By default the extension's own, or ``PRIORITY_READER``. Among equals the first registered
                is called first.
            call_before_training: Call it also once before the first iteration of a fresh run.
            **kwargs: None is known; Chainer's old ``invoke_before_training`` is told what to write instead.

        Raises:
            TypeError: If no name is given and the extension has none; or it is a class, a ``make_extension`` without
                parentheses, or keeps its state in Chainer's ``serialize``.
            ValueError: If the name is ``training``, or the trigger object is in use by another extension: a trigger
                remembers when it was last asked, and would fire for the first one only.
        """
        refuse_old(kwargs)
        _refuse_mistakes(extension)
        name = name or next(
            (n for n in (getattr(extension, a, None) for a in ("name", "default_name", "__name__")) if n),
            None,
        )
        if name is None:
            raise TypeError(f"{extension!r} has no name; give one: extend(extension, name='...').")
        if name == "training":
            raise ValueError("an extension cannot be called 'training'; give another: extend(extension, name='...').")
        base, ordinal = name, 0
        while name in self._entries:
            ordinal += 1
            name = f"{base}_{ordinal}"

        if trigger is None:
            trigger = getattr(extension, "trigger", (1, "iteration"))
        is_pair = isinstance(trigger, (tuple, list))
        trigger = always if is_pair and tuple(trigger) == (1, "iteration") else get_trigger(trigger)
        users = [("stop", self.stop_trigger)]
        for entry in self._entries.values():
            users += [(entry.name, entry.trigger), (entry.name, _inner_trigger(entry.extension))]
        for own in (trigger, _inner_trigger(extension)):
            for user, other in users:
                if other is own and hasattr(own, "state_dict"):
                    raise ValueError(
                        f"the trigger {own!r} of {name!r} is already that of {user!r}: it would fire for the first"
                        " one only; make a trigger for each."
                    )
        if priority is None:
            priority = getattr(extension, "priority", PRIORITY_READER)
        if not hasattr(extension, "__self__"):  # a bound method takes no attributes
            extension.name = name  # type: ignore[attr-defined]
        self._entries[name] = _Entry(name, extension, trigger, priority, call_before_training)

    def get_extension(self, name: str) -> Any:
        """Returns the extension registered under a name.

        Raises:
            ValueError: If there is none.
        """
        if name not in self._entries:
            raise ValueError(f"extension {name} not found; there are {sorted(self._entries)}.")
        return self._entries[name].extension

    # -- the loop

    def run(self, show_loop_exception_msg: bool = True) -> None:
        """Trains until the stop trigger fires.

        Args:
            show_loop_exception_msg: Whether an error in the loop is printed to stderr before extensions are
                finalized, as well as raised afterwards.

        Raises:
            RuntimeError: If it has already run to its end.
            trainer.saving.lock.FolderInUseError: If another process runs in ``out``.
        """
        if self._phase == "over":
            raise RuntimeError("cannot run training loop multiple times; make a new Trainer.")
        self._show_error = show_loop_exception_msg
        reporters = reporters_of_thread()
        depth = len(reporters)
        try:
            if self._phase != "running":
                self._start()
            while not self.finished:
                with self.iteration():
                    self.updater.update()
        finally:
            del reporters[depth:]  # of an iteration that was interrupted where it begins or ends
            self.finalize()  # nothing is left to close, unless the loop was interrupted between two iterations

    @property
    def finished(self) -> bool:
        """Whether training is over. The first question starts the run, if :meth:`iteration` has not.

        A run resumed at or past its end is.
        """
        if self._phase == "new":
            self._start()
        return self._phase == "over"

    def iteration(self) -> AbstractContextManager[None]:
        """One iteration: the block is the update, then come the extensions. ``run`` is made of these.

        Example:
            Your own loop, with the same extensions, log and resume as ``run``::

                while not trainer.finished:
                    with trainer.iteration():
                        x, t = updater.next_batch()
                        optimizer.zero_grad()
                        model(x, t).backward()
                        optimizer.step()

        Raises:
            RuntimeError: If training is over.
        """
        if self._phase != "running":
            if self._phase != "over":
                self._start()
            if self._phase == "over":
                raise RuntimeError("training is over; end the loop with: while not trainer.finished.")
        return _Iteration(self)

    def _follow_update(self, before: int, observation: Observation) -> bool:
        """Does what comes after the update: extensions, stop trigger, snapshots; returns whether training is over."""
        updater = self.updater
        if updater.iteration == before:  # a block of one's own, without updater.update()
            self._complete_update()
        observation.weight = getattr(updater, "batch_size", 1)
        for trigger, extension in self._loop:
            if trigger is always or trigger(self):  # not to call it saves a third of a microsecond
                extension(self)
        stop = self._should_stop()
        if self._last and (due := [(entry, call) for entry, call in self._last if entry.trigger(self)]):
            self._take_snapshots(due)
        return stop

    def _take_snapshots(self, due: list[tuple[_Entry, Callable[[Trainer], Any]]]) -> None:
        """Calls what runs last, each with a note of the others that a kill would leave undone.

        What is still being written since an earlier iteration could not be made up for: it is waited for.
        """
        saving = [entry for entry, _ in due if getattr(entry.extension, "saves_run", False)]
        for other, _ in self._last if saving else ():
            if saving != [other] and getattr(other.extension, "is_writing", False):
                other.extension.settle()
        for index, (_, call) in enumerate(due):
            under_way = [entry.name for entry, _ in due[:index] if getattr(entry.extension, "is_writing", False)]
            self._due = under_way + [entry.name for entry, _ in due[index + 1 :]]
            call(self)
        self._due = []

    def _complete_update(self) -> None:
        if complete := getattr(self.updater, "complete_update", None):
            complete()
        else:
            self.updater.iteration += 1

    def _should_stop(self, resumed: bool = False) -> bool:
        trigger = self.stop_trigger
        if isinstance(trigger, ProgressTrigger):  # it needs no memory for this: it is not asked in each iteration
            return trigger.reached(self)
        if not (resumed and hasattr(trigger, "state_dict")):  # else it was asked of this iteration before the save
            self._stop_fired = bool(trigger(self)) or self._stop_fired
        reached = getattr(trigger, "reached", None)  # what says by itself whether the end lies behind may be moved
        return self._stop_fired if reached is None else bool(reached(self))

    # -- the life of the extensions

    def _start(self) -> None:
        """Opens what the run needs: state first, then every extension, highest priority first."""
        Path(self.out).mkdir(parents=True, exist_ok=True)
        lock = FolderLock(self.out)
        entries = self._ordered()
        self.wrap_calls(None)
        self._start_time = time.perf_counter()
        self._phase = "running"
        self._error = None
        self._closers = [lock.release]
        if hasattr(self.updater, "finalize"):
            self._closers.append(self.updater.finalize)
        try:
            if lock.is_first:
                saving.remove_scraps(self.out)
            # MKL may choose fewer threads until a number is set; an iterator that fetches in this process sets one.
            torch.set_num_threads(torch.get_num_threads())
            self._register_models()  # once more: it may have been compiled since, or have other parts
            for entry in entries:
                if restore := entry.hook("restore"):
                    restore(self)
            updater = self.updater
            self.start = {"iteration": (updater.iteration, 1), "epoch": epoch_progress(updater), "time": self._elapsed}
            for entry in sorted(entries, key=lambda entry: -entry.priority):
                if initialize := entry.hook("initialize"):
                    initialize(self)
                if finalize := entry.hook("finalize"):
                    self._closers.append(finalize)
            if self.is_before_training and self._random is None:
                self.observation = Observation()
                with self.reporter.scope(self.observation):
                    for entry in entries:
                        if entry.call_before_training:
                            entry.extension(self)
                self.observation = Observation()  # the stop trigger is not asked of what was before the first update
            if self._random is not None:  # only now: what was initialized may have drawn
                random.restore(self._random)
                self._random = None
            self._take_missed_snapshots()
            stop = self._should_stop(resumed=not self.is_before_training)
        except BaseException as error:
            self._close_after(error)
            raise
        if stop:
            self._finish()

    def _take_missed_snapshots(self) -> None:
        """Takes those of the loaded iteration that a kill may have come before."""
        due, self._due = self._due if self.is_resumed_in_place else [], []
        try:
            self._take_snapshots([(entry, call) for entry, call in self._last if entry.name in due])
        except OSError:
            raise
        except Exception as error:  # a file name, say, that is made of an observation, which is no more
            missed = f"{', '.join(due)}: what was due in iteration {self.updater.iteration} could not be made up for"
            warnings.warn(f"{missed} ({error!r}).", stacklevel=4)

    def wrap_calls(self, wrap: Callable[[str, Callable[[Trainer], Any]], Callable[[Trainer], Any]] | None) -> None:
        """Has each extension called through ``wrap(name, extension)`` from the next iteration on: to time it, say.

        Args:
            wrap: Returns what to call in place of the extension; None takes the wrapping off.
        """
        calls = [(e, e.extension if wrap is None else wrap(e.name, e.extension)) for e in self._ordered()]
        self._loop = [(entry.trigger, call) for entry, call in calls if not entry.runs_last]
        self._last = [(entry, call) for entry, call in calls if entry.runs_last]

    def _ordered(self) -> list[_Entry]:
        return sorted(self._entries.values(), key=lambda entry: (entry.runs_last, -entry.priority))

    def _finish(self) -> None:
        """Ends the run: closes everything and stops the clock."""
        error = self._close()
        self._phase = "over"
        if error:
            raise error

    def finalize(self) -> None:
        """Closes the extensions and the updater of a hand-written loop that ends before the stop trigger fires."""
        if error := self._close():
            raise error

    def _fail(self, error: BaseException) -> None:
        """Tells every extension of the error, then closes all."""
        if isinstance(error, Exception):
            self._error = repr(error)
            if self._show_error:
                print(f"Exception in main training loop: {error}", file=sys.stderr)
                traceback.print_tb(error.__traceback__)
                print("The extensions are finalized before it is raised again.", file=sys.stderr, flush=True)
            for entry in self._ordered():
                if on_error := entry.hook("on_error"):
                    try:
                        on_error(self, error, error.__traceback__)
                    except Exception as other:
                        _attach(error, other, f"on_error of {entry.name!r}")
        self._close_after(error)

    def _close_after(self, error: BaseException) -> None:
        if other := self._close():
            _attach(error, other, "finalize")

    def _close(self) -> Exception | None:
        """Finalizes everything in the reverse order of its start; returns the first error, with the others on it."""
        if self._phase == "running":
            self._elapsed, self._phase = self.elapsed_time, "closed"
        first: Exception | None = None
        while self._closers:
            try:
                self._closers.pop()()
            except Exception as error:
                if first is None:
                    first = error
                else:
                    _attach(first, error, "finalize")
        return first

    # -- what the extensions ask

    @property
    def is_before_training(self) -> bool:
        """Whether no update was done yet, in this process or before a resume."""
        return bool(self.updater.iteration == 0)

    @property
    def is_resumed_in_place(self) -> bool:
        """Whether the snapshot that was loaded lies in ``out``, with the other files of the run."""
        return self.resumed_from is not None and self.resumed_from.resolve().is_relative_to(Path(self.out).resolve())

    @property
    def elapsed_time(self) -> float:
        """Seconds of training, those before a resume included.

        Raises:
            RuntimeError: If training has not been started yet.
        """
        if self._phase == "running":
            return time.perf_counter() - self._start_time + self._elapsed
        if self._phase == "new":
            raise RuntimeError("training has not been started yet")
        return self._elapsed

    # -- state

    def state_dict(self) -> dict[str, Any]:
        """Returns the state of the whole run: model, optimizer, data order, extensions, triggers, random state."""
        return {
            "run_id": self.run_id,
            "iteration": self.updater.iteration,
            "error": self._error,
            "updater": state_of(self.updater),
            "extensions": {name: state_of(entry.extension) for name, entry in self._entries.items()},
            "triggers": {name: _trigger_state(entry.trigger) for name, entry in self._entries.items()},
            "stop_trigger": _trigger_state(self.stop_trigger),
            "stop_fired": self._stop_fired,
            "due": self._due,
            "elapsed_time": self._elapsed if self._phase == "new" else self.elapsed_time,
            "random": random.capture(),
            "environment": environment.describe(getattr(self.updater, "device", None)),
            "args": dict(self.args),
            "format": environment.FORMAT,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what :meth:`state_dict` returned; call it when every extension is registered.

        An extension that the state does not know starts fresh, and one that is gone is dropped, with a warning; so is
        warned of what changes results: another version of torch, another kind of machine, other ``args``.

        Raises:
            ValueError: If a part's state lacks a key, or was made with other data: the part is named.
            RuntimeError: If the model is another: torch lists the keys.
        """
        state = environment.upgraded(state)
        load_into(self.updater, state["updater"], "the updater")
        _load_trigger(self.stop_trigger, state["stop_trigger"], "the stop trigger")
        saved = state["extensions"]
        for name, entry in self._entries.items():
            if name in saved:
                load_into(entry.extension, saved[name], f"extension {name!r}")
                _load_trigger(entry.trigger, state["triggers"][name], f"the trigger of extension {name!r}")
            else:
                warnings.warn(f"extension {name!r} is not in the snapshot: it starts fresh.", stacklevel=2)
        for name in saved:
            if name not in self._entries:
                warnings.warn(f"extension {name!r} of the snapshot is gone from the script: dropped.", stacklevel=2)
        now = environment.describe(getattr(self.updater, "device", None))
        environment.warn_of_differences(state, now, self.args)
        self.run_id = state["run_id"]
        self._stop_fired = state["stop_fired"]
        self._due = state["due"]
        self._elapsed = state["elapsed_time"]
        self._random = state["random"]
        random.restore(self._random)

    def resume(self, path: str | Path, *, only_whole: bool = False, force: bool = False) -> None:
        """Loads a snapshot file into the run; call it when every extension is registered.

        Args:
            path: The file.
            only_whole: Refuse one that was taken on an error, in the middle of an iteration; else it is warned of.
            force: Go on although a data set has another length: the epoch under way begins anew with it.

        Raises:
            FileNotFoundError: If there is no such file.
            trainer.saving.SnapshotError: If the file is damaged, none of ours, or of a newer format.
            ValueError: If a part's state does not fit it, or a data set has another length.
            RuntimeError: If the model is another: torch lists the keys.
        """
        state = saving.load(path)
        if "updater" not in state:
            raise saving.SnapshotError(f"{path} is not the snapshot of a run; name one that snapshot() wrote.")
        try:
            state = environment.upgraded(state)
        except ValueError as error:
            raise saving.SnapshotError(f"{path}: {error}") from error
        if state["error"] is not None:
            text = f"{path} was taken when iteration {state['iteration']} or the next had failed with {state['error']}"
            if only_whole:
                raise saving.SnapshotError(f"{text}; name it to go on from there all the same.")
            warnings.warn(f"{text}: part of that iteration may be done twice or not at all.", stacklevel=2)
        self.resumed_from = Path(path)
        try:
            with forced(force):
                self.load_state_dict(state)
        except (ValueError, RuntimeError) as error:
            kind = ValueError if isinstance(error, ValueError) else RuntimeError
            raise kind(f"{path} does not fit this run: {error}") from error
        if self.is_resumed_in_place and not only_whole:  # else what is newer is damaged, or half of an iteration
            self.run_id = saving.branched(self.run_id, state["iteration"], Path(path).parent)


class _Iteration:
    """The block of :meth:`Trainer.iteration`, under a scope of the trainer's reporter.

    A generator would cost four microseconds more each time, and each function that is called half of one: amid
    operations on tensors nothing of Python's is left in the processor's cache.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

    def __enter__(self) -> None:
        trainer, reporter = self.trainer, self.trainer.reporter
        self.before = trainer.updater.iteration
        self.outer = reporter.observation
        trainer.observation = reporter.observation = self.observation = Observation()
        self.reporters = reporters_of_thread()
        self.reporters.append(reporter)

    def __exit__(self, kind: object, error: BaseException | None, tb: object) -> None:
        trainer = self.trainer
        try:
            stop = error is None and trainer._follow_update(self.before, self.observation)
        except BaseException as raised:
            error = raised
            raise
        finally:
            self.reporters.pop().observation = self.outer
            if error is not None:
                trainer._fail(error)
            error = None  # it would hold itself, by this frame in its traceback
        if stop:
            trainer._finish()


def _refuse_mistakes(extension: Any) -> None:
    name = getattr(extension, "__name__", type(extension).__name__)
    if isinstance(extension, type):
        raise TypeError(f"{name} is a class; extend with an object of it: extend({name}(...)).")
    if getattr(extension, "__qualname__", "").startswith("make_extension."):
        raise TypeError("the decorator was not called; write @make_extension() with parentheses.")
    if hasattr(extension, "serialize") and getattr(type(extension), "state_dict", None) in (None, Extension.state_dict):
        raise TypeError(f"{name} has Chainer's serialize, which nobody calls: write state_dict and load_state_dict.")


def _inner_trigger(extension: Any) -> Any:
    """Returns the trigger that an extension which is called each iteration keeps for what it does now and then."""
    return getattr(extension, "_trigger", None)


def _trigger_state(trigger: Any) -> dict[str, Any]:
    return {"kind": type(trigger).__name__, **state_of(trigger)}


def _load_trigger(trigger: Any, state: dict[str, Any], name: str) -> None:
    if state["kind"] == type(trigger).__name__:
        load_into(trigger, state, name)
    elif len(state) > 1 and hasattr(trigger, "load_state_dict"):
        warnings.warn(f"{name} was {state['kind']} and is {type(trigger).__name__} now: it starts fresh.", stacklevel=4)


def _attach(first: BaseException, other: BaseException, where: str) -> None:
    """Prints a second error and leaves it as a note on the first."""
    text = "".join(traceback.format_exception(type(other), other, other.__traceback__)).rstrip()
    note = f"Another error in {where}:\n{text}"
    print(note, file=sys.stderr)
    first.__notes__ = [*getattr(first, "__notes__", []), note]  # type: ignore[attr-defined]  # add_note: 3.11
