"""Snapshots: what is saved, kept, found again."""

import json
import os
import shutil
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
import torch
from helpers import equal, make_run

import extensions
from trainer import saving
from trainer.saving import SnapshotError


def files(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def test_a_snapshot_holds_the_whole_run_and_is_named_by_format(tmp_path):
    run = make_run(tmp_path)
    run.extend(extensions.snapshot())
    run.extend(extensions.snapshot(filename="snapshot_epoch-{.updater.epoch}"))
    run.extend(extensions.snapshot(filename=lambda t: f"own-{t.updater.iteration}"), trigger=(3, "iteration"))
    run.run()
    assert files(tmp_path) == [
        "own-3",
        "snapshot_epoch-1",
        "snapshot_epoch-2",
        "snapshot_iter_2",
        "snapshot_iter_4",
    ]
    state = saving.load(tmp_path / "snapshot_iter_4")
    assert equal(state["updater"], run.updater.state_dict())


def test_snapshot_object_writes_a_plain_state_dict(tmp_path):
    run = make_run(tmp_path)
    predictor = run.updater.get_model("main").predictor
    run.extend(extensions.snapshot_object(predictor, "model_epoch-{.updater.epoch}"))
    run.run()
    code = (
        "import sys, torch; w = torch.load(sys.argv[1], weights_only=True);"
        "print(sorted(w), 'trainer' in sys.modules); torch.nn.Linear(2, 3).load_state_dict(w)"
    )
    path = tmp_path / "model_epoch-2"
    out = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True).stdout
    assert out == "['bias', 'weight'] False\n"
    assert equal(dict(torch.load(path, weights_only=True)), dict(predictor.state_dict()))


def test_the_last_ones_are_kept_and_other_files_left_alone(tmp_path):
    (tmp_path / "snapshot_iter_0").write_text("another run's")
    run = make_run(tmp_path, (5, "epoch"))
    run.extend(extensions.snapshot(n_retains=2))
    run.extend(extensions.snapshot_object(run.updater.get_model("main"), "m{.updater.iteration}", n_retains=1))
    run.run()
    assert files(tmp_path) == ["m10", "snapshot_iter_0", "snapshot_iter_10", "snapshot_iter_8"]


def test_retention_goes_on_after_a_resume(tmp_path):
    def prepare(stop):
        run = make_run(tmp_path, stop)
        run.extend(extensions.snapshot(n_retains=2, autoload=True), trigger=(1, "iteration"))
        run.extend(
            extensions.snapshot_object(run.updater.get_model("main"), "m{.updater.iteration}", n_retains=1),
            trigger=(1, "iteration"),
        )
        return run

    prepare((3, "iteration")).run()
    prepare((6, "iteration")).run()
    assert files(tmp_path) == ["m6", "snapshot_iter_5", "snapshot_iter_6"]


def test_a_run_resumed_into_another_folder_deletes_nothing_there(tmp_path):
    def prepare(out, stop):
        run = make_run(tmp_path / out, stop)
        run.extend(extensions.snapshot(n_retains=2), trigger=(1, "iteration"))
        return run

    prepare("a", (3, "iteration")).run()
    prepare("b", (3, "iteration")).run()
    resumed = prepare("b", (6, "iteration"))
    resumed.resume(tmp_path / "a" / "snapshot_iter_3")
    resumed.run()
    assert files(tmp_path / "b") == [f"snapshot_iter_{i}" for i in (2, 3, 5, 6)]


def test_a_failed_snapshot_leaves_the_previous_one_and_no_scraps(tmp_path):
    run = make_run(tmp_path)
    run.extend(extensions.snapshot(filename="s", n_retains=1))
    run.extend(
        lambda t: setattr(run.stop_trigger, "state_dict", lambda: {"x": {1}} if t.updater.iteration > 2 else {}),
        name="spoil",
    )
    with pytest.raises(TypeError, match="extensions/training/trigger/x is set"):
        run.run()
    assert files(tmp_path) == ["s"] and [f.iteration for f in saving.find(tmp_path)] == [2]


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="n_retains must be 1 or more, or -1 for all, got 0"):
        extensions.snapshot(n_retains=0)
    with pytest.raises(ValueError, match="autoload needs a filename that is a string"):
        extensions.snapshot(filename=lambda t: "x", autoload=True)


# -- autoload


def autoloading(out, stop=(4, "epoch")):
    run = make_run(out, stop)
    run.extend(extensions.snapshot(autoload=True))
    return run


def test_autoload_takes_the_newest_good_file_and_names_the_others(tmp_path):
    autoloading(tmp_path, (3, "epoch")).run()
    newest = tmp_path / "snapshot_iter_6"
    newest.write_bytes(newest.read_bytes()[:-1000])
    data = bytearray((tmp_path / "snapshot_iter_4").read_bytes())
    data[300] ^= 4
    (tmp_path / "snapshot_iter_4").write_bytes(data)
    (tmp_path / "snapshot_iter_9").touch()
    saving.save({"not": "a run"}, tmp_path / "snapshot_iter_foreign", iteration=99)
    run, starts = autoloading(tmp_path), []
    run.extend(lambda t: None, name="x")
    run.get_extension("x").initialize = lambda t: starts.append((t.updater.iteration, t.is_before_training))
    with pytest.warns(UserWarning) as caught:
        run.run()
    told = "\n".join(str(w.message) for w in caught)
    for name in (
        "snapshot_iter_6 is not a snapshot",
        "snapshot_iter_9 is not a snapshot",
        "snapshot_iter_4 is damaged",
    ):
        assert name in told
    assert "snapshot_iter_foreign is not the snapshot of a run" in told
    assert starts == [(2, False)]
    assert run.resumed_from == tmp_path / "snapshot_iter_2" and run.updater.iteration == 8


