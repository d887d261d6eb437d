"""Writes docs/reference.md from the docstrings: python docs/build_reference.py."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

MODULES = {
    "trainer": "The engine.",
    "trainer.iterators": "Order and position of the data.",
    "trainer.updaters": "One batch, one update.",
    "trainer.triggers": "When things happen.",
    "trainer.datasets": "What torch.utils.data lacks.",
    "trainer.random": "The randomness of a run.",
    "trainer.saving": "Files of a run.",
    "trainer.saving.lock": "One run at a time in a folder.",
    "trainer.saving.settings": "What a run's bits depend on beside its script.",
    "trainer.datasets.convert": "From samples to tensors on the device.",
    "trainer.updaters.precision": "Mixed precision by one word.",
    "trainer.saving.state": "The state of a part that may have none.",
    "extensions": "Plug-ins.",
    "extensions.snapshot_writers": "Who writes a snapshot.",
}


def public_names(module_name: str) -> list[str]:
    """Returns a module's ``__all__``, or the functions and classes that are its own."""
    module = importlib.import_module(module_name)
    own = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module_name
    ]
    return sorted(getattr(module, "__all__", own))


def markdown(docstring: str) -> str:
    """Returns a Google docstring as Markdown."""
    text = re.sub(r":(?:class|func|meth|attr):`~?([\w.]+)`", r"`\1`", inspect.cleandoc(docstring)).replace("``", "`")
    out: list[str] = []
    section = ""
    for line in text.splitlines():
        if re.fullmatch(r"(Args|Attributes|Returns|Raises|Example):", line):
            section = line[:-1]
            out += [f"**{section}**", "", *(["```python"] if section == "Example" else [])]
        elif section == "Example":
            out.append(line[4:])
        elif section and (item := re.fullmatch(r" {4}([\w.]+): (.*)", line)):
            out.append(f"- `{item[1]}`: {item[2]}")
        else:
            out.append(line[4:] if section else line)
    if section == "Example":
        while out[-1] == "":
            out.pop()
        out.append("```")
    return "\n".join(out)


def entry(module_name: str, name: str) -> str:
    """Returns the section of one public name."""
    value: Any = getattr(importlib.import_module(module_name), name)
    if not callable(value):
        return f"### `{module_name}.{name}` = {value!r}\n"
    try:
        signature = str(inspect.signature(value)).replace("'", "")
    except ValueError:
        signature = "(...)"
    signature = re.sub(r" at 0x[0-9a-f]+", "", re.sub(r"<function (\w+)[^>]*>", r"\1", signature))
    methods = [
        f"- `.{key}`: {inspect.cleandoc(inspect.getdoc(member) or '').splitlines()[0].replace('``', '`')}"
        for key, member in (vars(value).items() if inspect.isclass(value) else ())
        if not key.startswith("_") and (inspect.isfunction(member) or isinstance(member, property))
    ]
    methods = [re.sub(r":(?:class|func|meth|attr):`~?([\w.]+)`", r"`\1`", line) for line in methods]
    body = markdown(inspect.getdoc(value) or "")
    members = "\n\n**Members**\n\n" + "\n".join(methods) if methods else ""
    return f"### `{module_name}.{name}`\n\n`{name}{signature}`\n\n{body}{members}\n"


def build() -> str:
    """Returns the whole page."""
    parts = [
        "# Every public name\n",
        "Made from the docstrings by `python docs/build_reference.py`. In the examples `run` is a small trainer that"
        " stops after two epochs of two iterations, and `tmp` its folder.\n",
    ]
    for module_name, title in MODULES.items():
        parts.append(f"## `{module_name}`\n\n{title}\n")
        parts += [entry(module_name, name) for name in public_names(module_name)]
    return "\n".join(parts)


if __name__ == "__main__":
    Path(__file__).with_name("reference.md").write_text(build(), encoding="utf-8")
