"""One batch, one update."""

import copy

import pytest
import torch
from helpers import Augmented, equal, make_data, make_run
from torch.utils.data import DataLoader, default_collate

import extensions
from trainer import (
    Classifier,
    Observation,
    Ratio,
    Reporter,
    StandardUpdater,
    Trainer,
    Weighted,
    concat_examples,
    report,
)
from trainer.iterators import MultiprocessIterator, SerialIterator
from trainer.summary import averaged


def by_hand(model, optimizer, iterator, n):
    """The loop that everybody has written."""
    for _ in range(n):
        x, t = torch.utils.data.default_collate(next(iterator))
        loss = torch.nn.functional.cross_entropy(model(x), t)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_training_equals_a_hand_written_loop_to_the_bit():
    predictor = torch.nn.Linear(2, 3)
    other = copy.deepcopy(predictor)
    by_hand(other, torch.optim.Adam(other.parameters()), SerialIterator(make_data(), 4), 7)
    updater = StandardUpdater(
        SerialIterator(make_data(), 4), torch.optim.Adam(predictor.parameters()), model=Classifier(predictor)
    )
    for _ in range(7):
        updater.update()
    assert updater.iteration == 7
    assert equal(predictor.state_dict(), other.state_dict())


def test_a_data_loader_will_do(tmp_path):
    model = Classifier(torch.nn.Linear(2, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    updater = StandardUpdater(DataLoader(make_data(), 4, shuffle=True), optimizer, model=model)
    run = Trainer(updater, (2, "epoch"), out=tmp_path)
    weights = []
    run.extend(lambda t: weights.append(t.observation.weight), name="weights")
    run.run()
    assert updater.iteration == 6
    assert weights == [4, 4, 2] * 2


def test_iteration_is_the_count_of_completed_updates_inside_an_update():
    seen = []

    class Custom(StandardUpdater):
        def update_core(self):
            seen.append(self.iteration)
            super().update_core()

    model = Classifier(torch.nn.Linear(2, 3))
    updater = Custom(SerialIterator(make_data(), 4), torch.optim.SGD(model.parameters()), model=model)
    updater.update(), updater.update()
    assert seen == [0, 1]


def test_tuples_dicts_and_single_values_are_passed_as_such():
    calls = []
    parameter = torch.nn.Parameter(torch.ones(()))

    def loss(*args, **kwargs):
        calls.append((len(args), sorted(kwargs)))
        return parameter * 1

    model = torch.nn.Module()
    model.p = parameter
    for data in ([(1.0, 2.0, 3.0)], [{"x": 1.0, "t": 2}], [1.0]):
        optimizer = torch.optim.SGD([parameter], lr=0.1)
        StandardUpdater(SerialIterator(data, 1), optimizer, model=model, loss_func=loss).update()
    assert calls == [(3, []), (0, ["t", "x"]), (1, [])]


def test_the_converter_is_called_once_on_whatever_comes():
    seen = []

    def converter(batch, device):
        seen.append((type(batch), device))
        return torch.zeros(4, 2), torch.zeros(4, dtype=torch.long)

    for iterator in (SerialIterator(make_data(), 4), MultiprocessIterator(make_data(), 4, n_processes=0)):
        model = Classifier(torch.nn.Linear(2, 3))
        optimizer = torch.optim.SGD(model.parameters())
        StandardUpdater(iterator, optimizer, model=model, converter=converter).update()
    assert seen == [(list, torch.device("cpu")), (tuple, torch.device("cpu"))]


def test_the_progress_is_that_of_the_main_iterator(run):
    updater = run.updater
    updater.update()
    assert (updater.epoch, updater.epoch_detail, updater.previous_epoch_detail) == (0, 0.5, 0.0)
    assert (updater.is_new_epoch, updater.epoch_progress()) == (False, (5, 10))
    assert updater.get_iterator("main").epoch_detail == 0.5
    assert set(updater.get_all_optimizers()) == set(updater.get_all_models()) == {"main"}


def test_several_named_parts_are_kept_and_saved():
    models = {"main": Classifier(torch.nn.Linear(2, 3)), "other": torch.nn.Linear(1, 1)}
    optimizers = {name: torch.optim.Adam(m.parameters()) for name, m in models.items()}
    updater = StandardUpdater(
        {"main": SerialIterator(make_data(), 4), "second": SerialIterator(range(3), 1)},
        optimizers,
        model=models,
    )
    updater.update()
    state = updater.state_dict()
    assert set(state["iterator"]) == {"main", "second"}
    assert set(state["model"]) == set(state["optimizer"]) == {"main", "other"}


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_trains_and_saves_its_scaler(tmp_path, precision):
    run = make_run(tmp_path, precision=precision)
    before = copy.deepcopy(run.updater.get_model("main").state_dict())
    run.run()
    assert not equal(run.updater.get_model("main").state_dict(), before)
    state = run.updater.state_dict()
    assert (state["scaler"] is not None) == (precision == "fp16")
    resumed = make_run(tmp_path, precision=precision).updater
    resumed.load_state_dict(state)
    assert equal(resumed.state_dict(), state)


def test_wrong_parts_are_refused_with_their_names():
    iterator, model = SerialIterator(make_data(), 4), Classifier(torch.nn.Linear(2, 3))
    optimizer = torch.optim.SGD(model.parameters())
    with pytest.raises(TypeError, match="optimizer 'main' must be a torch.optim.optimizer.Optimizer, got Linear"):
        StandardUpdater(iterator, torch.nn.Linear(1, 1), model=model)
    with pytest.raises(TypeError, match="model 'main' must be a torch.nn.modules.module.Module, got function"):
        StandardUpdater(iterator, optimizer, model=lambda x: x)
    with pytest.raises(ValueError, match="the iterators \\['a'\\] lack 'main'"):
        StandardUpdater({"a": iterator}, optimizer, model=model)
    with pytest.raises(ValueError, match="precision must be one of fp32, bf16, fp16, got 'fp8'"):
        StandardUpdater(iterator, optimizer, model=model, precision="fp8")


def test_a_changed_model_lists_the_keys(run, tmp_path):
    state = run.updater.state_dict()
    other = make_run(tmp_path)
    other.updater.get_model("main").predictor = torch.nn.Sequential(torch.nn.Linear(2, 3))
    with pytest.raises(RuntimeError, match=r"Missing key\(s\) in state_dict: \"predictor.0.weight\""):
        other.updater.load_state_dict(state)
    state["model"]["second"] = {}
    with pytest.raises(ValueError, match="the snapshot has models \\['main', 'second'\\], the updater \\['main'\\]"):
        run.updater.load_state_dict(state)


def test_dropout_does_not_depend_on_the_number_of_workers():
    def train(iterator):
        torch.manual_seed(0)
        net = torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(192, 8), torch.nn.Dropout(), torch.nn.Linear(8, 3)
        )
        model = Classifier(net)
        updater = StandardUpdater(iterator, torch.optim.Adam(net.parameters()), model=model)
        for _ in range(6):
            updater.update()
        updater.finalize()
        return net.state_dict()

    expected = train(SerialIterator(Augmented(), 8))
    for n in (0, 1, 2, 4):
        assert equal(train(MultiprocessIterator(Augmented(), 8, n_processes=n)), expected)


# -- several optimizers


class Pair(StandardUpdater):
    """Two players, as in a GAN: each has its loss and its optimizer."""

    def update_core(self):
        x, t = self.next_batch()
        for name, model in self.get_all_models().items():
            self.get_optimizer(name).zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x), t)
            report({"loss": loss}, model)
            self.backward(loss)
            self.step(name)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_two_optimizers_of_any_names_train_and_resume_exactly(tmp_path, precision):
    def make(stop):
        torch.manual_seed(0)
        models = {"gen": torch.nn.Linear(2, 3), "dis": torch.nn.Linear(2, 3)}
        optimizers = {name: torch.optim.Adam(m.parameters()) for name, m in models.items()}
        iterator = SerialIterator(make_data(), 4)
        updater = Pair(iterator, optimizers, model=models, precision=precision, clip_norm=1.0)
        return Trainer(updater, (stop, "iteration"), out=tmp_path)

    whole, first, resumed = make(6), make(3), make(6)
    whole.run(), first.run()
    resumed.load_state_dict(first.state_dict())
    resumed.run()
    assert sorted(resumed.observation) == ["dis/loss", "gen/loss"]
    assert equal(resumed.updater.state_dict(), whole.updater.state_dict())
    with pytest.raises(ValueError, match=r"there is no optimizer 'main'; there are \['dis', 'gen'\]"):
        whole.updater.get_optimizer("main")


