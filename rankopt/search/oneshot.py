"""One training of a super-network, the patterns that it names by forward passes, and those trained from scratch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from rankopt.analysis.frame import CONTROL
from rankopt.analysis.oneshot import origin
from rankopt.core.path import fields_of, split_path
from rankopt.core.result import TrialResult
from rankopt.core.spec import Positive, StudySpec
from rankopt.search.base import Search, check_lists

PatternSource = Literal["uniform", "energy", "sensitivity", "evolved"]
"""How a pattern of a super-network was found, see `Point.source`."""


class OneShot(Search):
    """Train a super-network at every point of the space, then its patterns from scratch, as a check.

    The super-network is the allocator "nested" of the base, or another one with its options in the space. Its result
    already holds the whole curve, found on the search split; the trainings from scratch (same task, model, training and
    seed) say how far the curve can be believed.

    Args:
        retrain: kinds of patterns to train from scratch; "uniform" is the control.
        levels: the uniform ranks whose cost those patterns have; all of the curve when absent.
        epochs: of a training from scratch; those of the super-network when absent. The curve of N epochs and a recovery
            beside trainings of N epochs says what one training more or less buys.
    Example:
        >>> OneShot(retrain=("uniform",), levels=(2.0, 8.0)).follows
        True

    Source: Guo et al. 2020 (1904.00420); the super-network and its search are `allocators/nested.py`.
    """

    follows: ClassVar[bool] = True
    super_network: ClassVar[bool] = True

    retrain: tuple[PatternSource, ...] = ("uniform", "evolved")
    levels: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    epochs: Positive | None = None

    def check(self, study: StudySpec) -> None:
        check_lists(study, "oneshot")
        for name in self.model_fields_set & {"trials", "seed", "pruner"}:
            raise ValueError(
                f"search.{name} must be left out under the search 'oneshot': it trains every combination, "
                "and allocator.looks says how many patterns are looked at"
            )
        for assignment in study.assignments():
            trial = study.plain(assignment)
            if (scale := trial.get("model", {}).get("scale")) != "unit":
                raise ValueError(
                    "base.model.scale must be 'unit' under the search 'oneshot', so that a pattern trained from "
                    f"scratch has the super-network's scale, got {scale!r}"
                )
            if self.epochs and trial.get("training", {}).get("steps") is not None:
                raise ValueError("search.epochs must be left out where base.training.steps is given, which comes first")
            self._check_levels(trial)

    def follow(self, assignment: Mapping[str, Any], result: TrialResult) -> Iterator[dict[str, Any]]:
        # the point's own allocator and budget give way to the pattern's
        fields = {
            path: value for dimension, values in assignment.items() for path, value in fields_of(dimension, values)
        }
        kept = {path: value for path, value in fields.items() if split_path(path)[0] not in ("allocator", "budget")}
        if self.epochs:
            kept["training.epochs"] = self.epochs
        known = set()
        for point in result.points:
            source, level = origin(point, result.layers)
            if source not in self.retrain or (self.levels is not None and level not in self.levels):
                continue
            if (level, point.pattern) in known:
                continue  # two ways found it
            known.add((level, point.pattern))
            allocator: dict[str, Any] = {"name": CONTROL}
            if source != CONTROL or len(set(point.pattern.values())) > 1:
                allocator = {"name": "static", "found": source, "ranks": dict(point.pattern)}
            yield {**kept, "allocator": allocator, "budget": {"mean_rank": level, "unit": "parameters"}}

    def _check_levels(self, trial: dict[str, Any]) -> None:
        """Refuse a level at which the super-network names no pattern."""
        budget = trial.get("budget") or {"mean_rank": trial.get("model", {}).get("max_rank", 16)}
        top = budget.get("mean_rank")
        if top is None:
            return  # what the amount pays for depends on the model
        if self.levels and top % 1:
            raise ValueError(
                "search.levels must be left out where budget.mean_rank is no whole number: the top of the curve is "
                f"what the layers have in fact, got {top:g}"
            )
        curve = trial.get("allocator", {}).get("curve")
        if not (curve is None or isinstance(curve, list | tuple)):
            return  # the allocator refuses it in its own words
        for level in self.levels or ():
            power = level < top and math.log2(level).is_integer() and level >= 1
            if level != top and not (power if curve is None else level in curve):
                of = f"allocator.curve {curve}" if curve else f"the powers of two below {top:g}"
                raise ValueError(f"search.levels must be of {of}, or the top {top:g}, got {level:g}")
