"""One frozen linear map with the adapters of several trials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from rankopt.lowrank.linear import LowRankLinear


def joined_linear(layers: Sequence[LowRankLinear], x: Tensor) -> Tensor:
    """Apply J adapted maps with the same frozen weight, each to its own rows: one dense product, batched thin products.

        y_j = W x_j + bias + s_j B_j ((g_j * m_j) * (A_j x_j)),   j = 1..J

    Results and gradients are those of the separate layers, up to rounding; a NaN in one trial does not reach another.
    Factors are truncated to the largest active rank. As in a separate layer, a layer of rank 0 gets no gradient, and
    masked and frozen components get zeros.

    Args:
        layers: J layers with equal frozen weights, without dropout.
        x: `(J, n, in)`, n rows per layer.
    Returns:
        `(J, n, out)`; in autocast's dtype if autocast is enabled.
    Example:
        >>> from rankopt.lowrank.scale import Scale
        >>> base = torch.nn.Linear(4, 3)
        >>> layers = [LowRankLinear(base, max_rank=2, scale=Scale("unit", 1.0)) for _ in range(2)]
        >>> tuple(joined_linear(layers, torch.zeros(2, 5, 4)).shape)
        (2, 5, 3)
    """
    first = layers[0]
    weight: Tensor = first.base.weight
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
        weight = first.rounded(x.dtype)
    weight, bias = weight.T if first.transposed else weight, first.base.bias
    acting = [j for j, layer in enumerate(layers) if layer.rank]
    if not acting:
        with torch.autocast(x.device.type, enabled=False):
            return functional.linear(x, weight, bias if bias is None else bias.to(x.dtype))
    extent = max(_extent(layer) for layer in layers)
    device = x.device
    m = torch.stack([_padded(layer.m, extent) for layer in layers])
    scale = m * torch.tensor([layer.s for layer in layers], dtype=first.A.dtype, device=device)[:, None]
    trained = m
    if any(layer.frozen for layer in layers):
        trained = m & (m.cumsum(1) > torch.tensor([layer.frozen for layer in layers], device=device)[:, None])
    factors = [getattr(layers[j], name) for name in ("A", "B", "g") for j in acting]
    rows = torch.tensor(acting, device=device) if len(acting) < len(layers) else None
    if rows is not None:
        scale, trained = scale[rows], trained[rows]
    y: Tensor = _Joined.apply(x, weight, bias, scale, trained, rows, *factors)  # type: ignore[no-untyped-call]
    return y


class _Joined(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, scale: Tensor, trained: Tensor, rows: Tensor | None,
        *factors: Tensor,
    ) -> Tensor:  # fmt: skip
        count, extent = scale.shape
        A = torch.stack([_padded(value, extent) for value in factors[:count]])  # (J, r, in)
        B = torch.stack([_padded(value, extent, 1) for value in factors[count : 2 * count]])  # (J, out, r)
        gate = torch.stack([_padded(value, extent) for value in factors[2 * count :]])  # (J, r)
        ctx.save_for_backward(x, weight, scale, trained, rows, A, B, gate)
        ctx.ranks = [len(value) for value in factors[:count]]
        with torch.autocast(x.device.type, enabled=False):
            y = functional.linear(x, weight, bias if bias is None else bias.to(x.dtype))
            up = torch.bmm(_rows(x, rows), A.mT.to(x.dtype)).mul_((gate * scale).to(x.dtype)[:, None])
            if rows is None:
                return y.baddbmm_(up, B.mT.to(x.dtype))
            return y.index_add_(0, rows, torch.bmm(up, B.mT.to(x.dtype)))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale, trained, rows, A, B, gate = ctx.saved_tensors
        needed = ctx.needs_input_grad[6:]
        count = len(ctx.ranks)
        slopes: list[Tensor | None] = [None] * len(needed)
        with torch.autocast(x.device.type, enabled=False):
            factor = (gate * scale).to(x.dtype)[:, None]
            own, slope = _rows(x, rows), _rows(dy, rows)
            down = torch.bmm(slope, B.to(x.dtype))
            up = torch.bmm(own, A.mT.to(x.dtype))
            if any(needed[2 * count :]):
                dgate = (down * up).sum(1, dtype=gate.dtype) * scale * trained
                slopes[2 * count :] = _unstacked(dgate, ctx.ranks)
            # thin products as in `gated`; contiguous slices become gradients without a copy
            dB = (torch.bmm(up.mul_(factor).mT, slope).mT.to(B.dtype) * trained[:, None]).contiguous()
            down.mul_(factor)
            dA = torch.bmm(down.mT, own).to(A.dtype) * trained[:, :, None]
            slopes[:count], slopes[count : 2 * count] = _unstacked(dA, ctx.ranks), _unstacked(dB, ctx.ranks, 1)
            dx = None
            if ctx.needs_input_grad[0]:
                dx = dy @ weight
                if rows is None:
                    dx.baddbmm_(down, A.to(x.dtype))
                else:
                    dx.index_add_(0, rows, torch.bmm(down, A.to(x.dtype)))
        return dx, None, None, None, None, None, *(s if n else None for s, n in zip(slopes, needed, strict=True))


def _extent(layer: LowRankLinear) -> int:
    """The number of leading components that contain all active ones."""
    return layer.rank if layer.prefixed else layer.max_rank


def _rows(x: Tensor, rows: Tensor | None) -> Tensor:
    return x if rows is None else x[rows]


def _padded(value: Tensor, extent: int, dim: int = 0) -> Tensor:
    """The first `extent` components, padded with zeros."""
    have = value.shape[dim]
    if have >= extent:
        return value.narrow(dim, 0, extent)
    return functional.pad(value, (0, 0) * (value.ndim - 1 - dim) + (0, extent - have))


def _unstacked(slopes: Tensor, ranks: list[int], dim: int = 0) -> list[Tensor | None]:
    """The slice of every trial in the shape of its own tensor; views where possible."""
    padded = _padded(slopes, max(*ranks, slopes.shape[dim + 1]), dim + 1)
    return [part.narrow(dim, 0, rank) for part, rank in zip(padded, ranks, strict=True)]
