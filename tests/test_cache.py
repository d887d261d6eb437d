"""A cached data set: the same bits, whoever fills the file, whatever befalls it, and never a wrong pixel."""

import json
import multiprocessing
import os
import pickle
import random
import resource
import signal
import tempfile
import time
import warnings
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import equal
from processes import call, start

from trainer.datasets import TransformDataset
from trainer.datasets.cached import CachedDataset, describe_files
from trainer.iterators import BadSampleError, MultiprocessIterator, MultithreadIterator, SerialIterator

KEY = {"of": "a test", "scale": 256}


class Slow:
    """Samples that are made of their index, and say in a file that they were made."""

    def __init__(self, folder, n=30, shift=0, seconds=0.0):
        self.made = folder / "made"
        self.n = n
        self.shift = shift
        self.seconds = seconds

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        with open(self.made, "a") as file:
            file.write(f"{index}\n")
        time.sleep(self.seconds)
        values = torch.arange(3 * 5 * 4, dtype=torch.int64) * (index + 1) + self.shift
        image = (values % 251).to(torch.uint8).view(5, 4, 3).permute(2, 0, 1)
        return image, index % 7, torch.tensor(index / 3, dtype=torch.float64)


def made(folder):
    path = folder / "made"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def forget(folder):
    (folder / "made").unlink(missing_ok=True)


def cache(folder, key=KEY, **kwargs):
    return CachedDataset(Slow(folder, **kwargs), folder / "cache" / "train", key)


def all_of(dataset):
    return [dataset[i] for i in range(len(dataset))]


def files(folder):
    return sorted(path.name for path in (folder / "cache").iterdir())


def augment(sample):
    image, label, value = sample
    image = image.roll(random.randint(0, 3), 2).float() + torch.randn(image.shape)
    return (image - image.mean()) / image.std(), label, value + np.random.normal()


def batches(dataset, n_processes, n=9):
    iterator = MultiprocessIterator(dataset, 8, n_processes=n_processes, seed=3)
    try:
        return [next(iterator) for _ in range(n)]
    finally:
        iterator.finalize()


# -- the same bits


def test_a_sample_is_made_once_and_is_the_same_to_the_bit_ever_after(tmp_path):
    plain, cached = Slow(tmp_path), cache(tmp_path)
    forget(tmp_path)
    first, second = all_of(cached), all_of(cached)
    assert made(tmp_path) == list(range(30))
    assert equal(first, all_of(plain)) and equal(second, first)
    assert [part.stride() for part in second[4][::2]] == [part.stride() for part in plain[4][::2]]
    assert type(second[4][1]) is int


@pytest.mark.parametrize(
    "values",
    [
        [torch.rand(3) for _ in range(4)],
        [torch.tensor(i) for i in range(4)],
        [torch.tensor([i % 2 == 0]) for i in range(4)],
        [torch.full((2, 2), i, dtype=torch.bfloat16).T for i in range(4)],
        [torch.complex(torch.rand(2), torch.rand(2)) for _ in range(4)],
        [-(2**63), 2**63 - 1, 0, 7],
        [(i,) for i in range(4)],
        [torch.rand(4, 4)[:, 1:3] for _ in range(4)],
    ],
    ids=lambda values: type(values[0]).__name__,
)
def test_tensors_of_every_dtype_ints_and_tuples_come_back_as_they_were(tmp_path, values):
    for _ in range(2):  # made, then read
        cached = CachedDataset(values, tmp_path / "values", "some values")
        assert equal(all_of(cached), values)
        assert equal(all_of(cached), values)


def test_a_sample_that_is_a_view_is_the_same_when_it_is_made_as_when_it_is_read(tmp_path):
    large = torch.rand(4, 3, 50, 50)
    crops = TransformDataset(range(4), lambda i: large[i, :, 3:45, 4:46])
    cached = CachedDataset(crops, tmp_path / "crops", "crops")
    first, second = ([cached[i] for i in range(4)] for _ in range(2))
    assert equal(first, second) and [x.stride() for x in first] == [x.stride() for x in second]
    assert equal([x.mean() for x in first], [x.mean() for x in second])
    first[3].zero_()
    assert equal(crops[3].contiguous(), second[3])


