"""The spectrum of a low-rank update compared with a dense decomposition, and measures of rank."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rankopt.importance.spectral import energy, energy_ranks, low_rank_svd, stable_rank

SIZES = st.integers(1, 9)


@st.composite
def factors(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """A and B of any sizes, also r above in or out, sometimes rank-deficient or zero."""
    r, fan_in, fan_out = draw(SIZES), draw(SIZES), draw(SIZES)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    A = torch.randn(r, fan_in, dtype=torch.float64, generator=generator)
    B = torch.randn(fan_out, r, dtype=torch.float64, generator=generator)
    for i in draw(st.sets(st.integers(0, r - 1))):
        A[i] = draw(st.sampled_from([0.0, 1.0, 1e-3])) * A[0]
    return A, B


@given(factors())
def test_equals_the_dense_decomposition(pair: tuple[Tensor, Tensor]) -> None:
    """Singular values to 1e-5, orthonormal vectors, and the product is the update; for float32 too."""
    for A, B in (pair, (pair[0].float(), pair[1].float())):
        U, S, V = low_rank_svd(A, B)
        k = min(*A.shape, len(B))
        assert (U.shape, S.shape, V.shape) == ((len(B), k), (k,), (A.shape[1], k))
        assert S.dtype == A.dtype
        dense = torch.linalg.svdvals(B @ A)[:k]
        torch.testing.assert_close(S, dense, atol=1e-5 * max(1.0, float(dense[0])), rtol=0)
        torch.testing.assert_close((U * S) @ V.T, B @ A, atol=1e-5 * max(1.0, float(dense[0])), rtol=0)
        for vectors in (U, V):
            torch.testing.assert_close(vectors.T @ vectors, torch.eye(k, dtype=A.dtype), atol=1e-5, rtol=0)
        assert torch.equal(S, S.sort(descending=True).values)


@given(factors())
def test_truncation_error_is_the_tail(pair: tuple[Tensor, Tensor]) -> None:
    """||BA - first k||_F^2 is the sum of the squared discarded values, and `energy` is the kept share, for every k."""
    A, B = pair
    U, S, V = low_rank_svd(A, B)
    total, shares = float((B @ A).square().sum()), energy(S)
    for k in range(len(S) + 1):
        error = float((B @ A - (U[:, :k] * S[:k]) @ V[:, :k].T).square().sum())
        assert error == pytest.approx(float(S[k:].square().sum()), abs=1e-9 * max(1.0, total))
        if k and total > 1e-6:
            assert float(shares[k - 1]) == pytest.approx(1 - error / total, abs=1e-9)


def test_a_zero_update() -> None:
    """A new adapter has B = 0: no NaN."""
    S = low_rank_svd(torch.randn(3, 5), torch.zeros(4, 3)).S
    assert S.tolist() == [0.0, 0.0, 0.0]
    assert energy(S).tolist() == [0.0, 0.0, 0.0]
    assert stable_rank(S) == 0.0
    assert energy_ranks({"q": S}, 1.0) == {"q": 0}


def test_no_components() -> None:
    S = low_rank_svd(torch.zeros(0, 5), torch.zeros(4, 0)).S
    assert S.shape == (0,)
    assert energy(S).shape == (0,)
    assert stable_rank(S) == 0.0
    assert energy_ranks({"q": S}, 0.5) == {"q": 0}


@pytest.mark.parametrize("scale", [1e-18, 1e-12, 1.0, 1e12, 1e18])
def test_scale_invariance(scale: float) -> None:
    """Shares and ranks do not depend on the size of the update, in float32."""
    S = torch.tensor([3.0, 2.0, 1.0])
    torch.testing.assert_close(energy(S * scale), energy(S))
    torch.testing.assert_close(energy(S * scale**2), energy(S))
    assert energy_ranks({"q": S * scale**2}, 0.9) == energy_ranks({"q": S}, 0.9) == {"q": 2}
    assert stable_rank(S * scale) == pytest.approx(stable_rank(S))


SPECTRA = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=8).map(lambda v: torch.tensor(sorted(v, reverse=True)))


@given(SPECTRA)
def test_stable_rank(S: Tensor) -> None:
    """It lies between 1 and the number of values, and equals it when all values are equal."""
    assert 1 - 1e-5 <= stable_rank(S) <= len(S) + 1e-4
    assert stable_rank(torch.full_like(S, float(S[0]))) == pytest.approx(len(S), rel=1e-4)
    assert stable_rank(torch.tensor([float(S[0]), 0.0])) == pytest.approx(1.0)


def test_stable_rank_by_hand() -> None:
    assert stable_rank(torch.tensor([2.0, 1.0, 1.0])) == pytest.approx(6 / 4)


@given(SPECTRA)
def test_energy_rises_to_exactly_one(S: Tensor) -> None:
    """Rounding takes no share above 1 and leaves the last at exactly 1, so a zero component is never kept."""
    shares = energy(torch.cat([S, torch.zeros(1)])).tolist()
    assert shares == sorted(shares)
    assert shares[-2:] == [1.0, 1.0]


@given(SPECTRA, st.floats(0, 1))
def test_energy_ranks_is_the_smallest_that_keeps_the_share(S: Tensor, tau: float) -> None:
    rank = energy_ranks({"q": S}, tau)["q"]
    shares = [0.0, *energy(S).tolist()]
    assert shares[rank] >= tau
    assert rank == 0 or shares[rank - 1] < tau or tau == 0


def test_energy_ranks_at_zero_and_one() -> None:
    """A share of 0 keeps nothing, a share of 1 keeps all nonzero values."""
    S = torch.tensor([2.0, 1.0, 0.0])
    assert energy_ranks({"q": S}, 0.0) == {"q": 0}
    assert energy_ranks({"q": S}, 1.0) == {"q": 2}
