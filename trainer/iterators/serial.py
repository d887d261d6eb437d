"""Order and position of the data, and batches one after the other, fetched in the training process."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from trainer import random
from trainer.checks import at_least
from trainer.datasets.convert import as_tuple, concat_examples
from trainer.datasets.transform import EpochSetter, drawer, is_plain, single_thread
from trainer.iterators.bad_samples import MOST_TRIED, BadSampleError, BadSamples, Key
from trainer.saving.state import FORCED, Stateful

# Samples of a batch that follow one another in the order of an epoch: seed, epoch, position, how many, and indices: of
# these samples, then of those that may replace bad ones, which are the next in the order.
Stretch = tuple[int, int, int, int, list[int]]

Names = tuple[str, ...]
OrderSampler = Callable[[Any, int], Any]  # (current order, current position) -> new order
Collate = Callable[[list[Any]], Any]
Cursor = tuple[int, int, Any, int]  # after a batch: epoch, position, the epoch's order, and the samples in the batch
Made = tuple[Any, list[dict[str, Any]]]  # a batch, and the bad samples replaced in it


class BaseIterator(Stateful):
    """Counts epochs and the samples (or batches) of this one that were given out. A subclass fetches the batches.

    Args:
        length: Samples (or batches) in the data; None if unknown.
        repeat: Whether to go on after the first epoch.
        seed: By default the run's.

    Attributes:
        n_samples: Samples in the last batch; None where only the batch itself can tell.
    """

    saved: ClassVar[Names] = ("epoch", "current_position", "is_new_epoch", "previous_epoch_detail", "seed", "_length")
    settings: ClassVar[Names] = ("seed",)
    examples: ClassVar[dict[str, Any]] = {"previous_epoch_detail": 0.0, "_length": 0}
    _fetch: Callable[[], Any]  # returns the next batch, and moves epoch and position
    counts: ClassVar[tuple[str, str]] = ("samples", "data set")  # what, and of what: for messages

    def __init__(self, length: int | None, repeat: bool, seed: int | None) -> None:
        self.repeat = repeat
        self.seed = random.get_seed() if seed is None else at_least("seed", seed, 0)
        self.n_samples: int | None = None
        self._length = self.epoch_size = length
        self._workers: Any = None  # what fetches beside this thread: a pool, or a loader with processes
        self.reset()

    def reset(self) -> None:
        """Goes back to the beginning: the same order and augmentation come again."""
        self.epoch = self.current_position = 0
        self.is_new_epoch = False
        self.previous_epoch_detail: float | None = None
        self._batches: Any = None  # a pass over the data

    @property
    def epoch_detail(self) -> float:
        """Finished epochs and the fraction of this one, 0 if the length is unknown."""
        return self.epoch + (self.current_position / self.epoch_size if self.epoch_size else 0.0)

    def epoch_progress(self) -> tuple[int, int]:
        """Returns ``epoch_detail`` in integers: (samples given out, samples in an epoch)."""
        size = self.epoch_size
        return (self.epoch * size + self.current_position, size) if size else (self.epoch, 1)

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        """Returns the next batch."""
        before, epoch = self.epoch_detail, self.epoch
        if epoch > 0 and not self.repeat:
            self.previous_epoch_detail = before
            raise StopIteration
        batch = self._fetch()
        self.previous_epoch_detail = before
        self.is_new_epoch = self.epoch > epoch
        return batch

    next = __next__

    def finalize(self) -> None:
        """Ends workers; the next batch starts new ones. It may be called twice, and ends a ``with``."""
        self._workers = self._batches = None

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: object) -> None:
        self.finalize()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_workers": None, "_batches": None}  # a copy starts its own

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what ``state_dict`` returned: what was given out, never what is prefetched.

        Raises:
            ValueError: If the data have another length than they had. If forced, the current epoch starts again with
                the data of now.
        """
        difference = self._difference(state)
        if difference and not FORCED.get():
            raise ValueError(
                f"the snapshot was made with {difference}: restore them, start afresh, or start the epoch again with"
                " the data of now: trainer.resume(path, force=True)."
            )
        for name, most in (("epoch", 2**62), ("current_position", 2**62), ("seed", 2**63 - 1)):
            at_least(name, state[name], 0, most)
        before = state["previous_epoch_detail"]
        if before is not None and not (isinstance(before, (int, float)) and 0 <= before <= state["epoch"] + 1):
            raise ValueError(f"previous_epoch_detail must be 0 to {state['epoch'] + 1}, got {before}.")
        super().load_state_dict(state | {"length": self._length})
        if difference:
            self.current_position, self.previous_epoch_detail = 0, float(self.epoch)
        self._batches = None

    def _difference(self, state: dict[str, Any]) -> str | None:
        """Says how the data differ from those of a state; a length that was or is unknown is no difference."""
        length = state["length"]
        if None in (length, self._length) or length == self._length:
            return None
        return f"{length} {self.counts[0]} and the {self.counts[1]} now has {self._length}"


