"""An adapter's `adapter_config.json`: its checks, and PEFT's rules for rank and scale."""

from __future__ import annotations

import json
import math
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from rankopt.core.errors import first_line, violations
from rankopt.lowrank.files import CONFIG
from rankopt.lowrank.linear_regex import FirstMatch, linear_time_pattern

LONGEST = 4096
"""Most characters of a text in a config."""

LARGEST = 1 << 24
"""Most bytes of a config; thousands of modules with patterns take less than one megabyte."""

UNSUPPORTED = (
    "target_parameters", "megatron_config", "layer_replication", "use_qalora", "use_bdlora", "monteclora_config",
    "kasa_config", "arrow_config",
)  # fmt: skip
"""Options under which an update is not `scale B A`."""

PLAIN_INITS = (None, True, False, "true", "gaussian", "eva", "orthogonal")
"""Initialisations that do not change the base weights."""


def _printable(text: str) -> str:
    if len(text) > LONGEST or not text.isprintable():
        raise ValueError(f"must be at most {LONGEST} printable characters, got {text[:40]!r}")
    return text


Text = Annotated[str, AfterValidator(_printable)]
Alpha = Annotated[float, Field(allow_inf_nan=False, ge=-1e12, le=1e12)]


class AdapterConfig(BaseModel):
    """The config of an adapter; fields that are not needed here are kept unread.

    Example:
        >>> config = AdapterConfig(peft_type="LORA", r=8, lora_alpha=16, alpha_pattern={"query": 32})
        >>> config.scale("layer.0.query", 8), config.scale("layer.0.value", 8)
        (4.0, 2.0)
        >>> AdapterConfig(peft_type="LORA", r=16, lora_alpha=8, use_rslora=True).scale("query", 16)
        2.0
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    peft_type: Literal["LORA", "ADALORA"]
    task_type: Text | None = None
    base_model_name_or_path: Text | None = None
    r: int = Field(8, ge=1)
    init_r: int = Field(12, ge=1)
    lora_alpha: Alpha = 8.0
    use_rslora: bool = False
    use_dora: bool = False
    lora_bias: bool = False
    fan_in_fan_out: bool = False
    init_lora_weights: bool | Text | None = True
    rank_pattern: dict[Text, int | list[bool]] | None = None
    alpha_pattern: dict[Text, Alpha] | None = None
    target_modules: list[Text] | Text | None = None
    modules_to_save: list[Text] | None = None
    ensure_weight_tying: bool = False

    @field_validator("rank_pattern", "alpha_pattern")
    @classmethod
    def _patterns(cls, patterns: dict[str, Any] | None) -> dict[str, Any] | None:
        for pattern in patterns or {}:
            try:
                linear_time_pattern(pattern)
            except ValueError as error:
                raise ValueError(f"must have regular expressions as keys, got {pattern[:80]!r} ({error})") from None
        FirstMatch(patterns or {})
        return patterns

    @property
    def kind(self) -> str:
        """The usual name of this kind of adapter."""
        if self.peft_type == "ADALORA":
            return "AdaLoRA"
        return "DoRA" if self.use_dora else "rsLoRA" if self.use_rslora else "LoRA"

    @property
    def changes_base(self) -> bool:
        """Whether PEFT changes the base weights when it loads this adapter, in a way that depends on the rank."""
        return self.init_lora_weights not in PLAIN_INITS

    @cached_property
    def _ranks(self) -> FirstMatch[int | list[bool]]:
        return FirstMatch(self.rank_pattern or {})

    @cached_property
    def _alphas(self) -> FirstMatch[float]:
        return FirstMatch(self.alpha_pattern or {})

    def rank(self, name: str) -> int | None:
        """The rank that PEFT gives a module; None for AdaLoRA, whose ranks are those of the stored tensors."""
        if self.peft_type == "ADALORA":
            return None
        rank = self._ranks.get(name, self.r)
        return rank if isinstance(rank, int) else None

    def scale(self, name: str, rank: int) -> float:
        """The factor s of a module's update `s B A`.

        LoRA: alpha / r     rsLoRA: alpha / sqrt(r)     AdaLoRA: alpha / (init_r + 1e-5) at every rank
        """
        if self.peft_type == "ADALORA":
            return self.lora_alpha / (self.init_r + 1e-5)
        alpha = self._alphas.get(name, self.lora_alpha)
        return float(alpha) / (math.sqrt(rank) if self.use_rslora else rank)


def read_config(folder: Path) -> AdapterConfig:
    """Read and check the config of an adapter folder.

    Raises:
        ValueError: one line per problem: not JSON, not a LoRA adapter, a field of the wrong type, an unsupported
            option.
    """
    path = folder / CONFIG
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{path}: must be at most {LARGEST:,} bytes, got {path.stat().st_size:,}")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(data, dict):
            raise ValueError("not a JSON object")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: must be JSON as PEFT writes it, got a corrupt file ({first_line(error)})") from None
    kind = data.get("peft_type")
    if kind not in ("LORA", "ADALORA"):
        raise ValueError(f"{path}: peft_type must be LORA or ADALORA, got {str(kind)[:40]!r}")
    used = [option for option in UNSUPPORTED if data.get(option)]
    if used:
        raise ValueError(f"{path}: {used[0]} is not supported: its updates are not products of two factors per module")
    try:
        return AdapterConfig(**data)
    except ValidationError as error:
        lines = (f"{path}: {problem}" for problem in violations(error, AdapterConfig))
        raise ValueError("\n".join(list(lines)[:8])) from None
