"""Truncation, sums and distances from factors, against dense matrices."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rankopt.adapters.adapter import Factors
from rankopt.adapters.truncate import balanced, distance, padded, stacked, truncate


def factors(seed: int, rank: int, fan_in: int, fan_out: int) -> Factors:
    draw = torch.Generator().manual_seed(seed)
    A, B = (torch.randn(shape, generator=draw, dtype=torch.float64) for shape in ((rank, fan_in), (fan_out, rank)))
    return Factors(A, B)


sizes = st.integers(1, 9)


@given(st.integers(0, 1000), sizes, sizes, sizes, st.integers(1, 9))
def test_truncation_is_optimal(seed: int, rank: int, fan_in: int, fan_out: int, kept: int) -> None:
    """The error is the tail of the spectrum, also for ranks above the matrix; both factors have equal norms."""
    whole = factors(seed, rank, fan_in, fan_out)
    cut = truncate(whole, kept)
    assert (cut.A.shape, cut.B.shape) == ((kept, fan_in), (fan_out, kept))
    lost = float((whole.B @ whole.A - cut.B @ cut.A).norm())
    assert lost == pytest.approx(float(torch.linalg.svdvals(whole.B @ whole.A)[kept:].norm()), abs=1e-9)
    assert distance((1.0, whole), (1.0, cut)) == pytest.approx(lost, abs=1e-9)
    torch.testing.assert_close(cut.A.norm(dim=1), cut.B.norm(dim=0), atol=1e-9, rtol=1e-9)


@given(st.integers(0, 1000), sizes, sizes, st.floats(-3, 3), st.floats(-3, 3))
def test_sums_and_distances(seed: int, one_rank: int, other_rank: int, a: float, b: float) -> None:
    """Concatenated factors give the exact weighted sum; distances are those of the dense matrices."""
    one, other = factors(seed, one_rank, 6, 7), factors(seed + 1, other_rank, 6, 7)
    total = stacked([(a, one), (b, other)])
    torch.testing.assert_close(total.B @ total.A, a * one.B @ one.A + b * other.B @ other.A)
    dense = float((a * one.B @ one.A - b * other.B @ other.A).norm())
    assert distance((a, one), (b, other)) == pytest.approx(dense, abs=1e-9)


def test_padding_and_balance_change_nothing() -> None:
    whole = factors(0, 3, 5, 4)
    for same in (padded(whole, 6), balanced(whole)):
        torch.testing.assert_close(same.B @ same.A, whole.B @ whole.A)
    assert len(padded(whole, 2).A) == 3
