"""Factors that another program wrote: refused in one line where they do not fit, else named as PEFT names them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rankopt.adapters.foreign_factors import Found, as_peft, check_shapes, load_tensors, weight_shapes

A, B = torch.ones(2, 6), torch.ones(4, 2)


def test_as_peft() -> None:
    """Names, target modules and the scale alpha / r of every module; without an alpha the scale is 1."""
    found = {"l.0.q": Found({"A": A, "B": B}), "l.1.q": Found({"A": A, "B": B}, alpha=4.0)}
    foreign = as_peft(Path("file"), "form", found, {}, "base")
    assert set(foreign.tensors) == {f"base_model.model.l.{i}.q.lora_{f}.weight" for i in (0, 1) for f in "AB"}
    assert foreign.fields["base_model_name_or_path"] == "base"
    patterns, default = foreign.fields["alpha_pattern"], foreign.fields["lora_alpha"]
    alphas = [next((alpha for regex, alpha in patterns.items() if re.match(regex, name)), default) for name in found]
    assert [alpha / foreign.fields["r"] for alpha in alphas] == [1.0, 2.0]


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ({"A": A}, "l must have both factors, got A"),
        ({"A": A, "B": B.T}, r"must be \(r, in\) and \(out, r\), got \(2, 6\) and \(2, 4\)"),
    ],
)
def test_a_module_that_is_no_pair(factors: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_peft(Path("file"), "form", {"l": Found(factors)}, {}, None)


def test_no_module() -> None:
    with pytest.raises(ValueError, match="must have factors, got none"):
        as_peft(Path("file"), "form", {}, {}, None)


def test_shapes_of_the_base_model(tmp_path: Path) -> None:
    """A module of another shape, one that the model lacks, and a folder without weights."""
    save_file({"l.weight": torch.ones(4, 6), "l.bias": torch.ones(4)}, tmp_path / "model.safetensors")
    assert weight_shapes(tmp_path) == {"l": (4, 6)}
    check_shapes(Path("file"), str(tmp_path), {"l": Found({"A": A, "B": B})})
    with pytest.raises(ValueError, match=r"l of file has the shape \(4, 5\), in .* \(4, 6\)"):
        check_shapes(Path("file"), str(tmp_path), {"l": Found({"A": A[:, :5], "B": B})})
    with pytest.raises(ValueError, match=r"k of file .* it is missing"):
        check_shapes(Path("file"), str(tmp_path), {"k": Found({"A": A, "B": B})})
    with pytest.raises(ValueError, match="--model must be a folder with the base model's safetensors files"):
        weight_shapes(tmp_path / "none")


@pytest.mark.parametrize("bad", [torch.ones(2, dtype=torch.int8), torch.tensor([1.0, float("nan")])])
def test_tensors_must_be_finite_numbers(bad: torch.Tensor, tmp_path: Path) -> None:
    save_file({"x": bad}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="'x' must hold finite numbers"):
        load_tensors(tmp_path / "a.safetensors")


def test_a_file_that_was_cut(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"\x10\0\0")
    with pytest.raises(ValueError, match="must be a complete safetensors file"):
        load_tensors(tmp_path / "a.safetensors")
