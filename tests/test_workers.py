"""Worker processes: the signals of a job leave them alone, and their death is an error where it belongs.

Every run is a process of its own with a deadline: what hangs fails.
"""

import ctypes
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from contextlib import suppress
from pathlib import Path

import processes
import pytest
import torch
from helpers import Augmented, equal
from torch.utils.data import DataLoader

import extensions
from trainer import Classifier, StandardUpdater, Trainer, concat_examples
from trainer.iterators import DataLoaderIterator, MultiprocessIterator, SerialIterator

DEADLINE = 120  # seconds; each takes one or two
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
DEATH = r"a process that loads the data has died: process \d+ by signal 9 \(Killed\)"


def succeeds(tmp_path, function, *args):
    """Calls a function in a process of its own, which leads a group; shows what it printed if it fails or hangs."""
    output = tmp_path / "output"
    process = processes.start(_prepared, function, *args, output=output)
    process.join(DEADLINE)
    is_over = process.exitcode is not None
    if not is_over:
        os.killpg(process.pid, signal.SIGKILL)
    assert is_over and process.exitcode == 0, output.read_text()
    return output.read_text()


def _prepared(function, *args):
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "This DataLoader will create")
    for number in SIGNALS:  # as the training process would: it goes on
        signal.signal(number, lambda number, frame: None)
    function(*args)


def multiprocess(dataset=None, **kwargs):
    return MultiprocessIterator(dataset or Augmented(), 4, n_processes=2, seed=3, **kwargs)


def loader(dataset=None, **kwargs):
    return DataLoaderIterator(DataLoader(dataset or Augmented(), 4, num_workers=2, **kwargs), seed=3)


def persistent(dataset=None):
    return loader(dataset, persistent_workers=True)


KINDS = [multiprocess, loader, persistent]


def kill_workers(n=1):
    """Kills workers and waits until they are dead, but leaves it to others to bury them."""
    victims = multiprocessing.active_children()[:n]
    for worker in victims:
        os.kill(worker.pid, signal.SIGKILL)
    for worker in victims:
        os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)


# -- signals


def fetch_under_signals(make):
    def batches():
        iterator = make()
        yield from (concat_examples(next(iterator)) for _ in range(12))
        iterator.finalize()

    expected = list(batches())
    got = []
    for batch in batches():
        got.append(batch)
        for number in SIGNALS * 2:
            os.killpg(0, number)
            for worker in multiprocessing.active_children():
                os.kill(worker.pid, number)
    assert equal(got, expected)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("make", KINDS)
def test_the_signals_of_a_job_leave_the_workers_and_the_batches_alone(tmp_path, make):
    succeeds(tmp_path, fetch_under_signals, make)


def start_under_signals(make, times=10):
    stop = threading.Event()

    def storm():
        while not stop.is_set():
            for number in SIGNALS:
                os.killpg(0, number)

    thread = threading.Thread(target=storm)
    thread.start()
    try:
        for _ in range(times):
            iterator = make()
            next(iterator)
            iterator.finalize()
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("make", [multiprocess, loader])
def test_no_signal_finds_a_worker_unprepared_at_its_start(tmp_path, make):
    succeeds(tmp_path, start_under_signals, make)


def spawned():
    return loader(multiprocessing_context="spawn")


@pytest.mark.full
def test_no_signal_finds_a_spawned_worker_unprepared_at_its_start():
    done = script("import test_workers as t; t._prepared(t.start_under_signals, t.spawned, 1)")
    assert done.returncode == 0, done.stderr


def script(code):
    """Runs a script in an interpreter of its own, in a group of its own."""
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        cwd=os.path.dirname(__file__),
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
    )


