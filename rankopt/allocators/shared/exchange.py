"""What methods share that move components between layers at a constant budget."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rankopt.allocators.base import State
from rankopt.allocators.shared.phases import Steps, phases, steps_of
from rankopt.allocators.shared.start import init_triplets, smallest_max_rank
from rankopt.core.budget import Budget
from rankopt.core.pattern import RankPattern, Shapes
from rankopt.core.seeds import stream
from rankopt.lowrank.layers import Layers, pattern_of, shapes_of
from rankopt.lowrank.linear import LowRankLinear

Draw = Callable[[Tensor, torch.Generator], Tensor]
"""Draws a new vector, given the layer's active ones as rows."""


def start_exchange(
    layers: Layers, budget: Budget, steps: int, seed: int, warmup: Steps, final: Steps, interval: Steps
) -> State:
    """Start triplets at the uniform pattern, and settle when components move.

    Raises:
        ValueError: when no step lies between warm-up and final phase.
    """
    first, final = phases(warmup, final, steps)
    last = steps - final
    pattern = budget.uniform(shapes_of(layers), smallest_max_rank(layers))
    for name, layer in layers.items():
        init_triplets(layer, name, seed)
        layer.open(pattern[name])
    full = all(layer.rank == layer.max_rank for layer in layers.values())
    return {
        "amount": budget.amount(shapes_of(layers)), "unit": budget.unit, "seed": seed,
        "first": first, "last": last, "interval": max(1, steps_of(interval, steps)),
        "notes": ["model.max_rank leaves no layer room to grow"] if full else [],
    }  # fmt: skip


def exchanges(state: State, step: int, most: int) -> int:
    """How many components move after a step: `round(most (1 - p^3))`, p the progress from warm-up to final phase.

    Example:
        >>> state = {"first": 10, "last": 80, "interval": 7}
        >>> [exchanges(state, step, 4) for step in (10, 11, 17, 52, 73, 80)]
        [0, 0, 4, 3, 1, 0]
    """
    first, last = state["first"], state["last"]
    if not first < step < last or (step - first) % state["interval"]:
        return 0
    progress: float = (step - first) / (last - first)
    return round(most * (1 - progress**3))


def room_beside(layers: Layers, losing: Sequence[str]) -> int:
    """How many components the layers can gain that lose none."""
    return sum(layer.max_rank - layer.rank for name, layer in layers.items() if name not in losing)


def exchange(
    state: State, layers: Layers, losing: Sequence[tuple[str, int]], order: Sequence[str], step: int,
    draw: Draw, gate: Callable[[LowRankLinear], float],
) -> list[tuple[str, int]]:  # fmt: skip
    """Mask components, and open new ones with what that frees of the budget.

    Args:
        losing: the components to mask, (layer, index).
        order: the layers that gain, first the most deserving; one component for each entry.
        step: part of the seed of the new vectors.
        draw: the row of A and the column of B of a new component.
        gate: the gate of a new component.
    Returns:
        The new components.
    """
    for name, index in losing:
        kept = layers[name].m.clone()
        kept[index] = False
        layers[name].mask(kept)
    shapes, budget = shapes_of(layers), Budget.of(state["amount"], state["unit"])
    capacity = {name: layer.max_rank for name, layer in layers.items()}
    new = []
    for name, count in gains(pattern_of(layers), order, budget, shapes, capacity).items():
        layer = layers[name]
        generator = torch.Generator().manual_seed(stream(state["seed"], "new", name, step))
        for _ in range(count):
            index = int((~layer.m).nonzero()[0])
            A, B, _g = (tensor.detach().cpu() for tensor in layer.active())
            a, b, value = draw(A, generator), draw(B.T, generator), gate(layer)
            layer.renew(index, a.to(layer.A.device), b.to(layer.B.device), value)
            new.append((name, index))
    return new


def gains(
    ranks: RankPattern, order: Sequence[str], budget: Budget, shapes: Shapes, capacity: dict[str, int]
) -> dict[str, int]:
    """How many components each layer gains: one for each entry of `order` that still fits the budget, then more of them
    as long as any layer's component fits.

    Example:
        >>> from rankopt.core.pattern import Shape
        >>> ranks, shapes = RankPattern({"a": 1, "b": 1, "c": 2}), dict.fromkeys("abc", Shape(4, 4))
        >>> gains(ranks, ["c", "b", "a"], Budget(ranks=6), shapes, dict.fromkeys("abc", 2))
        {'b': 1, 'a': 1}
    """
    left = budget.amount(shapes) - budget.spent(ranks, shapes)
    gained: Counter[str] = Counter()
    queue, before = [*order, *sorted(ranks)], -1
    while gained.total() > before:
        before = gained.total()
        for name in queue:
            if (cost := budget.cost(shapes[name])) <= left and ranks[name] + gained[name] < capacity[name]:
                gained[name] += 1
                left -= cost
    return dict(gained)
