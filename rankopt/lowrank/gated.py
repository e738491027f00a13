"""The gated low-rank map as one autograd function."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional


def gated_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, A: Tensor, B: Tensor, gate: Tensor, s: float
) -> Tensor:
    """A frozen linear map plus a gated low-rank update, and no more arithmetic than that needs.

        y  = W' x + bias = W x + bias + s B (g * (A x)),      W' = W + s B diag(g) A
        dx = W'^T dy,   dA = s (g * B^T dy) x^T,   dB = s dy (g * A x)^T,   dg = s sum_tokens (B^T dy) * (A x)

    Where there are tokens enough (`merging_pays`), W' is formed, once forward and once backward, and x meets one dense
    product each way; else x takes the two thin products. Nothing is kept for backward but x: no gradient of W is
    formed, and A x is computed again where A and B need it.

    Args:
        x: `(..., in)`.
        weight: W, `(out, in)`, of any strides; gets no gradient.
        bias: `(out,)` or none; gets no gradient.
        A: `(r, in)`.
        B: `(out, r)`.
        gate: g, `(r,)`.
        s: the scale.
    Returns:
        `(..., out)`, of autocast's type where autocast is on. W' is rounded to that type after the sum.
    Example:
        >>> x, W, A, B = torch.ones(2, 3), torch.zeros(4, 3), torch.ones(1, 3), torch.ones(4, 1)
        >>> gated_linear(x, W, None, A, B, torch.tensor([2.0]), 0.5).tolist()[0]
        [3.0, 3.0, 3.0, 3.0]

    Source: Hu et al. 2021 (2106.09685) eq. 3, gated as in Zhang et al. 2023 (2303.10512) eq. 3; its derivatives.
    """
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    y: Tensor = _GatedLinear.apply(x, weight, bias, A, B, gate, s)  # type: ignore[no-untyped-call]
    return y


def merging_pays(tokens: int, fan_in: int, fan_out: int) -> bool:
    """Whether forming W' is cheaper than the two thin products, for a step forward and backward.

        merged: 2 r in out (W' twice) + 2 r tokens (in + out);   thin: 3 r tokens (in + out)   multiply-adds

    so merging pays when `tokens (in + out) >= 2 in out`, whatever the rank.

    Example:
        >>> merging_pays(2048, 384, 384), merging_pays(16, 4096, 4096)
        (True, False)
    """
    return tokens * (fan_in + fan_out) >= 2 * fan_in * fan_out


class _GatedLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, A: Tensor, B: Tensor, gate: Tensor, s: float
    ) -> Tensor:
        ctx.save_for_backward(x, weight, A, B, gate)
        ctx.s = s
        ctx.merged = merging_pays(x.numel() // max(1, x.shape[-1]), weight.shape[1], weight.shape[0])
        with torch.autocast(x.device.type, enabled=False):  # the types are settled; W' is summed in full precision
            bias = bias if bias is None else bias.to(x.dtype)
            if ctx.merged:
                return functional.linear(x, _merged(weight, A, B, gate * s).to(x.dtype), bias)
            y = functional.linear(x, weight.to(x.dtype), bias)
            thin = functional.linear(x, A.to(x.dtype)) * (gate * s).to(x.dtype)
            return y + functional.linear(thin, B.to(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, A, B, gate = ctx.saved_tensors
        for_x, _, _, for_A, for_B, for_gate, _ = ctx.needs_input_grad
        dx = dA = dB = dgate = None
        with torch.autocast(x.device.type, enabled=False):
            rows, slopes = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])  # (tokens, in), (tokens, out)
            scale = (gate * ctx.s).to(x.dtype)
            down = slopes @ B.to(x.dtype)  # (tokens, r)
            if for_x and ctx.merged:
                dx = slopes @ _merged(weight, A, B, gate * ctx.s).to(x.dtype)
            elif for_x:
                dx = slopes @ weight.to(x.dtype) + (down * scale) @ A.to(x.dtype)
            if for_A:
                dA = ((down * scale).T @ rows).to(A.dtype)
            if for_B or for_gate:
                up = rows @ A.to(x.dtype).T  # (tokens, r)
                # the thin factor goes first: the other order is several times slower on a CPU
                dB = ((up * scale).T @ slopes).T.to(B.dtype) if for_B else None
                dgate = (down * up).sum(0, dtype=gate.dtype) * ctx.s if for_gate else None
        return None if dx is None else dx.view_as(x), None, None, dA, dB, dgate, None


def _merged(weight: Tensor, A: Tensor, B: Tensor, scale: Tensor) -> Tensor:
    return torch.addmm(weight.to(A.dtype), B * scale, A)
