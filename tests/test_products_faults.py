"""The main job killed, stopped, resumed, on bad photographs, in used folders."""

import json
import os
import shutil
import signal
import time

import pytest
import torch
from helpers import equal
from processes import start
from test_resnet_products import SMALL, refused, train

from recipes import resnet_products


def main(*arguments):
    resnet_products.main([str(argument) for argument in arguments])


def begin(data, out, *options, until):
    """Starts the recipe in a process of its own and waits until it has written a file."""
    options = options or ("--data", data, *SMALL, "--workers", "1", "--epochs", "2")
    process = start(main, "--out", out, *options, output=out.with_suffix(".printed"))
    deadline = time.monotonic() + 120
    while not (out / until).exists():
        assert process.is_alive() and time.monotonic() < deadline, out.with_suffix(".printed").read_text()
        time.sleep(0.005)
    return process


def end(process):
    process.join(120)
    assert process.exitcode is not None
    return process.exitcode


def outcome(out):
    log = json.loads((out / "log").read_text())
    for entry in log:
        del entry["elapsed_time"]
    return dict(torch.load(out / "model_epoch-2", weights_only=True)), log, json.loads((out / "test.json").read_text())


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """What comes of the run that nothing happened to."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert end(begin(data, out, until="test.json")) == 0
    return outcome(out)


def test_sigterm_to_the_group_stops_with_code_75_and_resume_goes_on_to_the_same_end(data, whole, tmp_path):
    out = tmp_path / "out"
    process = begin(data, out, until="log")
    os.killpg(process.pid, signal.SIGTERM)
    assert end(process) == 75
    printed = out.with_suffix(".printed").read_text()
    assert "Stopped by SIGTERM after iteration " in printed
    assert f"snapshot_stopped: python recipes/resnet_products.py --resume --out {out} goes on." in printed
    assert end(begin(data, out, "--resume", "--workers", "0", until="test.json")) == 0
    assert equal(outcome(out), whole)


@pytest.mark.parametrize(
    ("until", "told"),
    [("args.json", "There is no snapshot in {} yet: the run begins anew."), ("snapshot_epoch-1", "resumed from {}/")],
)
def test_a_killed_run_is_resumed_from_its_last_snapshot_or_begins_anew(data, whole, tmp_path, until, told):
    out = tmp_path / "out"
    process = begin(data, out, until=until)
    os.killpg(process.pid, signal.SIGKILL)
    assert end(process) == -9
    assert end(begin(data, out, "--resume", until="test.json")) == 0
    assert told.format(out) in out.with_suffix(".printed").read_text()
    assert equal(outcome(out), whole)
    assert not list(out.glob(".*"))


def test_deterministic_asks_torch_for_algorithms_that_give_the_same_bits(data, tmp_path):
    try:
        train(data, tmp_path, "--epochs", "1", "--deterministic")
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_overwrite_removes_every_log_of_the_runs_before(data, tmp_path):
    train(data, tmp_path, "--epochs", "1")
    for name in ("log.old", "log.old2"):
        (tmp_path / name).write_text("[]")
    train(data, tmp_path, "--epochs", "1", "--overwrite")
    assert [path.name for path in tmp_path.glob("log*")] == ["log"]


def test_a_second_run_in_the_folder_is_refused_even_with_overwrite(data, tmp_path, capsys):
    out = tmp_path / "out"
    process = begin(data, out, until="args.json")
    try:
        told = refused(capsys, "--data", data, "--out", out, *SMALL, "--overwrite")
        assert f"out is in use by another run (process {process.pid} on " in told
        assert (out / "args.json").exists()
    finally:
        os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture
def broken(data, tmp_path):
    """The same photographs, two of them cut short."""
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    for name in ("sofa_final/100017_0.JPG", "mug_final/100015_0.JPG"):
        (folder / name).write_bytes((folder / name).read_bytes()[:500])
    return folder


@pytest.mark.filterwarnings("ignore:.*100017_0.JPG|.*100015_0.JPG:UserWarning")
def test_bad_photographs_may_be_skipped_and_are_listed(broken, tmp_path):
    train(broken, tmp_path / "a", "--on-bad-sample", "skip")
    train(broken, tmp_path / "b", "--on-bad-sample", "skip", "--workers", "2")
    lists = [{p.name: json.loads(p.read_text()) for p in (tmp_path / o).glob("bad_samples*.json")} for o in "ab"]
    assert lists[0] == lists[1] != {}
    told = [entry["error"] for listed in lists[0].values() for entry in listed]
    assert any("sofa_final/100017_0.JPG (Ebay_train.txt, line " in text for text in told)
    weights = [dict(torch.load(tmp_path / out / "model_epoch-2", weights_only=True)) for out in "ab"]
    assert equal(*weights)


def test_a_data_set_of_another_length_is_refused_unless_forced(data, tmp_path, capsys):
    folder, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(data, folder)
    train(folder, out, "--epochs", "1")
    lines = (folder / "Ebay_train.txt").read_text().splitlines(keepends=True)
    (folder / "Ebay_train.txt").write_text("".join(lines[:-8]))
    told = refused(capsys, "--out", out, "--resume", "--epochs", "2")
    assert "has changed since the run in" in told and told.rstrip().endswith("or go on with the data of now: --force.")
    resnet_products.main(["--out", str(out), "--resume", "--epochs", "2", "--force"])
    assert (out / "model_epoch-2").exists()


def test_what_a_resume_changes_and_may_change_is_warned_of(data, tmp_path):
    train(data, tmp_path, "--epochs", "1")
    with pytest.warns(
        UserWarning, match="made with args/on_bad_sample raise, now skip: the resumed run will not match"
    ):
        resnet_products.main(["--out", str(tmp_path), "--resume", "--epochs", "2", "--on-bad-sample", "skip"])


def test_force_alone_is_refused(tmp_path, capsys):
    assert "--force goes with --resume" in refused(capsys, "--out", tmp_path, "--force", *SMALL)
