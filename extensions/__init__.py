"""Plug-ins of the training loop, one file each."""

from extensions.best_value import BestValue, MaxValue, MinValue
from extensions.dump_graph import DumpGraph, dump_graph
from extensions.evaluator import Evaluator
from extensions.exponential_moving_average import ExponentialMovingAverage
from extensions.fail_on_nonnumber import FailOnNonNumber
from extensions.log_report import LogReport
from extensions.lr_scheduler import LRScheduler
from extensions.micro_average import MicroAverage
from extensions.observe import observe_lr, observe_value
from extensions.parameter_statistics import ParameterStatistics
from extensions.plot_report import PlotReport
from extensions.print_report import PrintReport
from extensions.profile_report import ProfileReport
from extensions.progress_bar import ProgressBar
from extensions.shifts import (
    ExponentialShift,
    InverseShift,
    LinearShift,
    MultistepShift,
    PolynomialShift,
    StepShift,
    WarmupShift,
)
from extensions.snapshot import snapshot, snapshot_object
from extensions.stop_on_signal import StopOnSignal
from extensions.variable_statistics_plot import VariableStatisticsPlot

__all__ = [
    "BestValue",
    "DumpGraph",
    "Evaluator",
    "ExponentialMovingAverage",
    "ExponentialShift",
    "FailOnNonNumber",
    "InverseShift",
    "LRScheduler",
    "LinearShift",
    "LogReport",
    "MaxValue",
    "MicroAverage",
    "MinValue",
    "MultistepShift",
    "ParameterStatistics",
    "PlotReport",
    "PolynomialShift",
    "PrintReport",
    "ProfileReport",
    "ProgressBar",
    "StepShift",
    "StopOnSignal",
    "VariableStatisticsPlot",
    "WarmupShift",
    "dump_graph",
    "observe_lr",
    "observe_value",
    "snapshot",
    "snapshot_object",
]
