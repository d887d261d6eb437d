"""The networks of the tutorials: their sizes to the number, and what is said of a name that is none."""

import re

import pytest
import timm
import torch
from torch import nn

from recipes.parts import networks


def count(network):
    return sum(p.numel() for p in network.parameters())


def conv(inputs, outputs, k):
    return inputs * outputs * k * k + outputs  # a kernel for each pair of channels, and the biases


def linear(inputs, outputs):
    return inputs * outputs + outputs


@pytest.mark.parametrize("name", networks.NETWORKS)
@pytest.mark.parametrize("batch", [1, 3])
def test_a_network_gives_a_score_for_each_class_of_each_image(name, batch):
    network = networks.create(name, 7)
    with torch.no_grad():
        assert network(torch.randn(batch, *networks.INPUTS[name])).shape == (batch, 7)


@pytest.mark.parametrize(
    ("name", "classes"), [("alexnet", 1000), ("alexnet_small", 10), ("lenet", 10), ("vgg_newts", 2)]
)
def test_a_network_has_the_tutorial_s_number_of_classes_of_its_own(name, classes):
    *_, head = networks.create(name, None).parameters()
    assert head.shape == (classes,)
    assert networks.NETWORKS.keys() == networks.INPUTS.keys()


def test_lenet_has_61706_parameters():
    expected = conv(1, 6, 5) + conv(6, 16, 5) + linear(16 * 5 * 5, 120) + linear(120, 84) + linear(84, 10)
    assert count(networks.lenet()) == expected == 61_706


ALEXNET_REST = conv(64, 192, 5) + conv(192, 384, 3) + conv(384, 256, 3) + conv(256, 256, 3)


def test_alexnet_small_has_40_million_parameters():
    classifier = linear(256 * 6 * 6, 4096) + linear(4096, 10)
    assert count(networks.alexnet_small()) == conv(3, 64, 3) + ALEXNET_REST + classifier == 40_241_994


def test_alexnet_has_61_million_parameters():
    classifier = linear(256 * 6 * 6, 4096) + linear(4096, 4096) + linear(4096, 1000)
    assert count(networks.alexnet()) == conv(3, 64, 11) + ALEXNET_REST + classifier == 61_100_840


def test_vgg_newts_has_3_5_million_parameters():
    channels = [3, 32, 64, 128, 256]
    blocks = sum(
        conv(inputs, outputs, 3) + conv(outputs, outputs, 3) + 2 * 2 * outputs  # a batch norm's scale and shift, twice
        for inputs, outputs in zip(channels, channels[1:])
    )
    classifier = linear(256 * 4 * 4, 512) + linear(512, 512) + linear(512, 2)
    assert count(networks.vgg_newts()) == blocks + classifier == 3_535_522


def test_lenet_s_layers_are_called_as_in_pytorch_s_tutorial():
    names = ("conv1", "conv2", "fc1", "fc2", "fc3")
    assert list(networks.lenet().state_dict()) == [f"{name}.{part}" for name in names for part in ("weight", "bias")]


def test_alexnet_small_drops_half_before_each_linear_layer():
    classifier = networks.alexnet_small().classifier
    assert [type(layer).__name__ for layer in classifier] == ["Dropout", "Linear", "ReLU", "Dropout", "Linear"]
    assert classifier[0].p == classifier[3].p == 0.5


def test_alexnet_small_shrinks_an_image_step_by_step():
    shapes, x = [], torch.randn(1, 3, 32, 32)
    network = networks.alexnet_small().eval()
    with torch.no_grad():
        for layer in network.features:
            x = layer(x)
            shapes += [tuple(x.shape[1:])] if isinstance(layer, (nn.Conv2d, nn.MaxPool2d)) else []
        assert shapes == [
            *((64, 30, 30), (64, 14, 14), (192, 14, 14), (192, 6, 6)),
            *((384, 6, 6), (256, 6, 6), (256, 6, 6), (256, 2, 2)),
        ]
        wide = network.avgpool(x)  # each of the 2x2 stands for 3x3 of the 6x6
    assert torch.equal(wide, x.repeat_interleave(3, 2).repeat_interleave(3, 3))


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_only_the_alexnets_drop_out_and_only_in_training(name):
    network = networks.create(name, 4)
    images = torch.randn(2, *networks.INPUTS[name])
    with torch.no_grad():
        network.train()
        assert torch.equal(network(images), network(images)) == ("alexnet" not in name)
        network.eval()
        assert torch.equal(network(images), network(images))


def test_vgg_newts_takes_images_of_64x64_only():
    with pytest.raises(RuntimeError, match=r"1x9216 and 4096x512"):
        networks.vgg_newts().eval()(torch.randn(1, 3, 96, 96))


def test_any_model_of_timm_can_be_made():
    network = networks.create("test_resnet.r160_in1k", 5)
    assert network.fc.out_features == 5 and network.pretrained_cfg["input_size"] == (3, 160, 160)
    assert networks.create("test_resnet", None).fc.out_features == 1000


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("resnet5", "resnet50"),
        ("lenet5", "lenet"),
        ("alexnetsmall", "alexnet_small"),
        ("resnet18.nope", "resnet18.tv_in1k"),
    ],
)
def test_an_unknown_name_is_answered_with_near_ones(name, near):
    told = (
        rf"timm has no model '{name}', but .*\b{re.escape(near)}[,;].* lists all of timm's, ours are alexnet, .*newts\."
    )
    with pytest.raises(ValueError, match=told):
        networks.create(name, 10)


def test_a_name_like_no_other_is_answered_with_where_the_names_are():
    with pytest.raises(ValueError, match=r"timm has no model '\?\?'; python -c .*list_models.* lists all"):
        networks.create("??", 10)


@pytest.mark.parametrize("name", ["lenet", "alexnet", "coatnet_0_224"])
def test_pretrained_is_refused_where_there_are_no_trained_weights(name):
    with pytest.raises(
        ValueError, match=rf"no trained weights for '{name}'; start without --pretrained, or take a model"
    ):
        networks.create(name, 10, pretrained=True)


class TransportError(Exception):
    """As httpx's and xet's: no OSError."""


@pytest.mark.parametrize("error", [FileNotFoundError("not in the cache"), TransportError("no route to host")])
def test_weights_that_cannot_be_fetched_are_said_so_with_what_to_do(monkeypatch, error):
    asked = []

    def download(repo_id, **kwargs):
        asked.append(repo_id)
        raise error

    monkeypatch.setattr(timm.models._hub, "hf_hub_download", download)
    told = (
        rf"weights of 'test_resnet' cannot .*{type(error).__name__}: {error}\); connect once.* HF_HOME .*--pretrained\."
    )
    with pytest.raises(OSError, match=told) as caught:
        networks.create("test_resnet", 10, pretrained=True)
    assert caught.value.__cause__ is error and asked[0] == "timm/test_resnet.r160_in1k"


def test_an_error_that_has_nothing_to_do_with_weights_stays_as_it_is(monkeypatch):
    def broken(name, **kwargs):
        raise TypeError("a defect")

    monkeypatch.setattr(timm, "create_model", broken)
    with pytest.raises(TypeError, match="a defect"):
        networks.create("test_resnet", 10)
