"""McNemar's test: do two classifiers make different numbers of errors on the same examples?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special


def mcnemar(hits: NDArray[np.bool_], others: NDArray[np.bool_]) -> float:
    """The two-sided p-value of equal accuracy over examples, for given trainings.

    With one training per side, b (c) examples are correct for the first (second) side only, and b is binomial. With
    several, the examples are clusters of n_k = seeds pairs each:

        p = P(Bin(b + c, 1/2) at least as far from its mean as b)
        chi^2 = (sum_k d_k)^2 / sum_k d_k^2,    d_k = b_k - c_k

    which is McNemar's own statistic with one seed.

    Args:
        hits, others: `(seeds, examples)`, whether each prediction is correct; rows of one seed are paired.
    Example:
        >>> first, second = np.ones((1, 6), bool), np.zeros((1, 6), bool)
        >>> mcnemar(first, second)
        0.03125

    Source: McNemar 1947; for clusters Durkalski et al. 2003, Analysis of clustered matched-pair data.
    """
    differences = (hits.astype(int) - others).sum(0)
    if not differences.any():
        return 1.0
    if len(hits) == 1:
        discordant = int(np.abs(differences).sum())
        fewer = min(int((differences > 0).sum()), int((differences < 0).sum()))
        return min(1.0, 2 * float(special.bdtr(fewer, discordant, 0.5)))
    return float(special.chdtrc(1, differences.sum() ** 2 / np.square(differences).sum()))
