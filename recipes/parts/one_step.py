"""One training step of LeNet aloud: what PyTorch's tutorial "Neural Networks" shows, printed as it happens."""

from __future__ import annotations

import copy
import textwrap
from typing import Any, TextIO

import torch
from torch import nn

LR = 0.01


def explain(network: nn.Module, file: TextIO | None = None) -> bool:
    """Walks one training step of ``networks.lenet`` aloud, on random numbers of torch's global generator.

    The network stays as it is: the step is taken by copies of it.

    Args:
        network: On the CPU, for images of shape (1, 32, 32) and ten classes, with a layer ``conv1``.
        file: Where to print; standard output if None.

    Returns:
        Whether the update by hand and that of ``torch.optim.SGD`` gave the same weights, to the bit.
    """

    def say(*lines: object) -> None:
        print(*lines, sep="\n", file=file)

    network = copy.deepcopy(network)
    say("1. The network: a picture goes in above, ten scores come out below.", network)

    named = dict(network.named_parameters())
    say("", f"2. What it learns: {len(named)} tensors, a weight and a bias of each layer that has any.")
    say(*(f"   {name:14}{tuple(p.shape)!s:18}{p.numel():>7,}" for name, p in named.items()))
    say(f"   {'together':32}{sum(p.numel() for p in named.values()):>7,}")

    images = torch.randn(1, 1, 32, 32)
    scores = network(images)
    say("", "3. Forward: the scores of a random picture, in a batch of one.", scores)

    network.zero_grad()
    scores.backward(torch.randn(1, 10))
    norms = [f"   {name:14}{p.grad.norm().item():10.5f}" for name, p in named.items()]
    say(
        "",
        "4. Backward, after zero_grad(), as gradients add up: a random one of the scores becomes one of each tensor.",
    )
    say("   Their norms:", *norms)

    target = torch.randn(1, 10)
    loss = nn.functional.mse_loss(network(images), target)
    say("", "5. Loss: one number, how far the scores are from a target, also random: mean squared error.", loss)

    say("", "6. The way back: each result knows the function that made it (grad_fn), back to the first layer.")
    say(textwrap.fill(" <- ".join(_chain(loss.grad_fn)), 110, initial_indent="   ", subsequent_indent="      "))

    names = {parameter: name for name, parameter in named.items()}
    say("", "7. The whole graph: a branch ends where a gradient is gathered in a parameter.")
    say(*_tree(loss.grad_fn, names, "   "))

    network.zero_grad()
    say("", "8. zero_grad() empties .grad and loss.backward() fills it: that of conv1.bias before and after.")
    say(f"   before: {network.conv1.bias.grad}")
    loss.backward()
    say(f"   after:  {network.conv1.bias.grad}")

    by_sgd = copy.deepcopy(network)
    for parameter, copied in zip(network.parameters(), by_sgd.parameters(), strict=True):
        copied.grad = parameter.grad.clone()  # a copied parameter has none
    say("", f"9. Update: weight -= {LR} * grad, by hand beside torch.optim.SGD on a copy; the first of conv1.bias:")
    say(f"   before:  {network.conv1.bias[0].item():+.9f}")
    with torch.no_grad():
        for parameter in network.parameters():
            # As SGD does it. In `parameter -= LR * parameter.grad` the product is rounded first: other last bits.
            parameter.sub_(parameter.grad, alpha=LR)
    torch.optim.SGD(by_sgd.parameters(), lr=LR).step()
    say(f"   by hand: {network.conv1.bias[0].item():+.9f}", f"   SGD:     {by_sgd.conv1.bias[0].item():+.9f}")
    pairs = zip(named, network.parameters(), by_sgd.parameters(), strict=True)
    differing = [name for name, one, other in pairs if not torch.equal(one, other)]
    if differing:
        say(f"   They differ, in {', '.join(differing)}.")
    else:
        say(f"   They agree to the bit in all {len(named)} tensors.")
    return not differing


def _chain(node: Any) -> list[str]:
    """Returns the names of the longest way from a function back to where its graph begins."""
    ways = [_chain(child) for child, _ in node.next_functions if child is not None]
    return [type(node).__name__, *max(ways, key=len, default=[])]


def _tree(node: Any, names: dict[nn.Parameter, str], indent: str) -> list[str]:
    """Returns a line for each function that a result was made by, one deeper for each that came before."""
    leaf = f" of {names[node.variable]}" if hasattr(node, "variable") else ""
    lines = [f"{indent}{type(node).__name__}{leaf}"]
    for child, _ in node.next_functions:
        if child is not None:
            lines += _tree(child, names, indent + "  ")
    return lines
