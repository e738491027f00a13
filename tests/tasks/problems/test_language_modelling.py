"""Loss and scores of language modelling are those of transformers and of the definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tiny_models import tiny_config
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from rankopt.tasks.completions import IGNORED
from rankopt.tasks.problems import LanguageModelling

PROBLEM = LanguageModelling()
ITEMS = [{"input_ids": np.array([4, 5, 6, 7, 8]), "start": 2}, {"input_ids": np.array([9, 10, 11]), "start": 1}]


class Tokens:
    """What `collate` reads of a tokenizer."""

    pad_token_id, bos_token_id = 0, 2


def model(family: str):  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    kind = AutoModelForSeq2SeqLM if family == "bart" else AutoModelForCausalLM
    return kind.from_config(tiny_config(family, pad_token_id=0)).eval()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@torch.no_grad()
def test_the_loss_is_transformers_own(family: str) -> None:
    """The mean over completion tokens equals what the model computes from labels over all positions."""
    net = model(family)
    batch = PROBLEM.collate(ITEMS, Tokens(), net.config)  # type: ignore[arg-type]
    labels = batch.pop("labels")
    logits = net(**batch).logits
    whole = net(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    torch.testing.assert_close(logits, whole[:, batch["logits_to_keep"]])
    full = torch.full_like(batch["input_ids"], IGNORED)
    for row, item in enumerate(ITEMS):
        part = slice(item["start"], len(item["input_ids"]))
        full[row, part] = batch["input_ids"][row, part]
    own = net(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=full).loss
    torch.testing.assert_close(PROBLEM.loss(logits, labels) / PROBLEM.items(labels), own)


@torch.no_grad()
def test_the_loss_of_an_encoder_decoder_is_transformers_own() -> None:
    net = model("bart")
    batch = PROBLEM.collate(ITEMS, Tokens(), net.config)  # type: ignore[arg-type]
    labels = batch.pop("labels")
    loss = PROBLEM.loss(net(**batch).logits, labels) / PROBLEM.items(labels)
    own = net(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss
    torch.testing.assert_close(loss, own)


def test_scores_follow_their_definitions() -> None:
    labels = torch.tensor([[1, 2, IGNORED], [3, 0, 1]])
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    kept = {name: value.numpy() for name, value in PROBLEM.answers(logits, labels).items()}
    total = float(PROBLEM.loss(logits, labels))
    assert kept["tokens"].tolist() == [2, 3]
    assert kept["loss"].sum() == pytest.approx(total)
    texts = np.array(["ab", "ä"], dtype=object)
    scores = PROBLEM.scores(["loss", "perplexity", "bits_per_byte", "token_accuracy"], kept, texts)
    hits = ((logits.argmax(-1) == labels) & (labels != IGNORED)).sum()
    expected = [total / 5, math.exp(total / 5), total / math.log(2) / 4, float(hits) / 5]
    assert list(scores.values()) == pytest.approx(expected)
    assert PROBLEM.mean_loss(kept, texts) == pytest.approx(total / 5)


def test_a_model_teaches_itself_nothing() -> None:
    labels = torch.tensor([[1, IGNORED]])
    logits, other = torch.randn(1, 2, 5), torch.randn(1, 2, 5)
    assert float(PROBLEM.distillation(logits, logits, labels)) == pytest.approx(0.0, abs=1e-6)
    changed = logits.clone()
    changed[0, 1] = other[0, 1]
    assert float(PROBLEM.distillation(logits, changed, labels)) == pytest.approx(0.0, abs=1e-6), "no label, no loss"
    assert float(PROBLEM.distillation(logits, other, labels)) > 0.01


def test_the_standard_error_is_that_of_resampled_examples() -> None:
    draw = np.random.default_rng(0)
    tokens = draw.integers(5, 20, 400)
    kept = {"loss": tokens * draw.gamma(4.0, 0.4, 400), "tokens": tokens, "correct": tokens // 2}
    texts = np.array(["x"] * 400, dtype=object)
    resampled = []
    for _ in range(400):
        rows = draw.integers(0, 400, 400)
        again = {name: values[rows] for name, values in kept.items()}
        resampled.append(PROBLEM.scores(["perplexity"], again, texts)["perplexity"])
    assert PROBLEM.standard_error("perplexity", kept) == pytest.approx(np.std(resampled), rel=0.2)
    assert PROBLEM.standard_error("token_accuracy", kept) == pytest.approx(0.025)


def test_a_diverged_model_has_a_finite_perplexity() -> None:
    kept = {"loss": np.array([1e6]), "tokens": np.array([1]), "correct": np.array([0])}
    assert math.isfinite(PROBLEM.scores(["perplexity"], kept, np.array(["x"], object))["perplexity"])
