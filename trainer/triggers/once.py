"""The first time only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trainer.saving.state import Stateful

if TYPE_CHECKING:
    from trainer.trainer import Trainer


class OnceTrigger(Stateful):
    """Fires when it is asked for the first time. Chainer: ``OnceTrigger``.

    Args:
        call_on_resume: Whether it fires at the first question after a resume as well.

    Attributes:
        finished: Whether it will not fire any more.

    Example:
        >>> from trainer.triggers import OnceTrigger
        >>> trigger = OnceTrigger()
        >>> [trigger(run), trigger(run), trigger.finished]
        [True, False, True]
    """

    saved = ("finished",)

    def __init__(self, call_on_resume: bool = False) -> None:
        self._call_on_resume = call_on_resume
        self.finished = False

    def __call__(self, trainer: Trainer) -> bool:
        """Tells whether this is the first call."""
        was_finished, self.finished = self.finished, True
        return not was_finished

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back whether it has fired; with ``call_on_resume`` it will fire once more."""
        super().load_state_dict(state)
        self.finished = self.finished and not self._call_on_resume
