"""What training does to images, batches and losses: random crops, mixing, smoothing, class weights."""

import pickle
import random

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from torchvision.transforms import RandomResizedCrop

from extensions import Evaluator, snapshot
from recipes.parts import augment
from recipes.parts.augment import (
    AUGMENTS,
    CROP_AREA,
    CROP_RATIO,
    loss_of,
    mixed,
    multi_label_accuracy,
    read_random_crop,
    training_reader,
)
from recipes.parts.image_files import BadImageError, ImageFiles
from recipes.parts.transforms import Normalize, ScaleAndCrop, collate_images
from tests.helpers import bits, equal
from trainer import Classifier, DictSummary, Reporter, StandardUpdater, Trainer
from trainer.iterators import MultiprocessIterator, SerialIterator

CPU = torch.device("cpu")


def photograph(width, height, seed=0):
    pixels = np.random.RandomState(seed).randint(0, 256, (height // 9 + 1, width // 9 + 1, 3)).astype(np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for i in range(8):
        photograph(90 - i, 61 + i, i).save(folder / f"{i}.jpg", quality=92)
    return [str(folder / f"{i}.jpg") for i in range(8)]


def seeded(read, path, seed=0):
    torch.manual_seed(seed)
    return read(path)


# -- images


@pytest.mark.parametrize("kind", ["bilinear", "bicubic"])
@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_a_random_crop_is_torchvision_s_of_the_same_box_within_two_grey_levels(tmp_path, kind, name):
    photograph(130, 97).save(tmp_path / name)
    plain, worst = ScaleAndCrop(40, 32, interpolation=kind), 0
    with Image.open(tmp_path / name) as file:
        image = file.convert("RGB")
    for seed in range(20):
        got = seeded(lambda path: read_random_crop(path, plain), tmp_path / name, seed)
        assert got.shape == (3, 32, 32) and got.dtype == torch.uint8
        torch.manual_seed(seed)
        top, left, height, width = RandomResizedCrop.get_params(image, list(CROP_AREA), list(CROP_RATIO))
        part = image.crop((left, top, left + width, top + height)).resize((32, 32), Image.Resampling[kind.upper()])
        worst = max(worst, np.abs(np.asarray(part, int).transpose(2, 0, 1) - got.numpy()).max())
    assert worst <= 2


def test_a_random_crop_turns_a_photograph_as_its_exif_data_say(tmp_path):
    image, exif = photograph(64, 48), Image.Exif()
    exif[0x112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    image.transpose(Image.Transpose.ROTATE_270).save(tmp_path / "upright.png")
    read = training_reader("light", ScaleAndCrop(32, 32))
    assert equal(seeded(read, tmp_path / "turned.png"), seeded(read, tmp_path / "upright.png"))


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (900, 2), (3, 3)])
@pytest.mark.parametrize("name", AUGMENTS)
def test_an_image_of_any_size_and_mode_gives_pixels(tmp_path, name, size):
    photograph(*size).convert("P").save(tmp_path / "a.gif")
    read = training_reader(name, ScaleAndCrop(20, 16, interpolation="bicubic"))
    assert seeded(read, tmp_path / "a.gif").shape == (3, 16, 16)


def test_a_large_photograph_may_be_decoded_at_a_fraction_of_its_size(tmp_path, monkeypatch):
    monkeypatch.setattr(augment, "CROP_AREA", (1.0, 1.0))  # the whole image: the box is rounded to other pixels, too
    monkeypatch.setattr(augment, "CROP_RATIO", (4 / 3, 4 / 3))
    photograph(100, 75).resize((800, 600)).save(tmp_path / "a.jpg", quality=90)
    whole, fewer = (training_reader("light", ScaleAndCrop(40, 32, reduced)) for reduced in (False, True))
    a, b = seeded(whole, tmp_path / "a.jpg").float(), seeded(fewer, tmp_path / "a.jpg").float()
    assert 0 < (a - b).abs().mean() < 1


def test_a_damaged_image_is_refused_by_name(tmp_path):
    photograph(60, 50).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:500])
    for name in AUGMENTS:
        with pytest.raises(BadImageError, match=r"a\.jpg cannot be used"):
            training_reader(name, ScaleAndCrop(20, 16))(tmp_path / "a.jpg")


def test_without_augmentation_training_sees_what_testing_sees(paths):
    plain = ScaleAndCrop(40, 32)
    assert equal(training_reader("none", plain)(paths[0]), plain.read(paths[0]))
    with pytest.raises(ValueError, match="augment must be one of none, light, trivial, rand, got 'autoaugment'"):
        training_reader("autoaugment", plain)


