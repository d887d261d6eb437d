"""Trains image classifiers, tests them, and compares their runs.

    kusari finetune photos
    kusari train pets --sample
    kusari predict result photo.jpg

``kusari COMMAND --help`` lists the options of a command, ``kusari train`` lists the recipes, and ``kusari train
my_recipe.py`` runs a file of your own.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import itertools
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from recipes.parts import tool_options
from recipes.parts.parser import COMMANDS, Parser, kusari, say, stop
from recipes.parts.tool_options import RECIPES, docstring, recipe_names

LIGHT = ("typing", "recipes.parts.options")  # what a recipe imports for its options, and needs no torch
MODULES = {typed: name for name, typed in COMMANDS.items() if (RECIPES / f"{name}.py").is_file()}


def listed(files: dict[str, str]) -> list[str]:
    """Returns a line for each of some commands or recipes: what is typed, and what its file does."""
    width = max(map(len, files))
    return [f"  {typed:{width}}  {docstring(RECIPES / f'{name}.py').splitlines()[0]}" for typed, name in files.items()]


def main(argv: list[str] | None = None) -> None:
    """Runs the recipe or tool that a command line names."""
    argv = sys.argv[1:] if argv is None else argv
    commands = ["commands:", *listed(MODULES), "", "recipes, by train RECIPE:", *listed({n: n for n in recipe_names()})]
    description = (__doc__ or "").replace("``", "")
    parser = Parser(prog=kusari() or "kusari", usage="%(prog)s COMMAND ...", description=description)
    parser.epilog = "\n".join(commands)
    parser.add_argument("command", metavar="COMMAND", nargs="?", help="one of those below, or train")
    told = "print a script that completes commands, options and files in bash, zsh or tcsh"
    parser.add_argument("--print-completion", metavar="SHELL", choices=("bash", "zsh", "tcsh"), help=told)
    args = parser.parse_args(argv[: 2 if argv[:1] == ["--print-completion"] else 1])
    if args.print_completion:
        print_completion(parser, args.print_completion)
    elif args.command is None:
        parser.error("name a command (--help lists them)")
    else:
        try:
            start(parser, args.command, argv)
        except KeyboardInterrupt:  # a recipe handles its own in training
            stop(f"{parser.prog}: interrupted.")


def print_completion(parser: Parser, shell: str) -> None:
    """Prints a script that completes commands, options and files."""
    try:
        import shtab
    except ImportError:
        parser.error("--print-completion needs shtab: pip install shtab")
    whole = Parser(prog="kusari")
    commands = whole.add_subparsers()
    commands.add_parser("train", help="train").add_argument("recipe", choices=recipe_names())
    for typed, name in MODULES.items():
        tool = commands.add_parser(typed, help=typed)
        if name in tool_options.TOOLS:
            tool_options.TOOLS[name](tool)
        for action in tool._actions:
            if action.metavar in ("RUN", "FOLDER", "DIR", "LOG", "IMAGE", "FILE", "WEIGHTS"):
                action.complete = shtab.FILE  # type: ignore[attr-defined]  # as shtab asks
    say(str(shtab.complete(whole, shell)), kept="\n\t")


def start(parser: Parser, chosen: str, argv: list[str]) -> None:
    """Runs a recipe or tool."""
    if chosen == "train" and (len(argv) == 1 or argv[1] in ("-h", "--help")):
        say("\n".join(listed({name: name for name in recipe_names()})), kept="\n")
        say(f"{parser.prog} train NAME --help lists the options of one; the path of a file (.py) runs one of your own.")
    elif chosen == "train":
        train(parser, argv[1], argv[2:])
    elif MODULES.get(chosen) in recipe_names():
        train(parser, chosen, argv[1:])
    elif chosen in MODULES:
        name = MODULES[chosen]
        if name in tool_options.TOOLS:
            tool_options.make_parser(name).parse_args(argv[1:])  # --help and mistakes are answered before torch comes
        importlib.import_module(f"recipes.{name}").main(argv[1:])
    else:
        parser.error(f"there is no command {chosen!r}{near(chosen, ('train', *MODULES))} (--help lists them)")


def train(parser: Parser, name: str, argv: list[str]) -> None:
    """Runs the recipe of a name, or of a file whose path was typed."""
    if name.startswith("-"):
        parser.error(f"the recipe comes first: {parser.prog} train NAME {name} ...")
    path = Path(name) if name.endswith(".py") else RECIPES / f"{name}.py"
    if not path.is_file() or (path.parent == RECIPES and path.stem not in recipe_names()):
        what = "file" if name.endswith(".py") else "recipe"
        parser.error(f"there is no {what} {name!r}{near(path.stem, recipe_names())} ({parser.prog} train lists them)")
    if path.parent == RECIPES and (options := options_of(path)):
        options.parse_args(argv)  # --help and mistakes are answered before torch comes
    from recipes.parts.trained import find_recipe  # imports torch

    try:
        recipe = find_recipe(name, ("main",))
    except (OSError, ValueError) as error:
        parser.error(str(error))
    recipe.main(argv)


def options_of(path: Path) -> Any:
    """Returns the options of one of our recipes without the seconds that its imports take; None if they need one.

    That is what stands before its first function, without the imports. A test compares the help with the recipe's own.
    """
    tree = ast.parse(path.read_bytes())
    module = {"__doc__": ast.get_docstring(tree), "__file__": str(path)}
    for node in itertools.takewhile(lambda node: not isinstance(node, ast.FunctionDef), tree.body):
        if isinstance(node, (ast.Import, ast.ImportFrom)) and getattr(node, "module", None) not in LIGHT:
            continue
        try:
            exec(compile(ast.Module([node], []), str(path), "exec"), module)
        except NameError:
            if isinstance(node, ast.Expr):
                return None
    return module.get("OPTIONS")


def near(name: str, names: Iterable[str]) -> str:
    """Returns words that suggest the closest of some names, or nothing."""
    found = difflib.get_close_matches(name, list(names), 1)
    return f": did you mean {found[0]}?" if found else ""


if __name__ == "__main__":
    main()
