"""Mixed precision by one word."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Returns the context in which a model of that precision is called.

    Args:
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"``.
        device: Where the model is.

    Raises:
        ValueError: If the precision is none of these.

    Example:
        >>> import torch
        >>> from trainer.updaters.precision import autocast
        >>> with autocast("bf16", torch.device("cpu")):
        ...     print(torch.nn.Linear(2, 2)(torch.rand(1, 2)).dtype)
        torch.bfloat16
    """
    if precision not in DTYPES:
        raise ValueError(f"precision must be one of {', '.join(DTYPES)}, got {precision!r}.")
    dtype = DTYPES[precision]
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)
