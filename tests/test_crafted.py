"""Files that are damaged, or were crafted, or are no files: refused in our words, in bounded time and memory."""

import contextlib
import io
import json
import math
import os
import random
import re
import shutil
import socket
import zipfile
from pathlib import Path

import pytest
import torch
from helpers import bits, make_data, make_run

import extensions
from recipes import newts, plot_log
from recipes.parts import run_folder
from recipes.parts.transforms import ScaleAndCrop
from trainer import Classifier, StandardUpdater, Trainer, saving
from trainer.datasets import ImageDataset
from trainer.iterators import SerialIterator
from trainer.saving import SnapshotError
from trainer.triggers import EarlyStoppingTrigger, TimeTrigger


def weights():
    return {"weight": torch.arange(6.0), "bias": torch.ones(2)}


# -- files of weights


def test_no_flipped_bit_in_a_file_of_weights_loads_other_values(tmp_path):
    state = {"weight": torch.arange(2.0)}
    saving.save_weights(state, tmp_path / "weights")
    whole, good, draw = (tmp_path / "weights").read_bytes(), bits(state), random.Random(0)
    refused = 0
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << draw.randrange(8)
        (tmp_path / "damaged").write_bytes(damaged)
        try:
            assert bits(saving.load_weights(tmp_path / "damaged")) == good, place  # a byte that says nothing
        except SnapshotError:
            refused += 1
    assert refused > 500


@pytest.mark.parametrize("part", ["data/0", "data.pkl"])
def test_the_damaged_part_is_named(tmp_path, part):
    path = tmp_path / "weights"
    saving.save_weights(weights(), path)
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith(part))
        content = archive.read(name)
    data = bytearray(path.read_bytes())
    data[data.index(content) + 4] ^= 16
    path.write_bytes(data)
    with pytest.raises(SnapshotError, match=f"weights is damaged: its part '{name}' does not match its checksum"):
        saving.load_weights(path)


def test_a_damaged_checksum_is_damage_and_not_a_file_without_checksums(tmp_path):
    path = tmp_path / "weights"
    saving.save_weights(weights(), path)
    with zipfile.ZipFile(path) as archive:
        member = next(info for info in archive.infolist() if info.filename.endswith("data/0"))
    data = path.read_bytes()
    checksum = member.CRC.to_bytes(4, "little")
    path.write_bytes(data[: data.rindex(checksum)] + bytes(4) + data[data.rindex(checksum) + 4 :])
    with pytest.raises(SnapshotError, match=r"data/0' does not match its checksum or its header; take another"):
        saving.load_weights(path)


def test_a_part_that_is_marked_as_a_folder_is_damaged(tmp_path):
    saving.save_weights(weights(), tmp_path / "weights")
    data = bytearray((tmp_path / "weights").read_bytes())
    entry = data.rindex(b"/data/0") - len("weights") if b"weights/data/0" in data else data.rindex(b"/data/0")
    start = data.rindex(b"PK\x01\x02", 0, entry)
    data[start + 38] ^= 0x10
    (tmp_path / "weights").write_bytes(data)
    with pytest.raises(SnapshotError, match=r"data/0' does not match its checksum or its header"):
        saving.load_weights(tmp_path / "weights")


@pytest.mark.parametrize("kind", ["legacy", "without checksums"])
def test_a_foreign_file_without_checksums_loads_with_one_warning(tmp_path, kind):
    path = tmp_path / "foreign.pth"
    try:
        torch.serialization.set_crc32_options(kind == "legacy")
        torch.save(weights(), path, _use_new_zipfile_serialization=kind != "legacy")
    finally:
        torch.serialization.set_crc32_options(True)
    with pytest.warns(UserWarning) as told:
        assert bits(saving.load_weights(path)) == bits(weights())
    assert [str(w.message).partition("foreign.pth ")[2] for w in told] == [
        "has no checksums: whether it is damaged cannot be known."
    ]


