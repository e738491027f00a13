"""A task from a name or a file; labels in the order of a model's outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rankopt.tasks import task_of
from rankopt.tasks.described import Head, described

TEXTS = ["please look at my order today", "the parcel is late again", "thank you for the quick help"] * 4


def table(folder: Path, labels: list[Any], name: str = "dev.csv") -> Path:
    path = folder / name
    path.write_text("body,queue\n" + "".join(f"{text},{label}\n" for text, label in zip(TEXTS, labels, strict=True)))
    return path


def test_a_file(tmp_path: Path) -> None:
    """Columns, problem, metrics and length are found; the name is the file's; every row is in the report split."""
    file = table(tmp_path, ["b", "a"] * 6)
    spec = described(file, report=file)
    assert (spec.name, spec.problem, spec.text, spec.label) == ("dev", "classification", ("body",), "queue")
    assert spec.metrics == ("accuracy", "f1")
    task = task_of(spec)
    assert (task.labels, len(task.read("report", None))) == (("a", "b"), 12)
    assert described(file, max_length=99).max_length == 99
    assert described(table(tmp_path, ["b", "a"] * 6, "rte.csv")).name == "my-rte"


@pytest.mark.parametrize(
    ("values", "head", "labels"),
    [
        (["b", "a"], Head(outputs=2, labels=("B", "A")), ("b", "a")),
        (["b", "b"], Head(outputs=3, labels=("c", "b", "a")), ("c", "b", "a")),
        (["1", "0"], Head(outputs=2, labels=("no", "yes")), ("0", "1")),
        (["1", "0"], Head(outputs=3), ("0", "1", "2")),
        (["b", "a"], Head(outputs=2), ("a", "b")),
        (["b", "a"], Head(), ("a", "b")),
    ],
)
def test_labels_follow_the_head(values: list[str], head: Head, labels: tuple[str, ...], tmp_path: Path) -> None:
    assert task_of(described(table(tmp_path, values * 6), label="queue", head=head)).labels == labels


def test_one_output_is_a_regression(tmp_path: Path) -> None:
    """Few whole numbers look like classes, unless the model has one output."""
    file = table(tmp_path, [1, 2, 3] * 4)
    assert described(file, label="queue").problem == "classification"
    assert described(file, label="queue", head=Head(outputs=1)).problem == "regression"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "a b", "completion": "c", "id": "1"}, {"prompt": "prompt", "completion": "completion"}),
        ({"text": "a b c", "id": "1"}, {"text": "text"}),
        ({"messages": [{"role": "assistant", "content": "y"}]}, {"messages": "messages"}),
    ],
)  # fmt: skip
def test_a_language_models_columns(row: dict[str, Any], expected: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "dev.jsonl"
    path.write_text(json.dumps(row) + "\n")
    spec = described(path, head=Head(language=True))
    assert spec.problem == "language-modelling"
    assert {name: getattr(spec, name) for name in expected} == expected


def test_a_language_models_columns_by_name(tmp_path: Path) -> None:
    """A prompt is a column or a text with columns in braces, which counts for the length; the rest is looked for."""
    path, head = tmp_path / "dev.jsonl", Head(language=True)
    path.write_text(json.dumps({"facts": "a b", "sentence": "c", "prompt": "d"}) + "\n")
    spec = described(path, prompt="facts", completion="sentence", head=head)
    assert (spec.columns, spec.target, spec.max_length) == (("facts",), "sentence", 128)
    long = described(path, prompt="word " * 80 + "{facts} {prompt}\n", completion="sentence", head=head)
    assert (long.columns, long.max_length) == (("facts", "prompt"), 256)
    assert described(path, completion="sentence", head=head).prompt == "prompt"
    assert described(path, text=["facts"], head=head).text == "facts"
    cases: list[tuple[dict[str, Any], str]] = [
        ({"prompt": "fact", "completion": "sentence"}, "--prompt must be a column of .*, got 'fact'; did you mean 'fa"),
        ({"prompt": "{facts} {x}", "completion": "sentence"}, "--prompt must be a column of .*, got 'x'"),
        ({"prompt": "{facts", "completion": "sentence"}, "--prompt must have columns in braces"),
        ({"prompt": "facts"}, "--completion must be a column of .*, got 'completion'; valid: facts, sentence, prompt"),
        ({"prompt": "facts", "text": ["facts"]}, "--text names a column of whole texts: give it, or --prompt and"),
        ({"label": "facts"}, "--label is for classifiers; a language model reads --prompt and --completion, or --text"),
        ({"text": ["facts"], "max_length": 1}, "^--max-length must be at least 4, got 1$"),
    ]
    for given, message in cases:
        with pytest.raises(ValueError, match=message):
            described(path, head=head, **given)
    with pytest.raises(ValueError, match="--prompt and --completion are for language models; a classifier reads"):
        described(table(tmp_path, ["b", "a"] * 6), prompt="body")


def test_refused(tmp_path: Path) -> None:
    file = table(tmp_path, ["b", "a"] * 6)
    cases: list[tuple[Any, str]] = [
        (("mrcp",), "must be a file of examples or a task; did you mean 'mrpc'"),
        (("rte", "x"), "name columns of a file, got the task 'rte'"),
        ((file, None, Head(outputs=2, labels=("x", "y"))), r"must hold labels of the model \(x, y\), got b, a"),
        ((file, None, Head(outputs=3)), r"must hold 3 classes, .* got 2 \(b, a\)"),
        ((file, None, Head(language=True)), "must have the columns messages, or prompt and completion, or text"),
        ((file, "boddy"), "--text must be a column"),
        ((file, "boddy", Head(language=True)), "--text must be a column"),
    ]
    for given, message in cases:
        source, text, head = (*given, None, None)[:3]
        with pytest.raises(ValueError, match=message):
            described(source, text=(text,) if text else (), head=head)
