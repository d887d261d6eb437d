"""What is refused of common mistakes, and what is added to the errors that they end in."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from trainer.checks import near, reworded

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

IGNORED = -100  # the label that torch's cross_entropy leaves out
OF_EXTEND = ("trigger", "priority", "name", "call_before_training")


# -- arguments


def near_arguments(function: Callable[P, R], *bases: Callable[..., Any]) -> Callable[P, R]:
    """Has a function, or a class by its ``__init__``, name the argument that was perhaps meant by an unknown one.

    Args:
        function: What is called.
        bases: To which it passes on the keywords that it does not know itself, if it takes any.

    Example:
        >>> from trainer.mistakes import near_arguments
        >>> @near_arguments
        ... def save(filename): ...
        >>> save(file_name="log")
        Traceback (most recent call last):
        TypeError: save() got an unexpected keyword argument 'file_name'. Did you mean 'filename'?
    """
    known, takes_all = [], True
    for called in (function, *bases):
        parameters = inspect.signature(called).parameters.values()
        known += [part.name for part in parameters if part.name != "self"]
        takes_all = takes_all and any(part.kind is part.VAR_KEYWORD for part in parameters)
    name = function.__qualname__.removesuffix(".__init__").rpartition(".")[2]

    @functools.wraps(function)
    def call(*args: P.args, **named: P.kwargs) -> R:
        for key in named if not takes_all else ():
            if key not in known:
                told = f" It belongs to extend: extend(..., {key}=...)." if key in OF_EXTEND else near(key, known)
                told = told or f" It takes {', '.join(known)}."
                raise TypeError(f"{name}() got an unexpected keyword argument {key!r}.{told}")
        return function(*args, **named)

    return call


def near_names(kind: type[T]) -> type[T]:
    """Has a dataclass name the argument that was perhaps meant by an unknown one.

    Example:
        >>> from dataclasses import dataclass
        >>> from trainer.mistakes import near_names
        >>> @near_names
        ... @dataclass
        ... class Shift:
        ...     rate: float
        >>> Shift(rat=0.5)
        Traceback (most recent call last):
        TypeError: Shift() got an unexpected keyword argument 'rat'. Did you mean 'rate'?
    """
    kind.__init__ = near_arguments(kind.__init__)  # type: ignore[method-assign]
    return kind


def refuse_call(function: Any, name: str, *arguments: str) -> None:
    """Refuses a function that does not take the arguments with which it is going to be called.

    Args:
        function: One that somebody has written.
        name: What it is called in messages.
        arguments: Names of what it is called with.

    Raises:
        TypeError: If they do not fit.

    Example:
        >>> from trainer.mistakes import refuse_call
        >>> def finalize(manager): ...
        >>> refuse_call(finalize, "Writer.finalize")
        Traceback (most recent call last):
        TypeError: Writer.finalize takes (manager), but it is called as finalize(): change its arguments.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of a function written in C
        return
    try:
        signature.bind(*arguments)
    except TypeError:
        called = f"{name.replace(' ', '.').rpartition('.')[2]}({', '.join(arguments)})"
        raise TypeError(f"{name} takes {signature}, but it is called as {called}: change its arguments.") from None


def as_device(device: Any) -> torch.device:
    """Returns a device that is there.

    Raises:
        TypeError: If it is neither a name nor a ``torch.device``.
        ValueError: If torch does not know it, or it is not there.

    Example:
        >>> from trainer.mistakes import as_device
        >>> as_device("cpu")
        device(type='cpu')
        >>> as_device("cdua")
        Traceback (most recent call last):
        ValueError: device must be such as 'cpu', 'cuda' or 'cuda:1', got 'cdua'. Did you mean 'cuda'?
    """
    if isinstance(device, int) and not isinstance(device, bool):  # Chainer's
        if device < 0:
            raise ValueError(f"device={device} means the CPU in Chainer: write device='cpu'.")
        device = f"cuda:{device}"
    if not isinstance(device, (str, torch.device)):
        raise TypeError(f"device must be such as 'cpu' or 'cuda:1', got {device!r}.")
    try:
        found = torch.device(device)
    except RuntimeError:
        word = str(device).partition(":")[0].lower()
        meant = near("cuda" if word == "gpu" else word, ("cpu", "cuda", "mps"))
        raise ValueError(f"device must be such as 'cpu', 'cuda' or 'cuda:1', got {device!r}.{meant}") from None
    if found.type == "cuda":
        there = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (found.index or 0) >= there:
            told = f"there are {there} CUDA devices" if there else "torch sees no CUDA device here: write device='cpu'"
            raise ValueError(f"device {str(found)!r} is not there: {told}.")
    return found


