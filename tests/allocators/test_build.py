"""From a spec to its allocator, scale policy and budget."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from rankopt.allocators import ALLOCATORS
from rankopt.allocators.build import absolute_budget, build_allocator, scale_policy
from rankopt.lowrank.layers import shapes_of
from rankopt.lowrank.scale import Scale


def test_options_reach_the_allocator(tiny_spec: Any) -> None:
    """The named allocator is built with the spec's options."""
    allocator = build_allocator(tiny_spec(allocator={"name": "adalora", "interval": 7}))
    assert type(allocator) is ALLOCATORS["adalora"]
    assert allocator.model_dump()["interval"] == 7


def test_the_scale_policy(tiny_spec: Any) -> None:
    """The published one by default, else the spec's."""
    spec = tiny_spec(allocator={"name": "dylora"})
    assert scale_policy(spec, build_allocator(spec)) == "active"
    spec = tiny_spec(allocator={"name": "dylora"}, model__scale="unit")
    assert scale_policy(spec, build_allocator(spec)) == "unit"


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({"ranks": 21}, "budget must be at most 20 ranks for 5 layers of model.max_rank 4, got 21"),
        ({"parameters": 31}, "budget must be 0 (train the head only) or at least 32 parameters"),
    ],
)
def test_a_budget_beyond_the_layers(budget: Any, message: str, tiny_spec: Any, lab: SimpleNamespace) -> None:
    """More than the layers hold, or less than one component, is refused."""
    _, layers = lab.inject(Scale("unit", 1.0))
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        absolute_budget(tiny_spec(budget=budget), layers)
    assert str(caught.value).startswith(message)


def test_without_a_budget(tiny_spec: Any, lab: SimpleNamespace) -> None:
    """All components of all layers."""
    _, layers = lab.inject(Scale("unit", 1.0))
    spec = tiny_spec(allocator={"name": "static"}, budget=None)
    assert absolute_budget(spec, layers).amount(shapes_of(layers)) == 4 * len(layers)


def test_a_trial_without_ranks(tiny_spec: Any) -> None:
    """It has an allocator that allocates nothing, and an empty budget."""
    spec = tiny_spec(tuner={"name": "full"})
    allocator = build_allocator(spec)
    assert absolute_budget(spec, {}).amount({}) == 0
    assert allocator.start({}, absolute_budget(spec, {}), 10, 0) == {}
    (pattern,) = allocator.finish({}, {})
    assert not pattern
    assert scale_policy(spec, allocator) in ("init", "unit")
