"""One net that computes for several trials at once: their batches below one another, over one set of frozen weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from rankopt.lowrank.joined import joined_linear
from rankopt.training.dropout import ATTENTION as LEAN
from rankopt.training.dropout import attention as lean_attention
from rankopt.training.model import Adapted

ATTENTION = "sdpa_apart"


class CannotStackError(Exception):
    """The model does something with its input that cannot be told apart by trials."""


class Part(NamedTuple):
    """One trial's share of a joint pass.

    Attributes:
        adapted: the trial's model.
        inputs: its batch, `(b, t)` each, with whatever padding; `attention_mask` among them.
        draw: within it, random numbers come from the trial's own generator.
    """

    adapted: Adapted
    inputs: dict[str, Tensor]
    draw: Callable[[], AbstractContextManager[None]]


class _Block(NamedTuple):
    part: Part
    first: int  # row of the joint batch
    rows: int
    length: int  # tokens, the trial's own padding included
    width: int  # tokens, the joint padding included
    full: bool  # no padding of its own


_blocks: ContextVar[tuple[_Block, ...]] = ContextVar("blocks")


class Stack:
    """The joint net of trials that share their frozen weights.

        rows:     trial 1's batch | trial 2's batch | ...      padded on the right to the longest
        frozen:   one product, one normalisation, ... for all rows
        adapters: batched over the trials
        apart:    heads, dropout, and attention that drops: each on its own rows and tokens, drawing from its own
                  generator, so that a trial sees the very masks that it sees alone

    What is computed for the joint padding reaches nothing: attention masks it.

    Args:
        adapted: the first trial's model, still as loaded.
    Attributes:
        most: how many trials a pass may have; 1 where the model cannot be stacked.
        checked: the kinds of pass (training or not, of unequal widths or not) whose first one was compared with the
            trials' own.
    """

    def __init__(self, adapted: Adapted) -> None:
        weights = {id(p): p for p in adapted.net.parameters()}
        net: nn.Module = copy.deepcopy(adapted.net, cast(Any, weights))
        for name in adapted.layers:
            _replace(net, name, _Joined(name))
        for name in adapted.head:
            _replace(net, name, _Head(name))
        for name, module in list(net.named_modules()):
            if isinstance(module, nn.Dropout):
                _replace(net, name, _Dropout(module))
        if isinstance(net, PreTrainedModel) and net.config._attn_implementation in ("sdpa", LEAN):
            net.set_attn_implementation(ATTENTION)
        self.net = net
        self.most = 2**16
        self.checked: set[tuple[bool, bool]] = set()

    def forward(self, parts: Sequence[Part], training: bool) -> list[Tensor]:
        """Every trial's logits, under the caller's autocast and gradient modes.

        Raises:
            CannotStackError: this model cannot be stacked; the generators may have moved.
        """
        width = max(part.inputs["attention_mask"].shape[1] for part in parts)
        full = torch.stack([part.inputs["attention_mask"].all() for part in parts]).tolist()
        blocks, first = [], 0
        for part, whole in zip(parts, full, strict=True):
            rows, length = part.inputs["attention_mask"].shape
            blocks.append(_Block(part, first, rows, length, width, whole))
            first += rows
        if self.net.training != training:
            self.net.train(training)
        tokenizer = parts[0].adapted.tokenizer
        fill = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
        inputs = {
            name: torch.cat([_widened(part.inputs[name], width, fill.get(name, 0)) for part in parts])
            for name in parts[0].inputs
        }
        device = inputs["input_ids"].device
        before = _generator(device)
        token = _blocks.set(tuple(blocks))
        try:
            logits: Tensor = self.net(**inputs).logits
        finally:
            _blocks.reset(token)
        if not torch.equal(before, _generator(device)):
            raise CannotStackError("it draws random numbers outside its dropout modules")
        return [logits[b.first : b.first + b.rows] for b in blocks]


class _Joined(nn.Module):
    """In place of a `LowRankLinear`."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        blocks = _blocks.get()
        layers = [block.part.adapted.layers[self.name] for block in blocks]
        alike = len({block.rows for block in blocks}) == 1 and len(x) == blocks[0].rows * len(blocks)
        if not alike or (self.training and any(layer.dropout.p for layer in layers)):
            return _apart(lambda block, rows: block.part.adapted.layers[self.name](rows), x)
        y = joined_linear(layers, x.reshape(len(blocks), -1, x.shape[-1]))
        return y.view(*x.shape[:-1], y.shape[-1])


