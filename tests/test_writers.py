"""Who writes a snapshot: nothing torn, nothing hidden, nothing kept too long."""

import copy
import functools
import io
import os
import signal
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import pytest
import torch
from helpers import equal, make_run
from processes import call, start

import extensions
from extensions import snapshot_writers as writers
from extensions.snapshot_files import SnapshotFiles
from trainer import make_extension, saving

KINDS = [
    writers.SimpleWriter,
    writers.ThreadWriter,
    writers.ThreadQueueWriter,
    writers.ProcessWriter,
    writers.ProcessQueueWriter,
]
every = pytest.mark.parametrize("kind", KINDS)
background = pytest.mark.parametrize("kind", KINDS[1:])


def slow(state, file):
    time.sleep(0.05)
    torch.save(state, file)


def failing(state, file):
    raise OSError(28, "No space left on device")


@every
def test_every_writer_writes_what_a_simple_one_writes(tmp_path, kind):
    states = []
    run = make_run(tmp_path)
    run.extend(extensions.snapshot(writer=kind()), trigger=(1, "iteration"))
    model = run.updater.get_model("main")
    run.stop_trigger = lambda t: states.append(copy.deepcopy(dict(model.state_dict()))) or len(states) == 5
    run.run()
    for iteration, model in list(enumerate(states))[1:]:
        state = saving.load(tmp_path / f"snapshot_iter_{iteration}")
        assert equal(dict(state["updater"]["model"]["main"]), model)
    assert not list(tmp_path.glob(".*"))
    resumed = make_run(tmp_path / "other", (3, "epoch"))
    resumed.extend(extensions.snapshot(), trigger=(1, "iteration"))
    resumed.resume(tmp_path / "snapshot_iter_3")
    resumed.run()
    assert resumed.updater.iteration == 6


def save_when_changed(folder, state, file):
    """Saves a part of the state, lets the weights be changed, and saves the rest."""
    torch.save(state, first := io.BytesIO())
    half = len(first.getvalue()) // 2
    file.write(first.getvalue()[:half])
    (folder / "begun").touch()
    until((folder / "changed").exists)
    torch.save(state, second := io.BytesIO())
    file.write(second.getvalue()[half:])


def until(condition):
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.001)


@background
def test_the_state_is_that_of_its_iteration_when_weights_change_before_and_within_the_write(tmp_path, kind):
    weight = torch.nn.Parameter(torch.zeros(1000))
    target = torch.nn.ParameterList([weight])
    writer = kind(functools.partial(save_when_changed, tmp_path))
    for i in range(4):
        with torch.no_grad():
            weight.fill_(i)
        job = writer(f"w{i}", tmp_path, target.state_dict())
        with torch.no_grad():
            weight.fill_(-1)
            until((tmp_path / "begun").exists)
            weight.fill_(-2)
        (tmp_path / "changed").touch()
        job.result()
        (tmp_path / "begun").unlink()
        (tmp_path / "changed").unlink()
    writer.finalize()
    assert [float(torch.load(tmp_path / f"w{i}", weights_only=True)["0"].unique()) for i in range(4)] == [0, 1, 2, 3]


@every
@pytest.mark.parametrize("head", [{"run_id": "0" * 16, "iteration": 7}, {}], ids=["snapshot", "weights"])
def test_training_that_goes_on_changes_nothing_in_the_files_under_way(tmp_path, kind, head):
    parts = {str(i): torch.zeros(50_000) for i in range(3)} | {"step": torch.zeros(())}
    writer, jobs = kind(), []
    for i in range(4):  # those of a queue are under way together
        for part in parts.values():
            part.fill_(10 * i)
        jobs.append(writer(f"s{i}", tmp_path, {**head, "parts": parts, "list": [parts["1"]]}))
        for part in parts.values():
            part.add_(1)
    while any(job is not None and not job.done() for job in jobs):
        for part in parts.values():
            part.add_(1)
    writer.finalize()
    for i in range(4):
        state = torch.load(tmp_path / f"s{i}", weights_only=True)
        saved = [*state["parts"].values(), *state["list"]]
        assert {float(value) for part in saved for value in part.unique()} == {10 * i}


