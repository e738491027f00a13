"""What a trial should retain, as a task."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from rankopt.core.errors import violations
from rankopt.core.retain_spec import RetainSpec
from rankopt.core.spec import decode
from rankopt.core.task_spec import DataSpec


def test_a_file_alone_holds_texts() -> None:
    """Its rows are all reported on; its name without suffixes is the task's."""
    task = decode(RetainSpec, {"data": "there/general.txt.gz"}).task
    assert (task.name, task.problem, task.text) == ("general", "language-modelling", "text")
    assert task.data == DataSpec(train="there/general.txt.gz", report="there/general.txt.gz")
    assert task.max_length == 512


def test_columns_are_those_of_a_task() -> None:
    fields = {"data": "a.csv", "problem": "generation", "prompt": "q", "completion": "a", "metrics": ["bleu"]}
    task = decode(RetainSpec, fields | {"name": "more", "max_length": 64, "examples": 5}).task
    assert (task.name, task.text, task.prompt, task.completion) == ("more", (), "q", "a")
    assert (task.metrics, task.max_length, task.report_examples) == (("bleu",), 64, 5)


def test_a_registered_task() -> None:
    task = decode(RetainSpec, {"name": "rte", "data_dir": "glue"}).task
    assert (task.name, task.data_dir, task.data) == ("rte", "glue", None)


@pytest.mark.parametrize(
    ("fields", "location", "message"),
    [
        ({}, ("name",), "is required without retain.data"),
        ({"name": "rte", "text": "a"}, ("text",), "describes your own data: set retain.data as well, or remove it"),
        ({"data": "a.csv", "label": "b"}, ("label",), "must be left out in a language-modelling"),
        ({"data": "a.csv", "prompt": "q"}, ("completion",), "is required with retain.data in a language-modelling"),
        ({"data": "a.csv", "data_dir": "glue"}, ("data_dir",), "is for registered tasks: remove it"),
    ],
)
def test_what_describes_no_task(fields: dict[str, Any], location: tuple[str, ...], message: str) -> None:
    """The field is named as the study has it."""
    with pytest.raises(ValidationError) as caught:
        decode(RetainSpec, fields)
    (found,) = violations(caught.value, RetainSpec)
    assert found.location == location
    assert found.message.startswith(message)
