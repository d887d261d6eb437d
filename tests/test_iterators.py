"""Order, position and augmentation: the same bits from every kind of iterator, before and after a resume."""

import multiprocessing
import random
import resource
import warnings

import numpy as np
import pytest
import torch
from helpers import Augmented, equal
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, Subset
from torchvision import tv_tensors

import trainer.random
from trainer import concat_examples
from trainer.iterators import BadSampleError, DataLoaderIterator, MultiprocessIterator, SerialIterator, as_iterator


def state_of(iterator):
    return iterator.epoch, iterator.is_new_epoch, iterator.current_position, iterator.epoch_detail


def take(iterator, n):
    return [concat_examples(next(iterator)) for _ in range(n)]


# -- Chainer's walk over the data


@pytest.mark.parametrize("n_processes", [None, 0, 1])
def test_batches_wrap_at_the_epoch_s_end(n_processes):
    if n_processes is None:
        iterator = SerialIterator(range(10), 4, shuffle=False)
    else:
        iterator = MultiprocessIterator(range(10), 4, shuffle=False, n_processes=n_processes, collate_fn=None)
    assert (*state_of(iterator), iterator.previous_epoch_detail) == (0, False, 0, 0.0, None)
    rows = [(next(iterator), *state_of(iterator), iterator.previous_epoch_detail) for _ in range(5)]
    assert rows == [
        ([0, 1, 2, 3], 0, False, 4, 0.4, 0.0),
        ([4, 5, 6, 7], 0, False, 8, 0.8, 0.4),
        ([8, 9, 0, 1], 1, True, 2, 1.2, 0.8),
        ([2, 3, 4, 5], 1, False, 6, 1.6, 1.2),
        ([6, 7, 8, 9], 2, True, 0, 2.0, 1.6),
    ]
    iterator.finalize()
    iterator.finalize()


@pytest.mark.parametrize("make", [SerialIterator, lambda *a, **k: MultiprocessIterator(*a, n_processes=1, **k)])
def test_without_repeat_the_last_batch_is_short_and_the_end_is_the_end(make):
    iterator = make(list(range(10)), 4, repeat=False, shuffle=False)
    assert [concat_examples(batch).tolist() for batch in iterator] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert state_of(iterator) == (1, True, 0, 1.0)
    assert iterator.previous_epoch_detail == 1.0
    with pytest.raises(StopIteration):
        next(iterator)
    iterator.reset()
    assert len(list(iterator)) == 3
    iterator.finalize()


def test_no_empty_batch_comes_where_the_size_divides():
    assert len(list(SerialIterator(range(8), 4, repeat=False))) == 2


def test_a_batch_may_hold_several_epochs():
    iterator = SerialIterator(range(3), 8, shuffle=False)
    assert next(iterator) == [0, 1, 2, 0, 1, 2, 0, 1]
    assert state_of(iterator) == (2, True, 2, 2 + 2 / 3)


