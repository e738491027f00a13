"""Prompts and completions from the columns of a user's own files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rankopt.core.errors import shown
from rankopt.core.task_spec import TaskSpec
from rankopt.tasks.tables import texts

Where = Callable[[int], str]


def prompts_and_completions(
    spec: TaskSpec, columns: Mapping[str, Sequence[Any]], where: Where
) -> tuple[list[str], list[str]]:
    """The prompt of every row and its completion.

    A prompt is empty where the task has whole texts, and a list of messages as JSON where it has `messages`.

    Args:
        spec: the task.
        columns: name -> values.
        where: the row of an index, for messages.
    Raises:
        ValueError: one line with the row: a value is neither a text nor a conversation, or a completion is empty.
    Example:
        >>> from rankopt.core.task_spec import DataSpec
        >>> spec = TaskSpec(
        ...     name="x", data=DataSpec(train="x.csv"), problem="generation", prompt="Say {what}:", completion="text"
        ... )
        >>> prompts_and_completions(spec, {"what": ["hello"], "text": ["hi"]}, str)
        (['Say hello:'], ['hi'])
    """
    if spec.messages is not None:
        pairs = [_conversation(value, where, index) for index, value in enumerate(columns[spec.messages])]
        prompts, completions = [prompt for prompt, _ in pairs], [completion for _, completion in pairs]
    else:
        completions = texts(columns[spec.target], spec.target, where)
        found = {name: texts(columns[name], name, where) for name in spec.columns}
        prompts = [
            "".join(text + (found[name][index] if name else "") for text, name in spec.prompt_parts)
            for index in range(len(completions))
        ]
    for index, completion in enumerate(completions):
        if not completion.strip():
            raise ValueError(f"column {shown(spec.target)} must hold text to predict, got none in {where(index)}")
    return prompts, completions


def _conversation(value: Any, where: Where, index: int) -> tuple[str, str]:
    """A conversation without its last message, as JSON, and the content of the last one."""
    try:
        messages = json.loads(value) if isinstance(value, str) else value
        plain = [{"role": str(one["role"]), "content": str(one["content"])} for one in messages]
    except (json.JSONDecodeError, TypeError, KeyError):
        raise ValueError(
            f"task.messages must hold lists of {{role, content}}, got {shown(value)} in {where(index)}"
        ) from None
    if not plain or plain[-1]["role"] != "assistant":
        last = plain[-1]["role"] if plain else "no message"
        raise ValueError(f"task.messages must end with a message of the assistant, got {last} in {where(index)}")
    return json.dumps(plain[:-1]), plain[-1]["content"]
