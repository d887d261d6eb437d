"""A run survives its terminal: none, a closed one, one without the bars' characters, a file, a notebook."""

import errno
import fcntl
import io
import json
import logging
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import make_data, make_run

import extensions
from extensions import progress_bar, terminal
from trainer.iterators import SerialIterator


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Fails(io.StringIO):
    """A stream in which each write fails."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def write(self, text):
        raise self.error


def logging_run(out, **kwargs):
    run = make_run(out, **kwargs)
    run.extend(extensions.LogReport())
    return run


def rows_of(run):
    return len(json.loads((Path(run.out) / "log").read_text()))


# -- streams that take nothing


class Closed:
    closed = True

    def write(self, text):
        raise ValueError("I/O operation on closed file.")


@pytest.mark.parametrize(
    ("stdout", "reason"),
    [
        (None, "stdout is closed"),
        (Closed(), "stdout is closed"),
        (Fails(BrokenPipeError(errno.EPIPE, "Broken pipe")), "stdout takes no more (Broken pipe)"),
        (Fails(OSError(errno.ENOSPC, "No space left on device")), "stdout takes no more (No space left on device)"),
    ],
    ids=["none", "closed", "pipe", "disk"],
)
def test_a_table_that_cannot_be_printed_is_told_once_and_training_goes_on(
    tmp_path, monkeypatch, caplog, stdout, reason
):
    run = logging_run(tmp_path)
    run.extend(extensions.PrintReport(["epoch"]))
    run.extend(extensions.ProgressBar(update_interval=1))
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdout", stdout)
        run.run()
    assert rows_of(run) == 2
    assert caplog.messages == [f"{reason}: PrintReport's rows are lost; the log is in {tmp_path}."]
    assert {(record.name, record.levelname) for record in caplog.records} == {("kusari", "WARNING")}


def test_a_terminal_that_goes_away_takes_the_bars_with_it(tmp_path, monkeypatch, caplog):
    class Gone(Fails, Terminal):
        pass

    run = make_run(tmp_path)
    run.extend(extensions.ProgressBar(update_interval=1))
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdout", Gone(OSError(errno.EIO, "Input/output error")))
        run.run()
    assert run.updater.iteration == 4
    assert caplog.messages == [
        "stdout takes no more (Input/output error): ProgressBar does not show how far training is."
    ]


@pytest.mark.parametrize("error", [TypeError("mine"), ValueError("mine"), OSError("mine"), KeyboardInterrupt()])
def test_a_mistake_in_a_stream_of_one_s_own_is_raised(tmp_path, error):
    run = logging_run(tmp_path)
    run.extend(extensions.PrintReport(["epoch"], out=Fails(error)))
    with pytest.raises(type(error)):
        run.run()


def test_a_file_that_is_open_for_reading_is_refused(tmp_path):
    (tmp_path / "table").touch()
    run = logging_run(tmp_path / "out")
    with open(tmp_path / "table") as file:
        run.extend(extensions.PrintReport(["epoch"], out=file))
        with pytest.raises(OSError, match="not writable"):
            run.run()


def test_what_the_encoding_lacks_is_written_as_escapes(tmp_path, caplog):
    raw = io.BytesIO()
    run = make_run(tmp_path)
    run.extend(extensions.LogReport(postprocess=lambda entry: entry.update({"鎖": "鎖 1"})))
    run.extend(extensions.PrintReport(["epoch", "鎖"], out=io.TextIOWrapper(raw, encoding="ascii")))
    run.run()
    assert raw.getvalue().splitlines()[:2] == [b"epoch       \\u9396         ", b"1           \\u9396 1         "]
    assert caplog.messages == []


# -- no terminal: a line now and then


def clock(monkeypatch, *seconds):
    """Patches the time that passes: one of these at each look at the clock."""
    times = iter(seconds)
    monkeypatch.setattr(progress_bar, "time", SimpleNamespace(monotonic=lambda: next(times)))
    monkeypatch.setattr(terminal, "time", SimpleNamespace(monotonic=lambda: next(times)))


def test_without_a_terminal_there_is_a_line_a_minute(tmp_path, monkeypatch):
    out = io.StringIO()
    clock(monkeypatch, 0, 59, 60, 119, 120)  # the first at the start
    run = make_run(tmp_path)
    run.extend(extensions.ProgressBar(update_interval=1, out=out))
    run.run()
    lines = out.getvalue().splitlines(keepends=True)
    assert [line[:17] for line in lines] == ["total:  50% 2/4 [", "total: 100% 4/4 ["]
    assert re.fullmatch(r"total:  50% 2/4 \[\d\d:\d\d<\d\d:\d\d, .*iter.*, epoch 1.00\]\n", lines[0])
    assert not set("\r\033") & set(out.getvalue())


def test_an_evaluation_without_a_terminal_has_a_line_a_minute(run, monkeypatch):
    monkeypatch.setattr("sys.stderr", out := io.StringIO())
    clock(monkeypatch, 0, 59, 61, 70)
    iterator = SerialIterator(make_data(10), 4, repeat=False, shuffle=False)
    extensions.Evaluator(iterator, run.updater.get_model("main"), progress_bar=True)()
    assert re.fullmatch(r"validation:  80% 8/10 \[01:01<00:15, +\d.\d\ds/it\]\n", out.getvalue())


def test_the_length_is_that_of_the_stop_trigger_of_the_moment(tmp_path, monkeypatch):
    monkeypatch.setattr(progress_bar, "SECONDS", 0.0)
    run = make_run(tmp_path, (4, "iteration"))

    def extend_it(trainer):
        trainer.stop_trigger = make_run(tmp_path, (6, "iteration")).stop_trigger

    run.extend(extend_it, trigger=lambda trainer: trainer.updater.iteration == 2)
    run.extend(extensions.ProgressBar(update_interval=1, out=(out := Terminal())), priority=-1)
    run.run()
    assert "1/4" in out.getvalue() and "3/6" in out.getvalue() and "6/6" in out.getvalue()


@pytest.mark.parametrize(("encoding", "expected"), [("ascii", "#"), ("utf-8", "█"), (None, "█"), ("cp437", "#")])
def test_bars_are_drawn_with_what_the_encoding_has(tmp_path, monkeypatch, encoding, expected):
    class Encoded(Terminal):
        pass

    monkeypatch.setattr(progress_bar, "SECONDS", 0.0)
    Encoded.encoding = encoding
    run = make_run(tmp_path)
    run.extend(extensions.ProgressBar(update_interval=1, out=(out := Encoded()), bar_length=70))
    run.run()
    drawn = set(out.getvalue())
    assert expected in drawn and not drawn & set("?" if expected == "█" else "█▌?")


# -- notebooks


def notebook(monkeypatch):
    """Makes it look like one; returns the bars that tqdm.auto was asked for."""
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=True)))
    bars = []

    class Bar:
        def __init__(self, **kwargs):
            self.kwargs, self.total, self.n, self.shown, self.closed = kwargs, kwargs["total"], 0, [], False
            bars.append(self)

        def update(self, n):
            self.n += n

        def reset(self, total):
            self.total = total

        def set_postfix_str(self, text):
            self.shown.append(f"{self.n}/{self.total} {text}")

        def close(self):
            self.closed = True

        def __enter__(self):
            return self

        def __exit__(self, *args):
            self.close()

    monkeypatch.setitem(sys.modules, "tqdm.auto", SimpleNamespace(tqdm=Bar))
    return bars


def test_in_a_notebook_the_bars_are_those_of_tqdm_auto(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(progress_bar, "SECONDS", 0.0)
    bars = notebook(monkeypatch)
    run = make_run(tmp_path)
    run.extend(extensions.ProgressBar(update_interval=1))
    longer = make_run(tmp_path, (5, "iteration")).stop_trigger
    run.extend(lambda t: setattr(t, "stop_trigger", longer), name="longer", trigger=(2, "epoch"))
    iterator = SerialIterator(make_data(10), 4, repeat=False, shuffle=False)
    run.extend(extensions.Evaluator(iterator, run.updater.get_model("main"), progress_bar=True), trigger=(2, "epoch"))
    run.run()
    whole, evaluation = bars
    shown = ["1/4 epoch 0.50", "2/4 epoch 1.00", "3/4 epoch 1.50", "4/4 epoch 2.00", "5/5 epoch 2.50"]
    assert whole.shown == shown and whole.closed
    assert (evaluation.kwargs["desc"], evaluation.n, evaluation.total, evaluation.closed) == (
        "validation",
        10,
        10,
        True,
    )
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_a_stream_of_one_s_own_is_written_to_in_a_notebook_too(tmp_path, monkeypatch):
    bars = notebook(monkeypatch)
    run = logging_run(tmp_path)
    run.extend(extensions.ProgressBar(update_interval=1, out=(out := Terminal())))
    run.extend(extensions.PrintReport("epoch", out=out))
    run.run()
    assert bars == [] and "this epoch" in out.getvalue() and "\033[J2  " in out.getvalue()


# -- the table


def printed(out, entries, change=lambda entry: None, **kwargs):
    run = make_run(out, **kwargs)
    run.extend(extensions.LogReport(postprocess=change))
    run.extend(extensions.PrintReport(*entries, out=(stream := io.StringIO())))
    run.run()
    return stream.getvalue().splitlines()


def test_one_key_is_one_column(tmp_path):
    assert [line.split() for line in printed(tmp_path, ["epoch"])] == [["epoch"], ["1"], ["2"]]


def test_without_entries_all_keys_are_columns_and_a_new_key_makes_a_new_head(tmp_path):
    def later(entry):
        if entry["epoch"] == 2:
            entry["extra"] = "yes"

    first, row, second, last = printed(tmp_path, [], later)
    assert first.split() == ["epoch", "iteration", "main/loss", "main/accuracy", "elapsed_time"]
    assert second.split() == ["epoch", "iteration", "main/loss", "main/accuracy", "extra", "elapsed_time"]
    assert row.split()[:2] == ["1", "2"] and last.split()[:2] == ["2", "4"] and last.split()[4] == "yes"
    assert len(row.split()) == 5 and len(last.split()) == 6


def test_in_a_notebook_the_table_of_all_keys_widens(tmp_path, monkeypatch):
    notebook(monkeypatch)
    shown = []
    handle = SimpleNamespace(update=shown.append)
    display = SimpleNamespace(HTML=str, display=lambda html, display_id: shown.append(html) or handle)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    run = make_run(tmp_path)
    run.extend(extensions.LogReport(postprocess=lambda e: e.update(extra=1) if e["epoch"] == 2 else None))
    run.extend(extensions.PrintReport())
    run.run()
    assert [html.count("<th>") for html in shown] == [5, 6] and shown[1].count("<td>") == 12
    assert "nan" not in shown[1].lower()


def test_a_cell_may_hold_anything(tmp_path):
    class Log(extensions.LogReport):
        def __call__(self, trainer):
            values = [None, True, [1, 2], {1: 2}, "text", 0.1234567, float("nan"), b"x"]
            self.log.append({str(number): value for number, value in enumerate(values)})

    run = make_run(tmp_path, (1, "iteration"))
    run.extend(Log(filename=None), name="LogReport")
    run.extend(extensions.PrintReport([*"012345678"], out=(out := io.StringIO())))
    with pytest.warns(UserWarning, match="no entry of the log has '8'"):
        run.run()
    row = out.getvalue().splitlines()[1]
    cells = [row[start : start + 12].rstrip() for start in range(0, 108, 12)]
    assert cells == ["", "True", "[1, 2]", "{1: 2}", "text", "0.123457", "nan", "b'x'", ""]


# -- messages


def resumed(tmp_path, stop):
    run = make_run(tmp_path, stop)
    run.extend(extensions.snapshot(filename="s", autoload=True), trigger=(3, "iteration"))
    return run


def test_a_resume_is_told_once_and_a_run_that_is_at_its_end_warned_of(tmp_path, caplog):
    caplog.set_level(logging.INFO, "kusari")
    resumed(tmp_path, (3, "iteration")).run()
    assert caplog.messages == []
    run = resumed(tmp_path, (5, "iteration"))
    with run.iteration():
        run.updater.update()
    run.finalize()  # left here, and gone on with
    run.run()
    assert caplog.messages == [f"resumed from {tmp_path / 's'} at iteration 3, epoch 1."] and run.updater.iteration == 5
    caplog.clear()
    again = resumed(tmp_path, (2, "iteration"))
    again.run()
    told = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert told[0] == ("INFO", f"resumed from {tmp_path / 's'} at iteration 3, epoch 1.")
    assert told[1:] == [
        (
            "WARNING",
            f"the run was resumed at its end (stop trigger {again.stop_trigger!r}): nothing is trained; give a later"
            " stop trigger to go on.",
        )
    ]


def test_logging_that_fails_with_stderr_does_not_hide_the_error(run, monkeypatch):
    stderr = io.StringIO()
    stderr.close()
    run.extend(lambda trainer: 1 / 0, name="culprit")
    handler = logging.StreamHandler(stderr)
    logging.getLogger("kusari").addHandler(handler)
    with monkeypatch.context() as patch:
        patch.setattr("sys.stderr", stderr)
        with pytest.raises(ZeroDivisionError):
            run.run()
    logging.getLogger("kusari").removeHandler(handler)


# -- real processes

SCRIPT = """
import logging, signal, sys
sys.path[:0] = [{tests!r}]
import torch
from helpers import make_data, make_run
import extensions
from extensions import progress_bar, terminal
from trainer import Classifier, StandardUpdater, Trainer
from trainer.iterators import MultiprocessIterator, SerialIterator
from trainer.triggers import EarlyStoppingTrigger

