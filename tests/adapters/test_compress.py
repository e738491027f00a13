"""Compressed adapters in PEFT: same logits at full energy, the promised error below it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import rankopt
from rankopt.adapters.adapter import read_adapter
from rankopt.adapters.truncate import distance


def test_updates_are_those_of_peft(case: str, tmp_path: Path, stock: Any) -> None:
    """Factors and scale of every module give PEFT's own delta weight."""
    _, model = stock.make(case, tmp_path / "a")
    found = stock.dense(tmp_path / "a")
    layers = {
        name.removeprefix("base_model.model."): layer
        for name, layer in model.named_modules()
        if hasattr(layer, "get_delta_weight") and "default" in getattr(layer, "r", {})
    }
    assert set(found) == set(layers)
    for name, layer in layers.items():
        delta = layer.get_delta_weight("default").double()
        base = type(layer.get_base_layer()).__name__
        torch.testing.assert_close(
            found[name], delta.T if base in ("Conv1D", "Embedding") else delta, atol=1e-6, rtol=1e-5
        )


@pytest.mark.parametrize("amount", [{"energy": 1.0}, {"energy": 1.0, "uniform": True}, {"ratio": 1.0}], ids=str)
def test_full_energy_changes_no_logit(case: str, amount: dict[str, Any], tmp_path: Path, stock: Any) -> None:
    """Loaded by stock PEFT on a fresh base model, logits agree within 1e-5."""
    family, model = stock.make(case, tmp_path / "a")
    expected = stock.logits(model)
    assert (stock.logits(stock.build(family)) - expected).abs().max() > 0.01, "the test could not fail"
    done = rankopt.compress(tmp_path / "a", tmp_path / "b", **amount)
    assert done.relative_error < 1e-6
    torch.testing.assert_close(stock.logits(stock.load(family, tmp_path / "b")), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "amount", [{"ratio": 0.5}, {"energy": 0.8}, {"rank": 2}, {"energy": 0.8, "uniform": True}], ids=str
)
def test_the_error_is_the_tail_of_the_spectrum(case: str, amount: dict[str, Any], tmp_path: Path, stock: Any) -> None:
    """Measured on dense updates, every module's error is its tail to 1e-5, and PEFT computes with these updates."""
    family, _ = stock.make(case, tmp_path / "a")
    before = stock.dense(tmp_path / "a")
    done = rankopt.compress(tmp_path / "a", tmp_path / "b", **amount)
    after = stock.dense(tmp_path / "b")
    total = 0.0
    for name, update in before.items():
        error = float((update - after.get(name, torch.zeros_like(update))).norm())
        tail = float(torch.linalg.svdvals(update)[done.cuts[name].kept :].norm())
        scale = float(update.norm())
        assert error == pytest.approx(tail, abs=1e-5 * scale)
        assert done.cuts[name].error == pytest.approx(error, abs=1e-6 * scale)
        assert done.cuts[name].bound == pytest.approx(tail, abs=1e-6 * scale)
        total += error**2
    assert done.error == pytest.approx(math.sqrt(total), rel=1e-5)
    assert done.energy == pytest.approx(1 - total / sum(float(u.norm()) ** 2 for u in before.values()), abs=1e-6)
    if "energy" in amount:
        assert done.energy >= amount["energy"]
    loaded = stock.load(family, tmp_path / "b")
    for name, layer in loaded.base_model.model.named_modules():
        if name in after and hasattr(layer, "get_delta_weight"):
            delta = layer.get_delta_weight("default").double()
            base = type(layer.get_base_layer()).__name__
            delta = delta.T if base in ("Conv1D", "Embedding") else delta
            torch.testing.assert_close(after[name], delta, atol=1e-6, rtol=1e-5)
    adapted = {name for name, layer in loaded.base_model.model.named_modules() if "default" in getattr(layer, "r", {})}
    assert adapted == set(after)


def test_budget_and_size(adapter_of: Callable[..., Path], tmp_path: Path) -> None:
    """The file is within budget, modules of rank 0 are removed, and unchanged modules keep their bits."""
    source = adapter_of("rank and alpha patterns")
    done = rankopt.compress(source, tmp_path / "b", budget=700)
    tensors = load_file(tmp_path / "b" / "adapter_model.safetensors")
    elements = sum(tensor.numel() for key, tensor in tensors.items() if ".lora_" in key)
    assert elements == done.parameters <= 700
    assert {name for name, cut in done.cuts.items() if cut.kept} == set(read_adapter(tmp_path / "b").modules)
    assert any(not cut.kept for cut in done.cuts.values())
    whole = rankopt.compress(source, tmp_path / "c", ratio=0.9)
    same = [name for name, cut in whole.cuts.items() if cut.kept == cut.rank]
    old, new = (load_file(folder / "adapter_model.safetensors") for folder in (source, tmp_path / "c"))
    assert same
    for name in same:
        for side in ("A", "B"):
            key = f"base_model.model.{name}.lora_{side}.weight"
            assert torch.equal(old[key], new[key])
    assert json.loads((tmp_path / "b" / "rankopt.json").read_text())["parameters"] == elements


