"""Files of a run: written whole or not at all, checksummed, safe to load; and what a part of a run saves in them."""

from trainer.saving.files import write
from trainer.saving.snapshots import SnapshotError, find, load, load_weights, save, save_weights
from trainer.saving.state import Stateful, check

__all__ = ["SnapshotError", "Stateful", "check", "find", "load", "load_weights", "save", "save_weights", "write"]
