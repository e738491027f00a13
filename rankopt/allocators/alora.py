"""ALoRA: take components away whose ablation hardly changes the loss, and give them to the other layers."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from rankopt.allocators.base import Allocator, Probe, State
from rankopt.allocators.shared.exchange import exchange, room_beside
from rankopt.allocators.shared.gates import settle
from rankopt.allocators.shared.phases import Steps, steps_of
from rankopt.allocators.shared.start import smallest_max_rank, start_pattern
from rankopt.core.budget import Budget
from rankopt.core.pattern import RankPattern
from rankopt.lowrank.layers import Layers, shapes_of
from rankopt.lowrank.scale import ScalePolicy


class ALoRA(Allocator):
    """In each of a few rounds, move the components of the lowest ablation scores to layers that lose none.

        score_i = L(without i) - L(with i alone),   L = the loss of the first training batches, without dropout
        the `most` components of the lowest scores are dropped;   layers that lose none gain as many, in turn

    All layers start with the same rank, so the budget is used from the first step. A new component starts as in LoRA,
    with B = 0. A round costs two forward passes per component and batch.

    Args:
        warmup: steps before the first round.
        interval: steps between two rounds.
        rounds: number of rounds at most; they end with the training.
        most: components moved in a round; as many as there are layers when absent.
        batches: training batches on which the loss is measured.
    Example:
        >>> ALoRA(rounds=4).batches
        1

    Source: Liu et al. 2024 (2403.16187), AB-LoRA and algorithm 1: 8 rounds, one per quarter of an epoch after a first
    epoch, and a batch of 32. Departures: the batch is of the training split and not of a validation split; layers that
    gain are ordered by their mean score, and gain one component each before any gains two; where all layers lose, fewer
    components move, so that the budget stays used.
    """

    scales: ClassVar[frozenset[ScalePolicy]] = frozenset({"init", "rs", "unit"})

    warmup: Steps = 0.2
    interval: Annotated[Steps, Field(gt=0)] = 0.05
    rounds: Annotated[int, Field(ge=1)] = 8
    most: Annotated[int, Field(ge=1)] | None = None
    batches: Annotated[int, Field(ge=1)] = 1

    def start(self, layers: Layers, budget: Budget, steps: int, seed: int) -> State:
        shapes = shapes_of(layers)
        start_pattern(layers, budget.uniform(shapes, smallest_max_rank(layers)), seed)
        full = all(layer.rank == layer.max_rank for layer in layers.values())
        return {
            "amount": budget.amount(shapes), "unit": budget.unit, "seed": seed,
            "first": steps_of(self.warmup, steps), "interval": max(1, steps_of(self.interval, steps)), "steps": steps,
            "notes": ["model.max_rank leaves no layer room to grow"] if full else [],
        }  # fmt: skip

    @torch.no_grad()
    def review(self, state: State, layers: Layers, step: int, probe: Probe) -> None:
        since = step - state["first"]
        due = since >= 0 and since % state["interval"] == 0 and since // state["interval"] < self.rounds
        if not due or step == state["steps"] or not sum(layer.rank for layer in layers.values()):
            return
        scores = ablation_scores(layers, probe, self.batches)
        losing, gaining = choose(scores, layers, self.most or len(layers))
        if losing:
            for name, index in exchange(state, layers, losing, gaining, step, _draw, lambda layer: 1.0):
                layers[name].B[:, index] = 0.0

    def finish(self, state: State, layers: Layers) -> tuple[RankPattern, ...]:
        return (settle(layers, {name: layer.m.tolist() for name, layer in layers.items()}),)


def ablation_scores(layers: Layers, probe: Probe, batches: int) -> dict[tuple[str, int], float]:
    """`L(without i) - L(with i alone)` of every active component, (layer, index)."""
    masks = {name: layer.m.clone() for name, layer in layers.items()}
    scores: dict[tuple[str, int], float] = {}
    for name, layer in layers.items():
        for index in masks[name].nonzero().flatten().tolist():
            only = torch.arange(layer.max_rank, device=layer.m.device) == index
            layer.mask(masks[name] & ~only)
            without = probe.mean_loss(batches)
            for other in layers.values():
                other.keep(0)
            layer.mask(only)
            scores[name, index] = without - probe.mean_loss(batches)
            for each, mask in masks.items():
                layers[each].mask(mask)
    return scores


def choose(scores: dict[tuple[str, int], float], layers: Layers, most: int) -> tuple[list[tuple[str, int]], list[str]]:
    """The components to drop, and the layers that gain, one entry for each component."""
    lowest = sorted(scores, key=lambda component: (scores[component], component))
    losing: list[tuple[str, int]] = []
    for component in lowest[:most]:
        if room_beside(layers, [name for name, _ in [*losing, component]]) > len(losing):
            losing.append(component)
    means = {
        name: sum(score for (of, _), score in scores.items() if of == name) / max(layer.rank, 1)
        for name, layer in layers.items()
    }
    rest = sorted(set(layers) - {name for name, _ in losing}, key=lambda name: (-means[name], name))
    return losing, rest * len(losing)


def _draw(rows: Tensor, generator: torch.Generator) -> Tensor:
    bound = 1 / math.sqrt(rows.shape[1])
    return torch.empty(rows.shape[1]).uniform_(-bound, bound, generator=generator)
