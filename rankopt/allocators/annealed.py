"""LoRA-Squeeze: truncate the updates in several steps, with training in between."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field

from rankopt.allocators.base import Allocator, State
from rankopt.allocators.shared.phases import Steps, steps_of
from rankopt.allocators.shared.reorder import reorder
from rankopt.allocators.shared.start import lora_start, smallest_max_rank, start_pattern
from rankopt.allocators.shared.truncation import Rule, check_rule, smaller_cuts, spectral_pattern
from rankopt.core.budget import Budget
from rankopt.core.pattern import RankPattern
from rankopt.lowrank.layers import Layers, pattern_of, shapes_of
from rankopt.lowrank.scale import ScalePolicy


class Annealed(Allocator):
    """Truncate the updates `s B A = U S V^T` n times during training, to budgets that fall geometrically.

        after step (T - recovery) i / n:   keep what `rule` selects under   b_i = b_0 (b_T / b_0)^(i / n),   i = 1..n

    b_0 is the cost of the initial rank. The kept directions are written back as components, the singular value shared
    between the factors. At the end they are ordered once more, and half and a quarter of the budget are scored as well.

    Args:
        rule: how layers compete, as in `spectral`.
        initial_rank: rank of every layer at the start; `model.max_rank` when absent.
        stages: number of truncations, n.
        recovery: steps trained after the last one.
    Example:
        >>> Annealed(stages=2).rule
        'uniform'

    Source: Vulic et al. 2026 (2602.10993), In-Squeeze, known to us from its abstract and summaries: the schedule is
    ours. Departures:
    exact instead of randomised decompositions; where a smaller budget leaves room that no kept direction can use, a
    component opens as LoRA starts it. Moments: the first is zeroed at a truncation, the second set to its mean.
    """

    scales: ClassVar[frozenset[ScalePolicy]] = frozenset({"init", "rs", "unit"})

    rule: Rule = "uniform"
    initial_rank: Annotated[int, Field(ge=1)] | None = None
    stages: Annotated[int, Field(ge=1)] = 4
    recovery: Steps = 0.25

    def start(self, layers: Layers, budget: Budget, steps: int, seed: int) -> State:
        max_rank, shapes, recovery = smallest_max_rank(layers), shapes_of(layers), steps_of(self.recovery, steps)
        rank = self.initial_rank or max_rank
        if rank > max_rank:
            raise ValueError(f"allocator.initial_rank must be at most model.max_rank {max_rank}, got {rank}")
        if recovery >= steps:
            raise ValueError(f"allocator.recovery must be fewer than the trial's {steps} steps, got {recovery}")
        check_rule(self.rule, budget, shapes)
        amount = budget.amount(shapes)
        if amount == 0:
            rank = 0  # nothing can be kept, so nothing need be trained
        start_pattern(layers, RankPattern(dict.fromkeys(layers, rank)), seed)
        full = max(amount, budget.spent(pattern_of(layers), shapes))
        cuts = {
            round((steps - recovery) * stage / self.stages): round(full * (amount / full) ** (stage / self.stages))
            for stage in range(1, self.stages + 1)
            if full
        }
        return {"cuts": cuts, "amount": amount, "unit": budget.unit, "seed": seed}

    @torch.no_grad()
    def after_step(self, state: State, layers: Layers, step: int) -> None:
        if step not in state["cuts"]:
            return
        spectra = {name: reorder(layer) for name, layer in layers.items()}
        padded = {  # a component that was not open has a singular value of zero
            name: torch.cat([S, torch.zeros(layers[name].max_rank - len(S))]) for name, S in spectra.items()
        }
        budget = Budget.of(state["cuts"][step], state["unit"])
        pattern = spectral_pattern(padded, budget, shapes_of(layers), self.rule)
        for name, layer in layers.items():
            fresh = lora_start(layer, name, state["seed"])
            layer.A[len(spectra[name]) :] = fresh[len(spectra[name]) :].to(layer.A.device)
            layer.keep(pattern[name])
            layer.changed, layer.renewed = False, list(range(layer.max_rank))  # keeps the second moments' size

    def finish(self, state: State, layers: Layers) -> tuple[RankPattern, ...]:
        own, budget = pattern_of(layers), Budget.of(state["amount"], state["unit"])
        spectra = {name: reorder(layer) for name, layer in layers.items()}
        return (own, *smaller_cuts(own, spectra, budget, shapes_of(layers), self.rule))
