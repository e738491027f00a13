"""Encoding against the tokenizer's own one-by-one answer, and padding against `tokenizer.pad`."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from rankopt.tasks import encode as encode_module
from rankopt.tasks.encode import Encoded, collate
from rankopt.tasks.glue import GLUE

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "film", "of", "rare", "warmth", "and", "rain"]


def tokenizer(segments: bool = True, side: str = "right") -> PreTrainedTokenizerFast:
    """A word-level tokenizer in BERT's format, or in RoBERTa's (no segment ids)."""
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = ["input_ids", *(["token_type_ids"] if segments else []), "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", model_input_names=names, padding_side=side
    )


TOKENIZER = tokenizer()

sentences = st.lists(st.sampled_from(WORDS[4:]), max_size=12).map(" ".join)


def single(texts: list[str]) -> Dataset:
    return Dataset.from_dict({"sentence": texts, "label": [i % 2 for i in range(len(texts))]})


def pairs(texts: list[tuple[str, str]]) -> Dataset:
    first, second = zip(*texts, strict=True)
    return Dataset.from_dict(
        {"sentence1": list(first), "sentence2": list(second), "label": [i / 4 for i in range(len(texts))]}
    )


@given(st.lists(st.tuples(sentences, sentences), min_size=1, max_size=10), st.integers(5, 20))
@settings(deadline=None, max_examples=40)
def test_pairs_are_encoded_as_the_tokenizer_does_one_by_one(texts: list[tuple[str, str]], max_length: int) -> None:
    encoded = GLUE["stsb"].tokenise(pairs(texts), TOKENIZER, max_length)
    assert len(encoded) == len(texts)
    for i, (first, second) in enumerate(texts):
        # as lists: given "" alone, transformers takes the second text for absent
        expected = TOKENIZER([first], [second], truncation=True, max_length=max_length)
        item = encoded[i]
        assert list(item) == ["input_ids", "token_type_ids", "attention_mask", "labels"]
        assert all(item[name].tolist() == expected[name][0] for name in list(item)[:3])
        assert item["labels"] == i / 4
        assert type(item["labels"]) is float
        assert encoded.lengths[i] == len(expected["input_ids"][0]) <= max_length


@given(st.lists(sentences, min_size=1, max_size=10), st.sampled_from(["left", "right"]))
@settings(deadline=None, max_examples=40)
def test_batches_are_padded_as_the_tokenizer_pads(texts: list[str], side: str) -> None:
    mine = tokenizer(side=side)
    encoded = GLUE["sst2"].tokenise(single(texts), mine, 16)
    batch = collate([encoded[i] for i in range(len(texts))], mine)
    expected = mine(texts, truncation=True, max_length=16, padding=True)
    for name in ("input_ids", "token_type_ids", "attention_mask"):
        assert batch[name].dtype == torch.int64
        assert batch[name].tolist() == expected[name]
    assert batch["labels"].dtype == torch.int64
    assert batch["labels"].tolist() == [i % 2 for i in range(len(texts))]


def test_regression_labels_are_float32() -> None:
    encoded = GLUE["stsb"].tokenise(pairs([("a film", "rain"), ("rare warmth", "a")]), TOKENIZER, 16)
    batch = collate([encoded[1], encoded[0]], TOKENIZER)
    assert batch["labels"].dtype == torch.float32
    assert batch["labels"].tolist() == [0.25, 0.0]


def test_without_segment_ids() -> None:
    mine = tokenizer(segments=False)
    encoded = GLUE["sst2"].tokenise(single(["a film"]), mine, 16)
    assert encoded.types is None
    assert list(encoded[0]) == ["input_ids", "attention_mask", "labels"]
    assert set(collate([encoded[0]], mine)) == {"input_ids", "attention_mask", "labels"}


def test_chunks_join_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    data = single(["a", "a film", "", "a film of rare warmth", "rain"])
    whole = GLUE["sst2"].tokenise(data, TOKENIZER, 16)
    monkeypatch.setattr(encode_module, "CHUNK", 2)
    parts = GLUE["sst2"].tokenise(data, TOKENIZER, 16)
    assert all(np.array_equal(getattr(whole, name), getattr(parts, name)) for name in ("ids", "types", "offsets"))
    assert whole.lengths.tolist() == [3, 4, 2, 7, 3]


def test_selected_rows_keep_their_order() -> None:
    data = single(["a", "a film", "a film of"]).select([2, 0])
    assert GLUE["sst2"].tokenise(data, TOKENIZER, 16).lengths.tolist() == [5, 3]


def test_works_in_a_torch_loader_and_survives_pickling() -> None:
    encoded: Encoded = pickle.loads(pickle.dumps(GLUE["sst2"].tokenise(single(["a film"] * 5), TOKENIZER, 16)))

    def join(items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return collate(items, TOKENIZER)

    loader = torch.utils.data.DataLoader(encoded, batch_size=2, collate_fn=join)  # type: ignore[arg-type]
    assert [tuple(batch["input_ids"].shape) for batch in loader] == [(2, 4), (2, 4), (1, 4)]


def test_indices_are_those_of_a_list() -> None:
    encoded = GLUE["sst2"].tokenise(single(["a", "rain"]), TOKENIZER, 16)
    assert encoded[-1]["input_ids"].tolist() == encoded[np.int64(1)]["input_ids"].tolist()
    with pytest.raises(IndexError):
        encoded[2]


def test_no_room_for_text() -> None:
    with pytest.raises(ValueError, match=r"task.max_length must be at least 5 with this tokenizer, got 4"):
        GLUE["rte"].tokenise(pairs([("a", "a")]), TOKENIZER, 4)


def test_no_pad_token() -> None:
    encoded = GLUE["sst2"].tokenise(single(["a film"]), TOKENIZER, 16)
    mine = tokenizer()
    mine.pad_token = None
    with pytest.raises(ValueError, match="must have a pad token, got none: set"):
        collate([encoded[0]], mine)


def test_hostile_texts_are_ordinary_texts() -> None:
    """Empty texts, 100,000 characters, control characters: every example has tokens, none is too long."""
    texts = ["", " ", "film " * 20_000, "x" * 100_000, "a\x00b\x1b[31m", "\u202e\ufeff\u2028", "\U0001f642"]
    encoded = GLUE["sst2"].tokenise(single(texts), TOKENIZER, 16)
    assert len(encoded) == len(texts)
    assert encoded.lengths.min() >= 1
    assert encoded.lengths.max() == 16
    batch = collate([encoded[i] for i in range(len(texts))], TOKENIZER)
    assert batch["input_ids"].shape == (len(texts), 16)