def test_each_epoch_has_an_order_of_its_own_and_each_sample_once():
    iterator = SerialIterator(range(10), 5)
    epochs = [next(iterator) + next(iterator) for _ in range(3)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_the_order_is_a_function_of_the_seed_only():
    def order(**kwargs):
        random.random(), np.random.rand(), torch.rand(1)
        return next(SerialIterator(range(100), 100, **kwargs))

    assert order() == order() == order(seed=0)
    assert order(seed=1) != order()
    trainer.random.set_seed(1)
    assert order() == order(seed=1)


def test_reset_brings_the_same_order_and_augmentation_again():
    iterator = SerialIterator(Augmented(), 8)
    first = take(iterator, 4)
    iterator.reset()
    assert equal(take(iterator, 4), first)


def test_an_order_sampler_decides_and_is_called_under_seeded_generators():
    calls = []

    def sampler(order, position):
        calls.append((len(order), position))
        return np.random.permutation(len(order))

    first, second = (SerialIterator(range(10), 4, order_sampler=sampler) for _ in range(2))
    torch.rand(1), np.random.rand()
    before = np.random.get_state()[1].copy()
    assert [next(first) for _ in range(6)] == [next(second) for _ in range(6)]
    assert (before == np.random.get_state()[1]).all()
    assert set(calls) == {(10, 0), (10, 8), (10, 6)}


def test_an_order_sampler_must_keep_the_size():
    sizes = iter([4, 5])
    iterator = SerialIterator(range(10), 4, order_sampler=lambda order, position: np.arange(next(sizes)))
    assert iterator.epoch_size == 4
    with pytest.raises(ValueError, match="the order_sampler returned 5 indices, not 4: keep the size"):
        next(iterator)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], 4), "the data set is empty: there is nothing to iterate over"),
        (([1], 0), "batch_size must be 1 or more, got 0"),
        (([1], 1, True, True, lambda o, p: o), "give shuffle or order_sampler, not both"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SerialIterator(*arguments)


def test_wrong_numbers_of_workers_and_batches_are_refused():
    with pytest.raises(ValueError, match="n_processes must be 0 or more, got -1"):
        MultiprocessIterator([1], 1, n_processes=-1)
    with pytest.raises(ValueError, match="n_prefetch must be 1 or more, got 0"):
        MultiprocessIterator([1], 1, n_prefetch=0)


# -- the same bits with any number of workers


@pytest.mark.parametrize("n_processes", [0, 1, 2, 4])
def test_workers_give_the_batches_of_the_serial_iterator_to_the_bit(n_processes):
    dataset = Augmented()
    expected = take(SerialIterator(dataset, 8, seed=3), 12)
    iterator = MultiprocessIterator(dataset, 8, n_processes=n_processes, seed=3)
    assert equal(take(iterator, 12), expected)
    iterator.finalize()


@pytest.mark.parametrize("n_processes", [None, 0, 2])
def test_fetching_does_not_disturb_the_model_s_generators_or_threads(n_processes):
    if n_processes is None:
        iterator = SerialIterator(Augmented(), 8)
    else:
        iterator = MultiprocessIterator(Augmented(), 8, n_processes=n_processes)
    torch.set_num_threads(2)
    before = trainer.random.capture()
    take(iterator, 5)
    iterator.reset()
    take(iterator, 2)
    assert equal(trainer.random.capture(), before)
    assert torch.get_num_threads() == 2
    iterator.finalize()


def test_augmentation_differs_between_samples_epochs_and_seeds():
    class Noise(torch.utils.data.Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return random.random(), np.random.rand(), torch.rand(()).item()

    drawn = sum(([*next(SerialIterator(Noise(), 12, seed=seed))] for seed in (0, 1)), [])
    assert all(len(set(column)) == 24 for column in zip(*drawn, strict=True))


class Bad(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        if index == 5:
            raise OSError("picture 5 is broken")
        return index


@pytest.mark.parametrize("n_processes", [0, 1])
def test_an_error_in_the_data_set_comes_through_and_the_position_stays(n_processes):
    iterator = MultiprocessIterator(Bad(), 4, shuffle=False, n_processes=n_processes)
    assert next(iterator).tolist() == [0, 1, 2, 3]
    for _ in range(2):
        with pytest.raises(BadSampleError, match="picture 5 is broken"):
            next(iterator)
        assert iterator.current_position == 4
    iterator.finalize()


def test_one_rule_lists_are_samples_and_the_rest_is_collated():
    data = [({"x": torch.ones(2) * i}, i) for i in range(4)]
    lists = MultiprocessIterator(data, 2, n_processes=1, collate_fn=None, shuffle=False)
    collated = MultiprocessIterator(data, 2, n_processes=1, shuffle=False)
    assert isinstance(next(lists), list)
    batch = next(collated)
    assert type(batch) is tuple and torch.equal(batch[1], torch.tensor([0, 1]))
    lists.finalize()
    collated.finalize()


def test_a_collate_function_of_one_s_own_runs_in_the_worker():
    def pad(samples):
        return torch.nn.utils.rnn.pad_sequence([torch.ones(n) for n in samples], batch_first=True)

    for n_processes in (0, 1):
        iterator = MultiprocessIterator([1, 3], 2, n_processes=n_processes, collate_fn=pad, shuffle=False)
        assert next(iterator).tolist() == [[1, 0, 0], [1, 1, 1]]
        iterator.finalize()


def make_tensors_of_many_kinds(n):
    base, halves = torch.rand(1000, 4), torch.rand(1000).to(torch.bfloat16)
    for i in range(n):
        mask = tv_tensors.Mask(torch.arange(6).reshape(2, 3) + i)
        given = torch.ones(3, requires_grad=True), torch.zeros(0, 4), torch.tensor([1 + 2j]).conj(), np.arange(3) + i
        yield base[i], base[:5, i % 4], halves[i : i + 2], mask, base[i], *given


def test_lists_of_samples_need_no_file_descriptor_for_each_tensor():
    samples = list(make_tensors_of_many_kinds(100))
    here, there = (MultiprocessIterator(samples, 40, shuffle=False, n_processes=n, collate_fn=None) for n in (0, 1))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
    try:
        for expected, got in [(next(here), next(there)) for _ in range(3)]:
            for x, y in zip(sum(expected, ()), sum(got, ()), strict=True):
                assert type(x) is type(y) and x.dtype == y.dtype and x.shape == y.shape and x.tolist() == y.tolist()
                if isinstance(y, torch.Tensor):
                    assert y.untyped_storage().nbytes() == y.nbytes and y.requires_grad == x.requires_grad
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        there.finalize()


# -- resume


@pytest.mark.parametrize("at", [0, 1, 2, 3, 5, 6])
@pytest.mark.parametrize(("before", "after"), [(None, None), (None, 2), (2, None), (1, 2), (0, 1)])
def test_a_resumed_iterator_goes_on_with_the_same_bits_and_any_number_of_workers(at, before, after):
    def make(n):
        if n is None:
            return SerialIterator(Augmented(), 8, seed=5)
        return MultiprocessIterator(Augmented(), 8, n_processes=n, seed=5)

    whole, first, second = make(None), make(before), make(after)
    take(whole, at), take(first, at)
    second.load_state_dict(first.state_dict())
    for _ in range(4):
        assert equal(concat_examples(next(second)), concat_examples(next(whole)))
        assert (*state_of(second), second.previous_epoch_detail) == (
            *state_of(whole),
            whole.previous_epoch_detail,
        )
    first.finalize(), second.finalize()


def test_workers_that_have_fetched_ahead_go_back_to_a_loaded_place():
    iterator = MultiprocessIterator(Augmented(), 8, n_processes=2)
    take(iterator, 2)
    state, expected = iterator.state_dict(), take(iterator, 5)
    iterator.load_state_dict(state)
    assert equal(take(iterator, 5), expected)
    iterator.finalize()


def test_an_order_that_counts_from_the_end_is_loaded_again():
    first, second = (SerialIterator(range(3), 2, order_sampler=lambda order, position: [-1, 0, -3]) for _ in range(2))
    next(first)
    second.load_state_dict(first.state_dict())
    assert next(first) == next(second)


def test_an_order_sampler_s_order_is_part_of_the_state():
    def roll(order, position):
        return np.roll(order, 3)  # depends on the order before

    whole, resumed = (SerialIterator(range(10), 4, order_sampler=roll) for _ in range(2))
    for _ in range(7):
        next(whole)
    resumed.load_state_dict(whole.state_dict())
    assert [next(resumed) for _ in range(5)] == [next(whole) for _ in range(5)]


def test_the_snapshot_s_seed_wins():
    saved, other = (
        SerialIterator(range(10), 4, seed=1),
        MultiprocessIterator(range(10), 4, seed=2, n_processes=1),
    )
    next(other)
    other.load_state_dict(saved.state_dict())
    assert other.seed == 1
    assert next(other).tolist() == next(saved)
    other.finalize()


def test_a_data_set_of_another_length_is_refused():
    with pytest.raises(ValueError, match="made with 10 samples and the data set now has 11"):
        SerialIterator(range(11), 4).load_state_dict(SerialIterator(range(10), 4).state_dict())


@pytest.mark.parametrize("n_processes", [None, 0, 1])
def test_an_iterator_knows_the_size_of_its_last_batch(n_processes):
    def make(**kwargs):
        if n_processes is None:
            return SerialIterator(range(10), 4, **kwargs)
        return MultiprocessIterator(range(10), 4, n_processes=n_processes, **kwargs)

    with make(repeat=False) as short, make() as full:
        assert short.n_samples is None
        assert [short.n_samples for _ in short] == [4, 4, 2]
        assert [full.n_samples for _, _ in zip(range(4), full)] == [4, 4, 4, 4]


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor, lambda data: Subset(data, range(10))])
def test_kinds_of_data_that_draw_nothing_are_not_seeded(kind, monkeypatch):
    data = kind(list(range(10)))
    monkeypatch.setattr(trainer.random, "seed_generators", None)
    assert [int(x) for x in next(SerialIterator(data, 4))] == [1, 0, 6, 3]
    with pytest.raises(BadSampleError, match="'NoneType' object is not callable"):
        next(SerialIterator(Augmented(), 4))
    with pytest.raises(BadSampleError, match="'NoneType' object is not callable"):  # it may draw for the batch
        next(MultiprocessIterator(data, 4, n_processes=0, collate_fn=torch.tensor))


def test_a_collate_function_may_draw():
    def noisy(samples):
        return torch.tensor(samples) + torch.rand(len(samples))

    batches = []
    for n in (0, 1, 2):
        with MultiprocessIterator(list(range(10)), 4, n_processes=n, collate_fn=noisy) as iterator:
            batches.append(take(iterator, 5))
    assert equal(batches[0], batches[1]) and equal(batches[0], batches[2])


def test_an_order_over_ten_million_samples_is_small_in_the_state():
    iterator = SerialIterator(range(10**7), 64)
    next(iterator)
    assert len(str(iterator.state_dict())) < 300


# -- a DataLoader


def loader(**kwargs):
    return DataLoader(Augmented(), 6, **{"shuffle": True, **kwargs})


def test_a_data_loader_is_wrapped_and_an_epoch_is_its_batches():
    iterator = as_iterator(loader())
    details = []
    for _ in range(5):
        batch = next(iterator)
        details.append((iterator.epoch, iterator.is_new_epoch, iterator.epoch_detail, iterator.epoch_progress()))
    assert type(batch) is tuple
    assert details == [
        (0, False, 0.25, (1, 4)),
        (0, False, 0.5, (2, 4)),
        (0, False, 0.75, (3, 4)),
        (1, True, 1.0, (4, 4)),
        (1, False, 1.25, (5, 4)),
    ]


def test_a_data_loader_s_batches_depend_on_seed_and_epoch_only_and_leave_the_generators_alone():
    first = DataLoaderIterator(loader(), seed=1)
    before = trainer.random.capture()
    expected = take(first, 8)
    assert equal(trainer.random.capture(), before)
    torch.rand(5)
    assert equal(take(DataLoaderIterator(loader(), seed=1), 8), expected)
    assert not equal(take(DataLoaderIterator(loader(), seed=2), 8), expected)
    assert not equal(expected[:4], expected[4:])


@pytest.mark.parametrize("at", [0, 1, 3, 4, 5])
@pytest.mark.parametrize("with_generator", [False, True])
def test_a_resumed_data_loader_without_workers_goes_on_with_the_same_bits(at, with_generator):
    def make():
        return DataLoaderIterator(loader(generator=torch.Generator() if with_generator else None), seed=1)

    whole, first, resumed = make(), make(), make()
    take(whole, at), take(first, at)
    resumed.load_state_dict(first.state_dict())
    assert equal(take(resumed, 6), take(whole, 6))


def test_skipping_does_not_load_what_is_skipped():
    class Counting(Augmented):
        loaded = 0

        def __getitem__(self, index):
            Counting.loaded += 1
            return index

    first = DataLoaderIterator(DataLoader(Counting(), 6, shuffle=True))
    take(first, 3)
    resumed = DataLoaderIterator(DataLoader(Counting(), 6, shuffle=True))
    resumed.load_state_dict(first.state_dict())
    Counting.loaded = 0
    take(resumed, 1)
    assert Counting.loaded == 2  # the short last batch


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(5))


