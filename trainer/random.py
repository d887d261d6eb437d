"""The randomness of a run: one seed, three streams.

* *order*: which sample comes when, a function of (seed, epoch);
* *sample*: what a data set draws while it makes one sample (crops, flips), a function of
  (seed, epoch, position in that epoch's order);
* *model*: initial weights and dropout, the global generators of Python, NumPy and torch.

The first two are computed, never stored, so a snapshot in mid-epoch is tiny and the number of data-loader workers
changes nothing. Only the third has a state, which :func:`capture` takes and :func:`restore` puts back.
"""

from __future__ import annotations

import ctypes
import hashlib
import random
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch

from trainer.checks import at_least, warn

__all__ = ["capture", "derive", "get_seed", "preserved", "restore", "seed_generators", "set_seed"]

ORDER, SAMPLE, SAMPLER, LOADER = range(4)  # streams: the second word that is given to derive()

_seed = 0


def set_seed(seed: int) -> None:
    """Sets the run's seed: what iterators built with ``seed=None`` use, and the start of the model's stream.

    Call it first in a script, before the model is built. Without it the run's seed is 0, and the model's stream
    begins as Python, NumPy and torch begin it: with other weights in each process.

    Args:
        seed: Any integer of 0 to 2**63 - 1.

    Raises:
        ValueError: If the seed lies outside that range.

    Example:
        >>> import torch, trainer.random
        >>> trainer.random.set_seed(7)
        >>> first = torch.rand(2)
        >>> trainer.random.set_seed(7)
        >>> bool((torch.rand(2) == first).all())
        True
    """
    global _seed
    _seed = seed = at_least("seed", seed, 0, 2**63 - 1)
    random.seed(seed)
    np.random.seed(derive(seed) % 2**32)
    torch.manual_seed(seed)  # every device's generator


def get_seed() -> int:
    """Returns the run's seed, 0 unless :func:`set_seed` was called.

    Example:
        >>> import trainer.random
        >>> trainer.random.set_seed(7)
        >>> trainer.random.get_seed()
        7
    """
    return _seed


