"""One training step aloud: everything that it prints is there, and true."""

import copy
import io
import re
from functools import partial

import pytest
import torch
from torch import nn

from recipes.parts import networks, one_step


@pytest.fixture(scope="module")
def told():
    """A network, what was told of it in sections 1 to 9, and whether both updates agreed."""
    torch.manual_seed(3)
    network = networks.lenet()
    before = copy.deepcopy(network.state_dict())
    torch.manual_seed(4)
    file = io.StringIO()
    agree = one_step.explain(network, file)
    sections = re.split(r"(?:^|\n\n)(?=\d\. )", file.getvalue())[1:]
    assert [int(section[0]) for section in sections] == list(range(1, 10))
    return network, before, dict(enumerate(sections, 1)), agree


@pytest.fixture(scope="module")
def again(told):
    """The same step written out: scores, norms of the first gradients, loss, gradient of conv1.bias, the new bias."""
    network = copy.deepcopy(told[0])
    torch.manual_seed(4)
    images = torch.randn(1, 1, 32, 32)
    scores = network(images)
    scores.backward(torch.randn(1, 10))
    norms = {name: p.grad.norm().item() for name, p in network.named_parameters()}
    network.zero_grad()
    loss = nn.functional.mse_loss(network(images), torch.randn(1, 10))
    loss.backward()
    bias = network.conv1.bias
    return scores, norms, loss, bias.grad, bias.detach().clone(), (bias - one_step.LR * bias.grad).detach()


def test_the_network_and_its_parameters_are_shown(told):
    network, _, sections, _ = told
    assert str(network) in sections[1]
    assert "10 tensors" in sections[2] and re.search(r"conv2\.weight +\(16, 6, 5, 5\) +2,400\n", sections[2])
    for name, p in network.named_parameters():
        assert re.search(rf"{name} +{re.escape(str(tuple(p.shape)))} +{p.numel():,}\n", sections[2])
    assert sections[2].endswith("61,706")


def test_the_scores_the_loss_and_the_gradients_are_those_of_the_same_seed(told, again):
    sections = told[2]
    scores, norms, loss, grad, _, _ = again
    assert str(scores) in sections[3] and "grad_fn=<AddmmBackward0>" in sections[3]
    for name, norm in norms.items():
        assert re.search(rf"{name} +{norm:.5f}(\n|$)", sections[4])
    assert str(loss) in sections[5] and "grad_fn=<MseLossBackward0>" in sections[5]
    assert "before: None\n" in sections[8] and f"after:  {grad}" in sections[8]


def test_the_way_back_leads_from_the_loss_to_the_first_layer(told):
    way = re.sub(r"\s+", " ", told[2][6].split("\n", 1)[1]).strip().split(" <- ")
    linear, relu, pool, conv = (f"{name}Backward0" for name in ("Addmm", "Relu", "MaxPool2DWithIndices", "Convolution"))
    flat = way[6]  # flatten is a view or a reshape
    assert flat in ("ViewBackward0", "ReshapeAliasBackward0")
    assert way == [
        *("MseLossBackward0", linear, relu, linear, relu, linear, flat),
        *(pool, relu, conv, pool, relu, conv, "AccumulateGrad"),
    ]


def test_the_whole_graph_ends_in_every_parameter_once(told):
    network, _, sections, _ = told
    lines = sections[7].splitlines()[1:]
    assert lines[:2] == ["   MseLossBackward0", "     AddmmBackward0"]
    callers, ends = {}, {}
    for line in lines:
        indent = len(line) - len(line.lstrip())
        callers[indent] = line.strip()
        if " of " in line:
            ends[line.split("AccumulateGrad of ")[1]] = callers[indent - 2]
    assert ends == {name: caller(name) for name, _ in network.named_parameters()}
    assert len(ends) == sum("AccumulateGrad" in line for line in lines)


def caller(name):
    """The function that a parameter goes into: a Linear's weight is transposed first."""
    if name.startswith("conv"):
        return "ConvolutionBackward0"
    return "TBackward0" if name.endswith("weight") else "AddmmBackward0"


def test_the_update_by_hand_is_sgd_s_to_the_bit(told, again):
    _, _, sections, agree = told
    *_, old, new = again
    assert agree is True and "They agree to the bit in all 10 tensors." in sections[9]
    printed = [float(number) for number in re.findall(r"[+-]\d\.\d{9}", sections[9])]
    assert printed == pytest.approx([old[0].item(), new[0].item(), new[0].item()], abs=1e-8)
    assert printed[0] != printed[1] == printed[2]


def test_the_network_stays_as_it_is(told):
    network, before, _, _ = told
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())


def test_another_update_is_told_to_differ(monkeypatch):
    monkeypatch.setattr(torch.optim, "SGD", partial(torch.optim.SGD, weight_decay=0.1))
    file = io.StringIO()
    assert one_step.explain(networks.lenet(), file) is False
    assert re.search(r"They differ, in conv1\.weight, .*fc3\.bias\.\n$", file.getvalue())
    assert "agree" not in file.getvalue()


def test_it_prints_to_standard_output_by_default(capsys):
    assert one_step.explain(networks.lenet())
    assert capsys.readouterr().out.startswith("1. The network")
