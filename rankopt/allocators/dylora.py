"""DyLoRA: one training that orders components, so that the model can be cut to any rank afterwards."""

from __future__ import annotations

from random import Random
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from rankopt.allocators.base import Allocator, State
from rankopt.allocators.shared.start import init_lora, smallest_max_rank
from rankopt.core.budget import Budget
from rankopt.core.pattern import RankPattern
from rankopt.core.seeds import stream
from rankopt.lowrank.layers import Layers, shapes_of
from rankopt.lowrank.scale import ScalePolicy


class DyLoRA(Allocator):
    """Every step trains a random prefix of the components, so every prefix is a usable model.

        b ~ U{r_min, ..., R};   y = W x + (alpha / b) B[:, :b] A[:b, :] x

    R is the largest uniform rank within the budget. The draw is a function of (seed, step): all micro-batches of an
    optimiser step share it.

    Args:
        frozen: only component b receives a gradient, and those below it are detached, as in the authors' default; the
            smallest prefix, r_min, trains whole. False trains every prefix whole.
        draw: "network" draws one rank for all layers, as published; "layer" draws one for each layer.
        r_min: smallest rank drawn.
    Example:
        >>> DyLoRA(draw="layer").frozen
        True

    Source: Valipour et al. 2023 (2210.07558) algorithm 1 and the authors' code.
    """

    scale: ClassVar[ScalePolicy] = "active"

    frozen: bool = True
    draw: Literal["network", "layer"] = "network"
    r_min: Annotated[int, Field(ge=1)] = 1

    def start(self, layers: Layers, budget: Budget, steps: int, seed: int) -> State:
        pattern = budget.uniform(shapes_of(layers), smallest_max_rank(layers))
        top = max(pattern.values(), default=0)
        if 0 < top < self.r_min:
            raise ValueError(f"allocator.r_min must be at most the budget's uniform rank {top}, got {self.r_min}")
        for name, layer in layers.items():
            init_lora(layer, name, seed)
            layer.open(pattern[name])
        return {"ranks": dict(pattern), "top": top, "seed": seed}

    def before_step(self, state: State, layers: Layers, step: int) -> None:
        if state["top"] == 0:
            return
        for name, layer in layers.items():
            who = name if self.draw == "layer" else "network"
            b = Random(stream(state["seed"], "draw", who, step)).randint(self.r_min, state["top"])
            layer.keep(min(b, state["ranks"][name]))
            layer.frozen = layer.rank - 1 if self.frozen and layer.rank > self.r_min else 0

    def finish(self, state: State, layers: Layers) -> tuple[RankPattern, ...]:
        own = RankPattern(state["ranks"])
        for name, layer in layers.items():
            layer.frozen = 0
            layer.keep(own[name])
        smaller = [2**k for k in range(state["top"].bit_length()) if self.r_min <= 2**k < state["top"]]
        return (own, *(RankPattern({name: min(rank, b) for name, rank in own.items()}) for b in reversed(smaller)))
