"""L0 regularisation: stochastic gates whose expected number is penalised."""

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


class L0(Allocator):
    """Learn hard-concrete gates under a penalty on their expected number, with a fixed weight.

        min over weights and log_alpha of   E_z L + weight * sum c_i P(z_i > 0) / sum c_i

    c_i is what a component costs in the budget's unit. Each step draws the gates z ~ HardConcrete(log_alpha), and
    log_alpha descends by Adam. At T - `final` the components of the highest P(z_i > 0) / c_i are kept within the budget
    and the others masked; the kept gates lose their noise and are trained like any other weight. `salora` adapts the
    weight to the budget instead.

    Args:
        initial: initial budget divided by final budget; the initial rank is rounded up, and capped at
            `model.max_rank`.
        open: probability of a gate at the start.
        gate_lr: learning rate of log_alpha.
        weight: of the penalty.
        final: steps with a fixed pattern at the end, a fraction of the trial's when below 1; at least one.
    Example:
        >>> L0(weight=0.01).gate_lr
        0.1

    Source: Louizos et al. 2018 (1712.01312), applied to the components of LoRA. Departure: the size of the published
    method follows from the weight; here the budget cuts the gates that are left.
    """

    scales: ClassVar[frozenset[ScalePolicy]] = frozenset({"init", "rs", "unit"})

    initial: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.5
    open: Annotated[float, Field(gt=0, lt=1)] = 0.9
    gate_lr: Rate = 0.1
    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.1
    final: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.3

    def start(self, layers: Layers, budget: Budget, steps: int, seed: int) -> State:
        return start_gates(layers, budget, steps, seed, self.initial, self.open, self.final)

    def before_step(self, state: State, layers: Layers, step: int) -> None:
        draw_gates(state, layers, step)

    def after_step(self, state: State, layers: Layers, step: int) -> None:
        if step <= state["fix"]:
            descend(state, layers, step, self.weight, self.gate_lr)
        if step == state["fix"]:
            fix_gates(state, layers)

    def allocated(self, state: State, layers: Layers) -> RankPattern:
        return RankPattern(state["ranks"])

    def finish(self, state: State, layers: Layers) -> tuple[RankPattern, ...]:
        return (settle(layers, state["keep"]),)
