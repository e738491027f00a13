"""What a problem is: everything about a task that depends on what is predicted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rankopt.core.task_spec import TaskSpec
from rankopt.tasks.metrics import METRICS
from rankopt.tasks.tables import texts

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from rankopt.tasks.encode import Encoded

Answers = dict[str, NDArray[Any]]
"""What is kept of a model's outputs: field -> one row per example, in the order of the data."""


Where = Callable[[int], str]
"""The row of an index, for a message: "row 3 of train.csv"."""


class Problem(ABC):
    """What is predicted. A frozen value: members are dataclasses.

    Attributes:
        name: the registered name.
        label_type: dtype of an example's label.
        default_metrics: of a task of the user's own.
        labels: class names in the order of their integer label; empty unless classes are predicted.
    """

    name: ClassVar[str]
    label_type: ClassVar[str]
    default_metrics: ClassVar[tuple[str, ...]]
    labels: tuple[str, ...] = ()

    @property
    @abstractmethod
    def outputs(self) -> int | None:
        """The number of outputs of a head that is trained; None where the model's own output map is used as it is."""

    def task_type(self, encoder_decoder: bool) -> str:
        """PEFT's name for it, which decides the model class and is written into exported adapters.

        Args:
            encoder_decoder: whether the model is one.
        """
        return "SEQ_CLS"

    def tokenise(
        self, columns: Sequence[str], dataset: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> Encoded:
        """Tokenise a split, see `rankopt.tasks.encode.encode`."""
        from rankopt.tasks.encode import encode

        return encode(columns, self.label_type, dataset, tokenizer, max_length)

    def collate(
        self, items: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, config: Any
    ) -> dict[str, Tensor]:
        """A batch: the model's inputs and `labels`.

        Args:
            items: of an `Encoded`.
            tokenizer: the tokenizer that encoded them.
            config: the model's.
        """
        from rankopt.tasks.encode import collate

        return collate(items, tokenizer)

    @classmethod
    def of(cls, spec: TaskSpec, labels: Sequence[Any], where: Where) -> Problem:
        """The problem of a user's own task.

        Args:
            spec: the task.
            labels: the values of its label column in the training rows.
            where: the row of an index, for messages.
        Raises:
            ValueError: the values do not suit the problem; one line with the row.
        """
        return cls()

    def encode(self, labels: Sequence[Any], where: Where) -> Sequence[Any] | NDArray[Any]:
        """The values of a label column in the type `label_type`; here texts.

        Raises:
            ValueError: a value is missing or unknown; one line with the row.
        """
        return texts(labels, "task.label", where)

    keeps_prompts: ClassVar[bool] = False
    """Whether all rows of a prompt are in the same split."""

    def strata(self, labels: NDArray[Any]) -> NDArray[np.int64] | None:
        """The class of every example where a split is to keep the shares of classes, else None."""
        return None

    @abstractmethod
    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The training loss, summed over the batch.

        Args:
            logits: the model's float32 outputs.
            labels: of the batch, on the same device.
        """

    @abstractmethod
    def distillation(self, logits: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        """The loss of outputs against those of a teacher, summed over the batch."""

    def items(self, labels: Tensor) -> Tensor | int:
        """The number of predictions over which the loss of a batch is summed."""
        return len(labels)

    def answers(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """What is kept of a batch's outputs for scores and later statistics: field -> one row per example."""
        return {"logits": logits}

    def constant(self, labels: NDArray[Any]) -> tuple[str, Answers] | None:
        """The best prediction that needs no model, the same for every example: its name in a sentence, and its answers.

        It is read from the scored examples themselves, so that no other constant scores better on them (accuracy,
        squared error). None where a constant cannot be predicted.

        Args:
            labels: of the scored examples.
        """
        return None

    def generates(self, metrics: Sequence[str]) -> bool:
        """Whether one of these metrics is measured on generated text."""
        return False

    def mean_loss(self, answers: Answers, labels: NDArray[Any]) -> float:
        """The loss per example of a whole split."""
        import torch

        return float(self.loss(torch.from_numpy(answers["logits"]), torch.from_numpy(labels))) / len(labels)

    @abstractmethod
    def scores(self, metrics: Sequence[str], answers: Answers, labels: NDArray[Any]) -> dict[str, float]:
        """The metrics of a whole split, in the order given; the first is the primary one.

        Raises:
            ValueError: shapes that do not fit, no example, or values that are not finite.
        """

    def standard_error(self, metric: str, answers: Answers) -> float:
        """The standard error of a metric on these examples, roughly; for a share of examples, the largest possible."""
        return 0.5 / float(np.sqrt(len(next(iter(answers.values())))))


def finite(values: NDArray[Any], shape: tuple[int | None, ...]) -> NDArray[np.float64]:
    """Outputs in double precision.

    Args:
        values: a model's outputs.
        shape: what it must be; None for any size.
    Raises:
        ValueError: another shape, or an output that is not finite (a diverged model has no score).
    """
    outputs = np.asarray(values, dtype=np.float64)
    fits = outputs.ndim == len(shape) and all(n in (None, m) for n, m in zip(shape, outputs.shape, strict=True))
    if not fits:
        wanted = ", ".join("examples" if size is None else str(size) for size in shape)
        raise ValueError(f"logits must have the shape ({wanted}), got {outputs.shape}")
    if bad := int(np.count_nonzero(~np.isfinite(outputs))):
        raise ValueError(f"logits must be finite, got {bad} of {outputs.size} that are not: the model diverged")
    return outputs


def computed(metrics: Sequence[str], sides: Mapping[str, NDArray[Any]], references: NDArray[Any]) -> dict[str, float]:
    """Metrics by name.

    Args:
        metrics: names.
        sides: what a metric can read as predictions: "decisions" and perhaps "logits".
        references: the labels.
    """
    return {name: METRICS[name](sides[METRICS[name].reads], references) for name in metrics}