def test_autoload_orders_by_iteration_not_by_name_or_time(tmp_path):
    autoloading(tmp_path, (5, "epoch")).run()
    for path in tmp_path.iterdir():
        os.utime(path, (1, 1))
    run = autoloading(tmp_path, (5, "epoch"))
    run.run()
    assert run.resumed_from.name == "snapshot_iter_10"


def test_autoload_finds_nothing_in_an_empty_folder_and_does_not_override_a_resume(tmp_path):
    run = autoloading(tmp_path / "new", (1, "epoch"))
    run.run()
    assert run.resumed_from is None
    autoloading(tmp_path / "old", (3, "epoch")).run()
    run = autoloading(tmp_path / "old")
    run.resume(tmp_path / "new" / "snapshot_iter_2")
    assert run.resumed_from.parent.name == "new" and run.updater.iteration == 2


def test_an_object_is_autoloaded_too(tmp_path):
    def prepare():
        run = make_run(tmp_path)
        model = run.updater.get_model("main")
        run.extend(extensions.snapshot_object(model, "m_{.updater.epoch}", autoload=True))
        return run, model

    first, model = prepare()
    first.run()
    (tmp_path / "m_3").write_bytes(b"no")
    os.utime(tmp_path / "m_1", (1, 1)), os.utime(tmp_path / "m_2", (2, 2))
    second, other = prepare()
    second.stop_trigger = lambda t: True
    with pytest.warns(UserWarning, match="m_3 cannot be read as a file of weights"):
        second.run()
    assert equal(dict(other.state_dict()), dict(model.state_dict()))


def test_an_explicit_resume_fails_clearly(tmp_path):
    run = make_run(tmp_path)
    with pytest.raises(FileNotFoundError):
        run.resume(tmp_path / "absent")
    saving.save({"x": 1}, tmp_path / "foreign")
    with pytest.raises(SnapshotError, match="foreign is not the snapshot of a run; name one that snapshot"):
        run.resume(tmp_path / "foreign")


# -- a kill between the files of an iteration


def interrupted(out, make_first, make_second):
    """A run killed, so to say, when the first of two extensions had saved iteration 2, and a run that goes on."""

    class Killed(BaseException):
        pass

    class Kill:
        phase = 3

        def __init__(self, kills):
            self.kills = kills

        def __call__(self, trainer):
            if self.kills:
                raise Killed

    for kills in (True, False):
        run = make_run(out)
        run.extend(make_first(), name="first", trigger=(2, "iteration"))
        run.extend(Kill(kills), name="kill", trigger=(2, "iteration"), priority=-100)
        run.extend(make_second(), name="second", trigger=(2, "iteration"))
        if kills:
            with pytest.raises(Killed):
                run.run()
    return run


def test_a_snapshot_that_a_kill_came_before_is_made_up_for_at_the_resume(tmp_path):
    run = interrupted(
        tmp_path,
        lambda: extensions.snapshot(filename="first_{.updater.iteration}"),
        lambda: extensions.snapshot(filename="second_{.updater.iteration}", n_retains=1, link="second"),
    )
    assert files(tmp_path) == ["first_2"]
    run.resume(tmp_path / "first_2")
    assert not run.finished
    assert files(tmp_path) == [".lock", "first_2", "second", "second_2"]
    assert equal(saving.load(tmp_path / "second_2")["updater"], saving.load(tmp_path / "first_2")["updater"])
    run.run()
    assert files(tmp_path) == ["first_2", "first_4", "second", "second_4"]


def test_one_that_cannot_be_made_up_for_is_told_and_the_run_goes_on(tmp_path):
    run = interrupted(
        tmp_path,
        lambda: extensions.snapshot(filename="first_{.updater.iteration}"),
        lambda: extensions.snapshot(filename=lambda trainer: f"loss-{trainer.observation['main/loss']:.0f}"),
    )
    run.resume(tmp_path / "first_2")
    with pytest.warns(
        UserWarning, match=r"second: what was due in iteration 2 could not be made up for \(UnknownKeyError"
    ):
        run.run()
    assert run.updater.iteration == 4


