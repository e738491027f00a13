"""Everything a section may look at, derived from the results once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd
from pydantic import ValidationError

from rankopt.analysis.comparison import average, compare
from rankopt.analysis.frame import VARIANTS, tidy
from rankopt.analysis.pareto import front
from rankopt.analysis.search import SearchRecord
from rankopt.core.result import TrialResult
from rankopt.core.study_spec import StudySpec
from rankopt.core.trial_spec import TrialSpec, decode
from rankopt.report.chart import Style
from rankopt.report.palette import styles


@dataclass(frozen=True)
class Evidence:
    """A study and its results.

    Attributes:
        study: the spec.
        results: sorted by key.
        counts: trials of the study's storage by state, for example `{"complete": 12, "waiting": 3}`; may be empty.
        search: what a search left beside its results; nothing of a grid.
    """

    study: StudySpec
    results: tuple[TrialResult, ...]
    counts: Mapping[str, int]
    search: SearchRecord = field(default_factory=SearchRecord)

    @classmethod
    def of(
        cls, study: StudySpec, results: Sequence[TrialResult], counts: Mapping[str, int],
        search: SearchRecord | None = None,
    ) -> Evidence:  # fmt: skip
        """The evidence in results that may come in any order.

        A complete result stands for its key: two workers may have run the same trial, and a failed trial may have been
        repeated with success; counting both would count a seed twice.
        """
        ordered = sorted(results, key=lambda result: (result.key, result.status == "failed", result.model_dump_json()))
        first = {result.key: result for result in reversed(ordered)}
        return cls(study, tuple(first[key] for key in sorted(first)), counts, search or SearchRecord())

    @cached_property
    def specs(self) -> list[TrialSpec]:
        """The specs of the results; what a search proposed in vain may be no valid trial and has none."""
        found = []
        for result in self.results:
            with suppress(ValidationError):
                found.append(decode(TrialSpec, result.spec))
        return found

    @cached_property
    def points(self) -> pd.DataFrame:
        """See `rankopt.analysis.frame.tidy`."""
        return tidy(self.results, VARIANTS if self.study.listed else 1)

    @cached_property
    def averages(self) -> pd.DataFrame:
        """See `rankopt.analysis.comparison.average`."""
        return average(self.points)

    @cached_property
    def chosen(self) -> pd.DataFrame:
        """The averages of the configurations that are compared."""
        return self.averages[self.averages["chosen"].astype(bool)]

    @cached_property
    def comparisons(self) -> pd.DataFrame:
        """See `rankopt.analysis.comparison.compare`."""
        return compare(self.points, self.averages)

    @cached_property
    def by_key(self) -> dict[str, TrialResult]:
        """The results by key."""
        return {result.key: result for result in self.results}

    @cached_property
    def styles(self) -> dict[str, Style]:
        """The style of every allocator label."""
        return styles(self.points["allocator"])

    @cached_property
    def settings(self) -> list[str]:
        """The settings that have a complete trial, sorted."""
        return sorted(set(self.points["setting"]))

    def complete(self, setting: str) -> list[TrialResult]:
        """The complete results of a setting, sorted by key."""
        keys = set(self.points.loc[self.points["setting"] == setting, "key"])
        return [result for result in self.results if result.key in keys]

    def front(self, setting: str) -> pd.DataFrame:
        """The averages within the study's constraint that none dominates on the search split, the cheapest first."""
        rows = self.averages[self.averages["setting"] == setting]
        rows = rows[rows["kept"] <= self.study.constraints.get("parameters", math.inf)]
        return rows.iloc[front(rows["kept"].tolist(), rows["search"].tolist())]

    def runs(self, setting: str, budget: float, allocator: str) -> pd.DataFrame:
        """The own points of the chosen configuration, one per seed; NaN asks for the trials without a budget."""
        rows = at(self.chosen, setting, budget)
        rows = rows[rows["allocator"] == allocator]
        own = self.points[self.points["own"].astype(bool)]
        return own[own["configuration"].isin(rows["configuration"]) & (own["setting"] == setting)]

    def typical_budget(self, setting: str) -> float:
        """The middle one of the budgets at which the most allocators have a trial; NaN where none has a budget."""
        sizes = self.chosen[self.chosen["setting"] == setting].groupby("budget")["allocator"].nunique()
        full = sorted(sizes[sizes == sizes.max()].index)
        return float(full[(len(full) - 1) // 2]) if full else float("nan")


def at(frame: pd.DataFrame, setting: str, budget: float) -> pd.DataFrame:
    """The rows of a setting and a budget; NaN asks for those without a budget."""
    rows = frame[frame["setting"] == setting]
    return rows[rows["budget"].isna() if math.isnan(budget) else rows["budget"] == budget]