out, *asked = sys.argv[1:]
workers = 2 if "workers" in asked else 0
if "often" in asked:
    terminal.MINUTE = progress_bar.SECONDS = 0.0
if "file" in asked:
    logger = logging.getLogger("kusari")
    logger.setLevel(logging.INFO)
    logger.addHandler(logging.FileHandler(out + ".messages"))

if __name__ == "__main__":
    for stream in [sys.stdout] * ("close" in asked) + [sys.stderr] * ("both" in asked):
        stream.close()
    model = Classifier(torch.nn.Linear(2, 3))
    iterator = MultiprocessIterator(make_data(10), 5, n_processes=workers)
    updater = StandardUpdater(iterator, torch.optim.SGD(model.parameters(), 0.1), model=model)
    stop = EarlyStoppingTrigger(patience=99, verbose=True, max_trigger=(300, "epoch")) if "verbose" in asked else None
    run = Trainer(updater, stop or (300, "epoch"), out=out)
    valid = MultiprocessIterator(make_data(10), 5, repeat=False, shuffle=False, n_processes=workers)
    run.extend(extensions.Evaluator(valid, model, progress_bar=True), trigger=(100, "epoch"))
    run.extend(extensions.LogReport())
    run.extend(extensions.PrintReport())
    run.extend(extensions.ProgressBar(update_interval=1))
    run.extend(extensions.snapshot(filename="s", autoload=True), trigger=(150, "epoch"))
    run.extend(extensions.StopOnSignal())
    if "stop" in asked:
        run.extend(lambda t: t.updater.epoch == 150 and signal.raise_signal(signal.SIGTERM), "preempt", (150, "epoch"))
    if "fail" in asked:
        run.extend(lambda t: 1 / (t.updater.epoch - 200), "culprit")
    run.run()
    if "print" in asked:
        print("done", flush=True)
