"""BitFit: only biases are trained."""

from __future__ import annotations

from rankopt.tuners.base import Attached, Host, Tuner
from rankopt.tuners.weights import train_weights


class BitFit(Tuner):
    """Trains every bias of the model, those of normalisations included.

    Example:
        >>> BitFit().model_dump()
        {}

    Source: Ben Zaken et al. 2022 (2106.10199).
    """

    def attach(self, host: Host) -> Attached:
        attached = train_weights(host, lambda name: name.endswith(".bias"))
        if not attached.parameters:
            raise ValueError("tuner.name must not be 'bitfit' for a model without biases; choose another tuner")
        return attached
