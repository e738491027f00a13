"""Every field of a study file in words: for the terminal, as JSON, and as the tables of `studies/README.md`."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel

from rankopt.core.fields import FieldRow, field_rows, summary

WIDTH = 80


class FieldGroup(NamedTuple):
    """Fields that belong together."""

    title: str
    summary: str
    rows: list[FieldRow]


def field_groups() -> Iterator[FieldGroup]:
    """The fields of a study, of a trial, and the options of every allocator, tuner, search and pruner."""
    from rankopt.allocators import ALLOCATORS
    from rankopt.core.study_spec import StudySpec
    from rankopt.core.trial_spec import TrialSpec
    from rankopt.search import SEARCHES
    from rankopt.search.pruners import PRUNERS
    from rankopt.tuners import TUNERS

    yield FieldGroup("study", summary(StudySpec), list(field_rows(StudySpec)))
    trial = "Fields of a trial, under `base`; each of them can be a dimension in `space`."
    yield FieldGroup("trial", trial, list(field_rows(TrialSpec)))
    yield from _members("allocator", ALLOCATORS)
    yield from _members("tuner", TUNERS)
    yield from _members("search", SEARCHES)
    yield from _members("pruner", PRUNERS)


def _members(kind: str, models: Mapping[str, type[BaseModel]]) -> Iterator[FieldGroup]:
    """One group for each member of a kind, after one for the fields that all of them share."""
    rows = {name: list(field_rows(model)) for name, model in models.items()}
    shared = [row for row in next(iter(rows.values())) if all(row in own for own in rows.values())]
    if shared:
        yield FieldGroup(f"every {kind}", f"Shared options; a {kind} that cannot use one of them refuses it.", shared)
    for name, model in models.items():
        yield FieldGroup(f"{kind} {name}", summary(model), [row for row in rows[name] if row not in shared])


def as_rows() -> list[dict[str, Any]]:
    """One mapping per field, with its group."""
    return [{"group": group.title, **row._asdict()} for group in field_groups() for row in group.rows]


def as_text() -> str:
    """Paragraphs that fit into 80 columns."""
    lines = []
    for group in field_groups():
        lines += _wrapped(f"{group.title}: {group.summary}", 0)
        for row in group.rows:
            default = "required" if row.default == "required" else f"default {row.default}"
            lines += [*_wrapped(f"{row.field} ({row.type}; {default})", 2), *_wrapped(row.meaning, 6)]
        lines.append("")
    return "\n".join(lines[:-1])


def _wrapped(text: str, indent: int) -> list[str]:
    first, rest = " " * indent, " " * max(indent, 4)
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)


def as_markdown() -> str:
    """One table per group."""
    blocks = []
    for group in field_groups():
        head = f"### {group.title}\n\n{group.summary}"
        table = "\n".join(_cells(*row) for row in group.rows)
        blocks.append(f"{head}\n\n{_cells(*FieldRow._fields)}\n| --- | --- | --- | --- |\n{table}" if table else head)
    return "\n\n".join(blocks) + "\n"


def _cells(name: str, type_: str, default: str, meaning: str) -> str:
    code = name if name == "field" else f"`{name}`"
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in (code, type_, default, meaning)) + " |"
