"""What sections read: a study, its results, and what follows from them, computed once."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import pandas as pd
from pydantic import BaseModel, ValidationError

from rankopt.analysis.averages import average
from rankopt.analysis.comparison import Comparison, compare
from rankopt.analysis.conditions import separated
from rankopt.analysis.curve_summaries import Summaries, summarize_curves
from rankopt.analysis.curves import Curve, curves
from rankopt.analysis.found_patterns import found_patterns
from rankopt.analysis.frame import tidy
from rankopt.analysis.pareto import front
from rankopt.analysis.search import SearchRecord, configuration
from rankopt.analysis.task_summaries import TaskSummaries, summarize_tasks
from rankopt.core.result import TrialResult, defect
from rankopt.core.spec import decode
from rankopt.core.study_spec import StudySpec
from rankopt.core.text import visible
from rankopt.core.trial_spec import TrialSpec
from rankopt.report.chart import Style
from rankopt.report.formatting import metric_label
from rankopt.report.palette import styles

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Evidence:
    """A study and its results.

    Attributes:
        study: the spec.
        results: of the study's plan, sorted by key. A damaged record is a failed result.
        counts: trials in the study's storage by state, for example `{"complete": 12, "waiting": 3}`; may be empty.
        search: what the storage knows beside the results.
        planned: keys of the planned trials; empty if a search proposes them.
        unplanned: results of trials that are not in the study's current plan, sorted by key.
        tuning: results of tuning trials, sorted by key; no other table or figure has them.
        parts: of several studies on one page, the evidence of each; see `joint.joint_evidence`.
    """

    study: StudySpec
    results: tuple[TrialResult, ...]
    counts: Mapping[str, int]
    search: SearchRecord = field(default_factory=SearchRecord)
    planned: frozenset[str] = frozenset()
    unplanned: tuple[TrialResult, ...] = ()
    tuning: tuple[TrialResult, ...] = ()
    parts: tuple[Evidence, ...] = ()

    @classmethod
    def of(
        cls, study: StudySpec, results: Sequence[TrialResult], counts: Mapping[str, int],
        search: SearchRecord | None = None,
    ) -> Evidence:  # fmt: skip
        """The evidence in results, which may come in any order.

        Several results may share a key, for example after a retry. A complete one is preferred, so that no seed is
        counted twice.
        """
        record = search or SearchRecord()
        usable = [_usable(study, cleaned(result)) for result in results]
        repeated = len({result.key for result in usable}) < len(usable)

        def order(result: TrialResult) -> tuple[str, bool, str]:
            return result.key, result.status == "failed", result.model_dump_json() if repeated else ""

        ordered = sorted(usable, key=order)
        first = {result.key: result for result in reversed(ordered)}
        plan = planned_keys(study, record)
        planned = tuple(first[key] for key in sorted(first) if key in plan or not plan)
        unplanned = tuple(first[key] for key in sorted(first) if plan and key not in plan)
        tuning = tuple(result for result in planned if study.is_tuning(result.spec))
        own = tuple(result for result in planned if not study.is_tuning(result.spec))
        return cls(cleaned(study), own, counts, record, frozenset(plan), unplanned, tuning)

    @cached_property
    def specs(self) -> list[TrialSpec]:
        """The specs of the results, without invalid proposals of a search."""
        found = []
        for result in self.results:
            with suppress(ValidationError):
                found.append(decode(TrialSpec, result.spec))
        return found

    @cached_property
    def missing(self) -> frozenset[str]:
        """Keys of the planned trials without a complete result."""
        return self.planned - {result.key for result in (*self.results, *self.tuning) if result.status == "complete"}

    @cached_property
    def points(self) -> pd.DataFrame:
        """See `rankopt.analysis.frame.tidy`."""
        points = tidy(self.results, pooled=not self.study.listed)
        if not self.parts:
            return points
        first, *others = self.parts
        suffixes = {key: f" [{part.study.name}]" for part in reversed(others) for key in part.by_key}
        suffixes |= dict.fromkeys(first.by_key, "")
        points = separated(points, self.results)
        return points.assign(allocator=points["allocator"] + points["key"].map(suffixes))

    @cached_property
    def averages(self) -> pd.DataFrame:
        """See `rankopt.analysis.averages.average`."""
        return average(self.points)

    @cached_property
    def chosen(self) -> pd.DataFrame:
        """The averages of the best configuration of each allocator, setting and budget."""
        return self.averages[self.averages["chosen"].astype(bool)]

    @cached_property
    def comparison(self) -> Comparison:
        """See `rankopt.analysis.comparison.compare`."""
        return compare(self.points, self.averages, predictions=self.search.predictions)

    @cached_property
    def found_patterns(self) -> pd.DataFrame:
        """See `rankopt.analysis.found_patterns.found_patterns`."""
        return found_patterns(self.results, self.points, self.averages, self.search.predictions)

    @cached_property
    def curves(self) -> list[Curve]:
        """See `rankopt.analysis.curves.curves`; none of a search, whose proposals differ in more than their budget."""
        return curves(self.points) if self.study.listed else []

    @cached_property
    def curve_summaries(self) -> Summaries:
        """See `rankopt.analysis.curve_summaries.summarize_curves`."""
        return summarize_curves(self.curves)

    @cached_property
    def task_summaries(self) -> TaskSummaries | None:
        """See `rankopt.analysis.task_summaries.summarize_tasks`."""
        return summarize_tasks(self.curves)

    @cached_property
    def by_key(self) -> dict[str, TrialResult]:
        """Key -> result."""
        return {result.key: result for result in self.results}

    @cached_property
    def styles(self) -> dict[str, Style]:
        """Allocator label -> style."""
        return styles(self.points["allocator"])

    @cached_property
    def settings(self) -> list[str]:
        """The settings with a complete trial, sorted."""
        return sorted(set(self.points["setting"]))

    def words(self, row: Any, key: str = "key") -> str:
        """The values of a row's trial in the study's dimensions, except those in its setting, allocator and budget.

        Args:
            row: of `averages` or `comparison.cells`.
            key: the column with the trial's key.
        """
        shown = (
            *(["allocator", "tuner"] if "(" in row["allocator"] else []),
            *(["task", "model"] if "(" in row["setting"] else []),
        )
        if (row[key], shown) not in self._words:
            study = next((part.study for part in self.parts if row[key] in part.by_key), self.study)
            self._words[row[key], shown] = configuration(study, self.by_key[row[key]].spec, shown)
        return self._words[row[key], shown]

    @cached_property
    def _words(self) -> dict[tuple[str, tuple[str, ...]], str]:
        """What `words` has answered: decoding the specs of thousands of trials takes seconds."""
        return {}

    def metric(self, setting: str, split: str = "report") -> str:
        """The primary metric of a setting and the split it is measured on, in words."""
        first = self.points[self.points["setting"] == setting].iloc[0]
        label = metric_label(first["metric"], first["split"] if split == "report" else split)
        return f"{label}, lower is better" if first["sign"] < 0 else label

    def complete(self, setting: str) -> list[TrialResult]:
        """The complete results of a setting, sorted by key."""
        keys = set(self.points.loc[self.points["setting"] == setting, "key"])
        return [result for result in self.results if result.key in keys]

    def front(self, setting: str) -> pd.DataFrame:
        """The Pareto front by search score of the averages within the study's constraint, the cheapest first."""
        rows = self.averages[self.averages["setting"] == setting]
        rows = rows[rows["kept"] <= self.study.constraints.get("parameters", math.inf)]
        return rows.iloc[front(rows["kept"].tolist(), rows["gain"].tolist())]

    def runs(self, setting: str, budget: float, allocator: str) -> pd.DataFrame:
        """The own points of the chosen configuration, one per seed; a NaN budget selects trials without a budget."""
        rows = at(self.chosen, setting, budget)
        rows = rows[rows["allocator"] == allocator]
        own = self.points[self.points["own"].astype(bool)]
        return own[own["configuration"].isin(rows["configuration"]) & (own["setting"] == setting)]

    def typical_budget(self, setting: str) -> float:
        """The median of the budgets at which most allocators have a trial; NaN if no trial has a budget."""
        sizes = self.chosen[self.chosen["setting"] == setting].groupby("budget")["allocator"].nunique()
        full = sorted(sizes[sizes == sizes.max()].index)
        return float(full[(len(full) - 1) // 2]) if full else float("nan")


def at(frame: pd.DataFrame, setting: str, budget: float) -> pd.DataFrame:
    """The rows of a setting and a budget; NaN selects those without a budget."""
    rows = frame[frame["setting"] == setting]
    return rows[rows["budget"].isna() if math.isnan(budget) else rows["budget"] == budget]


def planned_keys(study: StudySpec, record: SearchRecord) -> set[str]:
    """The keys of a study's planned trials; empty if they follow from results, or a search proposes them."""
    if not study.listed:
        return set()
    with suppress(ValidationError):
        if record.plan or study.tune:
            return set(record.plan)
        return {study.trial(assignment).key for assignment in study.assignments()}
    return set()


NUMBERS = {"ranks", "losses", "looks"}
"""Fields of a result that hold no text, and most of its numbers."""

SUSPECT = re.compile(r"\\u00|\\[bfr]|[\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""In JSON: what `visible` may remove. Texts without it, nearly all, need no closer look."""


def cleaned(value: M) -> M:
    """A model without ANSI sequences and control characters in its texts: no output format may contain them."""
    text = value.model_dump_json(by_alias=True, exclude=NUMBERS)
    if not SUSPECT.search(text):
        return value
    data = json.loads(value.model_dump_json(by_alias=True))
    if all(visible(text) == text for text in _texts(data)):
        return value
    return type(value).model_validate_json(json.dumps(_cleaned(data)))


def _texts(data: Any) -> Iterator[str]:
    if isinstance(data, str):
        yield data
    for part in [*data.keys(), *data.values()] if isinstance(data, dict) else data if isinstance(data, list) else ():
        yield from _texts(part)


def _cleaned(data: Any) -> Any:
    if isinstance(data, str):
        return visible(data)
    if isinstance(data, dict):
        return {visible(key): _cleaned(part) for key, part in data.items()}
    return [_cleaned(part) for part in data] if isinstance(data, list) else data


def _usable(study: StudySpec, result: TrialResult) -> TrialResult:
    """A result as it is, or a failed one if its record is damaged, so that the report can be made without it."""
    if not (fault := defect(result)):
        return result
    reason = (
        f"the stored result is damaged: {fault}; remove it with rankopt delete {study.name} --trial {result.key}, "
        "then run the study again"
    )
    return result.model_copy(update={"status": "failed", "reason": reason, "points": ()})
