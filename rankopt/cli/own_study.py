"""The study file that `rankopt init --data` writes: what the data looks like, filled into a template."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rankopt.core.text import visible

STEPS = 300
"""A small data set is passed over often enough for about this many steps."""
BATCH = 32


def own_study(
    name: str, train: str, report: str | None, text: Sequence[str], label: str | None, model: str
) -> tuple[str, list[str]]:
    """The text of a study of the user's own data, and what was found in the data, one line each.

    Args:
        name: of the study.
        train: where the training rows are; see `DataSpec`.
        report: where the rows are whose scores are reported; None to keep a part of the training rows apart.
        text: the text columns; empty to guess them.
        label: the label column; None to guess it.
        model: name of the model.
    Raises:
        ValueError: the data cannot be read, or does not look like a classification or a regression; one line.
    """
    from rankopt.core.spec import decode
    from rankopt.core.task_spec import DataSpec, TaskSpec
    from rankopt.tasks import TASKS, task_of
    from rankopt.tasks.guess import guess
    from rankopt.tasks.sources import read_rows
    from rankopt.tasks.splits import read_splits

    sources = {"train": train} | ({"report": report} if report else {})
    rows = read_rows(DataSpec(train=os.path.expanduser(train)), "train")
    found = guess(rows, text, label)
    fields: dict[str, Any] = {
        "name": f"my-{name}" if name in TASKS else name,
        "problem": found.problem,
        "data": {split: os.path.abspath(os.path.expanduser(source)) for split, source in sources.items()},
        "text": found.text[0] if len(found.text) == 1 else list(found.text),
        "label": found.label,
        "metrics": found.metrics,
    }
    task = task_of(decode(TaskSpec, fields))
    splits = read_splits(task)
    sizes = {"train": splits.train, "search": splits.search, "report": splits.reports["report"]}
    lines = [
        f"{found.problem}: {_listed(found.text)} -> {found.label}; "
        + ", ".join(f"{len(part):,} {split} rows" for split, part in sizes.items()),
        *task.notes,
        *splits.notes(task),
    ]
    columns = [f"#   {column}: {words}" for column, words in found.columns.items()]
    filled = {
        "name": name,
        "description": _quoted(f"Uniform LoRA against AdaLoRA on {Path(train).name}."),
        "columns": "\n".join(_comment(line) for line in ["#", f"# The columns of {train}:", *columns]),
        "task": _quoted(fields["name"]),
        "problem": found.problem,
        "data": "\n".join(f"      {split}: {_quoted(source)}" for split, source in sources.items()),
        "text": _quoted(found.text[0]) if len(found.text) == 1 else f"[{', '.join(map(_quoted, found.text))}]",
        "label": _quoted(found.label),
        "metrics": f"[{', '.join(found.metrics)}]",
        "more": "" if report else "    report_share: 0.2 # of train, kept apart for the report\n",
        "max_length": str(found.max_length),
        "model": _quoted(model),
        "epochs": str(min(20, max(3, math.ceil(STEPS * BATCH / len(splits.train))))),
    }
    template = Path(__file__).with_name("own_template.yaml").read_text(encoding="utf-8")
    study = re.sub(r"\{(\w+)\}", lambda match: filled[match[1]], template)
    return re.sub(r"^( +[^#\s][^#\n]*?) +# ", lambda match: f"{match[1]:<36} # ", study, flags=re.M), lines


def _quoted(text: str) -> str:
    """A text as YAML, in quotes where it needs them."""
    plain = re.fullmatch(r"[A-Za-z_]([\w./ -]*[\w.])?", text) and text not in ("true", "false", "null")
    return text if plain and text.isascii() else json.dumps(text)


def _comment(line: str) -> str:
    line = visible(line)
    return line if len(line) <= 120 else f"{line[:117]}..."


def _listed(names: Sequence[str]) -> str:
    return " and ".join(names)
