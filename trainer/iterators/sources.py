"""What gives a DataLoader's batches, pass after pass, so that each is a function of its place in the run.

Whatever is drawn for a batch is drawn under seeds of (seed, pass, batch). So a pass can be begun at any batch, and
looking ahead changes nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import torch
from torch.utils.data import (
    DataLoader,
    IterableDataset,
    default_collate,
    default_convert,
)

from trainer import random
from trainer.datasets.convert import concat_examples
from trainer.datasets.transform import epoch_setter, is_plain, single_thread
from trainer.iterators.indices import Indices, Seeds, is_known
from trainer.iterators.workers import Workers

_COLLATES = (default_collate, default_convert, concat_examples)  # that draw nothing

Batch = tuple[int | None, Any]  # the samples in it, if that is known, and the batch


def source_of(loader: Any) -> Source:
    """Returns what gives a loader's batches."""
    if not is_ordinary(loader):
        return Stream(loader)
    # torch warns where an iterable data set gives more than it said when it was asked for a forecast.
    changes: dict[str, Any] = {"_iterator": None, "_IterableDataset_len_called": None, "in_order": True}
    if loader.batch_sampler is not None:
        changes["collate_fn"] = _Counted(loader.collate_fn)
    if isinstance(loader.dataset, IterableDataset):
        if epoch_setter(loader.dataset) is not None:  # persistent workers would keep their copies, of the first epoch
            changes["persistent_workers"] = False
        return Stream(loader, _changed(loader, changes))
    return Indexed(loader, changes)


def is_ordinary(loader: Any) -> bool:
    """Tells whether a loader is iterated by torch's own code, and has no state of its own."""
    return isinstance(loader, DataLoader) and type(loader).__iter__ is DataLoader.__iter__ and not has_state(loader)


def has_state(loader: Any) -> bool:
    """Tells whether a loader saves its position by itself, as those of torchdata do."""
    return hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict")


def certain_length(loader: Any) -> int | None:
    """Returns the batches in a pass, unless they may be more or fewer in another pass, or than ``len`` says."""
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return None
    sampler: Any = loader.batch_sampler if loader.batch_sampler is not None else loader.sampler
    is_certain = is_known(sampler) or (has_state(loader) and type(sampler).__module__.startswith("torchdata."))
    return len(sampler) if is_certain and epoch_setter(loader.dataset) is None else None


class Source:
    """Opens passes over a loader, and gives their batches.

    Args:
        given: The loader as the user made it.
        loader: What is iterated: a copy of it where it can be one, so that other uses of the loader go their own way.
    """

    def __init__(self, given: Any, loader: Any) -> None:
        self.loader = loader
        self.n = 0  # batches of the pass that were given
        dataset, batch_sampler = getattr(given, "dataset", None), getattr(given, "batch_sampler", None)
        samplers = (getattr(given, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None))
        setters = [epoch_setter(dataset), *(getattr(part, "set_epoch", None) for part in (given, *samplers))]
        self._set_epochs: list[Callable[[int], object]] = list(dict.fromkeys(filter(None, setters)))
        found = [getattr(part, "generator", None) for part in (given, *samplers)]
        self._seeds = Seeds(list({id(g): g for g in found if isinstance(g, torch.Generator)}.values()))
        self._has_workers = getattr(given, "num_workers", 0) > 0
        self._is_quiet = False  # whether no batch draws anything in this process
        self.has_state = False  # whether the loader saves its position by itself
        self.draws_on = False  # whether generators of workers go on from one pass to the next
        self._batches: Iterator[Any] = iter(())

    def open(self, seed: int, number: int, n: int = 0, state: Any = None) -> None:
        """Begins a pass at its batch ``n``; ``state`` is that of a loader which has one."""
        self.close()
        self._seeds.words = (seed, random.LOADER, number)
        with random.preserved():
            self._seeds.start()
            for set_epoch in self._set_epochs:
                set_epoch(number)
            self.start(n, state)
        self.n = n

    def close(self, for_good: bool = False) -> None:
        """Ends the pass, and workers that are not to outlive it, or all."""
        batches, self._batches = self._batches, iter(())
        if isinstance(batches, Workers) and (for_good or not self.loader.persistent_workers):
            batches.close()

    def start(self, n: int, state: Any) -> None:
        """Begins the pass that the generators are seeded for."""
        raise NotImplementedError

    def is_over(self) -> bool:
        """Tells whether the pass has no more batches; looks ahead for that."""
        raise NotImplementedError

    def state(self) -> Any:
        """Returns the loader's own state, that from before a look ahead; None if it has none."""
        return None

    def iterate(self) -> Iterator[Any]:
        """Starts the loader."""
        if getattr(self.loader, "persistent_workers", False) and self.loader._iterator is not None:
            # New workers need a seed, which is drawn before the order is; the order is to be the same without them.
            torch.empty((), dtype=torch.int64).random_(generator=self.loader.generator)
        return Workers(self.loader) if self._has_workers else iter(self.loader)


