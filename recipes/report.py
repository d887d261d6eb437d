"""Writes one HTML page about a run, or about several side by side: curves, test, timing, arguments.

    python recipes/report.py result
    python recipes/report.py result other -o report.html

The page is one file, which needs no network and no script. Whatever the folder has is shown, also of a run that is
still in training; the network is tested when the page is made, and where its data or weights are missing it says so.
"""

from __future__ import annotations

import argparse
import base64
import html
import io
import itertools
import re
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image

from extensions import curves
from recipes import evaluate_run, plot_log
from recipes.parts import run_folder, tool_options, trained
from recipes.parts.parser import say
from trainer import saving
from trainer.checks import printable
from trainer.iterators import BadSampleError
from trainer.saving import check
from trainer.saving.files import parse_json, read_bytes

SAMPLES, LOG_ENTRIES = 12, 10
SMALL = 64  # pixels: up to here an image is stored as it is, and shown with its pixels; above as a JPEG
LARGE = 224  # pixels that are stored at most
ACCURACY = "validation/main/accuracy"
SPEED, EPOCH_TIME = "iterations per second", "seconds per epoch"
TITLES = {"lr": "Learning rate"}

# What curves.py draws in these colours is drawn in the page's own, which differ in light and dark.
PAGE_COLOURS = {colour.lower(): f"var(--line-{i})" for i, colour in enumerate(curves.COLOURS)}
PAGE_COLOURS |= {"#000000": "currentColor", "#e6e6e6": "var(--rule)"}
NOTHING = "\N{EN DASH}"  # where a table has no value
MARKS = {"X": "✖ ", curves.INFINITE: "∞ "}

_numbers = itertools.count()  # of charts

