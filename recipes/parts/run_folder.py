"""The folder of a run: its lock and args.json, resuming and overwriting, and the one line that ends a failed run."""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import logging
import os
import re
import shlex
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from extensions.own_run import own_run_first
from extensions.snapshot_files import load_first, snapshots_in
from recipes.parts.image_files import DECODER, BadImageError, digest
from recipes.parts.parser import command, stop
from trainer import Trainer, saving
from trainer.checks import log, logger
from trainer.iterators import BadSampleError
from trainer.iterators.workers import LESS, WorkerError
from trainer.saving import check
from trainer.saving.files import make_folder, parse_json, read_bytes, refuse_other, remove_all, remove_scraps
from trainer.saving.lock import FolderInUseError, FolderLock
from trainer.saving.state import refuse_kind

if TYPE_CHECKING:
    from recipes.parts.options import Options

SNAPSHOTS = "snapshot_{}"  # their names, whatever they count
# The other files of a run's folder, beside snapshots and weights.
FILES = ("log", "log.old*", "args.json", "test.json", "bad_samples*.json", "evaluation_*.json", "confusion_*.png")
FILES += ("mistakes_*.png", "loss.png", "accuracy.png", "report.html")
OWN = Path(__file__).resolve().parent.parent  # where our recipes lie


class RunFolder:
    """The folder of the run that is being trained, within :func:`opened`."""

    def __init__(self, options: Options, args: Namespace) -> None:
        self.options, self.args = options, args
        self.path = Path(args.out)
        self.trainer: Trainer | None = None  # once it has begun
        self.is_new = not self.path.exists()
        make_folder(self.path)
        self.lock = FolderLock(self.path)  # already here: files may be removed before the run starts
        if self.lock.is_first:
            remove_scraps(self.path)
        self.old: list[Path] = []  # files that the run will overwrite

    @property
    def goes_on(self) -> str:
        """The options that go on with the run, or begin it anew where it has no snapshot yet."""
        out = f"--out {shlex.quote(str(self.path))}"
        if snapshots_in(self.path, SNAPSHOTS):
            return f"--resume {out} goes on"
        return (
            f"--resume {shlex.quote(self.args.resume)} {out} goes on"
            if self.args.resume
            else f"--overwrite {out} begins anew"
        )

    @property
    def advice(self) -> str:
        """What to type after a stop, which leaves a snapshot."""
        return f"{command(self.options.name)} --resume --out {shlex.quote(str(self.path))} goes on."

    def start(self, trainer: Trainer, splits: dict[str, Any], classes: list[str], found: Sequence[str] = ()) -> None:
        """Resumes a run with ``--resume``, else removes the old one with ``--overwrite``; writes ``args.json``.

        Args:
            trainer: With all its extensions.
            splits: The data sets by name.
            classes: Their names.
            found: What the page of the run says about its data, a line each.

        Raises:
            ValueError: If there is no snapshot to resume, or its run had other classes or data.
        """
        args = self.args
        if args.batch_size > (n := len(splits["train"])):
            raise ValueError(f"--batch-size {args.batch_size} is more than the {n} training images.")
        trainer.args = {key: getattr(args, key) for key in self.options.of_kind("keep", "warn")}
        record = self._record = _record(self.options, args, splits, classes) | ({"data": [*found]} if found else {})
        if args.resume is not None:
            where = resumed(args)
            saved = read_args(where, self.options) if (where / "args.json").is_file() else record
            if (known := saved["classes"]) != classes:
                other = ", ".join(sorted(set(known) ^ set(classes))[:10]) or "their order"
                raise ValueError(f"the data set has other classes than the run in {where} ({other}); start a new run.")
            changed = [name for name, then in saved.get("files", {}).items() if record["files"].get(name) != then]
            if changed and not args.force:
                raise ValueError(
                    f"{args.data} has changed since the run in {where}: other files are in {', '.join(changed)}; put"
                    " them back, or go on with the data of now: --force."
                )
            _resume(trainer, args.resume, bool(args.force))
        remove_all(self.old)  # only now: nothing is lost to a mistyped option
        write_json(self.path / "args.json", record)
        self.trainer = trainer
        if "valid" not in splits:
            log(logging.INFO, "Validation is on the test set: do not choose anything by it.")

    def keep(self) -> None:
        """Takes the lock and writes ``args.json`` again, if somebody has removed the folder."""
        try:
            self.lock.keep()
            if not os.path.lexists(self.path / "args.json"):
                write_json(self.path / "args.json", self._record)
        except FolderInUseError:
            raise
        except OSError as error:
            log(logging.WARNING, f"args.json is gone and cannot be written: {error}.")

    def save_weights(self, trainer: Trainer, network: nn.Module) -> Path:
        """Saves the last weights, perhaps in mid-epoch; returns their file."""
        self.keep()
        path = self.path / self.options.weights.format(trainer)
        saving.save_weights(network.state_dict(), path)
        return path


