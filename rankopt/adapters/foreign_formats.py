"""Adapters in the layouts of MLX, torchtune, Megatron, kohya's scripts and diffusers, read as PEFT's."""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from rankopt.adapters.config import LARGEST
from rankopt.adapters.foreign_factors import (
    Foreign,
    Found,
    as_peft,
    check_shapes,
    heads_of,
    load_tensors,
    weight_shapes,
)
from rankopt.adapters.megatron import MEGATRON, read_megatron
from rankopt.adapters.source import safe_file
from rankopt.adapters.unpickle import unpickled
from rankopt.core.errors import first_line, nearest
from rankopt.lowrank.files import CONFIG, MODEL_CONFIG, WEIGHTS

DISTRIBUTED = ".metadata"
"""A file of torch's distributed checkpoints, which Megatron and NeMo write."""
MLX_WEIGHTS = "adapters.safetensors"
KOHYA = re.compile(r"(lora_(?:unet|te\d?|transformer))_(.+)\.(lora_down\.weight|lora_up\.weight|alpha)")
DIFFUSERS = re.compile(
    r"(unet|transformer|text_encoder(?:_\d)?)\.(.+?)"
    r"(?:(?:\.lora\.|\.lora_|_lora\.)(down\.weight|up\.weight|A\.weight|B\.weight)|\.(alpha))"
)
TORCHTUNE = re.compile(r"(?:layers\.(\d+)\.(attn|mlp)\.(\w+)|(output))\.lora_([ab])\.weight")
TORCHTUNE_NAMES = {
    "q_proj": "self_attn.q_proj", "k_proj": "self_attn.k_proj", "v_proj": "self_attn.v_proj",
    "output_proj": "self_attn.o_proj", "w1": "mlp.gate_proj", "w2": "mlp.down_proj", "w3": "mlp.up_proj",
}  # fmt: skip
"""torchtune's name -> transformers' name within a block, as in its convert_weights.py (00c242b)."""
ROTARY = ("llama", "mistral")
"""Models whose query and key rows torchtune reorders."""
ROLES = {"lora_down.weight": "A", "down.weight": "A", "A.weight": "A", "lora_up.weight": "B", "up.weight": "B",
         "B.weight": "B", "alpha": "alpha"}  # fmt: skip


def read_foreign(
    path: Path, model: str | None = None, component: str | None = None, alpha: float | None = None
) -> Foreign | None:
    """Read an adapter in another layout.

        MLX:        lora_a (in, r), lora_b (r, out), scale:  A = lora_a^T, B = lora_b^T, alpha = scale r
        torchtune:  layers.<n>.attn.q_proj.lora_a, lora_b; B of queries and keys has the rows of every head interleaved
        Megatron:   decoder.layers.<n>.self_attention.linear_qkv.adapter.linear_in, linear_out, see `read_megatron`
        kohya:      lora_<part>_<name with underscores>.lora_down, lora_up, alpha; the base model gives the names
        diffusers:  <part>.<name>.lora.down, lora.up, alpha; or lora_A, lora_B

    A file of kohya's or diffusers' may hold adapters of several parts (denoiser, text encoders): models of their own.

    Args:
        path: a folder, or a safetensors file.
        model: the part's base model, a folder with safetensors files: gives names (kohya) and heads (torchtune,
            Megatron), and checks shapes.
        component: which part, such as "unet" or "lora_te1"; needed where the file has several.
        alpha: numerator of the scale `alpha / r`, which Megatron's files do not hold.
    Returns:
        PEFT's config and tensors; None for a folder that is in no known layout.
    Raises:
        ValueError: the file cannot be read, or names, shapes or parts do not fit; one line.
    """
    if path.is_dir() and (path / MLX_WEIGHTS).is_file():
        return _mlx(path)
    if path.is_dir() and not (path / WEIGHTS).is_file() and (pickled := sorted(path.glob("adapter_[0-9m]*.pt"))):
        return _torchtune(path, safe_file(path, pickled[-1].name), model)
    file = path
    if path.is_dir() and (path / DISTRIBUTED).is_file():
        raise ValueError(
            f"{path}: is a distributed checkpoint: write its adapter tensors into one .safetensors file, under their "
            "names there, and convert that file"
        )
    if path.is_dir():
        files = [inner for inner in sorted(path.glob("*.safetensors")) if inner.name != WEIGHTS]
        if len(files) != 1 or (path / WEIGHTS).is_file():
            return None
        file = safe_file(path, files[0].name)
    elif path.suffix != ".safetensors":
        return None
    tensors = load_tensors(file)
    if any(MEGATRON.fullmatch(key) for key in tensors):
        return read_megatron(file, tensors, model, alpha)
    for form, pattern in (("kohya", KOHYA), ("diffusers", DIFFUSERS)):
        matches = {key: match for key in tensors if (match := pattern.fullmatch(key))}
        if matches:
            if other := sorted(set(tensors) - set(matches)):
                raise ValueError(f"{file}: {form}'s adapters have no tensor {other[0][:80]!r}")
            return _of_parts(file, form, tensors, matches, model, component)
    return None


