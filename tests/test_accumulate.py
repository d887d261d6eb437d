"""Several batches are one update: it is the step of one batch, whatever each of them weighs."""

import warnings
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import extensions
from trainer import Classifier, StandardUpdater, Trainer, Weighted, concat_examples, report
from trainer.iterators import SerialIterator
from trainer.updaters import accumulate as accumulation

IGNORED = -100


def sequences(labels):
    """Samples with five labels each, of which only the first few count; ``labels`` says how many."""
    torch.manual_seed(0)
    x, t = torch.rand(len(labels), 5, 2), torch.randint(0, 3, (len(labels), 5))
    for row, n in zip(t, labels, strict=True):
        row[n:] = IGNORED
    return list(zip(x, t, strict=True))


def cross_entropy(y, t):
    return F.cross_entropy(y.flatten(0, 1), t.flatten())


def hand_made_mean(y, t):
    """A loss of one's own: its gradient is NaN, too, where nothing counts."""
    counts = (t != IGNORED).flatten()
    losses = F.cross_entropy(y.flatten(0, 1), t.flatten().clamp(min=0), reduction="none")
    return (losses * counts).sum() / counts.sum()


def updater_of(data, batch_size, accumulate, lossfun=cross_entropy, lr=1.0, momentum=0.0, **kwargs):
    torch.manual_seed(1)
    model = Classifier(nn.Linear(2, 3), lossfun, lambda y, t: 0.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)
    iterator = SerialIterator(data, batch_size, shuffle=False)
    return StandardUpdater(iterator, optimizer, model=model, accumulate=accumulate, **kwargs)


def step_of(updater, out=None):
    before = [p.detach().clone() for p in updater.get_model("main").parameters()]
    if out is None:
        updater.update()
    else:
        Trainer(updater, (1, "iteration"), out=out).run()
    return torch.cat([(p.detach() - q).flatten() for p, q in zip(updater.get_model("main").parameters(), before)])


