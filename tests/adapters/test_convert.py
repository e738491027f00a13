"""Converting to plain LoRA: AdaLoRA, and pickles, from which no code runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rankopt.adapters.adapter import read_adapter
from rankopt.adapters.convert import convert


@pytest.mark.parametrize("shrunk", [False, True])
def test_adalora_to_lora(shrunk: bool, tmp_path: Path, stock: Any) -> None:
    """Suppressed components and modules without components are removed, and logits do not change."""
    _, model = stock.make("AdaLoRA", tmp_path / "ignored")
    masks = {}
    for index, (name, layer) in enumerate(model.base_model.model.named_modules()):
        if hasattr(layer, "lora_E"):
            kept = [bool(0b0110_1011_0000_1111 >> (4 * (index % 4) + i) & 1) for i in range(4)]
            layer.lora_E["default"].data[~torch.tensor(kept)] = 0
            masks[f"{name}.lora_E"] = kept
    if shrunk:
        model.peft_config["default"].rank_pattern = masks
    expected = stock.logits(model)
    model.save_pretrained(str(tmp_path / "a"))
    done = convert(tmp_path / "a", tmp_path / "b")
    assert done.relative_error < 1e-6
    config = json.loads((tmp_path / "b" / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA"
    assert not {"init_r", "total_step", "deltaT"} & set(config)
    ranks = {name: module.rank for name, module in read_adapter(tmp_path / "b").modules.items()}
    assert ranks == {name.removesuffix(".lora_E"): sum(kept) for name, kept in masks.items() if any(kept)}
    torch.testing.assert_close(stock.logits(stock.load("roberta", tmp_path / "b")), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("case", ["plain", "modules_to_save", "AdaLoRA", "rsLoRA"])
def test_a_pickle_is_converted(case: str, adapter_of: Callable[..., Path], tmp_path: Path, stock: Any) -> None:
    """Other tools refuse `.bin` and name this one; the result is the same adapter."""
    source = adapter_of(case)
    expected = stock.logits(stock.load(stock.cases[case][0], source))
    weights = source / "adapter_model.safetensors"
    torch.save(load_file(weights), source / "adapter_model.bin")
    weights.unlink()
    with pytest.raises(
        ValueError, match=r"rankopt convert .* reads its pickled adapter_model\.bin without running code"
    ):
        read_adapter(source)
    convert(source, tmp_path / "b")
    torch.testing.assert_close(
        stock.logits(stock.load(stock.cases[case][0], tmp_path / "b")), expected, atol=1e-5, rtol=1e-5
    )


class Trap:
    """Opens a file when it is unpickled."""

    def __reduce__(self) -> Any:
        return (open, (str(Trap.path), "w"))

    path = Path("nowhere")


def test_no_code_of_a_pickle_runs(adapter_of: Callable[..., Path], tmp_path: Path) -> None:
    """A pickle that opens a file when loaded is refused, and the file does not exist."""
    source = adapter_of("plain")
    (source / "adapter_model.safetensors").unlink()
    Trap.path = tmp_path / "owned"
    torch.save({"base_model.model.x.lora_A.weight": Trap()}, source / "adapter_model.bin")
    with pytest.raises(ValueError, match="must be a complete file of tensors and nothing else"):
        convert(source, tmp_path / "b")
    assert not Trap.path.exists()
    assert not (tmp_path / "b").exists()


UNUSUAL: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], str]] = {
    "expanded": (lambda _: torch.zeros(1).expand(2, 10**12), "has 2,000,000,000,000 entries in 4 bytes"),
    "meta": (lambda A: A.to("meta"), "is strided on meta"),
    "sparse": (lambda A: A.to_sparse(), "is sparse_coo on cpu"),
    "complex": (lambda A: A.to(torch.complex64), "holds complex64"),
    "not finite": (lambda A: A / 0, "holds NaN or infinity"),
    "another rank": (lambda A: A[:3].clone(), r"factors must be \(r, in\) and \(out, r\)"),
}


@pytest.mark.parametrize("case", UNUSUAL)
def test_unusual_pickled_tensors_are_refused(case: str, adapter_of: Callable[..., Path], tmp_path: Path) -> None:
    """One line that names the given adapter; a few bytes that describe terabytes are never expanded."""
    source = adapter_of("plain")
    weights, (change, message) = source / "adapter_model.safetensors", UNUSUAL[case]
    tensors = load_file(weights)
    key = next(key for key in tensors if ".lora_A" in key)
    torch.save(tensors | {key: change(tensors[key])}, source / "adapter_model.bin")
    weights.unlink()
    with pytest.raises(ValueError, match=message) as caught:
        convert(source, tmp_path / "b")
    assert str(caught.value).startswith(str(source))
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "b").exists()


def test_a_plain_adapter_is_not_converted(adapter_of: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing to convert, it is a plain LoRA adapter in safetensors"):
        convert(adapter_of("plain"), tmp_path / "b")
