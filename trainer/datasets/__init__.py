"""What torch.utils.data lacks.

What it has is not here: Chainer's ``TupleDataset`` and ``DictDataset`` are ``torch.utils.data.StackDataset``,
``ConcatenatedDataset`` is ``ConcatDataset``, and ``SubDataset`` is ``Subset``.
"""

from trainer.datasets.cached import CachedDataset, describe_files
from trainer.datasets.convert import concat_examples
from trainer.datasets.images import ImageDataset, LabeledImageDataset
from trainer.datasets.splits import (
    get_cross_validation_datasets,
    get_cross_validation_datasets_random,
    get_cross_validation_datasets_stratified,
    split_dataset,
    split_dataset_n,
    split_dataset_n_random,
    split_dataset_random,
)
from trainer.datasets.transform import TransformDataset, drawer

__all__ = [
    "CachedDataset",
    "ImageDataset",
    "LabeledImageDataset",
    "TransformDataset",
    "concat_examples",
    "describe_files",
    "drawer",
    "get_cross_validation_datasets",
    "get_cross_validation_datasets_random",
    "get_cross_validation_datasets_stratified",
    "split_dataset",
    "split_dataset_n",
    "split_dataset_n_random",
    "split_dataset_random",
]
