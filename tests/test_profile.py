"""Where the time goes, and whether the table says so."""

import json
import time
import warnings

import pytest
import torch
from helpers import Augmented, equal, make_data, make_run

import extensions
from trainer import Classifier, StandardUpdater, Trainer
from trainer.iterators import MultiprocessIterator, SerialIterator

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:torch.profiler")


class Sleepy(torch.utils.data.Dataset):
    def __len__(self):
        return 20

    def __getitem__(self, index):
        time.sleep(0.004)
        return torch.ones(2), index % 3


def profiled(out, data, iterator=SerialIterator, **kwargs):
    model = Classifier(torch.nn.Linear(2, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run = Trainer(StandardUpdater(iterator(data, 5), optimizer, model=model), (12, "iteration"), out=out)
    run.extend(extensions.ProfileReport(skip=2, iterations=8, **kwargs))
    return run


def test_a_data_set_that_sleeps_is_found_and_so_is_an_extension(tmp_path):
    run = profiled(tmp_path, Sleepy())

    def sleep(trainer):
        time.sleep(0.01)

    run.extend(sleep)
    run.run()
    report = run.get_extension("ProfileReport")
    assert report.parts["data"] >= 0.02 and report.parts["sleep"] >= 0.01  # seconds an iteration: a sleep is no less
    slow = {"data", "sleep"}
    assert min(report.parts[part] for part in slow) > max(v for part, v in report.parts.items() if part not in slow)
    text = (tmp_path / "profile.txt").read_text()
    assert text.split("\n")[1].startswith("data ") and "aten::" in text


def test_the_parts_add_up_to_the_wall_time(tmp_path):
    run = profiled(tmp_path, Sleepy())
    run.extend(extensions.LogReport(trigger=(1, "iteration")))
    run.extend(extensions.Evaluator(SerialIterator(make_data(), 5, repeat=False), run.updater.get_model("main")))
    run.extend(extensions.snapshot(), trigger=(2, "iteration"))
    run.run()
    report = run.get_extension("ProfileReport")
    named = {"data", "convert", "forward", "backward", "step", "LogReport", "validation", "_Snapshot", "ProfileReport"}
    assert set(report.parts) == named | {"other"}
    assert sum(report.parts.values()) == pytest.approx(report.wall_time, rel=1e-9)
    assert report.parts["other"] < 0.5 * report.wall_time  # on a busy machine too


def test_waiting_for_workers_is_time_for_data(tmp_path):
    run = profiled(tmp_path, Sleepy(), lambda data, n: MultiprocessIterator(data, n, n_processes=1))
    run.run()
    parts = run.get_extension("ProfileReport").parts
    assert parts["data"] == max(parts.values())


def test_profiling_changes_nothing_and_leaves_nothing_behind(tmp_path):
    def weights(with_profile):
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3), torch.nn.Dropout())
        model = Classifier(net)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        updater = StandardUpdater(SerialIterator(Augmented(), 6), optimizer, model=model)
        run = Trainer(updater, (8, "iteration"), out=tmp_path)
        before = set(vars(updater))
        if with_profile:
            run.extend(extensions.ProfileReport(skip=1, iterations=3, trace="trace.json"))
        run.run()
        assert set(vars(updater)) == before
        return model.state_dict()

    assert equal(weights(True), weights(False))
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"]


def test_a_run_that_ends_while_it_is_measured_is_reported_and_one_before_is_warned_of(tmp_path):
    run = make_run(tmp_path)
    run.extend(extensions.ProfileReport(skip=2, iterations=100))
    run.run()
    assert "mean of 2 iterations" in (tmp_path / "profile.txt").read_text()
    short = make_run(tmp_path / "short")
    short.extend(extensions.ProfileReport(skip=50))
    with pytest.warns(UserWarning, match="the run ended before iteration 51: give a smaller skip"):
        short.run()


