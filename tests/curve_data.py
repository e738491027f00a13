"""Curves with given scores, for tests of analysis."""

from __future__ import annotations

import numpy as np

from rankopt.analysis.curves import Curve


def curve(
    scores: list[list[float]],
    kept: list[float] = [99, 999],  # noqa: B006
    allocator: str = "uniform",
    setting: str = "rte",
    sign: int = 1,
    metric: str = "accuracy",
) -> Curve:
    """A row of scores per seed, at these parameters."""
    values = np.array(scores, float)
    seeds = tuple(range(len(values)))
    parameters = np.tile(np.array(kept, float), (len(values), 1))
    return Curve(
        setting, allocator, metric, sign, tuple(map(float, range(1, len(kept) + 1))), seeds, parameters, values
    )
