"""The two files of a PEFT adapter: their names, PEFT's fields for ranks, and how they are written."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
MODEL_CONFIG = "config.json"
"""The model's config, which `rankopt export` writes beside an adapter and PEFT does not: labels and padding token."""
PREFIX = "base_model.model."
AUTO_CLASS = {
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
}
"""PEFT's task types, and transformers' class that loads a model for each."""


def rank_fields(ranks: Mapping[str, int], alphas: Mapping[str, float]) -> dict[str, Any]:
    """PEFT's fields for a rank and an alpha per module: the largest rank is the default, other modules are listed.

    PEFT reads a key as a regular expression over the end of a name and takes the first match. Keys are therefore
    anchored and escaped full names, which no other module matches.

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


def full_names(names: Iterable[str]) -> str:
    """A regular expression that matches exactly these names."""
    return "|".join(re.escape(name) for name in names)


def ends_another(names: Iterable[str], modules: Iterable[str]) -> bool:
    """Whether a name is also the ending of another module's name, which PEFT would adapt as well.

    Example:
        >>> ends_another(["x"], ["x", "a.x"]), ends_another(["a.x"], ["x", "a.x"])
        (True, False)
    """
    endings: set[str] = set()
    for module in modules:
        parts = module.split(".")
        endings.update(".".join(parts[start:]) for start in range(1, len(parts)))
    return not endings.isdisjoint(names)


def write_config(config: Mapping[str, Any], folder: Path) -> None:
    """Write `adapter_config.json` with sorted keys and names, so that equal adapters have equal bytes."""
    fields = {key: sorted(value) if _are_names(value) else value for key, value in config.items()}
    (folder / CONFIG).write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def write_weights(tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Write `adapter_model.safetensors`.

    Raises:
        OSError: the file cannot be written.
    """
    contiguous = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    try:
        save_file(contiguous, folder / WEIGHTS, metadata={"format": "pt"})
    except SafetensorError as error:
        raise OSError(errno.EIO, f"the adapter cannot be written ({error})", str(folder / WEIGHTS)) from error


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
