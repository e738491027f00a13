"""Ramp: ranks that follow depth, in both directions, within budget."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rankopt.allocators.ramp import Ramp
from rankopt.allocators.shared.depth import depth_of
from rankopt.core.budget import Budget
from rankopt.lowrank.layers import pattern_of, shapes_of
from rankopt.lowrank.linear import LowRankLinear
from rankopt.lowrank.scale import Scale


def blocks(depth: int, max_rank: int = 32, kinds: int = 2) -> dict[str, LowRankLinear]:
    names = [f"encoder.layer.{block}.{'qv'[kind]}" for block in range(depth) for kind in range(kinds)]
    return {name: LowRankLinear(torch.nn.Linear(3, 3), max_rank, Scale("init", 1.0)) for name in names}


def by_block(allocator: Ramp, layers: dict[str, LowRankLinear], budget: Budget) -> list[list[int]]:
    allocator.start(layers, budget, 10, 0)
    pattern = pattern_of(layers)
    depths = sorted({depth_of(name) for name in layers})
    return [[rank for name, rank in pattern.items() if depth_of(name) == depth] for depth in depths]


def test_the_papers_ramp() -> None:
    """Twelve blocks at average 8 and ratio 3: from 4 at the first to 12 at the last, as PRILoRA's."""
    found = by_block(Ramp(), blocks(12), Budget(mean_rank=8))
    assert found[0] == [4, 4]
    assert found[-1] == [12, 12]
    assert sum(map(sum, found)) == 8 * 24
    for depth, ranks in enumerate(found):
        assert all(abs(rank - (4 + 8 * depth / 11)) < 1 for rank in ranks)


@pytest.mark.parametrize("ratio", [1.0, 2.0, 5.0])
@pytest.mark.parametrize("amount", [0, 1, 7, 24, 60, 1000])
def test_never_falls_with_depth(ratio: float, amount: int) -> None:
    """And "down" is its mirror image, of the same cost, up to which layers get the last components."""
    up = by_block(Ramp(ratio=ratio), blocks(6, kinds=1), Budget(ranks=amount))
    down = by_block(Ramp(ratio=ratio, direction="down"), blocks(6, kinds=1), Budget(ranks=amount))
    if ratio > 1:
        assert up == sorted(up)
        assert down == sorted(down, reverse=True)
        assert up == down[::-1]
    else:
        assert max(map(max, up)) - min(map(min, up)) <= 1
    assert sum(map(sum, up)) == sum(map(sum, down)) == min(amount, 6 * 32)


def test_one_block_is_uniform() -> None:
    assert by_block(Ramp(), blocks(1), Budget(ranks=4)) == [[2, 2]]


def test_parameter_budget(lab: Any) -> None:
    """Ranks, not parameters, are in proportion to depth, whatever a layer costs."""
    _, layers = lab.inject(Scale("init", 1.0), 64)
    budget = Budget(mean_rank=16, unit="parameters")
    Ramp(ratio=3.0).start(layers, budget, 10, 0)
    pattern, shapes = pattern_of(layers), shapes_of(layers)
    shallow = [rank for name, rank in pattern.items() if depth_of(name) == 0]
    deep = [rank for name, rank in pattern.items() if depth_of(name) == 1]
    assert max(shallow) - min(shallow) <= 1
    assert max(deep) - min(deep) <= 1
    assert deep[0] / shallow[0] == pytest.approx(3, abs=0.3)
    assert budget.amount(shapes) - pattern.parameters(shapes) < 40


@pytest.mark.parametrize(
    ("name", "depth"),
    [
        ("bert.encoder.layer.11.output.dense", 11),
        ("transformer.h.3.mlp.c_fc", 3),
        ("0.query", 0),
        ("layers.7", 7),
        ("layer1.block2.fc", None),
        ("encoder.embed_proj", None),
        ("model.layers.2.experts.5.up", 2),
    ],
)
def test_depth(name: str, depth: int | None) -> None:
    """The first whole part that is a number; digits inside a word are none."""
    assert depth_of(name) == depth


def test_a_falling_ratio_is_refused() -> None:
    with pytest.raises(ValueError, match="ratio"):
        Ramp(ratio=0.5)
