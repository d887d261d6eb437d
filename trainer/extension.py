"""What a plug-in may define."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from torch import nn

from trainer.mistakes import refuse_call
from trainer.saving.state import KINDS, Stateful, declared, load_declared, refuse_serialize
from trainer.triggers import IntervalTrigger, get_trigger

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from trainer.trainer import Trainer

__all__ = ["PRIORITY_EDITOR", "PRIORITY_READER", "PRIORITY_WRITER", "Extension", "make_extension"]

PRIORITY_WRITER = 300  # writes to the observation
PRIORITY_EDITOR = 200  # changes what is there
PRIORITY_READER = 100  # only reads it

HOOKS = (  # with the arguments that they are called with
    ("__call__", "trainer"),
    ("restore", "trainer"),
    ("initialize", "trainer"),
    ("end_iteration", "trainer"),
    ("on_error", "trainer", "exc", "tb"),
    ("finalize",),
)
PHASES = PHASE_PLUGIN, PHASE_REPORT, PHASE_OBJECT, PHASE_RUN, PHASE_EXIT = tuple(range(5))  # of an iteration


class Extension(Stateful):
    """A plug-in of the training loop. Chainer: ``training.Extension``.

    Write ``__call__``; the rest only where it is needed. A plain function works too: see :func:`make_extension`.

    Attributes:
        trigger: When it is called, unless ``extend`` is given another: ``(period, unit)``, a callable, or None for
            never.
        priority: Within a phase, those of higher priority are called first.
        name: The name under which it is registered, once it is.
        phase: 0 for plug-ins; 1 for what shows the values that they have reported. What saves the run comes after the
            stop trigger, whatever its priority, or it would save the state of later plug-ins before they have run: 2
            for files of one object, 3 for snapshots of the run, 4 for what ends it after them.
        saved: Names of the attributes that a resumed run gets back; see :class:`~trainer.saving.Stateful`.

    Example:
        >>> from trainer import Extension
        >>> class Counter(Extension):
        ...     trigger = (1, "epoch")
        ...     saved = ("count",)
        ...     def __init__(self):
        ...         self.count = 0
        ...     def __call__(self, trainer):
        ...         self.count += 1
        >>> Counter().default_name, Counter().state_dict()
        ('Counter', {'count': 0})
    """

    trigger: Any = (1, "iteration")
    priority: int = PRIORITY_READER
    name: str | None = None
    phase: int = PHASE_PLUGIN

    @property
    def default_name(self) -> str:
        """The name under which it is registered unless ``extend`` is given another: that of the class."""
        return type(self).__name__

    def __call__(self, trainer: Trainer) -> Any:
        """Does its work, after an iteration in which its trigger fired."""
        raise NotImplementedError(f"{type(self).__name__} must define __call__(self, trainer).")

    def restore(self, trainer: Trainer) -> None:
        """Called first of all, before any ``initialize``: the place to load an earlier state of the run."""

    def initialize(self, trainer: Trainer) -> None:
        """Called once before training, when all state is loaded; ``trainer.is_before_training`` tells a resumed run."""

    def end_iteration(self, trainer: Trainer) -> None:
        """Called in each iteration when all plug-ins have run, before phase 1: every value has been reported."""

    def on_error(self, trainer: Trainer, exc: BaseException, tb: TracebackType | None) -> None:
        """Called when training failed, before anything is finalized."""

    def finalize(self) -> None:
        """Called once at the end, after success or failure, in the reverse order of ``initialize``."""


F = TypeVar("F", bound=Callable[..., Any])


def make_extension(
    trigger: Any = None,
    default_name: str | None = None,
    priority: int | None = None,
    finalizer: Callable[[], None] | None = None,
    initializer: Callable[[Trainer], None] | None = None,
    on_error: Callable[[Trainer, BaseException, TracebackType | None], None] | None = None,
    invoke_before_training: Any = None,
) -> Callable[[F], F]:
    """Decorates a function of the trainer with what ``extend`` looks for. Chainer: ``training.make_extension``.

    Args:
        trigger: When it is called, as :attr:`Extension.trigger`; every iteration by default.
        default_name: Its name; that of the function by default.
        priority: Those of higher priority are called first; ``PRIORITY_READER`` by default.
        finalizer: Called without arguments at the end.
        initializer: Called with the trainer before training.
        on_error: Called with trainer, exception and traceback when training failed.
        invoke_before_training: Chainer's old one, refused with what to write instead.

    Raises:
        ValueError: If ``invoke_before_training`` is given.

    Example:
        >>> from trainer import make_extension
        >>> @make_extension(trigger=(1, "epoch"))
        ... def say_epoch(trainer):
        ...     print("epoch", trainer.updater.epoch)
        >>> say_epoch.trigger, say_epoch.default_name
        ((1, 'epoch'), 'say_epoch')
    """
    refuse_old(invoke_before_training)

    def decorate(function: F) -> F:
        extension: Any = function
        extension.trigger = (1, "iteration") if trigger is None else trigger
        extension.default_name = default_name or function.__name__
        extension.priority = PRIORITY_READER if priority is None else priority
        extension.finalize, extension.initialize, extension.on_error = finalizer, initializer, on_error
        return function

    return decorate


def refuse_old(invoke_before_training: Any) -> None:
    """Refuses ``invoke_before_training`` (Chainer 1), whatever its value, and says what to write instead.

    Example:
        >>> from trainer.extension import refuse_old
        >>> refuse_old(True)
        Traceback (most recent call last):
        ValueError: invoke_before_training is gone; define initialize(trainer), or extend(call_before_training=True).
    """
    if invoke_before_training is not None:
        raise ValueError(
            "invoke_before_training is gone; define initialize(trainer), or extend(call_before_training=True)."
        )


def always(trainer: Trainer) -> bool:
    """Fires in every iteration; the loop knows it and does not ask."""
    return True


class Entry(Stateful):
    """An extension as it was registered, saved with its trigger; what is not given is the extension's own.

    Raises:
        TypeError: If it has no name.
    """

    saved = ("extension", "trigger")

    def __init__(
        self, extension: Any, name: str | None, trigger: Any, priority: int | None = None, first: bool = False
    ) -> None:
        if name is not None and not isinstance(name, str):
            meant = f": write trigger={name!r}" if isinstance(name, (tuple, list)) or callable(name) else ""
            raise TypeError(f"the name of an extension must be a str, got {name!r}{meant}.")
        names = (name, *(getattr(extension, attribute, None) for attribute in ("name", "default_name", "__name__")))
        self.name: str = next(filter(None, names), "")
        if not self.name:
            raise TypeError(f"{extension!r} has no name; give one: extend(extension, name='...').")
        trigger = getattr(extension, "trigger", (1, "iteration")) if trigger is None else trigger
        is_each = isinstance(trigger, (tuple, list)) and tuple(trigger) == (1, "iteration")
        self.extension = extension
        self.trigger = always if is_each else get_trigger(trigger)
        self.priority: int = getattr(extension, "priority", PRIORITY_READER) if priority is None else priority
        self.call_before_training = first

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back both states: the extension's too if its class has another name by now."""
        kinds = state.get(KINDS, {}) | {"extension": type(self.extension).__name__}
        load_declared(self, state | {KINDS: kinds}, f"extensions/{self.name}")

    @property
    def order(self) -> tuple[int, int]:
        """Its place in an iteration: by phase, then by priority."""
        phase = getattr(self.extension, "phase", PHASE_PLUGIN)
        return phase if phase in PHASES else PHASE_PLUGIN, -self.priority

    def hook(self, name: str) -> Callable[..., Any]:
        """Returns a method of the extension; what it has not does nothing."""
        return getattr(self.extension, name, None) or (lambda *args: None)

    def ends(self) -> list[Callable[[Trainer], None]]:
        """Returns its ``end_iteration`` in a list, or an empty one if it does not define it."""
        is_defined = getattr(type(self.extension), "end_iteration", None) is not Extension.end_iteration
        end = getattr(self.extension, "end_iteration", None)
        return [end] if is_defined and callable(end) else []

    def triggers(self) -> list[Any]:
        """Returns its trigger, and the one that it keeps for what it does now and then, as far as they have a state."""
        both = (self.trigger, getattr(self.extension, "_trigger", None))
        return [trigger for trigger in both if hasattr(trigger, "state_dict") or declared(trigger)]