"""
LOST = "PrintReport's rows are lost; the log is in {}.\n"


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("script") / "script.py"
    path.write_text(SCRIPT.format(tests=str(Path(__file__).parent)))
    return path


def shell(script, out, asked="", redirect="", **environment):
    """Runs the script as a shell does; returns its exit code and what came to the terminal."""
    line = f'"{sys.executable}" "{script}" "{out}" {asked} {redirect}; exit ${{PIPESTATUS[0]}}'
    root = str(Path(extensions.__file__).parent.parent)
    env = os.environ | {"PYTHONPATH": root, "PYTHONUNBUFFERED": ""} | environment
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=env, timeout=300)
    return done.returncode, done.stdout, done.stderr


def entries(out):
    return len(json.loads((out / "log").read_text()))


def test_without_standard_output_a_run_goes_on_and_its_messages_go_to_the_user_s_logging(script, tmp_path):
    out, file = tmp_path / "out", tmp_path / "out.messages"
    code, told, err = shell(script, out, "file verbose fail", ">&-")
    assert (code, told, err.count("Traceback")) == (1, "", 1)
    assert err.endswith("\nZeroDivisionError: division by zero\n")
    messages = file.read_text().splitlines()
    assert messages.count("stdout is closed: " + LOST.format(out).rstrip()) == 1
    assert sum(line.startswith("early stopping: main/loss ") for line in messages) == len(messages) - 2 == 199
    assert messages[-1].startswith("Exception in main training loop: ZeroDivisionError: division by zero; finalizing")
    assert entries(out) == 200
    file.unlink()
    code, told, err = shell(script, out, "file", ">&-")
    assert (code, told, entries(out)) == (0, "", 300) and "resumed from" not in err and "stdout" not in err
    resumed, lost = file.read_text().splitlines()
    assert resumed == f"resumed from {out}/s at iteration 300, epoch 150." and lost.startswith("stdout is closed: ")


@pytest.mark.parametrize("unbuffered", ["", pytest.param("1", marks=pytest.mark.full)])
def test_a_reader_that_goes_away_does_not_end_the_run(script, tmp_path, unbuffered):
    code, told, err = shell(script, tmp_path / "out", "print", "| head -1", PYTHONUNBUFFERED=unbuffered)
    assert told.split()[:2] == ["epoch", "iteration"] and told.count("\n") == 1
    assert err == "stdout takes no more (Broken pipe): " + LOST.format(tmp_path / "out")
    assert code == 0 and entries(tmp_path / "out") == 300


def test_in_a_file_there_are_whole_lines_only(script, tmp_path):
    code, told, err = shell(script, tmp_path / "out", "often", f"> {tmp_path}/nohup.out 2>&1")
    text = (tmp_path / "nohup.out").read_bytes().decode()
    assert (code, told, err) == (0, "", "") and not set("\r\033") & set(text)
    assert "total: 100% 600/600 [" in text and "validation: 100% 10/10 [" in text
    assert all(re.match(r"(total|validation): |epoch  |\d+  ", line) for line in text.splitlines())


def in_a_pty(script, out, asked, last, **environment):
    """Runs the script on a terminal of its own, which goes when a text has come; returns its exit code and all."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("4H", 40, 100, 0, 0))  # rows and columns
    env = os.environ | {"PYTHONPATH": str(Path(extensions.__file__).parent.parent)} | environment
    command = [sys.executable, str(script), str(out), *asked]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env, start_new_session=True)
    os.close(theirs)
    seen = b""
    while last not in seen:
        try:
            seen += os.read(ours, 1 << 16)
        except OSError:  # it has ended
            break
    os.close(ours)
    return process.wait(60), seen.decode()


