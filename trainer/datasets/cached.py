"""What a data set makes of its files (decoded, scaled, cropped), kept in one memory-mapped file.

The file begins with a readable header; then comes a mark of 8 bytes for each sample, then the samples. A sample is
written first and its mark, with its checksum, after it. Every process verifies a sample the first time it reads it.
So nothing needs to be flushed or locked: what a kill or a loss of power has left half-done counts as missing, and is
made anew.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import math
import mmap
import os
import secrets
import shutil
import struct
import sys
import warnings
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from trainer import random
from trainer.datasets.transform import drawer

__all__ = ["CachedDataset", "describe_files"]

_MAGIC = b"KUSARI CACHE 1\n"
_PAGE = 4096
_INT = struct.Struct("=q")
_MARK = struct.Struct("=Q")
_IS_THERE = 1 << 32  # in a mark, above the CRC-32
_MOST_TRIED = 100  # samples, to find a good one at the start

_RANDOM = (
    "its samples are not the same each time, and the cache would freeze them. Put what is random behind it:"
    " TransformDataset(CachedDataset(...), augment)."
)

_Path = str | os.PathLike[str]


class _Memory(NamedTuple):
    marks: np.ndarray[Any, Any]  # uint64, (N,)
    samples: np.ndarray[Any, Any]  # uint8, (N, bytes of a sample)


class CachedDataset(Dataset[Any]):
    """A data set whose samples are made once, and from then on come from a memory-mapped file, to the bit as before.

    It goes around what is slow and always gives the same: reading, decoding, scaling. What is random goes behind it:
    ``TransformDataset(CachedDataset(images, "cache/train", key), augment)``.

    The file is filled by whoever makes a sample first: on the first pass, in any order, by any number of workers and
    of runs at once, which share it. A process may be killed and the power may fail at any moment: what is not whole is
    made anew. A sample that the data set fails to give raises as it would without the cache, and is not kept.

    The key says what decides the samples, for the cache cannot see it: the files, the transform's parameters, the
    versions of what decodes and scales. For an ``ImageFolder``:
    ``{"files": describe_files([path for path, _ in folder.samples]), "transform": repr(folder.transform)}``.
    Another key, length or shape makes another file, and older ones of the same name are told of; remove them when no
    run needs them. At the start up to three samples are made and compared with those in the file, which finds most
    keys that have left something out.

    Where the file cannot be written any more, because the disk is full say, this is warned of and the run goes on with
    the same samples, made anew each time. The file may be removed while a run uses it, but not cut short. A sample
    that was read is the caller's own copy; one whose memory is contiguous is put into a batch much faster.

    Args:
        dataset: Anything with ``len`` and integer indices that always gives the same sample for an index: a tensor, or
            a tuple of tensors and ints, each of one dtype and shape.
        path: Where the file is to stand, without its ending: ``"cache/train"`` makes ``cache/train-<hash>.cache``,
            and the folder, if there is none.
        key: Strings, numbers, and lists and dicts of them.

    Attributes:
        path: The file.

    Raises:
        TypeError: If the key holds anything else.
        ValueError: If the data set is random, if its samples are of another kind or not all alike (when the first
            such sample is made), or if the file holds other samples than it gives.
        OSError: If the file cannot be created, or the disk has no room for it.

    Example:
        >>> import torch
        >>> from trainer.datasets.cached import CachedDataset
        >>> from trainer.datasets import TransformDataset
        >>> def square(x):
        ...     print("making", x)
        ...     return torch.tensor(x * x)
        >>> squares = TransformDataset([1, 2, 3, 4, 5], square)
        >>> cached = CachedDataset(squares, tmp / "squares", key="squares of 1 to 5")  # doctest: +ELLIPSIS
        making 1
        ...
        >>> cached[3], cached[3]
        making 4
        (tensor(16), tensor(16))
    """

    def __init__(self, dataset: Any, path: _Path, key: Any) -> None:
        if drawer(dataset) is not None:
            raise ValueError(f"{type(dataset).__name__} defines draw_sample: {_RANDOM}")
        self.dataset = dataset
        self._length = len(dataset)
        some = self._some_samples()
        self._is_tuple = type(some[0][1]) is tuple
        self._layout = self._outline(0, some[0][1])
        self._parts, self._size = _places(self._layout if self._is_tuple else [self._layout])
        self._head = _head(key, self._length, self._layout)
        self._begin = _whole_pages(len(self._head) + self._length * _MARK.size)  # of the samples
        name = f"{Path(path).name}-{hashlib.sha256(self._head).hexdigest()[:16]}.cache"
        self.path = Path(path).parent.resolve() / name
        self._is_writable = True
        self._is_verified = bytearray(self._length)  # by this process, or the one it was forked from
        self._memory: _Memory | None = self._open()
        self._compare(some)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._length))]
        index = range(self._length)[index]
        if self._memory is None or not (self._is_verified[index] or self._verify(index)):
            return self._add(index)
        return self._unpacked(self._memory.samples[index])

    def _unpacked(self, row: Any) -> Any:
        parts = [
            _INT.unpack_from(row, begin)[0]
            if dtype is None
            else torch.from_numpy(row[begin:end].copy()).view(dtype).as_strided(shape, stride)
            for begin, end, dtype, shape, stride in self._parts
        ]
        return tuple(parts) if self._is_tuple else parts[0]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_memory": None, "_is_verified": bytearray(self._length)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Opens the file, in a worker that was not forked: what it cannot open or create, it does without."""
        self.__dict__.update(state)
        try:
            self._memory = self._open()
        except OSError as error:
            self._stop_writing(error)

    # -- samples

    def _make(self, index: int) -> Any:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as the iterators do: a sum over two threads may differ in the last bit
        try:
            return self.dataset[index]
        finally:
            torch.set_num_threads(threads)

    def _add(self, index: int) -> Any:
        """Returns a sample that is not in the file, and puts it there."""
        before = random.capture(cuda=False)
        sample = self._make(index)
        self._refuse_drawing(before)
        self._check_layout(index, sample)
        content = _packed(sample)
        if self._is_writable:
            try:
                file = os.open(self.path, os.O_WRONLY)
                try:
                    _write(file, content, self._begin + index * self._size)
                    _write(file, _MARK.pack(_IS_THERE | zlib.crc32(content)), len(self._head) + index * _MARK.size)
                finally:
                    os.close(file)
            except OSError as error:
                self._stop_writing(error)
        return self._unpacked(np.frombuffer(content, np.uint8))  # as it will be read: a sum over a view adds otherwise

    def _verify(self, index: int) -> bool:
        """Tells whether a sample is in the file, and whole."""
        assert self._memory is not None
        mark = int(self._memory.marks[index])
        if mark == 0:
            return False
        if mark != _IS_THERE | zlib.crc32(self._memory.samples[index]):
            warnings.warn(
                f"{self.path} has damaged samples, from a loss of power say: they are made anew.", stacklevel=3
            )
            return False
        self._is_verified[index] = True
        return True

    def _outline(self, index: int, sample: Any) -> Any:
        parts = [_outline(part) for part in (sample if type(sample) is tuple else (sample,))]
        if None in parts:
            wrong = sample[parts.index(None)] if type(sample) is tuple else sample
            raise ValueError(
                f"sample {index} of {type(self.dataset).__name__} is or holds {type(wrong).__name__}: the cache keeps"
                " plain tensors that are on the CPU and not empty, ints of 64 bits, and tuples of these. Make them so"
                " in a transform before it."
            )
        return parts if type(sample) is tuple else parts[0]

    def _check_layout(self, index: int, sample: Any) -> None:
        layout = self._outline(index, sample)
        if layout != self._layout:
            raise ValueError(
                f"sample {index} of {type(self.dataset).__name__} is {_told(layout)}, and the first one"
                f" {_told(self._layout)}: the cache keeps samples that are all alike. Make them so in a transform"
                " before it, or leave the cache out."
            )

    def _refuse_drawing(self, before: dict[str, Any]) -> None:
        if random.has_drawn(before):
            raise ValueError(f"{type(self.dataset).__name__} draws from a global random generator: {_RANDOM}")

    def _some_samples(self) -> list[tuple[int, Any]]:
        """Returns the first, middle and last sample with their indices; others in place of those that are bad.

        Raises:
            ValueError: If they are not the same each time.
        """
        n, some, errors = self._length, [], []
        before = random.capture(cuda=False)
        for index in dict.fromkeys((*(0, n // 2, n - 1)[:n], *range(min(n, _MOST_TRIED)))):
            try:
                sample, again = self._make(index), self._make(index)
            except Exception as error:  # a bad one is told of when it is asked for
                errors.append(error)
                continue
            self._refuse_drawing(before)
            if self._outline(index, sample) != self._outline(index, again) or _packed(sample) != _packed(again):
                raise ValueError(f"{type(self.dataset).__name__} gives another sample {index} each time: {_RANDOM}")
            some.append((index, sample))
            if len(some) == 3:
                break
        if not some:
            raise errors[0] if errors else ValueError("the data set is empty: there is nothing to cache.")
        return some

    # -- the file

    def _open(self) -> _Memory:
        if not self.path.exists():
            self._create(os.link)
        memory = self._mapped()
        if memory is None:
            warnings.warn(f"{self.path} is damaged, or no cache: it is built anew.", stacklevel=3)
            self._create(os.replace)
            memory = self._mapped()
        if memory is None:
            raise OSError(errno.EIO, "another process damages the cache; leave it out", str(self.path))
        return memory

    def _mapped(self) -> _Memory | None:
        """Returns the file's content, if it is what it should be."""
        file = os.open(self.path, os.O_RDONLY)
        try:
            is_whole = os.fstat(file).st_size == self._begin + self._length * self._size
            if not is_whole or os.pread(file, len(self._head), 0) != self._head:
                return None
            memory = mmap.mmap(file, 0, prot=mmap.PROT_READ)
        finally:
            os.close(file)
        marks = np.frombuffer(memory, np.uint64, self._length, len(self._head))
        samples = np.frombuffer(memory, np.uint8, self._length * self._size, self._begin)
        return _Memory(marks, samples.reshape(self._length, self._size))

    def _create(self, put: Callable[[Path, Path], object]) -> None:
        """Makes the file without samples, all of it at once; ``os.link`` does not put it over another process's."""
        folder, needed = self.path.parent, self._begin + self._length * self._size
        temporary = folder / f".{self.path.name}.{secrets.token_hex(8)}.tmp"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(folder).free
            if needed > free:  # in the end the snapshots would find no room either, and stop the run
                raise OSError(errno.ENOSPC, f"it needs {needed / 1e6:,.0f} MB and {free / 1e6:,.0f} MB are free")
            with open(temporary, "xb") as file:
                file.write(self._head)
                file.truncate(needed)
            with suppress(FileExistsError):  # another process was faster: its file is as good
                put(temporary, self.path)
        except OSError as error:
            raise OSError(
                error.errno,
                f"the cache cannot be created: {error.strerror}; name another folder, or leave the cache out",
                str(self.path),
            ) from error
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        self._tell_of_others()

    def _tell_of_others(self) -> None:
        """Warns of the files of the same name that were made for something else."""
        start = self.path.name[: -len("-0123456789abcdef.cache")]
        own = _described(self.path)
        for path in sorted(self.path.parent.glob(f"{glob.escape(start)}-{'[0-9a-f]' * 16}.cache")):
            if path != self.path and (other := _described(path)):
                names = [name for name in {**own, **other} if own.get(name) != other.get(name)]
                warnings.warn(
                    f"{path} ({path.stat().st_blocks * 512 / 1e6:,.0f} MB) was made with other {', '.join(names)}:"
                    " remove it if no run needs it.",
                    stacklevel=5,
                )

    def _compare(self, some: list[tuple[int, Any]]) -> None:
        assert self._memory is not None
        for index, sample in some:
            self._check_layout(index, sample)
            if self._verify(index) and self._memory.samples[index].tobytes() != _packed(sample):
                raise ValueError(
                    f"{self.path} holds another sample {index} than {type(self.dataset).__name__} gives now: say in the"
                    " key what has changed (a file, a parameter, a version), or remove the cache."
                )

    def _stop_writing(self, error: OSError) -> None:
        self._is_writable = False
        warnings.warn(
            f"{self.path} cannot be filled any further ({error.strerror}): the run goes on with the same samples, and"
            " makes anew each time those that are not in it. Before the next run free some space, or name another"
            " folder.",
            stacklevel=4,
        )


def describe_files(paths: Iterable[_Path], root: _Path = ".") -> dict[str, Any]:
    """Returns what a cache's key should say of files: how many, their size, and a hash of paths, sizes and times.

    A file that was added, removed, renamed, or written since has another size or time of modification, and so gives
    another hash. Nothing is read: what has changed while size and time stayed as they were is not seen. Paths count as
    they are given, so that ``root`` may move. It takes about a second for 100,000 files.

    Args:
        paths: The files, in the data set's order.
        root: The folder from which the paths start.

    Example:
        >>> from trainer.datasets.cached import describe_files
        >>> _ = (tmp / "one.jpg").write_bytes(b"123")
        >>> before = describe_files(["one.jpg"], tmp)
        >>> before["files"], before["bytes"]
        (1, 3)
        >>> _ = (tmp / "one.jpg").write_bytes(b"1234")
        >>> describe_files(["one.jpg"], tmp) == before
        False
    """
    digest, files, size = hashlib.sha256(), 0, 0
    found: tuple[int, int | None]
    for path in paths:
        try:
            status = os.stat(os.path.join(root, path))
            found = status.st_size, status.st_mtime_ns
        except OSError:  # a missing file is a bad sample, and told of when it is asked for
            found = 0, None
        digest.update(os.fsencode(path) + f"\0{found}\0".encode())
        files, size = files + 1, size + found[0]
    return {"files": files, "bytes": size, "hash": digest.hexdigest()[:16]}


def _outline(part: Any) -> Any:
    """Returns what a part of each sample must be, as a plain value; None if it is nothing that can be kept.

    Strides belong to it: a sum goes through memory in their order.
    """
    if type(part) is int:
        return "int" if -(2**63) <= part < 2**63 else None
    if type(part) is not Tensor or part.device.type != "cpu" or part.layout is not torch.strided:
        return None
    if part.requires_grad or part.is_quantized or part.numel() == 0:
        return None
    dtype = str(part.dtype).removeprefix("torch.")
    return [dtype, list(part.shape), list(torch.empty_like(part).stride())]


def _told(layout: Any) -> str:
    """Returns a layout in words.

    >>> _told([["uint8", [3, 2, 2], [4, 2, 1]], "int"])
    '(uint8 of shape (3, 2, 2), int)'
    """
    if layout == "int":
        return "int"
    if layout and isinstance(layout[0], str):
        dtype, shape, stride = layout
        is_usual = stride == list(torch.empty(shape, device="meta").stride())
        return f"{dtype} of shape {tuple(shape)}" + ("" if is_usual else f" and strides {tuple(stride)}")
    return f"({', '.join(map(_told, layout))})"


def _places(outlines: list[Any]) -> tuple[list[tuple[int, int, torch.dtype | None, Any, Any]], int]:
    """Returns where in a sample's bytes the parts begin and end, with dtype, shape and strides; and the last end."""
    places: list[tuple[int, int, torch.dtype | None, Any, Any]] = []
    end = 0
    for outline in outlines:
        begin = end
        if outline == "int":
            end += _INT.size
            places.append((begin, end, None, None, None))
        else:
            name, shape, stride = outline
            dtype = getattr(torch, name)
            end += math.prod(shape) * dtype.itemsize
            places.append((begin, end, dtype, shape, stride))
    return places, end


def _packed(sample: Any) -> bytes:
    return b"".join(map(_bytes, sample if type(sample) is tuple else (sample,)))


def _bytes(part: Any) -> Any:
    if isinstance(part, int):
        return _INT.pack(part)
    dense = torch.empty_like(part).copy_(part)
    return dense.as_strided((dense.numel(),), (1,)).view(torch.uint8).numpy()


def _head(key: Any, length: int, layout: Any) -> bytes:
    told = {"key": key, "length": length, "layout": layout, "byteorder": sys.byteorder}
    try:
        head = _MAGIC + json.dumps(told, sort_keys=True).encode() + b"\n"
    except TypeError as error:
        raise TypeError(
            f"the key must be strings, numbers, and lists and dicts of them, got {key!r}: {error}."
        ) from None
    return head.ljust(_whole_pages(len(head)), b"\0")


def _described(path: Path) -> dict[str, Any]:
    """Returns what a file's header says of it, by name; nothing if it has none."""
    with suppress(OSError, ValueError), open(path, "rb") as file:
        if file.readline() == _MAGIC:
            told: dict[str, Any] = json.loads(file.readline())
            key = told.pop("key")
            return told | (key if isinstance(key, dict) else {"key": key})
    return {}


def _whole_pages(size: int) -> int:
    return -(-size // _PAGE) * _PAGE


def _write(file: int, content: bytes, offset: int) -> None:
    """Writes all of the content; stores to the mapping would end the process where the disk is full."""
    while content:
        written = os.pwrite(file, content, offset)
        content, offset = content[written:], offset + written
