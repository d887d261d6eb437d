"""One's own photographs: which there are, of which classes, and which of them are to train, validate and test on."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from recipes.parts import image_headers
from recipes.parts.image_files import NO_IMAGE, files_in, is_image, leads_up, unfit
from recipes.parts.label_table import Row, composed, few, read_rows, split_of

SPLITS = ("train", "valid", "test")
SHARE = 0.15  # of a class, to validate on, and as much to test on
MOST_LINES = 20  # of the table of classes
_DOES = {"train": "train on", "valid": "validate on", "test": "test on"}

_IMAGES = ("images", "image", "imgs", "img", "jpegimages")  # folders that hold the images, or their classes
# Names of folders, without digits, between which a data set is shared out: HAM10000_images_part_1, fold2.
_ARE_PARTS = re.compile("(/[^/]*(images|part|fold|batch)[^/]*)\\1+")
_Parts = tuple[str, ...]  # of a path


class Found(NamedTuple):
    """The images of a folder.

    Args:
        files: The paths of each split: ``"train"``, ``"valid"`` and ``"test"``.
        labels: One for each: the number of its class, or a float32 tensor of shape (classes,) of 0 and 1.
        classes: Their names.
        told: Lines that say what was found, and what was left out.
    """

    files: dict[str, list[str]]
    labels: dict[str, list[Any]]
    classes: list[str]
    told: list[str]


def find(
    root: str | Path,
    *,
    table: str | Path | None = None,
    multi_label: bool = False,
    seed: int = 0,
    skip_bad: bool = False,
) -> Found:
    """Returns the images of a folder, with labels and splits, by class folders or a CSV.

    Splits that are not given are drawn by the seed, stratified; they are the same wherever the folder stands.

    Args:
        root: The folder.
        table: The CSV, also relative to the folder; by default the one in it, if there are no class folders.
        multi_label: Whether an image may have several labels, or none; a CSV must say so.
        seed: Of the splits.
        skip_bad: Whether images that are damaged or missing are left out.

    Raises:
        OSError: If the folder, the CSV or an image cannot be read.
        ValueError: If classes or splits are not clear, or there are too few images.
    """
    root = str(root)
    if not os.path.isdir(root):
        raise FileNotFoundError(f"{root} is no folder: name the one of the photographs, unpacked.")
    hidden: list[str] = []
    names = [os.path.relpath(path, root) for path in files_in(root, hidden=hidden)]
    left = defaultdict(list, hidden=[os.path.relpath(path, root) for path in hidden])  # out, by the reason
    try:
        rows, told = _rows(root, names, table, multi_label, skip_bad, left)
        looks = image_headers.look_at(root, rows, skip_bad, left)
        rows, more = _split(root, [row for row in rows if row.name in looks], multi_label, seed)
    except ValueError as error:
        raise ValueError("; ".join([str(error).rstrip("."), *left_out(left)]) + ".") from None
    classes = _in_order({label for row in rows for label in row.labels})
    alike = [name for name, count in Counter(map(str.casefold, classes)).items() if count > 1]
    if alike:
        more.append(f"Warning: classes that differ only by capitals: {few(alike)}")
    number = {name: index for index, name in enumerate(classes)}
    files: dict[str, list[str]] = {split: [] for split in SPLITS}
    labels: dict[str, list[Any]] = {split: [] for split in SPLITS}
    for row in rows:
        files[row.split].append(os.path.join(root, row.name))
        numbers = torch.tensor([number[label] for label in row.labels], dtype=torch.int64)
        labels[row.split].append(torch.zeros(len(classes)).index_fill(0, numbers, 1) if multi_label else int(numbers))
    head = [f"{root}: {len(rows):,} images of {len(classes):,} classes", *told, *more]
    rest = [image_headers.sizes(list(looks.values())), *image_headers.copies(root, rows, looks), *left_out(left)]
    told = [*(f"{line}." for line in head), *_table(rows, classes), *(f"{line}." for line in rest)]
    return Found(files, labels, classes, told)


def _in_order(classes: Iterable[str]) -> list[str]:
    """Returns names sorted; numbers by their size."""
    names = sorted(classes)
    plain = {name: name.lstrip("0") for name in names}
    return sorted(names, key=lambda name: (len(plain[name]), plain[name])) if all(map(str.isdecimal, names)) else names


# -- which images, and of which classes


def _rows(
    root: str, names: list[str], table: str | Path | None, multi_label: bool, skip_bad: bool, left: dict[str, list[str]]
) -> tuple[list[Row], list[str]]:
    """Returns the images with their labels, and the splits that are given."""
    if table and not os.path.exists(table):
        table = os.path.join(root, table)
        if not os.path.exists(table):
            raise FileNotFoundError(f"there is no {table}.")
    tables = [str(table)] if table else _tables(root, names)
    rows, told = ([], []) if table or multi_label else _of_folders(root, names)
    why_not = "in no class folder"
    if rows and not (tables and len({row.labels for row in rows}) == 1):
        if tables:
            told.append(f"Warning: not used is {few(tables)}; --table takes the labels from a CSV")
    elif tables:
        rows, told = _of_tables(root, names, tables, multi_label, skip_bad, left)
        why_not = "in no line of the CSV"
    else:
        what = "CSV of files and labels, which --multi-label needs" if multi_label else "class folders, and no CSV"
        raise ValueError(
            f"{root} has no {what}; of images it has {sum(map(is_image, names)):,}. Put them into {root}/<class>/ (no"
            " class is called images, part1 or fold1), or a CSV with the columns file and label beside them"
        )
    listed = {row.name for row in rows}
    used = {os.path.abspath(path) for path in tables}
    for name in names:
        why = unfit(name)
        if name in listed and why == NO_IMAGE:
            continue  # a CSV names it: its content counts
        if why := why or ("" if name in listed else why_not):
            listed.discard(name)
            if os.path.abspath(os.path.join(root, name)) not in used:
                left[why].append(name)
    return [row for row in rows if row.name in listed], told


def _of_folders(root: str, names: list[str]) -> tuple[list[Row], list[str]]:
    """Returns the images in class folders; none if there are no such folders."""
    every: list[_Parts] = [tuple(name.split(os.sep)) for name in names]
    images: list[_Parts] = [path for path, name in zip(every, names, strict=True) if is_image(name)]
    top = _down((), images)
    folders = sorted(_folders_in(top, images))
    are_parts = _ARE_PARTS.fullmatch("".join("/" + re.sub(r"\d+", "", folder.lower()) for folder in folders))
    starts, told = {"": top} if folders and not are_parts else {}, list[str]()
    if len({*map(split_of, folders)} - {""}) > 1:
        starts = {}
        for folder in filter(split_of, folders):
            split, place = split_of(folder), _down((*top, folder), images)
            if not _folders_in(place, images):
                told.append(f"{folder} has no class folders: it cannot be used to {_DOES[split]}")
            elif split in starts:
                both = f"{os.path.join(*starts[split])} and {os.path.join(*place)}"
                raise ValueError(f"{root}: {both} are both to {_DOES[split]}: rename or remove one of them")
            else:
                starts[split] = place
    rows, layouts, within = [], [], ""
    for split, place in sorted(starts.items(), key=lambda item: ("", *SPLITS).index(item[0])):
        for depth in range(len(place)):
            _refuse_empty(root, place[:depth], every)
        _refuse_empty(root, place, images)
        layouts.append("/".join((*place, "<class>")))
        found = [path for path in images if path[: len(place)] == place and len(path) > len(place) + 1]
        pairs = {path[len(place) : len(place) + 2] for path in found if len(path) > len(place) + 2}
        counts = Counter(folder for _, folder in pairs)  # of folders in class folders: in how many of them
        within = "; the folders in them count to the class" if pairs else within
        for name in sorted({name for name, _ in pairs}):
            inner = sorted(folder for other, folder in pairs if other == name)
            is_split = (not split and split_of(name) == "train") or len({*map(split_of, inner)} - {""}) > 1
            if is_split or sum(counts[folder] > 1 for folder in inner) > 1:
                raise ValueError(
                    f"{os.path.join(root, *place, name)} is taken for a class, with the folders {few(inner)}: name it"
                    " if it is the data set, or put images into <class>/, or train/<class>/ and the like"
                )
        rows += [Row(os.sep.join(path), (composed(path[len(place)]),), split) for path in found]
    return rows, [f"Classes are the folders {few(layouts)}{within}", *told]


def _folders_in(place: _Parts, paths: Iterable[_Parts], levels: int = 1) -> set[str]:
    """Returns the folders that hold files, at least so many levels below a place."""
    depth = len(place)
    return {path[depth] for path in paths if len(path) > depth + levels and path[:depth] == place}


def _down(place: _Parts, images: list[_Parts]) -> _Parts:
    """Returns the folder that is reached by going down: into a lone folder of folders, and into ``images``.

    What stands beside ``images``, such as masks, are no classes.
    """
    while folders := _folders_in(place, images):
        into = [name for name in sorted(folders) if name.lower() in _IMAGES and not any(map(split_of, folders))]
        if len(folders) == 1 and folders == _folders_in(place, images, 2):
            into = [*folders]
        if not into:
            break
        place = (*place, into[0])
    return place


def _refuse_empty(root: str, place: _Parts, paths: list[_Parts]) -> None:
    """Refuses a folder with a folder in it that holds none of the paths."""
    held = {*_folders_in(place, paths), "__MACOSX"}
    with os.scandir(os.path.join(root, *place)) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            is_other = entry.name not in held and not entry.name.startswith(".") and entry.is_dir()
            if is_other and not leads_up(entry.path, root):
                raise ValueError(f"{entry.path} has no image: fill this folder, or remove it")


def _tables(root: str, names: list[str]) -> list[str]:
    """Returns the CSVs of a folder, which are those in the fewest folders; Kaggle's submissions hold made-up labels."""
    tables = [name for name in names if re.search(r"(?i)\.[ct]sv$", name) and "submission" not in name.lower()]
    least = min((name.count(os.sep) for name in tables), default=0)
    return [os.path.join(root, name) for name in tables if name.count(os.sep) == least]


