"""The groups of parameters that are trained, each with its own learning rate and weight decay."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from rankopt.lowrank.layers import Layers
from rankopt.tuners.base import head_modules


def parameter_groups(
    layers: Layers, model: nn.Module, head: Iterable[str], lr: float, head_lr: float, decay: float, decays_gates: bool,
    others: Iterable[nn.Parameter] = (),
) -> list[dict[str, Any]]:  # fmt: skip
    """Adapter factors, gates, matrices and vectors of other tuners and of the head, without empty groups.

    Args:
        layers: the adapted layers of `model`.
        model: contains the head.
        head: full names of the modules trained in full.
        lr: of factors, gates and other tuners.
        head_lr: of the head.
        decay: weight decay of factors and matrices; vectors are not decayed.
        decays_gates: whether trained gates are decayed too.
        others: what other tuners train.
    """
    factors = [factor for layer in layers.values() for factor in (layer.A, layer.B)]
    gates = [layer.g for layer in layers.values() if layer.g.requires_grad]
    tensors = [p for module in head_modules(model, tuple(head)).values() for p in module.parameters()]
    tuned = list(others)
    groups = [
        {"params": factors, "lr": lr, "weight_decay": decay},
        {"params": gates, "lr": lr, "weight_decay": decay if decays_gates else 0.0},
        {"params": [p for p in tuned if p.ndim > 1], "lr": lr, "weight_decay": decay},
        {"params": [p for p in tuned if p.ndim <= 1], "lr": lr, "weight_decay": 0.0},
        {"params": [p for p in tensors if p.ndim > 1], "lr": head_lr, "weight_decay": decay},
        {"params": [p for p in tensors if p.ndim <= 1], "lr": head_lr, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