def test_an_iterable_data_set_of_unknown_length_has_epochs_too():
    iterator = DataLoaderIterator(DataLoader(Stream(), 2))
    epochs = []
    for _ in range(7):
        next(iterator)
        epochs.append((iterator.epoch, iterator.is_new_epoch))
    assert [e for e, _ in epochs] == [0, 0, 1, 1, 1, 2, 2]
    assert [new for _, new in epochs] == [False, False, True, False, False, True, False]


def test_a_data_loader_that_gives_nothing_is_an_error():
    used_up = iter([torch.ones(1)])

    class Once(IterableDataset):
        def __iter__(self):
            return used_up

    iterator = DataLoaderIterator(DataLoader(Once(), 1))
    next(iterator)
    with pytest.raises(ValueError, match="the DataLoader gave no batch in a whole epoch"):
        next(iterator)
    with pytest.raises(ValueError, match="the DataLoader has no batches"):
        DataLoaderIterator(DataLoader([1], 2, drop_last=True))


def test_a_distributed_sampler_is_told_the_epoch():
    sampler = torch.utils.data.DistributedSampler(range(8), 2, 0)
    iterator = DataLoaderIterator(DataLoader(range(8), 4, sampler=sampler))
    first, second = take(iterator, 2)
    assert sampler.epoch == 1 and first.tolist() != second.tolist()


