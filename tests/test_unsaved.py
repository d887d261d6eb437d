"""No state vanishes: what cannot be saved is refused, and what was saved is given back whenever its owner comes."""

import json
import os
import warnings

import pytest
import torch
from helpers import equal, make_data, make_run
from torch import nn

import extensions
from trainer import Classifier, Extension, StandardUpdater, Trainer, report
from trainer.iterators import SerialIterator
from trainer.triggers import OnceTrigger


class Own:
    """An updater of one's own class."""

    saved = ("model", "optimizer", "iterator", "iteration")

    def __init__(self):
        torch.manual_seed(0)
        self.model = nn.Linear(2, 1)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.iterator = SerialIterator([torch.full((2,), float(i)) for i in range(10)], 5, seed=0)
        self.iteration = 0

    epoch = property(lambda self: self.iterator.epoch)
    epoch_detail = property(lambda self: self.iterator.epoch_detail)

    def update(self):
        loss = self.model(torch.stack(next(self.iterator))).pow(2).mean()
        report({"loss": loss})
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.iteration += 1


class Every:
    """A trigger of one's own that counts its questions."""

    def __init__(self, n):
        self.n, self.count = n, 0

    def __call__(self, trainer):
        self.count += 1
        return self.count % self.n == 0


def entries(run):
    return [entry | {"elapsed_time": 0} for entry in run.get_extension("LogReport").log]


# -- refused at the start


def test_an_updater_of_one_s_own_that_names_its_state_resumes_exactly(tmp_path):
    def prepare(out):
        run = Trainer(Own(), (6, "iteration"), out=out)
        run.extend(extensions.LogReport(trigger=(1, "iteration")))
        run.extend(extensions.snapshot(), trigger=(1, "iteration"))
        return run

    whole = prepare(tmp_path / "whole")
    whole.run()
    resumed = prepare(tmp_path / "resumed")
    resumed.resume(tmp_path / "whole" / "snapshot_iter_3")
    resumed.run()
    assert equal(resumed.updater.model.state_dict(), whole.updater.model.state_dict())
    assert entries(resumed) == entries(whole)


@pytest.mark.parametrize("saver", [extensions.snapshot, extensions.StopOnSignal])
def test_an_updater_without_a_state_is_refused_where_the_run_is_saved(tmp_path, saver):
    class Stateless(Own):
        pass

    del Own.saved
    try:
        run = Trainer(Stateless(), (2, "iteration"), out=tmp_path)
        run.extend(saver())
        told = (
            r"updater is test_unsaved.*Stateless, without state_dict and load_state_dict: no snapshot could restore it."
            r" Name in its class .* such as saved = \('model', 'optimizer', 'iterator', 'iteration'\)"
        )
        with pytest.raises(TypeError, match=told):
            run.run()
        assert run.updater.iteration == 0
    finally:
        Own.saved = ("model", "optimizer", "iterator", "iteration")


def test_an_updater_without_a_state_trains_where_nothing_is_saved(tmp_path):
    class Plain:
        iteration = epoch = epoch_detail = 0

        def update(self):
            self.iteration += 1

    run = Trainer(Plain(), (3, "iteration"), out=tmp_path)
    run.run()
    assert run.updater.iteration == 3


def test_a_trigger_with_a_count_of_its_own_is_refused_where_the_run_is_saved(tmp_path):
    run = make_run(tmp_path)
    run.extend(lambda trainer: None, name="x", trigger=Every(2))
    run.extend(extensions.snapshot())
    told = r"extensions/x/trigger is test_unsaved.Every, without .* such as saved = \('n', 'count'\); saved = \("
    with pytest.raises(TypeError, match=told):
        run.run()
    without = make_run(tmp_path)
    without.extend(lambda trainer: None, name="x", trigger=Every(2))
    without.run()


def test_a_trigger_that_names_its_count_resumes_exactly(tmp_path):
    class Counted(Every):
        saved = ("count",)

    def prepare(out, seen):
        run = make_run(out, (7, "iteration"))
        run.extend(lambda trainer: seen.append(trainer.updater.iteration), name="x", trigger=Counted(3))
        run.extend(extensions.snapshot(), trigger=(1, "iteration"))
        return run

    whole, after = [], []
    prepare(tmp_path / "whole", whole).run()
    resumed = prepare(tmp_path / "resumed", after)
    resumed.resume(tmp_path / "whole" / "snapshot_iter_4")
    resumed.run()
    assert whole == [3, 6] and after == [6]