def test_an_update_of_ones_own_is_told_by_the_parts_that_it_uses(tmp_path):
    class Own(StandardUpdater):
        def update_core(self):
            x, t = self.next_batch()
            time.sleep(0.01)
            self.get_optimizer("main").zero_grad()
            self.backward(self.get_model("main")(x, t))
            self.step()

    model = Classifier(torch.nn.Linear(2, 3))
    updater = Own(SerialIterator(make_data(), 5), torch.optim.SGD(model.parameters()), model=model)
    run = Trainer(updater, (6, "iteration"), out=tmp_path)
    run.extend(extensions.ProfileReport(skip=1, iterations=4))
    run.run()
    parts = run.get_extension("ProfileReport").parts
    assert parts["other"] >= 0.01 and parts["backward"] > 0 and parts["forward"] == 0


def test_numbers_must_be_positive():
    with pytest.raises(ValueError, match="skip must be 1 or more, got 0"):
        extensions.ProfileReport(skip=0)
    with pytest.raises(ValueError, match="iterations must be 1 or more, got 0"):
        extensions.ProfileReport(iterations=0)


# -- PrintReport in a notebook

NOTEBOOK = """
import sys
sys.path[:0] = {paths!r}
import extensions
from helpers import make_run

run = make_run({out!r})
run.extend(extensions.LogReport())
run.extend(extensions.PrintReport(["epoch", "iteration", "main/loss", "main/accuracy"]))
run.run()
"""


@pytest.mark.full
def test_in_a_notebook_the_table_is_one_that_grows(tmp_path):
    nbclient = pytest.importorskip("nbclient", reason="nbclient runs the notebook; pip install -e '.[test]'")
    nbformat = pytest.importorskip("nbformat")
    from pathlib import Path

    paths = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
    code = NOTEBOOK.format(paths=paths, out=str(tmp_path / "out"))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # jupyter's own
        nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute(cwd=str(tmp_path))
    outputs = notebook.cells[0].outputs
    assert [output.output_type for output in outputs] == ["display_data"]  # one, updated in place
    html = outputs[0].data["text/html"]
    assert html.count("<tr") == 3 and "<th>main/loss</th>" in html and "<td>4</td>" in html


@pytest.mark.parametrize("fails", [None, 3, 4])
def test_whatever_ends_a_measurement_takes_everything_off(tmp_path, fails):
    run = make_run(tmp_path, (3 if fails is None else 9, "iteration"))
    before, call = set(vars(run.updater)), run.updater.converter

    def fail(trainer):
        if trainer.updater.iteration == fails:
            raise ValueError("in a measured iteration")

    run.extend(extensions.ProfileReport(skip=3 if fails is None else 2, iterations=100))
    run.extend(fail)
    if fails:
        with pytest.raises(ValueError, match="in a measured iteration"):
            run.run(show_loop_exception_msg=False)
    else:
        with pytest.warns(UserWarning, match="the run ended before iteration 4"):
            run.run()
    assert set(vars(run.updater)) == before and run.updater.converter is call
    calls = [call for _, call in [*run._calls, *run._snapshots.entries]]
    assert len(calls) == 3 and not any(hasattr(call, "is_timed") for call in calls)
    assert not torch.autograd._profiler_enabled()


def test_two_measurements_at_a_time_are_refused(tmp_path):
    run = make_run(tmp_path, (9, "iteration"))
    run.extend(extensions.ProfileReport(skip=2, iterations=3))
    run.extend(extensions.ProfileReport(skip=3, iterations=3))
    with pytest.raises(RuntimeError, match="two ProfileReports measure at the same time: give one of them a greater"):
        run.run(show_loop_exception_msg=False)
    assert "fetch" not in vars(run.updater)


def test_only_what_can_be_called_is_timed(tmp_path):
    class Own:
        iteration = epoch = epoch_detail = step = 0

        def update(self):
            self.step = self.step + 1
            self.iteration += 1

    run = Trainer(Own(), (5, "iteration"), out=tmp_path)
    run.extend(extensions.ProfileReport(skip=1, iterations=2))
    run.run()
    assert run.updater.step == 5
