"""ElaLoRA: move components from layers with weak ones to layers whose weakest ones are strong."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from rankopt.allocators.base import Allocator, State
from rankopt.allocators.shared.exchange import exchange, exchanges, room_beside, start_exchange
from rankopt.allocators.shared.gates import settle
from rankopt.allocators.shared.phases import Steps
from rankopt.allocators.shared.start import smallest_max_rank
from rankopt.allocators.shared.triplets import (
    Decay,
    forget_sensitivity,
    orthogonality_penalty,
    sensitivity,
    update_sensitivity,
    zero_sensitivity,
)
from rankopt.core.budget import Budget
from rankopt.core.pattern import RankPattern
from rankopt.lowrank.layers import Layers
from rankopt.lowrank.linear import LowRankLinear
from rankopt.lowrank.scale import ScalePolicy


class ElaLoRA(Allocator):
    """Move components from layers with low-scoring ones to layers with high-scoring ones, every `interval` steps.

        pool = the `candidates` components of the lowest S in each layer, never a layer's last one (S as in `adalora`)
        the b(t) lowest of the pool are dropped;   the layers that hold its b(t) highest gain one component for each
        b(t) = round(most (1 - p^3)),   p = progress from warm-up to T - final
        loss + orthogonality * mean over factors (||A A^T - I||_F, ||B^T B - I||_F)

    A new component: a = v - A^T A v, normalised, for a random v, likewise b; gate min(min |g|, 1e-13).

    Args:
        warmup: steps before components move.
        final: steps after the last move.
        interval: steps between two moves.
        most: components moved at first, b(0).
        candidates: components of a layer that compete in the pool, k.
        beta1: decay of the sensitivity's mean.
        beta2: decay of its variation.
        orthogonality: weight of the penalty.
    Example:
        >>> ElaLoRA(most=2).candidates
        2

    Source: Chang et al. 2025 (2504.00254) and the authors' code. Departures: the code loses the moments of every layer
    that changes, here only new components start with new moments; a layer grows up to `model.max_rank` only; under a
    budget in parameters, the freed parameters are what may be spent.
    """

    scales: ClassVar[frozenset[ScalePolicy]] = frozenset({"init", "rs", "unit"})

    warmup: Steps = 0.1
    final: Steps = 0.2
    interval: Annotated[Steps, Field(gt=0)] = 0.02
    most: Annotated[int, Field(ge=1)] = 4
    candidates: Annotated[int, Field(ge=1)] = 2
    beta1: Decay = 0.85
    beta2: Decay = 0.85
    orthogonality: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.1

    def start(self, layers: Layers, budget: Budget, steps: int, seed: int) -> State:
        state = start_exchange(layers, budget, steps, seed, self.warmup, self.final, self.interval)
        return state | zero_sensitivity(layers, smallest_max_rank(layers))

    def penalty(self, state: State, layers: Layers) -> Tensor | None:
        total = orthogonality_penalty(layers) if self.orthogonality else None
        return None if total is None else self.orthogonality * total

    @torch.no_grad()
    def after_step(self, state: State, layers: Layers, step: int) -> None:
        if step >= state["last"]:
            return
        update_sensitivity(state, layers, self.beta1, self.beta2)
        if not (count := exchanges(state, step, self.most)):
            return
        losing, gaining = choose(sensitivity(state, layers), layers, count, self.candidates)
        if losing:
            for name, index in exchange(state, layers, losing, gaining, step, orthogonal_to, _gate):
                forget_sensitivity(state, layers, name, index)

    def finish(self, state: State, layers: Layers) -> tuple[RankPattern, ...]:
        return (settle(layers, {name: layer.m.tolist() for name, layer in layers.items()}),)


def choose(
    scores: dict[str, list[float]], layers: Layers, count: int, candidates: int
) -> tuple[list[tuple[str, int]], list[str]]:
    """The components to drop, and the layers to grow, first the most deserving.

    Args:
        scores: of every component, masked ones included.
        count: components to move; fewer where the pool is smaller than twice that, or no layer has room.
        candidates: components of a layer that compete.
    """
    pool = []
    for name, layer in layers.items():
        own = sorted((scores[name][index], name, index) for index in layer.m.nonzero().flatten().tolist())
        pool += own[: max(0, min(candidates, layer.rank - 1))]
    pool.sort()
    losing = [(name, index) for _, name, index in pool[: min(count, len(pool) // 2)]]
    losing = losing[: room_beside(layers, [name for name, _ in losing])]
    return losing, [name for _, name, _ in reversed(pool)]


def orthogonal_to(rows: Tensor, generator: torch.Generator) -> Tensor:
    """A random unit vector less its components along `rows`, `(r, n)`; exactly orthogonal if they are orthonormal."""
    v = torch.empty(rows.shape[1]).normal_(generator=generator)
    v -= rows.T @ (rows @ v)
    v /= v.norm() + 1e-6
    return v


def _gate(layer: LowRankLinear) -> float:
    gates = layer.active()[2].abs()
    return min(float(gates.min()), 1e-13) if len(gates) else 1e-13
