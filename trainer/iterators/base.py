"""What every iterator here has: epochs, the position in this one, a seed, and their state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from trainer import random
from trainer.checks import at_least
from trainer.saving.state import Stateful, is_forced

Names = tuple[str, ...]


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
        self._batches: Iterator[Any] | None = None  # a pass over the data

    @property
    def epoch_detail(self) -> float:
        """Finished epochs and the fraction of this one, 0 if the length is unknown."""
        return self.epoch + (self.current_position / self.epoch_size if self.epoch_size else 0.0)

    def epoch_progress(self) -> tuple[int, int]:
        """Returns ``epoch_detail`` in integers: (samples given out, samples in an epoch)."""
        size = self.epoch_size or 1
        return self.epoch * size + (self.current_position if self.epoch_size else 0), size

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
        is_other = state["length"] != self._length
        if is_other and not is_forced():
            raise ValueError(
                f"the snapshot was made with {state['length']} {self.counts[0]} and the {self.counts[1]} now has"
                f" {self._length}: restore them, start afresh, or start the epoch again with the data of now:"
                " trainer.resume(path, force=True)."
            )
        super().load_state_dict(state | {"length": self._length})
        if is_other:
            self.current_position, self.previous_epoch_detail = 0, float(self.epoch)
        self._batches = None
