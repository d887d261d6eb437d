"""Keeps an average of a model's weights over the last iterations."""

from __future__ import annotations

import copy
from itertools import chain

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from trainer import PRIORITY_WRITER, Extension, Trainer
from trainer.mistakes import near_arguments


class ExponentialMovingAverage(Extension):
    """Keeps an exponential moving average of a model's parameters and buffers, to evaluate and to save.

    It begins with the weights at the start of the run. After update t, counted from 0, ``average = d * average + (1 -
    d) * model`` with ``d = min(decay, (1 + t) / (10 + t))``, as TensorFlow's ``num_updates``, so that in a short run it
    is not mostly what was there at the start. The running statistics of batch norms are averaged alike, as they belong
    to the weights; integers are copied. Training is not changed. Average and count are in the snapshots of the run.

    Args:
        model: One of the updater's models, or a part of one.
        decay: The weight of the average; it spans about ``1 / (1 - decay)`` iterations.

    Attributes:
        average: The averaged model: a copy whose parameters require no gradients. Give it, in place of the model, to
            :class:`~extensions.Evaluator` and :func:`~extensions.snapshot_object`.

    Raises:
        TypeError: If the model is no module.
        ValueError: If the decay is not between 0 and 1, or a parameter has no shape yet. At the start, if the model is
            in none of the updater's.

    Example:
        >>> import torch
        >>> from extensions import ExponentialMovingAverage, snapshot_object
        >>> model = run.updater.get_model("main")
        >>> ema = ExponentialMovingAverage(model, decay=0.99)
        >>> run.extend(ema)
        >>> run.extend(snapshot_object(ema.average.predictor, "averaged_epoch-{.updater.epoch}"))
        >>> run.run()
        >>> torch.equal(ema.average.predictor.weight, model.predictor.weight)
        False
    """

    trigger = (1, "iteration")
    priority = PRIORITY_WRITER + 100  # before an Evaluator in the same iteration
    saved = ("average", "_count")
    settings = ("decay",)

    @near_arguments
    def __init__(self, model: nn.Module, decay: float = 0.999) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a module, got {type(model).__name__}.")
        if not 0 < decay < 1:
            raise ValueError(f"decay must be between 0 and 1, got {decay}; e.g. 0.999.")
        if any(is_lazy(tensor) for tensor in _tensors(model)):
            raise ValueError("a lazy module has parameters without a shape yet: call the model on one batch before.")
        self.decay = decay
        self.average = copy.deepcopy(model).requires_grad_(False)
        self._model = model
        self._count = 0

    def initialize(self, trainer: Trainer) -> None:
        """Sees to it that the model is the updater's and the average on its device, a copy of it at the start."""
        models: dict[str, nn.Module] = getattr(trainer.updater, "get_all_models", dict)()
        known = {id(tensor) for model in models.values() for tensor in model.parameters()}
        if known and known.isdisjoint(id(tensor) for tensor in self._model.parameters()):
            raise ValueError(
                f"{self.name}: the model has no parameter of the updater's models {sorted(models)}, so its average"
                " would never change: give one of those."
            )
        for mine, theirs in zip(_tensors(self.average), _tensors(self._model), strict=True):
            mine.data = mine.data.to(theirs.device) if self._count else theirs.detach().clone()

    def __call__(self, trainer: Trainer) -> None:
        """Takes the model's present weights into the average."""
        decay = min(self.decay, (1 + self._count) / (10 + self._count))
        self._count += 1
        pairs = list(zip(_tensors(self.average), _tensors(self._model), strict=True))
        floats = [pair for pair in pairs if pair[0].is_floating_point() or pair[0].is_complex()]
        with torch.no_grad():
            torch._foreach_lerp_([mine for mine, _ in floats], [theirs for _, theirs in floats], 1 - decay)
            for mine, theirs in pairs:
                if not (mine.is_floating_point() or mine.is_complex()):
                    mine.copy_(theirs)


def _tensors(model: nn.Module) -> list[torch.Tensor]:
    return list(chain(model.parameters(), model.buffers()))