@pytest.mark.parametrize("name", ["light", "trivial", "rand"])
def test_pixels_are_a_function_of_torch_s_seed_alone(paths, name):
    read = training_reader(name, ScaleAndCrop(40, 32))
    first = seeded(read, paths[0], 3)
    random.seed(9), np.random.seed(9)
    assert equal(first, seeded(pickle.loads(pickle.dumps(read)), paths[0], 3))
    assert len({seeded(read, paths[0], seed).numpy().tobytes() for seed in range(12)}) == 12


def test_light_mirrors_half_of_the_images(tmp_path):
    ramp = np.broadcast_to(np.arange(120, dtype=np.uint8)[None, :, None], (120, 120, 3))
    Image.fromarray(np.ascontiguousarray(ramp)).save(tmp_path / "a.png")
    read = training_reader("light", ScaleAndCrop(40, 32))
    mirrored = sum(int(image[0, 5, 0] > image[0, 5, -1]) for image in (read(tmp_path / "a.png") for _ in range(200)))
    assert 60 < mirrored < 140


@pytest.mark.parametrize("name", ["light", "trivial", "rand"])
def test_workers_give_the_batches_of_none(paths, name):
    data = ImageFiles(paths, list(range(8)), training_reader(name, ScaleAndCrop(40, 32)))
    batches = []
    for workers in (0, 2):
        iterator = MultiprocessIterator(data, 4, n_processes=workers, seed=5, collate_fn=collate_images)
        batches.append([next(iterator) for _ in range(4)])
        iterator.finalize()
    assert equal(*batches)


# -- the geometry of a trained model


def test_an_interpolation_is_bilinear_or_bicubic():
    with pytest.raises(ValueError, match="interpolation must be 'bilinear' or 'bicubic', got 'lanczos'"):
        ScaleAndCrop(9, 8, interpolation="lanczos")


@pytest.mark.parametrize("size", [(130, 97), (40, 60), (30, 20), (3, 900), (900, 3)])
def test_bicubic_scaling_is_torch_s_to_the_bit(size):
    image = photograph(*size)
    wide, high = [int(48 * side / min(size)) for side in size]
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    for shape in ((high, size[0]), (high, wide)):  # rows first
        pixels = F.interpolate(pixels, size=shape, mode="bicubic", antialias=True)
    top, left = round((high - 40) / 2), round((wide - 40) / 2)
    crop = ScaleAndCrop(48, 40, interpolation="bicubic")
    assert torch.equal(crop(image), pixels[0, :, top : top + 40, left : left + 40])
    assert "bicubic" in repr(crop)


# -- batches


def batch(n=6, classes=3):
    return [(torch.full((3, 8, 8), 20 * i, dtype=torch.uint8), i % classes) for i in range(n)]


def test_mixing_blends_images_and_labels_alike():
    normalize = Normalize([0.0], [20.0])
    x, y = mixed(normalize, 6, mixup=1.0)(batch(6, 6), CPU)
    assert y.shape == (6, 6) and torch.allclose(y.sum(1), torch.ones(6))
    assert torch.allclose(x[:, 0, 0, 0], y @ torch.arange(6.0))  # an image has the grey of its class
    x, y = mixed(normalize, 6, cutmix=1.0)(batch(6, 6), CPU)
    assert torch.allclose(x.mean((1, 2, 3)), y @ torch.arange(6.0)) and x[:, 0].unique().numel() <= 6
    several = [(image, F.one_hot(torch.tensor(label), 3).float()) for image, label in batch()]
    assert mixed(normalize, 3, 1.0, 1.0)(several, CPU)[1].shape == (6, 3)


def test_mixing_is_off_at_0_and_refuses_what_is_no_alpha():
    normalize = Normalize([0.0], [1.0])
    assert mixed(normalize, 3) is normalize
    for name, alpha in [("mixup", -1.0), ("cutmix", float("nan")), ("cutmix", float("inf"))]:
        with pytest.raises(ValueError, match=f"{name} must be 0 or more, got {alpha}"):
            mixed(normalize, 3, **{name: alpha})


def run_of(out, stop):
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 3))
    labels = [label for _, label in batch(10)]
    model = Classifier(network, loss_of(labels, "abc", smoothing=0.1, balanced=True))
    converter = mixed(Normalize([100.0], [100.0]), 3, mixup=0.4, cutmix=1.0)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    updater = StandardUpdater(SerialIterator(batch(10), 4, seed=1), optimizer, converter, model=model)
    run = Trainer(updater, (stop, "iteration"), out=out)
    run.extend(snapshot(filename="snapshot"), trigger=(3, "iteration"))
    run.extend(Evaluator(SerialIterator(batch(4), 4, False, False), model, Normalize([100.0], [100.0])))
    return run, network


