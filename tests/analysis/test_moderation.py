"""Variances that are estimated together, against a transcription in plain loops, and in null studies."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recompute_variances import of_table
from scipy import special

from rankopt.analysis.contrast import TContrast
from rankopt.analysis.moderation import _inverse_trigamma, moderated

VALUES = st.lists(st.floats(-1, 1).map(lambda x: round(x, 3)), min_size=5, max_size=5)


@given(st.lists(st.tuples(VALUES, st.integers(0, 3)), min_size=1, max_size=6))
def test_the_formulas(rows: list[tuple[list[float], int]]) -> None:
    """As in plain loops, also where methods lack seeds."""
    table = {k: {seed: x for seed, x in enumerate(row) if seed >= missing} for k, (row, missing) in enumerate(rows)}
    found, expected = moderated(table), of_table(table)
    assert found.keys() == expected.keys()
    for name, variance in found.items():
        assert variance == pytest.approx(expected[name], rel=1e-6)


@given(VALUES, st.floats(-1, 1))
def test_one_method_has_its_sample_variance(values: list[float], shift: float) -> None:
    """The test is then the paired t-test; a shift of all differences is no variance."""
    for row in (values, [value + shift for value in values]):
        if np.ptp(row) > 1e-6:
            ((variance, df),) = moderated({"a": dict(enumerate(row))}).values()
            assert (variance, df) == (pytest.approx(np.var(row, ddof=1)), 4)


def test_alike_variances_meet_and_unlike_ones_stay_apart() -> None:
    """Methods of one variance lend each other degrees of freedom; with a thousandfold spread each has its own."""
    random = np.random.default_rng(0)
    scores = random.normal(size=(41, 5))
    alike = moderated({k: dict(enumerate(row)) for k, row in enumerate((scores[1:] - scores[0]).tolist())})
    sampled, found = (scores[1:] - scores[0]).var(axis=1, ddof=1), [variance.value for variance in alike.values()]
    assert min(variance.df for variance in alike.values()) > 8
    assert max(found) / min(found) < 0.2 * sampled.max() / sampled.min()
    noise = random.normal(size=(12, 5)) * np.geomspace(1, 1000, 12)[:, None]
    unlike = moderated({k: dict(enumerate(row)) for k, row in enumerate(noise.tolist())})
    assert unlike[11].df < 6
    assert unlike[11].value > 5 * unlike[0].value


def test_a_single_seed_has_no_variance_and_lends_none() -> None:
    both = moderated({"a": {0: 0.1, 1: 0.3, 2: 0.2}, "b": {0: 5.0}})
    assert both == moderated({"a": {0: 0.1, 1: 0.3, 2: 0.2}})
    assert moderated({"a": {0: 0.1}, "b": {}}) == {}
    assert moderated({"a": {0: 0.1, 1: 0.1}}) == {}


@pytest.mark.parametrize("noisy", [False, True])
def test_a_noisy_control_misleads_no_test(noisy: bool) -> None:
    """All differences share the control's noise. In null studies at most 5 % have a significant one (Bonferroni)."""
    random, wrong, studies, methods = np.random.default_rng(1), 0, 500, 20
    for _ in range(studies):
        scores = random.normal(0, 1, (methods + 1, 3))
        scores[0] *= 3 if noisy else 1
        rows = (scores[1:] - scores[0]).tolist()
        variances = moderated({k: dict(enumerate(row)) for k, row in enumerate(rows)})
        wrong += min(TContrast([row], [variances[k]]).p for k, row in enumerate(rows)) < 0.05 / methods
    assert wrong / studies < 0.05 + 3 * (0.05 * 0.95 / studies) ** 0.5


@given(st.floats(1e-6, 1e6))
def test_the_inverse_of_the_trigamma_function(value: float) -> None:
    assert float(special.polygamma(1, _inverse_trigamma(value))) == pytest.approx(value, rel=1e-6)
