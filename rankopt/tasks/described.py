"""A task from its name, or from a file whose columns are looked for."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rankopt.core.errors import nearest, shown, violations
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
    prompt: str | None = None, completion: str | None = None, head: Head | None = None, data_dir: str | None = None,
    max_length: int | None = None,
) -> TaskSpec:  # fmt: skip
    """The task of a registered name, or of a file by what its columns look like (`described_rows`).

    Args:
        source: a registered task, or the training rows: a file, a folder or a pattern.
        report: the rows to report on; the same file where a task only scores.
        text: the text columns; default: looked for.
        label: the label column; default: looked for.
        prompt: of a language model, the column with the prompts, or a text with columns in braces; default: "prompt".
        completion: of a language model, the column with the completions; default: "completion".
        head: what is known of the model's outputs.
        data_dir: of a registered task.
        max_length: longest input in tokens; default: enough for 95 % of the rows, all of a language model's.
    Raises:
        ValueError: neither a task nor readable rows, or rows that do not suit the head; one line.
    """
    name = str(source)
    if name in TASKS:
        if text or label or prompt or completion:
            raise ValueError(
                f"--text, --label, --prompt and --completion name columns of a file, got the task {name!r}"
            )
        more = {"data_dir": data_dir, "max_length": max_length}
        return _spec({"name": name} | {field: value for field, value in more.items() if value})
    path = os.path.expanduser(name)
    if not Path(path).exists() and re.fullmatch(r"[\w-]+", name):
        raise ValueError(f"{shown(name)} must be a file of examples or a task{nearest(name, TASKS)}")
    rows = read_rows(DataSpec(train=path), "train")
    sources = {"train": name} | ({"report": str(report)} if report is not None else {})
    return described_rows(
        rows, Path(name).name.partition(".")[0] or "data", sources, head or Head(), text=text, label=label,
        prompt=prompt, completion=completion, max_length=max_length,
    )  # fmt: skip


def described_rows(
    rows: Rows, name: str, sources: Mapping[str, str], head: Head, *, text: Sequence[str] = (),
    label: str | None = None, prompt: str | None = None, completion: str | None = None, max_length: int | None = None,
) -> TaskSpec:  # fmt: skip
    """The task of rows, by what their columns look like.

    A language model reads `messages`, or `prompt` and `completion`, or one column of texts, as TRL names them. Other
    models read one or two text columns and a label (`rankopt.tasks.guess`). Labels follow the model's outputs: by name,
    or as whole numbers from 0, or else sorted.

    Args:
        rows: the training rows, all columns.
        name: of the task.
        sources: split -> where its rows are, relative to the current folder.
        head: what is known of the model's outputs.
        text, label, prompt, completion, max_length: as in `described`.
    Raises:
        ValueError: a column that is not there, or rows that do not suit the head; one line.
    """
    if head.language:
        if label:
            raise ValueError("--label is for classifiers; a language model reads --prompt and --completion, or --text")
        fields = _language(rows, text, prompt, completion)
    else:
        if prompt or completion:
            raise ValueError("--prompt and --completion are for language models; a classifier reads --text and --label")
        fields = _labelled(rows, text, label, head)
    fields["name"] = f"my-{name}" if name in TASKS else name
    fields["data"] = {split: os.path.abspath(os.path.expanduser(path)) for split, path in sources.items()}
    return _spec(fields | ({} if max_length is None else {"max_length": max_length}))


def _spec(fields: dict[str, Any]) -> TaskSpec:
    """The task of fields that options name.

    Raises:
        ValueError: a value breaks a rule; one line that begins with the option.
    """
    try:
        return decode(TaskSpec, fields)
    except ValidationError as error:
        first = violations(error, TaskSpec)[0]
        option = f"--{first.location[0]} ".replace("_", "-") if first.location else ""
        raise ValueError(f"{option}{first.message}") from None


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


def _language(rows: Rows, text: Sequence[str], prompt: str | None, completion: str | None) -> dict[str, Any]:
    """The fields of a language model's task."""
    if len(text) > 1:
        raise ValueError(f"--text must be given once for a language model, got {' and '.join(text)}")
    if text and (prompt or completion):
        raise ValueError("--text names a column of whole texts: give it, or --prompt and --completion, not both")
    pair = {"prompt": prompt or "prompt", "completion": completion or "completion"}
    forms = [{"messages": "messages"}, pair, {"text": "text"}]
    if text or prompt or completion:
        fields = {"text": text[0]} if text else pair
    else:
        fields = next((form for form in forms if set(form.values()) <= set(rows.columns)), {})
    if not fields:
        raise ValueError(
            f"{rows.source} must have the columns messages, or prompt and completion, or text, got "
            f"{', '.join(rows.columns)}: name its columns with --prompt and --completion, or whole texts with --text"
        )
    spec = _spec({"name": "rows", "problem": "language-modelling", "data": {"train": "rows"}} | fields)
    read = [("prompt", name) for name in spec.columns] + [(list(fields)[-1], spec.target)]
    for field, name in read:
        if name not in rows.columns:
            got = f"{shown(name)}{nearest(name, rows.columns)}"
            raise ValueError(f"--{field} must be a column of {rows.source}, got {got}")
    fixed = sum(len(part.split()) for part, _ in spec.prompt_parts)
    words = max(sum(len(str(rows.columns[name][index]).split()) for _, name in read) for index in range(len(rows)))
    tokens = math.ceil((fixed + words) * PIECES * 1.5)
    length = next((length for length in LENGTHS if length >= tokens), LENGTHS[-1])
    return {"problem": "language-modelling", "max_length": length, **fields}
