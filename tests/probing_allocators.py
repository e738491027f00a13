"""Two allocators that look at training data before training, for tests: what a new method needs, in one file."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field

from rankopt.allocators.base import Allocator, Probe, State
from rankopt.allocators.shared.start import smallest_max_rank, start_pattern
from rankopt.core.budget import Budget
from rankopt.lowrank.layers import Layers, shapes_of

Count = Annotated[int, Field(ge=1)]


class Activations(Allocator):
    """Ranks and A from the principal components of each layer's inputs, in the manner of EVA (2410.07170).

    X^T X = V diag(l) V^T;   A_i <- V_i;   keep the largest l_i / sum_j l_j over all layers
    """

    batches: Count = 2

    def start(self, layers: Layers, budget: Budget, steps: int, seed: int) -> State:
        shapes = shapes_of(layers)
        start_pattern(layers, budget.uniform(shapes, smallest_max_rank(layers)), seed)
        return {"amount": budget.amount(shapes), "unit": budget.unit}

    def prepare(self, state: State, layers: Layers, probe: Probe) -> None:
        grams: dict[str, Any] = dict.fromkeys(layers, 0.0)
        for inputs in probe.inputs(self.batches):
            for name, X in inputs.items():
                grams[name] = grams[name] + X.T @ X
        directions = {name: torch.linalg.svd(gram.double())[1:] for name, gram in grams.items()}
        open_largest(state, layers, {name: (S / S.sum(), Vh) for name, (S, Vh) in directions.items()})


class Gradients(Allocator):
    """Ranks and A from the singular values of each frozen weight's gradient, in the manner of GoRA and LoRA-GA."""

    batches: Count = 2

    def start(self, layers: Layers, budget: Budget, steps: int, seed: int) -> State:
        return Activations(batches=self.batches).start(layers, budget, steps, seed)

    def prepare(self, state: State, layers: Layers, probe: Probe) -> None:
        slopes: dict[str, Any] = dict.fromkeys(layers, 0.0)
        for batch in probe.gradients(self.batches):
            for name, seen in batch.items():
                slopes[name] = slopes[name] + seen.weight_gradient()
        directions = {name: torch.linalg.svd(slope.double())[1:] for name, slope in slopes.items()}
        open_largest(state, layers, {name: (S.square(), Vh) for name, (S, Vh) in directions.items()})


@torch.no_grad()
def open_largest(state: State, layers: Layers, directions: dict[str, Any]) -> None:
    """Open the most important directions over all layers within the budget, and start A with them."""
    importance = {name: S[: layers[name].max_rank].tolist() for name, (S, _) in directions.items()}
    kept = Budget.of(state["amount"], state["unit"]).select(importance, shapes_of(layers))
    for name, layer in layers.items():
        layer.open(sum(kept[name]))
        layer.A[: layer.rank] = directions[name][1][: layer.rank].float()
    state["kept"] = {name: layer.rank for name, layer in layers.items()}


PROBING: dict[str, type[Allocator]] = {"activations": Activations, "gradients": Gradients}
