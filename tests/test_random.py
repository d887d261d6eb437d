"""The streams of random numbers."""

import random
import warnings

import numpy as np
import pytest
import torch
from helpers import equal

import trainer.random
from trainer import concat_examples
from trainer.iterators import SerialIterator


def draw():
    return random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(2)


def test_one_seed_starts_every_generator():
    trainer.random.set_seed(5)
    first = draw()
    trainer.random.set_seed(5)
    assert equal(draw(), first) and trainer.random.get_seed() == 5
    trainer.random.set_seed(6)
    assert not equal(draw(), first)


@pytest.mark.parametrize(
    ("seed", "message"),
    [(-1, f"seed must be 0 to {2**63 - 1}, got -1"), (2**63, f"seed must be 0 to {2**63 - 1}, got {2**63}")],
)
def test_a_seed_out_of_range_is_refused(seed, message):
    with pytest.raises(ValueError, match=message):
        trainer.random.set_seed(seed)


def test_captured_generators_come_back_exactly_half_used_gaussians_included():
    random.gauss(0, 1), np.random.randn()
    state = trainer.random.capture()
    first = draw()
    trainer.random.restore(state)
    assert equal(draw(), first)


def test_a_block_may_draw_without_a_trace():
    with trainer.random.preserved():
        first = draw()
        trainer.random.seed_generators(3)
    assert equal(draw(), first)


@pytest.mark.parametrize("before", range(4))
@pytest.mark.parametrize("inside", range(4))
def test_a_block_leaves_no_trace_in_numpys_gaussians(before, inside):
    # They are made in pairs, and the second one waits beside the generator's words.
    for seed in (1, 1, 2):
        expected = np.random.RandomState(seed).randn(before + 3)
        np.random.seed(seed)
        first = np.random.randn(before)
        for _ in range(2):
            with trainer.random.preserved():
                np.random.randn(inside)
        second = np.random.randn(1)
        with trainer.random.preserved():
            trainer.random.seed_generators(3)
            np.random.randn(inside)
        assert equal(np.concatenate([first, second, np.random.randn(2)]), expected)


def test_a_block_leaves_another_generator_in_its_place():
    usual = np.random.get_bit_generator()
    try:
        np.random.set_bit_generator(np.random.PCG64(1))
        first = np.random.RandomState(np.random.PCG64(1)).randn(4)
        with trainer.random.preserved():
            np.random.randn(3)
        with trainer.random.preserved():
            np.random.set_bit_generator(usual)
            np.random.randn(3)
        assert equal(np.random.randn(4), first)
    finally:
        np.random.set_bit_generator(usual)


def test_derived_seeds_never_change():
    # A snapshot of today must go on with the same order tomorrow.
    assert trainer.random.derive(0, 1, 2) == 8901564848246840783
    assert next(SerialIterator(range(10), 10)) == [1, 0, 6, 3, 8, 4, 2, 7, 9, 5]
    assert len({trainer.random.derive(0, trainer.random.SAMPLE, e, p) for e in range(50) for p in range(50)}) == 2500


def test_a_batch_is_collated_and_moved():
    assert torch.equal(concat_examples([1, 2]), torch.tensor([1, 2]))
    batch = concat_examples({"x": torch.ones(2), "name": "text"}, "cpu")
    assert torch.equal(batch["x"], torch.ones(2)) and batch["name"] == "text"
    with pytest.raises(ValueError, match="batch is empty"):
        concat_examples([])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert isinstance(concat_examples([(np.float32(1), {"a": 2})])[1]["a"], torch.Tensor)
