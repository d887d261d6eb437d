"""What gives a DataLoader's batches, pass after pass, so that each is a function of its place in the run.

Whatever is drawn for a batch is drawn under seeds of (seed, pass, batch). So a pass can be begun at any batch, and
looking ahead changes nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, default_collate, default_convert

from trainer import random
from trainer.datasets.convert import concat_examples
from trainer.datasets.transform import EpochSetter, is_plain, single_thread
from trainer.iterators.indices import Ahead, Indices, Seeds, is_known
from trainer.iterators.workers import Workers

_COLLATES = (default_collate, default_convert, concat_examples)  # that draw nothing

Batch = tuple[int | None, Any]  # the samples in it, if that is known, and the batch


def source_of(loader: Any) -> Source:
    """Returns what gives a loader's batches."""
    if has_state(loader) or not isinstance(loader, DataLoader) or type(loader).__iter__ is not DataLoader.__iter__:
        return Stream(loader)
    # torch warns where an iterable data set gives more than it said when it was asked for a forecast.
    changes: dict[str, Any] = {"_iterator": None, "_IterableDataset_len_called": None, "in_order": True}
    if loader.batch_sampler is not None:
        changes["collate_fn"] = _Counted(loader.collate_fn)
    if isinstance(loader.dataset, IterableDataset):
        if EpochSetter(loader.dataset):  # persistent workers would keep their copies, of the first epoch
            changes["persistent_workers"] = False
        return Stream(loader, _changed(loader, changes))
    return Indexed(loader, changes)


def has_state(loader: Any) -> bool:
    """Tells whether a loader saves its position by itself, as those of torchdata do."""
    return hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict")


def has_workers(loader: Any) -> bool:
    """Tells whether a loader has worker processes; one that is none of torch's may say None."""
    return (getattr(loader, "num_workers", 0) or 0) > 0


def certain_length(loader: Any) -> int | None:
    """Returns the batches in a pass, unless they may be more or fewer in another pass, or than ``len`` says."""
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return None
    sampler: Any = loader.batch_sampler if loader.batch_sampler is not None else loader.sampler
    is_certain = is_known(sampler) or (has_state(loader) and type(sampler).__module__.startswith("torchdata."))
    return len(sampler) if is_certain and not EpochSetter(loader.dataset) else None


class Source:
    """Opens passes over a loader, and gives their batches.

    Args:
        given: The loader as the user made it.
        loader: What is iterated: a copy of it where it can be one, so that other uses of the loader go their own way.
    """

    has_state = False  # whether the loader saves its position by itself
    start: Callable[[int, Any], None]  # begins the pass that the generators are seeded for
    is_over: Callable[[], bool]  # whether the pass has no more batches; looks ahead for that
    __next__: Callable[[], Batch]

    def __init__(self, given: Any, loader: Any) -> None:
        self.loader = loader
        self.n = 0  # batches of the pass that were given
        batch_sampler = getattr(given, "batch_sampler", None)
        samplers = getattr(given, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None)
        self.dataset = getattr(given, "dataset", None)
        self._with_epoch = self.dataset, given, *samplers
        found = [getattr(part, "generator", None) for part in (given, *samplers)]
        self._seeds = Seeds(list({id(g): g for g in found if isinstance(g, torch.Generator)}.values()))
        self._has_iterator = any(hasattr(part, "__next__") for part in samplers)
        self.has_workers = has_workers(given)
        self._is_quiet = False  # whether no batch draws anything in this process
        self._batches: Iterator[Any] = iter(())

    def open(self, seed: int, number: int, n: int = 0, state: Any = None) -> None:
        """Begins a pass at its batch ``n``; ``state`` is that of a loader which has one."""
        self.close()
        self._seeds.words = (seed, random.LOADER, number)
        self._set_epoch = EpochSetter(*self._with_epoch)
        with random.preserved():
            self._set_epoch(*self._seeds.words)
            self._seeds.start()
            self.start(n, state)
        self.n = n

    def close(self, for_good: bool = False) -> None:
        """Ends workers that are not to outlive the pass, or all."""
        if isinstance(self._batches, Workers) and (for_good or not self.loader.persistent_workers):
            self._batches.close()

    def state(self) -> Any:
        """Returns the loader's own state, that from before a look ahead; None if it has none."""
        return None

    def draws_on(self) -> bool:
        """Tells whether something goes on from one pass to the next that no seed and no state covers."""
        return self._has_iterator

    def iterate(self) -> Iterator[Any]:
        """Starts the loader."""
        if getattr(self.loader, "persistent_workers", False) and self.loader._iterator is not None:
            # New workers need a seed, which is drawn before the order is; the order is to be the same without them.
            torch.empty((), dtype=torch.int64).random_(generator=self.loader.generator)
        return Workers(self.loader) if self.has_workers and isinstance(self.loader, DataLoader) else iter(self.loader)

    def ask(self, k: int) -> Any:
        """Asks the loader for the batch ``k``, under the generators that are seeded for it."""
        if self._set_epoch:
            self._set_epoch(*self._seeds.words)
        if self._is_quiet:
            return next(self._batches)
        with random.preserved(), single_thread():
            self.seed(k)
            return next(self._batches)

    def seed(self, k: int) -> None:
        """Seeds the generators in this process for the batch ``k``."""
        self._seeds.start(2 * k + 1)