class Samples:
    """Makes batches of a data set, each sample with the randomness of its place in the run.

    The global generators are seeded for each sample. So its augmentation depends neither on what was drawn before nor
    on the process that makes it. A data set with ``draw_sample(index, generator)`` gets a generator in place of that.

    Args:
        dataset: Anything with integer indices.
        bad_samples: Replaces what the data set fails to give.
        collate_fn: Makes a batch of a list of samples; None leaves the list.
    """

    def __init__(self, dataset: Any, bad_samples: BadSamples, collate_fn: Collate | None) -> None:
        self.is_plain = is_plain(dataset) and collate_fn in (None, concat_examples)
        self.seeds_generators = not self.is_plain
        self._dataset = dataset
        self._draw_sample = drawer(dataset)
        self._set_epoch = EpochSetter(dataset) or None
        self._bad_samples = bad_samples
        self._collate_fn = collate_fn

    def batch(self, stretches: list[Stretch], run: Callable[..., Iterable[Any]] = map) -> Made:
        """Returns a batch and its bad samples; ``run`` calls a function with each key of samples of one epoch."""
        made: list[Any] = []
        for seed, epoch, position, size, indices in stretches:
            if self._set_epoch is not None:
                self._set_epoch(seed, random.SAMPLE, epoch)
            keys = [(seed, epoch, position + i, indices[i : len(indices) - size + i + 1]) for i in range(size)]
            made += run(self._get, keys)
        samples, bad = map(list, zip(*made, strict=True))
        return (samples if self._collate_fn is None else self._collate_fn(samples)), list(filter(None, bad))

    def __getitem__(self, stretches: list[Stretch]) -> Made | BadSampleError:
        """Returns a batch in a worker; an error too is returned, for torch would change one that is raised."""
        try:
            return self.batch(stretches)
        except BadSampleError as error:
            return error

    def _get(self, key: Key) -> tuple[Any, dict[str, Any] | None]:
        seed, epoch, position, candidates = key
        try:
            return self._make(seed, epoch, position, candidates[0]), None
        except Exception as error:  # whatever a data set may raise; a StopIteration would end the loop
            return self._bad_samples.replace(key, error, partial(self._make, seed, epoch, position))

    def _make(self, seed: int, epoch: int, position: int, index: int) -> Any:
        if self._draw_sample is not None:
            generator = torch.Generator()
            generator.manual_seed(random.derive(seed, random.SAMPLE, epoch, position))
            return self._draw_sample(index, generator)
        if self.seeds_generators:
            random.seed_generators(random.derive(seed, random.SAMPLE, epoch, position))
        return self._dataset[index]


