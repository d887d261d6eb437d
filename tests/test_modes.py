"""What trains is what the user thinks trains: modes at the start, and parameters that are left out."""

import copy
import warnings
from types import SimpleNamespace

import pytest
import torch
from helpers import make_data
from torch import nn

from trainer import Classifier, Extension, StandardUpdater, Trainer
from trainer.iterators import SerialIterator

SGD = torch.optim.SGD


def started(out, model, optimizer=None, loss_func=None):
    """A run that has begun, and what its start warned of."""
    if optimizer is None:
        optimizer = SGD(model.parameters(), 0.1)
    updater = StandardUpdater(SerialIterator(make_data(), 5), optimizer, model=model, loss_func=loss_func)
    run = Trainer(updater, (2, "epoch"), out=out)
    return run, told_by(lambda: run.finished)


def told_by(function):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        function()
    return [str(warning.message) for warning in told]


def network():
    return nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))


def trunk_and_head():
    trunk = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU())
    return nn.Sequential(trunk, nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 3)))


def freeze_norms(model):
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    return model


def modes(model):
    return [module.training for module in model.modules()]


# -- a predictor in eval mode


def test_a_predictor_in_eval_mode_is_put_into_training_mode_and_it_is_said_at_the_users_line(tmp_path):
    net = network().eval()
    model = Classifier(net)
    run = Trainer(
        StandardUpdater(SerialIterator(make_data(), 5), SGD(model.parameters(), 0.1), model=model),
        (2, "epoch"),
        tmp_path,
    )
    with pytest.warns(
        UserWarning, match="^predictor: every module was in eval mode, and is put into training mode"
    ) as told:
        run.run()
    assert len(told) == 1 and told[0].filename == __file__
    assert all(modes(model)) and net[1].num_batches_tracked == 4


def test_it_is_the_run_of_a_predictor_in_training_mode(tmp_path):
    weights = []
    for mode in (True, False):
        torch.manual_seed(0)
        model = Classifier(network())
        model.predictor.train(mode)
        run, told = started(tmp_path / str(mode), model)
        run.run()
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
        assert len(told) == (not mode)
    assert torch.equal(*weights)


def test_the_root_and_what_lies_in_several_wrappers_are_predictors_too(tmp_path):
    class Wrapper(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner
            self.criterion = nn.CrossEntropyLoss()

        def forward(self, x):
            return self.inner(x)

    for depth, model in enumerate([Classifier(network()).eval(), Classifier(Wrapper(network().eval()))]):
        _, told = started(tmp_path / str(depth), model)
        assert len(told) == 1 and told[0].startswith("model 'main': " if depth == 0 else "predictor.inner: ")
        assert all(modes(model))


def test_what_has_a_parameter_of_its_own_is_no_mere_wrapper(tmp_path):
    class Scaled(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner, self.scale = inner, nn.Parameter(torch.ones(()))

        def forward(self, x):
            return self.inner(x) * self.scale

    model = Classifier(Scaled(network().eval()))
    _, told = started(tmp_path, model)
    assert len(told) == 1 and told[0].startswith("predictor.inner: in eval mode")
    assert model.predictor.training and not any(modes(model.predictor.inner))


def test_a_plug_in_may_keep_eval_mode(tmp_path):
    class KeepEval(Extension):
        def initialize(self, trainer):
            trainer.updater.get_model("main").predictor.eval()

    model = Classifier(network().eval())
    updater = StandardUpdater(SerialIterator(make_data(), 5), SGD(model.parameters(), 0.1), model=model)
    run = Trainer(updater, (2, "epoch"), out=tmp_path)
    run.extend(KeepEval(), trigger=lambda trainer: False)
    with pytest.warns(UserWarning, match="eval\\(\\) in an extension's initialize"):
        run.run()
    assert not any(modes(model.predictor)) and model.predictor[1].num_batches_tracked == 0


def test_a_train_method_that_keeps_eval_mode_is_not_said_to_be_switched(tmp_path):
    class Fixed(nn.Sequential):
        def train(self, mode=True):
            return super().train(False)

    model = Classifier(Fixed(nn.Linear(2, 3), nn.Dropout()))
    model.predictor.eval()
    _, told = started(tmp_path, model)
    assert not any(modes(model.predictor))
    assert len(told) == 1 and told[0].startswith("predictor: in eval mode, though an optimizer trains it. ")


def test_a_single_layer_is_left_alone(tmp_path):
    model = Classifier(nn.Linear(2, 3).eval())
    _, told = started(tmp_path, model)
    assert not told and not model.predictor.training


def test_a_module_of_ones_own_without_children_is_no_single_layer(tmp_path):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2, 3))

        def forward(self, x):
            return nn.functional.dropout(x, training=self.training) @ self.weight

    model = Classifier(Own().eval())
    _, told = started(tmp_path, model)
    assert len(told) == 1 and model.predictor.training


