"""Loaders of every kind: their epochs end where they end, and a resume from any iteration gives the same bits."""

import copy
import functools
import io
import itertools
import multiprocessing
import os
import random
import signal
import warnings

import numpy as np
import pytest
import torch
from helpers import Augmented, equal
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    TensorDataset,
    get_worker_info,
)

import extensions
import trainer.random
from trainer import StandardUpdater, Trainer, saving
from trainer.iterators import (
    DataLoaderIterator,
    MultiprocessIterator,
    MultithreadIterator,
    SerialIterator,
    as_iterator,
    refuse_shared_loaders,
)

N = 11
EPOCHS = 3


class Drawing(Augmented):
    """Twelve small samples, drawn from all global generators."""

    def __init__(self):
        super().__init__(N)


class PerBatch:
    """A batch sampler that draws each batch when it is asked for."""

    def __len__(self):
        return 4

    def __iter__(self):
        for _ in range(4):
            yield [random.randrange(N) for _ in range(random.randint(1, 3))] + [int(torch.randint(N, ()))]


class Varying:
    """A batch sampler with 2, 4, 3 batches in its epochs."""

    epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return (2, 4, 3)[self.epoch % 3]

    def __iter__(self):
        return iter([[i, i + self.epoch % 3] for i in range(len(self))])


class ByItself:
    """A batch sampler that is longer in each pass than it said, or shorter."""

    n = 3

    def __len__(self):
        return self.n

    def __iter__(self):
        self.n = random.randint(1, 5)
        return iter([[i] for i in range(self.n)])


class WithoutLength:
    def __iter__(self):
        return iter([[0, 1], [2], [3, 4, 5]])


class Stream(IterableDataset):
    """Seven samples that draw."""

    def __iter__(self):
        base = random.random()
        for i in range(7):
            yield torch.rand(2) * np.random.rand() + base, i


class Sized(Stream):
    def __init__(self, length):
        self.length = length

    def __len__(self):
        if self.length is None:
            raise NotImplementedError("somewhere in a cloud")
        return self.length


class Sharded(IterableDataset):
    """Ten samples, dealt out to the workers; told the epoch."""

    epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return 10

    def __iter__(self):
        worker = get_worker_info()
        mine = range(10) if worker is None else range(10)[worker.id :: worker.num_workers]
        return iter([(torch.rand(2), i, self.epoch) for i in mine])


class Endless(IterableDataset):
    def __iter__(self):
        while True:
            yield torch.rand(2) + random.random()


class MultiEpochs(DataLoader):
    """As timm's: its workers go on from one epoch to the next."""

    iterator = None

    def __iter__(self):
        if self.iterator is None:
            self.iterator = self._endless()
        for _ in range(len(self)):
            yield next(self.iterator)

    def _endless(self):
        while True:
            yield from super().__iter__()


class Moving(DataLoader):
    """Does something of its own to each batch."""

    def __iter__(self):
        for batch in super().__iter__():
            yield batch, torch.rand(())


class Stateful:
    """Not a DataLoader: a list that is shuffled as it goes, and knows its place."""

    def __init__(self):
        self.order, self.at = list(range(7)), 0

    def __iter__(self):
        self.at %= 7
        while self.at < 7:
            other = random.randrange(7)
            self.order[self.at], self.order[other] = self.order[other], self.order[self.at]
            self.at += 1
            yield torch.tensor([self.order[self.at - 1], self.at])

    def state_dict(self):
        return {"order": self.order, "at": self.at}

    def load_state_dict(self, state):
        self.order, self.at = list(state["order"]), state["at"]


def sampled(sampler, **kwargs):
    return lambda workers: DataLoader(Drawing(), batch_sampler=sampler(), num_workers=workers, **kwargs)


def streamed(dataset, batch_size=3, **kwargs):
    return lambda workers: DataLoader(dataset(), batch_size, num_workers=workers, **kwargs)


def random_sampler(**kwargs):
    return lambda: BatchSampler(RandomSampler(range(N), generator=torch.Generator(), **kwargs), 4, False)


