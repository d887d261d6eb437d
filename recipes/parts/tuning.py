"""What of a network learns, and how fast."""

from __future__ import annotations

from typing import Any

import timm
from torch import nn

from recipes.parts import networks


def freeze(network: nn.Module, what: str) -> None:
    """Freezes the stem or everything but the head: no gradients, and batch norms keep their statistics."""
    if what == "none":
        return
    head = networks.head_names(network)
    if what == "trunk":
        frozen = [name for name, _ in network.named_parameters() if not name.startswith(tuple(h + "." for h in head))]
    elif not hasattr(network, "group_matcher"):
        raise ValueError("--freeze stem needs a model of timm, which says what its stem is.")
    else:
        groups = timm.models.group_parameters(network, network.group_matcher(coarse=True), reverse=True)
        frozen = [name for name, group in groups.items() if group == 0]
    parameters = dict(network.named_parameters())
    for name in frozen:
        parameters[name].requires_grad = False
    for module in network.modules():
        own = list(module.parameters())
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and own and not any(p.requires_grad for p in own):
            module.eval()


def parameter_groups(network: nn.Module, lr: float, trunk_lr_scale: float = 1.0) -> list[dict[str, Any]]:
    """Returns an optimizer's groups of what is not frozen: the head learns at ``lr``, the rest at that times a factor.

    With a factor of 1 they are one group. The log shows the first one's learning rate.
    """
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    if trunk_lr_scale == 1:
        return [{"params": list(trained.values()), "lr": lr}]
    heads = tuple(name + "." for name in networks.head_names(network))
    head = [p for name, p in trained.items() if name.startswith(heads)]
    trunk = [p for name, p in trained.items() if not name.startswith(heads)]
    groups = [{"params": head, "lr": lr}, {"params": trunk, "lr": lr * trunk_lr_scale}]
    return [group for group in groups if group["params"]]
