"""Statistics of what passes through a layer during training, for the methods that need them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial

import torch
from torch import Tensor, nn

from rankopt.lowrank.layers import Layers
from rankopt.lowrank.linear import LowRankLinear


class Statistics(ABC):
    """Sums over the passes of a step, padding included. `take` returns them and starts again.

    Passes without gradients, such as evaluations, are left out. A trial whose layers collect statistics runs its own
    passes in joint training.

    Attributes:
        on: whether passes are counted.
    """

    def __init__(self) -> None:
        self.on = True

    def watch(self, layer: LowRankLinear) -> None:
        """Collect statistics of a layer from now on, in place of those collected before."""
        if layer.statistics is not None:
            layer.statistics.handle.remove()
        layer.statistics = self
        self.handle = layer.register_forward_hook(self._hook)

    def _hook(self, layer: nn.Module, args: tuple[Tensor, ...], y: Tensor) -> None:
        if self.on and torch.is_grad_enabled():
            self.record(args[0].detach(), y)

    @abstractmethod
    def record(self, x: Tensor, y: Tensor) -> None:
        """Add a pass: inputs `(..., in)` and outputs `(..., out)`."""


class InputSquares(Statistics):
    """The sum of squared inputs by feature, and the number of rows."""

    def __init__(self) -> None:
        super().__init__()
        self.squares: Tensor | None = None
        self.rows = 0

    def record(self, x: Tensor, y: Tensor) -> None:
        rows = x.reshape(-1, x.shape[-1]).float()
        squares = rows.square().sum(0)
        self.squares = squares if self.squares is None else self.squares + squares
        self.rows += len(rows)

    def take(self) -> Tensor | None:
        """The mean squared input of every feature, `(in,)`; None without a pass."""
        mean = None if self.squares is None else self.squares / self.rows
        self.squares, self.rows = None, 0
        return mean


class ProjectedMoment(Statistics):
    """The second moment of the projected inputs, E[(A x)(A x)^T], over the active components of each pass."""

    def __init__(self) -> None:
        super().__init__()
        self.total: Tensor | None = None
        self.rows = 0
        self.layer: LowRankLinear | None = None

    def watch(self, layer: LowRankLinear) -> None:
        self.layer = layer
        super().watch(layer)

    def record(self, x: Tensor, y: Tensor) -> None:
        assert self.layer is not None
        h = x.reshape(-1, x.shape[-1]).float() @ self.layer.active()[0].detach().T
        self.total = h.T @ h if self.total is None else self.total + h.T @ h
        self.rows += len(h)

    def take(self) -> Tensor | None:
        """The moment, `(rank, rank)`; None without a pass."""
        moment = None if self.total is None else self.total / self.rows
        self.total, self.rows = None, 0
        return moment


class WeightGradient(Statistics):
    """The gradient of the loss with respect to the update, dL/d(dW) = sum over tokens of dL/dy x^T.

    It equals the frozen weight's gradient, and costs one dense product for each layer and backward pass.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total: Tensor | None = None

    def record(self, x: Tensor, y: Tensor) -> None:
        if y.requires_grad:
            y.register_hook(partial(self._add, x))  # type: ignore[no-untyped-call]

    def _add(self, x: Tensor, dy: Tensor) -> None:
        gradient = dy.reshape(-1, dy.shape[-1]).float().T @ x.reshape(-1, x.shape[-1]).float()
        self.total = gradient if self.total is None else self.total + gradient

    def take(self) -> Tensor | None:
        """The gradient, `(out, in)`; None without a backward pass."""
        total, self.total = self.total, None
        return total


def collects_statistics(layers: Layers) -> bool:
    """Whether any of the layers is watched, and so cannot take part in a joint pass."""
    return any(layer.statistics is not None for layer in layers.values())
