"""Add the updates of an adapter to the weights of its base model."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from rankopt.adapters.adapter import Adapter
from rankopt.adapters.base_model import carried_weights
from rankopt.adapters.module import Module
from rankopt.core.errors import nearest
from rankopt.lowrank.linear import is_conv1d


@torch.no_grad()
def add_updates(source: Adapter, model: nn.Module) -> bool:
    """Add every update to its weight, and set the tensors that the adapter carries.

        LoRA: W <- W + s B A        DoRA, by rows: W <- m (W + s B A) / |W + s B A|

    PEFT gives an adapted or saved module a weight of its own. A weight that it shares with another module (tied
    embeddings) is therefore untied first.

    Args:
        source: the adapter.
        model: changed in place.
    Returns:
        Whether weights were untied.
    Raises:
        ValueError: the model lacks a module or has another shape, or a shared weight would get two values.
    """
    saved, state = dict(carried_weights(source)), model.state_dict()
    for name, value in saved.items():
        if name not in state or state[name].shape != value.shape:
            raise ValueError(_misfit(name, value, state.get(name)))
    parts = dict(model.named_modules())
    for name, module in source.modules.items():
        _refuse_misfit(name, module, parts)
    in_place = {name: value for name, value in saved.items() if not _has_own_copy(source, name)}
    for name, value in in_place.items():
        state[name].copy_(value)
    for name, value in in_place.items():
        if not torch.equal(state[name], value.to(state[name])):
            raise ValueError(
                f"{source.folder}: {name} shares its weight with another tensor of the adapter that differs"
            )
    own = [name for name in saved if name not in in_place] + [f"{name}.weight" for name in source.modules]
    untied = _untie(model, own, source)
    state = model.state_dict()
    for name in saved.keys() - in_place.keys():
        state[name].copy_(saved[name])
    for name, module in source.modules.items():
        part = parts[name]
        W = weight_matrix(part)
        W.copy_(merged_weight(source, module, W))
        for key in module.attached:
            if key.endswith(".lora_B.bias"):
                part.bias.add_((module.scale * source.tensor(key).double()).to(part.bias.dtype))
    return untied


@torch.no_grad()
def merged_weight(source: Adapter, module: Module, W: Tensor) -> Tensor:
    """A weight with the update added, computed in float64.

    Args:
        source: the adapter.
        module: one of its modules.
        W: `(out, in)`.
    Returns:
        `(out, in)` in float64.
    """
    A, B = source.factors(module.name)
    total: Tensor = torch.addmm(W.double(), B, A, alpha=module.scale)
    magnitudes = [key for key in module.attached if "lora_magnitude_vector" in key]
    if not magnitudes:
        return total
    if module.kind == "embedding":
        raise ValueError(f"{source.folder}: DoRA on an embedding cannot be merged, got {module.name}")
    length = source.tensor(magnitudes[0]).double().flatten()
    scaled: Tensor = total * (length / total.norm(dim=1))[:, None]
    return scaled


def weight_matrix(module: nn.Module) -> Tensor:
    """A module's weight as `(out, in)`, a view; embeddings and Conv1D store theirs transposed."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    if isinstance(module, nn.Embedding) or is_conv1d(module):
        return weight.data.T
    return weight.data.flatten(1)


def _misfit(name: str, value: Tensor, of_model: Tensor | None) -> str:
    found = "lacks it" if of_model is None else f"has it as {tuple(of_model.shape)}"
    text = f"the adapter has a tensor {name!r} of shape {tuple(value.shape)}, this model {found}"
    if of_model is not None and value.ndim == 2 and len(value) != len(of_model) and value.shape[1] == of_model.shape[1]:
        return (
            f"{text}; if the vocabulary was resized for training, call model.resize_token_embeddings({len(value)}), "
            "save that model and name it"
        )
    return text


def _refuse_misfit(name: str, module: Module, parts: Mapping[str, nn.Module]) -> None:
    if name not in parts:
        raise ValueError(f"the adapter has a module {name!r} that this model lacks{nearest(name, filter(None, parts))}")
    part = parts[name]
    if not isinstance(getattr(part, "weight", None), Tensor) or getattr(part, "groups", 1) != 1:
        raise ValueError(f"{name} of the adapter must be an ungrouped linear map, got {type(part).__name__}")
    W = weight_matrix(part)
    if W.shape != module.shape[::-1]:
        raise ValueError(f"{name} of the adapter is {tuple(module.shape[::-1])}, in this model {tuple(W.shape)}")
    if any(key.endswith(".lora_B.bias") for key in module.attached) and not isinstance(part.bias, Tensor):
        raise ValueError(f"{name} of the adapter has a bias, in this model it has none")


def _has_own_copy(source: Adapter, name: str) -> bool:
    """Whether PEFT gives the module of a tensor its own weights, because it is listed in `modules_to_save`."""
    parts = name.split(".")
    modules = [".".join(parts[:end]) for end in range(1, len(parts))]
    return any(module.endswith(entry) for entry in source.config.modules_to_save or () for module in modules)


def _untie(model: nn.Module, changed: list[str], source: Adapter) -> bool:
    """Give every module its own weight if one of the changed weights is shared."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    shared = {name: group for group in names.values() if len(group) > 1 for name in group}
    touched = [name for name in changed if name in shared]
    if not touched:
        return False
    if source.config.ensure_weight_tying:
        adapted = [name for name in touched if name.removesuffix(".weight") in source.modules]
        if adapted:
            raise ValueError(
                f"{source.folder}: {adapted[0]} is adapted with ensure_weight_tying, which cannot be merged here; load "
                "the adapter with PEFT and call merge_and_unload()"
            )
        return False  # PEFT keeps them equal
    for name in {name for group in shared.values() for name in group[1:]}:
        path, _, attribute = name.rpartition(".")
        module = model.get_submodule(path)
        setattr(module, attribute, nn.Parameter(getattr(module, attribute).detach().clone(), requires_grad=False))
    return True
