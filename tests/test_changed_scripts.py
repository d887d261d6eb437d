"""A run that is resumed by a script that asks for something else: warned of, refused, or forced."""

import warnings

import helpers
import numpy as np
import pytest
import torch
from helpers import equal, make_data
from torch.utils.data import DataLoader

import extensions
from trainer import Classifier, StandardUpdater, Trainer, saving
from trainer.iterators import (
    DataLoaderIterator,
    MultiprocessIterator,
    SerialIterator,
    ShuffleOrderSampler,
    WeightedOrderSampler,
)
from trainer.saving.state import forced

CHANGED = "the snapshot was made with {} and the script asks for {}: the run goes on with that, but is not the one"

# -- iterators


def test_another_batch_size_or_shuffling_is_warned_of():
    state = SerialIterator(range(10), 4).state_dict()
    with pytest.warns(UserWarning, match=CHANGED.format("batch_size 4", 3)):
        SerialIterator(range(10), 3).load_state_dict(state)
    with pytest.warns(UserWarning, match=CHANGED.format("shuffle True", False)):
        SerialIterator(range(10), 4, shuffle=False).load_state_dict(state)


def test_a_forced_iterator_begins_the_epoch_anew_with_the_data_of_now():
    old, now, fresh = SerialIterator(range(10), 4), SerialIterator(range(7), 4), SerialIterator(range(7), 7)
    for _ in range(4):
        next(old)
    with forced():
        now.load_state_dict(old.state_dict())
    assert (now.epoch, now.epoch_detail, now.previous_epoch_detail) == (1, 1.0, 1.0)
    next(fresh)  # epoch 0
    assert next(now) + next(now)[:3] == next(fresh)  # epoch 1, in its own order


@pytest.mark.parametrize("batches", [0, 4])
@pytest.mark.parametrize("sampler", [ShuffleOrderSampler, lambda: WeightedOrderSampler(np.ones(7), 3)])
def test_a_forced_order_sampler_draws_anew(batches, sampler):
    old = SerialIterator(range(10), 4, order_sampler=ShuffleOrderSampler())
    for _ in range(batches):
        next(old)
    now = SerialIterator(range(7), 2, order_sampler=sampler())
    message = "the snapshot was made with batch_size 4"
    with forced(), pytest.warns(UserWarning, match=message):
        now.load_state_dict(old.state_dict())
    assert (now.epoch, now.current_position) == (old.epoch, 0)
    assert all(0 <= index < 7 for _ in range(9) for index in next(now))


def test_a_forced_data_loader_begins_the_epoch_anew():
    old, now = DataLoaderIterator(DataLoader(range(10), 2)), DataLoaderIterator(DataLoader(range(6), 2))
    for _ in range(7):
        next(old)
    with pytest.raises(ValueError, match=r"or begin the epoch anew .*: trainer\.resume\(path, force=True\)"):
        now.load_state_dict(old.state_dict())
    with forced():
        now.load_state_dict(old.state_dict())
    assert (now.epoch_detail, now.previous_epoch_detail) == (1.0, 1.0)
    assert [next(now).tolist() for _ in range(3)] == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize("make", [SerialIterator, lambda *a: MultiprocessIterator(*a, n_processes=1)])
def test_what_is_not_forced_is_refused_and_says_how_to(make):
    with pytest.raises(ValueError, match=r"now has 11: .* with the data of now: trainer\.resume\(path, force=True\)"):
        make(range(11), 4).load_state_dict(SerialIterator(range(10), 4).state_dict())


# -- whole runs


def make_run(out, train=None, valid=None, seed=None, optimizer=None):
    torch.manual_seed(0)
    model = Classifier(torch.nn.Linear(2, 3))
    optimizer = (optimizer or (lambda p: torch.optim.SGD(p, lr=0.1)))(model.parameters())
    train = SerialIterator(train or make_data(), 5, seed=seed)
    valid = SerialIterator(valid or make_data(6), 4, repeat=False, seed=seed)
    run = Trainer(StandardUpdater(train, optimizer, model=model), (4, "iteration"), out=out)
    run.extend(extensions.Evaluator(valid, model), trigger=(1, "iteration"))
    run.extend(extensions.snapshot(filename="snapshot"), trigger=(2, "iteration"))
    return run


@pytest.fixture
def saved(tmp_path):
    make_run(tmp_path).run()
    return tmp_path / "snapshot"


def test_the_same_script_is_not_warned(tmp_path, saved):
    make_run(tmp_path).resume(saved)


