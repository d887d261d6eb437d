"""The page about a run: what it tells, that it stands alone, and how a browser shows it."""

import base64
import io
import json
import re
import shutil
import subprocess
from html import escape, unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from recipes import evaluate_run, report, resnet_products
from recipes.parts.page import duration, percent, picture, text_of
from trainer.saving.lock import FolderLock

SMALL = ["--model", "test_efficientnet", "--image-size", "32", "--scale", "32", "--batch-size", "16", "--workers", "0"]
SMALL += ["--epochs", "2", "--lr", "0.01"]
VOID = {"meta", "img", "br", "wbr", "hr", "link", "input"}
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Page(HTMLParser):
    """What a page holds: headings with level, pictures, tables by their label, and all of its text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.headings, self.images, self.ids, self.links = [], [], [], [], []
        self.charts, self.tables, self.words, self.marked, self.table, self.tags = [], {}, [], [], [], set()
        self.feed(text)
        self.close()
        assert self.open == [], "every tag is closed"
        self.text = " ".join("".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        assert len(given) == len(attributes), f"an attribute of {tag} stands twice"
        self.tags.add(tag)
        self.ids += [given[name] for name in given if name == "id"]
        self.links += [given[name] for name in given if name == "href"]
        if tag == "img":
            self.images.append(given)
        if tag == "svg" and given.get("role") == "img":
            self.charts.append(given["aria-label"])
        if given.get("role") == "region":
            self.table = self.tables.setdefault(given["aria-label"], [])
        if tag == "tr":
            self.table.append([])
            self.marked += [self.table[-1]] * (given.get("class") == "changed")
        if tag in ("td", "th"):
            self.table[-1].append("")
        if re.fullmatch("h[1-6]", tag):
            self.headings.append([int(tag[1]), ""])
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)
        if {"td", "th"} & set(self.open):
            self.table[-1][-1] += data
        for level, _ in self.headings[-1:]:
            if f"h{level}" in self.open:
                self.headings[-1][1] += data


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "result"
    resnet_products.main(["--data", str(data), "--out", str(out), *SMALL])
    return out


@pytest.fixture
def other(run, tmp_path):
    """A copy, which a test may spoil."""
    return shutil.copytree(run, tmp_path / "other")


def make(*arguments):
    """Makes a page; returns what it holds, and its source."""
    out = arguments[arguments.index("-o") + 1] if "-o" in arguments else arguments[0] / "report.html"
    report.main([*map(str, arguments), "--workers", "0"])
    source = out.read_text()
    return Page(source), source


@pytest.fixture(scope="module")
def page(run):
    return make(run)


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        report.main([str(a) for a in arguments])
    assert caught.value.code == 2
    return capsys.readouterr().err


def evaluation_of(classes, n, channels=3, side=32, seed=0):
    """Of random images and guesses, some right."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(classes), n)
    guesses = np.where(rng.random(n) < 0.6, labels, rng.integers(0, len(classes), n))
    probabilities = np.full((n, len(classes)), 0.1 / len(classes), dtype=np.float32)
    probabilities[range(n), guesses] = rng.uniform(0.5, 0.9, n)
    images = [torch.from_numpy(rng.integers(0, 256, (channels, side, side), dtype=np.uint8)) for _ in range(n)]
    return evaluate_run.Evaluation(list(zip(images, labels)), "test", classes, probabilities, labels)


# -- what it tells


def test_the_page_is_beside_the_log_and_begins_with_recipe_folder_and_accuracy(run, page):
    accuracy = json.loads((run / "test.json").read_text())["main/accuracy"]
    assert page[0].headings[0] == [1, f"resnet_products, result: test accuracy {accuracy:.4f}"]
    assert (run / "report.html").exists()


def test_headings_are_in_order(page):
    levels = [level for level, _ in page[0].headings]
    assert levels.count(1) == 1 and all(level <= before + 1 for before, level in zip(levels, levels[1:]))
    assert [name for level, name in page[0].headings if level == 2] == [
        *("Curves", "Test", "Timing", "Log", "Arguments", "Versions"),
    ]


