"""What the allocator protocol itself computes."""

from __future__ import annotations

import torch

from rankopt.allocators import ALLOCATORS
from rankopt.allocators.base import HOOKS, LayerPass


def test_the_weight_gradient() -> None:
    """dL/dW is autograd's, from inputs and output gradients."""
    torch.manual_seed(0)
    W, X = torch.randn(3, 4, requires_grad=True), torch.randn(7, 4)
    (X @ W.T).square().sum().backward()
    gradients = 2 * (X @ W.T).detach()
    torch.testing.assert_close(LayerPass(X, gradients).weight_gradient(), W.grad)


def test_hooks() -> None:
    """The hooks are the protocol's public methods; an allocator is fixed if `start` is its only hook."""
    assert {"start", "prepare", "before_step", "penalty", "passes", "restart", "after_step", "finish"} <= HOOKS
    assert ALLOCATORS["uniform"].is_fixed()
    assert not ALLOCATORS["adalora"].is_fixed()
