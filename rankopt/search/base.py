"""What a search is: who proposes the next trial."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

from rankopt.core.spec import StudySpec


class Search(ABC):
    """Proposes points of a study's space."""

    @abstractmethod
    def queue(self, study: StudySpec) -> Iterator[dict[str, Any]]:
        """The points to run, known before any result: dotted path -> value.

        Raises:
            ValueError: the space does not suit this search; one line.
        """
