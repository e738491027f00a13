"""SalientLoRA: drop the components whose gates are small and drive no other gates, window by window."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from rankopt.allocators.base import Allocator, State
from rankopt.allocators.shared.gates import generous_rank, settle
from rankopt.allocators.shared.phases import Steps, phases, steps_of
from rankopt.allocators.shared.start import init_triplets
from rankopt.allocators.shared.triplets import orthogonality_penalty
from rankopt.core.budget import Budget
from rankopt.core.pattern import RankPattern
from rankopt.importance.salience import influence, magnitude
from rankopt.lowrank.layers import Layers, pattern_of, shapes_of
from rankopt.lowrank.scale import ScalePolicy


class SalientLoRA(Allocator):
    """Record all gates over a window of steps, then drop the least salient components for good.

        salience_i = mixing * magnitude_i + (1 - mixing) * influence_i   (`importance/salience.py`)
        window length  n(t) = n_1 + (n_0 - n_1) (1 - p)^3,   p = progress from `warmup` to T - `final`
        budget after a window of length n  =  b_0 - (b_0 - b_T) n / n_1
        loss + orthogonality * mean over factors (||A A^T - I||_F, ||B^T B - I||_F)

    The last window ends at T - `final`, with the budget b_T.

    Args:
        initial: budget at the start over the budget at the end; the initial rank is rounded up, and capped at
            `model.max_rank`.
        warmup: steps before the first window.
        final: steps after the last.
        first_window: steps of the first window, n_0; at least two.
        last_window: steps of the longest window, n_1.
        mixing: share of the magnitude.
        correlation: smallest correlation of two gates of which one drives the other.
        slope: smallest slope of that dependence, above 1.
        orthogonality: weight of the penalty.
    Example:
        >>> SalientLoRA(mixing=0.5).slope
        2.0

    Source: Ke et al. 2024 (NeurIPS), "Unveiling LoRA intrinsic ranks via salience analysis", and the authors' code: a
    correlation of 0.9 and a slope of 2, windows of 10 to 200 steps, initial over final rank 7.5. Departures: windows
    are fractions of the trial; p starts at `warmup`, where the code divides by T - `final`; the code adds magnitude and
    influence with equal weights, and the share 0.7 is the paper's; the budget is met exactly; under a budget in
    parameters, components compete by salience per parameter.
    """

    scales: ClassVar[frozenset[ScalePolicy]] = frozenset({"init", "rs", "unit"})

    initial: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.5
    warmup: Steps = 0.1
    final: Steps = 0.4
    first_window: Annotated[Steps, Field(gt=0)] = 0.01
    last_window: Annotated[Steps, Field(gt=0)] = 0.1
    mixing: Annotated[float, Field(ge=0, le=1)] = 0.7
    correlation: Annotated[float, Field(gt=0, le=1)] = 0.9
    slope: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 2.0
    orthogonality: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.1

    def start(self, layers: Layers, budget: Budget, steps: int, seed: int) -> State:
        warmup, final = phases(self.warmup, self.final, steps)
        rank = generous_rank(layers, budget, self.initial)
        for name, layer in layers.items():
            init_triplets(layer, name, seed)
            layer.open(rank)
        shapes = shapes_of(layers)
        full = budget.spent(pattern_of(layers), shapes)
        first = max(2, steps_of(self.first_window, steps))
        longest = max(first, steps_of(self.last_window, steps))
        return {
            "full": full, "end": min(budget.amount(shapes), full), "unit": budget.unit, "warmup": warmup,
            "last": steps - final, "first_window": first, "last_window": longest, "window": first,
            "gates": [], "penalties": [], "penalty": 0.0,
        }  # fmt: skip

    def penalty(self, state: State, layers: Layers) -> Tensor | None:
        total = orthogonality_penalty(layers)
        state["penalty"] = 0.0 if total is None else float(total.detach())
        return None if total is None or not self.orthogonality else self.orthogonality * total

    @torch.no_grad()
    def after_step(self, state: State, layers: Layers, step: int) -> None:
        if not state["warmup"] < step <= state["last"] or state["full"] == state["end"]:
            return
        state["gates"].append(torch.cat([layers[name].active()[2] for name in sorted(layers)]).cpu())
        state["penalties"].append(state["penalty"])
        if step == state["last"]:
            self._drop(state, layers, state["end"])
        elif len(state["gates"]) == state["window"]:
            longest, first = state["last_window"], state["first_window"]
            share = state["window"] / longest if longest > first else 0.0
            self._drop(state, layers, state["full"] - int((state["full"] - state["end"]) * share))
            p = (step - state["warmup"]) / (state["last"] - state["warmup"])
            state["window"] = round(longest + (first - longest) * (1 - p) ** 3)

    def finish(self, state: State, layers: Layers) -> tuple[RankPattern, ...]:
        return (settle(layers, {name: layer.m.tolist() for name, layer in layers.items()}),)

    def _drop(self, state: State, layers: Layers, amount: int) -> None:
        ranks = [layers[name].rank for name in sorted(layers)]
        series, numbers = torch.stack(state["gates"], 1), torch.repeat_interleave(torch.tensor(ranks))
        salience = self.mixing * magnitude(series, torch.tensor(state["penalties"]), numbers)
        if self.mixing < 1:
            salience = salience + (1 - self.mixing) * influence(series, self.correlation, self.slope)
        scores = {name: part.tolist() for name, part in zip(sorted(layers), torch.split(salience, ranks), strict=True)}
        for name, kept in Budget.of(amount, state["unit"]).select(scores, shapes_of(layers)).items():
            mask = layers[name].m.clone()
            mask[mask.nonzero().squeeze(1)] = torch.tensor(kept, dtype=torch.bool, device=mask.device)
            layers[name].mask(mask)
        state["gates"], state["penalties"] = [], []