@contextmanager
def opened(options: Options, args: Namespace) -> Iterator[RunFolder]:
    """Opens the folder of a run, and locks it until the end of the ``with``.

    An error ends the program in one line: with code 2 before the run has begun, as options or data are wrong, and
    later with code 1, what happened, and what to type once that is fixed.
    """
    logging.basicConfig(format="%(message)s")  # to stderr, unless it is configured already
    logger.setLevel(logging.INFO)
    folder = None
    try:
        try:
            folder = RunFolder(options, args)
            folder.old = _old_files(options, args)
            yield folder
        except BaseException:
            if folder is not None and folder.trainer is not None:
                with suppress(FolderInUseError):
                    folder.keep()
            raise
    except Exception as error:
        if folder is None or folder.trainer is None:
            is_own = options.file.parent == OWN  # in a recipe of the user's a RuntimeError is a mistake to be found
            if not isinstance(error, (OSError, ValueError, RuntimeError)[: 3 if is_own else 2]):
                raise
            reason = str(error).replace("trainer.resume(path, force=True)", "--force")
            options.error(reason.replace("device='cpu'", "--device cpu"))
        if (reason := _reason(error, folder.goes_on)) is None:
            raise
        stop(f"{options.prog}: error: {reason}")
    except KeyboardInterrupt:
        if folder is None or folder.trainer is None:
            stop(f"{options.prog}: interrupted before training; the same command begins again.")
        stop(f"{options.prog}: interrupted at iteration {folder.trainer.updater.iteration}; {folder.goes_on}.")
    finally:
        if folder is not None:
            folder.lock.release()
            if folder.is_new and folder.trainer is None:  # the run was refused: nothing is in it
                with suppress(OSError):
                    folder.path.rmdir()


def _reason(error: Exception, goes_on: str) -> str | None:
    """Returns the message for an error of the machine or data; None for a bug, which keeps its traceback."""
    if isinstance(error, BadSampleError) and isinstance(error.__cause__, BadImageError):
        return str(error.__cause__)
    if isinstance(error, WorkerError):
        return in_options(error, f"then {goes_on}")
    if isinstance(error, torch.OutOfMemoryError):
        return f"{str(error).splitlines()[0].rstrip('.')}; with a smaller --batch-size {goes_on}."
    if isinstance(error, FolderInUseError):  # the folder was replaced
        return str(error)
    if isinstance(error, OSError) and error.filename is not None:
        remedy = "with more space" if error.errno == errno.ENOSPC else "once that is fixed"
        return f"{error}; {remedy} {goes_on}."
    return None


def in_options(error: WorkerError, then: str = "then try again") -> str:
    """Returns the message of an error of the processes that load data, with the options of the command line."""
    text = str(error).replace(LESS, "take fewer --workers or a smaller --batch-size")
    text = text.replace("(n_processes=0, num_workers=0)", "(--workers 0)")
    return text.replace("then resume from the last snapshot", then)


def snapshot_interval(args: Namespace, usual: tuple[int, str] = (1, "epoch")) -> tuple[tuple[int, str], str]:
    """Returns the trigger of a run's snapshots, and their name."""
    interval = (args.snapshot_interval, "iteration") if args.snapshot_interval else usual
    is_epoch = interval[1] == "epoch"
    return interval, "snapshot_epoch-{.updater.epoch}" if is_epoch else "snapshot_iter_{.updater.iteration}"


def resumed(args: Namespace) -> Path:
    """Returns the folder of the run that is to be resumed."""
    return Path(args.resume).parent if args.resume else Path(args.out or "result")


def _resume(trainer: Trainer, path: str, force: bool) -> None:
    """Loads a snapshot, or the newest good one in the run's folder."""
    if path:
        trainer.resume(path, force=force)
    else:
        out = Path(trainer.out)
        paths = snapshots_in(out, SNAPSHOTS, functools.partial(own_run_first, trainer))
        read = functools.partial(trainer.resume, strict=True, force=force)
        if load_first(paths, read, lambda told: log(logging.WARNING, f"passed over: {told}")) is None:
            raise ValueError(f"there is no good snapshot in {out}: start anew, with --overwrite and not --resume.")


