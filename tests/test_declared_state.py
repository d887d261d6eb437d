"""A part names what is saved of it; reading, checking and loading are done in one place."""

import collections
import warnings

import numpy as np
import pytest
import torch
from helpers import make_data, make_run

import extensions
from trainer import Extension, StandardUpdater, Trainer
from trainer.iterators import SerialIterator
from trainer.saving import Stateful
from trainer.triggers import ManualScheduleTrigger, OnceTrigger


class Plugin(Extension):
    """Keeps a value under ``value``, and counts its calls."""

    saved = ("value", "_calls")

    def __init__(self, value=None):
        self.value = value
        self._calls = 0

    def __call__(self, trainer):
        self._calls += 1


def resumed(out, before, after, **kwargs):
    """Runs with one plug-in, and loads the state into a run with another; returns the second run."""
    first, second = make_run(out), make_run(out)
    first.extend(before, name="x", **kwargs)
    first.run()
    second.extend(after, name="x", **kwargs)
    second.load_state_dict(first.state_dict())
    return second


def test_names_add_up_along_the_classes_and_lose_their_underscores():
    class More(Plugin):
        saved = ("more",)
        more = 1

    assert More(2).state_dict() == {"value": 2, "calls": 0, "more": 1}


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        (("valeu",), AttributeError, "Wrong names 'valeu' in 'saved' and has no such attribute: set it in __init__"),
        ("valeu", AttributeError, "Wrong names 'valeu' in 'saved'"),
        ({"value": 1}, TypeError, r"Wrong\.saved must be names of attributes, got {'value': 1}; e\.g\. \('best',\)"),
        (("calls",), ValueError, "Wrong saves 'calls' and '_calls': rename one of them"),
    ],
)
def test_a_wrong_declaration_is_refused_when_the_trainer_is_extended(tmp_path, names, error, message):
    class Wrong(Plugin):
        saved = names
        calls = 0

    with pytest.raises(error, match=message):
        make_run(tmp_path).extend(Wrong())


def test_a_single_name_may_stand_by_itself():
    class One(Stateful):
        saved = "best"
        best = 3

    assert One().state_dict() == {"best": 3}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({1}, "extensions/x/extension/value is set: save numbers, strings, tensors, lists and dicts"),
        (np.ones(2), "extensions/x/extension/value is numpy.ndarray: save numbers"),
        ([{"a": object()}], "extensions/x/extension/value/0/a is object: save numbers"),
        (
            [torch.nn.Linear(1, 1)],
            "extensions/x/extension/value/0 is .*Linear, which has a state of its own: make it an",
        ),
        ({"net": torch.nn.Linear(1, 1), "n": 1}, "extensions/x/extension/value/net is .*Linear, which has a state"),
        (len, "extensions/x/extension/value is builtin.* without state_dict: give it one, or do not save it"),
    ],
)
def test_what_no_snapshot_can_hold_is_refused_when_the_run_starts(tmp_path, value, message):
    run = make_run(tmp_path)
    run.extend(Plugin(value), name="x")
    with pytest.raises(TypeError, match=message):
        run.run()
    assert run.updater.iteration == 0


def test_and_when_it_is_saved_for_it_may_have_come_later(tmp_path):
    run, plugin = make_run(tmp_path), Plugin()
    run.extend(plugin, name="x")
    run.extend(lambda trainer: setattr(plugin, "value", {1}), name="spoil")
    run.extend(extensions.snapshot(), trigger=(2, "iteration"))
    with pytest.raises(TypeError, match="extensions/x/extension/value is set: save numbers"):
        run.run(show_loop_exception_msg=False)


def test_a_state_dict_of_ones_own_overrides_the_names(tmp_path):
    class Own(Plugin):
        def state_dict(self):
            return {"values": sorted(self.value)}

        def load_state_dict(self, state):
            self.value = set(state["values"])

    assert resumed(tmp_path, Own({1, 2}), Own({3})).get_extension("x").value == {1, 2}


