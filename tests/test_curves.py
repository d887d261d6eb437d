"""Curves that do not lie: what plot_log.py, report.py and PlotReport draw."""

import json
import math

import numpy as np
import pytest
from helpers import make_run

import extensions
from extensions import curves
from recipes import plot_log

NAN, INF = math.nan, math.inf


def drawn(runs, **options):
    figure = curves.draw(runs, "epoch", **options)
    figure.draw_without_rendering()
    return figure


def one(y, key="main/loss", **options):
    """The axes of a single curve."""
    return drawn({"": {key: (range(1, len(y) + 1), y)}}, **options).axes[0]


def names(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def titles(figure):
    return [axes.get_title(loc="left") for axes in figure.axes]


def labelled(axes):
    return [line for line in axes.lines if not line.get_label().startswith("_")]


def marks(axes, marker):
    return [list(line.get_xdata()) for line in axes.lines if line.get_marker() == marker]


def notes(axes):
    return axes.texts[0].get_text()


def noisy(n):
    x = np.arange(1, n + 1)
    return 2 * np.exp(-3 * x / n) + np.random.default_rng(0).normal(0, 0.2, n)


# -- panels, entries, titles


def test_each_nested_key_has_its_own_title_and_entry():
    keys = ["lr", "main/loss", "main/loss/loc", "main/loss/conf", "validation/main/loss", "gen/loss", "validation/loss"]
    figure = drawn({"": {key: ([1, 2], [i, i + 1]) for i, key in enumerate(keys)}})
    assert titles(figure) == ["lr", "loss", "loss/loc", "loss/conf"]
    assert names(figure) == ["lr", "training", "validation/main", "gen", "validation"]
    of_loss = labelled(figure.axes[1])
    assert len({line.get_color() for line in of_loss}) == len(of_loss) == 4


@pytest.mark.parametrize("n", range(1, 9))
def test_panels_leave_no_part_of_the_picture_empty(n):
    figure = drawn({"": {f"main/v{i}": ([1, 2], [0, i]) for i in range(n)}})
    cells = [axes.get_subplotspec() for axes in figure.axes]
    covered = [(row, column) for c in cells for row in c.rowspan for column in c.colspan]
    rows, columns = cells[0].get_gridspec().get_geometry()
    assert sorted(covered) == [(row, column) for row in range(rows) for column in range(columns)]


@pytest.mark.parametrize("length", [3, 120])
@pytest.mark.parametrize("n", [1, 2, 8, 30, 100])
def test_the_legend_names_every_run_within_the_picture(n, length):
    stems = [f"{'_$'[i % 2]}{i}-".ljust(length, "x") for i in range(n)]
    runs = {stem: {"main/loss": ([1, 2], [i, 1]), "lr": ([1, 2], [i, 2])} for i, stem in enumerate(stems)}
    figure = drawn(runs)
    box, page = figure.legends[0].get_window_extent(), figure.bbox
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= page.x1 and box.y1 <= figure.axes[-1].bbox.y0
    told = names(figure)
    lines = [line for lines in curves.panels(runs).values() for line in lines]
    assert len(set(told)) == len(told) and {text.replace("\n", "") for text in told} == {line.label for line in lines}
    assert n == 1 or all(sum(stem.split("-")[0] + "-" in text for text in told) >= 1 for stem in stems)
    assert all(not text.get_parse_math() for text in figure.legends[0].get_texts())


def test_long_names_that_differ_in_the_middle_are_shortened_around_it():
    stems = [f"{'a' * 60}{i}{'b' * 60}" for i in range(3)]
    figure = drawn({stem: {"main/loss": ([1, 2], [1, 2])} for stem in stems})
    assert names(figure) == [f"aaaaaa…aaa{i}bbbbbb…bbb training" for i in range(3)]


@pytest.mark.parametrize(("n", "twins"), [(7, 0), (12, 0), (42, 0), (50, 8)])
def test_runs_differ_by_colour_and_dash_and_what_does_not_is_said(n, twins):
    keys = ["main/loss", "validation/main/loss"]
    figure = drawn({f"run{i}": {key: ([1, 2], [i, 1]) for key in keys} for i in range(n)})
    found = curves.panels({f"run{i}": {key: ([1, 2], [i, 1]) for key in keys} for i in range(n)})
    for lines in found.values():
        assert len(lines) - len({(line.colour, line.dash) for line in lines}) == twins
    assert titles(figure) == (["loss"] if n == 7 else ["loss (training)", "loss (validation)"])
    note = figure.legends[0].get_title().get_text()
    assert note == (f"{twins} curves have the colour and dash of another: draw fewer at a time" if twins else "")


# -- values that cannot be shown as they are


def test_nan_is_a_gap_with_a_mark_and_infinity_another_mark():
    axes = one([1, NAN, 3, INF, 2, -INF, 1])
    line = labelled(axes)[0]
    assert np.isfinite(line.get_ydata()).tolist() == [True, False, True, False, True, False, True]
    assert marks(axes, "X") == [[2]] and sorted(marks(axes, curves.INFINITE)) == [[4], [6]]
    assert names(axes.figure) == ["training", "NaN or infinite", "infinite"]
    assert axes.get_ylim()[0] < 1 and 3 < axes.get_ylim()[1] < 4


def test_a_point_between_gaps_and_values_that_are_all_nan_are_seen():
    axes = one([NAN, 0.5, NAN] * 40)
    assert len(marks(axes, "o")[0]) == 40
    axes = one([NAN, NAN])
    assert notes(axes) == "no finite value" and marks(axes, "X") == [[1, 2]] and not len(axes.get_yticks())


def test_a_lone_point_is_seen_with_one_tick():
    axes = one([0.3])
    assert labelled(axes)[0].get_marker() == "o" and axes.get_xticks().tolist() == [1]
    low, high = axes.get_ylim()
    assert low < 0.3 < high


def test_rounding_is_no_curve():
    axes = one(0.3 + 1e-12 * np.array([0, 1, 0.5, 1, 0]))
    low, high = axes.get_ylim()
    assert low < 0.29 and high > 0.31 and notes(axes) == "constant but for 1e-12"
    assert axes.yaxis.get_offset_text().get_text() == "" and "0.300" in [
        text.get_text() for text in axes.get_yticklabels()
    ]


@pytest.mark.parametrize("n", [12, 1000])
def test_a_spike_is_cut_off_and_said(n):
    y = 1 + 0.1 * np.sin(np.arange(n))
    y[n // 2] = 1e6
    axes = one(y)
    assert axes.get_ylim()[1] < 2 and notes(axes) == "1 point above the range, up to 1e+06"
    assert marks(axes, "^") == [[n // 2 + 1]]
    axes = one(y, log_scale=True)
    assert axes.get_yscale() == "log" and axes.get_ylim()[1] > 1e6 and notes(axes) == ""
    axes = one(-y)
    assert axes.get_ylim()[0] > -2 and notes(axes) == "1 point below the range, down to -1e+06"


@pytest.mark.parametrize(
    "y",
    [
        [2.3, *([0.1, 0.09, 0.08, 0.07] * 5)],  # a loss that falls at once
        list(10 ** np.linspace(2, -3, 200)),
        [0.1] * 10 + [0.2] + [0.1] * 10,
        [0.0] * 10 + [1.0] + [0.0] * 10,
        [1.0, 1.1] * 20 + [100.0],  # the end counts as it is
        [1, 1e6, 1],
        [],
    ],
)
def test_what_is_no_lone_spike_is_shown_whole(y):
    axes = one(y)
    assert "range" not in notes(axes)
    assert not y or (axes.get_ylim()[0] < min(y) and axes.get_ylim()[1] > max(y))


def test_values_that_have_no_logarithm_are_counted():
    axes = one([-1.0, 0.0, 1.0, 10.0], log_scale=True)
    assert notes(axes) == "2 points at or below 0 not shown" and not marks(axes, "X")
    axes = one([-1.0, -2.0], log_scale=True)
    assert axes.get_yscale() == "linear" and notes(axes) == "no value above 0: not logarithmic"


# -- long curves


def test_noise_has_a_smoothed_line_over_all_its_points():
    y = noisy(1000)
    axes = one(y)
    pale, line = axes.lines[:2]
    assert pale.get_alpha() < 0.5 and pale.get_ydata().tolist() == y.tolist()
    x, smoothed = line.get_xdata(), line.get_ydata()
    there = np.isfinite(smoothed)
    assert np.abs(smoothed - 2 * np.exp(-3 * x / 1000))[there].max() < 0.15
    assert x[there].min() > 1 and x[there].max() < 1000  # no ends are invented
    assert axes.figure.legends[0].get_title().get_text() == curves.SMOOTHING


def test_what_is_no_noise_is_not_smoothed():
    for y in (np.repeat([0.1, 0.01], 500), np.cos(np.arange(1000) / 20), noisy(60)):
        axes = one(y)
        assert labelled(axes)[0].get_ydata().tolist() == y.tolist()
        assert axes.figure.legends[0].get_title().get_text() == ""


def test_a_very_long_curve_is_thinned_and_keeps_its_peaks_ends_and_gaps():
    y = noisy(200_000)
    y[[777, 150_001]] = -1.5, 4.0
    y[100_000] = NAN
    axes = one(y)
    x, shown = axes.lines[0].get_data()
    assert len(x) < 5000 and {1, 778, 150_002, 200_000} <= set(x.tolist())
    assert math.isnan(shown[x == 100_001][0]) and marks(axes, "X") == [[100_001]]
    assert axes.get_ylim()[0] < -1.5 and axes.get_ylim()[1] > 4


# -- logs


def log_of(folder, entries):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log").write_text(json.dumps([{"iteration": 5 * i, "epoch": i, **e} for i, e in enumerate(entries, 1)]))
    return folder / "log"


def test_null_is_a_gap_and_a_missing_key_is_no_point(tmp_path):
    log = plot_log.read_log(log_of(tmp_path, [{"a": 1, "b": 2}, {"a": None}, {"a": 3, "b": 4}]))
    found, told = plot_log.read_curves({"run": log}, None, "epoch")
    assert found["run"]["b"] == ([1, 3], [2, 4]) and told == []
    x, y = found["run"]["a"]
    assert x == [1, 2, 3] and math.isnan(y[1])


def test_within_an_epoch_x_comes_from_the_iteration():
    entries = [{"iteration": i, "epoch": i // 25} for i in range(10, 101, 10)]
    assert plot_log.positions(entries, "epoch") == [i / 25 for i in range(10, 101, 10)]
    changed = [*entries, {"iteration": 101, "epoch": 9}]  # no length of an epoch fits
    assert plot_log.positions(changed, "epoch") == [entry["epoch"] for entry in changed]


def test_a_key_that_cannot_be_drawn_is_said(tmp_path, capsys):
    entry = {"main/loss": None, "main/accuracy": 0.5, "note": "hello", "list": [1], "flag": True}
    path = log_of(tmp_path, [entry, {**entry, "epoch": None}])
    plot_log.main([str(path), "-o", str(tmp_path / "c.png")])
    told = capsys.readouterr().err
    assert "main/loss is NaN or infinite in all its 1 entries." in told
    assert "note is not drawn: 'hello' is no number." in told and "list is not" in told and "flag is not" in told
    assert "1 entries have no 'epoch' and are not drawn." in told
    with pytest.raises(SystemExit):
        plot_log.main([str(path), "--keys", "main/loss", "note", "-o", str(tmp_path / "d.png")])
    told = capsys.readouterr().err
    assert "the logs hold nothing to draw" in told and "main/loss is NaN" in told and not (tmp_path / "d.png").exists()


def test_a_run_that_lacks_a_key_is_named(tmp_path, capsys):
    paths = [str(log_of(tmp_path / name, [{name: 1.0}])) for name in "ab"]
    plot_log.main([*paths, "--keys", "a", "-o", str(tmp_path / "c.png")])
    told = capsys.readouterr().err
    assert "there is no a in b." in told and "nothing of b is drawn." in told


def test_a_run_in_its_first_epoch_is_drawn_over_iterations(tmp_path, monkeypatch):
    seen = []
    draw = curves.draw
    monkeypatch.setattr(curves, "draw", lambda *args, **kwargs: seen.append(args) or draw(*args, **kwargs))
    path = log_of(tmp_path, [{"a": 1, "epoch": 0}, {"a": 2, "epoch": 0}])
    plot_log.main([str(path), "-o", str(tmp_path / "c.png"), "--log-scale"])
    assert seen[0] == ({tmp_path.name: {"a": ([5, 10], [1, 2])}}, "iteration")


# -- PlotReport


def plotted(run, *args, **options):
    """What PlotReport draws at last: by key, x and y."""
    figures = []

    def keep(figure, axes, summary):
        figures.append({line.get_label(): (line.get_xdata(), line.get_ydata()) for line in labelled(axes)})

    run.extend(extensions.PlotReport(*args, postprocess=keep, **options))
    run.run()
    return figures[-1]


def test_curves_drawn_seldom_show_all_points_of_the_log(tmp_path):
    run = make_run(tmp_path, (60, "epoch"))
    run.extend(extensions.LogReport(trigger=(10, "iteration")))
    x, y = plotted(run, ["main/loss"], trigger=(50, "iteration"))["main/loss"]
    log = run.get_extension("LogReport").log
    assert x.tolist() == [*range(10, 101, 10)]
    assert y.tolist() == [entry["main/loss"] for entry in log][:10]


def test_entries_of_one_epoch_do_not_make_a_sawtooth_over_epochs(tmp_path):
    run = make_run(tmp_path, (4, "epoch"))
    run.extend(extensions.LogReport(trigger=(1, "iteration")))
    x, _ = plotted(run, ["main/loss"], x_key="epoch")["main/loss"]
    assert x.tolist() == [1, 2, 3, 4]


def test_curves_drawn_often_have_the_mean_of_each_interval(tmp_path):
    seen = []
    run = make_run(tmp_path, (30, "epoch"))
    run.extend(extensions.LogReport(trigger=(50, "iteration")))
    run.extend(lambda trainer: seen.append(float(trainer.observation["main/loss"])), name="seen")
    x, y = plotted(run, ["main/loss"], trigger=(10, "iteration"))["main/loss"]
    n = len(x)
    assert x.tolist() == [10 * i for i in range(1, n + 1)] and n >= 5
    assert y == pytest.approx(np.reshape(seen[: 10 * n], (n, 10)).mean(1))


def test_a_misspelt_key_beside_a_good_one_is_warned_of_once(run):
    run.extend(extensions.PlotReport(["main/loss", "main/los"]))
    with pytest.warns(UserWarning, match=r"plot.png lacks a curve: no value of \['main/los'\] came with") as told:
        run.run()
    assert len(told) == 1


def test_nan_and_infinity_of_a_run_are_marked(run):
    values = iter([NAN, INF, 1.0, 2.0] * 10)
    run.extend(lambda trainer: trainer.observation.update(x=next(values)), name="x", priority=300)
    figures = []
    plot = extensions.PlotReport("x", trigger=(1, "iteration"), postprocess=lambda figure, *_: figures.append(figure))
    run.extend(plot)
    run.run()
    assert marks(figures[-1].axes[0], "X")[0][0] == 1 and marks(figures[-1].axes[0], curves.INFINITE)[0][0] == 2
    assert names(figures[-1]) == ["x", "NaN or infinite", "infinite"]


def test_what_a_function_of_one_s_own_adds_stands_in_the_legend_as_formula(run):
    figures = []

    def add(figure, axes, summary):
        axes.axhline(0.5, label=r"$\alpha$")
        figures.append(figure)

    run.extend(extensions.PlotReport(["main/loss", "main/accuracy"], postprocess=add))
    run.run()
    assert names(figures[-1]) == ["main/loss", "main/accuracy", r"$\alpha$"] and len(figures[-1].axes) == 1
    assert [text.get_parse_math() for text in figures[-1].legends[0].get_texts()] == [False, False, True]


def test_all_panels_have_one_range_of_x():
    figure = curves.draw(
        {"": {"main/loss": ([1, 2, 12], [3, 2, 1]), "validation/main/accuracy": ([10, 12], [0, 1])}}, "epoch"
    )
    first, second = (axes.get_xlim() for axes in figure.axes)
    assert first == second and first[0] < 1 and first[1] > 12
