"""Weighted and stratified orders, threads, and data sets that take a generator."""

import collections
import multiprocessing
import pickle
import random
import threading
import time

import numpy as np
import pytest
import torch
from helpers import Augmented, equal
from torch.utils.data import DataLoader, Subset

from trainer import concat_examples
from trainer.datasets import TransformDataset
from trainer.iterators import (
    BadSampleError,
    DataLoaderIterator,
    MultiprocessIterator,
    MultithreadIterator,
    SerialIterator,
    ShuffleOrderSampler,
    StratifiedOrderSampler,
    WeightedOrderSampler,
    order_samplers,
)

LABELS = [0] * 600 + [1] * 300 + [2] * 90 + [3] * 10


def take(iterator, n):
    return [concat_examples(next(iterator)) for _ in range(n)]


def test_a_weighted_order_balances_classes_in_expectation():
    counts = collections.Counter(LABELS)
    sampler = WeightedOrderSampler([1 / counts[label] for label in LABELS])
    iterator = SerialIterator(LABELS, 1000, order_sampler=sampler, seed=0)
    drawn = collections.Counter(label for _ in range(20) for label in next(iterator))
    for label in counts:  # 20,000 draws of 1/4 each: five standard deviations are 306
        assert abs(drawn[label] - 5000) < 306


def test_a_weighted_order_follows_its_weights_and_its_size():
    sampler = WeightedOrderSampler([1, 2, 0, 5], size=8000)
    iterator = SerialIterator("abcd", 8000, order_sampler=sampler, seed=1)
    drawn = collections.Counter(next(iterator))
    assert drawn["c"] == 0 and iterator.epoch == 1
    for letter, expected in (("a", 1000), ("b", 2000), ("d", 5000)):
        assert abs(drawn[letter] - expected) < 5 * (expected * (1 - expected / 8000)) ** 0.5


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
@pytest.mark.parametrize(("size", "stretch"), [(None, 2**20), (None, 7), (100, 2**20), (101, 50)])
def test_a_weighted_order_is_that_of_numpy_s_choice(kind, size, stretch, monkeypatch):
    monkeypatch.setattr(order_samplers, "STRETCH", stretch)  # longer orders are drawn in pieces
    weights = np.random.RandomState(1).rand(60)
    sampler = WeightedOrderSampler(kind(weights), size)
    np.random.seed(2)
    order = sampler(np.arange(60), 0)
    np.random.seed(2)
    assert order.tolist() == np.random.choice(60, size or 60, p=weights / weights.sum()).tolist()


@pytest.mark.parametrize("labels", [[0, 0, 0, 1, 1, 2] * 2, "aaabbc" * 2])
@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor])
def test_a_stratified_order_is_the_same_for_ever(kind, labels):
    if kind is torch.tensor and isinstance(labels, str):
        labels = [ord(letter) for letter in labels]
    sampler = StratifiedOrderSampler(kind(list(labels)))
    np.random.seed(5)
    assert sampler(np.arange(12), 0).tolist() == [9, 2, 10, 1, 11, 7, 6, 4, 8, 5, 3, 0]


