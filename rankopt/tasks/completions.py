"""Tokenise prompts with their completions, and make batches in which only completions are predicted.

tokens of an example:   prompt | completion, end token
a decoder's batch:      the whole example, padded on the right; labels at the positions whose next token counts
an encoder-decoder's:   the prompt for the encoder; the completion, shifted by one, for the decoder
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from rankopt.tasks.encode import Encoded, padded

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
"""The label that no loss counts."""

Batch = dict[str, torch.Tensor]


def encode_completions(
    columns: Sequence[str], dataset: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int, chat: bool = False
) -> Encoded:
    """Tokenise prompts and completions, each completion with the tokenizer's end token.

    Where an example is longer than `max_length`, the start of its prompt is cut; a completion is never cut.

    Args:
        columns: at most one column, with the prompts; without one, prompts are empty.
        dataset: rows with this column and `label`, the completion.
        tokenizer: a tokenizer with an end token.
        max_length: longest example in tokens.
        chat: whether a prompt is a list of messages as JSON, which the tokenizer's chat template writes out.
    Raises:
        ValueError: a completion does not fit, or the tokenizer lacks an end token or a fitting chat template.
    """
    end = end_token(tokenizer)
    table = dataset.with_format("arrow")[:]
    texts: list[str] = table["label"].to_pylist()
    before = table[columns[0]].to_pylist() if columns else [""] * len(texts)
    if chat:
        written = [
            _written(tokenizer, json.loads(messages), text) for messages, text in zip(before, texts, strict=True)
        ]
        prompts = _tokens(tokenizer, [prompt for prompt, _ in written], special=False)
        completions = _tokens(tokenizer, [completion for _, completion in written], special=False)
    else:
        prompts, completions = _tokens(tokenizer, before, special=True), _tokens(tokenizer, texts, special=False)
    completions = [tokens if tokens[-1:] == [end] else [*tokens, end] for tokens in completions]
    special, shortened = set(tokenizer.all_special_ids), 0
    rows: list[list[int]] = []
    starts: list[int] = []
    for number, (prompt, completion) in enumerate(zip(prompts, completions, strict=True), 1):
        excess = len(prompt) + len(completion) - max_length
        if excess > 0:
            lead = next((i for i, token in enumerate(prompt) if token not in special), len(prompt))
            if excess >= len(prompt) - lead:
                need = len(completion) + min(len(prompt), lead + 1)
                raise ValueError(
                    f"task.max_length must be at least {need}: the completion of row {number} has {len(completion)} "
                    f"tokens with its end token and is never cut, got {max_length}"
                )
            prompt, shortened = prompt[:lead] + prompt[lead + excess :], shortened + 1
        rows.append(prompt + completion)
        starts.append(len(prompt))
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    return Encoded(
        ids=np.fromiter(chain.from_iterable(rows), np.int32),
        types=None,
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        labels=np.array(texts, dtype=object),
        starts=np.array(starts, dtype=np.int64),
        shortened=shortened,
    )


def end_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that ends a completion.

    Raises:
        ValueError: the tokenizer has none.
    """
    end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    if end is None:
        raise ValueError(
            "model.name must be a model whose tokenizer has an end-of-text token, got none; add an "
            '"eos_token" to its tokenizer_config.json'
        )
    return int(end)


