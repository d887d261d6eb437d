"""What a model may return, and what is said of anything else."""

from collections import OrderedDict
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import extensions
from trainer import StandardUpdater, Trainer, report
from trainer.iterators import SerialIterator


@dataclass
class Output:
    loss: torch.Tensor
    logits: torch.Tensor


class Mapped(OrderedDict):
    """As transformers' ModelOutput: a mapping whose keys are attributes too."""

    def __getattr__(self, name):
        return self[name]


KINDS = {
    "a loss": lambda loss, y: loss,
    "a dict": lambda loss, y: {"loss": loss, "logits": y},
    "a dataclass": Output,
    "a namespace": lambda loss, y: SimpleNamespace(loss=loss, logits=y),
    "both": lambda loss, y: Mapped(logits=y, loss=loss),
}


class Model(nn.Linear):
    def __init__(self, make, reports=None):
        super().__init__(2, 3)
        self.make, self.reports = make, reports

    def forward(self, x, t):
        y = super().forward(x)
        loss = F.cross_entropy(y, t)
        if self.reports is not None:
            report({"loss": self.reports}, self)
        return self.make(loss, y)


def make_run(out, make, reports=None, accumulate=1, **kwargs):
    torch.manual_seed(0)
    data = [(torch.rand(2), i % 3) for i in range(12)]
    model = Model(make, reports)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    iterator = SerialIterator(data, 6 // accumulate)
    updater = StandardUpdater(iterator, optimizer, model=model, accumulate=accumulate, **kwargs)
    run = Trainer(updater, (4, "epoch"), out=out)
    run.extend(extensions.Evaluator(SerialIterator(data, 5, repeat=False, shuffle=False), model))
    run.extend(extensions.LogReport())
    return run


@pytest.mark.filterwarnings("ignore:.*nothing was reported")  # of a bare loss
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_returns_its_loss_in_any_form_trains(tmp_path, kind, accumulate):
    plain, other = (
        (make_run(tmp_path / name, KINDS[name], accumulate=accumulate, precision="bf16") for name in ("a loss", kind))
        if kind != "a loss"
        else (make_run(tmp_path / name, KINDS["a loss"], accumulate=accumulate) for name in "ab")
    )
    plain.run(), other.run()
    for p, q in zip(plain.updater.get_model("main").parameters(), other.updater.get_model("main").parameters()):
        assert torch.equal(p, q)
    log = other.get_extension("LogReport").log
    assert ("main/loss" in log[-1]) == ("validation/main/loss" in log[-1]) == (kind != "a loss")
    if kind != "a loss":
        assert log[-1]["main/loss"] < log[0]["main/loss"]
        assert log[-1]["validation/main/loss"] < log[0]["validation/main/loss"]


def test_a_loss_that_the_model_reports_itself_is_the_one_observed(tmp_path):
    run = make_run(tmp_path, KINDS["a dict"], reports=7.0)
    run.run()
    assert {entry["main/loss"] for entry in run.get_extension("LogReport").log} == {7.0}


REFUSED = {
    "a tuple": (
        lambda loss, y: (loss, y),
        TypeError,
        r"model 'main' \(Model\) returned tuple with parts \[0, 1\], and a loss is needed: return a tensor of shape"
        r" \(\), or a dict or an object that has it as 'loss'",
    ),
    "nothing": (lambda loss, y: None, TypeError, r"model 'main' \(Model\) returned NoneType, and a loss is needed"),
    "a number": (lambda loss, y: loss.item(), TypeError, r"returned float, and a loss is needed"),
    "a dict without it": (
        lambda loss, y: {"loss_box": loss, "loss_mask": loss},
        TypeError,
        r"returned dict with parts \['loss_box', 'loss_mask'\], and a loss is needed",
    ),
    "no labels": (
        lambda loss, y: Output(None, y),
        TypeError,
        r"returned Output, whose 'loss' is NoneType \(was it called without labels\?\)",
    ),
    "one a sample": (
        lambda loss, y: y.sum(dim=1),
        ValueError,
        r"returned a loss of shape \(6,\), but it must be one number: return its mean, loss\.mean\(\)",
    ),
    "one a sample in a dict": (
        lambda loss, y: {"loss": y.sum(dim=1)},
        ValueError,
        r"returned a loss of shape \(6,\), but it must be one number: return its mean",
    ),
    "one an element in a dict": (
        lambda loss, y: {"loss": y},
        ValueError,
        r"returned a loss of shape \(6, 3\), but it must be one number: return its mean",
    ),
    "detached": (
        lambda loss, y: loss.detach(),
        ValueError,
        r"the loss has no gradient: return it as it is computed from parameters that require gradients",
    ),
    "counted": (lambda loss, y: (y.argmax(dim=1) > 0).sum(), ValueError, "the loss has no gradient"),
    "scores": (
        lambda loss, y: y,
        ValueError,
        r"returned a loss of shape \(6, 3\), but it must be one number: if these are scores, wrap the model,"
        r" Classifier\(model\), or give the updater a loss_func",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_anything_else_is_refused_with_what_to_write(tmp_path, name):
    make, kind, message = REFUSED[name]
    with pytest.raises(kind, match=message):
        make_run(tmp_path, make).run(show_loop_exception_msg=False)


def test_a_run_without_gradients_is_refused(tmp_path):
    with torch.no_grad(), pytest.raises(ValueError, match="the loss has no gradient.*not under torch.no_grad"):
        make_run(tmp_path, KINDS["a loss"]).run(show_loop_exception_msg=False)


def test_a_loss_func_is_named_as_the_source():
    model = nn.Linear(2, 3)
    data = [(torch.rand(2), 0)] * 4
    updater = StandardUpdater(
        SerialIterator(data, 2), torch.optim.SGD(model.parameters(), 0.1), loss_func=lambda x, t: model(x), model=model
    )
    with pytest.raises(ValueError, match=r"^loss_func returned a loss of shape \(2, 3\)"):
        updater.update()


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_running_out_of_memory_says_what_took_it(tmp_path, accumulate, precision):
    def make(loss, y):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    run = make_run(tmp_path, make, accumulate=accumulate, precision=precision)
    message = (
        r"Tried to allocate 2\.00 GiB\.\nThis update took 6 samples \(accumulate="
        + str(accumulate)
        + rf", precision='{precision}'\)\. For the same step with less memory halve batch_size and double accumulate"
        + (r"; precision='bf16' needs less too\.$" if precision == "fp32" else r"\.$")
    )
    with pytest.raises(torch.OutOfMemoryError, match=message):
        run.run(show_loop_exception_msg=False)


def bare_run(samples):
    model = nn.Linear(2, 3)
    return StandardUpdater(SerialIterator(samples, 2), torch.optim.SGD(model.parameters(), 0.1), model=model), model


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ((torch.ones(2), 1), r"Linear does not take the 2 parts of a batch: to train it on \(inputs, label\), wrap it"),
        ({"x": torch.ones(2), "t": 1}, r"Linear does not take the keywords \['t', 'x'\] of a batch: to train it on"),
    ],
)
def test_a_bare_network_is_told_to_be_wrapped(sample, message):
    updater, model = bare_run([sample] * 4)
    with pytest.raises(TypeError, match=message):
        updater.update()
    with pytest.raises(TypeError, match=message):
        extensions.Evaluator(SerialIterator([sample] * 4, 2, repeat=False), model)()


def test_a_type_error_of_the_model_itself_is_left_as_it_is():
    class Wrong(nn.Linear):
        def forward(self, x, t):
            return super().forward(x) + "1"

    model = Wrong(2, 3)
    data = [(torch.ones(2), 1)] * 4
    updater = StandardUpdater(SerialIterator(data, 2), torch.optim.SGD(model.parameters(), 0.1), model=model)
    with pytest.raises(TypeError) as caught:
        updater.update()
    assert "wrap it" not in str(caught.value)
