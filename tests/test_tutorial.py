"""The tutorial, in both languages: its commands, code, pictures and links are of today."""

import inspect
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
from helpers import make_data

import extensions
from recipes import (
    alexnet_cifar10,
    evaluate_run,
    finetune,
    lenet_mnist,
    newts,
    pets,
    plot_log,
    predict,
    report,
    resnet_products,
    runs,
    show_samples,
    summary,
)
from trainer import Classifier, StandardUpdater
from trainer.iterators import SerialIterator

DOCS = Path(__file__).parent.parent / "docs"
PAGES = {name: (DOCS / name).read_text() for name in ("tutorial.md", "tutorial.ja.md")}
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
BLOCKS = BLOCK.findall(PAGES["tutorial.md"])
PYTHON = [block for kind, block in BLOCKS if kind == "python"]
COMMANDS = [line for kind, block in BLOCKS if kind == "bash" for line in block.splitlines()]
SCRIPTS = (
    *(alexnet_cifar10, evaluate_run, lenet_mnist, newts, pets, plot_log, predict, report, resnet_products),
    *(finetune, runs, show_samples, summary),
)
MAINS = {Path(script.__file__).stem: script for script in SCRIPTS}


class Parsed(Exception):
    """The command line was understood."""


def parse(command, monkeypatch):
    """Lets the script itself parse a command; nothing comes after that."""
    parsers = sys.modules["argparse"].ArgumentParser
    understand = parsers.parse_args

    def parse_args(parser, args=None, namespace=None):
        raise Parsed(understand(parser, args, namespace))

    python, path, *options = shlex.split(command)
    name = Path(path).stem
    assert (python, path) == ("python", f"recipes/{name}.py") and (DOCS.parent / path).exists()
    monkeypatch.setattr(parsers, "parse_args", parse_args)
    script = MAINS[name]
    with pytest.raises(Parsed) as parsed:
        script.main(options)
    return parsed.value.args[0]


def test_both_languages_show_the_same_code_and_output_in_the_same_order():
    assert BLOCK.findall(PAGES["tutorial.ja.md"]) == BLOCKS
    for text in PAGES.values():
        assert text.count("```") == 2 * len(BLOCKS)  # a block that is opened otherwise would be missed


def test_both_languages_show_the_same_pictures_in_the_same_order():
    shown = [re.findall(r"!\[[^]]+\]\(([^)]+)\)", text) for text in PAGES.values()]
    assert shown[0] == shown[1]


def test_every_picture_is_shown_and_every_shown_picture_is_there():
    shown = re.findall(r"!\[[^]]+\]\(([^)]+)\)", PAGES["tutorial.md"])
    assert sorted(shown) == sorted(f"tutorial/{path.name}" for path in (DOCS / "tutorial").iterdir())


def test_the_pictures_stay_small():
    assert sum(path.stat().st_size for path in (DOCS / "tutorial").iterdir()) < 1_500_000


@pytest.mark.parametrize("page", PAGES)
def test_every_relative_link_leads_to_a_file(page):
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", PAGES[page])
    assert targets
    for target in targets:
        assert target.startswith("http") or (DOCS / target).exists(), target


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("python ")])
def test_every_command_is_understood_by_its_script(command, monkeypatch):
    parse(command, monkeypatch)


def test_a_command_with_an_option_that_is_not_there_would_be_found(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        parse("python recipes/pets.py --sample --no-such-option", monkeypatch)
    assert "unrecognized arguments: --no-such-option" in capsys.readouterr().err


def test_commands_in_the_text_name_options_that_exist():
    known = {}
    for script in SCRIPTS:
        if hasattr(script, "OPTIONS"):
            known |= script.OPTIONS._option_string_actions
    for text in PAGES.values():
        spans = " ".join(re.findall(r"`([^`]+)`", BLOCK.sub("", text)))
        named = re.findall(r"--[a-z][a-z-]*", spans)
        assert "--pretrained" in named and set(named) <= known.keys()


def test_the_lines_of_the_recipe_are_those_of_its_main_in_their_order():
    lines = iter(line.strip() for line in inspect.getsource(resnet_products.main).splitlines())
    for shown in filter(None, PYTHON[1].splitlines()):
        assert shown in lines, shown  # each is looked for after the one before


def test_what_is_not_python_needs_no_more_than_a_shell():
    others = {command.split()[0] for command in COMMANDS if not command.startswith("python ")}
    assert others == {"awk", "cp", "cmp", "mkdir"}


def test_the_other_python_blocks_run(data, tmp_path, monkeypatch):
    from matplotlib import pyplot

    steps, _, stopping = PYTHON
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    Path("data/drawn_products").symlink_to(data)
    exec(steps, names := {})
    pyplot.close(names["figure"])
    assert names["cropped"].size == (40, 40) and Path("steps.png").stat().st_size > 1000

    network = torch.nn.Linear(2, 3)
    model = Classifier(network)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)  # no check is better than the first
    updater = StandardUpdater(SerialIterator(make_data(), 5), optimizer, model=model)
    exec(stopping, names := {"updater": updater, "network": network})
    valid = SerialIterator(make_data(4), 4, repeat=False)
    names["trainer"].extend(extensions.Evaluator(valid, model))
    names["trainer"].run()
    assert updater.epoch == 4  # the first is the best, and three more are not better
    assert (tmp_path / "result" / "best").exists()