STYLE = """
:root {
  color-scheme: light dark;
  --page: #fdfdfc; --text: #1c1f23; --quiet: #5a6068; --rule: #dfe1e4; --link: #0b5cad;
  --right: 86 160 211; --wrong: 232 140 84; --good: #1a6f3c; --bad: #a8380f;
  --line-0: #0072b2; --line-1: #d55e00; --line-2: #008a64; --line-3: #b85c93; --line-4: #a87400; --line-5: #2f86bb;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --page: #14171a; --text: #e4e6e8; --quiet: #a0a7af; --rule: #33393f; --link: #7cb8f2;
    --right: 32 98 150; --wrong: 140 66 20; --good: #6fcf97; --bad: #f59a76;
    --line-0: #5ab0f0; --line-1: #ff9248; --line-2: #2cc79a; --line-3: #e39cc5; --line-4: #f2b632; --line-5: #8ccbf2;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 74rem; background: var(--page); color: var(--text);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  overflow-wrap: break-word; font-variant-numeric: tabular-nums;
}
a { color: var(--link); }
h1, h2, h3, h4 { line-height: 1.25; font-weight: 600; overflow-wrap: anywhere; }
h1 { font-size: 1.75rem; margin: 0 0 .25rem; }
h2 { font-size: 1.3rem; margin: 2.75rem 0 .75rem; padding-top: .75rem; border-top: 1px solid var(--rule); }
h3 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
h4 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
p { margin: .5rem 0; max-width: 46rem; }
.quiet, figcaption, caption, dt { color: var(--quiet); }
.missing { border-left: 3px solid var(--rule); padding: .25rem 0 .25rem .75rem; color: var(--quiet); }
.facts { display: flex; flex-wrap: wrap; gap: .75rem 2.25rem; margin: 1rem 0; }
.facts dt { font-size: .85rem; }
.facts dd { margin: 0; font-size: 1.35rem; line-height: 1.3; }
.facts small { font-size: .85rem; color: var(--quiet); }
.side { display: flex; flex-wrap: wrap; gap: 0 3rem; align-items: flex-start; }
.side > section { min-width: 0; max-width: 100%; }
.side p { max-width: 30rem; }
.scroll { overflow-x: auto; max-width: 100%; margin: .5rem 0; }
.scroll:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
table { border-collapse: collapse; font-size: .9rem; }
caption { text-align: left; font-size: .85rem; padding-bottom: .35rem; }
th, td { padding: .22rem .75rem .22rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--rule); }
th { font-weight: 500; }
thead th { color: var(--quiet); vertical-align: bottom; }
th[scope=row] { white-space: nowrap; }
td.number, th.number { text-align: right; padding-left: .5rem; white-space: nowrap; }
td.wrap { overflow-wrap: anywhere; min-width: 4.5rem; max-width: 26rem; }
tr.changed th, tr.changed td { font-weight: 650; }
td.bar {
  min-width: 6rem; padding-left: .4rem;
  background: linear-gradient(90deg, rgb(var(--right) / .35) calc(100% * var(--share)), transparent 0);
}
.matrix { font-size: .75rem; line-height: 1.2; }
.matrix th, .matrix td { padding: .25rem; border: 0; }
.matrix tbody td {
  min-width: 1.65rem; text-align: center; vertical-align: middle; box-shadow: inset 0 0 0 1px var(--rule);
  background: rgb(var(--wrong) / var(--share));
}
.matrix tbody td.diagonal { background: rgb(var(--right) / var(--share)); }
.matrix thead th { vertical-align: bottom; }
.matrix thead span { writing-mode: vertical-rl; transform: rotate(180deg); white-space: nowrap; }
.matrix.short thead span { writing-mode: horizontal-tb; transform: none; }
.matrix.short thead th { text-align: center; }
.matrix [scope=row] {
  position: sticky; left: 0; background: var(--page); text-align: right; vertical-align: middle; white-space: normal;
  max-width: 12rem;
}
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); gap: 1.25rem 1.5rem; }
.charts h3, .charts h4 { margin: 0; font-size: .95rem; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(8rem, 1fr)); gap: 1rem; }
figure { margin: 0; min-width: 0; break-inside: avoid; }
.charts figure { display: flex; flex-direction: column; }
.charts svg.chart { margin-top: auto; display: block; width: 100%; height: auto; }
.chart text { font-family: inherit !important; fill: currentColor; }
.pictures img {
  display: block; width: 100%; height: auto; aspect-ratio: 1; object-fit: contain; background: rgb(128 128 128 / .15);
}
.pictures img.small { image-rendering: pixelated; }
figcaption { font-size: .85rem; line-height: 1.35; overflow-wrap: anywhere; }
.pictures figcaption { margin-top: .35rem; }
.good { color: var(--good); } .bad { color: var(--bad); }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 0 1rem; margin: .15rem 0; padding: 0; }
.legend svg { margin-right: .35rem; vertical-align: middle; }
pre { font: .8rem/1.4 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; margin: 0; }
summary { cursor: pointer; color: var(--link); }
@media (max-width: 40rem) {
  .facts { display: grid; grid-template-columns: 1fr 1fr; gap: .6rem 1rem; }
  th[scope=row] { white-space: normal; }
  .facts dd { font-size: 1.2rem; }
  .matrix [scope=row] { max-width: 6.5rem; font-size: .7rem; }
}
@media print {
  :root { color-scheme: light; }
  body { max-width: none; padding: 0; font-size: 10pt; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  .scroll { overflow: visible; }
  .matrix { font-size: 6pt; }
  .matrix tbody td { min-width: 0; }
  tr { break-inside: avoid; }
  h2, h3, h4 { break-after: avoid; }
}
"""


class Run(NamedTuple):
    """What a run's folder says; ``saved`` and ``test`` are empty where their file is missing or broken."""

    folder: Path
    name: str
    entries: plot_log.Entries
    log: pd.DataFrame  # the same
    saved: dict[str, Any]  # args.json
    test: dict[str, Any]
    problems: dict[str, str]  # by file


