"""Every combination of the space, once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rankopt.core.space import dimensions
from rankopt.core.spec import StudySpec
from rankopt.search.base import Search


class Grid(Search):
    """A comparison: all combinations of lists, the last dimension fastest; no sampler, nothing depends on a result.

    Example:
        >>> study = StudySpec(name="s", base={}, space={"seed": [0, 1], "budget.mean_rank": [2, 4]})
        >>> [choice["budget.mean_rank"] for choice in Grid().queue(study)]
        [2, 4, 2, 4]
    """

    def check(self, study: StudySpec) -> None:
        for name, dimension in dimensions(study.space).items():
            if not isinstance(dimension, list):
                raise ValueError(f"space.{name} must be a list of values under the search 'grid', got a range")
            if name not in study.space:
                raise ValueError(f"space.{name} must be one value under the search 'grid', got a choice")
        for name in self.model_fields_set:
            raise ValueError(f"search.{name} must be left out under the search 'grid': it runs every combination")
        if study.constraints:
            raise ValueError("constraints must be left out under the search 'grid': nothing is chosen by them")

    def queue(self, study: StudySpec) -> Iterator[dict[str, Any]]:
        yield from study.choices()
