"""Check a merged model against its base model and the adapter; shares no code with the merging."""

from __future__ import annotations

import errno
from pathlib import Path

import torch
from torch import Tensor, nn

from rankopt.adapters.adapter import Adapter


@torch.no_grad()
def verify_merge(source: Adapter, base: nn.Module, merged: nn.Module, folder: Path) -> tuple[float, float]:
    """Compare every tensor of a merged model with what PEFT computes from the base model and the adapter.

        W' = W + s B A; with DoRA its rows are scaled to the magnitudes m;  b' = b + s b_lora

    PEFT gives adapted modules and `modules_to_save` weights of their own. So a changed tensor must not change others,
    even if the base model shares one weight between them. All other tensors of an adapter are loaded into the base
    model, where they change every tensor that shares the weight.

    Args:
        source: the adapter.
        base: the base model as loaded.
        merged: the merged model as loaded from its folder.
        folder: of the merged model, for messages.
    Returns:
        Frobenius norms of the rounding error and of the intended change of the adapted weights.
    Raises:
        OSError: a tensor differs by more than rounding.
    """
    expected, new = base.state_dict(), merged.state_dict()
    locations = {name: value.data_ptr() for name, value in expected.items()}
    saved = source.config.modules_to_save or []
    loaded: dict[str, Tensor] = {}
    own: dict[str, Tensor] = {}
    of_modules = [key for module in source.modules.values() for key in module.attached if ".base_layer." in key]
    for key in (*source.carried, *of_modules):
        name = key.replace("base_model.model.", "", 1).replace(".base_layer.", ".")
        if ".modules_to_save." in name or ".original_module." in name:
            continue
        prefixes = [name[:end] for end, character in enumerate(name) if character == "."]
        kept_apart = any(prefix.endswith(entry) for prefix in prefixes for entry in saved)
        (own if kept_apart else loaded)[name] = source.tensor(key)
    for name, value in loaded.items():
        for other, location in locations.items():
            if location == locations[name]:
                expected[other] = value
    expected |= own
    lost = change = 0.0
    wrong, checked = [], set()
    for name, module in source.modules.items():
        A, B = source.factors(name)
        update = module.scale * (B @ A)
        W = expected[f"{name}.weight"].double()
        transposed = type(base.get_submodule(name)).__name__ in ("Conv1D", "Embedding")
        matrix = W.t() if transposed else W.reshape(len(W), -1)
        want = matrix + update
        for key in module.attached:
            if key.endswith("lora_B.bias"):
                bias = expected[f"{name}.bias"].double() + module.scale * source.tensor(key).double()
                checked.add(f"{name}.bias")
                if not _close(new[f"{name}.bias"], bias):
                    wrong.append(f"{name}.bias")
            elif "lora_magnitude_vector" in key:
                magnitude = source.tensor(key).double().reshape(-1, 1)
                want = magnitude * want / torch.linalg.vector_norm(want, dim=1, keepdim=True)
        change += float((want - matrix).square().sum())
        want = (want.t() if transposed else want).reshape(W.shape)
        lost += float((new[f"{name}.weight"].double() - want).square().sum())
        checked.add(f"{name}.weight")
        if not _close(new[f"{name}.weight"], want):
            wrong.append(f"{name}.weight")
    wrong += [
        name
        for name, value in expected.items()
        if name not in checked and not (name in new and torch.equal(new[name], value.to(new[name].dtype)))
    ]
    if wrong:
        raise OSError(errno.EIO, f"{wrong[0]} of the merged model differs from the intended value", str(folder))
    return lost**0.5, change**0.5


def _close(new: Tensor, value: Tensor) -> bool:
    """Whether a tensor is another one after rounding."""
    rounding = torch.finfo(new.dtype).eps
    return torch.allclose(new.double(), value, rtol=rounding, atol=rounding * float(value.abs().max()))
