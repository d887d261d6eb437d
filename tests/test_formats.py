"""Snapshots of earlier formats stay readable. ``snapshots/format_N`` was written by the Kusari of that format."""

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

FOLDERS = sorted((Path(__file__).parent / "snapshots").iterdir())


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


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
@pytest.mark.filterwarnings("ignore:the snapshot was made with:UserWarning")  # by another torch, on another machine
def test_a_snapshot_of_each_format_can_be_loaded_and_gone_on_from(folder, tmp_path, capsys):
    for path in folder.iterdir():
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


def test_the_format_of_today_has_a_snapshot_among_them(run):
    assert f"format_{run.state_dict()['format']}" in [folder.name for folder in FOLDERS]


def test_a_newer_format_is_refused_with_what_to_do(run, tmp_path):
    run.extend(extensions.snapshot(filename="s", autoload=True))
    state = run.state_dict() | {"format": 99}
    saving.save(state, tmp_path / "s", run_id=run.run_id)
    with pytest.raises(saving.SnapshotError, match="/s: it has format 99 and this Kusari reads 1 to 2: update Ku"):
        run.resume(tmp_path / "s")
    with pytest.warns(UserWarning, match="autoload passes over a file: .*/s: it has format 99"):
        run.run()


def test_a_newer_file_format_is_refused_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(snapshots, "MAGIC", b"KUSARI02")
    saving.save({}, tmp_path / "s")
    monkeypatch.undo()
    with pytest.raises(saving.SnapshotError, match="s was written by a newer Kusari, in the file format b'KUSARI0"):
        saving.load(tmp_path / "s")


def test_a_state_that_lacks_what_every_format_has_is_refused_by_the_missing_names(run):
    state = run.state_dict()
    del state["random"], state["error"]
    with pytest.raises(ValueError, match="it lacks error, random: no released Kusari wrote it; start afresh"):
        run.load_state_dict(state)