def test_a_stop_trigger_of_one_s_own_is_asked_for_its_state_too(tmp_path):
    run = make_run(tmp_path, Every(4))
    run.extend(extensions.snapshot())
    with pytest.raises(TypeError, match="extensions/training/trigger is test_unsaved.Every, without state_dict"):
        run.run()


def test_what_keeps_chainer_s_serialize_is_refused_with_what_to_write(tmp_path):
    class Ported(Every):
        def serialize(self, serializer):
            self.count = serializer("count", self.count)

    class Updater(StandardUpdater):
        def serialize(self, serializer):
            self.k = serializer("k", 1)

    class Iterator(SerialIterator):
        def serialize(self, serializer):
            self.k = serializer("k", 1)

    model = Classifier(nn.Linear(2, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    told = "has Chainer's serialize, which nothing calls: name in `saved` the attributes to save, or write state_dict"
    runs = [make_run(tmp_path), make_run(tmp_path, Ported(3))]
    runs[0].extend(lambda trainer: None, name="x", trigger=Ported(2))
    for kind, source in ((Updater, SerialIterator), (StandardUpdater, Iterator)):
        runs.append(Trainer(kind(source(make_data(), 5), optimizer, model=model), (1, "epoch"), out=tmp_path))
    for run, path in zip(
        runs, ("extensions/x/trigger", "extensions/training/trigger", "updater", "updater/iterator/main")
    ):
        with pytest.raises(TypeError, match=f"{path}: .* {told}"):
            run.run()


def test_a_subclass_that_replaced_serialize_by_saved_is_taken(tmp_path):
    class Old(Every):
        def serialize(self, serializer):
            self.count = serializer("count", self.count)

    class New(Old):
        saved = ("count",)

    run = make_run(tmp_path)
    run.extend(lambda trainer: None, name="x", trigger=New(2))
    run.extend(extensions.snapshot())
    run.run()


@pytest.mark.parametrize("target", ["model", {"main": nn.Linear(1, 1)}, [1], torch.zeros(2), nn.Linear])
def test_a_target_that_cannot_be_saved_is_refused_when_it_is_named(target):
    if target is nn.Linear:
        with pytest.raises(TypeError, match="target must be a model or another object with state_dict"):
            extensions.snapshot_object(None, "model")
        return
    for make in (lambda: extensions.snapshot(target=target), lambda: extensions.snapshot_object(target, "model")):
        with pytest.raises(TypeError, match=f"target must be a model .* got {type(target).__name__}"):
            make()


def test_the_trainer_as_target_is_the_run(tmp_path):
    run = make_run(tmp_path)
    run.extend(extensions.snapshot(target=run))
    run.run()
    resumed = make_run(tmp_path)
    resumed.extend(extensions.snapshot(target=resumed))
    resumed.resume(tmp_path / "snapshot_iter_4")
    assert resumed.updater.iteration == 4


# -- resumed before it was registered


def registered(run):
    run.extend(extensions.LogReport(trigger=(1, "iteration")))
    run.extend(extensions.ExponentialShift("lr", 0.5))
    run.extend(
        extensions.Evaluator(SerialIterator(make_data(), 4, repeat=False, shuffle=False), run.updater.get_model("main"))
    )
    run.extend(extensions.snapshot(n_retains=2), trigger=(1, "iteration"))
    return run


@pytest.mark.parametrize("order", ["before", "between", "after"])
def test_a_run_may_be_resumed_before_its_extensions_are_registered(tmp_path, order):
    whole = registered(make_run(tmp_path / "whole", (8, "iteration")))
    whole.run()
    first = registered(make_run(tmp_path / "parts", (3, "iteration")))
    first.run()
    resumed = make_run(tmp_path / "parts", (8, "iteration"))
    path = tmp_path / "parts" / "snapshot_iter_3"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if order == "before":
            resumed.resume(path)
        if order == "between":
            extend = resumed.extend
            resumed.extend = lambda *args, **kwargs: (
                extend(*args, **kwargs),
                setattr(resumed, "extend", extend),
                resumed.resume(path),
            )
        registered(resumed)
        if order == "after":
            resumed.resume(path)
        resumed.run()
    assert entries(resumed) == entries(whole)
    assert [entry["iteration"] for entry in json.loads((tmp_path / "parts" / "log").read_text())] == [*range(1, 9)]
    assert sorted(path.name for path in (tmp_path / "parts").glob("snap*")) == ["snapshot_iter_7", "snapshot_iter_8"]
    assert equal(resumed.updater.state_dict(), whole.updater.state_dict())


def test_an_extension_that_comes_after_the_resume_is_checked_as_one_before(tmp_path):
    registered(make_run(tmp_path, (3, "iteration"))).run()
    resumed = make_run(tmp_path, (8, "iteration"))
    resumed.resume(tmp_path / "snapshot_iter_3")
    with pytest.warns(UserWarning, match="extensions/PlotReport is not in the snapshot: it starts fresh"):
        resumed.extend(extensions.PlotReport("main/loss"))
    other = SerialIterator(make_data(7), 4, repeat=False, shuffle=False)
    told = "snapshot_iter_3 does not fit this run: .*extensions/validation"
    with pytest.raises(ValueError, match=told) as caught:
        resumed.extend(extensions.Evaluator(other, resumed.updater.get_model("main")))
    assert str(caught.value).count("snapshot_iter_3") == 1 and caught.value.__cause__ is None


def test_the_state_of_what_the_script_no_longer_has_stays_in_the_snapshots_and_is_named_once(tmp_path):
    registered(make_run(tmp_path, (3, "iteration"))).run()
    second = make_run(tmp_path, (5, "iteration"))
    second.extend(extensions.snapshot(), trigger=(1, "iteration"))
    second.resume(tmp_path / "snapshot_iter_3")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        second.run()
    (warning,) = [str(warning.message) for warning in told]
    names = "extensions/LogReport, extensions/ExponentialShift, extensions/validation"
    assert warning == f"{names} of the snapshot: not registered by now. The state is kept for when it is extended."
    third = make_run(tmp_path, (8, "iteration"))
    third.resume(tmp_path / "snapshot_iter_5")
    shift = extensions.ExponentialShift("lr", 0.5)
    third.extend(shift)
    assert shift.state_dict()["t"] == 3


# -- in mid-run


class Counter(Extension):
    saved = ("count",)

    def __init__(self):
        self.count, self.seen, self.events = 0, [], []

    def __call__(self, trainer):
        self.count += 1
        self.seen.append(trainer.updater.iteration)

    def initialize(self, trainer):
        self.events.append("initialize")

    def finalize(self):
        self.events.append("finalize")


def growing(out, stop, counter, at=2, trigger=(1, "iteration"), priority=None):
    """A run that registers a counter in mid-run, and in a resumed run when its turn comes again."""
    run = make_run(out, stop)

    def grow(trainer):
        if trainer.updater.iteration == at:
            trainer.extend(counter, "counter", trigger, priority)

    run.extend(grow)
    run.extend(extensions.snapshot(), trigger=(1, "iteration"))
    return run


@pytest.mark.parametrize("priority", [300, 0])
def test_an_extension_that_is_registered_in_mid_run_is_called_from_the_next_iteration_on(tmp_path, priority):
    counter = Counter()
    growing(tmp_path, (5, "iteration"), counter, priority=priority).run()
    assert counter.seen == [3, 4, 5] and counter.events == ["initialize", "finalize"]


@pytest.mark.parametrize(
    ("trigger", "seen"), [((3, "iteration"), [3, 6]), ((1, "epoch"), [4, 6]), (OnceTrigger(), [3])]
)
def test_its_trigger_counts_from_then_on(tmp_path, trigger, seen):
    counter = Counter()
    growing(tmp_path, (7, "iteration"), counter, trigger=trigger).run()
    assert counter.seen == seen


def test_its_inner_trigger_too(tmp_path):
    run = make_run(tmp_path, (8, "iteration"))
    log = extensions.LogReport(trigger=(4, "iteration"))
    run.extend(lambda t: t.updater.iteration == 5 and t.extend(log), name="grow")
    run.run()
    assert [entry["iteration"] for entry in log.log] == [8]


def test_a_snapshot_that_is_registered_in_mid_run_is_taken_from_the_next_iteration_on(tmp_path):
    run = make_run(tmp_path, (4, "iteration"))
    run.extend(lambda t: t.updater.iteration == 2 and t.extend(extensions.snapshot(), trigger=(1, "iteration")), "grow")
    run.run()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["snapshot_iter_3", "snapshot_iter_4"]


def test_its_state_is_kept_over_a_resume_until_it_is_registered_again(tmp_path):
    growing(tmp_path, (4, "iteration"), Counter()).run()
    again = Counter()
    resumed = growing(tmp_path, (8, "iteration"), again, at=6)
    resumed.resume(tmp_path / "snapshot_iter_4")
    with pytest.warns(
        UserWarning, match="extensions/counter of the snapshot: not registered by now. The state is kept for"
    ):
        resumed.run()
    assert again.count == 4 and again.seen == [7, 8]  # two before the first stop


def test_one_that_is_registered_again_at_once_goes_on_exactly(tmp_path):
    whole = Counter()
    growing(tmp_path / "whole", (6, "iteration"), whole, trigger=(2, "iteration")).run()
    for stop in (2, 3, 4, 5):
        growing(tmp_path / str(stop), (stop, "iteration"), Counter(), trigger=(2, "iteration")).run()
        after = Counter()
        resumed = growing(tmp_path / str(stop), (6, "iteration"), after, at=None)
        resumed.resume(tmp_path / str(stop) / f"snapshot_iter_{stop}")
        resumed.extend(after, "counter", (2, "iteration"))
        resumed.run()
        assert after.count == whole.count and after.seen == [i for i in whole.seen if i > stop]


@pytest.mark.parametrize("hook", ["restore", "initialize"])
def test_one_that_another_registers_at_the_start_gets_its_state_and_one_initialization(tmp_path, hook):
    def prepare(out, stop, counter):
        class Parent(Extension):
            def __call__(self, trainer): ...

        run, parent = make_run(out, stop), Parent()
        setattr(parent, hook, lambda trainer: trainer.extend(counter, "counter", (1, "iteration")))
        run.extend(parent)
        run.extend(extensions.snapshot(), trigger=(1, "iteration"))
        return run

    prepare(tmp_path, (2, "iteration"), Counter()).run()
    again = Counter()
    resumed = prepare(tmp_path, (4, "iteration"), again)
    resumed.resume(tmp_path / "snapshot_iter_2")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resumed.run()
    assert again.count == 4 and again.events == ["initialize", "finalize"]


def test_one_that_is_refused_in_mid_run_is_not_there(tmp_path):
    run, counter = make_run(tmp_path, (4, "iteration")), Counter()
    counter.count = {1}

    def grow(trainer):
        if trainer.updater.iteration == 2:
            with pytest.raises(TypeError, match="count is set"):
                trainer.extend(counter, "counter")

    run.extend(grow)
    run.extend(extensions.snapshot(), trigger=(1, "iteration"))
    run.run()
    assert "counter" not in run.extensions and counter.events == []


def test_the_settings_of_what_nobody_claimed_are_compared_when_it_is_registered(tmp_path):
    def validation(run, seed):
        iterator = SerialIterator(make_data(), 4, repeat=False, seed=seed)
        run.extend(extensions.Evaluator(iterator, run.updater.get_model("main")))

    first = make_run(tmp_path, (2, "iteration"))
    validation(first, 1)
    first.extend(extensions.snapshot(), trigger=(1, "iteration"))
    first.run()
    second = make_run(tmp_path, (3, "iteration"))
    second.extend(extensions.snapshot(), trigger=(1, "iteration"))
    second.resume(tmp_path / "snapshot_iter_2")
    with pytest.warns(UserWarning, match="extensions/validation of the snapshot: not registered by now"):
        second.run()
    third = make_run(tmp_path, (4, "iteration"))
    third.resume(tmp_path / "snapshot_iter_3")
    with pytest.warns(UserWarning, match="extensions/validation/extension/seeds/main 1, now 2"):
        validation(third, 2)


def test_one_with_a_state_that_cannot_be_saved_is_refused_in_mid_run_too(tmp_path):
    counter = Counter()
    counter.count = {1, 2}
    with pytest.raises(TypeError, match="extensions/counter/extension/count is set: save numbers"):
        growing(tmp_path, (5, "iteration"), counter).run(show_loop_exception_msg=False)


@pytest.mark.parametrize("stop", [(6, "epoch"), lambda trainer: trainer.updater.epoch >= 6])
def test_the_end_may_be_moved_in_mid_run(tmp_path, stop):
    run = make_run(tmp_path, (2, "epoch"))
    run.extend(lambda t: t.updater.iteration == 3 and setattr(t, "stop_trigger", stop), name="longer")
    run.run()
    assert run.updater.epoch == 6


def moving(out, end, start=(4, "iteration"), at=2):
    """A run whose end is moved by an extension in an iteration."""
    run = make_run(out, start)
    run.extend(lambda t: t.updater.iteration == at and setattr(t, "stop_trigger", end), name="move")
    run.extend(extensions.LogReport(trigger=(1, "iteration")))
    run.extend(extensions.snapshot(), trigger=(1, "iteration"))
    return run


@pytest.mark.parametrize("end", [(7, "iteration"), (3, "epoch")])
def test_an_end_that_was_moved_is_that_of_a_resumed_run_too(tmp_path, end):
    whole = moving(tmp_path / "whole", end)
    whole.run()
    for iteration in (1, 2, 3, 5):
        resumed = moving(tmp_path / f"{iteration}", end)
        resumed.resume(tmp_path / "whole" / f"snapshot_iter_{iteration}")
        resumed.run()
        assert entries(resumed) == entries(whole)
    again = moving(tmp_path / "again", end)
    again.resume(tmp_path / "5" / f"snapshot_iter_{whole.updater.iteration}")  # moved in the first of two processes
    assert again.finished


def test_an_end_that_the_script_gives_anew_counts(tmp_path):
    moving(tmp_path, (7, "iteration")).run()
    resumed = moving(tmp_path, None, start=(9, "iteration"), at=0)
    resumed.resume(tmp_path / "snapshot_iter_5")
    resumed.run()
    assert resumed.updater.iteration == 9


def test_an_end_that_no_snapshot_holds_is_named(tmp_path):
    moving(tmp_path, lambda trainer: trainer.updater.iteration >= 7).run()
    resumed = moving(tmp_path, None, at=0)
    with pytest.warns(
        UserWarning, match="the stop trigger was set anew during training, to one that no snapshot holds"
    ):
        resumed.resume(tmp_path / "snapshot_iter_3")


def test_the_end_may_be_moved_between_two_iterations(tmp_path):
    run = make_run(tmp_path, (9, "iteration"))
    while not run.finished:
        with run.iteration():
            run.updater.update()
        if run.updater.iteration == 3:
            run.stop_trigger = (3, "iteration")
    assert run.updater.iteration == 3
    with pytest.raises(RuntimeError, match="training is over: make a new Trainer with the later end"):
        run.stop_trigger = (9, "iteration")


def test_the_end_may_be_moved_to_where_the_run_is(tmp_path):
    run = make_run(tmp_path, (9, "epoch"))
    run.extend(lambda t: t.updater.iteration == 3 and setattr(t, "stop_trigger", (1, "epoch")), name="shorter")
    run.run()
    assert run.updater.iteration == 3


def test_a_change_of_the_working_directory_splits_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    run = registered(make_run("result", (4, "iteration")))
    run.extend(extensions.PlotReport("main/loss", trigger=(1, "iteration")))
    run.extend(lambda t: t.updater.iteration == 2 and os.chdir("elsewhere"), name="chdir")
    run.run()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "result"]
    assert not [*(tmp_path / "elsewhere").iterdir()]
    assert sorted(path.name for path in (tmp_path / "result").iterdir()) == [
        "log",
        "plot.png",
        "snapshot_iter_3",
        "snapshot_iter_4",
    ]
    assert len(json.loads((tmp_path / "result" / "log").read_text())) == 4 and run.out == str(tmp_path / "result")


@pytest.mark.parametrize("part", ["predictor", "predictor.1"])
def test_modules_that_were_put_into_eval_mode_in_mid_run_stay_so(tmp_path, part):
    def prepare(out):
        torch.manual_seed(0)
        layers = [nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3)]
        model = Classifier(nn.Sequential(*layers))
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        run = Trainer(
            StandardUpdater(SerialIterator(make_data(), 5), optimizer, model=model), (6, "iteration"), out=out
        )
        run.extend(lambda t: t.updater.iteration == 2 and model.get_submodule(part).eval(), name="freeze")
        run.extend(extensions.LogReport(trigger=(1, "iteration")))
        run.extend(extensions.snapshot(), trigger=(1, "iteration"))
        return run

    whole = prepare(tmp_path / "whole")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole.run()
    for iteration in (1, 2, 4):
        resumed = prepare(tmp_path / f"{iteration}")
        resumed.resume(tmp_path / "whole" / f"snapshot_iter_{iteration}")
        resumed.run()
        assert equal(resumed.updater.state_dict(), whole.updater.state_dict()) and entries(resumed) == entries(whole)


