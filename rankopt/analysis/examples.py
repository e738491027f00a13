"""A trial's score on resamples of the examples of a split, from its stored predictions."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, special

Floats = NDArray[np.float64]
Counts = NDArray[np.float64]
"""How often each example is in each resample, `(resamples, examples)`."""
Arrays = Mapping[str, NDArray[Any]]
"""Fields of one split: `labels`, and what a problem keeps of a model's outputs."""
OWN = "budget"
"""Label of a trial's own point."""


@dataclass(frozen=True)
class Examples:
    """What a trial predicted for the examples of a split.

    Attributes:
        labels: of the examples, in the order of the data.
        terms: what the metric sums over examples, `(k, examples)`; nothing if it is no function of sums.
        metric: the metric on every resample, as `rankopt.tasks.metrics` defines it, from the resamples and the sums of
            the terms on them, `(k, resamples)`.
        hits: whether each example is correct; None unless the metric is accuracy.
    """

    labels: NDArray[Any]
    terms: sparse.csr_array
    metric: Callable[[Counts, Floats], Floats]
    hits: NDArray[np.bool_] | None = None

    def score(self, counts: Counts) -> Floats:
        """The metric on every resample."""
        return self.metric(counts, self.terms @ counts.T)


def read_examples(data: bytes, split: str, metric: str) -> Examples:
    """The examples in a trial's `predictions.npz`, at the trial's own pattern.

    Args:
        data: the bytes of the file.
        split: a report split.
        metric: one of `METRICS`.
    Raises:
        ValueError: the file is damaged, or lacks the split.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            end = f"/{OWN}/{split}"
            fields = {name.removesuffix(end): file[name] for name in file.files if name.endswith(end)}
            fields["labels"] = file[f"labels/{split}"]
            return METRICS[metric](fields)
    except (KeyError, IndexError, EOFError, zipfile.BadZipFile, ValueError) as error:
        raise ValueError(f"predictions.npz must have {metric} on split {split}, got {error}") from None


def _accuracy(fields: Arrays) -> Examples:
    hits = fields["logits"].argmax(1) == fields["labels"]
    return Examples(fields["labels"], _terms(hits, ~hits), lambda counts, sums: sums[0] / sums.sum(0), hits)


def _ratio(fields: Arrays, over: Floats, under: Floats) -> Examples:
    return Examples(fields["labels"], _terms(over, under), lambda counts, sums: sums[0] / sums[1])


def _terms(*values: NDArray[Any]) -> sparse.csr_array:
    return sparse.csr_array(np.array(values, float))


def _of_resamples(fields: Arrays, score: Callable[[Counts], Floats]) -> Examples:
    """A metric that is no function of sums over examples, or would lose digits in them."""
    labels = fields["labels"]
    return Examples(labels, sparse.csr_array((0, len(labels))), lambda counts, sums: score(counts))


def _loss(fields: Arrays) -> Examples:
    return _ratio(fields, fields["loss"], fields["tokens"])


def _perplexity(fields: Arrays) -> Examples:
    loss = _loss(fields)
    return replace(loss, metric=lambda counts, sums: np.exp(np.minimum(loss.metric(counts, sums), 700.0)))


def _bits_per_byte(fields: Arrays) -> Examples:
    sizes = np.array([len(str(text).encode()) for text in fields["labels"]], float)
    return _ratio(fields, fields["loss"] / math.log(2), sizes)


def _token_accuracy(fields: Arrays) -> Examples:
    return _ratio(fields, fields["correct"], fields["tokens"])


def _of_confusion(function: Callable[[Floats], Floats]) -> Callable[[Arrays], Examples]:
    """A metric of the numbers of examples by reference and predicted class, `(classes, classes, resamples)`."""

    def examples(fields: Arrays) -> Examples:
        n, classes = fields["logits"].shape
        cells = classes * fields["labels"].astype(np.int64) + fields["logits"].argmax(1)
        which = sparse.csr_array((np.ones(n), (cells, np.arange(n))), shape=(classes**2, n))
        return Examples(fields["labels"], which, lambda counts, sums: function(sums.reshape(classes, classes, -1)))

    return examples


def _matthews(table: Floats) -> Floats:
    total, right = table.sum((0, 1)), np.trace(table)
    true, predicted = table.sum(1), table.sum(0)
    over = right * total - (true * predicted).sum(0)
    under = np.sqrt((total**2 - (predicted**2).sum(0)) * (total**2 - (true**2).sum(0)))
    return _divided(over, under)


def _f1(table: Floats) -> Floats:
    found: Floats = _f1_of_classes(table)[1]
    return found


def _macro_f1(table: Floats) -> Floats:
    there = (table.sum(0) + table.sum(1)) > 0
    return _divided((_f1_of_classes(table) * there).sum(0), there.sum(0))


def _weighted_f1(table: Floats) -> Floats:
    return _divided((_f1_of_classes(table) * table.sum(1)).sum(0), table.sum((0, 1)))


def _f1_of_classes(table: Floats) -> Floats:
    """`(classes, resamples)`."""
    right: Floats = np.diagonal(table).T
    return _divided(2 * right, table.sum(0) + table.sum(1))


def _pearson(fields: Arrays) -> Examples:
    x, y = _regression(fields)
    return _of_resamples(fields, lambda counts: _correlation(counts, x, y))


def _spearman(fields: Arrays) -> Examples:
    x, y = _regression(fields)
    return _of_resamples(fields, lambda counts: _correlation(counts, _midranks(counts, x), _midranks(counts, y)))


def _mse(fields: Arrays) -> Examples:
    x, y = _regression(fields)
    return _ratio(fields, np.square(x - y), np.ones(len(x)))


def _r2(fields: Arrays) -> Examples:
    x, y = _regression(fields)

    def score(counts: Counts) -> Floats:
        spread = counts @ np.square(y) - (counts @ y) ** 2 / counts.sum(1)
        return np.where(spread > TINY, 1 - _divided(counts @ np.square(x - y), spread), 0.0)

    return _of_resamples(fields, score)


def _regression(fields: Arrays) -> tuple[Floats, Floats]:
    return fields["logits"][:, 0].astype(float), fields["labels"].astype(float)


def _roc_auc(fields: Arrays) -> Examples:
    logits, labels = fields["logits"].astype(float), fields["labels"]
    # of two classes the second one's curve is that of the first, and their softmax is monotone
    values = special.softmax(logits, axis=1) if logits.shape[1] > 2 else logits - logits[:, :1]
    classes = range(1, 2) if logits.shape[1] == 2 else range(logits.shape[1])

    def score(counts: Counts) -> Floats:
        areas = np.array([_area(counts, values[:, k], labels == k) for k in classes])
        known = ~np.isnan(areas)
        return np.where(known.any(0), _divided(np.nansum(areas, 0), known.sum(0)), 0.5)

    return _of_resamples(fields, score)


def _area(counts: Counts, values: Floats, positive: NDArray[np.bool_]) -> Floats:
    """The area under the ROC curve from the ranks of the positives; NaN without positives or negatives."""
    first = counts @ positive
    second = counts.sum(1) - first
    above = (counts * _midranks(counts, values)) @ positive - first * (first + 1) / 2
    return np.where(first * second > 0, _divided(above, first * second), np.nan)


def _midranks(counts: Counts, values: Floats) -> Floats:
    """The rank of every example in every resample; equal values share the mean of their ranks."""
    order = np.argsort(values, kind="stable")
    starts = np.diff(values[order], prepend=-np.inf) != 0
    groups = np.add.reduceat(counts[:, order], np.flatnonzero(starts), axis=1)
    middles = np.cumsum(groups, axis=1) - groups + (groups + 1) / 2
    group_of = np.empty(len(values), np.int64)
    group_of[order] = np.cumsum(starts) - 1
    ranks: Floats = middles[:, group_of]
    return ranks


def _correlation(counts: Counts, x: Floats, y: Floats) -> Floats:
    """Pearson's correlation in every resample; x and y are `(examples,)` or `(resamples, examples)`."""
    total = counts.sum(1, keepdims=True)
    x = x - (counts * x).sum(1, keepdims=True) / total
    y = y - (counts * y).sum(1, keepdims=True) / total
    over = (counts * x * y).sum(1)
    return _divided(over, np.sqrt((counts * x * x).sum(1) * (counts * y * y).sum(1)))


TINY = 1e-12


def _divided(over: Floats, under: Any) -> Floats:
    """A quotient, 0 where it is undefined: the score of constant predictions."""
    found: Floats = np.divide(over, under, out=np.zeros(np.shape(over)), where=under > TINY)
    return found


METRICS: dict[str, Callable[[Arrays], Examples]] = {
    "accuracy": _accuracy,
    "f1": _of_confusion(_f1),
    "macro_f1": _of_confusion(_macro_f1),
    "weighted_f1": _of_confusion(_weighted_f1),
    "matthews": _of_confusion(_matthews),
    "roc_auc": _roc_auc,
    "pearson": _pearson,
    "spearman": _spearman,
    "mse": _mse,
    "r2": _r2,
    "loss": _loss,
    "perplexity": _perplexity,
    "bits_per_byte": _bits_per_byte,
    "token_accuracy": _token_accuracy,
}
"""Metrics that are functions of sums over examples. Metrics of generated texts are not among them."""