def test_a_state_that_a_subclass_extends_is_loaded_without_a_word(tmp_path):
    class More(Plugin):
        def state_dict(self):
            return super().state_dict() | {"more": 1}

        def load_state_dict(self, state):
            super().load_state_dict(state)
            self.more = state["more"]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert resumed(tmp_path, More(2), More(3)).get_extension("x").more == 1


def test_numpy_s_scalars_become_python_s(tmp_path):
    value = resumed(tmp_path, Plugin([np.float64(0.5), {"n": np.int64(3)}]), Plugin()).get_extension("x").value
    assert value == [0.5, {"n": 3}] and type(value[0]) is float and type(value[1]["n"]) is int


def test_tensors_are_loaded_in_place_where_shape_and_dtype_fit(tmp_path):
    mean, weights = torch.zeros(2), {"a": torch.zeros(2), "b": torch.zeros(3)}
    kept = [mean, weights["a"]]
    plugin = resumed(
        tmp_path, Plugin([torch.ones(2), {"a": torch.ones(2), "b": torch.ones(2)}]), Plugin([mean, weights])
    )
    mean_now, weights_now = plugin.get_extension("x").value
    assert mean_now is kept[0] and weights_now["a"] is kept[1]
    assert all((tensor == 1).all() for tensor in (mean, weights_now["a"], weights_now["b"]))


def test_what_is_loaded_is_not_shared_with_the_run_that_it_comes_from(tmp_path):
    first = Plugin([torch.zeros(2), [1]])
    second = resumed(tmp_path, first, Plugin()).get_extension("x")
    second.value[0] += 1
    second.value[1].append(2)
    assert first.value[1] == [1] and not first.value[0].any()


def test_a_counter_stays_one(tmp_path):
    value = (
        resumed(tmp_path, Plugin(collections.Counter("aab")), Plugin(collections.Counter())).get_extension("x").value
    )
    value["new"] += 1
    assert value == {"a": 2, "b": 1, "new": 1}


def test_parts_in_a_dict_are_saved_through_themselves(tmp_path):
    nets = {"a": torch.nn.Linear(1, 1), "b": torch.nn.Linear(1, 1)}
    other = {"a": torch.nn.Linear(1, 1), "b": torch.nn.Linear(1, 1)}
    assert resumed(tmp_path, Plugin(nets), Plugin(other)).get_extension("x").value is other
    assert all(torch.equal(nets[name].weight, other[name].weight) for name in nets)


def test_a_part_that_is_not_there_yet_at_a_resume_is_told_of(tmp_path):
    message = "extensions/x/extension/value was Linear and is NoneType now: it is not restored; make it in __init__"
    with pytest.warns(UserWarning, match=message):
        assert resumed(tmp_path, Plugin(torch.nn.Linear(1, 1)), Plugin()).get_extension("x").value is None


def test_a_part_of_another_class_starts_fresh(tmp_path):
    old, new = Plugin(OnceTrigger()), Plugin(ManualScheduleTrigger(3, "iteration"))
    told = "extensions/x/extension/value was OnceTrigger and is ManualScheduleTrigger now: it starts fresh"
    with pytest.warns(UserWarning, match=told):
        resumed(tmp_path, old, new)


def test_a_trigger_in_place_of_none_counts_from_the_resume(tmp_path):
    fired = []
    first, second = make_run(tmp_path), make_run(tmp_path, (12, "iteration"))
    first.extend(lambda trainer: None, name="x")
    first.run()  # four iterations, in each of which it is called
    second.extend(lambda trainer: fired.append(trainer.updater.iteration), name="x", trigger=(3, "iteration"))
    second.load_state_dict(first.state_dict())
    second.run()
    assert fired == [6, 9, 12]


def test_a_name_that_the_snapshot_lacks_is_an_error_and_one_too_many_is_told_of(tmp_path):
    class Fewer(Extension):
        saved = ("value",)
        value = 0

        def __call__(self, trainer):
            pass

    with pytest.raises(
        ValueError, match="the state of extensions/x/extension lacks 'calls': it was saved by something"
    ):
        resumed(tmp_path, Fewer(), Plugin())
    with pytest.warns(UserWarning, match="the snapshot's 'calls' of extensions/x/extension has no place in the script"):
        resumed(tmp_path, Plugin(), Fewer())


