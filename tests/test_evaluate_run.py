"""What a run's network makes of a split, in numbers and pictures; and what is said when something is wrong."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tags import write_tags
from torch.utils.data import Subset
from torchvision.datasets import ImageFolder

from recipes import evaluate_run, lenet_mnist, resnet_products
from recipes.evaluate_run import Evaluation
from recipes.parts import image_files, pictures, run_folder, trained
from recipes.parts.drawn import digits as drawn_digits
from recipes.parts.image_files import ImageFiles


@pytest.fixture(scope="module")
def products(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("products")
    options = "--model test_resnet --image-size 32 --scale 32 --batch-size 16 --workers 0 --epochs 2 --test-fraction 1"
    resnet_products.main(["--data", str(data), "--out", str(out), *options.split()])
    return out


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    out = tmp_path_factory.mktemp("digits")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawn_digits, "TRAIN", 200)
        patch.setattr(drawn_digits, "TEST", 61)
        lenet_mnist.main(
            ["--sample", "--data", str(out / "data"), "--out", str(out), "--epochs", "2", "--workers", "0"]
        )
    return out


def run(folder, *options):
    return evaluate_run.main([str(folder), "--workers", "0", "--device", "cpu", *map(str, options)])


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert caught.value.code == 2
    return capsys.readouterr().err


def last_of_log(folder, key):
    return [entry[key] for entry in json.loads((folder / "log").read_text()) if key in entry][-1]


def evaluation(labels, probabilities, dataset=None, names="abcdefghij"):
    found = np.array(probabilities, np.float32)
    return Evaluation(dataset or [], "test", list(names[: found.shape[1]]), found, np.array(labels))


# -- the numbers


def test_the_accuracy_is_that_of_the_training_to_the_last_digit(products, digits):
    assert run(products)["accuracy"] == json.loads((products / "test.json").read_text())["main/accuracy"]
    assert run(products, "--split", "valid")["accuracy"] == last_of_log(products, "validation/main/accuracy")
    accuracy = run(digits)["accuracy"]
    assert accuracy == last_of_log(digits, "validation/main/accuracy") > 0.2, "images of one channel, labels tensors"
    assert accuracy == pytest.approx(run(digits, "--batch-size", 7)["accuracy"])


def test_precision_recall_f1_and_confusion_are_counted_by_class():
    a, b = [0.8, 0.1, 0.1], [0.2, 0.7, 0.1]
    found = evaluation([0, 0, 0, 0, 1, 1], [a, b, b, a, b, a])
    assert evaluate_run.confusion(found).tolist() == [[2, 2, 0], [1, 1, 0], [0, 0, 0]], "rows are the truth"
    told = evaluate_run.summary(found)
    assert told["classes"] == [
        {"name": "a", "n": 4, "precision": 2 / 3, "recall": 2 / 4, "f1": 4 / 7},
        {"name": "b", "n": 2, "precision": 1 / 3, "recall": 1 / 2, "f1": 2 / 5},
        {"name": "c", "n": 0, "precision": None, "recall": None, "f1": None},
    ]
    assert told["macro_f1"] == pytest.approx((4 / 7 + 2 / 5) / 2), "over the classes that occur"
    assert (told["split"], told["n"], told["accuracy"], told["top5"]) == ("test", 6, 3 / 6, None)


def test_a_class_that_occurs_and_is_never_found_has_an_f1_of_0():
    found = evaluation([0, 1], [[0.9, 0.1, 0.0], [0.8, 0.1, 0.1]])
    told = evaluate_run.summary(found)
    assert [one["f1"] for one in told["classes"]] == [2 / 3, 0, None] and told["macro_f1"] == 1 / 3


def test_top_5_counts_the_five_most_probable_of_more_than_five_classes():
    rows = [[0.3, 0.25, 0.2, 0.15, 0.07, 0.03]] * 3
    assert evaluate_run.summary(evaluation([0, 4, 5], rows))["top5"] == 2 / 3
    certain = [[1.0] + [0.0] * 9] * 10  # nine are equally improbable: not all of them are among the first five
    assert evaluate_run.summary(evaluation(range(10), certain))["top5"] == 1 / 2


def test_mistakes_come_with_the_most_confident_first():
    found = evaluation([0, 0, 1, 0], [[0.4, 0.6], [0.9, 0.1], [0.8, 0.2], [0.2, 0.8]])
    assert evaluate_run.mistakes(found) == [2, 3, 0]
    assert evaluate_run.mistakes(found, 1) == [2]
    assert evaluate_run.summary(found)["mistakes"][0] == {
        "index": 2, "path": None, "truth": "b", "prediction": "a", "probability": pytest.approx(0.8),
    }  # fmt: skip


def test_a_mistake_is_named_by_its_file(products, data):
    network = trained.load(products, "cpu", 0)
    for split in ("train", "valid", "test"):
        found = evaluate_run.evaluate(network, split)
        for i in range(len(found.labels)):
            path = Path(image_files.path_of(found.dataset, i))
            assert path.is_file() and path.parent.name == f"{found.classes[found.labels[i]]}_final"
    folder = ImageFolder(data)
    assert image_files.path_of(Subset(Subset(folder, [3, 9]), [1]), 0) == folder.samples[9][0]
    assert image_files.path_of(ImageFiles(["a/1.jpg", "a/2.jpg"], [0, 1], str), 1) == "a/2.jpg"


def test_images_that_were_skipped_are_replaced_in_what_is_returned_too(products, data, tmp_path):
    broken = shutil.copytree(data, tmp_path / "data")
    network = trained.load(products, "cpu", 0)
    network.args.data, network.args.on_bad_sample = str(broken), "skip"
    whole = evaluate_run.evaluate(network, "test")
    Path(image_files.path_of(whole.dataset, 5)).write_bytes(b"nothing")
    with pytest.warns(UserWarning, match="cannot give the sample of index 5, which is skipped"):
        found = evaluate_run.evaluate(network, "test")
    assert [found.dataset[i][1] for i in range(24)] == found.labels.tolist()
    assert found.labels[5] == whole.labels[6] and np.array_equal(found.labels[6:], whole.labels[6:])


def test_that_the_best_epoch_was_chosen_on_the_test_set_is_said_once(products, digits, capsys):
    remark = "The run validated on them, too: a best epoch chosen by that was chosen on the test set."
    for folder, split, count in ((digits, "test", 1), (digits, "train", 0), (products, "test", 0)):
        run(folder, "--split", split)
        assert capsys.readouterr().out.count(remark) == count


# -- the folder


def test_numbers_and_pictures_come_into_the_folder(digits, capsys):
    (digits / "evaluation_test.json").unlink(missing_ok=True)
    told = run(digits)
    assert json.loads((digits / "evaluation_test.json").read_text()) == told
    for name in ("confusion_test.png", "mistakes_test.png"):
        assert (digits / name).read_bytes()[:4] == b"\x89PNG"
    out = capsys.readouterr().out
    assert f"accuracy  {told['accuracy']:.4f}  ({round(61 * told['accuracy'])} of 61)" in out
    assert f"top-5     {told['top5']:.4f}" in out
    assert re.search(r"^7 +(\d\.\d{3}|-) +\d\.\d{3} +\d\.\d{3} +6$", out, re.MULTILINE)
    assert "Wrote evaluation_test.json, confusion_test.png, mistakes_test.png." in out


def test_where_there_are_no_mistakes_the_picture_of_older_ones_goes(digits, monkeypatch, capsys):
    run(digits, "--split", "train")
    assert (digits / "mistakes_train.png").exists()
    perfect = evaluation(range(10), np.eye(10), names="0123456789")
    monkeypatch.setattr(evaluate_run, "evaluate", lambda network, split, data: perfect)
    told = run(digits, "--split", "train")
    assert told["accuracy"] == 1 and told["mistakes"] == []
    assert not (digits / "mistakes_train.png").exists()
    assert "Wrote evaluation_train.json, confusion_train.png.\n" in capsys.readouterr().out


def test_the_table_marks_what_has_no_value():
    told = evaluate_run.summary(evaluation([0, 0], [[0.9, 0.1], [0.8, 0.2]]))
    assert evaluate_run.table(told).splitlines() == [
        "accuracy  1.0000  (2 of 2)",
        "macro F1  1.0000  (mean over the classes that occur)",
        "",
        "class  precision  recall     F1       n",
        "a          1.000   1.000  1.000       2",
        "b              -       -      -       0",
    ]


def test_another_data_set_may_be_evaluated_if_it_has_the_classes_of_the_run(products, data, tmp_path, capsys):
    other = shutil.copytree(data, tmp_path / "data")
    header, *lines = (other / "Ebay_test.txt").read_text().splitlines()
    (other / "Ebay_test.txt").write_text("\n".join([header, *lines[:10]]))
    assert run(products, "--data", other)["n"] == 10
    saved = run_folder.read_args(products)
    copy = shutil.copytree(products, tmp_path / "run")
    run_folder.write_json(copy / "args.json", saved | {"classes": ["teapot", *saved["classes"][1:]]})
    assert "has other classes than the run (bicycle, teapot); --data must" in refused(capsys, copy)


def test_bad_input_is_told_with_what_to_do(products, data, tmp_path, capsys):
    told = refused(capsys, products, "--split", "dev")
    assert "a run of resnet_products has no split 'dev'; there are train, valid, test." in told
    assert "no data set at" in refused(capsys, products, "--data", tmp_path / "absent")
    assert "Ebay_train.txt is missing" in refused(capsys, products, "--data", tmp_path)
    assert "is not a run's folder: it has no args.json" in refused(capsys, tmp_path)
    assert "there is no" in refused(capsys, tmp_path / "absent")
    assert "is a file; name its folder" in refused(capsys, products / "model_epoch-2")
    assert "--batch-size must be 1 or more, got 0" in refused(capsys, products, "--batch-size", 0)
    assert "--workers must be 0 or more, got -1" in refused(capsys, products, "--workers", -1)
    assert "tpu9" in refused(capsys, products, "--device", "tpu9")
    shutil.copy(products / "args.json", tmp_path)
    assert "has no weights yet" in refused(capsys, tmp_path)
    broken = shutil.copytree(data, tmp_path / "data")
    for path in (broken / "chair_final").iterdir():
        path.write_bytes(b"nothing")
    assert re.search(
        r"error: .*/chair_final/.* cannot be used: it is not an image", refused(capsys, products, "--data", broken)
    )


def test_a_data_set_that_is_not_whole_is_told(digits, tmp_path, capsys):
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    assert "is incomplete: --download fetches" in refused(capsys, digits, "--data", tmp_path)


def test_a_network_that_has_diverged_is_refused(products, tmp_path, capsys):
    weights = torch.load(products / "model_epoch-2", weights_only=True)
    weights["fc.weight"][:] = torch.nan
    torch.save(weights, tmp_path / "model_epoch-3")
    shutil.copy(products / "args.json", tmp_path)
    assert "model_epoch-3 gives NaN and no probabilities: the training has diverged" in refused(capsys, tmp_path)


# -- several labels to an image


@pytest.fixture
def tags(tmp_path, monkeypatch):
    return write_tags(tmp_path, monkeypatch)


def run_of(labels, probabilities, names="abc"):
    return Evaluation([], "test", list(names), np.array(probabilities, np.float32), np.array(labels, bool))


def test_each_label_is_counted_by_itself_where_an_image_may_have_several():
    labels = [[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 1, 0]]
    found = run_of(labels, [[0.9, 0.2, 0.1], [0.5, 0.4, 0.1], [0.8, 0.1, 0.1], [0.3, 0.7, 0.1]])
    told = evaluate_run.summary(found)
    assert {key: value for key, value in told.items() if key not in ("classes", "mistakes")} == {
        "split": "test", "n": 4, "multi_label": True, "accuracy": 10 / 12, "exact_match": 2 / 4,
        "micro_f1": 2 * 3 / (4 + 4), "macro_f1": pytest.approx((4 / 5 + 2 / 3) / 2),
        "mean_average_precision": pytest.approx((5 / 6 + 1) / 2),
    }  # fmt: skip
    assert told["classes"] == [
        {"name": "a", "n": 2, "precision": 2 / 3, "recall": 1, "f1": 4 / 5, "average_precision": pytest.approx(5 / 6)},
        {"name": "b", "n": 2, "precision": 1, "recall": 1 / 2, "f1": 2 / 3, "average_precision": 1},
        {"name": "c", "n": 0, "precision": None, "recall": None, "f1": None, "average_precision": None},
    ]
    assert told["mistakes"] == [
        {"index": 2, "path": None, "truth": [], "prediction": ["a"], "label": "a", "probability": pytest.approx(0.8)},
        {"index": 1, "path": None, "truth": ["a", "b"], "prediction": ["a"], "label": "b",
         "probability": pytest.approx(0.4)},
    ]  # fmt: skip
    assert evaluate_run.table(told).splitlines() == [
        "accuracy     0.8333  (10 of 12 labels)",
        "exact match  0.5000  (2 of 4 images)",
        "macro F1     0.7333  (mean over the classes that occur)",
        "micro F1     0.7500  (all labels together)",
        "mean AP      0.9167  (AP: average precision)",
        "",
        "class  precision  recall     F1     AP       n",
        "a          0.667   1.000  0.800  0.833       2",
        "b          1.000   0.500  0.667  1.000       2",
        "c              -       -      -      -       0",
    ]


def test_the_average_precision_takes_equal_probabilities_together():
    assert evaluate_run.average_precision(np.full(4, 0.5), np.array([True, False, False, True])) == 0.5
    found = evaluate_run.average_precision(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1], bool))
    assert found == pytest.approx((1 + 2 / 3) / 2), "scikit-learn's example"


def test_labels_that_never_occur_have_no_mean():
    told = evaluate_run.summary(run_of([[0, 0, 0]], [[0.1, 0.1, 0.1]]))
    assert (told["macro_f1"], told["micro_f1"], told["accuracy"], told["mistakes"]) == (None, None, 1, [])
    assert "macro F1     -  (" in evaluate_run.table(told)


def test_a_run_of_several_labels_has_no_confusion_matrix(tags, capsys):
    (tags / "confusion_test.png").touch()
    told = run(tags)
    assert json.loads((tags / "evaluation_test.json").read_text()) == told
    assert told["multi_label"] is True and "confusion" not in told and not (tags / "confusion_test.png").exists()
    assert (told["n"], told["accuracy"], told["exact_match"]) == (8, 22 / 24, 6 / 8)
    assert sorted((one["index"], one["truth"], one["prediction"]) for one in told["mistakes"]) == [
        (0, ["red"], []), (7, ["red", "green"], ["red", "green", "blue"]),
    ]  # fmt: skip
    assert (tags / "mistakes_test.png").read_bytes()[:4] == b"\x89PNG"
    assert "Wrote evaluation_test.json, mistakes_test.png." in capsys.readouterr().out


def test_the_title_of_a_mistake_in_several_labels_says_what_is_missing_and_what_is_too_much():
    assert pictures.title_of_labels(["cat"], ["dog", "cat"]) == "\N{BALLOT X} missing: dog"
    assert pictures.title_of_labels(["cat"], ["dog"]) == "\N{BALLOT X} missing: dog\ntoo much: cat"
    many = pictures.title_of_labels(list("abcde"), [])
    assert many == "\N{BALLOT X} too much: a, b, c, and 2 more"


# -- the pictures


@pytest.mark.parametrize("n", [2, 12, 37, pytest.param(120, marks=pytest.mark.full)])
def test_a_confusion_matrix_names_the_classes_and_counts_as_far_as_numbers_can_be_read(n):
    names = [f"class_${i}$" for i in range(n)]
    matrix = np.diag(np.arange(n))
    matrix[1, 0] = 7
    figure = pictures.draw_confusion(matrix, names)
    figure.draw_without_rendering()  # a name is no formula
    panel = figure.axes[0]
    assert [text.get_text() for text in panel.get_yticklabels()] == names
    assert [text.get_text() for text in panel.get_xticklabels()] == names
    numbers = {text.get_position(): int(text.get_text()) for text in panel.texts}
    expected = {(i, i): i for i in range(n)} | {(0, 1): 7} | ({(1, 0): 0} if n == 2 else {})
    assert numbers == (expected if n <= pictures.MOST_NUMBERED else {})
    assert panel.get_xlabel() == "prediction" and panel.get_ylabel() == "truth"


def test_names_and_numbers_of_a_confusion_matrix_do_not_overlap():
    names = ["staffordshire_bull_terrier"] * 37
    figure = pictures.draw_confusion(np.full((37, 37), 1234), names)
    figure.draw_without_rendering()
    panel = figure.axes[0]
    for texts in (panel.get_xticklabels(), panel.get_yticklabels(), panel.texts[:37]):
        boxes = [text.get_window_extent() for text in texts]
        assert not any(a.overlaps(b) for a, b in zip(boxes, boxes[1:]))
    width, height = figure.get_size_inches() * figure.dpi
    for text in (panel.xaxis.label, panel.yaxis.label, *panel.get_xticklabels(), *panel.get_yticklabels()):
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height


def test_right_and_wrong_predictions_are_told_apart_without_colours():
    assert pictures.title_of("pug", 0.987, "pug") == "\N{CHECK MARK} pug (0.99)"
    assert pictures.title_of("pug", 0.987, "boxer") == "\N{BALLOT X} pug (0.99)\nin truth boxer"
    assert pictures.title_of("pug", 0.987, None) == "pug (0.99)"


@pytest.mark.parametrize(("channels", "n"), [(1, 1), (1, 16), (3, 5)])
def test_images_are_drawn_as_they_are_with_their_titles(channels, n):
    images = [torch.randint(0, 200, (channels, 8, 8), dtype=torch.uint8) for _ in range(n)]
    titles = [pictures.title_of("staffordshire_bull_terrier", 0.5, "american_pit_bull_terrier") for _ in images]
    figure = pictures.draw_images(images, titles)
    figure.draw_without_rendering()
    assert [panel.get_title() for panel in figure.axes] == titles
    for panel, image in zip(figure.axes, images):
        (drawn,) = panel.images
        assert np.array_equal(np.asarray(drawn.get_array()).reshape(8, 8, channels), image.permute(1, 2, 0).numpy())
        if channels == 1:
            assert drawn.get_clim() == (0, 255), "a dark image stays dark"
        box = panel.title.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= figure.get_size_inches()[0] * figure.dpi


def test_characters_without_a_font_are_told_in_one_line(tmp_path, capsys, recwarn):
    figure = pictures.draw_confusion(np.eye(2, dtype=int), ["\U00012000\U00012001", "\U00012002"])
    pictures.write_figure(tmp_path / "c.png", figure)
    told = capsys.readouterr().err
    assert told.startswith("c.png has boxes for characters that no font here has: install one, such as ")
    assert told.count("\n") == 1 and not recwarn.list