@every
def test_retention_and_link_hold_with_every_writer(tmp_path, kind):
    run = make_run(tmp_path)
    run.extend(extensions.snapshot(writer=kind(), n_retains=2, link="newest"), trigger=(1, "iteration"))
    run.run()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["newest", "snapshot_iter_3", "snapshot_iter_4"]
    assert os.readlink(tmp_path / "newest") == "snapshot_iter_4"
    assert [file.iteration for file in saving.find(tmp_path)] == [4, 3]  # a link is no snapshot of its own


@background
def test_an_older_file_is_there_until_the_newer_one_is_whole(tmp_path, kind):
    model = torch.nn.Linear(1, 1)
    run = make_run(tmp_path, (8, "iteration"))
    extension = extensions.snapshot_object(model, "model_{.updater.iteration}", writer=kind(slow), n_retains=1)
    run.extend(extension, trigger=(1, "iteration"))
    seen = []

    def count(trainer):
        if trainer.updater.iteration == 2:
            until(lambda: list(tmp_path.glob("model*")))  # the first one
        time.sleep(0.02)
        seen.append(len(list(tmp_path.glob("model*"))))

    run.extend(count)
    run.run()
    assert 0 not in seen[1:]
    assert [p.name for p in tmp_path.iterdir()] == ["model_8"]


@every
def test_a_failure_is_raised_at_the_next_snapshot_or_at_the_end(tmp_path, kind):
    run = make_run(tmp_path)
    run.extend(extensions.snapshot(writer=kind(failing)), trigger=(2, "iteration"))
    with pytest.raises(OSError, match="No space left on device"):
        run.run(show_loop_exception_msg=False)
    assert list(tmp_path.iterdir()) == []
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("snapshot")]


@background
def test_a_failure_at_the_last_snapshot_is_raised_too(tmp_path, kind):
    run = make_run(tmp_path)
    run.extend(extensions.snapshot(writer=kind(failing)), trigger=(4, "iteration"))
    with pytest.raises(OSError, match="No space left on device"):
        run.run()
    assert run.updater.iteration == 4


def fail_when_all_wait(folder, state, file):
    until((folder / "go").exists)
    raise OSError(28, f"No space left for iteration {state['iteration']}")


@pytest.mark.parametrize("kind", [writers.ThreadQueueWriter, writers.ProcessQueueWriter])
def test_of_several_failures_in_a_queue_the_first_is_raised_and_the_later_ones_are_its_notes(tmp_path, kind):
    @make_extension(priority=-1000, finalizer=(tmp_path / "go").touch)  # the first to be finalized
    def go(trainer):
        pass

    run = make_run(tmp_path / "out")
    writer = kind(functools.partial(fail_when_all_wait, tmp_path))
    run.extend(extensions.snapshot(writer=writer), trigger=(1, "iteration"))
    run.extend(go)
    with pytest.raises(OSError, match="No space left for iteration 1") as caught:
        run.run()
    heads = [note.splitlines()[0] for note in caught.value.__notes__]
    assert heads == [f"Another error in the write of 'snapshot_iter_{n}':" for n in (2, 3, 4)]
    assert notes_of(caught) == [f"OSError: [Errno 28] No space left for iteration {n}" for n in (2, 3, 4)]


def notes_of(caught):
    return [note.splitlines()[-1] for note in getattr(caught.value, "__notes__", [])]


