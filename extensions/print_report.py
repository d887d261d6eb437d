"""Prints the log as a table."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any, TextIO

from extensions import terminal
from extensions.log_report import LogReport, names_of, not_yet_called, warn_of_unreported
from trainer import Extension, Trainer
from trainer.checks import printable
from trainer.extension import PHASE_REPORT

SHOWN = 1000  # rows in a notebook: the browser is sent all of them for each new one
PLACES = {"epoch": -2, "iteration": -1, "elapsed_time": 1}  # of a table of all keys: the values are between


class PrintReport(Extension):
    """Prints log entries as the rows of a table. Chainer: ``extensions.PrintReport``, to the byte.

    A column is as wide as its title, or 10; numbers are printed with 6 significant digits, None as a blank, whatever
    else an entry holds as text. On a terminal each row first erases what stands below, a
    :class:`~extensions.ProgressBar`. In a notebook it is one table, of the last 1,000 entries. Training goes on where
    the rows cannot be printed, with one warning: standard output is closed, say, or its reader is gone.

    Args:
        entries: Keys of the log, one a column; by default all, ``epoch`` and ``iteration`` first, ``elapsed_time``
            last. When a later entry has more keys the table goes on below a wider head.
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
        self,
        entries: Sequence[str] | str | None = None,
        log_report: str | LogReport = "LogReport",
        out: TextIO | None = None,
    ) -> None:
        self._shows_all = entries is None
        self._entries = names_of(entries, "entries") or []
        self._log_report = log_report
        self._own = log_report if isinstance(log_report, LogReport) else None  # driven by this extension
        self._out = out
        self._printed = 0  # entries of the log
        self._log: list[dict[str, Any]] = []
        self._waits_for: list[str] = []  # extensions
        self._has_looked = False  # whether there are columns that no entry has
        self._last = -1  # iteration of the last one of them
        self._head: list[str] | None = None  # the columns of the last head
        self._rows: list[dict[str, str]] = []  # shown in a notebook
        self._table: Any = None  # the notebook's handle of them

    def _find(self, trainer: Trainer) -> LogReport:
        report = self._log_report
        if isinstance(report, str):
            report = trainer.get_extension(report)
        if not isinstance(report, LogReport):
            raise TypeError(f"log_report must be a LogReport or the name of one, got {report!r}.")
        return report

    def initialize(self, trainer: Trainer) -> None:
        """Checks that a LogReport is registered."""
        self._find(trainer)
        if self._own:
            self._own.initialize(trainer)

    def __call__(self, trainer: Trainer) -> None:
        """Prints the entries that are new."""
        if self._own:
            self._own(trainer)
            self._own.end_iteration(trainer)
        report = self._find(trainer)
        log = self._log = report.log
        if len(log) == self._printed and self._head is not None:
            return
        if self._printed == 0:  # resumed: go on with the first entry that was not printed
            self._printed = sum(entry.get("iteration", 0) <= self._last for entry in log)
        new = [{key: _cell(value) for key, value in entry.items()} for entry in log[self._printed :]]
        if self._shows_all:
            keys = dict.fromkeys([*self._entries, *(key for row in new for key in row)])
            self._entries = sorted(keys, key=lambda key: PLACES.get(key, 0))
        in_notebook = self._out is None and terminal.is_notebook()
        if in_notebook and new:
            self._show(new)
        elif not in_notebook and (new or not self._shows_all):
            self._print(new, "" if report._filename is None else f"; the log is in {trainer.out}")
        self._last = log[-1].get("iteration", 0) if new else self._last
        self._printed = len(log)
        self._head = self._head or []
        if new and not self._has_looked:
            self._waits_for, is_known = not_yet_called(trainer)
            if is_known and not self._waits_for:
                self._look_for_unreported()

    def _look_for_unreported(self) -> None:
        self._has_looked = True
        name, there = self.name or "PrintReport", set().union(*self._log)
        warn_of_unreported(name, self._entries, there, self._waits_for, "no entry of the log has")

    def _print(self, rows: list[dict[str, str]], place: str) -> None:
        out, text = self._out or sys.stdout, ""
        columns = [(entry, max(10, len(printable(entry)))) for entry in self._entries]
        if self._head != self._entries:
            text = "  ".join(f"{printable(entry):<{width}}" for entry, width in columns) + "\n"
            self._head = self._entries
        erase = "\033[J" if terminal.is_terminal(out) else ""
        for row in rows:
            text += erase + "".join(f"{row.get(entry, ''):<{width}}  " for entry, width in columns) + "\n"
        if text:
            terminal.write(out, text, f"PrintReport's rows are lost{place}.")

    def _show(self, rows: list[dict[str, str]]) -> None:
        import pandas as pd

        ipython: Any = importlib.import_module("IPython.display")
        self._rows = (self._rows + rows)[-SHOWN:]
        cells = [[row.get(entry, "") for entry in self._entries] for row in self._rows]
        table = ipython.HTML(pd.DataFrame(cells, columns=self._entries).to_html(index=False))
        if self._table is None:
            self._table = ipython.display(table, display_id=True)
        else:
            self._table.update(table)

    def finalize(self) -> None:
        """Finalizes a LogReport of its own; warns of columns that no entry had, if that was not clear before."""
        if self._printed and not self._has_looked:
            self._look_for_unreported()
        if self._own:
            self._own.finalize()


def _cell(value: Any) -> str:
    if value is None or isinstance(value, (str, bool)):
        return "" if value is None else printable(str(value))
    try:
        return f"{value:g}"
    except (TypeError, ValueError):
        return printable(str(value))
