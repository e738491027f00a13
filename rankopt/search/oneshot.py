"""One-shot search: patterns found in one trained super-network, checked by training them from scratch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, ClassVar, Literal

from rankopt.analysis.frame import CONTROL
from rankopt.analysis.oneshot import origin
from rankopt.core.path import fields_without
from rankopt.core.result import TrialResult
from rankopt.core.spec import Positive
from rankopt.core.study_spec import StudySpec
from rankopt.core.trial_spec import TrialSpec
from rankopt.search.base import Search, check_lists

PatternSource = Literal["uniform", "energy", "sensitivity", "evolved"]
"""How a pattern of a super-network was found, see `Point.source`."""


class OneShot(Search):
    """Trains a super-network at every point of the space, then its patterns from scratch as a check.

    A super-network's result contains the whole trade-off curve, found on the search split. The trainings from scratch
    share its task, model, training settings and seed, and show how accurate the curve is.

    Args:
        retrain: sources of the patterns to train from scratch; "uniform" is the control.
        levels: the uniform ranks whose cost those patterns have; all levels of the curve when absent.
        epochs: of each training from scratch; those of the super-network when absent.
    Example:
        >>> OneShot(retrain=("uniform",), levels=(2.0, 8.0)).follows
        True

    Source: Guo et al. 2020 (1904.00420); the super-network and its search are `allocators/nested.py`.
    """

    super_network: ClassVar[bool] = True

    retrain: tuple[PatternSource, ...] = ("uniform", "evolved")
    levels: tuple[Positive, ...] | None = None
    epochs: Positive | None = None

    def check(self, study: StudySpec) -> None:
        check_lists(study, "oneshot")
        for name in self.model_fields_set & {"trials", "seed", "pruner"}:
            raise ValueError(
                f"search.{name} must be left out under the search 'oneshot', which trains every combination; "
                "allocator.looks sets how many patterns are evaluated"
            )
        for assignment in study.assignments():
            trial = study.plain(assignment)
            if (scale := trial.get("model", {}).get("scale")) != "unit":
                raise ValueError(
                    f"base.model.scale must be 'unit' under the search 'oneshot', got {scale!r}: patterns trained "
                    "from scratch must have the super-network's scale"
                )
            if self.epochs and trial.get("training", {}).get("steps") is not None:
                raise ValueError("search.epochs must be left out if base.training.steps is set, which overrides it")

    def check_levels(self, spec: TrialSpec, levels: Callable[[int], Collection[float]]) -> None:
        top = spec.budget.mean_rank if spec.budget else float(spec.model.max_rank)
        if self.levels is None or top is None:
            return  # the level of another amount depends on the model
        if top % 1:
            raise ValueError(
                f"search.levels must be left out if budget.mean_rank is not a whole number, got {top:g}: the "
                "largest level then depends on the model's layers"
            )
        known = [*sorted(levels(int(top))), top]
        for level in self.levels:
            if level not in known:
                raise ValueError(
                    f"search.levels must be ranks at which allocator {spec.method.name!r} finds patterns "
                    f"({', '.join(f'{one:g}' for one in known)}), got {level:g}"
                )

    @property
    def follows(self) -> bool:
        return True

    def follow(self, assignment: Mapping[str, Any], result: TrialResult) -> Iterator[dict[str, Any]]:
        kept = fields_without(assignment, "allocator", "budget")
        if self.epochs:
            kept["training.epochs"] = self.epochs
        known = set()
        for point in result.points:
            source, level = origin(point, result.layers)
            if source not in self.retrain or (self.levels is not None and level not in self.levels):
                continue
            if (level, point.pattern) in known:
                continue  # two sources found the same pattern
            known.add((level, point.pattern))
            allocator: dict[str, Any] = {"name": CONTROL}
            if source != CONTROL or len(set(point.pattern.values())) > 1:
                allocator = {"name": "static", "found": source, "ranks": dict(point.pattern)}
            yield {**kept, "allocator": allocator, "budget": {"mean_rank": level, "unit": "parameters"}}
