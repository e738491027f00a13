"""Pruners: options, and rankopt's own rule of domination."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from rankopt.core.spec import Named
from rankopt.search.pruners import PRUNERS, Dominated, Interim, build_pruner

# the package ignores this warning itself; pytest resets filters before every test
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


@pytest.mark.parametrize("name", PRUNERS)
def test_pruners_are_built_from_their_options(name: str) -> None:
    """A wrong option is named; the first docstring line is for `rankopt list pruners`."""
    assert build_pruner(Named(name=name)).build() is not None
    assert (PRUNERS[name].__doc__ or "").strip().splitlines()[0].endswith(".")
    with pytest.raises(ValidationError, match="evaluation"):
        build_pruner(Named.model_validate({"name": name, "evaluation": 3}))


def test_dominated() -> None:
    """Significantly better, not more expensive, at the same evaluation, after the warm-up: all four are needed."""
    mine = Interim(2, 0.60, 100, 0.01)
    better = Interim(2, 0.70, 100, 0.01)
    rule = Dominated(errors=2.0, warmup=1)
    assert rule.dominated(mine, [better])
    assert not rule.dominated(mine, [])
    assert not rule.dominated(mine, [better._replace(score=0.62)])
    assert not rule.dominated(mine, [better._replace(parameters=101)])
    assert not rule.dominated(mine, [better._replace(evaluation=3)])
    assert not rule.dominated(mine._replace(evaluation=1), [better._replace(evaluation=1)])
    assert not rule.dominated(better, [mine])
