"""The benchmarks' own parts; that they run is enough for the rest, and no time is asserted."""

import argparse
import importlib
import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from recipes import resnet_products
from trainer import Trainer

FOLDER = Path(__file__).parent.parent / "benchmarks"


def compare(*arguments):
    return subprocess.run(
        [sys.executable, str(FOLDER / "compare.py"), *map(str, arguments)], capture_output=True, text=True
    )


def result(path, rows, **changes):
    rows = [
        {"name": name, "value": value, "unit": "us", "more_is_better": name.startswith("rate")} for name, value in rows
    ]
    head = {"benchmark": "overhead", "date": "2026-01-01", "machine": "a, 2 cores", "versions": {"torch": "2.6"}}
    path.write_text(json.dumps(head | changes | {"rows": rows}))
    return path


def test_two_result_files_are_compared_row_by_row_and_what_is_worse_is_marked(tmp_path):
    old = result(tmp_path / "old", [("bare", 10.0), ("full", 20.0), ("rate", 100.0), ("gone", 1.0), ("none", 0.0)])
    new = result(tmp_path / "new", [("bare", 10.5), ("full", 30.0), ("rate", 50.0), ("more", 1.0), ("none", 3.0)])
    told = compare(old, new)
    rows = {line.split()[0]: line.split()[1:] for line in told.stdout.splitlines()[1:]}
    assert told.returncode == 1 and told.stderr == ""
    assert rows["bare"] == ["1.050", "10", "10.5", "us"]
    assert rows["full"] == ["1.500", "20", "30", "us", "WORSE"]
    assert rows["rate"] == ["0.500", "100", "50", "us", "WORSE"]
    assert (rows["gone"], rows["more"], rows["none"][:2]) == (["gone"], ["new", "1", "us"], ["was", "0"])
    assert compare(old, new, "--tolerance", 2).returncode == 0


def test_another_machine_or_version_is_told_of(tmp_path):
    old = result(tmp_path / "old", [("bare", 1.0)])
    new = result(tmp_path / "new", [("bare", 1.0)], machine="b, 4 cores", versions={"torch": "2.7"})
    told = compare(old, new)
    assert told.returncode == 0
    assert "machine: a, 2 cores -> b, 4 cores" in told.stdout and "{'torch': '2.6'} -> {'torch': '2.7'}" in told.stdout


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"rows": [{"name": "bare"}]}'])
def test_what_is_no_result_file_is_told_with_what_to_do(tmp_path, content):
    good, bad = result(tmp_path / "good", [("bare", 1.0)]), tmp_path / "bad"
    bad.write_text(content)
    told = compare(good, bad)
    assert told.returncode == 2 and f"{bad} is no result file of a benchmark" in told.stderr and "--json" in told.stderr
    other = result(tmp_path / "other", [("bare", 1.0)], benchmark="data")
    assert "is of overhead.py and" in compare(good, other).stderr


def test_the_model_s_benchmark_trains_with_what_the_recipe_trains_with(data, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(FOLDER)
    model = importlib.import_module("model")
    args = argparse.Namespace(model="test_resnet", batch_size=2, image_size=32, device="cpu", compile=False)
    options = ["--data", str(data), "--model", "test_resnet", "--image-size", "32", "--scale", "32", "--workers", "0"]
    trained = []
    monkeypatch.setattr(Trainer, "run", lambda run, **kwargs: trained.append(run))
    for setting in model.SETTINGS.values():
        more = ["--precision", setting["precision"], *["--channels-last"] * setting["channels_last"]]
        more += ["--out", str(tmp_path / "a"), "--overwrite", "--batch-size", "2"]
        resnet_products.main([*options, *more])
        theirs = trained.pop().updater
        ours = model.Job(args, **setting).run(tmp_path / "b").updater
        assert repr(ours.get_optimizer("main")) == repr(theirs.get_optimizer("main"))
        assert str(ours.get_model("main")) == str(theirs.get_model("main"))
        assert ours.converter.memory_format == theirs.converter.memory_format
    monkeypatch.setattr(sys, "argv", [*"model.py --rounds 1 --iterations 10 --image-size 32".split()])
    sys.argv += "--model test_resnet --batch-size 2 --device cpu --settings fp32".split()
    with warnings.catch_warnings():
        model.main()
    out = capsys.readouterr().out
    assert "fp32, Kusari / by hand" in out and "main/loss" not in out
