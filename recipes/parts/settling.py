"""The options of a run: from the command line, a file of options, the run to resume, or the defaults, in that order."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import torch

from extensions.snapshot_files import snapshots_in
from recipes.parts import run_folder
from recipes.parts.options import Args, Options
from recipes.parts.parser import say
from trainer.checks import log
from trainer.mistakes import as_device
from trainer.saving.files import read_bytes
from trainer.saving.snapshots import read_tail

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

KEPT = ("keep", "warn", "free")  # the kinds of options that a run keeps


def settle(options: Options, args: Args) -> None:
    """Fills in the options that were not given: from the run to resume, else the recipe's or its sample's defaults.

    Raises:
        ValueError: If a value is out of range, or cannot change on resume.
        OSError: If a file of options cannot be read.
    """
    for key, value in read_config(options, args.config).items() if args.config is not None else ():
        if getattr(args, key) is None:
            setattr(args, key, value)
    asked = {key: value for key, value in vars(args).items() if value is not None}
    saved = _of_resumed(options, args)
    if args.resume == "" and saved and not snapshots_in(Path(saved["out"]), run_folder.SNAPSHOTS):
        if found := run_folder.weights_files(options.weights, saved["out"]):
            raise ValueError(
                f"there is no snapshot in {saved['out']} to go on from, though there are weights such as"
                f" {found[-1].name}: start anew with --overwrite and not --resume, or take another --out."
            )
        del asked["resume"]
        args.resume, args.overwrite = None, True  # it was stopped before its first snapshot
        log(logging.WARNING, f"There is no snapshot in {saved['out']} yet: the run begins anew.")
    for key in options.of_kind("keep"):
        unlike = key in asked and key in saved and asked[key] != saved[key]
        if unlike and not (asked[key] is False and saved[key] is None):  # a flag that was not given
            raise ValueError(
                f"--{key.replace('_', '-')} cannot change on --resume: the run has {saved[key]}, not {asked[key]};"
                " leave it out, or start a new run."
            )
    chosen = saved | asked
    if "data" in asked:
        chosen["sample"] = asked.get("sample")
    elif options.sample_by_default and "data" not in chosen and not asked.get("download"):
        chosen["sample"] = asked.get("sample") or not Path(options.defaults["data"]).exists()
    # An option missing in an old args.json is newer than the run: its default changes nothing, the sample's might.
    vars(args).update(options.usual(chosen.get("sample") and not saved) | chosen)
    _use_this_machine(options, args)
    if args.print_config:
        values = {key: getattr(args, key) for key in options.of_kind(*KEPT, "machine")}
        lines = [f"{key.replace('_', '-')} = {json.dumps(v)}" for key, v in values.items() if v is not None]
        say("\n".join(lines), kept="\n")
        sys.exit(0)


def of_run(options: Options, saved: dict[str, Any], device: str | None, workers: int | None) -> Args:
    """Returns the arguments of a run, to use its network on this machine."""
    args = options.parse_args([])
    kept = {key: saved[key] for key in options.of_kind(*KEPT) if key in saved}
    vars(args).update(options.defaults | kept | {"sample": None, "device": device, "workers": workers})
    _use_this_machine(options, args)
    return args


def _use_this_machine(options: Options, args: Args) -> None:
    """Fills in the options that depend on the machine, and refuses values out of range."""
    if args.workers is None:
        args.workers = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2, 8)
    if args.device is None:
        args.device = "cuda" if torch.cuda.is_available() else "cpu"
    if args.force and args.resume is None:
        raise ValueError("--force goes with --resume.")
    if args.resume is not None and args.overwrite:
        raise ValueError("give --resume or --overwrite, not both: one goes on with the run in --out, one removes it.")
    options.check_bounds(args)
    if args.out == "" or (Path(args.out).exists() and not Path(args.out).is_dir()):
        raise ValueError(f"--out must name a folder, got {args.out!r}.")
    if {"scale", "image_size"} <= options.defaults.keys() and args.scale < args.image_size:
        raise ValueError(f"--scale must not be smaller than --image-size, got {args.scale} < {args.image_size}.")
    try:
        as_device(args.device)
    except ValueError as error:
        raise ValueError(f"--{error}") from None


def _of_resumed(options: Options, args: Args) -> dict[str, Any]:
    """Returns the arguments of the run to resume, without those of its machine."""
    if args.resume is None:
        return {}
    folder = run_folder.resumed(args)
    if os.path.lexists(folder / "args.json"):
        saved = run_folder.read_args(folder, options)
        run_folder.warn_of_decoder(saved, folder)
        return {key: v for key, v in saved["args"].items() if key in options.of_kind(*KEPT)} | {"out": str(folder)}
    if read_tail(args.resume) if args.resume else snapshots_in(folder, run_folder.SNAPSHOTS):
        raise ValueError(
            f"{folder} has no args.json, which says how its run was made: put it back, or start a new run."
        )
    return {}


def read_config(options: Options, path: str) -> dict[str, Any]:
    """Returns the options of a TOML file, or of the args.json of a run of this recipe.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is not such a file, or an option in it is unknown or has a wrong value.
    """
    if path.endswith(".json"):
        found = run_folder.read_args(path, options)["args"]
        return {key: value for key, value in found.items() if key in options.of_kind(*KEPT)}
    try:
        parsed = tomllib.loads(read_bytes(Path(path)).decode())
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: it is not TOML ({error}).") from error
    found = {key.replace("-", "_"): value for key, value in parsed.items()}
    if other := [key for key in found if key not in options.of_kind(*KEPT, "machine")]:
        raise ValueError(f"{path}: {other[0]} is not an option that a file may set; --print-config prints those.")
    options.check_saved(found, f"{path}: ")
    return found
