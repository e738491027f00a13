"""One of several classes per example."""

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
class Classification(Problem):
    """Predict a class: cross-entropy in training, the class of the highest logit in evaluation.

    Args:
        labels: class names in the order of their integer label.
    Example:
        >>> problem = Classification(("no", "yes"))
        >>> problem.scores(["accuracy"], {"logits": np.array([[0.0, 1.0], [2.0, 1.0]])}, np.array([1, 1]))
        {'accuracy': 0.5}
    """

    name: ClassVar[str] = "classification"
    label_type: ClassVar[str] = "int64"

    labels: tuple[str, ...]

    @property
    def outputs(self) -> int:
        return len(self.labels)

    def strata(self, labels: NDArray[Any]) -> NDArray[np.int64] | None:
        return labels

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        from torch.nn import functional

        return functional.cross_entropy(logits, labels, reduction="sum")

    def distillation(self, logits: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        from torch.nn import functional

        student, target = logits.log_softmax(-1), teacher.log_softmax(-1)
        return functional.kl_div(student, target, reduction="sum", log_target=True)

    def scores(self, metrics: Sequence[str], answers: Answers, labels: NDArray[Any]) -> dict[str, float]:
        return computed(metrics, METRICS, self.decide(answers), labels)

    def decide(self, answers: Answers) -> NDArray[np.int64]:
        """The predicted class of every example, `(n,)`."""
        classes: NDArray[np.int64] = finite(answers["logits"], (None, self.outputs)).argmax(axis=1)
        return classes
