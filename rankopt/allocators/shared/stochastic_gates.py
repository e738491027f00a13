"""Training hard-concrete gates: draw them at every step, descend on their locations, and fix a pattern at the end."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from rankopt.allocators.base import State
from rankopt.allocators.shared.adam import adam
from rankopt.allocators.shared.gates import generous_rank
from rankopt.allocators.shared.hard_concrete import mean_gate, open_probability, sample, slope
from rankopt.allocators.shared.phases import steps_of
from rankopt.allocators.shared.start import init_lora
from rankopt.core.budget import Budget
from rankopt.core.seeds import stream
from rankopt.lowrank.layers import Layers, shapes_of
from rankopt.lowrank.linear import LowRankLinear

Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def start_gates(
    layers: Layers, budget: Budget, steps: int, seed: int, initial: float, open: float, final: float
) -> State:
    """Start LoRA with gates that are open with probability `open`, at `initial` times the budget's uniform rank.

    Raises:
        ValueError: when the pattern would be fixed before the first step or after the last.
    """
    fixed = steps_of(final, steps)
    if not 0 < fixed < steps:
        raise ValueError(f"allocator.final must be 1 to {steps - 1} of the trial's {steps} steps, got {fixed}")
    rank = generous_rank(layers, budget, initial)
    location = math.log(open / (1 - open)) + float(_offset())
    for name, layer in layers.items():
        init_lora(layer, name, seed)
        layer.g.requires_grad_(True)  # for its gradient: until the end the next draw overwrites the optimiser's step
        layer.open(rank)
    return {
        "amount": budget.amount(shapes_of(layers)), "unit": budget.unit, "seed": seed, "fix": steps - fixed,
        "log_alpha": {name: torch.full((rank,), location) for name in layers},
        "mean": {name: torch.zeros(rank) for name in layers}, "square": {name: torch.zeros(rank) for name in layers},
        "noise": {}, "ranks": dict.fromkeys(layers, rank),
    }  # fmt: skip


@torch.no_grad()
def draw_gates(state: State, layers: Layers, step: int) -> None:
    """Draw the gates of a step, a function of (seed, layer, step) and the locations, until the pattern is fixed."""
    for name, layer in layers.items() if step <= state["fix"] else ():
        log_alpha = state["log_alpha"][name]
        generator = torch.Generator().manual_seed(stream(state["seed"], "gate", name, step))
        state["noise"][name] = torch.rand(len(log_alpha), generator=generator).clamp(1e-6, 1 - 1e-6)
        _set_gates(layer, sample(log_alpha, state["noise"][name]))


@torch.no_grad()
def descend(state: State, layers: Layers, step: int, weight: float, lr: float) -> float:
    """One Adam step of log_alpha on `L + weight * sum c_i P(z_i > 0) / sum c_i`.

    Returns:
        The constraint's excess before the step, `(sum c_i P(z_i > 0) - b) / sum c_i`.
    """
    budget, shapes = Budget.of(state["amount"], state["unit"]), shapes_of(layers)
    costs = {name: budget.cost(shape) for name, shape in shapes.items()}
    total = sum(costs[name] * len(values) for name, values in state["log_alpha"].items()) or 1
    expected = 0.0
    for name, layer in layers.items():
        log_alpha = state["log_alpha"][name]
        gradient = torch.zeros_like(log_alpha)
        if layer.g.grad is not None:
            gradient = layer.g.grad[: len(log_alpha)].cpu() * slope(log_alpha, state["noise"][name])
        p = open_probability(log_alpha)
        expected += costs[name] * float(p.sum())
        gradient = gradient + weight * costs[name] / total * p * (1 - p)
        adam(log_alpha, gradient, state["mean"][name], state["square"][name], step, lr)
    excess: float = (expected - state["amount"]) / total
    return excess


@torch.no_grad()
def fix_gates(state: State, layers: Layers) -> None:
    """Keep the components of the highest `P(z_i > 0) / c_i` within the budget, mask the others, drop the noise."""
    importance = {name: open_probability(values).tolist() for name, values in state["log_alpha"].items()}
    state["keep"] = Budget.of(state["amount"], state["unit"]).select(importance, shapes_of(layers))
    state["ranks"] = {name: sum(kept) for name, kept in state["keep"].items()}
    for name, layer in layers.items():
        _set_gates(layer, mean_gate(state["log_alpha"][name]))
        layer.mask(torch.tensor(state["keep"][name] + [False] * (layer.max_rank - layer.initial)))


def _set_gates(layer: LowRankLinear, gates: Tensor) -> None:
    layer.g[: len(gates)] = gates.to(layer.g.device)


def _offset() -> Tensor:
    """How far a location lies below its logit: `open_probability(x + offset) = sigmoid(x)`."""
    return -torch.logit(open_probability(torch.zeros(())))
