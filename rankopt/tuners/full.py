"""Full fine-tuning."""

from __future__ import annotations

from rankopt.tuners.base import Attached, Host, Tuner
from rankopt.tuners.weights import train_weights


class Full(Tuner):
    """Trains every weight of the model. What is stored is another model; reports draw its score as a line.

    Example:
        >>> Full().model_dump()
        {}
    """

    def attach(self, host: Host) -> Attached:
        return train_weights(host, lambda name: True)
