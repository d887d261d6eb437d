"""Splits and transformed data sets."""

import pytest

import trainer.random
from trainer.datasets import TransformDataset, split_dataset, split_dataset_random


def test_transforming_is_lazy():
    calls = []
    dataset = TransformDataset([1, 2, 3], lambda x: calls.append(x) or -x)
    assert len(dataset) == 3 and calls == []
    assert dataset[1] == -2 and calls == [2]


def test_a_split_has_the_first_and_the_rest():
    first, rest = split_dataset(range(5), 2)
    assert (list(first), list(rest)) == ([0, 1], [2, 3, 4])
    first, rest = split_dataset(range(5), 2, order=[4, 3, 2, 1, 0])
    assert (list(first), list(rest)) == ([4, 3], [2, 1, 0])
    assert [len(part) for part in split_dataset(range(5), 0)] == [0, 5]


def test_a_random_split_is_chainer_s_for_the_same_seed():
    first, rest = split_dataset_random(range(10), 6, seed=0)
    assert (list(first), list(rest)) == ([2, 8, 4, 9, 1, 6], [7, 3, 0, 5])


def test_a_random_split_without_a_seed_takes_the_run_s():
    trainer.random.set_seed(0)
    assert list(split_dataset_random(range(10), 6)[0]) == [2, 8, 4, 9, 1, 6]


def test_a_split_that_cannot_be_is_refused():
    with pytest.raises(TypeError, match="split_at must be int, got float"):
        split_dataset(range(5), 2.0)
    for at in (-1, 6):
        with pytest.raises(ValueError, match=f"split_at must be 0 to 5, the size of the data set, got {at}"):
            split_dataset(range(5), at)
    with pytest.raises(ValueError, match="order has 2 indices and the data set 5 samples"):
        split_dataset(range(5), 2, order=[0, 1])
