"""Contrasts against scipy, a transcription of the sign-flip test, and simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rankopt.analysis.contrast import FlipContrast, TContrast, contrast

DIFFERENCES = st.lists(st.floats(-1, 1).map(lambda value: round(value, 3)), min_size=3, max_size=6)


@pytest.mark.parametrize(
    "values", [[0.5, 0.7], [0.61, 0.60, 0.64], list(np.random.default_rng(0).normal(0.6, 0.02, 9))]
)
def test_one_stratum_is_scipys_paired_test(values: list[float]) -> None:
    base = np.linspace(0.5, 0.65, len(values))
    reference = stats.ttest_rel(values, base)
    found = TContrast([list(np.array(values) - base)])
    assert found.p == pytest.approx(reference.pvalue)
    assert found.interval(0.05) == pytest.approx(tuple(reference.confidence_interval()))


def test_several_strata_have_equal_weight_and_their_own_variances() -> None:
    strata = [[0.1, 0.3], [0.0, 0.2, 0.7]]
    found = TContrast(strata)
    assert found.mean == pytest.approx((0.2 + 0.3) / 2)
    assert found.error == pytest.approx(math.sqrt(np.var(strata[0], ddof=1) / 2 + np.var(strata[1], ddof=1) / 3) / 2)
    assert found.p == pytest.approx(2 * stats.t.sf(found.mean / found.error, 1))


@pytest.mark.parametrize("spreads", [(1, 1, 1), (1, 3, 10)])
def test_the_t_test_is_conservative_whatever_the_variances(spreads: tuple[float, ...]) -> None:
    random = np.random.default_rng(0)
    wrong = sum(TContrast([random.normal(0, sd, 3) for sd in spreads]).p <= 0.05 for _ in range(2000))
    assert wrong / 2000 <= 0.05 + 0.01


@given(DIFFERENCES)
def test_sign_flips_are_counted(values: list[float]) -> None:
    """Equal to scipy's permutation test of the mean, twice the smaller side."""
    found = FlipContrast([values])
    means = [np.mean(np.array(values) * signs) for signs in itertools.product((1, -1), repeat=len(values))]
    sides = [sum(sign * (mean - found.mean) <= 1e-9 for mean in means) for sign in (1, -1)]
    assert found.p == pytest.approx(min(1.0, 2 * min(sides) / len(means)))


@given(DIFFERENCES, st.floats(-0.5, 0.5))
def test_the_interval_of_sign_flips_inverts_the_test(values: list[float], delta: float) -> None:
    low, high = FlipContrast([values]).interval(0.1)
    if min(abs(delta - low), abs(delta - high)) > 1e-6:
        moved = FlipContrast([[value - delta for value in values]])
        assert (moved.p <= 0.1) == (not low <= delta <= high)


def test_few_flips_cannot_reject() -> None:
    found = FlipContrast([[0.2, 0.21, 0.22]])
    assert found.interval(0.05) == (-math.inf, math.inf)
    assert found.detectable(0.05)[0] == math.inf
    assert found.least_seeds(0.05) == 6
    assert FlipContrast([[0.2] * 6]).p == pytest.approx(2 / 64)


def test_many_flips_are_drawn() -> None:
    random = np.random.default_rng(0)
    values = random.normal(0.05, 0.1, 30)
    found = FlipContrast([values])
    assert found.p == pytest.approx(stats.ttest_1samp(values, 0).pvalue, abs=0.02)
    assert found.p == FlipContrast([values]).p


def test_one_difference_and_equal_differences_allow_no_t_test() -> None:
    assert math.isnan(TContrast([[0.02]]).p)
    assert all(math.isnan(end) for end in TContrast([[0.02]]).interval(0.05))
    # 0.7 - 0.6 and 0.4 - 0.3 differ in the last bit only, which is rounding
    for values in ([0.0, 0.0, 0.0], [0.7 - 0.6, 0.4 - 0.3]):
        assert TContrast([values]).constant
        assert math.isnan(TContrast([values]).p)


def test_the_number_of_seeds_detects_the_difference() -> None:
    found = TContrast([[0.01, 0.03, 0.02]])
    seeds = found.seeds_for(0.02, 0.05)
    assert seeds is not None
    random = np.random.default_rng(0)
    sd = np.std(found.strata[0], ddof=1)
    for number, least in ((seeds, 0.8), (seeds - 1, 0.0)):
        power = (stats.ttest_1samp(random.normal(0.02, sd, (5000, number)), 0, axis=1).pvalue < 0.05).mean()
        assert power >= least - 0.02
        assert number == seeds or power < 0.8
    assert found.seeds_for(1e-6, 0.05) is None


def test_the_kind_of_test_follows_the_data_not_the_result() -> None:
    assert isinstance(contrast([[0.1] * 5], False), TContrast)
    assert isinstance(contrast([[0.1] * 5], True), FlipContrast)
    assert isinstance(contrast([[0.1] * 5] * 2, False), FlipContrast)
    assert isinstance(contrast([[0.1] * 4] * 2, False), TContrast)