class _Head(nn.Module):
    """In place of a module that every trial trains in full."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Tensor, *others: Any, **more: Any) -> Tensor:
        if others or more:
            raise CannotStackError(f"{self.name} takes more than one tensor")
        return _apart(lambda block, rows: block.part.adapted.net.get_submodule(self.name)(rows), x)


class _Dropout(nn.Dropout):
    """In place of a dropout module; a model may look up its `p`."""

    def __init__(self, module: nn.Dropout) -> None:
        super().__init__(module.p)
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.p:
            return x
        return _apart(lambda block, rows: self.module(rows), x)


def _apart(apply: Callable[[_Block, Tensor], Tensor], x: Tensor) -> Tensor:
    """Something done to each trial's rows and tokens alone, its own random numbers drawn."""
    blocks = _blocks.get()
    if len(x) != blocks[-1].first + blocks[-1].rows:
        raise CannotStackError(f"the first of the dimensions {tuple(x.shape)} does not count examples")
    parts = []
    for block in blocks:
        own = _own(x, block)
        with block.part.draw():
            parts.append(_back(apply(block, own), block))
    return torch.cat(parts)


def _own(x: Tensor, block: _Block) -> Tensor:
    """A trial's rows and tokens of a joint tensor."""
    x = x[block.first : block.first + block.rows]
    for dim in _token_dims(x, block.width):
        x = x.narrow(dim, 0, block.length)
    return x


def _back(y: Tensor, block: _Block, dims: tuple[int, ...] | None = None) -> Tensor:
    """The same, padded to the joint width, in the dimensions that count tokens."""
    if block.length == block.width:
        return y
    pads = [0] * (2 * y.ndim)
    for dim in _token_dims(y, block.length) if dims is None else dims:
        pads[2 * (y.ndim - 1 - dim) + 1] = block.width - block.length
    return functional.pad(y, pads)


def _widened(x: Tensor, width: int, value: Any) -> Tensor:
    """`(b, t)` padded on the right to `(b, width)`."""
    return x if x.shape[1] == width else functional.pad(x, (0, width - x.shape[1]), value=value)


def _token_dims(x: Tensor, width: int) -> tuple[int, ...]:
    """Which dimensions count tokens: hidden states are `(b, t, h)`, attention weights `(b, heads, t, t)`."""
    candidates = {3: (1,), 4: (2, 3)}.get(x.ndim, ())
    return tuple(dim for dim in candidates if x.shape[dim] == width)


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
    """Attention of all trials at once where nothing is dropped, else of each alone, as it would be alone."""
    own: Any = lean_attention if query.device.type == "cpu" else sdpa_attention_forward
    if not dropout:
        whole: tuple[Tensor, None] = own(module, query, key, value, attention_mask, scaling=scaling, **others)
        return whole
    parts = []
    for block in _blocks.get():
        rows = slice(block.first, block.first + block.rows)
        q, k, v = (x[rows, :, : block.length] for x in (query, key, value))
        mask = None if attention_mask is None else attention_mask[rows, :, : block.length, : block.length]
        if mask is not None and block.full and mask.all():  # alone it would have none; a window's it would have
            mask = None
        with block.part.draw():
            y, _ = own(module, q, k, v, mask, dropout=dropout, scaling=scaling, **others)
        parts.append(_back(y, block, (1,)))
    return torch.cat(parts), None


AttentionInterface.register(ATTENTION, attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def _replace(net: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(net.get_submodule(parent), child, module.train(net.training))


def _generator(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()
