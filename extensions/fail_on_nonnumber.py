"""Ends training that has diverged."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from trainer import Extension, Trainer
from trainer.summary import is_scalar


class FailOnNonNumber(Extension):
    """Raises an error when a parameter or an observed loss is NaN or infinite. Chainer: ``FailOnNonNumber``.

    It looks at the parameters of all of the updater's models, and at what is observed as ``loss`` or ``.../loss``; a
    loss of weight 0 (of a batch whose labels are all ignored) says nothing, nor does one that is no number. Snapshots
    come last in an iteration: what has diverged is not saved. Each call waits for the device once; to save that, give
    it the snapshots' trigger.

    Raises:
        RuntimeError: When called, if there is such a number; the message tells where.

    Example:
        >>> from extensions import FailOnNonNumber
        >>> run.extend(FailOnNonNumber())
        >>> bias = run.updater.get_model("main").predictor.bias
        >>> run.extend(lambda trainer: bias.data.fill_(float("nan")), "spoil")
        >>> try:
        ...     run.run(show_loop_exception_msg=False)
        ... except RuntimeError as error:
        ...     print(str(error).split(";")[0])
        iteration 2: 6 of 6 numbers of main/predictor/weight are NaN or infinite, main/loss is nan
    """

    def __call__(self, trainer: Trainer) -> None:
        """Checks everything on its device, and waits for a single answer."""
        parameters = {
            f"{name}/{path.replace('.', '/')}": parameter.detach()
            for name, model in trainer.updater.get_all_models().items()
            for path, parameter in model.named_parameters()
            if parameter.numel() and parameter.is_floating_point()
        }
        losses = {
            key: value
            for key, value in trainer.observation.items()
            if (key == "loss" or key.endswith("/loss")) and _is_number(value)
        }
        # The largest magnitude: of many tensors in a few kernels, and it overflows only where a number has.
        good = [get_total_norm(parameters.values(), float("inf")).isfinite(), *map(_is_good, losses.values())]
        device = max((answer.device for answer in good), key=lambda device: device.type != "cpu")
        if torch.stack([answer.to(device, non_blocking=True) for answer in good]).all():
            return
        found = []
        for name, parameter in parameters.items():
            if bad := int(parameter.numel() - parameter.isfinite().sum()):
                found.append(f"{bad} of {parameter.numel()} numbers of {name} are NaN or infinite")
                break
        found += [
            f"{key} is {float(value[0] if type(value) is tuple else value)}"
            for key, value in losses.items()
            if not _is_good(value)
        ]
        raise RuntimeError(
            f"iteration {trainer.updater.iteration}: {', '.join(found)}; training has diverged. Resume from an"
            " earlier snapshot with clipped gradients or precision='fp32', or with a lower learning rate, which is set"
            " in optimizer.param_groups after trainer.resume(path)."
        )


def _is_number(value: Any) -> bool:
    return all(map(is_scalar, value)) if isinstance(value, tuple) else is_scalar(value)


def _is_good(value: Any) -> Tensor:
    """Tells, on the device, whether an observed number is finite or weighs nothing."""
    value, weight = value if isinstance(value, tuple) else (value, 1)
    return torch.as_tensor(value).isfinite().all() | (torch.as_tensor(weight) == 0)
