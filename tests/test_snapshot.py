"""Snapshots: what is saved, kept, found again; and that a resumed run is the same run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import equal, make_run

import extensions
from trainer import checkpoint
from trainer.checkpoint import SnapshotError


def files(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def test_a_snapshot_holds_the_whole_run_and_is_named_by_format(tmp_path):
    run = make_run(tmp_path)
    run.extend(extensions.snapshot())
    run.extend(extensions.snapshot(filename="snapshot_epoch-{.updater.epoch}"))
    run.extend(extensions.snapshot(filename=lambda t: f"own-{t.updater.iteration}"), trigger=(3, "iteration"))
    run.run()
    assert files(tmp_path) == [
        "own-3",
        "snapshot_epoch-1",
        "snapshot_epoch-2",
        "snapshot_iter_2",
        "snapshot_iter_4",
    ]
    state = checkpoint.load(tmp_path / "snapshot_iter_4")
    assert equal(state["updater"], run.updater.state_dict())


def test_snapshot_object_writes_a_plain_state_dict(tmp_path):
    run = make_run(tmp_path)
    predictor = run.updater.get_model("main").predictor
    run.extend(extensions.snapshot_object(predictor, "model_epoch-{.updater.epoch}"))
    run.run()
    code = (
        "import sys, torch; w = torch.load(sys.argv[1], weights_only=True);"
        "print(sorted(w), 'trainer' in sys.modules); torch.nn.Linear(2, 3).load_state_dict(w)"
    )
    path = tmp_path / "model_epoch-2"
    out = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True).stdout
    assert out == "['bias', 'weight'] False\n"
    assert equal(dict(torch.load(path, weights_only=True)), dict(predictor.state_dict()))


def test_the_last_ones_are_kept_and_other_files_left_alone(tmp_path):
    (tmp_path / "snapshot_iter_0").write_text("another run's")
    run = make_run(tmp_path, (5, "epoch"))
    run.extend(extensions.snapshot(n_retains=2))
    run.extend(extensions.snapshot_object(run.updater.get_model("main"), "m{.updater.iteration}", n_retains=1))
    run.run()
    assert files(tmp_path) == ["m10", "snapshot_iter_0", "snapshot_iter_10", "snapshot_iter_8"]


def test_retention_goes_on_after_a_resume(tmp_path):
    def prepare(stop):
        run = make_run(tmp_path, stop)
        run.extend(extensions.snapshot(n_retains=2, autoload=True), trigger=(1, "iteration"))
        run.extend(
            extensions.snapshot_object(run.updater.get_model("main"), "m{.updater.iteration}", n_retains=1),
            trigger=(1, "iteration"),
        )
        return run

    prepare((3, "iteration")).run()
    prepare((6, "iteration")).run()
    assert files(tmp_path) == ["m6", "snapshot_iter_5", "snapshot_iter_6"]


def test_a_run_resumed_into_another_folder_deletes_nothing_there(tmp_path):
    def prepare(out, stop):
        run = make_run(tmp_path / out, stop)
        run.extend(extensions.snapshot(n_retains=2), trigger=(1, "iteration"))
        return run

    prepare("a", (3, "iteration")).run()
    prepare("b", (3, "iteration")).run()
    resumed = prepare("b", (6, "iteration"))
    resumed.resume(tmp_path / "a" / "snapshot_iter_3")
    resumed.run()
    assert files(tmp_path / "b") == [f"snapshot_iter_{i}" for i in (2, 3, 5, 6)]


def test_a_failed_snapshot_leaves_the_previous_one_and_no_scraps(tmp_path):
    run = make_run(tmp_path)
    run.extend(extensions.snapshot(filename="s", n_retains=1))
    run.extend(
        lambda t: setattr(run.stop_trigger, "state_dict", lambda: {"x": {1}} if t.updater.iteration > 2 else {}),
        name="spoil",
    )
    with pytest.raises(TypeError, match="stop_trigger/x is set"):
        run.run()
    assert files(tmp_path) == ["s"] and [f.iteration for f in checkpoint.find(tmp_path)] == [2]


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="n_retains must be 1 or more, or -1 for all, got 0"):
        extensions.snapshot(n_retains=0)
    with pytest.raises(ValueError, match="autoload needs a filename that is a string"):
        extensions.snapshot(filename=lambda t: "x", autoload=True)


# -- autoload


def autoloading(out, stop=(4, "epoch")):
    run = make_run(out, stop)
    run.extend(extensions.snapshot(autoload=True))
    return run


def test_autoload_takes_the_newest_good_file_and_names_the_others(tmp_path):
    autoloading(tmp_path, (3, "epoch")).run()
    newest = tmp_path / "snapshot_iter_6"
    newest.write_bytes(newest.read_bytes()[:-1000])
    data = bytearray((tmp_path / "snapshot_iter_4").read_bytes())
    data[300] ^= 4
    (tmp_path / "snapshot_iter_4").write_bytes(data)
    (tmp_path / "snapshot_iter_9").touch()
    checkpoint.save({"not": "a run"}, tmp_path / "snapshot_iter_foreign", iteration=99)
    run, starts = autoloading(tmp_path), []
    run.extend(lambda t: None, name="x")
    run.get_extension("x").initialize = lambda t: starts.append((t.updater.iteration, t.is_before_training))
    with pytest.warns(UserWarning) as caught:
        run.run()
    told = "\n".join(str(w.message) for w in caught)
    for name in (
        "snapshot_iter_6 is not a snapshot",
        "snapshot_iter_9 is not a snapshot",
        "snapshot_iter_4 is damaged",
    ):
        assert name in told
    assert "snapshot_iter_foreign is not the snapshot of a run" in told
    assert starts == [(2, False)]
    assert run.resumed_from == tmp_path / "snapshot_iter_2" and run.updater.iteration == 8


def test_autoload_orders_by_iteration_not_by_name_or_time(tmp_path):
    autoloading(tmp_path, (5, "epoch")).run()
    for path in tmp_path.iterdir():
        os.utime(path, (1, 1))
    run = autoloading(tmp_path, (5, "epoch"))
    run.run()
    assert run.resumed_from.name == "snapshot_iter_10"


def test_autoload_finds_nothing_in_an_empty_folder_and_does_not_override_a_resume(tmp_path):
    run = autoloading(tmp_path / "new", (1, "epoch"))
    run.run()
    assert run.resumed_from is None
    autoloading(tmp_path / "old", (3, "epoch")).run()
    run = autoloading(tmp_path / "old")
    run.resume(tmp_path / "new" / "snapshot_iter_2")
    assert run.resumed_from.parent.name == "new" and run.updater.iteration == 2


def test_an_object_is_autoloaded_too(tmp_path):
    def prepare():
        run = make_run(tmp_path)
        model = run.updater.get_model("main")
        run.extend(extensions.snapshot_object(model, "m_{.updater.epoch}", autoload=True))
        return run, model

    first, model = prepare()
    first.run()
    (tmp_path / "m_3").write_bytes(b"no")
    os.utime(tmp_path / "m_1", (1, 1)), os.utime(tmp_path / "m_2", (2, 2))
    second, other = prepare()
    second.stop_trigger = lambda t: True
    with pytest.warns(UserWarning, match="m_3 cannot be read as a file of weights"):
        second.run()
    assert equal(dict(other.state_dict()), dict(model.state_dict()))


def test_an_explicit_resume_fails_clearly(tmp_path):
    run = make_run(tmp_path)
    with pytest.raises(FileNotFoundError):
        run.resume(tmp_path / "absent")
    checkpoint.save({"x": 1}, tmp_path / "foreign")
    with pytest.raises(SnapshotError, match="foreign is not the snapshot of a run; name one that snapshot"):
        run.resume(tmp_path / "foreign")


# -- a run is a value

SCRIPT = """
import random, sys
import numpy as np
import torch
import extensions
import trainer.random
from helpers import Augmented
from torch.utils.data import DataLoader
from trainer import Classifier, StandardUpdater, Trainer
from trainer.iterators import MultiprocessIterator, SerialIterator

