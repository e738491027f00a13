"""GeLoRA: ranks from how much the intrinsic dimension of the hidden states rises from block to block."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from rankopt.allocators.base import Allocator, Probe, State
from rankopt.allocators.shared.depth import depth_of
from rankopt.allocators.shared.start import smallest_max_rank, start_pattern
from rankopt.core.budget import Budget
from rankopt.importance.intrinsic import two_nn
from rankopt.lowrank.layers import Layers, shapes_of


class GeLoRA(Allocator):
    """Give the layers of a block ranks in proportion to the rise of the intrinsic dimension across the block.

        w_b = max(d_(b+1) - d_b, 0) + 1,   d_b = the TwoNN dimension of the hidden states that enter block b

    A block is what shares the first number in a layer's name; what enters it is what the first of its adapted layers
    reads. The last block, whose output no adapted layer reads, has w = 1, like layers outside the blocks.

    Args:
        batches: training batches looked at.
        tokens: tokens of them that count, at most.
    Example:
        >>> GeLoRA(tokens=500).batches
        8

    Source: Ed-dib et al. 2025 (2412.09250). From its abstract: TwoNN, and the intrinsic dimensions of a layer's input
    and output bound its rank from below. From memory and not verified: the bound is the rise, and one is added.
    Departures: ranks are scaled to the budget; tokens, and not examples, are the points; the last block.
    """

    batches: Annotated[int, Field(ge=1)] = 8
    tokens: Annotated[int, Field(ge=3)] = 1000

    def start(self, layers: Layers, budget: Budget, steps: int, seed: int) -> State:
        shapes = shapes_of(layers)
        start_pattern(layers, budget.uniform(shapes, smallest_max_rank(layers)), seed)
        return {"amount": budget.amount(shapes), "unit": budget.unit}

    def prepare(self, state: State, layers: Layers, probe: Probe) -> None:
        first: dict[int, str] = {}  # in the order in which the model runs its layers
        rows: dict[int, list[Tensor]] = {}
        for inputs in probe.inputs(self.batches):
            for name, X in inputs.items():
                depth = depth_of(name)
                if depth is not None and first.setdefault(depth, name) == name:
                    rows.setdefault(depth, []).append(X)
        dimensions = {depth: two_nn(torch.cat(parts)[: self.tokens]) for depth, parts in rows.items()}
        state["measured"] = {"intrinsic dimension": {first[depth]: value for depth, value in dimensions.items()}}
        weights = rises(dimensions)
        budget, shapes = Budget.of(state["amount"], state["unit"]), shapes_of(layers)
        by_layer = {name: weights.get(depth, 1.0) if (depth := depth_of(name)) is not None else 1.0 for name in layers}
        pattern = budget.share(by_layer, shapes, smallest_max_rank(layers))
        for name, layer in layers.items():
            layer.open(pattern[name])


def rises(dimensions: dict[int, float]) -> dict[int, float]:
    """The weight of every block, given the dimensions of what enters it.

    Example:
        >>> rises({0: 4.0, 1: 7.0, 2: 6.0})
        {0: 4.0, 1: 1.0, 2: 1.0}
    """
    blocks = sorted(dimensions)
    following = dict(pairwise(blocks))
    return {
        block: max(dimensions[following[block]] - dimensions[block], 0.0) + 1.0 if block in following else 1.0
        for block in blocks
    }
