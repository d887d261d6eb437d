"""How a model is called, and the loss in what it returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from trainer.datasets.convert import outline
from trainer.reporter import THREAD, report


def loss_of(output: Any, source: str) -> Tensor:
    """Returns what a model returned if that is a loss, or the ``loss`` of a dict or an object.

    Args:
        output: What came back.
        source: Who returned it, for messages.

    Raises:
        TypeError: If there is no tensor.
        ValueError: If it has several elements, or none.

    Example:
        >>> import torch
        >>> from trainer.updaters.outputs import loss_of
        >>> loss_of({"loss": torch.tensor(0.5), "logits": torch.zeros(4, 3)}, "the model")
        tensor(0.5000)
        >>> loss_of(torch.zeros(4), "the model")
        Traceback (most recent call last):
        ValueError: the model returned a loss of shape (4,), but it must be one number: return its mean, loss.mean().
    """
    loss = _found(output)
    if not isinstance(loss, Tensor):
        got = outline(output)
        if loss is not ...:
            got += f", whose 'loss' is {outline(loss)}" + (" (was it called without labels?)" if loss is None else "")
        raise TypeError(
            f"{source} returned {got}, and a loss is needed: return a tensor of shape (), or a dict or an object that"
            " has it as 'loss'."
        )
    if loss.numel() != 1:
        remedy = "return its mean, loss.mean()"
        if loss is output and loss.dim() > 1:
            remedy = "if these are scores, wrap the model, Classifier(model), or give the updater a loss_func"
        raise ValueError(f"{source} returned a loss of shape {tuple(loss.shape)}, but it must be one number: {remedy}.")
    return loss.reshape(())


def refuse_detached() -> None:
    """Refuses a loss that has no gradient."""
    raise ValueError(
        "the loss has no gradient: return it as it is computed from parameters that require gradients (is the model"
        " frozen?), not detached, not a count, and not under torch.no_grad()."
    )


def no_loss(*batch: Any, **named: Any) -> Tensor:
    """Stands for a loss function where there is none."""
    raise ValueError("compute_loss needs a model 'main' or a loss_func; there is neither.")


def _found(output: Any) -> Any:
    """Returns the loss in an output, or an ellipsis."""
    if isinstance(output, Tensor):
        return output
    return output.get("loss", ...) if isinstance(output, Mapping) else getattr(output, "loss", ...)


def report_loss(output: Any, model: Any) -> None:
    """Reports the ``loss`` of a dict or an object that a model returned, unless the model has reported one itself.

    Example:
        >>> import torch
        >>> from trainer import Reporter
        >>> from trainer.updaters.outputs import report_loss
        >>> model, reporter = torch.nn.Linear(1, 1), Reporter()
        >>> reporter.add_model("main", model)
        >>> with reporter.scope({}) as observation:
        ...     report_loss({"loss": torch.tensor(0.5)}, model)
        >>> observation
        {'main/loss': tensor(0.5000)}
    """
    if THREAD.reporters and not isinstance(output, Tensor):
        loss, reporter = _found(output), THREAD.reporters[-1]
        name = reporter.name_of(model)
        if isinstance(loss, Tensor) and name is not None and f"{name}/loss" not in reporter.observation:
            report({"loss": loss}, model)
