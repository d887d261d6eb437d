"""docs/chainer_names.md: no name of Chainer is forgotten, and every name that it gives exists."""

import importlib
import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from helpers import make_data, make_run

import extensions
from trainer import Classifier, Reporter, StandardUpdater, Trainer
from trainer.iterators import SerialIterator
from trainer.triggers import IntervalTrigger, ManualScheduleTrigger, OnceTrigger

PAGE = (Path(__file__).parent.parent / "docs" / "chainer_names.md").read_text()
ROWS = [
    tuple(cell.strip() for cell in line.strip("|").split("|"))
    for line in PAGE.splitlines()
    if line.startswith("|") and line not in ("| Chainer | here | note |", "| --- | --- | --- |")
]

# What Chainer 7.8.1's packages export and its classes offer to their users.
CHAINER = {
    "chainer": "DictSummary Reporter Summary get_current_reporter report report_scope reporter",
    "chainer.reporter": "DictSummary Reporter Summary get_current_reporter report report_scope",
    "chainer.reporter.DictSummary": "add compute_mean make_statistics serialize",
    "chainer.reporter.Reporter": "add_observer add_observers observation report scope",
    "chainer.reporter.Summary": "add compute_mean make_statistics serialize",
    "chainer.training": """
        Extension IntervalTrigger PRIORITY_EDITOR PRIORITY_READER PRIORITY_WRITER ParallelUpdater StandardUpdater
        Trainer Updater extension extensions get_trigger make_extension trainer trigger triggers updater updaters util
        """,
    "chainer.training.Extension": "__call__ default_name finalize initialize name on_error priority serialize trigger",
    "chainer.training.Trainer": """
        elapsed_time extend get_extension is_before_training observation out reporter run serialize stop_trigger updater
        """,
    "chainer.training.Updater": "connect_trainer finalize get_all_optimizers get_optimizer serialize update",
    "chainer.training.extensions": """
        DumpGraph Evaluator ExponentialShift FailOnNonNumber InverseShift LinearShift LogReport MicroAverage
        MultistepShift ParameterStatistics PlotReport PolynomialShift PrintReport ProgressBar StepShift
        VariableStatisticsPlot WarmupShift dump_graph observe_lr observe_value snapshot snapshot_object
        unchain_variables
        """,
    "chainer.training.extensions.Evaluator": """
        __call__ converter device eval_func eval_hook evaluate get_all_iterators get_all_targets get_iterator get_target
        """,
    "chainer.training.extensions.LogReport": "log",
    "chainer.training.extensions.ParameterStatistics": "default_statistics register_statistics report_key_template",
    "chainer.training.extensions.PlotReport": "available",
    "chainer.training.extensions.VariableStatisticsPlot": "available save_plot_using_module",
    "chainer.training.extensions.snapshot_writers": """
        ProcessQueueWriter ProcessWriter QueueWriter SimpleWriter StandardWriter ThreadQueueWriter ThreadWriter Writer
        """,
    "chainer.training.extensions.snapshot_writers.Writer": "__call__ finalize save",
    "chainer.training.triggers": """
        BestValueTrigger EarlyStoppingTrigger IntervalTrigger ManualScheduleTrigger MaxValueTrigger MinValueTrigger
        OnceTrigger TimeTrigger
        """,
    "chainer.training.triggers.EarlyStoppingTrigger": "get_training_length",
    "chainer.training.triggers.IntervalTrigger": "count get_training_length period unit",
    "chainer.training.triggers.ManualScheduleTrigger": "finished",
    "chainer.training.triggers.OnceTrigger": "finished",
    "chainer.training.updaters": "MultiprocessParallelUpdater ParallelUpdater StandardUpdater",
    "chainer.training.updaters.MultiprocessParallelUpdater": "available",
    "chainer.training.updaters.StandardUpdater": """
        auto_new_epoch converter device epoch epoch_detail get_iterator input_device is_new_epoch iteration loss_func
        loss_scale previous_epoch_detail update_core
        """,
    "chainer.iterators": """
        DaliIterator MultiprocessIterator MultithreadIterator OrderSampler SerialIterator ShuffleOrderSampler
        """,
    "chainer.iterators.MultiprocessIterator": "TimeoutWarning",
    "chainer.iterators.SerialIterator": "current_position dataset order_sampler repeat reset",
    "chainer.dataset": """
        ConcatWithAsyncTransfer Converter DatasetMixin Iterator TabularDataset cache_or_load_file cached_download
        concat_examples converter get_dataset_directory get_dataset_root set_dataset_root to_device
        """,
    "chainer.dataset.DatasetMixin": "get_example",
    "chainer.dataset.Iterator": """
        __next__ batch_size epoch epoch_detail finalize is_new_epoch next previous_epoch_detail serialize
        """,
    "chainer.dataset.tabular": "DelegateDataset from_data",
    "chainer.datasets": """
        ConcatenatedDataset DictDataset ImageDataset LabeledImageDataset LabeledZippedImageDataset
        MultiZippedImageDataset PickleDataset PickleDatasetWriter SubDataset TextDataset TransformDataset TupleDataset
        ZippedImageDataset get_cifar10 get_cifar100 get_cross_validation_datasets get_cross_validation_datasets_random
        get_fashion_mnist get_fashion_mnist_labels get_kuzushiji_mnist get_kuzushiji_mnist_labels get_mnist
        get_ptb_words get_ptb_words_vocabulary get_svhn open_pickle_dataset open_pickle_dataset_writer split_dataset
        split_dataset_n split_dataset_n_random split_dataset_random
        """,
}


