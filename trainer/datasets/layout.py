"""How samples that are all alike stand in a file: their parts, one after the other, without gaps."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor


class Layout:
    """What a sample is made of; packs samples that are like it into bytes, and unpacks them.

    Args:
        sample: A tensor, an int, or a tuple of these.
        name: Names the sample in messages.

    Attributes:
        words: Dtype, shape and strides of each part: two samples are alike if these are the same. Strides belong to
            it, for a sum goes through memory in their order.
        size: Bytes of a sample.

    Raises:
        ValueError: If the sample is or holds anything else.

    Example:
        >>> import numpy, torch
        >>> from trainer.datasets.layout import Layout
        >>> layout = Layout((torch.tensor([[1.0, 2.0], [3.0, 4.0]]).T, 7), "the first")
        >>> layout.words, layout.size
        ('(float32 of shape (2, 2) and strides (1, 2), int)', 24)
        >>> layout.unpack(numpy.frombuffer(layout.pack((torch.zeros(2, 2).T, 5)), numpy.uint8))[1]
        5
    """

    def __init__(self, sample: Any, name: str) -> None:
        self._is_tuple = type(sample) is tuple
        self._parts: list[tuple[slice, bool, torch.dtype, Any, Any]] = []
        self.size, words = 0, []
        for part in sample if self._is_tuple else (sample,):
            is_int = type(part) is int and -(2**63) <= part < 2**63
            if not is_int and not _is_plain(part):
                raise ValueError(
                    f"{name} is or holds {type(part).__name__}: the cache keeps plain tensors that are on the CPU and"
                    " not empty, ints of 64 bits, and tuples of these. Make them so in a transform before it."
                )
            dense = torch.empty_like(torch.as_tensor(part))
            span, shape, strides = slice(self.size, self.size + dense.nbytes), tuple(dense.shape), dense.stride()
            self._parts.append((span, is_int, dense.dtype, shape, strides))
            self.size = span.stop
            kind = f"{dense.dtype} of shape {shape}" + ("" if dense.is_contiguous() else f" and strides {strides}")
            words.append("int" if is_int else kind.removeprefix("torch."))
        self.words = f"({', '.join(words)})" if self._is_tuple else words[0]

    def pack(self, sample: Any) -> bytes:
        """Returns a sample's bytes."""
        return b"".join(map(_bytes, sample if self._is_tuple else (sample,)))

    def unpack(self, row: Any) -> Any:
        """Returns the sample of an array of bytes, with memory of its own."""
        parts = [
            int.from_bytes(row[span], sys.byteorder, signed=True)
            if is_int
            else torch.from_numpy(row[span].copy()).view(dtype).as_strided(shape, strides)
            for span, is_int, dtype, shape, strides in self._parts
        ]
        return tuple(parts) if self._is_tuple else parts[0]


def _is_plain(part: Any) -> bool:
    is_dense = type(part) is Tensor and part.is_cpu and part.layout is torch.strided and not part.is_quantized
    return is_dense and part.numel() > 0 and not part.requires_grad


def _bytes(part: Any) -> Any:
    part = torch.as_tensor(part)
    dense = torch.empty_like(part).copy_(part)
    return dense.as_strided((dense.numel(),), (1,)).view(torch.uint8).numpy()
