"""The two files of a PEFT adapter, and how ranks are written in them."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from rankopt.lowrank.linear_regex import ends

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
PREFIX = "base_model.model."


def rank_fields(ranks: Mapping[str, int], alphas: Mapping[str, float]) -> dict[str, Any]:
    """PEFT's fields for a rank and an alpha per module: the largest rank is the default, every other module is named.

    PEFT reads a key as a regular expression over the end of a name, the first match wins, its file keeps no order:
    anchored and escaped, a key is one module's whole name.

    Args:
        ranks: full module name -> rank, at least 1.
        alphas: full module name -> alpha.
    Example:
        >>> rank_fields({"q": 2, "v": 1}, {"q": 4, "v": 2})
        {'r': 2, 'lora_alpha': 4, 'rank_pattern': {'^v': 1}, 'alpha_pattern': {'^v': 2}}
    """
    r = max(ranks.values())
    alpha = next(alphas[name] for name, rank in ranks.items() if rank == r)
    return {
        "r": r,
        "lora_alpha": alpha,
        "rank_pattern": {f"^{re.escape(name)}": rank for name, rank in ranks.items() if rank != r},
        "alpha_pattern": {f"^{re.escape(name)}": value for name, value in alphas.items() if value != alpha},
    }


def first_match(patterns: Mapping[str, Any], name: str, default: Any) -> Any:
    """PEFT's rule: the value of the first pattern that matches the end of the module's name, else the default.

    Example:
        >>> first_match({"query": 4, "layer.1.value": 2}, "encoder.layer.1.value", 8)
        2
    """
    for pattern, value in patterns.items():
        if ends(pattern, name):
            return value
    return default


def full_names(names: list[str]) -> str:
    """One regular expression that matches these names and no other."""
    return "|".join(re.escape(name) for name in names)


def write_config(config: Mapping[str, Any], folder: Path) -> None:
    """Write `adapter_config.json`: keys and names sorted, so that the same adapter is the same bytes."""
    fields = {key: sorted(value) if _are_names(value) else value for key, value in config.items()}
    (folder / CONFIG).write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def write_weights(tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Write `adapter_model.safetensors`.

    Raises:
        OSError: when it cannot be written.
    """
    apart = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    try:
        save_file(apart, folder / WEIGHTS, metadata={"format": "pt"})
    except SafetensorError as error:
        raise OSError(errno.EIO, f"the adapter cannot be written ({error})", str(folder / WEIGHTS)) from error


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