def resolve(name, objects=()):
    """Returns what a name stands for, as ``from a.b import c`` would; what a class lacks its object may have."""
    first, *parts = name.split(".")
    value, path = importlib.import_module(first), first
    for part in parts:
        path = f"{path}.{part}"
        of_an_object = [vars(o)[part] for o in objects if type(o) is value and part in vars(o)]
        if hasattr(value, part):
            value = getattr(value, part)
        else:
            value = of_an_object[0] if of_an_object else importlib.import_module(path)
    return value


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    """One of each class of which the page names attributes that are set at construction."""
    run = make_run(tmp_path_factory.mktemp("run"))
    iterator = run.updater.get_iterator("main")
    evaluator = extensions.Evaluator(SerialIterator([1], 1, repeat=False), run.updater.get_model("main"))
    triggers = [IntervalTrigger(1, "epoch"), ManualScheduleTrigger(1, "epoch"), OnceTrigger()]
    return [run, run.updater, iterator, evaluator, extensions.LogReport(), Reporter(), *triggers]


def test_every_row_has_a_name_of_chainer_s_and_one_of_ours_or_gone():
    for row in ROWS:
        assert len(row) == 3, row
        assert re.fullmatch(r"`chainer[\w.]*`", row[0]), row
        assert row[1] == "gone" or re.fullmatch(r"`[\w.]+`", row[1]), row


def test_the_tables_list_exactly_chainer_s_names_each_once():
    names = [f"{module}.{name}" for module, names in CHAINER.items() for name in names.split()]
    assert Counter(row[0].strip("`") for row in ROWS) == Counter(names)


def test_what_is_gone_has_a_note():
    assert [row for row in ROWS if row[1] == "gone" and not row[2].endswith(".")] == []


@pytest.mark.parametrize("name", sorted({row[1].strip("`") for row in ROWS if row[1] != "gone"}))
def test_every_name_here_exists(name, objects):
    resolve(name, objects)


def test_a_name_that_does_not_exist_is_found_out(objects):
    for name in ("trainer.Trainr", "trainer.Trainer.nothing", "extensions.nothing", "nowhere.Trainer"):
        with pytest.raises(ImportError):
            resolve(name, objects)
    assert resolve("extensions.snapshot") is extensions.snapshot  # the function, not its file


def test_names_in_notes_exist_too(objects):
    for name in re.findall(r"`((?:trainer|extensions|torch|torchvision)\.[\w.]+)", PAGE):
        resolve(name, objects)


def test_a_trainer_connects_its_updater_before_its_extensions_are_registered(tmp_path):
    class Told(StandardUpdater):
        def connect_trainer(self, trainer):
            super().connect_trainer(trainer)
            self.told = trainer, list(trainer.extensions)

    model = Classifier(torch.nn.Linear(2, 3))
    updater = Told(SerialIterator(make_data(), 5), torch.optim.SGD(model.parameters()), model=model)
    run = Trainer(updater, out=tmp_path, extensions=[extensions.LogReport()])
    assert updater.told == (run, ["training"]) and "LogReport" in run.extensions
    assert updater.get_iterator("main").bad_samples_file == tmp_path / "bad_samples.json"
