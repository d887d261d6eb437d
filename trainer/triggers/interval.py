"""Every so many iterations or epochs, counted in integers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from trainer.checks import at_least, near
from trainer.mistakes import refuse_call
from trainer.saving.state import Stateful, declared, refuse_kind

if TYPE_CHECKING:
    from trainer.trainer import Trainer

PARTS = 2**40  # of an epoch


def epoch_progress(source: Any) -> tuple[int, int]:
    """Returns how far an updater or iterator is, in integers: (samples, samples an epoch).

    One that cannot tell has its ``epoch_detail`` read and counted in tiny parts of an epoch; a billionth is added, so
    that a mark is passed which the number only just misses by rounding.

    Example:
        >>> from types import SimpleNamespace
        >>> from trainer.triggers import epoch_progress
        >>> epoch_progress(SimpleNamespace(epoch_progress=lambda: (3, 10)))
        (3, 10)
        >>> n, per = epoch_progress(SimpleNamespace(epoch_detail=1 - 1e-16))
        >>> n // per
        1
    """
    if hasattr(source, "epoch_progress"):
        return source.epoch_progress()  # type: ignore[no-any-return]
    return int(source.epoch_detail * PARTS) + PARTS // 10**9, PARTS


def exact(value: Any, wanted: str = "expected a number") -> Fraction:
    """Returns a number as the fraction that is meant: 0.1 is a tenth; ``wanted`` begins the message if it is none.

    Raises:
        ValueError: If it is no finite number.

    Example:
        >>> from trainer.triggers.interval import exact
        >>> exact(0.1)
        Fraction(1, 10)
    """
    try:
        if isinstance(value, str):
            raise TypeError
        return Fraction(value).limit_denominator(10**6)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{wanted}, got {value!r}.") from None


class ProgressTrigger(Stateful):
    """Fires when a mark was passed since it was last asked. A subclass says how many marks lie behind.

    So it fires at the next question even if it was not asked in the iteration that passed the mark.

    Args:
        unit: ``"iteration"`` or ``"epoch"``.

    Raises:
        ValueError: If the unit is another.

    Example:
        >>> from trainer.triggers import IntervalTrigger, ManualScheduleTrigger, ProgressTrigger
        >>> issubclass(IntervalTrigger, ProgressTrigger), issubclass(ManualScheduleTrigger, ProgressTrigger)
        (True, True)
    """

    def __init__(self, unit: str) -> None:
        if unit not in ("iteration", "epoch"):
            meant = near(unit, ("iteration", "epoch"))
            raise ValueError(f"unit must be 'iteration' or 'epoch', got {unit!r}; e.g. (10, 'epoch').{meant}")
        self.unit = unit
        self._progress: tuple[int, int] | None = None  # when it was last asked
        self._next: float | None = None  # the mark after that, times _q
        self._first: float  # the first mark, times _q
        self._q: int  # of which all marks are multiples, as a fraction 1 / _q

    def _mark(self, n: int, per: int) -> float:
        """Returns the first mark beyond n / per, times ``_q``; infinity if there is none."""
        raise NotImplementedError

    def __call__(self, trainer: Trainer) -> bool:
        """Tells whether a mark was passed since the last call; at the first call, since this process began."""
        updater = trainer.updater
        n, per = (updater.iteration, 1) if self.unit == "iteration" else epoch_progress(updater)
        if self._next is None:
            start = getattr(trainer, "start", None) or {self.unit: (0, 1)}
            self._next = self._mark(*(self._progress or start[self.unit]))
        self._progress = n, per
        if n * self._q < self._next * per:
            return False
        self._next = self._mark(n, per)
        return True

    def begin(self, trainer: Trainer) -> None:
        """Has it count from now on, if it was never asked."""
        now = (trainer.updater.iteration, 1) if self.unit == "iteration" else epoch_progress(trainer.updater)
        self._progress = self._progress or now

    def reached(self, trainer: Trainer) -> bool:
        """Tells whether the first mark lies behind: what it means as a stop trigger."""
        updater = trainer.updater
        n, per = (updater.iteration, 1) if self.unit == "iteration" else epoch_progress(updater)
        return n * self._q >= self._first * per

    def state_dict(self) -> dict[str, Any]:
        """Returns the progress at the last call."""
        return {"progress": list(self._progress or (0, 1))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what :meth:`state_dict` returned, perhaps of a trigger with other marks."""
        refuse_kind((0, 0), state["progress"], "progress")
        n, per = (at_least("progress", part, low) for part, low in zip(state["progress"], (0, 1), strict=True))
        self._progress, self._next = (n, per), None


