"""The table of metrics: functions of predictions and references."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rankopt.tasks.class_metrics import accuracy, f1, macro_f1, matthews, roc_auc, weighted_f1
from rankopt.tasks.loss_metrics import bits_per_byte, mean_loss, perplexity
from rankopt.tasks.number_metrics import mse, pearson, r2, spearman
from rankopt.tasks.text_metrics import bleu, exact_match, rouge

Array = NDArray[Any]

MINIMISED = frozenset({"loss", "mse", "perplexity", "bits_per_byte"})
"""The metrics that are better when lower. Every result records which of its metrics these are."""


@dataclass(frozen=True)
class Metric:
    """A metric by its registered name.

    Attributes:
        function: of predictions and references.
        problem: the problem that it measures; a generation has the metrics of language modelling as well.
        reads: what it is given as predictions: "decisions" (classes or numbers), "logits" or "texts"; for language
            modelling "losses" or "hits" per example, with the tokens or bytes per example as references.
        two_classes: whether it is defined for two classes only.
    """

    function: Callable[[Any, Any], float]
    problem: str
    reads: Literal["decisions", "logits", "losses", "hits", "texts"] = "decisions"
    two_classes: bool = False

    def __call__(self, predictions: Any, references: Any) -> float:
        """The value of the metric.

        Raises:
            ValueError: decisions that are empty, not finite, or of another shape than the references; one line.
        """
        if self.reads == "decisions":
            predictions, references = _pair(predictions, references)
        return self.function(predictions, references)


METRICS: dict[str, Metric] = {
    "accuracy": Metric(accuracy, "classification"),
    "f1": Metric(f1, "classification", two_classes=True),
    "macro_f1": Metric(macro_f1, "classification"),
    "weighted_f1": Metric(weighted_f1, "classification"),
    "matthews": Metric(matthews, "classification"),
    "roc_auc": Metric(roc_auc, "classification", reads="logits"),
    "pearson": Metric(pearson, "regression"),
    "spearman": Metric(spearman, "regression"),
    "mse": Metric(mse, "regression"),
    "r2": Metric(r2, "regression"),
    "loss": Metric(mean_loss, "language-modelling", reads="losses"),
    "perplexity": Metric(perplexity, "language-modelling", reads="losses"),
    "bits_per_byte": Metric(bits_per_byte, "language-modelling", reads="losses"),
    "token_accuracy": Metric(mean_loss, "language-modelling", reads="hits"),
    "bleu": Metric(bleu, "generation", reads="texts"),
    "rouge_1": Metric(partial(rouge, "rouge1"), "generation", reads="texts"),
    "rouge_2": Metric(partial(rouge, "rouge2"), "generation", reads="texts"),
    "rouge_l": Metric(partial(rouge, "rougeL"), "generation", reads="texts"),
    "exact_match": Metric(exact_match, "generation", reads="texts"),
    "answer": Metric(exact_match, "generation", reads="texts"),
}


def metrics_of(problem: str) -> list[str]:
    """The names of the metrics that a problem can have.

    Example:
        >>> metrics_of("regression")
        ['pearson', 'spearman', 'mse', 'r2']
    """
    wanted = {problem} | ({"language-modelling"} if problem == "generation" else set())
    return [name for name, metric in METRICS.items() if metric.problem in wanted]


def _pair(predictions: Array, references: Array) -> tuple[Array, Array]:
    """Both inputs as validated arrays; floats in double precision, since float32 sums change a correlation's digits."""
    sides = [np.asarray(side) for side in (predictions, references)]
    predictions, references = (side.astype(np.float64) if side.dtype.kind == "f" else side for side in sides)
    if predictions.shape != references.shape or predictions.ndim != 1:
        raise ValueError(
            f"predictions and references must be one-dimensional and equally long, "
            f"got the shapes {predictions.shape} and {references.shape}"
        )
    if not len(predictions):
        raise ValueError("a metric needs at least one example, got none")
    for name, side in (("predictions", predictions), ("references", references)):
        if not np.isfinite(side).all():
            raise ValueError(
                f"{name} must be finite, got {np.count_nonzero(~np.isfinite(side))} values that are not finite"
            )
    return predictions, references
