"""The run's folder in a hostile world: links, pipes and folders where files should be, and a folder that goes away."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from helpers import make_data, make_run
from processes import call, start

import extensions
from trainer import Classifier, StandardUpdater, Trainer, saving
from trainer.iterators import SerialIterator
from trainer.saving.files import remove_all
from trainer.saving.lock import FolderInUseError, FolderLock

SOMETHING = {
    "folder": lambda path: (path.mkdir(), (path / "inside").touch()),
    "pipe": os.mkfifo,
    "link": lambda path: path.symlink_to(path.parent.parent / "precious"),
    "link to nothing": lambda path: path.symlink_to(path.parent.parent / "absent"),
}


def prepare(out, stop=3, filename="snapshot_iter_{.updater.iteration}", log="log", **kwargs):
    run = make_run(out, (stop, "epoch"))
    run.extend(extensions.LogReport(trigger=(1, "iteration"), filename=log))
    run.extend(extensions.snapshot(filename=filename, n_retains=2, **kwargs))
    return run


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def out(tmp_path):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "out").mkdir()
    yield tmp_path / "out"
    assert (tmp_path / "precious").read_text() == "mine" and not (tmp_path / "absent").exists()


@contextmanager
def within(seconds):
    def stop(number, frame):
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# -- what is no file where a file should be


@pytest.mark.parametrize("kind", SOMETHING)
@pytest.mark.parametrize("name", ["log", ".lock", "loss.png", "profile.txt", "best", "logs/log"])
def test_what_is_no_file_is_named_before_training_and_left_alone(out, name, kind):
    run = make_run(out)
    run.extend(extensions.LogReport(filename=name if "log" in name else "log"))
    run.extend(extensions.PlotReport(["main/loss"], filename="loss.png"))
    run.extend(extensions.ProfileReport(skip=1, iterations=1))
    run.extend(extensions.snapshot(link="best"))
    place = out / name.split("/")[0]
    SOMETHING[kind](place)
    is_replaced = "link" in kind and name in ("loss.png", "profile.txt", "best")  # the link is, not what it leads to
    if is_replaced or (kind == "folder" and name == "logs/log"):
        run.run()
        return
    with within(20), pytest.raises(OSError, match=f"stands where a (file|folder) is to be.*'{place}'"):
        run.run()
    assert run.updater.iteration == 0 and os.path.lexists(place)


@pytest.mark.parametrize("kind", ["folder", "pipe"])
@pytest.mark.parametrize("name", ["snapshot_iter_2", "weights"])
@pytest.mark.parametrize("writer", ["SimpleWriter", "ThreadWriter"])
def test_what_stands_in_the_place_of_a_snapshot_is_named_and_left_alone(out, name, kind, writer):
    SOMETHING[kind](out / name)
    run = prepare(out, writer=getattr(extensions.snapshot_writers, writer)())
    run.extend(extensions.snapshot_object(run.updater.get_model("main"), "weights"))
    with within(20), pytest.raises(FileExistsError, match=rf"stands where a file is to be.*'{out / name}'"):
        run.run()


def test_a_lock_that_a_loss_of_power_has_filled_with_zeros_is_taken(out):
    (out / ".lock").write_bytes(bytes(20))
    FolderLock(out).release()
    assert not (out / ".lock").exists()


def test_a_file_called_lock_that_is_somebody_else_s_is_neither_emptied_nor_removed(out):
    (out / ".lock").write_text("of a package manager")
    with pytest.raises(FileExistsError, match=r"somebody else's file stands where the run's lock is to be.*/\.lock'"):
        make_run(out).run()
    assert (out / ".lock").read_text() == "of a package manager"


@pytest.mark.parametrize("below", [".", "a/b"])
@pytest.mark.parametrize("kind", ["file", "link to nothing"])
def test_a_folder_that_cannot_be_is_named_by_what_is_in_its_place(tmp_path, below, kind):
    place = tmp_path / "out"
    place.touch() if kind == "file" else place.symlink_to("absent")
    with pytest.raises(NotADirectoryError, match=f"stands where a folder is to be.*'{place}'"):
        make_run(place / below).run()


def test_the_folder_itself_may_be_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to("disk")
    prepare(tmp_path / "out", filename="snaps/{.updater.iteration}", log="logs/log", autoload=True).run()
    prepare(tmp_path / "out", 5, filename="snaps/{.updater.iteration}", log="logs/log", autoload=True).run()
    assert names(tmp_path / "disk" / "snaps") == ["10", "8"]


def test_a_device_is_not_replaced_by_a_file(tmp_path):
    with pytest.raises(FileExistsError, match=r"device stands where a file is to be.*'/dev/null'"):
        saving.write("/dev/null", lambda file: None)


@pytest.mark.skipif(os.getuid() != 0, reason="only root mounts file systems")
def test_a_full_file_system_names_the_file_and_leaves_the_log_whole(tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "size=24k", "none", str(tmp_path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        with pytest.raises(OSError, match=rf"No space left on device: '{tmp_path}/snapshot_iter_\d'"):
            prepare(tmp_path).run()
        assert json.loads((tmp_path / "log").read_text())[0]["iteration"] == 1
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


# -- links in the folder


@pytest.fixture
def photos(tmp_path):
    """Somebody's folder, with files that are called as a run's are."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("snapshot", "4", "log", ".snapshot.12.tmp", ".4.12.tmp"):
        (folder / name).write_text("mine")
    yield folder
    assert names(folder) == [".4.12.tmp", ".snapshot.12.tmp", "4", "log", "snapshot"]
    assert {path.read_text() for path in folder.iterdir()} == {"mine"}


