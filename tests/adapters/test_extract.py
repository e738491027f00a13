"""The adapter between two models: PEFT loads it onto the base and gets the tuned weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from peft_adapters import FAMILIES, build
from transformers import AutoModel

from rankopt.adapters.extract import extract


@torch.no_grad()
def tune(family: str, folder: Path, rank: int) -> Any:
    """A base model and a copy whose linear maps have moved by `rank` directions of decreasing size."""
    net = build(family)
    net.save_pretrained(folder / "base")
    draw = torch.Generator().manual_seed(1)
    for name, part in net.named_modules():
        weight = getattr(part, "weight", None)
        if weight is not None and weight.ndim == 2 and "embed" not in name and "wte" not in name and "wpe" not in name:
            for power in range(rank):
                column, row = (torch.randn(size, 1, generator=draw) for size in weight.shape)
                weight += 0.3 * 0.5**power * column @ row.T
    net.save_pretrained(folder / "tuned")
    return net


@pytest.mark.parametrize("family", FAMILIES)
def test_all_of_the_difference(family: str, tmp_path: Path, stock: Any) -> None:
    """With full energy, base and adapter give the tuned model's logits, head included."""
    tuned = tune(family, tmp_path, 2)
    expected = stock.logits(tuned)
    assert (stock.logits(build(family)) - expected).abs().max() > 0.1, "the test could not fail"
    done = extract(tmp_path / "base", tmp_path / "tuned", tmp_path / "adapter", energy=1.0)
    assert done.notes == ()
    loaded = PeftModel.from_pretrained(build(family), str(tmp_path / "adapter")).eval()
    torch.testing.assert_close(stock.logits(loaded), expected, atol=2e-4, rtol=1e-3)


def test_a_part_of_the_energy(tmp_path: Path) -> None:
    """The reported error is that of the dense differences, and the energy is at least what was asked for."""
    tuned = tune("llama", tmp_path, 4)
    done = extract(tmp_path / "base", tmp_path / "tuned", tmp_path / "adapter", energy=0.9)
    merged = PeftModel.from_pretrained(build("llama"), str(tmp_path / "adapter")).merge_and_unload()
    base, lost, total = build("llama").state_dict(), 0.0, 0.0
    for name, value in tuned.state_dict().items():
        lost += float((value - merged.state_dict()[name]).square().sum())
        total += float((value - base[name]).square().sum())
    assert done.relative_error == pytest.approx((lost / total) ** 0.5, rel=1e-3)
    assert 0.1 < done.relative_error <= 0.1**0.5
    assert "of the energy" in done.what


def test_a_base_without_a_head(tmp_path: Path, stock: Any) -> None:
    """A backbone's names lack the prefix; biases that differ are counted."""
    tuned = tune("roberta", tmp_path, 1)
    with torch.no_grad():
        tuned.roberta.encoder.layer[0].output.dense.bias += 1
    tuned.save_pretrained(tmp_path / "tuned")
    AutoModel.from_pretrained(tmp_path / "base", add_pooling_layer=False).save_pretrained(tmp_path / "backbone")
    done = extract(tmp_path / "backbone", tmp_path / "tuned", tmp_path / "adapter", rank=1)
    assert done.notes == ("1 other tensors (biases, norms, embeddings) differ and are not in the adapter",)
    assert done.relative_error < 1e-3


def test_refused(tmp_path: Path) -> None:
    """No model, equal models, and models of other shapes; nothing is written."""
    tune("llama", tmp_path, 0)
    tune("gpt2", tmp_path / "other", 1)
    (tmp_path / "empty").mkdir()
    cases = [
        ("nowhere at all", "tuned", "must be an existing folder or a hub id"),
        (tmp_path / "empty", "tuned", "must be a model with config.json and safetensors files"),
        (tmp_path / "base", "tuned", "must differ from .* in a linear map"),
        (tmp_path / "other" / "base", "tuned", "must have the weights of .*, got none for model.layers"),
    ]
    for base, tuned, message in cases:
        with pytest.raises(ValueError, match=message):
            extract(base, tmp_path / tuned, tmp_path / "adapter", energy=0.9)
    assert not (tmp_path / "adapter").exists()
