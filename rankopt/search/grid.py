"""Grid search: every combination of the space."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rankopt.analysis.frame import CONTROL
from rankopt.core.errors import shown
from rankopt.core.path import fields_without
from rankopt.core.result import TrialResult
from rankopt.core.study_spec import StudySpec
from rankopt.search.base import Search, check_lists


class Grid(Search):
    """Runs every combination of lists, the last dimension fastest: for comparisons.

    Args:
        retrain: allocators whose patterns are trained again from scratch, as fixed ranks (`static`), in the same
            conditions and at the same seed. It shows whether a pattern is worth as much without the method that found
            it. In a study with `tune`, these trainings have the values that were chosen for uniform ranks.
    Example:
        >>> study = StudySpec(name="s", base={}, space={"seed": [0, 1], "budget.mean_rank": [2, 4]})
        >>> Grid().check(study)
        >>> [assignment["budget.mean_rank"] for assignment in study.assignments()]
        [2, 4, 2, 4]
        >>> Grid(retrain=("adalora",)).follows
        True
    """

    retrain: tuple[str, ...] = ()

    def check(self, study: StudySpec) -> None:
        check_lists(study, "grid")
        for name in self.model_fields_set - {"retrain"}:
            raise ValueError(f"search.{name} must be left out under the search 'grid': it runs every combination")
        variants = _variants(study) if self.retrain else {}
        for name in self.retrain:
            if name not in variants:
                known = ", ".join(sorted(variants)) or f"it has none but {CONTROL}"
                raise ValueError(f"search.retrain must name allocators of this study ({known}), got {name!r}")
            if (count := len(variants[name])) > 1:
                raise ValueError(
                    f"search.retrain must name allocators with one set of options, {name!r} has {count} in this "
                    "study: use a study for each"
                )

    @property
    def follows(self) -> bool:
        return bool(self.retrain)

    def follow(self, assignment: Mapping[str, Any], result: TrialResult) -> Iterator[dict[str, Any]]:
        found = (result.spec.get("allocator") or {}).get("name")
        if found in self.retrain:
            allocator = {"name": "static", "found": found, "ranks": dict(result.own.pattern)}
            kept = fields_without(assignment, "allocator", "budget")
            yield {**kept, "allocator": allocator, "budget": result.spec["budget"]}


def _variants(study: StudySpec) -> dict[str, set[str]]:
    """Each allocator that finds a pattern -> its options in this study, as text."""
    variants: dict[str, set[str]] = {}
    for assignment in study.assignments():
        allocator = study.plain(assignment).get("allocator")
        if isinstance(allocator, dict) and allocator.get("name") not in (CONTROL, "static"):
            variants.setdefault(str(allocator.get("name")), set()).add(shown(allocator))
    return variants