def test_a_failure_is_raised_after_those_of_the_files_before_it(tmp_path):
    def files_under_way(n, **kwargs):
        files, jobs = SnapshotFiles(-1, None, **kwargs), [Future() for _ in range(n)]
        for i, job in enumerate(jobs):
            files.add(str(i), tmp_path, lambda job=job: job)
        return files, jobs

    files, jobs = files_under_way(4)
    for i in (2, 1, 0):  # whichever is noticed first
        jobs[i].set_exception(OSError(i))
    with pytest.raises(OSError, match="0") as caught:
        files.clear_up()
    assert notes_of(caught) == ["OSError: 1", "OSError: 2"] and files.is_writing and files.kept == ["3"]
    jobs[3].set_exception(OSError(3))
    with pytest.raises(OSError, match="3"):
        files.finalize()
    files.finalize()  # nothing is raised twice

    def refuse():
        raise TypeError("no such state")

    files, jobs = files_under_way(1)
    threading.Timer(0.1, jobs[0].set_exception, (OSError(0),)).start()
    with pytest.raises(OSError, match="0") as caught:
        files.add("1", tmp_path, refuse)
    assert notes_of(caught) == ["TypeError: no such state"]

    files, jobs = files_under_way(3)
    jobs[0].set_exception(OSError(0))
    jobs[1].set_exception(KeyboardInterrupt())
    jobs[2].set_exception(OSError(2))
    with pytest.raises(KeyboardInterrupt) as caught:
        files.finalize()
    assert notes_of(caught) == ["OSError: 0", "OSError: 2"]

    files, jobs = files_under_way(2, on_write_error="warn")
    jobs[0].set_exception(OSError(0))
    jobs[1].set_exception(ValueError(1))
    with pytest.warns(UserWarning, match="no snapshot: 0; those"), pytest.raises(ValueError, match="1") as caught:
        files.finalize()
    assert notes_of(caught) == []


@background
def test_a_state_that_could_not_be_loaded_is_refused_at_once(tmp_path, kind):
    with pytest.raises(TypeError, match="best is object: save numbers"):
        kind()("file", tmp_path, {"best": object()})


def test_a_writing_process_that_is_killed_is_no_hang(tmp_path):
    writer = writers.ProcessWriter(_kill_itself)
    run = make_run(tmp_path)
    run.extend(extensions.snapshot(writer=writer), trigger=(2, "iteration"))
    with pytest.raises(Exception, match="_4: the process that was writing it has died .the system kills what"):
        run.run(show_loop_exception_msg=False)


def _kill_itself(state, file):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("kind", [writers.ThreadWriter, writers.ThreadQueueWriter])
def test_a_thread_writer_copies_into_the_same_memory_again(tmp_path, kind):
    places = []

    def save(state, file):
        places.append((state["a"].data_ptr(), state["b"][0].data_ptr()))
        torch.save(state, file)

    writer, state = kind(save), {"a": torch.zeros(100), "b": [torch.zeros(3)]}
    for name in ("one", "two"):
        writer(name, tmp_path, state).result()
    writer.finalize()
    assert places[0] == places[1] != (state["a"].data_ptr(), state["b"][0].data_ptr())


@background
@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants:UserWarning")
def test_a_state_may_change_its_shape_from_one_save_to_the_next(tmp_path, kind):
    writer = kind()
    grid = torch.arange(6.0).reshape(2, 3)
    values = [
        grid,
        grid.clone().t(),
        grid.reshape(3, 2),
        grid.double(),
        grid[:, ::2],
        grid[:1].expand(4, 3),
        torch.tensor(7),
        torch.zeros(0),
        grid.to_sparse(),
        grid,
        [grid, grid],
        [grid],
        {"x": grid},
        None,
        grid,
    ]
    for i, value in enumerate(values):
        writer(f"s{i}", tmp_path, {"value": value, "same": [grid]})
    writer.finalize()
    for i, value in enumerate(values):
        state = torch.load(tmp_path / f"s{i}", weights_only=True)
        if getattr(value, "is_sparse", False):
            assert state["value"].is_sparse
            state["value"], value = state["value"].to_dense(), value.to_dense()
        assert equal(state, {"value": value, "same": [grid]})
    assert torch.load(tmp_path / "s1", weights_only=True)["value"].stride() == (1, 3)  # as the state's, not the copy's


