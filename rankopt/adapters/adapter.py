"""A LoRA adapter on disk: what its modules are, and their factors one at a time."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rankopt.adapters.config import AdapterConfig, read_config
from rankopt.adapters.source import locate, safe_file
from rankopt.core.pattern import Shape, Shapes
from rankopt.core.problems import first_line
from rankopt.lowrank.files import CONFIG, PREFIX, WEIGHTS

ModuleKind = Literal["linear", "embedding", "conv"]

LARGEST_RANK = 4096
LARGEST_FAN = 1 << 24
"""Inputs or outputs of a module; a factor without components declares them in no bytes at all."""

LARGEST_UPDATE = 1e150
"""Frobenius norm of an update; the square of more is infinite in float64."""

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
STEM = re.compile(r"[\w.-]{1,512}")
FACTOR = re.compile(r"(.+)\.(lora_A|lora_B|lora_E|lora_embedding_A|lora_embedding_B)(\.weight)?")
ATTACHED = re.compile(r"(.+)\.(lora_B\.bias|lora_magnitude_vector(?:\.weight)?|base_layer\..+)")


class Factors(NamedTuple):
    """An update `A^T`-side and `B`-side, without its scale: A `(r, in)`, B `(out, r)`."""

    A: Tensor
    B: Tensor


@dataclass(frozen=True)
class Module:
    """One adapted module.

    Attributes:
        name: its full name in the base model.
        stem: the same as the file's keys begin.
        kind: linear map, embedding (one input per token) or convolution (one input per channel and place).
        shape: of the update as a matrix.
        rank: number of components.
        scale: what the product of the factors is multiplied by.
        dtype: of the factors in the file.
        kernel: of a convolution.
        keys: role -> key in the file: A, B, and E for AdaLoRA.
        attached: keys of tensors that work only with the module: a bias, DoRA's magnitudes, a saved base weight.
    """

    name: str
    stem: str
    kind: ModuleKind
    shape: Shape
    rank: int
    scale: float
    dtype: torch.dtype
    kernel: tuple[int, ...]
    keys: Mapping[str, str]
    attached: tuple[str, ...]

    @property
    def parameters(self) -> int:
        """Elements of both factors."""
        return self.rank * self.shape.cost

    @property
    def floor(self) -> int:
        """The least rank at which the module can stay a target: 1 where tensors are attached to it."""
        return min(self.rank, 1 if self.attached else 0)


@dataclass(frozen=True)
class Adapter:
    """An adapter folder, read as far as its header; factors are read when asked for.

    Attributes:
        folder: where it is.
        config: its checked config.
        modules: by full name, in the order of names with numbers counted.
        carried: keys of all other tensors (`modules_to_save` and the like), which no tool here changes.
    """

    folder: Path
    config: AdapterConfig
    modules: Mapping[str, Module]
    carried: tuple[str, ...]

    @property
    def shapes(self) -> Shapes:
        return {name: module.shape for name, module in self.modules.items()}

    @property
    def parameters(self) -> int:
        """Elements of all low-rank factors."""
        return sum(module.parameters for module in self.modules.values())

    def tensor(self, key: str) -> Tensor:
        """One tensor as the file has it.

        The file is opened anew every time, so that the pages of the one before are given back: memory stays that of a
        module, not of the file.
        """
        with _opened(self.folder / WEIGHTS) as file:
            tensor: Tensor = file.get_tensor(key).clone()
        return tensor

    def factors(self, name: str, dtype: torch.dtype = torch.float64) -> Factors:
        """The factors of a module; AdaLoRA's E is absorbed into A, a convolution's kernel is flattened.

        Args:
            name: full name.
            dtype: what to compute in.
        Raises:
            ValueError: a value, also of a bias or of DoRA's magnitudes, is NaN or infinite; the update is too large.
        """
        module = self.modules[name]
        for key in module.attached:
            if not torch.isfinite(self.tensor(key)).all():
                role = key.removeprefix(f"{module.stem}.")
                raise ValueError(f"{self.folder}: {role} of {name} must be finite, it holds NaN or infinity")
        A, B = (self.tensor(module.keys[role]).to(dtype).flatten(1) for role in ("A", "B"))
        if "E" in module.keys:
            A = self.tensor(module.keys["E"]).to(dtype).reshape(-1, 1) * A
        for factor, role in ((A, "A"), (B, "B")):
            if not torch.isfinite(factor).all():
                raise ValueError(f"{self.folder}: factor {role} of {name} must be finite, it holds NaN or infinity")
        if not abs(module.scale) * float(A.double().norm()) * float(B.double().norm()) <= LARGEST_UPDATE:
            raise ValueError(f"{self.folder}: the update of {name} is too large for float64 (scale {module.scale:g})")
        return Factors(A, B)


def read_adapter(source: str | Path | Adapter) -> Adapter:
    """Read an adapter's config and header, and check that they agree.

    Args:
        source: a folder, a hub id, or an adapter that was read before.
    Raises:
        ValueError: one line: what is missing, corrupt, mismatched or not supported.
        OSError: the hub cannot be reached.
    """
    if isinstance(source, Adapter):
        return source
    folder = locate(source)
    safe_file(folder, CONFIG)
    config = read_config(folder)
    with _opened(safe_file(folder, WEIGHTS)) as file:
        header = {}
        for key in file.keys():  # noqa: SIM118 - no mapping
            part = file.get_slice(key)
            header[key] = (tuple(part.get_shape()), part.get_dtype())
    roles: dict[str, dict[str, str]] = defaultdict(dict)
    attached, carried = defaultdict(list), []
    keys: dict[tuple[str, str], str] = {}
    for key in header:
        if not STEM.fullmatch(key):
            raise ValueError(f"{folder}: a tensor's name must be letters, digits, dots and dashes, got {key[:80]!r}")
        if found := FACTOR.fullmatch(key):
            roles[found[1]][found[2]] = key
            if (first := keys.setdefault((found[1].removeprefix(PREFIX), found[2]), key)) != key:
                raise ValueError(f"{folder}: a module must have one {found[2]}, got {first!r} and {key!r}")
        elif found := ATTACHED.fullmatch(key):
            attached[found[1]].append(key)
        elif ".lora_" in key:
            kohya = ".lora_down." in key or ".lora_up." in key
            hint = "; it is a kohya or diffusers file: convert it to PEFT's layout first" if kohya else ""
            raise ValueError(f"{folder}: holds a tensor that no PEFT LoRA adapter has, {key!r}{hint}")
        else:
            carried.append(key)
    if not roles:
        raise ValueError(f"{folder}: an adapter must hold lora_A and lora_B tensors, it has none")
    carried += [key for stem in attached if stem not in roles for key in attached[stem]]
    modules = {}
    for stem in sorted(roles, key=_counted):
        module = _module(folder, config, stem, roles[stem], header, tuple(attached.get(stem, ())))
        modules[module.name] = module
    return Adapter(folder, config, modules, tuple(carried))


def _module(
    folder: Path,
    config: AdapterConfig,
    stem: str,
    roles: Mapping[str, str],
    header: Mapping[str, tuple[tuple[int, ...], str]],
    attached: tuple[str, ...],
) -> Module:
    name = stem.removeprefix(PREFIX)
    where = f"{folder}: {name}"
    kind: ModuleKind = "embedding" if "lora_embedding_A" in roles else "linear"
    names = (
        {"A": "lora_embedding_A", "B": "lora_embedding_B"} if kind == "embedding" else {"A": "lora_A", "B": "lora_B"}
    )
    if config.peft_type == "ADALORA":
        names["E"] = "lora_E"
    missing = [tensor for tensor in names.values() if tensor not in roles]
    if missing or len(roles) != len(names):
        raise ValueError(f"{where} must have {' and '.join(names.values())}, it has {' and '.join(sorted(roles))}")
    keys = {role: roles[tensor] for role, tensor in names.items()}
    (a, dtype), (b, _) = header[keys["A"]], header[keys["B"]]
    if any(header[key][1] not in DTYPES for key in keys.values()):
        raise ValueError(f"{where} must hold floats of 16, 32 or 64 bits, got {header[keys['A']][1]}")
    if len(a) > 2 and len(a) == len(b) and set(b[2:]) == {1}:
        kind = "conv"
    elif len(a) != 2 or len(b) != 2:
        raise ValueError(f"{where}: factors must be matrices, got shapes {a} and {b}; were shards saved ungathered?")
    rank, fan_in, fan_out = a[0], math.prod(a[1:]), b[0]
    if b[1] != rank or not fan_in or not fan_out:
        raise ValueError(f"{where}: factors must be (r, in) and (out, r), got {a} and {b}")
    if "E" in keys and math.prod(header[keys["E"]][0]) != rank:
        raise ValueError(
            f"{where}: lora_E must have one value per component, got {header[keys['E']][0]} for rank {rank}"
        )
    if max(fan_in, fan_out) > LARGEST_FAN:
        raise ValueError(f"{where}: a module must have at most {LARGEST_FAN:,} inputs and outputs, got {a} and {b}")
    if rank > LARGEST_RANK:
        raise ValueError(f"{where}: a rank must be at most {LARGEST_RANK}, got {rank}")
    expected = config.rank(name)
    if expected is not None and rank != expected:
        raise ValueError(f"{where} must have rank {expected} as {CONFIG} says, its factors have {rank}")
    return Module(
        name, stem, kind, Shape(fan_in, fan_out), rank, config.scale(name, rank), DTYPES[dtype], a[2:], keys, attached
    )


def _opened(path: Path) -> safe_open:
    try:
        return safe_open(path, "pt")
    except SafetensorError as error:
        raise ValueError(f"{path}: must be a whole safetensors file, got a corrupt one ({first_line(error)})") from None


def _counted(name: str) -> list[tuple[int, str]]:
    """A key that puts layer 2 before layer 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]
