"""A DataLoader as an iterator."""

from __future__ import annotations

from collections.abc import Iterable
from operator import length_hint
from typing import Any

from torch import nn
from torch.utils.data import DataLoader

from trainer.checks import at_least, warn
from trainer.datasets.convert import as_tuple
from trainer.datasets.transform import is_plain
from trainer.iterators.serial import BaseIterator
from trainer.iterators.sources import certain_length, has_state, has_workers, source_of

_END: Any = object()


class DataLoaderIterator(BaseIterator):
    """Wraps a ``DataLoader`` so that each batch is a function of (seed, epoch, batch), and its position can be saved.

    The updater and the Evaluator wrap a loader themselves. It is iterated in a copy, so that other uses of it change
    nothing here. At the start of an epoch ``set_epoch`` is called where the data set, the sampler or the batch sampler
    has it. Samplers, the data set and ``collate_fn`` draw under generators that are seeded for each batch, in this
    process or a worker, and do not disturb the model's; a ``generator`` that the loader was given is seeded likewise.

    An epoch ends when the loader does. ``len(loader)`` is a forecast: progress stays below the next whole epoch until
    the loader has ended. To know that at the last batch the iterator looks ahead, by one batch of indices where the
    data have indices, else by one batch of data.

    A resumed map-style loader skips to its position without loading what it skips, and is exact with workers too. A
    loader of an iterable data set is read up to its position. It is exact, unless something goes on from one epoch to
    the next: workers (``persistent_workers``), or an iterator that the loader keeps, as timm's
    ``MultiEpochsDataLoader`` does. A resume then warns. A loader with ``state_dict`` and ``load_state_dict``, such as
    torchdata's, is saved and resumed by these.

    Two settings of the loader do not count: batches come in order even with ``in_order=False``, and workers of an
    iterable data set that has ``set_epoch`` are started for each epoch, for they would not hear of a new one.

    Args:
        loader: A ``torch.utils.data.DataLoader``, of a map-style or iterable data set, or another iterable with
            ``state_dict`` and ``load_state_dict``.
        repeat: Whether to go on after the first epoch.
        seed: By default the run's.
        epoch_length: Batches in an epoch, for endless streams. The loader is opened again where it ends, which may be
            within an epoch, and not at each epoch's start; ``set_epoch`` is given the number of such a pass, and a
            resume begins at the start of the pass.

    Attributes:
        n_samples: Samples in the last batch; None where only the batch can tell: of a loader with ``batch_size=None``,
            or with an ``__iter__`` or a state of its own.

    Raises:
        ValueError: If the loader has no batches.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> from trainer.iterators import DataLoaderIterator
        >>> iterator = DataLoaderIterator(DataLoader(range(5), batch_size=3))
        >>> next(iterator), next(iterator), iterator.epoch
        (tensor([0, 1, 2]), tensor([3, 4]), 1)
    """

    counts = ("batches an epoch", "DataLoader")
    _first_state: Any = None  # of a loader with a state of its own: that of its first batch

    def __init__(
        self, loader: Any, repeat: bool = True, seed: int | None = None, *, epoch_length: int | None = None
    ) -> None:
        self.loader = loader
        self.epoch_length = None if epoch_length is None else at_least("epoch_length", epoch_length, 1)
        length = certain_length(loader)
        if length == 0:
            raise ValueError("the DataLoader has no batches: its data set is empty, or drop_last leaves nothing.")
        super().__init__(length, repeat, seed)
        self.epoch_size = self._forecast()

    def reset(self) -> None:
        """Goes back to the beginning: the same order and augmentation come again."""
        if self._workers is not None and (self._workers.has_state or self._workers.draws_on()):
            self._close()
        super().reset()
        self._place = (0, 0)  # the number of the pass over the loader, and its batches that were given out
        self._state = self._first_state  # a loader's own, at this place
        self._is_loaded = True  # whether it has to be put back

    @property
    def epoch_detail(self) -> float:
        """Finished epochs and the fraction of this one, below 1 until the loader has ended; 0 if it has no length."""
        n, size = self.current_position, self.epoch_size
        return self.epoch + (n / max(size, n + 1) if size else 0.0)

    def epoch_progress(self) -> tuple[int, int]:
        """Returns ``epoch_detail`` in integers: (batches given out, batches in an epoch)."""
        if not self.epoch_size:
            return self.epoch, 1
        size = max(self.epoch_size, self.current_position + 1)
        return self.epoch * size + self.current_position, size

    def _fetch(self) -> Any:
        number, n = self._place
        try:
            if self._batches is None:
                self._open(number, n)
            while (made := next(self._batches, _END)) is _END:
                number, n = self._after(number, n)
            source, position = self._batches, self.current_position + 1
            is_over = (self.epoch_length is None or source.has_state) and source.is_over()
        except BaseException:
            if self._place == (number, n):
                self._keep_state()
            self._close()  # the next call opens the loader at this batch once more
            raise
        self._place, self._is_loaded, (self.n_samples, batch) = (number, n + 1), False, made
        is_last = is_over if self.epoch_length is None else position >= self.epoch_length
        self.epoch, self.current_position = (self.epoch + 1, 0) if is_last else (self.epoch, position)
        if is_over:
            self._keep_state()
            self._place, self._batches = (number + 1, 0), None
            source.close()
        return as_tuple(batch)

    def _open(self, number: int, n: int) -> None:
        """Begins a pass over the loader, at its batch ``n``."""
        if self._workers is None:
            self._workers = source_of(self.loader)
        source = self._workers
        source.open(self.seed, number, n, self._state if self._is_loaded else None)
        if self._is_loaded and (number, n) != (0, 0) and source.draws_on():
            warn(
                "the DataLoader keeps an iterator or workers from one epoch to the next, and cannot be resumed exactly:"
                " what is drawn at random after the resume may differ from an uninterrupted run."
            )
        elif self._is_loaded and n > 0 and source.has_state and source.has_workers and not is_plain(source.dataset):
            warn(
                f"{type(self.loader).__name__} resumes by its own state, without the random generators of its workers:"
                " what is drawn in them differs from an uninterrupted run until the next epoch."
            )
        self._batches = source
        if (number, n) == (0, 0):
            self._first_state = source.state()
        if self.current_position == 0:
            self.epoch_size = self._forecast()

    def _after(self, number: int, n: int) -> tuple[int, int]:
        """Begins the pass after one that has ended, and returns its place."""
        if n == 0:
            raise ValueError("the DataLoader gave no batch in a whole epoch: is its data set used up?")
        if self.epoch_length is None and self.current_position > 0:  # resumed, with fewer data than there were
            self.epoch, self.current_position = self.epoch + 1, 0
            if not self.repeat:
                raise StopIteration
        self._state, self._is_loaded = None, False
        self._open(number + 1, 0)
        return number + 1, 0

    def _forecast(self) -> int | None:
        """Returns how many batches the epoch will have, as far as somebody knows."""
        if self.epoch_length is not None:
            return self.epoch_length
        try:
            return length_hint(self.loader) or None
        except Exception:  # of a __len__ of the user's
            return None

    def _close(self) -> None:
        if self._workers is not None:
            self._workers.close(for_good=True)
        self._workers, self._batches, self._is_loaded = None, None, True

    def _keep_state(self) -> None:
        if self._batches is not None:
            self._state = self._batches.state()

    def finalize(self) -> None:
        """Ends workers; the next batch starts new ones."""
        self._keep_state()
        self._close()

    def state_dict(self) -> dict[str, Any]:
        """Returns position and seed; where they are not enough, the place in the pass, and a loader's own state."""
        self._keep_state()
        stream: dict[str, Any] = {}
        if self._place != (self.epoch, self.current_position):
            stream = dict(zip(("pass", "batch"), self._place, strict=True))
        if self._state is not None:
            stream["loader"] = self._state
        if self.current_position > 0:
            stream |= {"size": self.epoch_size, "batch_size": self._batch_size()}
        return super().state_dict() | {"stream": stream}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what :meth:`state_dict` returned.

        Raises:
            ValueError: If an epoch has another number of batches than it had, or the epoch was begun with another
                batch size. If forced, the current epoch starts again with the loader of now.
        """
        super().load_state_dict(state)
        is_same = self.current_position == state["current_position"]
        stream = state.get("stream", {}) if is_same else {}
        self._place = stream.get("pass", self.epoch), stream.get("batch", self.current_position)
        at_least("current_position", self.current_position, 0, (self.epoch_length or self._length or 2**62) - 1)
        for name, n, most in zip(("pass", "batch"), self._place, (2**62, self._length or 2**62), strict=True):
            at_least(name, n, 0, most)
        self._state, self._is_loaded = stream.get("loader"), True
        size = stream.get("size", self._forecast())
        self.epoch_size = self.epoch_length or (None if size is None else at_least("size", size, 1))

    def _difference(self, state: dict[str, Any]) -> str | None:
        before, now = state.get("stream", {}).get("batch_size"), self._batch_size()
        if None not in (before, now) and before != now:
            return f"batches of {before} samples and the {self.counts[1]} now has batches of {now}"
        return super()._difference(state)

    def _batch_size(self) -> int | None:
        size = getattr(getattr(self.loader, "batch_sampler", None), "batch_size", None)
        return size if isinstance(size, int) else None


def refuse_shared_loaders(iterators: Iterable[tuple[str, Any]]) -> None:
    """Refuses a loader with persistent workers, or with a state of its own, that two iterators wrap.

    Args:
        iterators: Each with words that say in a message what it is.

    Raises:
        ValueError: If two wrap one such loader.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> from trainer.iterators import DataLoaderIterator, refuse_shared_loaders
        >>> loader = DataLoader(range(4), num_workers=1, persistent_workers=True)
        >>> first, second = DataLoaderIterator(loader), DataLoaderIterator(loader)
        >>> named = [("the updater's iterator", first), ("the Evaluator's", second)]
        >>> refuse_shared_loaders(named)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: the updater's iterator and the Evaluator's are one DataLoader, whose workers or position ...
    """
    found: dict[int, tuple[str, Any]] = {}
    for words, iterator in iterators:
        loader = getattr(iterator, "loader", None)
        if not (has_state(loader) or (has_workers(loader) and getattr(loader, "persistent_workers", False))):
            continue
        other, owner = found.setdefault(id(loader), (words, iterator))
        if owner is not iterator:
            raise ValueError(
                f"{other} and {words} are one {type(loader).__name__}, whose workers or position would be those of"
                " both: make a second one with the same arguments, one for each."
            )


_TRAINS = ("__next__", "epoch", "epoch_detail", "is_new_epoch", "state_dict", "load_state_dict", "finalize")


def as_iterator(source: Any, repeat: bool = True) -> Any:
    """Returns an iterator: a ``DataLoader`` wrapped, or another iterable with a state; an iterator as it is.

    Raises:
        TypeError: If it is neither.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> from trainer.iterators import as_iterator
        >>> type(as_iterator(DataLoader(range(4)))).__name__
        'DataLoaderIterator'
    """
    is_stateful = hasattr(source, "__iter__") and has_state(source) and not hasattr(source, "__next__")
    if isinstance(source, DataLoader) or (is_stateful and not isinstance(source, nn.Module)):
        return DataLoaderIterator(source, repeat)
    needed = _TRAINS if repeat else ("__next__",)  # an evaluation asks for no progress
    if lacks := [name for name in needed if not hasattr(source, name)]:
        kind, remedy = type(source).__name__, f"it lacks {', '.join(lacks)}; e.g. SerialIterator(dataset, batch_size)"
        if hasattr(source, "__len__") and hasattr(source, "__getitem__"):
            remedy = "a data set needs an iterator, SerialIterator(dataset, batch_size=32)"
        elif hasattr(source, "__next__") and "epoch" in lacks:
            remedy = "it cannot begin anew for the next epoch; give the DataLoader, or what it was made of"
        raise TypeError(f"expected an iterator or a DataLoader, got {kind}: {remedy}.")
    return source
