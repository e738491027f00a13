"""Scores on resamples are those of the task's own metrics on the resampled examples."""

from __future__ import annotations

import numpy as np
import pytest
from stored_predictions import npz

from rankopt.analysis.examples import METRICS, read_examples
from rankopt.tasks import metrics
from rankopt.tasks.problems.classification import Classification
from rankopt.tasks.problems.language_modelling import LanguageModelling
from rankopt.tasks.problems.regression import Regression

N = 30
RANDOM = np.random.default_rng(0)
COUNTS = RANDOM.multinomial(N, [1 / N] * N, size=20)


def fields(metric: str, classes: int) -> tuple[object, dict[str, np.ndarray], np.ndarray]:
    """A problem, its answers and labels; a few equal values, so that ranks are tied."""
    problem = metrics.METRICS[metric].problem
    if problem == "classification":
        names = tuple(map(str, range(classes)))
        logits = RANDOM.normal(size=(N, classes)).round(1).astype(np.float32)
        return Classification(names), {"logits": logits}, RANDOM.integers(classes, size=N)
    if problem == "regression":
        labels = RANDOM.normal(size=N).round(1).astype(np.float32)
        return Regression(), {"logits": (labels + RANDOM.normal(size=N).round(1)).astype(np.float32)[:, None]}, labels
    tokens = RANDOM.integers(1, 9, N)
    answers = {"loss": RANDOM.gamma(2.0, size=N) * tokens, "tokens": tokens, "correct": RANDOM.integers(0, tokens + 1)}
    return LanguageModelling(), answers, np.array(["é" * int(size) for size in tokens], dtype=object)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("metric", METRICS)
def test_scores_on_resamples(metric: str, classes: int) -> None:
    problem, answers, labels = fields(metric, 2 if metrics.METRICS[metric].two_classes else classes)
    stored = labels.astype(str) if labels.dtype == object else labels
    found = read_examples(npz(stored, **answers), "validation", metric)
    rows = [np.repeat(np.arange(N), counts) for counts in COUNTS]
    wanted = [
        problem.scores([metric], {name: values[row] for name, values in answers.items()}, labels[row])[metric]
        for row in rows
    ]
    assert found.score(COUNTS.astype(float)) == pytest.approx(wanted, abs=1e-9)


def test_constant_predictions_have_the_score_of_the_task() -> None:
    labels = np.arange(N) % 2
    for metric in ("matthews", "f1", "roc_auc"):
        logits = np.tile(np.float32([1, 0]), (N, 1))
        wanted = Classification(("a", "b")).scores([metric], {"logits": logits}, labels)[metric]
        assert read_examples(npz(labels, logits=logits), "validation", metric).score(np.ones((1, N))) == wanted


def test_only_metrics_of_texts_are_missing() -> None:
    assert {metric for metric in metrics.METRICS if metric not in METRICS} == {
        "bleu", "rouge_1", "rouge_2", "rouge_l", "exact_match", "answer"
    }  # fmt: skip


def test_damaged_files_are_one_line() -> None:
    good = npz(np.arange(4) % 2, logits=np.eye(2, dtype=np.float32)[[0, 1, 1, 0]])
    for data, split in ((good[: len(good) // 2], "validation"), (b"", "validation"), (good, "test")):
        with pytest.raises(ValueError, match="must have accuracy on split") as error:
            read_examples(data, split, "accuracy")
        assert "\n" not in str(error.value)
