"""A DataLoader as an iterator."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from trainer import random
from trainer.datasets.convert import as_tuple
from trainer.iterators.workers import Workers
from trainer.saving.state import Stateful, is_forced


class DataLoaderIterator(Stateful):
    """Wraps a ``DataLoader`` so that its batches depend on (seed, epoch), and its position can be saved.

    The updater and the Evaluator wrap a loader themselves. An epoch is ``len(loader)`` batches, short ones included.
    Everything the loader does in this process runs under generators of its own, seeded for each epoch, so that it
    does not disturb the model's; a ``generator`` it was given is seeded likewise, and a sampler's ``set_epoch`` is
    called.

    A resumed map-style loader skips to its place without loading what it skips. What a data set draws in the
    loader's own workers is then other than it would have been until the next epoch begins (with
    ``persistent_workers`` to the end of the run): this is warned of. ``MultiprocessIterator`` is exact.

    Args:
        loader: A ``torch.utils.data.DataLoader``, of a map-style or iterable data set.
        repeat: Whether to go on after the first epoch.
        seed: By default the run's.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> from trainer.iterators import DataLoaderIterator
        >>> iterator = DataLoaderIterator(DataLoader(range(5), batch_size=3))
        >>> next(iterator), next(iterator), iterator.epoch
        (tensor([0, 1, 2]), tensor([3, 4]), 1)
    """

    settings = ("seed",)

    def __init__(self, loader: DataLoader[Any], repeat: bool = True, seed: int | None = None) -> None:
        self.loader = loader
        self.repeat = repeat
        self.seed = random.get_seed() if seed is None else seed
        try:
            self._length: int | None = len(loader)
        except TypeError:
            self._length = None  # an iterable data set of unknown length: an epoch ends when it does
        if self._length == 0:
            raise ValueError("the DataLoader has no batches: its data set is empty, or drop_last leaves nothing.")
        self.reset()

    def reset(self) -> None:
        """Goes back to the beginning: the same order comes again."""
        self.epoch = 0
        self.is_new_epoch = False
        self.previous_epoch_detail: float | None = None
        self._position = 0  # batches of this epoch that were given out
        self._batches: Iterator[Any] | None = None
        self._stream: random.Raw | None = None  # the global generators as the loader left them
        self._own: list[torch.Tensor] = []  # to be put back: the states of the generators that it was given

    @property
    def epoch_detail(self) -> float:
        """Finished epochs and the fraction of this one, 0 if the length is unknown."""
        return self.epoch + (self._position / self._length if self._length else 0.0)

    def epoch_progress(self) -> tuple[int, int]:
        """Returns ``epoch_detail`` in integers: (batches given out, batches in an epoch)."""
        if self._length is None:
            return self.epoch, 1
        return self.epoch * self._length + self._position, self._length

    def __iter__(self) -> DataLoaderIterator:
        return self

    def __next__(self) -> Any:
        """Returns the next batch."""
        if not self.repeat and self.epoch > 0:
            raise StopIteration
        before, is_new_epoch = self.epoch_detail, False
        while True:
            try:
                with self._own_generators():
                    if self._batches is None:
                        self._batches = self._open()
                    batch = next(self._batches)
                break
            except StopIteration:
                if self._position == 0:
                    raise ValueError(
                        "the DataLoader gave no batch in a whole epoch: is its data set used up?"
                    ) from None
                self._next_epoch()
                is_new_epoch = True
                if not self.repeat:
                    raise
            except BaseException:
                self._own = [generator.get_state() for generator in self._generators()]
                self._batches = None  # the next call opens the loader at this batch once more
                raise
        self.previous_epoch_detail = before
        self._position += 1
        if self._position == self._length:
            self._next_epoch()
            is_new_epoch = True
        self.is_new_epoch = is_new_epoch
        return as_tuple(batch)

    next = __next__

    def _next_epoch(self) -> None:
        self.epoch += 1
        self._position = 0
        self._batches = self._stream = None

    @contextmanager
    def _own_generators(self) -> Iterator[None]:
        with random.preserved():
            if self._stream is None:
                random.seed_generators(self._epoch_seed())
            else:
                random.put(self._stream)
            yield
            self._stream = random.take()

    def _generators(self) -> list[torch.Generator]:
        """Returns the generators that the loader and its samplers were given."""
        batch_sampler = self.loader.batch_sampler
        owners = (self.loader, self.loader.sampler, batch_sampler, getattr(batch_sampler, "sampler", None))
        found = [getattr(owner, "generator", None) for owner in owners]
        return list({id(g): g for g in found if isinstance(g, torch.Generator)}.values())

    def _epoch_seed(self) -> int:
        return random.derive(self.seed, random.LOADER, self.epoch)

    def _open(self) -> Iterator[Any]:
        """Starts the loader's epoch, at the place where a loaded state says it was."""
        for sampler in (self.loader.sampler, self.loader.batch_sampler):
            if set_epoch := getattr(sampler, "set_epoch", None):
                set_epoch(self.epoch)
        for generator in self._generators():
            generator.manual_seed(self._epoch_seed())
        if self._position == 0:
            return _batches_of(self.loader)

        # Resumed: the sampler draws as it did at the epoch's start, then the generators go on where they were.
        loader, stream = self.loader, self._stream
        assert stream is not None
        random.seed_generators(self._epoch_seed())
        if loader.num_workers > 0:
            warnings.warn(
                "a DataLoader with workers is resumed in mid-epoch: its order is exact, but what the data set draws"
                " at random in the workers differs until the next epoch"
                + (" (here, with persistent_workers, to the end)" if loader.persistent_workers else "")
                + "; MultiprocessIterator resumes exactly.",
                stacklevel=4,
            )
        if loader.batch_sampler is None or isinstance(loader.dataset, IterableDataset):
            batches = _batches_of(loader)
            for _ in islice(batches, self._position):  # there is no index to skip by: load, and drop
                pass
        else:
            torch.empty((), dtype=torch.int64).random_(generator=loader.generator)  # as iter(loader) does first
            rest = iter(loader.batch_sampler)
            for _ in islice(rest, self._position):
                pass
            batches = _batches_of(_with_batches(loader, rest))
        random.put(stream)
        for generator, own in zip(self._generators(), self._own, strict=True):
            generator.set_state(own)
        return batches

    def finalize(self) -> None:
        """Ends the loader's workers, unless they are persistent: then they are the loader's own."""
        self._batches = None

    def state_dict(self) -> dict[str, Any]:
        """Returns epoch, batches given out of it, and the state of the loader's generators."""
        is_to_open = self._batches is None and self._position > 0
        return {
            "epoch": self.epoch,
            "position": self._position,
            "is_new_epoch": self.is_new_epoch,
            "previous_epoch_detail": self.previous_epoch_detail,
            "stream": None if self._stream is None else random.pack(self._stream),
            "own": self._own if is_to_open else [generator.get_state() for generator in self._generators()],
            "seed": self.seed,
            "length": self._length,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what :meth:`state_dict` returned.

        Raises:
            ValueError: If the loader has another number of batches than it had. If that is forced, the epoch under
                way begins anew with the data of now.
        """
        is_other = state["length"] != self._length
        if is_other and not is_forced():
            raise ValueError(
                f"the snapshot was made with {state['length']} batches an epoch and the DataLoader now has"
                f" {self._length}: its order cannot be continued; bring data and batch size back, start afresh, or"
                " begin the epoch anew with the data of now: trainer.resume(path, force=True)."
            )
        if state["seed"] != self.seed:
            self.seed = state["seed"]
        self.epoch, self._position, self._own = state["epoch"], state["position"], state["own"]
        self._stream = None if state["stream"] is None else random.unpack(state["stream"])
        self.is_new_epoch = state["is_new_epoch"]
        self.previous_epoch_detail = state["previous_epoch_detail"]
        self._batches = None
        if is_other:
            self._position, self._stream, self.previous_epoch_detail = 0, None, float(self.epoch)


def _batches_of(loader: DataLoader[Any]) -> Iterator[Any]:
    return Workers(loader) if loader.num_workers > 0 else iter(loader)


def _with_batches(loader: DataLoader[Any], batches: Iterator[list[Any]]) -> DataLoader[Any]:
    """Returns a loader like the one given, over these batches of indices."""
    return DataLoader(
        loader.dataset,
        batch_sampler=batches,  # an iterator will do: it is iterated over once
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=loader.generator,
        prefetch_factor=loader.prefetch_factor,
    )


def as_iterator(source: Any, repeat: bool = True) -> Any:
    """Returns an iterator: a ``DataLoader`` wrapped, an iterator as it is.

    Raises:
        TypeError: If it is neither.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> from trainer.iterators import as_iterator
        >>> type(as_iterator(DataLoader(range(4)))).__name__
        'DataLoaderIterator'
    """
    if isinstance(source, DataLoader):
        return DataLoaderIterator(source, repeat)
    if not hasattr(source, "epoch_detail" if repeat else "__next__"):  # an evaluation asks for no progress
        raise TypeError(
            f"expected an iterator or a DataLoader, got {type(source).__name__};"
            " e.g. trainer.iterators.SerialIterator(dataset, batch_size)."
        )
    return source
