"""The gated low-rank update of a convolution, as PEFT's LoRA defines it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rankopt.core.pattern import Shape
from rankopt.lowrank.linear import LowRankLinear
from rankopt.lowrank.scale import Scale

KINDS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class LowRankConv(LowRankLinear):
    """A frozen convolution plus a gated, masked low-rank update.

        y = W * x + bias + s B ((g * m) * (A * dropout(x)))

    A is a convolution with the base's kernel size, stride and padding onto R channels, B one with a kernel of size 1.
    On patches of the input, flattened to `in * kernel` entries, both are the factors of a linear map, so allocators
    see the same layer as everywhere: A `(R, in * kernel)`, B `(out, R)`.

    Args:
        base: `nn.Conv1d`, `nn.Conv2d` or `nn.Conv3d` without groups, dilation and padding other than zeros; frozen.
        max_rank: R, the number of components, all masked until `open` is called.
        scale: policy and alpha of s.
        dropout: probability, on the adapter's input.
    Raises:
        ValueError: the convolution has one of these, with which PEFT's layer would compute another update.
    Example:
        >>> layer = LowRankConv(nn.Conv2d(3, 8, kernel_size=2), max_rank=4, scale=Scale("unit", 1.0))
        >>> layer.open(1)
        >>> layer.shape, tuple(layer(torch.zeros(1, 3, 5, 5)).shape)
        (Shape(fan_in=12, fan_out=8), (1, 8, 4, 4))

    Source: Hu et al. 2021 (2106.09685), the authors' `ConvLoRA` and PEFT's `Conv2d`.
    """

    def __init__(self, base: Any, max_rank: int, scale: Scale, dropout: float = 0.0) -> None:
        unlike = {
            "groups": base.groups != 1,
            "dilation": set(base.dilation) != {1},
            "padding_mode": base.padding_mode != "zeros",
        }
        if found := next((name for name, differs in unlike.items() if differs), None):
            raise ValueError(
                f"PEFT adapts no convolution with {found}={getattr(base, found)!r}; leave it out of target_modules"
            )
        super().__init__(base, max_rank, scale, dropout)

    @staticmethod
    def shape_of(base: Any) -> Shape:
        return Shape(base.weight[0].numel(), len(base.weight))

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, in, ...)` to `(batch, out, ...)`."""
        base: Any = self.base
        y: Tensor = base(x)
        if self._rank == 0 or self._unmerged is not None:
            return y
        A, B, g = (factor.to(y.dtype) for factor in self.active())
        down = base._conv_forward(self.dropout(x), A.view(len(A), *base.weight.shape[1:]), None)
        return y + self.s * torch.einsum("or,r,br...->bo...", B, g, down)

    def as_weight(self, update: Tensor) -> Tensor:
        return update.view_as(self.base.weight)


def is_conv(module: nn.Module) -> bool:
    """Whether a module is a convolution, transposed ones excluded."""
    return type(module) in KINDS
