"""What triggers that count share: progress in integers, and the marks it has passed."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

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
    tell = getattr(source, "epoch_progress", None)
    if tell is None:
        return int(source.epoch_detail * PARTS) + PARTS // 10**9, PARTS
    progress: tuple[int, int] = tell()
    return progress


def exact(value: Any) -> Fraction:
    """Returns a number as the fraction that is meant: 0.1 is a tenth.

    Raises:
        ValueError: If it is no finite number.

    Example:
        >>> from trainer.triggers.progress import exact
        >>> exact(0.1)
        Fraction(1, 10)
    """
    try:
        return Fraction(value).limit_denominator(10**6)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"expected a number, got {value!r}.") from None


class ProgressTrigger:
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
            raise ValueError(f"unit must be 'iteration' or 'epoch', got {unit!r}; e.g. (10, 'epoch').")
        self.unit = unit
        self._progress: tuple[int, int] | None = None  # when it was last asked
        self._count = 0  # marks passed by then

    def _passed(self, n: int, per: int) -> int:
        """Returns how many marks are not beyond n / per."""
        raise NotImplementedError

    def __call__(self, trainer: Trainer) -> bool:
        """Tells whether a mark was passed since the last call; at the first call, since this process began."""
        if self._progress is None:
            start = getattr(trainer, "start", None) or {self.unit: (0, 1)}
            self._count = self._passed(*start[self.unit])
        updater = trainer.updater
        self._progress = n, per = (updater.iteration, 1) if self.unit == "iteration" else epoch_progress(updater)
        previous, self._count = self._count, self._passed(n, per)
        return self._count != previous

    def reached(self, trainer: Trainer) -> bool:
        """Tells whether the first mark lies behind: what it means as a stop trigger."""
        updater = trainer.updater
        n, per = (updater.iteration, 1) if self.unit == "iteration" else epoch_progress(updater)
        return self._passed(n, per) > 0

    def state_dict(self) -> dict[str, Any]:
        """Returns the progress at the last call."""
        return {"progress": list(self._progress or (0, 1))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what :meth:`state_dict` returned, perhaps of a trigger with other marks."""
        n, per = state["progress"]
        self._progress = (n, per)
        self._count = self._passed(n, per)
