"""From samples to a batch: collating, padding, and what is said of a sample that does not fit."""

import functools
from collections import namedtuple

import numpy as np
import pytest
import torch
from helpers import equal

from trainer import Classifier, StandardUpdater, concat_examples
from trainer.iterators import MultiprocessIterator, SerialIterator

Pair = namedtuple("Pair", ["image", "label"])


def arrays(*shapes):
    return [np.random.rand(*shape) for shape in shapes]


def sequences(n=6):
    """Samples of 1 to 3 numbers and a label."""
    return [(torch.full((1 + i % 3,), float(i)), i % 2) for i in range(n)]


# -- Chainer's cases


@pytest.mark.parametrize("padding", [None, 0])
def test_arrays_of_one_shape_are_stacked(padding):
    samples = arrays(*[(2, 3)] * 5)
    batch = concat_examples(samples, padding=padding)
    assert equal(batch, torch.tensor(np.stack(samples))) and batch.dtype == torch.float64


@pytest.mark.parametrize("padding", [None, 0])
def test_tuples_and_dicts_are_stacked_part_by_part(padding):
    x, y = arrays(*[(2, 3)] * 5), arrays(*[(3, 4)] * 5)
    stacked = torch.tensor(np.stack(x)), torch.tensor(np.stack(y))
    assert equal(concat_examples(list(zip(x, y)), padding=padding), stacked)
    batch = concat_examples([{"x": a, "y": b} for a, b in zip(x, y)], padding=padding)
    assert equal(batch, {"x": stacked[0], "y": stacked[1]})


@pytest.mark.parametrize("padding", [None, 0])
@pytest.mark.parametrize(("samples", "dtype"), [([1, 2, 3], torch.int64), ([1.0, 2.0, 3.0], torch.float64)])
def test_integers_become_int64_and_floats_float64(samples, dtype, padding):
    assert equal(concat_examples(samples, "cpu", padding), torch.tensor(samples, dtype=dtype))


def check_padded(batch, samples, shape, padding):
    assert batch.shape == (len(samples), *shape)
    for row, sample in zip(batch, samples, strict=True):
        sample = torch.as_tensor(sample)
        whole = torch.full(shape, padding, dtype=sample.dtype)
        whole[: sample.shape[0], : sample.shape[1]] = sample
        assert equal(row, whole)


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_arrays_are_padded_to_the_largest_of_each_dimension(kind):
    samples = [kind(a.astype(np.float32)) for a in arrays((3, 4), (2, 5), (4, 3))]
    check_padded(concat_examples(samples, padding=0), samples, (4, 5), 0)


def test_tuples_and_dicts_are_padded_part_by_part():
    x, y = arrays((3, 4), (4, 4), (2, 5)), arrays((2, 5), (3, 4), (2, 6))
    first, second = concat_examples(list(zip(x, y)), padding=0)
    check_padded(first, x, (4, 5), 0)
    check_padded(second, y, (3, 6), 0)
    batch = concat_examples([{"x": a, "y": b} for a, b in zip(x, y)], padding=0)
    assert equal(batch, {"x": first, "y": second})


# -- padding


def test_each_part_may_have_a_padding_of_its_own():
    samples = [(np.array([1, 2]), np.array([0])), (np.array([3]), np.array([1, 1])), (np.zeros(0, int), np.array([2]))]
    batch = concat_examples(samples, padding=(100, 200))
    assert equal(batch[0], torch.tensor([[1, 2], [3, 100], [100, 100]]))
    assert equal(batch[1], torch.tensor([[0, 200], [1, 1], [2, 200]]))


def test_a_part_with_none_is_stacked_as_it_is():
    samples = [{"x": torch.ones(2), "name": "a"}, {"x": torch.ones(1), "name": "b"}]
    batch = concat_examples(samples, padding={"name": None, "x": -1})
    assert equal(batch["x"], torch.tensor([[1.0, 1.0], [1.0, -1.0]])) and list(batch["name"]) == ["a", "b"]


def test_the_first_array_decides_the_dtype():
    batch = concat_examples([torch.ones(1, dtype=torch.uint8), np.array([2.0, 3.0])], padding=7)
    assert equal(batch, torch.tensor([[1, 7], [2, 3]], dtype=torch.uint8))


