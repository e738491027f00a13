"""How a layer's scale follows from alpha and its rank."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

ScalePolicy = Literal["init", "active", "rs", "unit"]


class Scale(NamedTuple):
    """How a layer's scale s follows from alpha, the rank it started with and the rank it has now.

    | policy | s | who published it |
    | --- | --- | --- |
    | init | alpha / initial rank | LoRA, AdaLoRA |
    | active | alpha / active rank | DyLoRA (the sampled rank), IncreLoRA |
    | rs | alpha / sqrt(initial rank) | rsLoRA |
    | unit | alpha | comparisons at one fixed s |
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
