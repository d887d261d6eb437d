"""What a run's bits depend on beside its script: recorded in a snapshot, and compared when it is loaded."""

from __future__ import annotations

import warnings
from typing import Any

import torch

import trainer

FORMAT = 2  # of a run's state; the next one reads this one too
KEYS = ("run_id", "iteration", "error", "updater", "extensions", "triggers", "stop_trigger", "stop_fired", "random")


def describe(device: torch.device | None = None) -> dict[str, Any]:
    """Returns versions, the number of threads, and which kind of processor and device computes.

    Example:
        >>> from trainer.environment import describe
        >>> sorted(describe())
        ['cpu', 'device', 'kusari', 'threads', 'torch']
    """
    is_cuda = device is not None and device.type == "cuda"
    return {
        "kusari": trainer.__version__,
        "torch": str(torch.__version__),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name(device) if is_cuda else str(device or "cpu"),
        "threads": torch.get_num_threads(),
    }


def warn_of_changes(saved: dict[str, Any], now: dict[str, Any]) -> None:
    """Warns of what is other than it was and may change the last bits."""
    changed = [f"{key} {saved[key]}, now {now[key]}" for key in now if key in saved and saved[key] != now[key]]
    if changed:
        threads = saved.get("threads")
        remedy = f" torch.set_num_threads({threads}) brings the threads back." if threads != now["threads"] else ""
        told = f"the snapshot was made with {'; '.join(changed)}: results may differ in the last bits from here on."
        warnings.warn(told + remedy, stacklevel=4)


def warn_of_args(saved: dict[str, Any], now: dict[str, Any]) -> None:
    """Warns of arguments of the script that differ from those that the run was started with."""
    changed = [
        f"{key} {saved.get(key, 'not given')!r}, now {now.get(key, 'not given')!r}"
        for key in sorted({**saved, **now})
        if saved.get(key, KEYS) != now.get(key, KEYS)
    ]
    if saved and changed:
        warnings.warn(
            f"the run was made with {'; '.join(changed)}: it goes on, but is not the run that it would have been.",
            stacklevel=4,
        )


def upgraded(state: dict[str, Any]) -> dict[str, Any]:
    """Returns the state of a run in today's format.

    Raises:
        ValueError: If the format is newer than ours, or the state lacks what every format has.

    Example:
        >>> from trainer.environment import upgraded
        >>> upgraded({"format": 99})
        Traceback (most recent call last):
        ValueError: it has format 99 and this Kusari reads 1 to 2: update Kusari.
    """
    number = state.get("format", 1)
    if number > FORMAT:
        raise ValueError(f"it has format {number} and this Kusari reads 1 to {FORMAT}: update Kusari.")
    if missing := [key for key in KEYS if key not in state]:
        raise ValueError(f"it lacks {', '.join(missing)}: no released Kusari wrote it; start afresh.")
    if number == 1:  # knew nothing of the machine but its threads
        state = state | {"format": 2, "environment": {"threads": state["threads"]}, "args": {}}
    return state
