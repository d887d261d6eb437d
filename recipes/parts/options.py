"""The options of a recipe: those that all have, those that it adds, and what a resumed run keeps of them."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from recipes.parts.parser import Parser, as_typed

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
        self.file = Path(file).resolve()
        self.name = self.file.stem
        super().__init__(description=as_typed(description or "", self.name))
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
            told = "any model of timm or torchvision, or of recipes/parts/networks.py"
            self.add("model", "--model", metavar="NAME", help=told)
        if "pretrained" in defaults:
            told = "start from trained weights, with their mean and std"
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
        told = "fp32, or torch's autocast; bf16 pays on GPUs of compute capability 8.0 or more and CPUs with AMX or"
        told += " avx512_bf16 (see lscpu), and is slower on others, up to 14 times"
        self.add("training", "--precision", choices=("fp32", "bf16", "fp16"), on_resume="free", help=told)
        told = "images and weights in that memory format; pays for large images, on the same processors, most with bf16"
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
        from recipes.parts.settling import settle  # imports torch, which takes seconds: --help and typing errors do not

        try:
            settle(self, args)
        except (OSError, ValueError) as error:
            self.error(str(error))
        return args

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

    def check_bounds(self, args: Args) -> None:
        """Refuses numbers out of bounds, and texts that are empty.

        Raises:
            ValueError: If there is one.
        """
        for key, (low, high, is_open) in self._ranges.items():
            value = getattr(args, key)
            if value is None or ((low < value if is_open else low <= value) and value <= high and math.isfinite(value)):
                continue
            bounds = [f"above {low:g}" if is_open else f"{low:g} or more"] * math.isfinite(low)
            if math.isfinite(high):
                bounds = [f"{low:g} to {high:g}"] if not is_open else [*bounds, f"at most {high:g}"]
            raise ValueError(f"--{key.replace('_', '-')} must be {' and '.join(bounds) or 'a number'}, got {value}.")
        for action in self._actions:
            if getattr(args, action.dest, None) == "" and action.dest not in ("resume", "out"):
                name = "/".join(action.option_strings) or action.metavar
                raise ValueError(f"{name} must not be empty, got ''; is the variable that holds it set?")
