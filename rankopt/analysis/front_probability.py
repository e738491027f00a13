"""How likely is each point of a trade-off to be on the Pareto front?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rankopt.analysis.curves import Curve
from rankopt.analysis.pareto import front

DRAWS = 1000


def front_probability(curves: Sequence[Curve]) -> list[NDArray[np.float64]]:
    """The share of bootstrap samples of seeds in which each point's mean is on the Pareto front of all points.

    Seeds are drawn with replacement, the same for all curves, because trials of one seed share data order and head.
    Points that coincide are all on the front.

    Args:
        curves: of one setting; only the seeds that all of them have are used.
    Returns:
        Per curve one number per budget; NaN with fewer than two shared seeds.
    """
    seeds = sorted(set.intersection(*(set(curve.seeds) for curve in curves)))
    sizes = [len(curve.budgets) for curve in curves]
    if len(seeds) < 2:
        return [np.full(size, np.nan) for size in sizes]
    rows = [[curve.seeds.index(seed) for seed in seeds] for curve in curves]
    kept = np.concatenate([curve.kept[row] for curve, row in zip(curves, rows, strict=True)], axis=1)
    gains = np.concatenate([curve.sign * curve.scores[row] for curve, row in zip(curves, rows, strict=True)], axis=1)
    # counts, not shares: sums of parameters are exact, so that equal ones stay equal
    drawn = np.random.default_rng(0).multinomial(len(seeds), [1 / len(seeds)] * len(seeds), size=DRAWS)
    found = np.zeros(kept.shape[1])
    for parameters, scores in zip((drawn @ kept).tolist(), (drawn @ gains).tolist(), strict=True):
        found[front(parameters, scores)] += 1 / DRAWS
    return np.split(found, np.cumsum(sizes)[:-1])