def test_arguments_that_somebody_asked_for_stand_first_and_stand_out(page):
    table = page[0].tables["Arguments"]
    asked = {row[0]: row[1:] for row in page[0].marked}
    assert asked == {
        "data": [asked["data"][0], "data/Stanford_Online_Products"],
        "scale": ["32", "256"],
        "image-size": ["32", "224"],
        "model": ["test_efficientnet", "resnet50"],
        "epochs": ["2", "10"],
        "batch-size": ["16", "64"],
        "lr": ["0.01", "0.001"],
    }
    assert table[1 : 1 + len(asked)] == page[0].marked and ["seed", "0", ""] in table
    assert ["torch", torch.__version__.split("+")[0]] in [
        [row[0], row[1].split("+")[0]] for row in page[0].tables["Versions"]
    ]


def test_curves_are_those_of_the_log_and_timing_comes_from_it(run, page):
    told = page[0].charts
    assert "Loss over epoch: training, validation" in told and "Accuracy over epoch: training, validation" in told
    assert "Learning rate over epoch" in told and "Iterations per second over epoch" in told
    seconds = json.loads((run / "log").read_text())[-1]["elapsed_time"]
    assert f"Total{duration(seconds)} validation and snapshots included" in page[0].text


def test_speed_and_the_time_of_an_epoch_are_differences_in_the_log(tmp_path, other):
    rows = [{"main/loss": 1.0, "epoch": i // 2, "iteration": 10 * i, "elapsed_time": 5.0 * i} for i in range(1, 5)]
    rows[-1]["elapsed_time"] = 40.0
    (other / "log").write_text(json.dumps(rows))
    text = make(other)[0].text
    assert "Total40 s" in text and "Iterations per second1 all in all" in text
    assert "Epoch20 s median; 10 s to 30 s" in text


def test_the_last_entries_of_the_log_and_test_json_are_tables(run, page):
    entries = json.loads((run / "log").read_text())
    head, *rows = page[0].tables["Log"]
    assert head[:3] == ["epoch", "iteration", "elapsed_time"] and "validation/main/accuracy" in head
    assert [row[1] for row in rows] == [str(entry["iteration"]) for entry in entries[-10:]]
    test = json.loads((run / "test.json").read_text())
    assert page[0].tables["test.json"][1:] == [[key, text_of(value)] for key, value in test.items()]


def test_confusion_classes_samples_and_mistakes_are_those_of_evaluate_run(run, page, data):
    told = evaluate_run.main([str(run), "--workers", "0", "--device", "cpu"])
    head, *rows = page[0].tables["Confusion matrix"]
    assert head[1:] == [row[0] for row in rows] == [one["name"] for one in told["classes"]]
    assert [[int(n or 0) for n in row[1:]] for row in rows] == told["confusion"]
    assert page[0].tables["Classes"][1:] == [
        [one["name"], str(one["n"]), *(percent(one[key]) for key in ("precision", "recall", "f1") if key in one)]
        for one in told["classes"]
    ]
    assert len(page[0].images) == report.SAMPLES + len(told["mistakes"])
    first = told["mistakes"][0]
    assert f"✗ {first['prediction']} {100 * first['probability']:.0f} %is {first['truth']}" in unescape(page[0].text)
    assert "(The recipe itself tested on 7 of them.)" in page[0].text


def test_the_same_images_are_drawn_each_time(run, page, tmp_path):
    again, _ = make(run, "-o", tmp_path / "again.html")
    assert again.images == page[0].images and all(image["alt"] for image in again.images)


def test_a_profile_is_shown(other):
    (other / "profile.txt").write_text("part  ms/iteration\ndata  <1>\n\noperators\naten::mm")
    page, _ = make(other)
    assert "data <1>" in page.text and "aten::mm" in page.text and "details" in page.tags


def test_small_images_keep_their_pixels_and_photographs_are_made_jpeg():
    def opened(element):
        kind, text = re.search(r"data:image/(\w+);base64,([^\"]+)", element).groups()
        return kind, Image.open(io.BytesIO(base64.b64decode(text)))

    grey = torch.arange(64, dtype=torch.uint8).reshape(1, 8, 8)
    kind, image = opened(picture(grey)["src"])
    assert kind == "png" and image.mode == "L" and np.array_equal(np.array(image), grey[0].numpy())
    kind, image = opened(picture(torch.zeros(3, 300, 448, dtype=torch.uint8))["src"])
    assert kind == "jpeg" and image.size == (224, 150)


@pytest.mark.parametrize("n", [2, 12, 37])
def test_the_matrix_holds_any_number_of_classes(run, n):
    classes = [f"class_{i}" for i in range(n)]
    evaluation = evaluation_of(classes, 300, channels=1)
    page = Page(report.page([report.read_run(run)], [evaluation]))
    counts = [[int(cell or 0) for cell in row[1:]] for row in page.tables["Confusion matrix"][1:]]
    assert counts == evaluate_run.confusion(evaluation).tolist()


def test_a_page_with_photographs_is_below_a_megabyte(run):
    noise = evaluation_of(["cat", "dog"], 40, side=224)  # which no JPEG makes small
    smooth = [
        (torch.nn.functional.avg_pool2d(pixels.float(), 15, 1, 7).to(torch.uint8), label)
        for pixels, label in noise.dataset
    ]
    assert len(report.page([report.read_run(run)], [noise._replace(dataset=smooth)])) < 1_000_000


# -- one file, and whole


def test_an_installed_copy_has_the_templates():
    folder = Path(report.__file__).parent / "parts" / "page"
    patterns = re.search(
        r'^"recipes.parts.page" = \[(.*)\]', (Path(__file__).parent.parent / "pyproject.toml").read_text(), re.MULTILINE
    )[1]
    assert {f'"*{path.suffix}"' for path in folder.iterdir() if path.is_file()} == {'"*.py"', *patterns.split(", ")}


@pytest.fixture(scope="module")
def both(run, tmp_path_factory):
    second = shutil.copytree(run, tmp_path_factory.mktemp("second") / "second")
    saved = json.loads((second / "args.json").read_text())
    (second / "args.json").write_text(json.dumps(saved | {"args": saved["args"] | {"lr": 0.02}}))
    return make(run, second, "-o", second / "both.html")


@pytest.mark.parametrize("which", ["page", "both"])
def test_nothing_is_asked_of_the_network_and_no_script_runs(which, request):
    page, source = request.getfixturevalue(which)
    assert not re.search(r"<script|javascript:|@import|\son\w+=", source)
    for url in re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"')\s>]+)""", source):
        assert url.startswith(("data:image/", "#")), url
    assert not re.search(r"https?:|//\w+\.", re.sub(r'src="data:[^"]*"', "", source))
    assert len(set(page.ids)) == len(page.ids) and {f"#{name}" for name in page.ids} == set(page.links) | {
        f"#{name}" for name in re.findall(r"url\(#([^)]+)\)", source)
    }


@pytest.mark.parametrize("which", ["page", "both"])
def test_charts_are_drawn_in_the_page_s_colours_alone(which, request):
    charts = re.findall(r'<svg class="chart".*?</svg>', request.getfixturevalue(which)[1])
    assert len(charts) == len(request.getfixturevalue(which)[0].charts)
    for chart in charts:
        assert not re.search(r"(?:fill|stroke): ?#|<style", chart) and "var(--line-" in chart


def test_what_comes_from_files_is_text_and_no_markup(run, tmp_path):
    nasty = "<img src=x onerror=\"alert('1')\">&amp;$x^$_"
    folder = shutil.copytree(run, tmp_path / "_<b>&\"'$x^$")
    saved = json.loads((folder / "args.json").read_text())
    saved["args"]["model"] = saved["versions"]["torch"] = nasty
    (folder / "args.json").write_text(json.dumps(saved))
    (folder / "test.json").write_text(json.dumps({nasty: nasty}))
    log = json.loads((folder / "log").read_text())
    log[-1]["note"] = nasty
    (folder / "log").write_text(json.dumps(log))
    (folder / "profile.txt").write_text(f"{nasty}\n\n{nasty}")
    clean = evaluation_of(["plain", "second"], 40)
    evaluation = clean._replace(classes=[nasty, "</style></table>"])
    runs = [report.read_run(folder), report.read_run(run)]
    page = Page(report.page(runs, [evaluation, nasty]))
    assert len(page.images) == len(Page(report.page(runs, [clean, ""])).images) and not {"b", "script"} & page.tags
    assert {name for image in page.images for name in image} == {"src", "class", "width", "height", "alt"}
    squeezed = page.text.replace(" ", "")
    for part in (nasty, "</style></table>", folder.name):
        assert part.replace(" ", "") in squeezed
    assert page.tables["Confusion matrix"][1][0] == nasty and page.tables["test.json"][1] == [nasty, nasty]
    assert f"Loss over epoch: {folder.name} training, {folder.name} validation" in page.charts[0]


# -- what is missing


def test_without_data_the_page_is_made_and_says_so(other, tmp_path, capsys):
    page, _ = make(other, "--data", tmp_path / "absent")
    told = f"could not be tested when this page was made: no data set at {tmp_path / 'absent'}: there is no such folder"
    assert told in page.text and "Loss over epoch: training, validation" in page.charts
    assert f"{other} could not be tested: no data set at" in capsys.readouterr().out


def test_a_run_in_training_has_a_page_before_its_first_weights(run, tmp_path):
    folder = tmp_path / "young"
    folder.mkdir()
    shutil.copy(run / "args.json", folder)
    (folder / "log").write_text(json.dumps(json.loads((run / "log").read_text())[:1]))
    page, _ = make(folder)
    assert page.headings[0] == [1, "resnet_products, young"] and "Test accuracynot tested yet" in page.text
    assert "There is no test.json: the run is still in training" in page.text and "has no weights yet" in page.text


@pytest.mark.parametrize("content", [None, "{", '{"recipe": "resnet_products"}', "[]"])
def test_arguments_that_cannot_be_read_leave_the_rest(other, content):
    (other / "args.json").unlink()
    if content is not None:
        (other / "args.json").write_text(content)
    page, _ = make(other)
    told = "There is no args.json" if content is None else "args.json cannot be read ("
    assert told in page.text and "Loss over epoch: training, validation" in page.charts


@pytest.mark.parametrize("content", ["{", "[1]", "5", "null"])
def test_a_test_json_that_cannot_be_read_leaves_the_rest(other, content):
    (other / "test.json").write_text(content)
    page, _ = make(other)
    assert "test.json cannot be read (" in page.text and len(page.images) >= report.SAMPLES


@pytest.mark.parametrize("content", [5, None, "a <b>", {"a": 1}, [["<i>"], None]])
def test_what_args_json_has_of_the_data_may_be_anything(other, content):
    saved = json.loads((other / "args.json").read_text())
    (other / "args.json").write_text(json.dumps(saved | {"data": content}))
    page = Page(report.page([report.read_run(other)], ["not here"]))
    assert "Loss over epoch: training, validation" in page.charts and not {"b", "i"} & page.tags


def test_a_run_of_a_recipe_that_is_not_here_is_shown_with_its_arguments(other):
    saved = json.loads((other / "args.json").read_text())
    (other / "args.json").write_text(json.dumps(saved | {"recipe": "mine"}))
    page, _ = make(other)
    assert page.headings[0][1].startswith("mine, other") and "There is no recipe 'mine' here" in page.text
    assert ["lr", "0.01"] in page.tables["Arguments"] and page.marked == []


def test_a_log_may_lack_numbers(other):
    (other / "log").write_text(json.dumps([{"iteration": 3, "main/loss": None}, {"iteration": 4, "main/loss": None}]))
    page, _ = make(other)
    assert "There are no curves: " in page.text and "The log has no iteration and elapsed_time." in page.text


def test_a_long_log_makes_no_large_page(other):
    n = 50_000
    noise = np.random.default_rng(0).random(n)
    table = pd.DataFrame({"main/loss": noise, "epoch": np.arange(n) // 100, "iteration": range(n)})
    table["elapsed_time"] = table["iteration"] * 0.1
    table.to_json(other / "log", orient="records")
    run = report.read_run(other)
    assert len(report.page([run], ["not here"])) < 1_500_000


def test_what_is_no_run_is_refused_with_what_to_do(run, other, tmp_path, capsys):
    assert "there is no folder" in refused(capsys, tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    assert "empty has no log: name a run's folder; a run that has just begun" in refused(capsys, tmp_path / "empty")
    (other / "log").write_text("[{")
    assert "is not a log: it is not JSON" in refused(capsys, run, other)
    (other / "log").write_text("[]")
    assert "has no entries yet" in refused(capsys, other)
    (other / "log").write_text('[{"a": 1}]')
    assert "log has no epoch, iteration or elapsed_time: it is no log of a run" in refused(capsys, other)
    (other / "log").write_text('[{"elapsed_time": 1}]')
    (tmp_path / "empty" / "log").write_text('[{"epoch": 1}]')
    told = refused(capsys, other, tmp_path / "empty")
    assert "the logs have none of epoch, iteration, elapsed_time in common to draw curves over" in told
    (tmp_path / "file").touch()
    assert str(tmp_path / "file") in refused(capsys, run, "-o", tmp_path / "file" / "page.html")


# -- what only some runs have


def test_a_run_that_validates_on_its_test_set_has_the_page_say_so(run, other, page):
    told = "Validation is the test set: its best value was chosen on the images it is tested on."
    assert told not in page[0].text
    saved = json.loads((other / "args.json").read_text())
    del saved["splits"]["valid"]
    (other / "args.json").write_text(json.dumps(saved))
    evaluations = [evaluation_of(["cat", "dog"], 20), "not here"]
    found = Page(report.page([report.read_run(other), report.read_run(run)], evaluations))
    assert found.text.count(told) == 1
    assert ["validated on", "the test set", "images of its own"] in found.tables["Comparison"]


def test_the_page_names_the_weights_and_tells_what_a_recipe_says_of_its_data(other):
    saved = json.loads((other / "args.json").read_text())
    (other / "args.json").write_text(json.dumps(saved | {"data": ["3 files are no images: <a>.txt and 2 more"]}))
    page, _ = make(other)
    assert "3 files are no images: <a>.txt and 2 more" in page.text
    assert "model_epoch-2 on the 24 images of the test split, tested when this page was made." in page.text


def test_f1_is_shown_of_each_class_and_of_all(run, monkeypatch):
    evaluation = evaluation_of(["cat", "dog"], 20)
    told = evaluate_run.summary(evaluation)
    classes = [one | {"f1": f1} for one, f1 in zip(told["classes"], (0.25, None))]
    monkeypatch.setattr(evaluate_run, "summary", lambda evaluation: told | {"macro_f1": 0.125, "classes": classes})
    page = Page(report.page([report.read_run(run)], [evaluation]))
    assert page.tables["Classes"][0] == ["class", "images", "precision", "recall", "F1"]
    assert [row[-1] for row in page.tables["Classes"][1:]] == ["25.0 %", "\N{EN DASH}"]
    assert "Macro F10.1250 mean over the classes that occur" in page.text and "Confusion matrix" in page.tables


def test_a_run_with_several_labels_has_no_matrix_but_exact_matches(run, monkeypatch):
    shares = np.array([[0.9, 0.8, 0.1], [0.2, 0.1, 0.3]], np.float32)
    images = [(torch.zeros(3, 8, 8, dtype=torch.uint8), None)] * 2
    evaluation = evaluate_run.Evaluation(
        images, "test", ["sky", "sea", "dog"], shares, np.float32([[1, 1, 0], [0, 0, 1]])
    )
    classes = [{"name": name, "n": 1, "precision": 1.0, "recall": 0.5, "f1": 0.6} for name in evaluation.classes]
    told = {"split": "test", "n": 2, "multi_label": True, "accuracy": 5 / 6, "exact_match": 0.5, "macro_f1": 0.6}
    told |= {"classes": classes, "mistakes": [{"index": 1}]}
    monkeypatch.setattr(evaluate_run, "summary", lambda evaluation: told)
    page = Page(report.page([report.read_run(run)], [evaluation]))
    assert "Confusion matrix" not in page.tables and [row[-1] for row in page.tables["Classes"][1:]] == ["60.0 %"] * 3
    assert "Accuracy0.8333 of all labels, one by one" in page.text
    assert "Exact match0.5000 all labels of an image are right" in page.text
    assert "✓ sky, sea" in page.text and "✗ nothing is dog" in page.text.replace("nothing", "nothing ").replace(
        "  ", " "
    )


# -- while a run goes on


@pytest.fixture
def watched(run, tmp_path, monkeypatch):
    """A folder with a held lock and nothing else; makes its page, doing one thing at each wait; returns the pages."""
    folder = tmp_path / "watched"
    folder.mkdir()
    lock = FolderLock(folder)

    def watch(*steps, options=()):
        pages, steps = [], iter([*steps, lock.release])

        def wait(seconds):
            if seconds < 1:
                return  # before a log is read once more
            pages.append((folder / "report.html").read_text() if (folder / "report.html").exists() else None)
            next(steps)()

        monkeypatch.setattr("time.sleep", wait)
        report.main([str(folder), "--watch", "3", "--workers", "0", *options])
        return [*pages, (folder / "report.html").read_text()]

    yield folder, watch
    lock.release()


def write_log(run, folder, n):
    (folder / "log").write_text(json.dumps(json.loads((run / "log").read_text())[:n]))


def copy_rest(run, folder):
    for name in ("args.json", "test.json", "model_epoch-2"):
        shutil.copy(run / name, folder)


def test_a_watched_page_reloads_itself_until_the_run_has_ended_and_is_tested(run, watched, capsys):
    folder, watch = watched
    steps = [lambda: write_log(run, folder, 1), lambda: write_log(run, folder, 3), lambda: copy_rest(run, folder)]
    waiting, first, second, same, last = watch(*steps)
    assert waiting is None and same == second
    for source, n in ((first, 1), (second, 3)):
        page = Page(source)
        assert '<meta http-equiv="refresh" content="3">' in source and "this page reloads itself every 3 s" in page.text
        assert len(page.tables["Log"]) == n + 1 and "the run goes on; it is tested when that has ended" in page.text
        assert "<script" not in source
    page = Page(last)
    assert "refresh" not in last and "reloads itself" not in last and "Confusion matrix" in page.tables
    out = capsys.readouterr().out.splitlines()
    assert [re.sub(r"\S*/watched", "watched", line) for line in out] == [
        "Waits: watched has no log: name a run's folder; a run that has just begun has none yet.",
        "Wrote watched/report.html, and makes it anew while the run goes on; Ctrl-C ends that.",
        "The run has ended: its network is tested now.",
        "Wrote watched/report.html.",
    ]


def interrupt():
    raise KeyboardInterrupt


def test_ctrl_c_ends_a_watch_in_one_line_and_the_page_stays(run, watched):
    folder, watch = watched
    with pytest.raises(SystemExit, match=r"^\S+: interrupted\.$"):
        watch(lambda: write_log(run, folder, 2), interrupt)
    source = (folder / "report.html").read_text()
    assert "refresh" not in source and "reloads itself" not in source and len(Page(source).tables["Log"]) == 3


def test_a_run_that_was_killed_is_watched_no_longer(run, watched):
    folder, watch = watched
    dead = subprocess.Popen(["true"])
    dead.wait()
    write_log(run, folder, 2)
    told = (folder / ".lock").read_text()
    (folder / ".lock").write_text(re.sub(r"\d+", str(dead.pid), told, count=1))
    [last] = watch()
    assert "refresh" not in last


def test_a_log_that_is_broken_is_waited_for_while_the_run_goes_on_and_told_when_it_has_ended(run, watched, capsys):
    folder, watch = watched
    (folder / "log").write_text("[{")
    with pytest.raises(SystemExit):
        watch()
    told = capsys.readouterr()
    assert "Waits: " in told.out and "is not a log: it is not JSON" in told.err


def test_a_page_that_cannot_be_written_ends_a_watch(run, watched, capsys):
    folder, watch = watched
    write_log(run, folder, 1)
    with pytest.raises(SystemExit):
        watch(options=["-o", str(folder / "log" / "page.html")])
    told = capsys.readouterr()
    assert "a file stands where a folder is to be" in told.err and told.out == ""


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "1e9"])
def test_seconds_that_cannot_be_waited_are_refused(run, capsys, seconds):
    assert "--watch takes more than 0 and at most 86400 seconds, got " in refused(capsys, run, "--watch", seconds)


def test_a_folder_may_follow_watch(run, tmp_path, capsys):
    assert f"there is no folder {tmp_path / 'absent'}" in refused(capsys, "--watch", tmp_path / "absent")
    report.main(["--watch", str(run), "-o", str(tmp_path / "page.html"), "--workers", "0"])
    assert "refresh" not in (tmp_path / "page.html").read_text()


# -- several


def test_several_runs_are_compared_by_what_differs(run, both):
    page, _ = both
    head, *rows = page.tables["Comparison"]
    assert head == ["", "result", "second"] and page.headings[0][1] == "2 runs: result, second"
    found = {row[0]: row[1:] for row in rows}
    assert list(found) == [
        *("lr", "validation accuracy, best", "validation accuracy, last", "test accuracy", "iterations", "time"),
    ]
    assert found["lr"] == ["0.01", "0.02"] and found["iterations"] == ["5", "5"]
    accuracy = json.loads((run / "test.json").read_text())["main/accuracy"]
    assert found["test accuracy"][0] == f"{accuracy:.4f}"
    drawn = "result training, result validation, second training, second validation"
    assert page.charts[0] == f"Loss over epoch: {drawn}"
    assert [name for level, name in page.headings if level == 2] == ["Comparison", "Curves of all", "result", "second"]


def test_runs_of_one_name_are_told_apart_by_their_folders(run, tmp_path):
    again = shutil.copytree(run, tmp_path / "a" / "result")
    page, _ = make(run, again, "-o", tmp_path / "page.html")
    assert page.tables["Comparison"][0][1:] == [str(run), str(again)]


# -- how a browser shows it

MEASURE = """
const luminance = ([r, g, b]) => [r, g, b].map(v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const parts = colour => { const v = colour.match(/[\\d.]+/g).map(Number); return [v[0], v[1], v[2], v[3] ?? 1]; };
const over = (top, below) => [0, 1, 2].map(i => top[i] * top[3] + below[i] * (1 - top[3]));
function measure(frame) {
  const page = frame.contentDocument, root = page.documentElement, view = frame.contentWindow;
  const behind = e => e ? over(parts(view.getComputedStyle(e).backgroundColor), behind(e.parentElement)) : [0, 0, 0];
  let least = 99, where = "";
  for (const e of page.body.querySelectorAll("*")) {
    if (![...e.childNodes].some(n => n.nodeType == 3 && n.data.trim())) continue;
    const style = view.getComputedStyle(e), colour = parts(e.closest("svg") ? style.fill : style.color);
    const [a, b] = [luminance(over(colour, behind(e))), luminance(behind(e))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < least) { least = (a + 0.05) / (b + 0.05); where = e.outerHTML.slice(0, 200); }
  }
  const body = view.getComputedStyle(page.body), images = [...page.images];
  const box = page.querySelector(".matrix").parentElement;
  return {inner: view.innerWidth, width: root.scrollWidth, text: body.color, page: body.backgroundColor, least, where,
    images: images.length, broken: images.filter(i => !i.naturalWidth).length,
    scrolls: box.scrollWidth > box.clientWidth};
}
onload = () => document.body.append(Object.assign(document.createElement("pre"), {id: "measured", textContent:
  JSON.stringify([...document.querySelectorAll("iframe")].map(measure))}));
"""


@pytest.mark.full
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium or Chrome")
def test_a_browser_shows_it_on_phone_and_desktop_in_light_and_dark(run, tmp_path):
    long = [f"a_class_with_a_very_long_name_{i}" for i in range(36)] + ["x" * 60]
    runs, folder = [report.read_run(run)], shutil.copytree(run, tmp_path / ("unbroken" * 20))
    pages = [
        report.page(runs, [evaluation_of(long, 800)]),
        report.page([*runs, report.read_run(folder)], [evaluation_of(["cat", "dog"], 20, side=100), "no data " * 30]),
    ]
    frames = "".join(
        f'<iframe style="width: {width}px; height: {height}px; color-scheme: {scheme}" srcdoc="{page}"></iframe>'
        for page in map(escape, pages)
        for width, height in ((360, 800), (1280, 900))
        for scheme in ("light", "dark")
    )
    (tmp_path / "wrap.html").write_text(f"<!DOCTYPE html><script>{MEASURE}</script><body>{frames}</body>")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--dump-dom", (tmp_path / "wrap.html").as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    found = json.loads(unescape(re.search(r'<pre id="measured">(.*?)</pre>', dom, re.DOTALL)[1]))
    assert [one["inner"] for one in found] == 2 * [360, 360, 1280, 1280]
    for one in found:
        assert one["width"] <= one["inner"], "the page is not scrolled sideways"
        assert one["images"] > 12 and one["broken"] == 0
        assert one["least"] >= 4.5, one["where"]
    assert found[0]["scrolls"], "37 classes scroll in a box of their own"
    for light, dark in zip(found[::2], found[1::2]):
        assert light["page"] != dark["page"] and light["text"] != dark["text"]


def test_a_log_of_lines_is_read_too(run, tmp_path):
    entries = json.loads((run / "log").read_text())
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    assert report.read_run(tmp_path).entries == entries
