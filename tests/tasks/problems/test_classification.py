"""Classification: the decision, its strata, and its losses against torch's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from rankopt.core.task_spec import DataSpec, TaskSpec
from rankopt.tasks.problems.classification import Classification, listed

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


def where(index: int) -> str:
    return f"row {index + 1} of a.csv"


SPEC = TaskSpec(name="own", problem="classification", data=DataSpec(train="a.csv"), text="body", label="queue")


def test_weights_are_those_of_torch() -> None:
    torch.manual_seed(0)
    logits, labels, weights = torch.randn(6, 3), torch.arange(6) % 3, (1.0, 2.0, 0.5)
    expected = sum(weights[k] * -row.log_softmax(-1)[k] for row, k in zip(logits, labels, strict=True))
    torch.testing.assert_close(Classification(("a", "b", "c"), weights).loss(logits, labels), expected)


def test_labels_are_encoded_by_name() -> None:
    assert Classification(("no", "yes")).encode(["yes", "no"], where).tolist() == [1, 0]
    assert Classification(("false", "true")).encode([True, "false"], where).tolist() == [1, 0]
    assert Classification(("2", "10")).encode([10, 2.0, "2"], where).tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (["x", "x"], "must have at least two classes, got 'x' in every row"),
        (["x", None], "must hold a class in every row, got no value in row 2 of a.csv"),
        (["x", ""], "got no value in row 2"),
        ([0, 0.5], r"got 0.5 \(a regression\?\) in row 2"),
        (["x", ["y"]], r"got \['y'\] in row 2"),
        (["x", 1], "must hold values of one type, got 'x' in row 1 of a.csv and 1 in row 2"),
        ([True, 2], "values of one type, got True in row 1"),
    ],
)
def test_columns_that_hold_no_classes(values: list[Any], words: str) -> None:
    with pytest.raises(ValueError, match=rf"^task.label .*{words}"):
        Classification.of(SPEC, values, where)


def test_a_class_that_training_lacks() -> None:
    with pytest.raises(ValueError, match=r"a class of the training rows \(no, yes\), got 'yse' in row 1 of a.csv"):
        Classification(("no", "yes")).encode(["yse"], where)
    many = Classification(tuple(f"class {number}" for number in range(40)))
    with pytest.raises(
        ValueError, match=r"class 4, ...: 40 in all\), got 'clas 33' in row 1 .*did you mean 'class 33'"
    ):
        many.encode(["clas 33"], where)


def test_balanced_weights_need_every_class() -> None:
    spec = SPEC.model_copy(update={"labels": ("a", "b", "c"), "class_weights": "balanced"})
    with pytest.raises(ValueError, match="no training row has class 'c'"):
        Classification.of(spec, ["a", "b"], where)


def test_listed() -> None:
    """At most five names, each at most 40 characters long, and their number."""
    assert listed(["a", "b"]) == "a, b"
    assert listed(list("abcdef")) == "a, b, c, d, e, ...: 6 in all"
    assert listed(["x" * 600]) == "x" * 37 + "..."


def test_the_most_frequent_class() -> None:
    problem = Classification(("no", "maybe", "yes"))
    labels = np.array([2, 0, 2, 1])
    name, answers = problem.constant(labels)
    assert name == "predicting the most frequent class"
    assert problem.scores(["accuracy"], answers, labels) == {"accuracy": 0.5}