def _of_tables(
    root: str, names: list[str], tables: list[str], multi_label: bool, skip_bad: bool, left: dict[str, list[str]]
) -> tuple[list[Row], list[str]]:
    """Returns the images of a CSV, or of one for each split."""
    splits = {path: split_of(os.path.relpath(path, root)) if len(tables) > 1 else "" for path in tables}
    if len({*splits.values()} - {""}) < len(tables) > 1:
        raise ValueError(f"{root} has {len(tables)} CSVs: {few(map(os.path.basename, tables))}; name one by --table")
    rows: list[Row] = []
    told: list[str] = []
    seen: dict[str, str] = {}
    for path, split in splits.items():
        found, missing, lines = read_rows(root, path, names, multi_label, split)
        if missing and not skip_bad:
            what = "1 file is" if len(missing) == 1 else f"{len(missing):,} files are"
            raise FileNotFoundError(f"{path}: {what} not there: {few(missing)}; --on-bad-sample skip leaves them out.")
        left[f"in {os.path.basename(path)}, but not there"] += missing
        for row in found:
            if seen.setdefault(row.name, path) != path:
                raise ValueError(f"{row.name} is both in {seen[row.name]} and in {path}")
        rows, told = rows + found, [*dict.fromkeys(told + lines)]
    by_folder = [next(filter(None, map(split_of, row.name.split(os.sep)[:-1])), "") for row in rows]
    if not any(row.split for row in rows) and all(by_folder) and len(set(by_folder)) > 1:
        rows = [row._replace(split=split) for row, split in zip(rows, by_folder, strict=True)]
        told.append("Splits are those of the folders")
    return rows, told


