"""Splits, folds, transformed data sets, and images in files."""

import io
import pickle
import sys

import numpy as np
import pytest
import torch
from helpers import equal
from PIL import Image

import trainer.random
from trainer.datasets import (
    ImageDataset,
    LabeledImageDataset,
    TransformDataset,
    get_cross_validation_datasets,
    get_cross_validation_datasets_random,
    get_cross_validation_datasets_stratified,
    split_dataset,
    split_dataset_n,
    split_dataset_n_random,
    split_dataset_random,
)
from trainer.iterators import MultiprocessIterator


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
    with pytest.raises(TypeError, match="split_at must be an integer, got "):
        split_dataset(range(5), 2.0)
    for at in (-1, 6):
        with pytest.raises(ValueError, match=f"split_at must be 0 to 5, got {at}"):
            split_dataset(range(5), at)
    with pytest.raises(ValueError, match="order has 2 indices and the data set 5 samples"):
        split_dataset(range(5), 2, order=[0, 1])


@pytest.mark.parametrize(
    "kind", [list, iter, np.array, torch.tensor, lambda order: {i: None for i in order}.keys(), lambda order: range(5)]
)
def test_an_order_may_be_anything_that_holds_indices(kind):
    order = [3, 1, 4, 0, 2]
    first, rest = split_dataset(range(5), 2, order=kind(order))
    assert [*first, *rest] == list(kind(order))


@pytest.mark.parametrize(
    "split",
    [
        lambda data: split_dataset(data, 600),
        lambda data: split_dataset(data, 600, order=range(999, -1, -1)),
        lambda data: split_dataset_random(data, 600),
        lambda data: split_dataset_n(data, 2),
        lambda data: split_dataset_n_random(data, 2),
        lambda data: get_cross_validation_datasets(data, 2)[0],
        lambda data: get_cross_validation_datasets_random(data, 2)[0],
        lambda data: get_cross_validation_datasets_stratified(data, 2, [i % 3 for i in range(len(data))])[0],
    ],
)
def test_a_part_costs_8_bytes_a_sample_and_asks_its_data_set_for_ints(split):
    part, _ = split(Indices())
    assert sys.getsizeof(part.indices) <= 8 * len(part) + 100 and len(pickle.dumps(part)) <= 8 * len(part) + 500
    expected = [part[i] for i in range(len(part))]
    assert {kind for _, kind in expected} == {int}
    assert part.__getitems__([2, 0, -1]) == part[[2, 0, -1]] == [expected[i] for i in (2, 0, -1)]
    assert [pickle.loads(pickle.dumps(part))[i] for i in range(len(part))] == expected
    iterator = MultiprocessIterator(part, 50, shuffle=False, n_processes=1, collate_fn=None)
    assert next(iterator) == expected[:50]
    iterator.finalize()


class Indices:
    """Samples that tell by what they were asked for."""

    def __len__(self):
        return 1000

    def __getitem__(self, index):
        return [self[i] for i in index] if isinstance(index, list) else (index, type(index))


# -- n parts


def lists(parts):
    return [list(part) for part in parts]


def test_n_parts_are_of_one_size_and_the_remainder_is_dropped():
    assert lists(split_dataset_n(range(7), 3)) == [[0, 1], [2, 3], [4, 5]]
    assert lists(split_dataset_n(range(6), 3)) == [[0, 1], [2, 3], [4, 5]]
    assert lists(split_dataset_n(range(7), 2, order=range(6, -1, -1))) == [[6, 5, 4], [3, 2, 1]]


def test_n_random_parts_share_no_sample_and_are_the_seed_s():
    parts = lists(split_dataset_n_random(range(7), 3, seed=3))
    assert [len(part) for part in parts] == [2, 2, 2] and len(set(sum(parts, []))) == 6
    assert lists(split_dataset_n_random(range(7), 3, seed=3)) == parts
    assert lists(split_dataset_n_random(range(10), 3, seed=0)) == [[2, 8, 4], [9, 1, 6], [7, 3, 0]]


@pytest.mark.parametrize("split", [split_dataset_n, split_dataset_n_random])
def test_a_number_of_parts_that_cannot_be_is_refused(split):
    with pytest.raises(TypeError, match=r"n must be an integer, got 2\.0\."):
        split(range(5), 2.0)
    for n in (0, 6):
        with pytest.raises(ValueError, match=f"n must be 1 to 5, got {n}"):
            split(range(5), n)


