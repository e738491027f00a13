"""A text that a model writes after a prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from numpy.typing import NDArray

from rankopt.tasks.problems.base import Answers
from rankopt.tasks.problems.language_modelling import LanguageModelling
from rankopt.tasks.text_metrics import References, answer_match, bleu, exact_match, rouge

TEXT_METRICS: dict[str, Callable[[Sequence[str], References], float]] = {
    "bleu": bleu,
    "rouge_1": partial(rouge, "rouge1"),
    "rouge_2": partial(rouge, "rouge2"),
    "rouge_l": partial(rouge, "rougeL"),
    "exact_match": exact_match,
}
"""Metrics of generated texts by name; `answer` needs a pattern."""


@dataclass(frozen=True)
class Generation(LanguageModelling):
    """Train as in language modelling, and decode a text for every distinct prompt.

    Kept of every example, besides what language modelling keeps: `text`, and `prompt`, the number of its prompt. All
    examples of a prompt are references of one text.

    Args:
        max_new_tokens: longest text in tokens.
        beams: beams of a beam search; 1 decodes greedily.
        answer: the pattern of the metric `answer`, see `rankopt.tasks.text_metrics.answer_match`.
    """

    name: ClassVar[str] = "generation"
    default_metrics: ClassVar[tuple[str, ...]] = ("bleu", "perplexity")

    max_new_tokens: int = 64
    beams: int = 1
    answer: str | None = None

    def generates(self, metrics: Sequence[str]) -> bool:
        return any(metric in TEXT_METRICS or metric == "answer" for metric in metrics)

    def score(self, metric: str, answers: Answers, labels: NDArray[Any]) -> float:
        measure = partial(answer_match, self.answer or "") if metric == "answer" else TEXT_METRICS.get(metric)
        if measure is None:
            return super().score(metric, answers, labels)
        references: dict[int, list[str]] = {}
        texts: dict[int, str] = {}
        for prompt, text, label in zip(answers["prompt"].tolist(), answers["text"], labels, strict=True):
            references.setdefault(prompt, []).append(str(label))
            texts[prompt] = str(text)
        return measure([texts[prompt] for prompt in references], list(references.values()))

    def standard_error(self, metric: str, answers: Answers) -> float:
        if not self.generates([metric]):
            return super().standard_error(metric, answers)
        scale = 100.0 if metric == "bleu" else 1.0
        return scale * 0.5 / float(len(set(answers["prompt"].tolist())) ** 0.5)
