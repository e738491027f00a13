"""Any PEFT configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import field_validator

from rankopt.core.errors import FieldError, first_line, nearest, shown
from rankopt.tuners.base import Attached, Host, Tuner
from rankopt.tuners.peft_model import attach_peft

IGNORED = (
    "auto_mapping", "base_model_name_or_path", "inference_mode", "modules_to_save", "peft_version", "revision",
    "runtime_config", "task_type",
)  # fmt: skip
"""Fields of an adapter_config.json that rankopt sets itself, or that say where the adapter was trained."""


class Peft(Tuner):
    """Whatever PEFT has, by its configuration: DoRA, PiSSA, IA3, VeRA, LoHa, OFT, LN tuning, P-tuning and others.

    AdaLoRA and AdaMSS update their budget after every step, and AdaLoRA adds its orthogonality penalty. LoRA with
    `init_lora_weights` "eva" or "lora_ga" reads training batches before it starts. Without `target_modules`, PEFT's own
    choice for the model counts, not `model.target_modules`. AdaLoRA's `total_step` is the trial's number of steps.

    Args:
        config: fields of PEFT's configuration with its `peft_type`, or the path of an adapter_config.json.
    Example:
        >>> Peft(config={"peft_type": "VERA", "r": 8}).config["r"]
        8

    Source: PEFT, https://github.com/huggingface/peft.
    """

    config: dict[str, Any]

    @field_validator("config", mode="before")
    @classmethod
    def _read(cls, config: Any) -> Any:
        if not isinstance(config, str):
            return config
        path = Path(config)
        path = path / "adapter_config.json" if path.is_dir() else path
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise FieldError(
                (), f"must be a mapping or the path of a JSON file, got {shown(config)} ({error})"
            ) from None
        if not isinstance(found, dict):
            raise FieldError((), f"must be the path of a JSON object, got {shown(config)}")
        return {key: value for key, value in found.items() if value is not None}

    @field_validator("config")
    @classmethod
    def _known(cls, config: dict[str, Any]) -> dict[str, Any]:
        config = {key: value for key, value in config.items() if key not in IGNORED}
        peft_config(config, "SEQ_CLS", None)
        return config

    def positions(self) -> int:
        tokens = self.config.get("num_virtual_tokens", 0)
        return tokens if isinstance(tokens, int) else 0

    def attach(self, host: Host) -> Attached:
        try:
            made = peft_config(self.config, host.task_type, host.steps)
        except FieldError as error:
            raise ValueError(f"tuner.config{'.' if error.location else ' '}{error}") from None
        return attach_peft(host, made)


def peft_config(fields: dict[str, Any], task_type: str, steps: int | None) -> Any:
    """PEFT's configuration object.

    Args:
        fields: with `peft_type`.
        task_type: PEFT's name of the problem.
        steps: optimiser steps, for AdaLoRA's schedule; None where they are not known yet.
    Raises:
        FieldError: an unknown type or field, or values that PEFT refuses; located in `fields`.
    """
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING  # slow to import

    kinds = {str(kind.value): config for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    name = fields.get("peft_type")
    if name not in kinds:
        hint = nearest(name, kinds) if isinstance(name, str) else f"; valid: {', '.join(kinds)}"
        raise FieldError(("peft_type",), f"must be a type of the installed PEFT, got {shown(name)}{hint}")
    kind = kinds[name]
    for key in fields:
        if key not in kind.__dataclass_fields__:
            raise FieldError((key,), f"is not a field of {kind.__name__}{nearest(key, kind.__dataclass_fields__)}")
    options = {key: value for key, value in fields.items() if key != "peft_type"}
    if name == "ADALORA" and "total_step" not in options:
        # before the steps are known, any number that leaves room for the schedule
        options["total_step"] = steps or 10**9
    try:
        return kind(task_type=task_type, **options)
    except Exception as error:  # PEFT raises ValueError, TypeError and others
        raise FieldError((), f"is not valid for PEFT: {first_line(error)}") from None
