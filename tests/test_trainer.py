"""The loop: what is called, when, and what happens when something fails."""

import gc
import weakref

import pytest
import torch
from helpers import make_run

import extensions
from trainer import PRIORITY_EDITOR, PRIORITY_WRITER, Extension, make_extension, report
from trainer.triggers import IntervalTrigger


class Recorder(Extension):
    """Writes down what happens to it."""

    def __init__(self, label, events, fails=()):
        self.label, self.events, self.fails = label, events, fails

    def _record(self, event):
        self.events.append(f"{event} {self.label}")
        if event in self.fails:
            raise ValueError(f"{event} of {self.label} failed")

    def restore(self, trainer):
        self._record("restore")

    def initialize(self, trainer):
        self._record("initialize")

    def __call__(self, trainer):
        self._record("call")

    def on_error(self, trainer, exc, tb):
        self._record("on_error")

    def finalize(self):
        self._record("finalize")


def test_a_run_opens_calls_and_closes_its_extensions(run):
    events = []
    run.extend(Recorder("low", events), name="low", trigger=(2, "epoch"))
    run.extend(Recorder("high", events), name="high", trigger=(2, "epoch"), priority=PRIORITY_WRITER)
    run.run()
    assert events == [
        "restore high",
        "restore low",
        "initialize high",
        "initialize low",
        "call high",
        "call low",
        "finalize low",
        "finalize high",
    ]


def test_extensions_of_equal_priority_run_in_the_order_of_registration(run):
    order = []
    for label, priority in [("a", 100), ("b", 0), ("c", 300), ("d", 100), ("e", PRIORITY_EDITOR)]:
        run.extend(lambda t, label=label: order.append(label), name=label, priority=priority, trigger=(2, "epoch"))
    run.run()
    assert "".join(order) == "ceadb"


def test_a_trigger_is_asked_right_before_its_extension_and_sees_what_earlier_ones_reported(run):
    seen = []
    run.extend(lambda t: report({"x": t.updater.iteration}), name="first", priority=200)
    run.extend(lambda t: seen.append(t.updater.iteration), name="second", trigger=lambda t: t.observation["x"] > 2)
    run.run()
    assert seen == [3, 4]


def test_snapshots_come_after_the_stop_trigger_was_asked(tmp_path):
    events = []

    def stop(trainer):
        events.append("stop?")
        return trainer.updater.iteration == 1

    run = make_run(tmp_path, stop)
    last = Recorder("last", events)
    last.phase = 2
    run.extend(last, priority=1000)
    run.extend(lambda t: events.append("call"), name="ordinary", priority=-1000)
    run.run()
    assert events == [
        "restore last",
        "initialize last",
        "stop?",
        "call",
        "stop?",
        "call last",
        "finalize last",
    ]


def test_all_triggers_of_snapshots_are_asked_before_the_first_write(run):
    events = []
    for label in "ab":
        last = Recorder(label, events)
        last.phase = 2
        run.extend(last, name=label, trigger=lambda t, label=label: events.append(f"asked {label}") or True)
    run.run()
    calls = [event for event in events if event[:4] in ("aske", "call")]
    assert calls[:4] == ["asked a", "asked b", "call a", "call b"]


def test_the_observation_is_fresh_in_every_iteration_and_stays_readable(run):
    observations = []
    run.extend(lambda t: observations.append(t.observation), name="keep")
    run.run()
    assert len({id(o) for o in observations}) == 4
    assert all({"main/loss", "main/accuracy"} == set(o) for o in observations)
    assert 0 < float(observations[0]["main/loss"]) and 0 <= float(observations[0]["main/accuracy"]) <= 1


def test_a_second_extension_of_a_name_gets_an_ordinal_and_knows_it(run):
    first, second, third = (Recorder("r", []) for _ in range(3))
    for extension in (first, second, third):
        run.extend(extension)
    assert [e.name for e in (first, second, third)] == ["Recorder", "Recorder_1", "Recorder_2"]
    assert run.get_extension("Recorder_1") is second