def test_nothing_is_deleted_through_a_link(out, photos):
    filename = "epoch_{.updater.epoch}/snapshot"
    prepare(out, 3, filename, autoload=True).run()
    shutil.rmtree(out / "epoch_2")
    (out / "epoch_2").symlink_to(photos)
    with pytest.warns(UserWarning, match=r"epoch_2/snapshot was to be deleted, and stays: a link .*/epoch_2\)"):
        prepare(out, 5, filename, autoload=True).run()
    assert names(out) == ["epoch_2", "epoch_4", "epoch_5", "log"]


@pytest.mark.parametrize("filename", ["epoch_{.updater.epoch}/snapshot", "epoch_2/{.updater.iteration}"])
def test_nothing_is_written_through_a_link(out, photos, filename):
    (out / "epoch_2").symlink_to(photos)
    with pytest.raises(NotADirectoryError, match=rf"a link .* stands where a folder is to be.*'{out}/epoch_2'"):
        prepare(out, 3, filename).run()


@pytest.mark.parametrize("make", [extensions.PlotReport, extensions.LogReport, extensions.snapshot])
def test_a_linked_folder_is_named_before_training(out, photos, make):
    (out / "sub").symlink_to(photos)
    run = make_run(out)
    run.extend(make("main/loss", filename="sub/log") if make is not extensions.snapshot else make(filename="sub/4"))
    with pytest.raises(NotADirectoryError, match=rf"a link .* stands where a folder is to be.*'{out}/sub'"):
        run.run()
    assert run.updater.iteration == 0


def test_a_resumed_log_is_not_written_through_a_link(out, photos):
    prepare(out, log="logs/log").run()
    shutil.rmtree(out / "logs")
    (out / "logs").symlink_to(photos)
    with pytest.raises(NotADirectoryError, match=rf"a link .* stands where a folder is to be.*'{out}/logs'"):
        prepare(out, 5, log="logs/log", autoload=True).run()


@pytest.mark.parametrize("name", ["log", "holiday.jpg", "epoch_1", "snapshot_iter_2"])
def test_a_snapshot_cannot_have_files_deleted_that_its_run_did_not_write(out, name):
    prepare(out).run()
    (out / "holiday.jpg").touch()
    (out / "epoch_1").mkdir()
    saving.save({}, out / "snapshot_iter_2", run_id="a" * 16)  # another run's
    path = out / "snapshot_iter_6"
    state = saving.load(path)
    state["extensions"]["_Snapshot"]["extension"]["files"]["kept"] = [name, path.name]
    saving.save(state, path, run_id=state["run_id"], iteration=6)
    resumed = prepare(out, 5)
    resumed.resume(path)
    with pytest.warns(UserWarning, match=f"{name} of the snapshot's list of files: not named as this run's are"):
        resumed.run()
    assert {name, "holiday.jpg", "epoch_1", "snapshot_iter_10"} <= set(names(out))


def test_a_link_of_snapshots_is_a_name_in_the_folder():
    for link in ("../best", "/best", "a/best", ""):
        with pytest.raises(ValueError, match="link must be a name in the run's folder, got"):
            extensions.snapshot(link=link)


# -- what killed writes have left


def test_scraps_go_from_all_folders_that_the_run_writes_to_and_from_no_other(out):
    scraps = [f"{folder}/.{name}.12.tmp" for folder in (".", "plots", "snaps") for name in ("x", "loss.png")]
    others = ["other/.x.12.tmp", ".x.tmp", ".x.y.tmp", "plots/x.12.tmp"]
    for name in (*scraps, *others):
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).touch()
    (out / ".folder.12.tmp").mkdir()
    (out / ".link.12.tmp").symlink_to(out.parent / "precious")
    run = prepare(out, filename="snaps/{.updater.iteration}")
    run.extend(extensions.PlotReport(["main/loss"], filename="plots/loss.png"))
    run.run()
    assert [name for name in (*scraps, ".link.12.tmp") if os.path.lexists(out / name)] == []
    assert [name for name in (*others, ".folder.12.tmp") if not (out / name).exists()] == []