class Programs(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        return subprocess.run(["sh", "-c", "kill -TERM $$"]).returncode, len(blocked)


def start_programs():
    assert next(multiprocess(Programs()))[0].tolist() == [-signal.SIGTERM] * 4
    assert next(multiprocess(Programs()))[1].tolist() == [0] * 4


def test_a_program_that_a_data_set_starts_has_the_usual_signals(tmp_path):
    succeeds(tmp_path, start_programs)


def test_the_training_process_has_its_signals_after_the_start_of_workers():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with multiprocess() as iterator:
        next(iterator)
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


def test_a_loader_s_own_worker_init_fn_is_called_and_stays_its_attribute():
    made = []

    def init(worker):
        made.append(worker)

    class Made(torch.utils.data.Dataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return made[0]

    own = DataLoader(Made(), 1, num_workers=2, worker_init_fn=init)
    iterator = DataLoaderIterator(own)
    assert [next(iterator).item(), next(iterator).item()] == [0, 1]
    assert own.worker_init_fn is init


def fetch_in_a_thread(make):
    batches = []

    def fetch():
        iterator = make()
        batches.extend(concat_examples(next(iterator)) for _ in range(4))
        kill_workers()
        with pytest.raises(RuntimeError, match=DEATH):
            [next(iterator) for _ in range(3)]
        iterator.finalize()

    thread = threading.Thread(target=fetch)
    thread.start()
    thread.join()
    assert len(batches) == 4


@pytest.mark.parametrize("make", [multiprocess, persistent])
def test_batches_can_be_fetched_in_a_thread_too(tmp_path, make):
    succeeds(tmp_path, fetch_in_a_thread, make)


# -- the end


class Stuck(torch.utils.data.Dataset):
    """The second batch never comes."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        if index >= 4:
            time.sleep(1e6)
        return index


@pytest.mark.parametrize("dataset", ["range(8)", "test_workers.Stuck()"])
def test_a_script_that_does_not_finalize_ends(dataset):
    done = script(
        "import test_workers; from trainer.iterators import MultiprocessIterator\n"
        f"iterator = MultiprocessIterator({dataset}, 4, shuffle=False, n_processes=2)\n"
        "print(next(iterator).tolist())"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[0, 1, 2, 3]\n", "")


def finalize_stuck(make):
    iterator = make(Stuck(), shuffle=False)
    next(iterator)
    workers = multiprocessing.active_children()
    iterator.finalize()
    for worker in workers:
        worker.join()


@pytest.mark.parametrize("make", [multiprocess, loader])
def test_finalize_ends_workers_that_are_stuck(tmp_path, make):
    succeeds(tmp_path, finalize_stuck, make)


# -- death


def die_between_batches(make, n):
    iterator, whole = make(), make()
    for _ in range(2):
        next(iterator), next(whole)
    whole.finalize()  # the children that are left are the others'
    if make is persistent:
        whole.loader._iterator = None
    epoch_detail = iterator.epoch_detail
    kill_workers(n)
    for _ in range(1000):  # nothing here is interrupted
        torch.ones(1).add_(1)
    with pytest.raises(RuntimeError, match=DEATH + (r", process \d+ by signal 9" if n == 2 else "")) as caught:
        next(iterator)
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert "fewer workers" in str(caught.value) and "resume from the last snapshot" in str(caught.value)
    assert iterator.epoch_detail == epoch_detail
    iterator.finalize()
    iterator.finalize()
    if make is multiprocess:  # new workers go on at the same place
        serial = SerialIterator(Augmented(), 4, seed=3)
        expected = [concat_examples(next(serial)) for _ in range(4)][2:]
        assert equal([next(iterator), next(iterator)], expected)
        iterator.finalize()


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("make", KINDS)
def test_a_killed_worker_is_an_error_where_the_next_batch_is_taken_and_nowhere_else(tmp_path, make, n):
    succeeds(tmp_path, die_between_batches, make, n)


class Suicidal(Augmented):
    def __getitem__(self, index):
        if index == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


def die_while_waited_for(make):
    iterator = make(Suicidal(), shuffle=False)
    with pytest.raises(RuntimeError, match=DEATH):
        [next(iterator) for _ in range(3)]
    iterator.finalize()


@pytest.mark.parametrize("make", [multiprocess, loader])
def test_a_worker_that_dies_while_its_batch_is_waited_for_is_an_error(tmp_path, make):
    succeeds(tmp_path, die_while_waited_for, make)


class Large(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return b"x" * 10**7


def die_in_the_middle_of_a_message():
    iterator = MultiprocessIterator(Large(), 2, n_processes=1, collate_fn=None)
    next(iterator)
    (worker,) = multiprocessing.active_children()
    time.sleep(0.5)  # until it fills the pipe with the next batch
    os.kill(worker.pid, signal.SIGSTOP)
    threading.Timer(0.5, os.kill, (worker.pid, signal.SIGKILL)).start()  # when the half that is there was read
    with pytest.raises(RuntimeError, match=DEATH):
        next(iterator)
    iterator.finalize()


def test_a_worker_that_dies_in_the_middle_of_a_message_does_not_leave_its_reader_waiting(tmp_path):
    succeeds(tmp_path, die_in_the_middle_of_a_message)


class Exiting(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        sys.exit(7)


def exit_in_the_data_set(make):
    with pytest.raises(RuntimeError, match=r"has died: .*\d+.* with exit code 7"):
        next(make(Exiting()))


@pytest.mark.parametrize("make", [multiprocess, loader])
def test_a_worker_that_exits_is_told_of_with_its_exit_code(tmp_path, make):
    succeeds(tmp_path, exit_in_the_data_set, make)


def die_in_two_iterators():
    first, second = multiprocess(), loader()
    next(first), next(second)
    kill_workers(4)
    for iterator in (second, first):
        with pytest.raises(RuntimeError, match=DEATH + r", process \d+ by signal 9 \(Killed\)\."):
            next(iterator)
    for iterator in (first, second):
        iterator.finalize()


def test_workers_of_two_iterators_killed_at_once_are_an_error_of_each(tmp_path):
    succeeds(tmp_path, die_in_two_iterators)


def use_a_loader_of_one_s_own():
    iterator = multiprocess()
    next(iterator)
    batches = iter(DataLoader(Augmented(), 4, num_workers=1))
    next(batches)
    with pytest.raises(RuntimeError, match="is killed by signal: Killed"):  # torch's own: it is not ours to change
        os.kill(batches._workers[0].pid, signal.SIGKILL)
        while True:
            time.sleep(0.01)
    next(iterator)
    iterator.finalize()


def test_a_data_loader_that_is_no_iterator_of_ours_is_as_torch_made_it(tmp_path):
    succeeds(tmp_path, use_a_loader_of_one_s_own)


def die_with_batches_in_the_queue(make, times=12):
    for i in range(times):
        iterator = make()
        next(iterator)
        time.sleep(0.01 * (i % 3))  # some are in the queue, to be read from a socket of the worker
        kill_workers(1 + i % 2)
        with pytest.raises(RuntimeError, match=DEATH):
            [next(iterator) for _ in range(20)]
        iterator.finalize()


@pytest.mark.parametrize("make", [multiprocess, loader])
def test_batches_of_a_killed_worker_that_are_queued_do_not_hide_its_death(tmp_path, make):
    succeeds(tmp_path, die_with_batches_in_the_queue, make)


def unpicklable(samples):
    return lambda: samples


def send_what_cannot_be_sent(make):
    with pytest.raises(AttributeError, match="(?s)in a DataLoader worker process.*pickle local object 'unpicklable"):
        next(make(collate_fn=unpicklable))


@pytest.mark.parametrize("make", [multiprocess, loader])
def test_a_batch_that_cannot_be_sent_is_an_error_and_not_awaited_for_ever(tmp_path, make):
    succeeds(tmp_path, send_what_cannot_be_sent, make)


class LocalError(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        class Own(Exception):
            pass

        raise Own("of its own kind")


def raise_an_error_of_a_local_class():
    with pytest.raises(RuntimeError, match="(?s)in DataLoader worker process 0.*Own: of its own kind"):
        next(loader(LocalError()))


def test_an_error_of_a_class_that_no_other_process_can_import_is_told_too(tmp_path):
    succeeds(tmp_path, raise_an_error_of_a_local_class)


# -- small machines

NO_NAMESPACE = 77


def in_small_shared_memory(function, *args):
    """Calls a function where /dev/shm is Docker's, but for being smaller still."""
    if os.geteuid() != 0 or ctypes.CDLL(None).unshare(0x20000) != 0:  # CLONE_NEWNS
        os._exit(NO_NAMESPACE)
    mount = "mount --make-rprivate / && mount -t tmpfs -o size=1m tmpfs /dev/shm"
    if subprocess.run(["sh", "-c", mount]).returncode != 0:
        os._exit(NO_NAMESPACE)
    function(*args)


def stacked(samples):
    return torch.stack([torch.ones(100_000) for _ in samples])  # not in shared memory yet, as default_collate's is


def fill_shared_memory(make, collate):
    iterator = make(collate_fn=collate)
    with pytest.raises(RuntimeError, match=r"/dev/shm, has 1 MB: give it more \(docker run --shm-size=8g\)") as caught:
        [next(iterator) for _ in range(4)]
    assert "or take fewer workers" in str(caught.value) and "or a smaller batch" in str(caught.value)


@pytest.mark.parametrize("make", [multiprocess, loader])
def test_small_shared_memory_is_named_with_what_helps(tmp_path, make):
    process = processes.start(in_small_shared_memory, fill_shared_memory, make, stacked, output=tmp_path / "output")
    process.join(DEADLINE)
    if process.exitcode == NO_NAMESPACE:
        pytest.skip("needs root, who may mount a file system for one process")
    assert process.exitcode == 0, (tmp_path / "output").read_text()


def die_of_a_bus_error():
    iterator = multiprocess()
    next(iterator)
    workers = multiprocessing.active_children()
    os.kill(workers[0].pid, signal.SIGBUS)
    with pytest.raises(RuntimeError, match=r"by signal 7 \(Bus error\)\. Its shared memory, /dev/shm, has \d+ MB"):
        [next(iterator) for _ in range(20)]


def test_a_bus_error_is_told_as_a_lack_of_shared_memory(tmp_path):
    succeeds(tmp_path, die_of_a_bus_error)


CGROUPS = [  # of version 1 and of version 2: the folder in which one can be made, and its limit
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
    ("/sys/fs/cgroup", "memory.max"),
]


class Greedy(torch.utils.data.Dataset):
    """Its worker is put where memory is short, and takes more."""

    def __init__(self, cgroup):
        self.cgroup = cgroup

    def __len__(self):
        return 8

    def __getitem__(self, index):
        if index >= 4:
            (self.cgroup / "cgroup.procs").write_text(str(os.getpid()))
            return [b"x" * 2**20 + os.urandom(1) for _ in range(1000)]
        return index


def run_out_of_memory(cgroup):
    iterator = MultiprocessIterator(Greedy(cgroup), 4, n_processes=1, shuffle=False, collate_fn=None)
    with pytest.raises(RuntimeError, match=DEATH + r"\. The kernel's out-of-memory killer has struck meanwhile"):
        next(iterator), next(iterator)


def test_the_kernel_s_out_of_memory_killer_is_named(tmp_path):
    for folder, limit in CGROUPS:
        cgroup = Path(folder, f"kusari-{os.getpid()}")
        with suppress(OSError):
            cgroup.mkdir()
            if (cgroup / limit).exists():
                (cgroup / limit).write_text(str(100 * 2**20))
                break
            cgroup.rmdir()
    else:
        pytest.skip("needs root, and cgroups that limit memory")
    try:
        succeeds(tmp_path, run_out_of_memory, cgroup)
    finally:
        cgroup.rmdir()


def run_out_of_files(make):
    iterator = make()
    next(iterator)
    most = len(os.listdir("/proc/self/fd")) + 4
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    kept = []
    with pytest.raises(RuntimeError, match=rf"may open {most} files: raise that \(ulimit -n\), or take fewer workers"):
        kept.extend(next(iterator) for _ in range(20))


@pytest.mark.parametrize("make", [multiprocess, loader])
def test_a_low_limit_of_open_files_is_named(tmp_path, make):
    succeeds(tmp_path, run_out_of_files, make)


# -- training is killed


def wait_to_be_killed(method, kind, in_a_thread):
    multiprocessing.set_start_method(method, force=True)
    dataset = Stuck() if kind == "stuck" else torch.zeros(100, 3)
    iterator = MultiprocessIterator(dataset, 4, shuffle=False, n_processes=2)
    if in_a_thread:  # which ends: the kernel's own signal for the death of a parent would come now
        thread = threading.Thread(target=next, args=(iterator,))
        thread.start()
        thread.join()
        time.sleep(0.5)
        if kind != "stuck":
            next(iterator), next(iterator)
    else:
        next(iterator)
    print("workers", *[process.pid for process in multiprocessing.active_children()], flush=True)
    time.sleep(1e6)


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("method", "kind", "in_a_thread"),
    [
        *(("fork", kind, in_a_thread) for kind in ("busy", "stuck") for in_a_thread in (False, True)),
        pytest.param("spawn", "stuck", False, marks=pytest.mark.full),
        pytest.param("spawn", "busy", True, marks=pytest.mark.full),
        pytest.param("forkserver", "stuck", True, marks=pytest.mark.full),
        pytest.param("forkserver", "busy", False, marks=pytest.mark.full),
    ],
)
def test_the_workers_end_with_a_training_process_that_is_killed(tmp_path, method, kind, in_a_thread):
    output, deadline = tmp_path / "output", time.monotonic() + DEADLINE
    process = processes.start(wait_to_be_killed, method, kind, in_a_thread, output=output)
    while "workers" not in (told := output.read_text() if output.exists() else ""):
        assert process.is_alive() and time.monotonic() < deadline, told
        time.sleep(0.01)
    workers = [int(pid) for pid in told.split("workers")[1].split()]
    assert len(workers) == 2 and all(map(is_running, workers))
    os.kill(process.pid, signal.SIGKILL)
    while any(map(is_running, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


# -- a whole run

PLAIN = [(image, i % 3) for i, image in enumerate(torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(0)))]


def make_run(out, iterator, n_killed=0):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(0.2), torch.nn.Linear(192, 3))
    model = Classifier(net)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    run = Trainer(StandardUpdater(iterator, optimizer, model=model), (8, "iteration"), out=out)
    run.extend(lambda trainer: kill_workers(n_killed), name="kill", trigger=(3, "iteration"), priority=1000)
    run.extend(extensions.LogReport(trigger=(1, "iteration")))
    run.extend(extensions.snapshot(filename="emergency", snapshot_on_error=True), trigger=(100, "iteration"))
    return run


def lose_workers_in_training(out, make, dataset, n):
    run = make_run(out, make(dataset), n)
    with pytest.raises(RuntimeError, match=DEATH):
        run.run(show_loop_exception_msg=False)
    assert run.updater.iteration == 3


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("make", KINDS)
def test_a_run_that_lost_its_workers_is_resumed_from_the_emergency_snapshot_to_the_bit(tmp_path, make, n):
    dataset = Augmented() if make is multiprocess else PLAIN  # what a loader's workers draw is not the run's
    succeeds(tmp_path, lose_workers_in_training, tmp_path / "result", make, dataset, n)
    whole = make_run(tmp_path / "whole", make(dataset))
    whole.run()
    resumed = make_run(tmp_path / "result", make(dataset))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        resumed.resume(tmp_path / "result" / "emergency")
        resumed.run()
    assert "had failed with WorkerError('a process that loads the data has died" in str(told[0].message)
    for part in ("model", "optimizer"):
        assert equal(resumed.updater.state_dict()[part], whole.updater.state_dict()[part])


def lose_a_worker_in_evaluation(out, make):
    run = make_run(out, SerialIterator(PLAIN, 4))
    model = run.updater.get_model("main")

    def evaluate(*batch):
        kill_workers()
        return model(*batch)

    run.extend(extensions.Evaluator(make(), model, eval_func=evaluate), trigger=(3, "iteration"))
    with pytest.raises(RuntimeError, match=DEATH):
        run.run(show_loop_exception_msg=False)
    assert run.updater.iteration == 3
    assert (out / "emergency").exists()


def evaluation():
    return multiprocess(repeat=False)


def evaluation_loader():
    return DataLoader(Augmented(), 4, num_workers=2)


@pytest.mark.parametrize("make", [evaluation, evaluation_loader])
def test_a_worker_that_dies_in_an_evaluation_ends_the_run_with_the_same_error(tmp_path, make):
    succeeds(tmp_path, lose_a_worker_in_evaluation, tmp_path / "result", make)


def see_who_chooses_the_threads(workers):
    library = os.path.join(os.path.dirname(torch.__file__), "lib", "libtorch_cpu.so")
    try:
        chooses = ctypes.CDLL(library).mkl_serv_get_dynamic
    except AttributeError:
        return print("no MKL")
    before, seen = chooses(), []
    model = Classifier(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3)))
    iterator = MultiprocessIterator(Augmented(), 4, n_processes=workers)
    updater = StandardUpdater(iterator, torch.optim.SGD(model.parameters(), lr=0.1), model=model)
    run = Trainer(updater, (2, "iteration"), out=tempfile.mkdtemp())
    run.extend(lambda trainer: seen.append(chooses()), name="look")
    run.run()
    assert (before, seen) == (1, [0, 0])


