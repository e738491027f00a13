"""The modules of a joint net that keep its trials apart: adapters, heads, dropout and attention.

Each works on a block: one trial's rows of the joint batch, and that trial's tokens of each row.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from rankopt.lowrank.joined import joined_linear
from rankopt.training.dropout import attention as lean_attention
from rankopt.training.model import Adapted

ATTENTION = "sdpa_apart"


class CannotStackError(Exception):
    """The model computes something that cannot be separated by trial."""


class Part(NamedTuple):
    """One trial's share of a joint pass.

    Attributes:
        adapted: the trial's model.
        inputs: its batch, tensors of `(b, t)` with any padding; `attention_mask` is one of them.
        drawing: within this context random numbers come from the trial's own generator.
    """

    adapted: Adapted
    inputs: dict[str, Tensor]
    drawing: Callable[[], AbstractContextManager[None]]


class Block(NamedTuple):
    """A trial's part and its location in the joint batch.

    Attributes:
        part: the trial's share.
        first: its first row.
        rows: its number of rows.
        length: its tokens per row, its own padding included.
        width: tokens per row, joint padding included.
        full: whether it has no padding of its own.
    """

    part: Part
    first: int
    rows: int
    length: int
    width: int
    full: bool


blocks: ContextVar[tuple[Block, ...]] = ContextVar("blocks")
"""The blocks of the joint pass that is running."""


class JointLinear(nn.Module):
    """Replaces a `LowRankLinear`: one product with the frozen weight, low-rank products batched over trials."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        now = blocks.get()
        layers = [block.part.adapted.layers[self.name] for block in now]
        alike = len({block.rows for block in now}) == 1 and len(x) == now[0].rows * len(now)
        if not alike or (self.training and any(layer.dropout.p for layer in layers)):
            return _apart(lambda block, rows: block.part.adapted.layers[self.name](rows), x)
        y = joined_linear(layers, x.reshape(len(now), -1, x.shape[-1]))
        return y.view(*x.shape[:-1], y.shape[-1])


class JointHead(nn.Module):
    """Replaces a module that every trial trains in full: each block passes through its trial's own."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Tensor, *others: Any, **more: Any) -> Tensor:
        if others or more:
            raise CannotStackError(f"{self.name} takes more than one tensor")
        return _apart(lambda block, rows: block.part.adapted.net.get_submodule(self.name)(rows), x)


class JointDropout(nn.Dropout):
    """Replaces a dropout module: each block draws from its trial's own generator."""

    def __init__(self, module: nn.Dropout) -> None:
        super().__init__(module.p)  # some models read `p`
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.p:
            return x
        return _apart(lambda block, rows: self.module(rows), x)


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
    """Attention of all blocks at once without dropout; with dropout, of each block as in its own trial."""
    own: Any = lean_attention if query.device.type == "cpu" else sdpa_attention_forward
    if not dropout:
        whole: tuple[Tensor, None] = own(module, query, key, value, attention_mask, scaling=scaling, **others)
        return whole
    parts = []
    for block in blocks.get():
        rows = slice(block.first, block.first + block.rows)
        q, k, v = (x[rows, :, : block.length] for x in (query, key, value))
        mask = None if attention_mask is None else attention_mask[rows, :, : block.length, : block.length]
        if mask is not None and block.full and _is_implied(mask, module, others):  # alone, a full batch has no mask
            mask = None
        with block.part.drawing():
            y, _ = own(module, q, k, v, mask, dropout=dropout, scaling=scaling, **others)
        parts.append(_padded(y, block, (1,)))
    return torch.cat(parts), None


def _is_implied(mask: Tensor, module: nn.Module, others: dict[str, Any]) -> bool:
    """Whether attention without a mask sees the same tokens: all of them, or in a decoder the earlier ones."""
    if mask.dtype != torch.bool:
        return False
    causal = others.get("is_causal", getattr(module, "is_causal", False))
    return bool((mask == torch.ones_like(mask).tril() if causal else mask).all())


AttentionInterface.register(ATTENTION, attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def _apart(apply: Callable[[Block, Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a function to each block alone, with random numbers from its trial's own generator."""
    now = blocks.get()
    if len(x) != now[-1].first + now[-1].rows:
        raise CannotStackError(f"the first of the dimensions {tuple(x.shape)} does not count examples")
    parts = []
    for block in now:
        own = _block_of(x, block)
        with block.part.drawing():
            parts.append(_padded(apply(block, own), block))
    return torch.cat(parts)


def _block_of(x: Tensor, block: Block) -> Tensor:
    """A block's rows and tokens of a joint tensor."""
    x = x[block.first : block.first + block.rows]
    for dim in _token_dims(x, block.width):
        x = x.narrow(dim, 0, block.length)
    return x


def _padded(y: Tensor, block: Block, dims: tuple[int, ...] | None = None) -> Tensor:
    """A block's tensor padded to the joint width in its token dimensions (default: those of the block's length)."""
    if block.length == block.width:
        return y
    pads = [0] * (2 * y.ndim)
    for dim in _token_dims(y, block.length) if dims is None else dims:
        pads[2 * (y.ndim - 1 - dim) + 1] = block.width - block.length
    return functional.pad(y, pads)


def _token_dims(x: Tensor, width: int) -> tuple[int, ...]:
    """The dimensions that count tokens: hidden states are `(b, t, h)`, attention weights `(b, heads, t, t)`."""
    candidates = {3: (1,), 4: (2, 3)}.get(x.ndim, ())
    return tuple(dim for dim in candidates if x.shape[dim] == width)
