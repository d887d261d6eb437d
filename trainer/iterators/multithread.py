"""The same batches, fetched by threads."""

from __future__ import annotations

import threading
import weakref
from multiprocessing.pool import ThreadPool
from typing import Any

from trainer import random
from trainer.checks import at_least
from trainer.datasets.transform import single_thread
from trainer.iterators.serial import Cursor, Made, OrderSampler, SerialIterator
from trainer.iterators.waiting import Interrupted


class MultithreadIterator(SerialIterator):
    """Yields lists of samples that threads fetch side by side. Chainer: ``iterators.MultithreadIterator``.

    For data sets that wait in ``__getitem__``, for a network disk say. Training waits while a batch is fetched: no
    thread runs beside it. :class:`MultiprocessIterator` is better for data sets that decode or compute.

    The order is that of :class:`SerialIterator` with the same seed. The global generators belong to all threads, so a
    data set that draws from them is refused. One that draws defines ``draw_sample(index, generator)`` in place of
    ``__getitem__``: it is handed a ``torch.Generator`` for each sample, and every iterator gives the same bits.

    Args:
        dataset: As for :class:`SerialIterator`.
        batch_size: Samples in a batch.
        repeat: Whether to go on after the first epoch.
        shuffle: Whether to draw a new order for each epoch.
        n_threads: How many threads.
        order_sampler: As for :class:`SerialIterator`.
        seed: By default the run's.
        on_bad_sample: As for :class:`SerialIterator`.

    Raises:
        ValueError: As :class:`SerialIterator`, or if ``n_threads`` is not positive.
        RuntimeError: When a batch is fetched, if the data set draws from a global generator.

    Example:
        >>> from trainer.iterators import MultithreadIterator
        >>> iterator = MultithreadIterator(range(10), 4, shuffle=False, n_threads=2)
        >>> next(iterator), next(iterator)
        ([0, 1, 2, 3], [4, 5, 6, 7])
        >>> iterator.finalize()
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        repeat: bool = True,
        shuffle: bool | None = None,
        n_threads: int = 1,
        order_sampler: OrderSampler | None = None,
        **kwargs: Any,
    ) -> None:
        self.n_threads = at_least("n_threads", n_threads, 1)
        super().__init__(dataset, batch_size, repeat, shuffle, order_sampler, **kwargs)
        self._samples.seeds_generators = False

    def _next_batch(self) -> tuple[Made, Cursor]:
        stretches, cursor = self._advance(self.epoch, self.current_position, self._order)
        if self._workers is None:
            # Its threads are daemons: one that is stuck does not keep the process from ending.
            self._workers = ThreadPool(self.n_threads, _name_thread)
            weakref.finalize(self, self._workers.close)  # where nobody calls finalize, it would warn
        with random.preserved(), single_thread():
            before = random.raw_state()
            try:
                made = self._samples.batch(stretches, self._workers.imap)
            except Interrupted:
                self._workers = None  # its threads are stuck
                raise
            except BaseException:
                self.finalize()  # waits for those that are still at work
                raise
            if random.has_drawn(before):
                raise RuntimeError(
                    f"{type(self.dataset).__name__} draws from a global random generator, which its threads share: the"
                    " run could not be repeated. Use MultiprocessIterator, or define draw_sample(index, generator)."
                )
        return made, cursor

    def finalize(self) -> None:
        """Ends the threads; the next batch, if there is one, starts new ones."""
        if self._workers is not None:
            self._workers.close()
            self._workers.join()
        super().finalize()


def _name_thread() -> None:
    threading.current_thread().name = f"samples_{threading.get_ident()}"