# -- models, losses and batches


def explained(error: Exception, function: Any, batch: Any) -> Exception:
    """Returns the error of a function that was called with a batch, with what is amiss in the batch after its text.

    Example:
        >>> import torch
        >>> from trainer.mistakes import explained
        >>> model, x = torch.nn.Linear(2, 3), torch.zeros(4, 2, dtype=torch.float64)
        >>> try:
        ...     model(x)
        ... except RuntimeError as error:
        ...     str(explained(error, model, (x,))).partition(". ")[2]
        "Linear is of float32 and part 0 of the batch of float64: make it x.float() in the data set's transform."
    """
    if getattr(error, "is_explained", False):
        return error
    told = (_misfit(function, batch) if isinstance(error, TypeError) else "") or _mismatch(str(error), function, batch)
    return _with(error, told)


def _with(error: Exception, told: str) -> Exception:
    if told:
        error = reworded(error, f"{str(error).rstrip('.!')}. {told}")
        error.is_explained = True  # type: ignore[attr-defined]  # by the innermost that could
    return error


def _parts(batch: Any) -> dict[Any, Any]:
    if isinstance(batch, Mapping):
        return dict(batch)
    return dict(enumerate(batch)) if isinstance(batch, (tuple, list)) else {0: batch}


def _misfit(function: Any, batch: Any) -> str:
    """Says what to write if a function does not take the parts of a batch."""
    parts = _parts(batch)
    if told := _uncollated(list(parts.values())):
        return told
    named = parts if isinstance(batch, Mapping) else {}
    if _takes(function, *(() if named else parts.values()), **named):
        return ""
    given = f"The keywords {sorted(named)}" if named else f"All {len(parts)} parts"
    return (
        f"{given} of a batch are passed to {_name(function)}: to train it on (inputs, label), wrap it,"
        " Classifier(model), or give the updater a loss_func."
    )


def _uncollated(parts: list[Any]) -> str:
    is_list = len(parts) > 1 and all(type(part) is tuple for part in parts)
    return "The parts of the batch are samples, not put together: leave collate_fn=list out." if is_list else ""


def _takes(function: Any, *arguments: Any, **named: Any) -> bool:
    try:
        inspect.signature(function.forward if isinstance(function, nn.Module) else function).bind(*arguments, **named)
    except TypeError:
        return False
    except ValueError:  # of a function written in C
        pass
    return True


def explained_inputs(error: Exception, predictor: Any, inputs: list[Any], named: dict[str, Any]) -> Exception:
    """Returns the error of a classifier's predictor; if it does not take its inputs, with what to do after its text.

    Example:
        >>> import torch
        >>> from trainer.mistakes import explained_inputs
        >>> error = explained_inputs(TypeError("forward() takes 2"), torch.nn.Linear(2, 3), [1, 2], {})
        >>> str(error).partition(". ")[2].partition(":")[0]
        'Linear is given 2 inputs, the parts of a batch without the label'
    """
    if isinstance(error, TypeError) and not _takes(predictor, *inputs, **named):
        number = "1 input" if len(inputs) + len(named) == 1 else f"{len(inputs) + len(named)} inputs"
        return _with(
            error,
            _uncollated(inputs)
            or f"{_name(predictor)} is given {number}, the parts of a batch without the label: take off the others in"
            " the data set or the converter, or name the label, Classifier(..., label_key=...).",
        )
    return error


