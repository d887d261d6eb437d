"""Compares two result files of one benchmark: the new value over the old, row by row.

    python benchmarks/overhead.py --json before.json
    python benchmarks/overhead.py --json after.json
    python benchmarks/compare.py before.json after.json

A row that is worse by more than ``--tolerance`` (0.1: ten percent) is marked, and then the exit status is 1. Both
files should come from one machine: absolute times of two differ by more than any change.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any


def read(path: Path) -> dict[str, Any]:
    """Returns a result file that a benchmark wrote by --json.

    Raises:
        ValueError: If it is none.
    """
    try:
        result = json.loads(path.read_text())
        for row in result["rows"]:
            row["name"], row["unit"], row["more_is_better"], row["value"] + 0
        result["benchmark"], result["date"], result["machine"], result["versions"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no result file of a benchmark ({error}); write one by --json FILE.") from error
    return result


def compare(old: dict[str, Any], new: dict[str, Any], tolerance: float) -> tuple[list[str], bool]:
    """Returns the lines of the table, and whether a row has become worse by more than the tolerance."""
    before = {row["name"]: row for row in old["rows"]}
    lines, is_worse = [], False
    for row in new["rows"]:
        was = before.pop(row["name"], None)
        if was is None or not was["value"]:
            told = "new" if was is None else "was 0"
            lines.append(f"{row['name']:<64} {told:>8} {'':>12} {row['value']:>12.4g} {row['unit']}")
            continue
        ratio = row["value"] / was["value"]
        worse = (1 / ratio if row["more_is_better"] and ratio else ratio) > 1 + tolerance
        is_worse |= worse
        values = f"{was['value']:>12.4g} {row['value']:>12.4g} {row['unit']}"
        lines.append(f"{row['name']:<64} {ratio:>8.3f} {values}{'  WORSE' if worse else ''}")
    lines += [f"{name:<64} {'gone':>8}" for name in before]
    return lines, is_worse


def main(argv: list[str] | None = None) -> int:
    """Prints the ratios; returns 1 if something is worse."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path, metavar="OLD", help="a result file")
    parser.add_argument("new", type=Path, metavar="NEW", help="another, of the same benchmark")
    parser.add_argument("--tolerance", type=float, default=0.1, metavar="X", help="what is no regression yet (0.1)")
    args = parser.parse_args(argv)
    try:
        old, new = read(args.old), read(args.new)
        if old["benchmark"] != new["benchmark"]:
            raise ValueError(f"{args.old} is of {old['benchmark']}.py and {args.new} of {new['benchmark']}.py.")
    except ValueError as error:
        parser.error(str(error))
    for what in ("date", "machine", "versions"):
        if old[what] != new[what]:
            print(f"{what}: {old[what]} -> {new[what]}")
    lines, is_worse = compare(old, new, args.tolerance)
    print(f"{'':<64} {'new/old':>8} {'old':>12} {'new':>12}", *lines, sep="\n")
    return int(is_worse)


if __name__ == "__main__":
    sys.exit(main())
