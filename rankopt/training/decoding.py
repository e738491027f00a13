"""Decode a text for every distinct prompt of a split."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch

from rankopt.tasks.completions import prompts_of
from rankopt.tasks.encode import Encoded, padded
from rankopt.tasks.problems.base import Answers, Problem
from rankopt.tasks.problems.generation import Generation
from rankopt.training.device import AUTOCAST, autocast
from rankopt.training.model import Adapted


@torch.no_grad()
def decode(
    adapted: Adapted, problem: Problem, data: Encoded, batch_size: int, precision: str,
    on_batch: Callable[[], None] = lambda: None,
) -> Answers:  # fmt: skip
    """The text for each example's prompt, and the number of its prompt; equal prompts are decoded once.

    Prompts of similar length form a batch, padded on the left, or on the right for an encoder. The adapters are merged
    meanwhile.

    Args:
        adapted: the model, with the current pattern.
        problem: a generation.
        data: encoded examples.
        batch_size: prompts per batch.
        precision: of the training.
        on_batch: called after every batch.
    Returns:
        `text`, `(n,)` strings, and `prompt`, `(n,)` integers.
    """
    how, tokenizer = cast(Generation, problem), adapted.tokenizer
    prompts, numbers = prompts_of(data)
    texts = [""] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    pad: Any = tokenizer.pad_token_id
    with merged(adapted, AUTOCAST.get(precision)) as net:
        left = not net.config.is_encoder_decoder  # an encoder counts its positions from the left
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            ids = padded([prompts[index] for index in chosen], pad, left=left).to(net.device)
            mask = padded([np.ones(len(prompts[index]), np.int64) for index in chosen], 0, left=left).to(net.device)
            with autocast(net.device.type, precision):
                found = net.generate(
                    input_ids=ids, attention_mask=mask, max_new_tokens=how.max_new_tokens, num_beams=how.beams,
                    do_sample=False, use_cache=True,
                )  # fmt: skip
            new = found if net.config.is_encoder_decoder else found[:, ids.shape[1] :]
            for index, text in zip(chosen, tokenizer.batch_decode(new, skip_special_tokens=True), strict=True):
                texts[index] = text.strip()
            on_batch()
    return {"text": np.array(texts)[numbers], "prompt": numbers}


@contextmanager
def merged(adapted: Adapted, dtype: torch.dtype | None = None) -> Iterator[Any]:
    """The net in evaluation mode with its adapters merged and its own forward pass; restored afterwards.

    Adapters of quantised maps stay attached.

    Args:
        adapted: the model.
        dtype: of the merged weights (default: their own).
    """
    net: Any = adapted.net.eval()
    # joint training and the Trainer replace the forward pass; decoding needs the cache that the model's own returns
    replaced = vars(net).pop("forward", None)
    try:
        for layer in adapted.layers.values():
            if not layer.quantization:
                layer.merge(dtype)
        yield net
    finally:
        for layer in adapted.layers.values():
            layer.unmerge()
        if replaced is not None:
            net.forward = replaced
