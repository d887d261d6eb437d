"""The command line of every recipe and tool, and what it prints: a name, of a file say, may hold anything."""

from __future__ import annotations

import argparse
import difflib
import io
import os
import sys
from typing import Any, NoReturn, TextIO

from trainer.checks import printable


def say(text: str, file: TextIO | None = None, kept: str = "") -> None:
    """Prints a line, on standard output if no file is given; lines, if newlines are kept."""
    print(printable(text, kept), file=file, flush=True)


def stop(text: str) -> NoReturn:
    """Ends the program with code 1 and a line on standard error."""
    sys.exit(printable(text))


class Parser(argparse.ArgumentParser):
    """Prints an error in one line, not after eight of usage, and names the option that was perhaps meant."""

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        """Parses; whatever is printed from now on, what the terminal's encoding lacks is written as escapes."""
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
