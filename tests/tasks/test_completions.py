"""Prompts and completions as tokens and batches: nothing is lost, and only completions are predicted."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from rankopt.tasks.completions import (
    IGNORED,
    decoder_batch,
    encode_completions,
    encoder_decoder_batch,
    end_token,
    prompts_of,
)
from rankopt.tasks.mini_decoder import build_tokenizer
from rankopt.tasks.mini_language import WORDS

TOKENIZER = build_tokenizer()
BOS, EOS, PAD = TOKENIZER.bos_token_id, TOKENIZER.eos_token_id, TOKENIZER.pad_token_id
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {{ '</s> ' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant {% endif %}"
)
texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=5).map(" ".join)


def rows(*pairs: tuple[str, str]) -> Dataset:
    return Dataset.from_dict({"prompt": [prompt for prompt, _ in pairs], "label": [text for _, text in pairs]})


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=5))
def test_an_example_is_its_prompt_its_completion_and_the_end(pairs: list[tuple[str, str]]) -> None:
    encoded = encode_completions(["prompt"], rows(*pairs), TOKENIZER, 32)
    assert encoded.starts is not None
    assert encoded.labels.tolist() == [text for _, text in pairs]
    for (prompt, text), item in zip(pairs, map(encoded.__getitem__, range(len(pairs))), strict=True):
        ids, start = item["input_ids"].tolist(), item["start"]
        assert ids[:start] == TOKENIZER(prompt)["input_ids"]
        assert ids[start:] == [*TOKENIZER(text, add_special_tokens=False)["input_ids"], EOS]


def test_only_prompts_are_cut_at_their_start() -> None:
    """The first special token stays, and the number of cut prompts is known; a completion is never cut."""
    long, short = " ".join(WORDS[:9]), " ".join(WORDS[9:12])
    encoded = encode_completions(["prompt"], rows((long, short), (short, short)), TOKENIZER, 9)
    assert TOKENIZER.decode(encoded[0]["input_ids"]) == " ".join(["<s>", *WORDS[5:9], short, "</s>"])
    assert encoded.shortened == 1
    with pytest.raises(
        ValueError, match=r"task\.max_length must be at least 12: the completion of row 2 has 10 tokens"
    ):
        encode_completions(["prompt"], rows((short, short), (short, long)), TOKENIZER, 11)


def test_texts_without_a_prompt() -> None:
    encoded = encode_completions([], rows(("", "and not")), TOKENIZER, 8)
    assert TOKENIZER.decode(encoded[0]["input_ids"]) == "<s> and not </s>"
    assert encoded[0]["start"] == 1


def test_messages_are_written_by_the_chat_template() -> None:
    """The prompt ends where the model is to write; the last message is the completion."""
    tokenizer = build_tokenizer()
    messages = json.dumps([{"role": "user", "content": "and and"}])
    data = Dataset.from_dict({"messages": [messages], "label": ["not"]})
    with pytest.raises(ValueError, match="chat template, got none"):
        encode_completions(["messages"], data, tokenizer, 16, chat=True)
    tokenizer.chat_template = TEMPLATE
    item = encode_completions(["messages"], data, tokenizer, 16, chat=True)[0]
    assert TOKENIZER.decode(item["input_ids"][item["start"] :]) == "not </s>"
    assert TOKENIZER.decode(item["input_ids"][: item["start"]]) == "<unk> and and </s> <unk>"
    tokenizer.chat_template = "{{ messages | length }} {{ messages[-1]['content'] }}"
    with pytest.raises(ValueError, match="rewrites the messages before it"):
        encode_completions(["messages"], data, tokenizer, 16, chat=True)


def test_a_tokenizer_without_an_end_is_refused() -> None:
    tokenizer = build_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="end-of-text token, got none"):
        end_token(tokenizer)
    tokenizer.sep_token = "</s>"
    assert end_token(tokenizer) == EOS


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=4), st.booleans())
def test_labels_follow_the_kept_positions(pairs: list[tuple[str, str]], every: bool) -> None:
    """Each completion token is the label of exactly one position, that of the token before it; no other token is."""
    encoded = encode_completions(["prompt"], rows(*pairs), TOKENIZER, 32)
    items = [encoded[index] for index in range(len(pairs))]
    batch = decoder_batch(items, PAD, every)
    kept, labels = batch["logits_to_keep"], batch["labels"]
    assert (labels != IGNORED).any(0).all(), "no position is kept for nothing"
    for row, item in enumerate(items):
        first = 1 if every else item["start"]
        counted = labels[row] != IGNORED
        assert (kept[counted] + 1).tolist() == list(range(first, len(item["input_ids"])))
        assert torch.equal(batch["input_ids"][row][kept[counted] + 1], labels[row][counted])
        assert int(batch["attention_mask"][row].sum()) == len(item["input_ids"])


def test_an_encoder_decoder_starts_as_its_tokenizer_writes_texts() -> None:
    """Where prompts begin with the tokenizer's first token, completions do too."""
    encoded = encode_completions(["prompt"], rows(("and", "not"), ("and and", "not not")), TOKENIZER, 16)
    batch = encoder_decoder_batch([encoded[0], encoded[1]], PAD, first=EOS, bos=BOS)
    word = TOKENIZER.convert_tokens_to_ids("not")
    assert batch["labels"].tolist() == [[BOS, word, EOS, IGNORED], [BOS, word, word, EOS]]
    assert batch["decoder_input_ids"].tolist() == [[EOS, BOS, word, PAD], [EOS, BOS, word, word]]
    assert batch["decoder_attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]


def test_equal_prompts_are_found() -> None:
    encoded = encode_completions(["prompt"], rows(("a", "and"), ("and", "not"), ("a", "not")), TOKENIZER, 16)
    prompts, numbers = prompts_of(encoded)
    assert [TOKENIZER.decode(prompt) for prompt in prompts] == ["<s> <unk>", "<s> and"]
    assert numbers.tolist() == [0, 1, 0]


def test_encoded_examples_come_back_from_the_cache(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from rankopt.tasks import TASKS
    from rankopt.tasks.encoded_cache import encode_once

    monkeypatch.setenv("RANKOPT_CACHE", str(tmp_path))
    data = rows(("and and and", "not"), ("and", "not ä"))
    first, second = (encode_once(TASKS["mini-text"], data, TOKENIZER, 5) for _ in range(2))
    assert len(list((tmp_path / "encoded").glob("*.npz"))) == 1
    assert first.labels.tolist() == second.labels.tolist() == ["not", "not ä"]
    assert first.starts is not None
    assert second.starts is not None
    assert first.starts.tolist() == second.starts.tolist()
    assert first.shortened == second.shortened == 1
