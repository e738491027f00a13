"""The adapted layers of a model: a plain mapping, their shapes and their rank pattern."""

from __future__ import annotations

from collections.abc import Mapping

from rankopt.core.pattern import RankPattern, Shape
from rankopt.lowrank.linear import LowRankLinear

Layers = Mapping[str, LowRankLinear]
"""The adapted layers by full module name; all that an allocator gets to see of a model."""


def shapes_of(layers: Layers) -> dict[str, Shape]:
    """The shape of every layer."""
    return {name: layer.shape for name, layer in layers.items()}


def pattern_of(layers: Layers) -> RankPattern:
    """The active rank of every layer."""
    return RankPattern({name: layer.rank for name, layer in layers.items()})


def apply_pattern(layers: Layers, pattern: RankPattern) -> None:
    """Keep the first `pattern[name]` components of every layer."""
    for name, layer in layers.items():
        layer.keep(pattern[name])
