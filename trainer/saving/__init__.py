"""Files of a run: written whole or not at all, checksummed, safe to load; and what a part of a run saves in them."""

from trainer.saving.files import inside, remove_scraps, write
from trainer.saving.snapshots import (
    SnapshotError,
    SnapshotFile,
    branched,
    find,
    free_path,
    load,
    load_weights,
    read_tail,
    save,
    save_weights,
)
from trainer.saving.state import Stateful, check

__all__ = [
    "SnapshotError",
    "SnapshotFile",
    "Stateful",
    "branched",
    "check",
    "find",
    "free_path",
    "inside",
    "load",
    "load_weights",
    "read_tail",
    "remove_scraps",
    "save",
    "save_weights",
    "write",
]
