"""EVA: ranks and A from the principal components of what each layer reads."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from rankopt.allocators.base import Allocator, Probe, State
from rankopt.allocators.shared.gates import generous_rank
from rankopt.allocators.shared.start import smallest_max_rank, start_pattern
from rankopt.core.budget import Budget
from rankopt.importance.principal import PrincipalComponents
from rankopt.lowrank.layers import Layers, shapes_of


class EVA(Allocator):
    """Open the directions that explain the most of their layer's input variance, and start A with them.

        X_k - mean = U diag(S) V^T over the inputs of layer k;   score_ki = S_ki^2 / sum_j S_kj^2
        keep the highest scores over all layers;   A <- the first r_k rows of V^T;   B = 0

    The scale is that of the uniform rank in every layer, alpha / r, however many components it has. Layers that read
    the same inputs have the same scores.

    Args:
        batches: training batches looked at.
        rho: a layer's highest rank divided by the uniform rank; at most `model.max_rank`.
    Example:
        >>> EVA(batches=4).rho
        2.0

    Source: Paischer et al. 2024 (2410.07170) and PEFT's `init_lora_weights="eva"`. Departures: a fixed number of
    batches instead of as many as the directions need to converge; padding is left out; a budget in parameters ranks
    directions by score per parameter.
    """

    batches: Annotated[int, Field(ge=1)] = 16
    rho: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 2.0

    def start(self, layers: Layers, budget: Budget, steps: int, seed: int) -> State:
        shapes = shapes_of(layers)
        start_pattern(layers, budget.uniform(shapes, smallest_max_rank(layers)), seed)
        return {
            "amount": budget.amount(shapes), "unit": budget.unit, "most": generous_rank(layers, budget, self.rho),
            "level": min(smallest_max_rank(layers), max(1, round(budget.level(shapes)))),
        }  # fmt: skip

    @torch.no_grad()
    def prepare(self, state: State, layers: Layers, probe: Probe) -> None:
        components = {name: PrincipalComponents(state["most"]) for name in layers if state["most"]}
        for inputs in probe.inputs(self.batches if components else 0):
            for name, X in inputs.items():
                components[name].update(X)
        scores = {name: found.ratios.tolist() for name, found in components.items()}
        kept = Budget.of(state["amount"], state["unit"]).select(scores, shapes_of(layers))
        for name, layer in layers.items():
            rank = sum(kept.get(name, []))
            layer.open(state["level"])
            layer.keep(rank)
            if rank:
                layer.A[:rank] = components[name].V[:rank]
