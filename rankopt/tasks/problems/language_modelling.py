"""The next token of a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rankopt.core.task_spec import TaskSpec
from rankopt.tasks.loss_metrics import mean_loss, perplexity
from rankopt.tasks.metrics import METRICS
from rankopt.tasks.problems.base import Answers, Problem, Where
from rankopt.tasks.tables import texts

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from rankopt.tasks.encode import Encoded

IGNORED = -100
BATCH = 8
"""Examples per step in the studies of `rankopt init` and the trainings of `rankopt suggest`."""


@dataclass(frozen=True)
class LanguageModelling(Problem):
    """Predict a completion token by token, after a prompt that may be empty: cross-entropy per token.

    Kept of every example: `loss`, summed over its tokens, in nats; `tokens`, how many; `correct`, how many of them have
    the highest logit.

    Args:
        every_token: whether the tokens of prompts are trained and scored as well.
        chat: whether prompts are messages, see `rankopt.tasks.completions`.
    Example:
        >>> answers = {"loss": np.array([3.0]), "tokens": np.array([3]), "correct": np.array([1])}
        >>> scores = LanguageModelling().scores(["perplexity", "token_accuracy"], answers, np.array(["a b"], object))
        >>> [round(value, 3) for value in scores.values()]
        [2.718, 0.333]
    """

    name: ClassVar[str] = "language-modelling"
    label_type: ClassVar[str] = "string"
    default_metrics: ClassVar[tuple[str, ...]] = ("perplexity", "bits_per_byte", "token_accuracy")

    every_token: bool = False
    chat: bool = False

    @classmethod
    def of(cls, spec: TaskSpec, labels: Sequence[Any], where: Where) -> LanguageModelling:
        return cls(every_token=spec.loss_on == "all", chat=spec.messages is not None)

    def encode(self, labels: Sequence[Any], where: Where) -> NDArray[Any]:
        return np.array(texts(labels, "completion", where), dtype=object)

    @property
    def outputs(self) -> None:
        return None

    def task_type(self, encoder_decoder: bool) -> str:
        return "SEQ_2_SEQ_LM" if encoder_decoder else "CAUSAL_LM"

    def tokenise(
        self, columns: Sequence[str], dataset: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> Encoded:
        from rankopt.tasks.completions import encode_completions

        return encode_completions(columns, dataset, tokenizer, max_length, self.chat)

    def collate(
        self, items: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, config: Any
    ) -> dict[str, Tensor]:
        from rankopt.tasks.completions import decoder_batch, encoder_decoder_batch

        pad: Any = tokenizer.pad_token_id
        if config.is_encoder_decoder:
            return encoder_decoder_batch(items, pad, config.decoder_start_token_id, tokenizer.bos_token_id)
        return decoder_batch(items, pad, self.every_token)

    def items(self, labels: Tensor) -> Tensor:
        return (labels != IGNORED).sum()

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        from torch.nn import functional

        return functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum")

    def distillation(self, logits: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        from torch.nn import functional

        counted = labels != IGNORED
        student, target = logits[counted].log_softmax(-1), teacher[counted].log_softmax(-1)
        return functional.kl_div(student, target, reduction="sum", log_target=True)

    def answers(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        import torch
        from torch.nn import functional

        counted = labels != IGNORED
        losses = functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none"
        ).view(labels.shape)
        return {
            "loss": losses.sum(1, dtype=torch.float64),
            "tokens": counted.sum(1),
            "correct": (logits.argmax(-1) == labels).sum(1),
        }

    def mean_loss(self, answers: Answers, labels: NDArray[Any]) -> float:
        return mean_loss(answers["loss"], answers["tokens"])

    def scores(self, metrics: Sequence[str], answers: Answers, labels: NDArray[Any]) -> dict[str, float]:
        return {metric: self.score(metric, answers, labels) for metric in metrics}

    def score(self, metric: str, answers: Answers, labels: NDArray[Any]) -> float:
        """One metric of a whole split."""
        counts = answers["tokens"]
        if metric == "bits_per_byte":
            counts = np.array([len(text.encode()) for text in labels])
        return METRICS[metric](answers["correct" if METRICS[metric].reads == "hits" else "loss"], counts)

    def standard_error(self, metric: str, answers: Answers) -> float:
        if metric == "token_accuracy":
            return super().standard_error(metric, answers)
        loss, tokens = answers["loss"], answers["tokens"]
        mean = mean_loss(loss, tokens)
        # of a ratio of two sums over independent examples
        error = float(np.sqrt(np.square(loss - mean * tokens).sum()) / tokens.sum())
        return error * (perplexity(loss, tokens) if metric == "perplexity" else 1.0)
