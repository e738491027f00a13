"""SaLoRA: stochastic gates whose expected number is driven to the budget."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from rankopt.allocators.base import Allocator, State
from rankopt.allocators.shared.gates import settle
from rankopt.allocators.shared.stochastic_gates import Rate, descend, draw_gates, fix_gates, start_gates
from rankopt.core.budget import Budget
from rankopt.core.pattern import RankPattern
from rankopt.lowrank.layers import Layers
from rankopt.lowrank.scale import ScalePolicy


class SaLoRA(Allocator):
    """Learn hard-concrete gates under a constraint on the expected size, by a Lagrange multiplier.

        min over weights and log_alpha, max over mu >= 0 of   E_z L + mu (sum c_i P(z_i > 0) - b) / sum c_i

    Each step draws the gates z ~ HardConcrete(log_alpha). log_alpha descends by Adam on the gates' gradient; mu ascends
    while the constraint is violated and returns to 0 once it holds. c_i is what a component costs in the budget's unit.
    At T - `final` the components of the highest P(z_i > 0) / c_i are kept and the others masked; the kept gates lose
    their noise and are trained like any other weight.

    Args:
        initial: initial budget divided by final budget; the initial rank is rounded up, and capped at
            `model.max_rank`.
        open: probability of a gate at the start.
        gate_lr: learning rate of log_alpha.
        multiplier_lr: step of mu.
        final: steps with a fixed pattern at the end, a fraction of the trial's steps if below 1; at least one.
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
        return start_gates(layers, budget, steps, seed, self.initial, self.open, self.final) | {"mu": 0.0}

    def before_step(self, state: State, layers: Layers, step: int) -> None:
        draw_gates(state, layers, step)

    def after_step(self, state: State, layers: Layers, step: int) -> None:
        if step > state["fix"]:
            return
        excess = descend(state, layers, step, state["mu"], self.gate_lr)
        # back to zero once the constraint holds, or the gates would go on closing
        state["mu"] = max(0.0, state["mu"] + self.multiplier_lr * excess) if excess > 0 else 0.0
        if step == state["fix"]:
            fix_gates(state, layers)

    def allocated(self, state: State, layers: Layers) -> RankPattern:
        return RankPattern(state["ranks"])

    def finish(self, state: State, layers: Layers) -> tuple[RankPattern, ...]:
        return (settle(layers, state["keep"]),)
