"""The scale of a layer, from alpha and its rank."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

ScalePolicy = Literal["init", "active", "rs", "unit"]


class Scale(NamedTuple):
    """The rule for a layer's scale s, from alpha, its initial rank and its active rank.

    | policy | s | used by |
    | --- | --- | --- |
    | init | alpha / initial rank | LoRA, AdaLoRA |
    | active | alpha / active rank | DyLoRA (the sampled rank), IncreLoRA |
    | rs | alpha / sqrt(initial rank) | rsLoRA |
    | unit | alpha | comparisons at a fixed s |
    """

    policy: ScalePolicy
    alpha: float

    def value(self, initial: int, active: int) -> float:
        match self.policy:
            case "init":
                return self.alpha / max(initial, 1)
            case "active":
                return self.alpha / max(active, 1)
            case "rs":
                return self.alpha / math.sqrt(max(initial, 1))
            case "unit":
                return self.alpha
