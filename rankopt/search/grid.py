"""Every combination of the space, once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rankopt.core.spec import StudySpec
from rankopt.search.base import Search


class Grid(Search):
    """A comparison: all combinations of lists, the last dimension fastest; no sampler, nothing depends on a result.

    Example:
        >>> study = StudySpec(name="s", base={}, space={"seed": [0, 1], "budget.mean_rank": [2, 4]})
        >>> [choice["budget.mean_rank"] for choice in Grid().queue(study)]
        [2, 4, 2, 4]
    """

    def queue(self, study: StudySpec) -> Iterator[dict[str, Any]]:
        for path, dimension in study.space.items():
            if not isinstance(dimension, list):
                raise ValueError(f"space.{path} must be a list of values under the search 'grid', got a range")
        if study.search.trials is not None:
            raise ValueError("search.trials must be left out under the search 'grid': it runs every combination")
        yield from study.choices()
