"""Ordinary mistakes: each is told what was wrong, what was got, and what to do. No GPU is needed for any."""

import os
import re
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from helpers import make_data, make_run
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import extensions as E
from trainer import Classifier, Extension, StandardUpdater, Trainer, accuracy, concat_examples, report
from trainer.iterators import MultiprocessIterator, SerialIterator
from trainer.triggers import EarlyStoppingTrigger, MaxValueTrigger, OnceTrigger

X = torch.rand(2)


class Net(nn.Linear):
    """Returns what a function makes of scores and labels."""

    def __init__(self, function):
        super().__init__(2, 3)
        self.function = function

    def forward(self, x, t):
        return self.function(super().forward(x), t)


class Predictor(nn.Linear):
    """Returns what a function makes of scores."""

    def __init__(self, function):
        super().__init__(2, 3)
        self.function = function

    def forward(self, x):
        return self.function(super().forward(x))


class Wrapped:
    """An optimizer within something that is none, as of accelerate or apex."""

    def __init__(self, optimizer):
        self.inner = optimizer

    def __getattr__(self, name):
        return getattr(self.inner, name)


class NoFinalize(Extension):
    def __call__(self, trainer): ...

    def finalize(self, manager): ...


class NoInitialize(Extension):
    def __call__(self, trainer): ...

    def initialize(self): ...


class NoCall(Extension):
    def __call__(self): ...


class NoError(Extension):
    def __call__(self, trainer): ...

    def on_error(self, trainer): ...


class Collector(Extension):
    def __init__(self):
        self.saved = []

    def __call__(self, trainer):
        self.saved.append("a file")


class NoItems:
    def __len__(self):
        return 10


def updater(model=None, data=None, iterator=None, optimizer=None, **kwargs):
    model = model or Classifier(nn.Linear(2, 3))
    iterator = iterator or SerialIterator(data or make_data(), 5)
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.1)
    return StandardUpdater(iterator, optimizer, model=model, **kwargs)


def train(out, stop=(2, "epoch"), **kwargs):
    Trainer(updater(**kwargs), stop, out=out).run(False)


def train_on(sample, out, **kwargs):
    train(out, data=[sample(i) for i in range(10)], **kwargs)


def extend(out, *args, **kwargs):
    run = make_run(out)
    run.extend(*args, **kwargs)
    run.run(False)


def evaluator(iterator=None, **kwargs):
    iterator = iterator or SerialIterator(make_data(), 5, repeat=False)
    return E.Evaluator(iterator, Classifier(nn.Linear(2, 3)), **kwargs)


def evaluate_the_training_iterator(out, repeat):
    own = updater(iterator=SerialIterator(make_data(), 5, repeat=repeat))
    run = Trainer(own, (1, "epoch"), out=out)
    run.extend(E.Evaluator(own.get_iterator("main"), own.get_model("main")), trigger=(1, "iteration"))
    run.run(False)


def scheduler():
    return torch.optim.lr_scheduler.StepLR(torch.optim.SGD(nn.Linear(2, 3).parameters(), lr=0.1), 1)


def plateau(out, monitor):
    run = make_run(out)
    follows = torch.optim.lr_scheduler.ReduceLROnPlateau(run.updater.get_optimizer("main"))
    run.extend(E.LRScheduler(follows, monitor=monitor))
    run.run(False)


def resume_weights(out):
    torch.save(nn.Linear(2, 3).state_dict(), out / "weights")
    make_run(out).resume(out / "weights")


def resume_folder(out):
    extend(out, E.snapshot())
    make_run(out).resume(out)


def file_as_out(out):
    (out / "file").touch()
    train(out / "file")


def twice(out):
    run = make_run(out)
    run.run()
    run.run()


def swapped():
    model = Classifier(nn.Linear(2, 3))
    return StandardUpdater(SerialIterator(make_data(), 5), model, model=torch.optim.SGD(model.parameters(), lr=0.1))