@pytest.mark.parametrize("batch_size", [10, 50, 64, 333])
def test_a_stratified_order_gives_each_batch_its_share_of_every_class(batch_size):
    iterator = SerialIterator(LABELS, batch_size, order_sampler=StratifiedOrderSampler(LABELS), seed=0)
    for _ in range(1000 // batch_size):
        drawn = collections.Counter(next(iterator))
        for label, count in collections.Counter(LABELS).items():
            assert abs(drawn[label] - batch_size * count / 1000) <= 2.5


def test_a_stratified_order_holds_each_sample_once_and_changes_with_the_epoch():
    sampler = StratifiedOrderSampler(np.array(["b", "a", "b", "c"]))
    iterator = SerialIterator(range(4), 4, order_sampler=sampler)
    epochs = [next(iterator) for _ in range(20)]
    assert all(sorted(epoch) == [0, 1, 2, 3] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 5


@pytest.mark.parametrize(
    "make",
    [
        lambda: ShuffleOrderSampler(),
        lambda: WeightedOrderSampler([1.0] * 10 + [3.0] * 10),
        lambda: StratifiedOrderSampler([0, 1] * 10),
    ],
)
def test_an_order_is_the_run_s_own_over_workers_and_resumes(make):
    whole = take(SerialIterator(Augmented(), 6, order_sampler=make(), seed=3), 9)
    first = SerialIterator(Augmented(), 6, order_sampler=make(), seed=3)
    before = take(first, 4)
    np.random.rand(5)  # nobody's business
    second = MultiprocessIterator(Augmented(), 6, order_sampler=make(), seed=3, n_processes=1)
    second.load_state_dict(first.state_dict())
    after = take(second, 5)
    second.finalize()
    assert equal(whole, before + after)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WeightedOrderSampler([1, -1]), "weights must be one number for each sample, none negative"),
        (lambda: WeightedOrderSampler([0, 0]), "and not all 0"),
        (lambda: WeightedOrderSampler([[1], [2]]), "weights must be one number for each sample"),
        (lambda: WeightedOrderSampler([1, float("nan")]), "weights must be one number"),
        (lambda: WeightedOrderSampler([1, float("inf")]), "weights must be one number"),
        (lambda: WeightedOrderSampler([1], size=0), "size must be 1 or more, got 0"),
        (lambda: StratifiedOrderSampler([]), "labels must be the class of each sample, got none"),
        (lambda: MultithreadIterator([1], 1, n_threads=0), "n_threads must be 1 or more, got 0"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# -- threads


def sample_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("samples")]


class Slow(torch.utils.data.Dataset):
    """Waits, and notes when it is at work and in which thread."""

    def __init__(self):
        self.at_work, self.most, self.threads = 0, 0, set()
        self.lock = threading.Lock()

    def __len__(self):
        return 10

    def __getitem__(self, index):
        with self.lock:
            self.at_work += 1
            self.most = max(self.most, self.at_work)
            self.threads.add(threading.current_thread().name)
        time.sleep(0.01)
        with self.lock:
            self.at_work -= 1
        return index


def test_threads_give_the_order_of_the_serial_iterator_and_its_walk():
    threads, serial = MultithreadIterator(range(10), 4, n_threads=3), SerialIterator(range(10), 4)
    for _ in range(6):
        assert next(threads) == next(serial)
        assert (threads.epoch, threads.is_new_epoch, threads.epoch_detail) == (
            serial.epoch,
            serial.is_new_epoch,
            serial.epoch_detail,
        )
    resumed = MultithreadIterator(range(10), 4, n_threads=2)
    resumed.load_state_dict(serial.state_dict())
    assert next(resumed) == next(serial) == next(threads)
    for iterator in (threads, resumed):
        iterator.finalize()
        iterator.finalize()


def test_threads_work_side_by_side_and_never_beside_the_training_loop():
    data = Slow()
    iterator = MultithreadIterator(data, 6, n_threads=3)
    next(iterator)
    assert data.most == 3 and all(name.startswith("samples") for name in data.threads)
    before = len(data.threads), data.at_work
    time.sleep(0.05)
    assert (len(data.threads), data.at_work) == before == (3, 0)
    iterator.finalize()
    assert not sample_threads()


def test_a_data_set_that_draws_from_a_global_generator_is_refused_in_threads():
    state = torch.random.get_rng_state()
    iterator = MultithreadIterator(Augmented(), 4)
    with pytest.raises(RuntimeError, match="Augmented draws from a global random generator.* Use MultiprocessIterator"):
        next(iterator)
    assert torch.equal(torch.random.get_rng_state(), state)
    iterator.finalize()


def test_an_error_in_a_thread_comes_through_and_the_position_stays():
    class Bad(Slow):
        def __getitem__(self, index):
            if index == 5:
                raise OSError("no such image")
            return super().__getitem__(index)

    data = Bad()
    iterator = MultithreadIterator(data, 4, shuffle=False, n_threads=2)
    assert next(iterator) == [0, 1, 2, 3]
    with pytest.raises(BadSampleError, match="no such image"):
        next(iterator)
    assert iterator.current_position == 4 and data.at_work == 0 and not sample_threads()


class Drawing(torch.utils.data.Dataset):
    """Is handed its generator."""

    def __len__(self):
        return 12

    def draw_sample(self, index, generator):
        return torch.rand(3, generator=generator) + index, index


@pytest.mark.parametrize(
    "make",
    [
        lambda: MultithreadIterator(Drawing(), 5, n_threads=3),
        lambda: MultiprocessIterator(Drawing(), 5, n_processes=2),
        lambda: MultiprocessIterator(Drawing(), 5, n_processes=0),
    ],
)
def test_a_data_set_that_takes_a_generator_gives_the_same_bits_everywhere(make):
    iterator = make()
    state = torch.random.get_rng_state()
    batches = take(iterator, 6)
    iterator.finalize()
    assert equal(batches, take(SerialIterator(Drawing(), 5), 6))
    assert torch.equal(torch.random.get_rng_state(), state)
    first_epoch = torch.cat([x - t[:, None] for x, t in batches])[:12]
    assert len(first_epoch.unique()) == 36  # each sample has draws of its own


# -- what any iterator does


@pytest.mark.parametrize("kind", [SerialIterator, MultithreadIterator, MultiprocessIterator])
def test_a_pickled_iterator_goes_on_where_it_was(kind):
    with kind(range(10), 4) as iterator:
        next(iterator)
        with pickle.loads(pickle.dumps(iterator)) as copied:
            expected = take(iterator, 4)
            assert equal(take(copied, 4), expected)


def test_at_the_end_of_a_with_the_workers_end():
    with MultiprocessIterator(range(10), 4, n_processes=1) as iterator:
        next(iterator)
        assert multiprocessing.active_children()
    assert not multiprocessing.active_children()
    with MultithreadIterator(range(10), 4) as iterator:
        next(iterator)
        assert sample_threads()
    assert not sample_threads()


class Endless(torch.utils.data.IterableDataset):
    def __iter__(self):
        number = 0
        while True:
            yield torch.tensor([float(number), torch.rand(()).item()])
            number += 1


def test_an_endless_stream_is_resumed_by_loading_it_again_up_to_its_place():
    def make():
        return DataLoaderIterator(DataLoader(Endless(), batch_size=2))

    whole = make()
    expected = [next(whole) for _ in range(6)]
    assert (whole.epoch, whole.epoch_detail) == (0, 0.0)
    first, resumed = make(), make()
    before = [next(first) for _ in range(4)]
    resumed.load_state_dict(first.state_dict())
    assert equal(before + [next(resumed) for _ in range(2)], expected)


class Draws(torch.utils.data.Dataset):
    def __init__(self, draw):
        self.draw = draw

    def __len__(self):
        return 10

    def __getitem__(self, index):
        self.draw()
        return index


@pytest.mark.parametrize("draw", [random.random, np.random.rand, lambda: np.random.normal(), lambda: torch.rand(())])
def test_a_draw_from_any_one_of_the_generators_is_seen(draw):
    with MultithreadIterator(Draws(draw), 4) as iterator, pytest.raises(RuntimeError, match="Draws draws from a glob"):
        next(iterator)


def shifted(sample):
    return sample[0] + 1, sample[1]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda data: Subset(data, range(11, -1, -1)),
        lambda data: TransformDataset(data, shifted),
        lambda data: TransformDataset(Subset(Subset(data, range(12)), range(0, 12, 2)), shifted),
        lambda data: Subset(TransformDataset(data, shifted), [3, 1, 2]),
    ],
)
def test_the_generator_reaches_a_data_set_that_is_wrapped(wrap):
    data = wrap(Drawing())
    threads, processes = MultithreadIterator(data, 5, n_threads=2), MultiprocessIterator(data, 5, n_processes=1)
    expected = take(SerialIterator(data, 5), 4)
    with threads, processes:
        assert equal(take(threads, 4), expected)
        assert equal(take(processes, 4), expected)
    assert len(torch.cat([x for x, _ in expected]).unique()) == 60


def test_orders_ask_for_one_label_and_one_weight_for_each_sample():
    with pytest.raises(ValueError, match="there are 4 labels and 10 samples: give one for each"):
        SerialIterator(range(10), 2, order_sampler=StratifiedOrderSampler([0, 1, 0, 1]))
    with pytest.raises(ValueError, match="there are 3 weights and 10 samples: give one for each"):
        SerialIterator(range(10), 2, order_sampler=WeightedOrderSampler([1, 2, 3]))


@pytest.mark.parametrize("seed", range(5))
def test_a_stratified_order_keeps_shares_among_very_many_classes_too(seed):
    labels = [0] * 500 + list(range(1, 501))
    iterator = SerialIterator(labels, 100, order_sampler=StratifiedOrderSampler(labels), seed=seed)
    for _ in range(10):
        assert abs(next(iterator).count(0) - 50) <= 2
