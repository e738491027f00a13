"""SoRA: gates that proximal steps drive to zero."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from rankopt.allocators.base import Allocator, State
from rankopt.allocators.shared.gates import generous_rank, settle
from rankopt.allocators.shared.phases import Steps, phases
from rankopt.allocators.shared.start import init_lora
from rankopt.core.budget import Budget, Mask, Schedule
from rankopt.core.pattern import RankPattern
from rankopt.core.seeds import stream
from rankopt.lowrank.layers import Layers, shapes_of
from rankopt.lowrank.scale import ScalePolicy


class SoRA(Allocator):
    """Train a gate per component and shrink it by a proximal step, so that components become exactly zero.

        g_i <- sign(u_i) max(|u_i| - xi_t c_i, 0),   u = the gate after the optimiser's step
        loss + l1 * mean |g|

    xi_t is the smallest threshold, at least `xi`, that leaves at most b(t) components; b(t) falls cubically from the
    initial to the final budget. c_i is 1 for a budget in ranks, and a component's parameters over their mean for a
    budget in parameters: the proximal operator of an L1 norm weighted by cost. In the final phase, components at zero
    stay there.

    Args:
        initial: initial budget divided by final budget; the initial rank is rounded up, and capped at
            `model.max_rank`.
        xi: smallest threshold of a step.
        l1: weight of the penalty.
        warmup: steps before the budget falls.
        final: steps after it has fallen.
    Example:
        >>> SoRA(xi=1e-4).initial
        1.5

    Source: Ding et al. 2023 (2311.11696) and the authors' code: gate N(0, 1), trained at the factors' learning rate.
    Departures: the published threshold is fixed and the size follows from it, while here the threshold follows a
    budget, so that methods compare at equal parameters; the code also zeroes gates up to twice the threshold, which
    the paper's soft threshold does not.
    """

    scales: ClassVar[frozenset[ScalePolicy]] = frozenset({"init", "rs", "unit"})

    initial: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.5
    xi: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    l1: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-3
    warmup: Steps = 0.1
    final: Steps = 0.4

    def start(self, layers: Layers, budget: Budget, steps: int, seed: int) -> State:
        warmup, final = phases(self.warmup, self.final, steps)
        shapes = shapes_of(layers)
        rank = generous_rank(layers, budget, self.initial)
        for name, layer in layers.items():
            init_lora(layer, name, seed)
            generator = torch.Generator().manual_seed(stream(seed, "gate", name))
            with torch.no_grad():
                layer.g.copy_(torch.empty(layer.max_rank).normal_(generator=generator))
            layer.g.requires_grad_(True)
            layer.open(rank)
        full = budget.spent(RankPattern(dict.fromkeys(layers, rank)), shapes)
        schedule = Schedule(start=full, end=min(budget.amount(shapes), full), steps=steps, warmup=warmup, final=final)
        return {
            "schedule": schedule.model_dump(),
            "unit": budget.unit,
            "ranks": dict.fromkeys(layers, rank),
            "zero": {},
        }

    def penalty(self, state: State, layers: Layers) -> Tensor | None:
        gates = [layer.active()[2] for layer in layers.values() if layer.rank]
        return self.l1 * torch.cat(gates).abs().mean() if gates and self.l1 else None

    @torch.no_grad()
    def after_step(self, state: State, layers: Layers, step: int) -> None:
        schedule = Schedule(**state["schedule"])
        if schedule.falling(step):
            keep = self._select(state, layers, schedule.at(step))
            self._shrink(state, layers, keep)
            state["ranks"] = {name: int(layer.g[: layer.initial].count_nonzero()) for name, layer in layers.items()}
            state["zero"] = {name: layer.g == 0 for name, layer in layers.items()}
        for name, zero in state["zero"].items() if step > schedule.steps - schedule.final else ():
            layers[name].g[zero] = 0.0

    def allocated(self, state: State, layers: Layers) -> RankPattern:
        return RankPattern(state["ranks"])

    def finish(self, state: State, layers: Layers) -> tuple[RankPattern, ...]:
        return (settle(layers, self._select(state, layers, Schedule(**state["schedule"]).end)),)

    def _select(self, state: State, layers: Layers, amount: int) -> Mask:
        sizes = {name: layer.g[: layer.initial].abs().tolist() for name, layer in layers.items()}
        return Budget.of(amount, state["unit"]).select(sizes, shapes_of(layers))

    def _shrink(self, state: State, layers: Layers, keep: Mask) -> None:
        shapes, budget = shapes_of(layers), Budget.of(0, state["unit"])
        mean = sum(budget.cost(shape) for shape in shapes.values()) / len(shapes)
        costs = {name: budget.cost(shape) / mean for name, shape in shapes.items()}
        kept: list[float] = []
        dropped = [0.0]
        for name, layer in layers.items():
            for size, stays in zip((layer.g[: layer.initial].abs() / costs[name]).tolist(), keep[name], strict=True):
                (kept if stays else dropped).append(size)
        # a cheap component may be kept that is smaller than an expensive one that did not fit
        xi = max(self.xi, min([max(dropped), *kept]))
        for name, layer in layers.items():
            layer.g.copy_(soft_threshold(layer.g, xi * costs[name]))
            layer.g[[index for index, stays in enumerate(keep[name]) if not stays]] = 0.0


def soft_threshold(values: Tensor, threshold: float) -> Tensor:
    """`sign(v) max(|v| - threshold, 0)`: the proximal operator of `threshold * |v|`.

    Example:
        >>> soft_threshold(torch.tensor([1.5, -0.5, -2.0]), 1.0).tolist()
        [0.5, -0.0, -1.0]
    """
    return values.sign() * (values.abs() - threshold).clamp_min(0.0)
