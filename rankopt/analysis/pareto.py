"""Pareto front and hypervolume: higher score, fewer parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence


def front(parameters: Sequence[float], scores: Sequence[float]) -> list[int]:
    """Indices of the points that no other point dominates.

    Point j dominates i when `parameters_j <= parameters_i` and `scores_j >= scores_i`, one of the two strictly.

    Args:
        parameters: fewer is better.
        scores: higher is better; a point with a NaN score is never on the front.
    Returns:
        Indices by rising parameters; equal points are all included.
    Raises:
        ValueError: the lengths differ.
    Example:
        >>> front([10, 20, 20, 40], [0.5, 0.7, 0.6, 0.7])
        [0, 1]
    """
    points = [(cost, -score, index) for index, (cost, score) in enumerate(zip(parameters, scores, strict=True))]
    kept: list[int] = []
    best, best_cost = math.inf, -math.inf
    for cost, loss, index in sorted(point for point in points if not math.isnan(point[1])):
        if loss < best or (loss == best and cost == best_cost):
            kept.append(index)
            best, best_cost = loss, cost
    return kept


def hypervolume(parameters: Sequence[float], scores: Sequence[float], reference: tuple[float, float]) -> float:
    """The area that the points dominate.

        HV = area of the union over i of [parameters_i, reference parameters] x [reference score, score_i]

    Args:
        parameters: fewer is better.
        scores: higher is better.
        reference: parameters and score of the reference point; points beyond it add nothing.
    Example:
        >>> hypervolume([10, 20], [0.50, 0.75], (40, 0.25))
        12.5

    Source: Zitzler and Thiele 1998 (PPSN V), in two dimensions.
    """
    most, least = reference
    inside = [(cost, score) for cost, score in zip(parameters, scores, strict=True) if cost < most and score > least]
    costs, values = [cost for cost, _ in inside], [score for _, score in inside]
    area, reached = 0.0, least
    for index in front(costs, values):  # parameters rise, and so do scores
        area += (most - costs[index]) * (values[index] - reached)
        reached = values[index]
    return area