def test_indices_count_from_the_end_too_and_end_with_the_data(tmp_path):
    cached = cache(tmp_path)
    assert len(cached) == 30 and equal(list(cached), all_of(cached))
    assert equal(cached[-1], cached[29]) and equal(cached[np.int64(3)], cached[3])
    assert equal(cached[1:7:2], [cached[1], cached[3], cached[5]])
    with pytest.raises(IndexError):
        cached[30]


@pytest.mark.parametrize("n_processes", [0, 2])
def test_batches_are_the_same_with_and_without_the_cache(tmp_path, n_processes):
    plain = batches(TransformDataset(Slow(tmp_path), augment), 0)
    augmented = TransformDataset(cache(tmp_path), augment)
    forget(tmp_path)
    assert equal(batches(augmented, n_processes), plain)
    assert sorted(set(made(tmp_path))) == list(range(30))
    forget(tmp_path)
    assert equal(batches(augmented, n_processes), plain)
    assert equal(batches(TransformDataset(cache(tmp_path), augment), 2 - n_processes), plain)
    assert len(made(tmp_path)) == 6  # what is compared at the start


@pytest.mark.parametrize("iterator", [SerialIterator, MultithreadIterator])
def test_every_iterator_takes_a_cached_data_set(tmp_path, iterator):
    cached = cache(tmp_path)
    for _ in range(2):
        assert equal(next(iterator(cached, 30, shuffle=False)), all_of(Slow(tmp_path)))


@pytest.mark.parametrize("n_processes", [0, 2])
def test_a_run_may_be_resumed_with_or_without_the_cache(tmp_path, n_processes):
    plain = batches(TransformDataset(Slow(tmp_path), augment), 0)
    before = MultiprocessIterator(TransformDataset(cache(tmp_path), augment), 8, n_processes=n_processes, seed=3)
    first = [next(before) for _ in range(5)]
    state = before.state_dict()
    before.finalize()
    for dataset in (cache(tmp_path), Slow(tmp_path)):
        after = MultiprocessIterator(TransformDataset(dataset, augment), 8, n_processes=n_processes, seed=3)
        after.load_state_dict(state)
        assert equal(first + [next(after) for _ in range(4)], plain)
        after.finalize()


def test_filling_the_cache_does_not_disturb_the_model_s_random_numbers(tmp_path):
    cached = cache(tmp_path)
    before = torch.get_rng_state(), random.getstate()
    all_of(cached)
    assert torch.equal(before[0], torch.get_rng_state()) and before[1] == random.getstate()


def test_what_a_caller_changes_in_place_is_its_own(tmp_path):
    cached, plain = cache(tmp_path), all_of(Slow(tmp_path))
    for _ in range(3):
        for index, (image, _, value) in enumerate(cached):
            assert equal((image, value), plain[index][::2])
            image.zero_()
            value.add_(1)
    assert equal(all_of(cache(tmp_path)), plain)


def test_a_started_worker_opens_the_file_by_itself(tmp_path):
    cached = cache(tmp_path)
    all_of(cached)
    forget(tmp_path)
    assert equal(all_of(pickle.loads(pickle.dumps(cached))), all_of(cached))
    assert made(tmp_path) == []
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert equal(pool.map(cached.__getitem__, [3, 29]), [cached[3], cached[29]])
    assert made(tmp_path) == []


def test_a_worker_makes_what_it_needs_where_the_file_is_gone_and_cannot_be_made_again(tmp_path):
    pickled = pickle.dumps(cached := cache(tmp_path))
    cached.path.unlink()
    cached.path.parent.rmdir()
    cached.path.parent.touch()
    with pytest.warns(UserWarning, match=r"train-\w+\.cache cannot be filled any further \(.*\): the run goes on"):
        copy = pickle.loads(pickled)
    assert equal(all_of(copy), all_of(Slow(tmp_path)))


# -- bad samples


class Broken(Slow):
    def __getitem__(self, index):
        if index % 10 == 0 and not self.is_mended():
            raise OSError(f"image {index} is cut short")
        return super().__getitem__(index)

    def is_mended(self):
        return self.made.with_name("mended").exists()


def test_a_bad_sample_raises_as_without_the_cache_until_it_is_mended(tmp_path):
    cached = CachedDataset(Broken(tmp_path), tmp_path / "broken", KEY)
    for _ in range(2):
        with pytest.raises(OSError, match="^image 10 is cut short$"):
            cached[10]
    (tmp_path / "mended").touch()
    assert equal(all_of(cached), all_of(Slow(tmp_path)))