def test_all_files_are_removed_or_none(tmp_path):
    for name in "ab":
        (tmp_path / name).touch()
    (tmp_path / "c").mkdir()
    with pytest.raises(FileExistsError, match=r"nothing is removed: a folder stands where .*/c'"):
        remove_all([tmp_path / name for name in "abc"])
    assert names(tmp_path) == ["a", "b", "c"]
    (tmp_path / "c").rmdir()
    (tmp_path / "c").symlink_to("a")
    remove_all([tmp_path / name for name in "abcd"])
    assert names(tmp_path) == []


def remove_as_nobody(folder):
    os.setgid(65534)
    os.setuid(65534)
    try:
        remove_all([folder / "nobody's", folder / "root's"])
    except PermissionError as error:
        raise SystemExit(3 if error.filename == str(folder / "root's") else 4) from None


@pytest.fixture
def public():
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to others
        os.chmod(folder, 0o1777)
        yield Path(folder)


@pytest.mark.skipif(os.getuid() != 0, reason="only root makes files of two users")
@pytest.mark.parametrize("protection", ["sticky", "immutable", "append only"])
def test_none_is_removed_where_one_is_protected(protection, public):
    folder = public
    for name in ("nobody's", "root's"):
        (folder / name).touch()
    os.chown(folder / "nobody's", 65534, 65534)
    flag = {"immutable": "i", "append only": "a"}.get(protection)
    if flag and subprocess.run(["chattr", f"+{flag}", folder / "root's"], capture_output=True).returncode:
        pytest.skip("this file system has no such attribute")
    try:
        assert call(remove_as_nobody, folder) == 3
        if flag:
            with pytest.raises(PermissionError, match="nothing is removed: Operation not permitted"):
                remove_all([folder / "nobody's", folder / "root's"])
    finally:
        if flag:
            subprocess.run(["chattr", f"-{flag}", folder / "root's"], check=True)
    assert names(folder) == ["nobody's", "root's"]


# -- a folder that goes away while the run writes to it


def during(out, act, **kwargs):
    """A run that does something to its folder in iteration 5."""
    run = prepare(out, 6, **kwargs)
    run.extend(lambda trainer: trainer.updater.iteration == 5 and act(), name="act")
    return run


def moved(out):
    out.rename(out.parent / "moved")


def replaced(out):
    moved(out)
    out.mkdir()


def linked_elsewhere(out):
    moved(out)
    (out.parent / "elsewhere").mkdir()
    out.symlink_to("elsewhere")


def emptied(out):
    for path in out.iterdir():
        path.unlink()


@pytest.mark.parametrize("act", [shutil.rmtree, moved, replaced, emptied, linked_elsewhere])
def test_a_run_whose_folder_goes_away_goes_on_in_a_new_one_and_keeps_others_out(out, act):
    refused = []
    run = during(out, lambda: act(out))
    run.extend(lambda trainer: trainer.updater.iteration == 7 and refused.append(call(try_to_run, out)), name="other")
    with pytest.warns(
        UserWarning, match=rf"{out} is no longer as this run left it, .*goes on there.* new lock"
    ) as told:
        run.run()
    assert len(told) == 1 and refused == [3]
    assert names(out) == ["log", "snapshot_iter_10", "snapshot_iter_12"]
    assert [entry["iteration"] for entry in json.loads((out / "log").read_text())] == list(range(1, 13))
    if (out.parent / "moved").exists():
        assert [file.iteration for file in saving.find(out.parent / "moved")] == [4, 2]


@pytest.mark.filterwarnings("ignore:extensions/act is not in the snapshot:UserWarning")
def test_the_log_that_lies_in_a_replaced_folder_is_kept(out):
    def act():
        replaced(out)
        (out / "log").write_text("another's")

    prepare(out, 2).run()
    run = during(out, act, autoload=True)
    with pytest.warns(UserWarning, match="is no longer as this run left it"):
        run.run()
    assert (out / "log.old").read_text() == "another's" and len(json.loads((out / "log").read_text())) == 12


def try_to_run(out):
    try:
        make_run(out).run()
    except FolderInUseError:
        raise SystemExit(3) from None


def hold(out):
    run = prepare(out)
    run.extend(lambda trainer: ((out / "running").touch(), time.sleep(600)), name="stay", priority=1000)
    run.run()


