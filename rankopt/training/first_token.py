"""Skip unused work: where the head reads only the first token, the last block computes only that one."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rankopt.lowrank.quantized import shared_state

OUTPUT = ".attention.output"
"""The module after attention in BERT, RoBERTa, XLM-R, ELECTRA, DeBERTa; from there on tokens are independent."""


def keep_first_token(net: PreTrainedModel, head: Sequence[str], tolerance: float = 1e-3) -> bool:
    """After its attention, let a model's last block continue with the first token only, if that changes no logit.

        last block:   attention for all tokens;   output projection and feed-forward for the first token

    The head's gradient is zero for every other token, so all other gradients are unchanged. Two forward passes on
    random tokens with a random head decide whether a model has this form.

    Args:
        net: a sequence classifier, changed in place.
        head: names of the modules behind the backbone.
        tolerance: relative difference of logits that is rounding.
    Returns:
        Whether the model was changed.
    """
    outputs = [name for name, _ in net.named_modules() if name.endswith(OUTPUT)]
    # BigBird pads its input to whole blocks and removes that padding after its last block
    if not outputs or getattr(net.config, "block_size", None):
        return False
    generator = torch.Generator().manual_seed(0)
    try:
        ids = torch.randint(0, int(net.config.vocab_size), (2, 7), generator=generator)
        mask = torch.ones_like(ids)
        ids[1, 4:], mask[1, 4:] = int(net.config.pad_token_id or 0), 0
        probe = with_random_head(net, head)
        with torch.no_grad():
            whole = probe(input_ids=ids, attention_mask=mask).logits
            probe.get_submodule(outputs[-1]).register_forward_pre_hook(_first)
            cut = probe(input_ids=ids, attention_mask=mask).logits
    except Exception:  # it takes other inputs, or needs the other tokens
        return False
    if cut.shape != whole.shape or not (cut - whole).abs().max() <= tolerance * whole.abs().max():
        return False
    net.get_submodule(outputs[-1]).register_forward_pre_hook(_first)
    return True


@torch.no_grad()
def with_random_head(net: PreTrainedModel, head: Sequence[str]) -> Any:
    """A copy in evaluation mode over the same frozen weights; zero weights in its head would hide differences."""
    own = {id(p) for part in head for p in net.get_submodule(part).parameters()}
    shared = {id(p): p for p in net.parameters() if id(p) not in own}
    probe = copy.deepcopy(net, cast(Any, shared | shared_state(net))).eval()
    generator = torch.Generator().manual_seed(0)
    for part in head:
        for parameter in probe.get_submodule(part).parameters():
            parameter.normal_(generator=generator)
    return probe


def _first(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(x[:, :1].contiguous() for x in inputs)  # a view would keep the whole tensor alive
