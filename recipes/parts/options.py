"""The options of a recipe: those of all recipes, those that it adds, and which ones a resumed run keeps."""

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
    """The command line of a recipe. The tools use it too, to read the options of a run.

    Every default of the parser is None: so an option that was given differs from one that was not.

    Args:
        file: The recipe's ``__file__``; its name is the recipe's.
        description: What ``--help`` begins with.
        defaults: By name; those of an optional option, such as ``model``, add that option.
        sample: The defaults that differ for a drawn data set; ``data`` is where that is drawn. None: no ``--sample``.
        sample_by_default: Whether the sample is drawn where there is no data.
        has_download: Whether the data set can be fetched.
        weights: Name of the files of weights, as ``snapshot_object`` takes it.
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
        flag: dict[str, Any] = {"action": "store_true"}
        forgotten = flag | {"on_resume": "forget"}
        count: dict[str, Any] = {"type": int, "metavar": "N", "least": 1}
        pixels = count | {"most": MOST_PIXELS}

        if "data" in defaults:
            self.add("data", "--data", metavar="DIR", on_resume="free", help="folder of the data set")
        if has_download:
            self.add("data", "--download", **forgotten, help="fetch the data set into --data first")
        if self.sample:
            self.add("data", "--sample", **flag, on_resume="free", help="draw a small data set, and train on that")
        if "scale" in defaults:
            self.add("data", "--scale", **pixels, help="pixels of the shorter side")
        if "image_size" in defaults:
            self.add("data", "--image-size", **pixels, help="pixels of the square cut from the middle")
        text = "at a broken image: stop, or take the next one of the order and list it in bad_samples.json"
        self.add("data", "--on-bad-sample", choices=("raise", "skip"), on_resume="warn", help=text)
        text = "processes that load images (one for each CPU, up to 8)"
        self.add("data", "--workers", type=int, metavar="N", least=0, on_resume="machine", help=text)

        if "model" in defaults:
            text = "any model of timm or torchvision, or of recipes/parts/networks.py"
            self.add("model", "--model", metavar="NAME", help=text)
        if "pretrained" in defaults:
            self.add("model", "--pretrained", **flag, help="start from trained weights, with their mean and std")

        for name, text in (("epochs", "passes over the training images"), ("iterations", "updates")):
            if name in defaults:
                self.add("training", f"--{name}", **count, on_resume="free", help=text)
        self.add("training", "--batch-size", **count, on_resume="free", help="images in a batch")
        if "drop_last" in defaults:
            self.add("training", "--drop-last", **flag, help="leave out the last images of an epoch that fill no batch")
        self.add("training", "--lr", type=float, metavar="X", least=0, help="learning rate")
        text = "such as cpu or cuda:1 (CUDA where there is one)"
        self.add("training", "--device", on_resume="machine", help=text)
        text = "fp32, or torch's autocast; bf16 pays on GPUs of compute capability 8.0 or more and CPUs with AMX or"
        text += " avx512_bf16 (see lscpu), and is slower on others, up to 14 times"
        self.add("training", "--precision", choices=("fp32", "bf16", "fp16"), on_resume="free", help=text)
        text = "images and weights in that memory format; pays for large images, on the same processors, most with bf16"
        self.add("training", "--channels-last", **flag, on_resume="warn", help=text)
        text = "compile the network; the first iteration takes minutes"
        self.add("training", "--compile", **flag, on_resume="warn", help=text)
        text = "only algorithms that give the same bits each time, on CUDA too; slower"
        self.add("training", "--deterministic", **flag, on_resume="warn", help=text)
        text = "sets the initial weights, the order and all random choices"
        self.add("training", "--seed", type=int, metavar="N", help=text)

        self.add("run", "--out", metavar="DIR", on_resume="free", help="folder for all files of the run")
        text = "continue from a snapshot, by default from the newest good one in --out"
        self.add("run", "--resume", nargs="?", const="", metavar="FILE", on_resume="forget", help=text)
        self.add("run", "--force", **forgotten, help="resume although the data set has changed")
        self.add("run", "--overwrite", **forgotten, help="remove the run that is in --out")
        text = "iterations between snapshots (one whenever weights are written)"
        self.add("run", "--snapshot-interval", **count, on_resume="free", help=text)
        text = "take options from a TOML file, or from the args.json of a run; the command line comes first"
        self.add("run", "--config", metavar="FILE", on_resume="forget", help=text)
        self.add("run", "--print-config", **forgotten, help="print all options as such a TOML file, and exit")

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
            on_resume: ``"keep"``: the value cannot change when a run is resumed. ``"warn"``: it may, with a warning.
                ``"free"``: it may. ``"machine"``: a resumed run does not take it from the run, as it may continue on
                another machine. ``"forget"``: it is not recorded, such as ``--overwrite``.
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
        """Returns the arguments of a command line; others are those of the resumed run, or defaults."""
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
            ValueError: If there is one, with ``where`` and its name.
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
