"""Averages and statistics over iterations, and the end of a run that has diverged."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import equal, make_run

import extensions
import trainer.random
from extensions.percentiles import percentiles
from trainer import Classifier, Ratio, StandardUpdater, Trainer, Weighted
from trainer.iterators import SerialIterator

EACH = (1, "iteration")
PERCENTS = (0, 0.13, 2.28, 15.87, 50, 84.13, 97.72, 99.87, 100)


def observe(run, **values):
    """Observes the i-th of each list in iteration i, and nothing where that is None."""

    def values_of_the_iteration(t):
        now = {key: column[t.updater.iteration - 1] for key, column in values.items()}
        t.observation.update({key: value for key, value in now.items() if value is not None})

    run.extend(values_of_the_iteration, priority=1000)


def seen_in(run):
    """Returns a list that grows by each iteration's observation."""
    seen = []
    run.extend(lambda t: seen.append({k: float(v) for k, v in t.observation.items()}), name="see", priority=-1)
    return seen


def predictor(run):
    return run.updater.get_model("main").predictor


# -- all of them


def micro_average(run):
    observe(run, correct=[torch.tensor(1), 2, None, 3], total=[4, 5.0, 6, torch.tensor(7.0)])
    return extensions.MicroAverage("correct", "total", "micro", trigger=(3, "iteration"))


ALL = {
    "MicroAverage": micro_average,
    "FailOnNonNumber": lambda run: extensions.FailOnNonNumber(),
    "parameter_statistics": lambda run: extensions.ParameterStatistics(predictor(run), trigger=(3, "iteration")),
    "VariableStatisticsPlot": lambda run: extensions.VariableStatisticsPlot(
        predictor(run), max_sample_size=2, trigger=(3, "iteration")
    ),
}


@pytest.mark.filterwarnings("ignore:the snapshot was made with updater/iterator/main/seed 0, now 5")
@pytest.mark.parametrize("name", ALL)
def test_a_run_stopped_and_resumed_at_any_iteration_is_the_same_run(tmp_path, name):
    def prepare():
        run = make_run(tmp_path)
        run.extend(ALL[name](run))
        run.extend(extensions.snapshot(filename="s{.updater.iteration}"), trigger=EACH)
        return run, seen_in(run)

    whole, expected = prepare()
    whole.run()
    for k in (1, 2, 3):
        trainer.random.set_seed(5)  # of the next process: the first one's is in the state
        resumed, seen = prepare()
        resumed.resume(tmp_path / f"s{k}")
        resumed.run()
        assert seen == expected[k:]
        states = [run.get_extension(name).state_dict() for run in (whole, resumed)]
        assert equal(*states)


# -- micro average


def test_micro_average_is_sum_over_sum_under_its_own_name(tmp_path):
    run = make_run(tmp_path)
    observe(run, correct=[1, 2, 3, 4], total=[1, 9, 5, 5])
    run.extend(extensions.MicroAverage("correct", "total", "micro"))
    seen = seen_in(run)
    run.run()
    assert [s.get("micro") for s in seen] == [None, 3 / 10, None, 7 / 10]
    assert run.get_extension("MicroAverage").priority == 200


def test_an_iteration_that_lacks_a_key_does_not_ask_the_trigger(tmp_path):
    run = make_run(tmp_path)
    asked = []
    observe(run, correct=[1, 2, None, 4], total=[2, None, 2, 2])
    run.extend(
        extensions.MicroAverage(
            "correct", "total", "micro", lambda t: asked.append(t.updater.iteration) or len(asked) == 2
        )
    )
    run.run()
    assert asked == [1, 4] and run.observation["micro"] == 5 / 4


def test_micro_average_reads_whatever_is_observed(tmp_path):
    run = make_run(tmp_path)
    observe(
        run,
        a=[torch.tensor(1.0), Ratio(torch.tensor(1), torch.tensor(4)), Ratio(1, 2), Weighted(torch.tensor(5), 8)],
        b=[np.float32(1), True, (2.0, 9), torch.tensor(2, dtype=torch.float16)],
    )
    run.extend(extensions.MicroAverage("a", "b", "c", trigger=(4, "iteration")))
    run.run()
    assert run.observation["c"] == 6.75 / 6


def test_over_nothing_the_average_is_nan(tmp_path):
    run = make_run(tmp_path, EACH)
    observe(run, a=[1], b=[0])
    run.extend(extensions.MicroAverage("a", "b", "c", trigger=EACH))
    run.run()
    assert np.isnan(run.observation["c"])
    with pytest.raises(TypeError, match="a trigger must be .* got 5"):
        extensions.MicroAverage("a", "b", "c", 5)


# -- what is not a number


