"""Every allocator against the control: one verdict for the study, and one for every task and budget."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import special

from rankopt.analysis.contrast import Contrast, FlipContrast, contrast
from rankopt.analysis.example_errors import ExampleErrors, Predictions, Weights
from rankopt.analysis.frame import CONTROL
from rankopt.analysis.moderation import Variance, moderated
from rankopt.analysis.pairs import Pair, pairs
from rankopt.analysis.statistics import NAN, SAME, Step, holm

CONDITION = ["setting", "budget"]
"""Trials that agree in these columns have the same task and budget, and may be compared."""

STUDY_SHARE = 0.8
"""Share of the family-wise error rate for the verdicts on the whole study; the rest goes to tasks and budgets."""

RANGES = {
    "accuracy": (0.0, 1.0), "f1": (0.0, 1.0), "matthews": (-1.0, 1.0), "pearson": (-1.0, 1.0), "spearman": (-1.0, 1.0)
}  # fmt: skip
"""Metric -> its smallest and largest value. Differences are averaged only over tasks with such metrics."""

STATISTICS = [
    "n", "score", "control", "difference", "low", "high", "p", "p_holm", "level", "detectable", "detectable_low",
    "detectable_high", "needed", "test", "collapsed", "unequal", "at_budget", "kept", "control_kept", "configurations",
    "control_configurations", "examples", "examples_low", "examples_high", "both_low", "both_high", "mcnemar",
    "verdict",
]  # fmt: skip
ARMS = ["scope", "allocator", "name", "settings", "budgets", *STATISTICS]
CELLS = ["setting", "budget", "allocator", "name", *STATISTICS, "key", "control_key"]


class Comparison(NamedTuple):
    """Rows for the study as a whole (`arms`) and for every task and budget (`cells`), with the same statistics."""

    arms: pd.DataFrame
    cells: pd.DataFrame


def compare(
    points: pd.DataFrame, averages: pd.DataFrame, control: str = CONTROL, alpha: float = 0.05,
    predictions: Predictions = lambda key: None,
) -> Comparison:  # fmt: skip
    """Paired differences between every allocator and the control, at equal task, parameters and seed (see `pairs`).

    For the study, differences are averaged over the budgets that both sides have at a seed; seeds are nested in tasks,
    which have equal weight. Tests are those of `contrast`: t-tests, or sign flips. All of them
    are one family of Holm's procedure: 80 % of the error rate goes to the verdicts on the study, 20 % to those on
    tasks and budgets. With one task and budget the two are the same test.

    Args:
        points: from `frame.tidy`.
        averages: from `averages.average`.
        control: label of the allocator to compare with.
        alpha: probability of any wrong "better" or "worse".
        predictions: of trials, for intervals over examples.
    Returns:
        `arms` has one row per allocator, or one per allocator and task (`scope`) where a task's metric has no range, so
        that tasks cannot be averaged. `cells` has one row per task, budget and allocator. Both have these columns: `n`,
        seeds per task; means over these seeds of the quantities of `Pair.values`; `low` and `high`, the interval that
        inverts the test at the level at which it was made (`level`), NaN where it excludes no difference that the
        metric can show; `p_holm`; `detectable`, the smallest true
        difference with 80 % power, infinite where the metric cannot show it, with its 95 % interval; `needed`, the
        seeds per task that detect the observed difference; `verdict`, see `verdict`. Where predictions are known:
        `examples`, their number; `examples_low` and `examples_high`, the interval over examples for these trainings,
        at the same level; `both_low` and `both_high`, the interval over seeds and examples; `mcnemar`, a p-value over
        examples, for accuracies of one task and budget.
    """
    cells = pairs(points, averages, control)
    errors = ExampleErrors(points, cells, predictions)
    averaged = all(cell.metric in RANGES for cell in cells)
    groups: dict[tuple[str, str], list[Pair]] = defaultdict(list)
    for cell in cells:
        groups["" if averaged else cell.setting, cell.allocator].append(cell)
    arms = _together(groups.values(), lambda pair: None)
    parts = _together([[cell] for cell in cells], lambda pair: pair.budget) if len(cells) > len(arms) else []
    weights = [STUDY_SHARE / len(arms)] * len(arms) + [(1 - STUDY_SHARE) / len(parts)] * len(parts) if parts else None
    outcomes = holm([one.p for one in (*arms, *parts)], alpha, weights)
    rows = [one.row(outcome, alpha, errors) for one, outcome in zip((*arms, *parts), outcomes, strict=True)]
    of_arms = [
        {"scope": scope, "allocator": allocator, "name": group[0].name, **row}
        | {"settings": len({cell.setting for cell in group}), "budgets": len({cell.budget for cell in group})}
        for ((scope, allocator), group), row in zip(groups.items(), rows, strict=False)
    ]
    # with one pair per allocator, arms and cells are in the same order
    of_cells = [{**vars(cell), **row} for cell, row in zip(cells, rows[len(arms) :] if parts else rows, strict=True)]
    return Comparison(pd.DataFrame(of_arms, columns=ARMS), pd.DataFrame(of_cells, columns=CELLS))


@dataclass(frozen=True)
class Group:
    """Pairs of one allocator at one or several tasks and budgets, and the contrast over them.

    Attributes:
        pairs: at least one.
        variances: task -> variance of the differences, estimated with those of the other allocators.
    """

    pairs: Sequence[Pair]
    variances: Mapping[str, Variance] = field(default_factory=dict)

    def by_seed(self, quantity: str) -> dict[str, dict[int, float]]:
        """For every task and seed the mean over the budgets that both sides have."""
        found: dict[str, dict[int, list[float]]] = {}
        for pair in self.pairs:
            for seed, value in pair.values[quantity].items():
                found.setdefault(pair.setting, {}).setdefault(seed, []).append(value)
        return {setting: {seed: _mean(v) for seed, v in sorted(seeds.items())} for setting, seeds in found.items()}

    def strata(self, quantity: str) -> list[list[float]]:
        """The values of `by_seed`, a list for every task."""
        return [list(seeds.values()) for seeds in self.by_seed(quantity).values()]

    @property
    def collapsed(self) -> bool:
        """Whether a training predicts the same for every example, so that differences are not normal."""
        return any(pair.collapsed for pair in self.pairs)

    @cached_property
    def contrast(self) -> Contrast | None:
        """The contrast of the differences; None without a shared seed."""
        strata = self.by_seed("difference")
        known = [self.variances[setting] for setting in strata if setting in self.variances]
        values = [list(seeds.values()) for seeds in strata.values()]
        return contrast(values, self.collapsed, known if len(known) == len(strata) else None) if strata else None

    @property
    def unbiased(self) -> bool:
        """Whether configurations were chosen by other seeds than those that are reported."""
        return all(pair.unbiased for pair in self.pairs)

    @property
    def p(self) -> float:
        """The p-value; NaN if no test is possible."""
        return NAN if self.contrast is None or self.contrast.constant or not self.unbiased else self.contrast.p

    def mean(self, quantity: str) -> float:
        """The mean over tasks of a quantity's mean over seeds."""
        return _mean(map(_mean, self.strata(quantity)))

    @property
    def weights(self) -> Weights:
        """For every task the weight of every trial's score in the mean difference of that task."""
        found: dict[str, dict[str, float]] = {}
        for setting in {pair.setting: None for pair in self.pairs}:
            own = [pair for pair in self.pairs if pair.setting == setting]
            budgets = Counter(seed for pair in own for seed in pair.trials)
            weights: dict[str, float] = defaultdict(float)
            for pair in own:
                for seed, trials in pair.trials.items():
                    for key, weight in trials.items():
                        weights[key] += weight / budgets[seed] / len(budgets)
            if weights:
                found[setting] = weights
        return found

    def row(self, outcome: Step, alpha: float, errors: ExampleErrors) -> dict[str, Any]:
        """The statistics, at the level of Holm's procedure."""
        row: dict[str, Any] = {
            **dict.fromkeys(STATISTICS, NAN),
            "n": 0, "test": "", "verdict": "no shared seed", "p_holm": outcome.p, "level": outcome.level,
            "collapsed": self.collapsed,
            "unequal": any(pair.unequal for pair in self.pairs),
            "configurations": max(pair.configurations for pair in self.pairs),
            "control_configurations": max(pair.control_configurations for pair in self.pairs),
        }  # fmt: skip
        if self.contrast is None:
            return row
        row |= {quantity: self.mean(quantity) for quantity in self.pairs[0].values}
        row |= {"n": self.contrast.n, "p": self.p}
        if not math.isnan(self.p):
            row |= self._tested(self.contrast, outcome.level, row["control"])
        row |= self._over_examples(errors, row["difference"], outcome.level)
        return row | {"verdict": verdict(self.contrast, outcome.p, row["detectable"], self.unbiased, alpha)}

    def _tested(self, found: Contrast, level: float, control: float) -> dict[str, Any]:
        """Interval and power, within what the metric can show."""
        least, most = self._range
        room = max(most - control, control - least)
        low, high = found.interval(level)
        detectable, surest, weakest = (size if size <= room else math.inf for size in found.detectable(level))
        low, high = self._informative(low, high)
        return {
            "low": low, "high": high, "detectable": detectable, "detectable_low": surest, "detectable_high": weakest,
            "needed": found.seeds_for(found.mean, level) or NAN,
            "test": "sign flips" if isinstance(found, FlipContrast) else "t",
        }  # fmt: skip

    def _over_examples(self, errors: ExampleErrors, difference: float, level: float) -> dict[str, Any]:
        """Intervals over examples, and over seeds and examples.

        The deviations of the two sources are independent and add up, so their intervals do too, by the method of
        variance estimates recovery (Zou and Donner 2008). The result contains the interval over seeds.
        """
        error = errors.error(self.weights)
        if math.isnan(error):
            return {}
        reach = -float(special.ndtri(level / 2)) * error
        row = {"examples": errors.size(self.weights), "mcnemar": NAN}
        if len(self.pairs) == 1:
            row["mcnemar"] = errors.mcnemar(self.pairs[0])
        low, high = (NAN, NAN) if math.isnan(self.p) or self.contrast is None else self.contrast.interval(level)
        both = difference - math.hypot(difference - low, reach), difference + math.hypot(high - difference, reach)
        for name, ends in {"examples": (difference - reach, difference + reach), "both": both}.items():
            row[f"{name}_low"], row[f"{name}_high"] = self._informative(*ends)
        return row

    def _informative(self, low: float, high: float) -> tuple[float, float]:
        """An interval within what the metric can show; NaN if it is all of that, because it then says nothing."""
        least, most = self._range
        low, high = max(low, least - most), min(high, most - least)
        return (NAN, NAN) if (low, high) == (least - most, most - least) else (low, high)

    @property
    def _range(self) -> tuple[float, float]:
        """The smallest and largest mean score that the metrics can show."""
        ranges = [RANGES.get(pair.metric, (-math.inf, math.inf)) for pair in self.pairs]
        least, most = (_mean(ends) for ends in zip(*ranges, strict=True))
        return least, most


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _together(groups: Iterable[Sequence[Pair]], beside: Callable[[Pair], float | None]) -> list[Group]:
    """Groups whose variances are estimated together where they have the same task and the same value of `beside`.

    Those with a collapsed training stay out of it.
    """
    plain = [Group(group) for group in groups]
    differences: dict[tuple[str, float | None], dict[int, dict[int, float]]] = defaultdict(dict)
    for index, group in enumerate(plain):
        for setting, seeds in group.by_seed("difference").items() if not group.collapsed else ():
            differences[setting, beside(group.pairs[0])][index] = seeds
    variances: dict[int, dict[str, Variance]] = defaultdict(dict)
    for (setting, _), rows in differences.items():
        for index, variance in moderated(rows).items():
            variances[index][setting] = variance
    return [Group(group.pairs, variances[index]) for index, group in enumerate(plain)]


def verdict(found: Contrast, p_holm: float, detectable: float, unbiased: bool = True, alpha: float = 0.05) -> str:
    """The conclusion of a comparison.

    "too few seeds": no difference that the metric can show would have been detected (with 80 % power, or at all).

    Example:
        >>> verdict(contrast([[0.02]], False), math.nan, math.nan)
        'one seed'
        >>> verdict(contrast([[0.02, 0.01, 0.03]], False), 0.01, 0.03)
        'better'
    """
    if found.constant:
        if found.n == 1:
            return "one seed"
        return "equal at every seed" if abs(found.mean) <= SAME else "same difference at every seed"
    if not unbiased:
        return "chosen by the same seeds"
    if math.isnan(p_holm):
        return "one seed"
    if p_holm <= alpha:
        return "better" if found.mean > 0 else "worse"
    return "too few seeds" if math.isinf(detectable) else "not significant"
