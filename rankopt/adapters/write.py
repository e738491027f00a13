"""Writing an adapter of the same family as one that was read, and checking what was written."""

from __future__ import annotations

import errno
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rankopt.adapters.adapter import DTYPES, Adapter, Factors, Module, read_adapter
from rankopt.lowrank.files import full_names, rank_fields, write_config, write_weights

ADALORA_ONLY = (
    "init_r", "target_r", "tinit", "tfinal", "deltaT", "beta1", "beta2", "orth_reg_weight", "total_step",
)  # fmt: skip
INITIAL = ("eva_config", "corda_config", "loftq_config", "lora_ga_config")
"""Fields that say how an adapter started, which means nothing for other ranks."""

SELECTING = ("exclude_modules", "layers_to_transform", "layers_pattern")
"""Fields that narrow `target_modules`."""

SUMMARY = "rankopt.json"
"""What was done, beside the adapter; PEFT does not read it."""


@dataclass(frozen=True, eq=False)
class Update:
    """What one module is to become.

    Attributes:
        module: as it was.
        factors: A `(r, in)`, B `(out, r)`, r at least 1.
        scale: what their product is multiplied by.
    """

    module: Module
    factors: Factors
    scale: float

    @property
    def rank(self) -> int:
        return len(self.factors.A)

    @property
    def alpha(self) -> float:
        """The alpha whose ratio to the rank is the scale; an integer where that is exact: some servers want one."""
        alpha = self.scale * self.rank
        return round(alpha) if abs(alpha - round(alpha)) <= 1e-12 * abs(alpha) else alpha

    def rounded(self) -> Update:
        """The same with its factors in the dtype that is stored."""
        A, B = (factor.to(self.module.dtype) for factor in self.factors)
        return Update(self.module, Factors(A, B), self.scale)

    def tensors(self) -> dict[str, Tensor]:
        """The factors under PEFT's names, in the form the module had."""
        A, B = self.factors
        if self.module.kind == "embedding":
            return {f"{self.module.stem}.lora_embedding_A": A, f"{self.module.stem}.lora_embedding_B": B}
        if self.module.kind == "conv":
            kernel = self.module.kernel
            A = A.reshape(self.rank, self.module.shape.fan_in // math.prod(kernel), *kernel)
            B = B.reshape(*B.shape, *(1 for _ in kernel))
        return {f"{self.module.stem}.lora_A.weight": A, f"{self.module.stem}.lora_B.weight": B}


@dataclass(frozen=True)
class Written:
    """What was written, and how far it is from what it stands for.

    Attributes:
        folder: the new adapter or model.
        what: in words.
        error: Frobenius norm of the difference between the update written and the one meant, over all modules.
        relative_error: the same relative to the norm of the one meant.
        notes: what a reader must know.
    """

    folder: Path
    what: str
    error: float
    relative_error: float
    notes: tuple[str, ...] = ()

    def lines(self) -> Iterator[str]:
        """For the terminal."""
        yield f"{self.folder}: {self.what}"
        yield f"error of the whole update: {self.error:.4g} in Frobenius norm, {self.relative_error:.3%} of its norm"
        yield from (f"note: {note}" for note in self.notes)


def write_adapter(folder: Path, source: Adapter, updates: Sequence[Update], carried: Mapping[str, Tensor]) -> None:
    """Write a plain LoRA adapter: every module its own rank, `alpha / r` its scale.

    Args:
        folder: an existing empty folder.
        source: the adapter whose config is carried on.
        updates: the modules that stay targets.
        carried: all other tensors by key, written as they are.
    Raises:
        OSError: it cannot be written.
    """
    tensors = dict(carried)
    for update in updates:
        tensors |= update.tensors()
    write_config(_config(source, updates), folder)
    write_weights(tensors, folder)


def write_summary(folder: Path, report: Mapping[str, Any]) -> None:
    """Write what was done beside the adapter, as JSON."""
    (folder / SUMMARY).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def carried_tensors(source: Adapter, updates: Iterable[Update]) -> dict[str, Tensor]:
    """What goes along: everything that is no factor, and what is attached to the modules that stay.

    A bias is multiplied by the scale like the product of the factors, so it is divided where the scale changes.

    Raises:
        ValueError: a tensor that is no factor holds NaN or infinity.
    """
    tensors = {key: source.tensor(key) for key in source.carried}
    for key, value in tensors.items():
        if value.dtype in DTYPES.values() and not torch.isfinite(value).all():
            raise ValueError(f"{source.folder}: {key} must be finite, it holds NaN or infinity")
    for update in updates:
        for key in update.module.attached:
            value = source.tensor(key)
            if key.endswith(".lora_B.bias") and update.scale != update.module.scale:
                value = (value.double() * (update.module.scale / update.scale)).to(value.dtype)
            tensors[key] = value
    return tensors


def verify(folder: Path, updates: Sequence[Update], carried: Mapping[str, Tensor]) -> Adapter:
    """Read a written adapter again and compare every tensor and every scale with what was meant.

    Returns:
        The adapter as it is stored.
    Raises:
        OSError: something else is in the files.
    """
    written = read_adapter(folder)
    meant = dict(carried)
    for update in updates:
        meant |= update.tensors()
    held = {key for module in written.modules.values() for key in (*module.keys.values(), *module.attached)}
    scales = {update.module.name: update.scale for update in updates}
    wrong = (
        [key for key in meant if not torch.equal(written.tensor(key), meant[key])] if held <= set(meant) else [*held]
    )
    wrong += [
        name for name, module in written.modules.items() if not math.isclose(module.scale, scales[name], rel_tol=1e-12)
    ]
    if wrong or held | set(written.carried) != set(meant):
        raise OSError(errno.EIO, f"what was written differs from what was meant {wrong[:1]}", str(folder))
    return written


def _config(source: Adapter, updates: Sequence[Update]) -> dict[str, Any]:
    fields = source.config.model_dump(exclude_unset=True)
    for name in (*ADALORA_ONLY, *INITIAL, "use_rslora"):
        fields.pop(name, None)
    names = [update.module.name for update in updates]
    fields |= rank_fields(
        {update.module.name: update.rank for update in updates},
        {update.module.name: update.alpha for update in updates},
    )
    fields |= {"peft_type": "LORA", "init_lora_weights": True, "inference_mode": True}
    if set(names) != set(source.modules) or not source.config.target_modules:
        fields["target_modules"] = _targets(source, names)
        fields |= dict.fromkeys(SELECTING)
    return fields


def _targets(source: Adapter, names: list[str]) -> list[str] | str:
    """Full names; PEFT takes them for endings too, so one exact expression where that could match another module."""
    listed = isinstance(source.config.target_modules, list)
    narrowed = any(getattr(source.config, field, None) for field in SELECTING)
    clash = any(module.endswith("." + name) for name in names for module in {*source.modules, *names})
    return names if listed and not narrowed and not clash else full_names(names)
