"""Finds, draws or fetches the data set of a recipe."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from recipes.parts.options import Options
from recipes.parts.parser import say, stop


@contextmanager
def data_set(
    options: Options,
    args: Namespace,
    source: str,
    draw: Callable[[Path], object] | None = None,
    download: Callable[[Path], None] | None = None,
) -> Iterator[Path]:
    """Returns the folder of the data set, for the ``with`` that reads it; draws or fetches the data first if needed.

    Args:
        options: The recipe's.
        args: Its arguments.
        source: How to get the real data, for the messages.
        draw: Draws the sample into a folder, unless it is there.
        download: Fetches the real data into a folder; None if they cannot be fetched.

    Raises:
        OSError: If there are no data, or they cannot be fetched; the message says what to do.
    """
    root, usual = Path(args.data), options.defaults["data"]
    if args.sample and draw is not None:
        is_wanted = not options.sample_by_default or root != Path(options.sample["data"]) or Path(usual).exists()
        reason = "as asked by --sample" if is_wanted else f"no data at {usual}"
        other = [f"{key.replace('_', ' ')} {getattr(args, key)}" for key in options.sample if key != "data"]
        told = f" ({', '.join(other)})" if other else ""
        say(f"Pictures drawn into {root}{told}: {reason}; {source}.")
        try:
            draw(root)
        except KeyboardInterrupt:
            stop("interrupted: the pictures are not kept, and the same command draws them again.")
    elif download and (args.download or (args.data == usual and not root.exists())):
        say(f"Fetching the data set into {root}.")
        try:
            download(root)
        except FileExistsError:
            raise
        except KeyboardInterrupt:
            stop("interrupted: the same command continues the download.")
        except (OSError, RuntimeError) as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise OSError(
                f"the data set cannot be fetched into {root}: {reason}; give a folder that has it by --data, or draw a"
                " small data set in its place by --sample."
            ) from error
    elif not root.is_dir():
        raise FileNotFoundError(f"no data set at {root}: there is no such folder; {source}, and --sample draws one.")
    try:
        yield root
    except RuntimeError as error:  # torchvision's, with advice for its own arguments
        raise FileNotFoundError(f"the data set in {root} is incomplete: {source}, and --sample draws one.") from error


@contextmanager
def unfinished(root: Path) -> Iterator[Path]:
    """Returns a folder of another name to fill in the ``with``; it becomes ``root`` at the end, unless that fails.

    Of an earlier attempt it keeps the archives (.gz) only: torchvision would take a part of the files for all.

    Raises:
        FileExistsError: If ``root`` is there already.
    """
    if root.exists():
        raise FileExistsError(f"{root} is there already; remove it to fetch it again.")
    folder = root.with_name(f".{root.name}.unfinished")
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.rglob("*"), reverse=True):  # a folder after what is in it
        if not path.is_dir() and path.suffix != ".gz":
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    yield folder
    folder.rename(root)
