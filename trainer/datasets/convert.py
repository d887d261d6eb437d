"""From samples to tensors on the device."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import is_dataclass
from functools import cache, partial
from numbers import Number
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from torch.utils.data import default_collate

from trainer.checks import warn

__all__ = ["concat_examples", "count_samples"]


def concat_examples(batch: Any, device: torch.device | str | None = None, padding: Any = None) -> Any:
    """Makes a batch of tensors and moves it to the device. Chainer: ``dataset.concat_examples``.

    One rule: a ``list`` is samples, which torch's ``default_collate`` puts together; anything else is a collated
    batch, and only moved: the tensors in tuples and mappings, and objects by their own ``to(device)``.

    With ``padding`` arrays may differ in shape: each is put into the top left corner of one as large as the largest,
    filled with the padding, of the first one's dtype. Padding is done where samples are collated, in one of two
    places::

        pad = functools.partial(concat_examples, padding=0)
        MultiprocessIterator(dataset, 32, collate_fn=pad)  # in the workers
        StandardUpdater(SerialIterator(dataset, 32), optimizer, model=model, converter=pad)  # in the main process

    Args:
        batch: Samples, or tensors, or tuples and mappings of tensors of shape (N, ...), or an object with ``to``.
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
            batch = _batch(batch, padding)
        except Exception as error:
            batch = _mended(batch, padding, error)
        batch = as_tuple(batch)
    elif padding is not None:
        raise TypeError(
            f"padding is for a list of samples, and this batch is collated already ({outline(batch)}): pad where it"
            " is collated, e.g. MultiprocessIterator(..., collate_fn=functools.partial(concat_examples, padding=0))."
        )
    if device is None or (type(batch) is tuple and all([type(x) is Tensor and x.device == device for x in batch])):
        return batch  # the usual batch, in less than 1 microsecond; the walk takes 5
    return _walk(partial(_moved, device=torch.device(device)), [batch])


def as_tuple(batch: Any) -> Any:
    """Returns a tuple for a list, which is what ``default_collate`` makes of tuples; anything else as it is."""
    return tuple(batch) if isinstance(batch, list) else batch


def count_samples(batch: Any) -> int:
    """Returns the number of samples in a list of them or in a collated batch; 1 where that is unknown.

    A collated batch holds as many as the leading sizes of its tensors and arrays say, if all agree.

    Example:
        >>> import torch
        >>> from trainer.datasets.convert import count_samples
        >>> count_samples({"task": "flowers", "x": torch.zeros(4, 3)}), count_samples([1, 2, 3])
        (4, 3)
        >>> count_samples((torch.zeros(4, 3), torch.zeros(2)))
        1
    """
    if isinstance(batch, list):
        return len(batch)
    sizes = _leading_sizes(batch)
    return sizes.pop() if len(sizes) == 1 else 1


def size_of(batch: Any, iterator: Any, owner: Any) -> int:
    """Returns the samples in a batch: the length of a list, else what the iterator says, else what can be read off.

    Where the batch does not tell, it is 1, and ``owner``, who asks, warns of it once.

    Example:
        >>> from types import SimpleNamespace
        >>> from trainer.datasets.convert import size_of
        >>> from trainer.iterators import SerialIterator
        >>> iterator = SerialIterator(range(10), 4)
        >>> size_of(next(iterator), iterator, SimpleNamespace())
        4
    """
    if isinstance(batch, list):
        return len(batch)
    size = getattr(iterator, "n_samples", None)
    if size is not None:
        return size  # type: ignore[no-any-return]
    if type(batch) is tuple and len(batch) == 2 and type(batch[0]) is type(batch[1]) is Tensor:
        x, t = batch  # the usual batch: 1 microsecond less than the walk
        if x.dim() and t.dim() and x.size(0) == t.size(0):
            return x.size(0)  # type: ignore[no-any-return]
    sizes = _leading_sizes(batch)
    if len(sizes) == 1:
        return sizes.pop()
    if not getattr(owner, "_has_warned_of_size", False):
        owner._has_warned_of_size = True
        why = f"its tensors begin with the sizes {', '.join(map(str, sorted(sizes)))}" if sizes else "it has no tensors"
        warn(
            f"cannot tell how many samples a batch of {type(iterator).__name__} holds ({why}), so each batch weighs 1"
            " in means: let the iterator set n_samples to the number before it returns a batch, or report (value,"
            " number of samples)."
        )
    return 1


def _leading_sizes(batch: Any) -> set[int]:
    """Returns the leading sizes of all tensors in a batch."""
    found: set[int] = set()
    values, seen = [batch], {}
    while values:
        value = values.pop()
        if isinstance(value, Tensor):
            if value.dim():
                found.add(value.size(0))
        elif isinstance(value, np.ndarray):
            found.update(value.shape[:1])
        elif isinstance(value, PackedSequence):
            found.add(int(value.batch_sizes[0]))
        elif (parts := _parts(value)) and id(value) not in seen:
            seen[id(value)] = value  # held, so that no other gets its id; an object may hold itself
            values += parts
    return found


def _parts(value: Any) -> Collection[Any]:
    """Returns what a container or an object holds."""
    if isinstance(value, (tuple, list)):
        return value
    if isinstance(value, Mapping):
        return value.values()
    if not (is_dataclass(value) or is_object(value)):
        return ()
    slots = [getattr(value, name, None) for name in getattr(type(value), "__slots__", ())]
    return [*getattr(value, "__dict__", {}).values(), *slots]