# -- accumulation and clipping


class Counted(torch.nn.Module):
    """Reports one value of each kind there is."""

    def __init__(self):
        super().__init__()
        self.predictor = torch.nn.Linear(2, 3).double()

    def forward(self, x, t):
        y = self.predictor(x.double())
        loss = torch.nn.functional.cross_entropy(y, t)
        counted = torch.count_nonzero(t != -100)
        correct = torch.count_nonzero(y.argmax(1) == t)
        nothing = (loss * float("nan"), 0)
        report({"loss": loss, "hits": Ratio(correct, counted), "none": nothing, "size": len(x), "pair": (1.0, 2)}, self)
        return loss


def accumulated(accumulate, batch_size, n=24, **kwargs):
    torch.manual_seed(0)
    model = Counted()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    iterator = SerialIterator(make_data(24), batch_size)
    return StandardUpdater(iterator, optimizer, model=model, accumulate=accumulate, **kwargs)


def observed(updater):
    reporter = Reporter()
    reporter.add_model("main", updater.get_model("main"))
    with reporter.scope(Observation()) as observation:
        updater.update()
    return {key.removeprefix("main/"): value for key, value in observation.items()}


def test_accumulated_batches_are_as_one_batch():
    whole, parts = accumulated(1, 12), accumulated(3, 4)
    for _ in range(4):
        a, b = observed(whole), observed(parts)
        assert parts.batch_size == whole.batch_size == 12
        assert (parts.epoch_detail, parts.is_new_epoch, parts.previous_epoch_detail) == (
            whole.epoch_detail,
            whole.is_new_epoch,
            whole.previous_epoch_detail,
        )
        (ratio_a, ratio_b) = (o["hits"] for o in (a, b))
        assert ratio_a == ratio_b  # exactly correct / total
        assert float(b["loss"]) == pytest.approx(float(a["loss"]), rel=1e-12)
        assert (float(b["size"]), float(b["size"].weight), float(b["pair"]), float(b["pair"].weight)) == (4, 12, 1, 6)
        assert float(b["none"].weight) == 0
    for p, q in zip(whole.get_model("main").parameters(), parts.get_model("main").parameters(), strict=True):
        assert torch.allclose(p, q, rtol=1e-12)
    assert parts.iteration == whole.iteration == 4


