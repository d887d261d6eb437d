"""Kusari's engine: the training loop, its parts, and what a plug-in needs of it."""

import trainer.datasets  # noqa: F401  # so that trainer.datasets is there after `import trainer`
from trainer.classifier import Classifier, accuracy, binary_accuracy
from trainer.datasets.convert import concat_examples
from trainer.extension import PRIORITY_EDITOR, PRIORITY_READER, PRIORITY_WRITER, Extension, make_extension
from trainer.reporter import Reporter, get_current_reporter, report, report_scope
from trainer.saving.settings import __version__
from trainer.summary import DictSummary, Observation, Ratio, Summary, Weighted
from trainer.trainer import Trainer
from trainer.updaters import StandardUpdater

__all__ = [
    "PRIORITY_EDITOR",
    "PRIORITY_READER",
    "PRIORITY_WRITER",
    "Classifier",
    "DictSummary",
    "Extension",
    "Observation",
    "Ratio",
    "Reporter",
    "StandardUpdater",
    "Summary",
    "Trainer",
    "Weighted",
    "__version__",
    "accuracy",
    "binary_accuracy",
    "concat_examples",
    "get_current_reporter",
    "make_extension",
    "report",
    "report_scope",
]
