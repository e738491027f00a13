"""The task protocol: text columns, labels, metrics, and how to read a split."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """A supervised text task with one or two text columns and a column `label`.

    Attributes:
        name: the registered name, lower case.
        columns: names of one or two text columns; two are encoded as a pair.
        labels: class names in the order of their integer labels; empty for a regression task (float label).
        metrics: names in `rankopt.tasks.metrics.METRICS`; the first is the primary one. All are maximised.
        reports: the official evaluation splits; the first is the primary one (MNLI has two).
        version: incremented when the task's data or metric changes; stored in every result.
    """

    name: str
    columns: tuple[str, ...]
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    reports: tuple[str, ...] = ("validation",)
    version: int = 1

    def files(self, data_dir: str) -> list[Path]:
        """The files in `data_dir` that `read` reads; none for a task that is generated."""
        return []

    @abstractmethod
    def read(self, split: str, data_dir: str | None) -> Dataset:
        """Read one split: `train` or one of `reports`.

        Args:
            split: `train` or a member of `reports`.
            data_dir: a local folder in the hub's layout; None for the task's own source.
        Returns:
            A dataset with exactly the columns `columns` and `label` (int64 class, or float32 for regression).
        Raises:
            ValueError: one line that names the missing folder or file and what to do.
        """
