"""When an observed value has not become better for a while."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, ClassVar

from trainer.checks import log, near, warn
from trainer.saving.state import Stateful
from trainer.summary import DictSummary
from trainer.triggers.interval import get_trigger

if TYPE_CHECKING:
    from trainer.trainer import Trainer


class EarlyStoppingTrigger(Stateful):
    """Fires when ``patience`` checks in a row found no better mean than the best. Chainer: ``EarlyStoppingTrigger``.

    It is meant as stop trigger: ``Trainer(updater, EarlyStoppingTrigger(monitor="validation/main/loss"))``.

    Args:
        check_trigger: When the mean since the last check is compared with the best.
        monitor: The observed value. A check in an iteration that did not observe it is passed over with a warning.
        patience: Checks without a better mean until it fires; 3 by default.
        mode: ``"max"``, ``"min"``, or ``"auto"``: max where the key says accuracy, min where it says loss.
        verbose: Whether to log what each check finds: as a warning, for that is shown if logging is not configured.
        max_trigger: When training ends at the latest.
        patients: Chainer's other word for ``patience``.

    Raises:
        ValueError: If the mode is another, or cannot be told from the key; or ``patience`` is not positive.
        TypeError: If both ``patience`` and ``patients`` are given.

    Example:
        >>> from trainer import Trainer
        >>> from trainer.triggers import EarlyStoppingTrigger
        >>> trigger = EarlyStoppingTrigger(monitor="main/accuracy", patience=2, max_trigger=(50, "epoch"))
        >>> other = Trainer(run.updater, trigger, out=tmp)
        >>> other.run()
        >>> other.updater.epoch < 50
        True
    """

    saved = ("best", "count", "_has_max_fired", "_summary", "_check_trigger", "_max_trigger")
    examples: ClassVar[dict[str, Any]] = {"best": 0.0}

    def __init__(
        self,
        check_trigger: Any = (1, "epoch"),
        monitor: str = "main/loss",
        patience: int | None = None,
        mode: str = "auto",
        verbose: bool = False,
        max_trigger: Any = (100, "epoch"),
        *,
        patients: int | None = None,
    ) -> None:
        if patience is not None and patients is not None:
            raise TypeError("patience and patients are one thing: give patience.")
        patience = next((p for p in (patience, patients) if p is not None), 3)
        if patience < 1:
            raise ValueError(f"patience must be 1 or more checks, got {patience}.")
        if mode not in ("auto", "max", "min"):
            raise ValueError(f"mode must be 'auto', 'max' or 'min', got {mode!r}.")
        if mode == "auto":
            accuracy, loss = monitor.rfind("accuracy"), monitor.rfind("loss")
            if accuracy == loss:
                raise ValueError(
                    f"mode must be 'max' or 'min' here: {monitor!r} does not say whether more is better;"
                    " 'auto' knows accuracy and loss only."
                )
            mode = "max" if accuracy > loss else "min"
        self.monitor = monitor
        self.patience = patience
        self.mode = mode
        self.verbose = verbose
        self.best: float | None = None
        self.count = 0  # checks in a row without a better mean
        self._check_trigger = get_trigger(check_trigger)
        self._max_trigger = get_trigger(max_trigger)
        self._has_max_fired = False
        self._summary = DictSummary()

    def __call__(self, trainer: Trainer) -> bool:
        """Adds the value to the mean; tells whether it is time to stop."""
        self._summary.add(trainer.observation, (self.monitor,))
        if self._max_trigger(trainer):
            self._has_max_fired = True
            return True
        if not self._check_trigger(trainer):
            return False
        if self.monitor not in trainer.observation:
            warn(
                f"{self.monitor!r} is not observed in this iteration, only {sorted(trainer.observation)}: early"
                " stopping passes this check over; correct the key, or check when it is reported."
                f"{near(self.monitor, trainer.observation)}"
            )
            return False
        value = self._summary.compute_mean()[self.monitor]
        self._summary.clear()
        best = float("-inf" if self.mode == "max" else "inf") if self.best is None else self.best
        if value > best if self.mode == "max" else value < best:
            self.best = best = value
            self.count = 0
        else:
            self.count += 1
        if self.verbose:
            found = f"{self.monitor} {value:g}, best {best:g}, {self.count} of {self.patience}"
            log(logging.WARNING, f"early stopping: {found}")
        return self.count >= self.patience

    def reached(self, trainer: Trainer) -> bool:
        """Tells whether training is over, without a new check: so a resumed run may be given more patience."""
        reached = getattr(self._max_trigger, "reached", lambda trainer: self._has_max_fired)
        return self.count >= self.patience or reached(trainer)

    def get_training_length(self) -> tuple[float, str] | None:
        """Returns period and unit of ``max_trigger``, how long training takes at most; None if it cannot tell."""
        return getattr(self._max_trigger, "get_training_length", lambda: None)()

    def __repr__(self) -> str:
        return f"EarlyStoppingTrigger(monitor={self.monitor!r}, patience={self.patience})"
