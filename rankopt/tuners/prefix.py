"""Prefix tuning: trained keys and values in front of every attention."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from rankopt.tuners.base import Attached, Host, Tuner
from rankopt.tuners.peft_model import attach_peft


class Prefix(Tuner):
    """Trained keys and values in every attention, by PEFT's PrefixTuningConfig without projection.

    Args:
        tokens: number of trained keys and values of each layer.
    Example:
        >>> Prefix(tokens=8).tokens
        8

    Source: Li and Liang 2021 (2101.00190). Departure: no network computes the prefix during training.
    """

    partner: ClassVar[bool] = True
    wraps: ClassVar[bool] = True

    tokens: Annotated[int, Field(ge=1, le=10**5)] = 20

    def positions(self) -> int:
        return self.tokens

    def attach(self, host: Host) -> Attached:
        from peft import PrefixTuningConfig  # slow to import

        return attach_peft(host, PrefixTuningConfig(task_type=host.task_type, num_virtual_tokens=self.tokens))
