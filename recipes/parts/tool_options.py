"""The command lines of the tools, without torch: ``kusari predict --help`` answers at once."""

from __future__ import annotations

import argparse
import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recipes.parts.parser import Parser, as_typed

RECIPES = Path(__file__).resolve().parent.parent  # the folder of recipes and tools
FEW = 5  # classes: so many fit a line of the terminal; of more, predict.py prints TOP
TOP = 3
MOST_DRAWN = 64  # images: more would be too small to see
WATCH = 10.0  # seconds between two looks at a log
X_KEYS = ("epoch", "iteration", "elapsed_time")
# The columns of runs.py, and which values of each come first when runs are sorted by it.
RUN_COLUMNS = {"run": "a to z", "recipe": "a to z", "model": "a to z", "done": "most", "best": "highest"}
RUN_COLUMNS |= {"loss": "lowest", "test": "highest", "time": "shortest"}

SHARED: dict[str, dict[str, Any]] = {
    "--data": {"metavar": "DIR", "help": "folder of the data set (the run's)"},
    "--recipe": {"metavar": "FILE", "help": "the file of the run's recipe, if it is not one of ours"},
    "--device": {"help": "such as cpu or cuda:1 (CUDA where there is one)"},
    "--batch-size": {"type": int, "metavar": "N", "help": "images in a batch (the run's)"},
    "--workers": {"type": int, "metavar": "N", "help": "processes that load images (one for each CPU)"},
}


def docstring(path: Path) -> str:
    """Returns the docstring of a Python file without running it."""
    return ast.get_docstring(ast.parse(path.read_bytes())) or ""


def recipe_names() -> list[str]:
    """Returns the names of our recipes, the files that have ``OPTIONS``; none is imported, for that takes seconds."""
    return sorted(path.stem for path in RECIPES.glob("*.py") if b"\nOPTIONS = " in path.read_bytes())


def make_parser(name: str) -> Parser:
    """Returns the command line of a tool, by the name of its file."""
    parser = Parser(description=as_typed(docstring(RECIPES / f"{name}.py"), name))
    TOOLS[name](parser)
    return parser


def evaluate_run(parser: argparse.ArgumentParser) -> None:
    """Adds the options of evaluate_run.py."""
    parser.add_argument("run", metavar="RUN", help="the folder of a run, which has args.json and weights")
    parser.add_argument("--split", default="test", help="test, train, or valid if the recipe has it (test)")
    _shared(parser, "--data", "--recipe", "--device", "--batch-size", "--workers")


def predict(parser: argparse.ArgumentParser) -> None:
    """Adds the options of predict.py."""
    weights = "a file of weights in the folder of a run, or that folder: then the last ones"
    parser.add_argument("weights", metavar="WEIGHTS", help=weights)
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="image files, or folders of them")
    parser.add_argument("--format", choices=("text", "json", "csv"), default="text", help="of the output (text)")
    top = f"classes in a line of text (all, if there are no more than {FEW}; else {TOP})"
    parser.add_argument("--top", type=int, metavar="N", help=top)
    parser.add_argument("-o", metavar="FILE", help="the file to write (the standard output)")
    grid = f"draw the first {MOST_DRAWN} images into a PNG, SVG or PDF, with the prediction and, if the folder or the"
    grid += " file is named after it (pug/, pug_final/ or pug_12.jpg), the truth"
    parser.add_argument("--grid", metavar="FILE", help=grid)
    _shared(parser, "--recipe", "--device", "--batch-size")


def report(parser: argparse.ArgumentParser) -> None:
    """Adds the options of report.py."""
    parser.add_argument("runs", nargs="*", metavar="RUN", help="a run's folder, such as result")
    parser.add_argument("-o", metavar="FILE", help="the page to write (report.html in the first RUN)")
    often = f"make the page anew while the run goes on, every so many seconds ({WATCH:g})"
    parser.add_argument("--watch", nargs="?", const=WATCH, metavar="SECONDS", help=often)
    _shared(parser, "--data", "--recipe", "--device", "--workers")


def plot_log(parser: argparse.ArgumentParser) -> None:
    """Adds the options of plot_log.py."""
    parser.add_argument("logs", nargs="+", metavar="LOG", help="a log, such as result/log")
    parser.add_argument("-o", metavar="FILE", help="write a PNG, SVG or PDF, by its suffix; else a window opens")
    parser.add_argument("--keys", nargs="+", metavar="KEY", help="what to draw, such as main/loss (every number)")
    parser.add_argument("--x", choices=X_KEYS, help="the horizontal axis (epoch; iteration within the first epoch)")
    parser.add_argument("--log-scale", action="store_true", help="draw values on a logarithmic scale, spikes and all")


def runs(parser: argparse.ArgumentParser) -> None:
    """Adds the options of runs.py."""
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="where to look for runs, in folders of it too")
    orders = ", ".join(f"{name} ({first})" for name, first in RUN_COLUMNS.items())
    parser.add_argument("--sort", choices=RUN_COLUMNS, default="run", metavar="COLUMN", help=f"one of {orders}")
    parser.add_argument("--format", choices=("text", "csv", "json"), default="text", help="of the table (text)")


def summary(parser: argparse.ArgumentParser) -> None:
    """Adds the options of summary.py."""
    parser.add_argument("model", metavar="MODEL", help="one of recipes/parts/networks.py, or any model of timm")
    parser.add_argument("--input", type=_shape, metavar="C,H,W", help="shape of the image (the network's own)")
    parser.add_argument("--classes", type=_positive, metavar="N", help="number of classes (the network's own)")
    parser.add_argument("--depth", type=_positive, default=2, metavar="N", help="levels of modules within modules (2)")


def _shared(parser: argparse.ArgumentParser, *names: str) -> None:
    for name in names:
        parser.add_argument(name, **SHARED[name])


def _shape(text: str) -> tuple[int, ...]:
    try:
        shape = tuple(map(int, text.replace("x", ",").split(",")))
    except ValueError:
        shape = ()
    if len(shape) != 3 or min(shape) < 1:
        raise argparse.ArgumentTypeError(f"must be channels,height,width, each 1 or more, got {text!r}; e.g. 3,224,224")
    return shape


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {text!r}")
    return int(text)


TOOLS: dict[str, Callable[[argparse.ArgumentParser], None]]
TOOLS = {tool.__name__: tool for tool in (plot_log, predict, evaluate_run, report, runs, summary)}
