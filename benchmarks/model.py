"""Images a second of a network in training: Kusari's loop beside one tuned by hand, and what each setting gains.

A batch of uint8 pixels lies ready in (pinned) memory; both loops move it to the device, make floats of it there, and
train with Adam. Kusari's is the run of recipes/resnet_products.py: its network, optimizer, converter and extensions.
It also averages loss and accuracy, observes the learning rate, and writes and prints an entry of the log each 10
iterations; an epoch, and what the recipe does at its end, is never over. The rate of the tutorial whose job this is
was 39 images a second. On a GPU:

    python benchmarks/model.py --batch-size 256
    python benchmarks/model.py --batch-size 256 --compile

On a CPU:

    python benchmarks/model.py --batch-size 8 --rounds 5
"""

import contextlib
import io
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import timm
import torch
from harness import Results, interleaved, make_parser, ratio
from torch.nn import functional as F

import extensions
from extensions.snapshot_writers import ThreadWriter
from recipes import resnet_products
from recipes.parts import networks
from recipes.parts.tuning import parameter_groups
from trainer import Classifier, StandardUpdater, Trainer
from trainer.updaters.precision import autocast

TUTORIAL = 47_640 * 10 / 12_194  # images a second, evaluations included: 10 epochs in 12,194 s

SETTINGS: dict[str, dict[str, Any]] = {
    "fp32": {"precision": "fp32", "channels_last": False},
    "fp32, channels_last": {"precision": "fp32", "channels_last": True},
    "bf16": {"precision": "bf16", "channels_last": False},
    "bf16, channels_last": {"precision": "bf16", "channels_last": True},
}


class Ready:
    """An iterator over one batch that is there already."""

    epoch, epoch_detail, is_new_epoch, previous_epoch_detail = 0, 0.0, False, None

    def __init__(self, batch: Any) -> None:
        self.batch = batch

    def __next__(self) -> Any:
        return self.batch

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass

    def reset(self) -> None:
        pass

    def finalize(self) -> None:
        pass