LOADERS = {
    "map-style": lambda workers: DataLoader(Drawing(), 4, shuffle=True, num_workers=workers),
    "map-style, persistent": lambda workers: DataLoader(
        Drawing(), 4, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    ),
    "of single samples": lambda workers: DataLoader(Drawing(), batch_size=None, num_workers=workers),
    "a part": lambda workers: DataLoader(Subset(Drawing(), range(7)), 4, shuffle=True, num_workers=workers),
    "drop_last": lambda workers: DataLoader(Drawing(), 4, drop_last=True, num_workers=workers),
    "lazy sampler with a generator": sampled(random_sampler(replacement=True, num_samples=70)),
    "a sampler draws for each batch": sampled(PerBatch),
    "lengths that set_epoch changes": sampled(Varying),
    "lengths that change by themselves": sampled(ByItself),
    "no length": sampled(WithoutLength),
    "iterable": streamed(Stream),
    "iterable, right length": streamed(lambda: Sized(7)),
    "iterable, too short": streamed(lambda: Sized(2)),
    "iterable, too long": streamed(lambda: Sized(70)),
    "iterable, length raises": streamed(lambda: Sized(None)),
    "iterable of single samples": streamed(Stream, None),
    "sharded": streamed(Sharded),
    "workers go on": lambda workers: MultiEpochs(TensorDataset(torch.arange(N)), 4, num_workers=workers),
    "does something of its own": lambda workers: Moving(Drawing(), 4, shuffle=True, num_workers=workers),
    "not a DataLoader": lambda workers: Stateful(),
}
LENGTHS = {
    "endless": (streamed(Endless), 4),
    "ends within": (streamed(Stream), 4),
    "map-style": (LOADERS["map-style"], 5),
}
WITHOUT_WORKERS = ("not a DataLoader",)


def torchdata_loader(dataset, **kwargs):
    def make(workers):
        stateful = pytest.importorskip("torchdata.stateful_dataloader")
        return stateful.StatefulDataLoader(dataset(), 3, num_workers=workers, **kwargs)

    return make


def torchdata_nodes(workers):
    nodes = pytest.importorskip("torchdata.nodes")
    return nodes.Loader(nodes.Batcher(nodes.SamplerWrapper(SequentialSampler(range(7))), 3, drop_last=False))


LOADERS |= {
    "torchdata": torchdata_loader(lambda: [torch.tensor([float(i)]) for i in range(N)], shuffle=True),
    "torchdata, iterable": torchdata_loader(lambda: Sized(7)),
    "torchdata, nodes": torchdata_nodes,
}


IN_BRIEF = (
    "map-style",
    "a sampler draws for each batch",
    "lengths that set_epoch changes",
    "iterable",
    "sharded",
    "torchdata",
)


def cases():
    for workers in (0, 2):
        for name, make in LOADERS.items():
            if not (workers and (name in WITHOUT_WORKERS or name.endswith("nodes"))):
                marks = [pytest.mark.full] if workers and name not in IN_BRIEF else []
                yield pytest.param(lambda make=make, w=workers: (make(w), {}), id=f"{name}-{workers}", marks=marks)
        for name, (make, length) in LENGTHS.items():
            yield pytest.param(
                lambda make=make, w=workers, n=length: (make(w), {"epoch_length": n}),
                id=f"{name}-epoch_length-{workers}",
                marks=[pytest.mark.full] if workers else [],
            )


def iterator_of(case, **kwargs):
    loader, options = case()
    return DataLoaderIterator(loader, seed=5, **options, **kwargs)


def end(iterator):
    iterator.finalize()
    iterator.loader.iterator = None  # what MultiEpochs keeps


def step(iterator):
    batch = next(iterator)
    progress = iterator.epoch, iterator.is_new_epoch, iterator.epoch_detail, iterator.previous_epoch_detail
    n, per = iterator.epoch_progress()
    assert n / per == pytest.approx(iterator.epoch_detail) and n // per == iterator.epoch
    return batch, progress, iterator.n_samples, iterator.current_position


