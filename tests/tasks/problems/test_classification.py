"""Classification: the decision, its strata, and its losses against torch's own."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from rankopt.tasks.problems.classification import Classification

PROBLEM = Classification(("a", "b", "c"))


def test_the_highest_logit_decides() -> None:
    found = PROBLEM.decide({"logits": np.eye(3, dtype=np.float32)})
    assert found.tolist() == [0, 1, 2]
    assert found.dtype == np.int64


def test_losses_are_torchs() -> None:
    torch.manual_seed(0)
    logits, teacher, labels = torch.randn(6, 3), torch.randn(6, 3), torch.arange(6) % 3
    p, q = teacher.softmax(-1), logits.softmax(-1)
    torch.testing.assert_close(PROBLEM.loss(logits, labels), -logits.log_softmax(-1)[range(6), labels].sum())
    torch.testing.assert_close(PROBLEM.distillation(logits, teacher, torch.tensor([0])), (p * (p / q).log()).sum())
    assert functional.cross_entropy(logits, labels) * 6 == PROBLEM.loss(logits, labels)


def test_splits_are_cut_by_class() -> None:
    labels = np.array([2, 0, 1])
    assert PROBLEM.strata(labels) is labels