def take_memory(out, kind, most):
    """Fails if saving three times takes more memory than so many times the state."""
    state = {"parts": [torch.ones(500_000) for _ in range(20)]}
    size = sum(part.nbytes for part in state["parts"])
    writer = getattr(writers, kind)()
    writer("small", out, {"parts": [torch.ones(1)]})
    before = peak_memory()
    for _ in range(3):
        writer("s", out, state)
    writer.finalize()
    assert (peak_memory() - before) / size < most


def take_memory_to_load(path):
    before = peak_memory()
    state = saving.load(path)
    assert (peak_memory() - before) / sum(part.nbytes for part in state["parts"]) < 1.2


def peak_memory():
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return 1024 * int(line.split()[1])


@pytest.mark.parametrize(
    ("kind", "most"),
    [
        pytest.param("SimpleWriter", 0.2, marks=pytest.mark.full),
        ("ThreadWriter", 1.2),
        pytest.param("ThreadQueueWriter", 3.2, marks=pytest.mark.full),
    ],
)
def test_a_save_takes_the_memory_of_its_copies_of_the_state_and_no_more(tmp_path, kind, most):
    assert call(take_memory, tmp_path, kind, most, output=tmp_path / "printed") == 0, (tmp_path / "printed").read_text()


def test_loading_takes_the_memory_of_the_state_and_no_more(tmp_path):
    saving.save({"parts": [torch.ones(1_000_000) for _ in range(20)]}, tmp_path / "s")
    code = call(take_memory_to_load, tmp_path / "s", output=tmp_path / "printed")
    assert code == 0, (tmp_path / "printed").read_text()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_state_on_a_cuda_device_is_copied_into_pinned_memory_before_training_goes_on(tmp_path):
    pinned = []

    def save(state, file):
        pinned.append(state["weight"].is_pinned())
        torch.save(state, file)

    writer = writers.ThreadWriter(save)
    state = {"weight": torch.zeros(10_000_000, device="cuda"), "step": torch.zeros(())}
    for i in range(4):
        state["weight"].fill_(i)
        writer(f"s{i}", tmp_path, state)
        state["weight"].fill_(-1)
    writer.finalize()
    saved = [torch.load(tmp_path / f"s{i}", weights_only=True)["weight"] for i in range(4)]
    assert [float(weight.unique()) for weight in saved] == [0, 1, 2, 3] and saved[0].device.type == "cpu"
    assert pinned == [True] * 4


def test_a_writer_of_ones_own_is_called_with_name_folder_and_state(tmp_path):
    calls = []
    run = make_run(tmp_path)
    run.extend(extensions.snapshot(filename="s{.updater.iteration}", writer=lambda *args: calls.append(args)))
    run.run()
    assert [(name, str(out), state["iteration"]) for name, out, state in calls] == [
        ("s2", str(tmp_path), 2),
        ("s4", str(tmp_path), 4),
    ]


def test_a_condition_is_asked_each_time(tmp_path):
    answers = iter([True, False])
    run = make_run(tmp_path)
    run.extend(extensions.snapshot(condition=lambda: next(answers)))
    run.run()
    assert [p.name for p in tmp_path.iterdir()] == ["snapshot_iter_2"]


def test_target_is_saved_in_place_of_the_run(tmp_path):
    model = torch.nn.Linear(1, 1)
    run = make_run(tmp_path)
    run.extend(extensions.snapshot(target=model, filename="model"))
    run.run()
    assert sorted(torch.load(tmp_path / "model", weights_only=True)) == ["bias", "weight"]


def test_savefun_writes_a_format_of_ones_own(tmp_path):
    def save(state, file):
        file.write(",".join(sorted(state)).encode())

    run = make_run(tmp_path)
    run.extend(extensions.snapshot_object(torch.nn.Linear(1, 1), "model.txt", save))
    run.run()
    assert (tmp_path / "model.txt").read_text() == "bias,weight"


