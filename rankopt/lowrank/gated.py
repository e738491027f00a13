"""The gated low-rank map as one autograd function."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional


def gated_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    A: Tensor,
    B: Tensor,
    gate: Tensor,
    s: float,
    rounded: Tensor | None = None,
) -> Tensor:
    """A frozen linear map plus a gated low-rank update, and no more arithmetic than that needs.

        y  = W' x + bias = W x + bias + s B (g * (A x)),      W' = W + s B diag(g) A
        dx = W'^T dy,   dA = s (g * B^T dy) x^T,   dB = s dy (g * A x)^T,   dg = s sum_tokens (B^T dy) * (A x)

    Where there are tokens enough (`merging_pays`), W' is formed, once forward and once backward, and x meets one dense
    product each way; else x takes the two thin products. Nothing is kept for backward but x: no gradient of W is
    formed, and A x is computed again where A and B need it.

    Args:
        x: `(..., in)`, in the type to compute in.
        weight: W, `(out, in)`, of any strides; gets no gradient.
        bias: `(out,)` or none; gets no gradient.
        A: `(r, in)`.
        B: `(out, r)`.
        gate: g, `(r,)`.
        s: the scale.
        rounded: W in the type of x, where that is a shorter one and the caller keeps such a copy.
    Returns:
        `(..., out)` in the type of x. W' is rounded to it after the sum.
    Example:
        >>> x, W, A, B = torch.ones(2, 3), torch.zeros(4, 3), torch.ones(1, 3), torch.ones(4, 1)
        >>> gated_linear(x, W, None, A, B, torch.tensor([2.0]), 0.5).tolist()[0]
        [3.0, 3.0, 3.0, 3.0]

    Source: Hu et al. 2021 (2106.09685) eq. 3, gated as in Zhang et al. 2023 (2303.10512) eq. 3; its derivatives.
    """
    tokens = x.numel() // max(1, x.shape[-1])
    form: type[torch.autograd.Function] = _Merged
    if not merging_pays(tokens, weight.shape[1], weight.shape[0], x.element_size()):
        # a sum in full precision needs the weight in full precision; the thin products do not
        weight, form = weight.to(x.dtype) if rounded is None else rounded, _Thin
    y: Tensor = form.apply(x, weight, bias, A, B, gate, s)  # type: ignore[no-untyped-call]
    return y


def merging_pays(tokens: int, fan_in: int, fan_out: int, size: int = 4) -> bool:
    """Whether forming W' is cheaper than the two thin products, for a step forward and backward.

    Both are bound by memory where r is small, and grow alike with r. In bytes moved beyond the dense products:

        merged: 2 x (read W, write W') = 16 in out, and in a 2-byte type 2 x (read, write once more) = 28 in out
        thin:   read x, read and write y, read and write dx = about 2.5 tokens (in + out) size

    so merging pays when `tokens (in + out) >= 1.6 in out` in 4-byte types and `>= 5.6 in out` in 2-byte ones.

    Args:
        tokens: rows of x.
        fan_in: columns of W.
        fan_out: rows of W.
        size: bytes of an entry of x.
    Example:
        >>> merging_pays(2048, 384, 384), merging_pays(512, 384, 384, size=2), merging_pays(16, 4096, 4096)
        (True, False, False)
    """
    moved = 16 if size >= 4 else 28
    return 2.5 * size * tokens * (fan_in + fan_out) >= moved * fan_in * fan_out


class _Merged(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, A: Tensor, B: Tensor, gate: Tensor, s: float
    ) -> Tensor:
        ctx.save_for_backward(x, weight, A, B, gate)
        ctx.s = s
        with torch.autocast(x.device.type, enabled=False):  # W' is summed in full precision
            return functional.linear(x, _merged(weight, A, B, gate * s).to(x.dtype), _like(bias, x))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, A, B, gate = ctx.saved_tensors
        with torch.autocast(x.device.type, enabled=False):
            dx = None
            if ctx.needs_input_grad[0]:
                dx = dy @ _merged(weight, A, B, gate * ctx.s).to(x.dtype)
            return dx, None, None, *_slopes(ctx, x, dy, A, B, gate)[:3], None


class _Thin(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, A: Tensor, B: Tensor, gate: Tensor, s: float
    ) -> Tensor:
        ctx.save_for_backward(x, weight, A, B, gate)
        ctx.s = s
        with torch.autocast(x.device.type, enabled=False):
            y = functional.linear(x, weight, _like(bias, x)).flatten(0, -2)
            thin = (x.flatten(0, -2) @ A.T.to(x.dtype)).mul_((gate * s).to(x.dtype))
            return y.addmm_(thin, B.T.to(x.dtype)).view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, A, B, gate = ctx.saved_tensors
        with torch.autocast(x.device.type, enabled=False):
            dA, dB, dgate, down = _slopes(ctx, x, dy, A, B, gate)
            dx = None
            if ctx.needs_input_grad[0]:
                dx = (dy.flatten(0, -2) @ weight).addmm_(down, A.to(x.dtype)).view_as(x)
            return dx, None, None, dA, dB, dgate, None


def _slopes(
    ctx: Any, x: Tensor, dy: Tensor, A: Tensor, B: Tensor, gate: Tensor
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor]:
    """The gradients of A, B and gate, and s g * B^T dy `(tokens, r)`."""
    _, _, _, for_A, for_B, for_gate, _ = ctx.needs_input_grad
    rows, slopes = x.flatten(0, -2), dy.flatten(0, -2)  # (tokens, in), (tokens, out)
    scale = (gate * ctx.s).to(x.dtype)
    down = slopes @ B.to(x.dtype)
    dA = dB = dgate = None
    if for_B or for_gate:
        up = rows @ A.T.to(x.dtype)
        dgate = (down * up).sum(0, dtype=gate.dtype) * ctx.s if for_gate else None
        # the thin factor goes first: the other order is several times slower on a CPU
        dB = (up.mul_(scale).T @ slopes).T.to(B.dtype) if for_B else None
    down.mul_(scale)
    if for_A:
        dA = (down.T @ rows).to(A.dtype)
    return dA, dB, dgate, down


def _like(bias: Tensor | None, x: Tensor) -> Tensor | None:
    return bias if bias is None else bias.to(x.dtype)


def _merged(weight: Tensor, A: Tensor, B: Tensor, scale: Tensor) -> Tensor:
    return torch.addmm(weight.to(A.dtype), B * scale, A)
