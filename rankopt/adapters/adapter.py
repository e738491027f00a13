"""A LoRA adapter on disk: its config and header, and its factors one module at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rankopt.adapters.config import AdapterConfig, read_config
from rankopt.adapters.foreign_hints import foreign_tensor
from rankopt.adapters.module import Factors, Module, Stored, module_from_header
from rankopt.adapters.source import locate, safe_file
from rankopt.adapters.tensor_names import ATTACHED, FACTOR, repaired_names
from rankopt.core.errors import first_line
from rankopt.core.pattern import Shapes
from rankopt.lowrank.files import CONFIG, PREFIX, WEIGHTS

LARGEST_UPDATE = 1e150
"""Largest Frobenius norm of an update; the square of a larger one overflows float64."""


@dataclass(frozen=True)
class Adapter:
    """An adapter folder of which the config and the header were read; factors are read on demand.

    Attributes:
        folder: the adapter's folder.
        config: its checked config.
        modules: by full name, layer 2 before layer 10.
        carried: names of all other tensors (`modules_to_save` and the like), which no tool here changes.
        stored: tensor name as PEFT writes it -> name in the file.
        repairs: how tensor names in the file were corrected.
    """

    folder: Path
    config: AdapterConfig
    modules: Mapping[str, Module]
    carried: tuple[str, ...]
    stored: Mapping[str, str]
    repairs: tuple[str, ...] = ()

    @property
    def shapes(self) -> Shapes:
        return {name: module.shape for name, module in self.modules.items()}

    @property
    def parameters(self) -> int:
        """Elements of all low-rank factors."""
        return sum(module.parameters for module in self.modules.values())

    def tensor(self, key: str) -> Tensor:
        """One tensor as stored.

        The file is opened again for every tensor, so that its pages are released: memory stays that of one module.
        """
        with _opened(self.folder / WEIGHTS) as file:
            tensor: Tensor = file.get_tensor(self.stored[key]).clone()
        return tensor

    def factors(self, name: str, dtype: torch.dtype = torch.float64) -> Factors:
        """The factors of a module; AdaLoRA's E is absorbed into A, a convolution's kernel is flattened.

        Args:
            name: full name.
            dtype: of the result.
        Raises:
            ValueError: a value, also of a bias or of DoRA's magnitudes, is NaN or infinite; the update is too large.
        """
        module = self.modules[name]
        for key in module.attached:
            if not torch.isfinite(self.tensor(key)).all():
                role = key.removeprefix(f"{module.stem}.")
                raise ValueError(f"{self.folder}: {role} of {name} must be finite, got NaN or infinity")
        A, B = (self.tensor(module.keys[role]).to(dtype).flatten(1) for role in ("A", "B"))
        if "E" in module.keys:
            A = self.tensor(module.keys["E"]).to(dtype).reshape(-1, 1) * A
        for factor, role in ((A, "A"), (B, "B")):
            if not torch.isfinite(factor).all():
                raise ValueError(f"{self.folder}: factor {role} of {name} must be finite, got NaN or infinity")
        if not abs(module.scale) * float(A.double().norm()) * float(B.double().norm()) <= LARGEST_UPDATE:
            raise ValueError(f"{self.folder}: the update of {name} is too large for float64 (scale {module.scale:g})")
        return Factors(A, B)


def read_adapter(source: str | Path | Adapter) -> Adapter:
    """Read an adapter's config and header, and check that they agree.

    Args:
        source: a folder, a hub id, or an adapter that was already read.
    Raises:
        ValueError: one line: what is missing, corrupt, inconsistent or unsupported.
        OSError: the hub cannot be reached.
    """
    if isinstance(source, Adapter):
        return source
    folder = locate(source)
    safe_file(folder, CONFIG)
    weights = safe_file(folder, WEIGHTS)
    config = read_config(folder)
    with _opened(weights) as file:
        parts = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
        found = {key: Stored(tuple(part.get_shape()), part.get_dtype()) for key, part in parts.items()}
    stored, repairs = repaired_names(folder, found)
    header = {name: found[key] for name, key in stored.items()}
    roles: dict[str, dict[str, str]] = defaultdict(dict)
    attached, carried = defaultdict(list), []
    for key in header:
        name = key.removeprefix(PREFIX)
        if match := FACTOR.fullmatch(name):
            if (first := roles[match[1]].setdefault(match[2], key)) != key:
                raise ValueError(f"{folder}: {match[1]} must have one {match[2]}, got {first!r} and {key!r}")
        elif match := ATTACHED.fullmatch(name):
            attached[match[1]].append(key)
        elif ".lora_" in name:
            raise ValueError(f"{folder}: PEFT's LoRA adapters have no tensor {stored[key]!r}{foreign_tensor(key)}")
        else:
            carried.append(key)
    if not roles:
        raise ValueError(f"{folder}: an adapter must have lora_A and lora_B tensors, got none")
    carried += [key for name in attached if name not in roles for key in attached[name]]
    modules = {
        name: module_from_header(folder, config, name, roles[name], header, tuple(attached.get(name, ())))
        for name in sorted(roles, key=_natural)
    }
    return Adapter(folder, config, modules, tuple(carried), stored, repairs)


def _opened(path: Path) -> safe_open:
    try:
        return safe_open(path, "pt")
    except SafetensorError as error:
        raise ValueError(
            f"{path}: must be a complete safetensors file, got a corrupt one ({first_line(error)})"
        ) from None


def _natural(name: str) -> list[tuple[int, str]]:
    """A sort key that puts layer 2 before layer 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]
