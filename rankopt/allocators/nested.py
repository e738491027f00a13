"""A super-network: one training whose model can be cut to any pattern, and a search for good cuts."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from rankopt.allocators.base import Allocator, Look, Pass, State
from rankopt.allocators.shared.phases import Steps, steps_of
from rankopt.allocators.shared.reorder import reorder
from rankopt.allocators.shared.start import init_lora, smallest_max_rank
from rankopt.analysis.evolution import evolve
from rankopt.analysis.knapsack import knapsack
from rankopt.core.budget import Budget
from rankopt.core.pattern import RankPattern
from rankopt.core.seeds import stream
from rankopt.importance.double import double
from rankopt.lowrank.layers import Layers, apply_pattern, shapes_of
from rankopt.lowrank.scale import ScalePolicy


class Nested(Allocator):
    """Train at rank R, reorder components spectrally, then train random prefixes: every prefix is a usable model.

        steps 1 .. T - t       LoRA at rank R
        after step T - t       s B A = U S V^T:  component i becomes the i-th singular direction
        steps T - t + 1 .. T   recovery: layer k keeps a random prefix b_k, drawn at every step

    R is the largest uniform rank within the budget (default: `model.max_rank`). The trial's own point, rank R in every
    layer, is the model after step T - t, because recovery lowers its score. Smaller patterns are cut from the model
    after step T. For every uniform rank of `curve`, three patterns of at most its cost are scored besides the uniform
    one, found on the search split by forward passes only:

        energy        maximises sum_k sum_{i <= r_k} S_ki^2, by an exact knapsack
        sensitivity   maximises sum_k sum_{i <= r_k} mean (<A_ki, dL/dA_ki>)^2, measured during recovery
        evolved       the highest score found by an evolution from the other patterns; ties by the lowest loss

    Args:
        recipe: "spectral" as above; "scratch" draws prefixes from step 1 and does not reorder.
        recovery: steps t of the recovery; the learning rate schedule restarts at its beginning.
        recovery_lr: the restarted schedule's peak, as a share of the first peak.
        draw: "uniform" b_k ~ U{1, ..., R}; "log" b_k = floor((R + 1)^u), uniform over octaves; "budget" draws a mean
            rank for the network, uniform over octaves, spends it on the largest S^2 per parameter, and multiplies every
            rank by a random factor in 1/2 .. 2. Its octave above R trains the whole network, unless a sandwich does.
        sandwich: with n > 0, a step averages the losses of the whole network, the smallest prefixes and n draws.
        distill: in a sandwich, cuts learn from the outputs of the whole network instead of the labels.
        curve: uniform ranks below R (default: the powers of two).
        looks: patterns that the evolution evaluates for every rank of the curve, besides those it starts from.
    Example:
        >>> Nested(recovery=0.25, draw="log").recipe
        'spectral'

    Source: ours; prefixes: DyLoRA (2210.07558); sandwich and in-place distillation: Yu and Huang 2019 (1903.05134);
    forward-only search: Guo et al. 2020 (1904.00420). <A, dL/dA> is the gate's gradient times the gate.
    """

    scale: ClassVar[ScalePolicy] = "unit"
    scales: ClassVar[frozenset[ScalePolicy]] = frozenset({"init", "rs", "unit"})
    needs_budget: ClassVar[bool] = False

    recipe: Literal["spectral", "scratch"] = "spectral"
    recovery: Steps = 0.2
    recovery_lr: Annotated[float, Field(gt=0, le=1)] = 0.5
    draw: Literal["uniform", "log", "budget"] = "budget"
    sandwich: Annotated[int, Field(ge=0)] = 0
    distill: bool = False
    curve: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    looks: Annotated[int, Field(ge=0)] = 8

    def levels(self, top: int) -> tuple[float, ...]:
        levels = self.curve or tuple(float(2**k) for k in range(top.bit_length()))
        return tuple(level for level in levels if level < top)

    def start(self, layers: Layers, budget: Budget, steps: int, seed: int) -> State:
        recovery = steps_of(self.recovery, steps)
        if recovery >= steps:
            raise ValueError(f"allocator.recovery must be fewer than the trial's {steps} steps, got {recovery}")
        if self.distill and not self.sandwich:
            raise ValueError(
                "allocator.distill must be false without allocator.sandwich, whose whole network is the teacher"
            )
        if self.draw == "budget" and self.recipe == "scratch":
            raise ValueError(
                "allocator.draw must be uniform or log with the recipe 'scratch', which computes no spectra"
            )
        whole = budget.uniform(shapes_of(layers), smallest_max_rank(layers))
        if (top := max(whole.values(), default=0)) and max(self.curve or (0.0,)) > top:
            raise ValueError(f"allocator.curve must hold ranks below the top {top}, got {max(self.curve or ()):g}")
        for name, layer in layers.items():
            init_lora(layer, name, seed)
            layer.open(whole[name])
        cut = 0 if self.recipe == "scratch" else steps - recovery
        return {
            "whole": dict(whole), "cut": cut, "seed": seed, "step": 0, "spectra": {},
            "fisher": {name: torch.zeros(rank) for name, rank in whole.items()},
            "counts": {name: torch.zeros(rank) for name, rank in whole.items()},
        }  # fmt: skip

    def restart(self, steps: int) -> tuple[int, float] | None:
        recovery = steps_of(self.recovery, steps)
        return (steps - recovery, self.recovery_lr) if self.recipe == "spectral" and recovery else None

    def before_step(self, state: State, layers: Layers, step: int) -> None:
        state["step"] = step
        if step > state["cut"]:
            apply_pattern(layers, RankPattern(state["whole"]) if self.sandwich else self._drawn(state, layers, 0))

    def passes(self, state: State, layers: Layers) -> list[Pass]:
        if state["step"] <= state["cut"] or not self.sandwich:
            return []
        smallest = RankPattern({name: min(1, rank) for name, rank in state["whole"].items()})
        drawn = [self._drawn(state, layers, number) for number in range(self.sandwich)]
        return [Pass(pattern, self.distill) for pattern in (smallest, *drawn)]

    def after_step(self, state: State, layers: Layers, step: int) -> None:
        if step > state["cut"]:
            self._measure(state, layers)
        elif step == state["cut"]:
            state["spectra"] = {name: reorder(layer) for name, layer in layers.items()}

    def allocated(self, state: State, layers: Layers) -> RankPattern:
        return RankPattern(state["whole"])

    def finish(self, state: State, layers: Layers) -> tuple[RankPattern, ...]:
        whole = RankPattern(state["whole"])
        apply_pattern(layers, whole)
        return (whole,)

    def choose(
        self, state: State, layers: Layers, look: Callable[[RankPattern], Look]
    ) -> dict[tuple[str, float], RankPattern]:
        shapes, whole = shapes_of(layers), RankPattern(state["whole"])
        state["measured"] = {
            kind: {name: float(curve[-1]) for name, curve in curves.items()} for kind, curves in _gains(state).items()
        }
        chosen: dict[tuple[str, float], RankPattern] = {}
        for level in sorted(self.levels(max(whole.values(), default=0)), reverse=True):
            budget = _budget(level)
            costs, allowed = {name: budget.cost(shapes[name]) for name in whole}, budget.amount(shapes)
            uniform = budget.uniform(shapes, max(whole.values()))
            start = {"uniform": RankPattern({name: min(rank, whole[name]) for name, rank in uniform.items()})}
            start |= measured_patterns(state, layers, level)
            seed = stream(state["seed"], "evolution", f"{level:g}")
            found = start | {
                "evolved": evolve(
                    list(start.values()), costs, allowed, whole, lambda pattern: _rate(look(pattern)), self.looks, seed
                )
            }
            chosen |= {(source, level): pattern for source, pattern in found.items()}
        return chosen

    def _drawn(self, state: State, layers: Layers, number: int) -> RankPattern:
        """A prefix pattern, a function of (seed, step, number)."""
        whole, key = state["whole"], (state["seed"], "draw", state["step"], number)
        bought: dict[str, int] = {}
        if self.draw == "budget":
            top = max(whole.values(), default=0)
            level = (top if self.sandwich else 2 * top) ** Random(stream(*key)).random()
            if level >= top:
                return RankPattern(whole)
            shapes = shapes_of(layers)
            costs = {name: shape.cost for name, shape in shapes.items()}
            bought = dict(_spend(_energies(state), costs, _budget(level).amount(shapes)))
        ranks = {}
        for name, rank in whole.items():
            u = Random(stream(*key, name)).random()
            match self.draw:
                case "uniform":
                    drawn = 1 + int(rank * u)
                case "log":
                    drawn = int((rank + 1) ** u)
                case "budget":
                    drawn = round(bought[name] * 2 ** (2 * u - 1))
            ranks[name] = min(rank, drawn)
        return RankPattern(ranks)

    def _measure(self, state: State, layers: Layers) -> None:
        for name, layer in layers.items():
            rank = layer.rank
            if rank and layer.A.grad is not None:
                slope = (layer.A.detach()[:rank] * layer.A.grad[:rank]).sum(1).square().cpu()
                state["fisher"][name][:rank] += slope
                state["counts"][name][:rank] += 1


def measured_patterns(state: State, layers: Layers, level: float) -> dict[str, RankPattern]:
    """The patterns "energy" and "sensitivity" of at most a uniform rank's cost; nothing is evaluated.

    Args:
        state: of an allocator `nested` after its training.
        layers: the adapted layers.
        level: the uniform rank.
    """
    budget, shapes = _budget(level), shapes_of(layers)
    costs, allowed = {name: budget.cost(shapes[name]) for name in state["whole"]}, budget.amount(shapes)
    return {kind: _spend(curves, costs, allowed) for kind, curves in _gains(state).items()}


def _rate(seen: Look) -> tuple[float, float]:
    return -seen.score, seen.loss


def _budget(level: float) -> Budget:
    return Budget(mean_rank=level, unit="parameters")


def _energies(state: State) -> dict[str, np.ndarray]:
    return {name: _running(double(S).square().cpu().numpy()) for name, S in state["spectra"].items()}


def _gains(state: State) -> dict[str, dict[str, np.ndarray]]:
    """The gain curves of every kind that was measured: kind -> layer -> gain of its first components."""
    gains = {}
    if state["spectra"]:
        gains["energy"] = _energies(state)
    if any(float(count.sum()) for count in state["counts"].values()):
        gains["sensitivity"] = {
            name: _running(double(fisher / state["counts"][name].clamp_min(1)).cpu().numpy())
            for name, fisher in state["fisher"].items()
        }
    return gains


def _running(values: np.ndarray) -> np.ndarray:
    return np.concatenate([[0.0], np.cumsum(values)])


def _spend(curves: dict[str, np.ndarray], costs: dict[str, int], allowed: int) -> RankPattern:
    return knapsack(curves, costs, allowed).at(allowed)
