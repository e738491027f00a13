"""What a search is: who proposes the next trial."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from rankopt.core.spec import Named, StudySpec

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


class Search(BaseModel, ABC):
    """Proposes points of a study's space. Frozen: its fields are its options in the study file.

    Either every point is known before any result (`queue`), or Optuna proposes one when a worker asks (`sampler`) until
    the study has `trials`.

    Attributes:
        trials: how many trials the study is to have, failed ones not counted; none where the queue is everything.
        seed: of the proposals.
        pruner: who stops trials early; a row of `PRUNERS` with its options.
        single: whether it takes one objective only.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    single: ClassVar[bool] = False

    trials: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    pruner: Named | None = None

    @abstractmethod
    def check(self, study: StudySpec) -> None:
        """Refuse a study that does not suit this search.

        Raises:
            ValueError: one line.
        """

    def queue(self, study: StudySpec) -> Iterator[dict[str, Any]]:
        """The points to run, known before any result: dotted path -> value."""
        return iter(())

    def sampler(self, index: int) -> BaseSampler:
        """The sampler of proposal `index` alone: built anew for each, so that a resumed search needs no memory."""
        raise NotImplementedError(f"{type(self).__name__} proposes nothing: its queue is everything")