@pytest.fixture(autouse=True)
def quiet(request):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*set_vital")
        warnings.filterwarnings("ignore", "Length of IterableDataset")  # torch's, of loaders that are not copied
        warnings.filterwarnings("ignore", "StatefulDataLoader resumes by its own state")  # nothing is drawn there
        yield


@pytest.mark.parametrize("case", list(cases()))
def test_a_loader_resumed_from_any_iteration_goes_on_with_the_same_bits(case):
    whole = iterator_of(case)
    states, steps = [copy.deepcopy(whole.state_dict())], []
    before = trainer.random.capture()
    warnings.filterwarnings("ignore", "the DataLoader keeps an iterator")  # nothing is drawn in these workers
    while whole.epoch < EPOCHS:
        steps.append(step(whole))
        states.append(copy.deepcopy(whole.state_dict()))
    assert equal(trainer.random.capture(), before)
    end(whole)
    assert [detail == int(detail) for _, (_, _, detail, _), _, _ in steps] == [
        is_new or (whole.epoch_size is None) for _, (_, is_new, _, _), _, _ in steps
    ]
    for n, state in enumerate(states[:-1]):
        saving.check(state)
        resumed = iterator_of(case)
        resumed.load_state_dict(state)
        assert equal(resumed.state_dict(), state)
        for number, expected in enumerate(steps[n:], n):
            assert equal(step(resumed), expected), f"step {number}, resumed at {n}"
        end(resumed)
    assert multiprocessing.active_children() == []


def samples_of(case):
    with iterator_of(case) as iterator:
        return [step(iterator) for _ in range(9)]


@pytest.mark.parametrize("name", [n for n in list(LOADERS)[:10] if n != "workers go on"])
def test_the_batches_of_a_map_style_data_set_are_the_same_with_any_number_of_workers(name):
    first, second = (samples_of(lambda w=workers: (LOADERS[name](w), {})) for workers in (0, 2))
    assert equal(first, second)


@pytest.mark.parametrize(
    ("name", "workers", "expected"),
    [
        ("map-style", 0, [3, 3, 3]),
        ("lengths that set_epoch changes", 0, [2, 4, 3]),
        ("lengths that set_epoch changes", 2, [2, 4, 3]),
        ("no length", 0, [3, 3, 3]),
        ("iterable", 0, [3, 3, 3]),
        ("iterable, too short", 0, [3, 3, 3]),
        ("iterable, too long", 0, [3, 3, 3]),
        ("sharded", 0, [4, 4, 4]),
        ("sharded", 2, [4, 4, 4]),  # two workers, two batches each
        ("workers go on", 0, [3, 3, 3]),
        ("not a DataLoader", 0, [7, 7, 7]),
    ],
)
def test_epochs_end_where_the_loader_ends(tmp_path, name, workers, expected):
    class Model(nn.Linear):
        def forward(self, *batch):
            return super().forward(torch.ones(1, 1)).mean()

    model = Model(1, 1)
    updater = StandardUpdater(LOADERS[name](workers), torch.optim.SGD(model.parameters(), 0.1), model=model)
    run, ends = Trainer(updater, (EPOCHS, "epoch"), out=tmp_path), []
    run.extend(lambda run: ends.append(run.updater.iteration), name="ends", trigger=(1, "epoch"))
    run.extend(lambda run: ends.append(-run.updater.iteration), name="new", trigger=lambda r: r.updater.is_new_epoch)
    run.run()
    sums = np.cumsum(expected).tolist()
    assert ends == [sign * n for n in sums for sign in (1, -1)]
    assert updater.iteration == sums[-1]