# name: what is done, given a folder; the error; what its message has
MISTAKES = {
    # -- the loss
    "forgotten Classifier": (
        lambda out: train(out, model=nn.Linear(2, 3)),
        TypeError,
        "Linear does not take the 2 parts of a batch: to train it on (inputs, label), wrap it, Classifier(model), or",
    ),
    "loss None": (
        lambda out: train(out, model=Net(lambda y, t: None)),
        TypeError,
        "model 'main' (Net) returned NoneType, and a loss is needed: return a tensor",
    ),
    "loss of several elements": (
        lambda out: train(out, model=Net(lambda y, t: F.cross_entropy(y, t, reduction="none"))),
        ValueError,
        "model 'main' (Net) returned a loss of shape (5,), but it must be one number: return its mean, loss.mean().",
    ),
    "loss a float": (
        lambda out: train(out, model=Net(lambda y, t: 0.5)),
        TypeError,
        "model 'main' (Net) returned float, and a loss is needed",
    ),
    "loss detached": (
        lambda out: train(out, model=Net(lambda y, t: y.mean().detach())),
        ValueError,
        "the loss has no gradient: return it as it is computed from parameters that require gradients (is the model",
    ),
    "loss and scores": (
        lambda out: train(out, model=Net(lambda y, t: (y.mean(), y))),
        TypeError,
        "model 'main' (Net) returned tuple with parts [0, 1], and a loss is needed",
    ),
    "frozen model": (
        lambda out: train(out, model=Classifier(nn.Linear(2, 3)).requires_grad_(False)),
        ValueError,
        "(is the model frozen?)",
    ),
    # -- labels, inputs, scores
    "label out of range": (
        lambda out: train_on(lambda i: (X, i), out),
        IndexError,
        r". The labels go from \d to \d, and the predictor has 3 classes: it needs \d+, or the labels are wrong.",
    ),
    "label negative": (
        lambda out: train_on(lambda i: (X, -1), out),
        IndexError,
        "The labels go from -1 to -1, and the predictor has 3 classes: a label without a class is -100.",
    ),
    "label a float": (
        lambda out: train_on(lambda i: (X, 1.0), out),
        RuntimeError,
        "The labels are float64, and class numbers are int64: make them t.long(), or int(t) in the data set.",
    ),
    "label int32": (lambda out: train_on(lambda i: (X, np.int32(1)), out), RuntimeError, "The labels are int32, and"),
    "label bool": (lambda out: train_on(lambda i: (X, True), out), RuntimeError, "The labels are bool, and class"),
    "label text": (
        lambda out: train_on(lambda i: (X, "cat"), out),
        TypeError,
        "The labels are text: give class numbers, 0, 1, 2 and so on.",
    ),
    "label of shape (1,)": (
        lambda out: train_on(lambda i: (X, np.array([1])), out),
        RuntimeError,
        "The labels have shape (5, 1), and class numbers shape (5,) with scores (5, 3).",
    ),
    "label one-hot": (
        lambda out: train_on(lambda i: (X, torch.eye(3, dtype=int)[0]), out),
        RuntimeError,
        "The labels have shape (5, 3), and class numbers shape (5,) with scores (5, 3).",
    ),
    "input float64": (
        lambda out: train_on(lambda i: (np.random.rand(2), 1), out),
        RuntimeError,
        "Classifier is of float32 and part 0 of the batch of float64: make it x.float() in the data set's transform.",
    ),
    "input uint8": (
        lambda out: train_on(lambda i: (np.zeros(2, np.uint8), 1), out),
        RuntimeError,
        "Classifier is of float32 and part 0 of the batch of uint8: make it x.float()",
    ),
    "inputs of other shapes": (
        lambda out: train_on(lambda i: (torch.rand(2 + i % 2), 1), out),
        ValueError,
        r"sample \d, part 0 is torch.float32 Tensor of shape \(\d,\) where sample 0 is .*: make them alike in",
    ),
    "sample None": (lambda out: train_on(lambda i: None, out), ValueError, "sample 0 is NoneType, which cannot be put"),
    "sample a picture": (
        lambda out: train_on(lambda i: (Image.new("RGB", (8, 8)), 1), out),
        ValueError,
        "sample 0, part 0 is Image, which cannot be put into a batch",
    ),
    "sample of three parts": (
        lambda out: train_on(lambda i: (X, i % 3, i), out),
        TypeError,
        "Linear is given 2 inputs, the parts of a batch without the label: take off the others in the data set or the",
    ),
    "sample without a label": (
        lambda out: train_on(lambda i: X, out),
        TypeError,
        "Linear is given 0 inputs, the parts of a batch without the label",
    ),
    "sample a dict": (
        lambda out: train_on(lambda i: {"x": X, "t": 1}, out),
        ValueError,
        "label_key -1 is not found: the batch has the keys ['t', 'x']; name one of them: Classifier(..., label_key=",
    ),
    "predictor returns a dict": (
        lambda out: train(out, model=Classifier(Predictor(lambda y: {"logits": y}))),
        TypeError,
        "The predictor returned a dict of 'logits', not scores: give Classifier a lossfun and an accfun that take it",
    ),
    "predictor returns a tuple": (
        lambda out: train(out, model=Classifier(Predictor(lambda y: (y, y)))),
        TypeError,
        "The predictor returned a tuple, not scores: give Classifier a lossfun",
    ),
    "one output": (
        lambda out: train(out, model=Classifier(nn.Linear(2, 1), lambda y, t: y.mean())),
        ValueError,
        "accuracy is for class numbers, but the scores have shape (5, 1), with one class or none: for labels of 0",
    ),
    # -- devices
    "batch on another device": (
        lambda out: train(out, converter=lambda b, d: tuple(x.to("meta") for x in concat_examples(b, d))),
        RuntimeError,
        "Classifier is on cpu and part 0 of the batch on meta: the converter has to move it to the device that it is",
    ),
    "labels on another device": (
        lambda out: train(out, converter=lambda b, d: (concat_examples(b)[0], concat_examples(b)[1].to("meta"))),
        RuntimeError,
        "The scores are on cpu and the labels on meta: the converter has to move them to the device that it is given.",
    ),
    "device cdua": (
        lambda out: updater(device="cdua"),
        ValueError,
        "device must be such as 'cpu', 'cuda' or 'cuda:1', got 'cdua'. Did you mean 'cuda'?",
    ),
    "device gpu": (lambda out: updater(device="gpu"), ValueError, "got 'gpu'. Did you mean 'cuda'?"),
    "device -1": (
        lambda out: updater(device=-1),
        ValueError,
        "device=-1 means the CPU in Chainer: write device='cpu'.",
    ),
    "device that is not there": (
        lambda out: updater(device=77),
        ValueError,
        r"device 'cuda:77' is not there: (torch sees no CUDA device here: write|there are \d+ CUDA devices)",
    ),
    "device None of Chainer's Evaluator": (lambda out: evaluator(device=-1), ValueError, "device=-1 means the CPU in"),
    "device of an Evaluator": (lambda out: evaluator(device="cdua"), ValueError, "Did you mean 'cuda'?"),
    "device a float": (
        lambda out: updater(device=0.5),
        TypeError,
        "device must be such as 'cpu' or 'cuda:1', got 0.5.",
    ),
    # -- folders and files
    "out a file": (
        file_as_out,
        NotADirectoryError,
        "a file stands where a folder is to be: move it, or name another: '",
    ),
    "out None": (lambda out: Trainer(updater(), out=None), TypeError, "out must name a folder, got None."),
    "resume a missing file": (lambda out: make_run(out).resume(out / "nope"), FileNotFoundError, "nope"),
    "resume a file of weights": (
        resume_weights,
        ValueError,
        "take another, or start afresh. Weights are read by model.load_state_dict(torch.load(path)).",
    ),
    "resume a folder": (
        resume_folder,
        ValueError,
        r"is a folder, and its newest snapshot is .*snapshot_iter_4: name a",
    ),
    "snapshot's filename with an unknown attribute": (
        lambda out: extend(out, E.snapshot(filename="s_{.updater.epocs}")),
        ValueError,
        "filename 's_{.updater.epocs}' does not fit the trainer (AttributeError(\"'StandardUpdater' object has no",
    ),
    "snapshot's filename with a name": (
        lambda out: extend(out, E.snapshot(filename="s_{epoch}")),
        ValueError,
        "filename 's_{epoch}' does not fit the trainer (KeyError('epoch')). Write '{.updater.iteration}', say.",
    ),
    "snapshot's filename with a method": (
        lambda out: extend(out, E.snapshot(filename="s_{.iteration}")),
        ValueError,
        "filename 's_{.iteration}' does not fit the trainer (ValueError('s_<bound method",
    ),
    "snapshot outside of the run's folder": (
        lambda out: E.snapshot(filename="../s"),
        ValueError,
        "filename must lie in the run's folder, got '../s': give Trainer another out.",
    ),
    "log's filename with an unknown key": (
        lambda out: extend(out, E.LogReport(filename="log_{epocs}")),
        ValueError,
        "filename 'log_{epocs}': an entry has no 'epocs'. Did you mean 'epoch'?",
    ),
    # -- arguments
    "snapshot(file_name=)": (
        lambda out: E.snapshot(file_name="x"),
        TypeError,
        "snapshot() got an unexpected keyword argument 'file_name'. Did you mean 'filename'?",
    ),
    "LogReport(file_name=)": (
        lambda out: E.LogReport(file_name="x"),
        TypeError,
        "got an unexpected keyword argument 'file_name'. Did you mean 'filename'?",
    ),
    "ExponentialShift(rat=)": (lambda out: E.ExponentialShift("lr", rat=0.5), TypeError, "Did you mean 'rate'?"),
    "StandardUpdater(loss_fun=)": (lambda out: updater(loss_fun=1), TypeError, "Did you mean 'loss_func'?"),
    "StandardUpdater(gpu=)": (
        lambda out: updater(gpu=1),
        TypeError,
        "got an unexpected keyword argument 'gpu'",
    ),
    "SerialIterator(shufle=)": (lambda out: SerialIterator([1], 1, shufle=1), TypeError, "Did you mean 'shuffle'?"),
    "MultiprocessIterator(n_proc=)": (
        lambda out: MultiprocessIterator([1], 1, n_proceses=1),
        TypeError,
        "Did you mean 'n_processes'?",
    ),
    "Classifier(loss_fun=)": (lambda out: Classifier(X, loss_fun=1), TypeError, "Did you mean 'lossfun'?"),
    "Trainer(stop=)": (lambda out: Trainer(updater(), stop=1), TypeError, "got an unexpected keyword argument 'stop'"),
    "extend(triger=)": (
        lambda out: extend(out, E.LogReport(), triger=(1, "epoch")),
        TypeError,
        "extend() got an unexpected keyword argument 'triger'. Did you mean 'trigger'?",
    ),
    "snapshot(trigger=)": (
        lambda out: E.snapshot(trigger=(1, "epoch")),
        TypeError,
        "snapshot() got an unexpected keyword argument 'trigger'. It belongs to extend: extend(..., trigger=...).",
    ),
    "LogReport((1, 'epoch'))": (
        lambda out: E.LogReport((1, "epoch")),
        TypeError,
        "keys must be names of values, such as ['main/loss'], got (1, 'epoch'). Write trigger=... for a trigger.",
    ),
    "PrintReport(3)": (lambda out: E.PrintReport(3), TypeError, "entries must be names of values, such as ['main/los"),
    "PlotReport(None)": (lambda out: E.PlotReport(None), TypeError, "y_keys must name what to plot, got None"),
    "arguments of Trainer swapped": (
        lambda out: Trainer((1, "epoch"), updater()),
        TypeError,
        "updater must have update() and iteration, got tuple; e.g. StandardUpdater(...).",
    ),
    "model in place of the updater": (lambda out: Trainer(nn.Linear(2, 3)), TypeError, "iteration, got Linear; e.g. S"),
    "clip_norm a text": (lambda out: updater(clip_norm="1"), ValueError, "clip_norm must be positive, or None for no"),
    "accumulate 0": (lambda out: updater(accumulate=0), ValueError, "accumulate must be 1 or more, got 0."),
    "precision fp8": (
        lambda out: updater(precision="fp8"),
        ValueError,
        "precision must be one of fp32, bf16, fp16, got",
    ),
    "n_retains 0": (lambda out: E.snapshot(n_retains=0), ValueError, "n_retains must be 1 or more, or -1 for all"),
    # -- triggers
    "(10, 'epochs')": (
        lambda out: Trainer(updater(), (10, "epochs")),
        ValueError,
        "unit must be 'iteration' or 'epoch', got 'epochs'; e.g. (10, 'epoch'). Did you mean 'epoch'?",
    ),
    "('epoch', 10)": (lambda out: Trainer(updater(), ("epoch", 10)), ValueError, "got 10; e.g. (10, 'epoch')."),
    "20 epochs as 20": (
        lambda out: Trainer(updater(), 20),
        TypeError,
        "a trigger must be (period, unit), a function of the trainer, or None, got 20; e.g. (20, 'epoch').",
    ),
    "('10', 'epoch')": (
        lambda out: Trainer(updater(), ("10", "epoch")),
        ValueError,
        "period must be a positive number of epochs, got '10'.",
    ),
    "(0, 'epoch')": (
        lambda out: Trainer(updater(), (0, "epoch")),
        ValueError,
        "must be a positive number of epochs, got",
    ),
    "a trigger's class": (
        lambda out: extend(out, E.LogReport(), trigger=OnceTrigger),
        TypeError,
        "a trigger must be an object, got the class OnceTrigger: write OnceTrigger(...).",
    ),
    "a trigger without an argument": (
        lambda out: extend(out, E.LogReport(), trigger=lambda: True),
        TypeError,
        "the trigger <lambda> takes (), but it is called as <lambda>(trainer): change its arguments.",
    ),
    "a stop trigger without an argument": (
        lambda out: Trainer(updater(), lambda: True),
        TypeError,
        "<lambda>(trainer)",
    ),
    "a trigger on a misspelt value": (
        lambda out: extend(out, E.snapshot(), trigger=MaxValueTrigger("main/acuracy")),
        KeyError,
        "'main/acuracy' was not observed since the last question, only .* Did you mean 'main/accuracy'\\?",
    ),
    "a scheduler on a misspelt value": (
        lambda out: plateau(out, "main/los"),
        ValueError,
        "monitor 'main/los' is not observed in this iteration, only .* Did you mean 'main/loss'\\?",
    ),
    "a misspelt observation": (
        lambda out: extend(out, lambda trainer: trainer.observation["main/los"]),
        KeyError,
        "'main/los' is not observed in this iteration, only ['main/accuracy', 'main/loss']. Did you mean 'main/loss'?",
    ),
    # -- models and optimizers
    "DataParallel around a Classifier": (
        lambda out: updater(model=nn.DataParallel(Classifier(nn.Linear(2, 3)))),
        ValueError,
        "model 'main' is in DataParallel, .*: wrap the predictor, Classifier\\(nn.DataParallel\\(predictor\\)\\).",
    ),
    "a scheduler in place of an optimizer": (
        lambda out: updater(optimizer=scheduler()),
        TypeError,
        "got StepLR, a scheduler: give its optimizer here, and extend(LRScheduler(scheduler)).",
    ),
    "an optimizer's class": (
        lambda out: updater(optimizer=torch.optim.SGD),
        TypeError,
        "optimizer 'main' must be a torch.optim.optimizer.Optimizer, got the class SGD: make an object of it.",
    ),
    "an optimizer of another model": (
        lambda out: updater(optimizer=torch.optim.SGD(nn.Linear(2, 3).parameters(), lr=0.1)),
        ValueError,
        "optimizer 'main' has no parameter of the models ['main'], so nothing would be trained",
    ),
    "model and optimizer swapped": (lambda out: swapped(), TypeError, "optimizer 'main' must be a torch.optim.opt"),
    "no model": (lambda out: StandardUpdater(None, scheduler().optimizer), TypeError, "argument: 'model'"),
    "a predictor's class": (
        lambda out: Classifier(nn.Linear),
        TypeError,
        "predictor must be a module or a function, go",
    ),
    "a loss's class": (
        lambda out: Classifier(nn.Linear(2, 3), nn.CrossEntropyLoss),
        TypeError,
        "lossfun must be a module or a function, got the class CrossEntropyLoss.",
    ),
    "a loss's name": (
        lambda out: Classifier(X, "mse"),
        TypeError,
        "predictor must be a module or a function, got tens",
    ),
    "a misspelt optimizer": (lambda out: updater().get_optimizer("mian"), ValueError, "there are ['main']."),
    "a misspelt attribute to shift": (
        lambda out: extend(out, E.ExponentialShift("learning_rate", 0.5)),
        ValueError,
        "attr 'learning_rate' is not a number in the parameter groups of SGD; there are ['lr'].",
    ),
    # -- iterators and data
    "an Evaluator on the training iterator": (
        lambda out: evaluate_the_training_iterator(out, True),
        ValueError,
        "iterator 'main' repeats, so an evaluation would never end; give it repeat=False.",
    ),
    "an Evaluator on the training iterator that ends": (
        lambda out: evaluate_the_training_iterator(out, False),
        ValueError,
        "validation's iterator 'main' is also the updater's, which each evaluation would take back to its beginning",
    ),
    "a data set in place of an iterator": (
        lambda out: updater(iterator=TensorDataset(torch.rand(4, 2))),
        TypeError,
        "got TensorDataset: a data set needs an iterator, SerialIterator(dataset, batch_size=32).",
    ),
    "a data set in place of the Evaluator's": (
        lambda out: evaluator(make_data()),
        TypeError,
        "got list: a data set nee",
    ),
    "a generator in place of an iterator": (
        lambda out: updater(iterator=(batch for batch in [1])),
        TypeError,
        "got generator: it cannot begin anew for the next epoch; give the DataLoader, or what it was made of.",
    ),
    "iter(loader) in place of the loader": (
        lambda out: updater(iterator=iter(DataLoader(make_data(), 5))),
        TypeError,
        "it cannot begin anew for the next epoch; give the DataLoader",
    ),
    "a generator as data": (
        lambda out: SerialIterator((i for i in range(3)), 1),
        TypeError,
        "dataset must have len() and [index], got generator: put what can only be iterated over into a list, or",
    ),
    "a data set without items": (lambda out: SerialIterator(NoItems(), 1), TypeError, "len() and [index], got NoItems"),
    "arguments of an iterator swapped": (lambda out: SerialIterator(5, make_data()), TypeError, "[index], got int"),
    "no data": (
        lambda out: SerialIterator([], 5),
        ValueError,
        "the data set is empty: there is nothing to iterate over",
    ),
    "batch_size 0": (lambda out: SerialIterator([1], 0), ValueError, "batch_size must be 1 or more, got 0."),
    "batch_size a float": (lambda out: SerialIterator([1], 2.5), TypeError, "batch_size must be an integer, got 2.5."),
    "collate_fn=list": (
        lambda out: train(out, iterator=DataLoader(make_data(), 5, collate_fn=list)),
        TypeError,
        "The parts of the batch are samples, not put together: leave collate_fn=list out.",
    ),
    "a converter without device": (
        lambda out: updater(converter=lambda batch: batch),
        TypeError,
        "converter takes (batch), but it is called as converter(batch, device): change its arguments.",
    ),
    "labels (N,) under binary cross entropy": (
        lambda out: train_on(
            lambda i: (X, 1.0), out, model=Classifier(nn.Linear(2, 1), F.binary_cross_entropy_with_logits, accfun=None)
        ),
        ValueError,
        "The scores have shape (5, 1) and the labels (5,): pass t.view_as(y) to the loss.",
    ),
    "integer labels under binary cross entropy": (
        lambda out: train_on(
            lambda i: (X, torch.tensor([1])),
            out,
            model=Classifier(nn.Linear(2, 1), F.binary_cross_entropy_with_logits, accfun=None),
        ),
        RuntimeError,
        "The labels are int64 and the scores float32: make them t.float() in the data set.",
    ),
    "accuracy as the loss": (
        lambda out: train(out, model=Classifier(nn.Linear(2, 3), accuracy)),
        TypeError,
        "lossfun returned a Ratio, and a loss is needed: a tensor of shape ().",
    ),
    "soft labels under a loss of one's own": (
        lambda out: train_on(
            lambda i: (X, torch.eye(3)[0]), out, model=Classifier(nn.Linear(2, 3), lambda y, t: (y - t).square().mean())
        ),
        ValueError,
        "accfun=None, to report the loss alone; for class probabilities accfun=lambda y, t: accuracy(y, t).",
    ),
    "a shift's arguments swapped": (
        lambda out: E.MultistepShift("lr", [2, 4], 0.1),
        TypeError,
        "gamma must be a number, got [2, 4]; the arguments of MultistepShift are attr, gamma, step_value, init",
    ),
    "a shift with a trigger for a range": (
        lambda out: E.LinearShift("lr", (0.1, 0.01), (1, "epoch")),
        TypeError,
        "time_range must be numbers, got (1, 'epoch'); the arguments of LinearShift are attr, value_range, time_range",
    ),
    "an optimizer for its name": (
        lambda out: updater().get_optimizer(scheduler().optimizer),
        ValueError,
        "there is no optimizer SGD; there are ['main'].",
    ),
    "a value named by a number": (
        lambda out: extend(out, lambda trainer: report({3: 1.0})),
        TypeError,
        "the names of reported values must be str, got [3].",
    ),
    "another program's state": (
        lambda out: make_run(out).load_state_dict({"models": {}}),
        ValueError,
        "it is not the state of a run of Kusari: take one that snapshot() wrote.",
    ),
    "a log outside of the run's folder": (
        lambda out: E.LogReport(filename="../log"),
        ValueError,
        "filename must lie in the run's folder, got '../log': give Trainer another out.",
    ),
    "two plots in one file": (
        lambda out: Trainer(updater(), (1, "epoch"), out, [E.PlotReport("main/loss"), E.PlotReport("lr")]).run(False),
        ValueError,
        "two PlotReports draw plot.png: give one of them another filename.",
    ),
    "out an empty text": (lambda out: Trainer(updater(), out=""), TypeError, "out must name a folder, got ''."),
    "batch_size a bool": (lambda out: SerialIterator([1], True), TypeError, "batch_size must be an integer, got True."),
    "n_retains a float": (lambda out: E.snapshot(n_retains=1.5), ValueError, "n_retains must be 1 or more, or -1 for"),
    # -- extensions
    "a trigger as extension": (
        lambda out: extend(out, EarlyStoppingTrigger(), name="stop"),
        TypeError,
        "EarlyStoppingTrigger is a trigger: give it to Trainer(updater, EarlyStoppingTrigger(...)), or extend(ext",
    ),
    "finalize(self, manager)": (
        lambda out: extend(out, NoFinalize()),
        TypeError,
        "NoFinalize.finalize takes (manager), but it is called as finalize(): change its arguments.",
    ),
    "initialize(self)": (
        lambda out: extend(out, NoInitialize()),
        TypeError,
        "NoInitialize.initialize takes (), but it is called as initialize(trainer): change its arguments.",
    ),
    "__call__(self)": (
        lambda out: extend(out, NoCall()),
        TypeError,
        "NoCall takes (), but it is called as NoCall(trai",
    ),
    "on_error(self, trainer)": (
        lambda out: extend(out, NoError()),
        TypeError,
        "it is called as on_error(trainer, exc, tb",
    ),
    "a function without an argument": (
        lambda out: extend(out, lambda: None),
        TypeError,
        "<lambda> takes (), but it is called as <lambda>(trainer): change its arguments.",
    ),
    "a scheduler as extension": (
        lambda out: extend(out, scheduler()),
        TypeError,
        "extend takes a function of the trainer or an Extension, got StepLR; e.g. extend(LRScheduler(scheduler)).",
    ),
    "a model as extension": (
        lambda out: extend(out, nn.Linear(2, 3)),
        TypeError,
        "extend takes a function of the trainer or an Extension, got Linear; e.g. extend(LogReport()).",
    ),
    "a list of extensions": (
        lambda out: extend(out, [E.LogReport()]),
        TypeError,
        "got list; e.g. extend(LogReport()).",
    ),
    "an extension's class": (
        lambda out: extend(out, E.LogReport),
        TypeError,
        "LogReport is a class; extend with an obj",
    ),
    "a function that makes an extension": (
        lambda out: extend(out, E.snapshot),
        TypeError,
        "snapshot makes an extension; call it: extend(snapshot(...)).",
    ),
    "a trigger in place of the name": (
        lambda out: extend(out, E.LogReport(), (1, "epoch")),
        TypeError,
        "the name of an extension must be a str, got (1, 'epoch'): write trigger=(1, 'epoch').",
    ),
    "PrintReport without LogReport": (
        lambda out: extend(out, E.PrintReport(["epoch"])),
        ValueError,
        "extension LogReport not found; there are ['PrintReport']. Write extend(LogReport()) too.",
    ),
    "a LogReport of another name": (
        lambda out: (run := make_run(out)).extend(type("Mine", (E.LogReport,), {})()) or run.get_extension("LogReport"),
        ValueError,
        "extension LogReport not found; there are ['Mine']. Did you mean 'Mine'?",
    ),
    "a list of its own called saved": (
        lambda out: extend(out, Collector()),
        TypeError,
        "Collector.saved names the attributes to save: write a tuple in the class, or rename yours.",
    ),
    "a misspelt extension": (
        lambda out: (run := make_run(out)).extend(E.LogReport()) or run.get_extension("LogReprt"),
        ValueError,
        "extension LogReprt not found; there are ['LogReport']. Did you mean 'LogReport'?",
    ),
    "report without a dict": (
        lambda out: extend(out, lambda trainer: report("loss")),
        TypeError,
        "report takes values by name, a dict such as {'loss': loss}, got 'loss'.",
    ),
    "report by a stranger": (
        lambda out: extend(out, lambda trainer: report({"x": 1}, nn.Linear(1, 1))),
        KeyError,
        "Given observer is not registered to the reporter: a Linear, and only ['main', 'main/predictor'] are; report",
    ),
    "a second run": (twice, RuntimeError, "cannot run training loop multiple times; make a new Trainer."),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_an_ordinary_mistake_is_told_what_to_do(tmp_path, name):
    make, kind, message = MISTAKES[name]
    torch.manual_seed(0)
    with pytest.raises(kind) as caught:
        make(tmp_path)
    text = str(caught.value)
    assert re.search(message, text) if ".*" in message or r"\d" in message else message in text, text


# name: what is done; what is warned of
WARNED = {
    "optimizer.lr = 5": (
        lambda run: setattr(run.updater.get_optimizer("main"), "lr", 5.0),
        "optimizer 'main' has an attribute lr = 5.0, which has no effect: set group['lr'] in optimizer.param_groups",
    ),
    "MicroAverage of misspelt values": (
        lambda run: run.extend(E.MicroAverage("main/los", "main/count", "average")),
        "MicroAverage: ['main/los', 'main/count'] were never observed together, only .* Did you mean 'main/loss'?",
    ),
    "early stopping on a misspelt value": (
        lambda run: setattr(run, "stop_trigger", EarlyStoppingTrigger(monitor="man/loss", max_trigger=(2, "epoch"))),
        "'man/loss' is not observed in this iteration, only .* Did you mean 'main/loss'?",
    ),
    "a plot of a misspelt value": (
        lambda run: run.extend(E.PlotReport(["main/loss", "main/acuracy"])),
        "plot.png lacks a curve: no value of ['main/acuracy'] came with 'iteration', only .* mean 'main/accuracy'?",
    ),
}


@pytest.mark.parametrize("name", WARNED)
def test_a_mistake_that_lets_the_run_go_on_is_warned_of(tmp_path, name):
    prepare, message = WARNED[name]
    run = make_run(tmp_path)
    prepare(run)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        run.run()
    pattern = re.escape(message).replace(r"\.\*", ".*")
    assert any(re.match(pattern, str(warning.message)) for warning in told), [str(w.message) for w in told]


def test_an_optimizer_in_a_wrapper_may_be_shifted_and_scheduled(tmp_path):
    model = Classifier(nn.Linear(2, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    wrapped = Wrapped(optimizer)
    run = Trainer(updater(model, optimizer=wrapped), (2, "epoch"), out=tmp_path)
    run.extend(E.ExponentialShift("lr", 0.5, optimizer=wrapped), trigger=(1, "epoch"))
    run.extend(E.LRScheduler(torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)))
    run.run()
    assert optimizer.param_groups[0]["lr"] < 0.05


def test_a_class_may_take_arguments_of_its_own_from_the_others():
    class Updater(StandardUpdater):
        def __init__(self, *args, **kwargs):
            self.models = kwargs.pop("models")
            super().__init__(*args, **kwargs)

    class Report(E.LogReport):
        def __init__(self, **kwargs):
            self.unit = kwargs.pop("unit", None)
            super().__init__(**kwargs)

    model = Classifier(nn.Linear(2, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    assert Updater(SerialIterator(make_data(), 5), optimizer, model=model, models=2).models == 2
    assert Report(unit=1, trigger=(1, "epoch")).unit == 1
    with pytest.raises(TypeError, match=r"LogReport.__init__\(\) got .* 'file_name'. Did you mean 'filename'\?$"):
        Report(file_name="x")


def test_an_updater_of_one_s_own_may_call_its_attributes_as_it_likes(tmp_path):
    class Updater(StandardUpdater):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.groups, self.modes, self.loss_state = 4, ["a"], None

    model = Classifier(nn.Linear(2, 3))
    own = Updater(SerialIterator(make_data(), 5), torch.optim.SGD(model.parameters(), lr=0.1), model=model)
    run = Trainer(own, (1, "epoch"), out=tmp_path)
    run.extend(E.snapshot())
    run.run()
    run.load_state_dict(run.state_dict())
    assert own.groups == 4 and own.modes == ["a"]


def test_an_extension_class_of_one_s_own_names_a_misspelt_argument_too():
    class Mine(Extension):
        def __init__(self, interval):
            self.interval = interval

        def __call__(self, trainer): ...

    with pytest.raises(
        TypeError, match=r"Mine.__init__\(\) got an unexpected keyword argument 'intervall'. Did you mean 'interv"
    ):
        Mine(intervall=3)
    assert Mine(interval=3).interval == 3


SCRIPT = """
import sys
sys.path[:0] = {path!r}
from helpers import make_run
from trainer import Classifier
run = make_run({out!r})
{mistake}
run.run()
"""

ENDS = {
    "an error without text": ("def bad(trainer):\n    assert trainer is None\nrun.extend(bad)", "AssertionError", 1),
    "a wrong model": (
        "run.updater.loss_func = run.updater.get_model('main').predictor",
        "Linear does not take the 2 parts of a batch",
        1,
    ),
    "labels out of range": (
        "run.updater.get_iterator('main').dataset[3:] = [(run.updater.get_iterator('main').dataset[0][0], 9)] * 7",
        "and the predictor has 3 classes",
        1,
    ),
    "a snapshot of another run": (
        "import torch, extensions\nrun.extend(extensions.snapshot())\nrun.run()\nrun = make_run({out!r}, n=20)\n"
        "run.resume({out!r} + '/snapshot_iter_4')",
        "does not fit this run: ",
        1,
    ),
}


@pytest.mark.parametrize("name", ENDS)
def test_an_error_ends_in_one_traceback_and_its_text_is_not_told_twice(tmp_path, name):
    mistake, text, count = ENDS[name]
    mistake = mistake.replace("{out!r}", repr(str(tmp_path / "out")))
    path = [os.path.dirname(__file__), os.path.dirname(os.path.dirname(__file__))]
    script = SCRIPT.format(path=path, out=str(tmp_path / "out"), mistake=mistake)
    (tmp_path / "script.py").write_text(script)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 1
    assert done.stderr.count("Traceback (most recent call last)") == 1, done.stderr
    told = [line for line in done.stderr.splitlines() if text in line]
    first = "Exception in main training loop: " in done.stderr
    assert len(told) == count + first, done.stderr
    if first:
        line = next(line for line in done.stderr.splitlines() if "Exception in main training loop" in line)
        assert re.match(r"Exception in main training loop: \w+(: \S| at \w+\.py:\d+ in \w+)", line), line
