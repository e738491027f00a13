"""PEFT's rules for rank and scale, on configs of any size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from peft.utils.other import get_pattern_key

from rankopt.adapters.config import AdapterConfig, read_config

PATTERNS = {"query": 2, r"layer\.1\.value": 3, "(key|value)": 5, r"^encoder\.layer\.2\.query": 7, "layer.2.dense": 4}
NAMES = [f"encoder.layer.{layer}.{part}" for layer in range(3) for part in ("query", "key", "value", "dense", "out")]


@pytest.mark.parametrize("name", NAMES)
def test_the_same_rank_and_alpha_as_peft(name: str) -> None:
    config = AdapterConfig(peft_type="LORA", r=8, lora_alpha=16, rank_pattern=PATTERNS, alpha_pattern=PATTERNS)
    key = get_pattern_key(list(PATTERNS), name)
    rank, alpha = PATTERNS.get(key, 8), PATTERNS.get(key, 16)
    assert config.rank(name) == rank
    assert config.scale(name, rank) == alpha / rank


@pytest.mark.timeout(20)
def test_many_patterns(tmp_path: Path) -> None:
    """100,000 entries of `rank_pattern` are read, checked and looked up in seconds."""
    ranks = {f"model.layers.{layer}.experts.{expert}.up": 4 for layer in range(100) for expert in range(1000)}
    data: dict[str, Any] = {"peft_type": "LORA", "r": 8, "rank_pattern": ranks, "alpha_pattern": ranks}
    (tmp_path / "adapter_config.json").write_text(json.dumps(data))
    config = read_config(tmp_path)
    assert {config.rank(name) for name in ranks} == {4}
    assert config.rank("model.layers.0.experts.0.down") == 8


def test_too_many_expressions(tmp_path: Path) -> None:
    """Expressions that have to be tried one by one are limited, in one line."""
    ranks = {f"layer.{index}.(key|value)": 4 for index in range(2000)}
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "rank_pattern": ranks}))
    with pytest.raises(ValueError, match="must hold at most 1,000 different regular expressions, got 2,000") as caught:
        read_config(tmp_path)
    assert len(str(caught.value).splitlines()) == 1
