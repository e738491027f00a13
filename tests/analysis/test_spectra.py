"""Singular values of trained updates."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankopt.analysis.spectra import effective_rank, mean_energy

VALUES = st.lists(st.floats(0.01, 100), min_size=1, max_size=8)


@given(VALUES, st.floats(0.1, 10))
def test_effective_rank_is_between_one_and_the_rank(values: list[float], scale: float) -> None:
    """It does not depend on the size of the update, and zeros add nothing."""
    found = effective_rank(values)
    assert 1 - 1e-9 <= found <= len(values) + 1e-9
    assert effective_rank([scale * value for value in values] + [0.0]) == pytest.approx(found)


def test_effective_rank_by_hand() -> None:
    assert effective_rank([2.0, 1.0, 1.0]) == pytest.approx(math.exp(0.5 * math.log(2) + 2 * 0.25 * math.log(4)))
    assert effective_rank([3.0] * 5) == pytest.approx(5)
    assert effective_rank([1e-18, 0.0]) == pytest.approx(1)
    assert effective_rank([0.0]) == effective_rank([]) == 0


@given(st.lists(VALUES, min_size=1, max_size=5))
def test_shares_sum_to_one(layers: list[list[float]]) -> None:
    """Layers without an update do not count."""
    spectra = {str(index): values for index, values in enumerate(layers)}
    shares = mean_energy([spectra, {"empty": [], "zero": [0.0]}])
    assert math.isclose(shares.sum(), 1)
    assert len(shares) == max(map(len, layers))
