"""What a plug-in may define."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from trainer.trainer import Trainer

__all__ = ["PRIORITY_EDITOR", "PRIORITY_READER", "PRIORITY_WRITER", "Extension", "make_extension"]

PRIORITY_WRITER = 300  # writes to the observation
PRIORITY_EDITOR = 200  # changes what is there
PRIORITY_READER = 100  # only reads it


class Extension:
    """A plug-in of the training loop. Chainer: ``training.Extension``.

    Write ``__call__``; the rest only where it is needed. A plain function does too: see :func:`make_extension`.

    Attributes:
        trigger: When it is called, if ``extend`` is told nothing else: ``(period, unit)``, a callable, or None for
            never.
        priority: Those of higher priority are called first.
        name: The name under which it is registered, once it is.
        runs_last: Called when every other extension of the iteration has been: snapshots, which save those. Of
            several, those with True come before those with 2.

    Example:
        >>> from trainer import Extension
        >>> class Counter(Extension):
        ...     trigger = (1, "epoch")
        ...     def __init__(self):
        ...         self.count = 0
        ...     def __call__(self, trainer):
        ...         self.count += 1
        ...     def state_dict(self):
        ...         return {"count": self.count}
        ...     def load_state_dict(self, state):
        ...         self.count = state["count"]
        >>> Counter().default_name
        'Counter'
    """

    trigger: Any = (1, "iteration")
    priority: int = PRIORITY_READER
    name: str | None = None
    runs_last: int = False

    @property
    def default_name(self) -> str:
        """The name under which it is registered if ``extend`` is told no other: that of the class."""
        return type(self).__name__

    def __call__(self, trainer: Trainer) -> Any:
        """Does its work, after an iteration in which its trigger fired."""
        raise NotImplementedError(f"{type(self).__name__} must define __call__(self, trainer).")

    def restore(self, trainer: Trainer) -> None:
        """Called first of all, before any ``initialize``: the place to load an earlier state of the run."""

    def initialize(self, trainer: Trainer) -> None:
        """Called once before training, when all state is loaded; ``trainer.is_before_training`` tells a resumed run."""

    def on_error(self, trainer: Trainer, exc: BaseException, tb: TracebackType | None) -> None:
        """Called when training failed, before anything is finalized."""

    def finalize(self) -> None:
        """Called once at the end, however it came, in the reverse order of ``initialize``."""

    def state_dict(self) -> dict[str, Any]:
        """Returns what training changes: numbers, strings, tensors, and lists and dicts of these."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what :meth:`state_dict` returned."""


F = TypeVar("F", bound=Callable[..., Any])


def make_extension(
    trigger: Any = None,
    default_name: str | None = None,
    priority: int | None = None,
    finalizer: Callable[[], None] | None = None,
    initializer: Callable[[Trainer], None] | None = None,
    on_error: Callable[[Trainer, BaseException, TracebackType | None], None] | None = None,
    **kwargs: Any,
) -> Callable[[F], F]:
    """Decorates a function of the trainer with what ``extend`` looks for. Chainer: ``training.make_extension``.

    Args:
        trigger: When it is called, as :attr:`Extension.trigger`; every iteration by default.
        default_name: Its name; that of the function by default.
        priority: Those of higher priority are called first; ``PRIORITY_READER`` by default.
        finalizer: Called without arguments at the end.
        initializer: Called with the trainer before training.
        on_error: Called with trainer, exception and traceback when training failed.
        **kwargs: None is known.

    Raises:
        TypeError: If another argument is given; ``ValueError`` for Chainer's old ``invoke_before_training``.

    Example:
        >>> from trainer import make_extension
        >>> @make_extension(trigger=(1, "epoch"))
        ... def say_epoch(trainer):
        ...     print("epoch", trainer.updater.epoch)
        >>> say_epoch.trigger, say_epoch.default_name
        ((1, 'epoch'), 'say_epoch')
    """
    refuse_old(kwargs)

    def decorate(function: F) -> F:
        attributes = {
            "trigger": (1, "iteration") if trigger is None else trigger,
            "default_name": default_name or function.__name__,
            "priority": PRIORITY_READER if priority is None else priority,
            "finalize": finalizer,
            "initialize": initializer,
            "on_error": on_error,
        }
        for name, value in attributes.items():
            setattr(function, name, value)
        return function

    return decorate


def refuse_old(kwargs: dict[str, Any]) -> None:
    """Refuses unknown keyword arguments; of ``invoke_before_training`` (Chainer 1) it says what to write instead.

    Example:
        >>> from trainer.extension import refuse_old
        >>> refuse_old({"invoke_before_training": True})
        Traceback (most recent call last):
        ValueError: invoke_before_training is gone; define initialize(trainer), or extend(call_before_training=True).
    """
    if "invoke_before_training" in kwargs:
        raise ValueError(
            "invoke_before_training is gone; define initialize(trainer), or extend(call_before_training=True)."
        )
    if kwargs:
        raise TypeError(f"unexpected keyword argument {next(iter(kwargs))!r}.")
