"""Graceful stop: real signals, to the process and to its whole group, as schedulers send them."""

import json
import multiprocessing
import os
import signal
import time

import pytest
import torch
from helpers import Augmented, equal, make_run
from processes import start
from torch.utils.data import DataLoader

import extensions
from trainer import Classifier, StandardUpdater, Trainer, saving
from trainer.iterators import MultiprocessIterator, MultithreadIterator, SerialIterator
from trainer.triggers import OnceTrigger

SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1]


def train(out, workers=2, stop=60, slow=0.01):
    """Goes on from what is in the folder; each iteration takes some time, for signals to fall into."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = Classifier(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(0.2), torch.nn.Linear(192, 3)))
    iterator = MultiprocessIterator(Augmented(), 6, n_processes=workers)
    updater = StandardUpdater(iterator, torch.optim.Adam(model.parameters()), model=model)
    run = Trainer(updater, (stop, "iteration"), out=out)
    valid = MultiprocessIterator(Augmented(), 6, repeat=False, shuffle=False, n_processes=workers)
    run.extend(extensions.Evaluator(valid, model), trigger=(7, "iteration"))
    run.extend(extensions.LogReport(trigger=(5, "iteration")))
    writer = extensions.snapshot_writers.ProcessWriter()
    run.extend(extensions.snapshot(n_retains=2, autoload=True, writer=writer), trigger=(8, "iteration"))
    run.extend(extensions.snapshot(filename="final"), trigger=(stop, "iteration"))
    run.extend(extensions.StopOnSignal(advice="run it again."))
    run.extend(lambda trainer: ((out / f"running-{trainer.updater.iteration}").touch(), time.sleep(slow)), name="slow")
    run.run()


def wait_for(path, process):
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process.is_alive() and time.monotonic() < deadline, (path.parent / "printed").read_text()
        time.sleep(0.005)


def begin(out, *args, until=1):
    """Starts a run, or goes on with it; returns when it has come to an iteration."""
    process = start(train, out, *args, output=out / "printed")
    wait_for(out / f"running-{until}", process)
    return process


def end(process):
    process.join(60)
    if process.exitcode is None:
        os.killpg(process.pid, signal.SIGKILL)
    return process.exitcode


def essence(out):
    state = saving.load(out / "final")
    log = json.loads((out / "log").read_text())
    for entry in log:
        del entry["elapsed_time"]
    return state["updater"], log


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_to_the_group_saves_the_run_which_goes_on_to_the_same_end(tmp_path, number):
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    assert end(begin(tmp_path / "whole", 0, 60, 0)) == 0
    for times in range(1, 4):
        process = begin(tmp_path / "cut", times % 3, until=13 * times)
        os.killpg(process.pid, number)
        assert end(process) == 75, (tmp_path / "cut" / "printed").read_text()
        stopped = saving.load(tmp_path / "cut" / "snapshot_stopped")
        told = f"Stopped by {number.name} after iteration {stopped['iteration']}. The run is saved in "
        assert told in (tmp_path / "cut" / "printed").read_text()
    assert end(begin(tmp_path / "cut", 1, 60, 0)) == 0
    assert equal(essence(tmp_path / "cut"), essence(tmp_path / "whole"))
    printed = (tmp_path / "cut" / "printed").read_text()
    assert "Traceback" not in printed and "snapshot_stopped: run it again." in printed


def test_several_signals_stop_once(tmp_path):
    process = begin(tmp_path)
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        os.killpg(process.pid, number)
    assert end(process) == 75
    assert (tmp_path / "printed").read_text().count("Stopped by") == 1


def endless(out):
    run = make_run(out)
    run.extend(extensions.StopOnSignal())
    closed = (out / "closed").touch
    run.extend(lambda trainer: ((out / "running").touch(), wait(trainer, out)), name="long")
    run.get_extension("long").finalize = closed
    run.run()


def wait(trainer, out):
    while True:
        time.sleep(0.01)
        if trainer.get_extension("StopOnSignal").saves_run:
            (out / "received").touch()


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    process = start(endless, tmp_path, output=tmp_path / "printed")
    wait_for(tmp_path / "running", process)
    os.kill(process.pid, signal.SIGINT)
    wait_for(tmp_path / "received", process)
    os.kill(process.pid, signal.SIGINT)
    assert end(process) == 1 and "KeyboardInterrupt" in (tmp_path / "printed").read_text()
    assert (tmp_path / "closed").exists() and not (tmp_path / "snapshot_stopped").exists()


def test_what_handled_the_signals_before_handles_them_again_afterwards(tmp_path):
    before = [signal.getsignal(number) for number in SIGNALS]
    run = make_run(tmp_path)
    run.extend(extensions.StopOnSignal())
    during = []
    run.extend(lambda trainer: during.append(signal.getsignal(signal.SIGTERM)), name="look")
    run.run()
    assert during[0] != before[0]
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_what_comes_after_the_stop_does_not_change_the_exit_code(tmp_path):
    process = begin(tmp_path, 2)
    while process.is_alive():
        os.killpg(process.pid, signal.SIGTERM)
        time.sleep(0.01)
    assert end(process) == 75, (tmp_path / "printed").read_text()
    assert not list(tmp_path.glob(".*"))


def test_the_extensions_are_finalized_and_the_others_snapshots_taken_first(tmp_path):
    run, calls = make_run(tmp_path), []
    run.extend(extensions.StopOnSignal())
    run.extend(extensions.snapshot(n_retains=1), trigger=(1, "iteration"))
    run.extend(lambda trainer: trainer.updater.iteration == 3 and signal.raise_signal(signal.SIGTERM), name="preempt")
    run.get_extension("preempt").finalize = lambda: calls.append("finalize")
    run.get_extension("preempt").on_error = lambda *args: calls.append("on_error")
    with pytest.raises(SystemExit) as stop:
        run.run()
    assert stop.value.code == 75 and calls == ["finalize"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["snapshot_iter_3", "snapshot_stopped"]
    saved = saving.load(tmp_path / "snapshot_stopped")["extensions"]["_Snapshot"]["extension"]
    assert saved["files"] == {"kept": ["snapshot_iter_3"]}


def test_a_hand_written_loop_is_stopped_too(tmp_path):
    run = make_run(tmp_path)
    run.extend(extensions.StopOnSignal())
    with pytest.raises(SystemExit):
        while not run.finished:
            with run.iteration():
                run.updater.update()
                signal.raise_signal(signal.SIGUSR1)
    assert saving.load(tmp_path / "snapshot_stopped")["iteration"] == 1


def in_a_thread(out):
    import threading

    run = make_run(out)
    run.extend(extensions.StopOnSignal())
    thread = threading.Thread(target=run.run)
    thread.start()
    thread.join()


def test_it_lets_be_what_cannot_be_copied_and_what_has_no_version(tmp_path):
    class Stream(OnceTrigger):
        def __getstate__(self):
            raise NotImplementedError("this stream cannot be copied")

    class Distils(StandardUpdater):
        def get_all_iterators(self):
            return super().get_all_iterators() | {"stream": stream}

        def get_all_models(self):
            return super().get_all_models() | {"teacher": teacher}

        def update_core(self):
            super().update_core()

    stream = Stream()
    with torch.inference_mode():
        teacher = torch.nn.Linear(2, 3).requires_grad_(False)
    updater = make_run(tmp_path).updater
    updater.__class__ = Distils
    run = Trainer(updater, (2, "iteration"), out=tmp_path)
    run.extend(extensions.StopOnSignal())
    run.run()
    assert updater.iteration == 2


def test_outside_of_the_main_thread_it_says_that_it_cannot(tmp_path):
    process = start(in_a_thread, tmp_path, output=tmp_path / "printed")
    assert end(process) == 0
    assert "StopOnSignal works in the main thread only: leave it out here" in (tmp_path / "printed").read_text()


def finalize_slowly(out):
    run = make_run(out)

    def slow(state, file):
        (out / "writing").touch()
        while not (out / "go on").exists():
            time.sleep(0.01)
        torch.save(state, file)

    writer = extensions.snapshot_writers.ThreadWriter(slow)
    run.extend(extensions.snapshot_object(run.updater.get_model("main"), "weights", writer=writer))
    run.extend(extensions.StopOnSignal())
    run.extend(lambda trainer: trainer.updater.iteration == 2 and signal.raise_signal(signal.SIGTERM), name="preempt")
    run.run()


def test_signals_that_come_while_the_run_is_being_closed_do_not_disturb_that(tmp_path):
    process = start(finalize_slowly, tmp_path, output=tmp_path / "printed")
    wait_for(tmp_path / "writing", process)
    wait_for(tmp_path / "snapshot_stopped", process)
    for number in SIGNALS:
        os.killpg(process.pid, number)
    (tmp_path / "go on").touch()
    assert end(process) == 75, (tmp_path / "printed").read_text()
    assert torch.load(tmp_path / "weights", weights_only=True) and not list(tmp_path.glob(".*"))


# -- data that do not come: of a worker that is stopped, or behind a gate, as on a file server that is dead


class Gated(torch.utils.data.Dataset):
    """Nothing comes while a file is there."""

    def __init__(self, gate):
        self.gate = gate

    def __len__(self):
        return 24

    def __getitem__(self, index):
        while os.path.exists(self.gate):
            self.gate.with_name("asked").touch()
            time.sleep(0.01)
        return torch.full((3, 8, 8), index / 24), index % 3


def processes(gate):
    return MultiprocessIterator(Gated(gate), 4, n_processes=2, n_prefetch=1)


def threads(gate):
    return MultithreadIterator(Gated(gate), 4, n_threads=2)


def serial(gate):
    return SerialIterator(Gated(gate), 4)


def loader(gate):
    return DataLoader(Gated(gate), 4, shuffle=True, num_workers=2, prefetch_factor=1)


class Two(StandardUpdater):
    """A step of one optimizer, then of another, each on data of its own."""

    def update_core(self):
        for name in ("main", "other"):
            noise = torch.rand(1)
            loss = self.get_model(name)(*self.next_batch(name)) * noise
            self.get_optimizer(name).zero_grad()
            loss.backward()
            self.step(name)


class Both(Two):
    """The same, on data that are fetched first."""

    def update_core(self):
        batches = [self.next_batch("main"), self.next_batch("other")]
        self.next_batch = lambda name: batches.pop(0)
        super().update_core()
        del self.next_batch


def train_gated(out, make, kind, halts, until=9):
    """Trains, and from iteration 5 on the data of ``halts`` do not come."""
    extensions.stop_on_signal.PATIENCE = 0.3
    torch.set_num_threads(1)
    torch.manual_seed(0)
    names = ("main", "other") if kind in (Two, Both) else ("main",)
    nets = {name: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3)) for name in names}
    if kind != "evaluator":
        nets["main"].insert(1, torch.nn.Dropout(0.5))
    models = {name: Classifier(net) for name, net in nets.items()}
    optimizers = {name: torch.optim.Adam(model.parameters()) for name, model in models.items()}
    iterators = {name: make(out / f"gate {name}") for name in names}
    update = kind if kind in (Two, Both) else StandardUpdater
    updater = update(iterators, optimizers, model=models, accumulate=3 if kind == "accumulate" else 1)
    run = Trainer(updater, (until, "iteration"), out=out)
    if kind == "evaluator":
        valid = MultiprocessIterator(Gated(out / "gate valid"), 4, repeat=False, shuffle=False, n_processes=1)
        run.extend(extensions.Evaluator(valid, models["main"]), trigger=(2, "iteration"))
    run.extend(extensions.LogReport(trigger=(2, "iteration")))
    run.extend(extensions.snapshot(n_retains=1, autoload=True), trigger=(4, "iteration"))
    run.extend(extensions.snapshot(filename="final"), trigger=(until, "iteration"))
    run.extend(extensions.StopOnSignal())

    def halt(trainer):
        if halts == "stopped":
            for process in multiprocessing.active_children():
                os.kill(process.pid, signal.SIGSTOP)
        elif halts is not None:
            (out / f"gate {halts}").touch()
        (out / "halted").touch()

    run.extend(halt, "halt", trigger=(5, "iteration"))
    if kind == "own loop":
        while not run.finished:
            with run.iteration():
                run.updater.update()
    else:
        run.run()


SAVED = "the data of the next did not come within 0 seconds. The run is saved in "
CASES = [
    (processes, "plain", "stopped", SAVED),
    (processes, "accumulate", "main", SAVED),
    (threads, "plain", "main", SAVED),
    (serial, "own loop", "main", SAVED),
    (loader, "accumulate", "stopped", SAVED),
    (processes, Both, "other", SAVED),
    (processes, Two, "main", SAVED),
    (processes, Two, "other", "not saved, because an optimizer has stepped in it; the last snapshot is "),
    (processes, "evaluator", "valid", "not saved, because its update is done; the last snapshot is "),
]


@pytest.mark.parametrize(("make", "kind", "halts", "told"), CASES)
def test_a_wait_for_data_that_do_not_come_is_left(tmp_path, make, kind, halts, told):
    """And the run goes on to the same end: from the iteration's start, or the last snapshot if that was half done."""
    (whole := tmp_path / "whole").mkdir()
    (cut := tmp_path / "cut").mkdir()
    process = start(train_gated, cut, make, kind, halts, output=cut / "printed")
    wait_for(cut / "halted", process)
    time.sleep(0.5)  # what was fetched ahead is used up
    os.killpg(process.pid, signal.SIGTERM)
    assert end(process) == 75, (cut / "printed").read_text()
    assert told in (cut / "printed").read_text() and "Traceback" not in (cut / "printed").read_text()
    assert (cut / "snapshot_stopped").exists() == (told == SAVED)
    for gate in cut.glob("gate*"):
        gate.unlink()
    assert end(start(train_gated, whole, make, kind, None, output=whole / "printed")) == 0
    assert end(start(train_gated, cut, make, kind, None, output=cut / "printed")) == 0, (cut / "printed").read_text()
    assert equal(essence(cut), essence(whole))


def test_before_the_first_snapshot_it_is_said_that_there_is_none(tmp_path):
    (tmp_path / "gate other").touch()
    process = start(train_gated, tmp_path, processes, Two, None, output=tmp_path / "printed")
    wait_for(tmp_path / "asked", process)
    time.sleep(0.2)  # the worker fetches ahead
    os.kill(process.pid, signal.SIGTERM)
    assert end(process) == 75, (tmp_path / "printed").read_text()
    told = "Stopped by SIGTERM in iteration 1, for data that did not come within 0 seconds. It is not saved, because"
    assert f"{told} an optimizer has stepped in it; there is no snapshot yet." in (tmp_path / "printed").read_text()
