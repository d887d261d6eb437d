"""The command line and the output of every recipe and tool; a name, of a file say, may hold any character."""

from __future__ import annotations

import argparse
import csv
import difflib
import io
import itertools
import os
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn, TextIO

# A spreadsheet takes a text that begins with one of these for a formula, unless an apostrophe stands before it. An
# apostrophe gets one, too: to read a table, take one away.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "'")
# The commands of ``kusari`` by file; recipes are under ``train``.
COMMANDS = {"plot_log": "plot", "evaluate_run": "evaluate", "show_samples": "samples"}
COMMANDS |= {name: name for name in ("finetune", "predict", "report", "runs", "summary")}


def printable(text: str, kept: str = "") -> str:
    """Escapes what a terminal would obey, as ``trainer.checks.printable``, which is imported (with torch) if needed."""
    if text.translate(dict.fromkeys(map(ord, kept), "")).isprintable():
        return text
    from trainer.checks import printable as escaped

    return escaped(text, kept)


def kusari() -> str | None:
    """Returns how the user started ``kusari``; None if a recipe or tool was started as a file."""
    stem = Path(sys.argv[0]).stem
    return "kusari" if stem == "kusari" else f"python {shlex.quote(sys.argv[0])}" if stem == "cli" else None


def started() -> str | None:
    """Returns the command of ``kusari`` that runs now, such as ``kusari train pets``, or None."""
    if (start := kusari()) is None:
        return None
    words = itertools.takewhile(
        lambda word: not word.startswith("-"), sys.argv[1 : 3 if sys.argv[1:2] == ["train"] else 2]
    )
    return " ".join([start, *map(shlex.quote, words)])


def command(name: str) -> str:
    """Returns the command for a recipe or tool, by the name of its file, as the user started this program."""
    program = Path(sys.argv[0])
    if start := kusari():
        if name in COMMANDS:
            return f"{start} {COMMANDS[name]}"
        typed = sys.argv[2] if sys.argv[1:2] == ["train"] and len(sys.argv) > 2 else name
        return f"{start} train {shlex.quote(typed) if Path(typed).stem == name else name}"
    beside = program if program.stem == name else program.parent / f"{name}.py"
    return f"python {shlex.quote(str(beside)) if beside.is_file() else f'recipes/{name}.py'}"


def as_typed(text: str, name: str) -> str:
    """Returns the docstring of a recipe or tool with the commands in it as the user types them."""
    return text.replace(f"python recipes/{name}.py", command(name))


def say(text: str, file: TextIO | None = None, kept: str = "") -> None:
    """Prints a line, on standard output if no file is given; lines, if newlines are kept."""
    try:
        print(printable(text, kept), file=file, flush=True)
    except BrokenPipeError:  # head, say, has seen enough; Python would report it again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), (file or sys.stdout).fileno())


def stop(text: str) -> NoReturn:
    """Ends the program with code 1 and a line on standard error."""
    sys.exit(printable(text))


def csv_line(values: Iterable[Any]) -> str:
    """Returns a line of a CSV in which no text begins as a formula does."""
    line = io.StringIO()
    cells = [f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value for value in values]
    csv.writer(line).writerow(cells)  # with \r\n, for until Python 3.13 it quotes only what its lines end with
    return line.getvalue()[:-2] + "\n"


class Parser(argparse.ArgumentParser):
    """Prints an error in one line, without the usage, and names the nearest option."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"prog": started(), "formatter_class": argparse.RawDescriptionHelpFormatter} | kwargs)

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        """Parses; characters that the terminal's encoding lacks are printed as escapes from now on."""
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
        return super().parse_args(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Ends the program with code 2."""
        if message.startswith("unrecognized arguments: "):
            unknown = message.partition(": ")[2].split(" ")[0].partition("=")[0]
            near = difflib.get_close_matches(unknown, self._option_string_actions, 1)
            if os.path.exists(unknown):
                message += f" (if that is a file, write ./{unknown})"
            else:
                message += f" (did you mean {near[0]}?)" if near else " (--help lists the options)"
        self.exit(2, printable(f"{self.prog}: error: {message}") + "\n")
