"""What is reported and is no number: said once, and no other plug-in fails of it."""

import math
import warnings

import numpy as np
import pytest
import torch
from helpers import make_run
from torch import nn

import extensions
from trainer import DictSummary, Observation, Ratio, StandardUpdater, Trainer, Weighted, report
from trainer.iterators import SerialIterator
from trainer.summary import averaged

LEFT_OUT = {
    "list": ([1.0, 2.0], "a list"),
    "text": ("fine", "a str"),
    "several": (torch.ones(3), r"a Tensor of float32 and shape \(3,\)"),
    "none": (np.zeros(0), r"a ndarray of float64 and shape \(0,\)"),
    "complex": (1j, "a complex"),
    "complex tensor": (torch.tensor(1j), r"a Tensor of complex64 and shape \(\)"),
    "complex number of numpy": (np.complex64(1j), "a complex64"),
    "text of numpy": (np.str_("a"), "a str_"),
    "callable": (math.sqrt, "a builtin_function_or_method"),
    "None": (None, "None"),
    "dict": ({"a": 1}, "a dict"),
    "pair": (([1], 2), "a tuple"),
    "total of several": (Ratio(torch.ones(3), 3), r"a Tensor of float32 and shape \(3,\)"),
    "count of several": (Ratio(1, np.ones(2)), r"a ndarray of float64 and shape \(2,\)"),
    "weighted": (Weighted(torch.ones(2), 2), r"a Tensor of float32 and shape \(2,\)"),
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_is_no_number_is_named_once_with_its_kind(name):
    value, kind = LEFT_OUT[name]
    summary = DictSummary()
    with pytest.warns(UserWarning, match=f"'x' is left out of the means: it is {kind}, not one real number"):
        summary.add({"x": value, "y": 1.0})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        summary.add({"x": value, "y": 3.0})
        summary.clear()
        summary.add({"x": value, "y": 5.0})
    assert summary.compute_mean() == {"y": 5.0}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_no_other_plug_in_fails_of_it(tmp_path, name):
    run = make_run(tmp_path)
    value, _ = LEFT_OUT[name]
    run.extend(lambda trainer: trainer.observation.update({"note": value, "loss": value, "correct": value}), name="say")
    run.extend(extensions.FailOnNonNumber())
    run.extend(extensions.MicroAverage("correct", "main/loss", "average"))
    run.extend(extensions.PlotReport(["main/loss", "note"]))
    run.extend(extensions.LogReport(trigger=(1, "iteration")))
    run.extend(extensions.PrintReport(["epoch", "note", "main/loss"]))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        run.run()
    log = run.get_extension("LogReport").log
    assert len(log) == 4 and "note" not in log[0] and "main/loss" in log[0]
    said = [str(warning.message).split(" is left out")[0] for warning in told if "left out" in str(warning.message)]
    assert {"'note'", "'loss'", "'correct'"} <= set(said)


def test_numbers_of_one_element_are_logged_whatever_their_shape(tmp_path):
    class Model(nn.Linear):
        def forward(self, x):
            loss = super().forward(x).mean(0)  # of shape (1,), which backward() takes
            report({"loss": loss, "iou": np.array([0.5]), "weighted": (loss.reshape(1, 1, 1), 5)}, self)
            return loss

    torch.manual_seed(0)
    model = Model(2, 1)
    iterator = SerialIterator([torch.rand(2)] * 10, 5)
    updater = StandardUpdater(iterator, torch.optim.SGD(model.parameters(), 0.1), model=model, accumulate=2)
    run = Trainer(updater, (1, "epoch"), out=tmp_path)
    run.extend(lambda trainer: trainer.observation.update(direct=np.array([[2.5]])), name="direct")
    run.extend(extensions.LogReport())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run.run()
    (entry,) = run.get_extension("LogReport").log
    assert entry["main/iou"] == 0.5 and entry["direct"] == 2.5
    assert entry["main/loss"] == entry["main/weighted"]


def test_several_batches_are_averaged_whatever_the_shape_of_their_one_element():
    observations = [Observation(x=torch.ones(1)), Observation(x=np.full((1, 1), 2.0)), Observation(x=3.0)]
    assert float(averaged(observations)["x"]) == 2.0


def test_a_scheduler_is_told_when_what_it_follows_is_no_number(tmp_path):
    run = make_run(tmp_path)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(run.updater.get_optimizer("main"))
    run.extend(lambda trainer: report({"per class": torch.ones(3)}), name="say")
    run.extend(extensions.LRScheduler(scheduler, monitor="per class"))
    with pytest.raises(ValueError, match=r"monitor 'per class' is a Tensor of float32 and shape \(3,\), not one real"):
        run.run(show_loop_exception_msg=False)