@pytest.mark.parametrize(
    ("name", "workers"),
    [
        ("map-style", 2),
        ("lengths that set_epoch changes", 0),
        ("iterable", 0),
        ("not a DataLoader", 0),
        pytest.param("iterable, too short", 2, marks=pytest.mark.full),
        pytest.param("torchdata", 2, marks=pytest.mark.full),
    ],
)
def test_a_run_resumed_from_any_snapshot_is_the_same_run(tmp_path, name, workers):
    def run_in(out, start=None):
        seen = []

        def convert(batch, device):
            seen.append(batch)
            return torch.rand(2, 1)

        trainer.random.set_seed(1)
        model = nn.Linear(1, 1)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        updater = StandardUpdater(
            LOADERS[name](workers), optimizer, convert, loss_func=lambda x: model(x).mean(), model=model
        )
        run = Trainer(updater, (3, "epoch"), out=out)
        for period in (1, 0.3):
            told = functools.partial(lambda period, run: seen.append((period, run.updater.epoch_detail)), period)
            run.extend(told, name=f"every {period}", trigger=(period, "epoch"))
        run.extend(extensions.snapshot(filename="snapshot_{.updater.iteration}"), trigger=(1, "iteration"))
        if start is not None:
            run.resume(start)
        run.run()
        return seen, run.updater.get_model("main").weight.clone()

    whole, weight = run_in(tmp_path / "whole")
    starts = list((tmp_path / "whole").glob("snapshot_*"))
    assert len(starts) >= 9
    for start in starts:
        seen, resumed_weight = run_in(tmp_path / start.name, start)
        assert equal(seen, whole[len(whole) - len(seen) :]) and equal(resumed_weight, weight)


def test_an_evaluation_sees_what_a_plain_loop_sees():
    seen = []
    loader = DataLoader(Sharded(), 4, num_workers=2)
    with pytest.warns(UserWarning, match="nothing was reported in the evaluation"):
        extensions.Evaluator(loader, nn.Linear(1, 1), eval_func=lambda x, i, e: seen.extend(i.tolist()))()
    assert sorted(seen) == list(range(10))


def test_epoch_length_goes_on_in_the_stream():
    numbers = DataLoader(TensorDataset(torch.arange(5)), 1)
    iterator = DataLoaderIterator(numbers, epoch_length=3)
    rows = [(int(next(iterator)[0]), iterator.epoch_detail, iterator.is_new_epoch) for _ in range(7)]
    assert [x for x, _, _ in rows] == [0, 1, 2, 3, 4, 0, 1]
    assert [d for _, d, _ in rows] == [1 / 3, 2 / 3, 1, 1 + 1 / 3, 1 + 2 / 3, 2, 2 + 1 / 3]
    assert [i for i, (_, _, new) in enumerate(rows) if new] == [2, 5]
    assert len(list(DataLoaderIterator(numbers, repeat=False, epoch_length=7))) == 7
    with pytest.raises(ValueError, match="epoch_length must be 1 or more, got 0"):
        DataLoaderIterator(numbers, epoch_length=0)


class Broken(Drawing):
    def __getitem__(self, index):
        if index == 5:
            raise OSError("picture 5 is broken")
        return index


class BrokenStream(IterableDataset):
    def __iter__(self):
        yield from range(4)
        raise OSError("picture 5 is broken")


class BrokenSampler:
    def __iter__(self):
        yield from ([0, 1], [2, 3])
        raise OSError("picture 5 is broken")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "make",
    [
        lambda w: DataLoader(Broken(), 2, num_workers=w),
        lambda w: DataLoader(BrokenStream(), 2, num_workers=min(w, 1)),
        lambda w: DataLoader(range(8), batch_sampler=BrokenSampler(), num_workers=w),
        lambda w: Moving(Broken(), 2),
    ],
)
def test_an_error_ahead_is_raised_when_its_batch_is_asked_for(make, workers):
    warnings.filterwarnings("ignore", "the DataLoader keeps an iterator")
    iterator = DataLoaderIterator(make(workers))
    next(iterator), next(iterator)
    for _ in range(2):
        with pytest.raises(OSError, match="picture 5 is broken"):
            next(iterator)
        assert (iterator.epoch, iterator.current_position, iterator.is_new_epoch) == (0, 2, False)
    iterator.finalize()


