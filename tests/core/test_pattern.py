"""A rank pattern is a value: it refuses nonsense, cannot change, and does the domain's arithmetic."""

from __future__ import annotations

import copy
import itertools
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from rankopt.core.pattern import RankPattern, Shape, match_globs

RANKS = st.dictionaries(st.text("abc.01", min_size=1, max_size=5), st.integers(0, 20), max_size=8)


class Holder(BaseModel):
    pattern: RankPattern


@pytest.mark.parametrize("rank", [-1, 1.0, "1", True, None])
def test_a_rank_is_a_whole_number_from_zero(rank: object) -> None:
    with pytest.raises(ValueError, match=r"a rank must be an integer >= 0, got .* for layer 'q'"):
        RankPattern({"q": rank})  # type: ignore[dict-item]


@given(RANKS, st.integers(1, 50), st.integers(1, 50))
def test_totals(ranks: dict[str, int], fan_in: int, fan_out: int) -> None:
    """Total, mean and parameters are plain sums over layers, whatever each layer's shape."""
    pattern = RankPattern(ranks)
    shapes = {name: Shape(fan_in + i, fan_out) for i, name in enumerate(ranks)}
    assert pattern.total == sum(ranks.values())
    assert pattern.mean * len(ranks) == pytest.approx(sum(ranks.values()))
    assert pattern.parameters(shapes) == sum(r * (shapes[n].fan_in + shapes[n].fan_out) for n, r in ranks.items())


def test_the_empty_pattern_is_ordinary() -> None:
    assert (RankPattern({}).total, RankPattern({}).mean, RankPattern({}).parameters({})) == (0, 0.0, 0)


@given(RANKS)
def test_equal_by_content(ranks: dict[str, int]) -> None:
    """Order of insertion is no content; equal patterns hash alike, so they can be dictionary keys."""
    one, other = RankPattern(ranks), RankPattern(dict(reversed(ranks.items())))
    assert one == other == ranks
    assert hash(one) == hash(other)
    assert list(one) == sorted(ranks)


def test_different_patterns_differ() -> None:
    assert RankPattern({"a": 1}) != RankPattern({"a": 2})
    assert RankPattern({"a": 1}) != RankPattern({"a": 1, "b": 0})


def test_frozen() -> None:
    """Neither the pattern nor the mapping that it was made from can change it."""
    ranks = {"a": 1}
    pattern = RankPattern(ranks)
    with pytest.raises(TypeError):
        pattern["a"] = 2  # type: ignore[index]
    ranks["a"] = 5
    assert pattern["a"] == 1


@given(RANKS)
def test_round_trips(ranks: dict[str, int]) -> None:
    """A pattern inside a model survives JSON, and on its own it survives copying and pickling."""
    held = Holder(pattern=RankPattern(ranks))
    assert Holder.model_validate_json(held.model_dump_json()) == held
    assert copy.deepcopy(held.pattern) == pickle.loads(pickle.dumps(held.pattern)) == held.pattern


@pytest.mark.parametrize("data", ['{"pattern": {"a": -1}}', '{"pattern": 3}', '{"pattern": null}', '{"pattern": [1]}'])
def test_a_damaged_stored_pattern_is_a_validation_error(data: str) -> None:
    with pytest.raises(ValidationError, match="pattern"):
        Holder.model_validate_json(data)


NAMES = ["layer.1.query", "layer.1.value", "layer.11.query", "layer.11.value"]


@pytest.mark.parametrize(
    ("globs", "ranks"),
    [
        ({"*": 2}, [2, 2, 2, 2]),
        ({"*": 2, "*.query": 5}, [5, 2, 5, 2]),
        ({"*.query": 5, "*": 2}, [5, 2, 5, 2]),
        ({"layer.1.*": 3, "*.query": 5}, [3, 3, 5, 0]),
        ({"*y": 1, "l*": 2, "*e": 3}, [2, 2, 2, 2]),
        ({"*y": 1, "*e": 2, "?*": 3}, [3, 3, 3, 3]),
        ({"layer.1.*": 3}, [3, 3, 0, 0]),
        ({"layer.11.value": 1}, [0, 0, 0, 1]),
        ({"*": 4, "layer.1.query": 0}, [0, 4, 4, 4]),
    ],
)
def test_globs(globs: dict[str, int], ranks: list[int]) -> None:
    """The longest matching glob wins in any order, unmatched layers get 0, and layer.1 is not layer.11."""
    expected = dict(zip(NAMES, ranks, strict=True))
    for order in itertools.permutations(globs.items()):
        assert match_globs(dict(order), NAMES) == expected


def test_a_glob_that_matches_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'\*\.querry' matches no adapted layer, for example 'layer\.1\.query'"):
        match_globs({"*": 1, "*.querry": 2}, NAMES)
    with pytest.raises(ValueError, match="matches no adapted layer"):
        match_globs({"*": 1}, [])