class Indexed(Source):
    """Gives the batches of a map-style data set. It looks ahead by one batch of indices, which costs no data."""

    def __init__(self, given: DataLoader[Any], changes: dict[str, Any]) -> None:
        kind = "sampler" if given.batch_sampler is None else "batch_sampler"
        super().__init__(given, given)
        epochs = self._has_workers and given.persistent_workers  # other workers start after set_epoch
        self._indices = Indices(getattr(given, kind), self._seeds, self._has_workers, epochs)
        self.loader = _changed(given, changes | {kind: self._indices})
        draws_none = is_plain(given.dataset) and given.collate_fn in _COLLATES
        self._is_quiet = draws_none or self._has_workers

    def start(self, n: int, state: Any) -> None:
        """Begins the pass that the generators are seeded for, at its batch ``n``, without loading what is skipped."""
        self._indices.begin(n)
        self._batches = self.iterate()
        self._indices.has_more()  # the first draw, under the seeds of the pass

    def __next__(self) -> Batch:
        if self._is_all_given():
            raise self._indices.error or StopIteration
        try:
            if self._is_quiet:
                made = next(self._batches)
            else:
                with random.preserved(), single_thread():
                    self._seeds.start(2 * self.n + 1)
                    made = next(self._batches)
        except StopIteration as error:  # of the data set or collate_fn: it would pass for the end
            told = f"the data of batch {self.n} ended with StopIteration, before the indices did."
            raise RuntimeError(told) from error
        self.n += 1
        return made if isinstance(self.loader.collate_fn, _Counted) else (None, made)

    def is_over(self) -> bool:
        """Tells whether the pass has no more batches; an error of the sampler is that of the next batch."""
        return self._is_all_given() and self._indices.error is None

    def _is_all_given(self) -> bool:
        return self._indices.n_handed == self.n and not self._indices.has_more()


class Stream(Source):
    """Gives the batches of an iterable data set, or of a loader that has an ``__iter__`` or a state of its own.

    It looks ahead by one batch of data; the end of the pass or an error is kept until that batch is asked for.
    """

    def __init__(self, given: Any, loader: Any = None) -> None:
        super().__init__(given, given if loader is None else loader)
        self._is_quiet = loader is not None and self._has_workers
        self._is_counted = loader is not None and isinstance(loader.collate_fn, _Counted)
        self.has_state = loader is None and has_state(given)
        self._certain = certain_length(given) or 0
        self.draws_on = self._has_workers and not self.has_state and (loader is None or loader.persistent_workers)

    def start(self, n: int, state: Any) -> None:
        """Begins the pass that the generators are seeded for: from a state, or by reading up to the batch ``n``."""
        self._ahead: list[tuple[Any, Exception | None]] = []
        self._asked = 0 if state is None else n
        self._state: Any = None
        if state is not None:
            self.loader.load_state_dict(state)
        self._batches = self.iterate()
        while self._asked < n:
            _, error = self._ask()
            if error is not None and not isinstance(error, StopIteration):
                raise error
            if error is not None:
                break
        if self._asked == 0:
            self._ahead = [self._ask()]  # under the seeds of the pass
        if state is not None and n == 0 and isinstance(self._ahead[0][1], StopIteration):
            self._seeds.start()  # the state is that of the end of the pass before
            self._batches = self.iterate()
            self._ahead = [self._ask()]

    def __next__(self) -> Batch:
        made, error = self._ahead.pop() if self._ahead else self._ask()
        if error is not None:
            raise error
        self.n += 1
        return made if self._is_counted else (None, made)

    def is_over(self) -> bool:
        """Tells whether the pass has no more batches; an error is that of the next batch."""
        if self.has_state and self.n < self._certain:
            return False  # the state need not be taken
        if not self._ahead:
            if self.has_state:
                self._state = copy.deepcopy(self.loader.state_dict())  # some share what the loader goes on changing
            self._ahead = [self._ask()]
        return isinstance(self._ahead[0][1], StopIteration)

    def state(self) -> Any:
        """Returns the loader's own state, that from before a look ahead, or None."""
        return self._state if self._ahead or not self.has_state else self.loader.state_dict()

    def _ask(self) -> tuple[Any, Exception | None]:
        try:
            with ExitStack() as stack:
                if not self._is_quiet:
                    stack.enter_context(random.preserved())
                    stack.enter_context(single_thread())
                    if self._asked > 0:
                        random.seed_generators(self._seeds.bits(2 * self._asked + 1))
                made = next(self._batches)
        except Exception as error:
            return None, error
        self._asked += 1
        return made, None


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
