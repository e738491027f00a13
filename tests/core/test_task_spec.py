"""A task's own data is described completely, with the columns that its problem has."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from rankopt.core.errors import violations
from rankopt.core.spec import decode
from rankopt.core.task_spec import TaskSpec

OWN: dict[str, Any] = {
    "name": "tickets", "problem": "classification", "data": {"train": "train.csv"}, "text": "body", "label": "queue",
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "where", "words"),
    [
        ({"data": None}, "problem", "describes your own data: set task.data as well"),
        ({"problem": None}, "problem", "is required with task.data"),
        ({"text": []}, "text", "is required with task.data"),
        ({"label": None}, "label", "is required with task.data"),
        ({"text": ["a", "b", "c"]}, "text", "must name one or two columns"),
        ({"label": "body"}, "label", "must not be a text column, got 'body'"),
        ({"data_dir": "glue"}, "data_dir", "is for registered tasks"),
        ({"data": {"train": "a.csv", "revision": "x"}}, "data.revision", "is for a data set on the hub"),
        (
            {"data": {"train": "a.csv", "report": "b.csv"}, "report_share": 0.1},
            "report_share",
            "without a report split",
        ),
        ({"class_weights": [0.0, 1.0]}, "class_weights", "greater than 0"),
        ({"report_share": 1.0}, "report_share", "less than 1"),
    ],
)
def test_own_data_is_described_completely(changes: dict[str, Any], where: str, words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        decode(TaskSpec, OWN | changes)
    assert any(
        ".".join(map(str, found.location)).startswith(where) and words in found.message
        for found in violations(caught.value, TaskSpec)
    )


LM: dict[str, Any] = {"name": "mine", "data": {"train": "train.csv"}, "problem": "generation"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"prompt": "p"}, "completion: is required with task.data in a generation"),
        ({"text": "t"}, "text: must be left out beside task.prompt in a generation"),
        ({"prompt": "p", "completion": "p"}, "completion: must not be a text column, got 'p'"),
        ({"prompt": "{p", "completion": "c"}, "prompt: must have columns in braces"),
        ({"prompt": "{}", "completion": "c"}, "prompt: must name a column"),
        ({"prompt": "p", "completion": "c", "label": "l"}, "label: must be left out in a generation"),
        ({"messages": "m", "prompt": "p"}, "prompt: must be left out beside task.messages"),
        ({"prompt": "p", "completion": "c", "metrics": ["answer"]}, "answer: is required by the metric 'answer'"),
        ({"problem": "language-modelling", "text": "t", "answer": "x"}, "answer: must be left out in a language"),
        ({"problem": "classification", "text": "t", "label": "l", "prompt": "p"}, "prompt: must be left out"),
    ],
)
def test_columns_suit_the_problem(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        decode(TaskSpec, LM | fields)
    error = caught.value.errors()[0]
    assert words.split(": ")[1].split(", got")[0] in error["msg"]


def test_the_columns_of_a_prompt() -> None:
    """A name is a column; a template names several, each once; whole texts and conversations need none."""
    assert decode(TaskSpec, LM | {"prompt": "my col", "completion": "c"}).columns == ("my col",)
    assert decode(TaskSpec, LM | {"prompt": "{a} {b} {a}\n", "completion": "c"}).columns == ("a", "b")
    assert decode(TaskSpec, LM | {"messages": "m"}).columns == ()
    assert decode(TaskSpec, LM | {"messages": "m"}).target == "m"
