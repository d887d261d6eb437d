"""From samples to tensors on the device."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from numbers import Number
from typing import Any

import numpy as np
import torch
from torch.utils.data import default_collate

__all__ = ["concat_examples", "count_samples"]


def concat_examples(batch: Any, device: torch.device | str | None = None, padding: Any = None) -> Any:
    """Makes a batch of tensors and moves it to the device. Chainer: ``dataset.concat_examples``.

    One rule: a ``list`` is samples, which torch's ``default_collate`` puts together; anything else is a collated
    batch, and only moved.

    With ``padding`` arrays may differ in shape: each is put into the top left corner of one as large as the largest,
    filled with the padding, of the first one's dtype. Padding is done where samples are collated, in one of two
    places::

        pad = functools.partial(concat_examples, padding=0)
        MultiprocessIterator(dataset, 32, collate_fn=pad)  # in the workers
        StandardUpdater(SerialIterator(dataset, 32), optimizer, model=model, converter=pad)  # in the main process

    Args:
        batch: Samples, or tensors, or tuples and dicts of tensors of shape (N, ...).
        device: Where to; None leaves them where they are.
        padding: A number; or for samples that are tuples or dicts, a tuple or dict of the same parts with a number
            each, or None where all shapes are the same.

    Returns:
        A tensor, tuple or dict; never a list.

    Raises:
        ValueError: If the batch is an empty list, or a sample does not go with the first one: it has another shape,
            other parts, or holds what cannot be put into a batch. The message names sample and part.
        TypeError: If there is a padding and the batch is collated already.

    Example:
        >>> import torch
        >>> from trainer import concat_examples
        >>> concat_examples([(1.0, 3), (2.0, 4)])
        (tensor([1., 2.], dtype=torch.float64), tensor([3, 4]))
        >>> concat_examples([(torch.tensor([1, 2]), 0), (torch.tensor([3]), 1)], padding=(-1, None))
        (tensor([[ 1,  2],
                [ 3, -1]]), tensor([0, 1]))
    """
    if isinstance(batch, list):
        if not batch:
            raise ValueError("batch is empty")
        try:
            batch = as_tuple(default_collate(batch)) if padding is None else _padded(batch, padding)
        except Exception as error:
            if (plain := _plain(batch)) is not None:
                return concat_examples(plain, device, padding)
            if (fault := _fault(batch, padding)) is None:
                raise
            raise ValueError(fault) from error
    elif padding is not None:
        raise TypeError(
            f"padding is for a list of samples, and this batch is collated already ({_outline(batch)}): pad where it"
            " is collated, e.g. MultiprocessIterator(..., collate_fn=functools.partial(concat_examples, padding=0))."
        )
    return batch if device is None or _is_there(batch, device) else _moved(batch, torch.device(device))


def as_tuple(batch: Any) -> Any:
    """Returns a tuple for a list, which is what ``default_collate`` makes of tuples; anything else as it is."""
    return tuple(batch) if isinstance(batch, list) else batch


def count_samples(batch: Any) -> int:
    """Returns the number of samples in a list of them or in a collated batch; 1 where it cannot be told.

    Example:
        >>> import torch
        >>> from trainer.datasets.convert import count_samples
        >>> count_samples({"x": torch.zeros(4, 3)}), count_samples([1, 2, 3])
        (4, 3)
    """
    while isinstance(batch, tuple) and batch:
        batch = batch[0]
    if isinstance(batch, dict) and batch:
        return count_samples(next(iter(batch.values())))
    try:
        return batch.size(0) if isinstance(batch, torch.Tensor) else len(batch)  # a tensor's len() takes longer
    except (TypeError, IndexError):
        return 1


def device_of(model: torch.nn.Module) -> torch.device:
    """Returns where a model's first parameter is; the CPU for a model without any."""
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def _is_there(batch: Any, device: Any) -> bool:
    """Tells of the usual batch, a tuple of tensors, whether there is nothing to move."""
    if type(batch) is not tuple:
        return False
    return all([type(part) is torch.Tensor and part.device == device for part in batch])


def _moved(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, torch.Tensor):
        return batch if batch.device == device else _sent(batch, device)
    if isinstance(batch, tuple):
        moved = [_moved(part, device) for part in batch]
        return type(batch)(*moved) if hasattr(batch, "_fields") else tuple(moved)
    if isinstance(batch, list):
        return [_moved(part, device) for part in batch]
    if isinstance(batch, dict):
        return {key: _moved(part, device) for key, part in batch.items()}
    return batch