def read_run(folder: str | Path) -> Run:
    """Reads a run's folder.

    Raises:
        FileNotFoundError: If there is no such folder, or no log in it.
        ValueError: If its log cannot be read, or has no entry yet.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}: name that of a run, as a recipe's --out does.")
    path = next((folder / name for name in ("log", "log.jsonl") if (folder / name).exists()), None)
    if path is None:
        raise FileNotFoundError(f"{folder} has no log: name a run's folder; a run that has just begun has none yet.")
    entries = plot_log.read_log(path)
    log = pd.DataFrame(entries)
    if not set(log.columns).intersection(plot_log.X_KEYS):
        raise ValueError(f"{path} has no epoch, iteration or elapsed_time: it is no log of a run.")
    for key in set(log.columns).intersection(plot_log.X_KEYS):
        log[key] = pd.to_numeric(log[key], errors="coerce")
    saved, test, problems = dict[str, Any](), dict[str, Any](), dict[str, str]()
    try:
        saved = run_folder.read_args(folder)
        if saved["recipe"] in trained.recipe_names():
            saved = run_folder.read_args(folder, trained.find_recipe(saved["recipe"]).OPTIONS)
    except FileNotFoundError:
        problems["args.json"] = "There is no args.json in the folder."
    except (OSError, ValueError) as error:
        problems["args.json"] = str(error)
    try:
        test = parse_json(read_bytes(folder / "test.json"))
        if not isinstance(test, dict):
            raise ValueError("it is no JSON object")
        check(test)
    except FileNotFoundError:
        problems["test.json"] = "There is no test.json: the run is still in training, or was stopped before its end."
    except (OSError, TypeError, ValueError) as error:
        test = {}
        problems["test.json"] = f"{folder / 'test.json'} cannot be read ({error})."
    return Run(folder, folder.resolve().name, entries, log, saved, test, problems)


# -- pieces of HTML: whatever comes from outside is escaped here


def escape(text: str) -> str:
    """Returns text as HTML, in an attribute too."""
    return html.escape(printable(text, "\n"))


def text_of(value: Any) -> str:
    """Returns a value as it is read in a table."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return NOTHING
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e9 else f"{value:.4g}"
    return str(value)


def percent(value: float | None) -> str:
    """Returns a share of 1 as it is read."""
    return NOTHING if value is None else f"{100 * value:.1f} %"


def duration(seconds: float) -> str:
    """Returns seconds as it is read."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    return f"{seconds / 60:.1f} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def breakable(text: str) -> str:
    """Returns escaped text that may break after an underscore or slash."""
    return re.sub(r"([_/])", r"\1<wbr>", escape(text))


def paragraph(text: str, kind: str = "") -> str:
    """Returns a paragraph."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def scroll(content: str, label: str) -> str:
    """Returns a box within which what is too wide is scrolled, with the keyboard, too."""
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(label)}">{content}</div>'


def table(label: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], marked: int = 0) -> str:
    """Returns a table: each row's first value is its head, and the first ``marked`` rows stand out."""
    rows = [list(row) for row in rows]
    is_number = [all(isinstance(row[i], (int, float, type(None))) for row in rows) for i in range(len(columns))]
    kinds = ["number" if number and i > 0 else "wrap" for i, number in enumerate(is_number)]
    head = "".join(
        f'<th scope="col" class="{kind}">{breakable(name)}</th>' for name, kind in zip(columns, kinds, strict=True)
    )
    lines = []
    for i, row in enumerate(rows):
        cells = "".join(
            f'<td class="{kind}">{breakable(text_of(value))}</td>'
            for value, kind in zip(row[1:], kinds[1:], strict=True)
        )
        changed = ' class="changed"' if i < marked else ""
        lines.append(f'<tr{changed}><th scope="row">{escape(text_of(row[0]))}</th>{cells}</tr>')
    body = f"<thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(lines) + "\n</tbody>"
    return scroll(f"<table>{body}</table>", label)


def facts(values: dict[str, tuple[str, str]]) -> str:
    """Returns a row of figures: by name what it is and a remark."""
    items = [
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)} <small>{escape(remark)}</small></dd></div>"
        for name, (value, remark) in values.items()
    ]
    return f'<dl class="facts">{"".join(items)}</dl>'


# -- curves


def draw_curves(runs: dict[str, dict[str, curves.Curve]], x: str, level: int) -> str:
    """Returns a chart for each quantity, as plot_log.py draws it, in the page's own font and colours."""
    charts = []
    for quantity, lines in curves.panels(runs).items():
        svg, entries = draw_chart(lines, x)
        title = TITLES.get(quantity, quantity[:1].upper() + quantity[1:])
        told = [line.label for line in lines if line.label != quantity]
        alt = f"{title} over {plot_log.X_LABELS[x]}" + (f": {', '.join(told)}" if told else "")
        key = "".join(
            f'<li><svg width="28" height="8" aria-hidden="true"><line x1="0" y1="4" x2="28" y2="4" stroke-width="2.5"'
            f' stroke="{PAGE_COLOURS[line.colour.lower()]}"'
            f' stroke-dasharray="{" ".join(f"{2.5 * length:g}" for length in line.dash) or "none"}"/></svg>'
            f"{escape(line.label)}</li>"
            for line in lines
            if line.label != quantity
        )
        key += "".join(f"<li>{escape(entry)}</li>" for entry in entries)
        legend = f'<figcaption><ul class="legend">{key}</ul></figcaption>' if key else ""
        svg = svg.replace("<svg", f'<svg class="chart" role="img" aria-label="{escape(alt)}"', 1)
        charts.append(f"<figure><h{level}>{escape(title)}</h{level}>{legend}{svg}</figure>")
    return f'<div class="charts">{"".join(charts)}</div>'


