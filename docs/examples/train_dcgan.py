"""Trains a DCGAN (Radford et al. 2016) on images of 32x32: Chainer's ``examples/dcgan``, ported.

    python docs/examples/train_dcgan.py
    python docs/examples/train_dcgan.py --dataset photos --epoch 100

Every ``--snapshot_interval`` iterations it saves the run and draws what the generator makes of the same noise into
``result/preview``. A run resumed from one of the snapshots is the same run to the bit.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.datasets import CIFAR10
from torchvision.utils import save_image

import extensions
from trainer import StandardUpdater, Trainer, make_extension, report
from trainer.datasets import ImageDataset, TransformDataset
from trainer.iterators import SerialIterator
from trainer.random import set_seed
from trainer.updaters.precision import DTYPES, autocast

EPS = 2e-5  # Chainer's default in batch normalization


def init_weights(module: nn.Module) -> None:
    """Draws weights as DCGAN does, normal with deviation 0.02; biases are 0."""
    if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


class Generator(nn.Module):
    """Makes images of shape (N, 3, 32, 32), in 0 to 1, of noise of shape (N, n_hidden)."""

    def __init__(self, n_hidden: int, bottom_width: int = 4, ch: int = 512) -> None:
        super().__init__()
        self.n_hidden = n_hidden
        size = bottom_width * bottom_width * ch
        self.l0 = nn.Linear(n_hidden, size)
        self.bn0 = nn.BatchNorm1d(size, eps=EPS)
        self.grid = nn.Unflatten(1, (ch, bottom_width, bottom_width))
        self.dc1 = nn.ConvTranspose2d(ch, ch // 2, 4, 2, 1)
        self.bn1 = nn.BatchNorm2d(ch // 2, eps=EPS)
        self.dc2 = nn.ConvTranspose2d(ch // 2, ch // 4, 4, 2, 1)
        self.bn2 = nn.BatchNorm2d(ch // 4, eps=EPS)
        self.dc3 = nn.ConvTranspose2d(ch // 4, ch // 8, 4, 2, 1)
        self.bn3 = nn.BatchNorm2d(ch // 8, eps=EPS)
        self.dc4 = nn.ConvTranspose2d(ch // 8, 3, 3, 1, 1)
        self.apply(init_weights)

    def make_hidden(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws noise for n images, uniform in -1 to 1: from the run's random stream, or from another one."""
        device = self.l0.weight.device if generator is None else generator.device
        return torch.rand(n, self.n_hidden, generator=generator, device=device) * 2 - 1

    def forward(self, z: Tensor) -> Tensor:
        """Returns the images."""
        h = self.grid(F.relu(self.bn0(self.l0(z))))
        h = F.relu(self.bn1(self.dc1(h)))
        h = F.relu(self.bn2(self.dc2(h)))
        h = F.relu(self.bn3(self.dc3(h)))
        return torch.sigmoid(self.dc4(h))


class AddNoise(nn.Module):
    """Adds normal noise of deviation 0.2 while training."""

    def forward(self, h: Tensor) -> Tensor:
        """Returns the noisy tensor, of the same shape."""
        return h + 0.2 * torch.randn_like(h) if self.training else h


