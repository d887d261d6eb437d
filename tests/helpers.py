"""Small runs and data sets that several tests use."""

import random
from types import SimpleNamespace

import numpy as np
import torch

from trainer import Classifier, StandardUpdater, Trainer
from trainer.extension import PHASE_REPORT
from trainer.iterators import SerialIterator


def make_data(n=10):
    return [(torch.rand(2, generator=torch.Generator().manual_seed(i)), i % 3) for i in range(n)]


def make_run(out, stop=(2, "epoch"), n=10, batch_size=5, **kwargs):
    """A Linear(2, 3) trained by SGD: four iterations, two epochs; the same weights every time."""
    torch.manual_seed(0)
    model = Classifier(torch.nn.Linear(2, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    updater = StandardUpdater(SerialIterator(make_data(n), batch_size), optimizer, model=model, **kwargs)
    return Trainer(updater, stop, out=out)


def at_the_end(function):
    """A plug-in of the phase in which an iteration's values are complete and its entry is written."""
    function.phase = PHASE_REPORT
    return function


def at(iteration=0, epoch=0.0):
    """What a trigger sees of a trainer."""
    return SimpleNamespace(updater=SimpleNamespace(iteration=iteration, epoch_detail=epoch))


class Augmented(torch.utils.data.Dataset):
    """Random crops, flips and per-image standardisation, drawn from every global generator there is."""

    def __init__(self, n=20):
        self.images = np.random.RandomState(0).randint(0, 256, (n, 3, 12, 12)).astype(np.float32)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        top, left = random.randint(0, 4), int(np.random.randint(0, 5))
        image = torch.from_numpy(self.images[index, :, top : top + 8, left : left + 8].copy())
        if torch.rand(()) < 0.5:
            image = image.flip(2)
        image = image + torch.randn(image.shape) * random.gauss(1, 0.1) + float(np.random.normal())
        return (image - image.mean()) / image.std(), index % 3


def equal(a, b):
    """Whether two nests of tensors and values are the same to the bit."""
    return bits(a) == bits(b)


def bits(value, path=""):
    """The leaves of a nest by path, each as its kind and its bits: -0.0 is not 0.0, and NaN is NaN."""
    if isinstance(value, (dict, list, tuple)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        leaves = {path: (type(value), len(value))}
        for key, part in items:
            leaves |= bits(part, f"{path}/{key}")
        return leaves
    if isinstance(value, torch.Tensor):
        return {path: (value.dtype, value.shape, value.contiguous().flatten().view(torch.uint8).numpy().tobytes())}
    return {path: (type(value), repr(value))}
