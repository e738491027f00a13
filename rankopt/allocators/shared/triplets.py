"""What methods on triplets (A, g, B) share: smoothed sensitivity, and the penalty that keeps components orthogonal."""

from __future__ import annotations

from collections import defaultdict
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from rankopt.allocators.base import State
from rankopt.importance.sensitivity import smooth, triplet
from rankopt.lowrank.layers import Layers

Decay = Annotated[float, Field(gt=0, lt=1)]
Unsmoothed = Literal["sensitivity", "magnitude", "gate"]
"""An importance read from the present step alone, see `record_importance`."""


def zero_sensitivity(layers: Layers, rank: int) -> State:
    """The moving averages of the first `rank` components of every layer, at zero: "mean" and "variation".

    Layers of one shape are stacked, so that their work is done at once.
    """
    moments = {
        shape: {key: torch.zeros_like(value) for key, value in _stacked(layers, names, rank).items()}
        for shape, names in _alike(layers).items()
    }
    copies = {shape: {key: value.clone() for key, value in tensors.items()} for shape, tensors in moments.items()}
    return {"mean": moments, "variation": copies}


def update_sensitivity(state: State, layers: Layers, beta1: float, beta2: float) -> None:
    """Advance both averages by the current weights and gradients."""
    means, variations, weights, gradients = list[Tensor](), list[Tensor](), list[Tensor](), list[Tensor]()
    for shape, names in _alike(layers).items():
        rank = state["mean"][shape]["g"].shape[1]
        means += state["mean"][shape].values()
        variations += state["variation"][shape].values()
        weights += _stacked(layers, names, rank).values()
        gradients += _stacked(layers, names, rank, gradients=True).values()
    smooth(means, variations, weights, gradients, beta1, beta2)


def record_importance(state: State, layers: Layers, kind: Unsmoothed) -> None:
    """Put an importance of the present step where the averages are, so that `sensitivity` returns it.

    sensitivity: |w dL/dw| of all entries    magnitude: |w| of all entries    gate: |g_i| alone
    """
    for shape, names in _alike(layers).items():
        rank = state["mean"][shape]["g"].shape[1]
        entries = _stacked(layers, names, rank)
        if kind == "sensitivity":
            gradients = _stacked(layers, names, rank, gradients=True)
            entries = {key: value * gradients[key] for key, value in entries.items()}
        for key, value in entries.items():
            counts = kind != "gate" or key == "g"
            state["mean"][shape][key].copy_(value.abs() if counts else torch.zeros_like(value))
            state["variation"][shape][key].fill_(1.0)


def forget_sensitivity(state: State, layers: Layers, layer: str, component: int) -> None:
    """Set the averages of one component back to zero."""
    for shape, names in _alike(layers).items():
        if layer in names:
            for kind in ("mean", "variation"):
                for key, value in state[kind][shape].items():
                    value[names.index(layer)].select(1 if key == "B" else 0, component).zero_()


def sensitivity(state: State, layers: Layers) -> dict[str, list[float]]:
    """The score of every component, `Ibar * Ubar` of the gate plus its means over the factors' entries."""
    scores: dict[str, list[float]] = {}
    for shape, names in _alike(layers).items():
        mean, variation = state["mean"][shape], state["variation"][shape]
        S = triplet(**{key: mean[key] * variation[key] for key in mean}).tolist()
        scores.update(zip(names, S, strict=True))
    return scores


def orthogonality_penalty(layers: Layers) -> Tensor | None:
    """The mean over all active factors of `||A A^T - I||_F` and `||B^T B - I||_F`; None without a component.

    Source: Zhang et al. 2023 (2303.10512), the authors' code: norms are not squared.
    """
    active = [layer.active() for layer in layers.values() if layer.rank]
    if not active:
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
    return total / (2 * len(active))


def _alike(layers: Layers) -> dict[str, list[str]]:
    alike: dict[str, list[str]] = defaultdict(list)
    for name, layer in layers.items():
        alike[f"{layer.shape.fan_out} x {layer.shape.fan_in}"].append(name)
    return alike


@torch.no_grad()
def _stacked(layers: Layers, names: list[str], rank: int, gradients: bool = False) -> dict[str, Tensor]:
    """The factors of layers of one shape, or their gradients: A `(n, r, in)`, B `(n, out, r)`, g `(n, r)`."""
    found = {}
    for key in ("A", "B", "g"):
        values = [getattr(layers[name], key) for name in names]
        if gradients:  # none where the loss does not depend on the factor
            values = [torch.zeros_like(value) if value.grad is None else value.grad for value in values]
        found[key] = torch.stack([value[:, :rank] if key == "B" else value[:rank] for value in values])
    return found
