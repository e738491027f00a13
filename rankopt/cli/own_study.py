"""The study file that `rankopt init --data` writes: what the data looks like, filled into a template."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankopt.core.text import plural, visible
from rankopt.core.trial_spec import TrainingSpec, usual_epochs

if TYPE_CHECKING:
    from rankopt.core.task_spec import TaskSpec
    from rankopt.tasks.sources import Rows

ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
"""The model for a classification or a regression where none is named."""


def own_study(
    name: str, train: str, report: str | None = None, model: str | None = None, **columns: Any
) -> tuple[str, list[str]]:
    """The text of a study of the user's own data, and what was found in the data, one line each.

    Args:
        name: of the study.
        train: where the training rows are; see `DataSpec`.
        report: where the rows are whose scores are reported; None to keep a part of the training rows apart.
        model: name of the model; default: a small encoder, if the data are not for a language model.
        columns: `text`, `label`, `prompt` and `completion` of `rankopt.tasks.described`, which looks for the columns
            that are not given. A prompt or a completion makes a study of a language model.
    Raises:
        ValueError: the data cannot be read, or do not look like what is predicted; one line.
    """
    from rankopt.core.task_spec import DataSpec
    from rankopt.tasks import task_of
    from rankopt.tasks.described import Head, described_rows
    from rankopt.tasks.guess import in_words
    from rankopt.tasks.problems.language_modelling import BATCH
    from rankopt.tasks.sources import read_rows
    from rankopt.tasks.splits import read_splits

    if model is None and (columns.get("prompt") or columns.get("completion")):
        raise ValueError("--prompt and --completion are for language models: name one with --model")
    sources = {"train": train} | ({"report": report} if report else {})
    rows = read_rows(DataSpec(train=os.path.expanduser(train)), "train")
    language = _is_language(rows, model, columns)
    spec = described_rows(rows, name, sources, Head(language=language), **columns)
    task = task_of(spec)
    splits = read_splits(task)
    sizes = {"train": splits.train, "search": splits.search, "report": splits.reports["report"]}
    batch = BATCH if language else TrainingSpec().batch_size
    lines = [
        f"{spec.problem}: {' -> '.join(filter(None, (' and '.join(spec.columns), spec.target)))}; "
        + ", ".join(plural(len(part), f"{split} row") for split, part in sizes.items()),
        *task.notes,
        *splits.notes(task),
    ]
    found = ["#", f"# The columns of {train}:", *(f"#   {column}: {words}" for column, words in in_words(rows).items())]
    filled = {
        "name": name,
        "description": _quoted(f"Uniform LoRA against AdaLoRA on {Path(train).name}."),
        "columns": "\n".join(_comment(line) for line in found),
        "task": "\n".join(f"    {line}" for line in _task(spec, sources, task.metrics)),
        "model": _quoted(model or ENCODER),
        "epochs": str(usual_epochs(len(splits.train), batch)),
        "batch": str(batch),
    }
    template = Path(__file__).with_name("own_template.yaml").read_text(encoding="utf-8")
    study = re.sub(r"\{(\w+)\}", lambda match: filled[match[1]], template)
    return re.sub(r"^( +[^#\s][^#\n]*?) +# ", lambda match: f"{match[1]:<36} # ", study, flags=re.M), lines


def _is_language(rows: Rows, model: str | None, columns: Mapping[str, Any]) -> bool:
    """Whether the study trains a language model on texts.

    Raises:
        ValueError: the model is a language model, and the columns do not show what it should learn, or it is none, and
            they are named for one; one line.
    """
    from rankopt.api.material import is_language_model

    if model is not None and (columns.get("prompt") or columns.get("completion")):
        if is_language_model(model):
            return True
        raise ValueError(f"--prompt and --completion need a language model, got the encoder {model}: change --model")
    if model is None or columns.get("label"):
        return False
    from rankopt.tasks.guess import as_prompts, guess
    from rankopt.tasks.problems.classification import listed

    if not is_language_model(model):
        return False
    if columns.get("text") or {"prompt", "completion"} <= set(rows.columns) or "messages" in rows.columns:
        return True
    if list(rows.columns) == ["text"]:
        return True
    try:
        label = shlex.quote(guess(rows).label)
    except ValueError:
        label = "COLUMN"
    raise ValueError(
        f"the columns of {rows.source} ({listed(list(rows.columns))}) do not show what the language model {model} "
        f"should learn: name {as_prompts(rows) or '--text COLUMN'} to train on texts, or --label {label} to classify"
    )


def _task(spec: TaskSpec, sources: Mapping[str, str], metrics: Sequence[str]) -> Iterator[str]:
    """The task as commented YAML, one line per field."""
    language = spec.problem == "language-modelling"
    yield f"name: {_quoted(spec.name)}"
    yield f"problem: {spec.problem} # {'generation decodes texts, too' if language else 'classification or regression'}"
    yield "data: # paths are relative to this file"
    yield from (f"  {split}: {_quoted(source)}" for split, source in sources.items())
    if language:
        if spec.prompt:
            yield f"prompt: {_quoted(spec.prompt)} # a column, or a text with columns in braces"
            yield f"completion: {_quoted(spec.target)} # follows the prompt as it is"
        elif spec.messages:
            yield f"messages: {_quoted(spec.target)} # conversations; the last message is the completion"
        else:
            yield f"text: {_quoted(spec.target)} # whole texts"
    else:
        text = ", ".join(map(_quoted, spec.columns))
        yield f"text: {text if len(spec.columns) == 1 else f'[{text}]'} # one column, or two that are read as a pair"
        yield f"label: {_quoted(spec.target)}"
    yield f"metrics: [{', '.join(metrics)}] # the first one is the score"
    if "report" not in sources:
        yield "report_share: 0.2 # of train, kept apart for the report"
    yield f"max_length: {spec.max_length} # tokens; holds {'all' if language else 'about 95 %'} of the texts"


def _quoted(text: str) -> str:
    """A text as YAML, in quotes where it needs them."""
    plain = re.fullmatch(r"[A-Za-z_]([\w./ -]*[\w.])?", text) and text not in ("true", "false", "null")
    return text if plain and text.isascii() else json.dumps(text)


def _comment(line: str) -> str:
    line = visible(line)
    return line if len(line) <= 120 else f"{line[:117]}..."