def _mlx(folder: Path) -> Foreign:
    try:
        config = json.loads(safe_file(folder, CONFIG).read_text(encoding="utf-8")[:LARGEST])
        scale, kind = float(config["lora_parameters"]["scale"]), config.get("fine_tune_type", "lora")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{folder / CONFIG}: must have lora_parameters with a scale, as mlx-lm writes it ({first_line(error)})"
        ) from None
    if kind != "lora" or not math.isfinite(scale):
        raise ValueError(f"{folder}: must be a LoRA adapter with a finite scale, got {kind!r} with scale {scale}")
    found: dict[str, Found] = defaultdict(Found)
    for key, value in load_tensors(safe_file(folder, MLX_WEIGHTS)).items():
        name, _, role = key.rpartition(".")
        if role not in ("lora_a", "lora_b") or value.ndim != 2:
            raise ValueError(f"{folder}: MLX's LoRA has matrices lora_a and lora_b, got {key[:80]!r}")
        found[name].factors["A" if role == "lora_a" else "B"] = value.T.contiguous()
    for one in found.values():
        one.alpha = scale * len(one.factors["A"]) if "A" in one.factors else None
    base = config.get("model")
    return as_peft(folder, "MLX", found, {"task_type": "CAUSAL_LM"}, base if isinstance(base, str) else None)


def _torchtune(folder: Path, file: Path, model: str | None) -> Foreign:
    if model is None:
        raise ValueError(
            f"{file}: torchtune reorders the rows of queries and keys by head: give --model, the base model"
        )
    try:
        given = json.loads(safe_file(folder, CONFIG).read_text(encoding="utf-8")[:LARGEST])
        scale = float(given["lora_alpha"]) / float(given["r"])
        config = json.loads(safe_file(Path(model), MODEL_CONFIG).read_text(encoding="utf-8")[:LARGEST])
        heads = dict(zip(("q_proj", "k_proj"), heads_of(config), strict=True))
        kind = config["model_type"]
    except (ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError, RecursionError) as error:
        raise ValueError(
            f"{folder}: {CONFIG} must have r and lora_alpha, and {model} the config of a decoder ({first_line(error)})"
        ) from None
    if kind not in ROTARY or not math.isfinite(scale):
        raise ValueError(
            f"{folder}: a torchtune adapter must be of {' or '.join(ROTARY)}, got {kind!r} with scale {scale}"
        )
    found: dict[str, Found] = defaultdict(Found)
    for key, value in unpickled(file).items():
        match = TORCHTUNE.fullmatch(key)
        if not match or value.ndim != 2 or not (match[4] or match[3] in TORCHTUNE_NAMES):
            raise ValueError(f"{file}: torchtune's LoRA has matrices lora_a and lora_b of maps, got {key[:80]!r}")
        name = "lm_head" if match[4] else f"model.layers.{match[1]}.{TORCHTUNE_NAMES[match[3]]}"
        role = match[5].upper()
        if role == "B" and match[3] in heads:
            value = _by_halves(value, heads[match[3]], f"{key} of {file}")
        found[name].factors[role] = value.clone()
    for one in found.values():
        one.alpha = scale * len(one.factors["A"]) if "A" in one.factors else None
    check_shapes(file, model, found)
    return as_peft(folder, "torchtune", found, {"task_type": "CAUSAL_LM"}, model)


def _by_halves(B: Tensor, heads: int, where: str) -> Tensor:
    """The rows of every head in transformers' order for rotary embeddings: the first of all pairs, then the second.

    Example:
        >>> import torch
        >>> _by_halves(torch.tensor([[0.0], [1.0], [2.0], [3.0]]), 1, "").flatten().tolist()
        [0.0, 2.0, 1.0, 3.0]
    """
    if len(B) % (2 * heads):
        raise ValueError(f"{where} must have an even number of rows for each of {heads} heads, got {len(B)}")
    return B.reshape(heads, -1, 2, B.shape[1]).transpose(1, 2).reshape(B.shape)


def _of_parts(
    file: Path, form: str, tensors: Mapping[str, Tensor], matches: Mapping[str, re.Match[str]], model: str | None,
    component: str | None,
) -> Foreign:  # fmt: skip
    parts = sorted({match[1] for match in matches.values()})
    if component is None and len(parts) > 1:
        raise ValueError(f"{file}: holds adapters of {' and '.join(parts)}: name one with --component")
    if component is not None and component not in parts:
        raise ValueError(f"--component must be one of {', '.join(parts)}, got {component!r}{nearest(component, parts)}")
    shapes = {} if model is None else weight_shapes(Path(model))
    if form == "kohya" and not shapes:
        raise ValueError(
            f"{file}: kohya's names have underscores for dots: give --model, the folder of the base model "
            f"of {component or parts[0]}, whose weights have the names"
        )
    dotted: dict[str, list[str]] = defaultdict(list)
    for name in shapes:
        dotted[name.replace(".", "_")].append(name)
    found: dict[str, Found] = defaultdict(Found)
    for key, match in matches.items():
        if match[1] != (component or parts[0]):
            continue
        name = re.sub(r"\.processor\.(to_\w+)$", r".\1", match[2])
        name = re.sub(r"\.to_out$", ".to_out.0", name)
        if form == "kohya":
            names = dotted.get(match[2], [])
            if len(names) != 1:
                got = " and ".join(names) or f"none{nearest(match[2], dotted)}"
                raise ValueError(f"{model} must have one module for {match[2]!r} of {file}, got {got}")
            name = names[0]
        role = ROLES[match[match.lastindex or 0]]
        if role == "alpha":
            found[name].alpha = float(tensors[key])
        else:
            found[name].factors[role] = tensors[key]
    if model is not None:
        check_shapes(file, model, found)
    return as_peft(file, form, found, {}, model)
