"""Aggregates of runs over several tasks, with stratified bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Runs = Sequence[Sequence[float] | Floats]
"""Scores of one allocator: for every task one per seed, higher is better; leading axes are samples of them."""

DRAWS = 2000


def interquartile_mean(runs: Runs) -> Floats:
    """The mean of the middle half of all runs of all tasks: less noisy than the median, robust to outliers.

    Example:
        >>> float(interquartile_mean([[0.0, 0.5], [0.7, 9.0]]))
        0.6

    Source: Agarwal et al. 2021, Deep reinforcement learning at the edge of the statistical precipice, section 4.3.
    """
    ordered = np.sort(np.concatenate(runs, axis=-1), axis=-1)
    size = ordered.shape[-1]
    return np.asarray(ordered[..., size // 4 : size - size // 4].mean(-1))


def performance_profile(runs: Runs, thresholds: Sequence[float]) -> Floats:
    """The share of runs whose score is above each threshold, mean over tasks.

        F(tau) = 1/M sum_m 1/N_m sum_n 1[x_mn > tau]

    Source: Dolan and Moré 2002; for scores of runs Agarwal et al. 2021, section 4.2.
    """
    above = [(np.asarray(task, float)[:, None] > np.asarray(thresholds)).mean(0) for task in runs]
    return np.asarray(np.mean(above, axis=0))


def probability_of_improvement(runs: Runs, others: Runs) -> Floats:
    """How likely a run of the first allocator beats one of the second on a task drawn at random; ties count half.

        P(X > Y) = 1/M sum_m P(X_m > Y_m),    P(X_m > Y_m) = U_m / (N_m K_m)

    with the Mann-Whitney statistic U.

    Example:
        >>> float(probability_of_improvement([[0.6, 0.7], [0.2]], [[0.5, 0.65], [0.2]]))
        0.625

    Source: Agarwal et al. 2021, section 4.3.
    """
    found = []
    for first, second in zip(runs, others, strict=True):
        gap = np.asarray(first, float)[..., :, None] - np.asarray(second, float)[..., None, :]
        found.append((np.sign(gap) + 1).mean((-2, -1)) / 2)
    return np.asarray(np.mean(found, axis=0))


def stratified_interval(
    estimator: Callable[..., Floats], *runs: Runs, level: float = 0.95, draws: int = DRAWS
) -> tuple[float, float]:
    """The percentile interval of an estimator when runs are drawn again with replacement within every task.

    Args:
        estimator: of one argument per given `Runs`, over their last axis.
        runs: of one or more allocators, which are drawn independently of one another.
        level: of the interval.
        draws: bootstrap samples, drawn with a fixed seed.
    Returns:
        NaN where a task has one run only.

    Source: Agarwal et al. 2021, section 4.1.
    """
    if min(len(task) for one in runs for task in one) < 2:
        return float("nan"), float("nan")
    random = np.random.default_rng(0)
    drawn = [
        [np.asarray(task, float)[random.integers(len(task), size=(draws, len(task)))] for task in one] for one in runs
    ]
    low, high = np.quantile(estimator(*drawn), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def shared_tasks(runs: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, list[Sequence[float]]]:
    """Allocator -> its runs of the tasks that all allocators have, in the same order.

    Args:
        runs: allocator -> task -> scores.
    """
    tasks = sorted(set.intersection(*(set(one) for one in runs.values()))) if runs else []
    return {allocator: [one[task] for task in tasks] for allocator, one in runs.items()}