class Indexed(Source):
    """Gives the batches of a map-style data set. It looks ahead by one batch of indices, which costs no data."""

    def __init__(self, given: DataLoader[Any], changes: dict[str, Any]) -> None:
        kind = "sampler" if given.batch_sampler is None else "batch_sampler"
        super().__init__(given, given)
        # Workers that do not outlive a pass start after set_epoch.
        sets_epoch = self.has_workers and given.persistent_workers and bool(EpochSetter(given.dataset))
        draws_none = is_plain(given.dataset) and given.collate_fn in _COLLATES
        seeds_workers = self.has_workers and not draws_none
        self._indices = Indices(getattr(given, kind), self._seeds, seeds_workers, sets_epoch)
        self.loader = _changed(given, changes | {kind: self._indices})
        self._is_quiet = draws_none or self.has_workers
        self._is_counted = "collate_fn" in changes

    def start(self, n: int, state: Any) -> None:
        """Begins the pass that the generators are seeded for, at its batch ``n``, without loading what is skipped."""
        self._indices.start(n)
        self._batches = self.iterate()
        self._indices.look()  # the first draw, under the seeds of the pass

    def __next__(self) -> Batch:
        if self._indices.n_handed == self.n and not self._indices.look():
            self._indices.take()  # raises the error that is there, or the end
        try:
            made = self.ask(self.n)
        except StopIteration as error:  # of the data set or collate_fn: it would pass for the end
            told = f"the data of batch {self.n} ended with StopIteration, before the indices did."
            raise RuntimeError(told) from error
        self.n += 1
        return made if self._is_counted else (None, made)

    def is_over(self) -> bool:
        """Tells whether the pass has no more batches; an error of the sampler is that of the next batch."""
        return self._indices.n_handed == self.n and self._indices.is_at_end()


class Stream(Source, Ahead):
    """Gives the batches of an iterable data set, or of a loader that has an ``__iter__`` or a state of its own.

    It looks ahead by one batch of data; the end of the pass or an error is kept until that batch is asked for.
    """

    def __init__(self, given: Any, loader: Any = None) -> None:
        super().__init__(given, given if loader is None else loader)
        self._is_quiet = loader is not None and self.has_workers
        self._is_counted = loader is not None and isinstance(loader.collate_fn, _Counted)
        self.has_state = loader is None and has_state(given)
        self._certain = certain_length(given) or 0

    def start(self, n: int, state: Any) -> None:
        """Begins the pass that the generators are seeded for: from a state, or by reading up to the batch ``n``."""
        if state is not None:
            self.loader.load_state_dict(state)
        self._iterate(n, state)
        if state is not None and n == 0 and self.is_at_end():  # it is the state of the end of the pass before
            self.close(for_good=True)
            self._seeds.start()
            self._iterate(0, None)
        while self.look() and self._asked <= n:
            self.take()

    def _iterate(self, n: int, state: Any) -> None:
        self._asked = 0 if state is None else n
        self._state = self._asked, state  # the loader's own before it was asked for a batch, with the batch's number
        self._batches = self.iterate()
        self.begin()
        if self.has_state and state is None:
            self._state = 0, copy.deepcopy(self.loader.state_dict())

    def __next__(self) -> Batch:
        made = self.take()
        self.n += 1
        return made if self._is_counted else (None, made)

    def is_over(self) -> bool:
        """Tells whether the pass has no more batches; an error is that of the next batch."""
        if self.has_state and self.n < self._certain:
            return False  # no batch need be loaded ahead
        return self.is_at_end()

    def state(self) -> Any:
        """Returns the loader's own state, that from before a look ahead or an error, or None."""
        asked, state = self._state
        return state if asked == self.n or not self.has_state else self.loader.state_dict()

    def draws_on(self) -> bool:
        """Tells whether the loader keeps an iterator, its own or that of persistent workers, or has one as sampler."""
        kept = {**getattr(self.loader, "__dict__", {}), "dataset": None}.values()
        return not self.has_state and (self._has_iterator or any(hasattr(value, "__next__") for value in kept))

    def draw(self) -> Any:
        """Asks the loader for a batch; before that, for its state."""
        if self.has_state and self._state[0] != self._asked:
            self._state = self._asked, copy.deepcopy(self.loader.state_dict())  # some share what goes on changing
        made = self.ask(self._asked)
        self._asked += 1
        return made

    def seed(self, k: int) -> None:
        """Seeds the global generators for the batch ``k``; the first one is drawn under the seeds of the pass."""
        if k > 0:  # a generator that the loader was given goes on: such a loader may count what it has drawn
            random.seed_generators(random.derive(*self._seeds.words, 2 * k + 1))


class _Counted:
    """Puts samples together, and counts them."""

    def __init__(self, collate: Callable[[Any], Any]) -> None:
        self.collate = collate

    def __call__(self, samples: Any) -> Batch:
        return len(samples) if isinstance(samples, list) else None, self.collate(samples)


def _changed(loader: DataLoader[Any], changes: dict[str, Any]) -> DataLoader[Any]:
    changed = copy.copy(loader)
    vars(changed).update({name: value for name, value in changes.items() if hasattr(loader, name)})
    return changed
