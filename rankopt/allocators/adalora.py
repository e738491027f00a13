"""AdaLoRA: start with more components than the budget, and drop the least sensitive ones during training."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from rankopt.allocators.base import Allocator, State
from rankopt.allocators.shared.gates import generous_rank, settle, suppress
from rankopt.allocators.shared.phases import Steps, phases
from rankopt.allocators.shared.start import init_triplets
from rankopt.allocators.shared.triplets import (
    Decay,
    Unsmoothed,
    orthogonality_penalty,
    record_importance,
    sensitivity,
    update_sensitivity,
    zero_sensitivity,
)
from rankopt.core.budget import Budget, Mask, Schedule
from rankopt.core.pattern import RankPattern
from rankopt.lowrank.layers import Layers, shapes_of
from rankopt.lowrank.scale import ScalePolicy


class AdaLoRA(Allocator):
    """Suppress the gates of the least sensitive components, under a budget that falls cubically.

        S_i = s(g_i) + mean_j s(B_ji) + mean_j s(A_ij),   s(w) = Ibar(w) Ubar(w),   I(w) = |w dL/dw|
        keep the b(t) highest S over all layers;   g_i <- 0 for the others
        loss + orthogonality * mean over factors (||A A^T - I||_F, ||B^T B - I||_F)

    A suppressed gate still receives a gradient and may return; the mask is set once, at the end. Gradients are those of
    the clipped loss with its penalty, multiplied by the weights after the step, as in the authors' code.

    Args:
        initial: initial budget divided by final budget; the initial rank is rounded up, and at most
            `model.max_rank`.
        warmup: steps before the budget falls, t_i.
        final: steps after it has fallen, t_f.
        interval: steps between two selections while it falls, deltaT; in the final phase every step selects.
        beta1: decay of the sensitivity's mean.
        beta2: decay of its variation.
        orthogonality: weight gamma of the penalty.
        importance: what ranks the components. "smoothed" is S as above. The paper's ablations are "sensitivity"
            (s(w) = |w dL/dw| of the present step) and "gate" (S_i = |g_i|); "magnitude" is s(w) = |w|.
        first_step: value of t in the first step: 0 as in the authors' trainers and PEFT, or 1 as in algorithm 1.
    Example:
        >>> AdaLoRA(warmup=0.1, final=0.3).initial
        1.5

    Source: Zhang et al. 2023 (2303.10512), algorithm 1, and the authors' code where the two differ: t from 0, weight
    decay on the gates, un-squared norms averaged over the factors, and the schedule of `Schedule`. Departures from
    both: exactly b(t) components survive a tie at the threshold, where the code drops all tied ones; the final budget
    holds after the last step, even without a final phase; the scale is alpha / R without the code's 1e-5; a budget in
    parameters ranks components by S per parameter.
    """

    decays_gates: ClassVar[bool] = True
    scales: ClassVar[frozenset[ScalePolicy]] = frozenset({"init", "rs", "unit"})

    initial: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.5
    warmup: Steps = 0.13
    final: Steps = 0.48
    interval: Annotated[int, Field(ge=1)] = 1
    beta1: Decay = 0.85
    beta2: Decay = 0.85
    orthogonality: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.1
    importance: Literal["smoothed"] | Unsmoothed = "smoothed"
    first_step: Literal[0, 1] = 0

    def start(self, layers: Layers, budget: Budget, steps: int, seed: int) -> State:
        shapes = shapes_of(layers)
        warmup, final = phases(self.warmup, self.final, steps)
        level = sum(budget.cost(shape) for shape in shapes.values())
        rank = generous_rank(layers, budget, self.initial)
        for name, layer in layers.items():
            init_triplets(layer, name, seed)
            layer.open(rank)
        end = min(budget.amount(shapes), rank * level)
        schedule = Schedule(start=rank * level, end=end, steps=steps, warmup=warmup, final=final)
        return {
            "schedule": schedule.model_dump(),
            "unit": budget.unit,
            "ranks": dict.fromkeys(layers, rank),
            "notes": [f"max_rank {rank} leaves adalora nothing to drop"] if 0 < end == rank * level else [],
            **zero_sensitivity(layers, rank),
        }

    def penalty(self, state: State, layers: Layers) -> Tensor | None:
        total = orthogonality_penalty(layers) if self.orthogonality else None
        return None if total is None else self.orthogonality * total

    def after_step(self, state: State, layers: Layers, step: int) -> None:
        schedule = Schedule(**state["schedule"])
        t = step - 1 + self.first_step
        if t < schedule.steps - schedule.final:
            if self.importance == "smoothed":
                update_sensitivity(state, layers, self.beta1, self.beta2)
            else:
                record_importance(state, layers, self.importance)
        last = step == schedule.steps
        if last or t > schedule.steps - schedule.final or (schedule.falling(t) and t % self.interval == 0):
            keep = _select(state, layers, schedule.end if last else schedule.at(t))
            suppress(layers, keep)
            state["ranks"] = {name: sum(kept) for name, kept in keep.items()}

    def allocated(self, state: State, layers: Layers) -> RankPattern:
        return RankPattern(state["ranks"])

    def finish(self, state: State, layers: Layers) -> tuple[RankPattern, ...]:
        keep = _select(state, layers, Schedule(**state["schedule"]).end)
        suppress(layers, keep)
        return (settle(layers, keep),)


def _select(state: State, layers: Layers, amount: int) -> Mask:
    return Budget.of(amount, state["unit"]).select(sensitivity(state, layers), shapes_of(layers))
