"""The moving average of a model's weights: what it is after each update, and that a resumed run has the same."""

import pytest
import torch
from helpers import Augmented, bits, make_run
from torch import nn

import extensions as E
from trainer import Classifier, StandardUpdater, Trainer, random
from trainer.iterators import SerialIterator


def has_norms(out, stop=(9, "iteration"), averaged=True):
    random.set_seed(0)
    model = Classifier(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    run = Trainer(StandardUpdater(SerialIterator(Augmented(), 6), optimizer, model=model), stop, out=out)
    ema = E.ExponentialMovingAverage(model, 0.6)
    if averaged:
        run.extend(ema)
    run.extend(
        E.Evaluator(SerialIterator(Augmented(7), 4, repeat=False, shuffle=False), ema.average), trigger=(2, "iteration")
    )
    run.extend(E.LogReport(trigger=(3, "iteration")))
    run.extend(E.snapshot_object(ema.average.predictor, "averaged"), trigger=(4, "iteration"))
    run.extend(E.snapshot(), trigger=(1, "iteration"))
    return run, model, ema.average


def test_each_update_moves_the_average_towards_the_weights_and_statistics(tmp_path):
    run, model, average = has_norms(tmp_path)
    expected = {key: value.clone() for key, value in model.state_dict().items()}
    steps = []

    def check(trainer):
        decay = min(0.6, (1 + len(steps)) / (10 + len(steps)))
        for key, value in model.state_dict().items():
            whole = not value.is_floating_point()
            expected[key] = value.clone() if whole else decay * expected[key] + (1 - decay) * value
            torch.testing.assert_close(average.state_dict()[key], expected[key])
        steps.append(decay)

    run.extend(check, trigger=(1, "iteration"))
    run.run()
    assert steps[0] == 0.1 and steps[-1] == 0.5 and len(steps) == 9
    assert average.predictor[1].num_batches_tracked == 9
    assert not any(p.requires_grad for p in average.parameters())


def test_evaluation_and_files_see_the_average_of_the_same_iteration_and_training_none_of_it(tmp_path):
    run, model, average = has_norms(tmp_path / "a", (4, "iteration"))
    run.run()
    saved = torch.load(tmp_path / "a" / "averaged", weights_only=True)
    assert bits(saved) == bits(average.predictor.state_dict())
    evaluator = E.Evaluator(SerialIterator(Augmented(7), 4, repeat=False, shuffle=False), average)
    assert evaluator()["main/loss"] == run.observation["validation/main/loss"]
    without, plain, _ = has_norms(tmp_path / "b", (4, "iteration"), averaged=False)
    without.run()
    assert bits(plain.state_dict()) == bits(model.state_dict())


@pytest.mark.parametrize("k", [1, 4, 8])
def test_a_resumed_run_has_the_same_average_to_the_bit(tmp_path, k):
    run, _, average = has_norms(tmp_path)
    run.run()
    resumed, _, other = has_norms(tmp_path)
    resumed.resume(tmp_path / f"snapshot_iter_{k}")
    resumed.run()
    assert bits(other.state_dict()) == bits(average.state_dict())


def test_it_begins_with_the_weights_at_the_start_of_the_run_not_those_when_it_was_made(tmp_path):
    run = make_run(tmp_path)
    model = run.updater.get_model("main")
    ema = E.ExponentialMovingAverage(model)
    nn.init.ones_(model.predictor.weight)
    run.extend(ema)
    seen = []
    run.extend(lambda t: seen.append(ema.average.predictor.weight.clone()), name="see", call_before_training=True)
    run.run()
    assert torch.equal(seen[0], torch.ones(3, 2)) and not torch.equal(seen[1], seen[0])


@pytest.mark.parametrize("decay", [0, 1, -1, 2, float("nan")])
def test_a_decay_that_is_none_is_refused(decay):
    with pytest.raises(ValueError, match=rf"decay must be between 0 and 1, got {decay}; e\.g\. 0\.999\."):
        E.ExponentialMovingAverage(nn.Linear(1, 1), decay)


def test_a_model_that_cannot_be_averaged_is_refused(tmp_path):
    with pytest.raises(TypeError, match=r"model must be a module, got dict\."):
        E.ExponentialMovingAverage({})
    with pytest.raises(ValueError, match="a lazy module has parameters without a shape yet: call the model on one"):
        E.ExponentialMovingAverage(nn.LazyLinear(2))
    run = make_run(tmp_path)
    run.extend(E.ExponentialMovingAverage(nn.Linear(2, 3)))
    with pytest.raises(ValueError, match=r"the model has no parameter of the updater's models \['main'\], so its aver"):
        run.run()
