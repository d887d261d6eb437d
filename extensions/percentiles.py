"""Percentiles of a tensor of any size, on its device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

SIGMAS = (0.13, 2.28, 15.87, 50, 84.13, 97.72, 99.87)  # percent of a normal distribution below -3, ..., +3 sigma


def flat(values: Tensor) -> Tensor:
    """Returns all numbers of a tensor in one dimension, in float32 at least.

    Example:
        >>> import torch
        >>> from extensions.percentiles import flat
        >>> flat(torch.tensor([[1, 2]], dtype=torch.bfloat16))
        tensor([1., 2.])
    """
    values = values.detach().to_dense().flatten()
    return values.to(torch.promote_types(values.dtype, torch.float32))


def percentiles(values: Tensor, percents: Sequence[float] = SIGMAS) -> Tensor:
    """Returns percentiles as NumPy's do: linear between two numbers, all NaN if one number is.

    Args:
        values: Of shape (N,), N as large as you like: ``torch.quantile`` takes no more than 16 million.
        percents: From 0 to 100.

    Example:
        >>> import torch
        >>> from extensions.percentiles import percentiles
        >>> percentiles(torch.tensor([4.0, 1.0, 2.0]), (0, 50, 75))
        tensor([1., 2., 3.])
    """
    ascending = values.sort().values  # NaN comes last
    positions = torch.tensor(percents, dtype=torch.float64) / 100 * (len(values) - 1)
    low = positions.long()
    weight = (positions - low).to(values.dtype)
    # Not to wait for the device: a copy from the host that is not pinned would, unless told otherwise.
    low, high, weight = (x.to(values.device, non_blocking=True) for x in (low, positions.ceil().long(), weight))
    result = torch.lerp(ascending[low], ascending[high], weight)
    return torch.where(ascending[-1].isnan(), ascending[-1], result)
