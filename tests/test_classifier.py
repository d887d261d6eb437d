"""A predictor with its loss and accuracy."""

import copy
import functools
import pickle
from functools import partial

import pytest
import torch
from torch.nn import functional as F

import extensions
from trainer import (
    Classifier,
    DictSummary,
    Observation,
    Ratio,
    Reporter,
    StandardUpdater,
    accuracy,
    binary_accuracy,
)
from trainer.iterators import SerialIterator
from trainer.summary import averaged


def observe(model, *args, **kwargs):
    reporter = Reporter()
    reporter.add_model("main", model)
    with reporter.scope({}) as observation:
        loss = model(*args, **kwargs)
    return loss, observation


def test_it_returns_the_loss_and_reports_loss_and_accuracy():
    model = Classifier(torch.nn.Identity())
    y, t = torch.eye(3)[[0, 1, 2, 0]] * 5, torch.tensor([0, 1, 1, 2])
    loss, observation = observe(model, y, t)
    assert torch.equal(loss, torch.nn.functional.cross_entropy(y, t))
    assert float(observation["main/loss"]) == loss.item()
    assert float(observation["main/accuracy"]) == 0.5
    assert observation["main/loss"].weight == 4


def test_it_keeps_no_tensor_on_itself():
    model = Classifier(torch.nn.Identity())
    before = set(vars(model))
    observe(model, torch.rand(4, 3, requires_grad=True), torch.tensor([0, 1, 2, 0]))
    assert set(vars(model)) == before
    assert not any(isinstance(value, torch.Tensor) for value in vars(model).values())


def test_ignored_labels_count_for_nothing():
    _, observation = observe(Classifier(torch.nn.Identity()), torch.eye(3), torch.tensor([0, 1, -100]))
    assert observation["main/accuracy"] == Ratio(2, 2)
    assert observation["main/loss"].weight == 2


def test_accuracy_takes_maps_and_probabilities():
    scores = torch.rand(2, 3, 4, 4)
    assert accuracy(scores, scores.argmax(1)) == Ratio(32, 32)
    soft = torch.tensor([[0.1, 0.9], [0.6, 0.4]])
    assert accuracy(soft, torch.tensor([[0.0, 1.0], [0.3, 0.7]])) == Ratio(1, 2)


def test_the_label_may_be_any_positional_or_keyword_argument():
    class Add(torch.nn.Module):
        def forward(self, a, b):
            return a + b

    a, b, t = torch.rand(2, 3), torch.rand(2, 3), torch.tensor([0, 1])
    expected = torch.nn.functional.cross_entropy(a + b, t)
    assert torch.equal(Classifier(Add())(a, b, t), expected)
    assert torch.equal(Classifier(Add(), label_key=0)(t, a, b), expected)
    assert torch.equal(Classifier(Add(), label_key=-2)(a, t, b), expected)
    assert torch.equal(Classifier(Add(), label_key="t")(a=a, b=b, t=t), expected)


def test_a_label_that_is_not_there_is_an_error():
    model = Classifier(torch.nn.Identity(), label_key=2)
    with pytest.raises(ValueError, match="label_key 2 is not found: the batch has 2 positional parts"):
        model(torch.rand(1, 3), torch.tensor([0]))
    with pytest.raises(ValueError, match="label_key 't' is not found: the batch has the keys \\['x'\\]"):
        Classifier(torch.nn.Identity(), label_key="t")(x=1)
    with pytest.raises(TypeError, match="label_key must be int or str, got float"):
        Classifier(torch.nn.Identity(), label_key=0.5)


def test_accuracy_can_be_left_out_and_replaced():
    x, t = torch.rand(2, 3), torch.tensor([0, 1])
    model = Classifier(torch.nn.Identity(), accfun=lambda y, t: torch.tensor(0.25))
    assert float(observe(model, x, t)[1]["main/accuracy"]) == 0.25
    model.compute_accuracy = False
    assert set(observe(model, x, t)[1]) == {"main/loss"}


