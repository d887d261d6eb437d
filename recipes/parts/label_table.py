"""A CSV of image files and their labels: what its columns hold says which is which."""

from __future__ import annotations

import csv
import io
import os
import posixpath
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from recipes.parts.image_files import NO_IMAGE, is_image, unfit
from trainer.saving.files import regular

MOST_BYTES = 200_000_000  # of a CSV: that is millions of images
SAMPLED = 200  # lines, which tell delimiter and column of the files
SEPARATORS = "|;, "  # of the labels in a cell: the first of them that occurs
LABEL_COLUMNS = {
    *("label", "labels", "class", "classes", "classname", "category", "categories", "categoryname", "target", "breed"),
    *("species", "kind", "type", "variety", "genre", "tag", "tags", "ラベル", "クラス", "分類", "種類", "カテゴリ"),
}
FLAGS = ({"0", "1"}, {"0.0", "1.0"}, {"-1", "1"}, {"false", "true"}, {"no", "yes"})
TRUE = {"1", "1.0", "true", "yes"}
_SPLITS = {
    **dict.fromkeys(("train", "training", "trainval"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev"), "valid"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_Line = tuple[int, list[str]]  # number and cells


class Row(NamedTuple):
    """An image.

    Args:
        name: Of its file, relative to the folder.
        labels: One; or any number, if there may be several.
        split: ``"train"``, ``"valid"`` or ``"test"``, or nothing where none is given.
    """

    name: str
    labels: tuple[str, ...]
    split: str = ""


def split_of(name: str) -> str:
    """Returns which split is named so (``Training``, ``val``, ``seg_test``, ``TestSet``), or an empty string."""
    words = [re.sub("(set|data|images?)$", "", word) for word in re.findall("[a-z]+", name.lower())]
    found = {_SPLITS[word] for word in words if word in _SPLITS}
    return found.pop() if len(found) == 1 else ""


def few(names: Iterable[str], most: int = 3) -> str:
    """Returns the first few of some names, and how many more there are."""
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def composed(text: str) -> str:
    """Returns a text in Unicode's composed form: macOS takes the letters in names of files apart."""
    return unicodedata.normalize("NFC", text)


def read_rows(
    root: str, table: str | Path, names: Iterable[str], multi_label: bool, split: str = ""
) -> tuple[list[Row], list[str], list[str]]:
    """Returns the rows of a table, the files that are named but not there, and what is to be told.

    Args:
        root: The folder of the images.
        table: The CSV. A path in it is relative to where it lies, or is the end of a path in ``root``, with or without
            the extension.
        names: Of the files in ``root``, relative to it.
        multi_label: Whether an image may have several labels, or none.
        split: Of all rows, if no column says it.

    Raises:
        OSError: If the table cannot be read.
        ValueError: If it is no table, its columns are not clear, a path leads outside, or rows contradict each other.
    """
    find = _Finder(root, table, names)
    header, lines, file = _read_cells(table, find)
    columns = {index: [cells[index] for _, cells in lines] for index, name in enumerate(header) if name}
    del columns[file]
    told = [f"{Path(table).name}: files by the column {header[file]!r}"]
    splits = [split] * len(lines)
    for index, cells in columns.items():
        read = _splits(header[index], cells)
        known = [word for word in read if word]
        if len(set(known)) > 1 and len(read) // 2 < len(known) < len(read):  # a slip must not give up the whole column
            number, wrong = next((line[0], line[1][index]) for line, word in zip(lines, read, strict=True) if not word)
            raise ValueError(f"{table}, line {number}: {wrong!r} in {header[index]!r} is not train, valid or test.")
        if read and all(read):
            splits = read
            del columns[index]
            told.append(f"splits by {header[index]!r}")
            break
    chosen = _label_columns(table, header, columns)
    told.append(f"labels by {few(repr(header[index]) for index in chosen)}")
    if unused := [repr(header[index]) for index in columns if index not in chosen]:
        told.append(f"not used: {few(unused)}")
    labels: list[tuple[str, ...]]
    if len(chosen) > 1:
        labels = [
            tuple(composed(header[index]) for index in chosen if cells[index].lower() in TRUE) for _, cells in lines
        ]
    else:
        labels, note = _split_cells(columns[chosen[0]], multi_label)
        told += note
    rows: dict[str, Row] = {}
    missing = []
    for (number, cells), found, of in zip(lines, labels, splits, strict=True):
        where = f"{table}, line {number}"
        if len(found) != 1 and not multi_label:
            what = "several labels" if found else "no label"
            raise ValueError(f"{where}: {what}; with --multi-label an image may have none or several.")
        name = find.one(cells[file], of or split_of(Path(table).stem) or "train", where)
        if not name:
            missing.append(f"{cells[file]} (line {number})")
            continue
        before = rows.setdefault(name, Row(name, found, of))
        if before.split != of or (before.labels != found and (len(chosen) > 1 or not multi_label)):
            got = [f"{row.split} {', '.join(row.labels)}".strip() for row in (before, Row(name, found, of))]
            more = "" if multi_label else "; with --multi-label an image may have several labels"
            raise ValueError(f"{where}: {cells[file]} is {got[0]!r} in a line before, and {got[1]!r} here{more}.")
        rows[name] = Row(name, tuple(dict.fromkeys(before.labels + found)), of)
    if twice := len(lines) - len(rows) - len(missing):
        told.append(f"{twice:,} lines name a file again")
    return list(rows.values()), missing, ["; ".join(told)]


class _Finder:
    """Finds the files that a cell may mean."""

    def __init__(self, root: str, table: str | Path, names: Iterable[str]) -> None:
        self.home = self.key(os.path.abspath(root)).rstrip("/") + "/"
        self.folder = posixpath.dirname(self.key(os.path.abspath(table))).removeprefix(self.home)
        if posixpath.isabs(self.folder):
            self.folder = ""  # the table lies elsewhere
        self.known = defaultdict(list)
        for name in names:
            path = self.key(name)
            for known in {path, path if unfit(name) == NO_IMAGE else posixpath.splitext(path)[0]}:
                self.known[posixpath.basename(known)].append((known, name))

    @staticmethod
    def key(text: str) -> str:
        return composed(text).replace("\\", "/")

    def __call__(self, cell: str) -> list[str]:
        cell = self.key(cell).removeprefix(self.home)
        if not cell or self.is_outside(cell):
            return []
        found = self.known.get(posixpath.basename(cell), [])
        place, end = posixpath.normpath(posixpath.join(self.folder, cell)), "/" + posixpath.normpath(cell)
        exact = [name for path, name in found if path == place]
        return exact or [name for path, name in found if f"/{path}".endswith(end)]

    def is_outside(self, cell: str) -> bool:
        place = posixpath.normpath(posixpath.join(self.folder, cell))
        return place.startswith(("/", "../")) or bool(re.match("[A-Za-z]:/", cell))

    def one(self, cell: str, split: str, where: str) -> str:
        """Returns the file, of several the one in a folder of the split; an empty string if it is missing."""
        found = self(cell)
        found = [name for name in found if is_image(name)] or found  # beside a RAW file of the same name
        if len(found) > 1:
            found = [name for name in found if split_of(posixpath.dirname(self.key(name))) == split] or found
        if len(found) > 1:
            raise ValueError(f"{where}: {cell} may be {few(found)}: write the path.")
        if not cell:
            raise ValueError(f"{where}: no file is named.")
        if not found and self.is_outside(self.key(cell).removeprefix(self.home)):
            raise ValueError(f"{where}: {cell} lies outside of the folder of the images.")
        return found[0] if found else ""


def _read_cells(table: str | Path, find: Callable[[str], list[str]]) -> tuple[list[str], list[_Line], int]:
    """Returns the header, the lines, and which column names the files."""
    with open(table, "rb", opener=regular) as stream:
        content = stream.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"{table} has more than {MOST_BYTES:,} bytes: that is no list of images and labels.")
    try:
        text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{table} is no text in UTF-8: save it as 'CSV UTF-8'.") from None
    best, file, delimiter = (0, 0), 0, ","  # how many files, and how many of them with their extension
    for mark in ",;\t|":
        found, whole = defaultdict(set), Counter[int]()
        with suppress(csv.Error):  # told below, if no other delimiter fits
            for _, cells in islice(_lines(text, mark), SAMPLED):
                for index, cell in enumerate(cells):
                    found[index].update(files := find(cell)[:1])
                    whole[index] += any(composed(file).endswith(composed(cell)) for file in files)
        for index, named in found.items():
            if (len(named), whole[index]) > best:
                best, file, delimiter = (len(named), whole[index]), index, mark
    try:
        lines = list(_lines(text, delimiter))
    except csv.Error as error:
        raise ValueError(f"{table} is no CSV: {error}.") from None
    if not any(best):
        start = f"it begins with {few(map(repr, lines[0][1]))}" if lines else "it is empty"
        raise ValueError(f"{table}: no column names files that are in the folder of the images; {start}.")
    for number, cells in lines:
        if len(cells) != len(lines[0][1]):
            raise ValueError(
                f"{table}, line {number}: got {len(cells)} cells, and line {lines[0][0]} has {len(lines[0][1])}."
            )
    _, header = lines[0]
    if find(header[file]) or is_image(header[file]):
        header = [f"column {index + 1}" for index in range(len(header))]
    else:
        lines = lines[1:]
        header[file] = header[file] or "(no name)"
    if twice := sorted({name for name in header if name and header.count(name) > 1}):
        raise ValueError(f"{table}: two columns have the name {twice[0]!r}.")
    return header, lines, file


def _lines(text: str, delimiter: str) -> Iterator[_Line]:
    """Yields the lines that are not empty."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    for cells in reader:
        if any(cells := [cell.strip() for cell in cells]):
            yield reader.line_num, cells


def _splits(name: str, cells: list[str]) -> list[str]:
    """Returns the split of each cell; an empty list for a column of labels, empty strings for what names none."""
    name = re.sub(r"[\W_]+", "", name.casefold())
    lower = [cell.lower() for cell in cells]
    if name in ("isvalid", "isval") and any(pair.issuperset(lower) for pair in FLAGS):
        return ["valid" if cell in TRUE else "train" for cell in lower]
    return [] if name in LABEL_COLUMNS else [split_of(cell) for cell in cells]


def _label_columns(table: str | Path, header: list[str], columns: dict[int, list[str]]) -> list[int]:
    """Returns the column that is called label, or like it; else those of 0 and 1; else the only one."""
    plain = {index: re.sub(r"[\W_]+", "", header[index].casefold()) for index in columns}
    named = [index for index in columns if plain[index] in ("label", "labels")]
    named = named or [i for i in columns if plain[i] in LABEL_COLUMNS or plain[i].endswith(("label", "labels"))]
    kinds = {index: {cell.lower() for cell in cells} for index, cells in columns.items()}
    flags = [index for index in columns if any(pair >= kinds[index] for pair in FLAGS)]
    chosen = named or (flags if len(flags) > 1 else list(columns))
    if len(chosen) != 1 and chosen is not flags:
        got = few((repr(header[index]) for index in chosen), 10) or "no other column"
        raise ValueError(
            f"{table}: which column holds the labels? Call one of them 'label', or name another CSV by --table; there"
            f" is {got}."
        )
    return chosen


def _split_cells(cells: list[str], multi_label: bool) -> tuple[list[tuple[str, ...]], list[str]]:
    """Returns the labels in each cell, and what is to be told."""
    cells = [composed(cell) for cell in cells]
    mark = next((mark for mark in SEPARATORS if any(mark in cell for cell in cells)), "")
    if not multi_label:
        note = [f"some labels hold {mark!r}: with --multi-label they are several"] if mark.strip() else []
        return [(cell,) if cell else () for cell in cells], note
    labels = []
    for cell in cells:
        parts = [part.strip(" '\"") for part in cell.strip("[]").split(mark or None)]
        labels.append(tuple(dict.fromkeys(part for part in parts if part)))
    return labels, [f"labels of a cell are separated by {mark!r}"] if mark else []
