"""One number per example."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rankopt.core.errors import shown
from rankopt.core.task_spec import TaskSpec
from rankopt.tasks.problems.base import Answers, Problem, Where, computed, finite

if TYPE_CHECKING:
    from torch import Tensor

LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Regression(Problem):
    """Predict a number: squared error in training, the single output in evaluation.

    Example:
        >>> Regression().scores(["pearson"], {"logits": np.array([[1.0], [3.0]])}, np.array([0.0, 5.0]))
        {'pearson': 1.0}
    """

    name: ClassVar[str] = "regression"
    label_type: ClassVar[str] = "float32"
    default_metrics: ClassVar[tuple[str, ...]] = ("pearson", "spearman")

    @classmethod
    def of(cls, spec: TaskSpec, labels: Sequence[Any], where: Where) -> Regression:
        numbers = cls().encode(labels, where)
        if (numbers == numbers[0]).all():
            raise ValueError(f"task.label must hold different numbers, got {shown(labels[0])} in every row")
        return cls()

    def encode(self, labels: Sequence[Any], where: Where) -> NDArray[np.float32]:
        found = np.empty(len(labels), np.float32)
        for index, value in enumerate(labels):
            try:
                number = math.nan if isinstance(value, bool) else float(value)
            except (TypeError, ValueError, OverflowError):
                number = math.nan
            if not abs(number) < LARGEST:
                what = "no value" if value is None or value == "" else shown(value)
                raise ValueError(f"task.label must hold finite numbers, got {what} in {where(index)}")
            found[index] = number
        return found

    @property
    def outputs(self) -> int:
        return 1

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        from torch.nn import functional

        return functional.mse_loss(logits.squeeze(-1), labels, reduction="sum")

    def distillation(self, logits: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        from torch.nn import functional

        return functional.mse_loss(logits, teacher, reduction="sum")

    def scores(self, metrics: Sequence[str], answers: Answers, labels: NDArray[Any]) -> dict[str, float]:
        return computed(metrics, {"decisions": self.decide(answers)}, labels)

    def constant(self, labels: NDArray[Any]) -> tuple[str, Answers]:
        return "predicting the mean", {"logits": np.full((len(labels), 1), labels.mean(dtype=np.float64))}

    def decide(self, answers: Answers) -> NDArray[np.float64]:
        """The predicted number of every example, `(n,)`."""
        return finite(answers["logits"], (None, 1))[:, 0]
