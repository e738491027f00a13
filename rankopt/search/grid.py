"""Grid search: every combination of the space."""

from __future__ import annotations

from rankopt.core.study_spec import StudySpec
from rankopt.search.base import Search, check_lists


class Grid(Search):
    """Runs every combination of lists, the last dimension fastest: for comparisons.

    Example:
        >>> study = StudySpec(name="s", base={}, space={"seed": [0, 1], "budget.mean_rank": [2, 4]})
        >>> Grid().check(study)
        >>> [assignment["budget.mean_rank"] for assignment in study.assignments()]
        [2, 4, 2, 4]
    """

    def check(self, study: StudySpec) -> None:
        check_lists(study, "grid")
        for name in self.model_fields_set:
            raise ValueError(f"search.{name} must be left out under the search 'grid': it runs every combination")