def test_functions_are_named_after_themselves_and_lambdas_and_methods_will_do(run):
    @make_extension(default_name="nice", trigger=(1, "epoch"))
    def plain(trainer):
        seen.append(trainer.updater.epoch)

    seen = []
    run.extend(plain)
    run.extend(lambda trainer: None)
    run.extend(seen.append, name="method", trigger=(2, "epoch"))
    run.run()
    assert run.get_extension("nice") is plain
    assert run.get_extension("<lambda>")
    assert seen == [1, 2, run]


def test_a_name_must_be_found_and_may_not_be_training(run):
    class Nameless:
        def __call__(self, trainer):
            pass

    with pytest.raises(TypeError, match=r"has no name; give one: extend\(extension, name='...'\)"):
        run.extend(Nameless())
    with pytest.raises(ValueError, match="an extension cannot be called 'training'"):
        run.extend(lambda t: None, name="training")
    with pytest.raises(ValueError, match="extension absent not found; there are \\[\\]"):
        run.get_extension("absent")


def test_the_extension_s_own_trigger_and_priority_hold_unless_extend_says_otherwise(run):
    calls = []

    @make_extension(trigger=(1, "epoch"), priority=7)
    def own(trainer):
        calls.append(trainer.updater.iteration)

    run.extend(own)
    run.extend(lambda t: calls.append("zero"), name="zero", priority=0, trigger=(2, "epoch"))
    run.run()
    assert calls == [2, 4, "zero"]


def test_an_extension_whose_trigger_is_none_is_never_called(run):
    events = []
    never = Recorder("never", events)
    never.trigger = None
    run.extend(never)
    run.run()
    assert "call never" not in events


def test_one_trigger_for_two_extensions_is_refused(run):
    trigger = IntervalTrigger(1, "epoch")
    run.extend(lambda t: None, name="a", trigger=trigger)
    with pytest.raises(ValueError, match=r"the trigger IntervalTrigger\(1, 'epoch'\) of 'b' is already that of 'a'"):
        run.extend(lambda t: None, name="b", trigger=trigger)
    with pytest.raises(ValueError, match="is already that of 'training'"):
        run.extend(lambda t: None, name="c", trigger=run.stop_trigger)
    for name in "bc":
        with pytest.raises(ValueError, match=f"extension {name} not found"):
            run.get_extension(name)


def test_call_before_training_calls_once_before_the_first_iteration_whatever_the_trigger(run):
    calls = []
    run.extend(
        lambda t: calls.append((t.updater.iteration, t.is_before_training)),
        name="early",
        trigger=(1, "epoch"),
        call_before_training=True,
    )
    run.run()
    assert calls == [(0, True), (2, False), (4, False)]


def test_a_resumed_run_is_not_before_training(tmp_path):
    first = make_run(tmp_path)
    first.run()
    resumed = make_run(tmp_path, (3, "epoch"))
    resumed.load_state_dict(first.state_dict())
    calls = []
    resumed.extend(lambda t: calls.append(t.updater.iteration), name="e", trigger=None, call_before_training=True)
    assert not resumed.is_before_training
    resumed.run()
    assert calls == [5, 6]


