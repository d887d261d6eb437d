"""The options of a recipe: those that all have, those that it adds, and what a resumed run keeps of them."""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import sys
from pathlib import Path
from typing import Any

from extensions.snapshot_files import snapshots_in
from recipes.parts import run_folder
from recipes.parts.parser import Parser, say
from trainer.checks import log
from trainer.mistakes import as_device
from trainer.saving.files import read_bytes
from trainer.saving.snapshots import read_tail
from trainer.updaters.precision import DTYPES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Args = argparse.Namespace

COMMON: dict[str, Any] = {"out": "result", "precision": "fp32", "on_bad_sample": "raise", "seed": 0}
MOST_PIXELS = 2**14  # of a side


class Options(Parser):
    """The command line of a recipe. The tools use it too, to read what a run was asked for.

    Every default of the parser is None, so that what was asked for can be told from what was not.

    Args:
        file: The recipe's ``__file__``; its name is the recipe's.
        description: What ``--help`` begins with.
        defaults: By name; an option that only some recipes have is there if it is among them.
        sample: The defaults that differ for a drawn data set; ``data`` is where that is drawn. None: there is none.
        sample_by_default: Whether the sample is drawn where there is no data; else it is fetched, or refused.
        weights: Name of the files of weights, as ``snapshot_object`` takes it.
        has_download: Whether the data set can be fetched.
    """

    def __init__(
        self,
        file: str,
        description: str | None,
        defaults: dict[str, Any],
        sample: dict[str, Any] | None = None,
        *,
        sample_by_default: bool = False,
        has_download: bool = False,
        weights: str = "model_epoch-{.updater.epoch}",
    ) -> None:
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
        self.file = Path(file).resolve()
        self.name = self.file.stem
        self.defaults, self.sample = COMMON | defaults, sample or {}
        self.sample_by_default, self.weights = sample_by_default, weights
        self._on_resume: dict[str, str] = {}
        self._ranges: dict[str, tuple[float, float, bool]] = {}
        self._sections = {name: self.add_argument_group(name) for name in ("data", "model", "training", "run")}
        pixels = {"type": int, "metavar": "N", "least": 1, "most": MOST_PIXELS}

        if "data" in defaults:
            self.add("data", "--data", metavar="DIR", on_resume="free", help="folder of the data set")
        if has_download:
            told = "fetch the data set into --data first"
            self.add("data", "--download", action="store_true", on_resume="forget", help=told)
        if self.sample:
            self.add(
                "data",
                "--sample",
                action="store_true",
                on_resume="free",
                help="train on a small data set, which is drawn",
            )
        if "scale" in defaults:
            self.add("data", "--scale", **pixels, help="pixels of the shorter side")
        if "image_size" in defaults:
            self.add("data", "--image-size", **pixels, help="pixels of the square cut from the middle")
        told = "stop at an image that is broken, or take the next one of the order and list it in bad_samples.json"
        self.add("data", "--on-bad-sample", choices=("raise", "skip"), on_resume="warn", help=told)
        told = "processes that load images (one for each CPU, up to 8)"
        self.add("data", "--workers", type=int, metavar="N", least=0, on_resume="machine", help=told)

        if "model" in defaults:
            told = "any model of timm, or of recipes/parts/networks.py"
            self.add("model", "--model", metavar="NAME", help=told)
        if "pretrained" in defaults:
            told = "start from timm's weights, with their mean and std"
            self.add("model", "--pretrained", action="store_true", help=told)

        for name, told in (("epochs", "passes over the images to train on"), ("iterations", "updates")):
            if name in defaults:
                self.add("training", f"--{name}", type=int, metavar="N", least=1, on_resume="free", help=told)
        self.add("training", "--batch-size", type=int, metavar="N", least=1, on_resume="free", help="images in a batch")
        if "drop_last" in defaults:
            told = "leave the last images of an epoch out that fill no batch"
            self.add("training", "--drop-last", action="store_true", help=told)
        self.add("training", "--lr", type=float, metavar="X", least=0, help="learning rate")
        told = "such as cpu or cuda:1 (CUDA where there is one)"
        self.add("training", "--device", on_resume="machine", help=told)
        self.add("training", "--precision", choices=tuple(DTYPES), on_resume="free", help="fp32, or torch's autocast")
        told = "keep images and weights in that memory format"
        self.add("training", "--channels-last", action="store_true", on_resume="warn", help=told)
        told = "compile the network; the first iteration takes minutes"
        self.add("training", "--compile", action="store_true", on_resume="warn", help=told)
        told = "only algorithms that give the same bits each time, on CUDA too; slower"
        self.add("training", "--deterministic", action="store_true", on_resume="warn", help=told)
        told = "decides the initial weights, the order and all that is drawn"
        self.add("training", "--seed", type=int, metavar="N", help=told)

        self.add("run", "--out", metavar="DIR", on_resume="free", help="folder of whatever the run writes")
        told = "go on from a snapshot, the newest good one in --out"
        self.add("run", "--resume", nargs="?", const="", metavar="FILE", on_resume="forget", help=told)
        told = "resume although the data set has another length"
        self.add("run", "--force", action="store_true", on_resume="forget", help=told)
        self.add("run", "--overwrite", action="store_true", on_resume="forget", help="remove the run that is in --out")
        told = "iterations between snapshots (one whenever weights are written)"
        self.add("run", "--snapshot-interval", type=int, metavar="N", least=1, on_resume="free", help=told)
        told = "take options from a TOML file, or from the args.json of a run; the command line comes first"
        self.add("run", "--config", metavar="FILE", on_resume="forget", help=told)
        told = "print all options as such a TOML file, and do nothing"
        self.add("run", "--print-config", action="store_true", on_resume="forget", help=told)

    def add(
        self,
        section: str,
        *names: str,
        on_resume: str = "keep",
        least: float = -math.inf,
        above: float = -math.inf,
        most: float = math.inf,
        **kwargs: Any,
    ) -> None:
        """Adds an option, as ``add_argument`` does.

        Args:
            section: Of the help: data, model, training or run.
            names: Such as ``--epochs``.
            on_resume: ``"keep"``: a resumed run has the value that it began with. ``"warn"``: another one may be
                given, and is warned of. ``"free"``: another one may be given. ``"machine"``: a run does not keep it,
                for it may go on elsewhere. ``"forget"``: it says what is done, not with what.
            least: The smallest value.
            above: What a value must be more than.
            most: The largest value.
            kwargs: What else ``add_argument`` takes.
        """
        key = names[0].lstrip("-").replace("-", "_")
        if self.defaults.get(key, False) is not False:
            drawn = f"; {self.sample[key]} for the drawn sample" if key in self.sample else ""
            kwargs["help"] += f" ({self.defaults[key]}{drawn})"
        self._sections[section].add_argument(*names, default=None, **kwargs)
        self._on_resume[key] = on_resume
        if kwargs.get("type") in (int, float):
            self._ranges[key] = max(least, above), most, above > -math.inf

    def of_kind(self, *kinds: str) -> list[str]:
        """Returns the names of the options that a resume treats in one of these ways."""
        return [key for key, kind in self._on_resume.items() if kind in kinds]

    def usual(self, sample: Any = None) -> dict[str, Any]:
        """Returns the defaults, of the drawn sample or not."""
        return self.defaults | (self.sample if sample else {})

    def parse(self, argv: list[str] | None = None) -> Args:
        """Returns the arguments of a command line: what was not asked for is as in the resumed run, or the default."""
        args = self.parse_args(argv)
        try:
            self._settle(args)
        except (OSError, ValueError) as error:
            self.error(str(error))
        if args.print_config:
            say(self._toml(args), kept="\n")
            sys.exit(0)
        return args

    def _settle(self, args: Args) -> None:
        if args.config is not None:
            for key, value in self._read_config(args.config).items():
                if getattr(args, key) is None:
                    setattr(args, key, value)
        asked = {key: value for key, value in vars(args).items() if value is not None}
        saved = self._of_resumed(args)
        if args.resume == "" and saved and not snapshots_in(Path(saved["out"]), run_folder.SNAPSHOTS):
            if found := run_folder.weights_files(self.weights, saved["out"]):
                raise ValueError(
                    f"there is no snapshot in {saved['out']} to go on from, though there are weights such as"
                    f" {found[-1].name}: start anew with --overwrite and not --resume, or take another --out."
                )
            del asked["resume"]
            args.resume, args.overwrite = None, True  # it was stopped before its first snapshot
            log(logging.WARNING, f"There is no snapshot in {saved['out']} yet: the run begins anew.")
        for key in self.of_kind("keep"):
            if key in asked and key in saved and asked[key] != saved[key]:
                raise ValueError(
                    f"--{key.replace('_', '-')} cannot change on --resume: the run has {saved[key]}, not {asked[key]};"
                    " leave it out, or start a new run."
                )
        chosen = saved | asked
        if "data" in asked:
            chosen["sample"] = asked.get("sample")
        elif self.sample_by_default and "data" not in chosen and not asked.get("download"):
            chosen["sample"] = asked.get("sample") or not Path(self.defaults["data"]).exists()
        vars(args).update(self.usual(chosen.get("sample")) | chosen)
        self._use_this_machine(args)
        self._check(args)

    def of_run(self, saved: dict[str, Any], device: str | None, workers: int | None) -> Args:
        """Returns the arguments of a run, to use its network here: the machine's are those of now."""
        args = self.parse_args([])
        kept = {key: saved[key] for key in self.of_kind("keep", "warn", "free") if key in saved}
        vars(args).update(self.defaults | kept | {"sample": None, "device": device, "workers": workers})
        self._use_this_machine(args)
        self._check(args)
        return args

    def _use_this_machine(self, args: Args) -> None:
        import torch

        if args.workers is None:
            args.workers = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2, 8)
        if args.device is None:
            args.device = "cuda" if torch.cuda.is_available() else "cpu"

    def check_saved(self, saved: dict[str, Any], where: str) -> None:
        """Refuses values of a file that the command line would not have taken.

        Raises:
            ValueError: If there is one; ``where`` and its name are told.
        """
        for action in self._actions:
            value, kind = saved.get(action.dest), bool if action.const is True else action.type or str
            fits = type(value) is kind or (kind is float and type(value) is int)
            if value is None:
                fits = action.dest not in saved or self.defaults.get(action.dest) is None
            if not fits or (action.choices is not None and value is not None and value not in action.choices):
                raise ValueError(f"{where}{action.dest} is {str(value)[:40]!r}")

    def _of_resumed(self, args: Args) -> dict[str, Any]:
        """Returns the arguments of the run that is to be resumed, but for those that belong to the machine."""
        if args.resume is None:
            return {}
        folder = run_folder.resumed(args)
        if not os.path.lexists(folder / "args.json"):
            snapshots = snapshots_in(folder, run_folder.SNAPSHOTS)
            if read_tail(args.resume) if args.resume else snapshots:
                raise ValueError(
                    f"{folder} has no args.json, which says how its run was made: put it back, or start a new run."
                )
            return {}
        saved = run_folder.read_args(folder, self)
        run_folder.warn_of_decoder(saved, folder)
        kept = self.of_kind("keep", "warn", "free")
        return {key: value for key, value in saved["args"].items() if key in kept} | {"out": str(folder)}

    def _check(self, args: Args) -> None:
        """Refuses values out of range, before anything is written."""
        if args.force and args.resume is None:
            raise ValueError("--force goes with --resume.")
        if args.resume is not None and args.overwrite:
            raise ValueError(
                "give --resume or --overwrite, not both: one goes on with the run in --out, one removes it."
            )
        for key, (low, high, is_open) in self._ranges.items():
            value = getattr(args, key)
            if value is None or ((low < value if is_open else low <= value) and value <= high and math.isfinite(value)):
                continue
            bounds = [f"above {low:g}" if is_open else f"{low:g} or more"] * math.isfinite(low)
            if math.isfinite(high):
                bounds = [f"{low:g} to {high:g}"] if not is_open else [*bounds, f"at most {high:g}"]
            raise ValueError(f"--{key.replace('_', '-')} must be {' and '.join(bounds) or 'a number'}, got {value}.")
        if args.out == "" or (Path(args.out).exists() and not Path(args.out).is_dir()):
            raise ValueError(f"--out must name a folder, got {args.out!r}.")
        for action in self._actions:
            if getattr(args, action.dest, None) == "" and action.dest != "resume":
                name = "/".join(action.option_strings) or action.metavar
                raise ValueError(f"{name} must not be empty, got ''; is the variable that holds it set?")
        if {"scale", "image_size"} <= self.defaults.keys() and args.scale < args.image_size:
            raise ValueError(f"--scale must not be smaller than --image-size, got {args.scale} < {args.image_size}.")
        try:
            as_device(args.device)
        except ValueError as error:
            raise ValueError(f"--{error}") from None

    # -- files of options

    def _read_config(self, path: str) -> dict[str, Any]:
        """Returns the options of a TOML file, or of the args.json of a run of this recipe.

        Raises:
            OSError: If it cannot be read.
            ValueError: If it is no such file, or has what is no option, or a value that is none of it.
        """
        if path.endswith(".json"):
            found = run_folder.read_args(path, self)["args"]
            return {key: value for key, value in found.items() if key in self.of_kind("keep", "warn", "free")}
        try:
            found = {
                key.replace("-", "_"): value for key, value in tomllib.loads(read_bytes(Path(path)).decode()).items()
            }
        except ValueError as error:
            raise ValueError(f"{path} cannot be read: it is not TOML ({error}).") from error
        known = self.of_kind("keep", "warn", "free", "machine")
        if other := [key for key in found if key not in known]:
            raise ValueError(f"{path}: {other[0]} is no option that a file may set; --print-config prints those.")
        self.check_saved(found, f"{path}: ")
        return found

    def _toml(self, args: Args) -> str:
        values = {key: getattr(args, key) for key in self.of_kind("keep", "warn", "free", "machine")}
        return "\n".join(f"{key.replace('_', '-')} = {json.dumps(v)}" for key, v in values.items() if v is not None)
