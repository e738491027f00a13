"""Target modules with which PEFT loads exactly the tensors that are written, according to PEFT itself."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from rankopt.adapters.adapter import Adapter
from rankopt.adapters.config import LARGEST
from rankopt.adapters.module import Module
from rankopt.lowrank.files import ends_another, full_names
from rankopt.lowrank.peft_loader import expected_tensors

SELECTING = ("exclude_modules", "layers_to_transform", "layers_pattern")
"""Fields that narrow `target_modules`."""

OUTSIDE = ("task_type", "modules_to_save", "ensure_weight_tying")
"""Fields about parts of the base model that have no adapter; only modules with one are checked."""


def readable_targets(
    source: Adapter, modules: Mapping[str, Module], written: Iterable[str], fields: Mapping[str, Any]
) -> dict[str, Any]:
    """Choose `target_modules` so that PEFT expects the written tensors and no others.

    Candidates are the source's own value, the full names, and a regular expression that matches exactly these names.

    Args:
        source: the adapter that is rewritten.
        modules: the modules that stay targets, by name.
        written: names of all written tensors.
        fields: of the new config, without targets.
    Returns:
        The fields of the config that select modules.
    Raises:
        ValueError: PEFT would ignore some tensors, whatever the targets.
    """
    config = source.config
    names = list(modules)
    listed: dict[str, Any] = {"target_modules": names}
    pattern: dict[str, Any] = {"target_modules": full_names(names)}
    narrowed = any(getattr(config, field, None) for field in SELECTING)
    unknown = narrowed or not isinstance(config.target_modules, list)
    # PEFT takes listed names for endings too, and the base model may have modules that the adapter does not know
    exact = [pattern, listed] if unknown or ends_another(names, {*source.modules, *names}) else [listed, pattern]
    candidates = [candidate | dict.fromkeys(SELECTING) for candidate in exact]
    if set(names) == set(source.modules) and config.target_modules and not source.repairs:
        own = {field: getattr(config, field, None) for field in ("target_modules", *SELECTING)}
        candidates.insert(0, own)
    wanted = _factors(written)
    kind = base_model_type(source)
    model: Any = _skeleton({**source.modules, **modules})
    if kind:
        from transformers import PretrainedConfig  # slow to import

        model.config = PretrainedConfig()
        model.config.model_type = kind
    lost = wanted
    for candidate in candidates:
        try:
            found = _factors(expected_tensors({**fields, **candidate, **dict.fromkeys(OUTSIDE)}, model))
        except ValueError:
            continue
        if found == wanted:
            return candidate
        lost = min(lost, wanted - found or found - wanted, key=len)
    raise ValueError(
        f"{source.folder}: PEFT would not load {len(lost)} of {len(wanted)} tensors, such as {min(lost)}"
        + (f": on a {kind} model it takes such names for fused expert weights" if kind else "")
    )


def base_model_type(source: Adapter) -> str | None:
    """transformers' `model_type` of the base model; None if its config is not on this machine."""
    base = source.config.base_model_name_or_path
    if not base:
        return None
    file = Path(base, "config.json")
    if Path(base).is_dir() and not (file.is_file() and file.stat().st_size <= LARGEST):
        return None
    from transformers import PretrainedConfig  # slow to import

    try:
        data, _ = PretrainedConfig.get_config_dict(base, local_files_only=True)
    except (OSError, ValueError, RecursionError):
        return None
    kind = data.get("model_type")
    return kind if isinstance(kind, str) else None


def _factors(names: Iterable[str]) -> set[str]:
    """The tensors of adapters among these; PEFT has written DoRA's magnitudes with and without `.weight`."""
    return {name.removesuffix(".weight") for name in names if ".lora_" in name}


def _skeleton(modules: Mapping[str, Module]) -> nn.Module:
    """A model without weights that has the adapted modules under their names."""
    root = nn.Module()
    for name in sorted(modules, key=lambda name: name.count(".")):  # a parent before what is inside it
        *parents, last = name.split(".")
        parent = root
        try:
            for part in parents:
                if part not in parent._modules:
                    parent.add_module(part, nn.Module())
                parent = parent.get_submodule(part)
            parent.add_module(last, _layer(modules[name]))
        except KeyError:  # an attribute that every module has
            raise ValueError(f"{name!r} cannot be the name of a module") from None
    return root


def _layer(module: Module) -> nn.Module:
    fan_in, fan_out = module.shape
    if module.kind == "embedding":
        return nn.Embedding(fan_in, fan_out, device="meta")
    if module.kind == "conv":
        convolution = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[len(module.kernel)]
        return convolution(fan_in // math.prod(module.kernel), fan_out, module.kernel, device="meta")  # type: ignore[arg-type]
    return nn.Linear(fan_in, fan_out, device="meta")
