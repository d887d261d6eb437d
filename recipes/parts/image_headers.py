"""What the files of images tell without being decoded: sizes, whether they are whole, and which are copies."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from typing import NamedTuple

from PIL import Image

from recipes.parts.image_files import BadImageError, named, orientation, read_rgb, size_of
from recipes.parts.label_table import Row, few
from trainer.checks import printable

_ENDS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82", "GIF": b";"}


class Look(NamedTuple):
    """Width and height, turned as the EXIF data say, and bytes."""

    size: tuple[int, int]
    n_bytes: int


def look_at(root: str, rows: list[Row], skip_bad: bool, left: dict[str, list[str]]) -> dict[str, Look]:
    """Returns what the header of each image says.

    Raises:
        BadImageError: If one is damaged, unless they are left out.
    """
    looks, bad = {}, []
    for row in rows:
        path = os.path.join(root, row.name)
        try:
            looks[row.name] = _look(path)
        except BadImageError as error:
            bad.append(f"{row.name} ({str(error).removeprefix(printable(path)).removeprefix(' cannot be used: ')})")
    if bad and not skip_bad:
        what = "1 image is" if len(bad) == 1 else f"{len(bad):,} images are"
        raise BadImageError(f"{root}: {what} damaged: {few(bad)}; --on-bad-sample skip leaves them out.")
    left["damaged"] += bad
    return looks


def _look(path: str) -> Look:
    """Reads a header, and the end; decodes what these do not tell to be whole."""
    with named(path):
        n_bytes = size_of(path)
        with Image.open(path) as image:
            turned = image.format != "PNG" and orientation(image) > 4  # a PNG would be decoded for it
            size = image.size[::-1] if turned else image.size
            kind = image.format or ""
        if not _is_whole(path, kind, n_bytes):
            size = read_rgb(path).size
    return Look(size, n_bytes)


def _is_whole(path: str, kind: str, n_bytes: int) -> bool:
    """Returns whether a file is known to end where its format says."""
    with open(path, "rb") as file:
        if kind in _ENDS:
            file.seek(max(0, n_bytes - 16))
            return file.read().endswith(_ENDS[kind])
        if kind == "WEBP":
            return int.from_bytes(file.read(8)[4:], "little") + 8 <= n_bytes
        position = 0
        while kind in ("HEIF", "AVIF") and position < n_bytes:
            file.seek(position)
            head = file.read(16)
            length = int.from_bytes(head[:4], "big")
            length = {0: n_bytes - position, 1: int.from_bytes(head[8:], "big")}.get(length, length)
            position += max(length, 8)
        return position == n_bytes


def sizes(looks: list[Look]) -> str:
    """Says how large they are."""
    found = sorted((look.size for look in looks), key=lambda size: (size[0] * size[1], size))
    small, middle, large = (f"{w:,}x{h:,}" for w, h in (found[0], found[len(found) // 2], found[-1]))
    return f"Width x height: the smallest {small}, the median {middle}, the largest {large}"


def copies(root: str, rows: list[Row], looks: dict[str, Look]) -> list[str]:
    """Says which images are the same file; only those of the same size are read."""
    counts = Counter(look.n_bytes for look in looks.values())
    groups = defaultdict(list)
    for row in rows:
        if counts[looks[row.name].n_bytes] > 1:
            digest = hashlib.blake2b()
            with open(os.path.join(root, row.name), "rb") as file:
                for piece in iter(lambda: file.read(1 << 20), b""):
                    digest.update(piece)
            groups[digest.digest()].append(row)
    pairs = [(group[0], other) for group in groups.values() for other in group[1:]]
    if not pairs:
        return []
    labels, splits = (sum(first[field] != other[field] for first, other in pairs) for field in (1, 2))
    pairs.sort(key=lambda pair: (pair[0].labels == pair[1].labels, pair[0].split == pair[1].split))
    what = "1 file is a copy" if len(pairs) == 1 else f"{len(pairs):,} files are copies"
    told = f"Warning: {what} of another: {few((f'{first.name} and {other.name}' for first, other in pairs), 2)}"
    told += f"; in another split: {splits:,}" if splits else ""
    return [told + (f"; with another label: {labels:,}" if labels else "")]