out, kind, stop, resume = sys.argv[1:]
trainer.random.set_seed(3)
net = torch.nn.Sequential(
    torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Dropout(0.3),
    torch.nn.Flatten(), torch.nn.Linear(144, 3),
)
model = Classifier(net)
if kind == "serial":
    make = lambda **k: SerialIterator(Augmented(), 6, **k)
elif kind == "loader":
    make = lambda repeat=True: DataLoader(Augmented(), 6, shuffle=True)
else:
    make = lambda **k: MultiprocessIterator(Augmented(), 6, n_processes=int(kind), **k)
updater = StandardUpdater(make(), torch.optim.Adam(net.parameters(), lr=0.01), model=model)
run = Trainer(updater, (int(stop), "iteration"), out=out)
run.extend(extensions.observe_lr(bias_corrected=True), trigger=(1, "iteration"))
run.extend(extensions.Evaluator(make(repeat=False), model), trigger=(0.5, "epoch"))
run.extend(extensions.LogReport(trigger=(0.3, "epoch")))
run.extend(extensions.PrintReport(["iteration", "main/loss", "validation/main/accuracy"]), trigger=(0.5, "epoch"))
run.extend(extensions.PlotReport(["main/loss"], trigger=(0.7, "epoch")))
run.extend(lambda t: random.random() + np.random.rand(), name="draws")
run.extend(extensions.snapshot(filename="final"), trigger=lambda t: t.updater.iteration == int(stop))
run.extend(extensions.snapshot(filename="mid"), trigger=(5, "iteration"))
if resume != "-":
    run.resume(resume)
run.run()
"""


def train(out, kind, stop, resume="-"):
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    command = [sys.executable, "-c", SCRIPT, str(out), kind, str(stop), str(resume)]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout


def essence(out):
    """What must be the same: everything saved, but for the clock and what names the run's files."""
    state = checkpoint.load(out / "final")
    log = json.loads((out / "log").read_text())
    for entry in log:
        del entry["elapsed_time"]
    del state["run_id"], state["elapsed_time"], state["extensions"]["LogReport"]["sha256"]
    del state["extensions"]["LogReport"]["bytes"]  # the clock's digits
    return state, log


@pytest.mark.parametrize(
    ("before", "after"), [("serial", "serial"), ("serial", "2"), ("2", "1"), ("1", "0"), ("loader", "loader")]
)
def test_a_run_stopped_in_mid_epoch_and_resumed_in_a_new_process_is_the_same_run_to_the_bit(tmp_path, before, after):
    whole = tmp_path / "whole"
    table = train(whole, before, 13)
    assert train(tmp_path / "cut", before, 8) and (tmp_path / "cut" / "mid").exists()  # the snapshot is of iteration 5
    resumed_table = train(tmp_path / "cut", after, 13, tmp_path / "cut" / "mid")
    assert equal(essence(tmp_path / "cut"), essence(whole))
    assert table.endswith("".join(resumed_table.splitlines(keepends=True)[1:]))
