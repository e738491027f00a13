"""IncreLoRA: begin with one component in every layer, and add more where the update is the most sensitive."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from rankopt.allocators.base import Allocator, State
from rankopt.allocators.shared.exchange import gains
from rankopt.allocators.shared.phases import Steps, phases, steps_of
from rankopt.allocators.shared.start import init_triplets, smallest_max_rank
from rankopt.allocators.shared.triplets import Decay, orthogonality_penalty
from rankopt.core.budget import Budget
from rankopt.core.pattern import RankPattern
from rankopt.lowrank.layers import Layers, shapes_of
from rankopt.lowrank.linear import LowRankLinear
from rankopt.lowrank.scale import ScalePolicy
from rankopt.lowrank.statistics import WeightGradient

RESERVE = 1e-5
"""The gate of a reserve component."""


class IncreLoRA(Allocator):
    """Grow the layers with the highest scores every `interval` steps, until the budget is used.

        I_k = mean |dW_k * dL/d(dW_k)|,   S_k = Ibar_k Ubar_k, averaged over steps as in `adalora`
        the h layers of the highest S gain `grow` components each, h as small as the budget allows
        loss + orthogonality * mean over factors (||A A^T - I||_F, ||B^T B - I||_F)

    Every layer also has `grow` reserve components, with a gate fixed at 1e-5, whose factors train in advance. When the
    layer grows they become ordinary components, and new reserves open as far as `model.max_rank` allows. The learning
    rate of what is new rises linearly over `restart_warmup` steps: of factors from when they open, of gates from when
    they become ordinary. Reserves are dropped once the budget is used. While layers grow, a step costs one more dense
    product for each layer.

    Args:
        warmup: steps before the first growth.
        final: steps after the last.
        interval: steps between two.
        grow: components that a layer gains at once; half of the budget's uniform rank when absent.
        restart_warmup: steps of the warm-up of new components.
        beta1: decay of the score's mean.
        beta2: decay of its variation.
        orthogonality: weight of the penalty.
    Example:
        >>> IncreLoRA(grow=1).interval
        0.02

    Source: Zhang et al. 2023 (2308.12043) and the authors' code. Departures: the scale belongs to the budget's uniform
    rank throughout, because alpha / r would shrink a layer's update whenever the layer grows; the score takes the mean,
    as in the paper, where the code's sum / sqrt(size) favours large layers; it uses the weights after the step; the
    schedule follows from the budget, which is met exactly.
    """

    scales: ClassVar[frozenset[ScalePolicy]] = frozenset({"init", "rs", "unit"})
    starts_as_base: ClassVar[bool] = False

    warmup: Steps = 0.05
    final: Steps = 0.5
    interval: Annotated[Steps, Field(gt=0)] = 0.02
    grow: Annotated[int, Field(ge=1)] | None = None
    restart_warmup: Steps = 0.02
    beta1: Decay = 0.85
    beta2: Decay = 0.85
    orthogonality: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.1

    def start(self, layers: Layers, budget: Budget, steps: int, seed: int) -> State:
        first, final = phases(self.warmup, self.final, steps)
        last = steps - final
        shapes = shapes_of(layers)
        level = min(smallest_max_rank(layers), max(1, round(budget.level(shapes))))
        interval, grow = max(1, steps_of(self.interval, steps)), self.grow or max(1, round(level / 2))
        ranks = budget.share(dict.fromkeys(layers, 1.0), shapes, 1)
        each = grow * sum(budget.cost(shape) for shape in shapes.values()) / len(shapes)
        missing = budget.amount(shapes) - budget.spent(ranks, shapes)
        for name, layer in layers.items():
            init_triplets(layer, name, seed)
            layer.open(level)
            WeightGradient().watch(layer)
        state = {
            "amount": budget.amount(shapes), "unit": budget.unit, "first": first, "last": last, "interval": interval,
            "grow": grow, "layers": math.ceil(missing / (each * math.ceil((last - first) / interval))),
            "restart": max(1, steps_of(self.restart_warmup, steps)), "ranks": dict(ranks), "before": {},
            "growing": bool(gains(ranks, [], budget, shapes, {name: layer.max_rank for name, layer in layers.items()})),
            "mean": dict.fromkeys(layers, 0.0), "variation": dict.fromkeys(layers, 0.0),
            "opened": {name: [0] * layer.max_rank for name, layer in layers.items()},
            "trained": {name: [0] * layer.max_rank for name, layer in layers.items()},
        }  # fmt: skip
        self._open(state, layers, 0)
        return state

    @torch.no_grad()
    def before_step(self, state: State, layers: Layers, step: int) -> None:
        for name, layer in layers.items():
            layer.statistics.on = state["growing"]
            begun = list(map(max, state["opened"][name], state["trained"][name]))
            indices = [i for i in range(layer.rank) if begun[i] and step - begun[i] < state["restart"]]
            if indices:
                values = layer.A[indices].clone(), layer.B[:, indices].clone(), layer.g[indices].clone()
                state["before"][name] = (indices, *values)

    def penalty(self, state: State, layers: Layers) -> Tensor | None:
        total = orthogonality_penalty(layers) if self.orthogonality else None
        return None if total is None else self.orthogonality * total

    @torch.no_grad()
    def after_step(self, state: State, layers: Layers, step: int) -> None:
        for name, (indices, A, B, g) in state["before"].items():
            layer = layers[name]
            opened = self._pace(state, [state["opened"][name][i] for i in indices], step).to(A.device)
            trained = self._pace(state, [state["trained"][name][i] for i in indices], step).to(A.device)
            layer.A[indices] = torch.lerp(A, layer.A[indices], opened[:, None])
            layer.B[:, indices] = torch.lerp(B, layer.B[:, indices], opened)
            layer.g[indices] = torch.lerp(g, layer.g[indices], trained)
        state["before"] = {}
        if state["growing"]:
            for name, layer in layers.items():
                layer.g[state["ranks"][name] :] = RESERVE
            self._score(state, layers)
            due = step > state["first"] and (step - state["first"]) % state["interval"] == 0
            if due or step == state["last"]:
                self._grow(state, layers, step)

    def allocated(self, state: State, layers: Layers) -> RankPattern:
        return RankPattern(state["ranks"])

    def finish(self, state: State, layers: Layers) -> tuple[RankPattern, ...]:
        for name, layer in layers.items():
            layer.keep(state["ranks"][name])
        return (RankPattern(state["ranks"]),)

    def _pace(self, state: State, since: list[int], step: int) -> Tensor:
        """Shares of the learning rate, for components that are new since some steps; 1 for those of the start."""
        return torch.tensor([min(1.0, (step - begun) / state["restart"]) if begun else 1.0 for begun in since])

    def _score(self, state: State, layers: Layers) -> None:
        found = {}
        for name, layer in layers.items():
            gradient = layer.statistics.take()
            found[name] = torch.zeros(()) if gradient is None else sensitivity(layer, gradient)
        for name, value in zip(found, torch.stack([value.cpu() for value in found.values()]).tolist(), strict=True):
            mean = self.beta1 * state["mean"][name] + (1 - self.beta1) * value
            state["mean"][name] = mean
            state["variation"][name] = self.beta2 * state["variation"][name] + (1 - self.beta2) * abs(value - mean)

    def _grow(self, state: State, layers: Layers, step: int) -> None:
        shapes, budget, ranks = shapes_of(layers), Budget.of(state["amount"], state["unit"]), state["ranks"]
        capacity = {name: layer.max_rank for name, layer in layers.items()}
        best = sorted(layers, key=lambda name: (-state["mean"][name] * state["variation"][name], name))
        if step < state["last"]:
            chosen = [name for name in best if ranks[name] < capacity[name]][: state["layers"]]
            capacity = {name: min(capacity[name], ranks[name] + state["grow"] * (name in chosen)) for name in layers}
        for name, count in gains(RankPattern(ranks), best, budget, shapes, capacity).items():
            for index in range(ranks[name], ranks[name] + count):
                state["trained"][name][index] = step
            ranks[name] += count
        full = {name: layer.max_rank for name, layer in layers.items()}
        state["growing"] = step < state["last"] and bool(gains(RankPattern(ranks), best, budget, shapes, full))
        self._open(state, layers, step)

    @torch.no_grad()
    def _open(self, state: State, layers: Layers, step: int) -> None:
        """Open the ordinary components, and the reserves while layers grow."""
        for name, layer in layers.items():
            reserve = state["grow"] if state["growing"] else 0
            rank = min(layer.max_rank, state["ranks"][name] + reserve)
            for index in range(layer.rank, rank) if step else ():
                state["opened"][name][index] = step
                layer.renewed.append(index)
            layer.keep(rank)
            layer.g[state["ranks"][name] :] = RESERVE


@torch.no_grad()
def sensitivity(layer: LowRankLinear, gradient: Tensor) -> Tensor:
    """`mean |dW * dL/d(dW)|` over the entries of a layer's update.

    Args:
        layer: the layer, reserves included.
        gradient: `(out, in)`.
    """
    return (layer.update() * gradient).abs().mean()
