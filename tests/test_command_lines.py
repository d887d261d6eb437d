"""The command line of every recipe and tool: an error is one line, without the usage before it."""

import importlib

import pytest

RECIPES = ["resnet_products", "alexnet_cifar10", "pets", "newts", "lenet_mnist"]
TOOLS = ["plot_log", "predict", "evaluate_run", "report", "runs", "show_samples", "summary"]


def call(name, arguments):
    return importlib.import_module(f"recipes.{name}").main(arguments)


@pytest.mark.parametrize("name", RECIPES + TOOLS)
@pytest.mark.parametrize("arguments", [["--no-such-option"], []], ids=["unknown option", "nothing"])
def test_an_error_is_one_line(name, arguments, capsys, monkeypatch, tmp_path):
    if name in (*RECIPES, "show_samples") and not arguments:
        arguments = ["--device", "cdua"]  # else it trains, or draws
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [f"{name}.py"])
    with pytest.raises(SystemExit) as stop:
        call(name, arguments)
    told = capsys.readouterr().err
    assert stop.value.code == 2 and "usage:" not in told
    lines = told.splitlines()
    assert len(lines) == 1 and ": error: " in lines[0], told


@pytest.mark.parametrize(
    ("name", "arguments", "hint"),
    [
        ("lenet_mnist", ["--epoch-s", "3"], "unrecognized arguments: --epoch-s 3 (did you mean --epochs?)"),
        ("resnet_products", ["--batchsize=3"], "unrecognized arguments: --batchsize=3 (did you mean --batch-size?)"),
        ("plot_log", ["log", "--key=x"], "no such file"),
        ("evaluate_run", ["run", " "], "unrecognized arguments:   (--help lists the options)"),
        ("plot_log", ["log", "--zzz"], "unrecognized arguments: --zzz (--help lists the options)"),
    ],
)
def test_an_unknown_option_has_its_like_named(name, arguments, hint, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        call(name, arguments)
    assert hint.lower() in capsys.readouterr().err.lower()
