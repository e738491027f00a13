"""How a trial runs the passes through its model: alone, unless joint training gives it another lane."""

from __future__ import annotations

import time

from rankopt.training.model import Adapted


class Lane:
    """The lane of a trial that trains alone: every pass is the model's own. `joint/lane.py` has the other kind."""

    def take(self, adapted: Adapted) -> None:
        """Take over the forward passes of a model that was just loaded."""

    def backward(self) -> None:
        """Finish the backward pass, after the loss's own backward pass has run."""

    def clock(self) -> float:
        """Seconds that count as this trial's."""
        return time.perf_counter()
