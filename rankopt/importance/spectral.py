"""Singular values and vectors of a low-rank update, computed from its factors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from rankopt.importance.double import double


class SVD(NamedTuple):
    """A thin singular value decomposition `U diag(S) V^T`: U `(out, r)`, S `(r,)` decreasing, V `(in, r)`."""

    U: Tensor
    S: Tensor
    V: Tensor


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit torch to one thread in a block or a function.

    Tall thin decompositions gain little from more threads. If other processes use the cores, they can take ten times as
    long, because each of many small steps waits for all threads.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@torch.no_grad()
def low_rank_svd(A: Tensor, B: Tensor) -> SVD:
    """The singular value decomposition of `B A`, from two thin QR decompositions and one of size r x r.

        Qb Rb = qr(B);   Qa Ra = qr(A^T);   U' S V'^T = svd(Rb Ra^T);   U = Qb U';   V = Qa V'

    This takes O((in + out) r^2) operations; a dense decomposition takes O(in out min(in, out)).

    Args:
        A: `(r, in)`.
        B: `(out, r)`, including gate and scale.
    Returns:
        min(r, in, out) singular values and vectors, in the dtype of A.
    Example:
        >>> S = low_rank_svd(torch.tensor([[3.0, 0.0], [0.0, 1.0]]), torch.eye(2)).S
        >>> [round(value, 4) for value in S.tolist()]
        [3.0, 1.0]
    """
    Qb, Rb = torch.linalg.qr(B)
    Qa, Ra = torch.linalg.qr(A.mT)
    U, S, Vh = torch.linalg.svd(Rb @ Ra.mT, full_matrices=False)
    return SVD(Qb @ U, S, Qa @ Vh.mT)


@torch.no_grad()
def singular_values(A: Tensor, B: Tensor) -> Tensor:
    """The singular values of `B A`: those of `Rb Ra^T`, so no Q is formed.

    Args:
        A: `(r, in)`.
        B: `(out, r)`.
    Returns:
        min(r, in, out) values, decreasing, in the dtype of A.
    Example:
        >>> singular_values(torch.tensor([[3.0, 0.0], [0.0, 1.0]]), torch.eye(2)).tolist()
        [3.0, 1.0]
    """
    Rb, Ra = (torch.linalg.qr(factor, mode="r").R for factor in (B, A.T))
    S: Tensor = torch.linalg.svdvals(Rb @ Ra.T)
    return S


def energy(S: Tensor) -> Tensor:
    """The share of the squared norm in the first k values, for k = 1..r: `cumsum(S^2) / sum(S^2)`; zeros for S = 0.

    Example:
        >>> [round(value, 3) for value in energy(torch.tensor([2.0, 1.0])).tolist()]
        [0.8, 1.0]
    """
    mass = double(S).square().cumsum(0)
    return mass / mass[-1:].clamp_min(torch.finfo(mass.dtype).tiny)  # divided by its own last value: never above 1


def stable_rank(S: Tensor) -> float:
    """`sum(S^2) / max(S)^2`, between 1 and the rank; 0 for a zero update.

    Example:
        >>> stable_rank(torch.tensor([1.0, 1.0, 0.0]))
        2.0
    """
    top = float(S.max()) if len(S) else 0.0
    return float(S.square().sum()) / top**2 if top > 0 else 0.0


def energy_ranks(spectra: dict[str, Tensor], tau: float) -> dict[str, int]:
    """The smallest rank of every layer that keeps the share tau of its squared norm.

    Args:
        spectra: singular values per layer, decreasing.
        tau: in [0, 1]; 0 keeps nothing.
    Example:
        >>> energy_ranks({"q": torch.tensor([2.0, 1.0]), "v": torch.tensor([0.0, 0.0])}, 0.9)
        {'q': 2, 'v': 0}
    """
    return {
        name: int((energy(S) < tau).sum()) + 1 if tau > 0 and float(S.sum()) > 0 else 0 for name, S in spectra.items()
    }