def test_a_function_may_have_a_state_too(tmp_path):
    def make():
        counts = [0]

        def count(trainer):
            counts[0] += 1

        count.state_dict = lambda: {"count": counts[0]}
        count.load_state_dict = lambda state: counts.__setitem__(0, state["count"])
        count.counts = counts
        return count

    assert resumed(tmp_path, make(), make()).get_extension("x").counts == [4]


def test_a_trigger_of_ones_own_needs_names_only(tmp_path):
    class Every:
        saved = ("asked",)
        asked = 0

        def __call__(self, trainer):
            self.asked += 1
            return self.asked % 3 == 0

    trigger = Every()
    first, second = make_run(tmp_path), make_run(tmp_path)
    first.extend(lambda trainer: None, name="x", trigger=Every())
    first.run()
    second.extend(lambda trainer: None, name="x", trigger=trigger)
    second.load_state_dict(first.state_dict())
    assert trigger.asked == 4


def test_other_attributes_that_are_called_settings_or_saved_are_let_alone(tmp_path):
    class Net(torch.nn.Linear):
        settings = {"depth": 3}
        saved = False

    run = make_run(tmp_path)
    run.updater.get_model("main").predictor = Net(2, 3)

    class Mine(Plugin):
        settings = property(lambda self: {})

    run.extend(Mine(), name="x")
    assert "extensions" not in run.settings_tree()
    run.load_state_dict(run.state_dict())


def test_a_resume_that_fails_leaves_the_run_as_it_was(tmp_path):
    run, other = make_run(tmp_path), make_run(tmp_path, n=15)
    run.run()
    run_id, elapsed = other.run_id, other._elapsed
    with pytest.raises(ValueError, match="was made with 10 samples"):
        other.load_state_dict(run.state_dict())
    assert (other.run_id, other._elapsed, other._random) == (run_id, elapsed, None)


def test_an_updater_that_is_no_class_of_ours_names_its_state(tmp_path):
    from trainer import Trainer

    class Plain:
        saved = ("iteration",)
        iteration = epoch = epoch_detail = 0

        def update(self):
            self.iteration += 1

    run = Trainer(Plain(), (3, "iteration"), out=tmp_path)
    run.extend(extensions.snapshot(), trigger=(1, "iteration"))
    run.run()
    resumed = Trainer(Plain(), (3, "iteration"), out=tmp_path)
    resumed.extend(extensions.snapshot(), trigger=(1, "iteration"))
    resumed.resume(tmp_path / "snapshot_iter_2")
    assert resumed.run_id[:12] == run.run_id[:12] and resumed.updater.iteration == 2


def test_a_phase_that_is_none_is_refused(tmp_path):
    for phase in ("train", 5):
        plugin = Plugin()
        plugin.phase = phase
        with pytest.raises(ValueError, match=f"Plugin.phase must be one of .*, got {phase!r}: rename yours"):
            make_run(tmp_path).extend(plugin)


def test_a_stop_trigger_that_is_set_while_the_run_goes_on_counts(tmp_path):
    run = make_run(tmp_path, (20, "iteration"))
    run.extend(lambda trainer: setattr(trainer, "stop_trigger", lambda t: t.updater.iteration >= 3), name="shorten")
    run.run()
    assert run.updater.iteration == 3


def test_the_log_stays_when_a_run_goes_back_in_the_same_process(tmp_path):
    run = make_run(tmp_path, (6, "iteration"))
    log = extensions.LogReport(trigger=(1, "iteration"))
    run.extend(log)
    states = {}
    run.extend(
        lambda trainer: states.setdefault(trainer.updater.iteration, trainer.state_dict()), name="keep", priority=1
    )
    for _ in range(5):
        with run.iteration():
            run.updater.update()
    run.load_state_dict(states[3])
    assert [entry["iteration"] for entry in log.log] == [1, 2, 3, 4, 5]
    run.finalize()


