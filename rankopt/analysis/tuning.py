"""The tuning trials of a comparison: what was tried for every configuration, and which values were best."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from rankopt.core.result import TrialResult
from rankopt.core.spec import decode
from rankopt.core.study_spec import StudySpec
from rankopt.core.trial_spec import TrialSpec


class Tuned(NamedTuple):
    """The tuning trials of one configuration.

    Attributes:
        spec: its trial at the first combination.
        results: one per combination of the tuned values, in the study's order; None where it is missing.
    """

    spec: TrialSpec
    results: tuple[TrialResult | None, ...]

    @property
    def finished(self) -> bool:
        """Whether every combination is complete or has failed."""
        return None not in self.results

    @property
    def scores(self) -> tuple[float, ...]:
        """The search score at every combination, NaN where there is none."""
        return tuple(
            result.score("search") if result is not None and result.status == "complete" else math.nan
            for result in self.results
        )

    @property
    def best(self) -> int | None:
        """The combination with the best search score; of equal ones the first, None if all failed."""
        gains = {
            number: result.sign * score
            for number, (result, score) in enumerate(zip(self.results, self.scores, strict=True))
            if result is not None and not math.isnan(score)
        }
        return max(gains, key=lambda number: gains[number], default=None)


def tuned(study: StudySpec, results: Iterable[TrialResult]) -> dict[str, Tuned]:
    """The tuning trials of every configuration, by the key of its trial at the first combination.

    Args:
        study: one with `tune`.
        results: of the study; others than those of tuning trials are left out.
    """
    combinations = study.tunings()
    found: dict[str, tuple[TrialSpec, dict[int, TrialResult]]] = {}
    for result in results:
        if study.is_tuning(result.spec):
            spec = decode(TrialSpec, result.spec)
            variants = [study.at(spec, combination) for combination in combinations]
            plain = [variant.plain for variant in variants]
            if spec.plain in plain:  # not after an edit of the study's values
                rows = found.setdefault(variants[0].key, (variants[0], {}))[1]
                rows[plain.index(spec.plain)] = result
    numbers = range(len(combinations))
    return {key: Tuned(first, tuple(map(rows.get, numbers))) for key, (first, rows) in found.items()}
