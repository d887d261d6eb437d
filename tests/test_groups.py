"""Groups of parameters that are added, and parameters that are unfrozen, in mid-run: exact over a resume."""

import warnings

import pytest
import torch
from helpers import equal, make_data
from torch import nn

import extensions
from trainer import Classifier, Extension, StandardUpdater, Trainer
from trainer.iterators import SerialIterator

KINDS = {
    "SGD": lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9),
    "Adam": lambda parameters: torch.optim.Adam(parameters, 0.1),
    "named": lambda parameters: torch.optim.Adam([(str(i), p) for i, p in enumerate(parameters)], 0.1),
}


class Unfreeze(Extension):
    """Adds the body to the optimizer after an iteration."""

    def __init__(self, at, is_named):
        self.at, self.is_named = at, is_named

    def __call__(self, trainer):
        if trainer.updater.iteration == self.at:
            body = trainer.updater.get_model("main").predictor[0]
            body.requires_grad_(True)
            add(trainer.updater.get_optimizer("main"), body, self.is_named)


def add(optimizer, body, is_named):
    parameters = [(name, p) if is_named else p for name, p in body.named_parameters()]
    optimizer.add_param_group({"params": parameters, "lr": 0.01})


def make(out, kind="SGD", stop=(3, "epoch"), unfrozen=False, schedule=None, unfreeze_at=2):
    torch.manual_seed(0)
    model = Classifier(nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 3)))
    body, head = model.predictor
    body.requires_grad_(False)
    optimizer = KINDS[kind](head.parameters())
    if unfrozen:
        add(optimizer, body, kind == "named")
    run = Trainer(StandardUpdater(SerialIterator(make_data(), 5), optimizer, model=model), stop, out=out)
    if unfreeze_at:
        run.extend(Unfreeze(unfreeze_at, kind == "named"), priority=50)
    if schedule == "shift":
        run.extend(extensions.ExponentialShift("lr", 0.5))
    run.extend(extensions.LogReport(trigger=(1, "iteration")))
    run.extend(extensions.snapshot(), trigger=(1, "iteration"))
    return run


def outcome(run):
    optimizer = run.updater.get_optimizer("main")
    model = run.updater.get_model("main")
    flags = [parameter.requires_grad for parameter in model.parameters()]
    log = [entry | {"elapsed_time": 0} for entry in run.get_extension("LogReport").log]
    return model.state_dict(), optimizer.state_dict(), flags, log


@pytest.mark.parametrize("unfrozen", [True, False], ids=["made beforehand", "still missing"])
@pytest.mark.parametrize(("kind", "schedule"), [("SGD", None), ("Adam", "shift"), ("named", None)])
def test_a_group_that_was_added_in_mid_run_comes_back(tmp_path, kind, schedule, unfrozen):
    whole = make(tmp_path / "whole", kind, schedule=schedule)
    whole.run()
    for iteration in (2, 3, 5):
        resumed = make(tmp_path / f"{iteration}", kind, unfrozen=unfrozen, schedule=schedule, unfreeze_at=2)
        resumed.resume(tmp_path / "whole" / f"snapshot_iter_{iteration}")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            resumed.run()
        assert equal(outcome(resumed), outcome(whole))


def test_a_run_that_is_resumed_from_before_adds_the_group_in_its_turn(tmp_path):
    whole = make(tmp_path / "whole")
    whole.run()
    resumed = make(tmp_path / "resumed")
    resumed.resume(tmp_path / "whole" / "snapshot_iter_1")
    resumed.run()
    assert equal(outcome(resumed), outcome(whole))


def test_parameters_that_were_unfrozen_in_mid_run_stay_so(tmp_path):
    def prepare(out):
        run = make(out, unfrozen=True, unfreeze_at=None)
        body = run.updater.get_model("main").predictor[0]
        run.extend(lambda t: t.updater.iteration == 2 and body.requires_grad_(True), name="unfreeze")
        return run

    whole = prepare(tmp_path / "whole")
    whole.run()
    resumed = prepare(tmp_path / "resumed")
    resumed.resume(tmp_path / "whole" / "snapshot_iter_4")
    resumed.run()
    assert equal(outcome(resumed), outcome(whole)) and all(outcome(whole)[2])


def test_a_script_that_freezes_other_parameters_is_told_that_the_snapshot_s_stay(tmp_path):
    make(tmp_path, unfrozen=True, unfreeze_at=None).run()
    resumed = make(tmp_path, unfrozen=True, unfreeze_at=None)
    model = resumed.updater.get_model("main").predictor.requires_grad_(True)
    resumed = Trainer(
        StandardUpdater(
            resumed.updater.get_iterator("main"),
            resumed.updater.get_optimizer("main"),
            model=resumed.updater.get_model("main"),
        ),
        (9, "epoch"),
        out=tmp_path,
    )
    with pytest.warns(
        UserWarning, match=r"frozen/main .'predictor.0.weight', .*, now ..: .* hyperparameters and modes stay"
    ):
        resumed.resume(tmp_path / "snapshot_iter_4")
    assert not model[0].weight.requires_grad


