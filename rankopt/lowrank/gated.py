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
) -> Tensor:
    """A frozen linear map plus a gated low-rank update.

        y  = W x + bias + s B (g * (A x)),      u = B^T dy
        dx = W^T dy + s A^T (g * u),   dA = s (g * u) x^T,   dB = s dy (g * A x)^T,   dg = s sum_tokens u * (A x)

    The thin products are limited by memory bandwidth. The dense products therefore run last and add to their results in
    place, which costs no more than writing. No gradient of W is computed, and backward keeps only x and A x.

    Without a backward pass and with at least as many tokens as inputs, `W + s B (g * A)` is computed first, which is 3
    to 15 % faster (`make bench` measures it). This is skipped for dtypes shorter than the factors', whose rounding
    could lose the update. It does not apply to dropout on the adapter's input, where W and A see different tensors.

    Args:
        x: `(..., in)`, in the dtype to compute in.
        weight: W, `(out, in)`, of any strides; gets no gradient.
        bias: `(out,)` or none; gets no gradient.
        A: `(r, in)`.
        B: `(out, r)`.
        gate: g, `(r,)`.
        s: the scale.
    Returns:
        `(..., out)` in the dtype of x.
    Example:
        >>> x, W, A, B = torch.ones(2, 3), torch.zeros(4, 3), torch.ones(1, 3), torch.ones(4, 1)
        >>> gated_linear(x, W, None, A, B, torch.tensor([2.0]), 0.5).tolist()[0]
        [3.0, 3.0, 3.0, 3.0]

    Source: Hu et al. 2021 (2106.09685) eq. 3, with the gate of Zhang et al. 2023 (2303.10512) eq. 3.
    """
    rows, weight = x.reshape(-1, x.shape[-1]), weight.to(x.dtype)
    if not torch.is_grad_enabled() and len(rows) >= x.shape[-1] and x.dtype == A.dtype:
        with torch.autocast(x.device.type, enabled=False):
            return functional.linear(
                x, torch.addmm(weight, B * (gate * s), A), bias if bias is None else bias.to(x.dtype)
            )
    y: Tensor = _Gated.apply(rows, weight, bias, A, B, gate, s)  # type: ignore[no-untyped-call]
    return y.view(*x.shape[:-1], y.shape[-1])  # not in `_Gated`: a view that it returned could not change in place


class _Gated(torch.autograd.Function):
    """The map for rows `(tokens, in)`.

    Thin products are computed as `(r, tokens)`; as `(tokens, r)` they take up to 50 % longer on a CPU.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, A: Tensor, B: Tensor, gate: Tensor, s: float
    ) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            up = A.to(x.dtype) @ x.T
            gated = (B * (gate * s)).T.to(x.dtype).contiguous()
            y = up.T @ gated if bias is None else torch.addmm(bias.to(x.dtype), up.T, gated)
            y.addmm_(x, weight.T)
        ctx.save_for_backward(x, up, weight, A, B, gate)
        ctx.s = s
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, up, weight, A, B, gate = ctx.saved_tensors
        for_x, _, _, for_A, for_B, for_gate, _ = ctx.needs_input_grad
        dx = dA = dB = dgate = None
        with torch.autocast(x.device.type, enabled=False):
            scale = gate * ctx.s
            down = B.T.to(x.dtype).contiguous() @ dy.T
            if for_gate:
                dgate = (down * up).sum(1, dtype=gate.dtype) * ctx.s
            if for_B:
                dB = (up @ dy).T.to(B.dtype) * scale
            down.mul_(scale.to(x.dtype)[:, None])
            if for_A:
                dA = (down @ x).to(A.dtype)
            if for_x:
                dx = (down.T @ A.to(x.dtype)).addmm_(dy, weight)
        return dx, None, None, dA, dB, dgate, None
