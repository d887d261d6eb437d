"""What a porter from pytorch-pfn-extras reads: the guide's code runs, its names exist, and its traps are there."""

import ast
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from helpers import make_run
from test_chainer_names import resolve
from torch import nn
from torch.utils.data import TensorDataset

import extensions
from trainer import Extension

PAGE = (Path(__file__).parent.parent / "docs" / "from_pfn_extras.md").read_text()
BLOCKS = re.findall(r"```(python|diff)\n(.*?)```", PAGE, re.DOTALL)


def side(diff, sign):
    """The lines without a sign and those with it."""
    return "\n".join(line[1:] for line in diff.splitlines() if not line or line[0] in (" ", sign))


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(784, 10), nn.LogSoftmax(dim=1))


class Board:
    """Stands for TensorBoard's SummaryWriter, which is no part of torch."""

    written = []

    def __init__(self, folder):
        self.folder = Path(folder)

    def add_scalar(self, key, value, step):
        self.written.append((self.folder.name, key, float(value), step))

    def close(self):
        self.written.append("closed")


@pytest.fixture
def names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Board, "written", [])
    board = ModuleType("torch.utils.tensorboard")
    board.SummaryWriter = Board
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    draw = torch.Generator().manual_seed(0)
    train, test = (TensorDataset(torch.rand(n, 784, generator=draw), torch.arange(n) % 10) for n in (200, 60))
    torch.save({"models": {"main": Net().state_dict()}, "optimizers": {}}, "ppe_snapshot_iter_100")
    return {"train": train, "test": test, "Net": Net}


def test_the_guide_s_code_runs(names, capsys):
    assert [kind for kind, _ in BLOCKS] == ["diff"] + ["python"] * 4
    for kind, code in BLOCKS:
        if kind == "diff":
            ast.parse(side(code, "-"))
            code = side(code, "+")
        exec(code, names)
        if "ppe_snapshot" in code:
            loaded = torch.load("ppe_snapshot_iter_100", weights_only=True)["models"]["main"]
            assert all(torch.equal(names["model"].state_dict()[key], value) for key, value in loaded.items())

    log = json.loads(Path("result/log").read_text())
    assert [(entry["epoch"], entry["iteration"]) for entry in log] == [(1, 4), (2, 8), (3, 12), (4, 16)]
    assert all({"train/loss", "val/loss"} <= set(entry) for entry in log)
    assert len(json.loads(Path("inner/log").read_text())) == 7
    lines = [json.loads(line) for line in Path("logs/log.jsonl").read_text().splitlines()]
    assert lines[-1]["best/main/loss"] == min(entry["main/loss"] for entry in lines) == names["best"].best_value
    assert all(entry["main/loss.min"] <= entry["main/loss"] <= entry["main/loss.max"] for entry in lines)
    assert f"{lines[-1]['best/main/loss']} in epoch {names['best'].best_epoch}\n" in capsys.readouterr().out
    assert Board.written[-1] == "closed"
    assert ("board", "main/loss", Board.written[0][2], 4) == Board.written[0]


def test_the_guide_s_loop_goes_on_where_it_was(names):
    script = side(BLOCKS[0][1], "+")
    exec(script.replace("(4,", "(2,"), dict(names))
    exec(script, names)
    assert names["manager"].resumed_from.name == "snapshot_iter_8"
    assert [entry["iteration"] for entry in json.loads(Path("result/log").read_text())] == [4, 8, 12, 16]


NAMES = PAGE.split("## Names")[1]


@pytest.mark.parametrize(
    "name", sorted({*re.findall(r"`((?:trainer|extensions|torch)\.[\w.]+)`", NAMES)} - {"trainer.Trainer.args"})
)
def test_every_name_here_exists(name):
    resolve(name)


def test_the_traps_that_the_guide_tells_of_are_there(tmp_path):
    run = make_run(tmp_path, (1, "iteration"))
    assert run.stop_trigger  # always true
    run.extend(extensions.snapshot(filename="model_{.iteration}"))
    with pytest.raises(ValueError, match="'model_{.iteration}' does not fit the trainer .*model_<bound method"):
        run.run()

    class Old(Extension):
        def __call__(self, manager):
            pass

        def finalize(self, manager):
            pass

    with pytest.raises(TypeError, match=r"Old.finalize takes \(manager\), but it is called as finalize\(\): change"):
        run.extend(Old())
    with pytest.raises(TypeError, match="unexpected keyword argument 'append'"):
        extensions.LogReport(append=True)
