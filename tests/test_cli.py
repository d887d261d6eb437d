"""The command ``kusari``: every recipe and tool by a name, help and mistakes at once, and what can really be typed."""

import importlib
import os
import shlex
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

from recipes import cli, evaluate_run, lenet_mnist, plot_log, predict, report, runs, summary
from recipes.parts import parser, tool_options

ROOT = Path(__file__).parent.parent
# A process that says how it ended, and that torch was not imported.
ALONE = """
import sys
from recipes.cli import main
try:
    main()
except SystemExit as end:
    print("ended", end.code or 0)
print({"torch", "numpy", "pandas"} & set(sys.modules))
"""


@pytest.fixture
def kusari(monkeypatch, capsys):
    """Runs a command as if it had been typed; returns the exit code, what was printed and the errors."""
    monkeypatch.setattr("sys.path", [*sys.path])

    def typed(*arguments):
        monkeypatch.setattr("sys.argv", ["/usr/bin/kusari", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        return code, *capsys.readouterr()

    return typed


def alone(*arguments):
    start = f"import sys; sys.argv = {['kusari', *arguments]!r}"
    command = [sys.executable, "-c", start + ALONE]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)


# -- at once


@pytest.mark.parametrize(
    "arguments",
    ["--help", "plot --help", "predict --help", "evaluate --help", "report --help", "runs --help", "summary --help"]
    + ["train", "train --help"],
)
def test_help_comes_without_torch(arguments):
    done = alone(*arguments.split())
    assert done.stdout.splitlines()[-1] == "set()" and done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("pedict x", "kusari: error: there is no command 'pedict': did you mean predict? (--help lists them)"),
        ("zzz", "kusari: error: there is no command 'zzz' (--help lists them)"),
        ("", "kusari: error: name a command (--help lists them)"),
        ("--hlp", "kusari: error: unrecognized arguments: --hlp (did you mean --help?)"),
        ("predict", "kusari predict: error: the following arguments are required: WEIGHTS, IMAGE"),
        ("evaluate r --splt", "kusari evaluate: error: unrecognized arguments: --splt (did you mean --split?)"),
        ("train resnet_product", "kusari: error: there is no recipe 'resnet_product': did you mean resnet_products? "
         "(kusari train lists them)"),
        ("train pet.py", "kusari: error: there is no file 'pet.py': did you mean pets? (kusari train lists them)"),
        ("finetune x --modl x", "kusari finetune: error: unrecognized arguments: --modl x (did you mean --model?)"),
        ("train pets --epochs x", "kusari train pets: error: argument --epochs: invalid int value: 'x'"),
        ("train --epochs 3", "kusari: error: the recipe comes first: kusari train NAME --epochs ..."),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_comes_without_torch(arguments, told):
    done = alone(*arguments.split())
    assert done.stderr == told + "\n" and done.stdout == "ended 2\nset()\n"


# -- what runs


def test_a_command_is_the_tool_of_a_file(kusari, monkeypatch, tmp_path):
    (tmp_path / "log").write_text('[{"epoch": 1, "main/loss": 0.5}]')
    seen = []
    options = {predict: ["run", "a.jpg"], evaluate_run: ["run"], report: ["run"], plot_log: ["log"], summary: ["lenet"]}
    for module, arguments in options.items():
        monkeypatch.setattr(module, "main", seen.append)
        name = module.__name__.partition(".")[2]
        assert kusari(parser.COMMANDS[name], *arguments) == (0, "", "") and seen.pop() == arguments
    code, out, error = kusari("runs", tmp_path)
    assert (code, error) == (0, "") and out.splitlines()[1].split()[0] == str(tmp_path)


def test_a_recipe_gets_all_that_follows_its_name(kusari, monkeypatch):
    seen = []
    monkeypatch.setattr(lenet_mnist, "main", seen.append)
    kusari("train", "lenet_mnist", "--seed", "1", "--epochs", "3")
    assert seen == [["--seed", "1", "--epochs", "3"]]


def test_an_interrupt_is_one_line(kusari, monkeypatch):
    def interrupted(argv):
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "main", interrupted)
    assert kusari("runs", ".")[0] == "kusari: interrupted."


def test_train_lists_the_recipes(kusari):
    code, out, _ = kusari("train")
    names = [line.split()[0] for line in out.splitlines()]
    assert code == 0 and set(names) == {*cli.recipe_names(), "kusari"} and {"pets", "newts"} <= set(names)


def test_a_recipe_of_one_s_own_runs_by_its_path(kusari, tmp_path):
    (tmp_path / "beside.py").write_text("TEXT = 'from beside'")
    file = tmp_path / "my_flowers.py"
    file.write_text(
        "import sys\nimport beside\n\ndef main(argv):\n    print(beside.TEXT, argv, __name__ in sys.modules)\n"
    )
    for _ in range(2):
        assert kusari("train", file, "--lr", "1") == (0, "from beside ['--lr', '1'] True\n", "")
    (tmp_path / "my-flowers.py").write_text("def main(argv):\n    print(argv)\n")
    assert kusari("train", tmp_path / "my-flowers.py") == (0, "[]\n", "")


