"""What is refused of common mistakes, and what is added to the errors that they end in."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from trainer.checks import near, reworded

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

IGNORED = -100  # the label that torch's cross_entropy leaves out
UNEXPECTED = re.compile(r"got an unexpected keyword argument '(\w+)'")
OF_EXTEND = ("trigger", "priority", "name", "call_before_training")


# -- arguments


def near_arguments(function: Callable[P, R]) -> Callable[P, R]:
    """Adds "Did you mean ...?" to the error for an unknown keyword argument.

    Example:
        >>> from trainer.mistakes import near_arguments
        >>> @near_arguments
        ... def save(filename): ...
        >>> save(file_name="log")
        Traceback (most recent call last):
        TypeError: save() got an unexpected keyword argument 'file_name'. Did you mean 'filename'?
    """

    @functools.wraps(function)
    def call(*args: P.args, **named: P.kwargs) -> R:
        try:
            return function(*args, **named)
        except TypeError as error:
            found = UNEXPECTED.search(str(error))
            if found is None or found[1] not in named or hasattr(error, "is_explained"):
                raise
            key, known = found[1], inspect.signature(function).parameters
            belongs = f" It belongs to extend: extend(..., {key}=...)." if key in OF_EXTEND else ""
            raise _with(error, belongs.strip() or near(key, known).strip())  # noqa: B904  # it is the same error

    return call


def near_names(kind: type[T]) -> type[T]:
    """Does for a dataclass what :func:`near_arguments` does for a function.

    Example:
        >>> from dataclasses import dataclass
        >>> from trainer.mistakes import near_names
        >>> @near_names
        ... @dataclass
        ... class Shift:
        ...     rate: float
        >>> Shift(rat=0.5)
        Traceback (most recent call last):
        TypeError: Shift.__init__() got an unexpected keyword argument 'rat'. Did you mean 'rate'?
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
    told = (_misfit(function, batch) if isinstance(error, TypeError) else "") or _mismatch(error, function, batch)
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
    named = parts if isinstance(batch, Mapping) else {}
    if _takes(function, *(() if named else parts.values()), **named):
        return ""
    given = f"the keywords {sorted(named)}" if named else f"the {len(parts)} parts"
    return (
        f"{_name(function)} does not take {given} of a batch: to train it on (inputs, label), wrap it,"
        " Classifier(model), or give the updater a loss_func."
    )


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
    if _takes(predictor, *inputs, **named):
        return error
    if len(inputs) > 1 and all(type(part) is tuple for part in inputs):
        return _with(error, "The parts of the batch are samples, not put together: leave collate_fn=list out.")
    number = "1 input" if len(inputs) + len(named) == 1 else f"{len(inputs) + len(named)} inputs"
    return _with(
        error,
        f"{_name(predictor)} is given {number}, the parts of a batch without the label: take off the others in the data"
        " set or the converter, or name the label, Classifier(..., label_key=...).",
    )


def _mismatch(error: Exception, function: Any, batch: Any) -> str:
    """Says which part of a batch is on another device than a model, or of another kind of number."""
    parameter = next(iter(function.parameters()), None) if isinstance(function, nn.Module) else None
    if parameter is None or not isinstance(error, RuntimeError):
        return ""
    tensors = {key: part for key, part in _parts(batch).items() if isinstance(part, Tensor)}
    for key, part in tensors.items():
        if part.device != parameter.device and "device" in str(error):
            return (
                f"{_name(function)} is on {parameter.device} and part {key!r} of the batch on {part.device}: the"
                " converter has to move it to the device that it is given."
            )
    key, first = next(iter(tensors.items()), (0, parameter))
    is_other = first.dtype in (torch.float64, torch.uint8) and parameter.dtype == torch.float32
    if not is_other or "type" not in str(error):
        return ""
    return (
        f"{_name(function)} is of float32 and part {key!r} of the batch of {dtype_of(first)}: make it x.float() in the"
        " data set's transform."
    )


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
    return _with(error, _fault(y, t) if takes_classes else _fault_of_pairs(error, y, t))


def _fault_of_pairs(error: Exception, y: Any, t: Any) -> str:
    """Says what is amiss where a loss compares each score with a label, as binary cross entropy does."""
    if not (isinstance(y, Tensor) and isinstance(t, Tensor)) or isinstance(error, AttributeError):
        return ""
    if y.shape != t.shape and y.numel() == t.numel():
        return f"The scores have shape {tuple(y.shape)} and the labels {tuple(t.shape)}: pass t.view_as(y) to the loss."
    if not t.is_floating_point() and y.is_floating_point() and y.shape == t.shape:
        return f"The labels are {dtype_of(t)} and the scores {dtype_of(y)}: make them t.float() in the data set."
    return ""


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
            f"The labels are {dtype_of(t)}, and class numbers are int64: make them t.long(), or int(t) in the data set."
        )
    counted = t[t != IGNORED]
    low, high = (int(counted.min()), int(counted.max())) if counted.numel() and y.is_cpu else (0, 0)
    if 0 <= low <= high < y.size(1):
        return ""
    remedy = f"it needs {high + 1}, or the labels are wrong" if low >= 0 else f"a label without a class is {IGNORED}"
    return f"The labels go from {low} to {high}, and the predictor has {y.size(1)} classes: {remedy}."


def _name(function: Any) -> str:
    return getattr(function, "__name__", type(function).__name__)


def dtype_of(t: Tensor) -> str:
    """Returns a tensor's dtype in a word.

    Example:
        >>> import torch
        >>> from trainer.mistakes import dtype_of
        >>> dtype_of(torch.zeros(2))
        'float32'
    """
    return str(t.dtype).removeprefix("torch.")


def _kind(value: Any) -> str:
    return f"a {type(value).__name__}" + (f" of {', '.join(map(repr, value))}" if isinstance(value, Mapping) else "")
