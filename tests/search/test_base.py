"""What all searches share: their options, and whether a study's trials are known beforehand."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from rankopt.core.study_spec import StudySpec
from rankopt.search import SEARCHES, build_search
from rankopt.search.base import Search, check_lists, refuse_repeated


def study(**more: Any) -> StudySpec:
    return StudySpec.model_validate({"name": "s", "base": {}} | more)


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_proposes_trials_or_runs_every_combination(name: str) -> None:
    """A sampler exactly where `trials` is required, which is what tells the two kinds of studies apart."""
    search = SEARCHES[name]
    options = {"name": name, "trials": 3} if search.sampler is not Search.sampler else {"name": name}
    spec = study(search=options, objectives={"score": "maximize"})
    assert spec.listed == (build_search(spec).trials is None)
    if spec.listed:
        with pytest.raises(NotImplementedError, match="has no sampler"):
            build_search(spec).sampler(0)


@pytest.mark.parametrize("options", [{"trials": 0}, {"trials": 10**9}, {"seed": -1}, {"seed": 2**32}])
def test_options_have_limits(options: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        build_search(study(search={"name": "random", "trials": 3} | options))


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"seed": [0, 1, 0]}, r"space\.seed must list distinct values, got 0 twice"),
        ({"a.b": [{"x": 1, "y": 2}, {"y": 2, "x": 1}]}, r"space\.a\.b must list distinct values"),
        ({"a": [{"name": "n", "p": {"choice": [1, 1]}}]}, r"space\.a\[n\]\.p must list distinct values, got 1 twice"),
    ],
)
def test_repeated_values(space: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        refuse_repeated(study(space=space))


def test_lists_only() -> None:
    """`repeat` and constraints belong to searches that propose trials."""
    for more, message in (
        ({"repeat": {"seed": [0, 1]}}, "repeat must be left out under the search 'grid': list its values in space"),
        ({"constraints": {"parameters": 5}}, "constraints must be left out under the search 'grid'"),
    ):
        with pytest.raises(ValueError, match=message):
            check_lists(study(**more), "grid")
