"""Dropout that costs a fifth of torch's on a CPU, where its random numbers take a tenth of a training step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "sdpa_lean_dropout"
WORDS = 1 << 16  # values of a 16-bit word


def use_lean_dropout(net: nn.Module) -> None:
    """Draw the dropout masks of a model on a CPU from 16-bit words: `nn.Dropout` modules and torch's SDPA attention.

    A GPU does not need it: its fused kernels draw the random numbers.

    Args:
        net: changed in place.
    """
    for module in list(net.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, LeanDropout(child.p).train(child.training))
    if isinstance(net, PreTrainedModel) and net.config._attn_implementation == "sdpa":
        net.set_attn_implementation(ATTENTION)


class LeanDropout(nn.Dropout):
    """`nn.Dropout` computed by `dropout`."""

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p) if self.training and self.p else x


def dropout(x: Tensor, p: float) -> Tensor:
    """Zero each entry with probability p, and scale the others so that the mean is unchanged.

        y = x * [w < k] * 2^16 / k,   w uniform on 0 .. 2^16 - 1,   k = round((1 - p) 2^16)

    One 64-bit word decides four entries; the probability differs from p by at most 2^-17.

    Args:
        x: any shape.
        p: in [0, 1].
    Returns:
        The same shape; the gradient is multiplied by the same mask.
    Example:
        >>> y = dropout(torch.ones(10_000), 0.5)
        >>> sorted(set(y.tolist())), bool(abs(y.mean() - 1) < 0.1)
        ([0.0, 2.0], True)

    Source: Srivastava et al. 2014, inverted as in torch; the 16-bit words are ours.
    """
    kept = round((1 - p) * WORDS)
    if kept == WORDS:
        return x
    if kept == 0:
        return x * 0.0
    y: Tensor = _Masked.apply(x, _mask(x, kept), WORDS / kept)  # type: ignore[no-untyped-call]
    return y


def dropped_product(weights: Tensor, value: Tensor, p: float) -> Tensor:
    """`dropout(weights, p) @ value`; the backward pass recomputes the dropped weights, which autograd would store.

    Args:
        weights: `(..., n, m)`.
        value: `(..., m, k)`, with the same leading dimensions.
        p: in [0, 1].
    Returns:
        `(..., n, k)`.
    Example:
        >>> y = dropped_product(torch.ones(1, 100), torch.ones(100, 1), 0.5)
        >>> bool(40 < y < 160), float(y) % 2
        (True, 0.0)
    """
    kept = round((1 - p) * WORDS)
    if kept in (0, WORDS):
        return dropout(weights, p) @ value
    y: Tensor = _MaskedProduct.apply(weights, value, _mask(weights, kept), WORDS / kept)  # type: ignore[no-untyped-call]
    return y


def _mask(x: Tensor, kept: int) -> Tensor:
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device).random_(-(2**63), None)
    mask = words.view(torch.int16)[: x.numel()].view(x.shape) < kept - WORDS // 2
    return mask.view(torch.uint8)  # vectorised conversion to float, unlike that of a bool


class _Masked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(mask)
        ctx.scale = scale
        return torch.mul(x, mask).mul_(scale)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None]:
        (mask,) = ctx.saved_tensors
        return torch.mul(dy, mask).mul_(ctx.scale), None, None


class _MaskedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(weights, value, mask)
        ctx.scale = scale
        # scale the product, which is smaller than the weights
        return (torch.mul(weights, mask) @ value).mul_(scale)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, None, None]:
        weights, value, mask = ctx.saved_tensors
        dy = dy * ctx.scale
        return (dy @ value.mT).mul_(mask), torch.mul(weights, mask).mT @ dy, None, None


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Scaled dot-product attention with the dropout above; without dropout, and for other masks, torch's SDPA.

        dropout(softmax(s Q K^T + mask)) V

    Args:
        module: the attention module.
        query: `(batch, heads, tokens, width)`, like key and value.
        attention_mask: `(batch, 1, tokens, tokens)`, True where a token may be attended to; or None.
        dropout: probability, of the attention weights.
        scaling: s (default: `width^-1/2`).
        others: options of torch's SDPA.
    Returns:
        `(batch, tokens, heads, width)` and None, since the weights are not returned.
    """
    plain = others.get("position_bias") is None and others.get("cache") is None and key.shape[1] == query.shape[1]
    seen = attention_mask is None and not others.get("is_causal", getattr(module, "is_causal", False))
    if not dropout or not plain or not (seen or (attention_mask is not None and attention_mask.dtype == torch.bool)):
        result: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **others
        )
        return result
    weights = query * (scaling or query.shape[-1] ** -0.5) @ key.mT
    if attention_mask is not None:
        weights = weights.masked_fill(~attention_mask, torch.finfo(weights.dtype).min)
    if torch.is_autocast_enabled(value.device.type):
        value = value.to(torch.get_autocast_dtype(value.device.type))  # a float32 prefix widens key and value
    weights = weights.softmax(-1).to(value.dtype)  # rotary embeddings may widen the query
    return dropped_product(weights, value, dropout).transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