def test_parts_may_be_nested_and_named_tuples_stay_what_they_are():
    samples = [(Pair(torch.ones(n), 1), {"n": n}) for n in (1, 2)]
    pair, numbers = concat_examples(samples, "cpu", padding=0)
    assert isinstance(pair, Pair) and equal(pair.image, torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
    assert equal(numbers, {"n": torch.tensor([1, 2])})
    assert equal(concat_examples(samples, padding=((0, None), None))[0].image, pair.image)


@pytest.mark.parametrize("padding", [(0,), (0, 1, 2), {"x": 0}])
def test_a_padding_of_another_form_than_the_samples_is_refused(padding):
    with pytest.raises(ValueError, match="padding must be a number, or have the sample's parts, got ") as caught:
        concat_examples(sequences(), padding=padding)
    assert "sample 0 is tuple with parts [0, 1]" in str(caught.value)


@pytest.mark.parametrize("padding", [(0, 1), {"x": 0}, "0"])
def test_a_padding_of_bare_arrays_that_is_no_number_is_refused(padding):
    with pytest.raises(ValueError, match="padding must be a number, or have the sample's parts, got ") as caught:
        concat_examples([torch.ones(1), torch.ones(2)], padding=padding)
    assert str(caught.value).endswith(f"got {padding!r}.")


@pytest.mark.parametrize("batch", [torch.ones(2, 3), (torch.ones(2),), {"x": torch.ones(2)}])
def test_a_collated_batch_cannot_be_padded(batch):
    message = (
        rf"padding is for a list of samples, and this batch is collated already \(.*{type(batch).__name__}.*\): pad"
        r" where it is collated, e\.g\. MultiprocessIterator\(\.\.\.,"
        r" collate_fn=functools\.partial\(concat_examples, padding=0\)\)\."
    )
    with pytest.raises(TypeError, match=message):
        concat_examples(batch, padding=0)


@pytest.mark.parametrize("n_processes", [0, 1])
def test_workers_pad_what_the_converter_would(n_processes):
    pad = functools.partial(concat_examples, padding=(-1, None))
    serial = SerialIterator(sequences(), 4, shuffle=False)
    iterator = MultiprocessIterator(sequences(), 4, shuffle=False, n_processes=n_processes, collate_fn=pad)
    for _ in range(2):
        batch = next(iterator)
        assert isinstance(batch, tuple) and batch[0].shape == (4, 3)
        assert equal(concat_examples(batch, "cpu"), pad(next(serial)))
    iterator.finalize()


@pytest.mark.parametrize("n_processes", [None, 0, 1])  # None: by the converter
def test_a_run_over_samples_of_different_sizes(n_processes, tmp_path):
    pad = functools.partial(concat_examples, padding=0)
    model = Classifier(torch.nn.Linear(3, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    if n_processes is None:
        updater = StandardUpdater(SerialIterator(sequences(), 3), optimizer, model=model, converter=pad)
    else:
        iterator = MultiprocessIterator(sequences(), 3, n_processes=n_processes, collate_fn=pad)
        updater = StandardUpdater(iterator, optimizer, model=model)
    updater.update()
    updater.finalize()
    assert updater.iteration == 1


# -- what is said of a sample that does not fit


@pytest.mark.parametrize(
    ("samples", "padding", "message"),
    [
        (
            [torch.ones(3, 4), torch.ones(3, 4), torch.ones(2, 5)],
            None,
            r"sample 2 is torch\.float32 Tensor of shape \(2, 5\) where sample 0 is torch\.float32 Tensor of"
            r" shape \(3, 4\): make them alike in a transform, or give concat_examples a padding if only their sizes"
            r" differ\.$",
        ),
        (
            [(0, np.ones(1)), (0, np.ones(2))],
            None,
            r"sample 1, part 1 is float64 ndarray of shape \(2,\) where sample 0",
        ),
        (
            [{"x": np.ones(1)}, {"x": np.ones(2)}],
            None,
            r"sample 1, part 'x' is .*\(2,\) where sample 0 is .*\(1,\): make",
        ),
        (
            [(0, {"x": np.ones(1)}), (0, {"x": np.ones(2)})],
            None,
            "sample 1, part 1, part 'x' is float64 ndarray of sha",
        ),
        (
            [(1, 2), (1, 2), (1,)],
            None,
            r"sample 2 is tuple with parts \[0\] where sample 0 is tuple with parts \[0, 1\]",
        ),
        (
            [[1, 2], [1, 2, 3]],
            None,
            r"sample 1 is list with parts \[0, 1, 2\] where sample 0 is list with parts \[0, 1\]",
        ),
        ([{"x": 1, "y": 2}, {"x": 1}], None, r"sample 1 is dict with parts \['x'\] where sample 0 is dict with parts"),
        (
            [(1, 2), {"x": 1}],
            None,
            r"sample 1 is dict with parts \['x'\] where sample 0 is tuple with parts \[0, 1\]: ma",
        ),
        (
            [torch.ones(1), 1.0],
            None,
            r"sample 1 is float where sample 0 is torch\.float32 Tensor of shape \(1,\): make",
        ),
        ([(1, None), (1, None)], None, "sample 0, part 1 is NoneType, which cannot be put into a batch: .*NoneType"),
        ([(1, 2), (1, None)], None, "sample 1, part 1 is NoneType, which cannot be put into a batch: .*NoneType"),
        ([None], None, "sample 0 is NoneType, which cannot be put into a batch: default_collate"),
        ([{"x": object()}], None, "sample 0, part 'x' is object, which cannot be put into a batch: default_collate"),
        ([np.array([None])], None, r"sample 0 is object ndarray of shape \(1,\), which cannot be put into a batch: "),
        (
            [(np.ones((1, 2)), 0), (np.ones(2), 0)],
            0,
            r"sample 1, part 0 is float64 ndarray of shape \(2,\) where sample 0 is float64 ndarray of shape \(1, 2\):",
        ),
        ([(1, 2), (1, 2), (1,)], 0, r"sample 2 is tuple with parts \[0\] where sample 0 is tuple with parts \[0, 1\]"),
        (
            [(1, 2), (1, 2, 3)],
            0,
            r"sample 1 is tuple with parts \[0, 1, 2\] where sample 0 is tuple with parts \[0, 1\]",
        ),
        ([{"x": 1}, {"y": 1}], 0, r"sample 1 is dict with parts \['y'\] where sample 0 is dict with parts \['x'\]"),
        (
            [np.ones(1), (1,)],
            0,
            r"sample 1 is tuple with parts \[0\] where sample 0 is float64 ndarray of shape \(1,\)",
        ),
        ([(1, "a"), (1, "b")], 0, "sample 0, part 1 is str, which cannot be put into a batch: .*numpy.str_"),
        ([(1, 2), (1, None)], 0, "sample 1, part 1 is NoneType, which cannot be put into a batch: .*numpy.object_"),
        (
            [(1, 2), (1, None)],
            (0, None),
            "sample 1, part 1 is NoneType, which cannot be put into a batch: default_coll",
        ),
        (
            [torch.ones(1).long(), torch.ones(2).long()],
            np.nan,
            "sample 0 is torch.int64 Tensor .*cannot be put .*overflow",
        ),
    ],
)
def test_sample_and_part_that_do_not_fit_are_named(samples, padding, message):
    with pytest.raises(ValueError, match=f"^{message}") as caught:
        concat_examples(samples, padding=padding)
    assert caught.value.__cause__ is not None


def test_workers_name_the_sample_too():
    iterator = MultiprocessIterator(sequences(), 3, shuffle=False, n_processes=1, collate_fn=concat_examples)
    with pytest.raises(ValueError, match=r"sample 1, part 0 is torch\.float32 Tensor of shape \(2,\) where sample 0"):
        next(iterator)
    iterator.finalize()


def test_a_failure_that_is_no_sample_s_is_raised_as_it_is(monkeypatch):
    def fail(samples):
        if len(samples) > 2:
            raise MemoryError("no memory for the batch")
        return samples

    monkeypatch.setattr("trainer.datasets.convert.default_collate", fail)
    with pytest.raises(MemoryError, match="no memory for the batch"):
        concat_examples([1, 2, 3])


@pytest.mark.parametrize("padding", [None, 0])
def test_arrays_that_are_flipped_or_of_another_byte_order_are_taken_too(padding):
    image = np.arange(6, dtype=np.float32).reshape(2, 3)
    batch = [(image[:, ::-1], {"a": image.astype(">f4")}, 0), (image[::-1], {"a": image}, 1)]
    flipped, nested, t = concat_examples(batch, padding=padding)
    assert torch.equal(flipped, torch.from_numpy(np.stack([image[:, ::-1].copy(), image[::-1].copy()])))
    assert torch.equal(nested["a"], torch.from_numpy(np.stack([image, image]))) and t.tolist() == [0, 1]
    assert torch.equal(concat_examples([image[::-1]], padding=padding)[0], flipped[1])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("pinned", [False, True])
def test_batches_that_go_to_a_cuda_device_beside_its_kernels_arrive_as_they_were(pinned):
    busy = torch.rand(2000, 2000, device="cuda")
    sums = []
    for number in range(50):
        for _ in range(3):
            busy = (busy @ busy).sigmoid()
        images, labels = torch.full((64, 3, 64, 64), number % 7, dtype=torch.uint8), torch.full((64,), number)
        if pinned:
            images, labels = images.pin_memory(), labels.pin_memory()
        x, t = concat_examples((images, labels), "cuda")
        del images, labels
        sums.append(x.sum() + t.sum())
        del x, t  # its memory may hold the next batch
    assert [int(total) for total in sums] == [64 * 3 * 64 * 64 * (n % 7) + 64 * n for n in range(50)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_sparse_batches_go_to_a_cuda_device_too():
    x, t = concat_examples((torch.eye(3).to_sparse(), torch.arange(3)), "cuda")
    assert x.is_cuda and x.is_sparse and torch.equal(x.to_dense().cpu(), torch.eye(3)) and t.tolist() == [0, 1, 2]
