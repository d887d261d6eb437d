"""A predictor with its loss and accuracy, both reported."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.datasets.convert import count_samples
from trainer.mistakes import IGNORED, dtype_of, explained_inputs, explained_loss, near_arguments
from trainer.reporter import kept, report
from trainer.summary import Ratio, Weighted, kind_of

_PROBABILITIES = (F.cross_entropy, nn.CrossEntropyLoss)
_CLASSES = (*_PROBABILITIES, F.nll_loss, nn.NLLLoss)


def accuracy(y: Tensor, t: Tensor, ignore_index: int = IGNORED) -> Ratio:
    """Returns correct and counted predictions as a :class:`Ratio`. Chainer: ``functions.accuracy``.

    Args:
        y: Scores of shape (N, C, ...), of two classes or more.
        t: Class numbers of shape (N, ...); or probabilities of the shape of ``y``, whose largest is the label.
        ignore_index: The class number of a label that does not count.

    Raises:
        ValueError: If there are no scores of two classes, or the labels are not of those shapes.

    Example:
        >>> import torch
        >>> from trainer import accuracy
        >>> ratio = accuracy(torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.7, 0.3]]), torch.tensor([1, 1, -100]))
        >>> int(ratio.total), int(ratio.count)
        (1, 2)
    """
    if y.dim() < 2 or y.size(1) < 2:
        raise _no_class_numbers(f"the scores have shape {tuple(y.shape)}, with one class or none")
    if t.is_floating_point():
        if t.shape != y.shape:
            raise _no_class_numbers(f"the labels are {dtype_of(t)} of shape {tuple(t.shape)}")
        t = t.argmax(dim=1)
    is_right = y.argmax(dim=1) == t
    if t.dim() != y.dim() - 1 or is_right.numel() != t.numel():  # each with each
        raise ValueError(
            f"accuracy takes class numbers of shape {(*y.shape[:1], *y.shape[2:])} with scores of shape"
            f" {tuple(y.shape)}, got labels of shape {tuple(t.shape)}."
        )
    return Ratio(torch.count_nonzero(is_right), torch.count_nonzero(t != ignore_index))


def binary_accuracy(y: Tensor, t: Tensor, ignore_index: int = -1) -> Ratio:
    """Returns correct and counted yes-or-no predictions as a :class:`Ratio`. Chainer: ``functions.binary_accuracy``.

    A score of 0 or more means 1. Labels that are several to a sample count one by one.

    Args:
        y: Scores (logits) of shape (N,), (N, 1) or any other.
        t: Labels 0 and 1, integers or floats, of the shape of ``y``; (N,) and (N, 1) go together.
        ignore_index: The label that does not count.

    Raises:
        ValueError: If the shapes do not fit.

    Example:
        >>> import torch
        >>> from trainer import binary_accuracy
        >>> ratio = binary_accuracy(torch.tensor([[2.5], [-1.0], [0.3]]), torch.tensor([1, 1, -1]))
        >>> int(ratio.total), int(ratio.count)
        (1, 2)
    """
    if y.shape != t.shape:
        if y.shape[:1] != t.shape[:1] or not y.numel() == t.numel() == len(t):
            raise ValueError(
                f"binary_accuracy takes a label for each score, got scores of shape {tuple(y.shape)} and labels of"
                f" shape {tuple(t.shape)}."
            )
        y = y.reshape(t.shape)
    counts = t != ignore_index
    return Ratio(torch.count_nonzero(((y >= 0) == t) & counts), torch.count_nonzero(counts))


def _no_class_numbers(got: str, more: str = "") -> ValueError:
    return ValueError(
        f"accuracy is for class numbers, but {got}: for labels of 0 and 1 write Classifier(...,"
        " accfun=binary_accuracy), from trainer; for other targets accfun=None, to report the loss alone"
        f"{more}."
    )


class Classifier(nn.Module):
    """Calls a predictor, returns the loss, and reports ``loss`` and ``accuracy``. Chainer: ``links.Classifier``.

    Trained as ``main``, its values are observed as ``main/loss`` and ``main/accuracy``. Both are weighed by the
    labels that counted, so over an epoch accuracy is exactly correct / total. Which labels count, and how much each
    class weighs in the loss, is taken from torch's ``CrossEntropyLoss`` and ``NLLLoss`` (``ignore_index``, ``weight``)
    and from a ``functools.partial`` of their functions. No tensor stays on the module.

    Args:
        predictor: The network: what it returns for the inputs goes to ``lossfun`` and ``accfun``.
        lossfun: Called as ``lossfun(y, t)``; returns a 0-d loss.
        accfun: Called as ``accfun(y, t)``; returns a :class:`Ratio` or a number. None reports the loss alone.
        label_key: Which argument is the label: a position (int) or a keyword (str).

    Attributes:
        compute_accuracy: Set it to False to report the loss only.

    Example:
        >>> import torch
        >>> from trainer import Classifier
        >>> model = Classifier(torch.nn.Linear(2, 3))
        >>> loss = model(torch.rand(4, 2), torch.tensor([0, 1, 2, 0]))
        >>> loss.shape
        torch.Size([])
    """

    compute_accuracy = True

    @near_arguments
    def __init__(
        self,
        predictor: nn.Module,
        lossfun: Callable[[Any, Any], Tensor] = F.cross_entropy,
        accfun: Callable[[Any, Any], Any] | None = accuracy,
        label_key: int | str = -1,
    ) -> None:
        if not isinstance(label_key, (int, str)):
            raise TypeError(f"label_key must be int or str, got {type(label_key).__name__}; e.g. -1 or 't'.")
        for name, function in (("predictor", predictor), ("lossfun", lossfun), ("accfun", accfun)):
            if isinstance(function, type) or not (callable(function) or (name == "accfun" and function is None)):
                got = f"the class {function.__name__}" if isinstance(function, type) else repr(function)
                raise TypeError(f"{name} must be a module or a function, got {got}.")
        super().__init__()
        self.predictor = predictor
        self.lossfun = lossfun
        self.accfun = accfun
        self.label_key = label_key

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Returns the loss of a batch: the inputs and the label, as the data set gives them.

        Raises:
            ValueError: If the label is not among the arguments; or ``accfun`` is :func:`accuracy`, and the labels are
                no class numbers. Floats count as class probabilities with torch's cross entropy only; with a loss of
                your own write ``accfun=lambda y, t: accuracy(y, t)``.
        """
        inputs, key = list(args), self.label_key
        try:
            t = inputs.pop(key) if isinstance(key, int) else kwargs.pop(key)
        except (IndexError, KeyError):
            there = f"{len(args)} positional parts" if args or not kwargs else f"the keys {sorted(kwargs)}"
            hint = "; name one of them: Classifier(..., label_key='...')" if kwargs and isinstance(key, int) else ""
            raise ValueError(f"label_key {key!r} is not found: the batch has {there}{hint}.") from None
        try:
            y = self.predictor(*inputs, **kwargs)
        except TypeError as error:
            raise explained_inputs(error, self.predictor, inputs, kwargs)  # noqa: B904  # it is the same error
        try:
            loss = self.lossfun(y, t)
        except Exception as error:
            raise explained_loss(error, y, t, _takes(self.lossfun, *_CLASSES))  # noqa: B904  # it is the same error
        if not isinstance(loss, Tensor):
            raise TypeError(f"lossfun returned {kind_of(loss)}, and a loss is needed: a tensor of shape ().")
        ignored, classes = (IGNORED, None) if self.lossfun is F.cross_entropy else _counts(self.lossfun)
        if not self.compute_accuracy or self.accfun is None:
            if _takes(self.lossfun, *_CLASSES) and y.dim() > 1 and y.size(1) == 1:
                raise ValueError(
                    f"cross entropy of scores of shape {tuple(y.shape)}, of one class, is always 0: take"
                    " F.binary_cross_entropy_with_logits and labels of 0.0 and 1.0."
                )
            report({"loss": Weighted(loss, _counted(t, ignored, classes))}, self)
            return loss
        if self.accfun is accuracy:
            if isinstance(t, Tensor) and t.is_floating_point() and not _takes(self.lossfun, *_PROBABILITIES):
                raise _no_class_numbers(
                    f"the labels are {dtype_of(t)} of shape {tuple(t.shape)}",
                    "; for class probabilities accfun=lambda y, t: accuracy(y, t)" if t.shape == y.shape else "",
                )
            correct = accuracy(y, t, ignored)
        else:
            correct = kept(self.accfun(y, t))
        is_count = isinstance(correct, Ratio) and classes is None
        weight = correct.count if is_count else _counted(t, ignored, classes)
        report({"loss": Weighted(loss.detach().clone(), weight), "accuracy": correct}, self, copy=False)
        return loss


def _counts(lossfun: Any) -> tuple[int, Tensor | None]:
    """Returns the label that a loss function leaves out, and what each class weighs in its mean; None if the same."""
    if isinstance(lossfun, (nn.CrossEntropyLoss, nn.NLLLoss)):
        return lossfun.ignore_index, lossfun.weight
    if isinstance(lossfun, partial) and lossfun.func in (F.cross_entropy, F.nll_loss):
        return lossfun.keywords.get("ignore_index", IGNORED), lossfun.keywords.get("weight")
    return IGNORED, None


def _takes(lossfun: Any, *known: Any) -> bool:
    """Tells whether a loss function is one of the known, or an object of it, or a partial of it."""
    function = lossfun.func if isinstance(lossfun, partial) else lossfun
    return function in known or isinstance(function, tuple(kind for kind in known if isinstance(kind, type)))


def _counted(t: Any, ignored: int, classes: Tensor | None) -> Tensor | int:
    if not isinstance(t, Tensor):
        return count_samples(t)
    if t.is_floating_point():
        return len(t)
    counts = t != ignored
    return torch.count_nonzero(counts) if classes is None else (classes[t.where(counts, 0)] * counts).sum()
