"""Samples that a data set fails to give: told of alike with any number of workers, or skipped without loss of order."""

import io
import json
import multiprocessing
import pickle
import warnings

import numpy as np
import pytest
import torch
from helpers import Augmented, equal
from PIL import Image

import extensions
from trainer import Classifier, StandardUpdater, Trainer, concat_examples, saving
from trainer.datasets import LabeledImageDataset, TransformDataset
from trainer.iterators import (
    BadSampleError,
    MultiprocessIterator,
    MultithreadIterator,
    SerialIterator,
    WeightedOrderSampler,
)


class Some(Augmented):
    """Random crops, but for the images that are bad."""

    def __init__(self, n=20, bad=()):
        super().__init__(n)
        self.bad = bad

    def __getitem__(self, index):
        sample = super().__getitem__(index)  # what it draws is not to reach what stands in for it
        if index in self.bad:
            raise OSError(f"picture {index} is broken")
        return sample


class Drawn(Some):
    """The same with a generator of its own for each sample, so that threads can make them."""

    def draw_sample(self, index, generator):
        if index in self.bad:
            raise OSError(f"picture {index} is broken")
        return torch.rand(3, generator=generator), index


def multiprocess(n):
    return lambda *args, **kwargs: MultiprocessIterator(*args, n_processes=n, **kwargs)


def threads(*args, **kwargs):
    return MultithreadIterator(*args, n_threads=3, **kwargs)


ALL = [SerialIterator, multiprocess(0), multiprocess(1), multiprocess(3)]


def walk(make, dataset, n=12, batch_size=8, **kwargs):
    """Returns batches and list of an iterator that skips; what it warns of is not asked here."""
    with warnings.catch_warnings(), make(dataset, batch_size, **{"on_bad_sample": "skip", "seed": 3} | kwargs) as it:
        warnings.simplefilter("ignore")
        return [concat_examples(batch) for _, batch in zip(range(n), it)], it.bad_samples


# -- raise


@pytest.mark.parametrize("make", [*ALL, threads])
def test_a_bad_sample_is_an_error_of_the_same_form_with_any_number_of_workers(make):
    with make(Drawn(8, bad=[5]), 4, shuffle=False) as iterator:
        next(iterator)
        for _ in range(2):
            with pytest.raises(BadSampleError) as caught:
                next(iterator)
            assert str(caught.value) == (
                "Drawn cannot give the sample of index 5 (position 5 in the order of epoch 0; on_bad_sample='skip' goes"
                " on without it): OSError: picture 5 is broken"
            )
            assert caught.value.index == 5
            assert repr(caught.value.__cause__) == "OSError('picture 5 is broken')"
            assert iterator.current_position == 4


def test_where_a_worker_failed_is_in_the_notes_of_the_cause():
    with MultiprocessIterator(Some(8, bad=[0]), 8, n_processes=1) as iterator, pytest.raises(BadSampleError) as caught:
        next(iterator)
    (note,) = caught.value.__cause__.__notes__
    assert note.startswith("In the worker:\nTraceback") and "raise OSError(f" in note


class Awkward(Exception):
    def __init__(self, path, line):
        super().__init__(f"{path}, line {line}")


class Raising(torch.utils.data.Dataset):
    def __init__(self, error):
        self.error = error

    def __len__(self):
        return 4

    def __getitem__(self, index):
        raise self.error


@pytest.mark.parametrize("error", [Awkward("list.txt", 3), StopIteration("the end"), ValueError(io.BytesIO())])
@pytest.mark.parametrize("n_processes", [0, 1])
def test_an_error_of_any_kind_comes_through(error, n_processes):
    with MultiprocessIterator(Raising(error), 2, n_processes=n_processes) as iterator:
        with pytest.raises(BadSampleError, match=type(error).__name__) as caught:
            next(iterator)
        assert str(error)[:6] in str(caught.value.__cause__)


def test_an_interrupt_is_no_bad_sample():
    for error in (KeyboardInterrupt(), SystemExit()):
        with pytest.raises(type(error)):
            next(SerialIterator(Raising(error), 2, on_bad_sample="skip"))