def draw_chart(lines: Sequence[curves.Line], x: str) -> tuple[str, list[str]]:
    """Returns the curves of one quantity as SVG to stand in a page, and what its legend says beside their names."""
    import matplotlib
    from matplotlib.figure import Figure

    style = {"svg.fonttype": "none", "svg.hashsalt": "report", "font.size": 11, "path.simplify_threshold": 0.5}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(4.4, 2.9), layout="constrained")
        entries = curves.draw_panel(figure.add_subplot(), lines, plot_log.X_LABELS[x])
        file = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    marks = [mark + curves.MARKS[key] for key, mark in MARKS.items() if curves.MARKS[key] in entries]
    return plain_svg(file.getvalue()), [curves.SMOOTHING] * (curves.SMOOTHING in entries) + marks


def plain_svg(svg: str) -> str:
    """Returns matplotlib's SVG without what is of no use inside a page, and in the page's colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<svg [^>]*?(viewBox=\"[^\"]*\")[^>]*>", r"<svg \1>", svg, count=1)
    svg = svg.replace("xlink:href", "href")
    svg = re.sub('#[0-9a-f]{6}(?=[;"])', lambda match: PAGE_COLOURS.get(match[0], match[0]), svg)
    # Several stand in one page, in which each id may be there once.
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', svg))
    prefix = f"c{next(_numbers)}-"
    svg = re.sub(r'\sid="([^"]*)"', lambda match: f' id="{prefix}{match[1]}"' if match[1] in used else "", svg)
    svg = re.sub(r'(href="|url\()#', rf"\1#{prefix}", svg)
    return re.sub(r"\s*\n\s*", " ", svg)


def x_of(runs: Sequence[Run]) -> str:
    """Returns what curves are drawn over: what the recipes count in, if every log has it.

    Raises:
        ValueError: If the logs have nothing in common to be drawn over.
    """
    there = [x for x in plot_log.X_KEYS if all(x in run.log and run.log[x].notna().any() for run in runs)]
    if not there:
        raise ValueError(f"the logs have none of {', '.join(plot_log.X_KEYS)} in common to draw curves over.")
    units = {"iteration" if "iterations" in run.saved["args"] else "epoch" for run in runs if run.saved}
    return next((x for x in there if units == {x}), there[0])


def charts_of(runs: dict[str, Run], level: int) -> str:
    """Returns the charts of whatever the logs hold, and what they hold that cannot be drawn."""
    x = x_of(list(runs.values()))
    try:
        found, told = plot_log.read_curves({name: run.entries for name, run in runs.items()}, None, x)
    except ValueError as error:
        return paragraph(f"There are no curves: {error}", "missing")
    return draw_curves(found, x, level) + "".join(paragraph(f"{line}.", "missing") for line in told)


# -- the sections of a run


def recipe_of(run: Run, typed: str | None) -> ModuleType | None:
    """Returns the recipe of a run, or None if it is not known here."""
    try:
        return trained.recipe_of(run.saved, run.folder, typed) if run.saved else None
    except ValueError:
        return None


def test_accuracy(run: Run) -> float | None:
    """Returns what test.json says."""
    value = run.test.get("main/accuracy")
    return value if isinstance(value, (int, float)) else None


def validation(run: Run) -> pd.Series[Any]:
    """Returns the validation accuracy by row of the log; empty if there is none."""
    return pd.to_numeric(run.log[ACCURACY], errors="coerce").dropna() if ACCURACY in run.log else pd.Series(dtype=float)


def last_of(run: Run, key: str) -> float | None:
    """Returns the last number under a key of the log, or None."""
    values = run.log[key].dropna() if key in run.log else []
    return float(values.iloc[-1]) if len(values) else None


def head_facts(run: Run) -> str:
    """Returns what is asked first of a run."""
    found: dict[str, tuple[str, str]] = {}
    accuracy, valid = test_accuracy(run), validation(run)
    remark = f"of {run.test['n']} images" if accuracy is not None and "n" in run.test else ""
    found["Test accuracy"] = ("not tested yet", "") if accuracy is None else (f"{accuracy:.4f}", remark)
    if len(valid):
        found["Validation, last"] = (f"{valid.iloc[-1]:.4f}", "")
        unit = next((x for x in ("epoch", "iteration") if x in run.log), None)
        at = f"{unit} {text_of(float(run.log[unit][valid.idxmax()]))}" if unit else ""
        found["Validation, best"] = (f"{valid.max():.4f}", at)
    for name, key in (("Epochs", "epoch"), ("Iterations", "iteration")):
        if (value := last_of(run, key)) is not None:
            found[name] = (f"{value:,.0f}", "")
    if (seconds := last_of(run, "elapsed_time")) is not None:
        found["Time"] = (duration(seconds), "")
    return facts(found)


def written(run: Run) -> str:
    """Returns when the files of a run were written."""
    names = {"args.json": "begun or last resumed", "log": "last entry of the log", "test.json": "tested"}
    times = [
        f"{told} {time.strftime('%Y-%m-%d %H:%M', time.localtime((run.folder / name).stat().st_mtime))}"
        for name, told in names.items()
        if (run.folder / name).exists()
    ]
    return f"{run.folder.resolve()}. By the times of its files: {', '.join(times)}."


def test_results(run: Run) -> str:
    """Returns what test.json holds."""
    if "test.json" in run.problems:
        return paragraph(run.problems["test.json"], "missing")
    return table("test.json", ("test.json", "value"), run.test.items())


def evaluation_of(run: Run, args: argparse.Namespace) -> evaluate_run.Evaluation | str:
    """Returns what the run's network makes of the test images, or why that cannot be known."""
    try:
        return evaluate_run.evaluate(
            trained.load(run.folder, args.device, args.workers, args.recipe), "test", args.data
        )
    except BadSampleError as error:
        return str(error.__cause__)
    except (OSError, ValueError, RuntimeError) as error:
        return str(error)


