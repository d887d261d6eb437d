"""Fine-tuning on one's own photographs in equal time: ``finetune.py``, timm's train script, fastai's ``fine_tune``.

Each has the same split, model, trained weights, image and batch size, threads and workers, and so many epochs as fit
into ``--seconds`` of processor time, from the start of its process to the test of its best weights; two short runs tell
how long an epoch takes. (Wall time would measure what else the machine does; it is told too.) Beyond these each has its
own defaults; timm, whose own are for training from nothing, the arguments that its documentation shows for
fine-tuning. Each round has a split and a seed of its own; within a round the tools run in turn. What a user writes for
the whole job (training, the best weights tested, class by class, a new photograph) is counted in ``peers_finetune/``.

timm's train script is not in its package: take ``train.py`` of the same version from
https://github.com/huggingface/pytorch-image-models. fastai and scikit-learn, which prints the classes, may lie in an
environment of their own, with the same torch and timm.

    python benchmarks/finetune.py PHOTOGRAPHS --weights FILE --timm-train train.py --peers-python ENV/bin/python
"""

import ast
import json
import os
import re
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from harness import Results, make_parser

from recipes.parts import own_images

HERE = Path(__file__).parent.resolve()
OURS = HERE.parent / "recipes"
FIRST, SECOND = 1, 5  # epochs of the two short runs


def split(folder: Path, seed: int, into: Path) -> tuple[int, Path]:
    """Links the photographs into train/, valid/ and test/; returns how many are trained on, and one as a new one."""
    found = own_images.find(folder, seed=seed)
    for name, files in found.files.items():
        for file, label in zip(files, found.labels[name], strict=True):
            link = into / name / found.classes[label] / "_".join(Path(file).relative_to(folder).parts)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(Path(file).resolve())
    return len(found.files["train"]), Path(found.files["test"][0]).resolve()


def commands(tool: str, args: Any, folder: Path, photo: Path, epochs: int, seed: int) -> list[list[str]]:
    """Returns what a user types, from the photographs to the tested model."""
    common = [args.model, str(args.weights), str(args.image_size), str(args.batch_size), str(epochs), str(seed)]
    job = [str(folder), *common, str(args.workers), str(photo)]
    if tool == "fastai":
        return [[args.peers_python, str(HERE / "peers_finetune" / "fastai_job.py"), *job]]
    if tool == "timm":
        classes = len(list((folder / "train").iterdir()))
        line = (
            f"--model {args.model} --pretrained --img-size {args.image_size} -b {args.batch_size} -j {args.workers}"
            f" --num-classes {classes} --epochs {epochs} --warmup-epochs {epochs // 6} --seed {seed} --device cpu"
            f" --output output --experiment run {args.timm_args}"
        )
        weights = ["--model-kwargs", f"pretrained_cfg_overlay={{'file':{str(args.weights)!r}}}"]
        train = [args.peers_python, str(args.timm_train), "--data-dir", str(folder), *shlex.split(line), *weights]
        return [train, [args.peers_python, str(HERE / "peers_finetune" / "timm_test.py"), *job]]
    line = (
        f"--model {args.model} --image-size {args.image_size} --batch-size {args.batch_size} --epochs {epochs}"
        f" --workers {args.workers} --seed {seed} --out result --device cpu {args.our_args}"
    )
    return [
        [sys.executable, str(OURS / "finetune.py"), str(folder), "--weights", str(args.weights), *shlex.split(line)]
    ]