@pytest.mark.parametrize("name", ["random.py", "torch.py", "predict_nothing.py"])
def test_a_file_that_is_no_recipe_is_refused(kusari, tmp_path, name):
    (tmp_path / name).write_text("")
    modules = dict(sys.modules)
    code, out, error = kusari("train", tmp_path / name)
    why = "is not a recipe: it has no main;" if "nothing" in name else "has the name of another module"
    assert (code, out, len(error.splitlines())) == (2, "", 1) and f"{name} {why}" in error
    assert sys.modules["random"] is modules["random"] and sys.modules["torch"] is torch


def test_completion_is_printed_or_what_it_needs_is_said(kusari, monkeypatch):
    stub = types.ModuleType("shtab")
    stub.FILE = "files"
    stub.complete = lambda whole, shell: f"{shell}:\n\t{whole.format_usage()}"
    monkeypatch.setitem(sys.modules, "shtab", stub)
    code, out, _ = kusari("--print-completion", "zsh")
    assert code == 0 and out.startswith("zsh:\n\tusage: kusari") and "evaluate" in out
    monkeypatch.setitem(sys.modules, "shtab", None)
    needed = "kusari: error: --print-completion needs shtab: pip install shtab\n"
    assert kusari("--print-completion", "bash") == (2, "", needed)
    assert "invalid choice: 'fish'" in kusari("--print-completion", "fish")[2]


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    start = f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.argv = ['kusari', 'train']"
    done = subprocess.run([sys.executable, "-c", start + ALONE], stdout=writing, stderr=subprocess.PIPE, cwd=ROOT)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


# -- what can be typed


@pytest.mark.parametrize(
    ("typed", "name", "command"),
    [
        (["/usr/bin/kusari", "train", "pets", "--lr", "1"], "pets", "kusari train pets"),
        (["kusari", "train", "my dir/own.py"], "own", "kusari train 'my dir/own.py'"),
        (["kusari", "finetune", "photos"], "finetune", "kusari finetune"),
        (["kusari", "train", "pets"], "evaluate_run", "kusari evaluate"),
        (["kusari", "runs", "."], "newts", "kusari train newts"),
        (["recipes/pets.py"], "pets", "python recipes/pets.py"),
        (["/usr/bin/pytest"], "pets", "python recipes/pets.py"),
        ([""], "pets", "python recipes/pets.py"),
        (["-c"], "report", "python recipes/report.py"),
        (["recipes/cli.py", "predict"], "predict", "python recipes/cli.py predict"),
    ],
)
def test_messages_name_the_command_that_was_typed(typed, name, command, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", typed)
    assert parser.command(name) == command
    assert parser.as_typed(f"as\n    python recipes/{name}.py x", name) == f"as\n    {command} x"


def test_a_script_that_is_started_from_elsewhere_is_named_by_its_path(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [str(ROOT / "recipes" / "pets.py")])
    for name in ("pets", "evaluate_run"):
        assert parser.command(name) == f"python {shlex.quote(str(ROOT / 'recipes' / name))}.py"


@pytest.mark.parametrize("name", tool_options.TOOLS)
def test_the_help_of_a_tool_shows_the_commands_as_they_are_typed(kusari, name):
    code, out, _ = kusari(parser.COMMANDS[name], "--help")
    assert code == 0 and f"kusari {parser.COMMANDS[name]} " in out and "python recipes" not in out
    assert out.startswith(f"usage: kusari {parser.COMMANDS[name]} ")


@pytest.mark.parametrize("name", ["resnet_products", "alexnet_cifar10", "pets", "newts", "lenet_mnist"])
def test_the_options_of_a_recipe_are_told_without_torch(name):
    done = alone("train", name, "--help")
    assert f"usage: kusari train {name} " in done.stdout and "--batch-size N" in done.stdout
    assert done.stdout.endswith("set()\n"), done.stdout[-200:]


def test_the_help_of_a_recipe_of_one_s_own_has_all_its_options_however_they_are_made(kusari, tmp_path):
    file = tmp_path / "my_options.py"
    file.write_text(
        "from recipes.parts.options import Options\n\ndef make():\n    return Options(__file__, 'Mine.', {'lr': 0.1})\n"
        "OPTIONS = make()\nfor name in ('--tall', '--wide'):\n    OPTIONS.add('model', name, help='pixels')\n"
        "def main(argv):\n    OPTIONS.parse(argv)\n"
    )
    code, out, error = kusari("train", file, "--help")
    assert (code, error) == (0, "") and "--tall" in out and "--wide" in out


@pytest.mark.parametrize("name", cli.recipe_names())
def test_the_help_without_torch_is_the_recipe_s_own(name):
    options = cli.options_of(cli.RECIPES / f"{name}.py")
    own = importlib.import_module(f"recipes.{name}").OPTIONS
    assert options is None or options.format_help() == own.format_help()
