"""LoRA of Megatron-Bridge and NeMo on Llama-like decoders, whose fused maps are split."""

from __future__ import annotations

import itertools
import json
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from rankopt.adapters.config import LARGEST
from rankopt.adapters.foreign_factors import Foreign, Found, as_peft, check_shapes, heads_of, weight_shapes
from rankopt.adapters.source import safe_file
from rankopt.core.errors import first_line
from rankopt.lowrank.files import MODEL_CONFIG

MEGATRON = re.compile(
    r"(?:(?:module|model)\.)*decoder\.layers\.(?:(\d+)\.)?"
    r"(self_attention\.linear_qkv|self_attention\.linear_proj|mlp\.linear_fc1|mlp\.linear_fc2)"
    r"\.adapter\.(?:adapter_(q|k|v|gate|up)\.)?linear_(in|out)\.weight"
)
"""Names of LoRA and, with `adapter_q` and so on, of CanonicalLoRA, which has factors for every part of a fused map."""
PARTS = {
    "self_attention.linear_qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attention.linear_proj": ("self_attn.o_proj",),
    "mlp.linear_fc1": ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.linear_fc2": ("mlp.down_proj",),
}
"""Megatron's map -> transformers' maps, in the order of its rows."""


def read_megatron(file: Path, tensors: Mapping[str, Tensor], model: str | None, alpha: float | None) -> Foreign:
    """An adapter of Megatron-Bridge or NeMo, with one pair of factors for every map of the base model.

        linear_in (r, in) = A of every part;    rows of linear_out (out, r), the parts' B one after another:
        linear_fc1: gate, up
        linear_qkv: for each of the g groups of queries: h/g query heads, one key head, one value head

    Factors of all layers may be stacked, `(layers, ...)`, under a name without the layer's number.

    Args:
        file: for messages.
        tensors: of the whole adapter (tensor parallelism 1).
        model: folder of the base model, for its heads and its shapes.
        alpha: numerator of the scale, which is in no tensor.
    Raises:
        ValueError: no model or alpha, other tensors, or shapes that do not fit; one line.

    Source: NVIDIA-NeMo/Megatron-Bridge models/conversion/peft_bridge.py (0191fc5); NVIDIA/NeMo
    collections/llm/gpt/model/llama.py (HFLlamaPEFTExporter).
    """
    if other := sorted(key for key in tensors if not MEGATRON.fullmatch(key)):
        raise ValueError(
            f"{file}: of Megatron's adapters only LoRA of attention and dense MLPs is read, got {other[0][:80]!r}"
        )
    if model is None:
        raise ValueError(f"{file}: Megatron fuses queries, keys and values by head: give --model, the base model")
    if alpha is None:
        raise ValueError(f"{file}: Megatron's files do not hold alpha: give --alpha, that of its LoRA config")
    heads, groups = _heads(Path(model))
    shapes = weight_shapes(Path(model))
    found: dict[str, Found] = defaultdict(Found)
    for key, value in tensors.items():
        match = MEGATRON.fullmatch(key)
        assert match
        number, fused, part, side = match.groups()
        if value.ndim != (2 if number else 3):
            raise ValueError(f"{file}: {key} must be a matrix, or one for every layer, got {tuple(value.shape)}")
        layers = {int(number): value} if number else dict(enumerate(value))
        for layer, matrix in layers.items():
            names = [f"model.layers.{layer}.{name}" for name in PARTS[fused]]
            if part:
                names = [name for name in names if name.endswith(f"{part}_proj")]
            rows = [shapes.get(name, (0,))[0] for name in names]
            if side == "in":
                pieces = [matrix] * len(names)
            elif len(names) == 3:
                pieces = _by_group(matrix, rows, heads, groups, f"{key} of {file}")
            else:
                pieces = _in_rows(matrix, rows, f"{key} of {file}")
            for name, piece in zip(names, pieces, strict=True):
                found[name].factors["A" if side == "in" else "B"] = piece.clone()
                found[name].alpha = alpha
    check_shapes(file, model, found)
    return as_peft(file, "Megatron", found, {"task_type": "CAUSAL_LM"}, model)


def _heads(model: Path) -> tuple[int, int]:
    """See `heads_of`; refused in one line unless every group has as many query heads."""
    try:
        config = json.loads(safe_file(model, MODEL_CONFIG).read_text(encoding="utf-8")[:LARGEST])
        heads, groups = heads_of(config)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{model} must have the config of a decoder with num_attention_heads ({first_line(error)})"
        ) from None
    if heads < 1 or groups < 1 or heads % groups:
        raise ValueError(f"{model}: {heads} attention heads must be a multiple of its {groups} key-value heads")
    return heads, groups


def _in_rows(matrix: Tensor, rows: list[int], where: str) -> list[Tensor]:
    """Parts that follow one another."""
    if len(matrix) != sum(rows):
        raise ValueError(f"{where} must have {sum(rows)} rows, those of the base model's maps, got {len(matrix)}")
    ends = list(itertools.accumulate(rows, initial=0))
    return [matrix[start:end] for start, end in itertools.pairwise(ends)]


def _by_group(matrix: Tensor, rows: list[int], heads: int, groups: int, where: str) -> list[Tensor]:
    """Queries, keys and values of a fused map; of every group its query heads, then a key head and a value head."""
    if len(matrix) != sum(rows) or rows[0] % heads or rows[1:] != [rows[0] // heads * groups] * 2:
        raise ValueError(
            f"{where} must have the rows of {heads} query heads, {groups} key heads and {groups} value heads, in the "
            f"base model {' + '.join(map(str, rows))}, got {len(matrix)}"
        )
    grouped = matrix.reshape(groups, heads // groups + 2, -1, matrix.shape[1])
    return [part.reshape(-1, matrix.shape[1]) for part in (grouped[:, :-2], grouped[:, -2], grouped[:, -1])]