def test_uniform_ranks(adapter_of: Callable[..., Path], tmp_path: Path) -> None:
    """No patterns, one rank in every tensor, one alpha, and the file is within budget."""
    rankopt.compress(adapter_of("rank and alpha patterns"), tmp_path / "b", budget=1200, uniform=True)
    config = json.loads((tmp_path / "b" / "adapter_config.json").read_text())
    assert config["rank_pattern"] == config["alpha_pattern"] == {}
    adapter = read_adapter(tmp_path / "b")
    assert {module.rank for module in adapter.modules.values()} == {config["r"]}
    assert adapter.parameters <= 1200 < adapter.parameters / config["r"] * (config["r"] + 1)


def test_carried_tensors_are_untouched(adapter_of: Callable[..., Path], tmp_path: Path) -> None:
    """Heads keep their bits."""
    source = adapter_of("modules_to_save")
    rankopt.compress(source, tmp_path / "b", energy=0.5)
    old, new = (load_file(folder / "adapter_model.safetensors") for folder in (source, tmp_path / "b"))
    carried = [key for key in old if ".lora_" not in key]
    assert len(carried) == 3
    assert all(torch.equal(old[key], new[key]) for key in carried)


def test_a_head_that_is_not_finite_is_refused(adapter_of: Callable[..., Path], tmp_path: Path) -> None:
    """The error is about the input, not about a failed write."""
    source = adapter_of("modules_to_save")
    tensors = load_file(source / "adapter_model.safetensors")
    head = next(key for key in tensors if ".lora_" not in key)
    save_file(tensors | {head: tensors[head] / 0}, source / "adapter_model.safetensors")
    with pytest.raises(ValueError, match=f"{head} must be finite"):
        rankopt.compress(source, tmp_path / "b", energy=0.5)
    assert not (tmp_path / "b").exists()


def test_half_precision_stays_half(adapter_of: Callable[..., Path], tmp_path: Path) -> None:
    """bfloat16 stays bfloat16, and the reported error includes the rounding."""
    source = adapter_of("plain")
    path = source / "adapter_model.safetensors"
    save_file({key: value.bfloat16() for key, value in load_file(path).items()}, path)
    done = rankopt.compress(source, tmp_path / "b", rank=2)
    assert {tensor.dtype for tensor in load_file(tmp_path / "b" / path.name).values()} == {torch.bfloat16}
    for name, cut in done.cuts.items():
        assert cut.bound is not None
        assert cut.bound <= cut.error <= cut.bound + 0.01 * cut.norm
        a, b = read_adapter(source), read_adapter(tmp_path / "b")
        pair = ((one.modules[name].scale, one.factors(name)) for one in (a, b))
        assert cut.error == pytest.approx(distance(*pair))


def test_an_untrained_adapter_keeps_one_component(tmp_path: Path, stock: Any) -> None:
    """B = 0: there is nothing to keep, and PEFT loads the result."""
    from peft import LoraConfig, get_peft_model

    get_peft_model(stock.build("roberta"), LoraConfig(r=4, target_modules=["query"])).save_pretrained(
        str(tmp_path / "a")
    )
    done = rankopt.compress(tmp_path / "a", tmp_path / "b", energy=0.9)
    assert done.parameters == 32
    stock.load("roberta", tmp_path / "b")


def test_never_overwrites_and_leaves_nothing(
    adapter_of: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An existing folder is refused; if writing or checking fails, neither folder nor draft remains."""
    source = adapter_of("plain")
    with pytest.raises(ValueError, match="--out must not exist yet"):
        rankopt.compress(source, source, energy=0.5)
    before = sorted(path.name for path in tmp_path.iterdir())

    def corrupt(tensors: Any, folder: Path) -> None:
        from rankopt.lowrank.files import write_weights

        key = next(key for key in tensors if "lora_B" in key)
        write_weights(tensors | {key: tensors[key] + 1e-3}, folder)

    monkeypatch.setattr("rankopt.adapters.write.write_weights", corrupt)
    with pytest.raises(OSError, match="differs from the intended one"):
        rankopt.compress(source, tmp_path / "b", energy=0.5)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_pissa_is_refused(adapter_of: Callable[..., Path], tmp_path: Path) -> None:
    """At another rank, PEFT would subtract another part of the base weight."""
    source = adapter_of("plain")
    config = json.loads((source / "adapter_config.json").read_text()) | {"init_lora_weights": "pissa"}
    (source / "adapter_config.json").write_text(json.dumps(config))
    rankopt.spectrum(source)
    with pytest.raises(ValueError, match="init_lora_weights must not change the base weights, got 'pissa'"):
        rankopt.compress(source, tmp_path / "b", energy=0.5)
