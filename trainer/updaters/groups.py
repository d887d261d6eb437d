"""Which parameters an optimizer has, by name: a group that was added during training comes back on a resume."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from trainer.saving.state import refuse_kind

_OF_OTHER_SHAPES = ("Adafactor", "LBFGS")  # what these of torch's optimizers keep of a parameter


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


def refuse_odd_states(optimizers: dict[str, Optimizer]) -> None:
    """Refuses a loaded state that one of torch's optimizers cannot have kept: they take anything, and fail at a step.

    It keeps the same of each parameter in a group: numbers, and tensors of one element or of the parameter's shape.

    Raises:
        ValueError: With the number of the group.

    Example:
        >>> from trainer.updaters.groups import refuse_odd_states
        >>> import torch
        >>> optimizer = run.updater.get_optimizer("main")
        >>> optimizer.state[optimizer.param_groups[0]["params"][0]] = {"momentum_buffer": torch.zeros(7)}
        >>> refuse_odd_states({"main": optimizer})  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: optimizer/main/state does not fit the parameters of group 0 (see 'momentum_buffer'): it was saved...
    """
    for name, optimizer in optimizers.items():
        kind, where = type(optimizer), f"optimizer/{name}"
        is_known = kind.__module__.startswith("torch.optim.") and kind.__name__ not in _OF_OTHER_SHAPES
        for number, group in enumerate(optimizer.param_groups if is_known else ()):
            # A load adds "differentiable" to the defaults of those that have no such option.
            if missing := sorted(optimizer.defaults.keys() - group.keys() - {"differentiable"}):
                raise ValueError(f"{where}/param_groups/{number} lacks {missing}: it was saved by something else.")
            states = [(p, optimizer.state[p]) for p in group["params"] if p in optimizer.state]
            refuse_kind([{}], [state for _, state in states], f"{where}/state")
            for key in {key for _, state in states for key in state}:
                kinds = [_kinds(key, state.get(key, ...), parameter) for parameter, state in states if state]
                if not set.intersection(*kinds):
                    told = f"{where}/state does not fit the parameters of group {number} (see {key!r})"
                    raise ValueError(f"{told}: it was saved by something else.")


def _kinds(key: str, value: Any, parameter: nn.Parameter) -> set[str]:
    """Returns what a value may be that an optimizer keeps of a parameter."""
    if value is None:
        return {"nothing"}
    if isinstance(value, Tensor) and not (key == "step" and value.numel() == 1 and value < 0):
        found = {"single": value.numel() == 1, "whole": value.shape == parameter.shape}
        return {kind for kind, fits in found.items() if fits}
    return {"number"} if isinstance(value, (int, float)) and not (key == "step" and value < 0) else set()