def test_a_file_that_a_thread_had_under_way_when_the_run_was_killed_is_made_up_for(tmp_path):
    release = threading.Event()

    def slow(state, file):
        release.wait(60)
        torch.save(state, file)

    def prepare(savefun):
        run = make_run(tmp_path)
        writer = extensions.snapshot_writers.ThreadWriter(savefun)
        model = run.updater.get_model("main")
        run.extend(extensions.snapshot_object(model, "model_{.updater.iteration}", writer=writer))
        run.extend(extensions.snapshot(filename="run_{.updater.iteration}"))
        return run

    killed = prepare(slow)
    with pytest.raises(StopIteration):
        while True:
            with killed.iteration():
                killed.updater.update()
            if killed.updater.iteration == 2:
                shutil.copytree(tmp_path, tmp_path / "copy", ignore=shutil.ignore_patterns(".*", "copy"))
                raise StopIteration  # as a kill would leave it
    release.set()
    killed.finalize()
    assert files(tmp_path / "copy") == ["run_2"]
    run = prepare(None)
    run.out = tmp_path / "copy"
    run.resume(tmp_path / "copy" / "run_2")
    run.run()
    assert files(tmp_path / "copy") == ["model_2", "model_4", "run_2", "run_4"]


def test_a_snapshot_of_the_run_waits_for_what_others_have_under_way_since_an_earlier_iteration(tmp_path):
    started, release, seen = threading.Event(), threading.Event(), []

    def slow(state, file):
        started.set()
        release.wait(60)
        torch.save(state, file)

    class Watch(extensions.snapshot_writers.SimpleWriter):
        def __call__(self, filename, outdir, target):
            seen.append((filename, (tmp_path / "weights_1").exists()))
            return super().__call__(filename, outdir, target)

    run = make_run(tmp_path)
    writer = extensions.snapshot_writers.ThreadWriter(slow)
    weights = extensions.snapshot_object(run.updater.get_model("main"), "weights_{.updater.iteration}", writer=writer)
    run.extend(weights, trigger=lambda trainer: trainer.updater.iteration == 1)
    run.extend(lambda trainer: trainer.updater.iteration == 3 and threading.Timer(0.2, release.set).start(), name="x")
    run.extend(extensions.snapshot(writer=Watch()), trigger=lambda trainer: trainer.updater.iteration == 3)
    run.run()
    assert started.is_set() and seen == [("snapshot_iter_3", True)]


def test_two_failures_in_the_background_under_one_name_are_both_told(tmp_path):
    release = threading.Event()

    def fail(state, file):
        release.wait(60)
        raise OSError(28, "No space left on device")

    run = make_run(tmp_path)
    writer = extensions.snapshot_writers.ThreadQueueWriter(fail)
    model = run.updater.get_model("main")
    run.extend(extensions.snapshot_object(model, "weights", writer=writer, on_write_error="warn"))
    run.extend(lambda trainer: trainer.updater.iteration == 4 and release.set(), name="go")
    with pytest.warns(UserWarning, match="no snapshot: .*No space left on device.*training goes on") as told:
        run.run()
    assert len(told) == 2 and files(tmp_path) == []


# -- going back to an older snapshot


def test_after_going_back_autoload_goes_on_from_what_was_written_since(tmp_path):
    def prepare(stop, **kwargs):
        run = make_run(tmp_path, stop)
        run.extend(extensions.LogReport(trigger=(1, "iteration")))
        run.extend(extensions.snapshot(**kwargs), trigger=(2, "iteration"))
        return run

    prepare((10, "iteration")).run()
    back = prepare((7, "iteration"))
    back.resume(tmp_path / "snapshot_iter_4")
    back.run()
    with warnings.catch_warnings(record=True) as told:
        again = prepare((12, "iteration"), autoload=True)
        again.run()
    assert again.resumed_from.name == "snapshot_iter_6" and told == []
    assert [entry["iteration"] for entry in json.loads((tmp_path / "log").read_text())] == list(range(1, 13))
    last = prepare((13, "iteration"), autoload=True)
    last.run()
    assert last.resumed_from.name == "snapshot_iter_12"


def test_going_on_from_the_newest_by_name_is_no_going_back(tmp_path):
    for stop in (2, 4, 6):
        run = make_run(tmp_path, (stop, "iteration"))
        run.extend(extensions.snapshot(), trigger=(1, "iteration"))
        if stop > 2:
            run.resume(tmp_path / f"snapshot_iter_{stop - 2}")
        run.run()
    assert [(file.iteration, file.run_id) for file in saving.find(tmp_path)] == [
        (iteration, run.run_id) for iteration in range(6, 0, -1)
    ]


def test_snapshots_may_stand_in_a_folder_of_their_own(tmp_path):
    def prepare(stop):
        run = make_run(tmp_path, stop)
        run.extend(extensions.LogReport(trigger=(1, "iteration")))
        run.extend(extensions.snapshot(filename="snaps/it_{.updater.iteration}", n_retains=2, autoload=True))
        model = run.updater.get_model("main")
        run.extend(extensions.snapshot_object(model, "weights/w_{.updater.iteration}", n_retains=1, link="last"))
        return run

    prepare((2, "epoch")).run()
    run = prepare((4, "epoch"))
    run.run()
    assert run.resumed_from == tmp_path / "snaps" / "it_4"
    assert files(tmp_path / "snaps") == ["it_6", "it_8"] and files(tmp_path / "weights") == ["w_8"]
    assert len(json.loads((tmp_path / "log").read_text())) == 8