class SerialIterator(BaseIterator):
    """Yields lists of samples, in order or shuffled. Chainer: ``iterators.SerialIterator``.

    With ``repeat`` every batch is full: one that reaches the epoch's end goes on with the next epoch's first samples.
    The order of an epoch is a function of (seed, epoch), and what a sample draws from Python's, NumPy's and torch's
    global generators one of (seed, epoch, position); the generators are put back after each batch.

    Args:
        dataset: Anything with ``len`` and integer indices. If it defines ``draw_sample(index, generator)``, that is
            called in place of ``dataset[index]``, with a ``torch.Generator`` seeded by (seed, epoch, position). If it
            defines ``set_epoch(epoch)``, that is called before the first sample of an epoch.
        batch_size: Samples in a batch.
        repeat: Whether to go on after the first epoch; if not, its last batch may be short.
        shuffle: Whether to draw a new order for each epoch; by default yes, unless there is an ``order_sampler``.
        order_sampler: Called as ``order_sampler(order, position)`` with the current order (an int array of shape
            (N,)) for the next epoch's, under generators seeded by (seed, epoch).
        seed: By default the run's, ``trainer.random.get_seed()``.
        on_bad_sample: What to do when the data set fails to give a sample: ``"raise"``, or ``"skip"`` to replace it by
            the first good one of those that follow in the epoch's order, drawn with the randomness of its place. Each
            bad sample is warned of once, and listed. A hundred in a row are an error all the same.

    Attributes:
        bad_samples: What was skipped so far, in the order of the run: dicts with ``"epoch"``, ``"position"`` (in the
            epoch's order), ``"index"``, ``"replaced_by"`` (the index of the other) and ``"error"``.
        bad_samples_file: Where that list is kept as JSON, unless it is empty: written now and then while it grows, and
            by ``finalize``. The updater and the Evaluator set it.
        n_samples: Samples in the last batch.

    Raises:
        ValueError: If the data set is empty, ``batch_size`` not positive, both ``shuffle`` and ``order_sampler``
            are given, or ``on_bad_sample`` is another word.
        BadSampleError: When a batch is fetched, if the data set fails to give a sample.

    Example:
        >>> from trainer.iterators import SerialIterator
        >>> iterator = SerialIterator(range(10), 4, shuffle=False)
        >>> for _ in range(3):
        ...     print(next(iterator), iterator.epoch, iterator.epoch_detail)
        [0, 1, 2, 3] 0 0.4
        [4, 5, 6, 7] 0 0.8
        [8, 9, 0, 1] 1 1.2
    """

    settings = ("batch_size", "shuffle")
    collate_fn: Collate | None = None

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        repeat: bool = True,
        shuffle: bool | None = None,
        order_sampler: OrderSampler | None = None,
        *,
        seed: int | None = None,
        on_bad_sample: str = "raise",
    ) -> None:
        if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            kind = type(dataset).__name__
            raise TypeError(
                f"dataset must have len() and [index], got {kind}: put what can only be iterated over into a list, or"
                " into an IterableDataset for a DataLoader."
            )
        if len(dataset) == 0:
            raise ValueError("the data set is empty: there is nothing to iterate over.")
        if shuffle is not None and order_sampler is not None:
            raise ValueError("give shuffle or order_sampler, not both: a sampler decides the order by itself.")
        self.dataset = dataset
        self.batch_size = at_least("batch_size", batch_size, 1)
        self.shuffle = shuffle is not False and order_sampler is None
        self.bad_samples = BadSamples(on_bad_sample, type(dataset).__name__)
        self.bad_samples_file: Path | None = None
        self._order_sampler = order_sampler
        self._samples = Samples(dataset, self.bad_samples, self.collate_fn)
        super().__init__(len(dataset), repeat, seed)

    def reset(self) -> None:
        """Goes back to the beginning: the same order and augmentation come again."""
        super().reset()
        self._order = self._new_order(0)
        self.epoch_size = len(self._order)

    def _new_order(self, epoch: int, before: Any = None, position: int = 0) -> Any:
        """Returns the indices of an epoch, a function of the seed and the epoch (and a sampler's last order)."""
        if self.shuffle:
            # RandomState, because NumPy promises that its stream will never change.
            generator = np.random.RandomState(random.derive(self.seed, random.ORDER, epoch) % 2**32)
            return generator.permutation(len(self.dataset))
        if self._order_sampler is None:
            return range(len(self.dataset))
        given = np.arange(len(self.dataset)) if before is None else before
        with random.preserved():
            random.seed_generators(random.derive(self.seed, random.SAMPLER, epoch))
            order = np.asarray(self._order_sampler(given, position))
        if len(order) == 0 or (before is not None and len(order) != len(before)):
            raise ValueError(f"the order_sampler returned {len(order)} indices, not {len(given)}: keep the size.")
        return order

    def _advance(self, epoch: int, position: int, order: Any) -> tuple[list[Stretch], Cursor]:
        """Returns what the next batch is to hold, and the cursor after it."""
        stretches, missing = [], self.batch_size
        n_spare = min(MOST_TRIED, len(order) - 1) if self.bad_samples.skips else 0
        while missing > 0:
            size = min(missing, len(order) - position)
            end = position + size + n_spare
            indices = map(int, chain(order[position:end], order[: max(0, end - len(order))]))
            stretches.append((self.seed, epoch, position, size, list(indices)))
            missing -= size
            begin, position = position, position + size
            if position == len(order):
                epoch, position = epoch + 1, 0
                if not self.repeat:
                    break
                order = self._new_order(epoch, order, begin)
        return stretches, (epoch, position, order, self.batch_size - missing)

    def _fetch(self) -> Any:
        (batch, skipped), cursor = self._next_batch()
        self.epoch, self.current_position, self._order, self.n_samples = cursor
        if skipped:
            self.bad_samples.add(skipped)
            self.bad_samples.write(self.bad_samples_file, growth=1.1)  # not for each one
        return batch if self.collate_fn is None else as_tuple(batch)

    def _next_batch(self) -> tuple[Made, Cursor]:
        stretches, cursor = self._advance(self.epoch, self.current_position, self._order)
        if self._samples.is_plain:
            return self._samples.batch(stretches), cursor
        with random.preserved(), single_thread():
            return self._samples.batch(stretches), cursor

    def finalize(self) -> None:
        """Ends workers, and writes the list of bad samples."""
        super().finalize()
        self.bad_samples.write(self.bad_samples_file)

    def state_dict(self) -> dict[str, Any]:
        """Returns position, seed and bad samples, and a sampler's order: the next may depend on it."""
        state = super().state_dict() | {"bad_samples": list(self.bad_samples)}
        if self._order_sampler is not None:
            state["order"] = torch.from_numpy(self._order.astype(np.int64))
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what :meth:`state_dict` returned, of an iterator with any number of workers.

        Raises:
            ValueError: If the data set has another length than it had, unless forced; or if one of the two has an
                ``order_sampler`` and the other has none.
        """
        own = {key: value for key, value in state.items() if key not in ("order", "bad_samples")}
        order = state.get("order")
        if (order is None) != (self._order_sampler is None):
            raise ValueError("snapshot and script must both have an order_sampler, or neither: keep what it had.")
        super().load_state_dict(own)
        self.bad_samples.load(state["bad_samples"])
        is_other = state["length"] != len(self.dataset)
        self._order = self._new_order(self.epoch) if order is None or is_other else order.numpy()
        self.epoch_size = at_least("the number of samples in the order", len(self._order), 1)
        at_least("current_position", self.current_position, 0, self.epoch_size - 1)
        for end in (np.min, np.max) if order is not None else ():
            at_least("an index of the order", end(self._order), -len(self.dataset), len(self.dataset) - 1)
