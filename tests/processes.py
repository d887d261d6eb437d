"""Real processes that start in milliseconds: forked from one that has imported everything, and has run nothing."""

import multiprocessing
import os
import sys
import traceback

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["torch", "torch._dynamo", "matplotlib.pyplot", "extensions", "trainer", "helpers"])


def start(function, *args, output=os.devnull):
    """Calls a function of a module in a new process that leads a group of its own; its exitcode is the function's.

    Returns a ``multiprocessing.Process``: ``join()``, ``exitcode`` (-9 when it was killed), ``pid``, which is also the
    number of the group. What it prints goes to the file ``output``.
    """
    process = _context.Process(target=_lead, args=(function, args, str(output)))
    process.start()
    return process


def call(function, *args, output=os.devnull):
    """Calls a function in a new process and waits; returns the exit code."""
    process = start(function, *args, output=output)
    process.join()
    return process.exitcode


def _lead(function, args, output):
    os.setpgid(0, 0)
    multiprocessing.set_start_method("fork", force=True)  # workers start at once; a second forkserver takes seconds
    target = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(target, 1)
    os.dup2(target, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    try:
        function(*args)
    except SystemExit:
        raise
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