@pytest.mark.parametrize("n_processes", [0, 2])
def test_bad_samples_are_skipped_as_without_the_cache(tmp_path, n_processes):
    def skipping(dataset):
        iterator = MultiprocessIterator(dataset, 8, n_processes=n_processes, seed=3, on_bad_sample="skip")
        with pytest.warns(UserWarning, match="is cut short"):
            got = [next(iterator) for _ in range(9)]
        iterator.finalize()
        return got, iterator.bad_samples

    plain = skipping(TransformDataset(Broken(tmp_path), augment))
    cached = CachedDataset(Broken(tmp_path), tmp_path / "broken", KEY)
    assert len(plain[1]) > 5
    for _ in range(2):
        again = skipping(TransformDataset(cached, augment))
        assert equal(again[0], plain[0])
        assert again[1] == plain[1]


def test_a_data_set_of_which_every_sample_is_bad_raises_its_own_error(tmp_path):
    with pytest.raises(ValueError, match="^invalid literal"):
        CachedDataset(TransformDataset(["one", "two"], int), tmp_path / "cache", KEY)


# -- what is refused

REFUSED = {
    "dict": {"x": 1},
    "list": [torch.zeros(1)],
    "ndarray": np.zeros(3),
    "float": (torch.zeros(1), 0.5),
    "bool": True,
    "str": "cat",
    "Pair": namedtuple("Pair", "x y")(1, 2),
    "Parameter": torch.nn.Parameter(torch.zeros(1)),
    "Tensor": torch.zeros(2).to_sparse(),
    "Tensor ": torch.zeros(0, 3),
    "int": 2**63,
    "tuple": (1, (2, 3)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_samples_that_would_not_come_back_as_they_were_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match=f"^sample 0 of list is or holds {name.strip()}: the cache keeps plain tens"):
        CachedDataset([REFUSED[name]], tmp_path / "cache", KEY)
    assert list(tmp_path.iterdir()) == []


def test_samples_that_are_not_alike_are_refused_and_told_apart(tmp_path):
    ragged = [(torch.zeros(3), 1), (torch.zeros(3), 1), (torch.zeros(3), 1), (torch.zeros(4), 1), (torch.zeros(3), 1)]
    cached = CachedDataset(ragged, tmp_path / "cache", KEY)
    told = (
        r"sample 3 of list is \(float32 of shape \(4,\), int\), and the first one \(float32 of shape \(3,\), int\): the"
        " cache keeps samples that are all alike"
    )
    with pytest.raises(ValueError, match=told):
        cached[3]
    with pytest.raises(BadSampleError, match="sample 3 of list is"):
        next(SerialIterator(cached, 5))
    with pytest.raises(ValueError, match=r"sample 1 of list is int, and the first one uint8 of shape \(\)"):
        CachedDataset([torch.tensor(1, dtype=torch.uint8), 1], tmp_path / "other", KEY)
    with pytest.raises(ValueError, match=r"sample 1 of list is .* \(2, 2\) and strides \(1, 2\), and the first one"):
        CachedDataset([torch.zeros(2, 2), torch.zeros(2, 2).T], tmp_path / "third", KEY)


@pytest.mark.parametrize("draw", [random.random, np.random.rand, lambda: float(torch.rand(()))])
def test_a_data_set_that_draws_is_refused_wherever_it_begins_to(tmp_path, draw):
    told = "TransformDataset draws from a global random generator: its samples are not the same each time"
    with pytest.raises(ValueError, match=told):
        CachedDataset(TransformDataset(range(9), lambda x: x + 0 * int(draw())), tmp_path / "cache", KEY)
    sometimes = TransformDataset(range(9), lambda x: x if x != 3 else x + 0 * int(draw()))
    with pytest.raises(ValueError, match=told):
        CachedDataset(sometimes, tmp_path / "cache", KEY)[3]


def test_a_data_set_with_a_generator_of_its_own_is_refused(tmp_path):
    own = np.random.default_rng(0)
    with pytest.raises(
        ValueError, match=r"gives another sample 0 each time: .*Put what is random behind it: Transform"
    ):
        CachedDataset(TransformDataset(range(9), lambda x: int(own.integers(1000))), tmp_path / "cache", KEY)


def test_a_data_set_that_is_handed_a_generator_is_refused(tmp_path):
    class Drawing:
        def draw_sample(self, index, generator):
            return torch.rand(1, generator=generator)

    with pytest.raises(ValueError, match="Drawing defines draw_sample: its samples are not the same each time"):
        CachedDataset(Drawing(), tmp_path / "cache", KEY)
    with pytest.raises(ValueError, match="TransformDataset defines draw_sample"):
        CachedDataset(TransformDataset(Drawing(), abs), tmp_path / "cache", KEY)


def test_an_empty_data_set_is_refused(tmp_path):
    with pytest.raises(ValueError, match="the data set is empty: there is nothing to cache"):
        CachedDataset([], tmp_path / "cache", KEY)


def test_a_key_that_is_no_plain_value_is_refused(tmp_path):
    with pytest.raises(TypeError, match=r"the key must be strings, numbers, and lists and dicts of them: .*Path"):
        CachedDataset([1], tmp_path / "cache", {"folder": tmp_path})


# -- keys


def test_another_key_length_or_shape_is_another_file_and_the_old_one_is_told_of(tmp_path):
    old = cache(tmp_path)
    all_of(old)
    told = rf"{old.path} \(\d MB\) was made with other scale: remove it if no run needs it\."
    with pytest.warns(UserWarning, match=told):
        new = cache(tmp_path, key=KEY | {"scale": 128}, shift=5)
    assert equal(all_of(new), all_of(Slow(tmp_path, shift=5)))
    assert equal(all_of(cache(tmp_path)), all_of(Slow(tmp_path)))  # both are there: nothing is told
    with pytest.warns(UserWarning, match="was made with other (length|length, scale): remove"):
        assert cache(tmp_path, n=29).path not in (old.path, new.path)
    assert len(files(tmp_path)) == 3


def test_another_name_is_nothing_to_tell_of(tmp_path):
    CachedDataset([1], tmp_path / "train", KEY)
    CachedDataset([1], tmp_path / "train-big", KEY)
    CachedDataset([1], tmp_path / "tr[a]in", KEY)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_key_that_leaves_out_what_has_changed_is_found(tmp_path):
    all_of(cache(tmp_path))
    with pytest.raises(ValueError, match=r"cache holds another sample 0 than Slow gives now: say in the key what has"):
        cache(tmp_path, shift=1)


def test_the_key_can_be_read_at_the_beginning_of_the_file(tmp_path):
    with open(cache(tmp_path).path, "rb") as file:
        assert file.readline() == b"KUSARI CACHE 3\n"
        assert json.loads(file.readline())["key"] == KEY


def test_a_description_of_files_changes_with_their_names_sizes_and_times(tmp_path):
    for name in "ab":
        (tmp_path / name).write_text("123")
    first = describe_files(["a", "b"], tmp_path)
    assert (first["files"], first["bytes"]) == (2, 6)
    assert describe_files([str(name) for name in ("a", "b")], str(tmp_path)) == first
    seen = [first, describe_files(["a"], tmp_path), describe_files(["b", "a"], tmp_path)]
    seen.append(describe_files(["a", "none"], tmp_path))
    os.utime(tmp_path / "b", ns=(0, 5))
    seen.append(describe_files(["a", "b"], tmp_path))
    (tmp_path / "b").write_text("1234")
    os.utime(tmp_path / "b", ns=(0, 5))
    seen.append(describe_files(["a", "b"], tmp_path))
    assert len({json.dumps(x) for x in seen}) == 6


# -- whatever befalls the file


def fill_in_workers(folder):
    batches(cache(folder, seconds=0.01), 2)


def test_a_cache_whose_builders_were_killed_is_right_and_keeps_what_they_made(tmp_path):
    for count in (8, 14):
        forget(tmp_path)
        process = start(fill_in_workers, tmp_path)
        while len(made(tmp_path)) < count:
            time.sleep(0.001)
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
    forget(tmp_path)
    cached = cache(tmp_path)
    assert equal(all_of(cached), all_of(Slow(tmp_path)))
    assert equal(all_of(cached), all_of(Slow(tmp_path)))


def test_a_sample_that_was_being_written_at_a_kill_counts_as_missing(tmp_path):
    """The mark is written last: a record that is there in part has none."""
    cached = cache(tmp_path)
    cached[3]
    with open(cached.path, "r+b") as file:
        file.seek(cached.path.stat().st_size - 70)  # in the middle of the last sample, before its mark
        file.write(b"half")
    again = cache(tmp_path)
    assert equal(all_of(again), all_of(Slow(tmp_path)))
    assert equal(all_of(again), all_of(Slow(tmp_path)))


def fill(folder, order):
    cached = cache(folder, seconds=0.002)
    for index in order:
        assert equal(cached[index], Slow(folder)[index])


def test_several_runs_may_fill_one_cache_at_once(tmp_path):
    processes = [start(fill, tmp_path, order) for order in (range(30), range(29, -1, -1), range(30))]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(files(tmp_path)) == 1
    cached, plain = cache(tmp_path), all_of(Slow(tmp_path))
    forget(tmp_path)
    assert equal(all_of(cached), plain) and made(tmp_path) == []


def test_what_power_has_taken_is_told_of_and_made_anew(tmp_path):
    cached = cache(tmp_path)
    all_of(cached)
    with open(cached.path, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(size - 5 * size // 100)  # the last mark has reached the disk, and its sample has not
        file.write(bytes(5 * size // 100 - 8))
    with pytest.warns(UserWarning, match=r"train-\w+\.cache has damaged samples, from a loss of power say: they are"):
        again = cache(tmp_path)
        assert equal(all_of(again), all_of(Slow(tmp_path)))
    assert equal(all_of(again), all_of(Slow(tmp_path)))
    forget(tmp_path)
    all_of(again)
    assert made(tmp_path) == []


@pytest.mark.parametrize("offset", [4096 + 8 * 11, -1, -400])
def test_a_flipped_bit_never_reaches_a_sample(tmp_path, offset):
    cached = cache(tmp_path)
    all_of(cached)
    content = bytearray(cached.path.read_bytes())
    content[offset] ^= 4
    cached.path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is told depends on the place
        assert equal(all_of(cache(tmp_path)), all_of(Slow(tmp_path)))


@pytest.mark.parametrize("damage", ["short", "long", "empty", "foreign"])
def test_a_file_that_is_not_this_cache_or_not_whole_is_named_and_left_alone(tmp_path, damage):
    path = cache(tmp_path).path
    content = path.read_bytes()
    bad = {"short": content[:-1], "long": content + b"x", "empty": b"", "foreign": b"x" * len(content)}[damage]
    path.write_bytes(bad)
    why = "it begins otherwise" if damage == "foreign" else f"{len(bad)} bytes, and {len(content)} are wanted"
    told = rf"not this cache, or not whole \({why}\), stands there: remove it, or name another: '{path}'"
    with pytest.raises(FileExistsError, match=told):
        cache(tmp_path)
    assert path.read_bytes() == bad and files(tmp_path) == [path.name]
    path.unlink()
    assert equal(all_of(cache(tmp_path)), all_of(Slow(tmp_path)))


@pytest.mark.parametrize("kind", ["folder", "pipe", "link", "link to nothing"])
@pytest.mark.parametrize("when", ["before", "since"])
def test_what_is_no_file_in_the_place_of_a_cache_is_named_and_left_alone(tmp_path, kind, when):
    cached = cache(tmp_path)
    cached.path.rename(tmp_path / "elsewhere")
    content = (tmp_path / "elsewhere").read_bytes()
    target = tmp_path / ("elsewhere" if kind == "link" else "absent")
    {"folder": os.mkdir, "pipe": os.mkfifo}.get(kind, lambda path: path.symlink_to(target))(cached.path)
    if when == "before":
        with pytest.raises(FileExistsError, match=rf"a (folder|named pipe|link) stands where .*'{cached.path}'"):
            cache(tmp_path)
    else:
        with pytest.warns(UserWarning, match=r"cannot be filled any further \(.*\): the run goes on"):
            assert equal(all_of(cached), all_of(Slow(tmp_path)))
    assert (tmp_path / "elsewhere").read_bytes() == content and not (tmp_path / "absent").exists()


def test_another_file_that_has_taken_the_cache_s_place_is_not_written_to(tmp_path):
    cached = cache(tmp_path)
    cached.path.unlink()
    cached.path.write_bytes(b"mine")
    with pytest.warns(UserWarning, match=r"\(another file has taken its place\): the run goes on"):
        assert equal(all_of(cached), all_of(Slow(tmp_path)))
    assert cached.path.read_bytes() == b"mine"


@pytest.mark.parametrize("other", [b"KUSARI CACHE 1\n{}", b"KUSARI CACHE 3\n[]\n", b"KUSARI CACHE 3", None])
def test_a_foreign_file_beside_the_cache_hinders_nothing(tmp_path, other):
    path = tmp_path / f"train-{'0' * 16}.cache"
    os.mkfifo(path) if other is None else path.write_bytes(other)
    assert all_of(CachedDataset([1, 2], tmp_path / "train", KEY)) == [1, 2]


def test_two_samples_that_were_swapped_with_their_marks_are_found(tmp_path):
    cached = cache(tmp_path)
    all_of(cached)
    content = bytearray(cached.path.read_bytes())
    size = (len(content) - 4096) // 30
    first, second = slice(4096 + 3 * size, 4096 + 4 * size), slice(4096 + 20 * size, 4096 + 21 * size)
    content[first], content[second] = content[second], content[first]
    cached.path.write_bytes(content)
    with pytest.warns(UserWarning, match="has damaged samples, .*: they are made again"):
        assert equal(all_of(cache(tmp_path)), all_of(Slow(tmp_path)))
    assert equal(all_of(cache(tmp_path)), all_of(Slow(tmp_path)))


def test_a_cache_of_an_older_format_is_made_anew_and_told_of(tmp_path):
    path = cache(tmp_path).path
    old = path.with_name(f"train-{'a' * 16}.cache")
    old.write_bytes(path.read_bytes().replace(b"KUSARI CACHE 3", b"KUSARI CACHE 2", 1))
    path.unlink()
    with pytest.warns(UserWarning, match=rf"{old} .* was made with other format of the cache: remove it if no run"):
        assert equal(all_of(cache(tmp_path)), all_of(Slow(tmp_path)))


def fill_on_a_full_disk(folder):
    cached = cache(folder)
    resource.setrlimit(resource.RLIMIT_FSIZE, (cached.path.stat().st_size - 700, resource.RLIM_INFINITY))
    for _ in range(2):
        assert equal(all_of(cached), all_of(Slow(folder)))


def test_on_a_full_disk_the_run_goes_on_with_one_warning_and_what_is_kept_is_right(tmp_path):
    assert call(fill_on_a_full_disk, tmp_path, output=tmp_path / "printed") == 0
    printed = (tmp_path / "printed").read_text()
    told = "cannot be filled any further (File too large): the run goes on with the same samples, and makes those"
    assert printed.count("UserWarning") == printed.count(told) == 1
    cached, plain = cache(tmp_path), all_of(Slow(tmp_path))
    forget(tmp_path)
    assert equal(all_of(cached), plain)
    assert 0 < len(made(tmp_path)) < 30


def test_a_cache_for_which_the_disk_has_no_room_is_refused_at_the_start(tmp_path):
    class Huge:
        def __len__(self):
            return 10**8

        def __getitem__(self, index):
            return torch.zeros(10**6)

    with pytest.raises(
        OSError, match=r"the cache cannot be created: it needs 400,00\d,\d+ MB and .* MB are free; name"
    ):
        CachedDataset(Huge(), tmp_path / "cache", KEY)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_is_told_of(tmp_path):
    (tmp_path / "cache").touch()
    told = r"the cache cannot be created: .*; name another folder, or leave the cache out: '.*/cache/train-\w+\.cache'"
    with pytest.raises(OSError, match=told):
        cache(tmp_path)
    with pytest.raises(OSError, match="the cache cannot be created: .*'/proc/cache/train-"):
        CachedDataset([1], "/proc/cache/train", KEY)


def read_as_nobody(folder):
    if os.getuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    cached, plain = cache(folder), all_of(Slow(folder))
    for _ in range(2):
        assert equal(all_of(cached), plain)


@pytest.mark.parametrize("filled", [30, 10])
def test_a_cache_that_one_may_only_read_is_read(filled):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cached = cache(folder)
        for index in range(filled):
            cached[index]
        folder.chmod(0o777)
        (folder / "made").chmod(0o666)
        cached.path.chmod(0o444)
        assert call(read_as_nobody, folder, output=folder / "printed") == 0
        assert ("(Permission denied): the run goes on" in (folder / "printed").read_text()) == (filled < 30)
