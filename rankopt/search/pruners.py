"""Pruners: stop trials early by their scores on the search split."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Annotated, NamedTuple

import optuna
from optuna.pruners import BasePruner
from pydantic import BaseModel, ConfigDict, Field

from rankopt.core.errors import nearest
from rankopt.core.spec import Named, decode
from rankopt.core.study_spec import StudySpec
from rankopt.search.base import Count


class Interim(NamedTuple):
    """A trial at one of its evaluations (counted from 1): score, kept parameters, and standard error of the score."""

    evaluation: int
    score: float
    parameters: float
    error: float


class Pruner(BaseModel, ABC):
    """Stops trials early. Frozen; its fields are its options.

    During training only trials with a fixed rank pattern can be pruned.

    Args:
        evaluations: number of evaluations on the search split during training, at equal intervals.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    evaluations: Count = 4

    def check(self, study: StudySpec) -> None:
        """Refuse a study that this pruner cannot be used with.

        Raises:
            ValueError: one line.
        """
        if self.evaluations and study.repeat:
            raise ValueError(
                "search.pruner must be 'wilcoxon' or left out if the study has repeat: other pruners compare single "
                "trainings"
            )
        if list(study.objectives) != ["score"]:
            raise ValueError(
                "search.pruner must be 'dominated' or left out unless the score is the only objective, "
                f"got objectives {' and '.join(study.objectives)}; write objectives: {{score: maximize}}"
            )

    @abstractmethod
    def build(self) -> BasePruner:
        """Optuna's pruner."""


class Median(Pruner):
    """Stops a trial whose score is below the median of earlier trials at the same evaluation.

    Args:
        startup: number of complete trials before any trial is stopped.
        warmup: number of evaluations before a trial can be stopped.

    Source: Golovin et al. 2017 (Google Vizier, KDD).
    """

    startup: Count = 5
    warmup: Annotated[int, Field(ge=0)] = 0

    def build(self) -> BasePruner:
        return optuna.pruners.MedianPruner(n_startup_trials=self.startup, n_warmup_steps=self.warmup)


class Halving(Pruner):
    """Asynchronous successive halving: at every rung the best 1 / reduction of the trials continue.

    Args:
        reduction: factor by which the trials fall and the evaluations rise from rung to rung.

    Source: Li et al. 2020 (1810.05934).
    """

    evaluations: Count = 8
    reduction: Annotated[int, Field(ge=2, le=100_000)] = 2

    def build(self) -> BasePruner:
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=self.reduction)


class Hyperband(Pruner):
    """Successive halving with several first rungs, for scores that are uninformative early in training.

    A trial's bracket depends on its number, so a retried attempt may be in another bracket.

    Args:
        reduction: factor by which the trials fall and the evaluations rise from rung to rung.

    Source: Li et al. 2018 (JMLR 18).
    """

    evaluations: Count = 8
    reduction: Annotated[int, Field(ge=2, le=100_000)] = 2

    def build(self) -> BasePruner:
        return optuna.pruners.HyperbandPruner(
            min_resource=1, max_resource=self.evaluations, reduction_factor=self.reduction
        )


class Wilcoxon(Pruner):
    """Stops a proposal that a signed-rank test over its trainings finds worse than the best proposal.

    It tests after each training in the study's `repeat` except the last, never during a training, so it works with
    any allocator. With n pairs the smallest p-value is 2^-n: no proposal is stopped before n > log2(1 / p) and n >= 2.

    Args:
        p: largest p-value of the one-sided test at which a proposal is stopped.
        startup: number of trainings of a proposal before it is tested.

    Source: Wilcoxon 1945 (Biometrics Bulletin 1); racing by tests as in Birattari et al. 2002 (GECCO).
    """

    evaluations: Annotated[int, Field(ge=0, le=0)] = 0
    p: Annotated[float, Field(gt=0, lt=1)] = 0.1
    startup: Annotated[int, Field(ge=0)] = 2

    def check(self, study: StudySpec) -> None:
        super().check(study)
        # one more than the first n at which it can stop a proposal, since it never tests after the last training
        least = 1 + max(math.floor(math.log2(1 / self.p)) + 1, self.startup, 2)
        if len(study.repeats()) < least:
            raise ValueError(
                f"repeat must give each proposal at least {least} trainings (seeds, tasks) under the pruner 'wilcoxon' "
                f"with p {self.p:g} and startup {self.startup}, got {len(study.repeats())}: it would never stop one"
            )

    def build(self) -> BasePruner:
        return optuna.pruners.WilcoxonPruner(p_threshold=self.p, n_startup_steps=self.startup)


class Dominated(Pruner):
    """Stops a trial that another one significantly dominates in score and parameters (rankopt's own rule).

    Trial j dominates at the same evaluation if

        parameters_j <= parameters,   score_j > score + errors * sqrt(error_j^2 + error^2)

    with the scores negated where lower is better, and `error = 1 / (2 sqrt(n))` on n examples, the largest standard
    error of an accuracy; for other metrics it is an approximation. A trial that improves late can be stopped
    wrongly; `warmup` reduces that risk.

    Args:
        errors: number of standard errors that the difference must exceed.
        warmup: number of evaluations before a trial can be stopped.
    """

    errors: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 2.0
    warmup: Annotated[int, Field(ge=0)] = 1

    def check(self, study: StudySpec) -> None:
        if set(study.objectives) != {"score", "parameters"}:
            raise ValueError(
                "search.pruner 'dominated' needs objectives: {score: maximize, parameters: minimize}, got "
                + ", ".join(f"{name}: {direction}" for name, direction in study.objectives.items())
            )
        if study.repeat:
            raise ValueError("repeat must be left out under the pruner 'dominated', which compares single trainings")

    def build(self) -> BasePruner:
        return optuna.pruners.NopPruner()  # Optuna's pruners support one objective only; see `dominated`

    def dominated(self, mine: Interim, others: Iterable[Interim], falling: bool = False) -> bool:
        """Whether an interim result of another trial dominates this one.

        Args:
            mine: this one.
            others: of the other trials.
            falling: whether a lower score is better.

        Example:
            >>> mine, other = Interim(2, 0.60, 500, 0.02), Interim(2, 0.70, 400, 0.02)
            >>> Dominated().dominated(mine, [other]), Dominated(errors=4.0).dominated(mine, [other])
            (True, False)
        """
        sign = -1 if falling else 1
        return mine.evaluation > self.warmup and any(
            other.evaluation == mine.evaluation
            and other.parameters <= mine.parameters
            and sign * (other.score - mine.score) > self.errors * (other.error**2 + mine.error**2) ** 0.5
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
    """A pruner with validated options.

    Raises:
        ValueError: an unknown name, or (pydantic's ValidationError) a wrong option.
    """
    if spec.name not in PRUNERS:
        raise ValueError(f"search.pruner.name must be a known pruner, got {spec.name!r}{nearest(spec.name, PRUNERS)}")
    return decode(PRUNERS[spec.name], spec.options)