def test_within_a_predictor_what_is_not_trained_stays_in_eval_mode(tmp_path):
    model = Classifier(trunk_and_head().eval())
    trunk, head = model.predictor
    trunk.requires_grad_(False)
    run, told = started(tmp_path, model)
    assert len(told) == 1 and told[0].startswith("predictor: every module")
    assert all(modes(head)) and model.predictor.training and not any(modes(trunk))
    run.run()
    assert trunk[1].num_batches_tracked == 0


def test_both_networks_of_a_gan_are_said_in_one_warning(tmp_path):
    models = {"main": network().eval(), "dis": Classifier(network().eval())}
    optimizers = {name: SGD(model.parameters(), 0.1) for name, model in models.items()}
    _, told = started(tmp_path, models, optimizers)
    assert len(told) == 1 and told[0].startswith("model 'main', dis.predictor: every module")


def test_a_run_that_goes_on_is_checked_again(tmp_path):
    model = Classifier(network())
    run, told = started(tmp_path, model)
    run.finalize()
    model.predictor.eval()
    again = told_by(run.run)
    assert not told and len(again) == 1 and all(modes(model))


# -- parts in eval mode


def test_a_part_in_eval_mode_that_is_trained_is_warned_of_and_stays(tmp_path):
    model = Classifier(trunk_and_head())
    model.predictor[0].eval()
    _, told = started(tmp_path, model)
    assert len(told) == 1 and told[0].startswith("predictor.0: in eval mode, though an optimizer trains it. ")
    assert not any(modes(model.predictor[0])) and all(modes(model.predictor[1]))


def test_a_new_head_on_a_network_in_eval_mode_does_not_hide_the_rest(tmp_path):
    net = nn.Sequential(*(nn.Sequential(nn.Linear(2, 2), nn.Dropout()) for _ in range(5)), nn.Linear(2, 9)).eval()
    net[-1] = nn.Linear(2, 3)
    _, told = started(tmp_path, Classifier(net))
    assert len(told) == 1 and told[0].startswith("predictor.0, predictor.1, predictor.2 and 2 more: in")


class BatchNormAct(nn.BatchNorm1d):
    """As timm's: a batch norm with children."""

    def __init__(self, channels):
        super().__init__(channels)
        self.drop, self.act = nn.Identity(), nn.ReLU()


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, BatchNormAct, lambda n: nn.Sequential(nn.BatchNorm1d(n), nn.ReLU())])
def test_frozen_norms_are_quiet(tmp_path, norm):
    model = Classifier(nn.Sequential(nn.Linear(2, 4), norm(4), nn.LayerNorm(4), nn.Linear(4, 3)))
    model.predictor[1].eval()
    model.predictor[2].eval()
    _, told = started(tmp_path, model)
    assert not told and not model.predictor[1].training


def test_the_batch_norms_of_known_networks_may_be_frozen_by_the_usual_loop(tmp_path):
    timm = pytest.importorskip("timm")
    torchvision = pytest.importorskip("torchvision")
    networks = [
        timm.create_model("resnet18", num_classes=3),
        timm.create_model("efficientnet_b0", num_classes=3),
        torchvision.models.resnet18(num_classes=3),
        torchvision.models.mobilenet_v3_small(num_classes=3),
    ]
    for number, net in enumerate(networks):
        _, told = started(tmp_path / str(number), Classifier(freeze_norms(net)))
        assert not told


def test_an_unfrozen_network_in_eval_mode_is_trained_whole(tmp_path):
    timm = pytest.importorskip("timm")
    model = Classifier(timm.create_model("resnet18", num_classes=3).eval())
    _, told = started(tmp_path, model)
    assert len(told) == 1 and all(modes(model))


