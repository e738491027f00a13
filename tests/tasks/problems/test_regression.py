"""Regression: the single output is the answer, and nothing is stratified."""

from __future__ import annotations

import numpy as np
import pytest
import torch

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
