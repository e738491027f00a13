"""Sums of adapters equal the sums of their updates, and PEFT loads them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import rankopt
from rankopt.adapters.adapter import read_adapter
from rankopt.adapters.merge import merge_adapters


@pytest.mark.parametrize("case", ["plain", "rsLoRA", "fan_in_fan_out", "embeddings", "lora_bias", "AdaLoRA"])
@pytest.mark.parametrize("weights", [[1.0, 1.0], [0.7, -0.3]], ids=str)
def test_the_sum_of_two(
    case: str, weights: list[float], adapter_of: Callable[..., Path], tmp_path: Path, stock: Any
) -> None:
    """Every module's update is the exact weighted sum, and PEFT loads it; with a rank, its best approximation."""
    a, b = adapter_of(case, 1, "a"), adapter_of(case, 2, "b")
    sums = {name: weights[0] * update + weights[1] * stock.dense(b)[name] for name, update in stock.dense(a).items()}
    done = merge_adapters([a, b], tmp_path / "c", weights=weights)
    assert done.relative_error < 1e-6
    for name, update in stock.dense(tmp_path / "c").items():
        torch.testing.assert_close(update, sums[name], atol=1e-6, rtol=1e-5)
    stock.load(stock.cases[case][0], tmp_path / "c")
    cut = merge_adapters([a, b], tmp_path / "d", weights=weights, rank=2)
    tails = [float(torch.linalg.svdvals(update)[2:].norm()) for update in sums.values()]
    assert cut.error == pytest.approx(sum(tail**2 for tail in tails) ** 0.5, rel=1e-4)


def test_the_sum_equals_two_merges_by_peft(adapter_of: Callable[..., Path], tmp_path: Path, stock: Any) -> None:
    """Adapters on different modules with different ranks; PEFT merges one after the other into the base model."""
    a, b = adapter_of("plain", 1, "a"), adapter_of("rank and alpha patterns", 2, "b")
    merge_adapters([a, b], tmp_path / "c")
    one = stock.load("roberta", b).merge_and_unload()
    from peft import PeftModel

    both = PeftModel.from_pretrained(
        one, str(a)
    ).merge_and_unload()  # a last, because the head is taken from the first adapter
    torch.testing.assert_close(
        stock.logits(stock.load("roberta", tmp_path / "c")), stock.logits(both), atol=1e-5, rtol=1e-5
    )


def test_incompatible_adapters_are_refused(adapter_of: Callable[..., Path], tmp_path: Path) -> None:
    a, dora = adapter_of("plain", 1, "a"), adapter_of("DoRA", 1, "b")
    with pytest.raises(ValueError, match="DoRA adapters cannot be added up"):
        merge_adapters([a, dora], tmp_path / "c")
    other = adapter_of("plain", 2, "d")
    for folder, base in ((a, "one"), (other, "two")):
        config = json.loads((folder / "adapter_config.json").read_text()) | {"base_model_name_or_path": base}
        (folder / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="must have the same base model, got 'one' and 'two'"):
        merge_adapters([a, other], tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_no_head_is_lost(adapter_of: Callable[..., Path], tmp_path: Path) -> None:
    """A head that only a later adapter has is refused; named first, it is kept."""
    head, plain = adapter_of("modules_to_save", name="head"), tmp_path / "plain"
    tensors = load_file(head / "adapter_model.safetensors")
    config = json.loads((head / "adapter_config.json").read_text())
    plain.mkdir()
    save_file({key: value for key, value in tensors.items() if ".lora_" in key}, plain / "adapter_model.safetensors")
    (plain / "adapter_config.json").write_text(json.dumps(config | {"modules_to_save": None}))
    with pytest.raises(ValueError, match="cannot be added up and is kept only from the first adapter"):
        merge_adapters([plain, head], tmp_path / "sum")
    assert not (tmp_path / "sum").exists()
    assert merge_adapters([head, plain], tmp_path / "sum").notes
    kept = load_file(tmp_path / "sum" / "adapter_model.safetensors")
    assert {key for key in tensors if ".lora_" not in key} <= set(kept)


def test_a_head_that_is_not_finite_is_refused(adapter_of: Callable[..., Path], tmp_path: Path) -> None:
    """The error is about the input, not about a failed write."""
    head = adapter_of("modules_to_save", name="head")
    file = head / "adapter_model.safetensors"
    tensors = load_file(file)
    key = next(key for key in tensors if ".lora_" not in key)
    save_file(tensors | {key: torch.full_like(tensors[key], float("nan"))}, file)
    with pytest.raises(ValueError, match="must be finite"):
        merge_adapters([head, head], tmp_path / "sum")
    assert not (tmp_path / "sum").exists()


def test_sums_without_components(adapter_of: Callable[..., Path], tmp_path: Path, stock: Any) -> None:
    """AdaLoRA adapters without components give one zero component, because PEFT needs a target; so does compressing."""
    empty = adapter_of("AdaLoRA")
    file = empty / "adapter_model.safetensors"
    cut = {
        key: value[:, :0] if ".lora_B" in key else value[:0] if ".lora_" in key else value
        for key, value in load_file(file).items()
    }
    save_file({key: value.contiguous() for key, value in cut.items()}, file)
    done = merge_adapters([empty, empty], tmp_path / "sum")
    assert (done.error, done.relative_error) == (0.0, 0.0)
    assert sum(module.rank for module in read_adapter(tmp_path / "sum").modules.values()) == 1
    for number, amount in enumerate(({"energy": 0.5}, {"ratio": 0.5}, {"budget": 1}, {"rank": 3, "uniform": True})):
        rankopt.compress(empty, tmp_path / f"small{number}", **amount)
        assert not any(update.any() for update in stock.dense(tmp_path / f"small{number}").values())