@pytest.mark.parametrize("trigger", [None, (100, "epoch")])
def test_a_snapshot_is_taken_on_an_error_if_asked_for(tmp_path, trigger):
    run = make_run(tmp_path)
    run.extend(extensions.snapshot(snapshot_on_error=True, condition=lambda: False), trigger=trigger)
    run.extend(lambda t: 1 / 0 if t.updater.iteration == 3 else None, name="fail")
    with pytest.raises(ZeroDivisionError):
        run.run(show_loop_exception_msg=False)
    assert saving.load(tmp_path / "snapshot_iter_3")["iteration"] == 3
    other = make_run(tmp_path / "without")
    other.extend(extensions.snapshot(), trigger=trigger)
    other.extend(lambda t: 1 / 0, name="fail")
    with pytest.raises(ZeroDivisionError):
        other.run(show_loop_exception_msg=False)
    assert list((tmp_path / "without").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (dict(savefun=torch.save, writer=writers.SimpleWriter()), TypeError, "savefun and writer cannot be given"),
        (dict(savefun="name"), TypeError, "savefun must be a function, got 'name'; for a name write filename='name'"),
        (dict(filename=3), TypeError, "filename must be a string or a function of the trainer, got 3"),
        (dict(savefun=torch.save, autoload=True), ValueError, "autoload reads what is written without savefun"),
        (dict(n_retains=0), ValueError, "n_retains must be 1 or more, or -1 for all, got 0"),
    ],
)
def test_bad_arguments_are_refused_when_the_snapshot_is_made(arguments, error, message):
    with pytest.raises(error, match=message):
        extensions.snapshot(**arguments)
    with pytest.raises(error, match=message):
        extensions.snapshot_object(torch.nn.Linear(1, 1), **{"filename": "x", **arguments})


def test_the_best_is_kept_beside_the_last_over_a_resume(tmp_path):
    from trainer.triggers import MaxValueTrigger

    scores = [0.1, 0.5, 0.3, 0.4, 0.6, 0.2]

    def prepare(stop):
        run = make_run(tmp_path, (stop, "epoch"))
        run.extend(extensions.observe_value("score", lambda t: scores[t.updater.epoch - 1]))
        best = extensions.snapshot(filename="best_{.updater.epoch}", n_retains=1, link="best")
        run.extend(best, name="best", trigger=MaxValueTrigger("score"))
        run.extend(extensions.snapshot(filename="last_{.updater.epoch}", n_retains=1, autoload=True))
        return run

    prepare(4).run()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best", "best_2", "last_4"]
    prepare(6).run()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best", "best_5", "last_6"]
    assert saving.load(tmp_path / "best")["iteration"] == 10