class Job:
    """A network, its optimizer and its data, twice: for the loop by hand and for Kusari."""

    def __init__(self, args: Any, precision: str, channels_last: bool) -> None:
        self.device = torch.device(args.device)
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.precision = precision
        size = str(args.image_size)
        options = [
            "--data",
            ".",
            "--model",
            args.model,
            "--image-size",
            size,
            "--scale",
            size,
            "--precision",
            precision,
        ]
        options += ["--batch-size", str(args.batch_size), "--device", args.device, "--workers", "0"]
        options += ["--channels-last"] * channels_last + ["--compile"] * args.compile
        self.args = resnet_products.OPTIONS.parse(options)
        pixels = torch.randint(0, 256, (args.batch_size, args.image_size, args.image_size, 3), dtype=torch.uint8)
        pixels = pixels.permute(0, 3, 1, 2)  # as the recipe's lie: the colours of a pixel side by side
        labels = torch.randint(0, 12, (args.batch_size,))
        self.batch = (pixels, labels)
        if self.device.type == "cuda":
            self.batch = (pixels.pin_memory(), labels.pin_memory())
        self.mean = torch.tensor(resnet_products.CHAINERCV_MEAN, device=self.device).view(3, 1, 1)

    def convert(self, batch: Any, device: torch.device) -> Any:
        pixels, labels = (part.to(device, non_blocking=True) for part in batch)
        return pixels.to(torch.float32, memory_format=self.format) - self.mean, labels

    def by_hand(self) -> Callable[[int], None]:
        torch.manual_seed(0)
        network = timm.create_model(self.args.model, num_classes=12).to(self.device, memory_format=self.format)
        if self.args.compile:
            network.compile()
        optimizer = torch.optim.Adam(network.parameters(), fused=True)

        def loop(iterations: int) -> None:
            for _ in range(iterations):
                x, t = self.convert(self.batch, self.device)
                optimizer.zero_grad()
                with autocast(self.precision, self.device):
                    loss = F.cross_entropy(network(x), t)
                loss.backward()
                optimizer.step()

        return loop

    def run(self, out: Path) -> Trainer:
        """Returns the recipe's run, but for the iterators."""
        torch.manual_seed(0)
        network, normalize = resnet_products.make_model(self.args, 12, fresh=False)
        networks.as_asked(self.args, network, normalize)
        optimizer = torch.optim.Adam(parameter_groups(network, self.args.lr), self.args.lr, fused=True)
        model = Classifier(network)
        if self.args.compile:
            network.compile()
        updater = StandardUpdater(
            Ready(self.batch), optimizer, normalize, self.device, model=model, precision=self.precision
        )
        run = Trainer(updater, out=out)
        run.extend(extensions.observe_lr(bias_corrected=True), trigger=(1, "iteration"))
        run.extend(extensions.Evaluator(Ready(self.batch), model, normalize, precision=self.precision))
        run.extend(extensions.LogReport(trigger=(10, "iteration")))
        run.extend(extensions.PrintReport(resnet_products.COLUMNS), trigger=(10, "iteration"))
        run.extend(extensions.ProgressBar(update_interval=1))
        for name in ("loss", "accuracy"):
            keys = [f"main/{name}", f"validation/main/{name}"]
            run.extend(extensions.PlotReport(keys, "epoch", (1, "epoch"), filename=f"{name}.png"))
        run.extend(extensions.snapshot(filename="snapshot_epoch-{.updater.epoch}", n_retains=2, writer=ThreadWriter()))
        run.extend(extensions.snapshot_object(network, resnet_products.OPTIONS.weights, writer=ThreadWriter()))
        run.extend(extensions.StopOnSignal())
        return run

    def kusari(self, out: Path) -> Callable[[int], None]:
        run = self.run(out)

        def loop(iterations: int) -> None:
            with contextlib.redirect_stdout(io.StringIO()):
                for _ in range(iterations):
                    with run.iteration():
                        run.updater.update()

        return loop


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--model", default="resnet50", help="of timm (resnet50)")
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="images in a batch (64)")
    parser.add_argument("--image-size", type=int, default=224, metavar="N", help="pixels of a side (224)")
    parser.add_argument("--iterations", type=int, metavar="N", help="in a round (20 on a GPU, 1 on a CPU)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="such as cpu")
    parser.add_argument("--compile", action="store_true", help="compile the network")
    told = "some of: " + "; ".join(SETTINGS)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS), metavar="NAME", help=told)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    iterations = args.iterations or (1 if args.device == "cpu" else 20)

    def rate(loop: Callable[[int], None]) -> Callable[[], float]:
        def measure() -> float:
            start = time.perf_counter()
            loop(iterations)
            if args.device != "cpu":
                torch.cuda.synchronize()
            return args.batch_size * iterations / (time.perf_counter() - start)

        return measure

    what = f"{args.model}{', compiled' * args.compile}, {args.image_size} pixels, batches of {args.batch_size}"
    results = Results(f"Images a second in training: {what} on {args.device}", "timm")
    functions = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in args.settings:
            job = Job(args, **SETTINGS[name])
            functions[f"{name}, by hand"] = rate(job.by_hand())
            functions[f"{name}, Kusari"] = rate(job.kusari(Path(folder) / name))
        measured = interleaved(functions, args.rounds or 5)
    first = f"{args.settings[0]}, by hand"
    for name in args.settings:
        hand, ours = f"{name}, by hand", f"{name}, Kusari"
        results.add(hand, median(measured[hand]), "images/s", f"{ratio(measured, hand, first):.2f} x", True)
        is_tutorial_s = (args.model, args.image_size) == ("resnet50", 224)
        note = f"{median(measured[ours]) / TUTORIAL:.2f} x the tutorial's 39" if is_tutorial_s else ""
        results.add(ours, median(measured[ours]), "images/s", note, True)
        results.add(f"{name}, Kusari / by hand", ratio(measured, ours, hand), "x", more_is_better=True)
    results.write(args.json)


if __name__ == "__main__":
    main()
