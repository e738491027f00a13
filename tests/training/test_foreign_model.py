"""What is found out about a model that a user brings."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from own_training import decoder, encoder
from tiny_models import tiny_config
from torch import nn

from rankopt.training.foreign_model import hide_frozen_weights, output_head, task_type_of, trained_head


def tiny(name: str, family: str, **fields: Any) -> Any:
    return getattr(transformers, name)(tiny_config(family, **fields))


@pytest.mark.parametrize(
    ("make", "head", "outputs", "task"),
    [
        (encoder, ("classifier",), (), "SEQ_CLS"),
        (decoder, (), ("lm_head",), "CAUSAL_LM"),
        (lambda: tiny("BertForTokenClassification", "bert"), ("classifier",), (), "TOKEN_CLS"),
        (lambda: tiny("BertForQuestionAnswering", "bert"), ("qa_outputs",), (), "QUESTION_ANS"),
        (lambda: tiny("BertForMaskedLM", "bert"), (), ("cls.predictions.decoder",), None),
        (lambda: tiny("BertModel", "bert"), (), (), None),
        (lambda: tiny("BartForConditionalGeneration", "bart"), (), ("lm_head",), "SEQ_2_SEQ_LM"),
        (lambda: nn.Sequential(nn.Linear(2, 2)), (), (), None),
    ],
)
def test_head_and_task(make: Any, head: tuple[str, ...], outputs: tuple[str, ...], task: str | None) -> None:
    """A classifier's head is trained; the map onto the vocabulary, tied or not, is neither trained nor adapted."""
    model = make()
    assert (trained_head(model), output_head(model), task_type_of(model)) == (head, outputs, task)


def test_frozen_weights_are_hidden() -> None:
    """Gates stay, because an allocator may change one that is not trained; a plain module is left alone."""
    model: Any = encoder().requires_grad_(False)
    model.classifier.requires_grad_(True)
    model.bert.g = nn.Parameter(torch.ones(2), requires_grad=False)
    assert not hide_frozen_weights(model)
    hidden = model._keys_to_ignore_on_save
    assert "bert.embeddings.word_embeddings.weight" in hidden
    assert not {"bert.g", "classifier.weight"} & hidden
    assert hide_frozen_weights(nn.Linear(2, 2)) is None