def spoil(run, iteration, *values):
    """Overwrites the first weights in an iteration, when its update is done."""

    def overwrite(t):
        if t.updater.iteration == iteration:
            predictor(run).weight.data.flatten()[: len(values)] = torch.tensor(values)

    run.extend(overwrite, priority=1000)


def test_numbers_are_let_pass(run):
    run.extend(extensions.FailOnNonNumber())
    spoil(run, 4, 3e38, -3e38)
    observe(
        run, **{"note": ["text"] * 4, "lossy": [float("nan")] * 4, "x/loss": [Ratio(0, 0), 1, (float("nan"), 0), 2]}
    )
    predictor(run).bias.requires_grad = False
    predictor(run).empty = torch.nn.Parameter(torch.empty(0))
    run.run()


@pytest.mark.parametrize("bad", ["nan", "inf", "-inf"])
def test_a_bad_parameter_ends_the_run_and_is_named(run, bad):
    run.extend(extensions.FailOnNonNumber())
    spoil(run, 3, float(bad), float(bad), 1.0)
    message = (
        "iteration 3: 2 of 6 numbers of main/predictor/weight are NaN or infinite; training .* lower learning rate"
    )
    with pytest.raises(RuntimeError, match=message):
        run.run(show_loop_exception_msg=False)


@pytest.mark.parametrize(
    "value", [float("inf"), torch.tensor(np.inf), Weighted(np.inf, torch.tensor(2)), Ratio(np.inf, 2)]
)
@pytest.mark.parametrize("key", ["loss", "validation/main/loss"])
def test_a_bad_loss_ends_the_run_and_is_named(run, key, value):
    observe(run, **{key: [1.0, value]})
    run.extend(extensions.FailOnNonNumber())
    with pytest.raises(RuntimeError, match=f"iteration 2: {key} is inf; training has diverged"):
        run.run(show_loop_exception_msg=False)


def test_all_models_of_the_updater_are_looked_at(tmp_path):
    models = {"main": Classifier(torch.nn.Linear(2, 3)), "critic": torch.nn.Sequential(torch.nn.Linear(1, 1))}
    models["critic"].requires_grad_(False)[0].bias.data[:] = float("nan")
    optimizer = torch.optim.SGD(models["main"].parameters(), lr=0.1)
    data = [(torch.rand(2), 0)] * 4
    run = Trainer(StandardUpdater(SerialIterator(data, 2), optimizer, model=models), EACH, tmp_path)
    run.extend(extensions.FailOnNonNumber())
    with pytest.raises(RuntimeError, match="1 of 1 numbers of critic/0/bias"):
        run.run(show_loop_exception_msg=False)


