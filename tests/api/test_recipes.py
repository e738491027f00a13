"""Lines to paste: they are what PEFT builds, with the scale of the trained network."""

from __future__ import annotations

from typing import Any

import pytest
from peft import LoraConfig, get_peft_model
from peft_adapters import build

from rankopt.api.recipes import recipes

NAMES = [f"model.layers.{layer}.self_attn.{part}_proj" for layer in (0, 1) for part in "qkvo"]
OTHERS = [f"model.layers.{layer}.mlp.{part}_proj" for layer in (0, 1) for part in ("gate", "up", "down")]


def built(line: str) -> dict[str, Any]:
    """Module -> PEFT's layer, for the line."""
    config = eval(line.partition("  #")[0], {"LoraConfig": LoraConfig})
    net = get_peft_model(build("llama"), config)
    return {name.removeprefix("base_model.model."): m for name, m in net.named_modules() if hasattr(m, "lora_A")}


def test_a_uniform_rank() -> None:
    layers = built(recipes(4, 2.0, 1e-3)["PEFT"])
    assert layers.keys() == {*NAMES, *OTHERS}
    assert {(m.r["default"], m.scaling["default"]) for m in layers.values()} == {(4, 2.0)}


def test_a_pattern() -> None:
    """Every module gets its rank at one scale, and modules of rank 0 get no adapter."""
    pattern = {name: 1 + index % 3 for index, name in enumerate(NAMES)} | dict.fromkeys(OTHERS, 0)
    found = recipes(2, 2.0, 1e-3, pattern)
    layers = built(found["PEFT"])
    assert {name: m.r["default"] for name, m in layers.items()} == {n: r for n, r in pattern.items() if r}
    assert {m.scaling["default"] for m in layers.values()} == {2.0}
    assert "lora_rank_pattern: {" in found["Axolotl"]
    assert found["LLaMA-Factory"].partition("\n")[2].startswith("finetuning_type: lora\nlora_rank: 2\nlora_alpha: 4\n")


@pytest.mark.parametrize("program", ["PEFT", "TRL", "Axolotl", "LLaMA-Factory"])
def test_learning_rate_and_rank(program: str) -> None:
    line = recipes(8, 1.5, 3e-4)[program]
    assert "0.0003" in line
    assert "12" in line