@pytest.mark.parametrize("workers", [None, 0, 1])
def test_a_loader_with_a_state_warns_of_what_its_workers_draw(workers):
    class WithWorkers(Stateful):
        num_workers = workers

    def resumed(n):
        first, second = DataLoaderIterator(WithWorkers()), DataLoaderIterator(WithWorkers())
        for _ in range(n):
            next(first)
        second.load_state_dict(copy.deepcopy(first.state_dict()))
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            next(second)
        return [str(warning.message) for warning in told]

    assert not resumed(0)
    told = resumed(1)
    model = torch.nn.Linear(2, 1)
    updater = StandardUpdater(WithWorkers(), torch.optim.SGD(model.parameters(), 0.1), model=model)
    assert updater.get_iterator("main").n_samples is None
    assert len(told) == (workers or 0) and all("without the random generators of its workers" in text for text in told)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_set_that_raises_stop_iteration_does_not_end_the_epoch(workers):
    class Ends(Drawing):
        def __getitem__(self, index):
            return next(iter(range(index, 3)))

    iterator = DataLoaderIterator(DataLoader(Ends(), 2, num_workers=workers))
    next(iterator)
    with pytest.raises(RuntimeError, match="the data of batch 1 ended with StopIteration, before the indices did"):
        next(iterator)
    assert (iterator.epoch, iterator.current_position) == (0, 1)
    iterator.finalize()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_iterator_knows_how_many_samples_are_in_a_batch(workers):
    pairs = [(torch.zeros(i + 1), {"boxes": i}) for i in range(5)]
    kwargs = {"num_workers": workers}
    as_torchvision = DataLoaderIterator(
        DataLoader(pairs, 2, collate_fn=lambda b: tuple(zip(*b)), **kwargs), repeat=False
    )
    assert [as_torchvision.n_samples for _ in as_torchvision] == [2, 2, 1]
    usual = DataLoaderIterator(DataLoader(range(5), 3, **kwargs), repeat=False)
    assert [usual.n_samples for _ in usual] == [3, 2]
    stream = DataLoaderIterator(DataLoader(Stream(), 4, **kwargs), repeat=False)
    assert [stream.n_samples for _ in stream] == [4, 3] * max(1, workers) or workers
    single = DataLoaderIterator(DataLoader(range(2), batch_size=None, **kwargs), repeat=False)
    assert [single.n_samples for _ in single] == [None, None]


def test_a_worker_init_fn_sees_the_data_set_and_may_change_it():
    class Settable(torch.utils.data.Dataset):
        value = 0

        def __len__(self):
            return 4

        def __getitem__(self, index):
            return self.value

    def init(worker):
        get_worker_info().dataset.value = 7

    iterator = DataLoaderIterator(DataLoader(Settable(), 2, num_workers=1, worker_init_fn=init))
    assert next(iterator).tolist() == [7, 7]
    iterator.finalize()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("name", ["map-style", "lazy sampler with a generator", "a sampler draws for each batch"])
def test_other_uses_of_the_loader_and_the_generators_change_nothing(name, workers):
    expected = samples_of(lambda: (LOADERS[name](workers), {}))
    loader = LOADERS[name](workers)
    iterator, got = DataLoaderIterator(loader, seed=5), []
    for _ in range(9):
        next(iter(loader)), torch.rand(3), random.random()
        got.append(step(iterator))
    assert equal(got, expected)
    iterator.finalize()


class Told(torch.utils.data.Dataset):
    epoch = None

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return 100 * self.epoch + index


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("wrap", [lambda d: d, lambda d: Subset(d, range(6))])
def test_a_data_set_is_told_the_epoch_by_a_loader(workers, persistent, wrap):
    loader = DataLoader(wrap(Told()), 3, num_workers=workers, persistent_workers=persistent and workers > 0)
    iterator = DataLoaderIterator(loader)
    got = [next(iterator).tolist() for _ in range(6)]
    assert got == [[100 * e + i for i in half] for e in range(3) for half in ([0, 1, 2], [3, 4, 5])]
    iterator.finalize()


