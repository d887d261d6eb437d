"""Batches of any making: how many samples they hold, how they are moved, and how a model is called with them."""

import warnings
from collections import OrderedDict, UserDict, namedtuple
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

import extensions
from trainer import StandardUpdater, Trainer, concat_examples, report
from trainer.datasets.convert import count_samples, size_of

Pair = namedtuple("Pair", ["x", "t"])


@dataclass
class Batch:
    x: torch.Tensor
    name: str = "batch"

    def to(self, device):
        return Batch(self.x.to(device), self.name)


class Graphs:
    """As PyG's Batch: attributes, and ``to``."""

    def __init__(self, x, edges):
        self.x, self.edges = x, edges

    def to(self, device):
        return Graphs(self.x.to(device), self.edges.to(device))


class Moving(Pair):
    """A named tuple that moves itself."""

    def to(self, device):
        return Moving(self.x.to(device), self.t.to(device))


class Slotted:
    __slots__ = ("x", "later")

    def __init__(self, x):
        self.x = x

    def to(self, device):
        return Slotted(self.x.to(device))


class Looped(Graphs):
    """Holds itself, as a node may hold its tree."""

    def __init__(self, x, edges):
        super().__init__(x, edges)
        self.views = [self, {"of": self}]

    def to(self, device):
        return Looped(self.x.to(device), self.edges.to(device))


class Encoding(UserDict):
    """As transformers' BatchEncoding: no dict, attributes for its keys, and ``to``."""

    def to(self, device):
        self.data = {key: value.to(device) for key, value in self.data.items()}
        return self


class Lazy(Mapping):
    """A mapping that makes its values when they are asked for."""

    def __init__(self, n):
        self.n = n

    def __getitem__(self, key):
        return {"x": torch.zeros(self.n, 2), "t": torch.zeros(self.n)}[key]

    def __iter__(self):
        return iter("xt")

    def __len__(self):
        return 2


x, t = torch.zeros(8, 2), torch.zeros(8)
packed = pack_sequence([torch.ones(3, 2), torch.ones(2, 2), torch.ones(1, 2)])
COUNTED = {
    "a tensor": (x, 8),
    "a tuple": ((x, t), 8),
    "a named tuple": (Pair(x, t), 8),
    "a number second": ((x, torch.tensor(0.5)), 8),
    "a dict": ({"x": x, "t": t}, 8),
    "a text first": ({"task": "segmentation", "x": x}, 8),
    "a number first": ((torch.tensor(0.5), 3, x), 8),
    "a UserDict": (UserDict(x=x, t=t), 8),
    "an encoding": (Encoding(x=x, t=t), 8),
    "a mapping": (Lazy(8), 8),
    "nested": ({"views": [x, (x, {"t": t})], "names": ["a", "b"]}, 8),
    "arrays": ((np.zeros((8, 2)), np.float32(1)), 8),
    "a dataclass": (Batch(x), 8),
    "an object": (Graphs(x, torch.zeros(8, 8)), 8),
    "a named tuple that moves itself": (Moving(x, t), 8),
    "an object with slots": (Slotted(x), 8),
    "an object that holds itself": (Looped(x, torch.zeros(8, 8)), 8),
    "packed": ((packed, torch.zeros(3)), 3),
    "packed alone": (packed, 3),
    "a list of samples": ([(x, 1)] * 5, 5),
    "an empty batch": (torch.zeros(0, 2), 0),
}
UNKNOWN = {
    "images and boxes": (tuple(zip(*[(torch.zeros(3, 8, 8), {"boxes": torch.zeros(2, 4)})] * 8, strict=True))),
    "nodes and edges": Graphs(torch.zeros(9, 4), torch.zeros(2, 30)),
    "a pair that does not agree": (x, torch.zeros(3)),
    "text": {"task": "segmentation"},
    "a number": torch.tensor(0.5),
    "None": None,
}


@pytest.mark.parametrize("name", COUNTED)
def test_the_samples_of_a_batch_are_counted(name):
    batch, n = COUNTED[name]
    assert count_samples(batch) == n
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert size_of(batch, object(), SimpleNamespace()) == n


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_batch_that_does_not_tell_weighs_1_and_is_warned_of_once(name):
    batch, owner = UNKNOWN[name], SimpleNamespace()
    assert count_samples(batch) == 1
    with pytest.warns(UserWarning, match="cannot tell how many samples a batch of object holds") as told:
        assert [size_of(batch, object(), owner) for _ in range(3)] == [1, 1, 1]
    assert len(told) == 1 and "let the iterator set n_samples" in str(told[0].message)


