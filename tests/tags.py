"""A run of a network that may give an image several labels, made by hand: it learns nothing."""

from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from recipes.parts import trained
from recipes.parts.image_files import DECODER, read_rgb
from recipes.parts.options import Options
from recipes.parts.run_folder import write_json
from recipes.parts.transforms import Normalize
from trainer import saving

NAMES = ["red", "green", "blue"]


class Images:
    """Image ``i`` has the colours of which the bit in ``i`` is set; two of the eight have a wrong label."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        bits = torch.tensor([index & 1, index >> 1 & 1, index >> 2 & 1])
        image = (bits * 255).to(torch.uint8).view(3, 1, 1).expand(3, 8, 8)
        wrong = {0: [1, 0, 0], 7: [1, 1, 0]}
        return image, torch.tensor(wrong.get(index, bits.tolist()), dtype=torch.float32)


def reader(args):
    return lambda path: torch.from_numpy(np.array(read_rgb(path))).permute(2, 0, 1)


def make_model(args, n_classes, fresh):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, n_classes)), Normalize([0.0], [255.0])


def write_tags(folder, monkeypatch):
    settings = {"data": "", "epochs": 1, "batch_size": 3, "lr": 0.1}
    options = Options("tags.py", None, settings)
    options.add("data", "--multi-label", action="store_true", help="several labels to an image")
    recipe = SimpleNamespace(
        OPTIONS=options,
        load=lambda args, augment: ({"test": Images()}, NAMES),
        reader=reader,
        make_model=make_model,
    )
    monkeypatch.setattr(trained, "recipe_of", lambda saved, folder, typed: recipe)
    network, _ = make_model(None, 3, True)
    with torch.no_grad():
        network[2].weight.copy_(10 * torch.eye(3))
        network[2].bias.fill_(-5)
    saving.save_weights(network.state_dict(), folder / "model_epoch-1")
    args = {"data": str(folder), "multi_label": True, "epochs": 1, "batch_size": 3, "lr": 0.1}
    args |= {"out": "result", "precision": "fp32", "on_bad_sample": "raise", "seed": 0}
    told = {
        "recipe": "tags",
        "args": args,
        "classes": NAMES,
        "splits": {"test": 8},
        "versions": {"decoder": str(DECODER)},
    }
    write_json(folder / "args.json", told)
    return folder
