"""The options of a recipe: bounds, files of options, and what a resumed run keeps."""

import json

import pytest

from recipes import lenet_mnist, newts, pets, resnet_products
from recipes.parts.options import Options

SHAPES = {"data": "photos", "epochs": 2, "batch_size": 8, "lr": 0.001}


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["recipe.py"])


def refused(capsys, options, *arguments):
    with pytest.raises(SystemExit) as caught:
        options.parse([str(argument) for argument in arguments])
    (line,) = capsys.readouterr().err.splitlines()
    assert caught.value.code == 2
    return line


@pytest.mark.parametrize(
    ("options", "arguments", "told"),
    [
        (newts.OPTIONS, ["--iterations", "0"], "--iterations must be 1 or more, got 0."),
        (newts.OPTIONS, ["--workers", "-1"], "--workers must be 0 or more, got -1."),
        (newts.OPTIONS, ["--lr", "nan"], "--lr must be 0 or more, got nan."),
        (pets.OPTIONS, ["--scale", "99999"], "--scale must be 1 to 16384, got 99999."),
        (pets.OPTIONS, ["--scale", "20", "--image-size", "21"], "must not be smaller than --image-size, got 20 < 21."),
        (lenet_mnist.OPTIONS, ["--std", "0"], "--std must be above 0, got 0.0."),
        (lenet_mnist.OPTIONS, ["--mean", "inf"], "--mean must be a number, got inf."),
        (resnet_products.OPTIONS, ["--test-fraction", "1.5"], "must be above 0 and at most 1, got 1.5."),
        (resnet_products.OPTIONS, ["--cache", ""], "--cache must not be empty, got ''; is the variable that holds it"),
        (resnet_products.OPTIONS, ["--model", ""], "--model must not be empty, got ''; is the variable that holds it"),
    ],
)
def test_a_value_out_of_bounds_is_named_with_the_bounds(options, arguments, told, capsys):
    assert told in refused(capsys, options, *arguments)


def test_options_of_a_file_are_those_of_the_command_line_which_comes_first(tmp_path):
    (tmp_path / "run.toml").write_text('epochs = 7\nbatch-size = 5\nlr = 1\nprecision = "bf16"\ncompile = true\n')
    args = pets.OPTIONS.parse(["--config", "run.toml", "--epochs", "9", "--workers", "0"])
    assert (args.epochs, args.batch_size, args.lr, args.precision, args.compile) == (9, 5, 1, "bf16", True)


def test_printed_options_are_a_file_that_gives_the_same_options(tmp_path, capsys):
    arguments = ["--epochs", "3", "--lr", "1e-5", "--target", "category", "--out", 'a "b"', "--device", "cpu"]
    with pytest.raises(SystemExit) as caught:
        pets.OPTIONS.parse([*arguments, "--print-config"])
    assert caught.value.code == 0
    (tmp_path / "run.toml").write_text(capsys.readouterr().out)
    asked, again = (vars(pets.OPTIONS.parse(a)) for a in (arguments, ["--config", "run.toml"]))
    assert {**again, "config": None} == asked and not (tmp_path / "result").exists()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('epochs = "7"', "run.toml: epochs is '7'"),
        ("epochs = 7.5", "run.toml: epochs is '7.5'"),
        ("epochs = [1]", "run.toml: epochs is '[1]'"),
        ('precision = "fp8"', "run.toml: precision is 'fp8'"),
        ("epoch = 7", "run.toml: epoch is not an option that a file may set; --print-config prints those."),
        ('recipe = "mine.py"', "run.toml: recipe is not an option that a file may set"),
        ("overwrite = true", "run.toml: overwrite is not an option that a file may set"),
        ('[model]\nclass_path = "os.system"', "run.toml: model is "),
        ("epochs = ", "run.toml cannot be read: it is not TOML ("),
        (None, "run.toml"),
        ("epochs = 0", "--epochs must be 1 or more, got 0."),
    ],
)
def test_a_file_of_options_is_refused_by_name_and_key(text, told, tmp_path, capsys):
    if text is not None:
        (tmp_path / "run.toml").write_text(text)
    assert told in refused(capsys, pets.OPTIONS, "--config", "run.toml")


def saved(**change):
    versions = {"torch": "2"}
    told = {"recipe": "newts", "classes": ["a", "b"], "splits": {"test": 3}, "versions": versions}
    args = {"batch_size": 3, "lr": 0.5, "iterations": 4, "device": "cuda:7", "workers": 3, "out": "there", "seed": 0}
    return told | {"args": args | {"precision": "fp32", "on_bad_sample": "raise", "data": "data"}} | change


def test_the_arguments_of_a_run_can_be_fed_back(tmp_path, capsys):
    (tmp_path / "args.json").write_text(json.dumps(saved()))
    args = newts.OPTIONS.parse(["--config", "args.json", "--out", "here", "--workers", "0"])
    assert (args.batch_size, args.lr, args.iterations, args.workers, args.out) == (3, 0.5, 4, 0, "here")
    assert args.device != "cuda:7"  # of another machine
    (tmp_path / "args.json").write_text(json.dumps(saved(recipe="../evil.py")))
    assert "is of ../evil.py, not of newts." in refused(capsys, newts.OPTIONS, "--config", "args.json")
    (tmp_path / "args.json").write_text(json.dumps(saved(args={"lr": {"class_path": "os.system"}})))
    assert "args.json cannot be read (its args/lr is " in refused(capsys, newts.OPTIONS, "--config", "args.json")


def test_an_option_of_one_s_own_is_kept_by_a_resumed_run_unless_it_says_otherwise(tmp_path, capsys):
    options = Options(str(tmp_path / "newts.py"), None, SHAPES)
    options.add("data", "--side", type=int, least=1, help="pixels")
    options.add("data", "--fast", type=int, on_resume="free", help="pixels")
    (tmp_path / "result").mkdir()
    (tmp_path / "result" / "snapshot_epoch-1").touch()
    of_run = {"side": 32, "fast": 1, "epochs": 1, "lr": 0.1, "batch_size": 8, "data": "photos"}
    common = {"out": "result", "precision": "fp32", "on_bad_sample": "raise", "seed": 0}
    (tmp_path / "result" / "args.json").write_text(json.dumps(saved(args=of_run | common)))
    args = options.parse(["--resume", "--fast", "2"])
    assert (args.side, args.fast) == (32, 2)
    assert "--side cannot change on --resume: the run has 32, not 33; leave it out" in refused(
        capsys, options, "--resume", "--side", "33"
    )


def test_a_flag_that_a_file_sets_to_false_is_one_that_was_not_given(tmp_path):
    options = Options(str(tmp_path / "newts.py"), None, SHAPES)
    options.add("model", "--wide", action="store_true", help="more channels")
    (tmp_path / "result").mkdir()
    (tmp_path / "result" / "snapshot_epoch-1").touch()
    of_run = {"wide": None, "epochs": 1, "lr": 0.1, "batch_size": 8, "data": "photos", "out": "result", "seed": 0}
    of_run |= {"precision": "fp32", "on_bad_sample": "raise"}
    (tmp_path / "result" / "args.json").write_text(json.dumps(saved(args=of_run)))
    (tmp_path / "run.toml").write_text("wide = false\n")
    assert not options.parse(["--resume", "--config", "run.toml"]).wide
