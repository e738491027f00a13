"""Write an adapter with changed updates, and compare what was written with what was intended."""

from __future__ import annotations

import errno
import json
import math
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rankopt.adapters.adapter import Adapter, read_adapter
from rankopt.adapters.module import DTYPES, Factors, Module
from rankopt.adapters.peft_check import readable_targets
from rankopt.adapters.source import safe_file
from rankopt.lowrank.files import MODEL_CONFIG, rank_fields, write_config, write_weights

ADALORA_ONLY = (
    "init_r", "target_r", "tinit", "tfinal", "deltaT", "beta1", "beta2", "orth_reg_weight", "total_step",
)  # fmt: skip
INITIAL = ("eva_config", "corda_config", "loftq_config", "lora_ga_config")
"""Fields about the initialisation, which do not apply to other ranks."""

SUMMARY = "rankopt.json"
"""A summary beside the adapter, which PEFT does not read."""


@dataclass(frozen=True, eq=False)
class Update:
    """The new update of one module.

    Attributes:
        module: the module as it was read.
        factors: A `(r, in)`, B `(out, r)`, r at least 1.
        scale: the factor s of the update `s B A`.
    """

    module: Module
    factors: Factors
    scale: float

    @property
    def rank(self) -> int:
        return len(self.factors.A)

    @property
    def alpha(self) -> float:
        """Scale times rank; an integer if that is exact, because some servers require one."""
        alpha = self.scale * self.rank
        return round(alpha) if abs(alpha - round(alpha)) <= 1e-12 * abs(alpha) else alpha

    def rounded(self) -> Update:
        """The same update with its factors in the stored dtype."""
        A, B = (factor.to(self.module.dtype) for factor in self.factors)
        return Update(self.module, Factors(A, B), self.scale)

    def tensors(self) -> dict[str, Tensor]:
        """The factors under PEFT's names and in PEFT's shapes."""
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
    """A written adapter or model, and its error.

    Attributes:
        folder: the new adapter or model.
        what: a description.
        error: Frobenius norm of the difference between the written and the intended update, over all modules.
        relative_error: the same relative to the norm of the intended update.
        notes: remarks for the reader.
    """

    folder: Path
    what: str
    error: float
    relative_error: float
    notes: tuple[str, ...] = ()

    def lines(self) -> Iterator[str]:
        """Lines for the terminal."""
        yield f"{self.folder}: {self.what}"
        yield f"error of the whole update: {self.error:.4g} in Frobenius norm, {self.relative_error:.3%} of its norm"
        yield from (f"note: {note}" for note in self.notes)


def write_adapter(folder: Path, source: Adapter, updates: Sequence[Update], carried: Mapping[str, Tensor]) -> None:
    """Write a plain LoRA adapter in which every module has its own rank and the scale `alpha / r`.

    Args:
        folder: an existing empty folder.
        source: the adapter whose other config fields are kept.
        updates: the modules that stay targets.
        carried: all other tensors by name, written unchanged.
    Raises:
        ValueError: PEFT would not load some of the tensors.
        OSError: the files cannot be written.
    """
    tensors = dict(carried)
    for update in updates:
        tensors |= update.tensors()
    write_config(_config(source, updates, tensors), folder)
    write_weights(tensors, folder)
    copy_model_config(source.folder, folder)


def copy_model_config(source: Path, folder: Path) -> None:
    """Copy the model's `config.json` (labels, padding token) if the source folder has one."""
    if (source / MODEL_CONFIG).exists():
        shutil.copyfile(safe_file(source, MODEL_CONFIG), folder / MODEL_CONFIG)


def write_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    """Write a summary of what was done beside the adapter, as JSON."""
    (folder / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


def carried_tensors(source: Adapter, updates: Iterable[Update]) -> dict[str, Tensor]:
    """All tensors that are not factors, without those attached to modules that are dropped.

    PEFT multiplies a LoRA bias by the scale, so it is divided by the change of the scale.

    Raises:
        ValueError: a tensor holds NaN or infinity.
    """
    tensors = {key: source.tensor(key) for key in source.carried}
    for key, value in tensors.items():
        if value.dtype in DTYPES.values() and not torch.isfinite(value).all():
            raise ValueError(f"{source.folder}: {key} must be finite, got NaN or infinity")
    for update in updates:
        for key in update.module.attached:
            value = source.tensor(key)
            if key.endswith(".lora_B.bias") and update.scale != update.module.scale:
                value = (value.double() * (update.module.scale / update.scale)).to(value.dtype)
            tensors[key] = value
    return tensors


def verify(folder: Path, updates: Sequence[Update], carried: Mapping[str, Tensor]) -> Adapter:
    """Read a written adapter again, and compare every tensor and every scale with the intended one.

    Returns:
        The adapter as stored.
    Raises:
        OSError: the files differ from what was intended.
    """
    written = read_adapter(folder)
    meant = dict(carried)
    for update in updates:
        meant |= update.tensors()
    found = {key for module in written.modules.values() for key in (*module.keys.values(), *module.attached)}
    scales = {update.module.name: update.scale for update in updates}
    wrong = (
        [key for key in meant if not torch.equal(written.tensor(key), meant[key])] if found <= set(meant) else [*found]
    )
    wrong += [
        name for name, module in written.modules.items() if not math.isclose(module.scale, scales[name], rel_tol=1e-12)
    ]
    if wrong or found | set(written.carried) != set(meant):
        raise OSError(errno.EIO, f"the written adapter differs from the intended one {wrong[:1]}", str(folder))
    return written


def _config(source: Adapter, updates: Sequence[Update], tensors: Iterable[str]) -> dict[str, Any]:
    fields = source.config.model_dump(exclude_unset=True)
    for name in (*ADALORA_ONLY, *INITIAL, "use_rslora"):
        fields.pop(name, None)
    fields |= rank_fields(
        {update.module.name: update.rank for update in updates},
        {update.module.name: update.alpha for update in updates},
    )
    fields |= {"peft_type": "LORA", "init_lora_weights": True, "inference_mode": True}
    modules = {update.module.name: update.module for update in updates}
    return fields | readable_targets(source, modules, tensors, fields)
