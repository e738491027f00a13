"""Adapters of other programs: converted, PEFT computes the update that each program's rule gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft_adapters import build
from safetensors.torch import save_file

from rankopt.adapters.convert import convert

NAMES = ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj")
RANKS = (2, 3)


def pieces() -> dict[str, tuple[torch.Tensor, torch.Tensor, float]]:
    """Module -> A, B and scale."""
    net, draw = build("llama"), torch.Generator().manual_seed(1)
    found = {}
    for name, rank in zip(NAMES, RANKS, strict=True):
        fan_out, fan_in = net.get_submodule(name).weight.shape
        A, B = torch.randn(rank, fan_in, generator=draw), torch.randn(fan_out, rank, generator=draw)
        found[name] = (A, B, 1.5)
    return found


def mlx(folder: Path) -> Path:
    tensors = {}
    for name, (A, B, _) in pieces().items():
        tensors |= {f"{name}.lora_a": A.T.contiguous(), f"{name}.lora_b": B.T.contiguous()}
    save_file(tensors, folder / "adapters.safetensors")
    config = {"fine_tune_type": "lora", "lora_parameters": {"rank": 2, "scale": 1.5}, "model": "base"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def torchtune(folder: Path) -> Path:
    """As torchtune orders it: pair p of a head has its two rows side by side."""
    tensors = {}
    for name, (A, B, _) in pieces().items():
        layer, part = name.split(".")[2], {"q_proj": "attn.q_proj", "down_proj": "mlp.w2"}[name.rpartition(".")[2]]
        if part == "attn.q_proj":  # 4 heads
            B = B.reshape(4, 2, -1, B.shape[1]).transpose(1, 2).reshape(B.shape)
        stem = f"layers.{layer}.{part}"
        tensors |= {f"{stem}.lora_a.weight": A, f"{stem}.lora_b.weight": B}
    torch.save(tensors, folder / "adapter_0.pt")
    (folder / "adapter_config.json").write_text(json.dumps({"r": 2, "lora_alpha": 3.0, "target_modules": ["q_proj"]}))
    return folder


def kohya(folder: Path, part: str = "lora_unet") -> Path:
    tensors = {}
    for name, (A, B, scale) in pieces().items():
        stem = f"{part}_{name.replace('.', '_')}"
        tensors |= {f"{stem}.lora_down.weight": A, f"{stem}.lora_up.weight": B}
        tensors[f"{stem}.alpha"] = torch.tensor(scale * len(A))
    save_file(tensors, folder / "kohya.safetensors")
    return folder / "kohya.safetensors"


def diffusers(folder: Path) -> Path:
    tensors = {}
    for name, (A, B, scale) in pieces().items():
        stem = f"transformer.{name}"
        tensors |= {f"{stem}.lora.down.weight": A, f"{stem}.lora.up.weight": B}
        tensors[f"{stem}.alpha"] = torch.tensor(scale * len(A))
    save_file(tensors, folder / "pytorch_lora_weights.safetensors")
    return folder


@pytest.fixture
def base(tmp_path: Path) -> Path:
    build("llama").save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.mark.parametrize("write", [mlx, torchtune, kohya, diffusers])
def test_updates_are_kept(write: Any, base: Path, tmp_path: Path, stock: Any) -> None:
    """Loaded by stock PEFT, every delta weight is scale times B A, and no other module is adapted."""
    (tmp_path / "a").mkdir()
    done = convert(write(tmp_path / "a"), tmp_path / "b", model=str(base))
    assert write.__name__ in done.what.lower()
    loaded = stock.load("llama", tmp_path / "b")
    layers = {n.removeprefix("base_model.model."): m for n, m in loaded.named_modules() if hasattr(m, "lora_A")}
    expected = pieces()
    assert layers.keys() == expected.keys()
    for name, (A, B, scale) in expected.items():
        torch.testing.assert_close(layers[name].get_delta_weight("default"), scale * B @ A)


def test_names_of_diffusers(tmp_path: Path) -> None:
    """Old processors' names, PEFT's factor names, and scale 1 without an alpha."""
    from rankopt.adapters.foreign_formats import read_foreign

    A, B = torch.ones(2, 4), torch.ones(6, 2)
    tensors = {
        "unet.mid.attn1.processor.to_q_lora.down.weight": A,
        "unet.mid.attn1.processor.to_q_lora.up.weight": B,
        "unet.mid.attn1.processor.to_out_lora.down.weight": A.clone(),
        "unet.mid.attn1.processor.to_out_lora.up.weight": B.clone(),
        "unet.mid.attn2.to_k.lora_A.weight": A.clone(),
        "unet.mid.attn2.to_k.lora_B.weight": B.clone(),
    }
    save_file(tensors, tmp_path / "x.safetensors")
    found = read_foreign(tmp_path / "x.safetensors")
    assert found is not None
    names = {name.removeprefix("base_model.model.").rpartition(".lora_")[0] for name in found.tensors}
    assert names == {"mid.attn1.to_q", "mid.attn1.to_out.0", "mid.attn2.to_k"}
    assert (found.fields["r"], found.fields["lora_alpha"], found.fields["alpha_pattern"]) == (2, 2.0, {})


def test_refused(base: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    file = kohya(tmp_path / "a")
    with pytest.raises(ValueError, match="kohya's names have underscores for dots: give --model"):
        convert(file, tmp_path / "b")
    with pytest.raises(ValueError, match="--component must be one of lora_unet, got 'unet'"):
        convert(file, tmp_path / "b", model=str(base), component="unet")
    with pytest.raises(ValueError, match="--model must be a folder with the base model's safetensors files"):
        convert(file, tmp_path / "b", model=str(tmp_path / "none"))
    (tmp_path / "other").mkdir()
    save_file({f"{NAMES[0]}.weight": torch.zeros(3, 3)}, tmp_path / "other" / "model.safetensors")
    with pytest.raises(ValueError, match="must have one module for 'model_layers_1_mlp_down_proj'"):
        convert(file, tmp_path / "b", model=str(tmp_path / "other"))
    stems = [f"{part}_x.lora_{side}.weight" for part in ("lora_te1", "lora_unet") for side in ("down", "up")]
    both = {stem: torch.ones(1, 1) for stem in stems}
    save_file(both, tmp_path / "both.safetensors")
    with pytest.raises(ValueError, match="holds adapters of lora_te1 and lora_unet: name one with --component"):
        convert(tmp_path / "both.safetensors", tmp_path / "b", model=str(base))
    (tmp_path / "t").mkdir()
    with pytest.raises(ValueError, match="torchtune reorders the rows of queries and keys by head: give --model"):
        convert(torchtune(tmp_path / "t"), tmp_path / "b")
    torch.save({"layers.0.attn.q_norm.lora_a.weight": torch.ones(1, 1)}, tmp_path / "t" / "adapter_1.pt")
    with pytest.raises(ValueError, match="torchtune's LoRA has matrices lora_a and lora_b of maps"):
        convert(tmp_path / "t", tmp_path / "b", model=str(base))
    (tmp_path / "m").mkdir()
    mlx(tmp_path / "m")
    (tmp_path / "m" / "adapter_config.json").write_text('{"fine_tune_type": "dora", "lora_parameters": {"scale": 1}}')
    with pytest.raises(ValueError, match="must be a LoRA adapter with a finite scale, got 'dora'"):
        convert(tmp_path / "m", tmp_path / "b")
    assert not (tmp_path / "b").exists()
