"""Profile: a softmax over types and depths, spent to the last component."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rankopt.allocators.profile import Profile, largest_remainders
from rankopt.allocators.shared.depth import depth_of
from rankopt.core.budget import Budget
from rankopt.core.pattern import RankPattern, Shape
from rankopt.lowrank.layers import pattern_of, shapes_of
from rankopt.lowrank.linear import LowRankLinear
from rankopt.lowrank.scale import Scale

WIDTHS = {"query": (4, 4), "value": (4, 4), "up": (4, 16)}


def layers(blocks: int, max_rank: int = 16) -> dict[str, LowRankLinear]:
    shapes = {f"layer.{block}.{kind}": shape for block in range(blocks) for kind, shape in WIDTHS.items()}
    return {
        name: LowRankLinear(torch.nn.Linear(*shape), max_rank, Scale("init", 1.0)) for name, shape in shapes.items()
    }


def pattern(profile: Profile, budget: Budget, blocks: int = 5, max_rank: int = 16) -> RankPattern:
    found = layers(blocks, max_rank)
    profile.start(found, budget, 10, 0)
    return pattern_of(found)


LOGITS = st.floats(-3, 3)


@given(LOGITS, LOGITS, LOGITS, st.integers(0, 16))
def test_shares_of_the_budget(kind: float, slope: float, curvature: float, mean: int) -> None:
    """Ranks lie within one of the softmax's share where no layer is full, and what is left pays for no component."""
    profile = Profile(types={"*.query": kind}, slope=slope, curvature=curvature)
    budget = Budget(mean_rank=mean, unit="parameters")
    found = pattern(profile, budget, max_rank=1000)
    shapes = shapes_of(layers(5))
    left = budget.amount(shapes) - found.parameters(shapes)
    assert 0 <= left < min(shape.cost for shape in shapes.values())
    depths = {name: (depth_of(name) or 0) / 2 - 1 for name in found}
    logits = {n: kind * n.endswith("query") + slope * d + curvature * d * d for n, d in depths.items()}
    weights = {name: math.exp(logit) for name, logit in logits.items()}
    scale = budget.amount(shapes) / sum(weights[name] * shapes[name].cost for name in found)
    for name, rank in found.items():
        assert abs(rank - scale * weights[name]) < 1 + 1e-6, name


@given(
    st.dictionaries(st.sampled_from(["a", "b", "c", "d", "e"]), st.floats(0.01, 50.0), min_size=1),
    st.lists(st.integers(1, 9), min_size=5, max_size=5),
    st.integers(0, 400),
    st.integers(1, 12),
)
def test_largest_remainders(weights: dict[str, float], widths: list[int], amount: int, max_rank: int) -> None:
    """Never over budget, nothing left out would fit, no layer beyond its maximum or below the floor of its share, and a
    heavier layer of the same cost never has less."""
    shapes = {name: Shape(4, width) for name, width in zip("abcde", widths, strict=True) if name in weights}
    found = largest_remainders(Budget(parameters=amount), weights, shapes, max_rank)
    left = amount - found.parameters(shapes)
    assert left >= 0
    assert all(rank <= max_rank for rank in found.values())
    assert all(found[name] == max_rank or shapes[name].cost > left for name in found)
    level = amount / sum(weights[name] * shapes[name].cost for name in weights)
    assert all(found[name] >= min(max_rank, int(level * weights[name] - 1e-6)) for name in found)
    if all(level * weights[name] < max_rank for name in weights):  # as much spent as rounding up or down can spend
        floors = {name: int(level * weights[name] + 1e-9) for name in weights}
        spent = [
            sum((floors[name] + (name in up)) * shapes[name].cost for name in floors)
            for count in range(len(floors) + 1)
            for up in itertools.combinations(floors, count)
        ]
        assert left <= amount - max(one for one in spent if one <= amount)
    for one in found:
        for other in found:
            if shapes[one] == shapes[other] and weights[one] > weights[other]:
                assert found[one] >= found[other]


@pytest.mark.parametrize("unit", ["ranks", "parameters"])
def test_all_zero_is_uniform(unit: str) -> None:
    assert set(pattern(Profile(), Budget(mean_rank=3, unit=unit)).values()) == {3}  # type: ignore[arg-type]


def test_directions() -> None:
    """A positive slope favours the deepest block, a positive curvature both ends, a positive logit its type."""
    budget = Budget(mean_rank=4)
    by_depth = lambda found: [found[f"layer.{block}.value"] for block in range(5)]  # noqa: E731
    up = by_depth(pattern(Profile(slope=1.0), budget))
    assert up == sorted(up)
    assert up[0] < up[-1]
    bowl = by_depth(pattern(Profile(curvature=1.5), budget))
    assert bowl[0] > bowl[2] < bowl[-1]
    typed = pattern(Profile(types={"*": -1.0, "*.query": 1.0}), budget)
    assert typed["layer.0.query"] > typed["layer.0.value"]


def test_layers_without_a_depth_stand_in_the_middle() -> None:
    """Neither slope nor curvature moves a layer whose name holds no number, nor those of a single block."""
    found = layers(3) | {"pooler": LowRankLinear(torch.nn.Linear(4, 4), 16, Scale("init", 1.0))}
    Profile(slope=2.0).start(found, Budget(mean_rank=4), 10, 0)
    ranks = pattern_of(found)
    assert abs(ranks["pooler"] - ranks["layer.1.query"]) <= 1  # equal shares, but for who gets the last component
    assert ranks["layer.0.query"] < ranks["pooler"] < ranks["layer.2.query"]
    assert len(set(pattern(Profile(slope=2.0, curvature=1.0), Budget(mean_rank=4), blocks=1).values())) == 1


def test_a_glob_that_matches_nothing() -> None:
    with pytest.raises(ValueError, match=r"'\*.qery' matches no adapted layer"):
        pattern(Profile(types={"*.qery": 1.0}), Budget(mean_rank=1))
