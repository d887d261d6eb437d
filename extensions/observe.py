"""Observes a value that no model reports, such as the learning rate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from trainer import PRIORITY_WRITER, Trainer, Weighted, make_extension
from trainer.mistakes import near_arguments
from trainer.reporter import kept


@near_arguments
def observe_value(observation_key: str, target_func: Callable[[Trainer], Any]) -> Callable[[Trainer], None]:
    """Returns an extension that observes ``target_func(trainer)``. Chainer: ``extensions.observe_value``.

    Args:
        observation_key: The name in the observation.
        target_func: Returns a number or 0-d tensor.

    Example:
        >>> from extensions import observe_value
        >>> run.extend(observe_value("momentum", lambda trainer: 0.9), trigger=(1, "iteration"))
        >>> run.run()
        >>> run.observation["momentum"]
        0.9
    """

    @make_extension(trigger=(1, "epoch"), priority=PRIORITY_WRITER)
    def _observe_value(trainer: Trainer) -> None:
        trainer.observation[observation_key] = kept(target_func(trainer))

    return _observe_value


@near_arguments
def observe_lr(
    optimizer_name: str = "main", observation_key: str = "lr", *, bias_corrected: bool = False
) -> Callable[[Trainer], None]:
    """Returns an extension that observes the learning rate of the first parameter group. Chainer: ``observe_lr``.

    Args:
        optimizer_name: Which of the updater's optimizers.
        observation_key: The name in the observation.
        bias_corrected: Observe Adam's step size ``lr * sqrt(1 - beta2**t) / (1 - beta1**t)`` (Kingma and Ba 2015,
            section 2), t counting the steps, as Chainer's ``observe_lr`` does. It is computed on the device where
            the optimizer keeps ``t``, without waiting for it.

            Before the first step it is NaN and weighs nothing in the mean.

    Raises:
        ValueError: When called, if ``bias_corrected`` is asked of an optimizer that has no ``betas`` or keeps no
            ``step`` for its parameters.

    Example:
        >>> from extensions import observe_lr
        >>> run.extend(observe_lr(), trigger=(1, "iteration"))
        >>> run.run()
        >>> run.observation["lr"]
        0.1
    """

    def corrected_lr(trainer: Trainer) -> Any:
        return _bias_corrected(trainer.updater.get_optimizer(optimizer_name))

    def lr(trainer: Trainer) -> Any:
        return trainer.updater.get_optimizer(optimizer_name).param_groups[0]["lr"]

    return observe_value(observation_key, corrected_lr if bias_corrected else lr)


def _bias_corrected(optimizer: torch.optim.Optimizer) -> Any:
    group = optimizer.param_groups[0]
    states = [optimizer.state[parameter] for parameter in group["params"] if parameter in optimizer.state]
    step = next((state["step"] for state in states if "step" in state), None)
    if "betas" not in group or (states and step is None):
        raise ValueError(
            "bias_corrected needs an optimizer with betas that keeps a step for each parameter, such as Adam, got"
            f" {type(optimizer).__name__}; use observe_lr()."
        )
    if step is None:  # no step yet, or fp16's scaler has skipped every one
        return Weighted(float("nan"), 0)
    beta1, beta2 = group["betas"]
    t = torch.as_tensor(step, dtype=torch.float64)
    return group["lr"] * torch.sqrt(1 - beta2**t) / (1 - beta1**t)
