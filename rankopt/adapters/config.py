"""An adapter's `adapter_config.json`: checked, and PEFT's rules for rank and scale."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from rankopt.core.problems import first_line, problems
from rankopt.lowrank.files import CONFIG, first_match
from rankopt.lowrank.linear_regex import linear_time_pattern

LONGEST = 4096
"""Characters of a text in a config, and of a pattern."""

LARGEST = 1 << 24
"""Bytes of a config; thousands of modules with patterns take less than one."""

ELSEWHERE = (
    "target_parameters", "megatron_config", "layer_replication", "use_qalora", "use_bdlora", "monteclora_config",
    "kasa_config", "arrow_config",
)  # fmt: skip
"""Options under which an update is something else than `scale B A`."""

PLAIN_INITS = (None, True, False, "true", "gaussian", "eva", "orthogonal")
"""Initialisations that leave the base weights alone."""


def _printable(text: str) -> str:
    if len(text) > LONGEST or not text.isprintable():
        raise ValueError(f"must be at most {LONGEST} printable characters, got {text[:40]!r}")
    return text


Text = Annotated[str, AfterValidator(_printable)]
Alpha = Annotated[float, Field(allow_inf_nan=False, ge=-1e12, le=1e12)]


class AdapterConfig(BaseModel):
    """What an adapter says of itself; fields that are not needed here are carried along unread.

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

    @field_validator("rank_pattern", "alpha_pattern")
    @classmethod
    def _patterns(cls, patterns: dict[str, Any] | None) -> dict[str, Any] | None:
        for pattern in patterns or {}:
            try:
                linear_time_pattern(pattern)
            except ValueError as error:
                raise ValueError(f"must hold regular expressions, got {pattern[:80]!r} ({error})") from None
        return patterns

    @property
    def kind(self) -> str:
        """The kind of adapter, as people call it."""
        if self.peft_type == "ADALORA":
            return "AdaLoRA"
        return "DoRA" if self.use_dora else "rsLoRA" if self.use_rslora else "LoRA"

    @property
    def changes_base(self) -> bool:
        """Whether loading this adapter changes the base weights, by an initialisation that depends on the rank."""
        return self.init_lora_weights not in PLAIN_INITS

    def rank(self, name: str) -> int | None:
        """The rank that PEFT gives a module when it loads the adapter; None where the file alone decides (AdaLoRA)."""
        if self.peft_type == "ADALORA":
            return None
        rank = first_match(self.rank_pattern or {}, name, self.r)
        return rank if isinstance(rank, int) else None

    def scale(self, name: str, rank: int) -> float:
        """What the product of a module's factors is multiplied by.

        LoRA: alpha / r     rsLoRA: alpha / sqrt(r)     AdaLoRA: alpha / (init_r + 1e-5), whatever rank is left
        """
        if self.peft_type == "ADALORA":
            return self.lora_alpha / (self.init_r + 1e-5)
        alpha = first_match(self.alpha_pattern or {}, name, self.lora_alpha)
        return float(alpha) / (math.sqrt(rank) if self.use_rslora else rank)


def read_config(folder: Path) -> AdapterConfig:
    """The config of an adapter folder.

    Raises:
        ValueError: one line per problem: no JSON, no LoRA adapter, a field of the wrong type, an unsupported option.
    """
    path = folder / CONFIG
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{path}: must be at most {LARGEST:,} bytes, got {path.stat().st_size:,}")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(data, dict):
            raise ValueError("it is no mapping")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: must be JSON as PEFT writes it, got a corrupt file ({first_line(error)})") from None
    kind = data.get("peft_type")
    if kind not in ("LORA", "ADALORA"):
        raise ValueError(
            f"{path}: peft_type must be LORA or ADALORA, got {str(kind)[:40]!r}; no other adapter is low-rank"
        )
    used = [option for option in ELSEWHERE if data.get(option)]
    if used:
        raise ValueError(f"{path}: {used[0]} is not supported: its update is no product of two factors per module")
    try:
        return AdapterConfig(**data)
    except ValidationError as error:
        lines = (f"{path}: {problem}" for problem in problems(error, AdapterConfig))
        raise ValueError("\n".join(list(lines)[:8])) from None