def test_a_short_batch_weighs_less_when_it_is_accumulated():
    torch.manual_seed(0)
    model = Counted()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = DataLoader(make_data(10), 6)  # 6 and 4
    updater = StandardUpdater(loader, optimizer, model=model, accumulate=2)
    whole = accumulated(1, 10)
    whole.get_iterator("main").finalize()
    whole = StandardUpdater(DataLoader(make_data(10), 10), whole.get_optimizer("main"), model=whole.get_model("main"))
    updater.update(), whole.update()
    for p, q in zip(whole.get_model("main").parameters(), model.parameters(), strict=True):
        assert torch.allclose(p, q, rtol=1e-12)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_run_that_accumulates_resumes_exactly(tmp_path, precision):
    def make(stop):
        run = make_run(tmp_path, (stop, "iteration"), accumulate=3, precision=precision, clip_value=0.1)
        run.extend(extensions.LogReport(trigger=(1, "iteration"), filename=None))
        return run

    whole, first, resumed = make(7), make(4), make(7)
    whole.run(), first.run()
    resumed.load_state_dict(first.state_dict())
    resumed.run()
    assert equal(resumed.updater.state_dict(), whole.updater.state_dict())
    logs = [[entry["main/loss"] for entry in r.get_extension("LogReport").log] for r in (whole, resumed)]
    assert logs[0] == logs[1] and len(logs[0]) == 7
    assert whole.updater.epoch_detail == 7 * 3 * 5 / 10