@pytest.mark.parametrize("workers", [0, 1])
def test_mkl_is_not_left_to_choose_the_number_of_threads_with_workers_or_without(tmp_path, workers):
    """It chooses by size and load, and bits depend on the number."""
    process = processes.start(see_who_chooses_the_threads, workers, output=tmp_path / "output")
    process.join(DEADLINE)
    assert process.exitcode == 0, (tmp_path / "output").read_text()


class HandedOver:
    """Its worker dies while the training process reads it; torch's tensors are read so, from their worker's socket."""

    def __init__(self, index):
        self.index = index

    def __reduce__(self):
        return (int, (self.index,)) if self.index < 4 else (die_while_read, (os.getpid(),))


def die_while_read(worker):
    os.kill(worker, signal.SIGKILL)
    raise ConnectionResetError(104, "Connection reset by peer")


class HandsOver(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return HandedOver(index)


def die_while_it_hands_over():
    iterator = MultiprocessIterator(HandsOver(), 4, n_processes=1, shuffle=False, collate_fn=None)
    assert next(iterator) == [0, 1, 2, 3]
    with pytest.raises(RuntimeError, match=DEATH):
        next(iterator)
    iterator.finalize()


def test_a_worker_that_dies_while_it_hands_a_batch_over_is_an_error_that_says_so(tmp_path):
    succeeds(tmp_path, die_while_it_hands_over)
