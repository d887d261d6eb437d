"""What an iterator costs a batch, beside torch's own ``DataLoader``.

The same loader is iterated by hand and through ``DataLoaderIterator``: over tensors, over a data set that draws from
Python's, NumPy's and torch's generators, in this process and in two workers, and over one that is iterable. Then
``SerialIterator`` collates a batch of 64 cheap samples, beside the loader that does. Each turn is one epoch; turns are
interleaved, so that a busy machine slows each alike, and medians are printed.

    python benchmarks/loaders.py
"""

import random
import time
from functools import partial
from statistics import median

import numpy as np
import torch
from harness import Results, interleaved, make_parser
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from trainer import concat_examples
from trainer.iterators import DataLoaderIterator, SerialIterator

N = 200  # batches in an epoch
ROUNDS = 20


class Drawing(Dataset):
    def __len__(self):
        return N

    def __getitem__(self, index):
        return torch.rand(4) * random.random() + float(np.random.rand()), index


class Stream(IterableDataset):
    def __iter__(self):
        return (torch.rand(4) for _ in range(N))


def tensors(batch_size):
    return TensorDataset(torch.rand(N * batch_size, 4), torch.arange(N * batch_size))


def by_hand(loader):
    """Microseconds a batch of one epoch."""
    start = time.perf_counter()
    for _ in loader:
        pass
    return 1e6 * (time.perf_counter() - start) / N


def through(iterator):
    start = time.perf_counter()
    for _ in range(N):
        concat_examples(next(iterator))
    return 1e6 * (time.perf_counter() - start) / N


def main():
    args = make_parser(__doc__).parse_args()
    loaders = {
        "tensors": DataLoader(tensors(1), 1, shuffle=True),
        "a data set that draws": DataLoader(Drawing(), 1, shuffle=True),
        "the same in 2 workers": DataLoader(Drawing(), 1, shuffle=True, num_workers=2, persistent_workers=True),
        "an iterable one": DataLoader(Stream(), 1),
    }
    cheap = [(float(i), i) for i in range(64 * N)]
    pairs = {f"{name}, DataLoaderIterator": (DataLoaderIterator(loader), loader) for name, loader in loaders.items()}
    pairs["64 cheap samples, SerialIterator"] = (SerialIterator(cheap, 64), DataLoader(cheap, 64, shuffle=True))
    functions = {}
    for name, (iterator, loader) in pairs.items():
        functions[name.partition(", ")[0]] = partial(by_hand, loader)
        functions[name] = partial(through, iterator)

    results = Results("What an iterator costs a batch", "numpy")
    measured = interleaved(functions, args.rounds or ROUNDS)
    names = list(measured)
    for plain, ours in zip(names[::2], names[1::2], strict=True):
        results.add(plain, median(measured[plain]), "us")
        results.add(ours, median(measured[ours]), "us")
        more = [b - a for a, b in zip(measured[plain], measured[ours], strict=True)]
        results.add(f"{ours} over the loader", median(more), "us")
    results.write(args.json)
    for iterator, _ in pairs.values():
        iterator.finalize()


if __name__ == "__main__":
    main()
