"""One batch, one update."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainer.convert import concat_examples, count_samples, device_of
from trainer.iterators import as_iterator
from trainer.precision import autocast
from trainer.triggers import epoch_progress


class StandardUpdater:
    """Takes a batch, computes the loss and its gradient, and lets the optimizer step. Chainer: ``StandardUpdater``.

    For another kind of update (two optimizers, say) override :meth:`update_core`.

    Args:
        iterator: An iterator, a ``DataLoader``, or a dict of these with the key ``"main"``.
        optimizer: A torch optimizer, or a dict of them with the key ``"main"``.
        model: The model whose parameters the optimizer changes, or a dict with the key ``"main"``. It is called as
            ``model(*batch)`` and returns the loss.
        device: Where the model is moved to and each batch is put; by default where the model is.
        converter: Called as ``converter(batch, device)`` once on what the iterator yields.
        loss_func: Called for the loss in place of the model.
        precision: ``"fp32"``, or ``"bf16"`` or ``"fp16"`` for torch's autocast (fp16 with a gradient scaler).

    Attributes:
        iteration: Updates done.
        batch_size: Samples in the main iterator's last batch.
        device: As given, or where the model was.
        scaler: The ``GradScaler`` of fp16, else None.

    Raises:
        TypeError: If a part is not of its kind.
        ValueError: If a dict lacks ``"main"``, or the precision is not known.

    Example:
        >>> import torch
        >>> from trainer import Classifier, StandardUpdater
        >>> from trainer.iterators import SerialIterator
        >>> model = Classifier(torch.nn.Linear(2, 3))
        >>> optimizer = torch.optim.Adam(model.parameters())
        >>> data = [(torch.rand(2), i % 3) for i in range(10)]
        >>> updater = StandardUpdater(SerialIterator(data, 5), optimizer, model=model, device="cpu")
        >>> updater.update()
        >>> updater.iteration, updater.epoch_detail
        (1, 0.5)
    """

    def __init__(
        self,
        iterator: Any,
        optimizer: Optimizer | dict[str, Optimizer],
        *,
        model: nn.Module | dict[str, nn.Module],
        device: torch.device | str | None = None,
        converter: Callable[[Any, torch.device], Any] = concat_examples,
        loss_func: Callable[..., Tensor] | None = None,
        precision: str = "fp32",
    ) -> None:
        iterators = _named(iterator, "iterator")
        self._optimizers: dict[str, Optimizer] = _named(optimizer, "optimizer", Optimizer)
        self._models: dict[str, nn.Module] = _named(model, "model", nn.Module)
        self.device = device_of(self._models["main"]) if device is None else torch.device(device)
        for module in self._models.values():
            module.to(self.device)
        self._iterators = {name: as_iterator(source) for name, source in iterators.items()}
        if self.device.type == "cuda":
            for source in self._iterators.values():
                if hasattr(source, "pin_memory"):
                    source.pin_memory = True
        self.converter = converter
        self.loss_func = loss_func or self._models["main"]
        self.precision = precision
        self.iteration = 0
        self.batch_size = 1
        autocast(precision, self.device)  # refuses a wrong word now and not in the first update
        self.scaler = torch.amp.GradScaler(self.device.type) if precision == "fp16" else None

    # -- the update

    def update(self) -> None:
        """Does one update, and counts it."""
        self.update_core()
        self.iteration += 1

    def update_core(self) -> None:
        """The update itself; a subclass may do another."""
        optimizer = self._optimizers["main"]
        batch = self.next_batch()
        optimizer.zero_grad()  # before the forward pass, which then has the gradients' memory
        loss = self.compute_loss(batch)
        if self.scaler is None:
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        else:
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            self.scaler.step(optimizer)
            self.scaler.update()

    def next_batch(self, name: str = "main") -> Any:
        """Returns an iterator's next batch, converted and on the device."""
        batch = next(self._iterators[name])
        if name == "main":
            self.batch_size = count_samples(batch)
        return self.converter(batch, self.device)

    def compute_loss(self, batch: Any) -> Tensor:
        """Returns the loss of a converted batch: a tuple is passed as positional, a dict as keyword arguments."""
        if self.precision == "fp32":
            return call(self.loss_func, batch)  # type: ignore[no-any-return]
        with autocast(self.precision, self.device):
            return call(self.loss_func, batch)  # type: ignore[no-any-return]

    def finalize(self) -> None:
        """Finalizes every iterator."""
        for iterator in self._iterators.values():
            iterator.finalize()

    # -- the parts

    def get_iterator(self, name: str) -> Any:
        """Returns the iterator of a name; a given ``DataLoader`` comes back wrapped."""
        return self._iterators[name]

    def get_optimizer(self, name: str) -> Optimizer:
        """Returns the optimizer of a name."""
        return self._optimizers[name]

    def get_all_optimizers(self) -> dict[str, Optimizer]:
        """Returns the optimizers by name."""
        return dict(self._optimizers)

    def get_model(self, name: str) -> nn.Module:
        """Returns the model of a name."""
        return self._models[name]

    def get_all_models(self) -> dict[str, nn.Module]:
        """Returns the models by name: their values are observed under it."""
        return dict(self._models)

    # -- the progress

    @property
    def epoch(self) -> int:
        """Finished epochs of the main iterator."""
        return self._iterators["main"].epoch  # type: ignore[no-any-return]

    @property
    def epoch_detail(self) -> float:
        """Finished epochs and the fraction of this one."""
        return self._iterators["main"].epoch_detail  # type: ignore[no-any-return]

    @property
    def previous_epoch_detail(self) -> float | None:
        """``epoch_detail`` before the last batch; None before the first."""
        return self._iterators["main"].previous_epoch_detail  # type: ignore[no-any-return]

    @property
    def is_new_epoch(self) -> bool:
        """Whether the last batch finished an epoch."""
        return self._iterators["main"].is_new_epoch  # type: ignore[no-any-return]

    def epoch_progress(self) -> tuple[int, int]:
        """Returns ``epoch_detail`` in integers: (samples, samples in an epoch)."""
        return epoch_progress(self._iterators["main"])

    # -- state

    def state_dict(self) -> dict[str, Any]:
        """Returns the state of iterators, models, optimizers and scaler, and the iteration."""
        return {
            "iteration": self.iteration,
            "iterator": {name: part.state_dict() for name, part in self._iterators.items()},
            "model": {name: part.state_dict() for name, part in self._models.items()},
            "optimizer": {name: part.state_dict() for name, part in self._optimizers.items()},
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what :meth:`state_dict` returned.

        Raises:
            ValueError: If a part is missing from the state, or was given to it and is missing here.
            RuntimeError: If the model is another: torch lists the keys.
        """
        parts: dict[str, dict[str, Any]] = {
            "model": self._models,
            "optimizer": self._optimizers,
            "iterator": self._iterators,
        }
        for kind, named in parts.items():
            if set(named) != set(state[kind]):
                raise ValueError(f"the snapshot has {kind}s {sorted(state[kind])}, the updater {sorted(named)}.")
            for name, part in named.items():
                part.load_state_dict(state[kind][name])
        if self.scaler is not None and state["scaler"] is not None:
            self.scaler.load_state_dict(state["scaler"])
        self.iteration = state["iteration"]


def call(function: Callable[..., Any], batch: Any) -> Any:
    """Calls a function with a converted batch: a tuple as positional, a dict as keyword arguments.

    Example:
        >>> from trainer.updaters.standard import call
        >>> call(max, (3, 5)), call(dict, {"x": 1})
        (5, {'x': 1})
    """
    if isinstance(batch, (tuple, list)):
        return function(*batch)
    if isinstance(batch, dict):
        return function(**batch)
    return function(batch)


def _named(part: Any, kind: str, expected: type | None = None) -> dict[str, Any]:
    named = dict(part) if isinstance(part, dict) else {"main": part}
    if "main" not in named:
        raise ValueError(f"the {kind}s {sorted(named)} lack 'main'; e.g. {{'main': {kind}}}.")
    for name, value in named.items():
        if expected is not None and not isinstance(value, expected):
            raise TypeError(
                f"{kind} {name!r} must be a {expected.__module__}.{expected.__qualname__}, got {type(value).__name__}."
            )
    return named
