"""The test at the end of a recipe: it loads a new network from the weights that were written."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

import extensions
from recipes.parts.networks import as_asked
from recipes.parts.parser import say
from recipes.parts.run_folder import write_json
from recipes.parts.transforms import Normalize, collate_images
from trainer import Classifier, saving
from trainer.iterators import MultiprocessIterator


def in_order(args: Namespace, dataset: Any) -> MultiprocessIterator:
    """Returns an iterator that goes through a data set once, in its order, in batches of uint8 images and labels."""
    return MultiprocessIterator(
        dataset,
        args.batch_size,
        repeat=False,
        shuffle=False,
        n_processes=args.workers,
        collate_fn=collate_images,
        on_bad_sample=args.on_bad_sample,
    )


def test(
    args: Namespace,
    network: nn.Module,
    normalize: Normalize,
    dataset: Any,
    weights: Path,
    classifier: Callable[[nn.Module], Classifier] = Classifier,
) -> dict[str, float]:
    """Loads a file of weights into a network, evaluates it, and writes and returns what ``test.json`` holds.

    ``classifier`` adds loss and accuracy to the network.
    """
    as_asked(args, network, normalize)
    network.load_state_dict(saving.load_weights(weights))
    iterator = in_order(args, dataset)
    iterator.bad_samples_file = Path(args.out) / "bad_samples_test.json"
    model = classifier(network).to(args.device)
    evaluator = extensions.Evaluator(iterator, model, normalize, precision=args.precision)
    result = evaluator() | {"n": len(dataset)}
    evaluator.finalize()
    say(f"Test accuracy: {result['main/accuracy']:.4f}")
    write_json(Path(args.out) / "test.json", result)
    return result
