"""One batch, one update."""

import copy

import pytest
import torch
from helpers import Augmented, equal, make_data, make_run
from torch.utils.data import DataLoader

from trainer import Classifier, StandardUpdater, Trainer
from trainer.iterators import MultiprocessIterator, SerialIterator


def by_hand(model, optimizer, iterator, n):
    """The loop that everybody has written."""
    for _ in range(n):
        x, t = torch.utils.data.default_collate(next(iterator))
        loss = torch.nn.functional.cross_entropy(model(x), t)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_training_equals_a_hand_written_loop_to_the_bit():
    predictor = torch.nn.Linear(2, 3)
    other = copy.deepcopy(predictor)
    by_hand(other, torch.optim.Adam(other.parameters()), SerialIterator(make_data(), 4), 7)
    updater = StandardUpdater(
        SerialIterator(make_data(), 4), torch.optim.Adam(predictor.parameters()), model=Classifier(predictor)
    )
    for _ in range(7):
        updater.update()
    assert updater.iteration == 7
    assert equal(predictor.state_dict(), other.state_dict())


def test_a_data_loader_will_do(tmp_path):
    model = Classifier(torch.nn.Linear(2, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    updater = StandardUpdater(DataLoader(make_data(), 4, shuffle=True), optimizer, model=model)
    run = Trainer(updater, (2, "epoch"), out=tmp_path)
    weights = []
    run.extend(lambda t: weights.append(t.observation.weight), name="weights")
    run.run()
    assert updater.iteration == 6
    assert weights == [4, 4, 2] * 2


def test_iteration_is_the_count_of_completed_updates_inside_an_update():
    seen = []

    class Custom(StandardUpdater):
        def update_core(self):
            seen.append(self.iteration)
            super().update_core()

    model = Classifier(torch.nn.Linear(2, 3))
    updater = Custom(SerialIterator(make_data(), 4), torch.optim.SGD(model.parameters()), model=model)
    updater.update(), updater.update()
    assert seen == [0, 1]


def test_tuples_dicts_and_single_values_are_passed_as_such():
    calls = []
    parameter = torch.nn.Parameter(torch.ones(()))

    def loss(*args, **kwargs):
        calls.append((len(args), sorted(kwargs)))
        return parameter * 1

    model = torch.nn.Module()
    model.p = parameter
    for data in ([(1.0, 2.0, 3.0)], [{"x": 1.0, "t": 2}], [1.0]):
        optimizer = torch.optim.SGD([parameter], lr=0.1)
        StandardUpdater(SerialIterator(data, 1), optimizer, model=model, loss_func=loss).update()
    assert calls == [(3, []), (0, ["t", "x"]), (1, [])]


def test_the_converter_is_called_once_on_whatever_comes():
    seen = []

    def converter(batch, device):
        seen.append((type(batch), device))
        return torch.zeros(4, 2), torch.zeros(4, dtype=torch.long)

    for iterator in (SerialIterator(make_data(), 4), MultiprocessIterator(make_data(), 4, n_processes=0)):
        model = Classifier(torch.nn.Linear(2, 3))
        optimizer = torch.optim.SGD(model.parameters())
        StandardUpdater(iterator, optimizer, model=model, converter=converter).update()
    assert seen == [(list, torch.device("cpu")), (tuple, torch.device("cpu"))]


def test_the_progress_is_that_of_the_main_iterator(run):
    updater = run.updater
    updater.update()
    assert (updater.epoch, updater.epoch_detail, updater.previous_epoch_detail) == (0, 0.5, 0.0)
    assert (updater.is_new_epoch, updater.epoch_progress()) == (False, (5, 10))
    assert updater.get_iterator("main").epoch_detail == 0.5
    assert set(updater.get_all_optimizers()) == set(updater.get_all_models()) == {"main"}


def test_several_named_parts_are_kept_and_saved():
    models = {"main": Classifier(torch.nn.Linear(2, 3)), "other": torch.nn.Linear(1, 1)}
    optimizers = {name: torch.optim.Adam(m.parameters()) for name, m in models.items()}
    updater = StandardUpdater(
        {"main": SerialIterator(make_data(), 4), "second": SerialIterator(range(3), 1)},
        optimizers,
        model=models,
    )
    updater.update()
    state = updater.state_dict()
    assert set(state["iterator"]) == {"main", "second"}
    assert set(state["model"]) == set(state["optimizer"]) == {"main", "other"}


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_trains_and_saves_its_scaler(tmp_path, precision):
    run = make_run(tmp_path, precision=precision)
    before = copy.deepcopy(run.updater.get_model("main").state_dict())
    run.run()
    assert not equal(run.updater.get_model("main").state_dict(), before)
    state = run.updater.state_dict()
    assert (state["scaler"] is not None) == (precision == "fp16")
    resumed = make_run(tmp_path, precision=precision).updater
    resumed.load_state_dict(state)
    assert equal(resumed.state_dict(), state)


def test_wrong_parts_are_refused_with_their_names():
    iterator, model = SerialIterator(make_data(), 4), Classifier(torch.nn.Linear(2, 3))
    optimizer = torch.optim.SGD(model.parameters())
    with pytest.raises(TypeError, match="optimizer 'main' must be a torch.optim.optimizer.Optimizer, got Linear"):
        StandardUpdater(iterator, torch.nn.Linear(1, 1), model=model)
    with pytest.raises(TypeError, match="model 'main' must be a torch.nn.modules.module.Module, got function"):
        StandardUpdater(iterator, optimizer, model=lambda x: x)
    with pytest.raises(ValueError, match="the iterators \\['a'\\] lack 'main'"):
        StandardUpdater({"a": iterator}, optimizer, model=model)
    with pytest.raises(ValueError, match="precision must be one of fp32, bf16, fp16, got 'fp8'"):
        StandardUpdater(iterator, optimizer, model=model, precision="fp8")


def test_a_changed_model_lists_the_keys(run, tmp_path):
    state = run.updater.state_dict()
    other = make_run(tmp_path)
    other.updater.get_model("main").predictor = torch.nn.Sequential(torch.nn.Linear(2, 3))
    with pytest.raises(RuntimeError, match=r"Missing key\(s\) in state_dict: \"predictor.0.weight\""):
        other.updater.load_state_dict(state)
    state["model"]["second"] = {}
    with pytest.raises(ValueError, match="the snapshot has models \\['main', 'second'\\], the updater \\['main'\\]"):
        run.updater.load_state_dict(state)


def test_dropout_does_not_depend_on_the_number_of_workers():
    def train(iterator):
        torch.manual_seed(0)
        net = torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(192, 8), torch.nn.Dropout(), torch.nn.Linear(8, 3)
        )
        model = Classifier(net)
        updater = StandardUpdater(iterator, torch.optim.Adam(net.parameters()), model=model)
        for _ in range(6):
            updater.update()
        updater.finalize()
        return net.state_dict()

    expected = train(SerialIterator(Augmented(), 8))
    for n in (0, 1, 2, 4):
        assert equal(train(MultiprocessIterator(Augmented(), 8, n_processes=n)), expected)