def run(tool: str, args: Any, folder: Path, photo: Path, epochs: int, seed: int) -> dict[str, float]:
    """Returns the seconds, those of processors too, and the accuracy on the test images."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads), "PYTHONPATH": str(HERE.parent)}
    with tempfile.TemporaryDirectory() as out:
        before, start, told = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter(), ""
        for command in commands(tool, args, folder, photo, epochs, seed):
            done = subprocess.run(command, cwd=out, env=environment, capture_output=True, text=True)
            if done.returncode:
                said = f"{done.stdout[-1000:]}\n{done.stderr[-3000:]}"
                raise SystemExit(f"{tool} failed with status {done.returncode}:\n{shlex.join(command)}\n{said}")
            told += done.stdout
        seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    (accuracy,) = re.findall(r"(?:Test accuracy:|^accuracy|\baccuracy) (\d\.\d+)$", told, re.MULTILINE)[:1]
    row = {"epochs": epochs, "seconds": seconds, "processor": busy, "accuracy": float(accuracy)}
    print(f"  {tool:<12} seed {seed}: {json.dumps({key: round(value, 4) for key, value in row.items()})}", flush=True)
    return row


def lines(tool: str) -> int:
    """Returns how many lines a user writes: commands and statements, without the reading of our arguments."""
    if tool == "Kusari":
        return 2  # finetune.py and predict.py
    tree = ast.parse((HERE / "peers_finetune" / {"timm": "timm_test.py", "fastai": "fastai_job.py"}[tool]).read_text())
    code = ast.unparse(ast.Module(tree.body[1:], [])).splitlines()
    written = [line for line in code if line.strip() and not re.search(r"\bsys\b|__main__", line)]
    return len(written) + 1 + (tool == "timm")  # commands: to run it, and train.py


def main() -> None:
    """Measures and prints."""
    parser = make_parser(str(__doc__))
    parser.add_argument("data", type=Path, metavar="PHOTOGRAPHS", help="a folder of images for each class")
    parser.add_argument("--model", default="tf_efficientnet_lite0", metavar="NAME", help="a model of timm")
    parser.add_argument("--weights", type=Path, required=True, metavar="FILE", help="its trained weights, a state_dict")
    parser.add_argument("--image-size", type=int, default=128, metavar="N")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N")
    parser.add_argument(
        "--seconds", type=float, default=60, metavar="S", help="of processors, from start to tested model (60)"
    )
    parser.add_argument("--threads", type=int, default=1, metavar="N")
    parser.add_argument("--workers", type=int, default=2, metavar="N")
    parser.add_argument("--timm-train", type=Path, metavar="FILE", help="train.py of timm's repository")
    parser.add_argument("--peers-python", metavar="FILE", help="a Python that has fastai, timm and scikit-learn")
    documented = "--opt adamw --lr 1e-4 --weight-decay 0.01"
    parser.add_argument("--timm-args", default=documented, metavar="ARGS", help=f"of train.py ({documented})")
    parser.add_argument("--our-args", default="", metavar="ARGS", help="of finetune.py")
    parser.add_argument("--only", nargs="+", choices=("Kusari", "timm", "fastai"), help="these alone")
    args = parser.parse_args()
    for file in filter(None, (args.weights, args.timm_train)):
        if not file.is_file():
            parser.error(f"there is no file {file}.")
    args.weights = args.weights.resolve()
    args.timm_train = args.timm_train and args.timm_train.resolve()
    given = {"Kusari": True, "timm": args.timm_train and args.peers_python, "fastai": args.peers_python}
    tools = [tool for tool, is_there in given.items() if is_there and tool in (args.only or given)]
    for tool in (tool for tool in given if tool not in tools):
        print(f"{tool} is left out" + ("." if given[tool] else ": it needs --peers-python, and timm --timm-train."))
    results = Results(f"Fine-tuning {args.model} in {args.seconds:g} seconds of processors", "torchvision", "timm")
    with tempfile.TemporaryDirectory() as temporary:
        first = Path(temporary, "first")
        try:
            n_train, photo = split(args.data, 0, first)
        except (OSError, ValueError) as error:
            parser.error(str(error))
        fixed, each, epochs = {}, {}, {}
        for tool in tools:
            short, longer = (run(tool, args, first, photo, n, 0)["processor"] for n in (FIRST, SECOND))
            each[tool] = max(longer - short, 1e-3) / (SECOND - FIRST)
            fixed[tool] = short - each[tool] * FIRST
            epochs[tool] = max(1, round((args.seconds - fixed[tool]) / each[tool]))
        rows: dict[str, list[dict[str, float]]] = {tool: [] for tool in tools}
        for seed in range(args.rounds or 3):
            folder = Path(temporary, str(seed))
            _, photo = split(args.data, seed, folder)
            for tool in tools[seed % len(tools) :] + tools[: seed % len(tools)]:
                rows[tool].append(run(tool, args, folder, photo, epochs[tool], seed))
    for tool, found in rows.items():
        mean = sum(row["accuracy"] for row in found) / len(found)
        told = ", ".join(f"{row['accuracy']:.3f}" for row in found)
        results.add(f"{tool}: test accuracy", mean, "", f"mean of {told}", more_is_better=True)
        for name in ("processor", "seconds"):
            results.add(f"{tool}: {name}", median(row[name] for row in found), "s", f"{epochs[tool]} epochs")
        results.add(f"{tool}: before and after the epochs", fixed[tool], "s")
        results.add(f"{tool}: training images", n_train / each[tool], "images/s", more_is_better=True)
        results.add(f"{tool}: lines that a user writes", lines(tool), "lines")
    results.write(args.json)


if __name__ == "__main__":
    main()