def test_a_teacher_in_eval_mode_is_quiet_wherever_it_is(tmp_path):
    class Student(Classifier):
        def __init__(self, teacher, hidden):
            super().__init__(network())
            self.teacher = [teacher] if hidden else teacher

    for hidden in (True, False):
        model = Student(network().eval().requires_grad_(False), hidden)
        _, told = started(tmp_path / str(hidden), model, SGD(model.predictor.parameters(), 0.1))
        assert not told
        assert not any(modes(model.teacher[0] if hidden else model.teacher))
    models = {"main": Classifier(network()), "teacher": network().eval()}
    _, told = started(tmp_path / "second", models, SGD(models["main"].parameters(), 0.1))
    assert not told and not any(modes(models["teacher"]))


def test_a_student_beside_its_teacher_is_a_part_that_is_only_warned_of(tmp_path):
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.student, self.teacher = network().eval(), network().eval().requires_grad_(False)

    model = Pair()
    _, told = started(tmp_path, model)
    assert len(told) == 1 and told[0].startswith("student: in eval mode, though an optimizer trains it")
    assert not any(modes(model.student)) and not any(modes(model.teacher))


def test_a_teacher_as_a_child_that_would_take_gradients_is_one_short_warning(tmp_path):
    model = Classifier(network())
    model.teacher = network().eval()
    _, told = started(tmp_path, model, SGD(model.predictor.parameters(), 0.1))
    assert len(told) == 1 and told[0].startswith("6 parameters of teacher.* are in no optimizer: ")
    assert not any(modes(model.teacher))


# -- parameters that are left out


def test_a_head_that_came_after_the_optimizer_is_named_with_the_remedy(tmp_path):
    net = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 9))
    model = Classifier(net)
    optimizer = SGD(model.parameters(), 0.1)
    net[1] = nn.Linear(4, 3)
    _, told = started(tmp_path, model, optimizer)
    assert told == [
        "2 parameters of predictor.1.* are in no optimizer and 2 parameters of optimizer 'main' are in no model: was"
        " the model changed after the optimizer was made? Make the optimizer when the model is whole."
    ]


def test_a_network_that_was_replaced_when_the_updater_was_made_is_named(tmp_path):
    models = {name: Classifier(network()) for name in ("main", "dis")}
    optimizers = {name: SGD(model.parameters(), 0.1) for name, model in models.items()}
    updater = StandardUpdater(SerialIterator(make_data(), 5), optimizers, model=models)
    models["dis"].predictor = network()
    run = Trainer(updater, (2, "epoch"), out=tmp_path)
    (told,) = told_by(lambda: run.finished)
    assert told.startswith("6 parameters of model 'dis' are in no optimizer and 6 parameters of optimizer 'dis' are")


def test_a_trunk_left_out_on_purpose_is_one_short_warning(tmp_path):
    timm = pytest.importorskip("timm")
    model = Classifier(timm.create_model("resnet18", num_classes=3))
    _, told = started(tmp_path, model, SGD(model.predictor.fc.parameters(), 0.1))
    assert len(told) == 1 and len(told[0]) < 300
    assert told[0].startswith(
        "60 parameters of predictor.conv1.*, predictor.bn1.*, predictor.layer1.* and 3 more are in no optimizer:"
        " not trained. If that is intended, call requires_grad_(False) on them"
    )
    model = Classifier(trunk_and_head())
    _, told = started(tmp_path, model, SGD(model.predictor[1].parameters(), 0.1))
    assert len(told) == 1 and told[0].startswith("4 parameters of predictor.0.* are in no optimizer: ")


def test_a_frozen_trunk_may_be_in_the_optimizer_or_not(tmp_path):
    for number in range(2):
        model = Classifier(trunk_and_head())
        model.predictor[0].requires_grad_(False)
        _, told = started(tmp_path / str(number), model, SGD([model, model.predictor[1]][number].parameters(), 0.1))
        assert not told


def test_learnable_weights_of_the_loss_outside_the_model_are_one_short_warning(tmp_path):
    model, scale = Classifier(network()), nn.Parameter(torch.ones(()))
    optimizer = SGD([*model.parameters(), scale], 0.1)
    run, told = started(tmp_path, model, optimizer, lambda *batch: model(*batch) * scale)
    assert told == [
        "1 parameter of optimizer 'main' is in no model: not in a snapshot, and not restored on a resume. Pass their"
        " module to the updater as a model too."
    ]
    run.run()
    trained, state = scale.item(), copy.deepcopy(run.state_dict())
    with torch.no_grad():
        scale.fill_(1)
    run.updater.load_state_dict(state["updater"])
    assert trained != 1 and scale.item() == 1  # as the warning says


