"""A suggestion as lines to paste into training programs."""

from __future__ import annotations

import json
from collections.abc import Mapping

from rankopt.lowrank.files import rank_fields


def recipes(rank: int, scale: float, lr: float, pattern: Mapping[str, int] | None = None) -> dict[str, str]:
    """Lines for PEFT, TRL, Axolotl and LLaMA-Factory.

    Every module has the scale `lora_alpha / r`. With a pattern, PEFT and Axolotl get a rank and an alpha per module;
    modules of rank 0 are excluded. LLaMA-Factory has no patterns and gets the uniform rank.

    Args:
        rank: the uniform rank.
        scale: the factor s of every update `s B A`.
        lr: peak learning rate.
        pattern: full module name -> rank; None for uniform ranks.
    Example:
        >>> print(recipes(4, 2.0, 1e-3)["PEFT"])
        LoraConfig(r=4, lora_alpha=8, target_modules="all-linear")  # learning rate 0.001
    """
    kept = {name: size for name, size in (pattern or {}).items() if size}
    fields = rank_fields(kept, {name: _plain(scale * size) for name, size in kept.items()}) if kept else {}
    r, alpha = fields.get("r", rank), fields.get("lora_alpha", _plain(scale * rank))
    patterns = {name: fields[name] for name in ("rank_pattern", "alpha_pattern") if fields.get(name)}
    dropped = sorted(name for name, size in (pattern or {}).items() if not size)
    more = "".join(f", {name}={json.dumps(value)}" for name, value in patterns.items())
    more += f", exclude_modules={json.dumps(dropped)}" if dropped else ""
    config = f'LoraConfig(r={r}, lora_alpha={alpha:g}, target_modules="all-linear"{more})'
    axolotl = [f"adapter: lora\nlora_r: {r}\nlora_alpha: {alpha:g}\nlora_target_linear: true\nlearning_rate: {lr:g}"]
    axolotl += [f"lora_{name}: {json.dumps(value)}" for name, value in patterns.items()]
    return {
        "PEFT": f"{config}  # learning rate {lr:g}",
        "TRL": f"SFTTrainer(..., args=SFTConfig(learning_rate={lr:g}), peft_config={config})",
        "Axolotl": "\n".join(axolotl),
        "LLaMA-Factory": (
            ("# has no rank patterns: the uniform rank of the same cost\n" if kept else "")
            + f"finetuning_type: lora\nlora_rank: {rank}\nlora_alpha: {_plain(scale * rank):g}\nlora_target: all\n"
            f"learning_rate: {lr:g}"
        ),
    }


def _plain(value: float) -> float:
    return int(value) if value == int(value) else value
