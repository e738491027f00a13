"""Search spaces: inner dimensions, points, and example points."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankopt.core.space import FloatRange, IntRange, could_be, dimensions, examples, inner_dimension, settle

SPACE: dict[str, Any] = {
    "allocator, training.lr": [
        [{"name": "uniform"}, 1e-3],
        [{"name": "adalora", "initial": {"float": [1.1, 2.0]}}, {"float": [1e-4, 1e-2], "log": True}],
    ],
    "model.target_modules": [["query", "value"], "all-linear"],
    "seed": IntRange(int=(0, 4)),
}
NAMES = [
    "allocator, training.lr",
    "allocator[adalora].initial",
    "training.lr[adalora]",
    "model.target_modules",
    "seed",
]


def test_names() -> None:
    """Inner dimensions are named by their field and the value that holds them; values of equal name by index."""
    assert set(dimensions(SPACE)) == set(NAMES)
    twins = {"allocator": [{"name": "ramp", "ratio": {"float": [1.0, k]}} for k in (2.0, 3.0)]}
    assert list(dimensions(twins)) == ["allocator", "allocator[0].ratio", "allocator[1].ratio"]


@given(st.data())
def test_settled_points(data: st.DataObject) -> None:
    """A point has one value per dimension and no undecided part. An inner dimension is decided exactly if the value
    that holds it was chosen. Lists that are values stay lists."""
    asked = {}

    def decide(name: str, dimension: Any) -> Any:
        options = range(len(dimension)) if isinstance(dimension, list) else dimension.bounds
        asked[name] = data.draw(st.sampled_from(list(options)))
        return asked[name]

    point = settle(SPACE, decide)
    assert list(point) == list(SPACE)
    inner = {name for name in asked if "[" in name}
    assert inner == (set(NAMES[1:3]) if asked[NAMES[0]] else set())
    allocator, lr = point[NAMES[0]]
    assert allocator == ({"name": "adalora", "initial": asked[NAMES[1]]} if inner else {"name": "uniform"})
    assert lr == (asked[NAMES[2]] if inner else 1e-3)
    assert point["model.target_modules"] in (["query", "value"], "all-linear")
    assert could_be(point[NAMES[0]], SPACE[NAMES[0]][asked[NAMES[0]]])


def test_examples_show_every_value_once() -> None:
    """As many points as values; each listed value and both ends of each range, also of inner dimensions."""
    points = list(examples(SPACE))
    assert len(points) == 1 + 1 + 1 + 1 + 1 + 1
    assert points[0] == {NAMES[0]: [{"name": "uniform"}, 1e-3], "model.target_modules": ["query", "value"], "seed": 0}
    firsts = [point[NAMES[0]] for point in points]
    for initial, lr in ((1.1, 1e-4), (2.0, 1e-4), (1.1, 1e-2)):
        assert [{"name": "adalora", "initial": initial}, lr] in firsts
    many = {f"d{k}": [0, 1] for k in range(40)}
    assert len(list(examples(many))) == 41


def test_what_could_be() -> None:
    listed = {"name": "ramp", "ratio": {"float": [1.0, 9.0]}}
    assert could_be({"name": "ramp", "ratio": 3.0}, listed)
    assert not could_be({"name": "ramp"}, listed)
    assert not could_be({"name": "down", "ratio": 3.0}, listed)
    assert not could_be(True, 1)
    assert not could_be([1], [1, 2])


@pytest.mark.parametrize("value", [{"float": [2.0, 1.0]}, {"int": [0.5, 1]}, {"choice": []}, {"float": [0, 1], "x": 1}])
def test_an_invalid_dimension_is_refused_in_one_line(value: Any) -> None:
    with pytest.raises(ValueError, match="must be a valid dimension: ") as caught:
        inner_dimension(value)
    assert "\n" not in str(caught.value)


def test_ordinary_values_are_no_dimensions() -> None:
    for value in ({"*.query": 2}, [1, 2], "int", 3, None):
        assert inner_dimension(value) is None
    assert inner_dimension({"float": [0.1, 1.0]}) == FloatRange(float=(0.1, 1.0))
