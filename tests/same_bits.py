"""Compares what two versions of the code compute, to the bit: ``python tests/same_bits.py REVISION``.

The runs of same_bits_runs.py are done with REVISION of this repository and with the working tree: from start to end,
then killed in mid-epoch and resumed in another process. Weights, optimizers, random states, observations, logs, plots
and other files must be the same, path for path. In snapshots a value may move to another key and keys that hold no
result may come and go; tensors and fractions may not. What is meant to differ is named with ``--allow``.

Exits with 1 if anything differs.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNS = Path(__file__).resolve().with_name("same_bits_runs.py")
STEPS = ("first", "resumed")
MOST_SHOWN = 2  # differences of one part of a run
EXACT = ("error", "weights", "optimizer", "iterator", "random", "log", "contents of files")  # after a resume too


def check_out(revision, folder):
    archive = subprocess.run(["git", "archive", revision], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    folder.mkdir()
    subprocess.run(["tar", "x", "-C", str(folder)], input=archive, check=True)


def outcomes(tree, folder, names):
    """Does the runs with the code of one tree; returns step -> run -> part -> path -> leaf."""
    folder.mkdir()
    env = os.environ | {"PYTHONPATH": str(tree), "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
    results = {}
    for step in STEPS:
        file = folder / f"{step}.json"
        subprocess.run([sys.executable, str(RUNS), step, "runs", str(file), *names], cwd=folder, env=env, check=True)
        result = json.loads(file.read_text())
        if Path(result["root"]).resolve() != Path(tree).resolve():
            sys.exit(f"the code of {result['root']} was run in place of {tree}")
        results[step] = result["outcomes"]
    return results


def is_result(leaf):
    """Whether a leaf is something computed, which may move and not vanish: a tensor, or a number with a fraction."""
    return leaf.startswith("torch.") or re.fullmatch(r"-?(\d+\.\d*[1-9]\d*|\d+\.\d+e-?\d+|\d+e-\d+|nan|inf)", leaf)


def last_word(path):
    """The last name in a path: ``state/0/exp_avg`` and ``previous/1`` end in ``exp_avg`` and ``previous/1``."""
    *_, before, last = ["", *path.split("/")]
    return f"{before}/{last}" if last.isdigit() else last


def compare_strictly(old, new):
    """Yields what differs between two dicts of leaves."""
    for path in dict.fromkeys([*old, *new]):
        if old.get(path) != new.get(path):
            yield path, f"{old.get(path, 'not there')} -> {new.get(path, 'not there')}"


def compare_mapped(old, new):
    """Returns what differs between two snapshots, and what has come or gone, when leaves may have moved."""
    differences = [(path, f"{old[path]} -> {new[path]}") for path in old if path in new and old[path] != new[path]]
    gone = {path: leaf for path, leaf in old.items() if path not in new}
    fresh = {path: leaf for path, leaf in new.items() if path not in old}

    for same_place in (lambda a, b: last_word(a) == last_word(b), lambda a, b: is_result(old[a])):
        by_leaf = defaultdict(list)
        for path, leaf in fresh.items():
            by_leaf[leaf].append(path)
        for path, leaf in list(gone.items()):
            for other in by_leaf[leaf]:
                if same_place(path, other):
                    del gone[path], fresh[other]
                    by_leaf[leaf].remove(other)
                    break

    by_word = defaultdict(list)
    for path in fresh:
        by_word[last_word(path)].append(path)
    notes = []
    for path, leaf in gone.items():
        if others := by_word[last_word(path)]:
            other = others.pop(0)
            del fresh[other]
            differences.append((path, f"{leaf} -> {new[other]} in {other}"))
        else:
            is_lost = is_result(leaf) and leaf not in new.values()  # else it stood there twice
            (differences if is_lost else notes).append((path, f"{leaf} -> gone"))
    for path, leaf in fresh.items():
        is_other = is_result(leaf) and leaf not in old.values()
        (differences if is_other else notes).append((path, f"new: {leaf}"))
    return differences, notes


def compare(old, new, allow=()):
    """Returns the differences between the parts of one run, and the notes, as lists of (part, path, text)."""
    if new is None or old is None:
        return ([] if old is new else [("run", "", "was killed in one version only")]), []
    differences, notes = [], []
    for part in dict.fromkeys([*old, *new]):
        if part not in old or part not in new:
            found = [("", "only with the old code" if part in old else "only with the new code")], []
        elif part.startswith(("snapshot", "state")):
            found = compare_mapped(old[part], new[part])
        else:
            found = list(compare_strictly(old[part], new[part])), []
        for path, text in found[0]:
            is_allowed = any(fnmatch(f"{part}/{path}", pattern) for pattern in allow)
            (notes if is_allowed else differences).append((part, path, text))
        notes += [(part, path, text) for path, text in found[1]]
    if "cannot run" in old and "cannot run" in new:
        differences.append(("cannot run", "", new["cannot run"]["traceback"]))
    return differences, notes


def show(differences):
    by_part = defaultdict(list)
    for part, path, text in differences:
        by_part[part].append(f"{path}: {text}" if path else text)
    for part, lines in by_part.items():
        for line in lines[:MOST_SHOWN]:
            print(f"    {part}: {line}")
        if len(lines) > MOST_SHOWN:
            print(f"    {part}: and {len(lines) - MOST_SHOWN} more")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revision", help="of the old code, as git takes it: HEAD, main, a hash")
    parser.add_argument("runs", nargs="*", help="only these; all by default")
    parser.add_argument("--allow", action="append", default=[], metavar="PATTERN", help="of 'part/path', for fnmatch")
    parser.add_argument("--notes", action="store_true", help="also show which keys of snapshots came and went")
    args = parser.parse_intermixed_args(argv)
    failed, notes = 0, []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        check_out(args.revision, folder / "tree")
        old = outcomes(folder / "tree", folder / "old", args.runs)
        new = outcomes(ROOT, folder / "new", args.runs)
    for name in new["first"]:
        found = []
        for step in STEPS:
            differences, others = compare(old[step].get(name), new[step][name], args.allow)
            where = "" if step == "first" else " (resumed)"
            found += [(part + where, *rest) for part, *rest in differences if (part, *rest) not in found]
            notes += others
        whole, resumed = ({p: new[step][name].get(p, {}) for p in EXACT} for step in STEPS)
        found += [(f"{part} (not as without the resume)", *rest) for part, *rest in compare(whole, resumed)[0]]
        print(f"{name}: {'DIFFERS' if found else 'same'}")
        show(found)
        failed += bool(found)
    if args.notes:
        for line in sorted({f"{path}: {text}" for _, path, text in notes}):
            print("note:", line)
    print(f"{failed} of {len(new['first'])} runs differ" if failed else "all the same", f"({len(notes)} notes)")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
