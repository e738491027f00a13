"""One of several classes per example."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rankopt.core.errors import close_match, shown
from rankopt.core.task_spec import TaskSpec
from rankopt.core.text import printable
from rankopt.tasks.problems.base import Answers, Problem, Where, computed, finite

if TYPE_CHECKING:
    from torch import Tensor

NAMED = 5
"""Classes that a message names."""
FIX_LABELS = ": correct the label, or remove the row"


@dataclass(frozen=True)
class Classification(Problem):
    """Predict a class: cross-entropy in training, the class of the highest logit in evaluation.

    Args:
        labels: class names in the order of their integer label.
        weights: weight of every class in the loss; none for equal weights. The sum over a batch is divided by its
            number of examples, so weights of mean 1 over the training rows leave the size of the loss as it is.
    Example:
        >>> problem = Classification(("no", "yes"))
        >>> problem.scores(["accuracy"], {"logits": np.array([[0.0, 1.0], [2.0, 1.0]])}, np.array([1, 1]))
        {'accuracy': 0.5}
    """

    name: ClassVar[str] = "classification"
    label_type: ClassVar[str] = "int64"
    default_metrics: ClassVar[tuple[str, ...]] = ("accuracy",)

    labels: tuple[str, ...]
    weights: tuple[float, ...] = ()

    @classmethod
    def of(cls, spec: TaskSpec, labels: Sequence[Any], where: Where) -> Classification:
        names = spec.labels or _in_order(labels, where)
        if len(names) < 2:
            raise ValueError(f"task.label must have at least two classes, got {shown(names[0])} in every row")
        if spec.class_weights == "balanced":  # n / (classes * n_k), whose mean over the rows is 1
            counts = np.bincount(cls(names).encode(labels, where), minlength=len(names))
            if not counts.all():
                absent = names[int(counts.argmin())]
                raise ValueError(f"task.class_weights must be numbers, because no training row has class {absent!r}")
            return cls(names, tuple((len(labels) / (len(names) * counts)).tolist()))
        if spec.class_weights and len(spec.class_weights) != len(names):
            raise ValueError(
                f"task.class_weights must be one number for each of {len(names)} classes ({listed(names)}), "
                f"got {len(spec.class_weights)}"
            )
        return cls(names, spec.class_weights)

    def encode(self, labels: Sequence[Any], where: Where) -> NDArray[np.int64]:
        known = {name: index for index, name in enumerate(self.labels)}
        found = np.empty(len(labels), np.int64)
        for index, value in enumerate(labels):
            name = class_name(value)
            if name not in known:
                reason = f"a class of the training rows ({listed(self.labels)})"
                close = None if name is None else close_match(name.strip().lower(), self.labels)
                hint = FIX_LABELS if close is None else f"; did you mean {shown(close)}?"
                raise ValueError(f"task.label must be {reason}, got {_shown(value)} in {where(index)}{hint}")
            found[index] = known[name]
        return found

    @property
    def outputs(self) -> int:
        return len(self.labels)

    def strata(self, labels: NDArray[Any]) -> NDArray[np.int64] | None:
        return labels

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        from torch.nn import functional

        weights = logits.new_tensor(self.weights) if self.weights else None
        return functional.cross_entropy(logits, labels, weight=weights, reduction="sum")

    def distillation(self, logits: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        from torch.nn import functional

        student, target = logits.log_softmax(-1), teacher.log_softmax(-1)
        return functional.kl_div(student, target, reduction="sum", log_target=True)

    def scores(self, metrics: Sequence[str], answers: Answers, labels: NDArray[Any]) -> dict[str, float]:
        return computed(metrics, {"decisions": self.decide(answers), "logits": answers["logits"]}, labels)

    def constant(self, labels: NDArray[Any]) -> tuple[str, Answers]:
        logits = np.zeros((len(labels), self.outputs))
        logits[:, np.bincount(labels).argmax()] = 1.0
        return "predicting the most frequent class", {"logits": logits}

    def decide(self, answers: Answers) -> NDArray[np.int64]:
        """The predicted class of every example, `(n,)`."""
        classes: NDArray[np.int64] = finite(answers["logits"], (None, self.outputs)).argmax(axis=1)
        return classes


def _in_order(labels: Sequence[Any], where: Where) -> tuple[str, ...]:
    """The class names of a column, sorted: integers by value, booleans false first, texts by code point."""
    first: dict[str, int] = {}
    for index, value in enumerate(labels):
        name = class_name(value)
        if name is None:
            raise ValueError(
                f"task.label must hold a class in every row, got {_shown(value)} in {where(index)}{FIX_LABELS}"
            )
        first.setdefault(name, index)
    kinds = {_kind(labels[index]): index for index in first.values()}
    if len(kinds) > 1:
        both = " and ".join(f"{_shown(labels[index])} in {where(index)}" for index in kinds.values())
        raise ValueError(f"task.label must hold values of one type, got {both}")
    whole = all(re.fullmatch(r"-?(0|[1-9]\d*)", name) for name in first)
    return tuple(sorted(first, key=(lambda name: (int(name), name)) if whole else str))


def class_name(value: Any) -> str | None:
    """A value of a label column as a class name; None for a value that is none."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():  # as pandas stores integers beside a missing value
        return str(int(value))
    return str(value) or None if isinstance(value, str | int) else None


def _kind(value: Any) -> str:
    return "text" if isinstance(value, str) else "boolean" if isinstance(value, bool) else "number"


def _shown(value: Any) -> str:
    if value is None or value == "":
        return "no value"
    return f"{value} (a regression?)" if isinstance(value, float) else shown(value)


def listed(names: Sequence[str]) -> str:
    """Names of classes or columns for a message: the first five and their number, each at most 40 characters long."""
    some = [name if len(name) <= 40 else f"{name[:37]}..." for name in names[:NAMED]]
    return printable(", ".join(some) + (f", ...: {len(names):,} in all" if len(names) > NAMED else ""))
