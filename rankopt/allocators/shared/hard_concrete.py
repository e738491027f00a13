"""The hard-concrete distribution: stochastic gates in [0, 1] that are exactly 0 or 1 with positive probability."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LOW, HIGH = -0.1, 1.1
"""Ends of the stretched interval, gamma and zeta."""
TEMPERATURE = 2 / 3


def sample(log_alpha: Tensor, noise: Tensor) -> Tensor:
    """A gate for every location parameter.

        q = sigmoid((log u - log(1 - u) + log_alpha) / tau);   z = clip(q (zeta - gamma) + gamma, 0, 1)

    Args:
        log_alpha: locations, any shape.
        noise: u in (0, 1), the same shape.

    Source: Louizos et al. 2018 (1712.01312), equations 10 and 11.
    """
    logits = noise.log() - (1 - noise).log() + log_alpha
    return _stretched(torch.sigmoid(logits / TEMPERATURE))


def slope(log_alpha: Tensor, noise: Tensor) -> Tensor:
    """The derivative of `sample` with respect to `log_alpha`; 0 where the gate is clipped."""
    q = torch.sigmoid((noise.log() - (1 - noise).log() + log_alpha) / TEMPERATURE)
    inside = (q * (HIGH - LOW) + LOW > 0) & (q * (HIGH - LOW) + LOW < 1)
    return torch.where(inside, q * (1 - q) * (HIGH - LOW) / TEMPERATURE, torch.zeros_like(q))


def mean_gate(log_alpha: Tensor) -> Tensor:
    """The gate at evaluation, without noise: `clip(sigmoid(log_alpha) (zeta - gamma) + gamma, 0, 1)`.

    Example:
        >>> mean_gate(torch.tensor([-9.0, 0.0, 9.0])).tolist()
        [0.0, 0.5, 1.0]
    """
    return _stretched(torch.sigmoid(log_alpha))


def open_probability(log_alpha: Tensor) -> Tensor:
    """`P(z > 0) = sigmoid(log_alpha - tau log(-gamma / zeta))`, which is differentiable; equation 12.

    Example:
        >>> [round(value, 3) for value in open_probability(torch.tensor([-9.0, 0.0, 9.0])).tolist()]
        [0.001, 0.832, 1.0]
    """
    return torch.sigmoid(log_alpha - TEMPERATURE * math.log(-LOW / HIGH))


def _stretched(q: Tensor) -> Tensor:
    return (q * (HIGH - LOW) + LOW).clamp(0.0, 1.0)
