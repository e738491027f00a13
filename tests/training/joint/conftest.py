"""Models with dropout, and a record of the joint passes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import tiny_config
from torch import Tensor
from transformers import BertModel

from rankopt.training.joint.stacked_model import Stack


@pytest.fixture(scope="session")
def save_model(tiny_tokenizer: Any) -> Callable[..., Path]:
    """Writes a tiny BERT with dropout and its tokenizer to a folder."""

    def save(folder: Path, **changes: Any) -> Path:
        sizes = {
            "vocab_size": len(tiny_tokenizer), "hidden_size": 32, "intermediate_size": 48, "initializer_range": 0.2,
        }  # fmt: skip
        torch.manual_seed(0)
        BertModel(tiny_config(**(sizes | changes))).save_pretrained(folder)
        tiny_tokenizer.save_pretrained(folder)
        return folder

    return save


@pytest.fixture(scope="session")
def dropping_model(tmp_path_factory: pytest.TempPathFactory, save_model: Callable[..., Path]) -> Path:
    """The folder of a tiny BERT with dropout everywhere."""
    return save_model(tmp_path_factory.mktemp("models"), attention_probs_dropout_prob=0.2)


@pytest.fixture
def dropping_spec(tiny_spec: Callable[..., Any], dropping_model: Path) -> Callable[..., Any]:
    """`tiny_spec` on the model with dropout."""
    return lambda **changes: tiny_spec(model__name=str(dropping_model), **changes)


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, int]]:
    """Of every joint pass: whether it trained, and the number of trials."""
    seen: list[tuple[bool, int]] = []

    class Watched(Stack):
        def forward(self, parts: Any, training: bool) -> list[Tensor]:
            logits = super().forward(parts, training)
            seen.append((training, len(parts)))
            return logits

    monkeypatch.setattr("rankopt.training.joint.joint_training.Stack", Watched)
    return seen
