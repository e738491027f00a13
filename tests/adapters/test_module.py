"""Modules are checked against their tensors' shapes and the config."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rankopt.adapters.config import AdapterConfig
from rankopt.adapters.module import Module, Stored, module_from_header

FOLDER = Path("adapter")


def module(a: tuple[int, ...], b: tuple[int, ...], dtype: str = "F32", *attached: str, r: int = 4) -> Module:
    roles = {"lora_A": "x.lora_A.weight", "lora_B": "x.lora_B.weight"}
    header = {"x.lora_A.weight": Stored(a, dtype), "x.lora_B.weight": Stored(b, dtype)}
    config = AdapterConfig(peft_type="LORA", r=r, lora_alpha=6)
    return module_from_header(FOLDER, config, "x", roles, header, attached)


def test_a_linear_map() -> None:
    found = module((4, 16), (24, 4), "BF16")
    assert (found.kind, found.shape, found.rank, found.scale) == ("linear", (16, 24), 4, 1.5)
    assert (found.dtype, found.parameters, found.stem) == (torch.bfloat16, 160, "base_model.model.x")
    assert found.floor == 0
    assert module((4, 16), (24, 4), "F32", "x.lora_B.bias").floor == 1


def test_a_convolution() -> None:
    """Its inputs are channels times kernel elements."""
    found = module((4, 3, 5, 5), (8, 4, 1, 1))
    assert (found.kind, found.shape, found.kernel) == ("conv", (75, 8), (5, 5))


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ((4, 16), (24, 3), r"factors must be \(r, in\) and \(out, r\), got \(4, 16\) and \(24, 3\)"),
        ((64,), (64,), "factors must be matrices, .* gather the shards before saving"),
        ((3, 16), (24, 3), "must have rank 4 according to adapter_config.json, its factors have 3"),
        ((4, 1 << 25), (24, 4), "a module must have at most 16,777,216 inputs and outputs"),
    ],
)
def test_inconsistent_shapes(a: tuple[int, ...], b: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=f"adapter: x.*{message}"):
        module(a, b)


def test_integers_are_refused() -> None:
    with pytest.raises(ValueError, match="adapter: x must hold floats of 16, 32 or 64 bits, got I8"):
        module((4, 16), (24, 4), "I8")
