"""Draws which modules a model calls."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from trainer import Extension, Trainer, saving
from trainer.triggers import OnceTrigger


class DumpGraph(Extension):
    r"""Writes the calls of a model's modules in one iteration as a graph, once. Chainer: ``DumpGraph``.

    Each call is a node with the module's name, its class and the shapes of the tensors that it returned; edges follow
    the order in which the calls ended, so that a container comes after what is in it. What is called under
    ``no_grad`` is left out. ``dot -Tsvg cg.dot > cg.svg`` makes a picture of it.

    Args:
        root_name: An observation, as ``"main/loss"``: the graph is that of the model it begins with.
        filename: In the trainer's ``out``.

    Raises:
        ValueError: At the start of training, if the updater has no model of that name.
        RuntimeError: When called, if no call was seen: code that ``torch.compile`` has made calls no modules.

    Example:
        >>> from extensions import DumpGraph
        >>> run.extend(DumpGraph("main/loss"))
        >>> run.run()
        >>> print((tmp / "cg.dot").read_text())
        digraph "main/loss" {
          node [shape=box];
          0 [label="main/predictor\nLinear\n(5, 3)"];
          1 [label="main\nClassifier\n()"];
          0 -> 1;
        }
        <BLANKLINE>
    """

    saved = ("_is_written",)

    def __init__(self, root_name: str = "main/loss", filename: str = "cg.dot") -> None:
        if not isinstance(root_name, str):
            raise TypeError(f"root_name must be the name of an observation, got {root_name!r}; e.g. 'main/loss'.")
        self.trigger = OnceTrigger()
        self._root_name = root_name
        self._filename = filename
        self._is_written = False
        self._hooks: list[RemovableHandle] = []
        self._calls: list[list[str]] = []  # of one iteration: name, class, shapes
        self._iteration = 0

    @property
    def default_name(self) -> str:
        """Chainer's name for it."""
        return "dump_graph"

    def initialize(self, trainer: Trainer) -> None:
        """Hooks every module of the model, unless the graph was written before a resume."""
        if self._is_written:
            return
        trainer.path(self._filename)
        models = trainer.updater.get_all_models()
        name = self._root_name.split("/")[0]
        if name not in models:
            raise ValueError(f"root_name {self._root_name!r} must begin with a model's name: {sorted(models)}.")
        for path, module in models[name].named_modules():
            full = f"{name}/{path.replace('.', '/')}" if path else name
            self._hooks.append(module.register_forward_hook(partial(self._record, trainer, full)))

    def _record(self, trainer: Trainer, name: str, module: nn.Module, args: Any, output: Any) -> None:
        if not torch.is_grad_enabled():  # an evaluation
            return
        if self._iteration != trainer.updater.iteration:
            self._iteration, self._calls = trainer.updater.iteration, []
        self._calls.append([name, type(module).__name__, *_shapes(output)])

    def __call__(self, trainer: Trainer) -> None:
        """Writes the graph and takes the hooks away."""
        if self._is_written:
            return
        calls = self._calls
        self.finalize()
        if not calls:
            raise RuntimeError(
                f"DumpGraph saw no call of a module of {self._root_name!r}, as when the model is compiled; draw the"
                " graph in a short run without torch.compile, or name the model that the update calls."
            )
        lines = [f"digraph {_quoted(self._root_name)} {{", "  node [shape=box];"]
        lines += [f"  {i} [label={_quoted(*call)}];" for i, call in enumerate(calls)]
        lines += [f"  {i} -> {i + 1};" for i in range(len(calls) - 1)]
        text = "\n".join([*lines, "}", ""])
        saving.write(trainer.path(self._filename), lambda file: file.write(text.encode()))
        self._is_written = True

    def finalize(self) -> None:
        """Takes the hooks away."""
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._calls = [], []


def _shapes(output: Any) -> list[str]:
    """Returns the shapes of the tensors in what a module returned."""
    if isinstance(output, Tensor):
        return [str(tuple(output.shape))]
    shapes = []
    if isinstance(output, (Mapping, tuple, list)):
        for part in output.values() if isinstance(output, Mapping) else output:
            shapes += _shapes(part)
    return shapes


def _quoted(*lines: str) -> str:
    """Returns lines as a DOT string, in which a backslash would begin an escape and a quote end it."""
    return '"' + r"\n".join(line.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n") for line in lines) + '"'


dump_graph = DumpGraph
