"""Updates a page while its runs go on."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from recipes.parts.parser import say
from trainer import saving
from trainer.saving.files import read_bytes
from trainer.saving.lock import NAME as LOCK


def log_in(folder: Path) -> Path | None:
    """Returns the log of a run's folder, or None if there is none yet."""
    return next((folder / name for name in ("log", "log.jsonl") if (folder / name).exists()), None)


def goes_on(folder: Path) -> bool:
    """Returns whether a run holds a folder. It reads the lock and never takes it, which could keep a run out."""
    try:
        told = re.match(r"process (\d{1,9}) on (.*)\n", read_bytes(folder / LOCK).decode(errors="replace"))
        if told and told[2] == socket.gethostname():
            os.kill(int(told[1]), 0)
    except (FileNotFoundError, ProcessLookupError):  # it was released, or its holder killed
        return False
    except PermissionError:
        pass  # another user's
    return True


def watch(folders: Sequence[Path], out: Path, seconds: float, make: Callable[[], str]) -> None:
    """Makes the page again whenever a log has changed, until all runs have ended.

    It reports a log that cannot be read, and waits for it.

    Raises:
        OSError: If a folder is missing, or the page cannot be written.
    """
    seen: list[tuple[int, int] | None] = []
    said = told = ""
    while True:
        logs = [log_in(folder) for folder in folders]
        if None not in logs and not any([goes_on(folder) for folder in folders]):
            return say("The run has ended: its network is tested now.")
        try:
            now = [log and (log.stat().st_mtime_ns, log.stat().st_size) for log in logs]
            page = make() if now != seen else ""
        except (OSError, ValueError) as error:
            if not all(folder.is_dir() for folder in folders):
                raise
            now, page, told = [], "", f"Waits: {error}"
        if page:
            write(out, page.encode())
            told = f"Wrote {out}, and makes it anew while the run goes on; Ctrl-C ends that."
        seen = now
        if told != said:
            say(told)
            said = told
        time.sleep(seconds)


def end_reloading(out: Path) -> None:
    """Removes what reloads a watched page."""
    page = read_bytes(out) if out.is_file() else b""
    still = re.sub(rb'<meta http-equiv="refresh"[^>]*>\n|<p class="warn watched">.*?</p>\n', b"", page)
    if still != page:
        write(out, still)


def write(out: Path, page: bytes) -> None:
    """Writes the page, whole or not at all."""
    saving.write(out, lambda file: file.write(page))
