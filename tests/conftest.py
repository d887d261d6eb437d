"""Fixtures: every test starts from the same seed, and may have a run in a folder of its own."""

import os

os.environ.setdefault("MPLBACKEND", "Agg")  # plots go to files: no screen is needed

import pytest
import torch
from helpers import make_run

import trainer.random


@pytest.fixture(autouse=True)
def seeded():
    threads = torch.get_num_threads()
    trainer.random.set_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path)
