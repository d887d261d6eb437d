"""Prints the log as a table."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any, TextIO

from extensions.log_report import LogReport
from trainer import Extension, Trainer
from trainer.extension import PHASE_REPORT

SHOWN = 1000  # rows in a notebook: the browser is sent all of them for each new one


class PrintReport(Extension):
    """Prints log entries as the rows of a table. Chainer: ``extensions.PrintReport``, to the byte.

    A column is as wide as its title, or 10; numbers are printed with 6 significant digits. On a terminal each row
    first erases what stands below, a :class:`~extensions.ProgressBar`. In a notebook it is one table, of the last
    1,000 entries.

    Args:
        entries: Keys of the log, one a column.
        log_report: The name of a registered :class:`~extensions.LogReport`, or one that this extension is to drive.
        out: Where to print; by default ``sys.stdout``, or the notebook's cell.

    Raises:
        TypeError: When called, if ``log_report`` is neither.

    Example:
        >>> from extensions import LogReport, PrintReport
        >>> run.extend(LogReport())
        >>> run.extend(PrintReport(["epoch", "iteration"]))
        >>> run.run()  # doctest: +NORMALIZE_WHITESPACE
        epoch       iteration
        1           2
        2           4
    """

    phase = PHASE_REPORT  # when the iteration's values are complete
    saved = ("_last", "_own")

    def __init__(
        self, entries: Sequence[str], log_report: str | LogReport = "LogReport", out: TextIO | None = None
    ) -> None:
        self._entries = list(entries)
        self._widths = [max(10, len(entry)) for entry in self._entries]
        self._log_report = log_report
        self._own = log_report if isinstance(log_report, LogReport) else None  # driven by this extension
        self._out = out
        self._printed = 0  # entries of the log
        self._last = -1  # iteration of the last one of them
        self._has_header = False
        self._rows: list[list[str]] = []  # shown in a notebook
        self._table: Any = None  # the notebook's handle of them

    def _find(self, trainer: Trainer) -> LogReport:
        report = self._log_report
        if isinstance(report, str):
            report = trainer.get_extension(report)
        if not isinstance(report, LogReport):
            raise TypeError(f"log_report must be a LogReport or the name of one, got {report!r}.")
        return report

    def initialize(self, trainer: Trainer) -> None:
        """Sees to it that there is a LogReport."""
        self._find(trainer)
        if self._own:
            self._own.initialize(trainer)

    def __call__(self, trainer: Trainer) -> None:
        """Prints the entries that are new."""
        if self._own:
            self._own(trainer)
            self._own.end_iteration(trainer)
        log = self._find(trainer).log
        if self._printed == 0:  # resumed: go on with the first entry that was not printed
            self._printed = sum(entry.get("iteration", 0) <= self._last for entry in log)
        new = [[_cell(entry.get(key, "")) for key in self._entries] for entry in log[self._printed :]]
        if self._out is None and _is_notebook():
            self._show(new)
        else:
            self._print(new)
        self._last = log[-1].get("iteration", 0) if new else self._last
        self._printed = len(log)

    def _print(self, rows: list[list[str]]) -> None:
        out = self._out or sys.stdout
        if not self._has_header:
            titles = (f"{entry:<{width}}" for entry, width in zip(self._entries, self._widths, strict=True))
            out.write("  ".join(titles) + "\n")
            self._has_header = True
        for row in rows:
            if hasattr(out, "isatty") and out.isatty():
                out.write("\033[J")
            out.write("".join(f"{cell:<{width}}  " for cell, width in zip(row, self._widths, strict=True)) + "\n")
        if hasattr(out, "flush"):
            out.flush()

    def _show(self, rows: list[list[str]]) -> None:
        import pandas as pd

        ipython: Any = importlib.import_module("IPython.display")
        self._rows = (self._rows + rows)[-SHOWN:]
        table = ipython.HTML(pd.DataFrame(self._rows, columns=self._entries).to_html(index=False))
        if self._table is None:
            self._table = ipython.display(table, display_id=True)
        else:
            self._table.update(table)

    def finalize(self) -> None:
        """Finalizes a LogReport of its own."""
        if self._own:
            self._own.finalize()


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _is_notebook() -> bool:
    ipython = sys.modules.get("IPython")  # if it is one, it is loaded
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")