# -- files


def weights_files(name: str, out: str | Path) -> list[Path]:
    """Returns whatever in a run's folder has the name of weights, the last epoch's last."""
    pattern = re.compile(re.sub(r"\\\{.*?\\\}", r"(\\d+)", re.escape(name)))
    found = [(match.groups(), path) for path in Path(out).glob("*") if (match := pattern.fullmatch(path.name))]
    return [path for _, path in sorted(found, key=lambda item: [int(number) for number in item[0]])]


def _old_files(options: Options, args: Namespace) -> list[Path]:
    """Returns the files of the old run, to be removed with ``--overwrite``; refuses to train without that."""
    out = Path(args.out)
    old = [*sorted(snapshots_in(out, SNAPSHOTS)), *weights_files(options.weights, out)]
    others = [path for name in FILES for path in out.glob(name)]
    for path in (*old, *others):
        refuse_other(path)
    if args.resume is not None:
        return []
    if args.overwrite:
        return [*old, *others]
    if old:
        raise ValueError(
            f"{out} holds the files of a run, such as {old[0].name}: go on with --resume, take another --out,"
            " or remove that run with --overwrite."
        )
    return []


def _record(options: Options, args: Namespace, splits: dict[str, Any], classes: list[str]) -> dict[str, Any]:
    """Returns what ``args.json`` holds: the run's options and data, and the versions of packages."""
    packages = ("torch", "torchvision", "timm", "numpy", "pillow", "simplejpeg")
    versions: dict[str, Any] = {package: metadata.version(package) for package in packages}
    versions |= {"python": sys.version.split()[0], "decoder": str(DECODER)}
    kept = {key: value for key, value in vars(args).items() if key not in options.of_kind("forget")}
    if "data" in kept:
        kept["data"] = str(Path(args.data).resolve())  # a resume may come from another folder
    lengths = {name: len(split) for name, split in splits.items()}
    files = {name: found for name, split in splits.items() if (found := digest(split, getattr(args, "data", ".")))}
    record = {"recipe": options.name, "args": kept, "classes": classes, "splits": lengths, "versions": versions}
    record |= {"files": files}
    return record if options.file.parent == OWN else record | {"sha256": hash_of(options.file)}


def hash_of(path: Path) -> str:
    """Returns the SHA-256 of a recipe."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_args(path: str | Path, options: Options | None = None) -> dict[str, Any]:
    """Returns what ``args.json`` of a run's folder holds: recipe, args, classes, splits (their lengths), versions.

    Args:
        path: The folder, or the file.
        options: The recipe's: the run must be of that recipe, and its values fit that command line.

    Raises:
        ValueError: If it is not such a file, or of another recipe.
        OSError: If it cannot be read.
    """
    path = path if str(path).endswith(".json") else Path(path) / "args.json"
    try:
        saved: dict[str, Any] = parse_json(read_bytes(Path(path)))
        like = {"recipe": "", "args": {}, "classes": [""], "splits": {...: 0}, "versions": {...: ""}}
        refuse_kind(like, saved, "it")
        refuse_kind({"files": {...: ""}}, {"files": saved.get("files", {})}, "it")
        if missing := [key for key in like if saved.get(key) is None]:
            raise ValueError(f"it has no {', '.join(missing)}")
        if not saved["classes"] or len(set(saved["classes"])) < len(saved["classes"]) or None in saved["classes"]:
            raise ValueError("its classes are not different names")
        check(saved)
        if options is not None and saved["recipe"] == options.name:
            options.check_saved(saved["args"], "its args/")
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be read ({str(error).rstrip('.')}): it is not what a recipe writes."
        ) from error
    if options is not None and saved["recipe"] != options.name:
        raise ValueError(f"the run in {Path(path).parent} is of {saved['recipe']}, not of {options.name}.")
    return saved


def warn_of_decoder(saved: dict[str, Any], folder: str | Path) -> None:
    """Warns if the images of a run were decoded in another way than now."""
    if (then := saved["versions"].get("decoder", "1")) != str(DECODER):
        log(
            logging.WARNING,
            f"The run in {folder} decoded images by version {then}, and this is version {DECODER}: some images have"
            " other pixels now; docs/recipes.md says which.",
        )


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file, whole or not at all."""
    saving.write(path, lambda file: file.write(json.dumps(value, indent=4).encode()))
