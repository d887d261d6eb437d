"""From one batch to one update of the parameters."""

from trainer.updaters.standard import StandardUpdater

__all__ = ["StandardUpdater"]
