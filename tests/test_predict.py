"""What is told of one image and of many, in each format; and what is said when something is wrong."""

import csv
import io
import json
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from processes import call
from tags import write_tags

from recipes import evaluate_run, lenet_mnist, newts, predict, resnet_products
from recipes.parts import image_files, trained
from recipes.parts.drawn import digits as drawn_digits
from recipes.parts.online_products import SUPER_LABEL_NAMES

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def products(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("products")
    options = "--model test_resnet --image-size 32 --scale 32 --batch-size 16 --workers 0 --epochs 2"
    resnet_products.main(["--data", str(data), "--out", str(out), *options.split()])
    return out


@pytest.fixture(scope="module")
def two_newts(tmp_path_factory):
    out = tmp_path_factory.mktemp("newts")
    newts.main(["--sample", "--data", str(out / "data"), "--out", str(out), "--iterations", "1", "--workers", "0"])
    return out


def told(capsys, *arguments):
    capsys.readouterr()
    predict.main([*map(str, arguments), "--device", "cpu"])
    return capsys.readouterr().out


def refused(capsys, *arguments, code=2):
    with pytest.raises(SystemExit) as caught:
        predict.main([*map(str, arguments), "--device", "cpu"])
    assert caught.value.code == code
    return capsys.readouterr().err


# -- what is told


def test_each_image_gets_a_line_of_its_path_and_the_most_probable_classes_in_columns(products, data, capsys):
    lines = told(capsys, products, data / "fan_final", data / "mug_final").splitlines()
    assert len(lines) == 12
    names = "|".join(SUPER_LABEL_NAMES)
    pattern = re.compile(
        rf"(\S+_final/\d+_\d\.JPG) +({names}) +(\d\.\d{{4}})  ({names}) +(\d\.\d{{4}})  ({names}) +(\d\.\d{{4}})"
    )
    matches = [pattern.fullmatch(line) for line in lines]
    assert [Path(match[1]).parent.name for match in matches] == ["fan_final"] * 6 + ["mug_final"] * 6
    assert all(float(match[3]) >= float(match[5]) >= float(match[7]) for match in matches)
    for column in range(2, 8, 2):
        assert len({match.start(column) for match in matches}) == 1


def test_of_few_classes_all_are_told_and_of_any_as_many_as_are_asked_for(two_newts, products, data, capsys):
    lines = told(capsys, two_newts, two_newts / "data" / "test").splitlines()
    assert len(lines) == 6
    for line in lines:
        _, one, p, other, q = line.split()
        assert {one, other} == {"akahara", "madara"} and float(p) + float(q) == pytest.approx(1, abs=2e-4)
    assert len(told(capsys, two_newts, two_newts / "data", "--top", 1).splitlines()[0].split()) == 3
    assert len(told(capsys, products, data / "fan_final", "--top", 12).splitlines()[0].split()) == 25
    assert len(told(capsys, products, data / "fan_final", "--top", 99).splitlines()[0].split()) == 25


def test_the_recipe_of_the_newts_prints_them(two_newts, capsys):
    newts.main(["--test", "--out", str(two_newts)])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6 and all("akahara 0." in line or "akahara 1." in line for line in lines)


def test_the_probabilities_are_those_of_the_evaluation(products, capsys):
    found = evaluate_run.evaluate(trained.load(products, "cpu", 0), "test")
    paths = [image_files.path_of(found.dataset, i) for i in range(24)]
    rows = json.loads(told(capsys, products, *paths, "--format", "json"))
    assert [row["path"] for row in rows] == paths
    assert all(list(row["probabilities"]) == found.classes for row in rows)
    assert np.array([list(row["probabilities"].values()) for row in rows]) == pytest.approx(found.probabilities)
    for row, best in zip(rows, found.predictions):
        assert row["prediction"] == found.classes[best]
        assert row["probability"] == row["probabilities"][row["prediction"]]


def test_a_table_gives_any_path_and_every_digit_back(products, data, tmp_path, capsys):
    picture = next((data / "fan_final").iterdir())
    names = ['a, "b".jpg', "two\nlines.jpg", os.fsdecode(b"\xe4.jpg")]
    for name in names:
        shutil.copy(picture, tmp_path / name)
    predict.main([str(products), str(tmp_path), "--format", "csv", "-o", str(tmp_path / "table")])
    assert capsys.readouterr().out == ""
    with open(tmp_path / "table", newline="", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["path"] for row in rows) == sorted(str(tmp_path / name) for name in names)
    exact = json.loads(told(capsys, products, tmp_path, "--format", "json"))
    for row, other in zip(rows, exact):
        assert [float(row[name]) for name in SUPER_LABEL_NAMES] == list(other["probabilities"].values())
        assert (row["prediction"], float(row["probability"])) == (other["prediction"], other["probability"])
    printed = csv.reader(io.StringIO(told(capsys, products, picture, "--format", "csv")))
    assert next(printed) == ["path", "prediction", "probability", *SUPER_LABEL_NAMES]


def test_a_folder_of_weights_stands_for_the_last_ones(products, data, capsys):
    last, second, first = (
        told(capsys, products / name, data / "fan_final") for name in ("", "model_epoch-2", "model_epoch-1")
    )
    assert last == second != first


def test_a_digit_of_any_colours_is_read_as_the_digits_of_the_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(drawn_digits, "TRAIN", 50)
    monkeypatch.setattr(drawn_digits, "TEST", 20)
    lenet_mnist.main(
        ["--sample", "--data", str(tmp_path / "data"), "--out", str(tmp_path), "--epochs", "1", "--workers", "0"]
    )
    found = evaluate_run.evaluate(trained.load(tmp_path, "cpu", 0), "test")
    digit = found.dataset[3][0][0, 2:-2, 2:-2].numpy()
    Image.fromarray(digit).save(tmp_path / "grey.png")
    Image.fromarray(digit).convert("RGB").save(tmp_path / "rgb.png")
    grey, rgb = json.loads(told(capsys, tmp_path, tmp_path / "grey.png", tmp_path / "rgb.png", "--format", "json"))
    assert grey["probabilities"] == rgb["probabilities"]
    assert list(grey["probabilities"].values()) == pytest.approx(found.probabilities[3].tolist(), rel=1e-4)
    told(capsys, tmp_path, tmp_path / "grey.png", "--grid", tmp_path / "grid.png")
    assert (tmp_path / "grid.png").read_bytes()[:4] == b"\x89PNG"


def test_of_several_labels_all_that_are_predicted_come_first(tmp_path, monkeypatch, capsys):
    write_tags(tmp_path, monkeypatch)
    for name, colour in (("1.png", "yellow"), ("2.png", "black")):
        Image.new("RGB", (8, 8), colour).save(tmp_path / name)
    files = tmp_path / "1.png", tmp_path / "2.png"
    yellow, black = (line.split()[1:] for line in told(capsys, tmp_path, *files).splitlines())
    assert sorted(yellow[:4:2]) == ["green", "red"] and yellow[4:] == ["|", "blue", "0.0067"]
    assert black[0] == "|" and sorted(black[1::2]) == ["blue", "green", "red"]
    assert len(told(capsys, tmp_path, files[0], "--top", 1).split()) == 6, "what is predicted is never cut"
    rows = json.loads(told(capsys, tmp_path, *files, "--format", "json"))
    assert [row["prediction"] for row in rows] == [["red", "green"], []]
    assert all(list(row) == ["path", "prediction", "probabilities"] for row in rows)
    assert list(rows[0]["probabilities"].values()) == pytest.approx([0.9933, 0.9933, 0.0067], abs=1e-4)
    header, *lines = csv.reader(io.StringIO(told(capsys, tmp_path, *files, "--format", "csv")))
    assert header == ["path", "prediction", "red", "green", "blue"]
    assert [line[1] for line in lines] == ["red;green", ""]


def test_a_grid_of_several_labels_names_them_all(tmp_path, monkeypatch, capsys):
    image = torch.zeros(3, 4, 4, dtype=torch.uint8)
    rows = np.array([[0.2, 0.75, 0.9], [0.1, 0.2, 0.3]], np.float32)
    found = [predict.Prediction("pug/1.jpg", image, row) for row in rows]
    titles = [panel.get_title() for panel in predict.draw(found, ["pug", "boxer", "cat"], several=True).axes]
    assert titles == ["cat (0.90)\nboxer (0.75)", "no label"]
    write_tags(tmp_path, monkeypatch)
    Image.new("RGB", (8, 8), "yellow").save(tmp_path / "1.png")
    told(capsys, tmp_path, tmp_path / "1.png", "--grid", tmp_path / "grid.png")
    assert (tmp_path / "grid.png").read_bytes()[:4] == b"\x89PNG"


# -- which images


def test_a_folder_stands_for_its_images_and_those_of_its_folders_sorted(tmp_path, capsys):
    for name in (
        "b/2.JPG",
        "b/1.png",
        "a.webp",
        "d.jp2",
        "notes.txt",
        "e.pdf",
        ".hidden.jpg",
        ".thumbs/1.jpg",
        "c/d/e.jpeg",
        "raw.nef",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    expected = [str(tmp_path / name) for name in ("a.webp", "b/1.png", "b/2.JPG", "c/d/e.jpeg", "d.jp2")]
    assert predict.find_images([str(tmp_path)]) == expected
    told = capsys.readouterr().err
    assert f"{tmp_path}: 2 files left out: e.pdf, notes.txt, not images." in told
    assert f"{tmp_path}: 1 file left out: raw.nef, RAW, to be converted to JPEG or TIFF." in told
    first = str(tmp_path / "notes.txt")
    assert predict.find_images([first, str(tmp_path / "b")]) == [first, *expected[1:3]], "a file is taken at its word"


def test_images_are_read_a_batch_at_a_time(products, data, monkeypatch):
    read, seen = predict.read_named, []
    monkeypatch.setattr(predict, "read_named", lambda how, path: seen.append(path) or read(how, path))
    network = trained.load(products, "cpu", 0)
    network.args.batch_size = 4
    paths = predict.find_images([str(data)])
    found = predict.predict(network, paths, [])
    assert next(found).path == paths[0] and seen == paths[:4]
    assert [one.path for one in found] == paths[1:]


@pytest.mark.parametrize("form", ["text", "json", "csv"])
def test_a_broken_image_among_many_is_told_and_the_others_are_predicted(products, data, tmp_path, capsys, form):
    shutil.copytree(data / "fan_final", tmp_path / "fan_final")
    for name, content in (
        ("0.jpg", b""),
        ("100500_0.JPG", (data / "fan_final").iterdir().__next__().read_bytes()[:300]),
    ):
        (tmp_path / "fan_final" / name).write_bytes(content)
    out = tmp_path / "out"
    with pytest.raises(SystemExit, match="2 of 8 images could not be used") as caught:
        predict.main([str(products), str(tmp_path / "fan_final"), "--format", form, "-o", str(out)])
    assert caught.value.code not in (0, 2)
    error = capsys.readouterr().err
    assert "fan_final/0.jpg cannot be used: it is not an image" in error and "100500_0.JPG cannot be used" in error
    text = out.read_text()
    paths = {
        "text": lambda: [line.split()[0] for line in text.splitlines()],
        "json": lambda: [row["path"] for row in json.loads(text)],
        "csv": lambda: [row["path"] for row in csv.DictReader(io.StringIO(text))],
    }[form]()
    assert [Path(path).name for path in paths] == sorted(path.name for path in (data / "fan_final").iterdir())


def test_when_every_image_is_broken_the_formats_are_whole_all_the_same(products, tmp_path):
    (tmp_path / "a.jpg").touch()
    for form, whole in (
        ("json", "[]\n"),
        ("text", ""),
        ("csv", f"path,prediction,probability,{','.join(SUPER_LABEL_NAMES)}\n"),
    ):
        with pytest.raises(SystemExit, match="1 of 1 images could not be used"):
            predict.main(
                [
                    str(products),
                    str(tmp_path),
                    "--format",
                    form,
                    "-o",
                    str(tmp_path / "o"),
                    "--grid",
                    str(tmp_path / "g.png"),
                ]
            )
        assert (tmp_path / "o").read_text() == whole
    assert not (tmp_path / "g.png").exists()


# -- the picture


def test_the_truth_is_that_of_the_folder_s_or_the_file_s_name():
    classes = ["pug", "great_pyrenees", "mug"]
    assert predict.truth_of("photos/pug/1.jpg", classes) == "pug"
    assert predict.truth_of("photos/mug_final/100_2.JPG", classes) == "mug"
    assert predict.truth_of("photos/great_pyrenees_12.jpg", classes) == "great_pyrenees"
    assert predict.truth_of("photos/terrier_12.jpg", classes) is None
    assert predict.truth_of("1.jpg", classes) is None


def test_the_truth_is_known_from_within_the_folder_too(tmp_path, monkeypatch):
    (tmp_path / "pug").mkdir()
    monkeypatch.chdir(tmp_path / "pug")
    assert predict.truth_of("1.jpg", ["pug"]) == "pug"


def test_a_grid_shows_prediction_and_truth():
    image, row = torch.zeros(3, 4, 4, dtype=torch.uint8), np.array([0.25, 0.75], np.float32)
    found = [predict.Prediction(path, image, row) for path in ("pug/1.jpg", "boxer/1.jpg", "other/1.jpg")]
    titles = [panel.get_title() for panel in predict.draw(found, ["pug", "boxer"]).axes]
    assert titles == ["\N{BALLOT X} boxer (0.75)\nin truth pug", "\N{CHECK MARK} boxer (0.75)", "boxer (0.75)"]


def test_a_grid_has_the_first_images_of_many(products, data, tmp_path, monkeypatch, capsys):
    drawn, draw_images = [], predict.draw_images
    monkeypatch.setattr(
        predict, "draw_images", lambda images, titles: drawn.append(len(images)) or draw_images(images, titles)
    )
    lines = told(capsys, products, data, "--grid", tmp_path / "g.svg").splitlines()
    assert len(lines) == 72 and drawn == [predict.MOST_DRAWN] and b"<svg" in (tmp_path / "g.svg").read_bytes()


# -- what is refused


def test_bad_input_is_told_with_what_to_do(products, two_newts, data, tmp_path, capsys):
    picture = next((data / "fan_final").iterdir())
    (tmp_path / "empty").mkdir()
    assert "holds no image (.jpg," in refused(capsys, products, tmp_path / "empty")
    assert "absent.jpg: name image files, or folders" in refused(capsys, products, picture, tmp_path / "absent.jpg")
    assert "absent: name a run's folder, or a file of weights" in refused(capsys, products / "absent", picture)
    shutil.copy(products / "model_epoch-2", tmp_path / "model_epoch-2")
    assert "has no args.json with network and classes" in refused(capsys, tmp_path / "model_epoch-2", picture)
    snapshot = refused(capsys, products / "snapshot_epoch-2", picture)
    assert "is the snapshot of a run; give the weights beside it, such as a" in snapshot
    other = shutil.copytree(products, tmp_path / "run")
    shutil.copy(two_newts / "cnn.pt", other / "model_epoch-3")
    assert "model_epoch-3 does not fit the model (missing: " in refused(capsys, other, picture)
    assert "log cannot be read as a file of weights" in refused(capsys, products / "log", picture)
    (other / "args.json").write_text("{}")
    assert "args.json cannot be read" in refused(capsys, other, picture)
    assert "--batch-size must be 1 or more, got 0" in refused(capsys, products, picture, "--batch-size", 0)
    assert "--top must be 1 or more, got 0" in refused(capsys, products, picture, "--top", 0)
    assert "--grid must end in .png, .svg or .pdf, got g.xyz" in refused(capsys, products, picture, "--grid", "g.xyz")
    assert "No such file" in refused(capsys, products, picture, "-o", tmp_path / "absent" / "o")


def test_a_network_that_has_diverged_is_refused(products, data, tmp_path, capsys):
    weights = torch.load(products / "model_epoch-2", weights_only=True)
    weights["fc.weight"][:] = torch.nan
    torch.save(weights, tmp_path / "model_epoch-3")
    shutil.copy(products / "args.json", tmp_path)
    assert "model_epoch-3 gives NaN and no probabilities" in refused(capsys, tmp_path, data / "fan_final")


def test_head_may_have_seen_enough(products, data, tmp_path):
    code = call(predict_for_nobody, products, data / "fan_final", output=tmp_path / "printed")
    assert (code, (tmp_path / "printed").read_text()) == (1, "")


def predict_for_nobody(*arguments):
    reading, writing = os.pipe()
    os.close(reading)
    os.dup2(writing, 1)
    sys.stdout = open(1, "w", closefd=False)
    predict.main([str(argument) for argument in arguments])
