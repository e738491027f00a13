"""Truncate updates to a lower rank, add them up, and measure the error."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from rankopt.adapters.adapter import Adapter
from rankopt.adapters.module import Factors
from rankopt.importance.spectral import low_rank_svd, singular_values


@torch.no_grad()
def truncate(factors: Factors, rank: int) -> Factors:
    """The closest update of at most `rank` components, its singular values split evenly between the factors.

        B A = U diag(S) V^T     ->     B' = U_r diag(S_r)^(1/2),   A' = diag(S_r)^(1/2) V_r^T

    No matrix of that rank is closer in the Frobenius norm; the squared error is the tail `sum_(i > rank) S_i^2`. The
    even split keeps both factors at the same magnitude, which matters in 16 bits.

    Args:
        factors: A `(r, in)`, B `(out, r)`.
        rank: components to keep; missing ones are zeros.
    Returns:
        A' `(rank, in)`, B' `(out, rank)`.
    Source: Eckart and Young 1936.
    Example:
        >>> A, B = truncate(Factors(torch.diag(torch.tensor([4.0, 1.0])), torch.eye(2)), 1)
        >>> (B @ A).abs().tolist()
        [[4.0, 0.0], [0.0, 0.0]]
    """
    U, S, V = low_rank_svd(*factors)
    root = S[:rank].sqrt()
    return padded(Factors(root[:, None] * V[:, :rank].T, U[:, :rank] * root), rank)


@torch.no_grad()
def truncate_weighted(factors: Factors, moment: Tensor, rank: int) -> tuple[Factors, Tensor]:
    """The update of at most `rank` components whose outputs have the smallest mean squared error on given inputs.

    With C = E[x x^T] = L L^T the expected squared error of the output is the weighted norm

        E |(B A - B' A') x|^2  =  |(B A - B' A') L|_F^2,

    and its minimiser is `B' A' = U_r U_r^T B A`, with U the left singular vectors of `B A L`. They follow from the
    r x r matrix `H = A C A^T = E[(A x)(A x)^T]`, so neither C nor its root is formed:

        Qb Rb = qr(B),    Rb H Rb^T = E diag(lambda) E^T,    U = Qb E.

    Args:
        factors: A `(r, in)`, B `(out, r)`.
        moment: H `(r, r)`.
        rank: components to keep.
    Returns:
        The factors, and lambda in decreasing order; the squared error is the sum of the discarded lambda.
    """
    Q, R = torch.linalg.qr(factors.B)
    values, vectors = torch.linalg.eigh(R @ moment @ R.T)
    U = (Q @ vectors).flip(1)[:, :rank]
    worth = values.flip(0).clamp_min(0)
    return padded(balanced(Factors(U.T @ factors.B @ factors.A, U)), rank), worth


@torch.no_grad()
def balanced(factors: Factors) -> Factors:
    """The same update with its singular values split evenly between the factors."""
    return truncate(factors, len(factors.A))


def padded(factors: Factors, rank: int) -> Factors:
    """The same update with zero components added up to `rank`."""
    missing = max(0, rank - len(factors.A))
    A, B = factors
    return Factors(torch.cat([A, A.new_zeros(missing, A.shape[1])]), torch.cat([B, B.new_zeros(len(B), missing)], 1))


@torch.no_grad()
def stacked(terms: list[tuple[float, Factors]]) -> Factors:
    """The exact sum of updates: `sum_i w_i B_i A_i = [w_1 B_1, w_2 B_2, ...] [A_1; A_2; ...]`.

    Example:
        >>> one = Factors(torch.ones(1, 2), torch.ones(3, 1))
        >>> A, B = stacked([(1.0, one), (2.0, one)])
        >>> tuple(A.shape), (B @ A)[0].tolist()
        ((2, 2), [3.0, 3.0])
    """
    A = torch.cat([factors.A for _, factors in terms])
    return Factors(A, torch.cat([weight * factors.B for weight, factors in terms], 1))


def difference(meant: Iterable[tuple[str, float, Factors]], written: Adapter) -> tuple[float, float]:
    """The error of a written adapter over all modules; a module that it lacks counts as zero.

    Args:
        meant: name, scale and factors of every intended update.
        written: the adapter.
    Returns:
        The Frobenius norm of the difference, absolute and relative to the norm of the intended updates.
    """
    lost = total = 0.0
    for name, scale, factors in meant:
        norm = abs(scale) * float(singular_values(*factors).norm())
        new = written.modules.get(name)
        lost += (distance((scale, factors), (new.scale, written.factors(name))) if new else norm) ** 2
        total += norm**2
    return lost**0.5, (lost / total) ** 0.5 if total else 0.0


def distance(one: tuple[float, Factors], other: tuple[float, Factors]) -> float:
    """The Frobenius norm of `s B A - s' B' A'`, computed from the factors."""
    (scale, factors), (scale_other, factors_other) = one, other
    return float(singular_values(*stacked([(scale, factors), (-scale_other, factors_other)])).square().sum().sqrt())