@pytest.mark.parametrize(
    "make",
    [
        SerialIterator,
        lambda *args, **kwargs: MultithreadIterator(*args, n_threads=2, **kwargs),
        lambda *args, **kwargs: MultiprocessIterator(*args, n_processes=2, collate_fn=None, **kwargs),
    ],
)
def test_a_data_set_is_told_the_epoch_of_each_sample(make):
    expected = [100 * e + i for e in range(4) for i in range(6)]
    with make(Told(), 4, shuffle=False) as iterator:
        assert sum((next(iterator) for _ in range(6)), []) == expected
        iterator.reset()
        assert sum((next(iterator) for _ in range(2)), []) == expected[:8]
        state = iterator.state_dict()
    with make(Told(), 4, shuffle=False) as resumed:
        resumed.load_state_dict(state)
        assert next(resumed) == expected[8:12]


@pytest.mark.parametrize(
    "make",
    [
        lambda data: DataLoaderIterator(DataLoader(data, 2)),
        lambda data: SerialIterator(data, 2, shuffle=False),
        lambda data: MultithreadIterator(data, 2, shuffle=False),
    ],
)
@pytest.mark.parametrize(
    "make_other",
    [
        lambda data: DataLoaderIterator(DataLoader(data, 3), repeat=False),
        lambda data: SerialIterator(data, 3, repeat=False, shuffle=False),
    ],
)
def test_a_data_set_that_an_evaluation_shares_is_at_the_right_epoch_for_both(make, make_other):
    data = Told()
    training, evaluation, got = make(data), make_other(data), []
    for _ in range(9):
        got += [int(x) for x in next(training)]
        evaluation.reset()
        assert [int(x) for x in next(evaluation)] == [0, 1, 2]
    assert got == [100 * e + i for e in range(3) for i in range(6)]
    training.finalize()


class DrawsForEpoch(Told):
    """What ``set_epoch`` draws is a part of each sample."""

    def set_epoch(self, epoch):
        self.epoch = torch.rand(())


@pytest.mark.parametrize("persistent", [False, True])
def test_what_set_epoch_draws_is_the_same_in_workers_of_any_kind_and_after_a_resume(persistent):
    def make(workers):
        loader = DataLoader(DrawsForEpoch(), 3, num_workers=workers, persistent_workers=persistent and workers > 0)
        return DataLoaderIterator(loader, seed=5)

    with make(0) as here, make(2) as there, make(2) as resumed:
        expected = [next(here) for _ in range(6)]
        assert equal([next(there) for _ in range(3)], expected[:3])
        resumed.load_state_dict(there.state_dict())
        assert equal([next(resumed) for _ in range(3)], expected[3:])


def test_a_persistent_iterable_data_set_that_is_told_the_epoch_is_copied_anew():
    iterator = DataLoaderIterator(DataLoader(Sharded(), 5, num_workers=2, persistent_workers=True))
    assert [next(iterator)[2].tolist() for _ in range(6)] == [[e] * 5 for e in range(3) for _ in range(2)]
    iterator.finalize()


def test_a_sampler_within_a_batch_sampler_is_told_the_epoch():
    sampler = DistributedSampler(range(8), 2, 0)
    iterator = DataLoaderIterator(DataLoader(range(8), batch_sampler=BatchSampler(sampler, 4, False)))
    first, second = next(iterator), next(iterator)
    assert sampler.epoch == 1 and first.tolist() != second.tolist()


@pytest.mark.parametrize(
    "make",
    [
        lambda: DataLoader(Stream(), 3, num_workers=1, persistent_workers=True),
        lambda: MultiEpochs(Drawing(), 4, num_workers=1),
    ],
)
def test_a_resume_warns_where_workers_outlive_an_epoch(make):
    first, resumed = DataLoaderIterator(make()), DataLoaderIterator(make())
    next(first), next(first)
    resumed.load_state_dict(first.state_dict())
    with pytest.warns(UserWarning, match="what is drawn at random after the resume may differ"):
        next(resumed)
    end(first), end(resumed)


