"""Lets a scheduler of torch or timm set the learning rate."""

from __future__ import annotations

import copy
import inspect
from contextlib import suppress
from typing import Any

from trainer import Extension, Trainer
from trainer.checks import near
from trainer.extension import has_no_step
from trainer.saving import check
from trainer.summary import Metric, is_scalar, kind_of


class LRScheduler(Extension):
    """Steps a ``torch.optim.lr_scheduler`` or a ``timm.scheduler`` each time that its trigger fires.

    The trigger decides whether a step is an epoch, as by default, or an iteration. On each iteration it steps as often
    as its optimizer: not where the scaler of fp16 left out the optimizer's step. A timm scheduler is told epoch and
    iteration, and counts what it was built for. The scheduler's state is saved, with the counters that its own
    ``state_dict`` leaves out: a resumed run has the very rate it had.

    Args:
        scheduler: Built over the optimizer that the updater has.
        monitor: The observed value that ``ReduceLROnPlateau`` (or timm's ``PlateauLRScheduler``) is to follow: that
            of the iteration in which the trigger fires, such as an :class:`~extensions.Evaluator`'s mean.

    Raises:
        TypeError: If it is no scheduler, one that follows a value is given no ``monitor``, or one that does not is.
        ValueError: At the start, if the updater does not have its optimizer. When called, if the monitored value is
            not observed.

    Example:
        >>> import torch
        >>> from extensions import LRScheduler
        >>> scheduler = torch.optim.lr_scheduler.StepLR(run.updater.get_optimizer("main"), 1, gamma=0.5)
        >>> run.extend(LRScheduler(scheduler), trigger=(1, "epoch"))
        >>> run.run()
        >>> run.updater.get_optimizer("main").param_groups[0]["lr"]
        0.025
    """

    trigger = (1, "epoch")
    saved = ("scheduler", "_left_out")

    def __init__(self, scheduler: Any, monitor: str | None = None) -> None:
        if not (hasattr(scheduler, "step") and hasattr(scheduler, "state_dict")) or hasattr(scheduler, "param_groups"):
            raise TypeError(
                f"scheduler must be one of torch.optim.lr_scheduler or timm.scheduler, got {type(scheduler).__name__}."
            )
        name = type(scheduler).__name__
        if "Plateau" in name and monitor is None:
            raise TypeError(f"{name} needs monitor; e.g. monitor='validation/main/loss'.")
        takes_a_value = {"metrics", "metric"} & set(inspect.signature(scheduler.step).parameters)
        if monitor is not None and not takes_a_value:
            raise TypeError(f"{name} follows no observed value: leave monitor={monitor!r} out.")
        self.scheduler = scheduler
        self.monitor = monitor
        self._left_out = 0  # iterations without a step

    def initialize(self, trainer: Trainer) -> None:
        """Sees to it that the scheduler changes an optimizer of the updater."""
        optimizers = trainer.updater.get_all_optimizers()
        groups = self.scheduler.optimizer.param_groups  # those of what it may be wrapped in, too
        if not any(optimizer.param_groups is groups for optimizer in optimizers.values()):
            raise ValueError(
                f"the optimizer of {type(self.scheduler).__name__} is none of the updater's {sorted(optimizers)}; make"
                " the scheduler over the optimizer that trains."
            )

    def __call__(self, trainer: Trainer) -> None:
        """Makes one step."""
        if has_no_step(trainer, self, [self.scheduler.optimizer]):
            self._left_out += 1
            return
        values = [] if self.monitor is None else [self._value(trainer)]
        if hasattr(self.scheduler, "step_update"):  # timm's; it passes over the clock that is not its own
            self.scheduler.step_update(trainer.updater.iteration - self._left_out, *values)
            self.scheduler.step(trainer.updater.epoch, *values)
        else:
            self.scheduler.step(*values)

    def _value(self, trainer: Trainer) -> float:
        if self.monitor not in trainer.observation:
            hint = near(self.monitor, trainer.observation)
            raise ValueError(
                f"monitor {self.monitor!r} is not observed in this iteration, only {sorted(trainer.observation)};"
                f" correct it, or give LRScheduler the trigger of what reports it.{hint}"
            )
        value = trainer.observation[str(self.monitor)]
        if not (isinstance(value, Metric) or is_scalar(value)):
            raise ValueError(f"monitor {self.monitor!r} is {kind_of(value)}, not one real number: report its mean.")
        return float(value)

    def state_dict(self) -> dict[str, Any]:
        """Returns the scheduler's state, and what that leaves out of its attributes."""
        state = super().state_dict()
        forgotten = _forgotten(self.scheduler, state["scheduler"])
        return state | ({"forgotten": forgotten} if forgotten else {})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what ``state_dict`` returned, or an older snapshot's."""
        super().load_state_dict({"left_out": 0} | {key: value for key, value in state.items() if key != "forgotten"})
        _remember(self.scheduler, state.get("forgotten", {}))


def _is_scheduler(value: Any) -> bool:
    return hasattr(value, "step") and hasattr(value, "state_dict") and not hasattr(value, "param_groups")


def _forgotten(scheduler: Any, state: dict[str, Any]) -> dict[str, Any]:
    """Returns the attributes of a scheduler that its own state lacks, those of schedulers in it included.

    The PlateauLRScheduler of timm, say, does not save how many bad epochs it has counted.
    """
    found: dict[str, Any] = {}
    for name, value in vars(scheduler).items():
        if name in state:
            continue
        if _is_scheduler(value):
            inner = value.state_dict()
            found[name] = {"state": inner, "forgotten": _forgotten(value, inner)}
            continue
        with suppress(TypeError):  # a function, an optimizer: no state
            check(value)
            found[name] = copy.deepcopy(value)
    return found


def _remember(scheduler: Any, forgotten: dict[str, Any]) -> None:
    for name, value in forgotten.items():
        if _is_scheduler(getattr(scheduler, name, None)):
            getattr(scheduler, name).load_state_dict(value["state"])
            _remember(getattr(scheduler, name), value["forgotten"])
        else:
            setattr(scheduler, name, value)
