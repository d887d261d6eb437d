"""Downloads that end, whatever a server does: with the file whose size and checksum are known, or with an error."""

from __future__ import annotations

import hashlib
import queue
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

from tqdm import tqdm

from extensions import terminal

PIECE = 1 << 16  # bytes
PATIENCE = 30.0  # seconds for a piece, or for all that comes before the first: below 2 kB a second is standing still
MOST_TRIES = 50_000  # a try that brings less than this part of the file has brought nothing


def fetch(url: str, path: Path, size: int, checksum: str, tries: int = 5) -> None:
    """Fetches a file and verifies it. A download that was cut goes on where it stopped, now or the next time.

    Args:
        url: Of http or https.
        path: Where the file is to stand, in a folder that is made if need be. What comes is kept there from the start.
        size: Of the file, in bytes.
        checksum: In hexadecimal digits: its SHA-256, or its MD5 where no other is published.
        tries: Attempts in a row that may bring nothing.

    Raises:
        OSError: If the server gives no more, or another file, or the disk is full; the message says what to do.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    left = tries
    while (have := _size(path)) != size:
        if have > size:
            path.unlink()  # it is something else
            continue
        reason = "the connection was cut"
        try:
            _append(path, url, size)
        except ConnectionError as cut:
            reason = str(cut)
            if isinstance(cut.__cause__, urllib.error.HTTPError) and cut.__cause__.code < 500:
                raise OSError(f"{url}: {reason}.") from cut
        except OSError as error:
            raise OSError(
                f"{path}: {error.strerror}. What came is kept: the same command goes on from there."
            ) from error
        left = tries if (_size(path) - have) * MOST_TRIES >= size else left - 1
        if left <= 0 and _size(path) != size:
            raise OSError(
                f"{url}: {tries} times in a row nothing came ({reason}); the {_size(path):,} of {size:,} bytes that are"
                f" here are kept in {path}, and the same command goes on from there."
            )
        time.sleep(min(2.0 ** (tries - left), 30.0) * 0.1)
    with open(path, "rb") as file:
        found = hashlib.new("md5" if len(checksum) == 32 else "sha256", usedforsecurity=False)
        while piece := file.read(1 << 20):
            found.update(piece)
    if found.hexdigest() != checksum:
        path.unlink()
        raise OSError(
            f"what {url} gave is damaged, or another file (its {found.name.upper()} is {found.hexdigest()}, not"
            f" {checksum}); it was removed: download it again."
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _append(path: Path, url: str, size: int) -> None:
    """Appends to the beginning of a file whatever of its rest the server gives."""
    have, hidden = _size(path), not terminal.is_terminal(sys.stderr)
    with (
        open(path, "ab") as file,
        tqdm(total=size, initial=have, unit="B", unit_scale=True, leave=False, disable=hidden) as bar,
        closing(_in_time(_rest(url, have, size))) as pieces,
    ):
        for piece in pieces:
            file.write(piece[: size - have])
            bar.update(len(piece))
            have += len(piece)
            if have >= size:
                return


def _rest(url: str, start: int, size: int) -> Iterator[bytes]:
    """Yields the bytes of a file from ``start`` on.

    Raises:
        ValueError: If the server does not answer with the file.
    """
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    with urllib.request.urlopen(request, timeout=2 * PATIENCE) as answer:
        length, part = answer.headers.get("Content-Length"), answer.headers.get("Content-Range")
        kind = answer.headers.get("Content-Type", "").partition(";")[0]
        skipped = 0 if answer.status == 206 else start  # 200: the server knows no ranges
        is_file = answer.status == 200 or (answer.status == 206 and part == f"bytes {start}-{size - 1}/{size}")
        if not is_file or length not in (None, str(size - start + skipped)) or kind == "text/html":
            raise ValueError(
                f"the server answers {answer.status}, Content-Type {kind!r}, Content-Length {length!r}, Content-Range"
                f" {part!r}, and that is not the file of {size} bytes"
            )
        while piece := answer.read(PIECE):
            yield piece[skipped:]
            skipped = max(0, skipped - len(piece))


def _in_time(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yields what a thread iterates over.

    A timeout of the socket's would do for a server that is silent, not for one that sends a byte now and then.

    Raises:
        ConnectionError: If there is an error, which is the ``__cause__``, or a piece takes too long.
    """
    made: queue.Queue[bytes | Exception | None] = queue.Queue(8)
    has_ended = threading.Event()

    def make() -> None:
        try:
            for piece in pieces:
                made.put(piece)
                if has_ended.is_set():
                    return
            made.put(None)
        except Exception as error:  # URLError, HTTPException, and what a redirect to nonsense raises
            made.put(error)

    threading.Thread(target=make, daemon=True).start()
    try:
        while (piece := made.get(timeout=PATIENCE)) is not None:
            if isinstance(piece, urllib.error.HTTPError):
                piece.close()
                raise ConnectionError(f"the server says {piece.code} {' '.join(piece.reason.split())}") from piece
            if isinstance(piece, Exception):
                raise ConnectionError(str(piece) or type(piece).__name__) from piece
            yield piece
    except queue.Empty:
        raise ConnectionError(f"less than {PIECE:,} bytes came in {PATIENCE:g} seconds") from None
    finally:
        has_ended.set()
        with suppress(queue.Empty):
            made.get_nowait()  # a full queue would hold the thread
