"""The command line's parser of every recipe and tool."""

from __future__ import annotations

import argparse
import difflib
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """Prints an error in one line, not after eight of usage, and names the option that was perhaps meant."""

    def error(self, message: str) -> NoReturn:
        """Ends the program with code 2."""
        if message.startswith("unrecognized arguments: "):
            unknown = message.partition(": ")[2].split()[0].partition("=")[0]
            near = difflib.get_close_matches(unknown, self._option_string_actions, 1)
            message += f" (did you mean {near[0]}?)" if near else " (--help lists the options)"
        self.exit(2, f"{self.prog}: error: {message}\n")
