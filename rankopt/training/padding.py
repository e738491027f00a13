"""Which side of a batch may be padded: the model is asked, not its name."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rankopt.tasks.encode import collate
from rankopt.training.first_token import with_random_head

TEXTS = ("yes", "one two three four five six seven eight")


def padding_side(
    net: PreTrainedModel, head: tuple[str, ...], tokenizer: PreTrainedTokenizerBase, tolerance: float = 1e-3
) -> str:
    """The side on which padding does not change the logits of a short text: the tokenizer's, or else the other.

    A model with learned absolute positions, such as GPT-2, counts padding on the left as positions. A model whose head
    reads the last token, such as XLNet, needs padding on the left. Where neither side works, or the model cannot
    classify these texts, it is the tokenizer's.

    Args:
        net: a sequence classifier in evaluation mode.
        head: names of its fully trained modules.
        tokenizer: the model's.
        tolerance: relative difference of logits that is rounding.
    """
    own = tokenizer.padding_side
    items = [_item(tokenizer, text) for text in TEXTS]
    probe = with_random_head(net, head)
    try:
        for side in (own, "left" if own == "right" else "right"):
            tokenizer.padding_side = side
            alone, both = (_logits(probe, collate(batch, tokenizer)) for batch in (items[:1], items))
            if (alone - both[:1]).abs().max() <= tolerance * both.abs().max():
                return side
    except Exception:  # it needs other inputs, or other texts
        return own
    finally:
        tokenizer.padding_side = own
    return own


@torch.no_grad()
def _logits(net: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    logits: torch.Tensor = net(**{key: value for key, value in batch.items() if key != "labels"}).logits
    return logits


def _item(tokenizer: PreTrainedTokenizerBase, text: str) -> dict[str, Any]:
    found = tokenizer(text, return_attention_mask=True)
    names = {"input_ids", "token_type_ids", "attention_mask"} & found.keys()
    return {name: np.array(found[name]) for name in names} | {"labels": 0}
