"""The parts of an updater by name: iterators, models, optimizers; what is refused in them, and their state."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainer.checks import near, reworded, warn
from trainer.datasets.convert import device_of
from trainer.iterators import as_iterator, refuse_shared_loaders
from trainer.mistakes import as_device
from trainer.reporter import Reporter
from trainer.saving.state import Stateful, load_declared
from trainer.updaters.groups import named_groups, refuse_odd_states, restore_groups
from trainer.updaters.modes import eval_modules

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
                got = (
                    f"the class {value.__name__}: make an object of it"
                    if isinstance(value, type)
                    else type(value).__name__
                )
                if kind == "optimizer" and hasattr(value, "optimizer") and hasattr(value, "step"):
                    got += ", a scheduler: give its optimizer here, and extend(LRScheduler(scheduler))"
                raise TypeError(f"{kind} {name!r} must be a {wanted}, got {got}.")

    def __missing__(self, name: str) -> Any:
        got = repr(name) if isinstance(name, str) else type(name).__name__
        raise ValueError(f"there is no {self.kind} {got}; there are {sorted(self)}.{near(name, self)}")


def refuse_wrapped(models: dict[str, nn.Module]) -> None:
    """Refuses a model that holds the result of ``torch.compile``, under which its weights have other names.

    And one in ``DataParallel``: a loss comes back from each device, and what the model reports there is lost.
    """
    for name, model in models.items():
        if isinstance(model, nn.DataParallel):
            raise ValueError(
                f"model {name!r} is in DataParallel, which returns a loss for each device and loses what is reported"
                " there: wrap the predictor, Classifier(nn.DataParallel(predictor))."
            )
        for path, _ in model.named_modules():
            if path.rpartition(".")[2] == "_orig_mod":
                inner = path.rpartition(".")[0]
                raise ValueError(
                    f"model {name!r} holds the result of torch.compile at {inner or 'its root'!r}: its weights would be"
                    f" saved as {path}...; compile it in place instead: {inner or 'model.predictor'}.compile()."
                )


def hyperparameters(optimizer: Optimizer) -> dict[str, dict[str, Any]]:
    """Returns what was asked of each group of parameters, as far as a snapshot may hold it."""
    groups = {}
    for number, group in enumerate(optimizer.param_groups):
        values = {key: _plain(value) for key, value in group.items() if key != "params"}
        groups[str(number)] = {key: value for key, value in values.items() if value is not ...}
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


def out_of_memory(updater: Any, error: Exception) -> Exception:
    """Returns the error of an update that ran out of memory, with what took it and what takes less."""
    less = "; precision='bf16' needs less too" if updater.precision == "fp32" else ""
    return reworded(
        error,
        f"{error}\nThis update took {updater.batch_size} samples (accumulate={updater.accumulate}, precision="
        f"{updater.precision!r}). For the same step with less memory halve batch_size and double accumulate{less}.",
    )


class Parts(Stateful):
    """Iterators, models and optimizers by name, and their state.

    Args:
        iterator: As for :class:`~trainer.StandardUpdater`, and so are the others.
        optimizer: One, or a dict.
        model: One, or a dict.
        device: Where the models are moved to.
        needs_main: Whether each kind must have one called ``main``.
    """

    saved: ClassVar[tuple[str, ...]] = (
        *("_iterator", "_model", "_modes", "_groups", "_optimizer", "_kinds", "hyperparameters", "_loss_state"),
    )
    examples: ClassVar[dict[str, Any]] = {"_modes": {...: [""]}, "_groups": {...: [[[]]]}}
    examples |= {"_loss_state": {}, "hyperparameters": {}}  # which of these there are, the optimizer alone knows
    settings: ClassVar[tuple[str, ...]] = ("hyperparameters", "in_eval_mode", "frozen")
    without_settings = ("_modes", "_groups", "_loss_state")  # made anew at each question
    loss_func: Any = None
    restored_modes: dict[str, list[str]] | None = None

    def __init__(self, iterator: Any, optimizer: Any, model: Any, device: Any, needs_main: bool) -> None:
        if iterator is None and needs_main:
            raise TypeError("iterator is None: give one, or write an update_core of your own, which takes no batch.")
        self._iterator = Named("iterator", {} if iterator is None else iterator, needs_main=iterator is not None)
        self._optimizer = Named("optimizer", optimizer, Optimizer, needs_main)
        self._model = Named("model", model, nn.Module, needs_main)
        refuse_wrapped(self._model)
        refuse_foreign(self._optimizer, self._model)
        self.device = device_of(next(iter(self._model.values()))) if device is None else as_device(device)
        self._reporter = Reporter()  # listens where no trainer does
        for name, module in self._model.items():
            self._reporter.add_model(name, module.to(self.device))
        for name, source in self._iterator.items():
            self._iterator[name] = as_iterator(source)
            if self.device.type == "cuda" and hasattr(self._iterator[name], "pin_memory"):
                self._iterator[name].pin_memory = True
        refuse_shared_loaders((f"the updater's iterator {name!r}", part) for name, part in self._iterator.items())
        self._kinds = {name: type(part).__name__ for name, part in self._optimizer.items()}
        self._first_groups = {name: len(part.param_groups) for name, part in self._optimizer.items()}
        self.in_eval_mode = eval_modules(self._model)
        self.frozen = {
            name: [path for path, p in model.named_parameters() if not p.requires_grad]
            for name, model in self._model.items()
        }
        self.hyperparameters = {name: hyperparameters(part) for name, part in self._optimizer.items()}

    def get_iterator(self, name: str) -> Any:
        """Returns the iterator of a name; a given ``DataLoader`` comes back wrapped."""
        return self._iterator[name]

    def get_all_iterators(self) -> dict[str, Any]:
        """Returns the iterators by name."""
        return dict(self._iterator)

    def get_optimizer(self, name: str) -> Optimizer:
        """Returns the optimizer of a name."""
        return self._optimizer[name]  # type: ignore[no-any-return]

    def get_all_optimizers(self) -> dict[str, Optimizer]:
        """Returns the optimizers by name."""
        return dict(self._optimizer)

    def get_model(self, name: str) -> nn.Module:
        """Returns the model of a name."""
        return self._model[name]  # type: ignore[no-any-return]

    def get_all_models(self) -> dict[str, nn.Module]:
        """Returns the models by name: their values are observed under it."""
        return dict(self._model)

    # -- state

    def keep_loss_func(self, loss_func: Any) -> None:
        """Takes a loss function; one that is a module, and in none of the models, is saved if its state changes."""
        self.loss_func = loss_func
        modules = {id(module) for model in self._model.values() for module in model.modules()}
        self._own_loss = loss_func if isinstance(loss_func, nn.Module) and id(loss_func) not in modules else None
        self._first_loss_state = copy.deepcopy(self._own_loss.state_dict()) if self._own_loss is not None else {}

    def _modules(self) -> dict[str, nn.Module]:
        """Returns the models, and a loss function that is a module of its own."""
        return dict(self._model) if self._own_loss is None else self._model | {"loss_func": self._own_loss}

    @property
    def _modes(self) -> dict[str, list[str]] | None:
        """The modules in eval mode, by model."""
        return eval_modules(self._modules())

    @_modes.setter
    def _modes(self, saved: dict[str, list[str]] | None) -> None:
        self.restored_modes = saved
        for name, paths in (saved or {}).items():  # an older snapshot has none
            model = self._modules().get(name)
            for path, module in model.named_modules() if model is not None else ():
                module.training = path not in paths

    @property
    def _loss_state(self) -> dict[str, Any] | None:
        """The state of a loss function that is a module of its own, if training has changed it."""
        state = {} if self._own_loss is None else self._own_loss.state_dict()
        is_same = all(torch.equal(value, self._first_loss_state[key]) for key, value in state.items())
        return None if is_same else state

    @_loss_state.setter
    def _loss_state(self, saved: dict[str, Any] | None) -> None:
        if saved and self._own_loss is not None:
            self._own_loss.load_state_dict(saved)
        elif saved:
            warn("the state of the snapshot's loss_func is dropped: the loss_func of the script is no module.")

    @property
    def _groups(self) -> dict[str, Any] | None:
        """The names of the optimizers' parameters by group; on a resume, groups that are missing are added."""
        return named_groups(self._optimizer, self._modules(), self._first_groups)

    @_groups.setter
    def _groups(self, saved: dict[str, Any] | None) -> None:
        if saved is not None:  # else the snapshot is from before they were recorded
            restore_groups(self._optimizer, self._modules(), saved)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what ``state_dict`` returned; the optimizers keep the snapshot's hyperparameters.

        Raises:
            ValueError: If a part is missing from the state, or was given to it and is missing here, or an optimizer is
                of another class.
            RuntimeError: If the model is another: torch lists the keys.
        """
        for named in (self._model, self._optimizer, self._iterator):
            if set(named) != set(state[named.kind]):
                saved = sorted(state[named.kind])
                raise ValueError(f"the snapshot has {named.kind}s {saved}, the updater {sorted(named)}.")
        if self._kinds != state["kinds"]:
            raise ValueError(
                f"the snapshot has the optimizers {state['kinds']}, the updater {self._kinds}: their state cannot be"
                " continued; take the same, or start afresh."
            )
        new = {"modes": None, "groups": None, "loss_state": None}  # to a snapshot of before
        load_declared(self, new | state, "updater")
        refuse_odd_states(self._optimizer)
