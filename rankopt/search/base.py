"""What a search is: who proposes the next trial."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from rankopt.core.result import TrialResult
from rankopt.core.space import dimensions
from rankopt.core.spec import Named, StudySpec

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


class Search(BaseModel, ABC):
    """Proposes points of a study's space. Frozen: its fields are its options in the study file.

    Either the study runs every combination of its lists, and what follows from their results (`follow`); or Optuna
    proposes a point when a worker asks (`sampler`) until the study has `trials`.

    Attributes:
        trials: how many trials the study is to have, failed ones not counted; none where it runs every combination.
        seed: of the proposals.
        pruner: who stops trials early; a row of `PRUNERS` with its options.
        single: whether it takes one objective only.
        follows: whether results ask for further trials.
        super_network: whether every trial must train a super-network, that is, its allocator must define `choose`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    single: ClassVar[bool] = False
    follows: ClassVar[bool] = False
    super_network: ClassVar[bool] = False

    trials: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    pruner: Named | None = None

    @abstractmethod
    def check(self, study: StudySpec) -> None:
        """Refuse a study that does not suit this search.

        Raises:
            ValueError: one line.
        """

    def follow(self, assignment: Mapping[str, Any], result: TrialResult) -> Iterator[dict[str, Any]]:
        """The points to run because of a result.

        Args:
            assignment: the point of the space that it is the result of: dotted path -> value.
            result: complete.
        """
        return iter(())

    def sampler(self, index: int) -> BaseSampler:
        """The sampler of proposal `index` alone: built anew for each, so that a resumed search needs no memory."""
        raise NotImplementedError(f"{type(self).__name__} proposes nothing")


def check_lists(study: StudySpec, search: str) -> None:
    """Refuse ranges and constraints where every combination of lists is run.

    Raises:
        ValueError: one line.
    """
    for name, dimension in dimensions(study.space).items():
        if not isinstance(dimension, list):
            raise ValueError(f"space.{name} must be a list of values under the search {search!r}, got a range")
        if name not in study.space:
            raise ValueError(f"space.{name} must be one value under the search {search!r}, got a choice")
    if study.repeat:
        raise ValueError(f"repeat must be left out under the search {search!r}: list its values in space instead")
    if study.constraints:
        raise ValueError(f"constraints must be left out under the search {search!r}: nothing is chosen by them")
