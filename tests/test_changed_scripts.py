"""A run that is resumed by a script that asks for something else: warned of, refused, or forced."""

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
from trainer.saving.state import FORCED


def load_forced(part, state):
    token = FORCED.set(True)
    try:
        part.load_state_dict(state)
    finally:
        FORCED.reset(token)


# -- iterators


def test_a_forced_iterator_begins_the_epoch_anew_with_the_data_of_now():
    old, now, fresh = SerialIterator(range(10), 4), SerialIterator(range(7), 4), SerialIterator(range(7), 7)
    for _ in range(4):
        next(old)
    load_forced(now, old.state_dict())
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
    load_forced(now, old.state_dict())
    assert (now.epoch, now.current_position) == (old.epoch, 0)
    assert all(0 <= index < 7 for _ in range(9) for index in next(now))


def test_a_forced_data_loader_begins_the_epoch_anew():
    old, now = DataLoaderIterator(DataLoader(range(10), 2)), DataLoaderIterator(DataLoader(range(6), 2))
    for _ in range(7):
        next(old)
    with pytest.raises(ValueError, match=r"or start the epoch again .*: trainer\.resume\(path, force=True\)"):
        now.load_state_dict(old.state_dict())
    load_forced(now, old.state_dict())
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
    told = "updater/iterator/main/seed 0, now 5; extensions/validation/extension/seeds/main 0, now 5"
    with pytest.warns(UserWarning, match=f"made with {told}: .* Seeds, hyperparameters and modes stay the snapshot's"):
        resumed.resume(saved)
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
    kept = saving.load(saved)["extensions"]["validation"]["extension"]
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
        (text,) = [str(warning.message) for warning in told]
        assert text == (
            "the snapshot was made with updater/hyperparameters/main/0/lr 0.1, now 0.5;"
            " updater/hyperparameters/main/0/momentum 0, now 0.9: the resumed run will not match an uninterrupted one."
            " Seeds, hyperparameters and modes stay the snapshot's; to change a hyperparameter, set it in"
            " optimizer.param_groups after trainer.resume(path)."
        )
        assert resumed.updater.get_optimizer("main").param_groups[0]["lr"] == 0.1
        saving.save(resumed.state_dict(), saved)


def test_what_changed_in_the_run_is_not_warned_of(tmp_path):
    def make():
        run = make_run(tmp_path, optimizer=lambda p: torch.optim.Adam(p, lr=torch.tensor(0.1), betas=(0.8, 0.9)))
        run.extend(extensions.ExponentialShift("lr", 0.5), trigger=(1, "iteration"))
        return run

    make().run()
    make().resume(tmp_path / "snapshot")


def test_accumulation_clipping_and_precision_that_the_script_changed_are_warned_of(tmp_path):
    first = helpers.make_run(tmp_path)
    second = helpers.make_run(tmp_path, accumulate=2, clip_norm=1.0, precision="bf16")
    told = "updater/accumulate 1, now 2; updater/clip_norm None, now 1.0; updater/precision fp32, now bf16"
    with pytest.warns(UserWarning, match=f"made with {told}: the resumed run will not match an uninterrupted one"):
        second.load_state_dict(first.state_dict())


def test_another_batch_size_or_order_is_warned_of(tmp_path, saved):
    resumed = make_run(tmp_path)
    resumed.updater.get_iterator("main").batch_size = 3
    resumed.updater.get_iterator("main").shuffle = False
    told = "updater/iterator/main/batch_size 5, now 3; updater/iterator/main/shuffle True, now False"
    with pytest.warns(UserWarning, match=f"made with {told}: the resumed run will not match"):
        resumed.resume(saved)