def test_what_has_diverged_is_never_saved(run, tmp_path):
    run.extend(extensions.snapshot(), trigger=EACH, priority=1000)
    run.extend(extensions.FailOnNonNumber(), priority=-1000)
    spoil(run, 3, float("nan"))
    with pytest.raises(RuntimeError, match="iteration 3"):
        run.run(show_loop_exception_msg=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["snapshot_iter_1", "snapshot_iter_2"]


# -- percentiles


@pytest.mark.parametrize("n", [1, 2, 3, 10, 1001])
def test_percentiles_are_numpy_s(n):
    x = torch.randn(n, dtype=torch.float64)
    np.testing.assert_allclose(percentiles(x, PERCENTS).numpy(), np.percentile(x.numpy(), PERCENTS), rtol=1e-13)
    np.testing.assert_allclose(
        percentiles(x.float(), PERCENTS), np.percentile(x.numpy(), PERCENTS), rtol=1e-5, atol=1e-6
    )


def test_a_nan_makes_every_percentile_nan():
    assert percentiles(torch.tensor([1.0, float("nan"), 2.0]), (0, 50)).isnan().all()


# -- statistics of parameters


def test_statistics_are_numpy_s_and_means_over_the_iterations(run):
    statistics = extensions.ParameterStatistics(predictor(run), trigger=(2, "iteration"))
    run.extend(statistics)
    values = {"data": [], "grad": []}

    def keep(t):
        values["data"].append(predictor(run).weight.detach().numpy().copy())
        values["grad"].append(predictor(run).weight.grad.numpy().copy())

    run.extend(keep, priority=1000)
    seen = seen_in(run)
    run.run()
    assert [len(s) for s in seen] == [2, 2 + 4 * 12, 2, 2 + 4 * 12]
    functions = {"mean": np.mean, "std": np.std, "min": np.min, "max": np.max, "zeros": lambda x: (x == 0).sum()}
    functions |= {f"percentile/{i}": lambda x, p=p: np.percentile(x, p) for i, p in enumerate(PERCENTS[1:-1])}
    for kind in values:
        for name, function in functions.items():
            expected = np.mean([function(x) for x in values[kind][2:]])
            assert run.observation[f"main/predictor/weight/{kind}/{name}"] == pytest.approx(
                expected, rel=1e-5, abs=1e-6
            )
    assert statistics.name == "parameter_statistics" and statistics.priority == 300


@pytest.mark.parametrize(("params", "grads"), [(True, True), (True, False), (False, True), (False, False)])
def test_what_is_reported_can_be_chosen(run, params, grads):
    model = run.updater.get_model("main")
    size = {"size": lambda x: x.numel()}
    run.extend(extensions.ParameterStatistics([model], size, params, grads, prefix="mine", trigger=EACH))
    run.run()
    expected = {
        f"mine/main/predictor/{parameter}/{kind}/size": n
        for parameter, n in (("weight", 6), ("bias", 3))
        for kind, wanted in (("data", params), ("grad", grads))
        if wanted
    }
    assert {k: v for k, v in run.observation.items() if k.startswith("mine")} == expected


def test_functions_replace_the_defaults_and_may_come_later(run):
    statistics = extensions.ParameterStatistics(predictor(run), None, report_grads=False, trigger=EACH)
    run.extend(statistics)
    run.extend(lambda t: statistics.register_statistics("one", lambda x: 1), name="register", trigger=(2, "iteration"))
    seen = seen_in(run)
    statistics.register_statistics("ends", lambda x: x[[0, -1]])
    run.run()
    base = "main/predictor/bias/data"
    assert {k for k in seen[0] if k.startswith(base)} == {f"{base}/ends/0", f"{base}/ends/1"}
    assert seen[-1][f"{base}/one"] == 1


def test_without_functions_nothing_is_reported(run):
    run.extend(extensions.ParameterStatistics(predictor(run), None, trigger=EACH))
    run.run()
    assert list(run.observation) == ["main/loss", "main/accuracy"]


def test_a_module_of_no_model_has_no_name(run):
    run.extend(extensions.ParameterStatistics(torch.nn.Linear(2, 3), {"max": torch.max}, trigger=EACH))
    run.run()
    assert {"weight/data/max", "bias/data/max"} < set(run.observation)  # and no gradients: it has none


def test_sparse_and_half_precision_are_read(run):
    table = torch.nn.Embedding(4, 2, sparse=True)
    table(torch.tensor([1])).sum().backward()
    half = torch.nn.Linear(1, 1, bias=False).bfloat16()
    run.extend(extensions.ParameterStatistics([table], {"sum": torch.sum}, report_params=False, trigger=EACH))
    run.extend(extensions.ParameterStatistics([half], prefix="half", trigger=EACH))
    run.run()
    assert run.observation["weight/grad/sum"] == 2 and "half/weight/data/percentile/6" in run.observation


def test_numbers_of_a_parameter_with_nan_may_be_left_out(run):
    module = torch.nn.Linear(2, 1)
    module.weight.data[0, 0] = float("nan")
    zeros = {"zeros": lambda x: (x == 0).sum()}
    for skip in (False, True):
        run.extend(extensions.ParameterStatistics(module, zeros, prefix=str(skip), trigger=EACH, skip_nan_params=skip))
    run.run()
    assert run.observation["False/weight/data/zeros"] == 0 and np.isnan(run.observation["True/weight/data/zeros"])
    assert run.observation["True/bias/data/zeros"] == 0


def test_bad_arguments_of_the_statistics_are_named(run):
    with pytest.raises(
        TypeError, match=r"links must be a module or a list of modules, got \['conv1'\]; e.g. model.predictor"
    ):
        extensions.ParameterStatistics(["conv1"])
    with pytest.raises(TypeError, match="links must be a module or a list of modules, got 5"):
        extensions.ParameterStatistics(5)
    with pytest.raises(TypeError, match="statistics must be 'default', None or a dict, got 'all'"):
        extensions.ParameterStatistics([], "all")
    with pytest.raises(TypeError, match="the statistic 'max' must be a function of a tensor, got 3"):
        extensions.ParameterStatistics([], {"max": 3})
    run.extend(extensions.ParameterStatistics([torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)]))
    with pytest.raises(ValueError, match="two of the links have a parameter 'weight': extend once for each"):
        run.run(show_loop_exception_msg=False)


# -- their plot


def at(iteration):
    return SimpleNamespace(updater=SimpleNamespace(iteration=iteration), out="")


def test_a_plot_is_written_as_named(run, tmp_path):
    run.extend(extensions.VariableStatisticsPlot(predictor(run).weight, filename="v.svg", trigger=(4, "iteration")))
    run.run()
    text = (tmp_path / "v.svg").read_text()
    assert "<svg" in text and "</svg>" in text and [p.name for p in tmp_path.iterdir()] == ["v.svg"]


