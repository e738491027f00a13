"""One number per example."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rankopt.tasks.metrics import METRICS
from rankopt.tasks.problems.base import Answers, Problem, computed, finite

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Regression(Problem):
    """Predict a number: squared error in training, the single output in evaluation.

    Example:
        >>> Regression().scores(["pearson"], {"logits": np.array([[1.0], [3.0]])}, np.array([0.0, 5.0]))
        {'pearson': 1.0}
    """

    name: ClassVar[str] = "regression"
    label_type: ClassVar[str] = "float32"

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
        return computed(metrics, METRICS, self.decide(answers), labels)

    def decide(self, answers: Answers) -> NDArray[np.float64]:
        """The predicted number of every example, `(n,)`."""
        return finite(answers["logits"], (None, 1))[:, 0]