def has_no_step(trainer: Trainer, extension: Any, optimizers: Iterable[Optimizer]) -> bool:
    """Tells whether an extension that counts an optimizer's steps is to leave out this call.

    It is, if it is called in each iteration, and this one left out the step of every one of the optimizers: the scaler
    of fp16 did, or no label counted. One that is called once an epoch counts epochs.

    Example:
        >>> from extensions import ExponentialShift
        >>> from trainer.extension import has_no_step
        >>> shift = ExponentialShift("lr", 0.5)
        >>> run.extend(shift)
        >>> has_no_step(run, shift, [run.updater.get_optimizer("main")])
        False
    """
    has_skipped = getattr(trainer.updater, "has_skipped", None)
    if has_skipped is None or not all(map(has_skipped, optimizers)):
        return False
    entry = trainer.extensions.get(extension.name)
    if entry is None or entry.trigger is always:
        return True
    return isinstance(entry.trigger, IntervalTrigger) and entry.trigger.get_training_length() == (1, "iteration")


def refuse_mistakes(extension: Any) -> None:
    """Refuses what would be called in vain, or would not be saved.

    Raises:
        TypeError: If it is no extension, or keeps its state in Chainer's ``serialize``.
        AttributeError: If its ``saved`` names an attribute that it does not have.

    Example:
        >>> from trainer import Extension
        >>> from trainer.extension import refuse_mistakes
        >>> refuse_mistakes(Extension)
        Traceback (most recent call last):
        TypeError: Extension is a class; extend with an object of it: extend(Extension(...)).
    """
    if isinstance(extension, Extension) and extension.phase not in PHASES:
        name = type(extension).__name__
        raise ValueError(f"{name}.phase must be one of {PHASES}, got {extension.phase!r}: rename yours.")
    name = getattr(extension, "__name__", type(extension).__name__)
    if isinstance(extension, type):
        raise TypeError(f"{name} is a class; extend with an object of it: extend({name}(...)).")
    if getattr(extension, "__qualname__", "").startswith("make_extension."):
        raise TypeError("the decorator was not called; write @make_extension() with parentheses.")
    if type(extension).__module__.startswith("trainer.triggers"):
        told = f"give it to Trainer(updater, {name}(...)), or extend(extension, trigger={name}(...))"
        raise TypeError(f"{name} is a trigger: {told}.")
    module = str(getattr(extension, "__module__", ""))
    is_ours = module.startswith("extensions.") and getattr(sys.modules.get(module), name, None) is extension
    if is_ours and not hasattr(extension, "trigger"):
        raise TypeError(f"{name} makes an extension; call it: extend({name}(...)).")
    if not isinstance(extension, Extension) and (not callable(extension) or isinstance(extension, nn.Module)):
        is_scheduler = hasattr(extension, "step") and hasattr(extension, "optimizer")
        example = "LRScheduler(scheduler)" if is_scheduler else "LogReport()"
        raise TypeError(f"extend takes a function of the trainer or an Extension, got {name}; e.g. extend({example}).")
    for hook, *arguments in HOOKS:
        method = extension if hook == "__call__" else getattr(extension, hook, None)
        if callable(method):
            refuse_call(method, name if hook == "__call__" else f"{name}.{hook}", *arguments)
    declared(extension)
    refuse_serialize(extension, "")