class OneAhead(DataLoader):
    """Loads a batch ahead of what it gives, also that of the next epoch."""

    iterator = None

    def __iter__(self):
        if self.iterator is None:
            self.iterator = self._endless()
            self.ahead = next(self.iterator)
        for _ in range(len(self)):
            batch, self.ahead = self.ahead, next(self.iterator)
            yield batch

    def _endless(self):
        while True:
            yield from super().__iter__()


@pytest.mark.parametrize(
    "make",
    [
        lambda: DataLoader(Stream(), 3, num_workers=1, persistent_workers=True),
        lambda: OneAhead(Drawing(), 4, shuffle=True),
        lambda: DataLoader(Drawing(), sampler=itertools.cycle(range(N))),
    ],
)
def test_a_resume_warns_where_a_loader_keeps_an_iterator_also_at_an_epoch_s_start(make):
    first, resumed = DataLoaderIterator(make()), DataLoaderIterator(make())
    for _ in range(3):
        next(first)
    resumed.load_state_dict(first.state_dict())
    with pytest.warns(UserWarning, match="keeps an iterator or workers from one epoch to the next"):
        next(resumed)
    first.finalize(), resumed.finalize()


def test_a_data_set_that_is_its_own_iterator_resumes_without_a_warning():
    class Itself(IterableDataset):
        def __iter__(self):
            self.n = 0
            return self

        def __next__(self):
            self.n += 1
            if self.n > 5:
                raise StopIteration
            return self.n

    first, resumed = (DataLoaderIterator(DataLoader(Itself(), 2)) for _ in range(2))
    next(first)
    resumed.load_state_dict(first.state_dict())
    assert equal(next(resumed), next(first))


def test_workers_of_an_iterable_data_set_begin_anew_with_reset_and_end_with_finalize():
    iterator = DataLoaderIterator(DataLoader(Stream(), 3, num_workers=1, persistent_workers=True))
    expected = [next(iterator) for _ in range(3)]  # all of the epoch: the workers wait for the next one
    iterator.reset()
    assert equal([next(iterator) for _ in range(3)], expected)
    iterator.finalize()
    assert multiprocessing.active_children() == []


def test_workers_that_start_with_the_first_batch_outlive_signals_and_end_with_finalize():
    iterator = DataLoaderIterator(Moving(Drawing(), 2, num_workers=1))  # its __iter__ is a generator
    next(iterator)
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid, signal.SIGTERM)
    worker.join(0.3)
    assert worker.is_alive()
    next(iterator)
    iterator.finalize()
    assert multiprocessing.active_children() == []


def test_reset_in_mid_epoch_begins_anew_with_a_loader_that_has_a_state():
    iterator = DataLoaderIterator(Stateful())
    expected = [next(iterator) for _ in range(3)]
    iterator.reset()
    assert equal([next(iterator) for _ in range(3)], expected)


class Mending(Drawing):
    """Its sample 5 is broken until it is mended."""

    is_broken = True

    def __getitem__(self, index):
        if self.is_broken and index == 5:
            raise OSError("picture 5 is broken")
        return torch.tensor(index)


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_loses_no_batch_of_a_loader_with_a_state(stream):
    class Numbers(IterableDataset):
        data, at = Mending(), 0

        def __iter__(self):
            while self.at < N:
                self.at += 1
                yield self.data[self.at - 1]
            self.at = 0

        def state_dict(self):
            return {"at": self.at}

        def load_state_dict(self, state):
            self.at = state["at"]

    dataset = Numbers() if stream else Mending()
    iterator = DataLoaderIterator(torchdata_loader(lambda: dataset)(0))
    next(iterator)
    for _ in range(2):
        with pytest.raises(OSError, match="picture 5 is broken"):
            next(iterator)
    state = copy.deepcopy(iterator.state_dict())
    (dataset.data if stream else dataset).is_broken = False
    assert next(iterator).tolist() == [3, 4, 5]
    iterator.load_state_dict(state)
    assert [next(iterator).tolist() for _ in range(2)] == [[3, 4, 5], [6, 7, 8]]


