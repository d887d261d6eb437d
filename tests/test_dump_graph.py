"""The graph of a model's calls."""

import re
import shutil
import subprocess

import pytest
import torch
from helpers import equal, make_data, make_run

import extensions
from trainer import Classifier, Extension, StandardUpdater, Trainer
from trainer.iterators import SerialIterator


def run_of(predictor, out, **kwargs):
    model = Classifier(predictor)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return Trainer(StandardUpdater(SerialIterator(make_data(), 5), optimizer, model=model, **kwargs), (2, "epoch"), out)


def hooks(model):
    return sum(len(module._forward_hooks) for module in model.modules())


def read(path):
    """Returns the labels of the nodes and the edges of a DOT file, and checks each of its lines."""
    first, style, *lines, last = path.read_text().splitlines()
    assert first.startswith('digraph "') and style == "  node [shape=box];" and last == "}"
    labels, edges = {}, []
    for line in lines:
        if node := re.fullmatch(r'  (\d+) \[label="((?:[^"\\]|\\.)*)"\];', line):
            labels[int(node[1])] = node[2].replace(r"\n", "\n")
        else:
            edges.append(tuple(map(int, re.fullmatch(r"  (\d+) -> (\d+);", line).groups())))
    assert all(a in labels and b in labels for a, b in edges)
    return list(labels.values()), edges


def test_every_call_is_a_node_and_edges_follow_their_order(tmp_path):
    relu = torch.nn.ReLU()
    run = run_of(torch.nn.Sequential(torch.nn.Linear(2, 4), relu, torch.nn.Linear(4, 3), relu), tmp_path)
    run.extend(extensions.DumpGraph("main/loss"))
    run.run()
    labels, edges = read(tmp_path / "cg.dot")
    assert labels == [
        "main/predictor/0\nLinear\n(5, 4)",
        "main/predictor/1\nReLU\n(5, 4)",
        "main/predictor/2\nLinear\n(5, 3)",
        "main/predictor/1\nReLU\n(5, 3)",
        "main/predictor\nSequential\n(5, 3)",
        "main\nClassifier\n()",
    ]
    assert edges == [(i, i + 1) for i in range(5)]
    assert hooks(run.updater.get_model("main")) == 0


class Changing(torch.nn.Module):
    """Calls another module in every iteration but the first, and returns more than a tensor."""

    def __init__(self):
        super().__init__()
        self.first, self.then, self.calls = torch.nn.Sigmoid(), torch.nn.Tanh(), 0
        self.weight = torch.nn.Linear(2, 3)
        self.parts = Parts()

    def forward(self, x):
        self.calls += 1
        return self.parts((self.first if self.calls == 1 else self.then)(self.weight(x)))["y"][0]


class Parts(torch.nn.Module):
    def forward(self, x):
        return {"y": (x, [x[0], "text"]), "none": None}


def test_only_the_first_iteration_is_drawn(tmp_path):
    run = run_of(Changing(), tmp_path)
    counts, written = [], []
    run.extend(extensions.dump_graph("main/loss", filename="test.dot"))
    run.extend(lambda t: counts.append(hooks(t.updater.get_model("main"))), name="count")
    run.extend(lambda t: written.append((tmp_path / "test.dot").stat().st_mtime_ns), name="time")
    run.run()
    text = (tmp_path / "test.dot").read_text()
    assert "Sigmoid" in text and "Tanh" not in text
    assert counts == [0, 0, 0, 0] and len(set(written)) == 1
    assert run.get_extension("dump_graph").trigger.finished and run.get_extension("dump_graph").priority == 100


def test_shapes_are_those_of_the_tensors_in_what_is_returned(tmp_path):
    run = run_of(Changing(), tmp_path)
    run.extend(extensions.DumpGraph())
    run.run()
    assert r'[label="main/predictor/parts\nParts\n(5, 3)\n(3,)"]' in (tmp_path / "cg.dot").read_text()


