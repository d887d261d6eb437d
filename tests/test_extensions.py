"""The extensions, each by what a user relies on. (Logs, tables and snapshots have files of their own.)"""

import copy
import io
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import at_the_end, equal, make_data, make_run
from torch.utils.data import DataLoader

import extensions
import trainer.random
from extensions import progress_bar
from trainer import Classifier, StandardUpdater, Trainer, report
from trainer.iterators import MultiprocessIterator, SerialIterator

# -- observing


def test_observe_lr_reports_the_optimizer_s_rate(run):
    run.extend(extensions.observe_lr(), trigger=(1, "iteration"))
    run.extend(extensions.observe_lr(observation_key="rate"))
    run.run()
    assert run.observation["lr"] == run.observation["rate"] == 0.1


def test_bias_corrected_is_adam_s_step_size_by_definition(tmp_path):
    model = Classifier(torch.nn.Linear(2, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, betas=(0.8, 0.9))
    run = Trainer(StandardUpdater(SerialIterator(make_data(), 5), optimizer, model=model), (3, "iteration"), tmp_path)
    seen = []
    run.extend(extensions.observe_lr(bias_corrected=True), trigger=(1, "iteration"))
    run.extend(lambda t: seen.append(float(t.observation["lr"])), name="see")
    run.run()
    assert seen == pytest.approx([0.01 * math.sqrt(1 - 0.9**t) / (1 - 0.8**t) for t in (1, 2, 3)], rel=1e-6)


def test_bias_corrected_asks_for_an_optimizer_that_has_it(run):
    run.extend(extensions.observe_lr(bias_corrected=True))
    with pytest.raises(ValueError, match="bias_corrected needs an optimizer with betas .* got SGD; use observe_lr"):
        run.run()


def test_a_rate_that_is_a_tensor_is_logged_as_it_was(tmp_path):
    model = Classifier(torch.nn.Linear(2, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=torch.tensor(0.4))
    run = Trainer(StandardUpdater(SerialIterator(make_data(), 5), optimizer, model=model), (2, "iteration"), tmp_path)
    run.extend(extensions.observe_lr(), trigger=(1, "iteration"))
    run.extend(lambda t: optimizer.param_groups[0]["lr"].mul_(0.5), name="halve")
    run.extend(extensions.LogReport(trigger=(2, "iteration")))
    run.run()
    assert run.get_extension("LogReport").log[0]["lr"] == pytest.approx(0.3)


def test_observe_value_observes_what_a_function_returns(run):
    run.extend(extensions.observe_value("twice", lambda t: 2 * t.updater.iteration), trigger=(1, "iteration"))
    run.run()
    assert run.observation["twice"] == 8


# -- evaluation


def odd_model():
    return Classifier(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Dropout(), torch.nn.BatchNorm1d(3)))


@pytest.mark.parametrize("kind", ["serial", "workers", "loader"])
def test_accuracy_is_correct_over_total_with_a_short_last_batch(kind):
    data, model = make_data(11), odd_model()
    iterator = {
        "serial": lambda: SerialIterator(data, 4, repeat=False, shuffle=False),
        "workers": lambda: MultiprocessIterator(data, 4, repeat=False, shuffle=False, n_processes=1),
        "loader": lambda: DataLoader(data, 4),
    }[kind]()
    evaluator = extensions.Evaluator(iterator, model)
    x, t = torch.utils.data.default_collate(data)
    model.eval()
    correct = int((model.predictor(x).argmax(1) == t).sum())
    loss = torch.nn.functional.cross_entropy(model.predictor(x), t).item()
    for _ in range(2):
        result = evaluator()
        assert list(result) == ["main/loss", "main/accuracy"]
        assert result["main/accuracy"] == correct / 11
        assert result["main/loss"] == pytest.approx(loss, rel=1e-6)
    evaluator.finalize()


def test_its_values_are_observed_as_validation(run):
    model = run.updater.get_model("main")
    for _ in range(2):
        run.extend(extensions.Evaluator(SerialIterator(make_data(4), 3, repeat=False), model))
    run.run()
    assert {"validation/main/loss", "validation/main/accuracy", "validation_1/main/accuracy"} <= set(run.observation)
    assert isinstance(run.observation["validation/main/loss"], float)


def test_evaluating_leaves_modes_generators_and_gradients_alone():
    model = odd_model()
    frozen = model.predictor[2].eval()
    before, statistics = trainer.random.capture(), frozen.state_dict()
    modes = [module.training for module in model.modules()]
    grad = []

    def evaluate(x, t):
        torch.rand(3)
        grad.append(torch.is_grad_enabled() or any(m.training for m in model.modules()))
        model(x, t)

    extensions.Evaluator(SerialIterator(make_data(), 4, repeat=False), model, eval_func=evaluate)()
    assert [module.training for module in model.modules()] == modes and modes[0] and not frozen.training
    assert equal(trainer.random.capture(), before) and equal(frozen.state_dict(), statistics)
    assert grad == [False] * 3


def test_an_evaluation_function_that_is_a_module_is_in_evaluation_mode_too():
    norm = torch.nn.BatchNorm1d(2)
    before = {key: value.clone() for key, value in norm.state_dict().items()}
    data = [torch.rand(2) for _ in range(4)]
    with pytest.warns(UserWarning, match="validation: nothing was reported in the evaluation. A model reports"):
        extensions.Evaluator(SerialIterator(data, 2, repeat=False), torch.nn.Identity(), eval_func=norm)()
    assert equal(dict(norm.state_dict()), before) and norm.training


def test_a_copy_as_evaluation_function_reports_under_the_target_s_name():
    model = Classifier(torch.nn.Linear(2, 3))
    iterator = SerialIterator([(torch.rand(2), i % 3) for i in range(4)], 2, repeat=False)
    result = extensions.Evaluator(iterator, model, eval_func=copy.deepcopy(model))()
    assert list(result) == ["main/loss", "main/accuracy"]


def test_a_plain_value_weighs_its_batch():
    class Size(torch.nn.Module):
        def forward(self, x):
            report({"size": len(x)}, self)

    assert extensions.Evaluator(SerialIterator([1] * 10, 4, repeat=False), Size())() == {"main/size": 3.6}


def test_hook_and_anonymous_reports():
    seen = []

    class Anonymous(torch.nn.Module):
        def forward(self, x):
            report({"x": 1})

    iterator = SerialIterator([1], 1, repeat=False)
    evaluator = extensions.Evaluator({"main": iterator}, {"main": Anonymous()}, eval_hook=seen.append)
    assert evaluator() == {"x": 1} and seen == [evaluator]
    assert evaluator.get_iterator("main") is iterator and isinstance(evaluator.get_target("main"), Anonymous)


def test_an_iterator_that_repeats_is_refused():
    with pytest.raises(ValueError, match="iterator 'main' repeats, so an evaluation would never end; give it repeat=F"):
        extensions.Evaluator(SerialIterator([1], 1), torch.nn.Identity())


# -- plots


def test_a_plot_is_written_during_training_and_goes_on_after_a_resume(tmp_path):
    def prepare(stop):
        run = make_run(tmp_path, stop)
        run.extend(extensions.PlotReport(["main/loss"], trigger=(1, "iteration"), filename="p.svg"))
        run.extend(at_the_end(lambda t: sizes.append((tmp_path / "p.svg").stat().st_size)), name="size", priority=0)
        return run

    sizes = []
    first = prepare((3, "iteration"))
    first.run()
    assert len(sizes) == 3
    resumed = prepare((4, "iteration"))
    resumed.load_state_dict(first.state_dict())
    resumed.run()
    points = resumed.get_extension("PlotReport").state_dict()["data"]["main/loss"]
    assert [x for x, _ in points] == [1, 2, 3, 4]
    text = (tmp_path / "p.svg").read_text()
    assert "<svg" in text and "</svg>" in text
    assert [p.name for p in tmp_path.iterdir()] == ["p.svg"]


def test_a_plot_may_be_finished_by_a_function_of_one_s_own(run, tmp_path):
    titles = []
    run.extend(
        extensions.PlotReport(
            "main/accuracy",
            "epoch",
            postprocess=lambda figure, axes, means: titles.append(axes.set_title("mine")),
        )
    )
    run.run()
    assert len(titles) == 2 and (tmp_path / "plot.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(TypeError, match="y_keys must name what to plot, got None"):
        extensions.PlotReport(None)


# -- the progress bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_bars_go_below_the_cursor_and_are_erased_in_the_end(run, monkeypatch):
    monkeypatch.setattr(progress_bar, "SECONDS", 0.0)
    out = Terminal()
    run.extend(extensions.ProgressBar(update_interval=2, out=out, bar_length=70))
    run.run()
    drawings = out.getvalue().split("\033[J")[1:]
    assert len(drawings) == 3 and drawings[-1] == ""
    for drawing in drawings[:-1]:
        lines, end = drawing[: -len("\r\033[2A")], drawing[-len("\r\033[2A") :]
        blank, total, epoch = lines.split("\n")
        assert (
            blank == "" and end == "\r\033[2A" and total.startswith("     total: ") and epoch.startswith("this epoch: ")
        )
        assert len(total) <= 70
    assert " 50%|" in drawings[0] and "2/4" in drawings[0]


def test_the_bars_are_drawn_at_most_ten_times_a_second(run, monkeypatch):
    out, clock = Terminal(), iter([5.0, 5.09, 5.11, 5.2])
    monkeypatch.setattr(progress_bar, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    run.extend(extensions.ProgressBar(update_interval=1, out=out))
    run.run()
    drawings = out.getvalue().split("\033[J")[1:-1]
    assert ["1/4" in drawings[0], "3/4" in drawings[1], len(drawings)] == [True, True, 2]


def test_nothing_is_written_where_there_is_no_terminal(run):
    out = io.StringIO()
    run.extend(extensions.ProgressBar(update_interval=1, out=out))
    run.run()
    assert out.getvalue() == ""


def test_a_table_and_the_bars_share_a_terminal(run, monkeypatch):
    monkeypatch.setattr(progress_bar, "SECONDS", 0.0)
    out = Terminal()
    run.extend(extensions.LogReport(trigger=(1, "iteration")))
    run.extend(extensions.ProgressBar(update_interval=1, out=out))
    run.extend(extensions.PrintReport(["iteration"], out=out))
    run.run()
    screen = [""]  # what a terminal shows of it
    row = column = 0
    text = out.getvalue()
    while text:
        if text.startswith("\033[J"):
            screen = [*screen[:row], screen[row][:column]]
            text = text[3:]
        elif text.startswith("\033[2A"):
            row, text = row - 2, text[4:]
        elif text[0] in "\r\n":
            row, column = row + (text[0] == "\n"), 0
            screen += [""] * (row + 1 - len(screen))
            text = text[1:]
        else:
            line = screen[row].ljust(column)
            screen[row] = line[:column] + text[0] + line[column + 1 :]
            column, text = column + 1, text[1:]
    assert [line.strip() for line in screen] == ["iteration", "1", "2", "3", "4", ""]


def test_the_bar_takes_its_length_from_what_it_is_told_or_does_without(tmp_path):
    for stop, length, expected in [
        (lambda t: t.updater.iteration == 2, None, "2iter"),
        ((2, "iteration"), (8, "iteration"), "2/8"),
        ((1, "epoch"), (4, "epoch"), "2/8"),
    ]:
        out = Terminal()
        run = make_run(tmp_path, stop)
        run.extend(extensions.ProgressBar(length, update_interval=2, out=out, bar_length=80))
        run.run()
        assert expected in out.getvalue()
    with pytest.raises(ValueError, match="update_interval must be 1 or more, got 0"):
        extensions.ProgressBar(update_interval=0)


def test_an_evaluation_may_show_how_far_it_is(run, monkeypatch):
    monkeypatch.setattr("sys.stderr", out := Terminal())
    model = run.updater.get_model("main")
    iterator = SerialIterator(make_data(10), 4, repeat=False, shuffle=False)
    plain, shown = extensions.Evaluator(iterator, model), extensions.Evaluator(iterator, model, progress_bar=True)
    assert shown() == plain()
    assert "validation" in out.getvalue() and "/10" in out.getvalue()
    assert shown.get_all_iterators() == {"main": iterator} and shown.get_all_targets() == {"main": model}


def test_an_evaluator_needs_main_unless_it_evaluates_in_a_way_of_its_own(run):
    iterator, model = SerialIterator(make_data(4), 4, repeat=False), run.updater.get_model("main")
    with pytest.raises(ValueError, match=r"the targets \['other'\] lack 'main'"):
        extensions.Evaluator(iterator, {"other": model})
    with pytest.raises(ValueError, match=r"the iterators \['other'\] lack 'main'"):
        extensions.Evaluator({"other": iterator}, model)

    class Own(extensions.Evaluator):
        def evaluate(self):
            return {"size": float(len(next(self.get_iterator("other"))))}

    assert Own({"other": iterator}, {"other": model})() == {"size": 4.0}


class Least:
    """What an iterator of an Evaluator must have."""

    def reset(self):
        self.left = 2

    def __next__(self):
        if self.left == 0:
            raise StopIteration
        self.left -= 1
        return torch.ones(3, 2)

    def finalize(self):
        pass


def test_an_evaluator_needs_no_target_where_it_has_a_function():
    seen = []

    def evaluate(x):
        seen.append((torch.is_grad_enabled(), len(x)))
        report({"x": x.sum()})

    evaluator = extensions.Evaluator(Least(), {}, eval_func=evaluate)
    assert evaluator() == evaluator.evaluate() == {"x": 6.0}
    assert seen == [(False, 3)] * 4
    assert extensions.Evaluator.default_name == "validation"
    with pytest.raises(TypeError, match=r"iterator 'main' needs reset\(\): each evaluation begins anew"):
        extensions.Evaluator(iter([1]), {}, eval_func=evaluate)


def test_make_extension_takes_none_for_its_defaults(run):
    called = []

    @trainer.make_extension(trigger=None, priority=None)
    def extension(trainer):
        called.append(trainer.updater.iteration)

    run.extend(extension)
    run.run()
    assert called == [1, 2, 3, 4]
    with pytest.raises(ValueError, match="invoke_before_training is gone; define initialize"):
        trainer.make_extension(invoke_before_training=True)
    with pytest.raises(TypeError, match="unexpected keyword argument 'when'"):
        run.extend(extension, when="now")
    with pytest.raises(ValueError, match="invoke_before_training is gone"):
        run.extend(extension, invoke_before_training=False)


def test_an_updater_may_ask_to_be_told_of_the_trainer(tmp_path):
    class Told(StandardUpdater):
        def connect_trainer(self, trainer):
            self.trainer = trainer

    model = Classifier(torch.nn.Linear(2, 3))
    updater = Told(SerialIterator(make_data(), 5), torch.optim.SGD(model.parameters()), model=model)
    run = Trainer(updater, out=tmp_path)
    assert updater.trainer is run


def test_a_plot_s_postprocess_is_given_the_summary(run):
    seen = []
    run.extend(extensions.PlotReport(["main/loss"], postprocess=lambda f, a, s: seen.append(s.compute_mean())))
    run.run()
    assert [list(means) for means in seen] == [["main/loss"]] * 2


def test_a_statistic_may_be_an_array(run):
    predictor = run.updater.get_model("main").predictor
    two = {"two": lambda x: np.percentile(x.numpy(), [0, 100])}
    run.extend(extensions.ParameterStatistics(predictor, two, report_grads=False))
    run.run()
    assert run.observation["main/predictor/bias/data/two/0"] <= run.observation["main/predictor/bias/data/two/1"]


def test_what_is_no_extension_is_refused_and_leaves_nothing_behind(run):
    class Ported(trainer.Extension):
        def __call__(self, trainer):
            pass

        def serialize(self, serializer):
            pass

    class Both(Ported):
        def state_dict(self):
            return {}

    with pytest.raises(TypeError, match=r"LogReport is a class; extend with an object of it: extend\(LogR"):
        run.extend(extensions.LogReport)
    with pytest.raises(TypeError, match=r"write @make_extension\(\) with parentheses"):
        run.extend(trainer.make_extension(lambda trainer: None))
    with pytest.raises(TypeError, match="Ported has Chainer's serialize, which nothing calls: name in `saved`"):
        run.extend(Ported())
    run.extend(extensions.LogReport("main/loss"))
    run.extend(Both())
    run.run()
    assert list(run.get_extension("LogReport").log[0])[0] == "main/loss"


def test_a_plot_of_nothing_is_warned_of_and_epochs_may_be_fractions(run):
    run.extend(extensions.PlotReport(["main/los"], filename="a.png"), name="a")
    run.extend(extensions.PlotReport("main/loss", "epoch_detail", (1, "iteration"), filename="b.png"), name="b")
    with pytest.warns(UserWarning, match=r"a.png was not drawn: no value of \['main/los'\] came with 'it"):
        run.run()
    assert [x for x, _ in run.get_extension("b").state_dict()["data"]["main/loss"]] == [0.5, 1.0, 1.5, 2.0]