def evaluation_sections(run: Run, evaluation: evaluate_run.Evaluation | str, level: int) -> str:
    """Returns confusion matrix, classes, samples and mistakes."""
    h = f"h{level + 1}"
    if isinstance(evaluation, str):
        why = f"The network could not be tested when this page was made: {evaluation}"
        return paragraph(why, "missing")
    told = evaluate_run.summary(evaluation)
    text = f"The last weights, tested when this page was made: accuracy {told['accuracy']:.4f}"
    text += f" on the {told['n']:,} images of the test split"
    if told["top5"] is not None:
        text += f"; for {percent(told['top5'])} the right class is among the five most probable"
    text += "."
    if run.test.get("n", told["n"]) != told["n"]:
        text += f" (The recipe itself tested on {run.test['n']} of them.)"
    rows = [(one["name"], one["n"], one["precision"], one["recall"]) for one in told["classes"]]
    n = len(evaluation.labels)
    chosen = np.sort(np.random.default_rng(0).choice(n, min(SAMPLES, n), replace=False)).tolist()
    wrong = [one["index"] for one in told["mistakes"]]
    try:
        samples, mistakes = pictures(evaluation, chosen), pictures(evaluation, wrong)
    except OSError as error:  # removed since
        samples = mistakes = paragraph(str(error), "missing")
    if not wrong:
        mistakes = paragraph("There is none: every image is right.")
    tables = [
        ("Which was taken for which", matrix(told["confusion"], evaluation.classes)),
        ("Classes", class_table(rows)),
    ]
    images = [(f"{len(chosen)} test images, drawn at random", samples), ("Mistakes, the most certain first", mistakes)]
    side, rest = (
        "\n".join(f"<section><{h}>{name}</{h}>\n{part}</section>" for name, part in parts) for parts in (tables, images)
    )
    return f'{paragraph(text)}\n<div class="side">{side}</div>\n{rest}'


def matrix(counts: list[list[int]], classes: Sequence[str]) -> str:
    """Returns the confusion matrix; a cell's colour is its share of its row, a diagonal's another than a mistake's."""
    head = "".join(f'<th scope="col"><span>{escape(name)}</span></th>' for name in classes)
    lines = []
    for i, (name, row) in enumerate(zip(classes, counts, strict=True)):
        whole = max(sum(row), 1)
        cells = "".join(
            f'<td{" class=diagonal" * (i == j)} style="--share:{n / whole:.3f}">{n or ""}</td>'
            for j, n in enumerate(row)
        )
        lines.append(f'<tr><th scope="row">{breakable(name)}</th>{cells}</tr>')
    caption = "Rows: what it is. Columns: what it was taken for. Numbers: images; an empty cell is none."
    body = f"<thead><tr><td></td>{head}</tr></thead>\n<tbody>\n" + "\n".join(lines) + "\n</tbody>"
    kind = "matrix short" if max(map(len, classes)) <= 3 else "matrix"
    box = scroll(f'<table class="{kind}">{body}</table>', "Confusion matrix")
    return f'<p class="quiet">{caption}</p>{box}'


