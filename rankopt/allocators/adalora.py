"""AdaLoRA: start with more components than the budget, and drop the least sensitive ones as training goes on."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from rankopt.allocators.base import Allocator, State, Steps, init_triplets, smallest_max_rank, steps_of
from rankopt.core.budget import Budget, Mask, Schedule
from rankopt.core.pattern import RankPattern
from rankopt.importance.sensitivity import smooth, triplet
from rankopt.lowrank.layers import Layers, pattern_of, shapes_of
from rankopt.lowrank.scale import ScalePolicy

Decay = Annotated[float, Field(gt=0, lt=1)]


class AdaLoRA(Allocator):
    """Suppress the gates of the components with the lowest sensitivity, under a budget that falls cubically.

        S_i = s(g_i) + mean_j s(B_ji) + mean_j s(A_ij),   s(w) = Ibar(w) Ubar(w),   I(w) = |w dL/dw|
        keep the b(t) highest S over all layers;   g_i <- 0 for the others
        loss + orthogonality * mean over factors (||A A^T - I||_F, ||B^T B - I||_F)

    A suppressed gate still receives gradient and may come back; the mask is set once, at the end. Gradients are those
    of the clipped, penalised loss, taken with the weights after the step, as in the authors' code.

    Args:
        initial: budget at the start over the budget at the end; the initial rank is rounded up, and capped at
            `model.max_rank`.
        warmup: steps before the budget falls, t_i.
        final: steps after it has fallen, t_f.
        interval: steps between two selections while it falls, deltaT; in the final phase every step selects.
        beta1: decay of the sensitivity's mean.
        beta2: decay of its variation.
        orthogonality: weight gamma of the penalty.
    Example:
        >>> AdaLoRA(warmup=0.1, final=0.3).initial
        1.5

    Source: Zhang et al. 2023 (2303.10512), algorithm 1, and the authors' code where the two differ: the schedule of
    `Schedule`, un-squared norms averaged over the factors. Departures: exactly b(t) components survive a tie at the
    threshold, where the code drops all tied ones; the scale is alpha / R without the code's 1e-5; a budget in
    parameters ranks components by S per parameter.
    """

    scales: ClassVar[frozenset[ScalePolicy]] = frozenset({"init", "rs", "unit"})

    initial: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.5
    warmup: Steps = 0.13
    final: Steps = 0.48
    interval: Annotated[int, Field(ge=1)] = 1
    beta1: Decay = 0.85
    beta2: Decay = 0.85
    orthogonality: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.1

    def start(self, layers: Layers, budget: Budget, steps: int, seed: int) -> State:
        shapes = shapes_of(layers)
        warmup, final = steps_of(self.warmup, steps), steps_of(self.final, steps)
        if warmup + final >= steps:
            raise ValueError(
                f"allocator.warmup + allocator.final must be fewer than the trial's {steps} steps, "
                f"got {warmup} + {final}; give them as fractions, or train longer"
            )
        level = sum(budget.cost(shape) for shape in shapes.values())
        # 1.1 x 10 is 11, and not the 12 that its rounding error would make of it
        rank = min(smallest_max_rank(layers), math.ceil(self.initial * budget.amount(shapes) / level - 1e-9))
        for name, layer in layers.items():
            init_triplets(layer, name, seed)
            layer.open(rank)
        end = min(budget.amount(shapes), rank * level)
        schedule = Schedule(start=rank * level, end=end, steps=steps, warmup=warmup, final=final)
        moments = {
            shape: {key: torch.zeros_like(value) for key, value in _stacked(layers, names).items()}
            for shape, names in _alike(layers).items()
        }
        return {
            "schedule": schedule.model_dump(),
            "unit": budget.unit,
            "ranks": dict.fromkeys(layers, rank),
            "notes": [f"max_rank {rank} leaves adalora nothing to drop"] if 0 < end == rank * level else [],
            "mean": moments,
            "variation": {shape: {k: v.clone() for k, v in tensors.items()} for shape, tensors in moments.items()},
        }

    def penalty(self, state: State, layers: Layers) -> Tensor | None:
        active = [layer.active() for layer in layers.values() if layer.rank]
        if not active or self.orthogonality == 0:
            return None
        alike: dict[tuple[str, torch.Size], list[Tensor]] = defaultdict(list)
        for A, B, _ in active:
            alike["A", A.shape].append(A)
            alike["B", B.shape].append(B)
        total = torch.zeros((), device=active[0][0].device)
        for (factor, _), same in alike.items():  # one batched product for all factors of a shape
            stack = torch.stack(same)
            gram = stack @ stack.mT if factor == "A" else stack.mT @ stack
            total = total + torch.linalg.matrix_norm(gram - torch.eye(gram.shape[1], device=gram.device)).sum()
        return self.orthogonality * total / (2 * len(active))

    def after_step(self, state: State, layers: Layers, step: int) -> None:
        schedule = Schedule(**state["schedule"])
        if step < schedule.steps - schedule.final:
            self._score(state, layers)
        if step > schedule.steps - schedule.final or (schedule.falling(step) and step % self.interval == 0):
            keep = _select(state, layers, schedule.at(step))
            _suppress(layers, keep)
            state["ranks"] = {name: sum(kept) for name, kept in keep.items()}

    def allocated(self, state: State, layers: Layers) -> RankPattern:
        return RankPattern(state["ranks"])

    def finish(self, state: State, layers: Layers) -> tuple[RankPattern, ...]:
        keep = _select(state, layers, Schedule(**state["schedule"]).end)
        _suppress(layers, keep)
        for name, layer in layers.items():
            kept = torch.tensor(keep[name] + [False] * (layer.max_rank - layer.initial), device=layer.m.device)
            layer.mask(kept)
            layer.permute(torch.argsort(~kept, stable=True))
        return (pattern_of(layers),)

    def _score(self, state: State, layers: Layers) -> None:
        means, variations, weights, gradients = list[Tensor](), list[Tensor](), list[Tensor](), list[Tensor]()
        for shape, names in _alike(layers).items():
            means += state["mean"][shape].values()
            variations += state["variation"][shape].values()
            weights += _stacked(layers, names).values()
            gradients += _stacked(layers, names, gradients=True).values()
        smooth(means, variations, weights, gradients, self.beta1, self.beta2)


def _alike(layers: Layers) -> dict[str, list[str]]:
    """The layers of every shape, whose work is done at once."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name, layer in layers.items():
        alike[f"{layer.shape.fan_out} x {layer.initial} x {layer.shape.fan_in}"].append(name)
    return alike