def gradient_norm(updater):
    return torch.nn.utils.get_total_norm([p.grad for p in updater.get_model("main").parameters()])


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_norm_of_the_gradient_is_clipped(tmp_path, precision):
    free = make_run(tmp_path, precision=precision).updater
    bound = make_run(tmp_path, precision=precision, clip_norm=0.1).updater
    loose = make_run(tmp_path, precision=precision, clip_norm=1e6).updater
    free.update(), bound.update(), loose.update()
    assert gradient_norm(free) > 0.1
    assert gradient_norm(bound) == pytest.approx(0.1, rel=1e-3)
    assert equal(loose.get_model("main").state_dict(), free.get_model("main").state_dict())


def test_the_elements_of_the_gradient_are_clipped(tmp_path):
    updater = make_run(tmp_path, clip_value=0.01).updater
    updater.update()
    largest = max(float(p.grad.abs().max()) for p in updater.get_model("main").parameters())
    assert largest == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(accumulate=0), "accumulate must be 1 or more, got 0"),
        (dict(clip_norm=0), "clip_norm must be positive, or None for no clipping, got 0"),
        (dict(clip_value=-1.0), "clip_value must be positive, or None for no clipping, got -1.0"),
    ],
)
def test_numbers_out_of_range_are_refused(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_run(tmp_path, **arguments)


def test_converter_device_and_loss_func_may_stand_in_chainer_s_places():
    model = Classifier(torch.nn.Linear(2, 3))
    optimizer = torch.optim.SGD(model.parameters())
    updater = StandardUpdater(SerialIterator(make_data(), 4), optimizer, concat_examples, "cpu", model, model=model)
    updater.update()
    assert (updater.converter, updater.device, updater.loss_func) == (concat_examples, torch.device("cpu"), model)


# -- torch.compile


def test_a_compiled_predictor_keeps_names_weights_and_values(tmp_path):
    plain, compiled = make_run(tmp_path / "a"), make_run(tmp_path / "b")
    compiled.updater.get_model("main").predictor.compile(backend="aot_eager")
    plain.run(), compiled.run()
    assert equal(compiled.updater.state_dict()["model"], plain.updater.state_dict()["model"])
    assert sorted(compiled.observation) == sorted(plain.observation) == ["main/accuracy", "main/loss"]


def test_a_report_inside_a_compiled_predictor_is_refused(tmp_path):
    class Reporting(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(2, 3)

        def forward(self, x):
            y = self.linear(x)
            report({"mean": y.mean()}, self)
            return y

    model = Classifier(Reporting())
    optimizer = torch.optim.SGD(model.parameters())
    run = Trainer(StandardUpdater(SerialIterator(make_data(), 5), optimizer, model=model), (1, "epoch"), out=tmp_path)
    model.predictor.compile(backend="eager")
    with pytest.raises(RuntimeError, match=r"main/predictor reports \['mean'\] and is compiled"):
        run.run(show_loop_exception_msg=False)


def test_what_torch_compile_wraps_is_refused(tmp_path):
    model = Classifier(torch.compile(torch.nn.Linear(2, 3), backend="eager"))
    optimizer = torch.optim.SGD(model.parameters())
    message = r"model 'main' holds the result of torch.compile at 'predictor': .* place instead: predictor.compile\(\)"
    with pytest.raises(ValueError, match=message):
        StandardUpdater(SerialIterator(make_data(), 5), optimizer, model=model)


def test_a_loss_function_that_is_empty_as_a_list_is_still_one():
    class Empty(torch.nn.ModuleList):
        def forward(self, x, t):
            return (x.sum() + self.w) * 0

    loss = Empty()
    loss.w = torch.nn.Parameter(torch.zeros(()))
    model = Classifier(torch.nn.Linear(2, 3))
    optimizer = torch.optim.SGD(model.parameters())
    updater = StandardUpdater(SerialIterator(make_data(), 5), optimizer, loss_func=loss, model=model)
    assert len(loss) == 0 and updater.loss_func is loss
    updater.update()


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_hand_written_loop_of_the_updater_s_parts_is_its_update(tmp_path, precision):
    by_hand, whole = (make_run(tmp_path, precision=precision, clip_norm=0.5) for _ in range(2))
    whole.run()
    updater = by_hand.updater
    while not by_hand.finished:
        with by_hand.iteration():
            batch = updater.next_batch()
            updater.get_optimizer("main").zero_grad()
            updater.backward(updater.compute_loss(batch))
            updater.step()
    assert equal(updater.state_dict(), whole.updater.state_dict())


def test_fp16_minds_neither_plain_gradients_nor_an_optimizer_without_any(tmp_path):
    class Plain(StandardUpdater):
        def update_core(self):
            x, t = self.next_batch()
            self.get_model("main")(x, t).backward()
            self.get_optimizer("main").step()

    class Half(Pair):
        def update_core(self):
            x, t = self.next_batch()
            self.backward(torch.nn.functional.cross_entropy(self.get_model("gen")(x), t))
            self.step("gen"), self.step("dis")

    model = Classifier(torch.nn.Linear(2, 3))
    optimizer = torch.optim.SGD(model.parameters())
    plain = Plain(SerialIterator(make_data(), 5), optimizer, model=model, precision="fp16")
    models = {"gen": torch.nn.Linear(2, 3), "dis": torch.nn.Linear(2, 3)}
    optimizers = {name: torch.optim.SGD(m.parameters()) for name, m in models.items()}
    half = Half(SerialIterator(make_data(), 5), optimizers, model=models, precision="fp16")
    for updater in (plain, half):
        updater.update(), updater.update()
        assert updater.iteration == 2


def test_the_last_update_of_an_iterator_that_does_not_repeat_takes_what_is_left(tmp_path):
    torch.manual_seed(0)
    model = Counted()
    iterator = SerialIterator(make_data(10), 2, repeat=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    updater = StandardUpdater(iterator, optimizer, model=model, accumulate=2)
    run, sizes = Trainer(updater, (1, "epoch"), out=tmp_path), []
    run.extend(lambda t: sizes.append(t.updater.batch_size), name="sizes")
    run.run()
    assert sizes == [4, 4, 2] and updater.epoch == 1
    for kind in (RuntimeError, StopIteration):
        with pytest.raises(kind, match="iterator 'main' ended after 3 iterations because it does not repeat"):
            updater.update()


def test_after_a_resume_the_epoch_s_flags_are_those_of_the_last_update(tmp_path):
    first, second = make_run(tmp_path, accumulate=3).updater, make_run(tmp_path, accumulate=3).updater
    first.update()
    second.load_state_dict(first.state_dict())
    for updater in (first, second):
        assert (updater.is_new_epoch, updater.previous_epoch_detail, updater.epoch_detail) == (True, 0.0, 1.5)


def test_reports_of_several_kinds_under_one_name_are_averaged_or_left_alone():
    observations = [Observation(x=Ratio(1, 2), text=("a", "b")), Observation(x=0.25, text="c")]
    observations[1].weight = 2
    mean = averaged(observations)
    assert float(mean["x"]) == (0.5 * 2 + 0.25 * 2) / 4 and mean["text"] == "c"
    nothing = averaged([Observation(x=Weighted(torch.tensor(float("nan")), 0)), Observation(x=Weighted(3.0, 2))])
    assert float(nothing["x"]) == 3.0


def test_what_lies_below_a_compiled_module_may_not_report_and_what_lies_above_may(tmp_path):
    class Reporting(torch.nn.Linear):
        def forward(self, x):
            y = super().forward(x)
            report({"mean": y.mean()}, self)
            return y

    def run_with(compiled):
        model = Classifier(torch.nn.Sequential(Reporting(2, 3), torch.nn.ReLU()))
        optimizer = torch.optim.SGD(model.parameters())
        run = Trainer(StandardUpdater(SerialIterator(make_data(), 5), optimizer, model=model), (1, "epoch"))
        run.out = tmp_path
        compiled(model.predictor).compile(backend="eager")
        run.run(show_loop_exception_msg=False)
        return run

    with pytest.raises(RuntimeError, match=r"main/predictor/0 reports \['mean'\] and is compiled"):
        run_with(lambda predictor: predictor)
    assert "main/predictor/0/mean" in run_with(lambda predictor: predictor[1]).observation


def test_a_list_of_a_converter_is_passed_in_parts():
    def converter(batch, device):
        return default_collate(batch)

    assert isinstance(default_collate(make_data(2)), list)
    model = Classifier(torch.nn.Linear(2, 3))
    StandardUpdater(
        SerialIterator(make_data(), 4), torch.optim.SGD(model.parameters()), converter, model=model
    ).update()


def test_an_optimizer_over_other_parameters_is_refused():
    model, other = Classifier(torch.nn.Linear(2, 3)), torch.nn.Linear(2, 3)
    with pytest.raises(ValueError, match=r"optimizer 'main' has no parameter of the models \['main'\], so"):
        StandardUpdater(SerialIterator(make_data(), 5), torch.optim.SGD(other.parameters()), model=model)


def test_another_optimizer_at_a_resume_is_refused(tmp_path):
    def make(kind):
        model = Classifier(torch.nn.Linear(2, 3))
        return StandardUpdater(SerialIterator(make_data(), 5), kind(model.parameters()), model=model)

    first, second = make(torch.optim.Adam), make(torch.optim.AdamW)
    first.update()
    with pytest.raises(
        ValueError, match="the snapshot has the optimizers {'main': 'Adam'}, the updater {'main': 'AdamW'}"
    ):
        second.load_state_dict(first.state_dict())


def test_parts_that_are_not_there_are_named(run):
    for ask in (run.updater.get_model, run.updater.get_iterator, run.updater.get_optimizer, run.updater.step):
        with pytest.raises(ValueError, match=r"there is no \w+ 'mian'; there are \['main'\]"):
            ask("mian")


def test_gradients_do_not_add_up_and_an_optimizer_s_own_zero_grad_is_called():
    calls = []

    class Own(torch.optim.SGD):
        def zero_grad(self, set_to_none=True):
            calls.append("own")
            super().zero_grad(set_to_none)

    def weights(kind, patch=None, accumulate=1):
        torch.manual_seed(0)
        model = Classifier(torch.nn.Linear(2, 3))
        optimizer = kind(model.parameters(), lr=0.1)
        if patch:
            optimizer.zero_grad = patch(optimizer.zero_grad)
        iterator = SerialIterator(make_data(), 5, shuffle=False)
        updater = StandardUpdater(iterator, optimizer, model=model, accumulate=accumulate)
        for _ in range(2):
            updater.update()
        return dict(model.state_dict())

    for accumulate in (1, 2):
        expected = weights(torch.optim.SGD, accumulate=accumulate)
        assert equal(weights(Own, accumulate=accumulate), expected)
        patched = weights(torch.optim.SGD, lambda f: lambda: calls.append("patched") or f(), accumulate)
        assert equal(patched, expected)
    assert calls == ["own"] * 2 + ["patched"] * 2 + ["own"] * 2 + ["patched"] * 2