def test_a_subclass_that_changes_the_batch_is_counted_by_what_it_yields(tmp_path):
    class Doubled(SerialIterator):
        def __next__(self):
            return super().__next__() * 2

    run = make_run(tmp_path)
    run.updater._iterator["main"] = Doubled(run.updater.get_iterator("main").dataset, 5)
    run.updater.update()
    assert run.updater.batch_size == 10


def test_names_may_be_given_by_an_object_or_a_function(tmp_path):
    class Mine(Plugin):
        def __init__(self):
            super().__init__()
            self.saved = ("mine",)
            self.mine = 0

    def count(trainer):
        count.calls += 1

    count.calls = 0
    count.saved = ("calls",)
    run = make_run(tmp_path)
    run.extend(count)
    run.run()
    assert run.state_dict()["extensions"]["count"]["extension"] == {"calls": 4}
    assert Mine().state_dict() == {"value": None, "calls": 0, "mine": 0}


def test_a_state_that_nothing_loads_is_told_of(tmp_path):
    class Half(Extension):
        def state_dict(self):
            return {"k": 1}

        def __call__(self, trainer):
            pass

    with pytest.warns(UserWarning, match="the snapshot's 'k' of extensions/x/extension has no place in the script"):
        resumed(tmp_path, Half(), Half())


def test_a_property_without_a_setter_cannot_be_saved(tmp_path):
    class Fixed(Plugin):
        saved = ("fixed",)
        fixed = property(lambda self: 1)

    run = make_run(tmp_path)
    run.extend(Fixed())
    with pytest.raises(TypeError, match="extensions/Fixed/extension/fixed is a property without a setter: a resume"):
        run.run()


def test_a_dict_that_is_filled_with_parts_later_is_told_of(tmp_path):
    with pytest.warns(UserWarning, match="extensions/x/extension/value was dict and is dict now: it is not restored"):
        resumed(tmp_path, Plugin({"a": torch.nn.Linear(1, 1)}), Plugin({}))


def test_a_shared_trigger_that_names_its_state_is_refused(tmp_path):
    class Every:
        saved = ("asked",)
        asked = 0

        def __call__(self, trainer):
            return True

    run, trigger = make_run(tmp_path), Every()
    run.extend(Plugin(), name="a", trigger=trigger)
    with pytest.raises(ValueError, match="of 'b' is already that of 'a': it would fire for the first one only"):
        run.extend(Plugin(), name="b", trigger=trigger)


def test_a_warning_names_the_line_of_the_script(tmp_path):
    first, second = make_run(tmp_path), make_run(tmp_path)
    first.run()
    second.extend(Plugin())
    with pytest.warns(UserWarning, match="is not in the snapshot: it starts fresh") as told:
        second.load_state_dict(first.state_dict())
    assert [warning.filename for warning in told] == [__file__]


def test_an_iterator_of_ones_own_is_told_what_it_lacks():
    from trainer.iterators import as_iterator

    class Mine:
        epoch = epoch_detail = 0
        is_new_epoch = False

        def __next__(self):
            return [1]

    with pytest.raises(
        TypeError, match="got Mine: it lacks state_dict, load_state_dict, finalize; e.g. SerialIterator"
    ):
        as_iterator(Mine())


def test_a_loaded_tensor_never_goes_into_the_memory_of_a_model_or_of_another_value(tmp_path):
    def prepare():
        run = make_run(tmp_path)
        plugin = Plugin(dict(run.updater.get_model("main").state_dict()))  # the live weights
        run.extend(plugin, name="x")
        return run, plugin

    first, plugin = prepare()
    plugin.value = {name: torch.full_like(weight, 7.0) for name, weight in plugin.value.items()}
    first.run()
    second, resumed_plugin = prepare()
    second.load_state_dict(first.state_dict())
    for name, weight in second.updater.get_model("main").state_dict().items():
        assert torch.equal(weight, first.updater.get_model("main").state_dict()[name])
        assert (resumed_plugin.value[name] == 7).all()

    shared = torch.zeros(2)
    pair = resumed(tmp_path, Plugin([torch.ones(2), torch.full((2,), 4.0)]), Plugin([shared, shared])).get_extension(
        "x"
    )
    assert [tensor[0].item() for tensor in pair.value] == [1, 4]