def test_the_loss_may_be_any_function():
    model = Classifier(torch.nn.Identity(), lossfun=lambda y, t: (y - t).abs().mean(), accfun=lambda y, t: Ratio(0, 1))
    assert model(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 0.0])).item() == 2


@pytest.mark.parametrize("t", [(1, 2), [1, 2], {"a": torch.tensor([1, 2])}])
def test_a_label_that_is_no_tensor_goes_to_functions_of_ones_own(t):
    model = Classifier(torch.nn.Linear(2, 3), lambda y, t: y.sum(), lambda y, t: 1.0)
    reporter = Reporter()
    reporter.add_model("main", model)
    with reporter.scope({}) as observation:
        model(torch.rand(2, 2), t)
    assert observation["main/accuracy"] == 1.0 and float(observation["main/loss"])


def batches(n):
    """Scores and labels of several sizes, some of them ignored."""
    generator = torch.Generator().manual_seed(0)
    for number in range(n):
        size = (4, 4, 7, 1)[number % 4]
        t = torch.randint(0, 3, (size,), generator=generator)
        t[torch.rand(size, generator=generator) < 0.2] = -100
        yield torch.rand(size, 3, generator=generator, dtype=(torch.float32, torch.float64)[number // 4 % 2]), t


def test_several_readers_at_several_times_see_the_same():
    model, whole, parts, means = Classifier(torch.nn.Identity()), DictSummary(), DictSummary(), []
    for number, (y, t) in enumerate(batches(12)):
        _, observation = observe(model, y, t)
        whole.add(observation)
        parts.add(observation, ["main/accuracy"])
        if number % 5 == 3:
            means.append(float(observation["main/accuracy"]))
        if number % 3 == 2:
            parts.compute_mean()
    expected = [accuracy(y, t) for y, t in batches(12)]
    total, count = (sum(int(part[i]) for part in expected) for i in (0, 1))
    assert whole.compute_mean()["main/accuracy"] == parts.compute_mean()["main/accuracy"] == total / count
    assert means == [float(expected[3]), float(expected[8])]


def test_what_is_counted_reads_as_the_number():
    y, t = torch.eye(3)[[0, 1, 2, 0]], torch.tensor([0, 1, 1, -100])
    _, observation = observe(Classifier(torch.nn.Identity()), y, t)
    value = observation["main/accuracy"]
    assert value == Ratio(2, 3) and value > 0.6 and f"{value:.3f}" == "0.667" and repr(value.total) == "tensor(2)"
    assert value.total + 1 == 3 and bool(value.count) and value.count.dtype == torch.int64
    assert observation["main/loss"].weight == 3
    for other in (copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
        assert other == Ratio(2, 3)
    mean = averaged([Observation(observation), Observation(observation)])
    assert mean["main/accuracy"] == Ratio(4, 6) and float(mean["main/loss"].weight) == 6


def test_scores_and_labels_may_change_before_they_are_counted():
    weight, t = torch.nn.Parameter(torch.eye(3)), torch.tensor([0, 1, 2])
    _, observation = observe(Classifier(torch.nn.Identity()), weight.expand(3, 3), t)
    weight.data.neg_()
    t.zero_()
    assert observation["main/accuracy"] == Ratio(3, 3)


def test_one_value_may_be_added_twice():
    summary = DictSummary()
    _, observation = observe(Classifier(torch.nn.Identity()), torch.eye(3), torch.tensor([0, 1, 1]))
    summary.add(observation)
    summary.add(observation)
    assert summary.compute_mean()["main/accuracy"] == 2 / 3


@pytest.mark.parametrize("t", [torch.tensor([[0], [1], [1]]), torch.tensor(1), torch.eye(3, dtype=int)])
def test_labels_of_another_shape_are_refused_where_they_would_be_compared_crosswise(t):
    told = r"accuracy takes class numbers of shape \(3,\) with scores of shape \(3, 3\), got labels of shape \("
    with pytest.raises(ValueError, match=told):
        observe(Classifier(torch.nn.Identity(), lossfun=lambda y, t: y.mean()), torch.eye(3), t)


@pytest.mark.parametrize("shape", [(1000, 5), (2, 3, 4)])
def test_large_scores_and_maps_are_counted_at_once(shape):
    y = torch.rand(shape)
    _, observation = observe(Classifier(torch.nn.Identity()), y, y.argmax(1))
    assert type(observation["main/accuracy"].total) is torch.Tensor
    assert float(observation["main/accuracy"]) == 1.0


def test_accuracy_is_counted_in_inference_mode_too():
    with torch.inference_mode():
        _, observation = observe(Classifier(torch.nn.Identity()), torch.eye(3), torch.tensor([0, 1, 1]))
    assert observation["main/accuracy"] == Ratio(2, 3)


CLASSES = torch.tensor([0.2, 1.0, 5.0])
LOSSES = {
    "ignored": torch.nn.CrossEntropyLoss(ignore_index=255),
    "weighted": torch.nn.CrossEntropyLoss(CLASSES),
    "both": torch.nn.CrossEntropyLoss(CLASSES, ignore_index=255, label_smoothing=0.1),
    "a partial": functools.partial(F.cross_entropy, weight=CLASSES, ignore_index=255),
    "nll": torch.nn.NLLLoss(CLASSES, ignore_index=255),
}


@pytest.mark.parametrize("compute_accuracy", [True, False])
@pytest.mark.parametrize("name", LOSSES)
def test_means_over_batches_are_those_of_the_whole_set_whatever_a_loss_leaves_out_or_weighs(name, compute_accuracy):
    torch.manual_seed(0)
    y, t = torch.randn(12, 3, 4), torch.randint(0, 3, (12, 4))
    if name != "weighted":
        t[torch.rand(12, 4) < 0.4] = 255
        t[0] = 255  # a batch in which nothing counts
    model, summary = Classifier(torch.nn.Identity(), LOSSES[name]), DictSummary()
    model.compute_accuracy = compute_accuracy
    for part, labels in zip(y.split([1, 2, 4, 5]), t.split([1, 2, 4, 5]), strict=True):
        summary.add(observe(model, part, labels)[1])
    mean = summary.compute_mean()
    assert mean["main/loss"] == pytest.approx(float(LOSSES[name](y, t)), rel=1e-6)
    if compute_accuracy:
        counts = t != 255
        assert mean["main/accuracy"] == pytest.approx(float((y.argmax(dim=1) == t)[counts].float().mean()), rel=1e-6)


@pytest.mark.parametrize("name", ["ignored", "weighted", "both"])
def test_accumulated_batches_make_the_step_of_one_whatever_a_loss_leaves_out_or_weighs(name):
    torch.manual_seed(0)
    data = [(torch.randn(4), i % 3 if i % 4 or name == "weighted" else 255) for i in range(8)]
    steps = []
    for k in (1, 4, 8):
        torch.manual_seed(1)
        model = Classifier(torch.nn.Linear(4, 3), LOSSES[name])
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        StandardUpdater(SerialIterator(data, 8 // k, shuffle=False), optimizer, model=model, accumulate=k).update()
        steps.append(model.predictor.weight.detach().clone())
    assert torch.allclose(steps[0], steps[1], rtol=1e-5) and torch.allclose(steps[0], steps[2], rtol=1e-5)


NO_CLASSES = {
    "one output": (torch.zeros(4, 1), torch.zeros(4, dtype=int), F.cross_entropy),
    "one output, probabilities": (torch.zeros(4, 1), torch.zeros(4, 1), F.cross_entropy),
    "scores alone": (torch.zeros(4), torch.zeros(4), F.binary_cross_entropy_with_logits),
    "binary": (torch.zeros(4, 1), torch.zeros(4, 1), F.binary_cross_entropy_with_logits),
    "binary by a module": (torch.zeros(4, 1), torch.zeros(4, 1), torch.nn.BCEWithLogitsLoss()),
    "several labels": (torch.zeros(4, 3), torch.zeros(4, 3), F.binary_cross_entropy_with_logits),
    "regression": (torch.zeros(4, 1), torch.zeros(4, 1), F.mse_loss),
    "regression of several": (torch.zeros(4, 3), torch.zeros(4, 3), F.mse_loss),
    "class numbers as floats": (torch.zeros(4, 3), torch.zeros(4), lambda y, t: F.cross_entropy(y, t.long())),
}


@pytest.mark.parametrize("name", NO_CLASSES)
def test_accuracy_refuses_what_are_no_class_numbers_and_says_what_to_write(name):
    y, t, lossfun = NO_CLASSES[name]
    told = r"accuracy is for class numbers, but .*accfun=binary_accuracy\), from trainer; for other targets accfun=None"
    with pytest.raises(ValueError, match=told):
        Classifier(torch.nn.Identity(), lossfun)(y, t)
    alone = Classifier(torch.nn.Identity(), lossfun, accfun=None)
    if lossfun is F.cross_entropy:
        with pytest.raises(ValueError, match=r"cross entropy of scores of shape \(4, 1\), of one class, is always 0"):
            alone(y, t)
        return
    loss, observation = observe(alone, y, t)
    assert list(observation) == ["main/loss"] and torch.isfinite(loss)


def test_probabilities_are_labels_under_cross_entropy():
    y, t = torch.eye(3), torch.tensor([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0], [0.0, 0.0, 1.0]])
    for lossfun in (F.cross_entropy, torch.nn.CrossEntropyLoss(), partial(F.cross_entropy, label_smoothing=0.1)):
        _, observation = observe(Classifier(torch.nn.Identity(), lossfun), y, t)
        assert observation["main/accuracy"] == Ratio(2, 3)


def test_binary_accuracy_counts_each_score_against_its_label():
    y = torch.tensor([2.0, -1.0, 0.0, -0.5, 3.0])
    t = torch.tensor([1, 0, 1, 1, -1])
    for shape in ((5,), (5, 1)):
        for labels in (t, t.float(), t[:, None], t[:, None].float()):
            assert binary_accuracy(y.reshape(shape), labels) == Ratio(3, 4)
    several = torch.tensor([[2.0, -1.0], [0.5, -0.5]])
    assert binary_accuracy(several, torch.tensor([[1, 0], [0, 0]])) == Ratio(3, 4)
    assert binary_accuracy(y, torch.tensor([1, 0, 1, 1, 9]), ignore_index=9) == Ratio(3, 4)
    assert binary_accuracy(y[:, None], torch.ones(5, 1, dtype=bool)) == Ratio(3, 5)


@pytest.mark.parametrize("shapes", [((4, 2), (4,)), ((4,), (3,)), ((4, 1), (1, 4)), ((2, 2), (4,)), ((4, 3), (4, 1))])
def test_binary_accuracy_refuses_shapes_that_would_be_compared_crosswise(shapes):
    y, t = map(torch.zeros, shapes)
    with pytest.raises(ValueError, match="binary_accuracy takes a label for each score, got scores of shape"):
        binary_accuracy(y, t)


def test_a_binary_classifier_reports_the_share_of_right_answers(tmp_path):
    torch.manual_seed(0)
    x = torch.randn(100, 2)
    t = (torch.rand(100, 1) > 0.5).float()
    model = Classifier(torch.nn.Linear(2, 1), F.binary_cross_entropy_with_logits, binary_accuracy)
    result = extensions.Evaluator(SerialIterator(list(zip(x, t)), 30, repeat=False, shuffle=False), model)()
    with torch.no_grad():
        right = ((model.predictor(x) >= 0).float() == t).float().mean()
        loss = F.binary_cross_entropy_with_logits(model.predictor(x), t)
    assert result["main/accuracy"] == pytest.approx(float(right)) and 0.2 < float(right) < 0.8
    assert result["main/loss"] == pytest.approx(float(loss))
