"""What the scores of nested ranks say: which rank is enough, what more would buy, and whether a pattern helps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rankopt.analysis.resamples import interval
from rankopt.analysis.statistics import SAME


class Plan(NamedTuple):
    """A time plan: steps of the nested training, those for every learning rate, and those of a full training."""

    steps: int
    sweep: int
    full_steps: int


@dataclass(frozen=True, eq=False)
class Scored:
    """A score, higher is better, and that of its bootstrap resamples, `(resamples,)`, which all on a split share."""

    score: float
    drawn: NDArray[np.float64]

    def against(self, other: Scored, name: str, comparisons: int = 1) -> Against:
        """The difference to another, paired over examples."""
        low, high = interval(self.drawn - other.drawn, comparisons)
        return Against(name, self.score - other.score, low, high)


@dataclass(frozen=True)
class Level:
    """One uniform rank, cut from the nested training.

    Attributes:
        rank: in every adapted module.
        parameters: of the adapter.
        search: score on the search split, on which the rank is chosen.
        low, high: its 95 % interval over examples.
        report: score on the report split; None for ranks that are not compared there.
    """

    rank: int
    parameters: int
    search: float
    low: float
    high: float
    report: float | None


@dataclass(frozen=True)
class Against:
    """A difference, paired over examples.

    Attributes:
        name: what is compared: a pattern of the suggested rank's cost, or a larger rank.
        difference: to the suggested uniform rank; positive is better.
        low, high: its interval: 95 %, for all patterns together where there are several.
    """

    name: str
    difference: float
    low: float
    high: float

    @property
    def supported(self) -> bool:
        """Whether it is evidence of an improvement: examples that are all alike give an interval without width."""
        return self.low > 0 and self.high - self.low > SAME

    def __str__(self) -> str:
        return f"{self.difference:+.4f} ({self.low:+.4f} to {self.high:+.4f})"


def level(rank: int, parameters: int, search: Scored, report: Scored | None, sign: int) -> Level:
    """A rank's scores in the direction of the metric."""
    low, high = interval(sign * search.drawn)
    return Level(rank, parameters, sign * search.score, low, high, sign * report.score if report else None)


def unlearned(levels: Mapping[int, Scored], baseline: Scored) -> bool:
    """Whether no rank scores above a baseline: the 95 % interval of the best one's difference includes 0.

    Example:
        >>> drawn = np.array([-0.01, 0.0, 0.01])
        >>> unlearned({1: Scored(0.6, 0.6 + drawn), 2: Scored(0.5, 0.5 + drawn)}, Scored(0.5, 0.5 - drawn))
        False
        >>> unlearned({1: Scored(0.5, 0.5 + drawn)}, Scored(0.5, 0.5 + drawn))
        True
    """
    best = max(levels.values(), key=lambda one: one.score)
    return not best.against(baseline, "baseline").low > 0


def sentence(rank: int, winner: str | None, patterns: Mapping[str, Against], more: Sequence[Against]) -> str:
    """The suggestion in one sentence.

    Args:
        rank: the suggested uniform rank.
        winner: the pattern that the evidence supports, if one.
        patterns: all that were compared.
        more: larger ranks against the suggested one, the next one first.
    """
    if winner:
        better = f"better by {patterns[winner]} than uniform rank {rank}"
        return f"the pattern {winner!r} at the cost of rank {rank}: {better}"
    why = "no evidence that a pattern helps" if patterns else "no pattern was compared at the largest rank"
    gain = f"; {more[0].name} against it: {more[0]}, positive is better" if more else ""
    return f"uniform rank {rank}; {why}{gain}"


def undecided(plan: Plan, metric: str, best: float, baseline: float, name: str) -> str:
    """The sentence where the network has not learned, so that its ranks cannot be compared.

    Args:
        plan: how long it was trained.
        metric: of the scores.
        best: the highest score of a rank.
        baseline: the score to exceed.
        name: of the baseline.
    """
    more = "a longer training (--epochs E)" if plan.steps == plan.full_steps else "more time (--minutes M)"
    return (
        f"undecided: the model has not learned yet. After {plan.steps} steps no rank's {metric} is significantly "
        f"better than that of {name} (best rank {best:.4f}, baseline {baseline:.4f}). Use {more} or more data"
    )