def test_the_snapshot_s_seed_wins_in_the_evaluation_too(tmp_path, saved):
    resumed = make_run(tmp_path, seed=5)
    with pytest.warns(UserWarning, match="made with seed 0 and goes on with it; the script asks for 5") as told:
        resumed.resume(saved)
    assert len(told) == 2
    valid = resumed.get_extension("validation").get_iterator("main")
    assert valid.seed == 0
    valid.reset()
    same = SerialIterator(make_data(6), 4, seed=0)
    assert equal(next(valid), next(same))


def test_an_evaluation_over_other_data_is_refused_unless_forced(tmp_path, saved):
    resumed = make_run(tmp_path, valid=make_data(7))
    with pytest.raises(ValueError, match="was made with 6 samples and the data set now has 7"):
        resumed.resume(saved)
    resumed = make_run(tmp_path, valid=make_data(7))
    resumed.resume(saved, force=True)
    assert resumed.get_extension("validation")()["validation/main/loss"] > 0


def test_a_forced_run_goes_on_over_other_data(tmp_path, saved):
    resumed = make_run(tmp_path, train=make_data(15))
    resumed.resume(saved, force=True)
    assert (resumed.updater.iteration, resumed.updater.epoch_detail) == (4, 2.0)
    resumed.updater.update()
    assert resumed.updater.epoch_detail == 2 + 1 / 3


def test_an_evaluation_s_state_is_small(saved):
    kept = saving.load(saved)["extensions"]["validation"]
    assert kept == {"iterators": {"main": {"seed": 0, "length": 6, "bad_samples": []}}}


def test_an_evaluator_of_anything_with_next_and_reset_has_no_state():
    class Endless:
        def __next__(self):
            raise StopIteration

        def reset(self):
            pass

    evaluator = extensions.Evaluator(Endless(), torch.nn.Linear(1, 1))
    assert evaluator.state_dict() == {"iterators": {"main": {}}}
    evaluator.load_state_dict(evaluator.state_dict())


def test_a_data_loader_s_evaluation_keeps_its_seed_too():
    def make(seed):
        iterator = DataLoaderIterator(DataLoader(make_data(), 4), repeat=False, seed=seed)
        return extensions.Evaluator(iterator, torch.nn.Linear(1, 1))

    other = make(2)
    with pytest.warns(UserWarning, match="made with seed 1"):
        other.load_state_dict(make(1).state_dict())
    assert other.get_iterator("main").seed == 1


# -- hyper-parameters


def test_a_learning_rate_that_the_script_changed_is_overruled_with_a_warning_at_each_resume(tmp_path, saved):
    def other(parameters):
        return torch.optim.SGD(parameters, lr=torch.tensor(0.5), momentum=0.9)

    for _ in range(2):
        resumed = make_run(tmp_path, optimizer=other)
        with pytest.warns(UserWarning) as told:
            resumed.resume(saved)
        texts = sorted(str(warning.message) for warning in told)
        ends = "the run goes on with what the snapshot holds; set it"
        ends += " in optimizer.param_groups after trainer.resume(path) to change it."
        assert texts == [
            f"optimizer 'main', group 0: the script asks for lr 0.5, and the snapshot's run for 0.1: {ends}",
            f"optimizer 'main', group 0: the script asks for momentum 0.9, and the snapshot's run for 0: {ends}",
        ]
        assert resumed.updater.get_optimizer("main").param_groups[0]["lr"] == 0.1
        saving.save(resumed.state_dict(), saved)


def test_what_changed_in_the_run_is_not_warned_of(tmp_path):
    def make():
        run = make_run(tmp_path, optimizer=lambda p: torch.optim.Adam(p, lr=torch.tensor(0.1), betas=(0.8, 0.9)))
        run.extend(extensions.ExponentialShift("lr", 0.5), trigger=(1, "iteration"))
        return run

    make().run()
    make().resume(tmp_path / "snapshot")


def test_a_snapshot_of_before_is_loaded_without_a_word(tmp_path, saved):
    state = saving.load(saved)
    del state["updater"]["asked"]
    state["extensions"]["validation"] = {}
    for key in ("batch_size", "shuffle", "bad_samples"):
        del state["updater"]["iterator"]["main"][key]
    saving.save(state, saved)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_run(tmp_path).resume(saved)


def test_accumulation_clipping_and_precision_that_the_script_changed_are_warned_of(tmp_path):
    first = helpers.make_run(tmp_path)
    second = helpers.make_run(tmp_path, accumulate=2, clip_norm=1.0, precision="bf16")
    with pytest.warns(UserWarning) as told:
        second.load_state_dict(first.state_dict())
    expected = [
        "the snapshot was made with accumulate 1 and the script asks for 2",
        "the snapshot was made with clip_norm None and the script asks for 1.0",
        "the snapshot was made with precision fp32 and the script asks for bf16",
    ]
    assert [text.split(":")[0] for text in sorted(str(warning.message) for warning in told)] == expected
