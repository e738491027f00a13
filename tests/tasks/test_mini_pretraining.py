"""Pretraining of the small encoder: its tokenizer, its head, what it learnt, and that it is reproducible."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from rankopt.tasks import mini_language
from rankopt.tasks.mini import MINI
from rankopt.tasks.mini_encoder import encoder_path


@pytest.fixture(scope="session")
def encoder() -> Path:
    return encoder_path()


def test_the_tokenizer_knows_every_word_and_marks_pairs(encoder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(encoder)
    assert tokenizer.is_fast
    for task in MINI.values():
        data = task.read("validation", None)
        encoded = tokenizer(*(data[column][:] for column in task.columns))
        for ids, types in zip(encoded["input_ids"], encoded["token_type_ids"], strict=True):
            assert tokenizer.unk_token_id not in ids
            assert max(types) == len(task.columns) - 1
            assert len(ids) <= tokenizer.model_max_length


def test_the_encoder_loads_as_a_classifier_with_only_a_new_head(encoder):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model, report = AutoModelForSequenceClassification.from_pretrained(
        encoder, num_labels=3, dtype=torch.float32, output_loading_info=True
    )
    assert set(report["missing_keys"]) == {"classifier.weight", "classifier.bias"}
    assert not report["unexpected_keys"]
    pair = mini_language.corpus(Random(1), 1)[0]
    batch = AutoTokenizer.from_pretrained(encoder)(*pair, return_tensors="pt")
    assert model(**batch).logits.shape == (1, 3)


def test_the_encoder_knows_categories(encoder):
    """Words of one category have similar embeddings, so that a rule learnt on some of them carries over."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(encoder), AutoModel.from_pretrained(encoder, dtype=torch.float32)
    groups = [members for members in mini_language.LEXICON.values() if len(members) > 1]
    vectors = model.get_input_embeddings().weight.detach()
    vectors = torch.nn.functional.normalize(vectors - vectors.mean(0), dim=1)
    means = torch.stack([vectors[tokenizer.convert_tokens_to_ids(list(group))].mean(0) for group in groups])
    within = means.norm(dim=1).square().mean()  # mean cosine of two members of one category, themselves included
    between = means.mean(0).norm().square()  # the same over all categories
    assert within > 0.4
    assert between < 0.1


def test_pretraining_repeats_itself_and_keeps_the_random_state_and_the_threads(monkeypatch, tmp_path):
    import torch

    from rankopt.tasks import mini_pretraining

    for name, value in {"steps": 3, "pairs": 100}.items():
        monkeypatch.setitem(mini_pretraining.TRAINING, name, value)
    weights = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        torch.manual_seed(len(weights))
        torch.set_num_threads(2 - len(weights))
        state = torch.get_rng_state()
        mini_pretraining.pretrain(tmp_path / name)
        assert torch.get_num_threads() == 2 - len(weights)
        assert torch.equal(torch.get_rng_state(), state)
        weights.append((tmp_path / name / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]