def test_the_error_is_the_same_after_a_journey_between_processes():
    error = pickle.loads(pickle.dumps(BadSampleError("text", 3, OSError("cause"))))
    assert (str(error), error.index, repr(error.__cause__)) == ("text", 3, "OSError('cause')")


# -- skip


@pytest.mark.parametrize("make", ALL)
@pytest.mark.parametrize("collate_fn", [concat_examples, None])
def test_skipping_gives_the_same_bits_and_list_with_any_number_of_workers(make, collate_fn):
    dataset = Some(bad=[2, 3, 11])
    kwargs = {} if make is SerialIterator else {"collate_fn": collate_fn}
    batches, bad = walk(make, dataset, **kwargs)
    expected, expected_bad = walk(SerialIterator, dataset)
    assert equal(batches, expected)
    assert bad == expected_bad and len(bad) == 15  # three in each of four epochs, and in what comes of the fifth


def test_threads_skip_alike():
    dataset = Drawn(bad=[2, 3, 11])
    for make in (threads, multiprocess(2)):
        batches, bad = walk(make, dataset)
        expected, expected_bad = walk(SerialIterator, dataset)
        assert equal(batches, expected) and bad == expected_bad


@pytest.mark.parametrize("make", [SerialIterator, multiprocess(1)])
def test_the_first_good_one_of_those_that_follow_stands_in_round_the_order(make):
    dataset = Drawn(6, bad=[2, 4, 5])
    (batch,), bad = walk(make, dataset, n=1, batch_size=6, shuffle=False)
    assert batch[1].tolist() == [0, 1, 3, 3, 0, 0]
    keys = ("epoch", "position", "index", "replaced_by", "error")
    assert [tuple(one[key] for key in keys) for one in bad] == [
        (0, 2, 2, 3, "OSError: picture 2 is broken"),
        (0, 4, 4, 0, "OSError: picture 4 is broken"),
        (0, 5, 5, 0, "OSError: picture 5 is broken"),
    ]


def test_what_stands_in_has_the_randomness_of_the_place_that_it_fills():
    (bad,), _ = walk(SerialIterator, Drawn(bad=[2, 3]), n=1, batch_size=20)
    (good,), _ = walk(SerialIterator, Drawn(), n=1, batch_size=20)
    assert equal(bad[0], good[0])  # each place draws what it always draws
    assert not equal(bad[1], good[1])


@pytest.mark.parametrize("make", [SerialIterator, multiprocess(2)])
def test_a_batch_across_the_end_of_epochs_looks_for_each_in_its_own(make):
    dataset = Drawn(5, bad=[4])
    (batch,), bad = walk(make, dataset, n=1, batch_size=12, shuffle=False)
    assert batch[1].tolist() == [0, 1, 2, 3, 0, 0, 1, 2, 3, 0, 0, 1]
    assert [(one["epoch"], one["position"]) for one in bad] == [(0, 4), (1, 4)]


@pytest.mark.parametrize("make", [SerialIterator, multiprocess(2)])
def test_the_last_short_batch_is_filled_too(make):
    batches, bad = walk(make, Drawn(10, bad=[9]), batch_size=4, shuffle=False, repeat=False)
    assert [batch[1].tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 0]]
    assert len(bad) == 1


@pytest.mark.parametrize("make", [SerialIterator, multiprocess(2)])
def test_an_order_sampler_s_order_is_the_one_that_is_followed(make):
    batches, bad = walk(make, Drawn(6, bad=[2]), n=2, batch_size=4, order_sampler=lambda order, position: [5, 2, 4, 0])
    assert [batch[1].tolist() for batch in batches] == [[5, 4, 4, 0]] * 2
    assert len(walk(make, Drawn(6, bad=[2]), order_sampler=WeightedOrderSampler([0, 0, 1, 1, 0, 0], 50))[1]) > 30


