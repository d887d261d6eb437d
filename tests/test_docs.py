"""What rots elsewhere: examples, links, exports, the direction of imports."""

import ast
import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from helpers import make_run

import trainer

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs"))
from build_reference import MODULES, build, public_names  # noqa: E402

SOURCES = [path.relative_to(ROOT) for floor in ("trainer", "extensions") for path in (ROOT / floor).rglob("*.py")]
NAMES = [(module, name) for module in MODULES for name in public_names(module)]


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_the_examples_in_docstrings_run(source, tmp_path):
    module = importlib.import_module(".".join(source.with_suffix("").parts).removesuffix(".__init__"))
    for example in doctest.DocTestFinder().find(module, module.__name__):
        folder = tmp_path / example.name
        example.globs.update(run=make_run(folder), tmp=folder)
        folder.mkdir()
        result = doctest.DocTestRunner().run(example)
        assert result.failed == 0


@pytest.mark.parametrize(("module", "name"), NAMES, ids=str)
def test_every_public_name_has_a_docstring_with_an_example(module, name):
    value = getattr(importlib.import_module(module), name)
    if callable(value):
        assert ">>>" in value.__doc__ or "::" in value.__doc__


def test_the_reference_is_made_from_the_docstrings_of_today():
    assert (ROOT / "docs" / "reference.md").read_text() == build(), "run python docs/build_reference.py"


@pytest.mark.parametrize(
    "module", ["trainer", "trainer.iterators", "trainer.triggers", "trainer.updaters", "extensions"]
)
def test_what_a_package_imports_for_its_users_is_what_it_exports(module):
    package = importlib.import_module(module)
    tree = ast.parse(Path(package.__file__).read_text())
    imported = {a.asname or a.name for n in tree.body if isinstance(n, ast.ImportFrom) for a in n.names}
    defined = {n.name for n in tree.body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")}
    assert sorted(package.__all__) == sorted(imported - {"annotations", "Callable", "Any"} | defined)


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in sorted((ROOT / "docs").glob("*.md")))]
)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith("http"):
            assert (ROOT / page).parent.joinpath(target).exists(), target
    for name in re.findall(r"python (recipes/\w+\.py)", text):
        assert (ROOT / name).exists()


def test_the_readme_s_scripts_run(tmp_path, monkeypatch, capsys):
    script, function, plugin = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("smoothed.py").write_text(plugin)
    data = [(torch.rand(3, 32, 32), i % 12) for i in range(32)]
    names = {"train_data": data, "valid_data": data[:4], "device": "cpu"}
    script, end = script.rsplit("trainer.run()", 1)
    assert '"resnet18"' in script
    exec(script.replace("resnet18", "test_resnet"), names)  # each of its ten snapshots would take 130 MB
    exec(function, names)
    exec("from smoothed import Smoothed\ntrainer.extend(Smoothed('validation/main/accuracy'))", names)
    names["trainer"].run()
    out = capsys.readouterr().out
    assert "epoch 10: the weights' norm is " in out and "validation/main/accuracy" in out
    assert "smoothed/validation/main/accuracy" in names["trainer"].observation
    assert (tmp_path / "result" / "log").exists() and end == "\n"


# -- a run that is called trainer hides the package


