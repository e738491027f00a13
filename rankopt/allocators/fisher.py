"""FIM-LoRA: ranks in proportion to the Fisher information of the frozen weights."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rankopt.allocators.base import Allocator, Probe, State, smallest_max_rank, start_pattern
from rankopt.core.budget import Budget
from rankopt.lowrank.layers import Layers, shapes_of


class Fisher(Allocator):
    """Give each layer ranks in proportion to the squared gradient of its frozen weight.

        F_k = mean over batches of ||dL/dW_k||_F^2;   r_k proportional to F_k, at least `least` where the budget allows

    Args:
        batches: training batches looked at, one gradient each.
        least: rank that every layer gets first.
    Example:
        >>> Fisher().batches
        8

    Source: FIM-LoRA (2605.16800), known to us from its abstract: eight calibration passes, ranks proportional to the
    empirical Fisher mass. Departures: gradients of batches and not of examples; `least`; rounding follows the budget.
    """

    batches: Annotated[int, Field(ge=1)] = 8
    least: Annotated[int, Field(ge=0)] = 1

    def start(self, layers: Layers, budget: Budget, steps: int, seed: int) -> State:
        shapes = shapes_of(layers)
        start_pattern(layers, budget.uniform(shapes, smallest_max_rank(layers)), seed)
        return {"amount": budget.amount(shapes), "unit": budget.unit}

    def prepare(self, state: State, layers: Layers, probe: Probe) -> None:
        mass = dict.fromkeys(layers, 0.0)
        for batch in probe.gradients(self.batches):
            for name, seen in batch.items():
                mass[name] += float(seen.weight_gradient().double().square().sum()) / self.batches
        state["measured"] = {"Fisher": mass}
        budget = Budget.of(state["amount"], state["unit"])
        pattern = budget.share(mass, shapes_of(layers), smallest_max_rank(layers), self.least)
        for name, layer in layers.items():
            layer.open(pattern[name])
