"""DoRA (dynamic rank distribution): drop the components with the smallest share of their layer's norm."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from rankopt.allocators.base import Allocator, State
from rankopt.allocators.shared.gates import generous_rank, settle, suppress
from rankopt.allocators.shared.phases import Steps, phases
from rankopt.core.budget import Budget, Mask
from rankopt.core.pattern import RankPattern
from rankopt.core.seeds import stream
from rankopt.lowrank.layers import Layers, shapes_of
from rankopt.lowrank.linear import LowRankLinear
from rankopt.lowrank.scale import ScalePolicy


class DoRADynamic(Allocator):
    """Suppress the gates of the components that contribute least to their own layer's update, slowly at first.

        score_i = ||B_i g_i A_i||_F / ||B diag(g) A||_F,   averaged over steps with decay `beta`
        b(t) = b0 - (b0 - bT) p^3,   p = progress from `warmup` to T - `final`
        loss + regularisation * mean over components (var A_i + var B_i)   until T - `final`

    The score is a share, so layers compete on how concentrated their updates are and not on their size. It is not the
    weight-decomposed adaptation of the same name (PEFT's `use_dora`).

    Args:
        initial: initial budget divided by final budget; the initial rank is rounded up, and capped at
            `model.max_rank`.
        warmup: steps before components are dropped.
        final: steps after the last are dropped.
        interval: steps between two selections.
        beta: decay of the score's average.
        regularisation: weight of the penalty.
    Example:
        >>> DoRADynamic(interval=10).beta
        0.9

    Source: Mao et al. 2024 (2405.17357) and the authors' code: gate zero, both factors Kaiming-uniform. Departures:
    exactly b(t) components survive, where the code also drops one before the first is due and all that are tied at the
    threshold; a budget in parameters ranks components by score per parameter.
    """

    scales: ClassVar[frozenset[ScalePolicy]] = frozenset({"init", "rs", "unit"})

    initial: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.5
    warmup: Steps = 0.15
    final: Steps = 0.5
    interval: Annotated[int, Field(ge=1)] = 1
    beta: Annotated[float, Field(ge=0, lt=1)] = 0.9
    regularisation: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.1

    def start(self, layers: Layers, budget: Budget, steps: int, seed: int) -> State:
        warmup, final = phases(self.warmup, self.final, steps)
        rank = generous_rank(layers, budget, self.initial)
        for name, layer in layers.items():
            init_both(layer, rank, name, seed)
            layer.open(rank)
        full = budget.spent(RankPattern(dict.fromkeys(layers, rank)), shapes_of(layers))
        return {
            "full": full, "end": min(budget.amount(shapes_of(layers)), full), "unit": budget.unit,
            "warmup": warmup, "last": steps - final, "step": 0, "ranks": dict.fromkeys(layers, rank),
            "score": {name: torch.zeros(rank) for name in layers},
        }  # fmt: skip

    def before_step(self, state: State, layers: Layers, step: int) -> None:
        state["step"] = step

    def penalty(self, state: State, layers: Layers) -> Tensor | None:
        active = [layer.active() for layer in layers.values() if layer.rank]
        if not active or not self.regularisation or state["step"] > state["last"]:
            return None
        variances = [part for A, B, _ in active for part in (A.var(dim=1), B.var(dim=0))]
        return self.regularisation * torch.cat(variances).mean()

    def after_step(self, state: State, layers: Layers, step: int) -> None:
        if step <= state["last"]:
            for name, layer in layers.items():
                state["score"][name].lerp_(shares(layer).cpu(), 1 - self.beta)
            due = (step - state["warmup"]) % self.interval == 0 or step == state["last"]
            if step > state["warmup"] and due:
                progress = (step - state["warmup"]) / (state["last"] - state["warmup"])
                amount = state["full"] - math.floor((state["full"] - state["end"]) * progress**3)
                self._drop(state, layers, self._select(state, layers, amount))
        else:  # the optimiser's momentum would move them
            self._drop(state, layers, self._select(state, layers, state["end"]))

    def allocated(self, state: State, layers: Layers) -> RankPattern:
        return RankPattern(state["ranks"])

    def finish(self, state: State, layers: Layers) -> tuple[RankPattern, ...]:
        return (settle(layers, self._select(state, layers, state["end"])),)

    def _select(self, state: State, layers: Layers, amount: int) -> Mask:
        scores = {name: score.tolist() for name, score in state["score"].items()}
        return Budget.of(amount, state["unit"]).select(scores, shapes_of(layers))

    def _drop(self, state: State, layers: Layers, keep: Mask) -> None:
        suppress(layers, keep)
        state["ranks"] = {name: sum(kept) for name, kept in keep.items()}


@torch.no_grad()
def init_both(layer: LowRankLinear, rank: int, name: str, seed: int) -> None:
    """Both factors Kaiming-uniform, `+-sqrt(6 / in)` and `+-sqrt(6 / rank)`, and the gate zero and trained."""
    generator = torch.Generator().manual_seed(stream(seed, "init", name))
    for factor, fan_in in ((layer.A, layer.shape.fan_in), (layer.B, max(rank, 1))):
        bound = math.sqrt(6 / fan_in)
        factor.copy_(torch.empty(factor.shape).uniform_(-bound, bound, generator=generator))
    layer.g.zero_()
    layer.g.requires_grad_(True)


@torch.no_grad()
def shares(layer: LowRankLinear) -> Tensor:
    """The norm of every open component over that of the layer's update, without forming either.

        ||B_i g_i A_i||_F = |g_i| ||B_i|| ||A_i||,   ||B diag(g) A||_F^2 = sum_ij (B^T B)_ij g_i g_j (A A^T)_ij

    Returns:
        `(initial rank,)`; zeros for a zero update.
    """
    r = layer.initial
    A, B, g = layer.A[:r], layer.B[:, :r], layer.g[:r]
    own = g.abs() * B.norm(dim=0) * A.norm(dim=1)
    whole = ((B.T @ B) * (A @ A.T) * torch.outer(g, g)).sum().clamp_min(0.0).sqrt()
    share: Tensor = own / (whole + 1e-8)
    return share
