"""Write adapted layers as a PEFT LoRA adapter, and read one back."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from rankopt.core.errors import first_line
from rankopt.core.pattern import RankPattern
from rankopt.lowrank.conv import LowRankConv
from rankopt.lowrank.files import (
    CONFIG,
    PREFIX,
    WEIGHTS,
    ends_another,
    full_names,
    rank_fields,
    write_config,
    write_weights,
)
from rankopt.lowrank.inject import inject
from rankopt.lowrank.layers import Layers, pattern_of
from rankopt.lowrank.linear_regex import FirstMatch
from rankopt.lowrank.peft_loader import expected_tensors
from rankopt.lowrank.scale import Scale

A_KEY, B_KEY = ".lora_A.weight", ".lora_B.weight"


def export_peft(
    layers: Layers,
    model: nn.Module,
    folder: Path,
    *,
    head: Iterable[str] = (),
    base_model: str = "",
    revision: str | None = None,
    task_type: str | None = "SEQ_CLS",
) -> RankPattern:
    """Write the active components as a plain PEFT adapter.

    Gate and scale are absorbed, `B_i <- s g_i B_i`, and masked components are dropped. Every module has its own rank
    and `alpha = rank`, so PEFT's scale alpha / r is 1. Modules of rank 0 are not targets. If all ranks are 0, the
    smallest module gets one zero component, because PEFT cannot load an adapter without a target.

    Args:
        layers: the adapted layers of `model`.
        model: provides module names and the head's weights.
        folder: created; `adapter_config.json` and `adapter_model.safetensors` are written.
        head: full names of fully trained modules; saved as `modules_to_save`.
        base_model: name or path that PEFT records.
        revision: hub revision that PEFT records.
        task_type: PEFT's task type, if any.
    Returns:
        The written pattern.
    Raises:
        ValueError: PEFT would not load exactly the written tensors into this model.
        OSError: the folder cannot be written.
    """
    from peft import LoraConfig  # slow to import, and needed only here

    factors = {name: _absorbed(layer) for name, layer in layers.items() if layer.rank}
    if not factors:
        name = min(layers, key=lambda name: layers[name].shape.cost)
        shape = layers[name].shape
        factors[name] = (torch.zeros(1, shape.fan_in), torch.zeros(shape.fan_out, 1))
    ranks = {name: len(A) for name, (A, _) in factors.items()}
    config = LoraConfig(
        task_type=task_type,
        base_model_name_or_path=base_model,
        revision=revision,
        **rank_fields(ranks, ranks),
        target_modules=_targets(model, list(factors)),
        modules_to_save=list(head) or None,
        fan_in_fan_out=any(layers[name].transposed for name in factors),
        inference_mode=True,
    )
    tensors: dict[str, Tensor] = {}
    for name, (A, B) in factors.items():
        tensors |= {f"{PREFIX}{name}{A_KEY}": A, f"{PREFIX}{name}{B_KEY}": B}
    for part in head:
        for key, value in model.get_submodule(part).state_dict().items():
            tensors[f"{PREFIX}{part}.{key}"] = value.clone()  # it may share its memory with another
    if differing := tensors.keys() ^ expected_tensors(vars(config), model):
        raise ValueError(
            f"{folder}: PEFT would not load this adapter correctly, {len(differing)} tensors differ, such as "
            f"{min(differing)}; leave that module out of model.target_modules"
        )
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(str(folder))
    write_config(json.loads((folder / CONFIG).read_text(encoding="utf-8")), folder)  # in a fixed order
    write_weights(tensors, folder)
    return pattern_of(layers)


def cut_peft(folder: Path, pattern: Mapping[str, int]) -> None:
    """Reduce an adapter that `export_peft` wrote to the first components of every layer.

        B A   ->   B[:, :r] A[:r]

    Args:
        folder: changed in place.
        pattern: full module name -> rank, at most the adapter's; modules of rank 0 are removed.
    Raises:
        ValueError: the files are missing or corrupt.
        OSError: the folder cannot be written.
    """
    config, tensors = _read(folder)
    names = [key.removeprefix(PREFIX).removesuffix(A_KEY) for key in tensors if key.endswith(A_KEY)]
    kept = {name: pattern[name] for name in names if pattern[name]}
    for name in names:
        A, B = tensors.pop(f"{PREFIX}{name}{A_KEY}"), tensors.pop(f"{PREFIX}{name}{B_KEY}")
        if not kept:  # PEFT cannot load an adapter without a target
            kept, A, B = {name: 1}, torch.zeros_like(A), torch.zeros_like(B)
        if rank := kept.get(name):
            tensors |= {f"{PREFIX}{name}{A_KEY}": A[:rank], f"{PREFIX}{name}{B_KEY}": B[:, :rank]}
    targets = list(kept) if isinstance(config.get("target_modules"), list) else full_names(kept)
    config |= {**rank_fields(kept, kept), "target_modules": targets}
    write_config(config, folder)
    write_weights(tensors, folder)


def import_peft(model: nn.Module, folder: Path, *, max_rank: int | None = None) -> Layers:
    """Read a PEFT LoRA adapter into gated layers of a model that is not yet injected.

    Args:
        model: changed in place: the targets become `LowRankLinear`, `modules_to_save` are loaded.
        folder: with `adapter_config.json` and `adapter_model.safetensors`.
        max_rank: components per layer (default: the adapter's largest rank).
    Returns:
        Layers with s = 1; the adapter's scale is absorbed into B.
    Raises:
        ValueError: a file is missing or corrupt, or the adapter is not plain LoRA.
    """
    config, tensors = _read(folder)
    unsupported = [key for key in ("use_dora", "megatron_config", "layer_replication") if config.get(key)]
    if config.get("peft_type") != "LORA" or unsupported:
        kind = unsupported[0] if unsupported else config.get("peft_type")
        raise ValueError(f"{folder}: only plain LoRA adapters can be imported, got {kind}")
    if not isinstance(config.get("lora_alpha"), int | float):
        raise ValueError(f"{folder}: the adapter is corrupt ({CONFIG} has no lora_alpha)")
    alphas = FirstMatch[float](config.get("alpha_pattern") or {})
    factors = {}
    modules = dict(model.named_modules())
    for key in list(tensors):
        if key.startswith(PREFIX) and key.endswith(A_KEY):
            name = key.removeprefix(PREFIX).removesuffix(A_KEY)
            if name not in modules:
                raise ValueError(f"{folder}: the adapter has a module {name!r} that this model lacks")
            A, B = tensors.pop(key), tensors.pop(f"{PREFIX}{name}{B_KEY}", None)
            if B is None or A.ndim != 2 or B.ndim != 2 or len(A) != B.shape[1]:
                raise ValueError(f"{folder}: the adapter is corrupt (no matching lora_A and lora_B for {name})")
            factors[name] = (A, B)
    if not factors:
        raise ValueError(f"{folder}: the adapter has no lora_A weights")
    largest = max(len(A) for A, _ in factors.values())
    if max_rank is not None and max_rank < largest:
        raise ValueError(f"{folder}: the adapter has rank {largest}, more than model.max_rank {max_rank}")
    layers = inject(model, factors, max_rank or largest, Scale("unit", 1.0))
    for name, (A, B) in factors.items():
        rank = len(A)
        scale = alphas.get(name, config["lora_alpha"]) / (math.sqrt(rank) if config.get("use_rslora") else rank)
        if (A.shape[1], B.shape[0]) != tuple(layers[name].shape):
            raise ValueError(
                f"{folder}: {name} has factors {tuple(B.shape)} and {tuple(A.shape)}, the model's module has shape "
                f"{tuple(reversed(layers[name].shape))}"
            )
        layers[name].replace(A.float(), scale * B.float())
        layers[name].open(rank)
    with torch.no_grad():
        state = model.state_dict()
        for key, value in tensors.items():
            name = key.removeprefix(PREFIX)
            if name not in state:
                raise ValueError(f"{folder}: the adapter has a tensor {name!r} that this model lacks")
            if state[name].shape != value.shape:
                raise ValueError(
                    f"{folder}: {name} has shape {tuple(value.shape)}, in the model {tuple(state[name].shape)}"
                )
            state[name].copy_(value)
    return layers


def _absorbed(layer: Any) -> tuple[Tensor, Tensor]:
    A, B, g = layer.active()
    if isinstance(layer, LowRankConv):
        kernel = layer.base.weight.shape[1:]
        return A.view(-1, *kernel), (layer.s * B * g).view(*B.shape, *(1 for _ in kernel[1:]))
    return A, layer.s * B * g


def _targets(model: nn.Module, names: list[str]) -> list[str] | str:
    """Full names; one regular expression if a full name is also the ending of another module's name."""
    modules = (name for name, _ in model.named_modules())
    return full_names(names) if ends_another(names, modules) else names


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(folder / WEIGHTS)
    except FileNotFoundError:
        missing = next(name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file())
        raise ValueError(f"{folder}: not an adapter, {missing} is missing") from None
    except (json.JSONDecodeError, UnicodeDecodeError, SafetensorError) as error:
        raise ValueError(f"{folder}: the adapter is corrupt ({first_line(error)})") from None
    except OSError as error:
        raise ValueError(f"{folder}: the adapter cannot be read ({error.strerror})") from None
    if not isinstance(config, dict):
        raise ValueError(f"{folder}: the adapter is corrupt ({CONFIG} is not a JSON object)")
    return config, tensors