@pytest.mark.parametrize("make", [SerialIterator, multiprocess(1), threads])
@pytest.mark.parametrize(("n", "tried"), [(8, 7), (1, 0), (500, 100)])
def test_when_all_are_bad_it_is_an_error_that_names_the_first(make, n, tried):
    iterator = make(Drawn(n, bad=range(n)), 4, shuffle=False, on_bad_sample="skip")
    message = (
        rf"sample of index 0 \(position 0 in the order of epoch 0; the {tried} replacements tried failed too, check the"
        r" storage\): OSError: picture 0 is broken"
    )
    with iterator, pytest.raises(BadSampleError, match=message):
        next(iterator)
    assert iterator.bad_samples == []


def test_a_hundred_in_a_row_are_skipped_and_no_more():
    (batch,), bad = walk(SerialIterator, Drawn(300, bad=range(1, 101)), n=1, batch_size=2, shuffle=False)
    assert batch[1].tolist() == [0, 101] and bad[0]["replaced_by"] == 101
    with pytest.raises(BadSampleError, match="index 1 .*the 100 replacements tried failed"):
        walk(SerialIterator, Drawn(300, bad=range(1, 102)), n=1, batch_size=2, shuffle=False)


def test_each_bad_index_is_warned_of_once():
    iterator = SerialIterator(Drawn(4, bad=[1]), 4, on_bad_sample="skip")
    with pytest.warns(UserWarning, match="^Drawn cannot give the sample of index 1, which is skipped: OSError: pict"):
        next(iterator)
    next(iterator)
    assert len(iterator.bad_samples) == 2


def test_only_what_was_given_out_is_listed():
    with MultiprocessIterator(Drawn(4, bad=[3]), 1, n_processes=1, shuffle=False, on_bad_sample="skip") as iterator:
        for _ in range(3):
            next(iterator)
        assert iterator.bad_samples == []
        with pytest.warns(UserWarning, match="index 3"):
            next(iterator)
    assert len(iterator.bad_samples) == 1


def test_an_iterator_that_is_reset_does_not_list_the_same_twice():
    iterator = SerialIterator(Drawn(4, bad=[1]), 4, repeat=False, on_bad_sample="skip")
    with pytest.warns(UserWarning, match="index 1"):
        next(iterator)
    iterator.reset()
    next(iterator)
    assert len(iterator.bad_samples) == 1


def test_another_word_is_refused():
    with pytest.raises(ValueError, match="on_bad_sample must be 'raise' or 'skip', got 'ignore'"):
        SerialIterator([1], 1, on_bad_sample="ignore")


# -- the list


@pytest.mark.parametrize("at", [1, 2, 3, 5])
@pytest.mark.parametrize(("before", "after"), [(SerialIterator, multiprocess(2)), (multiprocess(2), SerialIterator)])
def test_a_resumed_iterator_has_the_list_and_the_bits_of_one_that_went_through(at, before, after):
    dataset = Some(bad=[2, 3, 11])
    expected, bad = walk(SerialIterator, dataset, n=9)
    with warnings.catch_warnings(), before(dataset, 8, seed=3, on_bad_sample="skip") as first:
        warnings.simplefilter("ignore")
        for _ in range(at):
            next(first)
        state = first.state_dict()
        next(first)
        with after(dataset, 8, seed=3, on_bad_sample="skip") as resumed:
            resumed.load_state_dict(state)
            assert equal([concat_examples(next(resumed)) for _ in range(9 - at)], expected[at:])
            assert resumed.bad_samples == bad


def photographs(folder, n=24, bad=(3, 4, 17)):
    """JPEG files, some of them cut short: after the head, in the picture, and of no length at all."""
    folder.mkdir()
    for i in range(n):
        pixels = np.random.RandomState(i).randint(0, 256, (16, 16, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.jpg")
    for i, length in zip(bad, (20, 500, 0)):
        path = folder / f"{i}.jpg"
        path.write_bytes(path.read_bytes()[:length])
    return LabeledImageDataset([(f"{i}.jpg", i % 3) for i in range(n)], root=folder)


def make_run(data, out, n_processes=0, stop=(2, "epoch")):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(0.2), torch.nn.Linear(768, 3))
    model = Classifier(net)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4)
    train = MultiprocessIterator(data, 5, n_processes=n_processes, on_bad_sample="skip")
    valid = MultiprocessIterator(data, 7, False, False, n_processes, on_bad_sample="skip")
    run = Trainer(StandardUpdater(train, optimizer, model=model), stop, out=out)
    run.extend(extensions.Evaluator(valid, model), trigger=(3, "iteration"))
    run.extend(extensions.LogReport(trigger=(1, "iteration")))
    run.extend(extensions.snapshot(), trigger=(4, "iteration"))
    return run


