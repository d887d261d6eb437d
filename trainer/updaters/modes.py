"""What an update trains: modes of models and optimizers, and parameters that are left out."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import is_lazy

from trainer.checks import warn

NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm)  # often kept in eval mode on purpose: batch and instance norms


def prepare_training(updater: Any) -> None:
    """Puts predictors and optimizers into training mode, and warns of what would not be trained, or not be saved.

    Args:
        updater: Models and optimizers are those of its ``get_all_models`` and ``get_all_optimizers``. Without both,
            nothing is done.

    Example:
        >>> import warnings
        >>> import torch
        >>> from trainer.updaters.modes import prepare_training
        >>> run.updater.get_model("main").predictor = torch.nn.Linear(2, 3)  # after the optimizer was made
        >>> with warnings.catch_warnings(record=True) as told:
        ...     warnings.simplefilter("always")
        ...     prepare_training(run.updater)
        >>> str(told[0].message).split(":")[0]
        "2 parameters of model 'main' are in no optimizer and 2 parameters of optimizer 'main' are in no model"
    """
    train_optimizers(updater)
    warn_of_attributes(updater)
    models, optimizers = _parts(updater, "get_all_models"), _parts(updater, "get_all_optimizers")
    owners = {id(p): name for name, part in optimizers.items() for p in _parameters(part) if p.requires_grad}
    if owners:  # else it trains by other means
        trained = {id(p) for model in models.values() for p in model.parameters()} & owners.keys()
        restored = getattr(updater, "restored_modes", None) or {}
        if eval_modules(models) != {name: restored.get(name) for name in models}:  # else the run wants them so
            _switch_predictors(models, trained)
            _warn_of_eval(models, trained)
        loss_func = getattr(updater, "loss_func", None)  # a module may have parameters, which a snapshot holds
        _warn_of_left_out(models, owners, loss_func.parameters() if isinstance(loss_func, nn.Module) else ())


def train_optimizers(updater: Any) -> None:
    """Calls ``train()`` of the optimizers that have one, as schedule-free ones do.

    Example:
        >>> from trainer.updaters.modes import train_optimizers
        >>> train_optimizers(run.updater)
    """
    for optimizer in _with_modes(updater):
        optimizer.train()


def warn_of_attributes(updater: Any) -> None:
    """Warns of a rate that was set as an attribute of one of torch's optimizers, as in Chainer: it has no effect.

    Example:
        >>> import warnings
        >>> from trainer.updaters.modes import warn_of_attributes
        >>> run.updater.get_optimizer("main").lr = 5.0
        >>> with warnings.catch_warnings(record=True) as told:
        ...     warnings.simplefilter("always")
        ...     warn_of_attributes(run.updater)
        >>> str(told[0].message).partition(",")[0]
        "optimizer 'main' has an attribute lr = 5.0"
    """
    for name, optimizer in _parts(updater, "get_all_optimizers").items():
        if type(optimizer).__module__.startswith("torch.optim.") and "lr" in vars(optimizer):
            warn(
                f"optimizer {name!r} has an attribute lr = {optimizer.lr!r}, which has no effect: set group['lr'] in"
                " optimizer.param_groups, or use a shift."
            )


def eval_modules(models: dict[str, nn.Module]) -> dict[str, list[str]]:
    """Returns the paths of the modules in eval mode, by the name of their model.

    Example:
        >>> from trainer.updaters.modes import eval_modules
        >>> run.updater.get_model("main").predictor.eval()
        Linear(in_features=2, out_features=3, bias=True)
        >>> eval_modules(run.updater.get_all_models())
        {'main': ['predictor']}
    """
    return {name: [path for path, m in model.named_modules() if not m.training] for name, model in models.items()}


@contextmanager
def averaged_weights(updater: Any) -> Iterator[bool]:
    """Within the block, the parameters of schedule-free optimizers are the averaged ones, to evaluate or to save.

    Schedule-free optimizers (Defazio et al. 2024) have ``train()`` and ``eval()`` of their own; others are left alone.
    Afterwards the parameters have the bits that they had before, which ``train()`` alone would not give back. Yields
    whether there are such optimizers.

    Args:
        updater: Of the run.

    Example:
        In a plug-in of your own::

            with averaged_weights(trainer.updater):
                norm = sum(p.detach().norm() for p in model.parameters())
    """
    optimizers = _with_modes(updater)
    with ExitStack() as stack:
        for optimizer in optimizers:
            stack.enter_context(_averaged(optimizer))
        yield bool(optimizers)


@contextmanager
def _averaged(optimizer: Any) -> Iterator[None]:
    parameters = _parameters(optimizer)
    with torch.no_grad():
        before = [parameter.clone() for parameter in parameters]
    optimizer.eval()
    if all(map(torch.equal, parameters, before)):
        before = []  # it was in eval mode already, by somebody's own plug-in: train() alone is right
    try:
        yield
    finally:
        optimizer.train()
        with torch.no_grad():
            for parameter, value in zip(parameters, before, strict=False):
                parameter.copy_(value)


def _parts(updater: Any, getter: str) -> dict[str, Any]:
    return getattr(updater, getter, dict)()


def _parameters(optimizer: Any) -> list[nn.Parameter]:
    return [parameter for group in getattr(optimizer, "param_groups", ()) for parameter in group["params"]]


def _with_modes(updater: Any) -> list[Any]:
    """Returns the optimizers with modes of their own; those of a module mean something else."""
    optimizers = [part for part in _parts(updater, "get_all_optimizers").values() if not isinstance(part, nn.Module)]
    return [part for part in optimizers if callable(getattr(part, "train", 0)) and callable(getattr(part, "eval", 0))]


# -- modes of models


def _switch_predictors(models: dict[str, nn.Module], trained: set[int]) -> None:
    switched = []
    for name, model in models.items():
        path, predictor = _predictor(model, trained)
        is_layer = type(predictor).__module__.startswith("torch.nn.") and _is_leaf(predictor)
        if is_layer or not _is_eval(predictor) or not _holds(predictor, trained):
            continue
        frozen = list(_frozen(predictor, trained))
        predictor.train()
        for module in frozen:
            module.eval()
        if not _is_eval(predictor):  # its own train() may keep it there
            switched.append(_full(models, name, path))
    if switched:
        warn(
            f"{_some(switched)}: every module was in eval mode, and is put into training mode. Call train() before the"
            " run; to train in eval mode on purpose, call eval() in an extension's initialize()."
        )


def _predictor(model: nn.Module, trained: set[int]) -> tuple[str, nn.Module]:
    """Returns a model, or the only child with parameters of what is a mere wrapper in training mode, with its path."""
    path = []
    while not _is_eval(model):
        children = [(name, child) for name, child in model.named_children() if _has_parameters(child)]
        if len(children) != 1 or any(id(p) in trained for p in model.parameters(recurse=False)):
            break
        name, model = children[0]
        path.append(name)
    return ".".join(path), model


def _frozen(module: nn.Module, trained: set[int]) -> Iterator[nn.Module]:
    """Yields the topmost parts that have parameters of which none is trained."""
    for child in module.children():
        if _holds(child, trained):
            yield from _frozen(child, trained)
        elif _has_parameters(child):
            yield child


def _warn_of_eval(models: dict[str, nn.Module], trained: set[int]) -> None:
    found = [_full(models, name, path) for name, model in models.items() for path in _eval_parts(model, "", trained)]
    if found:
        warn(
            f"{_some(found)}: in eval mode, though an optimizer trains it. Dropout is off there, and batch norm does"
            " not update its running statistics; if that is not intended, call train() before the run."
        )


def _eval_parts(module: nn.Module, path: str, trained: set[int]) -> Iterator[str]:
    """Yields the topmost parts wholly in eval mode, unless they are single layers, or only norms are trained there."""
    for name, child in module.named_children():
        if not _is_eval(child):
            yield from _eval_parts(child, f"{path}{name}.", trained)
        elif not _is_leaf(child):
            layers = [layer for layer in child.modules() if not isinstance(layer, NORMS)]
            if any(id(p) in trained for layer in layers for p in layer.parameters(recurse=False)):
                yield path + name


def _is_eval(module: nn.Module) -> bool:
    return not any(part.training for part in module.modules())


def _has_parameters(module: nn.Module) -> bool:
    return any(True for _ in module.parameters())


def _is_leaf(module: nn.Module) -> bool:
    return not any(True for _ in module.children())


def _holds(module: nn.Module, parameters: Container[int]) -> bool:
    return any(id(parameter) in parameters for parameter in module.parameters())


# -- parameters that are left out


def _warn_of_left_out(models: dict[str, nn.Module], owners: dict[int, str], others: Iterable[nn.Parameter]) -> None:
    # A whole model in eval mode that no optimizer trains is left out on purpose: a teacher.
    meant = {name: model for name, model in models.items() if not _is_eval(model) or _holds(model, owners)}
    missing = {id(p) for model in meant.values() for p in model.parameters() if _can_learn(p)} - owners.keys()
    known = {id(p) for model in models.values() for p in model.parameters()} | {id(p) for p in others}
    strays = [name for parameter, name in owners.items() if parameter not in known]
    told = []
    if missing:
        groups = [_full(models, name, path) for name, m in meant.items() for path in _groups(m, "", missing)]
        told.append(f"{_count(len(missing), _some(groups))} in no optimizer")
    if strays:
        names = _some([f"optimizer {name!r}" for name in dict.fromkeys(strays)])
        told.append(f"{_count(len(strays), names)} in no model")
    if missing and strays:
        remedy = "was the model changed after the optimizer was made? Make the optimizer when the model is whole."
    elif missing:
        remedy = "not trained. If that is intended, call requires_grad_(False) on them; else give them to an optimizer."
    else:
        remedy = "not in a snapshot, and not restored on a resume. Pass their module to the updater as a model too."
    if told:
        warn(f"{' and '.join(told)}: {remedy}")


def _groups(module: nn.Module, path: str, missing: set[int]) -> Iterator[str]:
    """Yields names for the missing parameters: of the topmost modules that lack all of theirs, else their own."""
    if all(id(p) in missing for p in module.parameters() if _can_learn(p)):
        if _holds(module, missing):
            yield f"{path}*" if path else ""
        return
    for name, parameter in module.named_parameters(recurse=False):
        if id(parameter) in missing:
            yield path + name
    for name, child in module.named_children():
        yield from _groups(child, f"{path}{name}.", missing)


def _can_learn(parameter: nn.Parameter) -> bool:
    return parameter.requires_grad and (is_lazy(parameter) or parameter.numel() > 0)


# -- words


def _full(models: dict[str, nn.Module], name: str, path: str) -> str:
    """Returns a path in a model, with the model's name if there are several."""
    if not path:
        return f"model {name!r}"
    return path if len(models) == 1 else f"{name}.{path}"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _count(number: int, of: str) -> str:
    return f"1 parameter of {of} is" if number == 1 else f"{number} parameters of {of} are"
