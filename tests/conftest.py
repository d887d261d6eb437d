"""What the tests share: a run of four iterations, two epochs, in a folder of its own."""

import os

os.environ.setdefault("MPLBACKEND", "Agg")  # plots go to files: no screen is needed

import pytest
import torch

import trainer.random
from trainer import Classifier, StandardUpdater, Trainer
from trainer.iterators import SerialIterator


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same seed and ends with torch's own number of threads."""
    threads = torch.get_num_threads()
    trainer.random.set_seed(0)
    yield
    torch.set_num_threads(threads)


def make_data(n=10):
    return [(torch.rand(2, generator=torch.Generator().manual_seed(i)), i % 3) for i in range(n)]


def make_run(out, stop=(2, "epoch"), n=10, batch_size=5, **kwargs):
    """A Linear(2, 3) trained by SGD."""
    model = Classifier(torch.nn.Linear(2, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    updater = StandardUpdater(SerialIterator(make_data(n), batch_size), optimizer, model=model, **kwargs)
    return Trainer(updater, stop, out=out)


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path)