def test_another_batch_size_in_mid_epoch_is_refused():
    first, other = (DataLoaderIterator(DataLoader(Drawing(), size)) for size in (6, 7))  # two batches each
    next(first)
    with pytest.raises(ValueError, match="made with batches of 6 samples and the DataLoader now has batches of 7"):
        other.load_state_dict(first.state_dict())
    next(first)
    other.load_state_dict(first.state_dict())
    assert other.epoch == 1


def test_an_unknown_length_is_no_difference():
    stream, known = DataLoaderIterator(DataLoader(Stream(), 3)), DataLoaderIterator(DataLoader(Drawing(), 3))
    stream.load_state_dict(known.state_dict())
    known.load_state_dict(stream.state_dict())


def test_a_state_from_before_is_loaded():
    iterator = DataLoaderIterator(DataLoader(Drawing(), 4, shuffle=True))
    next(iterator)
    state = iterator.state_dict()
    old = trainer.random.packed(trainer.random.raw_state()) | {"own": []}
    other = DataLoaderIterator(DataLoader(Drawing(), 4, shuffle=True))
    other.load_state_dict(state | {"stream": old})
    assert equal(next(other), next(iterator))


def test_as_iterator_takes_a_loader_that_knows_its_place():
    assert isinstance(as_iterator(Stateful()), DataLoaderIterator)
    with pytest.raises(TypeError, match="expected an iterator or a DataLoader, got Sequential"):
        as_iterator(nn.Sequential())


def test_a_loader_that_cannot_serve_two_is_refused():
    persistent = DataLoader(Drawing(), 4, num_workers=1, persistent_workers=True)
    usual = DataLoader(Drawing(), 4, num_workers=1)
    first, second = DataLoaderIterator(persistent), DataLoaderIterator(persistent)
    refuse_shared_loaders([("a", first), ("b", DataLoaderIterator(usual)), ("c", DataLoaderIterator(usual))])
    refuse_shared_loaders([("a", first), ("b", SerialIterator([1], 1)), ("again", first)])
    with pytest.raises(ValueError, match="a and c are one DataLoader, .*: make a second one with the same arguments"):
        refuse_shared_loaders([("a", first), ("b", DataLoaderIterator(usual)), ("c", second)])


def test_a_loader_that_cannot_serve_two_is_refused_by_the_evaluator(tmp_path):
    loader = DataLoader([(torch.rand(2), 0)] * 4, 2, num_workers=1, persistent_workers=True)
    model = trainer.Classifier(nn.Linear(2, 3))
    updater = StandardUpdater(loader, torch.optim.SGD(model.parameters(), 0.1), model=model)
    run = Trainer(updater, (1, "epoch"), out=tmp_path)
    run.extend(extensions.Evaluator(loader, model))
    with pytest.raises(ValueError, match="the updater's iterator 'main' and validation's iterator 'main' are one"):
        run.run()
    assert updater.iteration == 0


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Pairs(IterableDataset):
    def __iter__(self):
        return iter([(torch.rand(2), i % 3) for i in range(6)])


def test_the_bars_say_that_an_end_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(extensions.progress_bar, "SECONDS", 0.0)
    model, out = trainer.Classifier(nn.Linear(2, 3)), Terminal()
    updater = StandardUpdater(DataLoader(Pairs(), 2), torch.optim.SGD(model.parameters(), 0.1), model=model)
    run = Trainer(updater, (3, "epoch"), out=tmp_path)
    run.extend(extensions.ProgressBar(update_interval=1, out=out, bar_length=70))
    run.run()
    drawings = out.getvalue().split("\033[J")[1:-1]
    assert len(drawings) == 9
    assert "1iter [" in drawings[0] and "/" not in drawings[0].partition("iter")[0]
    assert "this epoch: 1 batch, end unknown | epoch 1" in drawings[0]
    assert "4/9 [" in drawings[3] and "this epoch: 2 batches, end unknown | epoch 2" in drawings[4]
    monkeypatch.setattr("sys.stderr", out := Terminal())
    extensions.Evaluator(DataLoader(Pairs(), 2), model, progress_bar=True)()
    assert "validation, end unknown: 0it [" in out.getvalue()
