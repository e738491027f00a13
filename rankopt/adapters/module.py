"""One adapted module of an adapter file: its shape, rank and scale, checked against the config."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from rankopt.adapters.config import AdapterConfig
from rankopt.core.pattern import Shape
from rankopt.lowrank.files import CONFIG, PREFIX

ModuleKind = Literal["linear", "embedding", "conv"]

LARGEST_RANK = 4096
LARGEST_FAN = 1 << 24
"""Most inputs or outputs of a module. A factor of rank 0 can declare any shape in a file of a few bytes."""

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class Factors(NamedTuple):
    """The factors of an update `s B A`: A `(r, in)`, B `(out, r)`."""

    A: Tensor
    B: Tensor


class Stored(NamedTuple):
    """The header entry of a tensor: its shape, and its dtype as safetensors names it."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Module:
    """One adapted module.

    Attributes:
        name: full name in the base model.
        kind: linear map, embedding (one input per token), or convolution (one input per channel and kernel element).
        shape: of the update as a matrix.
        rank: number of components.
        scale: the factor s of the update `s B A`.
        dtype: of the stored factors.
        kernel: kernel size of a convolution.
        keys: role -> tensor name: A, B, and E for AdaLoRA.
        attached: names of tensors that are useless without the module: a bias, DoRA's magnitudes, a saved base weight.
    """

    name: str
    kind: ModuleKind
    shape: Shape
    rank: int
    scale: float
    dtype: torch.dtype
    kernel: tuple[int, ...]
    keys: Mapping[str, str]
    attached: tuple[str, ...]

    @property
    def stem(self) -> str:
        """The beginning of the module's tensor names."""
        return PREFIX + self.name

    @property
    def parameters(self) -> int:
        """Elements of both factors."""
        return self.rank * self.shape.cost

    @property
    def floor(self) -> int:
        """The smallest rank at which the module can stay a target: 1 if tensors are attached to it."""
        return min(self.rank, 1 if self.attached else 0)


def module_from_header(
    folder: Path,
    config: AdapterConfig,
    name: str,
    roles: Mapping[str, str],
    header: Mapping[str, Stored],
    attached: tuple[str, ...],
) -> Module:
    """Describe one module, and check that its tensors agree with each other and with the config.

    Args:
        folder: of the adapter, for messages.
        config: of the adapter.
        name: full module name.
        roles: tensor role, such as `lora_A` -> tensor name.
        header: tensor name -> shape and dtype.
        attached: tensors that belong to the module.
    Raises:
        ValueError: one line.
    """
    where = f"{folder}: {name}"
    kind: ModuleKind = "embedding" if "lora_embedding_A" in roles else "linear"
    names = (
        {"A": "lora_embedding_A", "B": "lora_embedding_B"} if kind == "embedding" else {"A": "lora_A", "B": "lora_B"}
    )
    if config.peft_type == "ADALORA":
        names["E"] = "lora_E"
    missing = [tensor for tensor in names.values() if tensor not in roles]
    if missing or len(roles) != len(names):
        raise ValueError(f"{where} must have {' and '.join(names.values())}, got {' and '.join(sorted(roles))}")
    keys = {role: roles[tensor] for role, tensor in names.items()}
    (a, dtype), (b, _) = header[keys["A"]], header[keys["B"]]
    if any(header[key].dtype not in DTYPES for key in keys.values()):
        raise ValueError(f"{where} must hold floats of 16, 32 or 64 bits, got {dtype}")
    if len(a) > 2 and len(a) == len(b) and set(b[2:]) == {1}:
        kind = "conv"
    elif len(a) != 2 or len(b) != 2:
        raise ValueError(
            f"{where}: factors must be matrices, got shapes {a} and {b}; if this is a shard of a ZeRO-3 or FSDP run, "
            "gather the shards before saving"
        )
    rank, fan_in, fan_out = a[0], math.prod(a[1:]), b[0]
    if b[1] != rank or not fan_in or not fan_out:
        raise ValueError(f"{where}: factors must be (r, in) and (out, r), got {a} and {b}")
    if "E" in keys and math.prod(header[keys["E"]].shape) != rank:
        raise ValueError(
            f"{where}: lora_E must have one value per component, got {header[keys['E']].shape} for rank {rank}"
        )
    if max(fan_in, fan_out) > LARGEST_FAN:
        raise ValueError(f"{where}: a module must have at most {LARGEST_FAN:,} inputs and outputs, got {a} and {b}")
    if rank > LARGEST_RANK:
        raise ValueError(f"{where}: rank must be at most {LARGEST_RANK}, got {rank}")
    expected = config.rank(name)
    if expected is not None and rank != expected:
        raise ValueError(f"{where} must have rank {expected} according to {CONFIG}, its factors have {rank}")
    return Module(
        name, kind, Shape(fan_in, fan_out), rank, config.scale(name, rank), DTYPES[dtype], a[2:], keys, attached
    )
