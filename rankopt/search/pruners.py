"""Who stops a trial early, by its scores on the search split."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Annotated, NamedTuple

import optuna
from optuna.pruners import BasePruner
from pydantic import BaseModel, ConfigDict, Field

from rankopt.core.problems import nearest
from rankopt.core.spec import Named, StudySpec, decode

Count = Annotated[int, Field(ge=1)]


class Interim(NamedTuple):
    """What a trial has shown at one of its evaluations: counted from 1, the score, parameters kept, and the standard
    error that a score of so many examples can have."""

    evaluation: int
    score: float
    parameters: float
    error: float


class Pruner(BaseModel, ABC):
    """Stops trials early; while they train, only ones whose pattern is fixed. Frozen: its fields are its options.

    Args:
        evaluations: how often a trial is scored on the search split while it trains, at equal distances.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    evaluations: Count = 4

    def check(self, study: StudySpec) -> None:
        """Refuse a study that this pruner cannot serve.

        Raises:
            ValueError: one line.
        """
        if self.evaluations and study.repeat:
            raise ValueError(
                "search.pruner must be 'wilcoxon' or left out where the study repeats its trials: the others compare "
                "one training with another while they run"
            )
        if list(study.objectives) != ["score"]:
            raise ValueError(
                "search.pruner must be 'dominated' or left out unless the score is the only objective, "
                f"got objectives {' and '.join(study.objectives)}; say objectives: {{score: maximize}}"
            )

    @abstractmethod
    def build(self) -> BasePruner:
        """Optuna's pruner."""


class Median(Pruner):
    """Stops a trial that is worse than the median of the earlier ones at the same evaluation.

    Args:
        startup: complete trials before any is stopped.
        warmup: evaluations before which a trial is not stopped.

    Source: Golovin et al. 2017 (Google Vizier, KDD).
    """

    startup: Count = 5
    warmup: Annotated[int, Field(ge=0)] = 0

    def build(self) -> BasePruner:
        return optuna.pruners.MedianPruner(n_startup_trials=self.startup, n_warmup_steps=self.warmup)


class Halving(Pruner):
    """Asynchronous successive halving: at every rung the best 1 / reduction go on.

    Args:
        reduction: of the trials from rung to rung, and of the evaluations between rungs.

    Source: Li et al. 2020 (1810.05934).
    """

    evaluations: Count = 8
    reduction: Annotated[int, Field(ge=2)] = 2

    def build(self) -> BasePruner:
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=self.reduction)


class Hyperband(Pruner):
    """Successive halving with several first rungs, a hedge against scores that tell little early.

    A trial's bracket hangs on its number: one that a dead worker left is taken up under another number.

    Args:
        reduction: as in halving.

    Source: Li et al. 2018 (JMLR 18).
    """

    evaluations: Count = 8
    reduction: Annotated[int, Field(ge=2)] = 2

    def build(self) -> BasePruner:
        return optuna.pruners.HyperbandPruner(
            min_resource=1, max_resource=self.evaluations, reduction_factor=self.reduction
        )


class Wilcoxon(Pruner):
    """Stops a proposal whose trainings so far are worse than the same ones of the best proposal: a signed-rank test.

    It looks after each of the study's `repeat` (seeds, tasks) but the last, never while a training runs, so any
    allocator will do. Of n pairs the smallest p is 2^-n: nothing is stopped before n > log2(1 / p), nor before n = 2.

    Args:
        p: largest p of the one-sided test at which a proposal is stopped.
        startup: trainings of a proposal before it is tested.

    Source: Wilcoxon 1945 (Biometrics Bulletin 1); racing by tests as in Birattari et al. 2002 (GECCO).
    """

    evaluations: Annotated[int, Field(ge=0, le=0)] = 0
    p: Annotated[float, Field(gt=0, lt=1)] = 0.1
    startup: Annotated[int, Field(ge=0)] = 2

    def check(self, study: StudySpec) -> None:
        super().check(study)
        # the first n at which it may stop one; after the last training nothing is left to save
        least = 1 + max(math.floor(math.log2(1 / self.p)) + 1, self.startup, 2)
        if len(study.repeats()) < least:
            raise ValueError(
                f"repeat must give each proposal at least {least} trainings (seeds, tasks) under the pruner 'wilcoxon' "
                f"with p {self.p:g} and startup {self.startup}, else it stops nothing, got {len(study.repeats())}"
            )

    def build(self) -> BasePruner:
        return optuna.pruners.WilcoxonPruner(p_threshold=self.p, n_startup_steps=self.startup)


class Dominated(Pruner):
    """Our own rule, for score and parameters together: stops a trial that another one dominates beyond its noise.

    At the same evaluation j another trial dominates when

        parameters_j <= parameters,   score_j > score + errors * sqrt(error_j^2 + error^2)

    with `error = 1 / (2 sqrt(n))` on n examples, the most that a share of right answers can have; for other metrics it
    is a guide. Nothing is assumed about later evaluations: a slow starter is stopped wrongly, so `warmup` waits.

    Args:
        errors: standard errors that the difference must exceed.
        warmup: evaluations at which no trial is stopped.
    """

    errors: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 2.0
    warmup: Annotated[int, Field(ge=0)] = 1

    def check(self, study: StudySpec) -> None:
        if study.objectives != {"score": "maximize", "parameters": "minimize"}:
            raise ValueError(
                "search.pruner 'dominated' needs objectives: {score: maximize, parameters: minimize}, got "
                + ", ".join(f"{name}: {direction}" for name, direction in study.objectives.items())
            )
        if study.repeat:
            raise ValueError("repeat must be left out under the pruner 'dominated', which compares single trainings")

    def build(self) -> BasePruner:
        return optuna.pruners.NopPruner()  # Optuna's pruners take one objective; `dominates` decides

    def dominated(self, mine: Interim, others: Iterable[Interim]) -> bool:
        """Whether one of other trials' interim results dominates this one.

        Example:
            >>> mine, other = Interim(2, 0.60, 500, 0.02), Interim(2, 0.70, 400, 0.02)
            >>> Dominated().dominated(mine, [other]), Dominated(errors=4.0).dominated(mine, [other])
            (True, False)
        """
        return mine.evaluation > self.warmup and any(
            other.evaluation == mine.evaluation
            and other.parameters <= mine.parameters
            and other.score > mine.score + self.errors * (other.error**2 + mine.error**2) ** 0.5
            for other in others
        )


PRUNERS: dict[str, type[Pruner]] = {
    "median": Median,
    "halving": Halving,
    "hyperband": Hyperband,
    "wilcoxon": Wilcoxon,
    "dominated": Dominated,
}


def build_pruner(spec: Named) -> Pruner:
    """The pruner of a search, its options validated.

    Raises:
        ValueError: an unknown name; pydantic's ValidationError for a wrong option.
    """
    if spec.name not in PRUNERS:
        raise ValueError(f"search.pruner.name must be a known pruner, got {spec.name!r}{nearest(spec.name, PRUNERS)}")
    return decode(PRUNERS[spec.name], spec.options)
