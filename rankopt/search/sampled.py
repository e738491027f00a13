"""Base of the searches whose proposals come from an Optuna sampler."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from rankopt.core.seeds import stream
from rankopt.core.study_spec import StudySpec
from rankopt.search.base import Search, refuse_repeated
from rankopt.search.pruners import build_pruner


class Sampled(Search):
    """Proposes `trials` points; a sampler is built for each from the seed and the proposal's number.

    Attributes:
        constrained: whether the search supports constraints.
    """

    constrained: ClassVar[bool] = True

    def check(self, study: StudySpec) -> None:
        name = study.search.name
        if self.trials is None:
            raise ValueError(f"search.trials must be set under the search {name!r}, for example search.trials: 60")
        if not study.space:
            raise ValueError(f"space must have at least one dimension under the search {name!r}")
        if self.single and len(study.objectives) > 1:
            raise ValueError(
                f"objectives must be one objective under the search {name!r}, got {' and '.join(study.objectives)}; "
                "write objectives: {score: maximize}, and base.budget: {parameters: N}"
            )
        if study.constraints and not self.constrained:
            raise ValueError(
                f"constraints must be left out under the search {name!r}, which does not support them; "
                "write base.budget: {parameters: N}, or use another search (rankopt list searches)"
            )
        refuse_repeated(study)
        if self.pruner is not None:
            build_pruner(self.pruner).check(study)

    def _seed(self, index: int) -> int:
        return stream(self.seed, "proposal", index) % 2**32


class RecordSampler(BaseSampler):
    """Base of samplers that draw every dimension by itself from the record of complete trials.

    Inner dimensions therefore need no special case: a dimension is drawn when the trial asks for it.
    """

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}


def record(study: optuna.Study) -> list[tuple[FrozenTrial, float]]:
    """The complete trials of a study of one objective in their order, each with its reward; a higher one is better."""
    sign = 1.0 if study.direction == StudyDirection.MAXIMIZE else -1.0
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [(trial, sign * trial.value) for trial in trials if trial.value is not None]


def value_at(dimension: BaseDistribution, share: float) -> Any:
    """The value of a dimension at a share of its range.

    Args:
        dimension: values of a list and integers have equal shares, on a logarithmic scale if it has one.
        share: in [0, 1); a uniform one gives a uniform value.
    Example:
        >>> value_at(IntDistribution(1, 4), 0.5), round(value_at(FloatDistribution(0.01, 1.0, log=True), 0.5), 6)
        (3, 0.1)
    """
    if isinstance(dimension, CategoricalDistribution):
        return dimension.choices[int(share * len(dimension.choices))]
    low, high = _bounds(dimension)
    value = low + share * (high - low)
    value = math.exp(value) if dimension.log else value  # type: ignore[attr-defined]
    if isinstance(dimension, IntDistribution):
        steps = round((value - dimension.low) / dimension.step)
        return min(max(dimension.low + steps * dimension.step, dimension.low), dimension.high)
    assert isinstance(dimension, FloatDistribution)
    return min(max(value, dimension.low), dimension.high)


def share_of(dimension: BaseDistribution, value: Any) -> float:
    """The share of a dimension's range at which a value lies: the inverse of `value_at`.

    Example:
        >>> share_of(IntDistribution(1, 4), 3), share_of(CategoricalDistribution(["a", "b"]), "a")
        (0.625, 0.25)
    """
    if isinstance(dimension, CategoricalDistribution):
        return (dimension.choices.index(value) + 0.5) / len(dimension.choices)
    low, high = _bounds(dimension)
    value = math.log(value) if dimension.log else value  # type: ignore[attr-defined]
    share = (value - low) / (high - low) if high > low else 0.5
    return float(min(max(share, 0.0), math.nextafter(1.0, 0.0)))


def _bounds(dimension: BaseDistribution) -> tuple[float, float]:
    assert isinstance(dimension, IntDistribution | FloatDistribution)
    half = dimension.step / 2 if isinstance(dimension, IntDistribution) else 0.0  # an integer fills half a step around
    low, high = dimension.low - half, dimension.high + half
    return (math.log(low), math.log(high)) if dimension.log else (low, high)