def test_the_iterator_s_word_is_taken():
    assert size_of(UNKNOWN["images and boxes"], SimpleNamespace(n_samples=8), SimpleNamespace()) == 8
    assert size_of((x, t), SimpleNamespace(n_samples=0), SimpleNamespace()) == 0


class Foreign:
    """An iterator of somebody's own: the batches of a list, again and again."""

    epoch = 0
    epoch_detail = 0.0
    is_new_epoch = False
    previous_epoch_detail = None

    def __init__(self, *batches):
        self.batches, self.i = batches, 0

    def __next__(self):
        if self.i == len(self.batches):
            raise StopIteration
        self.i += 1
        return self.batches[self.i - 1]

    def reset(self):
        self.i = 0

    def state_dict(self):
        return {"i": self.i}

    def load_state_dict(self, state):
        self.i = state["i"]

    def finalize(self):
        pass


class Detector(nn.Linear):
    def forward(self, images, targets):
        report({"images": float(len(images))}, self)
        return super().forward(torch.ones(1)).mean()


def detections(n):
    return tuple(zip(*[(torch.zeros(3, 8, 8), {"boxes": torch.zeros(2, 4)})] * n, strict=True))


def test_updater_and_evaluator_warn_once_each_and_go_on(tmp_path):
    model = Detector(1, 1)
    updater = StandardUpdater(
        Foreign(*map(detections, (8, 8, 1))), torch.optim.SGD(model.parameters(), 0.1), model=model
    )
    run = Trainer(updater, (3, "iteration"), out=tmp_path)
    run.extend(extensions.Evaluator(Foreign(*map(detections, (8, 1))), model), trigger=(1, "iteration"))
    run.extend(extensions.LogReport(trigger=(3, "iteration")))
    with pytest.warns(UserWarning, match="cannot tell how many samples a batch of Foreign holds") as told:
        run.run()
    assert len(told) == 2
    assert run.get_extension("LogReport").log[0]["main/images"] == (8 + 8 + 1) / 3


OTHERWISE = ("arrays", "a list of samples", "an object with slots", "an object that holds itself")


@pytest.mark.parametrize("name", [name for name in COUNTED if name not in OTHERWISE])
def test_every_tensor_of_a_batch_is_moved(name):
    moved = concat_examples(COUNTED[name][0], "meta")

    def tensors(value):
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, PackedSequence):
            yield value.data
        else:
            parts = value.values() if isinstance(value, Mapping) else value
            if not isinstance(parts, (tuple, list, dict)) and not isinstance(value, Mapping):
                parts = vars(value).values() if hasattr(value, "__dict__") else ()
            for part in parts:
                yield from tensors(part)

    found = list(tensors(moved))
    assert found and all(tensor.is_meta for tensor in found)


def test_an_object_keeps_its_class_and_a_packed_sequence_its_sizes():
    assert type(concat_examples(Batch(x), "meta")) is Batch
    assert concat_examples((Slotted(x), t), "meta")[0].x.is_meta
    assert concat_examples(Looped(x, t), "meta").edges.is_meta
    moved, _ = concat_examples((packed, x), "meta")
    assert isinstance(moved, PackedSequence) and torch.equal(moved.batch_sizes, packed.batch_sizes)
    assert type(concat_examples(OrderedDict(x=x), "meta")) is dict


class Keywords(nn.Linear):
    def forward(self, x, t):
        assert x.shape == (8, 2) and t.shape == (8,)
        return super().forward(x).mean()


class Whole(nn.Linear):
    def __init__(self, kind):
        super().__init__(2, 1)
        self.kind = kind

    def forward(self, batch):
        assert isinstance(batch, self.kind)
        return super().forward(batch.data if isinstance(batch, PackedSequence) else batch.x).mean()


@pytest.mark.filterwarnings("ignore:validation. nothing was reported in the evaluation")
@pytest.mark.parametrize("batch", [UserDict(x=x, t=t), Encoding(x=x, t=t), Lazy(8), Pair(x, t), {"x": x, "t": t}])
def test_a_mapping_is_passed_by_keyword(batch):
    model = Keywords(2, 1)
    updater = StandardUpdater(Foreign(batch), torch.optim.SGD(model.parameters(), 0.1), model=model)
    updater.update()
    assert updater.batch_size == 8
    extensions.Evaluator(Foreign(batch), model)()


@pytest.mark.filterwarnings("ignore:validation. nothing was reported in the evaluation")
@pytest.mark.parametrize("batch", [packed, Batch(x), Graphs(x, x)])
def test_an_object_is_passed_as_it_is(batch):
    model = Whole(type(batch))
    updater = StandardUpdater(Foreign(batch), torch.optim.SGD(model.parameters(), 0.1), model=model)
    updater.update()
    extensions.Evaluator(Foreign(batch), model)()
