"""What the searches that draw from the record share."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from rankopt.search.sampled import record, share_of, value_at

DIMENSIONS: list[BaseDistribution] = [
    CategoricalDistribution(["a", "b", "c"]),
    IntDistribution(1, 8),
    IntDistribution(0, 12, step=3),
    IntDistribution(1, 64, log=True),
    FloatDistribution(-1.0, 2.0),
    FloatDistribution(1e-4, 1e-1, log=True),
    FloatDistribution(0.5, 0.5),
]


@given(share=st.floats(0.0, 1.0, exclude_max=True), dimension=st.sampled_from(DIMENSIONS))
def test_a_share_gives_a_value_of_the_dimension_and_back(share: float, dimension: BaseDistribution) -> None:
    value = value_at(dimension, share)
    assert dimension._contains(dimension.to_internal_repr(value))
    back = share_of(dimension, value)
    assert 0 <= back < 1
    assert value_at(dimension, back) == (pytest.approx(value) if isinstance(value, float) else value)


@pytest.mark.parametrize(
    ("dimension", "values"),
    [
        (CategoricalDistribution(["a", "b"]), ["a", "b"]),
        (IntDistribution(1, 4), [1, 2, 3, 4]),
        (IntDistribution(0, 6, step=3), [0, 3, 6]),
    ],
    ids=["list", "integers", "steps"],
)
def test_values_have_equal_shares(dimension: BaseDistribution, values: list[Any]) -> None:
    n = len(values)
    assert [value_at(dimension, (i + 0.5) / n) for i in range(n)] == values
    assert [share_of(dimension, value) for value in values] == pytest.approx([(i + 0.5) / n for i in range(n)])


@pytest.mark.parametrize(("direction", "expected"), [("maximize", [1.0, 3.0]), ("minimize", [-1.0, -3.0])])
def test_the_record_has_complete_trials_in_order_and_rewards(direction: Any, expected: list[float]) -> None:
    study = optuna.create_study(direction=direction)
    for value, state in [(1.0, None), (None, optuna.trial.TrialState.FAIL), (3.0, None)]:
        study.tell(study.ask(), value, state=state)
    study.ask()  # still running
    assert [(trial.number, reward) for trial, reward in record(study)] == list(zip([0, 2], expected, strict=True))