def test_a_terminal_without_the_blocks_has_bars_in_ascii(script, tmp_path):
    code, seen = in_a_pty(script, tmp_path / "out", ["often"], b"\0", PYTHONIOENCODING="ascii")
    assert (code, entries(tmp_path / "out")) == (0, 300) and "Traceback" not in seen and seen.isascii()
    assert "     total:  50%|####" in seen and "this epoch: " in seen and re.search(r"validation: +\d+%\|", seen)
    assert "?" not in seen.replace("<?, ?it", "").replace("?iter/s", "")


REDIRECTS = [">&-", "2>&-", ">&- 2>&-", ">&- 2>&- <&-", "| head -1", "2>&1 | head -1"]


@pytest.mark.full
@pytest.mark.parametrize("asked", ["workers", "workers stop"])
@pytest.mark.parametrize("redirect", REDIRECTS)
def test_neither_stream_is_needed(script, tmp_path, asked, redirect):
    epochs, code = (150, 75) if "stop" in asked else (300, 0)
    found, _, err = shell(script, tmp_path / "out", asked, redirect)
    assert (found, entries(tmp_path / "out")) == (code, epochs), err
    ours = ("stdout is closed: ", "stdout takes no more ", "Stopped by SIGTERM after iteration 300.")
    assert [line for line in err.splitlines() if not line.startswith(ours)] == []


@pytest.mark.full
@pytest.mark.parametrize("streams", ["close", "close both"])
def test_streams_that_the_script_has_closed_are_not_needed(script, tmp_path, streams):
    assert shell(script, tmp_path / "out", f"{streams} stop")[0] == 75 and entries(tmp_path / "out") == 150


@pytest.mark.full
def test_a_terminal_that_goes_away_does_not_end_the_run(script, tmp_path):
    code, seen = in_a_pty(script, tmp_path / "out", ["often"], b"\n5  ")
    assert (code, entries(tmp_path / "out")) == (0, 300)
