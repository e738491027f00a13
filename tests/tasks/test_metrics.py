"""The table of metrics: what cannot be scored, and which problem has which metric."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rankopt.tasks.metrics import METRICS, MINIMISED, metrics_of


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric.reads == "decisions"])
@pytest.mark.parametrize(
    ("predictions", "references", "words"),
    [
        ([], [], "at least one example"),
        ([0, 1], [0], r"\(2,\) and \(1,\)"),
        ([[0], [1]], [[0], [1]], "one-dimensional"),
        ([0.0, np.nan], [0.0, 1.0], "predictions must be finite, got 1"),
        ([0.0, 1.0], [np.inf, np.nan], "references must be finite, got 2"),
    ],
)
def test_what_cannot_be_scored_is_refused(name: str, predictions: Any, references: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words) as raised:
        METRICS[name](np.array(predictions), np.array(references))
    assert "\n" not in str(raised.value)


def test_a_generation_has_the_metrics_of_language_modelling_too() -> None:
    assert {"perplexity", "bleu"} <= set(metrics_of("generation"))
    assert "bleu" not in metrics_of("language-modelling")


def test_every_metric_that_is_better_when_lower_is_in_the_table() -> None:
    assert set(METRICS) >= MINIMISED