def test_a_run_whose_folder_another_run_has_taken_stops_and_writes_nothing_there(out):
    others = []

    def act():
        replaced(out)
        others.append(start(hold, out))
        deadline = time.monotonic() + 60
        while not (out / "running").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    run = during(out, act, snapshot_on_error=True)
    try:
        with pytest.raises(FolderInUseError, match=rf"{out} is no longer .*stops, .*in use by another run \(process"):
            run.run()
        assert run.updater.iteration == 5 and names(out) == [".lock", "running"]
        assert call(try_to_run, out) == 3
    finally:
        others[0].kill()
        others[0].join()


def test_a_file_in_the_place_of_the_folder_stops_the_run_with_its_name(out):
    def act():
        shutil.rmtree(out)
        out.touch()

    with pytest.raises(NotADirectoryError, match=f"a file stands where a folder is to be.*'{out}'"):
        during(out, act).run()


# -- two runs in one folder


def one_of_two(out, hidden=0, lr=0.1, args=None, stop=3, log=True, **kwargs):
    torch.manual_seed(0)
    head = torch.nn.Sequential(torch.nn.Linear(2, hidden), torch.nn.Linear(hidden, 3)) if hidden else None
    model = Classifier(head or torch.nn.Linear(2, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    run = Trainer(StandardUpdater(SerialIterator(make_data(), 5), optimizer, model=model), (stop, "epoch"), out=out)
    run.args = args or {}
    if log:
        run.extend(extensions.LogReport())
    run.extend(extensions.snapshot(**kwargs))
    return run


@pytest.mark.filterwarnings("ignore:.* is another run's and stays:UserWarning")
@pytest.mark.parametrize("clock", ["first", "second", "equal"])
@pytest.mark.parametrize(
    ("first", "second", "resumed", "expected"),
    [
        ({}, {}, {}, "second"),  # it wrote the log
        ({"stop": 4}, {}, {}, "second"),
        ({"hidden": 4}, {}, {"hidden": 4}, "first"),
        ({"hidden": 4}, {}, {}, "second"),
        ({"lr": 0.1}, {"lr": 0.2}, {"lr": 0.1}, "first"),
        ({"args": {"x": 1}}, {"args": {"x": 2}}, {"args": {"x": 1}}, "first"),
        (
            {"filename": "a_{.updater.epoch}"},
            {"filename": "b_{.updater.epoch}"},
            {"filename": "a_{.updater.epoch}"},
            "first",
        ),
    ],
    ids=["log", "shorter", "model 1", "model 2", "lr", "args", "filename"],
)
def test_autoload_takes_the_run_of_this_script_whatever_the_clock(out, first, second, resumed, expected, clock):
    ids = {}
    for name, options in (("first", first), ("second", second)):
        run = one_of_two(out, **options)
        run.run()
        ids[run.run_id] = name
    for file in saving.find(out):
        late = clock == ids[file.run_id]
        os.utime(file.path, (4e9, 4e9) if late else (1, 1))
    run = one_of_two(out, **resumed, autoload=True)
    run.stop_trigger = lambda trainer: True
    assert run.finished
    assert ids[run.run_id] == expected


@pytest.mark.filterwarnings("ignore:.* is another run's and stays:UserWarning")
def test_a_run_that_was_resumed_by_name_is_the_folder_s_from_then_on(out):
    first = one_of_two(out)
    first.run()
    one_of_two(out).run()
    back = one_of_two(out, stop=4)
    back.resume(out / "snapshot_iter_6")
    back.run()
    for file in saving.find(out):
        os.utime(file.path, (1, 1))
    last = one_of_two(out, stop=5, autoload=True)
    last.run()
    assert last.run_id[:12] == first.run_id[:12] and last.resumed_from.name == "snapshot_iter_8"


@pytest.mark.filterwarnings("ignore:.* is another run's and stays:UserWarning")
def test_where_nothing_tells_two_runs_apart_the_choice_is_told(out):
    for _ in range(2):
        one_of_two(out, log=False).run()
    run = one_of_two(out, stop=4, log=False, autoload=True)
    told = (
        r"snapshot_iter_6-(\w+) \(run \1\) and .*/snapshot_iter_6 \(run \w+\) are of two runs that this script may mean"
    )
    with pytest.warns(UserWarning, match=told):
        run.run()


def test_a_snapshot_in_a_folder_that_was_removed_has_its_log_beside_it(tmp_path):
    """Also when the run is killed before the next entry."""
    out = tmp_path / "out"
    run = make_run(out, (6, "iteration"))
    run.extend(extensions.LogReport(trigger=(4, "iteration")))
    run.extend(lambda trainer: shutil.rmtree(out), "remove", trigger=(5, "iteration"))
    run.extend(extensions.snapshot(), trigger=(6, "iteration"))
    with pytest.warns(UserWarning, match="is no longer as this run left it"):
        run.run()
    assert names(out) == ["log", "snapshot_iter_6"]
    assert [entry["iteration"] for entry in json.loads((out / "log").read_text())] == [4]