def class_table(rows: Iterable[tuple[str, int, float | None, float | None]]) -> str:
    """Returns each class with its precision and recall."""
    lines = []
    for name, n, *shares in rows:
        bars = "".join(f'<td class="bar" style="--share:{share or 0:.3f}">{percent(share)}</td>' for share in shares)
        lines.append(f'<tr><th scope="row">{breakable(name)}</th><td class="number">{n:,}</td>{bars}</tr>')
    columns = ("class", "images", "precision", "recall")
    head = "".join(f'<th scope="col"{" class=number" * (name == "images")}>{name}</th>' for name in columns)
    told = "Precision: how many of those taken for the class are of it. Recall: how many of the class were found."
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return paragraph(told, "quiet") + scroll(f"<table>{body}</table>", "Classes")


def pictures(evaluation: evaluate_run.Evaluation, indices: Iterable[int]) -> str:
    """Returns images with truth and prediction."""
    items = []
    for index in indices:
        prediction = evaluation.predictions[index]
        probability = f"{100 * evaluation.probabilities[index, prediction]:.0f}&nbsp;%"
        truth, taken = evaluation.classes[evaluation.labels[index]], evaluation.classes[prediction]
        path = evaluate_run.path_of(evaluation.dataset, index)
        source = "/".join(Path(path).parts[-2:]) if path else f"test image {index}"
        if truth == taken:
            told = f'<span class="good">✓ {breakable(taken)}</span> {probability}'
        else:
            told = f'<span class="bad">✗ {breakable(taken)}</span> {probability}<br>is {breakable(truth)}'
        image = picture(evaluation.dataset[index][0], f"{truth}: {source}")
        source = f'<br><span class="quiet">{breakable(source)}</span>'
        items.append(f"<figure>{image}<figcaption>{told}{source}</figcaption></figure>")
    return f'<div class="pictures">{"".join(items)}</div>'


def picture(pixels: torch.Tensor, alt: str) -> str:
    """Returns a uint8 image of shape (C, H, W), C being 1 or 3, as an element that holds it."""
    image = Image.fromarray(pixels.permute(1, 2, 0).squeeze(2).numpy())
    file, is_small = io.BytesIO(), max(image.size) <= SMALL
    if is_small:
        image.save(file, "PNG", optimize=True)
    else:
        image.thumbnail((LARGE, LARGE))
        image.save(file, "JPEG", quality=80)
    kind = "png" if is_small else "jpeg"
    text = base64.b64encode(file.getvalue()).decode()
    width, height = image.size
    small = ' class="small"' if is_small else ""
    return f'<img{small} src="data:image/{kind};base64,{text}" width="{width}" height="{height}" alt="{escape(alt)}">'


def timing(run: Run, level: int) -> str:
    """Returns what the log and ProfileReport know of time."""
    if not set(run.log.columns) >= {"iteration", "elapsed_time"}:
        return paragraph("The log has no iteration and elapsed_time.", "missing")
    log = run.log.dropna(subset=["iteration", "elapsed_time"])
    log = log[log["iteration"] > 0]
    if not len(log) or not log["elapsed_time"].iloc[-1] > 0:
        return paragraph("The log has no iteration with an elapsed time yet.", "missing")
    start = pd.DataFrame([dict.fromkeys(plot_log.X_KEYS, 0.0)])
    rows = pd.concat([start, log[[x for x in plot_log.X_KEYS if x in log]].astype(float)], ignore_index=True)
    iterations, seconds = rows["iteration"].diff(), rows["elapsed_time"].diff()
    rows[SPEED] = (iterations / seconds).where(seconds > 0)
    last = rows.iloc[-1]
    found = {
        "Total": (duration(last["elapsed_time"]), "validation and snapshots included"),
        "Iterations per second": (f"{last['iteration'] / last['elapsed_time']:.3g}", "all in all"),
    }
    if "epoch" in log:
        ends = rows[(rows["epoch"].diff() > 0) | (rows.index == 0)]
        rows[EPOCH_TIME] = ends["elapsed_time"].diff() / ends["epoch"].diff()
        if (epochs := rows[EPOCH_TIME].dropna()).size:
            slowest = f"median; {duration(epochs.min())} to {duration(epochs.max())}" if epochs.size > 1 else ""
            found["Epoch"] = (duration(epochs.median()), slowest)
    x = "epoch" if "epoch" in log else "iteration"
    at = pd.Series(plot_log.positions(rows.to_dict("records"), x), index=rows.index)
    drawn = {key: rows[key].dropna() for key in (SPEED, EPOCH_TIME) if key in rows and rows[key].count() > 1}
    content = facts(found)
    if drawn:
        speeds = {key: (at[values.index].tolist(), values.tolist()) for key, values in drawn.items()}
        content += draw_curves({"": speeds}, x, level + 1)
    return content + profile(run, level)


