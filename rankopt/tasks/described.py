"""A task from its name, or from a file whose columns are looked for."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankopt.core.errors import nearest, shown
from rankopt.core.spec import decode
from rankopt.core.task_spec import DataSpec, TaskSpec
from rankopt.tasks import TASKS
from rankopt.tasks.guess import PIECES, guess
from rankopt.tasks.labels import plain
from rankopt.tasks.problems.classification import class_name, listed
from rankopt.tasks.sources import Rows, read_rows

LENGTHS = (128, 256, 512, 1024, 2048, 4096)
"""Limits of a language model's examples in tokens."""


@dataclass(frozen=True)
class Head:
    """What is known of a model's outputs before it reads any data.

    Attributes:
        language: whether it predicts tokens; then it has no head.
        outputs: number of its outputs; None if unknown. One output is a regression.
        labels: the label of every output; empty if they have no names.
    """

    language: bool = False
    outputs: int | None = None
    labels: tuple[str, ...] = ()


def described(
    source: str | Path, *, report: str | Path | None = None, text: Sequence[str] = (), label: str | None = None,
    head: Head | None = None, data_dir: str | None = None, max_length: int | None = None,
) -> TaskSpec:  # fmt: skip
    """The task of a registered name, or of a file by what its columns look like.

    A language model reads `messages`, or `prompt` and `completion`, or one column of texts, as TRL names them. Other
    models read one or two text columns and a label (`rankopt.tasks.guess`). Labels follow the model's outputs: by name,
    or as whole numbers from 0, or else sorted.

    Args:
        source: a registered task, or the training rows: a file, a folder or a pattern.
        report: the rows to report on; the same file where a task only scores.
        text: the text columns; default: looked for.
        label: the label column; default: looked for.
        head: what is known of the model's outputs.
        data_dir: of a registered task.
        max_length: longest input in tokens; default: enough for 95 % of the rows, all of a language model's.
    Raises:
        ValueError: neither a task nor readable rows, or rows that do not suit the head; one line.
    """
    head, name = head or Head(), str(source)
    more = {} if max_length is None else {"max_length": max_length}
    if name in TASKS:
        if text or label:
            raise ValueError(f"--text and --label name columns of a file, got the task {name!r}")
        return decode(TaskSpec, {"name": name} | ({"data_dir": data_dir} if data_dir else {}) | more)
    paths = {"train": name} | ({"report": str(report)} if report is not None else {})
    paths = {split: os.path.abspath(os.path.expanduser(path)) for split, path in paths.items()}
    if not Path(paths["train"]).exists() and re.fullmatch(r"[\w-]+", name):
        raise ValueError(f"{shown(name)} must be a file of examples or a task{nearest(name, TASKS)}")
    rows = read_rows(DataSpec(train=paths["train"]), "train")
    fields = _language(rows, text) if head.language else _labelled(rows, text, label, head)
    stem = Path(name).name.partition(".")[0] or "data"
    fields |= {"name": f"my-{stem}" if stem in TASKS else stem, "data": paths}
    return decode(TaskSpec, fields | more)


def _labelled(rows: Rows, text: Sequence[str], label: str | None, head: Head) -> dict[str, Any]:
    found = guess(rows, text, label, least=1 if head.outputs else 2)  # the head knows the other classes
    problem = found.problem if head.outputs is None else "regression" if head.outputs == 1 else "classification"
    fields = {"problem": problem, "text": list(found.text), "label": found.label, "max_length": found.max_length}
    if problem != found.problem:
        return fields
    fields["metrics"] = found.metrics
    if problem == "classification" and head.outputs and (names := _in_head_order(rows, found.label, head)):
        fields["labels"] = list(names)
        if len(names) != found.classes:  # the number of classes is the head's
            fields["metrics"] = ["accuracy", "f1" if len(names) == 2 else "macro_f1"]
    return fields


def _in_head_order(rows: Rows, column: str, head: Head) -> tuple[str, ...]:
    """The labels as the column writes them, in the order of the head's outputs; empty for sorted ones."""
    names = dict.fromkeys(name for value in rows.columns[column] if (name := class_name(value)) is not None)
    written = {plain(name): name for name in names}
    if head.labels and written.keys() <= {plain(name) for name in head.labels}:
        return tuple(written.get(plain(name), name) for name in head.labels)
    numbers = tuple(map(str, range(head.outputs or 0)))
    if set(names) <= set(numbers):
        return numbers
    if head.labels:
        raise ValueError(
            f"{shown(column)} in {rows.source} must hold labels of the model ({listed(head.labels)}), "
            f"got {listed(list(names))}"
        )
    if len(names) != head.outputs:
        raise ValueError(
            f"{shown(column)} in {rows.source} must hold {head.outputs} classes, one for each of the model's outputs, "
            f"got {len(names)} ({listed(list(names))})"
        )
    return ()


def _language(rows: Rows, text: Sequence[str]) -> dict[str, Any]:
    """The fields of a language model's task."""
    for name in text:
        if name not in rows.columns:
            raise ValueError(
                f"--text must be a column of {rows.source}, got {shown(name)}{nearest(name, rows.columns)}"
            )
    if len(text) > 1:
        raise ValueError(f"--text must be given once for a language model, got {' and '.join(text)}")
    forms = ({"messages": "messages"}, {"prompt": "prompt", "completion": "completion"}, {"text": "text"})
    fitting = [form for form in forms if set(form.values()) <= set(rows.columns)]
    fields: dict[str, str] = {"text": text[0]} if text else fitting[0] if fitting else {}
    if not fields:
        raise ValueError(
            f"{rows.source} must have the columns messages, or prompt and completion, or text, got "
            f"{', '.join(rows.columns)}: name a column of texts with --text"
        )
    words = max(
        sum(len(str(rows.columns[name][index]).split()) for name in fields.values()) for index in range(len(rows))
    )
    tokens = math.ceil(words * PIECES * 1.5)
    length = next((length for length in LENGTHS if length >= tokens), LENGTHS[-1])
    return {"problem": "language-modelling", "max_length": length, **fields}
