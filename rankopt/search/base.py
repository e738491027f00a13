"""The search protocol: which trials a study runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from rankopt.core.errors import shown
from rankopt.core.result import TrialResult
from rankopt.core.space import dimensions
from rankopt.core.spec import Named
from rankopt.core.study_spec import StudySpec, first_repeated
from rankopt.core.trial_spec import TrialSpec

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

Count = Annotated[int, Field(ge=1, le=100_000)]
"""A number of trials or of similar things; larger ones are mistakes, and a sampler would run out of memory."""


class Search(BaseModel, ABC):
    """Decides which points of a study's space are run. Frozen; its fields are its options in the study file.

    Without `trials` the study runs every combination of its lists, and the trials that `follow` derives from their
    results. With `trials`, workers ask the Optuna sampler (`sampler`) for proposals until the study has that many.

    Attributes:
        trials: number of trials to propose, failed ones not counted; None runs every combination.
        seed: random seed of the proposals.
        pruner: stops trials early: a name in `PRUNERS` with its options.
        single: whether the search supports one objective only.
        super_network: whether every trial must train a super-network, that is, its allocator must define `choose`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    single: ClassVar[bool] = False
    super_network: ClassVar[bool] = False

    trials: Count | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    pruner: Named | None = None

    @abstractmethod
    def check(self, study: StudySpec) -> None:
        """Refuse a study that this search cannot run.

        Raises:
            ValueError: one line.
        """

    def check_levels(self, spec: TrialSpec, levels: Callable[[int], Collection[float]]) -> None:
        """Refuse a trial whose super-network will lack a pattern that the search wants.

        Args:
            spec: the trial.
            levels: `Allocator.levels` of its allocator.
        Raises:
            ValueError: one line.
        """

    @property
    def follows(self) -> bool:
        """Whether results lead to further trials, see `follow`."""
        return False

    def follow(self, assignment: Mapping[str, Any], result: TrialResult) -> Iterator[dict[str, Any]]:
        """Further points to run, derived from a result.

        Args:
            assignment: the point of the result's trial.
            result: a complete result.
        """
        return iter(())

    def sampler(self, index: int) -> BaseSampler:
        """A new sampler for proposal `index`: it has no state, so a resumed search equals an uninterrupted one."""
        raise NotImplementedError(f"{type(self).__name__} has no sampler")


def check_lists(study: StudySpec, search: str) -> None:
    """Refuse what a search that runs every combination of lists cannot use: ranges, `repeat` and constraints.

    Raises:
        ValueError: one line.
    """
    for name, dimension in dimensions(study.space).items():
        if not isinstance(dimension, list):
            raise ValueError(f"space.{name} must be a list of values under the search {search!r}, got a range")
        if name not in study.space:
            raise ValueError(f"space.{name} must be one value under the search {search!r}, got a choice")
    refuse_repeated(study)
    if study.repeat:
        raise ValueError(f"repeat must be left out under the search {search!r}: list its values in space instead")
    if study.constraints:
        raise ValueError(f"constraints must be left out under the search {search!r}, which does not use them")


def refuse_repeated(study: StudySpec) -> None:
    """Refuse a dimension that lists a value twice.

    Raises:
        ValueError: one line.
    """
    for name, dimension in dimensions(study.space).items():
        if isinstance(dimension, list) and (twice := first_repeated(dimension)) is not None:
            raise ValueError(f"space.{name} must list distinct values, got {shown(dimension[twice])} twice")