def test_given_as_a_model_they_are_quiet_and_resumed(tmp_path):
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

    models = {"main": Classifier(network()), "scale": Scale()}
    optimizer = SGD([p for model in models.values() for p in model.parameters()], 0.1)
    run, told = started(tmp_path, models, optimizer, lambda *batch: models["main"](*batch) * models["scale"].scale)
    run.run()
    state, trained = copy.deepcopy(run.state_dict()), models["scale"].scale.item()
    with torch.no_grad():
        models["scale"].scale.fill_(1)
    run.updater.load_state_dict(state["updater"])
    assert not told and models["scale"].scale.item() == trained != 1


def test_two_optimizers_are_taken_together(tmp_path):
    gan = {"main": network(), "dis": network()}
    _, told = started(tmp_path / "gan", gan, {name: SGD(model.parameters(), 0.1) for name, model in gan.items()})
    assert not told
    model = Classifier(trunk_and_head())
    parts = {"main": SGD(model.predictor[0].parameters(), 0.1), "head": SGD(model.predictor[1].parameters(), 0.5)}
    _, told = started(tmp_path / "parts", model, parts)
    assert not told


def test_a_second_model_that_nothing_trains_is_one_short_warning_unless_that_is_plain(tmp_path):
    for name, mark, n in (("forgotten", nn.Module.train, 1), ("teacher", nn.Module.eval, 0), ("frozen", frozen, 0)):
        model = Classifier(network())
        models = {"main": model, "other": mark(network())}
        _, told = started(tmp_path / name, models, SGD(model.parameters(), 0.1))
        assert [text.split(":")[0] for text in told] == ["6 parameters of model 'other' are in no optimizer"] * n


def frozen(model):
    return model.requires_grad_(False)


def test_shared_tied_lazy_and_empty_parameters_are_quiet(tmp_path):
    tied = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    tied[1].weight = tied[0].weight
    tied.empty = nn.Parameter(torch.empty(0))
    optimizer = SGD([p for p in tied.parameters() if p.numel()], 0.1)
    _, told = started(tmp_path / "tied", Classifier(tied), optimizer)
    assert not told
    shared = nn.Linear(2, 2)
    models = {"main": nn.Sequential(shared, nn.Linear(2, 3)), "dis": nn.Sequential(shared, nn.Linear(2, 1))}
    both = {"main": SGD(models["main"].parameters(), 0.1), "dis": SGD(models["dis"][1].parameters(), 0.1)}
    _, told = started(tmp_path / "shared", models, both)
    assert not told
    lazy = Classifier(nn.Sequential(nn.LazyLinear(4), nn.ReLU(), nn.LazyLinear(3)))
    run, told = started(tmp_path / "lazy", lazy)
    run.run()
    assert not told and lazy.predictor[0].weight.shape == (4, 2)


class Adapter(nn.Module):
    """As LoRA's: a frozen layer with two small trained ones."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.a, self.b = nn.Linear(layer.in_features, 1, bias=False), nn.Linear(1, layer.out_features, bias=False)

    def forward(self, x):
        return self.layer(x) + self.b(self.a(x))


def test_adapters_are_quiet_and_put_into_training_mode(tmp_path):
    for is_eval in (False, True):
        net = nn.Sequential(
            Adapter(nn.Linear(2, 4)), nn.BatchNorm1d(4).requires_grad_(False), nn.Dropout(), nn.Linear(4, 3)
        )
        net.train(not is_eval)
        model = Classifier(net)
        trained = [p for p in model.parameters() if p.requires_grad]
        _, told = started(tmp_path / str(is_eval), model, SGD(trained, 0.1))
        assert len(told) == is_eval and net[2].training and net[0].a.training and net[1].training == (not is_eval)


def test_updaters_of_ones_own_are_passed_over_without_models_or_optimizers(tmp_path):
    class Plain:
        iteration = epoch = epoch_detail = 0

        def update(self):
            self.iteration += 1

    class WithModel(Plain):
        def __init__(self):
            self.model = network().eval()

        def get_all_models(self):
            return {"main": self.model}

    class WithOptimizer(WithModel):
        def get_all_optimizers(self):
            return {"main": SimpleNamespace()}

    for number, updater in enumerate((Plain(), WithModel(), WithOptimizer())):
        Trainer(updater, (3, "iteration"), out=tmp_path / str(number)).run()
        assert updater.iteration == 3 and not any(modes(getattr(updater, "model", nn.Identity().eval())))