# -- which of them are to train, validate and test on


def _split(root: str, rows: list[Row], multi_label: bool, seed: int) -> tuple[list[Row], list[str]]:
    """Returns the images with a split each, and how that was found.

    Raises:
        ValueError: If a class is missing from a split, or there are fewer than two.
    """
    given = {row.split for row in rows} - {""}
    held = {split: {label for row in rows if row.split == split for label in row.labels} for split in ("", *given)}
    every = set().union(*held.values())
    if len(every) < 2:
        got = f"only {few(every)!r}" if every else "none"
        raise ValueError(f"{root}: two classes or more are needed, and there is {got}; put images into {root}/<class>/")
    if given and "train" not in given:
        raise ValueError(f"{root}: there are images to {few(_DOES[split] for split in given)}, and none to train on")
    for split in given - {"train"}:
        if other := held[split] - held["train"] if multi_label else held[split] ^ held["train"]:
            raise ValueError(
                f"{root}: train and {split} must have the same classes; only one has {few(_in_order(other), 10)}: add"
                f" or remove those, or take {split} out of the folder, to be drawn from train"
            )
    wanted = [split for split in SPLITS[1:] if split not in given]
    if not wanted:
        return rows, ["The splits are those given"]
    pool = [row for row in rows if row.split in ("", "train")]
    counts = Counter(label for row in pool for label in row.labels or ("",))
    scarce = [f"{name} ({counts[name]})" for name in _in_order(every) if counts[name] <= len(wanted)]
    if scarce and not multi_label:
        what = "to train, validate and test on" if len(wanted) > 1 else f"to train and {_DOES[wanted[0]]}"
        raise ValueError(f"{root}: a class needs {len(wanted) + 1} images or more, {what}; too few: {few(scarce, 10)}")
    shared = _shared_out(pool, counts, wanted, seed)
    told = " and ".join(f"{SHARE:.0%} to {_DOES[split]}" for split in wanted)
    told += f", drawn from each class{' of train' if given else ''} by the seed {seed}"
    rows = [row._replace(split=shared.get(row.name, row.split)) for row in rows]
    found = {(row.split, label) for row in rows for label in row.labels}
    absent = [name for name in _in_order(every) if any((split, name) not in found for split in SPLITS)]
    return rows, [told, *([f"Warning: not in every split: {few(absent, 10)}"] if absent else [])]