def code_of(path):
    """The code of a script, or of all blocks of a page; of a diff its new side, of a docstring its examples."""
    text = path.read_text()
    if path.suffix == ".py":
        return text
    blocks = []
    for kind, block in re.findall(r"^ *```(python|diff|pycon)\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE):
        if kind == "diff":
            block = "\n".join(line[1:] for line in block.splitlines() if line[:1] in ("", " ", "+"))
        elif ">>>" in block:
            block = "".join(example.source for example in doctest.DocTestParser().get_examples(block))
        blocks.append(textwrap.dedent(block))
    return "\n".join(blocks)


def hides_the_package(code, run):
    """Whether code that uses the package ``trainer`` calls something else so."""
    nodes = list(ast.walk(ast.parse(code)))
    of_package = {*trainer.__all__, *(module.name for module in pkgutil.iter_modules(trainer.__path__))} - set(dir(run))
    imported = any(
        isinstance(node, ast.Import) and any(a.asname is None and a.name.split(".")[0] == "trainer" for a in node.names)
        for node in nodes
    )
    names = [node for node in nodes if isinstance(node, ast.Name) and node.id == "trainer"]
    read = {id(node) for node in names if isinstance(node.ctx, ast.Load)}
    used = any(isinstance(n, ast.Attribute) and id(n.value) in read and n.attr in of_package for n in nodes)
    return (imported or used) and any(isinstance(node.ctx, ast.Store) for node in names)


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += [*sorted((ROOT / "docs" / "examples").glob("*.py")), *sorted((ROOT / "recipes").rglob("*.py"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_page_calls_its_run_trainer_and_uses_the_package(page, run):
    assert not hides_the_package(code_of(page), run), "call the run something else: run = Trainer(...)"


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_no_docstring_calls_its_run_trainer_and_uses_the_package(source, run):
    for node in ast.walk(ast.parse((ROOT / source).read_text())):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
            examples = doctest.DocTestParser().get_examples(ast.get_docstring(node))
            assert not hides_the_package("".join(example.source for example in examples), run)


@pytest.mark.parametrize(
    ("code", "hides"),
    [
        ("import trainer\ntrainer = trainer.Trainer(updater)", True),
        ("import trainer.random\ndef main():\n    trainer = Trainer(updater)", True),
        ("from trainer import Trainer\ntrainer = Trainer(updater)\ntrainer.report({'x': 1})", True),
        ("from trainer import Trainer\ntrainer = Trainer(updater)\ntrainer.extend(f)\ntrainer.reporter", False),
        ("import trainer.random\nrun = Trainer(updater)\ndef f(trainer):\n    trainer.observation", False),
        ("import trainer as engine\ntrainer = engine.Trainer(updater)", False),
    ],
)
def test_a_hidden_package_is_found(code, hides, run):
    assert hides_the_package(code, run) == hides


# -- three floors


def imports(path):
    """Yields the modules that a file imports, in functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module


@pytest.mark.parametrize("path", SOURCES + [p.relative_to(ROOT) for p in (ROOT / "recipes").rglob("*.py")], ids=str)
def test_no_import_points_up(path):
    floors = ["trainer", "extensions", "recipes"]
    above = floors[floors.index(path.parts[0]) + 1 :]
    for name in imports(ROOT / path):
        top = name.split(".")[0]
        assert top not in above, f"{path} imports {name}"
        if path.parts[0] == "trainer":
            known = {"trainer", "torch", "numpy"} | sys.stdlib_module_names
            if path.name == "images.py":
                known |= {"PIL"}  # in the function that opens a file; see the last test
            assert top in known, f"{path} imports {name}"


def test_there_are_no_circles():
    graph = {}
    for path in SOURCES:
        name = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
        tree = ast.parse((ROOT / path).read_text())
        graph[name] = []
        for node in tree.body:  # those for types are in an if
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:  # from trainer import random: the file, not the package
                    path = ROOT.joinpath(*node.module.split("."), alias.name)
                    is_file = path.with_suffix(".py").exists() or path.is_dir()
                    graph[name].append(f"{node.module}.{alias.name}" if is_file else node.module)

    def walk(name, above):
        assert name not in above, f"a circle of imports: {[*above, name]}"
        for other in graph.get(name, []):
            walk(other, [*above, name])

    # A package's __init__ imports its files; a file that imports the package takes it for its names only.
    for name in graph:
        if not any(other.startswith(name + ".") for other in graph):
            walk(name, [])


def test_importing_engine_and_extensions_brings_nothing_beyond_torch_and_the_standard_library():
    code = (
        "import sys, torch, numpy; before = set(sys.modules); import trainer, extensions;"
        " print(*sorted({name.split('.')[0] for name in sys.modules.keys() - before} - sys.stdlib_module_names));"
        " print(*sorted(name for name in sys.modules.keys() - before if name.startswith('torch')))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert out == "extensions trainer\n\n"  # no torch._dynamo either, which would take a second


def test_the_page_on_reproducibility_runs_and_names_tests_that_exist(tmp_path, monkeypatch):
    page = (ROOT / "docs" / "reproducibility.md").read_text()
    for path in re.findall(r"`((?:tests|benchmarks)/[\w/]+\.py)`", page):
        assert (ROOT / path).exists(), path
    (script,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names = {"train_data": [(torch.rand(3, 4), i % 3) for i in range(16)], "__name__": "page"}
    exec(script, names)
    names["main"]()
    assert {"log", "snapshot_iter_4"} <= {path.name for path in Path("result").iterdir()}