def _mismatch(text: str, function: Any, batch: Any) -> str:
    """Says which part of a batch is on another device than a model, or of another kind of number."""
    parameter = next(iter(function.parameters()), None) if isinstance(function, nn.Module) else None
    tensors = {key: part for key, part in _parts(batch).items() if isinstance(part, Tensor)}
    for key, part in tensors.items():
        if parameter is not None and part.device != parameter.device and "device" in text:
            return (
                f"{_name(function)} is on {parameter.device} and part {key!r} of the batch on {part.device}: the"
                " converter has to move it to the device that it is given."
            )
    key, first = next(iter(tensors.items()), (0, None))
    if parameter is not None and first is not None and first.dtype != parameter.dtype and "type" in text:
        given = "x.float()" if parameter.dtype == torch.float32 else f"x.to({parameter.dtype})"
        return (
            f"{_name(function)} is of {_dtype(parameter)} and part {key!r} of the batch of {_dtype(first)}: make it"
            f" {given} in the data set's transform."
        )
    return ""


def explained_loss(error: Exception, y: Any, t: Any, takes_classes: bool) -> Exception:
    """Returns the error of a classifier's loss, with what is amiss in scores or labels after its text.

    Args:
        error: What the loss function raised.
        y: The predictor's scores.
        t: The labels.
        takes_classes: Whether the loss function is known to take scores of classes and class numbers.

    Example:
        >>> import torch
        >>> from trainer.mistakes import explained_loss
        >>> y, t = torch.zeros(4, 3), torch.tensor([0, 1, 2, 3])
        >>> try:
        ...     torch.nn.functional.cross_entropy(y, t)
        ... except IndexError as error:
        ...     str(explained_loss(error, y, t, True)).partition(". ")[2]
        'The labels go from 0 to 3, and the predictor has 3 classes: it needs 4, or the labels are wrong.'
    """
    if isinstance(y, Tensor) and isinstance(t, Tensor) and y.device != t.device:
        return _with(
            error,
            f"The scores are on {y.device} and the labels on {t.device}: the converter has to move them to the device"
            " that it is given.",
        )
    return _with(error, _fault(y, t) if takes_classes else "")


def _fault(y: Any, t: Any) -> str:
    if not isinstance(y, Tensor):
        return (
            f"The predictor returned {_kind(y)}, not scores: give Classifier a lossfun and an accfun that take it, such"
            " as lossfun=lambda y, t: cross_entropy(y['logits'], t)."
        )
    if not isinstance(t, Tensor):
        is_text = isinstance(t, (tuple, list)) and t and isinstance(t[0], str)
        return f"The labels are {'text' if is_text else _kind(t)}: give class numbers, 0, 1, 2 and so on."
    if y.dim() < 2 or (t.shape == y.shape and t.is_floating_point()):
        return ""
    wanted = (*y.shape[:1], *y.shape[2:])
    if t.shape != wanted:
        return f"The labels have shape {tuple(t.shape)}, and class numbers shape {wanted} with scores {tuple(y.shape)}."
    if t.dtype not in (torch.int64, torch.uint8):
        return (
            f"The labels are {_dtype(t)}, and class numbers are int64: make them t.long(), or int(t) in the data set."
        )
    counted = t[t != IGNORED]
    low, high = (int(counted.min()), int(counted.max())) if counted.numel() and y.is_cpu else (0, 0)
    if 0 <= low <= high < y.size(1):
        return ""
    remedy = f"it needs {high + 1}, or the labels are wrong" if low >= 0 else f"a label without a class is {IGNORED}"
    return f"The labels go from {low} to {high}, and the predictor has {y.size(1)} classes: {remedy}."


def _name(function: Any) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _dtype(t: Tensor) -> str:
    return str(t.dtype).removeprefix("torch.")


def _kind(value: Any) -> str:
    return f"a {type(value).__name__}" + (f" of {', '.join(map(repr, value))}" if isinstance(value, Mapping) else "")
