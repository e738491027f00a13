"""Grid search: every combination of the space."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rankopt.analysis.frame import CONTROL
from rankopt.core.errors import shown
from rankopt.core.result import TrialResult
from rankopt.core.study_spec import StudySpec
from rankopt.search.base import Search, check_lists, without_method


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
        for name in self.retrain:
            variants = {shown(one) for one in _allocators(study) if one.get("name") == name}
            if not variants or name in (CONTROL, "static"):
                others = {str(one.get("name")) for one in _allocators(study)} - {CONTROL, "static"}
                known = ", ".join(sorted(others)) or f"it has none but {CONTROL}"
                raise ValueError(f"search.retrain must name allocators of this study ({known}), got {name!r}")
            if len(variants) > 1:
                raise ValueError(
                    f"search.retrain must name allocators with one set of options, {name!r} has {len(variants)} in "
                    "this study: use a study for each"
                )

    @property
    def follows(self) -> bool:
        return bool(self.retrain)

    def follow(self, assignment: Mapping[str, Any], result: TrialResult) -> Iterator[dict[str, Any]]:
        found = (result.spec.get("allocator") or {}).get("name")
        if found in self.retrain:
            allocator = {"name": "static", "found": found, "ranks": dict(result.own.pattern)}
            yield {**without_method(assignment), "allocator": allocator, "budget": result.spec["budget"]}


def _allocators(study: StudySpec) -> list[dict[str, Any]]:
    """The allocator of every point, as plain data."""
    given = [study.plain(assignment).get("allocator") for assignment in study.assignments()]
    return [one for one in given if isinstance(one, dict)]
