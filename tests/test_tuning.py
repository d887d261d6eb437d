"""Training from trained weights: models of timm and torchvision, what is frozen, and the learning rate of each part."""

import json
import shutil
from argparse import Namespace

import pytest
import timm
import torch
import torchvision
from helpers import Augmented, bits
from safetensors.torch import save_file
from torch import nn

import extensions as E
from recipes import pets, resnet_products, summary
from recipes.parts import networks, tuning
from recipes.parts.transforms import Normalize
from trainer import Classifier, StandardUpdater, Trainer, random, saving
from trainer.iterators import SerialIterator
from trainer.triggers import ManualScheduleTrigger


class Tiny(nn.Sequential):
    def __init__(self):
        trunk = (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten())
        super().__init__(*trunk, nn.Linear(144, 3))


# -- which models there are, and what they take


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("resnet18", timm.models.ResNet),
        ("torchvision/resnet18", torchvision.models.ResNet),
        ("squeezenet1_1", torchvision.models.SqueezeNet),  # timm has none
        ("mobilenet_v3_small", torchvision.models.MobileNetV3),
        ("torchvision/googlenet", torchvision.models.GoogLeNet),
    ],
)
def test_a_model_is_timm_s_or_where_it_has_none_or_it_is_asked_for_torchvision_s(name, kind):
    network = networks.create(name, 5, size=64)
    assert isinstance(network, kind)
    with torch.no_grad():
        assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 5)  # in training, too


@pytest.mark.full
@pytest.mark.parametrize("name", [n for n in networks.TORCHVISION if "regnet" not in n or n.endswith("_400mf")])
def test_the_head_of_each_of_torchvision_s_classifiers_is_known(name):
    with torch.device("cpu" if "regnet" in name else "meta"):
        network = networks.create(f"torchvision/{name}", 7)
    (head,) = networks.head_names(network)
    assert network.get_submodule(head).weight.shape[0] == 7
    assert networks.input_of(f"torchvision/{name}").size >= 224


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("resnet50.a1_in1k", None, (224, 235, "bicubic")),
        ("vit_tiny_patch16_224", None, (224, 248, "bicubic")),
        ("vit_tiny_patch16_224", 160, (160, 177, "bicubic")),
        ("test_resnet", None, (160, 168, "bilinear")),
        ("torchvision/resnet50", None, (224, 232, "bilinear")),
        ("torchvision/resnet50", 448, (448, 464, "bilinear")),
        ("torchvision/efficientnet_b7", None, (600, 600, "bicubic")),
        ("lenet", None, (32, 36, "bicubic")),
        ("volo_d4_448.sail_in1k", None, (448, 448, "bicubic")),  # crop_pct 1.15
    ],
)
def test_size_scale_and_interpolation_are_those_the_model_was_trained_with(name, size, expected):
    found = networks.input_of(name, size)
    assert (found.size, found.scale, found.interpolation) == expected


def test_mean_and_std_are_the_model_s_own():
    assert networks.input_of("vit_tiny_patch16_224").mean == (0.5, 0.5, 0.5)
    assert networks.input_of("resnet18").std == (0.229, 0.224, 0.225)
    assert [*networks.input_of("torchvision/resnet18").mean] == [0.485, 0.456, 0.406]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of torchvision's weights, and what puts a model's into it."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub/checkpoints"
    folder.mkdir(parents=True)

    def put(name):
        network = torchvision.models.get_model(name)
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.01)
        url = torchvision.models.get_model_weights(name).DEFAULT.url
        torch.save(network.state_dict(), folder / url.rpartition("/")[2])
        return network.state_dict()

    return put


@pytest.mark.parametrize(("name", "head"), [("shufflenet_v2_x0_5", "fc"), ("squeezenet1_1", "classifier.1")])
def test_torchvision_s_trained_weights_are_loaded_but_for_a_head_of_another_size(cache, name, head):
    saved = cache(name)
    for classes, differ in ((5, {f"{head}.weight", f"{head}.bias"}), (None, set())):
        network = networks.create(name, classes, pretrained=True, size=64).eval()
        state = network.state_dict()
        assert {key for key in saved if not torch.equal(saved[key], state[key])} == differ
        with torch.no_grad():
            assert network(torch.zeros(1, 3, 64, 64)).shape == (1, classes or 1000)


@pytest.mark.parametrize("recipe", [pets, resnet_products])
def test_the_other_recipes_take_torchvision_s_models_with_their_mean(cache, recipe):
    cache("shufflenet_v2_x0_5")
    args = recipe.OPTIONS.parse(["--data", "photographs", "--model", "shufflenet_v2_x0_5", "--pretrained"])
    _, normalize = recipe.make_model(args, 3, fresh=False)
    assert (normalize.mean.flatten() / 255).tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert summary.summarize("shufflenet_v2_x0_5", None, 3, 1).input_size == [(1, 3, 224, 224)]


