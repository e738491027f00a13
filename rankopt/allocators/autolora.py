"""AutoLoRA: learn how much each component counts on batches that the weights have not been trained on."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from rankopt.allocators.base import Allocator, LayerPass, Probe, State
from rankopt.allocators.shared.adam import adam
from rankopt.allocators.shared.gates import generous_rank, settle
from rankopt.allocators.shared.phases import Steps, steps_of
from rankopt.allocators.shared.start import start_pattern
from rankopt.core.budget import Budget
from rankopt.core.pattern import RankPattern
from rankopt.lowrank.layers import Layers, shapes_of
from rankopt.lowrank.linear import LowRankLinear
from rankopt.lowrank.scale import ScalePolicy


class AutoLoRA(Allocator):
    """Weigh the components of every layer by a softmax that is trained on the next step's batch, then keep the largest.

        dW = s B diag(g) A,   g = R softmax(beta),   beta = 1 at the start
        inner   A and B descend on the batch of step t
        outer   beta descends by Adam on the batch of step t + 1, at the weights after step t:
                dL/dbeta_j = g_j (dL/dg_j - sum_k g_k dL/dg_k / R)

    After T - `final` steps the components of the largest g per cost are kept, within the budget, and the others are
    masked. The gates stay as they are, and A and B are trained on. The outer batch costs a second forward and backward
    pass in each of the first T - `final` steps.

    Args:
        initial: initial budget divided by final budget; the initial rank R is rounded up, and at most
            `model.max_rank`.
        gate_lr: learning rate of beta.
        final: steps with a fixed pattern at the end.
    Example:
        >>> AutoLoRA(gate_lr=0.01).final
        0.3

    Source: Zhang et al. 2024 (2403.09113) and the authors' script for GLUE, which takes the outer gradient at the
    weights after the inner step, without the paper's second-order term. Departures: the outer batches are those that
    training reaches next, not a split of the training set, so that all methods train on the same rows; the factor R
    makes a layer start as LoRA does; a budget takes the place of the threshold g_j >= 1; training continues, where the
    paper trains the found ranks from scratch (as the allocator `static` does with `found`).
    """

    scales: ClassVar[frozenset[ScalePolicy]] = frozenset({"init", "rs", "unit"})

    initial: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 2.0
    gate_lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.03
    final: Steps = 0.3

    def start(self, layers: Layers, budget: Budget, steps: int, seed: int) -> State:
        final = steps_of(self.final, steps)
        if final >= steps:
            raise ValueError(f"allocator.final must be fewer than the trial's {steps} steps, got {final}")
        rank = generous_rank(layers, budget, self.initial)
        start_pattern(layers, RankPattern(dict.fromkeys(layers, rank)), seed)
        return {
            "amount": budget.amount(shapes_of(layers)), "unit": budget.unit, "fix": steps - final,
            "beta": {name: torch.ones(rank) for name in layers},
            "mean": {name: torch.zeros(rank) for name in layers},
            "square": {name: torch.zeros(rank) for name in layers},
        }  # fmt: skip

    @torch.no_grad()
    def review(self, state: State, layers: Layers, step: int, probe: Probe) -> None:
        if step > state["fix"] or not any(layer.rank for layer in layers.values()):
            return
        (batch,) = probe.gradients(1, after=step)
        for name, layer in layers.items():
            beta = state["beta"][name]
            gradient = softmax_gradient(beta, gate_gradient(layer, batch[name]).cpu())
            adam(beta, gradient, state["mean"][name], state["square"][name], step, self.gate_lr)
            layer.g[: len(beta)] = gates(beta).to(layer.g.device)
        if step == state["fix"]:
            importance = {name: gates(beta).tolist() for name, beta in state["beta"].items()}
            keep = Budget.of(state["amount"], state["unit"]).select(importance, shapes_of(layers))
            for name, layer in layers.items():
                layer.mask(torch.tensor(keep[name] + [False] * (layer.max_rank - len(keep[name]))))

    def finish(self, state: State, layers: Layers) -> tuple[RankPattern, ...]:
        return (settle(layers, {name: layer.m.tolist() for name, layer in layers.items()}),)


def gates(beta: Tensor) -> Tensor:
    """`R softmax(beta)`, `(R,)`: 1 where all components count alike."""
    return len(beta) * torch.softmax(beta, dim=0)


def gate_gradient(layer: LowRankLinear, seen: LayerPass) -> Tensor:
    """The gradient of the batch's loss with respect to the gates of the active components, `(r,)`.

    dL/dg_j = s sum over tokens of (dL/dy B)_j (A x)_j
    """
    A, B, _ = layer.active()
    return layer.s * ((seen.gradients @ B) * (seen.inputs @ A.T)).sum(0)


def softmax_gradient(beta: Tensor, gradient: Tensor) -> Tensor:
    """dL/dbeta from dL/dg.

    Args:
        beta: `(R,)`.
        gradient: dL/dg, `(R,)`.
    Example:
        >>> softmax_gradient(torch.zeros(2), torch.tensor([1.0, -1.0])).tolist()
        [1.0, -1.0]
    """
    g = gates(beta)
    return g * (gradient - (g @ gradient) / max(len(g), 1))
