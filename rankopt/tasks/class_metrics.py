"""Metrics of classes: accuracy, F1, Matthews correlation, area under the ROC curve."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def accuracy(predictions: Array, references: Array) -> float:
    """Fraction of examples with a correct prediction: `mean(predictions == references)`.

    Args:
        predictions: (n,) class indices.
        references: (n,) class indices.
    Returns:
        A number in [0, 1].

    Example:
        >>> accuracy(np.array([0, 1, 1, 1]), np.array([0, 1, 0, 1]))
        0.75
    """
    return float(np.mean(predictions == references))


def f1(predictions: Array, references: Array) -> float:
    """Harmonic mean of precision and recall of class 1, `2 tp / (2 tp + fp + fn)`; 0 when class 1 never occurs.

    Args:
        predictions: (n,) class indices; every class but 1 counts as negative.
        references: (n,) class indices.
    Returns:
        A number in [0, 1].

    Example:
        >>> f1(np.array([1, 1, 0, 0]), np.array([1, 0, 0, 0])) == 2 / 3
        True

    Source: van Rijsbergen, Information Retrieval, 1979; on MRPC and QQP by GLUE (Wang et al. 2018).
    """
    from sklearn.metrics import f1_score  # imported here because it is slow to import

    return float(f1_score(references == 1, predictions == 1, zero_division=0.0))


def macro_f1(predictions: Array, references: Array) -> float:
    """Mean over classes of the F1 of each class; a class that neither side has is left out.

    Args:
        predictions: (n,) class indices.
        references: (n,) class indices.
    Returns:
        A number in [0, 1].

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


def matthews(predictions: Array, references: Array) -> float:
    """Correlation of two class labellings; 0 when either is constant.

    For two classes `(tp tn - fp fn) / sqrt((tp + fp)(tp + fn)(tn + fp)(tn + fn))`; for more, its multi-class form.

    Args:
        predictions: (n,) class indices.
        references: (n,) class indices.
    Returns:
        A number in [-1, 1].

    Example:
        >>> matthews(np.array([0, 1, 1, 0]), np.array([0, 1, 1, 0])), matthews(np.array([1, 1]), np.array([0, 1]))
        (1.0, 0.0)

    Source: Matthews, Biochimica et Biophysica Acta 405, 1975; on CoLA by Warstadt et al. 2018.
    """
    if len(np.unique(predictions)) < 2 or len(np.unique(references)) < 2:
        return 0.0
    from sklearn.metrics import matthews_corrcoef  # imported here because it is slow to import

    return float(matthews_corrcoef(references, predictions))


def roc_auc(logits: Array, references: Array) -> float:
    """Area under the ROC curve of the class probabilities; for more than two classes, the mean of one against the rest.

    A class that no example has, or that all have, is left out; 0.5 where no class is left.

    Args:
        logits: (n, classes) outputs; the softmax gives the probabilities.
        references: (n,) class indices.
    Returns:
        A number in [0, 1].

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


def _averaged_f1(predictions: Array, references: Array, average: str) -> float:
    from sklearn.metrics import f1_score  # imported here because it is slow to import

    return float(f1_score(references, predictions, average=average, zero_division=0.0))
