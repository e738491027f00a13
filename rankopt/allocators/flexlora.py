"""FlexLoRA: move components from layers whose spectrum is concentrated to layers whose spectrum is even."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from rankopt.allocators.base import Allocator, State
from rankopt.allocators.shared.exchange import exchange, exchanges, room_beside, start_exchange
from rankopt.allocators.shared.gates import settle
from rankopt.allocators.shared.phases import Steps
from rankopt.allocators.shared.triplets import orthogonality_penalty
from rankopt.core.budget import Budget
from rankopt.core.pattern import RankPattern
from rankopt.importance.double import double
from rankopt.lowrank.layers import Layers
from rankopt.lowrank.scale import ScalePolicy


class FlexLoRA(Allocator):
    """Every `interval` steps, layers of the lowest spectral entropy lose a component, layers of the highest gain one.

        H_k = - sum_i p_i log p_i / log r_k,   p_i = g_i^2 / sum_j g_j^2
        layers that lose, and layers that gain:   b(t) = round(most (1 - p^3)),   p = progress from warm-up to T - final
        loss + orthogonality * mean over factors (||A A^T - I||_F, ||B^T B - I||_F)

    A layer loses its smallest |g| and keeps at least one component. A new component has gate zero.

    Args:
        warmup: steps before components move.
        final: steps after the last move.
        interval: steps between two moves.
        most: components moved at first, b(0).
        orthogonality: weight of the penalty.
    Example:
        >>> FlexLoRA(most=2).interval
        0.02

    Source: Liu et al. 2026 (2601.22905) and the authors' code. Departures: the code drops the smallest signed gate, and
    rebuilds the optimiser at every move, while here only new components start with new moments; it draws new factors
    from N(0, 1), here they are drawn from N(0, 0.02) like all others, because one step of the gate would otherwise move
    the layer by `lr sqrt(in out)`; a layer grows up to `model.max_rank` only; under a budget in parameters, the freed
    parameters are what may be spent. A layer with one component, or with all gates zero, has H = 1 (the paper: 0 / 0).
    """

    scales: ClassVar[frozenset[ScalePolicy]] = frozenset({"init", "rs", "unit"})

    warmup: Steps = 0.1
    final: Steps = 0.2
    interval: Annotated[Steps, Field(gt=0)] = 0.02
    most: Annotated[int, Field(ge=1)] = 4
    orthogonality: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.1

    def start(self, layers: Layers, budget: Budget, steps: int, seed: int) -> State:
        return start_exchange(layers, budget, steps, seed, self.warmup, self.final, self.interval)

    def penalty(self, state: State, layers: Layers) -> Tensor | None:
        total = orthogonality_penalty(layers) if self.orthogonality else None
        return None if total is None else self.orthogonality * total

    @torch.no_grad()
    def after_step(self, state: State, layers: Layers, step: int) -> None:
        if count := exchanges(state, step, self.most):
            H = {name: spectral_entropy(layer.active()[2]) for name, layer in layers.items()}
            lowest = sorted((name for name in layers if layers[name].rank > 1), key=lambda name: (H[name], name))
            losing = lowest[: min(count, len(layers) // 2)]
            losing = losing[: room_beside(layers, losing)]
            gaining = sorted((name for name in layers if name not in losing), key=lambda name: (-H[name], name))
            if losing:
                dropped = [(name, _smallest(layers[name].g, layers[name].m)) for name in losing]
                exchange(state, layers, dropped, gaining, step, _draw, lambda layer: 0.0)

    def finish(self, state: State, layers: Layers) -> tuple[RankPattern, ...]:
        return (settle(layers, {name: layer.m.tolist() for name, layer in layers.items()}),)


def spectral_entropy(gates: Tensor) -> float:
    """The entropy of the squared gates over its maximum, in [0, 1]; 1 for fewer than two, or when all are zero.

    Example:
        >>> spectral_entropy(torch.tensor([1.0, -1.0])), spectral_entropy(torch.tensor([1.0, 0.0]))
        (1.0, 0.0)
    """
    energies = double(gates.detach()).square()
    total = float(energies.sum())
    if len(energies) < 2 or total == 0:
        return 1.0
    return float(torch.special.entr(energies / total).sum()) / math.log(len(energies))


def _smallest(g: Tensor, m: Tensor) -> int:
    return int(torch.where(m, g.abs(), torch.inf).argmin())


def _draw(rows: Tensor, generator: torch.Generator) -> Tensor:
    return torch.empty(rows.shape[1]).normal_(0.0, 0.02, generator=generator)
