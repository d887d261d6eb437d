"""Training from trained weights: what is frozen, for how long, and which learning rate each part has when."""

from __future__ import annotations

import math
import tempfile
from argparse import Namespace
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import timm
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Subset

from extensions import LRScheduler
from recipes.parts import networks
from recipes.parts.parser import say
from trainer import Trainer


def freeze(network: nn.Module, what: str) -> Callable[[], None]:
    """Freezes parts of a network: no gradients, and batch norms keep their statistics. Returns what undoes it.

    An optimizer that is made before has the frozen parameters too and leaves them as they are, without weight decay,
    as long as they are frozen; one that is made of those that require gradients never has them. A snapshot of a run
    whose optimizer has them holds what is frozen, so that a resumed run need not know when it was undone.

    Args:
        network: Of this project, timm or torchvision.
        what: ``"stem"`` for the first layers, ``"trunk"`` for all but the head, or ``"none"``.

    Raises:
        ValueError: If nothing says what the stem is, or nothing would be left to train.
    """
    frozen: list[str] = []
    matcher: Any = getattr(network, "group_matcher", None)
    if what == "trunk":
        frozen = [name for name, _ in network.named_parameters() if not name.startswith(_heads(network))]
    elif what == "stem" and matcher is None:
        raise ValueError("--freeze stem needs a model of timm, which says what its stem is.")
    elif what == "stem":
        groups = timm.models.group_parameters(network, matcher(coarse=True), reverse=True)
        frozen = [name for name, group in groups.items() if group == 0]
    named = dict(network.named_parameters())
    parameters = [named[name] for name in frozen if named[name].requires_grad]
    for parameter in parameters:
        parameter.requires_grad = False
    if not any(p.requires_grad for p in network.parameters()):
        raise ValueError(f"--freeze {what} leaves nothing to train in {type(network).__name__}.")
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    norms = [norm for norm in norms if (own := list(norm.parameters())) and not any(p.requires_grad for p in own)]
    for norm in norms:
        norm.eval()

    def undo() -> None:
        for parameter in parameters:
            parameter.requires_grad = True
        for norm in norms:
            norm.train()

    return undo


def parameter_groups(
    network: nn.Module, lr: float, trunk_lr_scale: float = 1.0, weight_decay: float = 0.0
) -> list[dict[str, Any]]:
    """Returns an optimizer's groups of what requires gradients: the head at ``lr``, the rest at ``lr * scale``.

    Not decayed are biases, the scales of norms, and what a model of timm names by ``no_weight_decay()``, such as
    embeddings of the position. The head comes first, because the log shows the first group's learning rate.
    """
    heads, spared = _heads(network), set(getattr(network, "no_weight_decay", set)())
    groups = defaultdict(list)
    for name, p in network.named_parameters():
        if p.requires_grad:
            in_trunk = trunk_lr_scale != 1 and not name.startswith(heads)
            groups[in_trunk, weight_decay > 0 and (p.ndim < 2 or name in spared)].append(p)
    return [
        {"params": params, "lr": lr * (trunk_lr_scale if trunk else 1), "weight_decay": 0.0 if plain else weight_decay}
        for (trunk, plain), params in sorted(groups.items(), key=lambda group: group[0])
    ]


def _heads(network: nn.Module) -> tuple[str, ...]:
    return tuple(f"{name}." for name in networks.head_names(network))


class WarmupCosine(LRScheduler):
    """Raises the learning rate in a line to the one each group has, then lowers it to 0 along half a cosine.

    It steps with each iteration. A run that is resumed with another end goes on along the curve to that end, and the
    jump is said.

    Args:
        optimizer: The updater's; its groups have the highest rate that each is to have.
        warmup: Iterations of the line.
        total: Iterations of the run.

    Raises:
        ValueError: If the line would leave nothing of the run.
    """

    trigger = (1, "iteration")

    def __init__(self, optimizer: Optimizer, warmup: int, total: int) -> None:
        if not 0 <= warmup < total:
            raise ValueError(f"a warm-up of {warmup} iterations leaves nothing of a run of {total}.")

        def factor(t: int) -> float:
            if t < warmup:
                return (t + 1) / (warmup + 1)
            return (1 + math.cos(math.pi * min((t - warmup) / (total - warmup), 1))) / 2

        self._factor, self._total = factor, total
        super().__init__(LambdaLR(optimizer, factor))

    def initialize(self, trainer: Trainer) -> None:
        """Takes the rate from the curve, which after a resume may be another than before."""
        super().initialize(trainer)
        groups = self.scheduler.optimizer.param_groups
        rates = [base * self._factor(self.scheduler.last_epoch) for base in self.scheduler.base_lrs]
        if rates != (before := [group["lr"] for group in groups]):
            say(
                f"The learning rate goes from {before[0]:.3g} to {rates[0]:.3g}: from here on it follows the curve that"
                f" ends after {self._total} iterations."
            )
            for group, rate in zip(groups, rates, strict=True):
                group["lr"] = rate


@contextmanager
def rehearsal(args: Namespace) -> Iterator[None]:
    """With ``--dry-run``: one epoch, in whose middle the frozen part begins to learn, in a folder that is removed."""
    if not args.dry_run:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="dry_run_") as args.out:
        args.epochs, args.overwrite, args.snapshot_interval = 1, None, None
        args.unfreeze_after = args.unfreeze_after and 0.5
        yield
    say("The dry run went through: training, validation, snapshot, weights, test and page. Nothing of it is kept.")


def some(dataset: Any, count: int) -> Subset[Any]:
    """Returns at most so many samples from all over a data set."""
    n = min(count, len(dataset))
    return Subset(dataset, [i * len(dataset) // n for i in range(n)])
