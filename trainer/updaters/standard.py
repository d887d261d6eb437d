"""One batch, one update."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainer.checks import at_least, warn
from trainer.datasets.convert import concat_examples, is_object, size_of
from trainer.mistakes import explained, refuse_call
from trainer.reporter import THREAD
from trainer.triggers import epoch_progress
from trainer.updaters.accumulate import accumulate as accumulated
from trainer.updaters.accumulate import scale_gradients, step_with_closure, takes_closure
from trainer.updaters.outputs import loss_of, no_loss, refuse_detached, report_loss
from trainer.updaters.parts import Parts, out_of_memory
from trainer.updaters.precision import autocast

_ZERO_GRAD = Optimizer.zero_grad  # torch's own, which others may replace


class EndOfDataError(RuntimeError, StopIteration):
    """An iterator that does not repeat has come to its end; a loop of your own may catch it as ``StopIteration``."""


class StandardUpdater(Parts):
    """Takes a batch, computes the loss and its gradient, and lets the optimizer step. Chainer: ``StandardUpdater``.

    For another kind of update (two optimizers, say) override :meth:`update_core`; it is made of :meth:`next_batch`,
    :meth:`compute_loss`, :meth:`backward` and :meth:`step`.

    To compile the predictor call ``model.predictor.compile()`` before: names and ``state_dict`` stay as they are.

    Args:
        iterator: An iterator, a ``DataLoader``, or a dict of these with the key ``"main"``; None if ``update_core`` is
            your own and takes no batch. There are no epochs then.
        optimizer: A torch optimizer, or a dict of them, with the key ``"main"`` unless ``update_core`` is your own.
        converter: Called as ``converter(batch, device)`` once on what the iterator yields.
        device: Where the model is moved to and each batch is put; by default where the model is.
        loss_func: Called for the loss in place of the model.
        model: The model whose parameters the optimizer changes, or a dict as for ``optimizer``. It is called as
            ``model(*batch)``, or with a mapping as ``model(**batch)``, and returns the loss, a mean over the batch, or
            a dict or an object that has it as ``loss``.
        accumulate: Batches that make one update, as if they were one batch. Each weighs what the model says its loss
            was averaged over, by reporting ``loss`` as ``(loss, number)`` (Classifier: the labels that count), else
            its samples. On a GPU a loss over nothing needs a finite gradient, as torch's own have: in yours divide by
            ``n.clamp(min=1)``. The means of the observed values are reported once. An update may take batches of two
            epochs. An ``update_core`` of your own has to do all that by itself.
        clip_norm: The most that the norm of the gradient, all parameters of an optimizer together, may be (Pascanu
            et al. 2013). Chainer: ``GradientClipping``.
        clip_value: The most that an element of the gradient may be, either way. Chainer: ``GradientHardClipping``.
        precision: ``"fp32"``, or ``"bf16"`` or ``"fp16"`` for torch's autocast (fp16 with a gradient scaler).

    Attributes:
        iteration: Updates done.
        batch_size: Samples in the last update.
        device: As given, or where the model was.
        scaler: The ``GradScaler`` of fp16, else None.

    Raises:
        TypeError: If a part is not of its kind.
        ValueError: If a dict lacks ``"main"``, a number is out of range, the precision is not known, a model holds the
            result of ``torch.compile``, an optimizer no parameter of the models, or fp16 is asked for with an optimizer
            such as LBFGS, which evaluates the loss several times in a step.

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

    saved = ("iteration", "_before", "scaler")
    examples: ClassVar[dict[str, Any]] = Parts.examples | {"_before": [0, 0.0]}
    settings = ("accumulate", "clip_norm", "clip_value", "precision")

    def __init__(
        self,
        iterator: Any,
        optimizer: Optimizer | dict[str, Optimizer],
        converter: Callable[[Any, torch.device], Any] = concat_examples,
        device: torch.device | str | None = None,
        loss_func: Callable[..., Tensor] | None = None,
        *,
        model: nn.Module | dict[str, nn.Module],
        accumulate: int = 1,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        precision: str = "fp32",
    ) -> None:
        for name, limit in (("clip_norm", clip_norm), ("clip_value", clip_value)):
            if limit is not None and not (isinstance(limit, (int, float)) and limit > 0):
                raise ValueError(f"{name} must be positive, or None for no clipping, got {limit!r}.")
        is_plain = type(self).update_core is StandardUpdater.update_core
        super().__init__(iterator, optimizer, model, device, needs_main=is_plain)
        refuse_call(converter, "converter", "batch", "device")
        self.converter = converter
        self.keep_loss_func(self._model.get("main", no_loss) if loss_func is None else loss_func)
        self.accumulate = at_least("accumulate", accumulate, 1)
        self.clip_norm = clip_norm
        self.clip_value = clip_value
        self.precision = precision
        self.iteration = 0
        self.batch_size = 1
        self._before: list[float] | None = None  # epoch, epoch_detail before an update of several batches
        self._is_scaled = False  # whether an optimizer made a step with scaled gradients in this update
        self._skipped: dict[int, tuple[int, list[Any]]] = {}  # by optimizer: an iteration, and why it left out the step
        self._has_warned_of_nothing = False
        self._factor: Any = None  # what the gradients of several batches lack
        self._takes_closure = is_plain and takes_closure(self._optimizer["main"])
        if self._takes_closure and precision == "fp16":
            raise ValueError(
                f"precision='fp16' does not go with {self._kinds['main']}, which evaluates the loss several times in a"
                " step: take 'bf16' or 'fp32'."
            )
        autocast(precision, self.device)  # refuses a wrong word now and not in the first update
        self.scaler = torch.amp.GradScaler(self.device.type) if precision == "fp16" else None

    # -- the update

    def update(self) -> None:
        """Does one update, and counts it."""
        try:
            self.update_core()
        except torch.OutOfMemoryError as error:
            raise out_of_memory(self, error)  # noqa: B904  # it is the same error
        self.complete_update()

    def complete_update(self) -> None:
        """Counts an update that was made by hand; the trainer's ``iteration`` does it for its block."""
        if self.scaler is not None and self._is_scaled:
            self.scaler.update()  # once: every loss of an update is scaled alike
            self._is_scaled = False
        self.iteration += 1

    def update_core(self) -> None:
        """The update itself; a subclass may do another."""
        optimizer = self._optimizer["main"]
        if self.accumulate > 1 or self._takes_closure:
            self._update_from_several(optimizer)
            return
        batch = self.next_batch()
        _zero_grad(optimizer)  # before the forward pass, which then has their memory
        self.backward(self.compute_loss(batch))
        self.step()

    def _update_from_several(self, optimizer: Optimizer) -> None:
        self._before = [self.epoch, self.epoch_detail] if self.accumulate > 1 else None
        fetched = [(self.fetch(), self.batch_size)]
        with suppress(EndOfDataError):  # the iterator does not repeat: its last update has fewer batches
            while len(fetched) < self.accumulate:
                fetched.append((self.fetch(), self.batch_size))
        k, self.batch_size = len(fetched), sum(size for _, size in fetched)
        batches = ((self.converter(batch, self.device), size) for batch, size in fetched)
        if not self._takes_closure:
            if self._evaluate(optimizer, batches, k) is not None:
                self.step()
            return
        converted = list(batches)  # they are evaluated several times

        def evaluate() -> Tensor:
            loss = self._evaluate(optimizer, converted, k)
            self._finish(optimizer)
            return torch.zeros((), device=self.device) if loss is None else loss

        step_with_closure(optimizer, evaluate)

    def _evaluate(self, optimizer: Optimizer, batches: Iterable[tuple[Any, int]], k: int) -> Tensor | None:
        """Computes the gradients of several batches; returns their mean loss, None if nothing counts in them."""
        _zero_grad(optimizer)
        reporter = THREAD.reporters[-1] if THREAD.reporters else self._reporter
        loss, factor = accumulated(self, batches, k, reporter)
        self._factor = None if isinstance(factor, float) and factor == 1 else factor
        if loss is None:
            self._skipped[id(optimizer)] = self.iteration, [True]
        if loss is None and not self._has_warned_of_nothing:
            self._has_warned_of_nothing = True
            warn(
                f"iteration {self.iteration + 1} makes no step: no label counts in its {k} batches, or each loss was"
                " reported with weight 0. Others like it will not be reported."
            )
        return loss

    def next_batch(self, name: str = "main") -> Any:
        """Returns an iterator's next batch, converted and on the device."""
        return self.converter(self.fetch(name), self.device)

    def fetch(self, name: str = "main") -> Any:
        """Returns an iterator's next batch as it comes.

        Raises:
            trainer.updaters.standard.EndOfDataError: If the iterator does not repeat and has come to its end.
        """
        iterator = self._iterator[name]
        try:
            batch = next(iterator)
        except StopIteration as error:
            raise EndOfDataError(
                f"iterator {name!r} ended after {self.iteration} iterations because it does not repeat: give it"
                " repeat=True, or stop training where it ends, with the stop trigger (1, 'epoch')."
            ) from error
        if name == "main":
            self.batch_size = size_of(batch, iterator, self)
        return batch

    def compute_loss(self, batch: Any) -> Tensor:
        """Returns the loss of a converted batch: a tuple is passed as positional, a mapping as keyword arguments.

        Raises:
            TypeError: If what comes back is no loss, nor a dict or an object that has one as ``loss``.
            ValueError: If the loss has several elements, or none.
        """
        if self.precision == "fp32":
            output = call_with(self.loss_func, batch)
        else:
            with autocast(self.precision, self.device):
                output = call_with(self.loss_func, batch)
        if isinstance(output, Tensor) and output.dim() == 0:
            return output
        model = self._model.get("main")
        report_loss(output, model)
        return loss_of(output, f"model 'main' ({type(model).__name__})" if self.loss_func is model else "loss_func")

    def backward(self, loss: Tensor) -> None:
        """Computes the gradient of a loss, scaled up if the precision is fp16.

        Raises:
            ValueError: If it has none.
        """
        if not loss.requires_grad:
            refuse_detached()
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()  # type: ignore[no-untyped-call]

    def step(self, name: str = "main") -> None:
        """Clips the gradients of an optimizer's parameters, if that was asked for, and lets it step."""
        optimizer = self._optimizer[name]
        if self.scaler is not None:
            if all(p.grad is None for group in optimizer.param_groups for p in group["params"]):
                return  # no loss has reached it: there is nothing to unscale, and nothing to do
            self._is_scaled = True
        if self.clip_norm is not None or self.clip_value is not None or self._factor is not None:
            if self.scaler is not None:
                self.scaler.unscale_(optimizer)
            self._finish(optimizer)
        if self.scaler is None:
            optimizer.step()
            return
        self.scaler.step(optimizer)
        found = self.scaler._found_inf_per_device(optimizer).values() if self.scaler.is_enabled() else ()
        self._skipped[id(optimizer)] = self.iteration, [x.clone() for x in found]  # update() adds to them in place

    def _finish(self, optimizer: Optimizer) -> None:
        """Corrects the gradients of several batches, and clips them."""
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if self._factor is not None:
            scale_gradients(parameters, self._factor)
            self._factor = None
        if self.clip_value is not None:
            nn.utils.clip_grad_value_(parameters, self.clip_value)
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(parameters, self.clip_norm)

    def has_skipped(self, optimizer: Optimizer) -> bool:
        """Whether the last update left out an optimizer's step: in fp16 for an overflow, or because nothing counted."""
        iteration, reasons = self._skipped.get(id(optimizer), (-1, []))
        return iteration == self.iteration - 1 and any(reasons)

    def connect_trainer(self, trainer: Any) -> None:
        """Called by the trainer that is made of it: tells the iterators where to list bad samples."""
        for name, iterator in self._iterator.items():
            if hasattr(iterator, "bad_samples_file"):
                file = "bad_samples.json" if name == "main" else f"bad_samples_{name}.json"
                iterator.bad_samples_file = trainer.path(file).absolute()

    def finalize(self) -> None:
        """Finalizes every iterator."""
        for iterator in self._iterator.values():
            iterator.finalize()

    # -- the progress

    @property
    def epoch(self) -> int:
        """Finished epochs of the main iterator; 0 without one."""
        return self._iterator["main"].epoch if self._iterator else 0

    @property
    def epoch_detail(self) -> float:
        """Finished epochs and the fraction of this one; 0.0 without an iterator."""
        return self._iterator["main"].epoch_detail if self._iterator else 0.0

    @property
    def previous_epoch_detail(self) -> float | None:
        """``epoch_detail`` before the last update; None before the first."""
        if not self._iterator:
            return None
        return self._before[1] if self._before else self._iterator["main"].previous_epoch_detail

    @property
    def is_new_epoch(self) -> bool:
        """Whether an epoch ended in the last update."""
        if not self._iterator:
            return False
        return self.epoch != self._before[0] if self._before else self._iterator["main"].is_new_epoch

    def epoch_progress(self) -> tuple[int, int]:
        """Returns ``epoch_detail`` in integers: (samples, samples in an epoch).

        Raises:
            ValueError: If there is no iterator, and no ``epoch_detail`` of a subclass.
        """
        if self._iterator:
            return epoch_progress(self._iterator["main"])
        if type(self).epoch_detail is StandardUpdater.epoch_detail:
            raise ValueError(
                f"{type(self).__name__} has no iterator, so there are no epochs: count iterations, for instance"
                " Trainer(updater, (1000, 'iteration')) and LogReport(trigger=(100, 'iteration'))."
            )
        return epoch_progress(SimpleNamespace(epoch_detail=self.epoch_detail))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what ``state_dict`` returned; see :class:`~trainer.updaters.parts.Parts`."""
        at_least("iteration", state["iteration"], 0, 2**62)
        super().load_state_dict(state | {"scaler": self.scaler and state["scaler"]})  # either may have none


def call_with(function: Callable[..., Any], batch: Any) -> Any:
    """Calls a function with a converted batch: a tuple as positional, a mapping as keyword arguments.

    Raises:
        TypeError: If the function does not take the parts of the batch.

    Example:
        >>> from trainer.updaters.standard import call_with
        >>> call_with(max, (3, 5)), call_with(dict, {"x": 1})
        (5, {'x': 1})
    """
    try:
        if type(batch) in (tuple, list) or (isinstance(batch, (tuple, list)) and not is_object(batch)):
            return function(*batch)
        return function(**batch) if isinstance(batch, Mapping) else function(batch)
    except Exception as error:
        raise explained(error, function, batch)  # noqa: B904  # it is the same error


def _zero_grad(optimizer: Optimizer) -> None:
    """Calls ``optimizer.zero_grad()``; where it is torch's own, without its record for the profiler: 11 us."""
    if getattr(type(optimizer), "zero_grad", None) is not _ZERO_GRAD or "zero_grad" in vars(optimizer):
        optimizer.zero_grad()
        return
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = None
