"""The extensions of a run: how they are registered, and in which order an iteration calls them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from trainer.checks import near, warn
from trainer.extension import PHASE_PLUGIN, PHASE_REPORT, Entry, always, refuse_mistakes, refuse_old
from trainer.mistakes import near_arguments
from trainer.saving.queue import SnapshotQueue
from trainer.saving.run import SavedRun
from trainer.triggers import IntervalTrigger, get_trigger
from trainer.triggers.interval import triggers_in

if TYPE_CHECKING:
    from trainer.trainer import Trainer

Call = Callable[["Trainer"], Any]


class Registry(SavedRun):
    """The part of a :class:`~trainer.Trainer` that knows its extensions."""

    def __init__(self) -> None:
        super().__init__()
        self._entries: dict[str, Entry] = {}
        self._calls: list[tuple[Callable[[Any], bool], Call]] = []  # of an iteration, with their triggers
        self._are_calls_stale = False
        self._is_open = False  # whether the run is under way, its state loaded
        self._done = 0  # iterations, as far as the loop knows
        self._wrap: Callable[[str, Call], Call] | None = None
        self._snapshots = SnapshotQueue()

    @near_arguments
    def extend(
        self: Any,
        extension: Callable[[Trainer], Any],
        name: str | None = None,
        trigger: Any = None,
        priority: int | None = None,
        *,
        call_before_training: bool = False,
        invoke_before_training: Any = None,
    ) -> None:
        """Registers an extension: any function of the trainer, or a :class:`~trainer.Extension`.

        In a run that was resumed before, the extension gets its state from the snapshot here. One that is registered
        during training is initialized at once, and called from the next iteration on; its trigger counts from now.

        Args:
            extension: Called as ``extension(trainer)`` in iterations in which the trigger fires.
            name: For ``get_extension`` and the snapshot; by default the extension's own. A second one of a name
                becomes ``name_1``.
            trigger: By default the extension's own, or every iteration.
            priority: By default the extension's own, or ``PRIORITY_READER``. Among equals the first registered
                is called first.
            call_before_training: Call it also once before the first iteration of a fresh run.
            invoke_before_training: Chainer's old one, refused with what to write instead.

        Raises:
            TypeError: If no name is given and the extension has none; or it is a class, a ``make_extension`` without
                parentheses, or keeps its state in Chainer's ``serialize``.
            ValueError: If the name is ``training``, or the trigger object is in use by another extension: a trigger
                remembers when it was last asked, and would fire for the first one only.
            AttributeError: If the extension's ``saved`` names an attribute that it does not have.
        """
        refuse_old(invoke_before_training)
        refuse_mistakes(extension)
        entry = Entry(extension, name, trigger, priority, call_before_training)
        if entry.name == "training":
            raise ValueError("an extension cannot be called 'training'; give another: extend(extension, name='...').")
        base, ordinal = entry.name, 0
        while entry.name in self._entries:
            ordinal += 1
            entry.name = f"{base}_{ordinal}"
        for user, other in self.extensions.items():
            for own in entry.triggers():
                if any(own is used for used in other.triggers()):
                    raise ValueError(
                        f"the trigger {own!r} of {entry.name!r} is already that of {user!r}: it would fire for the"
                        " first one only; make a trigger for each."
                    )
        if not hasattr(extension, "__self__"):  # a bound method takes no attributes
            extension.name = entry.name  # type: ignore[attr-defined]
        self.claim(entry, is_new=self._phase == "new")
        if self._is_open:
            self.check_savable({entry.name: entry})
        self._entries[entry.name] = entry
        self._are_calls_stale = True
        if self._is_open:
            self._begin(entry)

    def _begin(self: Any, entry: Entry) -> None:
        """Takes an extension into the run that is under way."""
        for own in triggers_in(entry):
            own.begin(self)  # it counts from now on
        entry.hook("initialize")(self)
        self._closers.append(entry.hook("finalize"))

    def get_extension(self, name: str) -> Any:
        """Returns the extension registered under a name.

        Raises:
            ValueError: If there is none.
        """
        if name not in self._entries:
            kinds = {n: {kind.__name__ for kind in type(e.extension).__mro__} for n, e in self._entries.items()}
            others = [f" Did you mean {other!r}?" for other, kind in kinds.items() if name in kind]
            hint = " Write extend(LogReport()) too." if name == "LogReport" else near(name, self._entries)
            hint = others[0] if others else hint
            raise ValueError(f"extension {name} not found; there are {sorted(self._entries)}.{hint}")
        return self._entries[name].extension

    def wrap_calls(self: Any, wrap: Callable[[str, Call], Call] | None) -> None:
        """Has each extension called through ``wrap(name, extension)`` from the next iteration on: to time it, say.

        Args:
            wrap: Returns what to call in place of the extension; None takes the wrapping off.
        """
        self._wrap, self._are_calls_stale = wrap, True
        if self._phase != "running":
            self._order_calls()

    def _order_calls(self: Any) -> None:
        """Lays out what an iteration calls, each with its trigger."""
        entries = self._ordered()
        self._calls = [*self._lay_out(entries), (always, type(self)._ask_stop)]
        self._snapshots.entries = [(e, self._wrapped(e)) for e in entries if e.order[0] > PHASE_REPORT]
        if self._snapshots.entries:
            self._calls.append((self._snapshots.is_due, self._snapshots))
        self._are_calls_stale = False

    def _lay_out(self, entries: list[Entry]) -> list[tuple[Callable[[Any], bool], Call]]:
        """Returns the calls before the stop trigger: plug-ins, the end of the iteration, what shows its values."""
        ends = [(always, self._wrapped(entry, call)) for entry in entries for call in entry.ends()]
        plugins, reports = (
            [(entry.trigger, self._wrapped(entry)) for entry in entries if entry.order[0] == phase]
            for phase in (PHASE_PLUGIN, PHASE_REPORT)
        )
        return plugins + ends + reports

    def _wrapped(self, entry: Entry, call: Call | None = None) -> Call:
        call = call or entry.extension
        return call if self._wrap is None else self._wrap(entry.name, call)

    # -- the end

    @property
    def stop_trigger(self) -> Callable[[Any], bool]:
        """When training ends; it may be set anew until it does, also while it goes on.

        A snapshot holds the number of iterations or epochs that it was set to; a script that resumes with the end that
        it had at first gets it back.
        """
        return self._stop_trigger

    @stop_trigger.setter
    def stop_trigger(self: Any, trigger: Any) -> None:
        if self._phase == "over":
            raise RuntimeError("training is over: make a new Trainer with the later end, and resume the last snapshot.")
        self._stop_trigger = get_trigger(trigger)
        self._stop_fired = False  # once fired, a trigger that cannot tell again means the end on a resume too
        self._stop_entry = Entry(type(self)._ask_stop, "training", self._stop_trigger)
        length = isinstance(self._stop_trigger, IntervalTrigger) and [*self._stop_trigger.get_training_length()]
        if self._phase == "new":
            self._end = {"first": length, "moved": None}
        else:
            self._end["moved"] = length
            for part in triggers_in(self._stop_trigger):
                part.begin(self)  # it counts from now on
            if length:
                self._ask_stop()

    def restore_end(self: Any, end: dict[str, Any]) -> None:
        """Moves the end to where it was moved before the snapshot was taken, unless the script has another by now."""
        if end["moved"] is None or end["first"] != self._end["first"]:
            return
        if end["moved"]:
            self.stop_trigger = tuple(end["moved"])
            self._end = end
        else:
            warn("the stop trigger was set anew during training, to one that no snapshot holds: set it again.")

    # -- the order

    def _ordered(self) -> list[Entry]:
        return sorted(self._entries.values(), key=lambda entry: entry.order)

    @property
    def extensions(self: Any) -> dict[str, Entry]:
        """The extensions with their triggers, by name; ``training`` is the stop trigger's."""
        return {"training": self._stop_entry, **self._entries}

    @property
    def has_epoch_trigger(self) -> bool:
        """Whether anything in the run counts epochs."""
        found = [trigger for entry in self.extensions.values() for trigger in triggers_in(entry)]
        return any(getattr(trigger, "unit", "") == "epoch" for trigger in found)
