"""Sums in float64 on devices that may not have it."""

from __future__ import annotations

from torch import Tensor


def double(x: Tensor) -> Tensor:
    """A tensor in float64; on the CPU if its device has no float64 (Apple's MPS).

    Example:
        >>> import torch
        >>> float(double(torch.ones(3)).square().sum())
        3.0
    """
    return (x.cpu() if x.device.type == "mps" else x).double()
