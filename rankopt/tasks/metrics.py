"""Metrics: functions of predictions and references."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rankopt.tasks.text_metrics import bleu, exact_match, rouge

Array = NDArray[Any]

MINIMISED = frozenset({"loss", "mse", "perplexity", "bits_per_byte"})
"""The metrics that are better when lower. Every result records which of its metrics these are."""


def accuracy(predictions: Array, references: Array) -> float:
    """Fraction of examples with a correct prediction: `mean(predictions == references)`.

    Args:
        predictions: (n,) class indices.
        references: (n,) class indices.
    Returns:
        A number in [0, 1].
    Raises:
        ValueError: the inputs are empty, of different shapes or not finite.

    Example:
        >>> accuracy(np.array([0, 1, 1, 1]), np.array([0, 1, 0, 1]))
        0.75
    """
    predictions, references = _pair(predictions, references)
    return float(np.mean(predictions == references))


def f1(predictions: Array, references: Array) -> float:
    """Harmonic mean of precision and recall of class 1, `2 tp / (2 tp + fp + fn)`; 0 when class 1 never occurs.

    Args:
        predictions: (n,) class indices; every class but 1 counts as negative.
        references: (n,) class indices.
    Returns:
        A number in [0, 1].
    Raises:
        ValueError: the inputs are empty, of different shapes or not finite.

    Example:
        >>> f1(np.array([1, 1, 0, 0]), np.array([1, 0, 0, 0])) == 2 / 3
        True

    Source: van Rijsbergen, Information Retrieval, 1979; on MRPC and QQP by GLUE (Wang et al. 2018).
    """
    predictions, references = _pair(predictions, references)
    from sklearn.metrics import f1_score  # imported here because it is slow to import

    return float(f1_score(references == 1, predictions == 1, zero_division=0.0))


def matthews(predictions: Array, references: Array) -> float:
    """Correlation of two class labellings; 0 when either is constant.

    For two classes `(tp tn - fp fn) / sqrt((tp + fp)(tp + fn)(tn + fp)(tn + fn))`; for more, its multi-class form.

    Args:
        predictions: (n,) class indices.
        references: (n,) class indices.
    Returns:
        A number in [-1, 1].
    Raises:
        ValueError: the inputs are empty, of different shapes or not finite.

    Example:
        >>> matthews(np.array([0, 1, 1, 0]), np.array([0, 1, 1, 0])), matthews(np.array([1, 1]), np.array([0, 1]))
        (1.0, 0.0)

    Source: Matthews, Biochimica et Biophysica Acta 405, 1975; on CoLA by Warstadt et al. 2018.
    """
    predictions, references = _pair(predictions, references)
    if _constant(predictions) or _constant(references):
        return 0.0
    from sklearn.metrics import matthews_corrcoef  # imported here because it is slow to import

    return float(matthews_corrcoef(references, predictions))


def pearson(predictions: Array, references: Array) -> float:
    """Linear correlation `cov(p, y) / (std(p) std(y))`; 0 when either side is constant.

    Args:
        predictions: (n,) numbers.
        references: (n,) numbers.
    Returns:
        A number in [-1, 1].
    Raises:
        ValueError: the inputs are empty, of different shapes or not finite.

    Example:
        >>> round(pearson(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0])), 12)
        1.0
        >>> pearson(np.ones(3), np.arange(3.0))
        0.0

    Source: Pearson, Proceedings of the Royal Society 58, 1895; on STS-B by Cer et al. 2017.
    """
    predictions, references = _pair(predictions, references)
    if _constant(predictions) or _constant(references):
        return 0.0
    from scipy.stats import pearsonr  # imported here because it is slow to import

    return float(pearsonr(predictions, references).statistic)


def spearman(predictions: Array, references: Array) -> float:
    """Pearson correlation of the two sides' ranks (ties share their mean rank); 0 when either side is constant.

    Args:
        predictions: (n,) numbers.
        references: (n,) numbers.
    Returns:
        A number in [-1, 1].
    Raises:
        ValueError: the inputs are empty, of different shapes or not finite.

    Example:
        >>> round(spearman(np.array([1.0, 10.0, 100.0]), np.array([0.0, 1.0, 2.0])), 12)
        1.0

    Source: Spearman, The American Journal of Psychology 15, 1904; on STS-B by Wang et al. 2018.
    """
    predictions, references = _pair(predictions, references)
    if _constant(predictions) or _constant(references):
        return 0.0
    from scipy.stats import spearmanr  # imported here because it is slow to import

    return float(spearmanr(predictions, references).statistic)


def macro_f1(predictions: Array, references: Array) -> float:
    """Mean over classes of the F1 of each class; a class that neither side has is left out.

    Args:
        predictions: (n,) class indices.
        references: (n,) class indices.
    Returns:
        A number in [0, 1].
    Raises:
        ValueError: the inputs are empty, of different shapes or not finite.

    Example:
        >>> macro_f1(np.array([0, 1, 2, 2]), np.array([0, 1, 2, 1])) == (1 + 2 / 3 + 2 / 3) / 3
        True
    """
    return _averaged_f1(predictions, references, "macro")


def weighted_f1(predictions: Array, references: Array) -> float:
    """Mean over examples of the F1 of their reference class. Arguments as `macro_f1`.

    Example:
        >>> weighted_f1(np.array([0, 1, 2, 2]), np.array([0, 1, 2, 1])) == (1 + 2 * 2 / 3 + 2 / 3) / 4
        True
    """
    return _averaged_f1(predictions, references, "weighted")


def roc_auc(logits: Array, references: Array) -> float:
    """Area under the ROC curve of the class probabilities; for more than two classes, the mean of one against the rest.

    A class that no example has, or that all have, is left out; 0.5 where no class is left.

    Args:
        logits: (n, classes) outputs; the softmax gives the probabilities.
        references: (n,) class indices.
    Returns:
        A number in [0, 1].
    Raises:
        ValueError: the inputs are empty, of different shapes or not finite.

    Example:
        >>> roc_auc(np.array([[0.0, 1.0], [0.0, 3.0], [0.0, 2.0]]), np.array([0, 1, 0]))
        1.0
    """
    logits, references = np.asarray(logits, np.float64), np.asarray(references)
    if logits.ndim != 2 or logits.shape[:1] != references.shape:
        raise ValueError(f"roc_auc needs one row of logits per reference, got {logits.shape} and {references.shape}")
    if not np.isfinite(logits).all() or not len(logits):
        raise ValueError(f"roc_auc needs at least one example and finite logits, got {len(logits)} examples")
    from scipy.special import softmax  # imported here because they are slow to import
    from sklearn.metrics import roc_auc_score

    # of two classes the second one's curve is that of the first
    classes = range(1, 2) if logits.shape[1] == 2 else range(logits.shape[1])
    there = [k for k in classes if 0 < np.count_nonzero(references == k) < len(references)]
    scores = softmax(logits, axis=1) if logits.shape[1] > 2 else logits - logits[:, :1]  # softmax of two is monotone
    return float(np.mean([roc_auc_score(references == k, scores[:, k]) for k in there])) if there else 0.5


def mse(predictions: Array, references: Array) -> float:
    """Mean squared error; lower is better.

    Args:
        predictions: (n,) numbers.
        references: (n,) numbers.
    Raises:
        ValueError: the inputs are empty, of different shapes or not finite.

    Example:
        >>> mse(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
        2.0
    """
    predictions, references = _pair(predictions, references)
    from sklearn.metrics import mean_squared_error  # imported here because it is slow to import

    return float(mean_squared_error(references, predictions))


def r2(predictions: Array, references: Array) -> float:
    """Share of the references' variance that is explained, `1 - sum((p - y)^2) / sum((y - mean(y))^2)`.

    Constant references give 1 where they are predicted exactly, else 0; so does a single example.

    Args:
        predictions: (n,) numbers.
        references: (n,) numbers.
    Returns:
        A number of at most 1; negative where the mean of the references would be a better prediction.
    Raises:
        ValueError: the inputs are empty, of different shapes or not finite.

    Example:
        >>> r2(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0]))
        1.0
    """
    predictions, references = _pair(predictions, references)
    if len(references) < 2:
        return float(np.array_equal(predictions, references))
    from sklearn.metrics import r2_score  # imported here because it is slow to import

    return float(r2_score(references, predictions))


def mean_loss(losses: Array, counts: Array) -> float:
    """A sum per example over a count per example: `sum(losses) / sum(counts)`.

    Example:
        >>> mean_loss(np.array([1.0, 5.0]), np.array([1, 2]))
        2.0
    """
    return float(losses.sum() / counts.sum())


def perplexity(losses: Array, tokens: Array) -> float:
    """`exp` of the mean loss per token, in nats; it cannot be compared between tokenizers.

    Example:
        >>> round(perplexity(np.array([3.0]), np.array([3])), 3)
        2.718
    """
    return math.exp(min(mean_loss(losses, tokens), 700.0))  # a diverged model has a finite perplexity


def bits_per_byte(losses: Array, sizes: Array) -> float:
    """The loss in bits over the bytes of the texts in UTF-8; it can be compared between tokenizers.

    Example:
        >>> round(bits_per_byte(np.array([math.log(2) * 6]), np.array([3])), 3)
        2.0
    """
    return float(losses.sum() / math.log(2) / max(1, int(sizes.sum())))


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


def _averaged_f1(predictions: Array, references: Array, average: str) -> float:
    predictions, references = _pair(predictions, references)
    from sklearn.metrics import f1_score  # imported here because it is slow to import

    return float(f1_score(references, predictions, average=average, zero_division=0.0))


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


def _constant(values: Array) -> bool:
    """Whether values differ by rounding only, by scipy's own limit for a near-constant input."""
    spread = math.sqrt(float(np.sum((values - values.mean()) ** 2)))
    return spread <= 1e-13 * abs(float(values.mean()))
