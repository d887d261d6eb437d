"""The size of the code: a budget of lines for each folder. It falls when code goes.

A line counts if it holds a token other than a comment, and is not part of a docstring.
``python tests/test_size.py`` prints the count of each file.
"""

import ast
import io
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

BUDGETS = {"engine": 3367, "data": 1796, "extensions": 2879, "recipes": 5356}
FILE_BUDGET = 250  # of a file of the engine or the data

DATA = ("iterators", "datasets", "convert.py", "cache.py", "datasets.py")  # in trainer/
NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def count(text):
    """The lines of code in a text of Python."""
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and type(first.value.value) is str:
                lines.difference_update(range(first.lineno, first.end_lineno + 1))
    return len(lines)


def counts(folder):
    """The count of each file of a folder of BUDGETS."""
    paths = sorted((ROOT / ("trainer" if folder in ("engine", "data") else folder)).rglob("*.py"))
    if folder in ("engine", "data"):
        is_data = {path: path.relative_to(ROOT / "trainer").parts[0] in DATA for path in paths}
        paths = [path for path in paths if is_data[path] == (folder == "data")]
    return {str(path.relative_to(ROOT)): count(path.read_text(encoding="utf-8")) for path in paths}


def test_what_counts():
    head = '"""Text."""\n\n# comment\ndef f(\n    x,  # a comment beside code\n):\n'
    text = head + '    """More\n    text."""\n    return """a\nb"""\n'
    assert count(text) == 5


@pytest.mark.parametrize("folder", BUDGETS)
def test_no_folder_grows(folder):
    total, budget = sum(counts(folder).values()), BUDGETS[folder]
    assert total <= budget, (
        f"{folder} has {total} lines of code, and its budget is {budget}: take as much away elsewhere. Only a feature"
        " may raise a budget, in its own commit, with the reason in the commit's message."
    )


def test_no_file_grows():
    sizes = counts("engine") | counts("data")
    large = {name: size for name, size in sizes.items() if size > FILE_BUDGET}
    assert not large, (
        f"{large} lines of code, and a file may have {FILE_BUDGET}: split it where a reader would. Only a feature may"
        " raise a budget, in its own commit, with the reason in the commit's message."
    )


if __name__ == "__main__":
    for folder, budget in BUDGETS.items():
        sizes = counts(folder)
        print(f"{folder}: {sum(sizes.values())} of {budget}")
        for name, size in sorted(sizes.items(), key=lambda item: -item[1]):
            print(f"    {size:4} {name}")