@pytest.mark.filterwarnings("ignore:LabeledImageDataset cannot give:UserWarning")
def test_a_run_over_damaged_photographs_is_the_same_run_with_workers_and_resumed(tmp_path):
    data = photographs(tmp_path / "data")
    whole = make_run(data, tmp_path / "whole")
    whole.run()
    listed = json.loads((tmp_path / "whole" / "bad_samples.json").read_text())
    assert listed == whole.updater.get_iterator("main").bad_samples
    assert sorted(one["index"] for one in listed if one["epoch"] == 0) == [3, 4, 17]
    assert all(one["error"].startswith("OSError: cannot read the image") for one in listed)
    in_evaluation = json.loads((tmp_path / "whole" / "bad_samples_validation.json").read_text())
    assert [one["index"] for one in in_evaluation] == [3, 4, 17]

    first = make_run(data, tmp_path / "first", n_processes=2, stop=(5, "iteration"))
    first.run()
    resumed = make_run(data, tmp_path / "resumed", n_processes=1)
    resumed.resume(tmp_path / "first" / "snapshot_iter_4")
    resumed.run()
    assert equal(resumed.updater.state_dict(), whole.updater.state_dict())
    assert json.loads((tmp_path / "resumed" / "bad_samples.json").read_text()) == listed
    assert json.loads((tmp_path / "resumed" / "bad_samples_validation.json").read_text()) == in_evaluation


def test_a_long_list_is_whole_at_the_end_though_it_is_not_written_for_each_new_one(tmp_path, monkeypatch):
    written = []
    write = saving.write
    monkeypatch.setattr(saving, "write", lambda path, fill: (written.append(path), write(path, fill)))
    data = TransformDataset(range(400), lambda number: 1 // (number % 2))  # every other one is bad
    iterator = SerialIterator(data, 1, repeat=False, on_bad_sample="skip")
    iterator.bad_samples_file = tmp_path / "bad_samples.json"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in iterator:
            pass
    iterator.finalize()
    assert len(iterator.bad_samples) == 200
    assert json.loads((tmp_path / "bad_samples.json").read_text()) == iterator.bad_samples
    assert len(written) < 60


def test_photographs_that_are_damaged_stop_the_run_by_default(tmp_path):
    data = photographs(tmp_path / "data")
    with pytest.raises(BadSampleError, match=r"LabeledImageDataset cannot give the sample of index 3 .*3\.jpg"):
        next(SerialIterator(data, 24, shuffle=False))


def test_a_run_without_bad_samples_has_no_list_of_them(tmp_path):
    make_run(photographs(tmp_path / "data", bad=()), tmp_path / "out").run()
    assert not list((tmp_path / "out").glob("bad_samples*"))


def test_another_iterator_of_the_updater_has_a_list_of_its_own(tmp_path):
    names = {name: SerialIterator(range(4), 2, on_bad_sample="skip") for name in ("main", "second")}
    model = torch.nn.Linear(1, 1)
    updater = StandardUpdater(names, torch.optim.SGD(model.parameters()), model=model)
    Trainer(updater, out=tmp_path)
    assert names["main"].bad_samples_file == tmp_path / "bad_samples.json"
    assert names["second"].bad_samples_file == tmp_path / "bad_samples_second.json"


def test_workers_end_although_the_list_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    data = TransformDataset(range(8), lambda number: 1 // number)
    iterator = MultiprocessIterator(data, 4, shuffle=False, n_processes=1, on_bad_sample="skip")
    with pytest.warns(UserWarning, match="index 0, which is skipped: ZeroDivisionError"):
        next(iterator)
    iterator.bad_samples_file = tmp_path / "file" / "bad_samples.json"
    workers = multiprocessing.active_children()
    with pytest.raises(NotADirectoryError):
        iterator.finalize()
    assert len(workers) == 1 and multiprocessing.active_children() == []
