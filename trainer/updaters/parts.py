"""The parts of an updater: by name, and what is refused in them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

_OPTIMIZER = ("param_groups", "step", "zero_grad", "state_dict", "load_state_dict")


class Named(dict[str, Any]):
    """Parts of one kind by name: a single one is called ``main``.

    Args:
        kind: What they are, for messages.
        part: One, or a dict of them.
        expected: Their class; what only behaves as an optimizer, such as a wrapper of one, is one too.
        needs_main: Whether there must be one called ``main``.

    Raises:
        ValueError: If ``main`` is missing, or a name is asked for that there is not.
        TypeError: If one is of another class.
    """

    def __init__(self, kind: str, part: Any, expected: type = object, needs_main: bool = True) -> None:
        super().__init__(part if isinstance(part, dict) else {"main": part})
        self.kind = kind
        if needs_main and "main" not in self:
            raise ValueError(f"the {kind}s {sorted(self)} lack 'main'; e.g. {{'main': {kind}}}.")
        for name, value in self.items():
            behaves = expected is Optimizer and all(hasattr(value, method) for method in _OPTIMIZER)
            if not (isinstance(value, expected) or behaves):
                wanted = f"{expected.__module__}.{expected.__qualname__}"
                raise TypeError(f"{kind} {name!r} must be a {wanted}, got {type(value).__name__}.")

    def __missing__(self, name: str) -> Any:
        raise ValueError(f"there is no {self.kind} {name!r}; there are {sorted(self)}.")


def refuse_wrapped(models: dict[str, nn.Module]) -> None:
    """Refuses a model that holds the result of ``torch.compile``, under which its weights have other names."""
    for name, model in models.items():
        for path, _ in model.named_modules():
            if path.rpartition(".")[2] == "_orig_mod":
                inner = path.rpartition(".")[0]
                raise ValueError(
                    f"model {name!r} holds the result of torch.compile at {inner or 'its root'!r}: its weights would be"
                    f" saved as {path}...; compile it in place instead: {inner or 'model.predictor'}.compile()."
                )


def hyperparameters(optimizer: Optimizer) -> dict[str, dict[str, Any]]:
    """Returns what was asked of each group of parameters, as far as a snapshot may hold it, and how many are frozen."""
    groups = {}
    for number, group in enumerate(optimizer.param_groups):
        values = {key: _plain(value) for key, value in group.items() if key != "params"}
        groups[str(number)] = {key: value for key, value in values.items() if value is not ...}
        if frozen := sum(not parameter.requires_grad for parameter in group["params"]):
            groups[str(number)]["frozen"] = frozen
    return groups


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(element) for element in value]
    return value if value is None or type(value) in (bool, int, float, str) else ...


def refuse_foreign(optimizers: dict[str, Optimizer], models: dict[str, nn.Module]) -> None:
    """Refuses an optimizer that has no parameter of any model."""
    own = {id(parameter) for model in models.values() for parameter in model.parameters()}
    for name, optimizer in optimizers.items():
        if own.isdisjoint(id(parameter) for group in optimizer.param_groups for parameter in group["params"]):
            raise ValueError(
                f"optimizer {name!r} has no parameter of the models {sorted(models)}, so nothing would be trained: was"
                " the model made anew after the optimizer, or is it missing (model={'main': ..., 'other': ...})?"
            )


def out_of_memory(updater: Any, error: Exception) -> torch.OutOfMemoryError:
    """Returns the error of an update that ran out of memory, with what took it and what takes less."""
    less = "; precision='bf16' needs less too" if updater.precision == "fp32" else ""
    return torch.OutOfMemoryError(
        f"{error}\nThis update took {updater.batch_size} samples (accumulate={updater.accumulate}, precision="
        f"{updater.precision!r}). For the same step with less memory halve batch_size and double accumulate{less}."
    )
