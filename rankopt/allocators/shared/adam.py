"""Adam for values that the trial's optimiser does not hold."""

from __future__ import annotations

from torch import Tensor


def adam(values: Tensor, gradient: Tensor, mean: Tensor, square: Tensor, step: int, lr: float) -> None:
    """One step of Adam (0.9, 0.999, 1e-8), in place; `mean` and `square` are its moments, zero before step 1."""
    mean.lerp_(gradient, 0.1)
    square.lerp_(gradient.square(), 0.001)
    values -= lr * (mean / (1 - 0.9**step)) / ((square / (1 - 0.999**step)).sqrt() + 1e-8)
