"""Factors of another program's adapter, checked and brought into PEFT's names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from rankopt.adapters.source import safe_file
from rankopt.core.errors import first_line
from rankopt.lowrank.files import PREFIX, full_names, rank_fields


@dataclass
class Found:
    """One module of an adapter file, in PEFT's orientation.

    Attributes:
        factors: role -> A `(r, in, ...)` or B `(out, r, ...)`.
        alpha: numerator of the scale `alpha / r`; None for scale 1.
    """

    factors: dict[str, Tensor] = field(default_factory=dict)
    alpha: float | None = None


@dataclass(frozen=True)
class Foreign:
    """An adapter that was read from another layout.

    Attributes:
        form: name of the layout.
        fields: of PEFT's config.
        tensors: by PEFT's names.
    """

    form: str
    fields: dict[str, Any]
    tensors: dict[str, Tensor]


def check_shapes(file: Path, model: str, found: Mapping[str, Found]) -> None:
    """Refuse a module that the base model lacks or has in another shape."""
    shapes = weight_shapes(Path(model))
    for name, one in found.items():
        if {"A", "B"} <= one.factors.keys():
            given = (len(one.factors["B"]), *one.factors["A"].shape[1:])
            if shapes.get(name) != given:
                there = shapes.get(name, "it is missing")
                raise ValueError(f"{name} of {file} has the shape {given}, in {model} {there}")


def as_peft(where: Path, form: str, found: Mapping[str, Found], fields: dict[str, Any], base: str | None) -> Foreign:
    ranks, alphas, tensors = {}, {}, {}
    for name, one in sorted(found.items()):
        if set(one.factors) != {"A", "B"}:
            raise ValueError(f"{where}: {name} must have both factors, got {' and '.join(one.factors) or 'none'}")
        A, B = one.factors["A"], one.factors["B"]
        if A.ndim != B.ndim or A.ndim < 2 or A.shape[0] != B.shape[1] or not len(A):
            got = f"{tuple(A.shape)} and {tuple(B.shape)}"
            raise ValueError(f"{where}: factors of {name} must be (r, in) and (out, r), got {got}")
        ranks[name] = len(A)
        alphas[name] = float(len(A)) if one.alpha is None else one.alpha
        tensors[f"{PREFIX}{name}.lora_A.weight"], tensors[f"{PREFIX}{name}.lora_B.weight"] = A, B
    if not ranks:
        raise ValueError(f"{where}: an adapter must have factors, got none")
    peft = {"peft_type": "LORA", "target_modules": full_names(ranks), "init_lora_weights": True, "inference_mode": True}
    return Foreign(form, peft | fields | {"base_model_name_or_path": base} | rank_fields(ranks, alphas), tensors)


def heads_of(config: Mapping[str, Any]) -> tuple[int, int]:
    """The numbers of query heads and of their groups, each of which has one key and one value head.

    Args:
        config: of a decoder.
    Raises:
        KeyError, TypeError, ValueError: it has no such numbers.
    """
    heads = int(config["num_attention_heads"])
    return heads, int(config.get("num_key_value_heads") or heads)


def load_tensors(file: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file}: must be a complete safetensors file ({first_line(error)})") from None
    for key, value in tensors.items():
        if not value.is_floating_point() or not torch.isfinite(value).all():
            raise ValueError(f"{file}: {key[:80]!r} must hold finite numbers, got {value.dtype}")
    return tensors


def weight_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of all weights of a model, by module, from the headers of its files."""
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    if not files:
        raise ValueError(f"--model must be a folder with the base model's safetensors files, got {str(folder)!r}")
    shapes = {}
    for file in files:
        try:
            with safe_open(safe_file(folder, file.name), "pt") as opened:
                for key in opened.keys():  # noqa: SIM118 - not a mapping
                    if key.endswith(".weight"):
                        shapes[key.removesuffix(".weight")] = tuple(opened.get_slice(key).get_shape())
        except SafetensorError as error:
            raise ValueError(f"{file}: must be a complete safetensors file ({first_line(error)})") from None
    return shapes
