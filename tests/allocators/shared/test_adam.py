"""Adam against torch's."""

from __future__ import annotations

import torch

from rankopt.allocators.shared.adam import adam


def test_adam_is_torchs() -> None:
    torch.manual_seed(0)
    ours, theirs = torch.randn(5), torch.nn.Parameter(torch.empty(5))
    theirs.data.copy_(ours)
    optimizer = torch.optim.Adam([theirs], lr=0.1)
    mean, square = torch.zeros(5), torch.zeros(5)
    for step in range(1, 8):
        theirs.grad = torch.randn(5)
        adam(ours, theirs.grad, mean, square, step, 0.1)
        optimizer.step()
    torch.testing.assert_close(ours, theirs.detach())
