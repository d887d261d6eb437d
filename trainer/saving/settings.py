"""What a run's bits depend on beside its script: recorded in a snapshot, and compared when it is loaded."""

from __future__ import annotations

import warnings
from typing import Any

import torch

__version__ = "0.1.0"

FORMAT = 2  # of a run's state; the next one reads this one too
KEYS = ("run_id", "iteration", "error", "updater", "extensions", "triggers", "stop_trigger", "stop_fired", "random")


def describe(device: torch.device | None = None) -> dict[str, Any]:
    """Returns versions, the number of threads, and which kind of processor and device computes.

    Example:
        >>> from trainer.saving.settings import describe
        >>> sorted(describe())
        ['cpu', 'device', 'kusari', 'threads', 'torch']
    """
    is_cuda = device is not None and device.type == "cuda"
    return {
        "kusari": __version__,
        "torch": str(torch.__version__),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name(device) if is_cuda else str(device or "cpu"),
        "threads": torch.get_num_threads(),
    }


def differences(saved: dict[str, Any], now: dict[str, Any]) -> str:
    """Returns in words which values of two dicts differ; nothing if none does.

    Example:
        >>> from trainer.saving.settings import differences
        >>> differences({"lr": 0.1, "seed": 3}, {"lr": 0.2, "seed": 3})
        'lr 0.1, now 0.2'
    """
    missing = "not given"
    pairs = [(key, saved.get(key, missing), now.get(key, missing)) for key in {**saved, **now}]
    return "; ".join(f"{key} {before}, now {after}" for key, before, after in pairs if before != after)


def warn_of_differences(state: dict[str, Any], environment: dict[str, Any], args: dict[str, Any]) -> None:
    """Warns of what is other than it was when the state of a run was saved, and may change results.

    Example:
        >>> from trainer.saving.settings import describe, warn_of_differences
        >>> warn_of_differences({"environment": describe(), "args": {"lr": 0.1}}, describe(), {"lr": 0.1})
    """
    saved = state["environment"]
    if told := differences(saved, {key: environment[key] for key in environment if key in saved}):
        if saved["threads"] != environment["threads"]:
            told += f" (torch.set_num_threads({saved['threads']}) brings them back)"
        told = f"the snapshot was made with {told}: results may differ in the last bits from here on."
        warnings.warn(told, stacklevel=4)
    if state["args"] and (told := differences(state["args"], args)):
        told = f"the run was made with {told}: it goes on, but is not the run that it would have been."
        warnings.warn(told, stacklevel=4)


def upgraded(state: dict[str, Any]) -> dict[str, Any]:
    """Returns the state of a run in today's format.

    Raises:
        ValueError: If the format is newer than ours, or the state lacks what every format has.

    Example:
        >>> from trainer.saving.settings import upgraded
        >>> upgraded({"format": 99})
        Traceback (most recent call last):
        ValueError: it has format 99 and this Kusari reads 1 to 2: update Kusari.
    """
    number = state.get("format", 1)
    if not isinstance(number, int) or number > FORMAT:
        raise ValueError(f"it has format {number} and this Kusari reads 1 to {FORMAT}: update Kusari.")
    if missing := [key for key in KEYS if key not in state]:
        raise ValueError(f"it lacks {', '.join(missing)}: no released Kusari wrote it; start afresh.")
    if number == 1:  # knew nothing of the machine but its threads
        state = state | {"format": 2, "environment": {"threads": state["threads"]}, "args": {}, "due": []}
    return state
