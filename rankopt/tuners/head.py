"""Training the head alone."""

from __future__ import annotations

from rankopt.tuners.base import Attached, Host, Tuner
from rankopt.tuners.weights import train_weights


class Head(Tuner):
    """Trains the head alone, which every other tuner trains too: the point of zero parameters.

    A language model has no head, so it is scored as it is, without any step: the reference for what training adds.

    Example:
        >>> Head().model_dump()
        {}
    """

    def attach(self, host: Host) -> Attached:
        return train_weights(host, lambda name: False)
