"""Order and position of the data, as a small value that can be saved.

Any object with ``__next__``, ``epoch``, ``epoch_detail``, ``is_new_epoch``, ``state_dict``, ``load_state_dict`` and
``finalize`` is an iterator; for an Evaluator it needs ``__next__``, ``reset`` and ``finalize``.
"""

from trainer.iterators.bad_samples import BadSampleError
from trainer.iterators.loader import DataLoaderIterator, as_iterator, refuse_shared_loaders
from trainer.iterators.multiprocess import MultiprocessIterator
from trainer.iterators.multithread import MultithreadIterator
from trainer.iterators.order_samplers import ShuffleOrderSampler, StratifiedOrderSampler, WeightedOrderSampler
from trainer.iterators.serial import SerialIterator

__all__ = [
    "BadSampleError",
    "DataLoaderIterator",
    "MultiprocessIterator",
    "MultithreadIterator",
    "SerialIterator",
    "ShuffleOrderSampler",
    "StratifiedOrderSampler",
    "WeightedOrderSampler",
    "as_iterator",
    "refuse_shared_loaders",
]