def derive(*words: int) -> int:
    """Returns 64 bits that depend on every word (signed 64-bit integers), the same on every machine.

    Example:
        >>> import trainer.random
        >>> trainer.random.derive(0, 1, 2) == trainer.random.derive(0, 1, 2) != trainer.random.derive(0, 2, 1)
        True
    """
    digest = hashlib.blake2b(struct.pack(f"<{len(words)}q", *words), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def seed_generators(bits: int) -> None:
    """Starts Python's, NumPy's and torch's global CPU generators from 64 bits, in about 7 microseconds.

    ``torch.manual_seed`` alone would take 100: it visits every device.

    Example:
        >>> import random, trainer.random
        >>> trainer.random.seed_generators(5)
        >>> first = random.random()
        >>> trainer.random.seed_generators(5)
        >>> random.random() == first
        True
    """
    random.seed(bits)
    np.random.seed(bits >> 32)  # the half that torch does not use: of one seed both would draw the same stream
    torch.default_generator.manual_seed(bits & 0xFFFFFFFF)


@contextmanager
def preserved(cuda: bool = False) -> Iterator[None]:
    """Puts the global generators back, at the end of the block, as they were at its start.

    Args:
        cuda: Also those of the CUDA devices, if CUDA is in use.

    Example:
        >>> import random, trainer.random
        >>> trainer.random.seed_generators(5)
        >>> with trainer.random.preserved():
        ...     first = random.random()
        >>> random.random() == first
        True
    """
    put_back = mark(cuda)
    try:
        yield
    finally:
        put_back()


def mark(cuda: bool = False) -> Callable[[], None]:
    """Returns a function that puts the global generators back as they are now; as :func:`preserved`, in 12 us.

    Example:
        >>> import random, trainer.random
        >>> put_back = trainer.random.mark()
        >>> first = random.random()
        >>> put_back()
        >>> random.random() == first
        True
    """
    numpy, state = _numpy_state(), raw_state(cuda, with_numpy=False)

    def put_back() -> None:
        set_raw_state(state)
        _set_numpy_state(*numpy)

    return put_back


def capture() -> dict[str, Any]:
    """Returns the state of every global generator, Python's, NumPy's and torch's, as values that a snapshot may hold.

    Example:
        >>> import torch, trainer.random
        >>> state = trainer.random.capture()
        >>> first = torch.rand(2)
        >>> trainer.random.restore(state)
        >>> bool((torch.rand(2) == first).all())
        True
    """
    return packed(raw_state(cuda=True))


def restore(state: dict[str, Any]) -> None:
    """Puts back what :func:`capture` returned.

    Example:
        >>> import random, trainer.random
        >>> state = trainer.random.capture()
        >>> first = random.random()
        >>> trainer.random.restore(state)
        >>> random.random() == first
        True
    """
    raw = unpacked(state)
    if raw.cuda and len(raw.cuda) != torch.cuda.device_count():
        warn(
            f"the snapshot holds the random states of {len(raw.cuda)} CUDA devices and this machine has"
            f" {torch.cuda.device_count()}: random numbers drawn on a device will differ."
        )
        raw = raw._replace(cuda=[])
    set_raw_state(raw)


class Raw(NamedTuple):
    """The states of the global generators, each as its owner gives it: to save and restore them costs 40 us."""

    python: Any
    numpy: Any
    cpu: torch.Tensor
    cuda: list[torch.Tensor]


def raw_state(cuda: bool = False, with_numpy: bool = True) -> Raw:
    """Returns the states of the global generators; with ``cuda`` also those of the devices, if CUDA is in use."""
    devices = torch.cuda.get_rng_state_all() if cuda and torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    numpy = np.random.get_state() if with_numpy else None
    return Raw(random.getstate(), numpy, torch.default_generator.get_state(), devices)


def set_raw_state(raw: Raw) -> None:
    """Puts back what :func:`raw_state` returned."""
    random.setstate(raw.python)
    if raw.numpy is not None:
        np.random.set_state(raw.numpy)
    torch.default_generator.set_state(raw.cpu)
    if raw.cuda:
        torch.cuda.set_rng_state_all(raw.cuda)


# NumPy takes 25 microseconds to return its state and as much to take it; to copy the generator's memory takes 1.
_MEMORY = 625 * 4  # 624 words and a position


def _numpy_state() -> tuple[Any, ...]:
    """Returns NumPy's global generator, its memory, and the second of two Gaussians if one is waiting beside it."""
    generator: Any = np.random.get_bit_generator()  # type: ignore[attr-defined]
    if type(generator) is not np.random.MT19937:
        return generator, np.random.get_state(legacy=False), None
    memory = ctypes.string_at(generator.ctypes.state_address, _MEMORY)
    gaussian = np.random.standard_normal()  # which draws only if none is waiting
    is_waiting = memory == ctypes.string_at(generator.ctypes.state_address, _MEMORY)
    state = generator, memory, gaussian if is_waiting else None
    _set_numpy_state(*state)
    return state


def _set_numpy_state(generator: Any, state: Any, gaussian: float | None) -> None:
    """Puts back what :func:`_numpy_state` returned."""
    if np.random.get_bit_generator() is not generator:  # type: ignore[attr-defined]
        np.random.set_bit_generator(generator)  # type: ignore[attr-defined]
    if not isinstance(state, bytes):
        np.random.set_state(state)
    elif gaussian is None:
        np.random.seed(0)  # so that no Gaussian is waiting
        ctypes.memmove(generator.ctypes.state_address, state, _MEMORY)
    else:
        words = np.frombuffer(state, np.uint32)
        np.random.set_state(("MT19937", words[:-1], int(words[-1]), 1, gaussian))


def packed(raw: Raw) -> dict[str, Any]:
    """Returns raw states as values that a snapshot may hold."""
    (version, words, gauss), (name, key, *rest) = raw.python, raw.numpy
    python = (version, torch.tensor(words), gauss)
    return raw._asdict() | {"python": python, "numpy": (name, torch.from_numpy(key.astype(np.int64)), *rest)}


def unpacked(state: dict[str, Any]) -> Raw:
    """Returns the raw states of what :func:`packed` returned."""
    (version, words, gauss), (name, key, *rest) = state["python"], state["numpy"]
    numpy = (name, key.numpy().astype(np.uint32), *rest)
    at_least("the position in NumPy's state", rest[0], 0, len(numpy[1]))  # NumPy would read beyond it
    return Raw((version, tuple(words.tolist()), gauss), numpy, state["cpu"], state["cuda"])


def has_drawn(since: Raw) -> bool:
    """Tells whether anyone has drawn from the CPU's generators since a state was taken."""
    now = raw_state()
    are_equal = since.python == now.python and all(map(np.array_equal, since.numpy, now.numpy))
    return not (are_equal and torch.equal(since.cpu, now.cpu))
