"""Prompts and completions from a user's columns: the three forms, templates, and one line for a wrong row."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rankopt.core.spec import decode
from rankopt.core.task_spec import TaskSpec
from rankopt.tasks.own_text import prompts_and_completions


def spec(**fields: Any) -> TaskSpec:
    return decode(TaskSpec, {"name": "mine", "data": {"train": "train.csv"}, "problem": "language-modelling", **fields})


def where(index: int) -> str:
    return f"row {index + 1} of train.csv"


def test_a_column_or_a_template() -> None:
    """A column's name is the prompt itself; with braces the text around the columns stays, and a brace is doubled."""
    columns = {"a b": ["x", "y"], "c": [1, "z"], "d": ["p", "q"]}
    assert prompts_and_completions(spec(prompt="a b", completion="d"), columns, where) == (["x", "y"], ["p", "q"])
    found = prompts_and_completions(spec(prompt="{{{a b}}} {c}\n", completion="d"), columns, where)
    assert found[0] == ["{x} 1\n", "{y} z\n"]


def test_whole_texts_have_no_prompt() -> None:
    assert prompts_and_completions(spec(text="t"), {"t": ["x", "y"]}, where) == (["", ""], ["x", "y"])


def test_conversations() -> None:
    """As lists or as JSON; the last message is the completion, other fields of a message are left out."""
    messages = [{"role": "user", "content": "hi", "id": 3}, {"role": "assistant", "content": "hello"}]
    for value in (messages, json.dumps(messages)):
        prompts, completions = prompts_and_completions(spec(messages="m"), {"m": [value]}, where)
        assert json.loads(prompts[0]) == [{"role": "user", "content": "hi"}]
        assert completions == ["hello"]


@pytest.mark.parametrize(
    ("fields", "columns", "words"),
    [
        ({"text": "t"}, {"t": ["x", " "]}, r"column 't' must hold text to predict, got none in row 2 of train\.csv"),
        (
            {"prompt": "p", "completion": "c"},
            {"p": [None], "c": ["x"]},
            "'p' must hold text, got a missing",
        ),
        ({"messages": "m"}, {"m": ["hi"]}, r"task\.messages must hold lists of \{role, content\}, got 'hi' in row 1"),
        ({"messages": "m"}, {"m": [[{"role": "user", "content": "hi"}]]}, "must end with a message of the assistant"),
        ({"messages": "m"}, {"m": [[]]}, "got no message in row 1"),
    ],
)
def test_wrong_rows(fields: dict[str, Any], columns: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        prompts_and_completions(spec(**fields), columns, where)