def test_a_script_with_other_modes_is_told_that_the_snapshot_s_stay(tmp_path):
    def prepare():
        model = Classifier(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)))
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        return model, optimizer

    for is_frozen in (True, False):
        model, optimizer = prepare()
        model.predictor[1].train(not is_frozen)
        run = Trainer(
            StandardUpdater(SerialIterator(make_data(), 5), optimizer, model=model), (1, "epoch"), out=tmp_path
        )
        run.extend(extensions.snapshot())
        if is_frozen:
            run.run()
    with pytest.warns(
        UserWarning, match="updater/in_eval_mode/main ..predictor.1.., now ..: .* modes stay the snapshot's"
    ):
        run.resume(tmp_path / "snapshot_iter_2")
    assert not model.predictor[1].training


def test_a_loss_function_with_a_state_is_saved_with_the_run(tmp_path):
    class Centred(nn.Module):
        """Cross entropy of scores that are centred by their running mean."""

        def __init__(self, predictor):
            super().__init__()
            self.register_buffer("mean", torch.zeros(3))
            self.predictor = [predictor]

        def forward(self, x, t):
            y = self.predictor[0](x)
            self.mean = 0.5 * self.mean + 0.5 * y.detach().mean(0)
            loss = nn.functional.cross_entropy(y - self.mean, t)
            report({"loss": loss})
            return loss

    def prepare(out):
        torch.manual_seed(0)
        model = nn.Linear(2, 3)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        updater = StandardUpdater(SerialIterator(make_data(), 5), optimizer, model=model, loss_func=Centred(model))
        run = Trainer(updater, (6, "iteration"), out=out)
        run.extend(extensions.LogReport(trigger=(1, "iteration")))
        run.extend(extensions.snapshot(), trigger=(1, "iteration"))
        return run

    whole = prepare(tmp_path / "whole")
    whole.run()
    resumed = prepare(tmp_path / "resumed")
    resumed.resume(tmp_path / "whole" / "snapshot_iter_3")
    resumed.run()
    assert equal(resumed.updater.state_dict(), whole.updater.state_dict()) and entries(resumed) == entries(whole)