LABELS = {"all": [5, 5, 5, 5], "few first": [1, 5, 3, 5], "none first": [0, 5, 0, 1], "none last": [2, 5, 4, 0]}


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("lossfun", [cross_entropy, hand_made_mean])
@pytest.mark.parametrize("listens", [True, False])
@pytest.mark.parametrize(
    "options",
    [{}, {"clip_norm": 0.05}, {"clip_value": 0.02}, {"precision": "fp16"}, {"precision": "fp16", "clip_norm": 0.05}],
    ids=str,
)
def test_four_batches_of_one_make_the_step_of_one_batch_of_four(tmp_path, labels, lossfun, listens, options):
    data = sequences(LABELS[labels])
    one, four = (updater_of(data, 4 // k, k, lossfun, **options) for k in (1, 4))
    a, b = (step_of(updater, tmp_path / str(k) if listens else None) for k, updater in ((1, one), (4, four)))
    assert a.norm() > 0.01
    assert torch.allclose(a, b, rtol=1e-5 if "precision" not in options else 1e-2, atol=1e-4 if options else 1e-7)
    assert four.batch_size == 4 and four.iteration == 1


def test_what_counts_is_what_a_model_in_a_wrapper_says():
    class Parallel(nn.Module):
        """As torch's DistributedDataParallel: the model is its ``module``."""

        def __init__(self, module):
            super().__init__()
            self.module = module

        def forward(self, x, t):
            return self.module(x, t)

    steps = []
    for k in (1, 4):
        inner = updater_of(sequences(LABELS["few first"]), 4 // k, k)
        model = Parallel(inner.get_model("main"))
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        steps.append(step_of(StandardUpdater(inner.get_iterator("main"), optimizer, model=model, accumulate=k)))
    assert torch.allclose(*steps, rtol=1e-5)


def test_what_counts_is_what_the_model_says_it_is(tmp_path):
    class Model(nn.Linear):
        def forward(self, x):
            n = int((x[:, 0] > 0.5).sum())
            loss = super().forward(x)[x[:, 0] > 0.5].sum() / max(n, 1)
            report({"loss": (loss, n)}, self)
            return loss

    torch.manual_seed(0)
    data = [torch.rand(2) for _ in range(12)]
    steps = []
    for k in (1, 3, 12):
        torch.manual_seed(1)
        model = Model(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        iterator = SerialIterator(data, 12 // k, shuffle=False)
        steps.append(step_of(StandardUpdater(iterator, optimizer, model=model, accumulate=k)))
    assert torch.allclose(steps[0], steps[1], rtol=1e-5) and torch.allclose(steps[0], steps[2], rtol=1e-5)


class OnDevice(torch.Tensor):
    """Stands for a tensor that the host would have to wait for."""

    is_cpu = False
    reads = 0

    def item(self):
        OnDevice.reads += 1
        return self.as_subclass(torch.Tensor).item()


@pytest.mark.parametrize("options", [{}, {"clip_norm": 0.05}, {"precision": "fp16"}], ids=str)
@pytest.mark.parametrize("labels", LABELS)
def test_what_counts_on_a_device_is_not_read_there(tmp_path, labels, options):
    class Model(Classifier):
        def forward(self, x, t):
            loss = self.lossfun(self.predictor(x), t)
            report({"loss": (loss, torch.count_nonzero(t != IGNORED).as_subclass(OnDevice))}, self)
            return loss

    data = sequences(LABELS[labels])
    one, four = updater_of(data, 4, 1, **options), updater_of(data, 1, 4, **options)
    model = four.get_model("main")
    model.__class__ = Model
    OnDevice.reads = 0
    a, b = step_of(one), step_of(four)
    assert torch.allclose(a, b, rtol=1e-5 if "precision" not in options else 1e-2, atol=1e-4 if options else 1e-7)
    assert OnDevice.reads == 0


def test_the_mean_loss_of_what_counts_on_a_device_is_a_number():
    class Model(Classifier):
        def forward(self, x, t):
            loss = self.lossfun(self.predictor(x), t)
            report({"loss": (loss, torch.count_nonzero(t != IGNORED).as_subclass(OnDevice))}, self)
            return loss

    updater = updater_of(sequences([2, 5, 0, 4]), 1, 4)
    updater.get_model("main").__class__ = Model
    batches = [(updater.next_batch(), 1) for _ in range(4)]
    loss, _ = accumulation.accumulate(updater, batches, 4, updater._reporter)
    x, t = (torch.cat(parts) for parts in zip(*[batch for batch, _ in batches], strict=True))
    with torch.no_grad():
        assert torch.allclose(loss, cross_entropy(updater.get_model("main").predictor(x), t))


class NoCopies(TorchDispatchMode):
    """Refuses to copy between the host and a device, for which CUDA would wait."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        devices = {x.device for x in (*args, result) if isinstance(x, torch.Tensor)}
        assert len(devices) < 2 or "copy" not in str(function), function
        return result


def test_numbers_are_not_copied_to_the_device():
    on_meta = torch.ones((), dtype=torch.int64, device="meta")  # of whose values nothing is known
    with pytest.raises(AssertionError, match="copy"), NoCopies():
        torch.as_tensor(1.0).to("meta", torch.float64)
    with NoCopies():
        first, share = accumulation._share(on_meta, 0.0, 4)
        first, share = accumulation._share(3, first, 4)
        mean = Weighted(on_meta.float(), 4).merge((on_meta.float(), on_meta))
        other = Weighted(0.5, on_meta).merge((0.25, on_meta))
    assert all(x.is_meta for x in (first, share, *mean, *other))


def test_without_a_word_from_the_model_each_batch_weighs_its_samples():
    class Model(nn.Linear):
        def forward(self, x):
            return super().forward(x).mean()

    torch.manual_seed(0)
    data = [torch.rand(2) for _ in range(10)]
    steps = []
    for size, k in ((10, 1), (4, 3)):  # batches of 4, 4 and 2
        torch.manual_seed(1)
        model = Model(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        iterator = SerialIterator(data, size, repeat=False, shuffle=False)
        steps.append(step_of(StandardUpdater(iterator, optimizer, model=model, accumulate=k)))
    assert torch.allclose(*steps, rtol=1e-5)


def test_an_update_in_which_nothing_counts_makes_no_step_and_says_so_once(tmp_path):
    data = sequences([3, 3, 0, 0, 0, 0, 3, 3])
    updater = updater_of(data, 1, 2, momentum=0.9)
    model = updater.get_model("main")
    seen = []
    run = Trainer(updater, (4, "iteration"), out=tmp_path)
    run.extend(lambda t: seen.append(model.predictor.weight.detach().clone()), "note")
    run.extend(extensions.ExponentialShift("lr", 0.5))
    with pytest.warns(UserWarning, match="iteration 2 makes no step.*no label counts in its 2 batches") as told:
        run.run()
    assert len(told) == 1 and updater.iteration == 4
    assert updater.get_optimizer("main").param_groups[0]["lr"] == 0.5**2  # as often as the optimizer
    assert torch.equal(seen[0], seen[1]) and torch.equal(seen[1], seen[2])  # no momentum either
    assert not torch.equal(seen[2], seen[3]) and bool(seen[3].isfinite().all())


def test_the_scaler_of_fp16_is_not_moved_by_an_update_in_which_nothing_counts():
    updater = updater_of(sequences([0, 0]), 1, 2, precision="fp16")
    with pytest.warns(UserWarning, match="makes no step"):
        updater.update()
    assert updater.scaler.state_dict()["_growth_tracker"] == 0 and updater.iteration == 1


def test_large_label_counts_do_not_overflow_in_fp16():
    torch.manual_seed(0)
    data = [(torch.rand(20_000, 2), torch.randint(0, 3, (20_000,))) for _ in range(4)]
    updater = updater_of(data, 1, 4, precision="fp16")
    assert step_of(updater).norm() > 0.01 and not updater.has_skipped(updater.get_optimizer("main"))


def test_observed_means_weigh_what_counted(tmp_path):
    data = sequences([1, 5, 0, 3])
    logs = []
    for k in (1, 4):
        run = Trainer(updater_of(data, 4 // k, k), (1, "iteration"), out=tmp_path / str(k))
        run.extend(extensions.LogReport(trigger=(1, "iteration")))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            run.run()
        logs.append(run.get_extension("LogReport").log[0]["main/loss"])
    assert logs[0] == pytest.approx(logs[1], rel=1e-6)


# -- an optimizer that evaluates the loss itself


class Noisy(nn.Module):
    def __init__(self, rate=0.5):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Dropout(rate), nn.Linear(16, 3))
        self.masks = []

    def forward(self, x, t):
        noise = torch.rand(4)
        self.masks.append(noise)
        loss = F.cross_entropy(self.net(x), t) + 0 * noise.sum()
        report({"loss": loss.detach(), "call": len(self.masks)}, self)
        return loss


def lbfgs(out, stop=3, accumulate=1, **kwargs):
    torch.manual_seed(0)
    model = Noisy()
    data = [(torch.rand(2), i % 3) for i in range(12)]
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=4)
    iterator = SerialIterator(data, 12 // accumulate, shuffle=False)
    updater = StandardUpdater(iterator, optimizer, model=model, accumulate=accumulate, **kwargs)
    run = Trainer(updater, (stop, "iteration"), out=out)
    run.extend(extensions.LogReport(trigger=(1, "iteration"), filename=None))
    return run, model


def test_lbfgs_sees_the_same_dropout_at_each_evaluation_and_reports_the_first(tmp_path):
    run, model = lbfgs(tmp_path)
    calls = []
    run.extend(lambda t: calls.append((int(t.observation["main/call"]), len(model.masks))), "calls")
    run.run()
    assert [first for first, _ in calls] == [1, *(last + 1 for _, last in calls[:-1])]
    for (first, last), (following, _) in zip(calls, [*calls[1:], (None, None)]):
        masks = model.masks[first - 1 : last]
        assert len(masks) >= 3 and all(torch.equal(masks[0], mask) for mask in masks)
        assert following is None or not torch.equal(masks[0], model.masks[following - 1])


def test_lbfgs_lowers_the_loss(tmp_path):
    run, model = lbfgs(tmp_path, 6)
    model.net[2].p = 0.0
    run.run()
    log = run.get_extension("LogReport").log
    assert log[-1]["main/loss"] < 0.9 * log[0]["main/loss"]


@pytest.mark.parametrize("accumulate", [1, 3])
def test_lbfgs_steps_without_a_trainer_as_with_one(tmp_path, accumulate):
    run, model = lbfgs(tmp_path, 1, accumulate)
    run.run()
    other, alone = lbfgs(tmp_path, 1, accumulate)
    other.updater.update()
    assert len(alone.masks) == len(model.masks) > accumulate
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), alone.parameters(), strict=True))


def test_a_warning_out_of_an_evaluation_of_lbfgs_names_the_script():
    updater = updater_of(sequences([0, 0]), 1, 2)
    optimizer = torch.optim.LBFGS(updater.get_model("main").parameters())
    updater = StandardUpdater(updater.get_iterator("main"), optimizer, model=updater.get_model("main"), accumulate=2)
    with pytest.warns(UserWarning, match="makes no step") as told:
        updater.update()
    assert told[0].filename == __file__


def test_lbfgs_draws_from_the_stream_as_one_evaluation_would(tmp_path):
    run, model = lbfgs(tmp_path, stop=2)
    run.run()
    rest = torch.rand(3)
    torch.manual_seed(0)
    model = Noisy()
    data = [(torch.rand(2), i % 3) for i in range(12)]
    x, t = torch.stack([x for x, _ in data]), torch.tensor([t for _, t in data])
    model(x, t), model(x, t)
    assert torch.equal(torch.rand(3), rest)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_lbfgs_evaluates_what_was_converted_once(tmp_path, accumulate):
    drawn, seen = [], []

    def noisy(batch, device):
        drawn.append(torch.rand(()))
        x, t = concat_examples(batch, device)
        return x + drawn[-1], t

    run, model = lbfgs(tmp_path, 1, accumulate, converter=noisy)
    model.register_forward_pre_hook(lambda module, batch: seen.append(batch[0]))
    run.run()
    assert len(drawn) == accumulate and len(seen) >= 3 * accumulate
    assert all(torch.equal(seen[i % accumulate], x) for i, x in enumerate(seen))
    assert all(torch.equal(model.masks[i % accumulate], mask) for i, mask in enumerate(model.masks))


def test_a_batch_is_not_in_memory_beside_the_next():
    alive = []

    def watched(batch, device):
        assert all(tensor() is None for tensor in alive)
        x, t = concat_examples(batch, device)
        alive.append(weakref.ref(x))
        return x, t

    updater = updater_of(sequences([5, 5, 5, 5]), 1, 4, converter=watched)
    updater.update()
    assert len(alive) == 4


@pytest.mark.parametrize("accumulate", [1, 3])
def test_lbfgs_resumes_exactly(tmp_path, accumulate):
    whole, model = lbfgs(tmp_path / "whole", 4, accumulate)
    whole.run()
    first, _ = lbfgs(tmp_path / "first", 2, accumulate)
    first.run()
    state = first.state_dict()
    resumed, other = lbfgs(tmp_path / "resumed", 4, accumulate)
    resumed.load_state_dict(state)
    resumed.run()
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), other.parameters(), strict=True))


def test_lbfgs_steps_over_several_batches_as_over_one(tmp_path):
    weights = []
    for accumulate in (1, 3):
        run, model = lbfgs(tmp_path / str(accumulate), 2, accumulate)
        model.net[2].p = 0.0
        run.run()
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.allclose(*weights, rtol=1e-3, atol=1e-4)


def test_lbfgs_clips(tmp_path):
    run, model = lbfgs(tmp_path, 1, clip_norm=1e-3)
    run.run()
    assert torch.nn.utils.get_total_norm([p.grad for p in model.parameters()]) <= 1.001e-3


def test_lbfgs_is_refused_with_fp16(tmp_path):
    with pytest.raises(ValueError, match="precision='fp16' does not go with LBFGS.*: take 'bf16' or 'fp32'"):
        lbfgs(tmp_path, precision="fp16")
    run, _ = lbfgs(tmp_path, 1, precision="bf16")
    run.run()
