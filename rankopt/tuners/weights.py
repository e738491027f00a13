"""Training some of a model's own weights: copies of them, and a transformers checkpoint of the whole model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from rankopt.lowrank.quantized import quantized_modules
from rankopt.tuners.base import Attached, Host


def train_weights(host: Host, wanted: Callable[[str], bool]) -> Attached:
    """Train those weights outside the head whose name is wanted.

    Other trials of the process share the frozen weights, so trained ones are copied first. Tied weights stay tied.

    Args:
        host: the model.
        wanted: whether a parameter is trained, by its full name.
    Raises:
        ValueError: a wanted weight is quantised.
    """
    packed = {id(module.weight) for module in quantized_modules(host.net)}
    copies: dict[int, nn.Parameter] = {}
    trained: dict[str, nn.Parameter] = {}
    for name, parameter in list(host.net.named_parameters(remove_duplicate=False)):
        if wanted(name) and not any(name.startswith(f"{part}.") for part in host.head):
            if id(parameter) in packed:
                raise ValueError("model.quantization must be left out where tuner.name trains the weights themselves")
            if id(parameter) not in copies:
                trained[name] = copies[id(parameter)] = nn.Parameter(parameter.detach().float().clone())
            owner, _, last = name.rpartition(".")
            setattr(host.net.get_submodule(owner), last, copies[id(parameter)])
    return AttachedWeights(net=host.net, parameters=trained)


@dataclass(frozen=True, kw_only=True)
class AttachedWeights(Attached):
    """Weights of the model itself. Saved as a checkpoint of the whole model, which transformers loads."""

    def save(self, folder: Path) -> None:
        self.net.save_pretrained(folder)

    def merge(self) -> nn.Module:
        net: nn.Module = self.net
        return net
