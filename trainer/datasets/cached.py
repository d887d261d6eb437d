"""What a data set makes of its files (decoded, scaled, cropped), kept in one memory-mapped file.

The file begins with a readable header; then come the samples, each with a mark of 8 bytes behind it, which holds a
checksum of its index and its content. A sample is written front to back, and every process verifies it the first time
it reads it. So nothing needs to be flushed or locked: what a kill or a loss of power has left half-done has no mark or
a wrong one, and is made again.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import secrets
import shutil
import sys
import zlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from trainer import random
from trainer.checks import warn
from trainer.datasets.layout import Layout
from trainer.datasets.transform import drawer, single_thread
from trainer.saving.files import refuse_other, regular

__all__ = ["CachedDataset", "describe_files"]

_MAGIC = b"KUSARI CACHE 3\n"
_MARK = 8  # bytes, after a sample
_MOST_TRIED = 100  # samples, to find a good one at the start

_RANDOM = (
    "its samples are not the same each time, and the cache would freeze them. Put what is random behind it:"
    " TransformDataset(CachedDataset(...), augment)."
)

_Path = str | os.PathLike[str]


class CachedDataset(Dataset[Any]):
    """A data set whose samples are made once, and from then on come from a memory-mapped file, to the bit as before.

    It goes around what is slow and always gives the same: reading, decoding, scaling. What is random goes behind it:
    ``TransformDataset(CachedDataset(images, "cache/train", key), augment)``.

    The file is filled by whoever makes a sample first: on the first pass, in any order, by any number of workers and
    of runs at once, which share it. A process may be killed and the power may fail at any moment: what is not whole is
    made again. A sample that the data set fails to give raises as it would without the cache, and is not kept.

    The key says what decides the samples, for the cache cannot see it: the files, the transform's parameters, the
    versions of what decodes and scales. For an ``ImageFolder``:
    ``{"files": describe_files([path for path, _ in folder.samples]), "transform": repr(folder.transform)}``.
    Another key, length or shape makes another file, with a warning of older ones of the same name; remove them when no
    run needs them. At the start up to three samples are made and compared with those in the file, which finds most
    keys that lack something.

    Where the file cannot be written any more, on a full disk say, a warning says so and the run goes on with the same
    samples, made again each time. The file may be removed while a run uses it, but not cut short. A sample that was
    read is the caller's own copy; one whose memory is contiguous is put into a batch much faster.

    Args:
        dataset: Anything with ``len`` and integer indices that always gives the same sample for an index: a tensor, or
            a tuple of tensors and ints, each of one dtype and shape.
        path: Where the file is to stand, without its ending: ``"cache/train"`` makes ``cache/train-<hash>.cache``,
            and the folder, if it is missing.
        key: Strings, numbers, and lists and dicts of them.

    Attributes:
        path: The file.

    Raises:
        TypeError: If the key holds anything else.
        ValueError: If the data set is random, if its samples are of another kind or not all alike (when the first
            such sample is made), or if the file holds other samples than it gives.
        OSError: If the file cannot be created, the disk has no room for it, or something else stands in its place, a
            cache cut short say: that is left as it is.

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

    _layout: Any = None  # of every sample

    def __init__(self, dataset: Any, path: _Path, key: Any) -> None:
        self.dataset = dataset
        self._name = type(dataset).__name__
        if drawer(dataset) is not None:
            raise ValueError(f"{self._name} defines draw_sample: {_RANDOM}")
        self._length = len(dataset)
        some = self._some_samples()
        facts = {"key": key, "length": self._length, "layout": self._layout.words, "byteorder": sys.byteorder}
        self._head = _head(facts)
        self._size = len(self._head) + self._length * (self._layout.size + _MARK)
        name = f"{Path(path).name}-{hashlib.sha256(self._head).hexdigest()[:16]}.cache"
        self.path = Path(path).parent.resolve() / name
        self._is_writable = True
        self._open()
        for index, sample in some.items():
            if self._is_there(index) and self._records[index, :-_MARK].tobytes() != self._layout.pack(sample):
                raise ValueError(
                    f"{self.path} holds another sample {index} than {self._name} gives now: say in the key what has"
                    " changed (a file, a parameter, a version), or remove the cache."
                )

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._length))]
        index = range(self._length)[index]
        if self._is_verified[index] or self._is_there(index):
            return self._layout.unpack(self._records[index])
        return self._add(index)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_records": None, "_is_verified": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Opens the file, in a worker that was not forked: what it cannot open or create, it does without."""
        self.__dict__.update(state)
        try:
            self._open()
        except OSError as error:
            self._records = np.broadcast_to(np.uint8(0), (self._length, self._layout.size + _MARK))
            self._stop_writing(error)

    # -- samples

    def _some_samples(self) -> dict[int, Any]:
        """Returns the first, middle and last sample by their indices; others in place of bad ones.

        Raises:
            ValueError: If they are not the same each time, or not alike.
        """
        n, some, errors = self._length, {}, []
        for index in dict.fromkeys((*(0, n // 2, n - 1)[:n], *range(min(n, _MOST_TRIED)))):
            before = random.raw_state()
            try:
                made = [self._make(index), self._make(index)]
            except Exception as error:  # it is raised when this sample is asked for
                errors.append(error)
                continue
            for sample in made:
                self._check(index, sample, before)
            if len(set(map(self._layout.pack, made))) > 1:
                raise ValueError(f"{self._name} gives another sample {index} each time: {_RANDOM}")
            some[index] = made[0]
            if len(some) == 3:
                break
        if not some:
            raise errors[0] if errors else ValueError("the data set is empty: there is nothing to cache.")
        return some

    def _make(self, index: int) -> Any:
        with single_thread():  # as the iterators do
            return self.dataset[index]

    def _check(self, index: int, sample: Any, before: random.Raw) -> None:
        """Refuses a sample that random numbers decide, and one that is not like the first."""
        if random.has_drawn(before):
            raise ValueError(f"{self._name} draws from a global random generator: {_RANDOM}")
        layout = Layout(sample, f"sample {index} of {self._name}")
        self._layout = self._layout or layout
        if layout.words != self._layout.words:
            raise ValueError(
                f"sample {index} of {self._name} is {layout.words}, and the first one {self._layout.words}: the cache"
                " keeps samples that are all alike. Make them so in a transform before it, or leave the cache out."
            )

    def _is_there(self, index: int) -> bool:
        """Tells whether a sample is in the file, and whole."""
        content, mark = np.split(self._records[index], [-_MARK])
        if mark.any():
            self._is_verified[index] = mark.tobytes() == _mark(index, content)
            if not self._is_verified[index]:
                warn(f"{self.path} has damaged samples, from a loss of power say: they are made again.")
        return bool(self._is_verified[index])

    def _add(self, index: int) -> Any:
        """Returns a sample that is not in the file, and puts it there."""
        before = random.raw_state()
        sample = self._make(index)
        self._check(index, sample, before)
        content = self._layout.pack(sample)
        if self._is_writable:
            try:
                flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK
                with open(os.open(self.path, flags), "r+b") as file:  # a store to the mapping would die of a full disk
                    if not os.path.samestat(os.fstat(file.fileno()), self._status):
                        raise FileExistsError(errno.EEXIST, "another file has taken its place")
                    file.seek(len(self._head) + index * self._records.shape[1])
                    file.write(content + _mark(index, content))
            except OSError as error:
                self._stop_writing(error)
        return self._layout.unpack(np.frombuffer(content, np.uint8))  # as it will be read, down to the strides

    # -- the file

    def _open(self) -> None:
        self._is_verified = bytearray(self._length)  # by this process, or the one it was forked from
        if not os.path.lexists(self.path):
            self._create()
        refuse_other(self.path, links=False)
        with open(self.path, "rb", opener=regular) as file:
            self._status = os.fstat(file.fileno())  # of the file, and not of another that takes its place
            found, wanted = self._status.st_size, self._size
            if found != wanted or file.read(len(self._head)) != self._head:
                told = f"{found} bytes, and {wanted} are wanted" if found != wanted else "it begins otherwise"
                told = f"a file that is not this cache, or not whole ({told}), stands there: remove it, or name another"
                raise FileExistsError(errno.EEXIST, told, str(self.path))
            content = np.asarray(np.memmap(file, mode="r"))
        self._records = content[len(self._head) :].reshape(self._length, self._layout.size + _MARK)

    def _create(self) -> None:
        """Makes the file without samples, all of it at once; not over another process's."""
        temporary = self.path.with_name(f".{self.path.name}.{secrets.token_hex(8)}.tmp")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.path.parent).free
            if self._size > free:  # in the end the snapshots would find no room either, and stop the run
                raise OSError(errno.ENOSPC, f"it needs {self._size / 1e6:,.0f} MB and {free / 1e6:,.0f} MB are free")
            with open(temporary, "xb") as file:
                file.write(self._head)
                file.truncate(self._size)
            with suppress(FileExistsError):  # another process was faster: its file is as good
                os.link(temporary, self.path)
        except OSError as error:
            message = f"the cache cannot be created: {error.strerror}; name another folder, or leave the cache out"
            raise OSError(error.errno, message, str(self.path)) from error
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        self._warn_of_others()

    def _warn_of_others(self) -> None:
        """Warns of the files of the same name that were made for something else."""
        start = glob.escape(self.path.name[: -len("0123456789abcdef.cache")])
        own = _described(self.path)
        for path in sorted(self.path.parent.glob(f"{start}{'[0-9a-f]' * 16}.cache")):
            if path != self.path and (other := _described(path)):
                names = [name for name in {**own, **other} if own.get(name) != other.get(name)]
                size = path.stat().st_blocks * 512 / 1e6
                warn(f"{path} ({size:,.0f} MB) was made with other {', '.join(names)}: remove it if no run needs it.")

    def _stop_writing(self, error: OSError) -> None:
        self._is_writable = False
        warn(
            f"{self.path} cannot be filled any further ({error.strerror}): the run goes on with the same samples, and"
            " makes those that are not in it again each time. Before the next run free some space, or name another"
            " folder."
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
    for path in paths:
        found: tuple[int, int | None] = 0, None  # of a missing file, which is an error when it is asked for
        with suppress(OSError):
            status = os.stat(os.path.join(root, path))
            found = status.st_size, status.st_mtime_ns
        digest.update(os.fsencode(path) + f"\0{found}\0".encode())
        files, size = files + 1, size + found[0]
    return {"files": files, "bytes": size, "hash": digest.hexdigest()[:16]}


def _head(facts: dict[str, Any]) -> bytes:
    try:
        head = _MAGIC + json.dumps(facts, sort_keys=True).encode() + b"\n"
    except TypeError as error:
        raise TypeError(f"the key must be strings, numbers, and lists and dicts of them: {error}.") from None
    return head.ljust(-(-len(head) // 4096) * 4096, b"\0")  # whole pages


def _described(path: Path) -> dict[str, Any]:
    """Returns what a file's header says of it, by name; nothing if it has none."""
    with suppress(OSError, ValueError, TypeError, KeyError), open(path, "rb", opener=regular) as file:
        if (magic := file.readline(99)).startswith(b"KUSARI CACHE"):
            facts: dict[str, Any] = json.loads(file.readline())
            key = facts.pop("key")
            return facts | (key if isinstance(key, dict) else {"key": key}) | {"format of the cache": magic}
    return {}


def _mark(index: int, content: Any) -> bytes:
    """Returns what stands behind a sample that is there: a checksum of index and content, and a bit always set."""
    return (1 << 32 | zlib.crc32(content, index)).to_bytes(8, sys.byteorder)