def test_calls_of_an_evaluation_and_of_earlier_iterations_are_not_drawn(tmp_path):
    run = run_of(Changing(), tmp_path)
    model = run.updater.get_model("main")
    run.extend(extensions.Evaluator(SerialIterator(make_data(), 5, repeat=False), model), trigger=(1, "iteration"))
    run.extend(extensions.DumpGraph(), trigger=(3, "iteration"))
    run.run()
    labels, _ = read(tmp_path / "cg.dot")
    assert [label.split("\n")[1] for label in labels] == ["Linear", "Tanh", "Parts", "Changing", "Classifier"]


@pytest.mark.parametrize("k", [1, 2, 3])
def test_a_resumed_run_writes_no_second_graph(tmp_path, k):
    def prepare(out):
        run = make_run(out)
        run.extend(extensions.DumpGraph())
        run.extend(extensions.snapshot(filename="s{.updater.iteration}"), trigger=(1, "iteration"))
        run.extend(lambda t: seen.append({key: float(value) for key, value in t.observation.items()}), name="see")
        return run

    seen = []
    whole = prepare(tmp_path)
    whole.run()
    expected, seen = seen, []
    resumed = prepare(tmp_path / "resumed")
    resumed.resume(tmp_path / f"s{k}")
    resumed.run()
    assert seen == expected[k:] and not (tmp_path / "resumed" / "cg.dot").exists()
    assert hooks(resumed.updater.get_model("main")) == 0
    assert equal(*(run.state_dict()["extensions"]["dump_graph"] for run in (whole, resumed)))


def test_hooks_are_taken_away_from_a_run_that_ends_before_it_is_called(run, tmp_path):
    class Fail(Extension):
        priority = 1000

        def __call__(self, trainer):
            assert hooks(trainer.updater.get_model("main")) == 2
            raise RuntimeError("early")

    run.extend(extensions.DumpGraph())
    run.extend(Fail())
    with pytest.raises(RuntimeError, match="early"):
        run.run(show_loop_exception_msg=False)
    assert hooks(run.updater.get_model("main")) == 0 and list(tmp_path.iterdir()) == []


ODD = ['a"b', "back\\slash", "back\\", "new\nline", "\\N", "<b>", "{|}", "ö 鎖", "-> x;", " "]


def odd_run(out):
    """A model whose modules bear the oddest of names."""
    predictor = torch.nn.Sequential(torch.nn.Linear(2, 3))
    for name in ODD:
        predictor.add_module(name, type(name, (torch.nn.Identity,), {})())
    run = run_of(predictor, out)
    run.extend(extensions.DumpGraph('main/"loss'))
    return run


def test_odd_names_are_escaped(tmp_path):
    odd_run(tmp_path).run()
    labels, edges = read(tmp_path / "cg.dot")
    assert len(labels) == len(ODD) + 3 and len(edges) == len(labels) - 1
    assert labels[1] == 'main/predictor/a\\"b\na\\"b\n(5, 3)' and labels[3].startswith(
        "main/predictor/back\\\\\nback\\\\\n"
    )


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
def test_graphviz_draws_it(tmp_path):
    odd_run(tmp_path).run()
    done = subprocess.run(["dot", "-Tsvg", tmp_path / "cg.dot"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "" and "</svg>" in done.stdout and "鎖" in done.stdout


def test_a_model_that_is_not_called_is_an_error(tmp_path):
    weight = torch.zeros(2, 3, requires_grad=True)
    run = run_of(
        torch.nn.Linear(2, 3), tmp_path, loss_func=lambda x, t: torch.nn.functional.cross_entropy(x @ weight, t)
    )
    run.extend(extensions.DumpGraph())
    with pytest.raises(
        RuntimeError, match="saw no call of a module of 'main/loss', as when the model is compiled; draw the"
    ):
        run.run(show_loop_exception_msg=False)
    assert hooks(run.updater.get_model("main")) == 0


def test_bad_names_are_refused(run):
    with pytest.raises(TypeError, match="root_name must be the name of an observation, got None; e.g. 'main/loss'"):
        extensions.DumpGraph(None)
    run.extend(extensions.DumpGraph("mian/loss"))
    with pytest.raises(ValueError, match=r"root_name 'mian/loss' must begin with a model's name: \['main'\]"):
        run.run()
