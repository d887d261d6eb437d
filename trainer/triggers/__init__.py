"""When things happen: a trigger is a function from the trainer to a bool."""

from trainer.triggers.best_value import BestValueTrigger, MaxValueTrigger, MinValueTrigger
from trainer.triggers.early_stopping import EarlyStoppingTrigger
from trainer.triggers.interval import IntervalTrigger, ProgressTrigger, epoch_progress, get_trigger
from trainer.triggers.manual_schedule import ManualScheduleTrigger
from trainer.triggers.once import OnceTrigger
from trainer.triggers.time import TimeTrigger

__all__ = [
    "BestValueTrigger",
    "EarlyStoppingTrigger",
    "IntervalTrigger",
    "ManualScheduleTrigger",
    "MaxValueTrigger",
    "MinValueTrigger",
    "OnceTrigger",
    "ProgressTrigger",
    "TimeTrigger",
    "epoch_progress",
    "get_trigger",
]
