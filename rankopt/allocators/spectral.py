"""Spectral truncation: train at a high rank, then keep the largest singular directions of the updates."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from rankopt.allocators.base import Allocator, State
from rankopt.allocators.shared.phases import Steps, steps_of
from rankopt.allocators.shared.reorder import reorder
from rankopt.allocators.shared.start import smallest_max_rank, start_pattern
from rankopt.allocators.shared.truncation import Rule, check_rule, smaller_cuts, spectral_pattern
from rankopt.core.budget import Budget
from rankopt.core.pattern import RankPattern
from rankopt.lowrank.layers import Layers, apply_pattern, pattern_of, shapes_of
from rankopt.lowrank.scale import ScalePolicy
from rankopt.lowrank.statistics import ProjectedMoment


class Spectral(Allocator):
    """Truncate each trained update `s B A = U S V^T` to its first r_k singular directions, within the budget.

        global   the largest S^2 over all layers
        cost     the largest S^2 / (in + out): the most kept energy for a parameter budget
        energy   the share tau of every layer's energy, with the largest tau that fits the budget
        uniform  the same rank for every layer

    The directions are written back as components in descending order, both factors with the same norm. Half and a
    quarter of the budget are scored as well. With `calibration`, S are the singular values in the norm weighted by the
    layer's inputs, so that the expected squared error of its outputs counts:

        s B diag(g) H^(1/2) = U S V^T,   H = E[(A x)(A x)^T] over the last `calibration` steps before the truncation

    Args:
        rule: how layers compete.
        initial_rank: rank of every layer before the truncation (default: `model.max_rank`).
        recovery: steps after the truncation, on the kept components, as the end of the same schedule.
        calibration: steps over which H is measured, padding included; 0 weights all inputs equally.
    Example:
        >>> Spectral(rule="energy", recovery=0.2).recovery
        0.2

    Source: the singular value view of LoRA; "energy" is PEFT's `convert_to_lora`, "global" is PARA (2604.27796),
    "uniform" is the post-hoc form of LoRA-Squeeze (2602.10993).
    """

    scales: ClassVar[frozenset[ScalePolicy]] = frozenset({"init", "rs", "unit"})

    rule: Rule = "global"
    initial_rank: Annotated[int, Field(ge=1)] | None = None
    recovery: Steps = 0.0
    calibration: Annotated[int, Field(ge=0)] = 0

    def start(self, layers: Layers, budget: Budget, steps: int, seed: int) -> State:
        max_rank = smallest_max_rank(layers)
        rank = self.initial_rank or max_rank
        if rank > max_rank:
            raise ValueError(f"allocator.initial_rank must be at most model.max_rank {max_rank}, got {rank}")
        recovery = steps_of(self.recovery, steps)
        if recovery >= steps:
            raise ValueError(f"allocator.recovery must be fewer than the trial's {steps} steps, got {recovery}")
        shapes = shapes_of(layers)
        check_rule(self.rule, budget, shapes)
        if budget.amount(shapes) == 0:
            rank = 0  # train the head only
        start_pattern(layers, RankPattern(dict.fromkeys(layers, rank)), seed)
        for layer in layers.values() if self.calibration and rank else ():
            ProjectedMoment().watch(layer)
        amount, unit = budget.amount(shapes), budget.unit
        return {"cut": steps - recovery, "amount": amount, "unit": unit, "spectra": {}, "moments": {}}

    def before_step(self, state: State, layers: Layers, step: int) -> None:
        for layer in layers.values():
            if layer.statistics is not None:
                layer.statistics.on = state["cut"] - self.calibration < step <= state["cut"]

    def after_step(self, state: State, layers: Layers, step: int) -> None:
        for name, layer in layers.items() if state["cut"] - self.calibration < step <= state["cut"] else ():
            if layer.statistics is not None and (moment := layer.statistics.take()) is not None:
                state["moments"][name] = state["moments"].get(name, 0.0) + moment.cpu() / self.calibration
        if step == state["cut"]:
            self._truncate(state, layers)

    def finish(self, state: State, layers: Layers) -> tuple[RankPattern, ...]:
        if not state["spectra"]:
            self._truncate(state, layers)
        own, budget = pattern_of(layers), Budget.of(state["amount"], state["unit"])
        return (own, *smaller_cuts(own, state["spectra"], budget, shapes_of(layers), self.rule))

    def _truncate(self, state: State, layers: Layers) -> None:
        state["spectra"] = {name: reorder(layer, state["moments"].get(name)) for name, layer in layers.items()}
        budget = Budget.of(state["amount"], state["unit"])
        apply_pattern(layers, spectral_pattern(state["spectra"], budget, shapes_of(layers), self.rule))