def test_a_stop_trigger_that_names_its_state_is_not_asked_twice_of_an_iteration(tmp_path):
    class Sixth:
        saved = ("asked",)
        asked = 0

        def __call__(self, trainer):
            self.asked += 1
            return self.asked >= 6

    def prepare():
        run = make_run(tmp_path, Sixth())
        run.extend(extensions.snapshot(), trigger=(1, "iteration"))
        return run

    whole = prepare()
    whole.run()
    second = prepare()
    second.resume(tmp_path / "snapshot_iter_3")
    second.run()
    assert second.updater.iteration == whole.updater.iteration == 5


def test_a_plain_value_in_place_of_parts_is_told_of(tmp_path):
    told = "extensions/x/extension/value was a plain value and is dict now: it starts fresh"
    with pytest.warns(UserWarning, match=told):
        resumed(tmp_path, Plugin([1]), Plugin({"a": torch.nn.Linear(1, 1)}))
    resumed(tmp_path, Plugin(), Plugin({"a": torch.nn.Linear(1, 1)}))


@pytest.mark.filterwarnings("ignore:extensions/training/trigger was OnceTrigger:UserWarning")
def test_another_stop_trigger_decides_anew(tmp_path):
    first = make_run(tmp_path, OnceTrigger())
    first.run()
    state = first.state_dict()
    assert state["stop_fired"]
    second = make_run(tmp_path, lambda trainer: trainer.updater.iteration >= 3)
    second.load_state_dict(state)
    second.run()
    assert second.updater.iteration == 3


def test_a_plugin_s_value_may_become_any_other_unless_its_class_gives_an_example(tmp_path):
    class Shows(Plugin):
        examples = {"value": {"a": 0}}  # noqa: RUF012

    cases = [(Plugin, False, "done"), (Plugin, 0, "model_3"), (Plugin, [], {"a": 1}), (Plugin, "", 7)]
    for kind, first, later in (*cases, (Shows, 0, {"a": 1})):
        before = kind(first)
        before.value = later
        run = resumed(tmp_path, before, kind(first))
        assert run.get_extension("x").value == later
    with pytest.raises(ValueError, match=r"extensions/x/extension/value.* holds a value of type str, not int: it"):
        resumed(tmp_path, Shows({"a": "text"}), Shows(0))


def test_a_model_s_extra_state_is_its_own_affair(tmp_path):
    class Model(torch.nn.Linear):
        extra = 0

        def get_extra_state(self):
            return self.extra

        def set_extra_state(self, state):
            self.extra = state

    first, second = make_run(tmp_path), make_run(tmp_path)
    models = [run.updater.get_model("main") for run in (first, second)]
    for model in models:
        model.predictor = Model(2, 3)
    models[0].predictor.extra = {"words": ["a"]}
    second.load_state_dict(first.state_dict())
    assert models[1].predictor.extra == {"words": ["a"]}


def test_an_optimizer_s_option_that_was_none_may_be_set_for_a_resume(tmp_path):
    def run_with(search):
        run = make_run(tmp_path)
        model = run.updater.get_model("main")
        optimizer = torch.optim.LBFGS(model.parameters(), line_search_fn=search)
        updater = StandardUpdater(SerialIterator(make_data(), 5), optimizer, model=model)
        return Trainer(updater, (2, "epoch"), out=tmp_path)

    first = run_with(None)
    first.run()
    with pytest.warns(UserWarning, match="line_search_fn None, now strong_wolfe"):
        run_with("strong_wolfe").load_state_dict(first.state_dict())
