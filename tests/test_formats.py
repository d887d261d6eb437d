"""Snapshots of this format are read, and those of others refused. Kusari of format N wrote ``snapshots/format_N``."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers import equal, make_data

import extensions
from trainer import Classifier, StandardUpdater, Trainer, saving
from trainer.iterators import MultiprocessIterator, SerialIterator
from trainer.saving import snapshots
from trainer.triggers import EarlyStoppingTrigger, MaxValueTrigger

SNAPSHOTS = Path(__file__).parent / "snapshots"


def prepare(out, stop=7):
    """The run whose snapshot of iteration 5 was kept; the file is called ``mid``."""
    torch.manual_seed(0)
    model = Classifier(torch.nn.Linear(2, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    train = MultiprocessIterator(make_data(10), 4, n_processes=0)
    updater = StandardUpdater(train, optimizer, model=model, device="cpu")
    early = EarlyStoppingTrigger((1, "epoch"), "main/loss", patience=9, max_trigger=(stop, "iteration"))
    run = Trainer(updater, early, out=out)
    run.extend(extensions.Evaluator(SerialIterator(make_data(6), 4, repeat=False), model))
    run.extend(extensions.ExponentialShift("lr", 0.5), trigger=(1, "epoch"))
    run.extend(extensions.LogReport(trigger=(2, "iteration")))
    run.extend(extensions.PrintReport(["iteration", "main/loss"]))
    best = extensions.snapshot_object(model, "best_{.updater.iteration}", n_retains=1)
    run.extend(best, trigger=MaxValueTrigger("main/accuracy", (1, "epoch")))
    run.extend(extensions.snapshot(filename="mid"), trigger=lambda trainer: trainer.updater.iteration == 5)
    return run


@pytest.mark.filterwarnings("ignore:the snapshot was made with:UserWarning")  # by another torch, on another machine
def test_a_snapshot_of_this_format_can_be_loaded_and_gone_on_from(tmp_path, capsys):
    for path in (SNAPSHOTS / "format_3").iterdir():
        shutil.copy(path, tmp_path)
    saved = torch.load(tmp_path / "mid", weights_only=True)
    run = prepare(tmp_path)
    run.resume(tmp_path / "mid")
    assert run.run_id == saved["run_id"] and run.updater.iteration == 5
    assert equal(dict(run.updater.get_model("main").state_dict()), dict(saved["updater"]["model"]["main"]))
    assert run.updater.get_optimizer("main").param_groups[0]["lr"] == 0.025  # shifted at the end of both epochs
    run.run()
    assert run.updater.iteration == 7
    assert [entry["iteration"] for entry in json.loads((tmp_path / "log").read_text())] == [2, 4, 6]
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["iteration", "6"]


def test_a_snapshot_of_an_older_format_is_refused_with_what_to_do(tmp_path):
    told = (
        "/mid does not fit .*: it has format 2 and this Kusari reads 3: take the Kusari that wrote it, or start afresh"
    )
    with pytest.raises(saving.SnapshotError, match=told):
        prepare(tmp_path).resume(SNAPSHOTS / "format_2" / "mid")


def test_a_newer_format_is_refused_with_what_to_do(run, tmp_path):
    run.extend(extensions.snapshot(filename="s", autoload=True))
    state = run.state_dict() | {"format": 99}
    saving.save(state, tmp_path / "s", run_id=run.run_id)
    with pytest.raises(
        saving.SnapshotError, match="/s does not fit this run: it has format 99 and this Kusari reads 3: update Ku"
    ):
        run.resume(tmp_path / "s")
    with pytest.warns(UserWarning, match="autoload passes over a file: .*/s does not fit this run: it has format 99"):
        run.run()


def test_a_newer_file_format_is_refused_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(snapshots, "MAGIC", b"KUSARI02")
    saving.save({}, tmp_path / "s")
    monkeypatch.undo()
    with pytest.raises(saving.SnapshotError, match="s was written by a newer Kusari, in the file format b'KUSARI0"):
        saving.load(tmp_path / "s")
