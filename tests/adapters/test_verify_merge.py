"""The check of a merged model notices every kind of wrong tensor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rankopt.adapters.adapter import read_adapter
from rankopt.adapters.verify_merge import verify_merge

TINY = 1e-4


@pytest.fixture
def merged(adapter_of: Callable[..., Path], stock: Any) -> Callable[[str], tuple[Any, Any, Any]]:
    """An adapter, its base model, and that base model with the adapter merged by PEFT."""

    def make(case: str) -> tuple[Any, Any, Any]:
        folder = adapter_of(case)
        family = stock.cases[case][0]
        return read_adapter(folder), stock.build(family), stock.load(family, folder).merge_and_unload()

    return make


def test_accepts_what_peft_merges(case: str, merged: Any) -> None:
    """PEFT's own merged model has the intended tensors, up to rounding."""
    source, base, model = merged(case)
    error, change = verify_merge(source, base, model, source.folder)
    assert error <= 1e-6 * change


@pytest.mark.parametrize(
    ("case", "name"),
    [
        ("plain", "roberta.encoder.layer.1.attention.self.query.weight"),
        ("plain", "roberta.encoder.layer.0.attention.self.key.weight"),
        ("plain", "classifier.dense.bias"),
        ("lora_bias", "roberta.encoder.layer.1.attention.self.value.bias"),
        ("DoRA", "roberta.encoder.layer.0.intermediate.dense.weight"),
        ("fan_in_fan_out", "transformer.h.1.mlp.c_fc.weight"),
        ("modules_to_save", "score.weight"),
        ("embeddings", "model.embed_tokens.weight"),
    ],
)
def test_notices_a_wrong_tensor(case: str, name: str, merged: Any) -> None:
    """Adapted, carried and untouched tensors, and biases."""
    source, base, model = merged(case)
    with torch.no_grad():
        model.get_parameter(name).flatten()[3].add_(TINY)
    with pytest.raises(OSError, match=f"{name} of the merged model differs from the intended value"):
        verify_merge(source, base, model, source.folder)


def test_shares_no_code_with_merging() -> None:
    """Otherwise it would confirm the merging's own mistakes."""
    from rankopt.adapters import add_updates, base_model, verify_merge

    used = {name for module in (add_updates, base_model) for name, value in vars(module).items() if callable(value)}
    shared = used & set(vars(verify_merge))
    assert shared <= {"Adapter", "Path", "Tensor"}