@pytest.mark.parametrize(
    "arguments",
    [
        {"report_data": False, "plot_std": False, "percentile_sigmas": ()},
        {"report_grad": False, "plot_mean": False, "plot_std": False, "percentile_sigmas": 50},
        {"plot_mean": False, "percentile_sigmas": (100, 0), "figsize": (7, 4), "marker": "o", "grid": False},
    ],
)
def test_what_is_drawn_can_be_chosen(run, tmp_path, arguments):
    predictor(run).weight.data[0, 0] = float("inf")
    run.extend(
        extensions.VariableStatisticsPlot([predictor(run), predictor(run).bias], trigger=(4, "iteration"), **arguments)
    )
    run.run()
    assert (tmp_path / "statistics.png").read_bytes()[:4] == b"\x89PNG"


def test_the_statistics_are_those_of_all_numbers_put_together(run):
    run.extend(extensions.VariableStatisticsPlot(predictor(run), percentile_sigmas=(0, 50, 100), trigger=None))
    run.run()
    state = run.get_extension("VariableStatisticsPlot").state_dict()
    assert state["iterations"] == [1, 2, 3, 4] and state["statistics"].shape == (4, 2, 5)
    for kind, row in zip(("data", "grad"), state["statistics"][-1], strict=True):
        x = np.concatenate([getattr(p, kind).numpy().ravel() for p in predictor(run).parameters()])
        np.testing.assert_allclose(row, [x.mean(), x.std(), x.min(), np.median(x), x.max()], rtol=1e-5, atol=1e-7)


def test_the_sample_is_uniform_and_moves_no_generator():
    before = trainer.random.capture(), random.getstate()
    sums = []
    for seed in range(40):
        trainer.random._seed = seed
        plot = extensions.VariableStatisticsPlot(torch.zeros(1), 5, trigger=None, percentile_sigmas=())
        for iteration in range(1, 41):
            plot(at(iteration))
            assert len(plot.state_dict()["iterations"]) == min(iteration, 5)
        sums += plot.state_dict()["iterations"]
    assert len(set(sums)) > 35 and np.mean(sums) == pytest.approx(20.5, abs=2.5)  # 3 standard errors
    assert equal((trainer.random.capture(), random.getstate()), before)


def test_an_iteration_that_is_not_kept_is_not_computed(monkeypatch):
    counted = []
    plot = extensions.VariableStatisticsPlot(torch.zeros(1), 1, trigger=None)
    monkeypatch.setattr("extensions.variable_statistics_plot.percentiles", lambda x, p: counted.append(1) or x)
    for iteration in range(1, 101):
        plot(at(iteration))
    assert len(counted) < 20


def test_a_plot_goes_on_only_with_the_same_statistics(run):
    plot = extensions.VariableStatisticsPlot(predictor(run), trigger=None)
    run.extend(plot)
    run.run()
    other = extensions.VariableStatisticsPlot(predictor(run), percentile_sigmas=(50,))
    with pytest.raises(ValueError, match=r"have shape \(2, 11\), these \(2, 3\): .* percentile_sigmas .* must stay"):
        other.load_state_dict(plot.state_dict())
    fresh = extensions.VariableStatisticsPlot(predictor(run), percentile_sigmas=(50,))
    other.load_state_dict(fresh.state_dict())
    assert other.state_dict() == fresh.state_dict()


def test_bad_arguments_of_the_plot_are_named():
    x = torch.zeros(1)
    for targets in ([], torch.nn.ReLU()):
        with pytest.raises(ValueError, match="targets has no parameters: .*; give a parameter, a module, or a list"):
            extensions.VariableStatisticsPlot(targets)
    with pytest.raises(TypeError, match=r"targets must be a parameter, a module, or a list of these, got \['conv1'\]"):
        extensions.VariableStatisticsPlot(["conv1"])
    with pytest.raises(TypeError, match="targets must be a parameter, a module, or a list of these, got 5"):
        extensions.VariableStatisticsPlot(5)
    with pytest.raises(ValueError, match="nothing to plot: report_data or report_grad .* got False, False"):
        extensions.VariableStatisticsPlot(x, report_data=False, report_grad=False)
    with pytest.raises(ValueError, match="nothing to plot: .* plot_mean, plot_std or percentile_sigmas"):
        extensions.VariableStatisticsPlot(x, plot_mean=False, plot_std=False, percentile_sigmas=())
    with pytest.raises(ValueError, match="max_sample_size must be 1 or more, got 0"):
        extensions.VariableStatisticsPlot(x, 0)
    with pytest.raises(ValueError, match=r"percentile_sigmas must lie between 0 and 100, got \(50, 101\)"):
        extensions.VariableStatisticsPlot(x, percentile_sigmas=(50, 101))
