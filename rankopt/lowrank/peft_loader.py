"""PEFT's own view of an adapter: the tensors it expects, asked from PEFT itself.

PEFT loads an adapter in silence even where it ignores some of its tensors. It also rewrites targets such as `gate_proj`
of mixture-of-experts models into fused expert weights, whatever else has that name. So what is written is compared with
what PEFT expects.
"""

from __future__ import annotations

import copy
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from rankopt.lowrank.linear import LowRankLinear
from rankopt.lowrank.quantized import quantized_modules

NAMING = (
    "r", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save", "task_type",
    "use_dora", "lora_bias", "fan_in_fan_out", "ensure_weight_tying",
)  # fmt: skip
"""Fields of a config that decide which tensors PEFT expects."""


def expected_tensors(fields: Mapping[str, Any], model: nn.Module) -> set[str]:
    """Names of the tensors that PEFT expects for an adapter config, as PEFT writes them.

    Args:
        fields: of `adapter_config.json`.
        model: the base model, without adapters; its weights are not read and not changed.
    Raises:
        ValueError: PEFT refuses the config for this model.
    """
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict  # slow to import

    config = LoraConfig(**copy.deepcopy({name: fields[name] for name in NAMING if fields.get(name) is not None}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = get_peft_model(weightless(model), config, low_cpu_mem_usage=True)
        return set(get_peft_model_state_dict(wrapped, save_embedding_layers=False))


def ignored_targets(model: nn.Module, names: Iterable[str]) -> set[str]:
    """The linear maps on which PEFT cannot load an adapter, because it takes their names for fused expert weights.

    Args:
        model: a model without adapters.
        names: full names of its linear maps.
    """
    if not _has_converted_names(model):
        return set()
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[name.rpartition(".")[2]].append(name)
    ignored: set[str] = set()
    for group in groups.values():  # PEFT treats names by their last part
        try:
            expected = expected_tensors({"target_modules": group}, model)
        except ValueError:
            expected = set()
        ignored |= {name for name in group if f"base_model.model.{name}.lora_A.weight" not in expected}
    return ignored


def weightless(model: nn.Module) -> nn.Module:
    """A copy of a model on the meta device, with the original linear maps in place of adapted ones."""
    memo: dict[int, Any] = {}
    for module in quantized_modules(model):
        memo[id(module)] = nn.Linear(module.in_features, module.out_features, module.bias is not None, device="meta")
    packed = {id(p) for module in quantized_modules(model) for p in module.parameters()}
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}.values()
    for tensor in (tensor for tensor in tensors if id(tensor) not in packed):
        empty = torch.empty_like(tensor, device="meta")
        memo[id(tensor)] = nn.Parameter(empty, requires_grad=False) if isinstance(tensor, nn.Parameter) else empty
    memo[id(vars(model).get("forward"))] = None  # in joint training, it leads to the scheduler and its locks
    bare = copy.deepcopy(model, memo)
    vars(bare).pop("forward", None)
    for name, module in list(bare.named_modules()):
        if isinstance(module, LowRankLinear):
            bare.set_submodule(name, module.base)
    return bare


def _has_converted_names(model: nn.Module) -> bool:
    """Whether transformers stores this kind of model under other names than its checkpoints, as for fused experts."""
    kind = getattr(getattr(model, "config", None), "model_type", None)
    if not isinstance(kind, str):
        return False
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping  # slow to import

    return get_checkpoint_conversion_mapping(kind) is not None
