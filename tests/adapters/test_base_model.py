"""Base models are loaded for an adapter, and damaged ones are refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rankopt.adapters.merge_into_base import merge_into_base


@pytest.mark.parametrize(
    "damage",
    [
        {"hidden_size": 64},
        {"num_hidden_layers": "x"},
        {"num_hidden_layers": 4},
        {"architectures": ["pipeline"]},
        {"architectures": ["LlamaConfig"]},
        {"quantization_config": {"quant_method": "gptq", "bits": 4}},
        None,
    ],
    ids=str,
)
def test_a_damaged_base_is_one_line(
    damage: dict[str, Any] | None, adapter_of: Callable[..., Path], tmp_path: Path, stock: Any
) -> None:
    """Whatever error transformers raises, the line names the folder, and nothing is written."""
    adapter, base = adapter_of("all of Llama"), tmp_path / "base"
    stock.build("llama").save_pretrained(base)
    if damage and "architectures" in damage:  # used where the adapter names no task
        config = json.loads((adapter / "adapter_config.json").read_text())
        (adapter / "adapter_config.json").write_text(json.dumps(config | {"task_type": None}))
    if damage:
        config = json.loads((base / "config.json").read_text())
        (base / "config.json").write_text(json.dumps(config | damage))
    else:
        weights = (base / "model.safetensors").read_bytes()
        (base / "model.safetensors").write_bytes(weights[:-50])
    with pytest.raises(ValueError, match="--model must be a model's folder or hub id") as caught:
        merge_into_base(adapter, str(base), tmp_path / "merged")
    assert "\n" not in str(caught.value)
    assert str(base) in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {adapter.name, "base"}