class IntervalTrigger(ProgressTrigger):
    """Fires when a multiple of the period was crossed since it was last asked. Chainer: ``IntervalTrigger``.

    The period is taken as a fraction and progress comes in integers, so 0.1 epoch is exactly a tenth, for ever.

    Args:
        period: A positive number, which may be fractional.
        unit: ``"iteration"`` or ``"epoch"``.

    Raises:
        ValueError: If the unit is another, or the period not a positive number.

    Example:
        >>> from types import SimpleNamespace
        >>> from trainer.triggers import IntervalTrigger
        >>> trigger = IntervalTrigger(2, "iteration")
        >>> [trigger(SimpleNamespace(updater=SimpleNamespace(iteration=i))) for i in (1, 2, 3, 4)]
        [False, True, False, True]
    """

    def __init__(self, period: float, unit: str) -> None:
        super().__init__(unit)
        wanted = f"period must be a positive number of {unit}s"
        self._first, self._q = exact(period, wanted).as_integer_ratio()
        if self._first <= 0:
            raise ValueError(f"{wanted}, got {period!r}; e.g. (10, 'epoch').")
        self.period = period

    def _mark(self, n: int, per: int) -> float:
        return (n * self._q // (per * self._first) + 1) * self._first

    def get_training_length(self) -> tuple[float, str]:
        """Returns period and unit: how long training takes with this as stop trigger."""
        return self.period, self.unit

    def __repr__(self) -> str:
        return f"IntervalTrigger({self.period!r}, {self.unit!r})"


def triggers_in(part: Any) -> Iterator[Any]:
    """Yields the triggers of this module and others with a ``begin`` that a part is, or saves.

    Example:
        >>> from trainer.triggers import MaxValueTrigger
        >>> from trainer.triggers.interval import triggers_in
        >>> list(triggers_in(MaxValueTrigger("main/accuracy", (1, "epoch"))))
        [IntervalTrigger(1, 'epoch')]
    """
    if isinstance(part, Stateful) and hasattr(part, "begin"):
        yield part
    for name in declared(part).values():
        yield from triggers_in(getattr(part, name))


def get_trigger(trigger: Any) -> Callable[..., bool]:
    """Returns a trigger: a callable as it is, ``(period, unit)`` as :class:`IntervalTrigger`, None as never.

    Raises:
        TypeError: If it is none of these.

    Example:
        >>> from trainer.triggers import get_trigger
        >>> get_trigger((0.1, "epoch"))
        IntervalTrigger(0.1, 'epoch')
    """
    if trigger is None:
        return lambda trainer: False
    if isinstance(trigger, type):
        raise TypeError(
            f"a trigger must be an object, got the class {trigger.__name__}: write {trigger.__name__}(...)."
        )
    if callable(trigger):
        refuse_call(trigger, f"the trigger {getattr(trigger, '__name__', type(trigger).__name__)}", "trainer")
        return trigger  # type: ignore[no-any-return]
    if isinstance(trigger, (tuple, list)) and len(trigger) == 2:
        return IntervalTrigger(*trigger)
    example = trigger if isinstance(trigger, (int, float)) else 1
    raise TypeError(
        f"a trigger must be (period, unit), a function of the trainer, or None, got {trigger!r}; e.g. ({example},"
        " 'epoch')."
    )
