"""Trains a perceptron of three layers on MNIST: Chainer's ``examples/mnist/train_mnist.py``, ported.

    python docs/examples/train_mnist.py
    python docs/examples/train_mnist.py --resume result/snapshot_iter_12000 --epoch 40

Without a network put MNIST's four ``*-ubyte`` files into ``mnist/MNIST/raw``.
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from torchvision.datasets import MNIST

import extensions
from trainer import Classifier, StandardUpdater, Trainer
from trainer.iterators import SerialIterator
from trainer.random import set_seed


class MLP(nn.Module):
    """Two hidden layers of ``n_units`` each."""

    def __init__(self, n_units: int, n_out: int) -> None:
        super().__init__()
        self.l1 = nn.Linear(28 * 28, n_units)
        self.l2 = nn.Linear(n_units, n_units)
        self.l3 = nn.Linear(n_units, n_out)

    def forward(self, x: Tensor) -> Tensor:
        """Returns a score for each class: (N, 784) to (N, n_out)."""
        h1 = F.relu(self.l1(x))
        h2 = F.relu(self.l2(h1))
        return self.l3(h2)


def get_mnist(root: str) -> list[TensorDataset]:
    """Returns training and test set, each of (784 numbers of 0 to 1, digit)."""
    parts = [MNIST(root, train=train, download=True) for train in (True, False)]
    return [TensorDataset(part.data.flatten(1) / 255, part.targets) for part in parts]


def main() -> None:
    """Trains as the command line says."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser = argparse.ArgumentParser(description="Kusari example: MNIST")
    parser.add_argument("--batchsize", "-b", type=int, default=100, help="images in a batch (%(default)s)")
    parser.add_argument("--epoch", "-e", type=int, default=20, help="passes over the training set (%(default)s)")
    parser.add_argument("--frequency", "-f", type=int, default=-1, help="epochs between snapshots; -1: one at the end")
    parser.add_argument("--device", "-d", default=device, help="such as cpu, cuda or cuda:1 (%(default)s)")
    parser.add_argument("--out", "-o", default="result", help="folder of whatever the run writes (%(default)s)")
    parser.add_argument("--resume", "-r", metavar="FILE", help="go on from this snapshot")
    parser.add_argument("--autoload", action="store_true", help="go on from the newest snapshot in --out, if any")
    parser.add_argument("--unit", "-u", type=int, default=1000, help="units of a hidden layer (%(default)s)")
    parser.add_argument("--noplot", dest="plot", action="store_false", help="draw no curves")
    parser.add_argument("--data", default="mnist", metavar="DIR", help="where MNIST is or is put (%(default)s)")
    args = parser.parse_args()
    print(f"Device: {args.device}, units: {args.unit}, batch size: {args.batchsize}, epochs: {args.epoch}")

    set_seed(0)  # the same weights and the same order each time
    model = Classifier(MLP(args.unit, 10))
    optimizer = torch.optim.Adam(model.parameters())

    try:
        train, test = get_mnist(args.data)
    except (OSError, RuntimeError) as error:
        parser.error(f"MNIST is not in {args.data}/MNIST/raw and could not be downloaded to it: {error}")
    train_iter = SerialIterator(train, args.batchsize)
    test_iter = SerialIterator(test, args.batchsize, repeat=False, shuffle=False)

    updater = StandardUpdater(train_iter, optimizer, model=model, device=args.device)
    trainer = Trainer(updater, (args.epoch, "epoch"), out=args.out)

    trainer.extend(extensions.Evaluator(test_iter, model))  # observed as validation/main/loss and .../accuracy
    trainer.extend(extensions.dump_graph("main/loss"))  # "main" is the updater's model
    frequency = args.epoch if args.frequency == -1 else max(1, args.frequency)
    trainer.extend(extensions.snapshot(autoload=args.autoload), trigger=(frequency, "epoch"))
    trainer.extend(extensions.LogReport())
    if args.plot:
        for quantity in ("loss", "accuracy"):
            keys = [f"main/{quantity}", f"validation/main/{quantity}"]
            trainer.extend(extensions.PlotReport(keys, "epoch", filename=f"{quantity}.png"))
    columns = ["epoch", "main/loss", "validation/main/loss", "main/accuracy", "validation/main/accuracy"]
    trainer.extend(extensions.PrintReport([*columns, "elapsed_time"]))
    trainer.extend(extensions.ProgressBar())

    if args.resume:
        trainer.resume(args.resume)
    trainer.run()


if __name__ == "__main__":
    main()
