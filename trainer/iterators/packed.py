"""Lists of samples on their way from a worker: one string of bytes, whatever number of tensors they hold."""

from __future__ import annotations

import io
import pickle
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor


class Packed:
    """What a worker made. It is pickled at once, and arrives in the training process as what it was.

    torch sends each tensor by a file descriptor. Of a list of samples that is at least one for each, which are soon
    more than a process may have open; then the reader waits for ever.

    Example:
        >>> import pickle, torch
        >>> from trainer.iterators.packed import Packed
        >>> pickle.loads(pickle.dumps(Packed([(torch.ones(2), 3)])))
        [(tensor([1., 1.]), 3)]
    """

    def __init__(self, made: Any) -> None:
        buffer = io.BytesIO()
        _Pickler(buffer, protocol=5).dump(made)
        self._content = buffer.getvalue()

    def __reduce__(self) -> tuple[Any, ...]:
        return pickle.loads, (self._content,)


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return NotImplemented
        if type(value) is Tensor:
            # NumPy may lack the dtype, and has no gradients, no sparse arrays and no devices.
            with suppress(TypeError, RuntimeError):
                return torch.from_numpy, (value.numpy(),)
        if value.layout is torch.strided and value.untyped_storage().nbytes() > value.nbytes:
            with torch.no_grad():  # a part of a large tensor, all of which would be sent
                value = value.clone().requires_grad_(value.requires_grad)
        return value.__reduce_ex__(5)
