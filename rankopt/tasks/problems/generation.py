"""A text that a model writes after a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from numpy.typing import NDArray

from rankopt.core.task_spec import GenerateSpec, TaskSpec
from rankopt.tasks.metrics import METRICS
from rankopt.tasks.problems.base import Answers, Where
from rankopt.tasks.problems.language_modelling import LanguageModelling
from rankopt.tasks.text_metrics import answer_of


@dataclass(frozen=True)
class Generation(LanguageModelling):
    """Train as in language modelling, and decode a text for every distinct prompt.

    Kept of every example, besides what language modelling keeps: `text`, and `prompt`, the number of its prompt. All
    examples of a prompt are references of one text.

    Args:
        max_new_tokens: longest text in tokens.
        beams: beams of a beam search; 1 decodes greedily.
        answer: the pattern of the metric `answer`, see `rankopt.tasks.text_metrics.answer_of`.
    """

    name: ClassVar[str] = "generation"
    default_metrics: ClassVar[tuple[str, ...]] = ("bleu", "rouge_l", "perplexity")
    keeps_prompts: ClassVar[bool] = True

    max_new_tokens: int = 64
    beams: int = 1
    answer: str | None = None

    @classmethod
    def of(cls, spec: TaskSpec, labels: Sequence[Any], where: Where) -> Generation:
        how = spec.generate or GenerateSpec()
        return cls(
            every_token=spec.loss_on == "all", chat=spec.messages is not None, answer=spec.answer,
            max_new_tokens=how.max_new_tokens, beams=how.beams,
        )  # fmt: skip

    def generates(self, metrics: Sequence[str]) -> bool:
        return any(METRICS[metric].reads == "texts" for metric in metrics)

    def score(self, metric: str, answers: Answers, labels: NDArray[Any]) -> float:
        if not self.generates([metric]):
            return super().score(metric, answers, labels)
        references: dict[int, list[str | None]] = {}
        texts: dict[int, str | None] = {}
        for prompt, text, label in zip(answers["prompt"].tolist(), answers["text"], labels, strict=True):
            references.setdefault(prompt, []).append(self._read(metric, str(label)))
            texts[prompt] = self._read(metric, str(text))
        known = [[one for one in own if one is not None] for own in references.values()]
        return METRICS[metric]([texts[prompt] for prompt in references], known)

    def standard_error(self, metric: str, answers: Answers) -> float:
        if not self.generates([metric]):
            return super().standard_error(metric, answers)
        scale = 100.0 if metric == "bleu" else 1.0
        return scale * 0.5 / float(len(set(answers["prompt"].tolist())) ** 0.5)

    def _read(self, metric: str, text: str) -> str | None:
        """What a metric reads of a text."""
        return answer_of(self.answer or "", text) if metric == "answer" else text
