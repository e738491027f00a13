"""Statistics against scipy, brute force and simulation."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rankopt.analysis.statistics import holm, paired, smallest_difference, summarize

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
    assert all(math.isnan(value) for value in paired([0.02])[2:])
    assert math.isnan(summarize([]).mean)


@pytest.mark.parametrize("sample", SAMPLES)
def test_paired_is_scipys_paired_test(sample: list[float]) -> None:
    base = np.linspace(0.5, 0.55, len(sample))
    reference = stats.ttest_rel(sample, base)
    found = paired(list(np.array(sample) - base))
    assert found.p == pytest.approx(reference.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(reference.confidence_interval()))


def test_equal_differences_allow_no_test() -> None:
    assert math.isnan(paired([0.0, 0.0, 0.0]).p)
    # 0.7 - 0.6 and 0.4 - 0.3 differ in the last bit only, which is rounding
    assert math.isnan(paired([0.7 - 0.6, 0.4 - 0.3]).p)


@pytest.mark.parametrize("n", [2, 3, 5, 20, 200])
@pytest.mark.parametrize("power", [0.5, 0.8, 0.95])
def test_smallest_difference_has_the_stated_power(n: int, power: float) -> None:
    shift = smallest_difference(1.0, n, power) * math.sqrt(n)
    critical = stats.t.ppf(0.975, n - 1)
    # the lower tail adds less than 1e-3 at these powers, and scipy's is unreliable there
    assert float(stats.nct.sf(critical, n - 1, shift)) == pytest.approx(power, abs=2e-3)


def test_smallest_difference_by_simulation() -> None:
    true = smallest_difference(0.02, 4)
    samples = np.random.default_rng(1).normal(true, 0.02, (20_000, 4))
    assert float((stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05).mean()) == pytest.approx(0.8, abs=0.01)


def test_more_seeds_detect_smaller_differences() -> None:
    sizes = [smallest_difference(0.01, n) for n in range(2, 30)]
    assert sizes == sorted(sizes, reverse=True)


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_is_the_step_down_procedure(p_values: list[float]) -> None:
    """Holm's formulation: reject in order of p until one exceeds alpha / (m - i)."""
    adjusted = holm(p_values)
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
        adjusted = holm([values[i] for i in order])
        assert [adjusted[order.index(i)] for i in (0, 1, 3)] == pytest.approx([0.03, 0.06, 0.06])
        assert math.isnan(adjusted[order.index(2)])