@torch.no_grad()
def _stacked(layers: Layers, names: list[str], gradients: bool = False) -> dict[str, Tensor]:
    """The factors of layers of one shape, or their gradients, as far as the initial rank r: A `(n, r, in)`,
    B `(n, out, r)`, g `(n, r)`."""
    found, r = {}, layers[names[0]].initial
    for key in ("A", "B", "g"):
        values = [getattr(layers[name], key) for name in names]
        if gradients:  # none where the loss does not depend on the factor
            values = [torch.zeros_like(value) if value.grad is None else value.grad for value in values]
        found[key] = torch.stack([value[:, :r] if key == "B" else value[:r] for value in values])
    return found


def _select(state: State, layers: Layers, amount: int) -> Mask:
    importance: dict[str, list[float]] = {}
    for shape, names in _alike(layers).items():
        mean, variation = state["mean"][shape], state["variation"][shape]
        S = triplet(**{key: mean[key] * variation[key] for key in mean}).tolist()
        importance.update(zip(names, S, strict=True))
    return Budget.of(amount, state["unit"]).select(importance, shapes_of(layers))


@torch.no_grad()
def _suppress(layers: Layers, keep: Mask) -> None:
    for name, layer in layers.items():
        gone = [index for index, kept in enumerate(keep[name]) if not kept]
        layer.g[gone] = 0.0
