"""Evaluates a model over a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from extensions.terminal import followed
from trainer import (
    PRIORITY_WRITER,
    DictSummary,
    Extension,
    Observation,
    Reporter,
    Trainer,
    Weighted,
    concat_examples,
    random,
)
from trainer.checks import warn
from trainer.datasets.convert import device_of, size_of
from trainer.iterators import as_iterator, refuse_shared_loaders
from trainer.mistakes import as_device, refuse_call
from trainer.reporter import report, report_scope
from trainer.saving.state import Stateful, declared
from trainer.updaters.modes import averaged_weights
from trainer.updaters.outputs import report_loss
from trainer.updaters.precision import autocast
from trainer.updaters.standard import call_with

KEPT = ("seed", "length", "bad_samples")  # of an iterator's state: the rest begins anew with each evaluation


class Evaluator(Extension):
    """Calls a model over a whole data set and reports the means of what it reports. Chainer: ``Evaluator``.

    The values are named ``validation/main/loss`` and so on, after the extension's name and the target's. Those of
    :class:`~trainer.Classifier` are exact over a short last batch: accuracy is correct / total.

    Gradients are off, every module of the target is in evaluation mode, and afterwards each has its own mode again;
    the random generators are put back, so that evaluating changes nothing in the run. Within a run, the weights of
    a schedule-free optimizer are the averaged ones meanwhile; after a run call ``optimizer.eval()`` before.

    Args:
        iterator: An iterator with ``repeat=False``, a ``DataLoader``, or a dict with the key ``"main"``.
        target: The model, or a dict with the key ``"main"``; it reports as ``main``.
        converter: Called as ``converter(batch, device)`` once on what the iterator yields.
        device: Where a batch is put; by default where the target is.
        eval_hook: Called with the evaluator before each evaluation.
        eval_func: Called on each batch in place of the target.
        progress_bar: Whether to show on ``sys.stderr`` how far an evaluation is: tqdm's bar on a terminal and in a
            notebook; elsewhere a line after a minute, then at most one a minute.
        precision: As the updater's: ``"fp32"``, ``"bf16"`` or ``"fp16"``.

    Raises:
        TypeError: If an iterator has no ``reset``.
        ValueError: If an iterator repeats: an evaluation would never end. Or if a dict lacks ``"main"``, unless
            ``evaluate`` is your own.

    Example:
        >>> import torch
        >>> from extensions import Evaluator
        >>> from trainer import Classifier
        >>> from trainer.iterators import SerialIterator
        >>> data = [(torch.rand(2), i % 3) for i in range(10)]
        >>> iterator = SerialIterator(data, 4, repeat=False, shuffle=False)
        >>> result = Evaluator(iterator, Classifier(torch.nn.Linear(2, 3)))()
        >>> sorted(result)
        ['main/accuracy', 'main/loss']
    """

    trigger = (1, "epoch")
    priority = PRIORITY_WRITER
    settings = ("seeds",)

    default_name = "validation"

    def __init__(
        self,
        iterator: Any,
        target: nn.Module | dict[str, nn.Module],
        converter: Callable[[Any, torch.device], Any] = concat_examples,
        device: torch.device | str | None = None,
        eval_hook: Callable[[Evaluator], None] | None = None,
        eval_func: Callable[..., Any] | None = None,
        *,
        progress_bar: bool = False,
        precision: str = "fp32",
    ) -> None:
        iterators = iterator if isinstance(iterator, dict) else {"main": iterator}
        self._iterators = {name: as_iterator(source, repeat=False) for name, source in iterators.items()}
        for name, source in self._iterators.items():
            if not hasattr(source, "reset"):
                raise TypeError(f"iterator {name!r} needs reset(): each evaluation begins anew.")
            if getattr(source, "repeat", False):
                raise ValueError(f"iterator {name!r} repeats, so an evaluation would never end; give it repeat=False.")
        self._targets = target if isinstance(target, dict) else {"main": target}
        if type(self).evaluate is Evaluator.evaluate:
            for kind, named in (("iterator", self._iterators), ("target", self._targets)):
                if "main" not in named and not (kind == "target" and eval_func is not None):
                    raise ValueError(f"the {kind}s {sorted(named)} lack 'main'; e.g. {{'main': {kind}}}.")
        refuse_call(converter, "converter", "batch", "device")
        self.converter = converter
        self.device = None if device is None else as_device(device)
        self.eval_hook = eval_hook
        self.eval_func = eval_func
        self.progress_bar = progress_bar
        self.precision = precision
        self._summary = DictSummary()
        self._has_warned = False
        self._weightless: set[str] = set()  # means over nothing, which are NaN and say nothing
        autocast(precision, torch.device("cpu"))  # refuses a wrong word now and not in the first evaluation

    @property
    def seeds(self) -> dict[str, int]:
        """The seeds of the iterators that have one."""
        return {name: part.seed for name, part in self._iterators.items() if hasattr(part, "seed")}

    def get_iterator(self, name: str) -> Any:
        """Returns the iterator of a name."""
        return self._iterators[name]

    def get_all_iterators(self) -> dict[str, Any]:
        """Returns the iterators by name."""
        return dict(self._iterators)

    def get_all_targets(self) -> dict[str, nn.Module]:
        """Returns the targets by name."""
        return dict(self._targets)

    def get_target(self, name: str) -> nn.Module:
        """Returns the target of a name."""
        return self._targets[name]

    def initialize(self, trainer: Trainer) -> None:
        """Tells the iterators where to list bad samples, and refuses a loader that cannot serve the updater too.

        Raises:
            ValueError: If a loader with persistent workers, or with a state of its own, is also the updater's.
        """
        updater: Any = trainer.updater
        if hasattr(updater, "get_all_iterators"):
            theirs = updater.get_all_iterators()
        else:
            theirs = {"main": updater.get_iterator("main")} if hasattr(updater, "get_iterator") else {}
        for name, part in self._iterators.items():
            if any(part is other for other in theirs.values()):
                raise ValueError(
                    f"{self.name}'s iterator {name!r} is also the updater's, which each evaluation would take back to"
                    " its beginning: give the Evaluator one of its own."
                )
        named = [(f"the updater's iterator {name!r}", part) for name, part in theirs.items()]
        refuse_shared_loaders(
            named + [(f"{self.name}'s iterator {name!r}", part) for name, part in self._iterators.items()]
        )
        for name, iterator in self._iterators.items():
            if hasattr(iterator, "bad_samples_file"):
                file = f"bad_samples_{self.name}.json" if name == "main" else f"bad_samples_{self.name}_{name}.json"
                iterator.bad_samples_file = trainer.path(file)

        if any(hasattr(type(entry.extension), "saves_run") for entry in trainer.extensions.values()):
            self._warn_of_unsaved(trainer)

    def _warn_of_unsaved(self, trainer: Trainer) -> None:
        """Warns of a target that is no model of the updater, and of no extension that saves it: an average, say."""
        parts: list[Any] = [*getattr(trainer.updater, "get_all_models", dict)().values()]
        extensions = [entry.extension for entry in trainer.extensions.values()]
        for owner in (trainer.updater, *(part for part in extensions if not isinstance(part, Evaluator))):
            is_own = getattr(type(owner), "state_dict", Stateful.state_dict) is not Stateful.state_dict
            has_own = is_own or hasattr(owner, "_target")  # it saves in a way, or to a file, of its own
            names = vars(owner) if has_own else declared(owner).values()
            for value in [getattr(owner, name) for name in names]:
                parts += value.values() if isinstance(value, dict) else [value]
        saved = {id(p) for part in parts if isinstance(part, nn.Module) for p in part.parameters()}
        for name, target in self._targets.items():
            if any(p.requires_grad and id(p) not in saved for p in target.parameters()):  # else it is a fixed one
                warn(
                    f"{self.name}: parameters of the target {name!r} are in no model of the updater, so no snapshot of"
                    " the run holds them. Give the model to the updater too, or name it in `saved` of what changes it."
                )

    def __call__(self, trainer: Trainer | None = None) -> dict[str, float]:
        """Evaluates, reports the means, and returns them; works without a trainer too."""
        self._weightless = set()
        reporter = Reporter()
        for name, target in self._targets.items():
            reporter.add_model(f"{self.name}/{name}" if self.name else name, target)
        if isinstance(self.eval_func, nn.Module) and reporter.name_of(self.eval_func) is None:  # a copy of it, say
            reporter.add_model(f"{self.name}/main" if self.name else "main", self.eval_func)
        with ExitStack() as stack:
            stack.enter_context(random.preserved(cuda=True))
            stack.enter_context(torch.no_grad())
            if trainer is not None:
                stack.enter_context(averaged_weights(trainer.updater))
            for called in (*self._targets.values(), self.eval_func):
                if isinstance(called, nn.Module):
                    stack.enter_context(_evaluation_mode(called))
            stack.enter_context(reporter.scope({}))
            result = self.evaluate()
        report({key: Weighted(mean, 0) if key in self._weightless else mean for key, mean in result.items()})
        return result

    def evaluate(self) -> dict[str, float]:
        """Goes once through the main iterator and returns the means; a subclass may do otherwise."""
        iterator = self._iterators["main"]
        function = self._targets["main"] if self.eval_func is None else self.eval_func
        model = self._targets.get("main", function)
        device = self.device or (device_of(model) if isinstance(model, nn.Module) else torch.device("cpu"))
        if device.type == "cuda" and hasattr(iterator, "pin_memory"):
            iterator.pin_memory = True
        if self.eval_hook is not None:
            self.eval_hook(self)
        iterator.reset()
        summary = self._summary
        summary.clear()
        for batch in self._shown(iterator) if self.progress_bar else _batches(iterator):
            observation = Observation()
            observation.weight = size_of(batch, iterator, self)
            with report_scope(observation), torch.no_grad(), autocast(self.precision, device):
                report_loss(call_with(function, self.converter(batch, device)), model)
            summary.add(observation)
        self._weightless = summary.weightless()
        result = summary.compute_mean()
        if not result and not self._has_warned:
            self._has_warned = True
            warn(
                f"{self.name or self.default_name}: nothing was reported in the evaluation. A model reports its values"
                " by trainer.report({'accuracy': value}, self), as Classifier does."
            )
        return result

    def _shown(self, iterator: Any) -> Iterator[Any]:
        is_known = getattr(iterator, "epoch_size", 0) is not None
        tell = getattr(iterator, "epoch_progress", None) if is_known else None
        first, size = tell() if tell else (0, None)
        name = self.name or self.default_name
        name = name if is_known else f"{name}, end unknown"
        return followed(_batches(iterator), name, size, lambda count: tell()[0] - first if tell else count)

    def finalize(self) -> None:
        """Finalizes the iterators."""
        for iterator in self._iterators.values():
            iterator.finalize()

    def state_dict(self) -> dict[str, Any]:
        """Returns seed, number and bad samples of each iterator's data."""
        states: dict[str, Any] = {name: getattr(part, "state_dict", dict)() for name, part in self._iterators.items()}
        return {"iterators": {name: {key: s[key] for key in KEPT if key in s} for name, s in states.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what :meth:`state_dict` returned.

        Raises:
            ValueError: If the data are others, unless that is forced.
        """
        for name, kept in state["iterators"].items():
            if kept and name in self._iterators:
                iterator = self._iterators[name]
                iterator.load_state_dict(iterator.state_dict() | kept)


def _batches(iterator: Any) -> Iterator[Any]:
    """Yields the batches of anything with ``__next__``."""
    while True:
        try:
            batch = next(iterator)
        except StopIteration:
            return
        yield batch


@contextmanager
def _evaluation_mode(model: nn.Module) -> Any:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
