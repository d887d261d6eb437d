"""Statistics of parameters and gradients: mean, deviation, extremes, percentiles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from extensions.percentiles import flat, percentiles
from trainer import PRIORITY_WRITER, Extension, Trainer, report
from trainer.triggers import get_trigger


class ParameterStatistics(Extension):
    """Reports statistics of parameters and gradients, each a mean over iterations. Chainer: ``ParameterStatistics``.

    They are called ``main/predictor/weight/data/mean``, ``main/predictor/weight/grad/percentile/0`` and so on, as
    the module is in the updater's models. A parameter without gradient is passed over.

    Args:
        links: A module, or a list of modules.
        statistics: Functions by name, each of a tensor of shape (N,), returning a number or a tensor; an index is
            added to the name for each number of a tensor. ``"default"`` is ``default_statistics``: mean, std (of the
            population), min, max, zeros (how many), and the percentiles of a normal distribution's -3 to +3 sigma.
            None is none.
        report_params: Whether to look at the parameters.
        report_grads: Whether to look at their gradients.
        prefix: Put before all names, with a slash.
        trigger: When the means are reported; the statistics are taken at every call.
        skip_nan_params: Report NaN for every statistic of a parameter that holds a NaN, for the count of zeros too.

    Raises:
        TypeError: If ``links`` or ``statistics`` is none of these.
        ValueError: When called, if two of the links have a parameter of the same name.

    Example:
        >>> from extensions import ParameterStatistics
        >>> run.extend(ParameterStatistics(run.updater.get_model("main").predictor, {"size": len}))
        >>> run.run()
        >>> run.observation["main/predictor/weight/data/size"]
        6.0
    """

    default_statistics: Mapping[str, Callable[[Tensor], Any]] = {
        "mean": torch.mean,
        "std": lambda x: x.std(correction=0),
        "min": torch.min,
        "max": torch.max,
        "zeros": lambda x: (x == 0).sum(),
        "percentile": percentiles,
    }
    priority = PRIORITY_WRITER
    saved = ("_sums", "_trigger")
    examples: ClassVar[dict[str, Any]] = {"_sums": {...: {"keys": [""], "sum": torch.zeros(1), "count": 1}}}

    def __init__(
        self,
        links: nn.Module | Sequence[nn.Module],
        statistics: Mapping[str, Callable[[Tensor], Any]] | str | None = "default",
        report_params: bool = True,
        report_grads: bool = True,
        prefix: str | None = None,
        trigger: Any = (1, "epoch"),
        skip_nan_params: bool = False,
    ) -> None:
        self._links = [links] if isinstance(links, nn.Module) else links
        if not isinstance(self._links, (list, tuple)) or not all(isinstance(link, nn.Module) for link in self._links):
            raise TypeError(f"links must be a module or a list of modules, got {links!r}; e.g. model.predictor.")
        if statistics == "default":
            statistics = self.default_statistics
        if statistics is not None and not isinstance(statistics, Mapping):
            raise TypeError(
                f"statistics must be 'default', None or a dict, got {statistics!r}; e.g. {{'max': torch.max}}."
            )
        self._statistics: dict[str, Callable[[Tensor], Any]] = {}
        for name, function in (statistics or {}).items():
            self.register_statistics(name, function)
        self._kinds = [kind for kind, wanted in (("data", report_params), ("grad", report_grads)) if wanted]
        self._prefix = "" if prefix is None else prefix + "/"
        self._trigger = get_trigger(trigger)
        self._skip_nan_params = skip_nan_params
        self._sums: dict[str, dict[str, Any]] = {}  # "main/weight/data": keys, a sum for each key, and their count

    @property
    def default_name(self) -> str:
        """Chainer's name for it."""
        return "parameter_statistics"

    def register_statistics(self, name: str, function: Callable[[Tensor], Any]) -> None:
        """Adds a statistic, or replaces that of the same name.

        Raises:
            TypeError: If the function cannot be called.
        """
        if not callable(function):
            raise TypeError(f"the statistic {name!r} must be a function of a tensor, got {function!r}.")
        self._statistics[name] = function

    def __call__(self, trainer: Trainer) -> None:
        """Adds the statistics to the sums; reports the means if it is time."""
        for path, parameter in self._parameters(trainer).items():
            for kind in self._kinds if self._statistics else ():
                values = getattr(parameter, kind)
                if values is not None and values.numel():
                    self._add(f"{path}/{kind}", flat(values))
        if self._trigger(trainer):
            for sums in self._sums.values():
                report(dict(zip(sums["keys"], (sums["sum"] / sums["count"]).tolist(), strict=True)))
            self._sums = {}

    def _parameters(self, trainer: Trainer) -> dict[str, nn.Parameter]:
        names = {
            id(module): f"{name}/{path.replace('.', '/')}/" if path else f"{name}/"
            for name, model in trainer.updater.get_all_models().items()
            for path, module in model.named_modules()
        }
        parameters: dict[str, nn.Parameter] = {}
        for link in self._links:
            for path, parameter in link.named_parameters():
                full = self._prefix + names.get(id(link), "") + path.replace(".", "/")
                if parameters.setdefault(full, parameter) is not parameter:
                    raise ValueError(
                        f"two of the links have a parameter {full!r}: extend once for each, with a prefix."
                    )
        return parameters

    def _add(self, base: str, values: Tensor) -> None:
        keys: list[str] = []
        parts = []
        for name, function in self._statistics.items():
            result = function(values)
            if not isinstance(result, Tensor):
                result = torch.as_tensor(result, dtype=torch.float64)
            keys += [f"{base}/{name}/{i}" for i in range(result.numel())] if result.ndim else [f"{base}/{name}"]
            parts.append(result.detach().to(values.device, torch.float64, non_blocking=True).flatten())
        added = torch.cat(parts)
        if self._skip_nan_params:
            added = torch.where(values.isnan().any(), torch.nan, added)
        sums = self._sums.get(base)
        if sums is None or sums["keys"] != keys:  # the first, or a statistic was registered meanwhile
            self._sums[base] = {"keys": keys, "sum": added, "count": 1}
        else:
            sums["sum"] = sums["sum"].to(added.device) + added
            sums["count"] += 1