def test_the_order_of_the_parameters_in_a_group_is_the_snapshot_s(tmp_path):
    def prepare(out, order):
        torch.manual_seed(0)
        model = Classifier(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))
        optimizer = torch.optim.SGD([*model.parameters()][::order], 0.1, momentum=0.9)
        updater = StandardUpdater(SerialIterator([(torch.rand(2), 1)] * 8, 4), optimizer, model=model)
        run = Trainer(updater, (4, "iteration"), out=out)
        run.extend(extensions.LogReport())
        run.extend(extensions.snapshot(), trigger=(1, "iteration"))
        return run

    whole = prepare(tmp_path / "whole", 1)
    whole.run()
    resumed = prepare(tmp_path / "resumed", -1)
    resumed.resume(tmp_path / "whole" / "snapshot_iter_2")
    resumed.run()
    assert equal(outcome(resumed)[:2], outcome(whole)[:2])


def test_tied_parameters_resume_whichever_of_their_names_comes_first(tmp_path):
    class Tied(nn.Module):
        def __init__(self, names):
            super().__init__()
            shared = nn.Linear(2, 2)
            for name in names:
                setattr(self, name, shared)
            self.head = nn.Linear(2, 3)

        def forward(self, x):
            return self.head(self.a(self.b(x)))

    def prepare(out, names):
        torch.manual_seed(0)
        model = Classifier(Tied(names))
        optimizer = torch.optim.SGD([*model.predictor.a.parameters(), *model.predictor.head.parameters()], 0.1)
        run = Trainer(
            StandardUpdater(SerialIterator(make_data(), 5), optimizer, model=model), (4, "iteration"), out=out
        )
        run.extend(extensions.LogReport(trigger=(1, "iteration")))
        run.extend(extensions.snapshot(), trigger=(1, "iteration"))
        return run

    whole = prepare(tmp_path / "whole", "ab")
    whole.run()
    resumed = prepare(tmp_path / "resumed", "ba")
    resumed.resume(tmp_path / "whole" / "snapshot_iter_2")
    resumed.run()
    assert equal(outcome(resumed)[3], outcome(whole)[3])


def test_a_group_that_the_snapshot_lacks_is_refused(tmp_path):
    make(tmp_path, unfreeze_at=None).run()
    told = (
        r"snapshot_iter_4 does not fit this run: updater: optimizer 'main' has 2 groups of parameters and had 1 in the"
        r" snapshot: add main.predictor.0.weight and so on after the resume"
    )
    with pytest.raises(ValueError, match=told):
        make(tmp_path, unfrozen=True, unfreeze_at=None).resume(tmp_path / "snapshot_iter_4")


def test_a_group_of_other_parameters_is_refused(tmp_path):
    make(tmp_path, unfreeze_at=None).run()
    other = make(tmp_path)
    optimizer = other.updater.get_optimizer("main")
    optimizer.param_groups[0]["params"] = [*other.updater.get_model("main").predictor[0].parameters()]
    told = "parameter group 0 of optimizer 'main' does not match the snapshot .see main.predictor.0"
    with pytest.raises(ValueError, match=told):
        other.resume(tmp_path / "snapshot_iter_4")


def test_a_parameter_of_no_model_in_an_added_group_is_refused_when_it_is_saved(tmp_path):
    run = make(tmp_path, unfreeze_at=None)
    stray = nn.Parameter(torch.zeros(2))
    optimizer = run.updater.get_optimizer("main")
    run.extend(lambda t: t.updater.iteration == 2 and optimizer.add_param_group({"params": [stray]}), name="add")
    told = (
        "a parameter group that was added to optimizer 'main' during training has parameters of no model, so a resume"
    )
    with pytest.raises(ValueError, match=told):
        run.run(show_loop_exception_msg=False)


def test_an_added_group_follows_a_shift_in_proportion(tmp_path):
    run = make(tmp_path, schedule="shift")
    rates = []
    run.extend(lambda t: rates.append([g["lr"] for g in t.updater.get_optimizer("main").param_groups]), name="see")
    run.run()
    assert [len(rate) for rate in rates] == [1, 1, 2, 2, 2, 2]
    assert rates[2] == pytest.approx([0.1 / 8, 0.01 / 2]) and rates[5] == pytest.approx([0.1 / 64, 0.01 / 16])


def test_a_run_of_sparse_adam_is_resumed(tmp_path):
    def make(name, stop):
        torch.manual_seed(0)
        model = torch.nn.EmbeddingBag(5, 2, sparse=True, mode="sum")
        data = [torch.tensor([i % 5, 1]) for i in range(8)]
        optimizer = torch.optim.SparseAdam(list(model.parameters()))
        updater = StandardUpdater(
            SerialIterator(data, 2), optimizer, model=model, loss_func=lambda x: model(x).square().sum()
        )
        run = Trainer(updater, (stop, "iteration"), out=tmp_path / name)
        run.extend(extensions.snapshot(filename="snapshot"), trigger=(4, "iteration"))
        return run

    whole, first, second = make("whole", 8), make("first", 4), make("second", 8)
    whole.run(), first.run()
    second.resume(tmp_path / "first" / "snapshot")
    second.run()
    assert equal(second.updater.state_dict()["model"], whole.updater.state_dict()["model"])
