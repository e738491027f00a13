"""How layers start: the initial values of their factors and gates."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rankopt.allocators.base import State
from rankopt.core.pattern import RankPattern
from rankopt.core.seeds import stream
from rankopt.lowrank.layers import Layers
from rankopt.lowrank.linear import LowRankLinear


@torch.no_grad()
def init_lora(layer: LowRankLinear, name: str, seed: int) -> None:
    """LoRA's initialisation: A uniform in +-1/sqrt(in) (Kaiming, a = sqrt 5), B zero, gate one and not trained.

    Every layer has its own random stream, so component i starts the same under every allocator and budget.

    Source: Hu et al. 2021 (2106.09685), the authors' code.
    """
    layer.A.copy_(lora_start(layer, name, seed))
    layer.B.zero_()
    layer.g.fill_(1.0)
    layer.g.requires_grad_(False)


def lora_start(layer: LowRankLinear, name: str, seed: int) -> Tensor:
    """The A that LoRA starts with, `(max_rank, in)`."""
    bound = 1 / math.sqrt(layer.shape.fan_in)
    return torch.empty(layer.A.shape).uniform_(-bound, bound, generator=_generator(seed, name))


@torch.no_grad()
def init_triplets(layer: LowRankLinear, name: str, seed: int) -> None:
    """AdaLoRA's initialisation: A and B normal with standard deviation 0.02, gate zero and trained.

    Source: Zhang et al. 2023 (2303.10512), the authors' code.
    """
    generator = _generator(seed, name)
    layer.A.copy_(torch.empty(layer.A.shape).normal_(0.0, 0.02, generator=generator))
    layer.B.copy_(torch.empty(layer.B.shape).normal_(0.0, 0.02, generator=generator))
    layer.g.zero_()
    layer.g.requires_grad_(True)


def start_pattern(layers: Layers, pattern: RankPattern, seed: int) -> State:
    """Start plain LoRA at a fixed pattern, and return an empty state."""
    for name, layer in layers.items():
        init_lora(layer, name, seed)
        layer.open(pattern[name])
    return {}


def smallest_max_rank(layers: Layers) -> int:
    """The largest rank that every layer can have."""
    return min(layer.max_rank for layer in layers.values())


def _generator(seed: int, name: str) -> torch.Generator:
    return torch.Generator().manual_seed(stream(seed, "init", name))
