"""Files of weights, as this project, torch, timm and Hugging Face write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from recipes.parts.label_table import few
from trainer import saving


def state_dict_in(path: str | Path) -> dict[str, Any]:
    """Returns the tensors of a file by their names: a state_dict of torch's, or a file of safetensors.

    One that lies in a checkpoint as ``state_dict`` or ``model`` is taken from it, and ``module.``, which
    ``DistributedDataParallel`` puts before each name, is taken away.

    Raises:
        ValueError: If it is no such file.
        OSError: If it cannot be read.
    """
    if Path(path).suffix == ".safetensors":
        try:
            return dict(safetensors.torch.load_file(path))
        except safetensors.SafetensorError as error:
            raise ValueError(f"{path} cannot be read as a file of weights ({error}); take another.") from None
    weights = saving.load_weights(path)
    if "updater" in weights:
        raise ValueError(f"{path} is the snapshot of a run; give the weights beside it, such as a model_epoch file.")
    weights = next((weights[key] for key in ("state_dict", "model") if isinstance(weights.get(key), dict)), weights)
    if other := [str(key) for key, value in weights.items() if not isinstance(value, torch.Tensor)]:
        raise ValueError(f"{path} is no file of weights: {few(other)} is no tensor; give a state_dict.")
    return {str(name).removeprefix("module."): value for name, value in weights.items()}