def test_another_number_of_batches_is_refused():
    with pytest.raises(ValueError, match="made with 4 batches an epoch and the DataLoader now has 2"):
        DataLoaderIterator(DataLoader(Augmented(), 10)).load_state_dict(DataLoaderIterator(loader()).state_dict())


def test_what_is_no_iterator_is_refused():
    with pytest.raises(TypeError, match="expected an iterator or a DataLoader, got list"):
        as_iterator([1, 2])


def test_worker_processes_end_with_finalize():
    iterator = MultiprocessIterator(range(10), 2, n_processes=2)
    next(iterator)
    assert len(multiprocessing.active_children()) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        iterator.finalize()
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SerialIterator([1], 4.0), "batch_size must be an integer, got 4.0"),
        (lambda: SerialIterator([1], "4"), "batch_size must be an integer, got '4'"),
        (lambda: SerialIterator([1], 4, seed=1.5), "seed must be an integer, got 1.5"),
        (lambda: MultiprocessIterator([1], 4, n_processes=1.5), "n_processes must be an integer, got 1.5"),
        (lambda: trainer.random.set_seed("x"), "seed must be an integer, got 'x'"),
    ],
)
def test_numbers_that_are_not_whole_are_refused(make, message):
    with pytest.raises(TypeError, match=message):
        make()


def test_a_state_of_a_loader_that_was_just_loaded_is_the_state_that_was_loaded():
    def make():
        data = range(12)
        sampler = RandomSampler(data, replacement=True, num_samples=40, generator=torch.Generator())  # draws as it goes
        return DataLoaderIterator(DataLoader(data, batch_size=3, sampler=sampler))

    first, second, third = make(), make(), make()
    for _ in range(5):
        next(first)
    second.load_state_dict(first.state_dict())
    third.load_state_dict(second.state_dict())
    assert [next(third).tolist() for _ in range(20)] == [next(first).tolist() for _ in range(20)]
