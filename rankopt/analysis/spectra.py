"""What the singular values of trained updates say: energy by component, and effective rank."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Spectra = Mapping[str, Sequence[float]]
"""Layer -> singular values of its update, largest first."""


def effective_rank(values: Sequence[float]) -> float:
    """`exp(-sum p log p)` with `p = S / sum(S)`, between 1 and the rank; 0 for a zero update.

    Example:
        >>> round(effective_rank([1.0, 1.0, 0.0]), 4), effective_rank([])
        (2.0, 0.0)

    Source: Roy and Vetterli 2007, "The effective rank".
    """
    S = np.asarray(values, dtype=float)
    S = S[S > 0]
    if not len(S):
        return 0.0
    p = S / S.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


def mean_energy(trials: Iterable[Spectra]) -> NDArray[np.float64]:
    """The share of a layer's squared norm in its component i, mean over the layers of trials that have any update.

        share_i = S_i^2 / sum_k S_k^2,   0 beyond a layer's rank

    Args:
        trials: spectra of each trial.
    Returns:
        `(largest rank,)`, decreasing, with sum 1; empty without an update.
    Example:
        >>> mean_energy([{"q": [3.0, 1.0], "v": [2.0]}]).tolist()
        [0.95, 0.05]
    """
    squares = [np.square(values) for spectra in trials for values in spectra.values() if np.any(np.asarray(values) > 0)]
    shares = np.zeros((len(squares), max(map(len, squares), default=0)))
    for row, square in zip(shares, squares, strict=True):
        row[: len(square)] = square / square.sum()
    return shares.mean(axis=0) if len(squares) else np.zeros(0)
