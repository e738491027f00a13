"""Statistics against scipy, brute force and simulation."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rankopt.analysis.statistics import holm, power_shift, spread_interval, summarize

SAMPLES = [[0.5, 0.7], [0.61, 0.60, 0.64], list(np.random.default_rng(0).normal(0.6, 0.02, 9))]


@pytest.mark.parametrize("sample", SAMPLES)
def test_summary_is_scipys_t_interval(sample: list[float]) -> None:
    found = summarize(sample)
    low, high = stats.t.interval(0.95, len(sample) - 1, np.mean(sample), stats.sem(sample))
    assert (found.mean, found.error) == pytest.approx((np.mean(sample), stats.sem(sample)))
    assert (found.low, found.high) == pytest.approx((low, high))


def test_one_seed_gives_a_mean_only() -> None:
    found = summarize([0.6])
    assert found[:2] == (1, 0.6)
    assert all(math.isnan(value) for value in found[2:])
    assert math.isnan(summarize([]).mean)


@pytest.mark.parametrize("df", [1, 2, 4, 19, 199])
@pytest.mark.parametrize("power", [0.5, 0.8, 0.95])
def test_the_shift_has_the_stated_power(df: int, power: float) -> None:
    critical = stats.t.ppf(0.975, df)
    # the lower tail adds less than 1e-3 at these powers, and scipy's is unreliable there
    assert float(stats.nct.sf(critical, df, power_shift(df, power))) == pytest.approx(power, abs=2e-3)


def test_the_shift_by_simulation() -> None:
    samples = np.random.default_rng(1).normal(power_shift(3) / 2, 1, (20_000, 4))
    assert float((stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05).mean()) == pytest.approx(0.8, abs=0.01)


def test_the_interval_of_a_spread_covers_it() -> None:
    low, high = spread_interval(4)
    estimates = np.random.default_rng(2).normal(0, 1, (20_000, 5)).std(axis=1, ddof=1)
    assert float(((estimates * low < 1) & (estimates * high > 1)).mean()) == pytest.approx(0.95, abs=0.01)


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_is_the_step_down_procedure(p_values: list[float]) -> None:
    """Holm's formulation: reject in order of p until one exceeds alpha / (m - i)."""
    adjusted = [step.p for step in holm(p_values)]
    assert all(new >= old for new, old in zip(adjusted, p_values, strict=True))
    for alpha in (0.01, 0.05, 0.3):
        rejected = set()
        for step, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
            if (len(p_values) - step) * p_values[index] > alpha:
                break
            rejected.add(index)
        assert {index for index, p in enumerate(adjusted) if p <= alpha} == rejected


def test_holm_ignores_nan_and_the_order() -> None:
    values = [0.01, 0.04, math.nan, 0.03]
    for order in permutations(range(4)):
        adjusted = [step.p for step in holm([values[i] for i in order])]
        assert [adjusted[order.index(i)] for i in (0, 1, 3)] == pytest.approx([0.03, 0.06, 0.06])
        assert math.isnan(adjusted[order.index(2)])


@given(st.lists(st.tuples(st.floats(1e-9, 1), st.floats(0.1, 10)), min_size=1, max_size=8))
def test_a_test_at_its_own_level_agrees_with_its_adjusted_p_value(tests: list[tuple[float, float]]) -> None:
    """Hence an interval at that level excludes zero exactly where the adjusted p-value rejects."""
    p_values, weights = map(list, zip(*tests, strict=True))
    for p, step in zip(p_values, holm(p_values, 0.05, weights), strict=True):
        if abs(step.p - 0.05) > 1e-9:
            assert (p <= step.level) == (step.p <= 0.05)


def test_weights_share_the_error_rate() -> None:
    """The first step tests every p-value at its share; what is rejected leaves its share to the others."""
    first, second = holm([0.03, 0.03], 0.05, [0.8, 0.2])
    assert (first.level, second.level) == pytest.approx((0.04, 0.05))
    first, second = holm([0.045, 0.03], 0.05, [0.8, 0.2])
    assert (first.level, second.level) == pytest.approx((0.04, 0.01))
