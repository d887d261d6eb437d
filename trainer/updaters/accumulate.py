"""One update from several evaluations: of several batches, or of one batch for an optimizer that asks again."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from trainer import random
from trainer.reporter import THREAD, Reporter, report, report_scope
from trainer.summary import Observation, Ratio, Weighted, averaged, on_device


def accumulate(
    updater: Any, batches: Iterable[tuple[Any, int]], k: int, reporter: Reporter
) -> tuple[Tensor | None, Any]:
    """Adds up the gradients of several batches, and reports the means of their values.

    Batch i of k weighs n_i, which is the weight that the model gave the loss it reported (the labels that count), else
    its samples. Its loss is scaled by n_i / (n_1 * k), about 1 / k, so that fp16 does not overflow. The rest of the
    mean, n_1 * k / sum(n), is known after the last batch; n_1 is the first that is not 0.

    Args:
        updater: Whose ``compute_loss`` and ``backward`` are called.
        batches: Converted, each with its number of samples.
        k: How many there are.
        reporter: Knows the models by name.

    Returns:
        The mean loss, or None if nothing counts; and the factor that the gradients lack, a number or 0-d tensor.

    Example:
        >>> from trainer.updaters.accumulate import accumulate
        >>> updater = run.updater
        >>> batches = ((updater.next_batch(), updater.batch_size) for _ in range(2))
        >>> loss, factor = accumulate(updater, batches, 2, run.reporter)
        >>> loss.shape, factor
        (torch.Size([]), 1.0)
    """
    observations = []
    first: Any = 0.0
    total: Any = 0.0
    loss_sum: Any = 0.0
    with reporter.scope({}):
        for batch, size in batches:
            reporter.observation = observation = Observation()
            observation.weight = size
            loss = updater.compute_loss(batch)
            del batch  # so that it is not in memory beside the next one
            observations.append(observation)
            n = _weight(observation, reporter.name_of(updater.loss_func), size)
            first, share = _share(n, first, k)
            total = total + n
            if len(observations) == k:
                receive = _sent(total)
            if isinstance(share, Tensor):
                loss = torch.where(share == 0, 0.0, loss)  # a mean over nothing is NaN
            elif share == 0:
                continue
            loss = loss * share
            updater.backward(loss)
            loss_sum = loss_sum + loss.detach()
    if THREAD.reporters:
        report(averaged(observations), copy=False)
    if receive() == 0:
        return None, 1.0
    factor = first * k / total
    return loss_sum * factor, factor


def _weight(observation: Observation, name: str | None, size: int) -> Any:
    """Returns the weight of the loss that the called model reported: a number if it is not on a device."""
    name = name or "main"
    keys = (f"{name}/loss", f"{name}/module/loss", "loss")  # module: within DistributedDataParallel or its like
    value = next((observation[key] for key in keys if key in observation), None)
    weight = value[1] if isinstance(value, (Weighted, Ratio)) else size
    return weight.item() if isinstance(weight, Tensor) and weight.is_cpu else weight


def _share(n: Any, first: Any, k: int) -> tuple[Any, Any]:
    """Returns the first weight that is not 0, and n / (first * k)."""
    if not isinstance(n, Tensor) and not isinstance(first, Tensor):
        first = first or n
        return first, n / (first * k) if n else 0.0
    device = n.device if isinstance(n, Tensor) else first.device
    n, first = (on_device(x, device, torch.float32) for x in (n, first))
    first = torch.where(first == 0, n, first)
    return first, torch.where(n == 0, 0.0, n / (first * k))


def scale_gradients(parameters: Iterable[Tensor], factor: Any) -> None:
    """Multiplies gradients in place by a number or 0-d tensor.

    Example:
        >>> import torch
        >>> from trainer.updaters.accumulate import scale_gradients
        >>> x = torch.nn.Parameter(torch.ones(2))
        >>> x.sum().backward()
        >>> scale_gradients([x], 0.5)
        >>> x.grad
        tensor([0.5000, 0.5000])
    """
    by_device: dict[torch.device, list[Tensor]] = defaultdict(list)
    for parameter in parameters:
        if parameter.grad is not None:
            by_device[parameter.device].append(parameter.grad)
    for device, gradients in by_device.items():
        torch._foreach_mul_(gradients, factor.to(device) if isinstance(factor, Tensor) else factor)


def _sent(value: Any) -> Callable[[], float]:
    """Sends a number from the device, which goes on with the last gradient; returns what waits for it to arrive."""
    if not (isinstance(value, Tensor) and value.is_cuda):
        return lambda: float(value)
    host, event = value.to("cpu", non_blocking=True), torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(value.device))  # the current device may be another

    def receive() -> float:
        event.synchronize()
        return float(host)

    return receive


def takes_closure(optimizer: Optimizer) -> bool:
    """Tells whether an optimizer evaluates the loss itself, by a function that its ``step`` is given: LBFGS does.

    Example:
        >>> import torch
        >>> from trainer.updaters.accumulate import takes_closure
        >>> parameters = [torch.nn.Parameter(torch.zeros(2))]
        >>> takes_closure(torch.optim.LBFGS(parameters)), takes_closure(torch.optim.SGD(parameters))
        (True, False)
    """
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    return closure is not None and closure.default is closure.empty


def step_with_closure(optimizer: Optimizer, evaluate: Callable[[], Tensor]) -> None:
    """Lets an optimizer step that evaluates the loss several times, each time with the same random numbers.

    What the first evaluation reports is observed.

    Args:
        optimizer: Its ``step`` is given a function.
        evaluate: Computes the gradients anew, and returns the loss.

    Example:
        >>> import torch
        >>> from trainer.updaters.accumulate import step_with_closure
        >>> x = torch.nn.Parameter(torch.tensor([3.0]))
        >>> optimizer = torch.optim.LBFGS([x])
        >>> def evaluate():
        ...     optimizer.zero_grad()
        ...     loss = (x**2).sum()
        ...     loss.backward()
        ...     return loss
        >>> step_with_closure(optimizer, evaluate)
        >>> round(abs(x.item()), 3)
        0.0
    """
    start, is_first = random.raw_state(cuda=True), True

    def closure() -> Tensor:
        nonlocal is_first
        if is_first:
            is_first = False
            return evaluate()
        random.set_raw_state(start)
        with report_scope({}) if THREAD.reporters else nullcontext():
            return evaluate()

    optimizer.step(closure)  # type: ignore[arg-type]
