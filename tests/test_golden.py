"""The learning rates that the tutorial on Online Products published, out of the real engine."""

import io
import json

import pytest
import torch

import extensions
from trainer import StandardUpdater, Trainer
from trainer.iterators import SerialIterator

PUBLISHED = """\
75 0 0.000204978
149 0 0.000324627
224 0 0.000412265
2978 4 0.000973282
3052 4 0.000975213
3127 4 0.000977015
7295 9 0.000999649
7370 9 0.000999674
7444 10 0.000999698
"""


class StandIn(torch.utils.data.Dataset):
    """47,640 samples, one number each."""

    def __len__(self):
        return 47640

    def __getitem__(self, index):
        return index


@pytest.mark.parametrize("epochs", [1, pytest.param(10, marks=pytest.mark.full)])
def test_the_published_table_comes_out_to_the_last_digit(tmp_path, epochs):
    model = torch.nn.Linear(1, 1)
    updater = StandardUpdater(
        SerialIterator(StandIn(), 64),
        torch.optim.Adam(model.parameters()),
        model=model,
        converter=lambda samples, device: torch.zeros(1, 1),
        loss_func=lambda x: model(x).sum(),
    )
    run = Trainer(updater, (epochs, "epoch"), out=tmp_path)
    out = io.StringIO()
    run.extend(extensions.observe_lr(bias_corrected=True), trigger=(1, "iteration"))
    run.extend(extensions.LogReport(trigger=(0.1, "epoch")))
    run.extend(extensions.PrintReport(["iteration", "epoch", "lr"], out=out), trigger=(0.1, "epoch"))
    run.run()

    rows = [" ".join(line.split()) for line in out.getvalue().splitlines()]
    assert rows[0] == "iteration epoch lr"
    assert len(rows) == 10 * epochs + 1
    assert [row for row in rows if row.split()[0] in ("75", "149", "224")] == PUBLISHED.splitlines()[:3]
    assert epochs == 1 or set(PUBLISHED.splitlines()) <= set(rows)
    assert len(json.loads((tmp_path / "log").read_text())) == 10 * epochs
