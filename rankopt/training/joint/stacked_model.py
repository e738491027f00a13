"""One net that computes for several trials: their batches stacked, over one set of frozen weights."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from rankopt.training.device import random_module
from rankopt.training.dropout import ATTENTION as LEAN
from rankopt.training.joint.stacked_modules import (
    ATTENTION,
    Block,
    CannotStackError,
    JointDropout,
    JointHead,
    JointLinear,
    Part,
    blocks,
)
from rankopt.training.model import Adapted

KEPT = "logits_to_keep"
"""The input that lists the positions at which a decoder computes logits."""


class Stack:
    """The joint net of trials that share their frozen weights.

        rows:     trial 1's batch | trial 2's batch | ...      padded on the right to the longest
        frozen:   one product, one normalisation, ... for all rows
        adapters: batched over the trials
        apart:    heads, dropout, and attention with dropout: each on its own rows and tokens, with random numbers from
                  its own generator, so that each trial draws the masks that it draws alone

    The joint padding changes no result, because attention masks it.

    Args:
        adapted: the first trial's model, as loaded; None for a model that runs alone.
    Attributes:
        most: largest number of trials in a pass; 1 where the model cannot be stacked.
        checked: the kinds of pass (training or not, unequal widths or not) that were compared with the trials' own.
    """

    def __init__(self, adapted: Adapted | None) -> None:
        self.most = 2**16 if adapted else 1
        self.checked: set[tuple[bool, bool]] = set()
        if adapted is None:
            return
        weights = {id(p): p for p in adapted.net.parameters()}
        net: nn.Module = copy.deepcopy(adapted.net, cast(Any, weights))
        for name in adapted.layers:
            _replace(net, name, JointLinear(name))
        for name in adapted.head:
            _replace(net, name, JointHead(name))
        for name, module in list(net.named_modules()):
            if isinstance(module, nn.Dropout):
                _replace(net, name, JointDropout(module))
        if isinstance(net, PreTrainedModel) and net.config._attn_implementation in ("sdpa", LEAN):
            net.set_attn_implementation(ATTENTION)
        self.net = net

    def forward(self, parts: Sequence[Part], training: bool) -> list[Tensor]:
        """Every trial's logits, under the caller's autocast and gradient modes.

        Raises:
            CannotStackError: this model cannot be stacked; the random generators may have advanced.
        """
        if any("decoder_input_ids" in part.inputs for part in parts):
            raise CannotStackError("the batches of an encoder-decoder have two widths")
        width = max(part.inputs["attention_mask"].shape[1] for part in parts)
        if self.net.training != training:
            self.net.train(training)
        inputs = _stacked(parts, width)
        device = inputs["input_ids"].device
        before, layout = random_module(device.type).get_rng_state(), _blocks_of(parts, width)
        token = blocks.set(layout)
        try:
            logits: Tensor = self.net(**inputs).logits
        finally:
            blocks.reset(token)
        if not torch.equal(before, random_module(device.type).get_rng_state()):
            raise CannotStackError("it draws random numbers outside its dropout modules")
        return [_own(logits[block.first : block.first + block.rows], block.part, inputs) for block in layout]


def _blocks_of(parts: Sequence[Part], width: int) -> tuple[Block, ...]:
    full = torch.stack([part.inputs["attention_mask"].all() for part in parts]).tolist()
    found, first = [], 0
    for part, whole in zip(parts, full, strict=True):
        rows, length = part.inputs["attention_mask"].shape
        found.append(Block(part, first, rows, length, width, whole))
        first += rows
    return tuple(found)


def _stacked(parts: Sequence[Part], width: int) -> dict[str, Tensor]:
    """The joint batch: every input padded on the right to `width`; the positions with logits are those of any part."""
    tokenizer = parts[0].adapted.tokenizer
    fill = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
    inputs = {
        name: torch.cat([_widened(part.inputs[name], width, fill.get(name, 0)) for part in parts])
        for name in parts[0].inputs
        if name != KEPT
    }
    if KEPT in parts[0].inputs:
        inputs[KEPT] = torch.unique(torch.cat([part.inputs[KEPT] for part in parts]))
    return inputs


def _own(logits: Tensor, part: Part, inputs: dict[str, Tensor]) -> Tensor:
    """A part's rows without the positions that only other parts have."""
    return logits[:, torch.searchsorted(inputs[KEPT], part.inputs[KEPT])] if KEPT in inputs else logits


def _widened(x: Tensor, width: int, value: Any) -> Tensor:
    """`(b, t)` padded on the right to `(b, width)`."""
    return x if x.shape[1] == width else functional.pad(x, (0, width - x.shape[1]), value=value)


def _replace(net: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(net.get_submodule(parent), child, module.train(net.training))
