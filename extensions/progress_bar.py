"""Shows how far training is: bars on a terminal and in a notebook, else a line now and then."""

from __future__ import annotations

import shutil
import sys
import time
from typing import Any, TextIO

from extensions import terminal
from trainer import Extension, Trainer

SECONDS = 0.1  # between two drawings, at least: each takes as long as a small network's iteration


class ProgressBar(Extension):
    """Shows two bars, the whole training and this epoch, with speed and time to go. Chainer: ``ProgressBar``.

    The lines are tqdm's. They stand below the cursor, so that whatever prints next (a
    :class:`~extensions.PrintReport`) takes their place. In a notebook it is one bar, ``tqdm.auto``'s. Where the output
    is neither (``nohup``, a file, CI) it is a whole line after a minute, then at most one a minute, and nothing of a
    shorter run.

    Of a loader that does not know its length, batches are counted in the place of the second bar, and the time to go
    is an estimate from the second epoch on.

    Args:
        training_length: ``(period, unit)``; by default what the stop trigger says.
        update_interval: Iterations between two drawings; more than ten in a second are left out, and more than one
            in a minute where there is no terminal.
        bar_length: Width of a line in columns; that of the terminal by default.
        out: Where to draw; by default ``sys.stdout``, or the notebook's cell.

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
        self._bar: Any = None  # the notebook's

    @property
    def out(self) -> TextIO | None:
        """Where to draw: by default what ``sys.stdout`` is at that moment."""
        return self._out or sys.stdout

    def _write(self, text: str) -> None:
        terminal.write(self.out, text, "ProgressBar does not show how far training is.")

    def initialize(self, trainer: Trainer) -> None:
        """Starts the clock."""
        self._first, self._start = trainer.updater.iteration, trainer.elapsed_time
        is_live = self._is_in_notebook() or terminal.is_terminal(self.out)
        self._drawn = float("-inf") if is_live else time.monotonic()

    def _is_in_notebook(self) -> bool:
        return self._out is None and terminal.is_notebook()

    def __call__(self, trainer: Trainer) -> None:
        """Draws, every so many iterations."""
        if trainer.updater.iteration % self._interval or self.out is None:
            return
        in_notebook, on_terminal, now = self._is_in_notebook(), terminal.is_terminal(self.out), time.monotonic()
        if now - self._drawn < (SECONDS if in_notebook or on_terminal else terminal.MINUTE):
            return
        self._drawn = now
        if in_notebook:
            self._show(trainer)
        elif on_terminal:
            # Below the cursor's line, to which it goes back: what is printed next has a line to itself.
            self._write("\033[J\n" + "\n".join(self._lines(trainer)) + "\r\033[2A")
            self._is_shown = True
        else:
            from tqdm import tqdm

            postfix = f"epoch {trainer.updater.epoch_detail:.2f}"
            self._write(tqdm.format_meter(**self._whole(trainer), ncols=0, postfix=postfix) + "\n")

    def _show(self, trainer: Trainer) -> None:
        """Moves the notebook's bar."""
        from tqdm.auto import tqdm

        whole = self._whole(trainer)
        if self._bar is None:
            self._bar = tqdm(desc="total", total=whole["total"], unit="iter", initial=self._first, leave=False)
        if self._bar.total != whole["total"]:  # the end was moved
            self._bar.reset(whole["total"])
        self._bar.n, self._bar.start_t = whole["n"], time.time() - whole["elapsed"]
        self._bar.set_postfix_str(f"epoch {trainer.updater.epoch_detail:.2f}")

    def _whole(self, trainer: Trainer) -> dict[str, Any]:
        """Returns what tqdm is to show of the whole training."""
        updater, elapsed = trainer.updater, trainer.elapsed_time - self._start
        iteration = updater.iteration
        total: float | None = None
        batches = _batches_of_unknown_end(updater)
        length_of = getattr(trainer.stop_trigger, "get_training_length", lambda: None)
        training_length = self._length or length_of()
        if training_length is not None:
            length, unit = training_length
            if unit == "iteration":
                total = length
            elif batches is None:
                total = round(length * iteration / max(updater.epoch_detail, 1e-9))
            elif updater.epoch > 0:
                total = round(length * (iteration - batches / getattr(updater, "accumulate", 1)) / updater.epoch)
        return {
            "n": iteration,
            "total": total,
            "elapsed": elapsed,
            "rate": (iteration - self._first) / elapsed if elapsed else None,
            "initial": self._first,
            "prefix": "total",
            "unit": "iter",
        }

    def _lines(self, trainer: Trainer) -> tuple[str, str]:
        """Returns the terminal's two bars."""
        from tqdm import tqdm

        updater, whole = trainer.updater, self._whole(trainer) | {"prefix": "     total"}
        whole["ncols"] = self._columns or shutil.get_terminal_size().columns - 1
        whole["ascii"] = not terminal.has_blocks(self.out)
        batches = _batches_of_unknown_end(updater)
        if batches is not None:
            count = "1 batch" if batches == 1 else f"{batches} batches"
            return tqdm.format_meter(**whole), f"this epoch: {count}, end unknown | epoch {updater.epoch + 1}"
        epoch = {
            "n": round(100 * (updater.epoch_detail - updater.epoch)),
            "total": 100,
            "prefix": "this epoch",
            "bar_format": "{l_bar}{bar}| epoch " + str(updater.epoch + 1),
        }
        return tqdm.format_meter(**whole), tqdm.format_meter(**whole | epoch)

    def finalize(self) -> None:
        """Erases the bars."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        if self._is_shown:
            self._write("\033[J")
            self._is_shown = False


def _batches_of_unknown_end(updater: Any) -> int | None:
    """Returns the batches of the main iterator's epoch so far, or None if it is known how many there will be."""
    iterator = updater.get_iterator("main") if hasattr(updater, "get_iterator") else None
    return None if getattr(iterator, "epoch_size", 0) is not None else iterator.current_position  # type: ignore[union-attr]
