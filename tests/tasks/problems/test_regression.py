"""Regression: the single output is the answer, and nothing is stratified."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from rankopt.core.task_spec import DataSpec, TaskSpec
from rankopt.tasks.problems.regression import Regression


def test_the_output_is_the_answer() -> None:
    found = Regression().decide({"logits": np.arange(4, dtype=np.float32)[:, None]})
    assert found.tolist() == [0, 1, 2, 3]
    assert found.dtype == np.float64


def test_losses_are_squared_errors() -> None:
    logits, labels = torch.tensor([[1.0], [3.0]]), torch.tensor([0.0, 5.0])
    assert float(Regression().loss(logits, labels)) == pytest.approx(5.0)
    assert float(Regression().distillation(logits, torch.tensor([[1.5], [3.0]]), torch.zeros(2))) == pytest.approx(0.25)


def test_there_are_no_classes() -> None:
    assert Regression().labels == ()
    assert Regression().strata(np.zeros(3)) is None


def where(index: int) -> str:
    return f"row {index + 1} of a.csv"


def test_numbers_and_their_texts_are_labels() -> None:
    found = Regression().encode([1, 2.5, "3", " -4e1 "], where)
    assert found.tolist() == [1, 2.5, 3, -40]
    assert found.dtype == np.float32


@pytest.mark.parametrize(
    ("value", "words"),
    [("", "no value"), (None, "no value"), ("three", "'three'"), (float("nan"), "nan"), ("inf", "'inf'"), (1e300, "1e"),
     (True, "True"), ([1], r"\[1\]")],
)  # fmt: skip
def test_what_is_no_finite_number_is_refused(value: Any, words: str) -> None:
    with pytest.raises(ValueError, match=rf"^task.label must hold finite numbers, got {words}.* in row 2 of a.csv"):
        Regression().encode([0, value], where)


def test_constant_labels_are_refused() -> None:
    spec = TaskSpec(name="own", problem="regression", data=DataSpec(train="a.csv"), text="body", label="price")
    assert Regression.of(spec, [1, 2], where) == Regression()
    with pytest.raises(ValueError, match="must hold different numbers, got '1' in every row"):
        Regression.of(spec, ["1", "1"], where)


def test_the_mean() -> None:
    labels = np.array([1.0, 2.0, 6.0], np.float32)
    name, answers = Regression().constant(labels)
    assert name == "predicting the mean"
    scores = Regression().scores(["mse", "pearson"], answers, labels)
    assert scores == {"mse": pytest.approx(np.var([1, 2, 6])), "pearson": 0}
