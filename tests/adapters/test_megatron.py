"""Megatron's fused adapters on a base with grouped queries: the logits are those of Megatron's own arithmetic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import save_file
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from rankopt.adapters.convert import convert

HEADS, GROUPS, SIZE, HIDDEN, INNER, LAYERS, RANK, ALPHA = 6, 2, 4, 18, 20, 2, 3, 12.0
"""A head has another size than hidden / heads, and a group has three queries."""


def net() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=31, hidden_size=HIDDEN, intermediate_size=INNER, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=GROUPS, head_dim=SIZE,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Megatron's linear_qkv, head by head: of every group its queries, its key, its value."""
    heads, share = [], HEADS // GROUPS
    for group in range(GROUPS):
        heads += [q[SIZE * head : SIZE * (head + 1)] for head in range(share * group, share * (group + 1))]
        heads += [k[SIZE * group : SIZE * (group + 1)], v[SIZE * group : SIZE * (group + 1)]]
    return torch.cat(heads)


def separate(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The inverse, found by fusing the numbers of rows."""
    sizes = (HEADS * SIZE, GROUPS * SIZE, GROUPS * SIZE)
    order = fused(*torch.arange(sum(sizes)).split(sizes))
    plain = torch.empty_like(weight)
    plain[order] = weight
    return plain.split(sizes)


def adapter() -> dict[str, Tensor]:
    """Megatron's tensors of every fused map."""
    draw = torch.Generator().manual_seed(1)
    rows = {
        "self_attention.linear_qkv": (HIDDEN, (HEADS + 2 * GROUPS) * SIZE),
        "self_attention.linear_proj": (HEADS * SIZE, HIDDEN),
        "mlp.linear_fc1": (HIDDEN, 2 * INNER),
        "mlp.linear_fc2": (INNER, HIDDEN),
    }
    found = {}
    for layer in range(LAYERS):
        for name, (fan_in, fan_out) in rows.items():
            stem = f"decoder.layers.{layer}.{name}.adapter"
            found[f"{stem}.linear_in.weight"] = torch.randn(RANK, fan_in, generator=draw)
            found[f"{stem}.linear_out.weight"] = torch.randn(fan_out, RANK, generator=draw)
    return found


def megatrons_logits(ids: Tensor) -> Tensor:
    """The base with every fused weight W + alpha / r B A, split afterwards."""
    model, tensors = net(), adapter()
    for number, block in enumerate(model.model.layers):

        def update(name: str, number: int = number) -> Tensor:
            stem = f"decoder.layers.{number}.{name}.adapter"
            return ALPHA / RANK * tensors[f"{stem}.linear_out.weight"] @ tensors[f"{stem}.linear_in.weight"]

        attention, mlp = block.self_attn, block.mlp
        maps = [getattr(attention, f"{part}_proj") for part in "qkv"]
        whole = fused(*(one.weight.data for one in maps)) + update("self_attention.linear_qkv")
        for one, weight in zip(maps, separate(whole), strict=True):
            one.weight.data = weight
        attention.o_proj.weight.data += update("self_attention.linear_proj")
        both = torch.cat([mlp.gate_proj.weight.data, mlp.up_proj.weight.data]) + update("mlp.linear_fc1")
        mlp.gate_proj.weight.data, mlp.up_proj.weight.data = both.split(INNER)
        mlp.down_proj.weight.data += update("mlp.linear_fc2")
    with torch.no_grad():
        return model(input_ids=ids).logits


@pytest.fixture
def base(tmp_path: Path) -> Path:
    net().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.mark.parametrize("form", ["per layer", "stacked", "with a prefix"])
def test_logits(form: str, base: Path, tmp_path: Path) -> None:
    tensors = adapter()
    if form == "stacked":
        names = {key.replace("layers.0.", "layers.") for key in tensors if "layers.0." in key}
        of_layers = {n: [tensors[n.replace("layers.", f"layers.{i}.")] for i in range(LAYERS)] for n in names}
        tensors = {name: torch.stack(values) for name, values in of_layers.items()}
    elif form == "with a prefix":
        tensors = {f"module.{name}": value for name, value in tensors.items()}
    save_file(tensors, tmp_path / "lora.safetensors")
    convert(tmp_path / "lora.safetensors", tmp_path / "out", model=str(base), alpha=ALPHA)
    ids = torch.tensor([[1, 5, 9, 2, 30, 7]])
    with torch.no_grad():
        logits = PeftModel.from_pretrained(net(), str(tmp_path / "out")).eval()(input_ids=ids).logits
    torch.testing.assert_close(logits, megatrons_logits(ids), rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        assert (net()(input_ids=ids).logits - logits).abs().max() > 0.1


def test_canonical(base: Path, tmp_path: Path) -> None:
    """CanonicalLoRA's parts are not fused."""
    A, B = torch.randn(2, HIDDEN), torch.randn(GROUPS * SIZE, 2)
    stem = "decoder.layers.1.self_attention.linear_qkv.adapter.adapter_k"
    save_file({f"{stem}.linear_in.weight": A, f"{stem}.linear_out.weight": B}, tmp_path / "lora.safetensors")
    convert(tmp_path / "lora.safetensors", tmp_path / "out", model=str(base), alpha=4)
    loaded = PeftModel.from_pretrained(net(), str(tmp_path / "out"))
    layers = {name: module for name, module in loaded.named_modules() if hasattr(module, "lora_A")}
    assert list(layers) == ["base_model.model.model.layers.1.self_attn.k_proj"]
    torch.testing.assert_close(next(iter(layers.values())).get_delta_weight("default"), 2 * B @ A)


def test_refused(base: Path, tmp_path: Path) -> None:
    """One line each: what is missing, or what does not fit."""
    file = tmp_path / "lora.safetensors"
    save_file(adapter(), file)
    with pytest.raises(ValueError, match="Megatron fuses queries, keys and values by head: give --model"):
        convert(file, tmp_path / "out", alpha=ALPHA)
    with pytest.raises(ValueError, match="Megatron's files do not hold alpha: give --alpha"):
        convert(file, tmp_path / "out", model=str(base))
    name = "decoder.layers.0.self_attention.linear_qkv.adapter.linear_out.weight"
    save_file(adapter() | {name: torch.ones(20, RANK)}, file)  # one of two tensor-parallel parts
    with pytest.raises(ValueError, match=r"the rows of 6 query heads, 2 key heads and 2 value.*24 \+ 8 \+ 8, got 20"):
        convert(file, tmp_path / "out", model=str(base), alpha=ALPHA)
    save_file(adapter() | {"decoder.layers.0.mlp.experts.linear_fc1.adapter.linear_in.weight": torch.ones(2, 2)}, file)
    with pytest.raises(ValueError, match="only LoRA of attention and dense MLPs is read"):
        convert(file, tmp_path / "out", model=str(base), alpha=ALPHA)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / ".metadata").write_bytes(b"")
    with pytest.raises(ValueError, match=r"is a distributed checkpoint: write its adapter tensors into"):
        convert(tmp_path / "weights", tmp_path / "out")
    assert not (tmp_path / "out").exists()
