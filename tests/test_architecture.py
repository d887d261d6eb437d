"""The shape of the engine: how much of it a reader meets who follows one iteration.

``python tests/test_architecture.py`` prints the functions of one iteration in the order in which they are called.
"""

import ast
import re
import sys
import tempfile
import textwrap
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import torch
from test_size import count

import extensions
import trainer
from trainer import Classifier, StandardUpdater, Trainer
from trainer.iterators import SerialIterator

ROOT = Path(trainer.__file__).resolve().parent.parent

# Of one bare iteration. They fall when the engine is simplified; the aim is 35 functions in 7 files.
MOST_FUNCTIONS = 34
MOST_FILES = 7
MOST_CHANGES = 13  # of the file, from one call to the next

# Of the loop; the aim is a depth of 3.
LOOP = "_Loop"  # the class in trainer.py that is nothing but the loop
MOST_LOOP_FUNCTIONS = 3
MOST_LOOP_LINES = 60
MOST_LOOP_DEPTH = 3

COMPREHENSIONS = ("<listcomp>", "<dictcomp>", "<setcomp>")  # functions up to Python 3.11


def bare_run(out):
    """A run without any extension."""
    torch.manual_seed(0)
    data = [(torch.rand(2), i % 3) for i in range(40)]
    model = Classifier(torch.nn.Linear(2, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    updater = StandardUpdater(SerialIterator(data, 4), optimizer, model=model)
    return Trainer(updater, (2, "epoch"), out=out)


@contextmanager
def traced(calls):
    """Adds the project's functions that the block calls to a list, as (file, name, line), in order."""

    def note(frame, event, argument):
        code = frame.f_code
        path = Path(code.co_filename)
        is_ours = path.is_relative_to(ROOT) and not path.is_relative_to(ROOT / "tests")
        if event == "call" and is_ours and code.co_name not in COMPREHENSIONS:
            name = getattr(code, "co_qualname", code.co_name)  # co_qualname: Python 3.11
            calls.append((str(path.relative_to(ROOT)), name, code.co_firstlineno))

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(before)


def trace(out):
    """What one iteration in the middle of a run calls."""
    run, calls = bare_run(out), []
    for iteration in range(6):
        assert not run.finished
        with traced(calls) if iteration == 5 else nullcontext(), run.iteration():
            run.updater.update()
    run.finalize()
    return calls


def loop_size():
    """How many functions make the loop, their lines of code, and how deep their blocks are nested."""
    text = (ROOT / "trainer" / "trainer.py").read_text(encoding="utf-8")
    loop = [function for name, function in functions(ast.parse(text)) if name.startswith(f"{LOOP}.")]
    assert loop, f"trainer.py has no class {LOOP}: name the loop's class anew"
    sources = [textwrap.dedent("\n".join(text.splitlines()[f.lineno - 1 : f.end_lineno])) for f in loop]
    return len(loop), sum(map(count, sources)), max(map(depth_of, loop))


def functions(node, prefix=""):
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield from functions(child, f"{prefix}{child.name}.")
        elif isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield prefix + child.name, child


def depth_of(node):
    """How deep blocks are nested in a function: 1 for a loop, 2 for an ``if`` in it. ``elif`` adds nothing."""
    deepest = 0
    for child in ast.iter_child_nodes(node):
        is_elif = (
            isinstance(node, ast.If) and isinstance(child, ast.If) and child in node.orelse and len(node.orelse) == 1
        )
        is_block = isinstance(child, (ast.If, ast.For, ast.While, ast.With, ast.Try)) and not is_elif
        deepest = max(deepest, is_block + depth_of(child))
    return deepest


def sizes(calls):
    """How many functions there are, in how many files, and how often the file changes."""
    files = [file for file, _, _ in calls]
    changes = sum(a != b for a, b in zip(files, files[1:]))
    return len(set(calls)), len(set(files)), changes


def test_one_iteration_passes_through_few_functions_and_files(tmp_path):
    calls = trace(tmp_path)
    functions, files, changes = sizes(calls)
    listed = "\n".join(f"{file}:{line} {name}" for file, name, line in dict.fromkeys(calls))
    message = (
        f"one iteration goes through {functions} functions in {files} files with {changes} changes of file; at most"
        f" {MOST_FUNCTIONS}, {MOST_FILES} and {MOST_CHANGES} are meant:\n{listed}"
    )
    assert functions <= MOST_FUNCTIONS and files <= MOST_FILES and changes <= MOST_CHANGES, message


def test_the_loop_stays_small():
    functions, lines, depth = loop_size()
    assert functions <= MOST_LOOP_FUNCTIONS and lines <= MOST_LOOP_LINES and depth <= MOST_LOOP_DEPTH, (
        f"the loop has {lines} lines in {functions} functions, {depth} deep; at most {MOST_LOOP_LINES},"
        f" {MOST_LOOP_FUNCTIONS} and {MOST_LOOP_DEPTH} are meant"
    )


# -- docs/architecture.md


def section(title):
    """The lines of a section of the page, and the project's functions that it names, in order."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    text = page.split(f"## {title}\n")[1].split("\n## ")[0].strip()
    known = {
        name
        for floor in ("trainer", "extensions")
        for path in (ROOT / floor).rglob("*.py")
        for name, _ in functions(ast.parse(path.read_text(encoding="utf-8")))
    }
    spans = re.findall(r"`([\w.]+)`", text)
    classes = {name.split(".")[0] for name in known if "." in name}
    unknown = [s for s in spans if s.split(".")[0] in classes and "." in s and s not in {*known, "LogReport.log"}]
    assert not unknown, f"the page names what is not there: {unknown}"
    return text.splitlines(), [name for name in spans if name in known]


def names_of(calls):
    if sys.version_info < (3, 11):
        pytest.skip("the qualified names of functions are known from Python 3.11 on")
    return [name for _, name, _ in calls]


def assert_passed_in_order(title, calls):
    lines, named = section(title)
    called = iter(names_of(calls))
    assert len(lines) <= 25 and len(named) >= 8
    for name in named:
        assert name in called, f"{name} is not called after those that {title!r} names before it"


def test_the_page_tells_of_one_iteration_what_happens(tmp_path):
    lines, named = section("One iteration")
    assert len(lines) <= 25
    assert list(dict.fromkeys(named)) == list(dict.fromkeys(names_of(trace(tmp_path))))


def reporting_run(out):
    run = bare_run(out)
    run.extend(extensions.LogReport(trigger=(1, "iteration")))
    run.extend(extensions.snapshot(filename="snapshot"), trigger=(1, "iteration"))
    return run


def test_the_page_tells_of_one_value_what_happens(tmp_path):
    run, calls = reporting_run(tmp_path), []
    assert not run.finished
    with traced(calls), run.iteration():
        run.updater.update()
    run.finalize()
    assert_passed_in_order("One value", calls)


def test_the_page_tells_of_one_snapshot_what_happens(tmp_path):
    run, calls = reporting_run(tmp_path), []
    assert not run.finished
    with traced(calls), run.iteration():
        run.updater.update()
    run.finalize()
    resumed = reporting_run(tmp_path)
    with traced(calls):
        resumed.resume(tmp_path / "snapshot")
    assert_passed_in_order("One snapshot", calls)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        calls = trace(folder)
    last = None
    for file, name, line in calls:
        print(f"{'' if file == last else file:32} {line:4} {name}")
        last = file
    print("{} functions in {} files, {} changes of file".format(*sizes(calls)))
    print("the loop: {} functions, {} lines, {} deep".format(*loop_size()))
