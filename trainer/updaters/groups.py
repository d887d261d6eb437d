"""Which parameters an optimizer has, by name: a group that was added during training comes back on a resume."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import Optimizer


def named_groups(
    optimizers: dict[str, Optimizer], models: dict[str, nn.Module], first: dict[str, int]
) -> dict[str, list[list[list[Any]]]]:
    """Returns the names of the parameters in each group of each optimizer, and whether they require gradients.

    Args:
        optimizers: By name.
        models: By name, which stands before those of their parameters; a parameter of none of them is called None.
        first: How many groups each optimizer had when the run was set up.

    Raises:
        ValueError: If a group that was added since has a parameter without a name: no resume could add it again.

    Example:
        >>> from trainer.updaters.groups import named_groups
        >>> named_groups(run.updater.get_all_optimizers(), run.updater.get_all_models(), {"main": 1})
        {'main': [[['main.predictor.weight', True], ['main.predictor.bias', True]]]}
    """
    names = {id(p): name for name, p in _named(models)}
    groups = {
        name: [[[names.get(id(p)), p.requires_grad] for p in group["params"]] for group in optimizer.param_groups]
        for name, optimizer in optimizers.items()
    }
    for name, listed in groups.items():
        if any(path is None for group in listed[first.get(name, 0) :] for path, _ in group):
            raise ValueError(
                f"a parameter group that was added to optimizer {name!r} during training has parameters of no model, so"
                " a resume could not restore it: pass their module to the updater as a model too."
            )
    return groups


def _named(models: dict[str, nn.Module]) -> list[tuple[str, nn.Parameter]]:
    """Returns all parameters with all their names: of several, the first in the alphabet comes last."""
    parts = [(name, model.named_parameters(remove_duplicate=False)) for name, model in models.items()]
    return sorted(((f"{name}.{path}", p) for name, part in parts for path, p in part), key=lambda pair: pair[0])[::-1]


def restore_groups(
    optimizers: dict[str, Optimizer],
    models: dict[str, nn.Module],
    saved: dict[str, list[list[list[Any]]]],
) -> None:
    """Gives each optimizer the parameters that it had: adds what is missing, in the order that there was.

    Args:
        optimizers: By name.
        models: By name.
        saved: What :func:`named_groups` returned.

    Raises:
        ValueError: If a group has parameters that it did not have then, or one that is missing is in no model.

    Example:
        >>> from trainer.updaters.groups import named_groups, restore_groups
        >>> parts = run.updater.get_all_optimizers(), run.updater.get_all_models()
        >>> saved = named_groups(*parts, {"main": 1})
        >>> parts[0]["main"].param_groups[0]["params"].pop().shape
        torch.Size([3])
        >>> restore_groups(*parts, saved)
        >>> named_groups(*parts, {"main": 1}) == saved
        True
    """
    known = dict(_named(models))
    for name, now in named_groups(
        optimizers, models, {name: len(o.param_groups) for name, o in optimizers.items()}
    ).items():
        optimizer, groups = optimizers[name], saved[name]
        for number, group in enumerate(groups):
            wanted = [path for path, _ in group]
            there = [path for path, _ in now[number]] if number < len(now) else []
            if there == wanted:
                continue
            strange = [path for path in there if path not in wanted] or [path for path in wanted if path not in known]
            if strange or None in wanted:
                raise ValueError(
                    f"parameter group {number} of optimizer {name!r} does not match the snapshot (see"
                    f" {', '.join(map(str, strange[:3]))}): make the optimizer as in the original run."
                )
            parameters = [known[path] for path in wanted]
            named = (
                list(zip(wanted, parameters, strict=True)) if "param_names" in optimizer.param_groups[0] else parameters
            )
            if number < len(now):
                optimizer.param_groups[number]["params"] = parameters
            else:
                optimizer.add_param_group({"params": named})
        if len(now) > len(groups):
            raise ValueError(
                f"optimizer {name!r} has {len(now)} groups of parameters and had {len(groups)} in the snapshot: add"
                f" {now[len(groups)][0][0]} and so on after the resume, when it was added then."
            )
        for path, requires_grad in (pair for group in groups for pair in group):
            if path in known:
                known[path].requires_grad_(requires_grad)
