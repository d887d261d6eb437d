"""How long a start takes: what ``import trainer`` and ``import extensions`` add to ``import torch``.

Each is timed in fresh interpreters, in this order: torch first, so that what it brings by itself is not counted. The
packages are copied to a temporary folder, once with their bytecode beside them, as an installation or a first run
leaves it, and once without, as where ``PYTHONDONTWRITEBYTECODE`` is set. Below stand the modules that took longest, by
themselves, as ``python -X importtime`` tells.

    python benchmarks/start.py
"""

import compileall
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from harness import Results, interleaved, make_parser

import extensions
import trainer

PACKAGES = ("torch", "trainer", "extensions")
TIMED = """
import importlib, json, sys, time
seconds = []
for name in sys.argv[1:]:
    start = time.perf_counter()
    importlib.import_module(name)
    seconds.append(time.perf_counter() - start)
print(json.dumps(seconds))
"""


def copied(folder: Path) -> Path:
    """Copies the packages into a folder, without bytecode."""
    for package in (trainer, extensions):
        source = Path(str(package.__file__)).parent
        shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def started(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a fresh interpreter that imports the packages from a folder, and writes no bytecode there."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("PYTHONPYCACHEPREFIX", None)
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )


def times(folder: Path) -> list[float]:
    """Returns the milliseconds that each package took."""
    return [1000 * seconds for seconds in json.loads(started(folder, "-c", TIMED, *PACKAGES).stdout)]


def heaviest(folder: Path, rounds: int, n: int = 8) -> list[tuple[float, str]]:
    """Returns the modules that torch had not loaded and that took longest by themselves, in milliseconds."""
    code = "import torch, sys; print('after torch', file=sys.stderr, flush=True); import trainer, extensions"
    taken: dict[str, list[int]] = {}
    for _ in range(rounds):
        told = started(folder, "-X", "importtime", "-c", code).stderr.split("after torch", 1)[1]
        for microseconds, module in re.findall(r"^import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)$", told, re.MULTILINE):
            taken.setdefault(module, []).append(int(microseconds))
    return sorted(((median(values) / 1000, module) for module, values in taken.items()), reverse=True)[:n]


def main() -> None:
    """Measures and prints."""
    parser = make_parser(str(__doc__))
    parser.set_defaults(rounds=15)
    args = parser.parse_args()
    results = Results("What a start takes")
    with tempfile.TemporaryDirectory() as temporary:
        compiled, source = copied(Path(temporary, "compiled")), copied(Path(temporary, "source"))
        compileall.compile_dir(compiled, quiet=1)
        measured = interleaved({"bytecode": lambda: times(compiled), "no bytecode": lambda: times(source)}, args.rounds)
        for name, rounds in measured.items():
            torch_ms, trainer_ms, extensions_ms = (median(column) for column in zip(*rounds, strict=True))
            if name == "bytecode":
                results.add("import torch", torch_ms, "ms")
            results.add(f"import trainer, {name}", trainer_ms, "ms", "more; at most 50 wanted")
            results.add(f"import extensions, {name}", extensions_ms, "ms", "more; at most 50 wanted")
        print("\nThe modules that took longest, bytecode:")
        for milliseconds, module in heaviest(compiled, max(args.rounds // 3, 1)):
            print(f"{module:<64} {milliseconds:>12.2f} ms")
    results.write(args.json)


if __name__ == "__main__":
    main()
