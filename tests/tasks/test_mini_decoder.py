"""The embedded decoder: a tokenizer of words, and a pretraining that repeats itself."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from rankopt.tasks import mini_decoder
from rankopt.tasks.mini_decoder import COLON, build_tokenizer, corpus, decoder_path, pretrain
from rankopt.tasks.mini_language import WORDS


def test_every_word_is_a_token() -> None:
    tokenizer = build_tokenizer()
    text = " ".join([*WORDS, COLON])
    assert tokenizer.unk_token_id not in tokenizer(text)["input_ids"]
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


def test_the_corpus_repeats_itself() -> None:
    assert corpus(Random(3), 20) == corpus(Random(3), 20)
    assert {len(text.split()) for text in corpus(Random(3), 50)} == {11, 12}


def test_pretraining_repeats_itself_and_keeps_the_random_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(mini_decoder.TRAINING, "steps", 3)
    monkeypatch.setitem(mini_decoder.TRAINING, "pairs", 64)
    weights, seen = [], []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        before = torch.get_rng_state()
        pretrain(folder, lambda step, steps: seen.append((step, steps)))
        assert torch.equal(torch.get_rng_state(), before)
        weights.append(load_file(folder / "model.safetensors"))
        torch.rand(1)
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert seen == [(1, 3), (2, 3), (3, 3)] * 2
    assert AutoModelForCausalLM.from_pretrained(folder).config.vocab_size == len(AutoTokenizer.from_pretrained(folder))


@pytest.mark.slow
def test_it_knows_the_corpus() -> None:
    """The first word of a category is the likeliest continuation, in one of both orders."""
    folder = decoder_path()
    net, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids = tokenizer([f"{text} </s>" for text in corpus(Random(5), 300)], return_tensors="pt", padding=True)["input_ids"]
    labels = ids[:, 7:].masked_fill(ids[:, 7:] == tokenizer.pad_token_id, -100)
    with torch.no_grad():
        logits = net(input_ids=ids).logits[:, 6:-1]
    assert float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())) < 2.2
