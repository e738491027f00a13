"""SaLoRA: stochastic gates whose expected number is driven to the budget."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from rankopt.allocators.adam import adam
from rankopt.allocators.base import Allocator, State, init_lora, steps_of
from rankopt.allocators.gates import generous_rank, settle
from rankopt.allocators.hard_concrete import mean_gate, open_probability, sample, slope
from rankopt.core.budget import Budget, Mask
from rankopt.core.pattern import RankPattern
from rankopt.core.seeds import stream
from rankopt.lowrank.layers import Layers, shapes_of
from rankopt.lowrank.linear import LowRankLinear
from rankopt.lowrank.scale import ScalePolicy

Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class SaLoRA(Allocator):
    """Learn hard-concrete gates under a constraint on the expected size, by a Lagrange multiplier.

        min over weights and log_alpha, max over mu >= 0 of   E_z L + mu (sum c_i P(z_i > 0) - b) / sum c_i

    Each step draws the gates z ~ HardConcrete(log_alpha). log_alpha descends by Adam on the gates' gradient; mu ascends
    while the constraint is violated and returns to 0 once it holds. c_i is what a component costs in the budget's unit.
    At T - `final` the components of the highest P(z_i > 0) / c_i are kept and the others masked; the kept gates lose
    their noise and are trained like any other weight.

    Args:
        initial: budget at the start over the budget at the end; the initial rank is rounded up, and capped at
            `model.max_rank`.
        open: probability of a gate at the start.
        gate_lr: learning rate of log_alpha.
        multiplier_lr: step of mu.
        final: steps with a fixed pattern at the end, a fraction of the trial's when below 1; at least one.
    Example:
        >>> SaLoRA(gate_lr=0.02).final
        0.3

    Source: Hu et al. 2023, "Structure-aware low-rank adaptation" (Mathematics 11, 4317): L0 gates and a Lagrangian.
    Gates: Louizos et al. 2018 (1712.01312); restarts of the multiplier: Gallego-Posada et al. 2022 (2208.04425).
    Departures: plain LoRA factors without an orthogonality penalty; learning rates and the fixed pattern at the end are
    ours, because there is no official code.
    """

    scales: ClassVar[frozenset[ScalePolicy]] = frozenset({"init", "rs", "unit"})

    initial: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.5
    open: Annotated[float, Field(gt=0, lt=1)] = 0.9
    gate_lr: Rate = 0.1
    multiplier_lr: Rate = 1.0
    final: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.3

    def start(self, layers: Layers, budget: Budget, steps: int, seed: int) -> State:
        final = steps_of(self.final, steps)
        if not 0 < final < steps:
            raise ValueError(f"allocator.final must be 1 to {steps - 1} of the trial's {steps} steps, got {final}")
        rank = generous_rank(layers, budget, self.initial)
        location = math.log(self.open / (1 - self.open)) + float(_offset())
        state: dict[str, Any] = {
            "amount": budget.amount(shapes_of(layers)), "unit": budget.unit, "seed": seed, "fix": steps - final,
            "mu": 0.0, "log_alpha": {}, "mean": {}, "square": {}, "noise": {}, "ranks": dict.fromkeys(layers, rank),
        }  # fmt: skip
        for name, layer in layers.items():
            init_lora(layer, name, seed)
            layer.g.requires_grad_(
                True
            )  # for its gradient; until the end the next draw overwrites the optimiser's step
            layer.open(rank)
            state["log_alpha"][name] = torch.full((rank,), location)
            state["mean"][name], state["square"][name] = torch.zeros(rank), torch.zeros(rank)
        return state

    @torch.no_grad()
    def before_step(self, state: State, layers: Layers, step: int) -> None:
        for name, layer in layers.items() if step <= state["fix"] else ():
            log_alpha = state["log_alpha"][name]
            generator = torch.Generator().manual_seed(stream(state["seed"], "gate", name, step))
            state["noise"][name] = torch.rand(len(log_alpha), generator=generator).clamp(1e-6, 1 - 1e-6)
            _set_gates(layer, sample(log_alpha, state["noise"][name]))

    @torch.no_grad()
    def after_step(self, state: State, layers: Layers, step: int) -> None:
        if step > state["fix"]:
            return
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
            gradient = gradient + state["mu"] * costs[name] / total * p * (1 - p)
            adam(log_alpha, gradient, state["mean"][name], state["square"][name], step, self.gate_lr)
        # back to zero once the constraint holds, or the gates would go on closing
        state["mu"] = max(0.0, state["mu"] + self.multiplier_lr * (expected - state["amount"]) / total)
        if expected <= state["amount"]:
            state["mu"] = 0.0
        if step == state["fix"]:
            state["keep"] = self._select(state, layers)
            state["ranks"] = {name: sum(kept) for name, kept in state["keep"].items()}
            for name, layer in layers.items():
                _set_gates(layer, mean_gate(state["log_alpha"][name]))
                layer.mask(torch.tensor(state["keep"][name] + [False] * (layer.max_rank - layer.initial)))

    def allocated(self, state: State, layers: Layers) -> RankPattern:
        return RankPattern(state["ranks"])

    def finish(self, state: State, layers: Layers) -> tuple[RankPattern, ...]:
        return (settle(layers, state["keep"]),)

    def _select(self, state: State, layers: Layers) -> Mask:
        importance = {name: open_probability(values).tolist() for name, values in state["log_alpha"].items()}
        return Budget.of(state["amount"], state["unit"]).select(importance, shapes_of(layers))


def _set_gates(layer: LowRankLinear, gates: Tensor) -> None:
    layer.g[: len(gates)] = gates.to(layer.g.device)


def _offset() -> Tensor:
    """How far a location lies below its logit: `open_probability(x + offset) = sigmoid(x)`."""
    return -torch.logit(open_probability(torch.zeros(())))
