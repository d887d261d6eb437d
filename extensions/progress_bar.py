"""Shows how far training is, on a terminal."""

from __future__ import annotations

import shutil
import sys
import time
from typing import Any, TextIO

from trainer import Extension, Trainer

SECONDS = 0.1  # between two drawings, at least: each takes as long as a small network's iteration


class ProgressBar(Extension):
    """Shows two bars, the whole training and this epoch, with speed and time to go. Chainer: ``ProgressBar``.

    The lines are tqdm's. They stand below the cursor, so that whatever prints next (a
    :class:`~extensions.PrintReport`) takes their place. Where the output is no terminal nothing is written.

    Of a loader that does not know its length, batches are counted in the place of the second bar, and the time to go
    is an estimate from the second epoch on.

    Args:
        training_length: ``(period, unit)``; by default what the stop trigger says.
        update_interval: Iterations between two drawings; more than ten in a second are left out.
        bar_length: Width of a line in columns; that of the terminal by default.
        out: Where to draw; ``sys.stdout`` by default.

    Raises:
        ValueError: If ``update_interval`` is not positive.

    Example:
        >>> from extensions import ProgressBar
        >>> run.extend(ProgressBar(update_interval=10))
        >>> run.run()
    """

    def __init__(
        self,
        training_length: tuple[float, str] | None = None,
        update_interval: int = 100,
        bar_length: int | None = None,
        out: TextIO | None = None,
    ) -> None:
        if update_interval < 1:
            raise ValueError(f"update_interval must be 1 or more, got {update_interval}.")
        self._length = training_length
        self._interval = update_interval
        self._columns = bar_length
        self._out = out
        self._first = 0  # iterations done before this start
        self._start = 0.0  # and the elapsed time then
        self._drawn = float("-inf")  # when
        self._is_shown = False

    @property
    def out(self) -> TextIO:
        """Where to draw: by default what ``sys.stdout`` is at that moment."""
        return self._out or sys.stdout

    def initialize(self, trainer: Trainer) -> None:
        """Starts the clock."""
        self._first, self._start = trainer.updater.iteration, trainer.elapsed_time
        if self._length is None and hasattr(trainer.stop_trigger, "get_training_length"):
            self._length = trainer.stop_trigger.get_training_length()

    def __call__(self, trainer: Trainer) -> None:
        """Draws, every so many iterations."""
        if trainer.updater.iteration % self._interval == 0 and self.out.isatty():
            now = time.monotonic()
            if now - self._drawn < SECONDS:
                return
            self._drawn = now
            # Below the cursor's line, to which it goes back: what is printed next has a line to itself.
            self.out.write("\033[J\n" + "\n".join(self._lines(trainer)) + "\r\033[2A")
            self.out.flush()
            self._is_shown = True

    def _lines(self, trainer: Trainer) -> tuple[str, str]:
        from tqdm import tqdm

        updater, elapsed = trainer.updater, trainer.elapsed_time - self._start
        iteration = updater.iteration
        total: float | None = None
        batches = _batches_of_unknown_end(updater)
        if self._length is not None:
            length, unit = self._length
            if unit == "iteration":
                total = length
            elif batches is None:
                total = round(length * iteration / max(updater.epoch_detail, 1e-9))
            elif updater.epoch > 0:
                total = round(length * (iteration - batches / getattr(updater, "accumulate", 1)) / updater.epoch)
        common: dict[str, Any] = {
            "ncols": self._columns or shutil.get_terminal_size().columns - 1,
            "elapsed": elapsed,
            "rate": (iteration - self._first) / elapsed if elapsed else None,
            "initial": self._first,
        }
        whole = tqdm.format_meter(n=iteration, total=total, prefix="     total", unit="iter", **common)
        if batches is not None:
            count = "1 batch" if batches == 1 else f"{batches} batches"
            return whole, f"this epoch: {count}, end unknown | epoch {updater.epoch + 1}"
        epoch = tqdm.format_meter(
            n=round(100 * (updater.epoch_detail - updater.epoch)),
            total=100,
            prefix="this epoch",
            bar_format="{l_bar}{bar}| epoch " + str(updater.epoch + 1),
            **common,
        )
        return whole, epoch

    def finalize(self) -> None:
        """Erases the bars."""
        if self._is_shown:
            self.out.write("\033[J")
            self.out.flush()
            self._is_shown = False


def _batches_of_unknown_end(updater: Any) -> int | None:
    """Returns the batches of the main iterator's epoch so far, or None if it is known how many there will be."""
    iterator = updater.get_iterator("main") if hasattr(updater, "get_iterator") else None
    return None if getattr(iterator, "epoch_size", 0) is not None else iterator.current_position  # type: ignore[union-attr]
