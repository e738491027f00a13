"""Shapes and rank patterns of a mapping of layers."""

from __future__ import annotations

from torch import nn

from rankopt.core.pattern import RankPattern
from rankopt.lowrank.layers import apply_pattern, pattern_of, shapes_of
from rankopt.lowrank.linear import LowRankLinear
from rankopt.lowrank.scale import Scale


def test_patterns_of_layers() -> None:
    """A pattern keeps the first components of every layer and is read back from the masks."""
    layers = {name: LowRankLinear(nn.Linear(5, 7), 4, Scale("unit", 1.0)) for name in ("b", "a")}
    apply_pattern(layers, RankPattern({"a": 1, "b": 3}))
    assert pattern_of(layers) == {"a": 1, "b": 3}
    assert layers["b"].m.tolist() == [True, True, True, False]
    assert shapes_of(layers) == {"a": (5, 7), "b": (5, 7)}
