"""Dropout at a fifth of its usual price on a CPU, where drawing its random numbers is a tenth of a training step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "sdpa_lean_dropout"
WORDS = 1 << 16


def use_lean_dropout(net: nn.Module) -> None:
    """Let a model on a CPU drop by 16-bit words: its `nn.Dropout` modules, and its attention where that is torch's own.

    A GPU draws its random numbers inside fused kernels; a model there is left as it is.

    Args:
        net: a model, changed in place.
    """
    for module in list(net.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, LeanDropout(child.p).train(child.training))
    if isinstance(net, PreTrainedModel) and net.config._attn_implementation == "sdpa":
        net.set_attn_implementation(ATTENTION)


class LeanDropout(nn.Dropout):
    """`nn.Dropout` by `dropout`."""

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p) if self.training and self.p else x


def dropout(x: Tensor, p: float) -> Tensor:
    """Zero each entry with probability p and scale the others to the same mean.

        y = x * [w < k] * 2^16 / k,   w uniform on 0 .. 2^16 - 1,   k = round((1 - p) 2^16)

    One draw of a 64-bit word decides four entries, and p is met to within 2^-17.

    Args:
        x: any shape.
        p: in [0, 1].
    Returns:
        The same shape; its gradient is the same map.
    Example:
        >>> y = dropout(torch.ones(10_000), 0.5)
        >>> sorted(set(y.tolist())), bool(abs(y.mean() - 1) < 0.1)
        ([0.0, 2.0], True)

    Source: Srivastava et al. 2014, inverted as in torch; the 16-bit draw is ours.
    """
    kept = round((1 - p) * WORDS)
    if kept == WORDS:
        return x
    if kept == 0:
        return x * 0.0
    y: Tensor = _Masked.apply(x, _mask(x, kept), WORDS / kept)  # type: ignore[no-untyped-call]
    return y


def dropped_product(weights: Tensor, value: Tensor, p: float) -> Tensor:
    """`dropout(weights, p) @ value`; backward makes the dropped weights once more, where autograd would keep them.

    Args:
        weights: `(..., n, m)`.
        value: `(..., m, k)`, of the same leading dimensions.
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
    return mask.view(torch.uint8)  # a CPU widens it to a float in vectors, and a bool one by one


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
        # the factor goes to the product, which is smaller than the weights
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
    """Scaled dot-product attention with lean dropout; without dropout, and in forms that it does not know, torch's own.

        softmax(s Q K^T + mask) dropped, times V

    Args:
        module: of the attention.
        query: `(batch, heads, tokens, width)`; key and value likewise.
        attention_mask: True where a token is seen, `(batch, 1, tokens, tokens)`, or none.
        dropout: of the attention weights.
        scaling: s; `width^-1/2` when absent.
        others: passed on to torch's own.
    Returns:
        `(batch, tokens, heads, width)`, and no weights.
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
    weights = weights.softmax(-1).to(value.dtype)  # a rotated query can be the wider
    return dropped_product(weights, value, dropout).transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
