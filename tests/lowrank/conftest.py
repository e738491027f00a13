"""Tiny random transformers of four families, built from configs without download."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_models import tiny_config
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedModel

SIZES: dict[str, Any] = {"vocab_size": 50, "num_labels": 3, "pad_token_id": 1}
CONFIGS: dict[str, Callable[[], Any]] = {
    "bert": lambda: tiny_config("bert", **SIZES),
    "roberta": lambda: tiny_config("roberta", **SIZES),
    "deberta": lambda: tiny_config("deberta-v2", **SIZES, pos_att_type=["p2c", "c2p"], share_att_key=True),
    "gpt2": lambda: tiny_config("gpt2", **SIZES),
}
HEADS = {
    "bert": ("classifier",),
    "roberta": ("classifier",),
    "deberta": ("pooler", "classifier"),
    "gpt2": ("score",),
}


def make(family: str, seed: int = 0) -> PreTrainedModel:
    """A model of a family in evaluation mode, with random weights that depend on the seed."""
    torch.manual_seed(seed)
    return AutoModelForSequenceClassification.from_config(CONFIGS[family]()).eval()


@torch.no_grad()
def logits(model: Any) -> Tensor:
    """The logits of a model on a fixed padded batch."""
    ids = torch.randint(2, 50, (4, 9), generator=torch.Generator().manual_seed(7))
    ids[0, 6:] = 1
    return model(input_ids=ids, attention_mask=(ids != 1).long()).logits


@pytest.fixture(params=list(CONFIGS))
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def build() -> Callable[..., PreTrainedModel]:
    return make


@pytest.fixture
def answer() -> Callable[[Any], Tensor]:
    return logits


@pytest.fixture
def heads() -> dict[str, tuple[str, ...]]:
    return HEADS
