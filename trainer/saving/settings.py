"""What a run's bits depend on beside its state: recorded in a snapshot, and compared when it is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from trainer.checks import warn
from trainer.saving.state import Stateful, declared, state_of

__version__ = "0.1.0"

MISSING = "not given"


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


def settings_of(part: Any) -> dict[str, Any]:
    """Returns the values that a part names in ``settings``, and those of the parts that it saves, as a tree.

    Example:
        >>> from trainer.iterators import SerialIterator
        >>> from trainer.saving.settings import settings_of
        >>> settings_of(SerialIterator(range(10), 4, seed=7))
        {'seed': 7, 'batch_size': 4, 'shuffle': True}
    """
    tree: dict[str, Any] = {}
    if isinstance(part, dict):
        tree = {name: settings_of(value) for name, value in part.items()}
    elif isinstance(part, Stateful):
        skipped = getattr(part, "without_settings", ())
        tree = {k: settings_of(getattr(part, name)) for k, name in declared(part).items() if name not in skipped}
        tree |= {key: state_of(getattr(part, name)) for key, name in declared(part, "settings").items()}
    return {key: value for key, value in tree.items() if value != {}}


def differences(saved: Any, now: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yields path, value in the snapshot and value of today where two trees differ.

    A part that one of the trees lacks is passed over; loading its state warns that it is new or gone.

    Example:
        >>> from trainer.saving.settings import differences
        >>> list(differences({"args": {"lr": 0.1, "seed": 3}}, {"args": {"lr": 0.2, "seed": 3}, "updater": {}}))
        [('args/lr', 0.1, 0.2)]
    """
    if isinstance(saved, dict) and isinstance(now, dict):
        for key in {**saved, **now} if saved else ():
            before, after = saved.get(key, MISSING), now.get(key, MISSING)
            if path == "args" or isinstance(before, dict) == isinstance(after, dict):
                yield from differences(before, after, f"{path}/{key}" if path else str(key))
    else:
        try:
            differ = bool(saved != now) and repr(saved) != repr(now)  # NaN is not NaN
        except (RuntimeError, ValueError):  # a comparison of tensors has no truth
            differ = repr(saved) != repr(now)
        if differ:
            yield path, saved, now


def _shown(value: Any) -> str:
    is_long = isinstance(value, list) and len(value) > 3
    return f"[{', '.join(map(repr, value[:3]))} and {len(value) - 3} more]" if is_long else str(value)


def warn_of_differences(saved: dict[str, Any], now: dict[str, Any]) -> None:
    """Warns where settings are other than they were when the run was saved, and says what follows.

    Example:
        >>> from trainer.saving.settings import warn_of_differences
        >>> warn_of_differences({"args": {"lr": 0.1}}, {"args": {"lr": 0.1}})
    """
    found = list(differences(saved, now))
    if not found:
        return
    told = "; ".join(f"{path} {_shown(before)}, now {_shown(after)}" for path, before, after in found)
    if all(path.startswith("environment/") for path, _, _ in found):
        told += ": results may differ in the last bits from here on."
    else:
        told += ": the resumed run will not match an uninterrupted one."
    for path, before, _ in found:
        if path == "environment/threads":
            told += f" torch.set_num_threads({before}) brings the threads back."
    if any(word in path for path, _, _ in found for word in ("hyperparameters", "seed", "in_eval_mode", "frozen")):
        told += (
            " Seeds, hyperparameters and modes stay the snapshot's; to change a hyperparameter, set it in"
            " optimizer.param_groups after trainer.resume(path)."
        )
    warn(f"the snapshot was made with {told}")
