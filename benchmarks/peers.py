"""The jobs of ``overhead.py`` in other frameworks, each the fastest way that its documentation shows.

A peer does a job with its own parts wherever it has them. Where it has none (Fabric has no averages and no rows, Ignite
and skorch write no log), what it lacks is written as short as in the loop by hand. pytorch-pfn-extras, Ignite and
skorch read loss and accuracy in each iteration, as their documentation does: the fastest on a processor, but on a GPU
each reading would wait for the device. Ignite's average is a running one, Lightning's that of an epoch.

Chainer is not among them: it needs NumPy 1, and its networks are not PyTorch's, so the loop by hand would be another.
"""

import contextlib
import importlib.util
import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice, repeat
from pathlib import Path
from typing import Any

import torch
from overhead import EPOCH, WINDOW, Neighbours, Terminal, make_model
from torch import nn
from torch.nn import functional as F


class Loader:
    """The next so many of ready batches: what frameworks take for a loader."""

    def __init__(self, batches: Iterable[Any], length: int) -> None:
        self.batches = batches
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Any]:
        return islice(self.batches, self.length)


def accuracy(y: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Returns the fraction of correct answers."""
    return (y.argmax(1) == t).float().mean()


def write_row(out: Path, entry: dict[str, Any]) -> None:
    """Prints a row and appends it to the log, for peers that have no log of their own."""
    print(*(f"{value:<12g}" for value in entry.values()))
    with open(out / "log", "a") as file:
        file.write(json.dumps(entry) + "\n")


def run_ppe(batches: Neighbours, out: Path, job: str) -> None:
    """pytorch-pfn-extras."""
    import pytorch_pfn_extras as ppe
    from pytorch_pfn_extras.training import extensions

    network, optimizer = make_model()
    epochs = batches.windows * WINDOW // EPOCH
    manager = ppe.training.ExtensionsManager(network, optimizer, epochs, iters_per_epoch=EPOCH, out_dir=str(out))

    def evaluate(x: torch.Tensor, t: torch.Tensor) -> None:
        y = network(x)
        ppe.reporting.report(
            {"validation/loss": F.cross_entropy(y, t).item(), "validation/accuracy": accuracy(y, t).item()}
        )

    if job == "full":
        terminal, row, epoch = Terminal(), (WINDOW, "iteration"), (EPOCH, "iteration")
        ten = {"main": Loader(repeat(batches.batch), 10)}
        keys = ["iteration", "train/loss", "train/accuracy", "lr", "validation/accuracy", "elapsed_time"]
        manager.extend(extensions.observe_lr(optimizer), trigger=(1, "iteration"))
        manager.extend(extensions.Evaluator(ten, network, eval_func=evaluate), trigger=epoch)
        manager.extend(extensions.LogReport(trigger=row, filename="log.jsonl", append=True))
        manager.extend(extensions.PrintReport(keys, out=terminal), trigger=row)
        manager.extend(extensions.ProgressBar(update_interval=WINDOW, out=terminal), trigger=row)
        manager.extend(extensions.snapshot(n_retains=1), trigger=epoch)
    for x, t in batches:
        with manager.run_iteration():
            optimizer.zero_grad()
            y = network(x)
            loss = F.cross_entropy(y, t)
            if job != "bare":
                ppe.reporting.report({"train/loss": loss.item(), "train/accuracy": accuracy(y, t).item()})
            loss.backward()
            optimizer.step()


def run_fabric(batches: Neighbours, out: Path, job: str) -> None:
    """Lightning Fabric: a loop by hand, of which Fabric does the model, backward, the log and the checkpoint."""
    from lightning.fabric import Fabric
    from lightning.fabric.loggers import CSVLogger
    from tqdm import tqdm

    fabric = Fabric(accelerator="cpu", devices=1, loggers=CSVLogger(out, flush_logs_every_n_steps=1))
    fabric.launch()
    network, optimizer = fabric.setup(*make_model())
    loss_sum, correct = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.int64)
    samples, lr = 0, 0.0
    bar = tqdm(total=batches.windows * WINDOW) if job == "full" else None
    for iteration, (x, t) in enumerate(batches, 1):
        optimizer.zero_grad()
        y = network(x)
        loss = F.cross_entropy(y, t)
        fabric.backward(loss)
        optimizer.step()
        if job == "bare":
            continue
        loss_sum += loss.detach() * len(t)
        correct += (y.argmax(1) == t).sum()
        samples += len(t)
        lr += optimizer.param_groups[0]["lr"]
        if bar is None or iteration % WINDOW:
            continue
        entry = {"loss": loss_sum.item() / samples, "accuracy": correct.item() / samples, "lr": lr / WINDOW}
        loss_sum.zero_()
        correct.zero_()
        samples, lr = 0, 0.0
        if iteration % EPOCH == 0:
            network.eval()
            sums = torch.zeros(2)
            with torch.no_grad():
                for x, t in repeat(batches.batch, 10):
                    y = network(x)
                    sums += torch.stack([F.cross_entropy(y, t), accuracy(y, t)])
            network.train()
            entry |= {"validation/loss": sums[0].item() / 10, "validation/accuracy": sums[1].item() / 10}
        fabric.log_dict(entry, step=iteration)
        fabric.print(*(f"{value:<12g}" for value in entry.values()))
        bar.update(WINDOW)
        if iteration % EPOCH == 0:
            fabric.save(out / "saving.ckpt", {"model": network, "optimizer": optimizer, "iteration": iteration})


def run_lightning(batches: Neighbours, out: Path, job: str) -> None:
    """Lightning's Trainer; it averages over an epoch, and reads the learning rate for each row only."""
    from lightning import pytorch as pl
    from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, TQDMProgressBar
    from lightning.pytorch.loggers import CSVLogger

    is_full = job == "full"

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network, self.optimizer = make_model()

        def configure_optimizers(self) -> Any:
            return self.optimizer

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            x, t = batch
            y = self.network(x)
            loss = F.cross_entropy(y, t)
            if job != "bare":
                values = {"loss": loss, "accuracy": accuracy(y, t)}
                self.log_dict(values, on_step=is_full, on_epoch=True, prog_bar=is_full, batch_size=len(t))
            return loss

    class ValidatedModule(Module):
        def validation_step(self, batch: Any, index: int) -> None:
            x, t = batch
            y = self.network(x)
            self.log_dict(
                {"validation/loss": F.cross_entropy(y, t), "validation/accuracy": accuracy(y, t)}, batch_size=len(t)
            )

    options: dict[str, Any]
    if job == "bare":
        options = {"barebones": True}
    elif job == "reporting":
        options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        options |= {"enable_model_summary": False}
    else:
        callbacks = [
            TQDMProgressBar(refresh_rate=WINDOW),
            LearningRateMonitor("step"),
            ModelCheckpoint(dirpath=out, every_n_epochs=1),
        ]
        options = {"logger": CSVLogger(out), "log_every_n_steps": WINDOW, "callbacks": callbacks}
        options |= {"num_sanity_val_steps": 0, "enable_model_summary": False}
    epochs = batches.windows * WINDOW // EPOCH
    trainer = pl.Trainer(accelerator="cpu", devices=1, max_epochs=epochs, default_root_dir=out, **options)
    if is_full:
        trainer.fit(ValidatedModule(), Loader(batches, EPOCH), Loader(repeat(batches.batch), 10))
    else:
        trainer.fit(Module(), Loader(batches, EPOCH))


def run_ignite(batches: Neighbours, out: Path, job: str) -> None:
    """Ignite's Engine."""
    from ignite.engine import Engine, Events, create_supervised_evaluator
    from ignite.handlers import Checkpoint, DiskSaver, ProgressBar
    from ignite.metrics import Accuracy, Loss, RunningAverage

    network, optimizer = make_model()

    def step(engine: Engine, batch: Any) -> Any:
        x, t = batch
        optimizer.zero_grad()
        y = network(x)
        loss = F.cross_entropy(y, t)
        loss.backward()
        optimizer.step()
        if job != "bare":
            return loss.item(), accuracy(y, t).item()

    engine = Engine(step)
    if job != "bare":
        RunningAverage(output_transform=lambda values: values[0]).attach(engine, "loss")
        RunningAverage(output_transform=lambda values: values[1]).attach(engine, "accuracy")
    if job == "full":
        row = Events.ITERATION_COMPLETED(every=WINDOW)
        evaluator = create_supervised_evaluator(network, {"loss": Loss(F.cross_entropy), "accuracy": Accuracy()})

        @engine.on(Events.ITERATION_COMPLETED)
        def observe_lr(engine: Engine) -> None:
            engine.state.metrics["lr"] = optimizer.param_groups[0]["lr"]

        @engine.on(Events.ITERATION_COMPLETED(every=EPOCH))
        def evaluate(engine: Engine) -> None:
            found = evaluator.run(Loader(repeat(batches.batch), 10)).metrics
            engine.state.metrics |= {f"validation/{name}": value for name, value in found.items()}
            network.train()

        @engine.on(row)
        def write(engine: Engine) -> None:
            write_row(out, {"iteration": engine.state.iteration, **engine.state.metrics})

        ProgressBar().attach(engine, ["loss", "accuracy"], event_name=row)
        saved = {"model": network, "optimizer": optimizer, "engine": engine}
        engine.add_event_handler(Events.EPOCH_COMPLETED, Checkpoint(saved, DiskSaver(out), n_saved=1))
    engine.run(batches, max_epochs=batches.windows * WINDOW // EPOCH, epoch_length=EPOCH)


def run_skorch(batches: Neighbours, out: Path, job: str) -> None:
    """skorch's NeuralNet, with the ready batches as its loader; torch opens its checkpoint's files, untold."""
    from skorch import NeuralNet
    from skorch.callbacks import Callback, Checkpoint, PassthroughScoring, ProgressBar
    from skorch.helper import predefined_split
    from torch.utils.data import TensorDataset

    class Score(Callback):
        def on_batch_end(self, net: NeuralNet, batch: Any, training: bool, y_pred: Any, **kwargs: Any) -> None:
            name = "train_accuracy" if training else "valid_accuracy"
            net.history.record_batch(name, accuracy(y_pred, batch[1]).item())

    class Row(Callback):
        def on_batch_end(self, net: NeuralNet, training: bool, **kwargs: Any) -> None:
            if not training:
                return
            net.history.record_batch("lr", net.optimizer_.param_groups[0]["lr"])
            done = net.history[-1]["batches"]
            if len(done) % WINDOW == 0:
                keys = "train_loss", "train_accuracy", "lr"
                write_row(out, {key: sum(batch[key] for batch in done[-WINDOW:]) / WINDOW for key in keys})

    class Bar(ProgressBar):
        def on_batch_end(self, net: NeuralNet, training: bool, **kwargs: Any) -> None:
            if training and len(net.history[-1]["batches"]) % WINDOW == 0:
                self.pbar_.set_postfix(self._get_postfix_dict(net), refresh=False)
                self.pbar_.update(WINDOW)

    data = TensorDataset(*batches.batch)
    options: dict[str, Any] = {"callbacks": "disable", "train_split": None}
    if job != "bare":
        score = PassthroughScoring("train_accuracy", lower_is_better=False, on_train=True)
        options["callbacks"] = [Score(), ("train_accuracy", score)]
        options["callbacks__print_log"] = None
    if job == "full":
        out.mkdir()
        score = PassthroughScoring("valid_accuracy", lower_is_better=False)
        # Its history grows with each batch, so that with it the time would depend on how long is measured.
        checkpoint = Checkpoint(monitor=None, dirname=str(out), f_history=None)
        options["callbacks"] += [("valid_accuracy", score), Row(), Bar(batches_per_epoch=EPOCH), checkpoint]
        options["train_split"] = predefined_split(data)
        options["iterator_valid"] = lambda dataset, **kwargs: Loader(repeat(batches.batch), 10)
    network, _ = make_model()
    net = NeuralNet(
        network,
        nn.CrossEntropyLoss,
        torch.optim.SGD,
        lr=0.01,
        max_epochs=batches.windows * WINDOW // EPOCH,
        iterator_train=lambda dataset, **kwargs: Loader(batches, EPOCH),
        device=None,
        **options,
    )
    net.fit(data)


PEERS: dict[str, Callable[[Neighbours, Path, str], None]] = {
    "pytorch-pfn-extras": run_ppe,
    "Lightning Fabric": run_fabric,
    "Ignite": run_ignite,
    "skorch": run_skorch,
    "Lightning": run_lightning,
}
MODULES = {
    "pytorch-pfn-extras": "pytorch_pfn_extras",
    "Lightning Fabric": "lightning",
    "Ignite": "ignite",
    "skorch": "skorch",
    "Lightning": "lightning",
}


def run_peer(name: str) -> Callable[[Neighbours, Path, str], None]:
    """Returns a function that runs a peer's job silently, with files told apart, and to the last window."""

    def run(batches: Neighbours, out: Path, job: str) -> None:
        terminal = Terminal()
        with contextlib.redirect_stdout(terminal), contextlib.redirect_stderr(terminal):
            PEERS[name](batches, out, job)
            next(batches, None)

    return run


def installed() -> list[str]:
    """Returns the names of the peers that are there."""
    return [name for name in PEERS if importlib.util.find_spec(MODULES[name])]
