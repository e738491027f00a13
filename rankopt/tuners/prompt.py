"""Prompt tuning: trained embeddings in front of the input."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from rankopt.tuners.base import Attached, Host, Tuner
from rankopt.tuners.peft_model import attach_peft


class Prompt(Tuner):
    """Trained embeddings before the first token, by PEFT's PromptTuningConfig.

    Args:
        tokens: number of trained embeddings; with the input they must fit into the model's positions.
    Example:
        >>> Prompt(tokens=8).tokens
        8

    Source: Lester et al. 2021 (2104.08691).
    """

    partner: ClassVar[bool] = True
    wraps: ClassVar[bool] = True

    tokens: Annotated[int, Field(ge=1, le=10**5)] = 20

    def positions(self) -> int:
        return self.tokens

    def attach(self, host: Host) -> Attached:
        from peft import PromptTuningConfig  # slow to import

        return attach_peft(host, PromptTuningConfig(task_type=host.task_type, num_virtual_tokens=self.tokens))
