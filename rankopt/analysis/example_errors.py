"""How much a difference of scores depends on which examples were drawn: a paired bootstrap over examples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from rankopt.analysis.examples import METRICS, Examples, read_examples
from rankopt.analysis.mcnemar import mcnemar
from rankopt.analysis.pairs import Pair
from rankopt.analysis.resamples import BLOCK, resamples
from rankopt.analysis.statistics import NAN

Predictions = Callable[[str], bytes | None]
"""A trial's key -> the bytes of its `predictions.npz`, None where they are not stored."""

Weights = Mapping[str, Mapping[str, float]]
"""Setting -> trial's key -> weight of its score in a difference."""

DRAWS = 1000
DENSE = 20
"""A dense product takes less time than a sparse one from one value in this many; four classes have one in 16."""


class ExampleErrors:
    """Standard errors over examples, for given trainings.

        error^2 = sum_t Var_b(sum_k w_tk score_k(b)) / T^2

    with resamples b of the examples of task t, the same for all of its trials k, so that differences stay paired.

    Args:
        points: from `frame.tidy`.
        pairs: those whose trials are resampled.
        predictions: of the trials.

    Source: Efron and Tibshirani 1993, An introduction to the bootstrap, ch. 8 and 13.
    """

    def __init__(self, points: pd.DataFrame, pairs: Sequence[Pair], predictions: Predictions) -> None:
        self._examples: dict[str, Examples] = {}
        self._scores: dict[str, NDArray[np.float64]] = {}
        keys: dict[str, set[str]] = {}
        for pair in pairs:
            keys.setdefault(pair.setting, set()).update(key for trials in pair.trials.values() for key in trials)
        own = points[points["own"].astype(bool)].drop_duplicates("key").set_index("key")
        for of_setting in keys.values():
            found = dict(_read(own.loc[sorted(of_setting)], predictions))
            self._examples |= found
            self._scores |= _resampled(found)

    def error(self, weights: Weights) -> float:
        """The standard error of the mean over settings of weighted sums of scores; NaN if predictions are missing."""
        if any(key not in self._scores for trials in weights.values() for key in trials):
            return NAN
        sums = [sum(weight * self._scores[key] for key, weight in trials.items()) for trials in weights.values()]
        return math.sqrt(sum(float(np.var(one, ddof=1)) for one in sums)) / len(sums)

    def size(self, weights: Weights) -> int:
        """The number of examples of all settings."""
        return sum(len(self._examples[next(iter(trials))].labels) for trials in weights.values())

    def mcnemar(self, pair: Pair) -> float:
        """The p-value of `mcnemar`; NaN unless the metric is accuracy and the control is not interpolated."""
        sides: tuple[list[NDArray[np.bool_]], list[NDArray[np.bool_]]] = ([], [])
        for trials in pair.trials.values():
            hits = [one.hits for key in trials if (one := self._examples.get(key))]
            if len(hits) != 2 or len(trials) != 2 or hits[0] is None or hits[1] is None:
                return NAN
            for side, one_side in zip(sides, hits, strict=True):
                side.append(one_side)  # type: ignore[arg-type]  # checked above
        return mcnemar(np.array(sides[0]), np.array(sides[1])) if sides[0] else NAN


def _read(trials: pd.DataFrame, predictions: Predictions) -> Iterator[tuple[str, Examples]]:
    """The examples of the trials of one setting; trials that were scored on other examples than the first are left out.

    Damaged predictions count as missing.
    """
    labels = None
    for key, metric, split in zip(trials.index, trials["metric"], trials["split"], strict=True):
        if metric in METRICS and (data := predictions(key)) is not None:
            with suppress(ValueError):
                found = read_examples(data, split, metric)
                labels = found.labels if labels is None else labels
                if np.array_equal(labels, found.labels):
                    yield key, found


def _resampled(trials: Mapping[str, Examples]) -> dict[str, NDArray[np.float64]]:
    """The scores of trials of one setting on the same resamples, `(DRAWS,)` each."""
    if not trials:
        return {}
    size = len(next(iter(trials.values())).labels)
    scores: dict[str, list[NDArray[np.float64]]] = {key: [] for key in trials}
    for counts in resamples(size, DRAWS, seed=0):
        for some in _parts(trials):
            sums = _product(sparse.vstack([trials[key].terms for key in some], format="csr"), counts)
            ends = np.cumsum([trials[key].terms.shape[0] for key in some])
            for key, own in zip(some, np.split(sums, ends[:-1]), strict=True):
                scores[key].append(trials[key].metric(counts, own))
    return {key: np.concatenate(parts) for key, parts in scores.items()}


def _parts(trials: Mapping[str, Examples]) -> Iterator[list[str]]:
    """The trials in parts whose terms, and sums over all resamples, have about a block's size."""
    part: list[str] = []
    rows = 0
    for key, examples in trials.items():
        part.append(key)
        rows += examples.terms.shape[0]
        if rows * max(DRAWS, len(examples.labels)) >= BLOCK:
            yield part
            part, rows = [], 0
    if part:
        yield part


def _product(terms: sparse.csr_array, counts: NDArray[np.float64], width: int = 128) -> NDArray[np.float64]:
    """`terms @ counts.T`: dense where few terms are zero, else by resamples that fit into a processor's cache."""
    if terms.nnz > terms.shape[0] * terms.shape[1] / DENSE:
        found: NDArray[np.float64] = terms.toarray() @ counts.T
        return found
    parts = (np.ascontiguousarray(counts[start : start + width].T) for start in range(0, len(counts), width))
    return np.concatenate([terms @ part for part in parts], axis=1)
