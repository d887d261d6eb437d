"""Tells where the time of an iteration goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from trainer import Extension, Trainer, saving
from trainer.checks import warn
from trainer.saving.files import refuse_other

PARTS = {  # of an update: what StandardUpdater is made of, in its words
    "fetch": "data",
    "converter": "convert",
    "compute_loss": "forward",
    "backward": "backward",
    "step": "step",
}


class ProfileReport(Extension):
    """Measures some iterations under ``torch.profiler`` and writes a table of their parts.

    The parts are ``data`` (waiting for the next batch), ``convert``, ``forward``, ``backward``, ``step``, each
    extension by its name, and ``other`` (triggers, the loop itself, what a custom ``update_core`` does by itself).
    Time spent in one part on behalf of another counts once, so the parts add up to the wall time. Below them stand
    the operators that took most. On a GPU the parts are the time that Python spends on them: the operators' table
    has the device's. The profiler itself slows small operators down; the rest of the run is not touched.

    Args:
        skip: Iterations before it starts, at least 1: the first one starts workers and fills caches.
        iterations: How many are measured.
        filename: Of the table, in the trainer's ``out``.
        trace: Name of a file for ``chrome://tracing`` or Perfetto, if one is wanted.

    Attributes:
        parts: Seconds an iteration by part, when it has been measured.
        wall_time: Seconds an iteration.

    Raises:
        ValueError: If a number is not positive.

    Example:
        >>> from extensions import ProfileReport
        >>> run.extend(ProfileReport(skip=1, iterations=2))
        >>> run.run()
        >>> report = run.get_extension("ProfileReport")
        >>> list(report.parts)
        ['data', 'convert', 'forward', 'backward', 'step', 'ProfileReport', 'other']
        >>> (tmp / "profile.txt").read_text().split()[:3]
        ['part', 'ms/iteration', 'share']
    """

    priority = -1000  # after the other extensions: an iteration is measured from here to here

    def __init__(
        self, skip: int = 10, iterations: int = 20, filename: str = "profile.txt", trace: str | None = None
    ) -> None:
        for name, number in (("skip", skip), ("iterations", iterations)):
            if number < 1:
                raise ValueError(f"{name} must be 1 or more, got {number}.")
        self.parts: dict[str, float] = {}
        self.wall_time = 0.0
        self._skip = skip
        self._iterations = iterations
        self._filename = filename
        self._trace = trace
        self._count = 0  # calls
        self._profiler: Any = None
        self._trainer: Trainer | None = None
        self._wrapped: dict[str, Any] = {}  # what the updater had in place of the wrappers
        self._inner = [0.0]  # for each part that is open, the time of the parts within

    def initialize(self, trainer: Trainer) -> None:
        """Makes ready to measure."""
        for name in filter(None, (self._filename, self._trace)):
            trainer.path(name)
        self._count, self._trainer = 0, trainer

    def __call__(self, trainer: Trainer) -> None:
        """Starts or ends the measurement, if it is time."""
        self._count += 1
        if self._count == self._skip:
            self._start(trainer)
        elif self._count == self._skip + self._iterations:
            self._stop(trainer)

    def _start(self, trainer: Trainer) -> None:
        updater = trainer.updater
        for name, part in PARTS.items():
            function = getattr(updater, name, None)
            if hasattr(function, "is_timed"):
                raise RuntimeError("two ProfileReports measure at the same time: give one of them a greater skip.")
            if callable(function):
                self._wrapped[name] = vars(updater).get(name)  # None: it is the class's
                setattr(updater, name, self._timed(part, function))
        trainer.wrap_calls(self._timed)
        self.parts = dict.fromkeys(PARTS.values(), 0.0)
        self._inner = [0.0]
        activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * torch.cuda.is_available()
        self._profiler = profile(activities=activities)
        self._profiler.start()
        self._start_time = time.perf_counter()

    def _timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            self._inner.append(0.0)
            try:
                with record_function(part):
                    return function(*args, **kwargs)
            finally:
                if self._profiler is not None:  # it has not been stopped inside
                    duration = time.perf_counter() - start
                    self.parts[part] = self.parts.get(part, 0.0) + duration - self._inner.pop()
                    self._inner[-1] += duration

        timed.is_timed = True  # type: ignore[attr-defined]
        return timed

    def _stop(self, trainer: Trainer) -> None:
        wall_time, count = time.perf_counter() - self._start_time, self._count - self._skip
        profiler = self._unwrap(trainer)
        if count > 0:
            self._write(trainer, profiler, wall_time, count)

    def _unwrap(self, trainer: Trainer) -> Any:
        """Leaves everything as it was; returns the profiler, stopped."""
        profiler, self._profiler = self._profiler, None
        profiler.stop()
        for name, original in self._wrapped.items():
            if original is None:
                delattr(trainer.updater, name)
            else:
                setattr(trainer.updater, name, original)
        self._wrapped = {}
        trainer.wrap_calls(None)
        return profiler

    def _write(self, trainer: Trainer, profiler: Any, wall_time: float, count: int) -> None:
        self.wall_time = wall_time / count
        self.parts = {part: seconds / count for part, seconds in self.parts.items()}
        self.parts["other"] = max(self.wall_time - sum(self.parts.values()), 0.0)
        key = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        operators = profiler.key_averages().table(sort_by=key, row_limit=20, max_name_column_width=40)
        text = f"{self._table(count)}\n{operators}\n"
        saving.write(trainer.path(self._filename), lambda file: file.write(text.encode()))
        if self._trace is not None:
            path = trainer.path(self._trace)
            refuse_other(path, links=False)
            profiler.export_chrome_trace(str(path))

    def _table(self, count: int) -> str:
        rows = [*self.parts.items(), (f"wall time, mean of {count} iterations", self.wall_time)]
        width = max(len(name) for name, _ in rows)
        lines = [f"{name:<{width}}  {1000 * s:12.3f}  {s / self.wall_time:6.1%}" for name, s in rows]
        return "\n".join([f"{'part':<{width}}  {'ms/iteration':>12}  {'share':>6}", *lines, ""])

    def finalize(self) -> None:
        """Ends a measurement that is under way; warns if there was none."""
        if self._profiler is not None and self._trainer is not None:
            self._stop(self._trainer)
        if 0 < self._count <= self._skip:
            warn(f"the run ended before iteration {self._skip + 1}: give a smaller skip.")
        self._trainer = None