@every
def test_files_may_lie_in_a_folder_below_and_names_may_come_again(tmp_path, kind):
    (tmp_path / "sub").mkdir()
    run = make_run(tmp_path, (5, "iteration"))
    below = extensions.snapshot(filename="sub/s_{.updater.iteration}", writer=kind(), n_retains=1)
    again = extensions.snapshot(filename=lambda t: f"s{t.updater.iteration % 2}", writer=kind(), n_retains=1)
    run.extend(below, trigger=(1, "iteration"))
    run.extend(again, trigger=(1, "iteration"))
    run.run()
    assert [p.name for p in (tmp_path / "sub").iterdir()] == ["s_5"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s1", "sub"]
    assert saving.load(tmp_path / "s1")["iteration"] == 5


@background
def test_a_state_keeps_the_kinds_of_its_dicts(tmp_path, kind):
    run = make_run(tmp_path)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(run.updater.get_optimizer("main"), [2, 2, 3])
    run.extend(extensions.LRScheduler(scheduler), trigger=(1, "iteration"))
    run.extend(extensions.snapshot(writer=kind()), trigger=(1, "iteration"))
    run.run()
    state = saving.load(tmp_path / "snapshot_iter_3")
    assert state["extensions"]["LRScheduler"]["extension"]["scheduler"]["milestones"] == {2: 2, 3: 1}
    assert state["updater"]["model"]["main"]._metadata[""]["version"] == 1  # torch's own, of each module


def interrupt_the_group(out):
    run = make_run(out, (100, "iteration"))
    run.extend(extensions.snapshot(writer=writers.ProcessWriter(very_slow)), trigger=(2, "iteration"))

    def interrupt(trainer):
        if trainer.updater.iteration == 3:
            time.sleep(0.3)
            os.killpg(0, signal.SIGINT)
            time.sleep(5)

    run.extend(interrupt)
    run.run()


def very_slow(state, file):
    time.sleep(1)
    torch.save(state, file)


def test_what_a_process_is_writing_outlives_an_interrupt_of_the_whole_group(tmp_path):
    assert call(interrupt_the_group, tmp_path / "out", output=tmp_path / "printed") == 1
    assert "KeyboardInterrupt" in (tmp_path / "printed").read_text()
    assert torch.load(tmp_path / "out" / "snapshot_iter_2", weights_only=False)["iteration"] == 2


def test_a_failed_write_is_not_counted_among_the_files_that_are_kept(tmp_path):
    fails = iter([False, False, True, False, False])

    def save(state, file):
        if next(fails):
            raise OSError(28, "No space left on device")
        torch.save(state, file)

    run = make_run(tmp_path, (5, "iteration"))
    extension = extensions.snapshot_object(torch.nn.Linear(1, 1), "m_{.updater.iteration}", save, n_retains=2)
    run.extend(extension, trigger=(1, "iteration"))
    with pytest.raises(OSError):
        run.run(show_loop_exception_msg=False)
    assert extension.state_dict()["files"] == {"kept": ["m_1", "m_2"]}
    run.run()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m_4", "m_5"]


def test_an_object_is_not_loaded_over_a_run_resumed_by_name_and_this_is_said(tmp_path):
    def prepare():
        run = make_run(tmp_path)
        run.extend(extensions.snapshot(filename="s"))
        run.extend(extensions.snapshot_object(torch.nn.Linear(1, 1), "ema", autoload=True), name="ema")
        return run

    prepare().run()
    resumed = prepare()
    resumed.resume(tmp_path / "s")
    with pytest.warns(UserWarning, match="ema: no autoload, for the run was resumed by name; load its file too"):
        resumed.run()


def faulty(out, fail_in, **kwargs):
    """Trains 12 iterations with a snapshot each 4; fails once, in the 9th update or after it."""
    run = make_run(out, (12, "iteration"))
    run.extend(extensions.LogReport(trigger=(1, "iteration"), filename=None))
    run.extend(extensions.snapshot(snapshot_on_error=True, autoload=True, **kwargs), trigger=(4, "iteration"))
    model, update = run.updater.get_model("main"), run.updater.update_core

    def failing_update():
        update()
        if fail_in == "update" and run.updater.iteration == 8:
            raise OSError("a cable")

    run.updater.update_core = failing_update
    run.extend(lambda t: 1 / (t.updater.iteration - 9) if fail_in == "extension" else None, name="y")
    return run, model


@pytest.mark.parametrize("fail_in", ["update", "extension"])
@pytest.mark.parametrize("n_retains", [-1, 1])
def test_what_is_saved_on_an_error_takes_no_good_snapshot_s_place(tmp_path, fail_in, n_retains):
    whole, expected = faulty(tmp_path / "whole", None)
    whole.run()
    run, _ = faulty(tmp_path, fail_in, n_retains=n_retains)
    with pytest.raises((OSError, ZeroDivisionError)):
        run.run(show_loop_exception_msg=False)
    error_file = "snapshot_iter_8_error" if fail_in == "update" else "snapshot_iter_9"
    assert saving.load(tmp_path / error_file)["error"] is not None
    resumed, model = faulty(tmp_path, None, n_retains=n_retains)
    with pytest.warns(UserWarning, match=f"{error_file} was taken when iteration . or the next had failed with"):
        resumed.run()
    assert equal(dict(model.state_dict()), dict(expected.state_dict()))
    losses = [[entry["main/loss"] for entry in r.get_extension("LogReport").log] for r in (whole, resumed)]
    assert losses[0] == losses[1]
    by_name, _ = faulty(tmp_path / "other", None)
    with pytest.warns(UserWarning, match="part of that iteration may be done twice or not at all"):
        by_name.resume(tmp_path / error_file)


def write_and_wait(out, kind):
    run = make_run(out, (100, "iteration"))
    run.extend(extensions.snapshot(writer=getattr(writers, kind)()), trigger=(2, "iteration"))

    def wait(trainer):
        if trainer.updater.iteration == 5:
            until((out / "snapshot_iter_4").exists)
            print("ready", flush=True)
            time.sleep(60)

    run.extend(wait)
    run.run()


@pytest.mark.parametrize("kind", ["ProcessWriter", "ProcessQueueWriter"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_writing_process_ends_when_training_is_killed(tmp_path, kind, number):
    os.mkfifo(tmp_path / "printed")
    process = start(write_and_wait, tmp_path / "out", kind, output=tmp_path / "printed")
    with open(tmp_path / "printed") as printed:
        assert printed.readline() == "ready\n"
        os.kill(process.pid, number)
        assert printed.read() == ""  # the end of the file comes when nobody is left who holds it open
    process.join()
    assert [file.iteration for file in saving.find(tmp_path / "out")] == [4, 2]


@background
def test_what_is_saved_on_an_error_waits_for_its_writer_and_passes_by_a_file_under_way(tmp_path, kind):
    run = make_run(tmp_path, (12, "iteration"))
    run.extend(extensions.snapshot(snapshot_on_error=True, writer=kind(slow)), trigger=(4, "iteration"))
    update = run.updater.update_core

    def failing_update():
        update()
        if run.updater.iteration == 4:  # right after a snapshot, which takes longer than this
            raise ValueError("a cable")

    run.updater.update_core = failing_update
    with pytest.raises(ValueError, match="a cable"):
        run.run(show_loop_exception_msg=False)
    errors = {p.name: torch.load(p, weights_only=True)["error"] for p in tmp_path.iterdir()}
    assert errors == {"snapshot_iter_4": None, "snapshot_iter_4_error": "ValueError('a cable')"}


@background
def test_a_failure_to_save_on_an_error_is_attached_to_the_error(tmp_path, kind):
    run = make_run(tmp_path)
    run.extend(extensions.snapshot(snapshot_on_error=True, writer=kind(failing)), trigger=None)
    run.extend(lambda t: 1 / 0, name="fail")
    with pytest.raises(ZeroDivisionError) as caught:
        run.run(show_loop_exception_msg=False)
    assert "No space left on device" in "".join(caught.value.__notes__)


def test_a_run_whose_writing_process_is_killed_goes_on_with_another_if_that_is_asked_for(tmp_path):
    run = make_run(tmp_path / "out", (4, "epoch"))
    writer = writers.ProcessWriter(functools.partial(_kill_itself_once, tmp_path / "marker"))
    run.extend(extensions.snapshot(writer=writer, on_write_error="warn"))
    with pytest.warns(UserWarning, match="no snapshot: .*_2: the process that was writing it has died .*; those befo"):
        run.run()
    assert sorted(path.name for path in (tmp_path / "out").glob("s*")) == [f"snapshot_iter_{n}" for n in (4, 6, 8)]


def _kill_itself_once(marker, state, file):
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    torch.save(state, file)
