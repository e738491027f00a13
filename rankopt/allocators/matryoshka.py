"""MatryoshkaLoRA: every prefix of the components is trained at every step, by a fixed gate."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field

from rankopt.allocators.base import Allocator, State
from rankopt.allocators.shared.start import init_lora, smallest_max_rank
from rankopt.core.budget import Budget
from rankopt.core.pattern import RankPattern
from rankopt.lowrank.layers import Layers, shapes_of
from rankopt.lowrank.linear import LowRankLinear
from rankopt.lowrank.scale import ScalePolicy


class Matryoshka(Allocator):
    """Train the sum of the updates of several prefixes; afterwards each prefix is a model.

        training    dW = sum over r in ranks and R of s_r B[:, :r] A[:r] = B diag(P) A,   P_i = sum over r >= i of s_r
        evaluation  dW = s_r B[:, :r] A[:r]

    R is the uniform rank that the budget pays for, and s_r the scale that the policy gives a prefix of rank r. P is the
    gate, which is not trained, so a step costs one forward pass and draws nothing.

    Args:
        ranks: the prefixes that are trained besides R; the powers of two below R by default.
    Example:
        >>> Matryoshka(ranks=(2, 4)).ranks
        (2, 4)

    Source: Modoranu et al. 2026 (2605.07850), algorithm 1 and the authors' code, which sums the prefixes (its
    mask-based variant takes their mean).
    """

    scale: ClassVar[ScalePolicy] = "active"

    ranks: tuple[Annotated[int, Field(ge=1)], ...] | None = None

    def start(self, layers: Layers, budget: Budget, steps: int, seed: int) -> State:
        pattern = budget.uniform(shapes_of(layers), smallest_max_rank(layers))
        top = max(pattern.values(), default=0)
        if top and self.ranks and max(self.ranks) > top:
            raise ValueError(
                f"allocator.ranks must be at most the budget's uniform rank {top}, got {max(self.ranks)}; "
                "leave it out, or raise the budget"
            )
        prefixes = sorted(self.ranks or [2**k for k in range(top.bit_length())])
        for name, layer in layers.items():
            init_lora(layer, name, seed)
            layer.open(pattern[name])
            layer.g.copy_(nested_gate(layer, [rank for rank in prefixes if rank < layer.rank]))
        return {"ranks": dict(pattern), "prefixes": prefixes}

    def finish(self, state: State, layers: Layers) -> tuple[RankPattern, ...]:
        own = RankPattern(state["ranks"])
        with torch.no_grad():
            for layer in layers.values():
                layer.g.fill_(1.0)
        top = max(own.values(), default=0)
        smaller = [rank for rank in reversed(state["prefixes"]) if rank < top]
        return (own, *(RankPattern({name: min(rank, cut) for name, rank in own.items()}) for cut in smaller))


@torch.no_grad()
def nested_gate(layer: LowRankLinear, prefixes: list[int]) -> torch.Tensor:
    """The gate under which a layer computes the sum of its prefixes' updates, each at its own scale.

        g_i = sum over r >= i of s_r / s_R

    Args:
        layer: at its full rank R.
        prefixes: ranks below R.
    Returns:
        `(max_rank,)`, 1 beyond R.
    """
    gate = torch.ones(layer.max_rank, device=layer.g.device)
    for rank in prefixes:
        gate[:rank] += layer.scale.value(layer.initial, rank) / layer.s
    return gate