# -- cross-validation


def pairs(folds):
    return [(list(train), list(test)) for train, test in folds]


def test_folds_are_chainer_s():
    assert pairs(get_cross_validation_datasets(range(10), 3)) == [
        ([0, 1, 2, 3, 4, 5], [6, 7, 8, 9]),
        ([6, 7, 8, 9, 0, 1, 2], [3, 4, 5]),
        ([3, 4, 5, 6, 7, 8, 9], [0, 1, 2]),
    ]
    assert pairs(get_cross_validation_datasets([1, 2, 3, 4, 5, 6, 7], 3)) == [
        ([1, 2, 3, 4], [5, 6, 7]),
        ([5, 6, 7, 1, 2], [3, 4]),
        ([3, 4, 5, 6, 7], [1, 2]),
    ]
    assert pairs(get_cross_validation_datasets("abcd", 2, order=[3, 1, 0, 2])) == [
        (["d", "b"], ["a", "c"]),
        (["a", "c"], ["d", "b"]),
    ]


def test_random_folds_cover_the_data_set_and_are_the_seed_s():
    folds = pairs(get_cross_validation_datasets_random(range(6), 3, seed=5))
    assert all(sorted(train + test) == list(range(6)) for train, test in folds)
    assert sorted(sum((test for _, test in folds), [])) == list(range(6))
    assert pairs(get_cross_validation_datasets_random(range(6), 3, seed=5)) == folds
    assert pairs(get_cross_validation_datasets_random(range(6), 3, seed=6)) != folds


class Unopened:
    """A data set from which no sample may be taken."""

    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n


@pytest.mark.parametrize(("counts", "n_folds"), [([10, 7, 3, 1], 4), ([1] * 9, 5), ([50, 2], 3), ([3, 3], 6)])
def test_stratified_folds_share_out_every_class(counts, n_folds):
    labels = np.random.permutation(np.repeat(np.arange(len(counts)), counts))
    folds = get_cross_validation_datasets_stratified(Unopened(len(labels)), n_folds, labels, seed=1)
    assert len(folds) == n_folds
    for train, test in folds:
        assert sorted(train.indices + test.indices) == list(range(len(labels)))
    tests = [list(test.indices) for _, test in folds]
    assert sorted(sum(tests, [])) == list(range(len(labels)))
    assert np.ptp([len(test) for test in tests]) <= 1
    of_class = [np.bincount(labels[test], minlength=len(counts)) for test in tests]
    assert np.ptp(of_class, axis=0).max() <= 1


def test_stratified_folds_are_shuffled_by_the_seed():
    labels = [0] * 20 + [1] * 20
    folds = pairs(get_cross_validation_datasets_stratified(range(40), 4, labels, seed=1))
    assert folds == pairs(get_cross_validation_datasets_stratified(range(40), 4, labels, seed=1))
    assert folds != pairs(get_cross_validation_datasets_stratified(range(40), 4, labels, seed=2))
    train = [labels[i] for i in folds[0][0]]
    assert train not in (sorted(train), sorted(train, reverse=True))  # the classes do not come one after the other


@pytest.mark.parametrize("labels", [["cat", "dog"] * 3, torch.tensor([0, 1] * 3), np.array([0, 1] * 3)])
def test_labels_may_be_strings_arrays_or_a_tensor(labels):
    folds = get_cross_validation_datasets_stratified(range(6), 3, labels)
    assert [sorted(i % 2 for i in test) for _, test in folds] == [[0, 1]] * 3


def test_folds_without_a_seed_take_the_run_s():
    for function in (
        split_dataset_n_random,
        get_cross_validation_datasets_random,
        lambda *args, **kwargs: get_cross_validation_datasets_stratified(*args, [0] * 10, **kwargs),
    ):
        made = []
        for run_seed, seed in ((4, None), (5, None), (5, 4)):
            trainer.random.set_seed(run_seed)
            parts = function(range(10), 2, seed=seed)
            made.append([list(x) for part in parts for x in (part if isinstance(part, tuple) else [part])])
        assert made[0] == made[2] != made[1]


@pytest.mark.parametrize(
    "function",
    [
        get_cross_validation_datasets,
        get_cross_validation_datasets_random,
        lambda dataset, n_folds: get_cross_validation_datasets_stratified(dataset, n_folds, [0] * 5),
    ],
)
def test_a_number_of_folds_that_cannot_be_is_refused(function):
    with pytest.raises(TypeError, match=r"n_folds must be an integer, got .2.\."):
        function(range(5), "2")
    for n in (1, 6):
        with pytest.raises(ValueError, match=f"n_folds must be 2 to 5, got {n}"):
            function(range(5), n)


