"""Prints a network's layers: the shapes of their outputs, their parameters and their multiply-adds for one image.

    python recipes/summary.py alexnet_small
    python recipes/summary.py resnet50 --input 3,64,64 --classes 12

The network is one of recipes/parts/networks.py or any model of timm. torchinfo counts a multiply-add for each weight
and each bias at each position of a convolution's output, and for each parameter of other layers once for each image:
what has no parameters, such as pooling or the products of attention, counts nothing.
"""

from __future__ import annotations

from typing import Any

import torchinfo
from torch import nn
from torchinfo.enums import Units

from recipes.parts import networks, tool_options
from recipes.parts.parser import say


def summarize(name: str, shape: tuple[int, ...] | None = None, classes: int | None = None, depth: int = 2) -> Any:
    """Returns torchinfo's summary of a network, which prints as a table.

    Args:
        name: As :func:`recipes.parts.networks.create` takes it.
        shape: Channels, height and width of the image; None: those that the network is made for.
        classes: None: as many as the network has of its own.
        depth: How many levels of modules within modules are shown.

    Raises:
        ValueError: If there is no such network, or it cannot take such an image.
    """
    network = networks.create(name, classes)
    of_timm = getattr(network, "pretrained_cfg", {}).get("input_size")
    usual = networks.INPUTS.get(name) or of_timm or (3, *2 * [networks.input_of(name).size])
    try:
        info = torchinfo.summary(
            network,
            (1, *(shape or usual)),
            depth=depth,
            col_names=("output_size", "num_params", "mult_adds"),
            col_width=20,
            row_settings=("var_names",),
            verbose=0,
        )
    except RuntimeError as error:
        reason = str(error.__cause__ or error).splitlines()[0].rstrip(".")
        raise ValueError(
            f"{name} cannot take an input of {_text(shape or usual)} ({reason}); it is made for {_text(usual)}."
        ) from error
    info.formatting.macs_units = Units.NONE  # to the number; and since Python 3.11 it would misspell a unit
    return info


def _text(shape: tuple[int, ...]) -> str:
    return ",".join(map(str, shape))


def main(argv: list[str] | None = None) -> None:
    """Prints the table."""
    parser = tool_options.make_parser("summary")
    args = parser.parse_args(argv)
    try:
        info = summarize(args.model, args.input, args.classes, args.depth)
    except ValueError as error:
        parser.error(str(error))
    say(str(info), kept="\n")
    if any(isinstance(layer.module, nn.Linear) and len(layer.output_size) > 2 for layer in info.summary_list):
        say("Linear layers are applied at many positions here, but counted once: the multiply-adds are too few.")


if __name__ == "__main__":
    main()
