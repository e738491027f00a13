"""Adapters are read and checked: a broken one is refused in one line, and nothing is left behind."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import rankopt
from rankopt.adapters.adapter import read_adapter

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


KEY = "base_model.model.roberta.encoder.layer.0.attention.self.query.lora_A.weight"


def configured(folder: Path, **fields: Any) -> None:
    path = folder / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def changed(folder: Path, **tensors: torch.Tensor | None) -> None:
    """Replace tensors by key, `query_A` is the first factor; None removes a tensor."""
    held: dict[str, Any] = load_file(folder / WEIGHTS)
    for key, value in tensors.items():
        held[KEY if key == "query_A" else key] = value
    save_file({key: value for key, value in held.items() if value is not None}, folder / WEIGHTS)


def truncated(folder: Path) -> None:
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:-100])


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda f: (f / CONFIG).unlink(), "an adapter must have adapter_config.json, got none"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "an adapter must have adapter_model.safetensors, got none"),
    "config not JSON": (lambda f: (f / CONFIG).write_text("{"), "must be JSON as PEFT writes it"),
    "config a list": (lambda f: (f / CONFIG).write_text("[]"), "not a JSON object"),
    "config too deep": (lambda f: (f / CONFIG).write_text("[" * 100_000), "must be JSON as PEFT writes it"),
    "config too large": (lambda f: (f / CONFIG).write_text(" " * (1 << 24) + "{}"), "must be at most 16,777,216 bytes"),
    "another kind": (lambda f: configured(f, peft_type="IA3"), "peft_type must be LORA or ADALORA, got 'IA3'"),
    "an unsupported option": (lambda f: configured(f, target_parameters=["x"]), "target_parameters is not supported"),
    "alpha not a number": (lambda f: configured(f, lora_alpha="x"), "lora_alpha must be"),
    "alpha infinite": (lambda f: configured(f, lora_alpha=float("inf")), "lora_alpha must be"),
    "not a regular expression": (
        lambda f: configured(f, rank_pattern={"(": 3}),
        "must have regular expressions as keys",
    ),
    "regular expression with a back-reference": (
        lambda f: configured(f, alpha_pattern={r"(a+)\1+": 3}),
        r"must have regular expressions as keys, got .* \(look-around, back-references",
    ),
    "inline flags": (
        lambda f: configured(f, rank_pattern={"(?i)q": 2}),
        r"must have regular expressions as keys, got '\(\?i\)q' \(global flags not at the start",
    ),
    "escape codes": (lambda f: configured(f, base_model_name_or_path="a\x1b[31m"), "printable characters"),
    "another rank": (
        lambda f: configured(f, r=8),
        "must have rank 8 according to adapter_config.json, its factors have 4",
    ),
    "truncated": (truncated, "must be a complete safetensors file, got a corrupt one"),
    "garbage": (lambda f: (f / WEIGHTS).write_bytes(os.urandom(512)), "must be a complete safetensors file"),
    "empty": (lambda f: (f / WEIGHTS).write_bytes(b""), "must be a complete safetensors file"),
    "huge header": (
        lambda f: (f / WEIGHTS).write_bytes((1 << 60).to_bytes(8, "little") + b"{}"),
        "complete safetensors",
    ),
    "a factor missing": (lambda f: changed(f, query_A=None), "must have lora_A and lora_B, got lora_B"),
    "factors that do not fit": (lambda f: changed(f, query_A=torch.ones(3, 16)), r"factors must be \(r, in\) and"),
    "a vector": (lambda f: changed(f, query_A=torch.ones(64)), "factors must be matrices"),
    "integers": (lambda f: changed(f, query_A=torch.ones(4, 16, dtype=torch.int8)), "must hold floats"),
    "an odd name": (lambda f: changed(f, **{"a/../b.lora_A.weight": torch.ones(4, 4)}), "a tensor's name must be"),
    "an unknown part": (
        lambda f: changed(f, **{"x.lora_C": torch.ones(4, 4)}),
        "PEFT's LoRA adapters have no tensor 'x.lora_C'",
    ),
    "kohya": (
        lambda f: save_file({"lora_unet_x.lora_down.weight": torch.ones(4, 4)}, f / WEIGHTS),
        "a name of kohya's scripts or diffusers: rankopt convert reads the file that they wrote",
    ),
    "a module twice": (
        lambda f: changed(f, **{KEY.removeprefix("base_model.model."): torch.ones(4, 16)}),
        "must have one tensor 'base_model.*lora_A.weight', got 'base_model.model.roberta.* and 'roberta.*",
    ),
    "too large": (
        lambda f: changed(f, query_A=torch.full((4, 16), 1e200, dtype=torch.float64)),
        r"the update of .*query is too large for float64 \(scale 1.5\)",
    ),
    "alpha too large": (
        lambda f: configured(f, lora_alpha=1e308),
        r"lora_alpha must be at most 1e\+12, got",
    ),
    "magnitudes that are not finite": (
        lambda f: changed(f, **{KEY.replace("lora_A.weight", "lora_magnitude_vector"): torch.ones(16) / 0}),
        "lora_magnitude_vector of .*query must be finite",
    ),
    "not a number": (lambda f: changed(f, query_A=torch.full((4, 16), float("nan"))), "got NaN or infinity"),
    "infinity": (lambda f: changed(f, query_A=torch.full((4, 16), float("inf"))), "got NaN or infinity"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_adapters(case: str, adapter_of: Callable[..., Path], tmp_path: Path) -> None:
    """Analysing and compressing fail with one line that names the folder, and leave nothing behind."""
    folder = adapter_of("plain")
    spoil, message = BROKEN[case]
    spoil(folder)
    with pytest.raises(ValueError, match=message) as caught:
        rankopt.spectrum(folder)
    assert str(folder) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(ValueError, match=message):
        rankopt.compress(folder, tmp_path / "out", energy=0.5)
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_absurd_ranks(adapter_of: Callable[..., Path]) -> None:
    folder = adapter_of("plain")
    other = KEY.replace("lora_A", "lora_B")
    configured(folder, r=5000)
    changed(folder, query_A=torch.ones(5000, 16), **{other: torch.ones(16, 5000)})
    with pytest.raises(ValueError, match="rank must be at most 4096, got 5000"):
        read_adapter(folder)


def test_absurd_shapes(adapter_of: Callable[..., Path]) -> None:
    """Factors of rank 0 can declare any shape."""
    folder = adapter_of("AdaLoRA")
    stem = KEY.removesuffix(".lora_A.weight")
    shapes = {"lora_A": (0, 10**13), "lora_B": (10**13, 0), "lora_E": (0, 1)}
    changed(folder, **{f"{stem}.{role}": torch.zeros(shape) for role, shape in shapes.items()})
    with pytest.raises(ValueError, match="a module must have at most 16,777,216 inputs and outputs, got"):
        read_adapter(folder)


def test_convolutions(tmp_path: Path) -> None:
    """Convolutions are matrices over channels and kernel elements; compressing at full energy changes nothing."""
    from peft import LoraConfig, PeftModel, get_peft_model
    from torch import nn

    def build() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, (1, 2)))

    model = get_peft_model(build(), LoraConfig(r=3, lora_alpha=6, target_modules=["0", "2"])).eval()
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(0, 0.5)
    model.save_pretrained(str(tmp_path / "a"))
    x = torch.randn(2, 3, 9, 9)
    rankopt.compress(tmp_path / "a", tmp_path / "b", energy=1.0, uniform=True)
    done = rankopt.compress(tmp_path / "a", tmp_path / "c", rank=2)
    loaded = PeftModel.from_pretrained(build(), str(tmp_path / "b")).eval()
    torch.testing.assert_close(loaded(x), model(x), atol=1e-5, rtol=1e-5)
    cut = PeftModel.from_pretrained(build(), str(tmp_path / "c")).eval()
    lost = [
        a.get_delta_weight("default") - b.get_delta_weight("default")
        for a, b in zip(model.base_model.model, cut.base_model.model, strict=True)
        if hasattr(a, "get_delta_weight")
    ]
    assert done.error == pytest.approx(float(sum(part.square().sum() for part in lost)) ** 0.5, rel=1e-4)