def decoder_batch(items: Sequence[dict[str, Any]], pad: int, every_token: bool = False) -> Batch:
    """A decoder's batch; `labels[i, j]` follows the token at position `logits_to_keep[j]` of example i.

    Logits are computed only at positions where an example has a label.

    Args:
        items: of an `Encoded` with `starts`.
        pad: the pad token.
        every_token: whether the tokens of the prompt are predicted as well.
    Example:
        >>> batch = decoder_batch([{"input_ids": [5, 6, 7, 8], "start": 2}, {"input_ids": [5, 9], "start": 1}], pad=0)
        >>> batch["input_ids"].tolist(), batch["logits_to_keep"].tolist(), batch["labels"].tolist()
        ([[5, 6, 7, 8], [5, 9, 0, 0]], [0, 1, 2], [[-100, 7, 8], [9, -100, -100]])
    """
    rows = [np.asarray(item["input_ids"]) for item in items]
    following = []
    for row, item in zip(rows, items, strict=True):
        following.append(np.append(row[1:], IGNORED))
        following[-1][: 0 if every_token else max(item["start"] - 1, 0)] = IGNORED
    labels = padded(following, IGNORED)
    kept = (labels != IGNORED).any(0).nonzero().squeeze(1)
    mask = padded([np.ones(len(row), np.int64) for row in rows], 0)
    return {"input_ids": padded(rows, pad), "attention_mask": mask, "logits_to_keep": kept, "labels": labels[:, kept]}


def encoder_decoder_batch(items: Sequence[dict[str, Any]], pad: int, first: int, bos: int | None) -> Batch:
    """An encoder-decoder's batch; `labels[i, j]` follows `decoder_input_ids[i, j]`.

    Args:
        items: of an `Encoded` with `starts`.
        pad: the pad token.
        first: the token that starts decoding.
        bos: the token before a text; where prompts begin with it, completions do too.
    Example:
        >>> batch = encoder_decoder_batch([{"input_ids": [5, 6, 7, 8], "start": 2}], pad=0, first=1, bos=None)
        >>> batch["input_ids"].tolist(), batch["decoder_input_ids"].tolist(), batch["labels"].tolist()
        ([[5, 6]], [[1, 7]], [[7, 8]])
    """
    prompts = [np.asarray(item["input_ids"][: item["start"]]) for item in items]
    completions = [np.asarray(item["input_ids"][item["start"] :]) for item in items]
    if bos is not None and all(len(prompt) and prompt[0] == bos for prompt in prompts):
        completions = [np.append(bos, completion) for completion in completions]
    given = [np.append(first, completion[:-1]) for completion in completions]
    return {
        "input_ids": padded(prompts, pad),
        "attention_mask": padded([np.ones(len(row), np.int64) for row in prompts], 0),
        "decoder_input_ids": padded(given, pad),
        "decoder_attention_mask": padded([np.ones(len(row), np.int64) for row in given], 0),
        "labels": padded(completions, IGNORED),
    }


def prompts_of(data: Encoded) -> tuple[list[NDArray[np.int32]], NDArray[np.int64]]:
    """The distinct prompts in order of appearance, and the number of each example's prompt among them, `(n,)`."""
    assert data.starts is not None
    found: dict[bytes, int] = {}
    prompts: list[NDArray[np.int32]] = []
    numbers = np.empty(len(data), np.int64)
    for index, (offset, start) in enumerate(zip(data.offsets, data.starts, strict=False)):
        tokens = data.ids[offset : offset + start]
        numbers[index] = found.setdefault(tokens.tobytes(), len(found))
        if numbers[index] == len(prompts):
            prompts.append(tokens)
    return prompts, numbers


def _tokens(tokenizer: Any, texts: list[str], special: bool) -> list[list[int]]:
    if not texts:
        return []
    found: list[list[int]] = tokenizer(texts, add_special_tokens=special, return_attention_mask=False)["input_ids"]
    return found


def _written(tokenizer: Any, messages: list[dict[str, Any]], completion: str) -> tuple[str, str]:
    """A conversation and its last message in the tokenizer's chat template."""
    if tokenizer.chat_template is None:
        raise ValueError(
            "task.messages needs a model whose tokenizer has a chat template, got none; use task.prompt and "
            "task.completion"
        )
    answer = {"role": "assistant", "content": completion}
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    whole = tokenizer.apply_chat_template([*messages, answer], tokenize=False)
    if not whole.startswith(prompt):
        raise ValueError(
            "task.messages needs a chat template that only adds text for the last message; this model's rewrites the "
            "messages before it"
        )
    return prompt, whole[len(prompt) :].rstrip()