def profile(run: Run, level: int) -> str:
    """Returns the table of ProfileReport, if it is in the folder."""
    try:
        text = read_bytes(run.folder / "profile.txt").decode(errors="replace")
    except OSError:
        return ""
    parts, _, operators = text.partition("\n\n")
    content = f"<h{level + 1}>Where the time of an iteration goes</h{level + 1}>"
    content += scroll(f"<pre>{escape(parts)}</pre>", "Parts of an iteration")
    if operators.strip():
        box = scroll(f"<pre>{escape(operators.strip())}</pre>", "Operators")
        content += f"<details><summary>Operators, as torch.profiler tells them</summary>{box}</details>"
    return content


def arguments(run: Run) -> str:
    """Returns the arguments: first those that are not the recipe's own, with what that has."""
    if not run.saved:
        return paragraph(run.problems["args.json"], "missing")
    given, recipe = run.saved["args"], recipe_of(run, None)
    if recipe is None:
        text = f"There is no recipe {run.saved['recipe']!r} here: what its defaults are is not known."
        rows = [(key.replace("_", "-"), value) for key, value in given.items()]
        return paragraph(text, "missing") + table("Arguments", ("argument", "value"), rows)
    usual = recipe.OPTIONS.usual(given.get("sample"))
    changed = [key for key in given if is_changed(key, given[key], usual.get(key))]
    rows = [(key.replace("_", "-"), given[key], text_of(usual.get(key))) for key in changed]
    rows += [(key.replace("_", "-"), value, "") for key, value in given.items() if key not in changed]
    n = len(changed)
    text = f"{n} of {len(rows)} are not the recipe's own; they stand first." if n else "All are the recipe's own."
    return paragraph(text, "quiet") + table("Arguments", ("argument", "value", "recipe's own"), rows, marked=n)


def is_changed(key: str, value: Any, usual: Any) -> bool:
    """Returns whether somebody asked for a value; what belongs to the machine is nobody's wish."""
    if key in ("device", "workers", "out"):
        return False
    if key == "data":  # a run keeps the whole path, from wherever it was started
        return Path(value) != Path(usual).absolute()
    return (value or None) != (usual or None) if usual is None or isinstance(usual, bool) else value != usual


def log_end(run: Run) -> str:
    """Returns the last entries of the log."""
    columns = [x for x in plot_log.X_KEYS if x in run.log]
    columns += [key for key in run.log.columns if key not in columns]
    last = run.log[columns].iloc[-LOG_ENTRIES:].astype(object)
    text = f"The last {len(last)} of {len(run.log):,} entries."
    return paragraph(text, "quiet") + table("Log", columns, last.itertuples(index=False, name=None))


def run_sections(run: Run, evaluation: evaluate_run.Evaluation | str, level: int) -> str:
    """Returns all that is known of a run."""
    h = f"h{level}"
    versions = (
        table("Versions", ("package", "version"), run.saved["versions"].items())
        if run.saved
        else paragraph(run.problems["args.json"], "missing")
    )
    sections = [
        ("Curves", charts_of({run.name: run}, level + 1)),
        ("Test", test_results(run) + evaluation_sections(run, evaluation, level)),
        ("Timing", timing(run, level)),
        ("Log", log_end(run)),
    ]
    parts = [f"<section><{h}>{name}</{h}>\n{content}</section>" for name, content in sections]
    about = [("Arguments", arguments(run)), ("Versions", versions)]
    side = "".join(f"<section><{h}>{name}</{h}>\n{content}</section>" for name, content in about)
    return "\n".join([head_facts(run), *parts, f'<div class="side">{side}</div>'])


