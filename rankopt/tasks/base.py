"""The task protocol: text columns, labels, metrics, and how to read a split."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from numpy.typing import NDArray

from rankopt.tasks.metrics import MINIMISED
from rankopt.tasks.problems.base import Answers, Problem

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from rankopt.tasks.encode import Encoded


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """A supervised text task with at most two text columns and a column `label`.

    Attributes:
        name: the registered name, lower case.
        columns: names of the text columns that a prediction is made from; two are encoded as a pair.
        problem: what is predicted.
        metrics: names in `rankopt.tasks.metrics.METRICS`; the first is the primary one.
        reports: the official evaluation splits; the first is the primary one (MNLI has two).
        searches: whether it has rows of its own for the search split, which is otherwise cut from the training rows.
        own: whether the rows are the user's, who can correct them.
        version: incremented when the task's data or metric changes; stored in every result.
    """

    name: str
    columns: tuple[str, ...]
    problem: Problem
    metrics: tuple[str, ...]
    reports: tuple[str, ...] = ("validation",)
    searches: bool = False
    own: ClassVar[bool] = False
    version: int = 1

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names in the order of their integer labels; empty unless classes are predicted."""
        return self.problem.labels

    @property
    def minimised(self) -> tuple[str, ...]:
        """The metrics that are better when lower."""
        return tuple(metric for metric in self.metrics if metric in MINIMISED)

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks for the reader of a plan or a result."""
        return ()

    def scores(self, answers: Answers, labels: NDArray[Any]) -> dict[str, float]:
        """Every metric of a split, in the task's order: the first is the primary one."""
        return self.problem.scores(self.metrics, answers, labels)

    def tokenise(self, dataset: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Encoded:
        """Tokenise rows that `read` returned."""
        return self.problem.tokenise(self.columns, dataset, tokenizer, max_length)

    def files(self, data_dir: str) -> list[Path]:
        """The files in `data_dir` that `read` reads; none for a task that is generated."""
        return []

    @abstractmethod
    def read(self, split: str, data_dir: str | None) -> Dataset:
        """Read one split: `train` or one of `reports`.

        Args:
            split: `train`, a member of `reports`, or `search` where `searches`.
            data_dir: a local folder in the hub's layout; None for the task's own source.
        Returns:
            A dataset with exactly the columns `columns` and `label`, of the type `problem.label_type`.
        Raises:
            ValueError: one line that names the missing folder or file and what to do.
        """