def averaged(out, is_saved):
    """A run that evaluates an average of its weights, which an extension keeps."""

    class Average(Extension):
        saved = ("model",) if is_saved else ()

        def __init__(self, model):
            self.model = torch.optim.swa_utils.AveragedModel(model)

        def __call__(self, trainer):
            self.model.update_parameters(trainer.updater.get_model("main"))

    run = make_run(out, (6, "iteration"))
    average = Average(run.updater.get_model("main"))
    run.extend(average, priority=400)
    iterator = SerialIterator(make_data(), 4, repeat=False, shuffle=False)
    run.extend(extensions.Evaluator(iterator, average.model.module), trigger=(1, "iteration"))
    run.extend(extensions.LogReport(trigger=(1, "iteration")))
    run.extend(extensions.snapshot(), trigger=(1, "iteration"))
    return run


def test_an_average_that_its_extension_saves_is_evaluated_alike_after_a_resume(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = averaged(tmp_path / "whole", True)
        whole.run()
        resumed = averaged(tmp_path / "resumed", True)
        resumed.resume(tmp_path / "whole" / "snapshot_iter_3")
        resumed.run()
    assert entries(resumed) == entries(whole)


def test_an_average_that_has_a_file_of_its_own_is_not_warned_of(tmp_path):
    run = averaged(tmp_path, False)
    target = run.get_extension("Average").model
    run.extend(extensions.snapshot_object(target, "average", autoload=True))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run.run()


def test_an_average_that_nobody_saves_is_warned_of(tmp_path):
    told = "validation: parameters of the target 'main' are in no model of the updater, so no snapshot of the run holds"
    with pytest.warns(UserWarning, match=told):
        averaged(tmp_path, False).run()


# -- without an iterator, and with a loop of one's own


class Drawn(StandardUpdater):
    def update_core(self):
        model, optimizer = self.get_model("main"), self.get_optimizer("main")
        loss = model(torch.randn(4, 2)).pow(2).mean()
        report({"loss": loss}, model)
        optimizer.zero_grad()
        self.backward(loss)
        self.step()


def drawn(out, kind=Drawn, trigger=(1, "iteration"), stop=(6, "iteration")):
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    run = Trainer(kind(None, torch.optim.SGD(model.parameters(), 0.1), model=model), stop, out=out)
    run.extend(extensions.LogReport(trigger=trigger))
    run.extend(extensions.snapshot(), trigger=(1, "iteration"))
    return run


def test_an_updater_without_an_iterator_trains_and_resumes_exactly(tmp_path):
    whole = drawn(tmp_path / "whole")
    whole.run()
    resumed = drawn(tmp_path / "resumed")
    resumed.resume(tmp_path / "whole" / "snapshot_iter_3")
    resumed.run()
    assert equal(resumed.updater.state_dict(), whole.updater.state_dict()) and entries(resumed) == entries(whole)


@pytest.mark.parametrize("arguments", [{"trigger": (1, "epoch")}, {"stop": (1, "epoch")}])
def test_without_an_iterator_an_epoch_is_refused_at_the_start(tmp_path, arguments):
    run = drawn(tmp_path, **arguments)
    with pytest.raises(
        ValueError, match="Drawn has no iterator, so there are no epochs: count iterations, for instance"
    ):
        run.run()
    assert run.updater.iteration == 0


def test_an_updater_without_an_iterator_may_say_what_an_epoch_is(tmp_path):
    class Counted(Drawn):
        epoch = property(lambda self: self.iteration // 3)
        epoch_detail = property(lambda self: self.iteration / 3)

    run = drawn(tmp_path, Counted, (1, "epoch"), (2, "epoch"))
    run.run()
    assert [entry["iteration"] for entry in run.get_extension("LogReport").log] == [3, 6]


def test_an_update_of_ours_needs_an_iterator():
    model = Classifier(nn.Linear(2, 3))
    with pytest.raises(TypeError, match="iterator is None: give one, or write an update_core of your own"):
        StandardUpdater(None, torch.optim.SGD(model.parameters(), lr=0.1), model=model)


def by_hand(run, iterations):
    """A loop of one's own that takes no batch from the updater."""
    while not run.finished and run.updater.iteration < iterations:
        with run.iteration():
            pass
    run.finalize()


def test_a_loop_whose_epochs_do_not_pass_is_told_so_after_an_epoch_s_worth_of_iterations(tmp_path):
    def told(iterations, **kwargs):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            by_hand(make_run(tmp_path, **kwargs), iterations)
        return [str(warning.message) for warning in caught]

    assert told(3, n=20) == []
    (message,) = told(9, n=20)
    assert message.startswith(
        "4 iterations, and no batch was taken from the updater: its epochs do not pass, and a trig"
    )
    assert told(9, n=20, stop=(9, "iteration")) == []


def test_a_loop_that_takes_its_batches_from_the_updater_is_told_nothing(tmp_path):
    run = make_run(tmp_path, (3, "epoch"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        while not run.finished:
            with run.iteration():
                run.updater.next_batch()
    assert run.updater.epoch == 3


def test_an_update_outside_of_an_iteration_is_refused(tmp_path):
    run = make_run(tmp_path, (2, "iteration"))
    with pytest.raises(RuntimeError, match="an update was made outside of an iteration, so no extension was called"):
        while not run.finished:
            run.updater.update()
    run.finalize()


def test_a_loop_that_goes_on_after_the_end_is_told_how_to_leave_its_inner_loop(tmp_path):
    run = make_run(tmp_path, (2, "iteration"))
    with pytest.raises(
        RuntimeError, match="training is over; .* Leave a loop within it by: if trainer.finished: break"
    ):
        while not run.finished:
            for _ in range(3):
                with run.iteration():
                    run.updater.next_batch()


# -- snapshots before training and in folders


def test_a_snapshot_may_be_taken_before_training(tmp_path):
    run = make_run(tmp_path, (1, "iteration"))
    run.extend(extensions.snapshot(), trigger=(1, "iteration"), call_before_training=True)
    run.run()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["snapshot_iter_0", "snapshot_iter_1"]


def test_a_filename_may_have_an_attribute_that_the_first_update_sets(tmp_path):
    class Staged(StandardUpdater):
        def update_core(self):
            self.stage = 1
            super().update_core()

    model = Classifier(nn.Linear(2, 3))
    own = Staged(SerialIterator(make_data(), 5), torch.optim.SGD(model.parameters(), lr=0.1), model=model)
    run = Trainer(own, (1, "epoch"), out=tmp_path)
    run.extend(extensions.snapshot(filename="stage_{.updater.stage}"))
    run.run()
    assert [path.name for path in tmp_path.iterdir()] == ["stage_1"]


def test_what_another_run_is_writing_below_the_folder_stays(tmp_path):
    (tmp_path / "other").mkdir()
    scrap = tmp_path / "other" / ".snapshot_iter_1.123.tmp"
    scrap.touch()
    make_run(tmp_path, (1, "iteration")).run()
    assert scrap.exists()


def test_what_a_killed_run_has_left_in_the_snapshots_folders_goes(tmp_path):
    in_folders(tmp_path, 1).run()
    scrap = tmp_path / "epoch_1" / ".snapshot.123.tmp"
    scrap.touch()
    in_folders(tmp_path, 2).run()
    assert not scrap.exists()


def in_folders(out, stop, autoload=True):
    run = make_run(out, (stop, "epoch"))
    run.extend(extensions.LogReport())
    filename = "epoch_{.updater.epoch}/snapshot"
    run.extend(extensions.snapshot(filename=filename, autoload=autoload, n_retains=2))
    model = run.updater.get_model("main").predictor
    run.extend(extensions.snapshot_object(model, "models/{.updater.epoch}/weights", n_retains=1))
    return run


def test_autoload_finds_snapshots_in_folders_that_the_filename_names(tmp_path):
    whole = in_folders(tmp_path / "whole", 4)
    whole.run()
    for stop in (1, 2, 4):
        run = in_folders(tmp_path / "parts", stop)
        run.run()
        assert stop == 1 or run.resumed_from is not None
    assert entries(run) == entries(whole)
    assert equal(run.updater.state_dict(), whole.updater.state_dict())
    names = ["epoch_3/snapshot", "epoch_4/snapshot", "log", "models/4/weights"]
    assert (
        sorted(str(p.relative_to(tmp_path / "parts")) for p in (tmp_path / "parts").rglob("*") if p.is_file()) == names
    )
    assert not (tmp_path / "parts" / "epoch_1").exists()


def test_the_log_of_a_run_in_another_folder_is_found_from_a_snapshot_in_a_folder(tmp_path):
    in_folders(tmp_path / "first", 2).run()
    resumed = in_folders(tmp_path / "second", 3, autoload=False)
    resumed.resume(tmp_path / "first" / "epoch_2" / "snapshot")
    resumed.run()
    assert [entry["epoch"] for entry in entries(resumed)] == [1, 2, 3]


def test_after_going_back_autoload_goes_on_from_what_was_written_since(tmp_path):
    run = make_run(tmp_path, (3, "epoch"))
    run.extend(extensions.snapshot(filename="epoch_{.updater.epoch}/snapshot"))
    run.run()
    back = make_run(tmp_path, (3, "iteration"))
    back.extend(extensions.snapshot(filename="epoch_{.updater.epoch}/snapshot"), trigger=(1, "iteration"))
    back.resume(tmp_path / "epoch_1" / "snapshot")
    back.run()
    last = make_run(tmp_path, (3, "iteration"))
    last.extend(extensions.snapshot(filename="epoch_{.updater.epoch}/snapshot", autoload=True))
    assert last.finished and last.updater.iteration == 3
