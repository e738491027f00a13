"""LoRA-drop: train briefly, keep the layers whose adapters' outputs are large, and start again with those."""

from __future__ import annotations

import re
from typing import Annotated

import torch
from pydantic import Field

from rankopt.allocators.base import Allocator, Probe, State
from rankopt.allocators.shared.adam import adam
from rankopt.allocators.shared.start import smallest_max_rank, start_pattern
from rankopt.core.budget import Budget
from rankopt.core.pattern import RankPattern
from rankopt.importance.double import double
from rankopt.lowrank.layers import Layers, shapes_of


class LoRADrop(Allocator):
    """Spend the budget evenly on the layers with the largest adapter outputs, as measured in a short training.

        g_k = mean over tokens of ||s B_k A_k x||^2;   I_k = g_k / sum of g over the layers of k's kind
        of every kind keep the fewest layers whose I add up to `threshold`

    A kind is what layers of different blocks have in common in their names, for example all query layers. The short
    training takes one Adam step on A and B for each batch, with the head as it starts; then A and B start anew.

    Args:
        batches: batches of the short training.
        lr: its learning rate.
        threshold: the share of the outputs that is kept, T.
    Example:
        >>> LoRADrop(batches=8).threshold
        0.9

    Source: Zhou et al. 2025 (2402.07721). The formula, and T = 0.9, are from memory and were not verified: no code was
    released. Departures: layers that are not kept have no adapter, where in the paper they
    share one; the budget and not the threshold fixes the size, so kept layers get what the others leave; the first
    batches and not a stratified sample. The length and rate of the short training are ours.
    """

    batches: Annotated[int, Field(ge=1)] = 32
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-3
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.9

    def start(self, layers: Layers, budget: Budget, steps: int, seed: int) -> State:
        shapes = shapes_of(layers)
        start_pattern(layers, budget.uniform(shapes, smallest_max_rank(layers)), seed)
        return {"amount": budget.amount(shapes), "unit": budget.unit, "seed": seed}

    @torch.no_grad()
    def prepare(self, state: State, layers: Layers, probe: Probe) -> None:
        max_rank, shapes = smallest_max_rank(layers), shapes_of(layers)
        budget = Budget.of(state["amount"], state["unit"])
        level = min(max_rank, max(1, round(budget.level(shapes))))
        start_pattern(layers, RankPattern(dict.fromkeys(layers, level)), state["seed"])
        outputs = self._train(layers, probe)
        state["measured"] = {"adapter output": outputs}
        kept = largest(outputs, self.threshold)
        # all others only once the kept layers are full
        weights = {name: 1.0 if name in kept else 1e-9 for name in layers}
        start_pattern(layers, budget.share(weights, shapes, max_rank), state["seed"])

    def _train(self, layers: Layers, probe: Probe) -> dict[str, float]:
        """Train A and B on the first batches, and return the mean squared norm of each adapter's output on them."""
        factors = {name: layer.active()[:2] for name, layer in layers.items()}
        moments = {
            (name, index): (torch.zeros_like(factor), torch.zeros_like(factor))
            for name, pair in factors.items()
            for index, factor in enumerate(pair)
        }
        for step, batch in enumerate(probe.gradients(self.batches), 1):
            for name, (X, dY) in batch.items():
                (A, B), s = factors[name], layers[name].s
                gradients = s * (dY @ B).T @ X, s * dY.T @ (X @ A.T)
                for index, gradient in enumerate(gradients):
                    adam(factors[name][index], gradient, *moments[name, index], step, self.lr)
        totals, tokens = dict.fromkeys(layers, 0.0), dict.fromkeys(layers, 0)
        for inputs in probe.inputs(self.batches):
            for name, X in inputs.items():
                A, B = factors[name]
                totals[name] += float(double(layers[name].s * (X @ A.T) @ B.T).square().sum())
                tokens[name] += len(X)
        return {name: totals[name] / max(tokens[name], 1) for name in layers}


def largest(outputs: dict[str, float], threshold: float) -> set[str]:
    """Of every kind of layer, the fewest that hold the share `threshold` of its outputs.

    Example:
        >>> sorted(largest({"0.q": 1.0, "1.q": 8.0, "2.q": 1.0, "0.v": 3.0}, 0.8))
        ['0.v', '1.q']
    """
    kinds: dict[str, list[str]] = {}
    for name in sorted(outputs, key=lambda name: (-outputs[name], name)):
        kinds.setdefault(re.sub(r"\d+", "*", name), []).append(name)
    kept: set[str] = set()
    for names in kinds.values():
        total, held = sum(outputs[name] for name in names), 0.0
        for name in names:
            if held < threshold * total * (1 - 1e-12):
                kept.add(name)
            held += outputs[name]
    return kept
