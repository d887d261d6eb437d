"""The tables of the args.json of runs: changed arguments, and differences between runs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recipes.parts import tool_options, trained
from recipes.parts.page import text_of


def usual_args(saved: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the defaults of a run's recipe, or of its drawn sample; None if the recipe is not one of ours."""
    if saved.get("recipe") not in tool_options.recipe_names() or "sha256" in saved:
        return None
    found: dict[str, Any] = trained.find_recipe(saved["recipe"]).OPTIONS.usual(saved["args"].get("sample"))
    return found


def arguments(saved: dict[str, Any]) -> dict[str, Any]:
    """Returns the arguments: those that differ from the recipe's defaults first, with these, if they are known."""
    given, usual = saved.get("args", {}), usual_args(saved)
    if usual is None:
        return {"rows": [(option(key), value) for key, value in given.items()], "changed": None}
    changed = [key for key in given if is_changed(key, given[key], usual.get(key))]
    rows = [(option(key), given[key], text_of(usual.get(key))) for key in changed]
    rows += [(option(key), value, "") for key, value in given.items() if key not in changed]
    return {"rows": rows, "changed": len(changed)}


def option(key: str) -> str:
    """Returns an argument's name as it is typed."""
    return key.replace("_", "-")


def is_changed(key: str, value: Any, usual: Any) -> bool:
    """Returns whether a value differs from the default; options of the machine never count."""
    if key in ("device", "workers", "out"):
        return False
    if key == "data" and usual is not None:  # a run keeps the whole path, from wherever it was started
        return Path(value) != Path(usual).absolute()
    return (value or None) != (usual or None) if usual is None or isinstance(usual, bool) else value != usual


def differing(runs: Sequence[dict[str, Any]]) -> list[list[Any]]:
    """Returns recipe, arguments and versions in which the runs differ, as rows of a table."""
    settings = [
        {("", "recipe"): saved.get("recipe")}
        | {(part, key): value for part in ("args", "versions") for key, value in saved.get(part, {}).items()}
        for saved in runs
    ]
    keys = [key for key in dict.fromkeys(itertools.chain(*settings)) if key != ("args", "out")]
    rows = [[option(key[1]), *(of_run.get(key) for of_run in settings)] for key in keys]
    return [row for row in rows if any(value != row[1] for value in row[2:])]
