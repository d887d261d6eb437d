"""The table of a network's layers, and what it says of an input that does not fit."""

import subprocess
import sys
from pathlib import Path

import pytest

from recipes import summary
from recipes.parts import networks

ROOT = Path(__file__).parent.parent


def printed(capsys, *arguments):
    summary.main(list(arguments))
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 120
    return out


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        summary.main(list(arguments))
    assert caught.value.code == 2
    return capsys.readouterr().err


def row(table, name):
    (line,) = [line for line in table.splitlines() if f"({name})" in line]
    return " ".join(line.split(")", 1)[1].split())


def test_lenet_s_multiply_adds_are_one_for_each_weight_and_bias_at_each_position(capsys):
    table = printed(capsys, "lenet")
    conv1 = (5 * 5 * 1 + 1) * 6 * 28 * 28  # torchinfo counts the bias as one more weight
    conv2 = (5 * 5 * 6 + 1) * 16 * 10 * 10
    fc1, fc2, fc3 = (400 + 1) * 120, (120 + 1) * 84, (84 + 1) * 10  # ReLU, pooling and flatten count nothing
    assert row(table, "conv1") == f"[1, 6, 28, 28] 156 {conv1:,}"
    assert row(table, "conv2") == f"[1, 16, 10, 10] 2,416 {conv2:,}"
    assert row(table, "fc1") == f"[1, 120] 48,120 {fc1:,}"
    assert row(table, "pool2") == "[1, 16, 5, 5] -- --"
    assert conv1 + conv2 + fc1 + fc2 + fc3 == 423_038
    assert "Total params: 61,706\n" in table and "Total mult-adds: 423,038\n" in table


def test_the_input_and_the_classes_are_the_network_s_own_unless_given(capsys):
    assert row(printed(capsys, "vgg_newts"), "classifier").startswith("[1, 2]")
    table = printed(capsys, "test_resnet")
    assert "[1, 16, 80, 80]" in table and row(table, "fc").startswith("[1, 1000]")
    table = printed(capsys, "test_resnet", "--input", "3,64,48", "--classes", "5")
    assert "[1, 16, 32, 24]" in table and row(table, "fc").startswith("[1, 5]")
    assert printed(capsys, "test_resnet", "--input", "3x64x48", "--classes", "5") == table


def test_depth_decides_how_many_modules_within_modules_are_shown(capsys):
    lines = [len(printed(capsys, "vgg_newts", "--depth", str(depth)).splitlines()) for depth in (1, 2, 3)]
    assert lines[0] + 4 * 7 + 5 == lines[1] == lines[2]  # the layers of four blocks and of the classifier
    assert printed(capsys, "vgg_newts") == printed(capsys, "vgg_newts", "--depth", "2")


def test_a_count_that_torchinfo_cannot_make_is_said_to_be_too_low(capsys):
    assert printed(capsys, "test_vit").endswith("counted once: the multiply-adds are too few.\n")
    assert "too few" not in printed(capsys, "alexnet_small")


@pytest.mark.parametrize("text", ["3,224", "0,2,2", "3,-1,2", "three", "3,,3", ""])
def test_a_bad_input_is_refused_with_an_example(capsys, text):
    told = refused(capsys, "lenet", "--input", text)
    assert f"must be channels,height,width, each 1 or more, got {text!r}; e.g. 3,224,224" in told


@pytest.mark.parametrize(
    ("name", "shape", "reason", "own"),
    [
        ("lenet", "3,224,224", "to have 1 channels, but got 3 channels", "1,32,32"),
        ("lenet", "1,28,28", "cannot be multiplied (1x256 and 400x120)", "1,32,32"),
        ("alexnet", "3,16,16", "Output size is too small", "3,224,224"),
        ("vit_tiny_patch16_224", "3,64,64", "Input height (64) doesn't match model (224)", "3,224,224"),
    ],
)
def test_an_input_that_the_network_cannot_take_is_answered_with_one_that_it_can(capsys, name, shape, reason, own):
    told = refused(capsys, name, "--input", shape)
    assert f"{name} cannot take an input of {shape} (" in told and reason in told
    assert told.endswith(f"); it is made for {own}.\n")


def test_what_is_no_network_or_no_number_is_refused(capsys):
    assert "timm has no model 'lenett', but lenet, " in refused(capsys, "lenett")
    assert "--classes: must be 1 or more, got '0'" in refused(capsys, "lenet", "--classes", "0")
    assert "--depth: must be 1 or more, got 'x'" in refused(capsys, "lenet", "--depth", "x")


@pytest.mark.full
def test_it_runs_as_a_command_without_a_warning():
    command = [sys.executable, "-X", "utf8", str(ROOT / "recipes" / "summary.py"), "lenet"]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", cwd=ROOT)
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout == f"{summary.summarize('lenet')}\n"


def test_the_network_is_not_changed_by_being_summarised():
    info = summary.summarize("vgg_newts", classes=3)
    network = info.summary_list[0].module
    assert network.training and int(network.block1[1].num_batches_tracked) == 0
    assert info.total_params == sum(p.numel() for p in networks.vgg_newts(3).parameters())
