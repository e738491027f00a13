"""GoRA: ranks and B from the gradients of the frozen weights."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from rankopt.allocators.base import Allocator, Probe, State
from rankopt.allocators.shared.start import smallest_max_rank, start_pattern
from rankopt.core.budget import Budget
from rankopt.lowrank.layers import Layers, shapes_of
from rankopt.lowrank.scale import ScalePolicy


class GoRA(Allocator):
    """Give each layer parameters in proportion to |W * dL/dW|, and start with a step against the gradient.

        I_k = mean |W_k * G_k|,   G_k = mean over batches of dL/dW_k;   r_k (in_k + out_k) proportional to I_k
        B <- - (lr / s) sqrt(in / r) G A^T (A A^T)^-1,   so that   s B A = - lr sqrt(in / r) G P

    P projects on the rows of A, which starts as in LoRA. The model therefore does not start as the base model.

    Args:
        batches: training batches looked at.
        lr: size of the step at the start.
        least: a layer's lowest rank divided by the uniform rank, rounded down.
        most: a layer's highest rank divided by the uniform rank, rounded up; at most `model.max_rank`.
    Example:
        >>> GoRA(batches=8).lr
        0.05

    Source: He et al. 2025 (2502.12171) and the authors' code and scripts: scale alpha / sqrt(r). The sign: the code
    sets B = + G A^T ..., which would raise the loss, while its own error term compares with - lr G; we use the minus,
    and a test shows that the loss falls. Departures: G in B is the mean over batches, where the code takes the sum;
    rounding follows the budget exactly.
    """

    scale: ClassVar[ScalePolicy] = "rs"
    starts_as_base: ClassVar[bool] = False

    batches: Annotated[int, Field(ge=1)] = 32
    lr: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.05
    least: Annotated[float, Field(ge=0, le=1)] = 0.5
    most: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 4.0

    def start(self, layers: Layers, budget: Budget, steps: int, seed: int) -> State:
        shapes = shapes_of(layers)
        start_pattern(layers, budget.uniform(shapes, smallest_max_rank(layers)), seed)
        return {"amount": budget.amount(shapes), "unit": budget.unit}

    @torch.no_grad()
    def prepare(self, state: State, layers: Layers, probe: Probe) -> None:
        G: dict[str, Tensor] = {}
        for batch in probe.gradients(self.batches):
            for name, seen in batch.items():
                G[name] = G.get(name, 0.0) + seen.weight_gradient() / self.batches
        importance = {name: float((layer.dense() * G[name]).abs().mean()) for name, layer in layers.items()}
        state["measured"] = {"|W dL/dW|": importance}
        budget, shapes = Budget.of(state["amount"], state["unit"]), shapes_of(layers)
        level = budget.level(shapes)
        most = min(smallest_max_rank(layers), max(1, math.ceil(self.most * level)))
        weights = {name: value / shapes[name].cost for name, value in importance.items()}
        pattern = budget.share(weights, shapes, most, int(self.least * level))
        for name, layer in layers.items():
            layer.open(pattern[name])
            if layer.rank:
                A, _, _ = layer.active()
                step = self.lr / layer.s * math.sqrt(layer.shape.fan_in / layer.rank)
                layer.B[:, : layer.rank] = -step * coordinates(G[name], A)


def coordinates(G: Tensor, A: Tensor) -> Tensor:
    """`G A^T (A A^T + 1e-8)^-1`, `(out, r)`: the B for which B A is closest to G.

    Args:
        G: `(out, in)`.
        A: `(r, in)`.
    """
    gram = A @ A.T + 1e-8 * torch.eye(len(A), device=A.device)
    B: Tensor = torch.linalg.solve(gram, A @ G.T).T
    return B