def test_a_resumed_run_mixes_as_one_that_was_not_stopped(tmp_path):
    run, whole = run_of(tmp_path / "a", 7)
    run.run()
    run_of(tmp_path / "b", 3)[0].run()
    torch.rand(5)
    run, resumed = run_of(tmp_path / "b", 7)
    run.resume(tmp_path / "b" / "snapshot")
    run.run()
    assert bits(whole.state_dict()) == bits(resumed.state_dict())


# -- losses


def epoch_of(model, batches):
    """What an epoch's log has of some batches."""
    summary, reporter = DictSummary(), Reporter()
    reporter.add_model("main", model)
    for y, t in batches:
        observation = {}
        with reporter.scope(observation):
            model(y, t)
        summary.add(observation)
    return {name: float(value) for name, value in summary.compute_mean().items()}


def test_labels_are_smoothed_in_training_and_not_in_validation():
    y, t = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 0])
    loss = loss_of([], "abc", smoothing=0.2)
    assert torch.equal(loss(y, t), F.cross_entropy(y, t, label_smoothing=0.2))
    assert torch.equal(Classifier(torch.nn.Identity(), loss).eval()(y, t), F.cross_entropy(y, t))
    several, loss = F.one_hot(t, 3).float(), loss_of([], "abc", smoothing=0.2, multi_label=True)
    assert torch.allclose(loss(y, several), F.binary_cross_entropy_with_logits(y, several * 0.8 + 0.1))
    assert torch.equal(loss.eval()(y, several), F.binary_cross_entropy_with_logits(y, several))
    with pytest.raises(ValueError, match=r"label smoothing must be 0 or more and below 1, got 1\.0"):
        loss_of([], "abc", smoothing=1.0)


def test_balanced_classes_weigh_alike_and_an_image_1_on_average():
    labels = [0] * 6 + [1] * 3 + [2]
    weights = loss_of(labels, "abc", balanced=True).weight
    assert torch.allclose(weights * torch.tensor([6, 3, 1]), torch.tensor(10 / 3))
    assert weights[labels].mean().item() == pytest.approx(1)
    several = [torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0]), torch.tensor([1.0, 0.0]), torch.tensor([0.0, 0.0])]
    loss = loss_of(several, "ab", balanced=True, multi_label=True)
    assert torch.allclose(loss.pos_weight, torch.tensor([1 / 3, 3.0]))


def test_a_class_that_no_weight_balances_is_named():
    with pytest.raises(ValueError, match="--class-weights: none of the 2 images to train on are of class 'c', so no"):
        loss_of([0, 1], "abc", balanced=True)
    labels = [torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0])]
    with pytest.raises(ValueError, match="--class-weights: all of the 2 images to train on are of class 'a'"):
        loss_of(labels, "ab", balanced=True, multi_label=True)


@pytest.mark.parametrize("is_mixed", [False, True])
@pytest.mark.parametrize("multi_label", [False, True])
def test_the_log_s_loss_is_that_of_the_whole_epoch_whatever_the_batches(multi_label, is_mixed):
    generator = torch.Generator().manual_seed(0)
    y, t = torch.randn(11, 3, generator=generator), torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2])
    labels = list(F.one_hot(t, 3).float()) if multi_label else t.tolist()
    loss = loss_of(labels, "abc", smoothing=0.1, balanced=True, multi_label=multi_label)
    model = Classifier(torch.nn.Identity(), loss, multi_label_accuracy) if multi_label else None
    model = model or Classifier(torch.nn.Identity(), loss)
    if multi_label:
        t = torch.stack(labels)
    elif is_mixed:
        t = F.one_hot(t, 3).float()
    if is_mixed:
        t = 0.7 * t + 0.3 * t.roll(1, 0)
    one, several = (epoch_of(model, zip(y.split(n), t.split(n))) for n in (11, 4))
    assert several == pytest.approx(one)
    assert one["main/loss"] == pytest.approx(loss(y, t).item())
    named = ((y >= 0) == (t >= 0.5)) if multi_label else y.argmax(1) == (t.argmax(1) if is_mixed else t)
    assert one["main/accuracy"] == pytest.approx(named.float().mean().item())


def test_the_loss_moves_with_its_model_and_trains_again_after_eval(tmp_path):
    run, _ = run_of(tmp_path, 3)
    model = run.updater.get_model("main").eval()
    with pytest.warns(UserWarning, match="every module was in eval mode"):
        run.run()
    assert model.lossfun.training and "lossfun.weight" in model.state_dict()