def test_torchvision_s_trained_weights_that_cannot_be_fetched_are_said_so(cache, monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(OSError, match=r"'torchvision/resnet18' cannot .*no route to host\); connect once.* TORCH_HOME"):
        networks.create("torchvision/resnet18", 5, pretrained=True)


def test_a_transformer_is_made_for_images_of_another_size():
    network = networks.create("test_vit", 5, size=96)
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 96, 96)).shape == (1, 5)


def test_a_model_that_cannot_be_made_for_images_of_a_size_is_refused():
    told = r"'nest_tiny' cannot be made for images of 101x101 \(.*evenly\); its own size is 224\."
    with pytest.raises(ValueError, match=told):
        networks.create("nest_tiny", 5, size=101)


def test_an_unknown_name_of_torchvision_s_is_answered_with_near_ones():
    with pytest.raises(ValueError, match=r"timm has no model 'torchvision/resnet5', but torchvision/resnet50, "):
        networks.create("torchvision/resnet5", 5)
    with pytest.raises(ValueError, match=r"timm has no model 'shufflenet_v2', but shufflenet_v2_x\d_\d"):
        networks.input_of("shufflenet_v2")


def test_a_network_that_gives_no_score_for_each_class_is_refused():
    args = Namespace(batch_size=2, deterministic=False, channels_last=False, compile=False)
    image = torch.zeros(3, 8, 8, dtype=torch.uint8)
    with pytest.raises(ValueError, match="Conv2d gives no score for each class; choose a network that classifies"):
        networks.prepare(args, nn.Conv2d(3, 5, 3), Normalize([0], [1]), [(image, 0)])


@pytest.mark.parametrize("form", ["bare", "state_dict", "model", "DistributedDataParallel", "safetensors"])
def test_weights_are_read_from_files_as_torch_timm_and_hugging_face_write_them(tmp_path, form):
    saved, network = Tiny().state_dict(), Tiny()
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pth")
    if form == "safetensors":
        save_file(saved, path)
    elif form == "DistributedDataParallel":
        torch.save({f"module.{key}": value for key, value in saved.items()}, path)
    else:
        torch.save(saved if form == "bare" else {form: saved, "epoch": 3}, path)
    networks.load_weights(network, path)
    assert bits(network.state_dict()) == bits(saved)