class Discriminator(nn.Module):
    """Scores images of shape (N, 3, 32, 32), as (N, 1): positive where it takes them for real."""

    def __init__(self, bottom_width: int = 4, ch: int = 512) -> None:
        super().__init__()
        layers = [AddNoise(), nn.Conv2d(3, ch // 8, 3, 1, 1), AddNoise(), nn.LeakyReLU(0.2)]
        widths = [ch // 8, ch // 4, ch // 4, ch // 2, ch // 2, ch, ch]
        for i, (n_in, n_out) in enumerate(pairwise(widths)):
            halve = i % 2 == 0  # every other layer
            layers.append(nn.Conv2d(n_in, n_out, 4, 2, 1) if halve else nn.Conv2d(n_in, n_out, 3, 1, 1))
            layers.append(nn.BatchNorm2d(n_out, eps=EPS))
            layers[-1].weight.requires_grad = False  # stays 1: Chainer's use_gamma=False
            layers += [AddNoise(), nn.LeakyReLU(0.2)]
        layers += [nn.Flatten(), nn.Linear(bottom_width * bottom_width * ch, 1)]
        self.layers = nn.Sequential(*layers)
        self.apply(init_weights)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the scores."""
        return self.layers(x)


class DCGANUpdater(StandardUpdater):
    """One step of the discriminator, ``dis``, then one of the generator, ``gen``."""

    def update_core(self) -> None:
        """Observes ``gen/loss`` and ``dis/loss``."""
        gen, dis = self.get_model("gen"), self.get_model("dis")
        x_real = self.next_batch().float() / 255

        with autocast(self.precision, self.device):
            x_fake = gen(gen.make_hidden(len(x_real)))
            # Detached: this loss is the discriminator's alone.
            loss_dis = F.softplus(-dis(x_real)).mean() + F.softplus(dis(x_fake.detach())).mean()
        self.get_optimizer("dis").zero_grad()
        self.backward(loss_dis)
        self.step("dis")

        with autocast(self.precision, self.device):
            loss_gen = F.softplus(-dis(x_fake)).mean()
        self.get_optimizer("gen").zero_grad()
        self.backward(loss_gen)  # leaves gradients in the discriminator too, which its next update clears
        self.step("gen")
        report({"loss": loss_gen}, gen)
        report({"loss": loss_dis}, dis)


def out_generated_image(gen: Generator, rows: int, cols: int, seed: int) -> Callable[[Trainer], None]:
    """Returns an extension that draws a grid of generated images, of the same noise each time."""
    z = gen.make_hidden(rows * cols, torch.Generator().manual_seed(seed))  # the run's own generators are not touched

    @make_extension()
    def make_image(trainer: Trainer) -> None:
        path = Path(trainer.out) / "preview" / f"image{trainer.updater.iteration:08}.png"
        path.parent.mkdir(exist_ok=True)
        gen.eval()
        with torch.no_grad():
            save_image(gen(z.to(gen.l0.weight.device)), path, nrow=cols, padding=0)
        gen.train()

    return make_image


def get_images(folder: str | None, data: str) -> Any:
    """Returns images of shape (3, 32, 32), values 0 to 255: those of a folder, or CIFAR-10's 50,000."""
    if folder is None:
        return torch.from_numpy(CIFAR10(data, download=True).data).permute(0, 3, 1, 2)
    names = sorted(path.name for path in Path(folder).iterdir() if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
    print(f"{folder} contains {len(names)} image files")
    return TransformDataset(ImageDataset(names, root=folder), check_size)


def check_size(image: Tensor) -> Tensor:
    """Refuses an image that the discriminator could not take."""
    if image.shape != (3, 32, 32):
        raise ValueError(f"images must be RGB of 32x32 pixels, got one of shape {tuple(image.shape)}; resize them.")
    return image


def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    """Returns Adam as in the DCGAN paper, with weight decay."""
    return torch.optim.Adam(model.parameters(), lr=0.0002, betas=(0.5, 0.999), weight_decay=0.0001)


def main() -> None:
    """Trains as the command line says."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser = argparse.ArgumentParser(description="Kusari example: DCGAN")
    parser.add_argument("--batchsize", "-b", type=int, default=50, help="images in a batch (%(default)s)")
    parser.add_argument("--epoch", "-e", type=int, default=1000, help="passes over the data set (%(default)s)")
    parser.add_argument("--device", "-d", default=device, help="such as cpu, cuda or cuda:1 (%(default)s)")
    parser.add_argument("--dataset", "-i", metavar="DIR", help="folder of images, 32x32; CIFAR-10 if not given")
    parser.add_argument("--data", default="cifar10", metavar="DIR", help="where CIFAR-10 is or is put (%(default)s)")
    parser.add_argument("--out", "-o", default="result", help="folder of whatever the run writes (%(default)s)")
    parser.add_argument("--resume", "-r", metavar="FILE", help="go on from this snapshot")
    parser.add_argument("--n_hidden", "-n", type=int, default=100, help="numbers that make an image (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the noise of the images that are drawn (%(default)s)")
    parser.add_argument("--snapshot_interval", type=int, default=1000, help="iterations to a snapshot (%(default)s)")
    parser.add_argument("--display_interval", type=int, default=100, help="iterations to a log entry (%(default)s)")
    parser.add_argument("--precision", choices=tuple(DTYPES), default="fp32", help="fp32, or autocast (%(default)s)")
    args = parser.parse_args()
    print(f"Device: {args.device}, batch size: {args.batchsize}, n_hidden: {args.n_hidden}, epochs: {args.epoch}")

    try:
        train = get_images(args.dataset, args.data)
    except (OSError, RuntimeError) as error:
        parser.error(f"no images: {error}; name a folder with --dataset, or put CIFAR-10 into {args.data}.")
    set_seed(0)
    gen, dis = Generator(args.n_hidden), Discriminator()
    updater = DCGANUpdater(
        SerialIterator(train, args.batchsize),
        {"gen": make_optimizer(gen), "dis": make_optimizer(dis)},
        model={"gen": gen, "dis": dis},
        device=args.device,
        precision=args.precision,
    )

    trainer = Trainer(updater, (args.epoch, "epoch"), out=args.out)
    snapshot_interval = (args.snapshot_interval, "iteration")
    display_interval = (args.display_interval, "iteration")
    trainer.extend(extensions.snapshot(), trigger=snapshot_interval)
    trainer.extend(extensions.snapshot_object(gen, "gen_iter_{.updater.iteration}"), trigger=snapshot_interval)
    trainer.extend(extensions.snapshot_object(dis, "dis_iter_{.updater.iteration}"), trigger=snapshot_interval)
    trainer.extend(extensions.LogReport(trigger=display_interval))
    columns = ["epoch", "iteration", "gen/loss", "dis/loss"]
    trainer.extend(extensions.PrintReport(columns), trigger=display_interval)
    trainer.extend(extensions.ProgressBar(update_interval=10))
    trainer.extend(out_generated_image(gen, 10, 10, args.seed), trigger=snapshot_interval)

    if args.resume:
        trainer.resume(args.resume)
    trainer.run()


if __name__ == "__main__":
    main()
