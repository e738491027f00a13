"""What every problem owes to a trial: a consistent loss, finite scores, and a model class that transformers has."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray

from rankopt.lowrank.files import AUTO_CLASS
from rankopt.tasks.glue import GLUE
from rankopt.tasks.problems import PROBLEMS
from rankopt.tasks.problems.base import finite


@pytest.mark.parametrize("name", PROBLEMS)
def test_registered_under_its_own_name(name: str) -> None:
    """File, class and table agree; transformers has the model class and PEFT the task type."""
    from peft import TaskType

    kind = PROBLEMS[name]
    assert kind.name == name
    assert kind.__module__ == f"rankopt.tasks.problems.{name.replace('-', '_')}"
    assert kind.__name__.lower() == name.replace("-", "")
    problem = GLUE["sst2"].problem if name == "classification" else kind()
    for encoder_decoder in (False, True):
        task_type = problem.task_type(encoder_decoder)
        assert hasattr(transformers, AUTO_CLASS[task_type])
        assert task_type in TaskType.__members__


@pytest.mark.parametrize("name", GLUE)
def test_a_perfect_model_has_every_score_one(name: str) -> None:
    task = GLUE[name]
    labels = np.arange(12) % len(task.labels) if task.labels else np.linspace(0, 5, 12)
    logits = np.eye(len(task.labels))[labels] if task.labels else labels[:, None]
    scores = task.scores({"logits": logits}, labels)
    assert list(scores) == list(task.metrics)
    assert scores == pytest.approx(dict.fromkeys(task.metrics, 1.0))
    assert all(type(score) is float for score in scores.values())


@pytest.mark.parametrize("name", ["cola", "mnli", "stsb"])
def test_the_mean_loss_is_the_loss_per_example(name: str) -> None:
    """Of all examples at once, what training sums over batches; and a model teaches itself nothing."""
    problem = GLUE[name].problem
    torch.manual_seed(0)
    logits = torch.randn(10, problem.outputs)
    labels = torch.arange(10) % problem.outputs if problem.labels else torch.randn(10)
    batches = sum(float(problem.loss(logits[part], labels[part])) for part in (slice(0, 4), slice(4, 10)))
    answers = {field: value.numpy() for field, value in problem.answers(logits, labels).items()}
    assert problem.mean_loss(answers, labels.numpy()) == pytest.approx(batches / 10, rel=1e-6)
    assert float(problem.distillation(logits, logits, labels)) == pytest.approx(0.0, abs=1e-6)
    assert float(problem.distillation(logits, logits + torch.randn_like(logits), labels)) > 0.1


@pytest.mark.parametrize(
    ("task", "logits", "words"),
    [
        ("mnli", np.zeros((4, 2)), r"logits must have the shape \(examples, 3\), got \(4, 2\)"),
        ("stsb", np.zeros((4, 2)), r"\(examples, 1\)"),
        ("cola", np.zeros(4), r"\(examples, 2\)"),
        ("cola", np.full((4, 2), np.nan), "logits must be finite, got 8 of 8"),
    ],
)
def test_outputs_that_cannot_be_scored_are_refused(task: str, logits: NDArray[Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        GLUE[task].scores({"logits": logits}, np.zeros(4, dtype=int))


def test_finite_gives_double_precision() -> None:
    assert finite(np.zeros((3, 2), np.float32), (None, 2)).dtype == np.float64


def test_an_accuracy_is_this_uncertain_at_most() -> None:
    """sqrt(p (1 - p) / n) at p = 1/2."""
    assert GLUE["cola"].problem.standard_error("matthews", {"logits": np.zeros((100, 2))}) == pytest.approx(0.05)