def test_an_order_or_labels_of_another_length_are_refused():
    for function in (split_dataset_n, get_cross_validation_datasets):
        with pytest.raises(ValueError, match="order has 4 indices and the data set 5 samples: give each once"):
            function(range(5), 2, [2, 0, 3, 1])
    for labels, shape in (([0] * 4, r"\(4,\)"), (np.zeros((5, 2)), r"\(5, 2\)")):
        with pytest.raises(ValueError, match=f"labels must be one label for each of the 5 samples, got .* {shape}"):
            get_cross_validation_datasets_stratified(range(5), 2, labels)


# -- images


RGB = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 14  # 2 high, 3 wide
RGBA = np.concatenate([RGB, np.full((2, 3, 1), 9, np.uint8)], axis=2)


@pytest.fixture
def folder(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "rgb.png")
    Image.fromarray(RGB[..., 0]).save(tmp_path / "grey.png")
    Image.fromarray(RGBA).save(tmp_path / "rgba.png")
    palette = Image.fromarray(RGB).quantize(6)
    palette.save(tmp_path / "palette.png")
    palette.save(tmp_path / "transparent.png", transparency=bytes([0, 255, 128, 3, 4, 5]))
    Image.fromarray(RGB[..., 0] > 50).save(tmp_path / "bits.png")
    Image.fromarray(RGB[..., 0].astype(np.uint16) * 256).save(tmp_path / "deep.png")
    file = io.BytesIO()
    Image.fromarray(np.random.randint(0, 255, (40, 40, 3), np.uint8)).save(file, "jpeg")
    (tmp_path / "cut.jpg").write_bytes(file.getvalue()[: len(file.getvalue()) // 2])
    (tmp_path / "text.png").write_text("no image")
    return tmp_path


@pytest.mark.parametrize("dtype", [torch.float32, torch.int32, torch.uint8])
def test_an_image_is_a_tensor_of_channels_height_and_width(folder, dtype):
    dataset = ImageDataset(["rgb.png", "grey.png", folder / "rgba.png"], root=folder, dtype=dtype)
    assert len(dataset) == 3
    for image, pixels in zip((dataset[0], dataset[1], dataset[-1]), (RGB, RGB[..., :1], RGBA)):
        assert image.shape == (pixels.shape[2], 2, 3) and image.is_contiguous()
        assert equal(image, torch.from_numpy(pixels.transpose(2, 0, 1).copy()).to(dtype))
    with pytest.raises(IndexError):
        dataset[3]


def test_a_palette_becomes_rgb_and_bits_become_grey(folder):
    dataset = ImageDataset(["palette.png", "transparent.png", "bits.png", "deep.png"], root=folder)
    assert equal(dataset[0], torch.from_numpy(RGB.transpose(2, 0, 1).copy()).float())
    assert equal(dataset[1], dataset[0])
    assert equal(dataset[2], torch.from_numpy(RGB[..., 0] > 50)[None] * 255.0)
    assert equal(dataset[3], torch.from_numpy(RGB[..., 0])[None] * 256.0)


def test_an_image_is_not_turned_as_its_exif_data_say(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.fromarray(RGB).save(tmp_path / "turned.jpg", exif=exif)
    assert ImageDataset(["turned.jpg"], root=str(tmp_path))[0].shape == (3, 2, 3)


def test_grey_of_16_bits_is_as_in_the_file_whatever_its_byte_order(folder):
    image = Image.new("I;16B", (3, 2), 25700)
    image.save(folder / "big.tif")
    assert equal(ImageDataset(["big.tif"], root=folder)[0], torch.full((1, 2, 3), 25700.0))


def test_values_that_the_dtype_cannot_hold_are_refused(folder):
    with pytest.raises(OSError, match=r"deep.png: it has values that are no torch.uint8, between 0 and 53760"):
        ImageDataset(["deep.png"], root=folder, dtype=torch.uint8)[0]
    assert ImageDataset(["deep.png"], root=folder, dtype=torch.int32)[0].max() > 255
    assert ImageDataset(["bits.png"], root=folder, dtype=torch.bool)[0].any()


@pytest.mark.parametrize(("end", "kind"), [("\n", str), ("", lambda path: path), ("\r\n", str)])
def test_paths_and_labels_may_stand_in_a_file(folder, end, kind):
    Image.fromarray(RGB).save(folder / "a name.png")
    (folder / "paths.txt").write_text("grey.png\n  a name.png" + end, newline="")
    dataset = ImageDataset(kind(folder / "paths.txt"), root=folder)
    assert [image.shape[0] for image in dataset_of(dataset)] == [1, 3]
    (folder / "pairs.txt").write_text("grey.png 3\nrgb.png\t-1" + end, newline="")
    labelled = LabeledImageDataset(kind(folder / "pairs.txt"), root=folder)
    assert [(image.shape[0], label.item()) for image, label in dataset_of(labelled)] == [(1, 3), (3, -1)]


def dataset_of(dataset):
    return [dataset[i] for i in range(len(dataset))]


@pytest.mark.parametrize("label_dtype", [torch.int64, torch.int32, torch.float32])
def test_a_label_is_a_tensor_without_dimensions(folder, label_dtype):
    dataset = LabeledImageDataset([("rgba.png", 0), ("grey.png", 1)], folder, torch.uint8, label_dtype)
    assert len(dataset) == 2
    image, label = dataset[1]
    assert image.shape == (1, 2, 3) and image.dtype == torch.uint8
    assert equal(label, torch.tensor(1, dtype=label_dtype))
    assert LabeledImageDataset([("grey.png", 1)], folder)[0][1].dtype == torch.int64


@pytest.mark.parametrize("line", ["grey.png", "grey.png 1 2", "grey.png one", "grey.png 1.5", ""])
def test_a_bad_line_of_pairs_is_named(folder, line):
    (folder / "pairs.txt").write_text(f"grey.png 3\n{line}\nrgb.png 1\n")
    with pytest.raises(ValueError, match=rf"pairs\.txt, line 2: expected a path and an integer label, got '{line}'\.$"):
        LabeledImageDataset(folder / "pairs.txt", root=folder)


def test_an_empty_line_of_paths_is_named(folder):
    (folder / "paths.txt").write_text("grey.png\nrgb.png\n\n")
    with pytest.raises(ValueError, match=r"paths\.txt, line 3: expected a path, got ''\.$"):
        ImageDataset(str(folder / "paths.txt"), root=folder)


@pytest.mark.parametrize(
    ("name", "why"), [("cut.jpg", "truncated"), ("text.png", "cannot identify"), ("none.png", "No such file")]
)
def test_an_image_that_cannot_be_read_is_named(folder, name, why):
    dataset = LabeledImageDataset([("rgb.png", 0), (name, 1)], root=folder)
    assert len(dataset[0]) == 2
    with pytest.raises(OSError, match=rf"cannot read the image .*{name}: .*{why}") as caught:
        dataset[1]
    assert isinstance(caught.value.__cause__, OSError)


def test_a_dtype_of_numpy_is_refused(folder):
    with pytest.raises(TypeError, match=r"^dtype must be a torch\.dtype, got .*float32.*; e\.g\. torch\.float32\.$"):
        ImageDataset([], dtype=np.float32)
    with pytest.raises(
        TypeError, match=r"^label_dtype must be a torch\.dtype, got .*int32.*; e\.g\. torch\.float32\.$"
    ):
        LabeledImageDataset([], label_dtype=np.int32)


def test_without_pillow_it_is_said_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match="to read images Pillow is needed: pip install pillow") as caught:
        ImageDataset(["rgb.png"], root=folder)[0]
    assert caught.value.__cause__ is not None


def test_images_are_read_in_worker_processes(folder):
    dataset = LabeledImageDataset([("rgb.png", 0), ("palette.png", 1)], root=folder)
    assert equal(pickle.loads(pickle.dumps(dataset))[0], dataset[0])
    iterator = MultiprocessIterator(dataset, 2, shuffle=False, n_processes=1)
    images, labels = next(iterator)
    assert equal(images, torch.stack([dataset[0][0], dataset[1][0]])) and labels.tolist() == [0, 1]
    iterator.finalize()


def test_a_slice_of_a_transformed_data_set_is_its_samples():
    doubled = TransformDataset([1, 2, 3, 4], lambda x: 2 * x)
    assert (doubled[1:3], doubled[::-2], doubled[10:]) == ([4, 6], [8, 4], [])
