"""What the benchmarks share: rounds that are interleaved, medians, versions, a file of results for ``compare.py``.

A machine's speed swings within seconds, so what is compared is timed in turn, round by round, and ratios and
differences are taken between neighbours before their median is.
"""

import argparse
import datetime
import json
import os
import platform
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image

Rounds = dict[str, list[float]]


def make_parser(doc: str) -> argparse.ArgumentParser:
    """Returns a parser with the options that every benchmark has."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=_rounds, metavar="N", help="how often everything is measured in turn")
    parser.add_argument("--json", type=_new_file, metavar="FILE", help="write the results there, for compare.py")
    return parser


def _rounds(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {text}")
    return int(text)


def _new_file(text: str) -> Path:
    if not Path(text).parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {Path(text).parent}")
    return Path(text)


def interleaved(functions: dict[str, Callable[[], float]], rounds: int) -> Rounds:
    """Calls functions that return what they measured, in turn, round by round; the first round is not counted."""
    measured: Rounds = {name: [] for name in functions}
    for number in range(rounds + 1):
        for name, function in functions.items():
            value = function()
            if number:
                measured[name].append(value)
    return measured


def ratio(measured: Rounds, name: str, to: str) -> float:
    """Returns the median of the ratios of neighbours."""
    return median(a / b for a, b in zip(measured[name], measured[to], strict=True))


def make_images(folder: Path | str, n: int = 16) -> None:
    """Writes JPEG files of 500 x 375 pixels, about 50 KB each: smooth noise with texture."""
    generator = np.random.default_rng(0)
    for i in range(n):
        smooth = Image.fromarray(generator.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((500, 375))
        texture = generator.normal(0, 11, (375, 500, 1))
        pixels = (np.asarray(smooth) + texture).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(Path(folder) / f"{i}.jpg", quality=75)


def versions(*packages: str) -> dict[str, str]:
    """Returns the versions of Python, torch and what else is named, where it is installed."""
    found = {"Python": platform.python_version(), "torch": torch.__version__}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> str:
    """Returns the processor's and the accelerator's name and how many cores there are."""
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{name}, {cores} cores{gpu}"


class Results:
    """A table of numbers, printed as it grows and written as JSON at the end."""

    def __init__(self, title: str, *packages: str) -> None:
        self.head: dict[str, Any] = {
            "benchmark": Path(sys.argv[0]).stem,
            "date": datetime.date.today().isoformat(),
            "machine": machine(),
            "versions": versions(*packages),
        }
        self.rows: list[dict[str, Any]] = []
        told = ", ".join(f"{name} {version}" for name, version in self.head["versions"].items())
        print(f"{title}\n{self.head['machine']}; {told}\n", flush=True)

    def add(self, name: str, value: float, unit: str, note: str = "", more_is_better: bool = False) -> None:
        """Adds a row and prints it."""
        self.rows.append({"name": name, "value": value, "unit": unit, "more_is_better": more_is_better})
        print(f"{name:<64} {value:>12,.4g} {unit:<12} {note}".rstrip(), flush=True)

    def write(self, path: Path | None) -> None:
        """Writes the JSON file, if one is wanted."""
        if path is not None:
            path.write_text(json.dumps(self.head | {"rows": self.rows}, indent=4) + "\n")