def test_a_file_that_holds_no_weights_is_refused(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"w\.safetensors cannot be read as a file of weights \(.*\); take another\."):
        networks.load_weights(Tiny(), tmp_path / "w.safetensors")
    torch.save({"epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"w\.pth is no file of weights: epoch is no tensor; give a state_dict\."):
        networks.load_weights(Tiny(), tmp_path / "w.pth")


# -- what is frozen


@pytest.mark.parametrize("name", ["test_resnet", "torchvision/resnet18", "squeezenet1_1", "test_vit"])
def test_of_a_frozen_trunk_only_the_head_learns_until_it_is_undone(name):
    network = networks.create(name, 5).train()
    fixed = {key for key, p in network.named_parameters() if not p.requires_grad}
    undo = tuning.freeze(network, "trunk")
    (head,) = networks.head_names(network)
    assert {n for n, p in network.named_parameters() if p.requires_grad} == {f"{head}.weight", f"{head}.bias"}
    assert not any(m.training for m in network.modules() if isinstance(m, nn.BatchNorm2d))
    undo()
    assert {key for key, p in network.named_parameters() if not p.requires_grad} == fixed
    assert all(m.training for m in network.modules())


def test_what_a_model_keeps_fixed_stays_so_when_the_trunk_learns_again():
    network = Tiny()
    network[0].bias.requires_grad = False
    tuning.freeze(network, "trunk")()
    assert [n for n, p in network.named_parameters() if not p.requires_grad] == ["0.bias"]


def test_a_stem_is_known_of_models_of_timm_alone_and_something_must_be_left():
    with pytest.raises(ValueError, match="--freeze stem needs a model of timm, which says what its stem is"):
        tuning.freeze(Tiny(), "stem")
    network = Tiny()
    network[5].requires_grad_(False)
    with pytest.raises(ValueError, match=r"--freeze trunk leaves nothing to train in Tiny\."):
        tuning.freeze(network, "trunk")


def test_the_head_is_the_first_group_and_the_trunk_has_a_rate_of_its_own():
    network = Tiny()
    head, bias, trunk, norm = tuning.parameter_groups(network, 0.1, 0.5, weight_decay=0.01)
    assert [group["lr"] for group in (head, bias, trunk, norm)] == [0.1, 0.1, 0.05, 0.05]
    shapes = [[(3, 144)], [(3,)], [(4, 3, 3, 3)], [(4,)] * 3]
    assert [[p.shape for p in group["params"]] for group in (head, bias, trunk, norm)] == shapes
    (whole,) = tuning.parameter_groups(network, 0.1)
    assert all(mine is theirs for mine, theirs in zip(whole["params"], network.parameters(), strict=True))
    tuning.freeze(network, "trunk")
    (alone,) = tuning.parameter_groups(network, 0.1, 0.5)
    assert alone["params"] == head["params"] + bias["params"]


def test_biases_norms_and_what_timm_names_are_not_decayed():
    network = networks.create("test_vit", 5)
    groups = tuning.parameter_groups(network, 0.1, 0.5, weight_decay=0.3)
    names = {p: name for name, p in network.named_parameters()}
    decay = {names[p]: group["weight_decay"] for group in groups for p in group["params"]}
    assert decay.keys() == set(names.values())
    assert {name for name, value in decay.items() if value not in (0, 0.3)} == set()
    spared = {name for name, p in network.named_parameters() if p.ndim == 1} | {"pos_embed", "cls_token"}
    assert {name for name, value in decay.items() if value == 0} == spared


# -- a whole run


def tuned(out, iterations=15):
    """A trunk that learns after two epochs; AdamW with a rate for each part; warm-up and cosine; an average."""
    random.set_seed(1)
    model = Classifier(Tiny())
    optimizer = torch.optim.AdamW(tuning.parameter_groups(model.predictor, 0.01, 0.1, weight_decay=0.1))
    undo = tuning.freeze(model.predictor, "trunk")
    updater = StandardUpdater(SerialIterator(Augmented(), 8), optimizer, model=model)
    run = Trainer(updater, (iterations, "iteration"), out=out)
    run.extend(lambda trainer: undo(), name="unfreeze", trigger=ManualScheduleTrigger([2], "epoch"))
    run.extend(tuning.WarmupCosine(optimizer, 3, iterations))
    run.extend(ema := E.ExponentialMovingAverage(model))
    run.extend(E.Evaluator(SerialIterator(Augmented(9), 4, repeat=False, shuffle=False), ema.average))
    run.extend(E.observe_lr(), trigger=(1, "iteration"))
    run.extend(E.LogReport(trigger=(1, "iteration")))
    run.extend(E.snapshot(), trigger=(1, "iteration"))
    return run


def parts(run):
    model, optimizer = run.updater.get_model("main"), run.updater.get_optimizer("main")
    ema = run.get_extension("ExponentialMovingAverage").average
    return bits([model.state_dict(), optimizer.state_dict(), ema.state_dict()])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    run = tuned(out)
    run.run()
    return out, run


def test_the_trunk_keeps_its_bits_until_the_epoch_and_learns_from_there(whole):
    out, run = whole
    assert run.updater.iteration == 15  # 20 images in batches of 8: an epoch ends at 3, 5, 8, 10, 13 and 15
    saved = [saving.load(out / f"snapshot_iter_{k}")["updater"] for k in range(1, 16)]
    assert ["predictor.1" in part["modes"]["main"] for part in saved] == [True] * 4 + [False] * 11
    states = [part["model"]["main"] for part in saved]
    trunk = [key for key in states[0] if ".5." not in key]
    assert all(torch.equal(states[4][key], states[0][key]) for key in trunk)  # no weight decay, no statistics
    assert not any(torch.equal(states[5][key], states[4][key]) for key in trunk)
    assert not torch.equal(states[1]["predictor.5.weight"], states[0]["predictor.5.weight"])


@pytest.mark.parametrize("k", [1, 4, 5, 6, 14])
def test_a_run_killed_before_at_and_after_the_epoch_resumes_to_the_bit(whole, tmp_path, k):
    out, unbroken = whole
    shutil.copytree(out, tmp_path / "resumed")
    resumed = tuned(tmp_path / "resumed")
    resumed.resume(tmp_path / f"resumed/snapshot_iter_{k}")
    resumed.run()
    assert parts(resumed) == parts(unbroken)


def test_the_rate_rises_in_a_line_and_falls_along_a_cosine(whole):
    rates = [entry["lr"] for entry in json.loads((whole[0] / "log").read_text())]
    assert rates[:4] == pytest.approx([0.01 / 4, 0.01 / 2, 0.03 / 4, 0.01])
    assert rates[9] == pytest.approx(0.005)  # half of the twelve iterations that the cosine has
    assert rates == sorted(rates[:4]) + sorted(rates[4:], reverse=True) and rates[14] > 0
    assert {group["lr"] for group in whole[1].updater.get_optimizer("main").param_groups} == {0}


def test_a_run_that_is_resumed_with_more_epochs_says_where_the_rate_goes(whole, tmp_path, capsys):
    longer = tuned(tmp_path, 30)
    longer.resume(whole[0] / "snapshot_iter_15")
    longer.run()
    rates = [entry["lr"] for entry in longer.get_extension("LogReport").log]
    told = "The learning rate goes from 0 to 0.00587: from here on it follows the curve that ends after 30 iterations."
    assert capsys.readouterr().out.splitlines() == [told]
    assert rates[15] == pytest.approx(0.00587, abs=1e-5) and len(rates) == 30
    assert rates[15:] == sorted(rates[15:], reverse=True) and rates[29] < 1e-4


@pytest.mark.parametrize(("warmup", "total"), [(5, 5), (6, 5), (-1, 5), (0, 0)])
def test_a_warm_up_that_is_no_part_of_the_run_is_refused(warmup, total):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))])
    with pytest.raises(ValueError, match=rf"a warm-up of {warmup} iterations leaves nothing of a run of {total}\."):
        tuning.WarmupCosine(optimizer, warmup, total)
