"""PRILoRA: ranks that grow with depth, and rows of A that are pruned again and again."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from rankopt.allocators.base import Allocator, State
from rankopt.allocators.shared.depth import depth_weights
from rankopt.allocators.shared.start import smallest_max_rank, start_pattern
from rankopt.core.budget import Budget
from rankopt.lowrank.layers import Layers, shapes_of
from rankopt.lowrank.statistics import InputSquares


class PRILoRA(Allocator):
    """Ranks linear in depth, as in `ramp`; every `interval` steps, zero the least important entries of every row of A.

        importance_ij = |A_ij| n_j;   n_j <- beta n_j + (1 - beta) sqrt(mean x_j^2),   x the layer's inputs in a step

    Zeroed entries keep training, so they may come back before the next time. Nothing is pruned at the last step.

    Args:
        ratio: largest rank divided by smallest rank.
        interval: steps between two prunings.
        share: share of a row that is zeroed.
        beta: decay of the input norms.
    Example:
        >>> PRILoRA(interval=20).share
        0.5

    Source: Benedek and Wolf 2024 (2401.11316): ranks that rise linearly with depth, and an importance of magnitude
    times accumulated input norms. From memory and not verified: 4 to 12 ranks, 40 steps. Departures: means over a
    step's tokens, padding included, in place of norms; `beta` and `share` are ours, because no code was released.
    """

    ratio: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 3.0
    interval: Annotated[int, Field(ge=1)] = 40
    share: Annotated[float, Field(ge=0, lt=1)] = 0.5
    beta: Annotated[float, Field(ge=0, lt=1)] = 0.9

    def start(self, layers: Layers, budget: Budget, steps: int, seed: int) -> State:
        weights = depth_weights(list(layers), self.ratio)
        start_pattern(layers, budget.share(weights, shapes_of(layers), smallest_max_rank(layers)), seed)
        for layer in layers.values():
            InputSquares().watch(layer)
        return {"steps": steps, "norms": {name: torch.zeros(layer.shape.fan_in) for name, layer in layers.items()}}

    @torch.no_grad()
    def after_step(self, state: State, layers: Layers, step: int) -> None:
        for name, layer in layers.items():
            mean = layer.statistics.take()
            if mean is not None:
                state["norms"][name].lerp_(mean.sqrt().cpu(), 1 - self.beta)
            if step % self.interval == 0 and step < state["steps"]:
                prune(layer.A[: layer.rank], state["norms"][name].to(layer.A.device), self.share)


def prune(A: Tensor, norms: Tensor, share: float) -> None:
    """Zero, in place, the entries of each row with the smallest `|A_ij| n_j`.

    Args:
        A: `(r, in)`.
        norms: `(in,)`.
        share: of the entries, rounded down.
    Example:
        >>> A = torch.tensor([[1.0, -2.0, 3.0, 4.0]])
        >>> prune(A, torch.tensor([9.0, 1.0, 1.0, 1.0]), 0.5)
        >>> A.tolist()
        [[1.0, 0.0, 0.0, 4.0]]
    """
    count = int(share * A.shape[1])
    A.scatter_(1, (A.abs() * norms).argsort(dim=1, stable=True)[:, :count], 0.0)
