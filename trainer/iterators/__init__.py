"""Order and position of the data, as a small value that can be saved.

Any object with ``__next__``, ``epoch``, ``epoch_detail``, ``is_new_epoch``, ``state_dict``, ``load_state_dict`` and
``finalize`` is an iterator.
"""

from trainer.iterators.loader import DataLoaderIterator, as_iterator
from trainer.iterators.multiprocess import MultiprocessIterator
from trainer.iterators.serial import SerialIterator

__all__ = ["DataLoaderIterator", "MultiprocessIterator", "SerialIterator", "as_iterator"]
