"""FIM-LoRA: ranks in proportion to the Fisher information of the adapters' B."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from rankopt.allocators.base import Allocator, Probe, State
from rankopt.allocators.shared.gates import generous_rank
from rankopt.allocators.shared.start import smallest_max_rank, start_pattern
from rankopt.core.budget import Budget
from rankopt.core.pattern import RankPattern
from rankopt.importance.double import double
from rankopt.lowrank.layers import Layers, shapes_of


class Fisher(Allocator):
    """Give each layer ranks in proportion to the squared gradient of its B, where LoRA starts.

        F_k = mean over batches and entries of (dL/dB_k)^2;   r_k proportional to F_k, within `least` and `most`

    A starts as in LoRA at the budget's uniform rank, and B = 0, so A has no gradient yet.

    Args:
        batches: training batches looked at, one gradient each.
        least: rank that every layer gets first, where the budget allows.
        most: a layer's highest rank over the uniform rank, rounded up; at most `model.max_rank`.
    Example:
        >>> Fisher().batches
        8

    Source: FIM-LoRA (2605.16800) and the authors' code: eight batches, ranks from 1 to twice the uniform rank, scale
    alpha / r_k. The code that we saw squares the gradients of A, which are zero at the start; the paper names B.
    Departure: rounding follows the budget exactly, where theirs is clipped afterwards.
    """

    batches: Annotated[int, Field(ge=1)] = 8
    least: Annotated[int, Field(ge=0)] = 1
    most: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 2.0

    def start(self, layers: Layers, budget: Budget, steps: int, seed: int) -> State:
        shapes = shapes_of(layers)
        start_pattern(layers, budget.uniform(shapes, smallest_max_rank(layers)), seed)
        return {
            "amount": budget.amount(shapes), "unit": budget.unit, "most": generous_rank(layers, budget, self.most),
            "level": min(smallest_max_rank(layers), max(1, round(budget.level(shapes)))), "seed": seed,
        }  # fmt: skip

    @torch.no_grad()
    def prepare(self, state: State, layers: Layers, probe: Probe) -> None:
        level: int = state["level"]
        start_pattern(layers, RankPattern(dict.fromkeys(layers, level)), state["seed"])
        information = dict.fromkeys(layers, 0.0)
        for batch in probe.gradients(self.batches):
            for name, (X, dY) in batch.items():
                A, s = layers[name].active()[0], layers[name].s
                information[name] += float(double(s * dY.T @ (X @ A.T)).square().mean()) / self.batches
        state["measured"] = {"Fisher": information}
        budget = Budget.of(state["amount"], state["unit"])
        pattern = budget.share(information, shapes_of(layers), state["most"], self.least)
        for name, layer in layers.items():
            layer.open(pattern[name])