def test_out_is_made_at_the_start_and_not_before(tmp_path):
    run = make_run(tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()
    run.run()
    assert (tmp_path / "a" / "b").is_dir()


def test_elapsed_time_needs_a_start_and_stands_still_after_the_end(run):
    with pytest.raises(RuntimeError, match="training has not been started yet"):
        _ = run.elapsed_time
    times = []
    run.extend(lambda t: times.append(t.elapsed_time), name="clock")
    run.run()
    assert 0 < times[0] < times[-1] <= run.elapsed_time == run.elapsed_time


def test_a_finished_run_cannot_run_again(run):
    run.run()
    with pytest.raises(RuntimeError, match="cannot run training loop multiple times"):
        run.run()


@pytest.mark.parametrize(
    ("stop", "iterations"),
    [((3, "iteration"), 3), ((1, "epoch"), 2), ((0.5, "epoch"), 1), ((1.2, "epoch"), 3), (lambda t: True, 0)],
)
def test_training_stops_when_the_stop_trigger_s_period_is_reached(tmp_path, stop, iterations):
    run = make_run(tmp_path, stop)
    run.run()
    assert run.updater.iteration == iterations


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_run_resumed_at_or_past_its_end_does_nothing(tmp_path, epochs):
    first = make_run(tmp_path)
    first.run()
    resumed = make_run(tmp_path, (epochs, "epoch"))
    resumed.load_state_dict(first.state_dict())
    resumed.run()
    assert resumed.updater.iteration == 4


def test_a_stop_trigger_that_has_fired_keeps_answering_yes_after_a_resume(tmp_path):
    first = make_run(tmp_path, lambda t: t.updater.iteration == 3)
    first.run()
    resumed = make_run(tmp_path, lambda t: False)
    resumed.load_state_dict(first.state_dict())
    resumed.run()
    assert resumed.updater.iteration == 3


# -- a loop of one's own


def test_a_hand_written_loop_does_what_run_does(tmp_path):
    def prepare(out):
        torch.manual_seed(0)
        run, events = make_run(out), []
        run.extend(Recorder("r", events), trigger=(1, "epoch"))
        run.extend(extensions.LogReport(trigger=(1, "iteration")))
        return run, events

    run, events = prepare(tmp_path / "run")
    run.run()
    by_hand, events_by_hand = prepare(tmp_path / "hand")
    while not by_hand.finished:
        with by_hand.iteration():
            by_hand.updater.update()
    assert events_by_hand == events
    logs = [r.get_extension("LogReport").log for r in (run, by_hand)]
    assert [[e["main/loss"] for e in log] for log in logs][0] == [e["main/loss"] for e in logs[1]]
    with pytest.raises(RuntimeError, match="training is over; end the loop with: while not trainer.finished"):
        with by_hand.iteration():
            pass


def test_a_hand_written_loop_may_make_its_own_update(run):
    optimizer, model = run.updater.get_optimizer("main"), run.updater.get_model("main")
    while not run.finished:
        with run.iteration():
            x, t = run.updater.next_batch()
            loss = model(x, t)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert run.updater.iteration == 4
    assert "main/loss" in run.observation


def test_a_hand_written_loop_that_ends_early_closes_by_finalize(run):
    events = []
    run.extend(Recorder("r", events), trigger=None)
    with run.iteration():
        run.updater.update()
    assert "finalize r" not in events
    run.finalize()
    run.finalize()
    assert events.count("finalize r") == 1
    assert not run.finished


# -- failures


def test_an_error_reaches_every_handler_and_closes_everything(run, caplog):
    events = []
    run.extend(Recorder("a", events, fails={"on_error", "finalize"}), name="a", priority=2, trigger=None)
    run.extend(Recorder("b", events, fails={"finalize"}), name="b", priority=1)
    run.extend(lambda t: 1 / 0, name="culprit")
    with pytest.raises(ZeroDivisionError) as caught:
        run.run()
    assert events[-4:] == ["on_error a", "on_error b", "finalize b", "finalize a"]
    notes = "\n".join(caught.value.__notes__)
    for text in ("on_error of a failed", "finalize of b failed", "finalize of a failed"):
        assert text in notes
    first, *others = caplog.records
    assert (first.name, first.levelname) == ("kusari", "ERROR")
    assert first.getMessage() == (
        "Exception in main training loop: ZeroDivisionError: division by zero; finalizing the extensions before it is"
        " raised."
    )
    assert "finalize of a failed" in others[-1].getMessage() and others[-1].levelname == "ERROR"


def test_an_error_without_text_is_told_with_its_place(run, caplog):
    def bad(trainer):
        assert trainer is None, ""

    run.extend(bad)
    with pytest.raises(AssertionError):
        run.run()
    line = bad.__code__.co_firstlineno + 1
    assert f"loop: AssertionError at test_trainer.py:{line} in bad; finalizing" in caplog.text


def test_the_message_about_the_error_can_be_left_out(run, caplog):
    run.extend(lambda t: 1 / 0, name="culprit")
    with pytest.raises(ZeroDivisionError):
        run.run(show_loop_exception_msg=False)
    assert caplog.messages == []


def test_a_failing_initialize_closes_what_was_open(run):
    events = []
    run.extend(Recorder("open", events), name="open", priority=2)
    run.extend(Recorder("bad", events, fails={"initialize"}), name="bad", priority=1)
    with pytest.raises(ValueError, match="initialize of bad failed"):
        run.run()
    assert events == ["restore open", "restore bad", "initialize open", "initialize bad", "finalize open"]


def test_the_first_of_several_failing_finalizers_is_raised_with_the_others_on_it(run):
    events = []
    run.extend(Recorder("a", events, fails={"finalize"}), name="a", priority=2)
    run.extend(Recorder("b", events, fails={"finalize"}), name="b", priority=1)
    with pytest.raises(ValueError, match="finalize of b failed") as caught:
        run.run()
    assert "finalize of a failed" in caught.value.__notes__[0]


def test_an_interrupt_finalizes_but_is_no_error(run):
    events = []
    run.extend(Recorder("r", events), name="r", trigger=None)

    def interrupt(trainer):
        raise KeyboardInterrupt

    run.extend(interrupt)
    with pytest.raises(KeyboardInterrupt):
        run.run()
    assert events[-1] == "finalize r" and "on_error r" not in events


def test_a_training_iterator_that_ends_is_told_of_with_what_to_write(tmp_path):
    run = make_run(tmp_path, (5, "epoch"))
    run.updater.get_iterator("main").repeat = False
    message = (
        "iterator 'main' ended after 2 iterations because it does not repeat: give it repeat=True, or stop training"
        r" where it ends, with the stop trigger \(1, 'epoch'\)"
    )
    with pytest.raises(RuntimeError, match=message):
        run.run()


# -- state


def test_extensions_that_came_or_went_are_named(tmp_path):
    first = make_run(tmp_path)
    first.extend(extensions.LogReport())
    first.run()
    resumed = make_run(tmp_path)
    resumed.extend(extensions.PlotReport(["main/loss"]))
    with pytest.warns(UserWarning) as caught:
        resumed.load_state_dict(first.state_dict())
        assert resumed.finished
    assert [str(w.message) for w in caught] == [
        "extensions/PlotReport is not in the snapshot: it starts fresh.",
        "extensions/LogReport of the snapshot: not registered by now. The state is kept for when it is extended.",
    ]


def test_a_part_that_does_not_fit_its_state_is_named(run):
    run.extend(extensions.LogReport())
    state = run.state_dict()
    del state["extensions"]["LogReport"]["extension"]["summary"]
    with pytest.raises(ValueError, match="the state of LogReport lacks 'summary'"):
        run.load_state_dict(state)


def test_another_number_of_threads_or_another_torch_is_warned_of(run):
    state = run.state_dict()
    state["settings"]["environment"] |= {"threads": 77, "torch": "2.0.0"}
    told = r"made with environment/torch 2\.0\.0, now .*; environment/threads 77, now .*: results may differ"
    with pytest.warns(
        UserWarning, match=rf"{told} in the last bits from here on. torch.set_num_threads\(77\) brings the threads back"
    ):
        run.load_state_dict(state)


def test_other_arguments_than_the_run_was_made_with_are_warned_of(tmp_path):
    first, second = make_run(tmp_path), make_run(tmp_path)
    first.args = {"lr": 0.1, "size": (2, 3), "old": 1}
    second.args = {"lr": 0.2, "size": (2, 3)}
    told = "args/lr 0.1, now 0.2; args/old 1, now not given"
    with pytest.warns(UserWarning, match=f"made with {told}: the resumed run will not match an uninterrupted one"):
        second.load_state_dict(first.state_dict())


def test_time_before_a_resume_counts(tmp_path):
    first = make_run(tmp_path)
    first.run()
    state = first.state_dict()
    state["elapsed_time"] = 1000.0
    resumed = make_run(tmp_path, (3, "epoch"))
    resumed.load_state_dict(state)
    resumed.run()
    assert 1000 < resumed.elapsed_time < 1100


def test_a_trainer_and_its_model_go_when_nobody_holds_them(tmp_path):
    gc.collect()
    gc.disable()
    try:
        run = make_run(tmp_path)
        run.run()
        alive = [weakref.ref(run), weakref.ref(run.updater.get_model("main"))]
        del run
        assert [reference() for reference in alive] == [None, None]
    finally:
        gc.enable()