def _shared_out(pool: list[Row], counts: Counter[str], wanted: list[str], seed: int) -> dict[str, str]:
    """Returns the split of each image: stratified, and of several labels the rarest first.

    Sechidis et al., On the stratification of multi-label data, 2011.
    """
    need = {}
    for label, count in counts.items():  # "": no label
        share = max(1, round(SHARE * count))
        need[label] = {"train": max(1, count - share * len(wanted)), **dict.fromkeys(wanted, share)}
    members = defaultdict(list)
    for row in sorted(pool, key=lambda row: _lot(row.name, seed)):
        for label in row.labels or ("",):
            members[label].append(row)
    shared: dict[str, str] = {}
    for label in sorted(members, key=lambda label: (label == "", counts[label], label)):
        for row in members[label]:
            if row.name not in shared:
                split = max(need[label], key=need[label].__getitem__)
                shared[row.name] = split
                for each in row.labels or ("",):
                    need[each][split] -= 1
    return shared


def _lot(name: str, seed: int) -> bytes:
    """Returns what orders the images at random, whatever order the file system has."""
    return hashlib.sha256(os.fsencode(f"{seed}/{composed(name).replace(os.sep, '/')}")).digest()


# -- what is told


def _table(rows: list[Row], classes: list[str]) -> list[str]:
    """Returns lines with the numbers of images: of each class, if they are not too many."""
    counts = Counter((row.split, label) for row in rows for label in row.labels)
    totals = Counter(row.split for row in rows)
    lines = ["".join(f"{split:>9}" for split in SPLITS)]
    for name in classes if len(classes) <= MOST_LINES else []:
        lines.append("".join(f"{counts[split, name]:>9,}" for split in SPLITS) + f"  {name}")
    lines.append("".join(f"{totals[split]:>9,}" for split in SPLITS) + "  images")
    if len(classes) > MOST_LINES:
        sums = sorted((sum(counts[split, name] for split in SPLITS), name) for name in classes)
        lines.append(f"Images of a class: {sums[0][0]:,} ({sums[0][1]}) to {sums[-1][0]:,} ({sums[-1][1]}).")
    return lines


def left_out(left: dict[str, list[str]]) -> list[str]:
    """Returns lines that name the files left out for each reason."""
    lines = []
    for why, names in left.items():
        if len(names) == 1:
            lines.append(f"1 file left out: {names[0]}, {why}")
        elif names:
            lines.append(f"{len(names):,} files left out: {few(names)}, {why.replace('an image', 'images')}")
    return lines