def is_object(value: Any) -> bool:
    """Tells whether a batch is of a class of its own, which moves itself: PyG's ``Batch``, a ``PackedSequence``.

    Example:
        >>> import torch
        >>> from trainer.datasets.convert import is_object
        >>> is_object(torch.nn.utils.rnn.pack_sequence([torch.ones(2)])), is_object((torch.ones(2),))
        (True, False)
    """
    return callable(getattr(value, "to", None)) and not isinstance(value, (Tensor, Mapping, type))


def device_of(model: torch.nn.Module) -> torch.device:
    """Returns where a model's first parameter is; the CPU for a model without any."""
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def _walk(function: Callable[[list[Any], Any], Any], nests: list[Any], padding: Any = None) -> Any:
    """Calls a function with the leaves that stand at the same place in all nests, and returns a nest of the results."""
    first, keys = nests[0], _keys(nests[0])
    if not (padding is None or isinstance(padding, Number)) and (keys is None or _keys(padding) != keys):
        raise ValueError(f"padding must be a number, or have the sample's parts, got {padding!r}.")
    if any(_keys(nest) != keys for nest in nests[1:]):
        raise ValueError("the samples have different parts")  # _fault says which one
    if keys is None:
        return function(nests, padding)
    parts = {key: _walk(function, [nest[key] for nest in nests], _of(padding, key)) for key in keys}
    if isinstance(first, Mapping):
        return parts
    return type(first)(*parts.values()) if hasattr(first, "_fields") else type(first)(parts.values())


def _moved(leaves: list[Any], padding: Any, device: torch.device) -> Any:
    (tensor,) = leaves
    if is_object(tensor):
        return tensor.to(device)
    if not isinstance(tensor, Tensor) or tensor.device == device:
        return tensor
    if device.type != "cuda" or not tensor.is_cpu or tensor.layout is not torch.strided or tensor.is_nested:
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


def _batch(samples: list[Any], padding: Any) -> Any:
    return default_collate(samples) if padding is None else _walk(_padded, samples, padding)


def _mended(samples: list[Any], padding: Any, error: Exception) -> Any:
    """Tries again with arrays as torch takes them; if that fails too, says which sample does not fit."""
    samples = [_walk(_native, [sample]) for sample in samples]
    with suppress(Exception):
        return _batch(samples, padding)
    for number, sample in enumerate(samples):
        if fault := _fault(samples[0], sample, padding, f"sample {number}"):
            raise ValueError(fault) from error
    raise error


def _padded(leaves: list[Any], padding: Any) -> Any:
    if padding is None:
        return default_collate(leaves)
    tensors = [x if isinstance(x, Tensor) else torch.as_tensor(np.asarray(x)) for x in leaves]
    shape = [max(sizes) for sizes in zip(*(tensor.shape for tensor in tensors), strict=True)]
    batch = tensors[0].new_full((len(tensors), *shape), padding)
    for row, tensor in zip(batch, tensors, strict=True):
        row[tuple(slice(size) for size in tensor.shape)] = tensor
    return batch


def _native(leaves: list[Any], padding: Any) -> Any:
    """Returns an array as torch takes it: not flipped, and in this machine's byte order."""
    (leaf,) = leaves
    return leaf.astype(leaf.dtype.newbyteorder("="), order="C") if isinstance(leaf, np.ndarray) else leaf


def _fault(first: Any, sample: Any, padding: Any, name: str) -> str | None:
    """Says which part of a sample does not go with sample 0, the innermost one; None if all do."""
    if not _error([first, sample], padding):
        return None
    keys = _keys(first)
    if keys is not None and _keys(sample) == keys and _keys(padding) in (None, keys):
        for key in keys:
            if fault := _fault(first[key], sample[key], _of(padding, key), f"{name}, part {key!r}"):
                return fault
    if error := _error([sample], padding):
        return f"{name} is {outline(sample)}, which cannot be put into a batch: {error}"
    return (
        f"{name} is {outline(sample)} where sample 0 is {outline(first)}: make them alike in a transform, or give"
        " concat_examples a padding if only their sizes differ."
    )


def _error(samples: list[Any], padding: Any) -> Exception | None:
    try:
        _batch(samples, padding)
    except Exception as error:
        return error
    return None


def _keys(sample: Any) -> Collection[Any] | None:
    if isinstance(sample, (tuple, list)) and not is_object(sample):
        return range(len(sample))
    return sample.keys() if isinstance(sample, Mapping) else None


def _of(padding: Any, key: Any) -> Any:
    return padding[key] if isinstance(padding, (tuple, dict)) else padding


def outline(value: Any) -> str:
    """Returns what a value is, for messages: its class, and shape or parts.

    Example:
        >>> import torch
        >>> from trainer.datasets.convert import outline
        >>> outline((torch.zeros(2, 3), "name")), outline(torch.zeros(2, 3))
        ('tuple with parts [0, 1]', 'torch.float32 Tensor of shape (2, 3)')
    """
    name = type(value).__name__
    if isinstance(value, (Tensor, np.ndarray)):
        return f"{value.dtype} {name} of shape {tuple(value.shape)}"
    return name if (keys := _keys(value)) is None else f"{name} with parts {list(keys)}"
