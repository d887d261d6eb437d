"""Trains a convnet on a large set of photographs: Chainer's ``examples/imagenet/train_imagenet.py``, ported.

    python docs/examples/train_imagenet.py train.txt val.txt --root ILSVRC2012 --loaderjob 16

Each line of the two lists is the path of an image under ``--root``, white space, and its class as a number from 0.
The images are RGB, scaled and cropped to 256x256 beforehand. Any model of timm will do, see ``timm.list_models()``.
"""

from __future__ import annotations

import argparse
import random
from functools import partial

import numpy as np
import timm
import torch
from torch import Tensor

import extensions
from trainer import Classifier, StandardUpdater, Trainer, saving
from trainer.datasets import LabeledImageDataset, TransformDataset
from trainer.iterators import MultiprocessIterator
from trainer.random import set_seed
from trainer.updaters.precision import DTYPES

MEAN = [123.68, 116.78, 103.94]  # of ImageNet's training images, RGB in 0 to 255


def preprocess(sample: tuple[Tensor, Tensor], mean: Tensor, size: int, is_training: bool) -> tuple[Tensor, Tensor]:
    """Subtracts the mean, crops a square, and scales: (3, H, W) in 0 to 255 becomes (3, size, size).

    At random while training. Python's generator is right for it: the iterator seeds it for each sample.
    """
    image, label = sample
    image = image - mean  # of shape (3, 1, 1), or (3, H, W) as Chainer's compute_mean.py wrote it
    height, width = image.shape[1] - size, image.shape[2] - size
    if height < 0 or width < 0:
        raise ValueError(f"an image of {image.shape[1]}x{image.shape[2]} is smaller than the crop, {size}x{size}.")
    top, left = height // 2, width // 2
    if is_training:
        top, left = random.randint(0, height), random.randint(0, width)
        if random.random() < 0.5:
            image = image.flip(2)
    return image[:, top : top + size, left : left + size] / 255, label


def main() -> None:
    """Trains as the command line says."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser = argparse.ArgumentParser(description="Kusari example: ImageNet")
    parser.add_argument("train", help="list of training images and their labels")
    parser.add_argument("val", help="list of validation images and their labels")
    parser.add_argument("--arch", "-a", default="resnet50", help="any model of timm (%(default)s)")
    parser.add_argument("--batchsize", "-B", type=int, default=32, help="images in a batch (%(default)s)")
    parser.add_argument("--epoch", "-E", type=int, default=10, help="passes over the training images (%(default)s)")
    parser.add_argument("--device", "-d", default=device, help="such as cpu, cuda or cuda:1 (%(default)s)")
    parser.add_argument("--precision", choices=tuple(DTYPES), default="fp32", help="fp32, or autocast (%(default)s)")
    parser.add_argument("--initmodel", metavar="FILE", help="start from these weights, a model_iter file")
    parser.add_argument("--loaderjob", "-j", type=int, help="processes that load images; one for each CPU if not given")
    parser.add_argument("--mean", "-m", metavar="FILE", help=".npy file of the mean image; ImageNet's if not given")
    parser.add_argument("--crop", type=int, help="pixels of the square; what the model is made for if not given")
    parser.add_argument("--resume", "-r", metavar="FILE", help="go on from this snapshot")
    parser.add_argument("--out", "-o", default="result", help="folder of whatever the run writes (%(default)s)")
    parser.add_argument("--root", "-R", default=".", help="folder of the lists' paths (%(default)s)")
    parser.add_argument("--val_batchsize", "-b", type=int, default=250, help="batch size of validation (%(default)s)")
    parser.add_argument("--test", action="store_true", help="validate and save every 10 iterations, to try it out")
    args = parser.parse_args()

    set_seed(0)
    predictor = timm.create_model(args.arch)
    if args.initmodel:
        predictor.load_state_dict(saving.load_weights(args.initmodel))
    model = Classifier(predictor)

    mean = torch.tensor(MEAN).view(3, 1, 1) if args.mean is None else torch.from_numpy(np.load(args.mean)).float()
    transform = partial(preprocess, mean=mean, size=args.crop or predictor.pretrained_cfg["input_size"][1])
    train = TransformDataset(LabeledImageDataset(args.train, args.root), partial(transform, is_training=True))
    val = TransformDataset(LabeledImageDataset(args.val, args.root), partial(transform, is_training=False))
    train_iter = MultiprocessIterator(train, args.batchsize, n_processes=args.loaderjob)
    val_iter = MultiprocessIterator(val, args.val_batchsize, repeat=False, shuffle=False, n_processes=args.loaderjob)

    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=0.0001)
    updater = StandardUpdater(train_iter, optimizer, model=model, device=args.device, precision=args.precision)
    trainer = Trainer(updater, (args.epoch, "epoch"), out=args.out)

    val_interval = (10 if args.test else 100000, "iteration")
    log_interval = (10 if args.test else 1000, "iteration")
    trainer.extend(extensions.ExponentialShift("lr", 0.1), trigger=(30, "epoch"))
    trainer.extend(extensions.Evaluator(val_iter, model, precision=args.precision), trigger=val_interval)
    trainer.extend(extensions.dump_graph("main/loss"))
    trainer.extend(extensions.snapshot(), trigger=val_interval)
    trainer.extend(extensions.snapshot_object(predictor, "model_iter_{.updater.iteration}"), trigger=val_interval)
    trainer.extend(extensions.observe_lr(), trigger=log_interval)
    trainer.extend(extensions.LogReport(trigger=log_interval))  # its own trigger: it averages in between
    columns = ["epoch", "iteration", "main/loss", "validation/main/loss", "main/accuracy", "validation/main/accuracy"]
    trainer.extend(extensions.PrintReport([*columns, "lr"]), trigger=log_interval)
    trainer.extend(extensions.ProgressBar(update_interval=10))

    if args.resume:
        trainer.resume(args.resume)
    trainer.run()


if __name__ == "__main__":
    main()
