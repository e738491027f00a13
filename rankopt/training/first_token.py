"""Work that nobody looks at: where a head reads the first token alone, the last block need not compute the others."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

OUTPUT = ".attention.output"
"""What mixes the heads in BERT and its kin (RoBERTa, XLM-R, ELECTRA, DeBERTa); behind it tokens do not meet."""


def keep_first_token(net: PreTrainedModel, head: Sequence[str]) -> bool:
    """Let a model's last block go on with the first token alone behind its attention, if that changes no logit.

        last block:   keys, values and attention of all tokens;   mixing, feed-forward of the first

    The head's gradient for every other token is zero, so those of the factors are the same too. Whether a model is of
    that form is not looked up but tried, on a few made-up tokens and with a random head.

    Args:
        net: a sequence classifier, changed in place if it is.
        head: names of the modules behind the backbone.
    Returns:
        Whether it is.
    """
    places = [name for name, _ in net.named_modules() if name.endswith(OUTPUT)]
    # BigBird fills a longer input up to whole blocks, and cuts that off again behind its last block
    if not places or getattr(net.config, "block_size", None):
        return False
    own = {id(p) for part in head for p in net.get_submodule(part).parameters()}
    probe = copy.deepcopy(net, cast(Any, {id(p): p for p in net.parameters() if id(p) not in own})).eval()
    generator = torch.Generator().manual_seed(0)
    try:
        ids = torch.randint(0, int(net.config.vocab_size), (2, 7), generator=generator)
        mask = torch.ones_like(ids)
        ids[1, 4:], mask[1, 4:] = int(net.config.pad_token_id or 0), 0
        with torch.no_grad():
            for part in head:  # one whose weights are all zero would tell nothing
                for parameter in probe.get_submodule(part).parameters():
                    parameter.normal_(generator=generator)
            whole = probe(input_ids=ids, attention_mask=mask).logits
            probe.get_submodule(places[-1]).register_forward_pre_hook(_first)
            cut = probe(input_ids=ids, attention_mask=mask).logits
    except Exception:  # a model that takes no such input, or breaks without the other tokens, is not of that form
        return False
    if cut.shape != whole.shape or not (cut - whole).abs().max() <= 1e-3 * whole.abs().max():
        return False
    net.get_submodule(places[-1]).register_forward_pre_hook(_first)
    return True


def _first(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(x[:, :1].contiguous() for x in inputs)  # a view would keep the whole tensor for backward
