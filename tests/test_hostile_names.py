"""Names of files and folders may hold anything: what a terminal obeys never reaches it, whoever prints the name."""

import ast
import csv
import io
import json
import logging
import os
import pty
import re
import shutil
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import make_run
from PIL import Image
from processes import call
from torch import nn

import recipes
from extensions import LogReport, PrintReport
from recipes import evaluate_run, newts, plot_log, predict, report, show_samples
from recipes.parts import networks
from recipes.parts.image_files import BadImageError, read_named
from recipes.parts.transforms import read_rgb
from trainer import report as observe
from trainer.checks import log, printable, warn

# ESC (also as one byte of C1), newline, carriage return, tab, bidirectional overrides, bytes that are no UTF-8; and
# what HTML, a formula of matplotlib's and a command line would take for theirs.
ESCAPES, LINES, BYTES = "a\x1b]0;x\x07\x9b2J", "c\nd\re\tf\u202eg\u2066\u2028", os.fsdecode(b"\xff\xfe")
HOSTILE = [ESCAPES, LINES, BYTES, "<b>&\"'$x^{2$", "-h"]
ORDINARY = "猫 🐱 Größe"
RAW = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
OWN = re.compile(r"\r\n|\r\x1b\[2A|\x1b\[J")  # line ends of the terminal's, and what ProgressBar and PrintReport write


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Classes of such names in train/ and test/ with files of such names, one of them broken."""
    root = tmp_path_factory.mktemp("names") / "data"
    rng = np.random.RandomState(0)
    for split in ("train", "test"):
        for name in (ORDINARY, *HOSTILE):
            (root / split / name).mkdir(parents=True)
            for file in (f"{ESCAPES}.png", f"{ORDINARY}.png"):
                Image.fromarray(rng.randint(0, 256, (8, 8, 3)).astype(np.uint8)).save(root / split / name / file)
        (root / split / BYTES / f"{LINES}{BYTES}.png").write_bytes(b"broken")
    return root


def everything(root, encoding, draws):
    """Trains on them, and calls every tool that prints or draws names."""
    sys.stdout.reconfigure(encoding=encoding, errors="strict")
    networks.vgg_newts = small_network
    os.chdir(root.parent)
    options = ["--data", "data", "--workers", "0", "--overwrite"]
    calls = [
        (newts, *options, "--out", "out", "--train", "--test", "--iterations", "10", "--on-bad-sample", "skip"),
        (newts, *options, "--out", "other", "--train", "--iterations", "2"),  # stops at the broken one
        (newts, "--data", f"data/{ESCAPES}{BYTES}"),
        (predict, "out", "data/test", "--format", "text", *(["--grid", "g.png"] if draws else [])),
        *((predict, "out", "data/test", "--format", form) for form in ("csv", "json")),
        (predict, f"out/{LINES}", "data"),
        (predict, "out", LINES),
        (plot_log, BYTES, "-o", "c.png", ESCAPES),
        (plot_log, "out/log", f"{LINES}/log", "-o", "c.png"),
        (report, "out", "--workers", "0"),
    ]
    if draws:
        calls += [(evaluate_run, "out", "--workers", "0"), (show_samples, "newts", "--data", "data")]
    for tool, *arguments in calls:
        try:
            if LINES in arguments[1]:
                Path(LINES).mkdir(exist_ok=True)
                shutil.copy("out/log", LINES)
            tool.main(arguments)
        except SystemExit as end:
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
    print("the end")


def small_network(n):
    return nn.Sequential(nn.AvgPool2d(16), nn.Flatten(), nn.Linear(48, n))


@pytest.mark.parametrize(
    ("encoding", "draws"),
    [("utf-8", False), *(pytest.param(*given, marks=pytest.mark.full) for given in (("utf-8", True), ("ascii", True)))],
)
def test_no_tool_prints_what_a_terminal_obeys(folders, encoding, draws):
    master, slave = pty.openpty()
    read = []

    def drain():
        while b"the end" not in b"".join(read[-2:]):
            read.append(os.read(master, 1 << 16))

    reader = threading.Thread(target=drain, daemon=True)
    reader.start()
    assert call(everything, folders, encoding, draws, output=os.ttyname(slave)) == 0
    reader.join(10)
    os.close(slave)
    os.close(master)
    text = OWN.sub("\n", b"".join(read).decode("utf-8", "surrogateescape"))
    assert "Traceback" not in text and "the end" in text
    assert not RAW.search(text), ascii(text[max(0, RAW.search(text).start() - 200) :][:300])
    for name in HOSTILE:
        assert printable(name) in text
    assert (ORDINARY in text) == (encoding == "utf-8") and ascii("猫")[1:-1] in text
    assert f"{printable(LINES + BYTES)}.png cannot be used: it is not an image" in text
    page = (folders.parent / "out" / "report.html").read_text(encoding="utf-8")
    assert not RAW.search(page) and ORDINARY in page and "&lt;b&gt;&amp;&quot;&#x27;" in page and "<b>" not in page
    classes = json.loads((folders.parent / "out" / "args.json").read_text("ascii"))["classes"]
    assert classes == sorted([ORDINARY, *HOSTILE])


# -- the places where text leaves


def test_printable_leaves_what_is_ordinary():
    for text in (ORDINARY, "", r"C:\new", "العربية עברית", "é e\u0301", "👩‍👩‍👧", "a b\u3000c"):
        assert printable(text) == text
    told = [r"a\x1b]0;x\x07\x9b2J", r"c\nd\re\tf\u202eg\u2066\u2028", r"\udcff\udcfe", *HOSTILE[3:]]
    assert [printable(name) for name in HOSTILE] == told
    assert printable("a\n\x1b", "\n") == "a\n\\x1b"


def test_warnings_messages_and_errors_of_images_are_printable(tmp_path, caplog):
    with pytest.warns(UserWarning, match=r"^no a\\x1b\]0;x\\x07\\x9b2J$"):
        warn(f"no {ESCAPES}")
    log(logging.WARNING, f"no {LINES}")
    assert caplog.messages == [f"no {printable(LINES)}"]
    with pytest.raises(BadImageError, match=r"c\\nd\\re\\tf.* cannot be used: there is no such file"):
        read_named(read_rgb, str(tmp_path / LINES))


def test_a_table_s_head_and_cells_are_printable(tmp_path):
    run, out = make_run(tmp_path, (1, "iteration")), io.StringIO()
    run.extend(lambda trainer: observe({ESCAPES: 1.0}), trigger=(1, "iteration"), name="observe")
    run.extend(LogReport(trigger=(1, "iteration"), postprocess=lambda entry: entry.update(text=LINES)))
    run.extend(PrintReport([ESCAPES, ORDINARY, "text"], out=out), trigger=(1, "iteration"))
    with pytest.warns(UserWarning, match="no entry of the log has"):
        run.run()
    head, row = out.getvalue().splitlines()
    assert head.split("  ")[0] == printable(ESCAPES) and ORDINARY in head
    assert row.index(printable(LINES)) == head.index("text")


def test_a_file_that_looks_like_an_option_is_told_with_how_to_name_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("-rf.jpg").touch()
    with pytest.raises(SystemExit):
        predict.main(["out", "a.jpg", "-rf.jpg"])
    assert capsys.readouterr().err.endswith("unrecognized arguments: -rf.jpg (if that is a file, write ./-rf.jpg)\n")


def test_recipes_print_by_say_and_stop_alone():
    for path in Path(recipes.__file__).parent.rglob("*.py"):
        if path.name not in ("parser.py", "one_step.py"):  # which prints its own network and numbers
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call):
                    assert ast.unparse(node.func) != "print", f"{path.name}, line {node.lineno}: write say(...)"
                    is_exit = ast.unparse(node.func) == "sys.exit"
                    assert not is_exit or isinstance(node.args[0], ast.Constant), (
                        f"{path.name}, line {node.lineno}: stop(...)"
                    )


# -- tables for spreadsheets


def test_a_text_that_a_spreadsheet_would_take_for_a_formula_gets_an_apostrophe_and_no_number_does():
    texts = ['=HYPERLINK("x")', "+1", "-1", "@a", "\t=1", "\r=1", "\n=1", "'=1", "a=1", ORDINARY, ""]
    image, row = torch.zeros(3, 4, 4, dtype=torch.uint8), np.array([-0.25, 1e-30, *[0] * 9], np.float32)
    found = [predict.Prediction(text, image, row) for text in texts]
    lines = csv.reader(io.StringIO("".join(predict.csv_lines(found, texts)), newline=""))
    head, *rows = lines
    guarded = [f"'{text}" for text in texts[:8]] + texts[8:]
    assert head[3:] == guarded and [cells[0] for cells in rows] == guarded
    assert {cells[1] for cells in rows} == {guarded[1]} and rows[0][3] == "-0.25"
    assert [text.removeprefix("'") if text[:1] == "'" else text for text in guarded] == texts, "it can be undone"


def test_a_table_in_a_file_has_the_names_as_they_are(folders, tmp_path, monkeypatch, capsys):
    if not (folders.parent / "out" / "args.json").exists():
        call(everything, folders, "utf-8", False)
    monkeypatch.setattr(networks, "vgg_newts", small_network)
    with pytest.raises(SystemExit, match="1 of 13 images could not be used"):
        predict.main([str(folders.parent / "out"), str(folders / "test"), "--format", "csv", "-o", str(tmp_path / "t")])
    with open(tmp_path / "t", encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(os.path.exists(row["path"]) for row in rows) and len(rows) == 12
    assert set(rows[0]) >= {*HOSTILE[:4], "'-h"}
