"""Fixtures: every test starts from the same seed, and may have a run in a folder of its own."""

import os
import signal

os.environ.setdefault("MPLBACKEND", "Agg")  # plots go to files: no screen is needed
# Of tests and of the processes that they start: on small tensors threads wait for each other longer than they work,
# and on a busy machine many times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from helpers import make_run

import trainer.random
from recipes.parts.drawn import products as drawn_products


@pytest.fixture(autouse=True)
def seeded():
    threads = torch.get_num_threads()
    handlers = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGUSR1)]
    trainer.random.set_seed(0)
    yield
    torch.set_num_threads(threads)
    for number, handler in handlers:  # a run that was stopped keeps them
        signal.signal(number, handler)


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path)


def pytest_addoption(parser):
    parser.addoption(
        "--kills",
        type=int,
        default=20,
        help="how many times tests/faults kills a run at a random moment; 20 by default, a long test takes 1000",
    )


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Drawn products: 48 pictures to train on, 24 to test on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawn_products, "TRAIN_PRODUCTS", 2)
        patch.setattr(drawn_products, "TEST_PRODUCTS", 1)
        return drawn_products.write(tmp_path_factory.mktemp("data") / "drawn")
