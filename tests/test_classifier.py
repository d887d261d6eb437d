"""A predictor with its loss and accuracy."""

import pytest
import torch

from trainer import Classifier, Ratio, Reporter, accuracy


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
    with pytest.raises(ValueError, match="label_key 2 is out of range: the batch has 2 positional parts"):
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
