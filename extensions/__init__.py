"""Plug-ins of the training loop, one file each."""

from extensions.evaluator import Evaluator
from extensions.log_report import LogReport
from extensions.observe import observe_lr, observe_value
from extensions.plot_report import PlotReport
from extensions.print_report import PrintReport
from extensions.progress_bar import ProgressBar
from extensions.snapshot import snapshot, snapshot_object

__all__ = [
    "Evaluator",
    "LogReport",
    "PlotReport",
    "PrintReport",
    "ProgressBar",
    "observe_lr",
    "observe_value",
    "snapshot",
    "snapshot_object",
]
