"""From samples to tensors on the device."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import default_collate

__all__ = ["concat_examples", "count_samples"]


def concat_examples(batch: Any, device: torch.device | str | None = None) -> Any:
    """Makes a batch of tensors and moves it to the device. Chainer: ``dataset.concat_examples``.

    One rule: a ``list`` is samples, which torch's ``default_collate`` puts together; anything else is a collated
    batch, and only moved.

    Args:
        batch: Samples, or tensors, or tuples and dicts of tensors of shape (N, ...).
        device: Where to; None leaves them where they are.

    Returns:
        A tensor, tuple or dict; never a list.

    Raises:
        ValueError: If the batch is an empty list.

    Example:
        >>> from trainer import concat_examples
        >>> concat_examples([(1.0, 3), (2.0, 4)])
        (tensor([1., 2.], dtype=torch.float64), tensor([3, 4]))
    """
    if isinstance(batch, list):
        if not batch:
            raise ValueError("batch is empty")
        batch = as_tuple(default_collate(batch))
    return batch if device is None else _moved(batch, torch.device(device))


def as_tuple(batch: Any) -> Any:
    """Returns a tuple for a list, which is what ``default_collate`` makes of tuples; anything else as it is."""
    return tuple(batch) if isinstance(batch, list) else batch


def count_samples(batch: Any) -> int:
    """Returns the number of samples in a list of them or in a collated batch; 1 where it cannot be told.

    Example:
        >>> import torch
        >>> from trainer.convert import count_samples
        >>> count_samples({"x": torch.zeros(4, 3)}), count_samples([1, 2, 3])
        (4, 3)
    """
    if isinstance(batch, tuple) and batch:
        return count_samples(batch[0])
    if isinstance(batch, dict) and batch:
        return count_samples(next(iter(batch.values())))
    try:
        return len(batch)
    except TypeError:
        return 1


def device_of(model: torch.nn.Module) -> torch.device:
    """Returns where a model's first parameter is; the CPU for a model without any."""
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def _moved(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=device.type == "cuda")  # beside the kernels, if the batch is pinned
    if isinstance(batch, tuple):
        moved = [_moved(part, device) for part in batch]
        return type(batch)(*moved) if hasattr(batch, "_fields") else tuple(moved)
    if isinstance(batch, list):
        return [_moved(part, device) for part in batch]
    if isinstance(batch, dict):
        return {key: _moved(part, device) for key, part in batch.items()}
    return batch