def test_a_compressed_archive_is_refused_before_it_is_inflated(tmp_path):
    torch.save({"weight": torch.zeros(1 << 20)}, file := io.BytesIO())
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(tmp_path / "w", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in archive.namelist():
            packed.writestr(name, archive.read(name))
    with pytest.raises(SnapshotError, match="/w is compressed, or its parts claim to be larger than the file"):
        saving.load_weights(tmp_path / "w")


def test_an_object_is_autoloaded_from_the_next_older_whole_file(tmp_path):
    def prepare():
        run = make_run(tmp_path)
        model = run.updater.get_model("main")
        run.extend(extensions.snapshot_object(model, "m_{.updater.epoch}", autoload=True))
        return run, model

    prepare()[0].run()
    older = torch.load(tmp_path / "m_1", weights_only=True)
    data = bytearray((tmp_path / "m_2").read_bytes())
    weight = torch.load(tmp_path / "m_2", weights_only=True)["predictor.weight"].numpy().tobytes()
    data[data.index(weight) + 3] ^= 1
    (tmp_path / "m_2").write_bytes(data)
    os.utime(tmp_path / "m_1", (1, 1))
    run, model = prepare()
    run.stop_trigger = lambda trainer: True
    with pytest.warns(UserWarning, match="autoload passes over a file: .*m_2 is damaged: its part"):
        run.run()
    assert bits(dict(model.state_dict())) == bits(dict(older))


# -- what is no file


def make_odd(path, kind):
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("nowhere")


WORDS = {"pipe": "is a named pipe", "socket": "is a socket", "device": "is a device", "folder": "is a folder"}
READERS = {
    "a snapshot": saving.load,
    "weights": saving.load_weights,
    "a run": lambda path: make_run("out").resume(path),
    "arguments": lambda path: run_folder.read_args(Path(path).parent),
    "a log": plot_log.read_log,
    "an image": lambda path: ImageDataset([path])[0],
    "a JPEG": ScaleAndCrop(4, 4).read,
    "a list of images": ImageDataset,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", WORDS)
def test_only_a_regular_file_is_opened(tmp_path, monkeypatch, kind, reader):
    monkeypatch.chdir(tmp_path)  # the path of a socket may have 107 bytes
    make_odd(Path("args.json"), kind)
    with pytest.raises(
        (OSError, ValueError), match=f"args.json ({WORDS[kind]}|cannot be used: it is a folder, a pipe)"
    ):
        READERS[reader]("args.json")


def test_what_has_the_name_of_a_snapshot_and_is_none_is_passed_over_and_named_once(tmp_path, monkeypatch):
    def prepare(stop):
        run = make_run("out", stop)
        run.extend(extensions.snapshot(autoload=True, link="snapshot_iter_best"))
        return run

    monkeypatch.chdir(tmp_path)
    prepare((2, "epoch")).run()
    for kind in (*WORDS, "dangling"):
        make_odd(Path("out") / f"snapshot_iter_{kind}", kind)
    shutil.copy("out/snapshot_iter_2", "elsewhere")
    Path("out/snapshot_iter_other").symlink_to("../elsewhere")
    with pytest.warns(UserWarning) as told:
        run = prepare((3, "epoch"))
        run.run()
    assert run.resumed_from.name == "snapshot_iter_4"
    words = WORDS | dict.fromkeys(("device", "dangling", "other"), "is a link")
    lines = [str(warning.message) for warning in told]
    assert len(lines) == len(words) and all(line.startswith("autoload passes over a file: ") for line in lines)
    for kind, word in words.items():
        assert sum(f"snapshot_iter_{kind} {word}" in line for line in lines) == 1


def test_a_link_to_a_snapshot_is_followed_where_it_is_named(tmp_path):
    run = make_run(tmp_path / "out")
    run.extend(extensions.snapshot(link="best"))
    run.run()
    (tmp_path / "link").symlink_to("out/best")
    again = make_run(tmp_path / "other")
    again.resume(tmp_path / "link")
    assert again.updater.iteration == 4


# -- snapshots that were crafted, with the right checksum


def whole_run(out):
    torch.manual_seed(0)
    model = Classifier(torch.nn.Linear(2, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    updater = StandardUpdater(SerialIterator(make_data(10), 4), optimizer, model=model, device="cpu")
    run = Trainer(updater, EarlyStoppingTrigger(monitor="main/loss", max_trigger=(6, "iteration")), out=out)
    run.extend(extensions.LogReport(trigger=(2, "iteration")))
    run.extend(extensions.MaxValue("main/accuracy"))
    run.extend(lambda trainer: None, name="timed", trigger=TimeTrigger(1000))
    run.extend(extensions.snapshot(filename="s"), trigger=lambda trainer: trainer.updater.iteration == 4)
    return run


ITERATOR, ADAM = "updater/iterator/main/", "updater/optimizer/main/"
CRAFTED = {
    "iteration": ["four", -1, math.nan, 10**30, [4]],
    "elapsed_time": ["long", -1.0, math.nan],
    "run_id": ["../../../etc/ab", 7, None],
    "random": [[], {}],
    "random/numpy/2": [10**6, -1],
    "random/cpu": [torch.zeros(3, dtype=torch.uint8), "x"],
    "settings": [[]],
    "extensions": [[], {}],
    "updater": [[]],
    "updater/iteration": ["four", -1, math.nan],
    ITERATOR + "epoch": [-1, "one", 10**30, 0.5],
    ITERATOR + "current_position": [10**12, -1, math.nan],
    ITERATOR + "previous_epoch_detail": ["x", math.nan],
    ITERATOR + "seed": [-1, 2**64],
    "updater/model/main/predictor.bias": [{"a": 1}, torch.zeros(7), 3, torch.zeros(3, dtype=torch.bool)],
    ADAM + "state/0/exp_avg": [torch.zeros(7), "x", {"a": 1}, None],
    ADAM + "state": [{0: []}],
    ADAM + "param_groups/0/lr": ["fast", None, [0.1]],
    ADAM + "param_groups/0/betas": [(0.9,), ("a", "b")],
    "extensions/training/trigger/best": ["x", [1]],
    "extensions/training/trigger/count": [math.nan, "x"],
    "extensions/timed/trigger/next": ["soon"],
    "extensions/LogReport/extension/file/bytes": [-1, "x"],
    "extensions/LogReport/extension/file/name": [3, None],
    "extensions/LogReport/extension/trigger/progress": [[], [1, 0], ["a", "b"]],
    "extensions/MaxValue/extension/best_iteration": ["x"],
    "snapshots/pending": [None, [3]],
}


@pytest.mark.parametrize("key", CRAFTED)
def test_a_crafted_snapshot_is_refused_by_file_and_key(tmp_path, key):
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        whole_run(tmp_path).run()
    for value in CRAFTED[key]:
        state = torch.load(tmp_path / "s", weights_only=True)
        *above, last = key.split("/")
        place = state
        for name in above:
            place = place[int(name) if isinstance(place, (list, tuple)) or name.isdigit() else name]
        if isinstance(place, tuple):
            parent = state["random"]
            parent["numpy"] = (*place[:2], value, *place[3:])
        else:
            place[int(last) if last.isdigit() else last] = value
        saving.save(state, tmp_path / "crafted")
        with pytest.raises((ValueError, RuntimeError), match=f"(?s)/crafted .*({re.escape(last)}|random)") as caught:
            whole_run(tmp_path).resume(tmp_path / "crafted")
        assert type(caught.value) in (ValueError, SnapshotError) or "Error(s) in loading" in str(caught.value)


DEEP = b"]" * 100_000 + b"a" * 99_999
TWICE = b"]K\x00a"
for level in range(20):
    TWICE = b"](" + TWICE + b"q" + bytes([level]) + 9 * (b"h" + bytes([level])) + b"e"  # a list ten times in the next


@pytest.mark.parametrize("pickled", [DEEP, TWICE], ids=["deep", "one list many times"])
def test_a_file_of_lists_in_lists_without_end_is_refused(tmp_path, pickled):
    torch.save({"a": 1}, file := io.BytesIO())
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(tmp_path / "w", "w") as crafted:
        for name in archive.namelist():
            content = b"\x80\x02}X\x01\x00\x00\x00a" + pickled + b"s."
            crafted.writestr(name, content if name.endswith("data.pkl") else archive.read(name))
    with pytest.raises(SnapshotError, match="/w holds lists and dicts that are nested more than 100 deep, or hold too"):
        saving.load_weights(tmp_path / "w")


def test_a_tensor_that_would_fill_the_memory_is_refused(tmp_path):
    saving.save_weights({"weight": torch.zeros(1).expand(10**10)}, tmp_path / "w")
    with pytest.raises(SnapshotError, match=r"/w holds a tensor of shape \(10000000000,\) without so many values"):
        saving.load_weights(tmp_path / "w")


def test_a_tensor_that_repeats_one_value_is_loaded_as_it_was_saved(tmp_path):
    mask = torch.ones(1).expand(50 * 2**20)
    saving.save({"mask": mask}, tmp_path / "s")
    loaded = saving.load(tmp_path / "s")["mask"]
    assert loaded.shape == mask.shape and loaded[0] == loaded[-1] == 1


def test_what_is_nested_too_deep_is_refused_when_it_is_saved(tmp_path):
    state = {}
    for _ in range(200):
        state = {"a": state}
    with pytest.raises(TypeError, match=r"a/a.*\.\.\. is nested more than 100 deep: save lists and dicts side by side"):
        saving.save(state, tmp_path / "s")


# -- JSON


@pytest.mark.parametrize(
    "text, told",
    [
        (b"[" * 100_000 + b"]" * 100_000, "it is nested too deep"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "it is nested too deep"),
        (b"[" + b"9" * 5000 + b"]", "the number 9999999999... has 5000 digits"),
        (b'[{"epoch": 1, "epoch": 2}]', "the key 'epoch' stands there twice"),
        (b"\xff\xff\xff", "can't decode byte"),
        (b"\x00", "Expecting value|truncated data|can't decode"),
        (b'["\xed\xa0\x80"]', "can't decode byte"),
    ],
)
def test_json_that_python_chokes_on_is_refused_in_words(tmp_path, text, told):
    (tmp_path / "log").write_bytes(text)
    with pytest.raises(ValueError, match=f"/log is not a log: it is not JSON.*{told}"):
        plot_log.read_log(tmp_path / "log")


def test_a_log_of_other_values_is_refused_or_told(tmp_path):
    for content, told in (([1], "a log is a JSON list of objects"), ([{"a": 1, "a b": deep(300)}], "nested more than")):
        (tmp_path / "log").write_text(json.dumps(content))
        with pytest.raises(ValueError, match=f"/log is not a log: .*{told}"):
            plot_log.read_log(tmp_path / "log")


def deep(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "part, value",
    [
        *((("args", name), value) for name in ("batch_size", "lr", "precision") for value in ([], "x", None, {})),
        (("args", "data"), 3),
        *((("classes",), value) for value in ([], ["a", 1], ["a", "a"], "ab", {"a": 1})),
        *(((name,), value) for name in ("recipe", "splits", "versions", "args") for value in (1, [], None, deep(300))),
        (("splits", "test"), "many"),
    ],
)
def test_arguments_of_other_types_are_refused_by_file_and_key(tmp_path, part, value):
    args = {"batch_size": 8, "lr": 0.1, "precision": "fp32", "data": "data"}
    saved = {"recipe": "newts", "args": args, "classes": ["a", "b"], "splits": {"test": 3}, "versions": {"torch": "2"}}
    (tmp_path / "args.json").write_text(json.dumps(saved))
    assert run_folder.read_args(tmp_path, newts.OPTIONS) == saved
    place = saved if len(part) == 1 else saved[part[0]]
    place[part[-1]] = value
    (tmp_path / "args.json").write_text(json.dumps(saved))
    with pytest.raises(ValueError, match=f"/args.json cannot be read .*{part[-1]}"):
        run_folder.read_args(tmp_path, newts.OPTIONS)