def _sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    is_plain = tensor.is_cpu and tensor.layout is torch.strided and not tensor.is_nested
    if device.type != "cuda" or not is_plain:
        return tensor.to(device)
    # On a stream of its own, so that the copy goes beside the kernels of the update before, and the copy of what is
    # not pinned, for which this process waits, does not wait for them too.
    index = torch.cuda.current_device() if device.index is None else device.index
    current, beside = torch.cuda.current_stream(index), _stream(index)
    with torch.cuda.stream(beside):
        sent = tensor.to(device, non_blocking=True)
    current.wait_stream(beside)
    sent.record_stream(current)  # which keeps its memory from the next copy until that is done with it
    return sent


@cache
def _stream(index: int) -> torch.cuda.Stream:
    return torch.cuda.Stream(index)  # type: ignore[no-untyped-call]


def _plain(sample: Any) -> Any:
    """Returns a copy in which arrays that torch does not take (flipped, of another byte order) are as it does.

    None if there is none.
    """
    if isinstance(sample, np.ndarray):
        if all(stride >= 0 for stride in sample.strides) and sample.dtype.isnative:
            return None
        return sample.astype(sample.dtype.newbyteorder("="), order="C")
    keys = _keys(sample)
    parts = {key: _plain(sample[key]) for key in keys or ()}
    if all(part is None for part in parts.values()):
        return None
    parts = {key: sample[key] if part is None else part for key, part in parts.items()}
    if isinstance(sample, Mapping):
        return parts
    return type(sample)(*parts.values()) if hasattr(sample, "_fields") else type(sample)(parts.values())


def _padded(samples: list[Any], padding: Any) -> Any:
    if padding is None:
        return as_tuple(default_collate(samples))
    first, keys = samples[0], _keys(samples[0])
    if not isinstance(padding, Number) and (keys is None or _keys(padding) != keys):
        raise ValueError(f"padding must be a number, or have the sample's parts, got {padding!r}.")
    if any(_keys(sample) != keys for sample in samples):
        raise ValueError("the samples have different parts")  # _fault says which one
    if keys is not None:
        parts = {key: _padded([sample[key] for sample in samples], _of(padding, key)) for key in keys}
        if isinstance(first, Mapping):
            return parts
        return type(first)(*parts.values()) if hasattr(first, "_fields") else tuple(parts.values())
    tensors = [x if isinstance(x, torch.Tensor) else torch.as_tensor(np.asarray(x)) for x in samples]
    shape = [max(sizes) for sizes in zip(*(tensor.shape for tensor in tensors), strict=True)]
    batch = tensors[0].new_full((len(tensors), *shape), padding)
    for row, tensor in zip(batch, tensors, strict=True):
        row[tuple(slice(size) for size in tensor.shape)] = tensor
    return batch


def _fault(samples: list[Any], padding: Any) -> str | None:
    """Names the first sample that does not go with sample 0, and its innermost part that does not; None if all do."""
    first, part = samples[0], ""
    number = next((i for i, sample in enumerate(samples) if _error([first, sample], padding)), None)
    if number is None:
        return None
    sample = samples[number]
    while (keys := _keys(first)) is not None and _keys(sample) == keys and _keys(padding) in (None, keys):
        key = next((key for key in keys if _error([first[key], sample[key]], _of(padding, key))), None)
        if key is None:
            break
        first, sample, padding, part = first[key], sample[key], _of(padding, key), f"{part}, part {key!r}"
    if error := _error([sample], padding):
        return f"sample {number}{part} is {_outline(sample)}, which cannot be put into a batch: {error}"
    return (
        f"sample {number}{part} is {_outline(sample)} where sample 0 is {_outline(first)}: make them alike in a"
        " transform, or give concat_examples a padding if only their sizes differ."
    )


def _error(samples: list[Any], padding: Any) -> Exception | None:
    try:
        _padded(samples, padding)
    except Exception as error:
        return error
    return None


def _keys(sample: Any) -> Collection[Any] | None:
    if isinstance(sample, Mapping):
        return sample.keys()
    return range(len(sample)) if isinstance(sample, (tuple, list)) else None


def _of(padding: Any, key: Any) -> Any:
    return padding[key] if isinstance(padding, (tuple, dict)) else padding


def _outline(value: Any) -> str:
    name = type(value).__name__
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return f"{value.dtype} {name} of shape {tuple(value.shape)}"
    return name if (keys := _keys(value)) is None else f"{name} with parts {list(keys)}"