# -- the page


def title_of(run: Run) -> str:
    """Returns recipe, folder and, if it is known, the accuracy."""
    accuracy = test_accuracy(run)
    recipe = str(run.saved.get("recipe", "a run"))
    return f"{recipe}, {run.name}" + ("" if accuracy is None else f": test accuracy {accuracy:.4f}")


def comparison(runs: dict[str, Run]) -> str:
    """Returns what tells the runs apart and what came of them."""
    everything = list(runs.values())
    rows: list[list[Any]] = []

    def add_if_different(name: str, values: list[Any]) -> None:
        if any(value != values[0] for value in values):
            rows.append([name, *values])

    add_if_different("recipe", [run.saved.get("recipe") for run in everything])
    for part, hidden in (("args", ("out",)), ("versions", ())):
        for key in dict.fromkeys(key for run in everything for key in run.saved.get(part, {}) if key not in hidden):
            add_if_different(key.replace("_", "-"), [run.saved.get(part, {}).get(key) for run in everything])
    valid = [validation(run) for run in everything]
    rows.append(["validation accuracy, best", *(f"{v.max():.4f}" if len(v) else None for v in valid)])
    rows.append(["validation accuracy, last", *(f"{v.iloc[-1]:.4f}" if len(v) else None for v in valid)])
    tested = map(test_accuracy, everything)
    rows.append(["test accuracy", *(None if value is None else f"{value:.4f}" for value in tested)])
    rows.append(["iterations", *(last_of(run, "iteration") for run in everything)])
    seconds = [last_of(run, "elapsed_time") for run in everything]
    rows.append(["time", *(None if s is None else duration(s) for s in seconds)])
    return table("Comparison", ("", *runs), rows)


def page(runs: Sequence[Run], evaluations: Sequence[evaluate_run.Evaluation | str]) -> str:
    """Returns the whole page."""
    if len(runs) == 1:
        (run,), (evaluation,) = runs, evaluations
        title = title_of(run)
        body = f"<h1>{breakable(title)}</h1>\n{paragraph(written(run), 'quiet')}\n{run_sections(run, evaluation, 2)}"
    else:
        names = [run.name for run in runs]
        if len(set(names)) < len(names):
            names = [str(run.folder) for run in runs]
        if len(set(names)) < len(names):
            names = [f"{name} ({i})" for i, name in enumerate(names, 1)]
        named = dict(zip(names, runs, strict=True))
        title = f"{len(runs)} runs: {', '.join(names)}"
        links = " · ".join(f'<a href="#run-{i}">{breakable(name)}</a>' for i, name in enumerate(names, 1))
        body = f"<h1>{breakable(title)}</h1>\n<nav><p>{links}</p></nav>\n"
        body += f"<section><h2>Comparison</h2>\n{comparison(named)}</section>\n"
        body += f"<section><h2>Curves of all</h2>\n{charts_of(named, 3)}</section>\n"
        for i, (name, run, evaluation) in enumerate(zip(names, runs, evaluations, strict=True), 1):
            head = f'<h2 id="run-{i}">{breakable(name)}</h2>\n{paragraph(written(run), "quiet")}'
            body += f"<section>{head}\n{run_sections(run, evaluation, 3)}</section>\n"
    made = time.strftime("%Y-%m-%d %H:%M")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
{body}
</main>
<footer><p class="quiet">Made by recipes/report.py, {made}.</p></footer>
</body>
</html>
"""


def main(argv: list[str] | None = None) -> None:
    """Reads the runs, tests their networks and writes the page."""
    parser = tool_options.make_parser("report")
    args = parser.parse_args(argv)
    import matplotlib

    matplotlib.use("agg")  # no window, whatever there is
    out = Path(args.o or Path(args.runs[0]) / "report.html")
    try:
        runs = [read_run(folder) for folder in args.runs]
        x_of(runs)
        evaluations = [evaluation_of(run, args) for run in runs]
        text = page(runs, evaluations)
        saving.write(out, lambda file: file.write(text.encode(errors="replace")))
    except (OSError, ValueError) as error:
        parser.error(str(error))
    for run, evaluation in zip(runs, evaluations, strict=True):
        if isinstance(evaluation, str):
            say(f"{run.folder} could not be tested: {evaluation}")
    say(f"Wrote {out}.")


if __name__ == "__main__":
    main()
