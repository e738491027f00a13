"""`rankopt list`: what a study file can name, and its fields."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from rankopt.cli import printing
from rankopt.cli.options import Json
from rankopt.cli.printing import Rows


def allocators() -> Rows:
    """Name, first line of the docstring, and options with their defaults."""
    from rankopt.allocators import ALLOCATORS
    from rankopt.core.fields import summary

    return [
        {
            "name": name,
            "what": summary(kind),
            "options": ", ".join(f"{key}={value}" for key, value in kind().model_dump().items()),
        }
        for name, kind in ALLOCATORS.items()
    ]


def tuners() -> Rows:
    """Name, first line of the docstring, and options with their defaults."""
    from rankopt.core.fields import field_rows, summary
    from rankopt.tuners import TUNERS

    return [
        {
            "name": name,
            "what": summary(kind),
            "options": ", ".join(f"{row.field}={row.default}" for row in field_rows(kind)),
        }
        for name, kind in TUNERS.items()
    ]


def tasks() -> Rows:
    """Name, columns, labels, metrics and report splits."""
    from rankopt.tasks import TASKS

    return [
        {
            "name": name,
            "columns": ", ".join(task.columns),
            "labels": ", ".join(task.labels) or {"string": "a text"}.get(task.problem.label_type, "a number"),
            "metrics": ", ".join(task.metrics),
            "report splits": ", ".join(task.reports),
        }
        for name, task in TASKS.items()
    ]


def searches() -> Rows:
    """Name and first line of the docstring."""
    from rankopt.core.fields import summary
    from rankopt.search import SEARCHES

    return [{"name": name, "what": summary(kind)} for name, kind in SEARCHES.items()]


def pruners() -> Rows:
    """Name and first line of the docstring."""
    from rankopt.core.fields import summary
    from rankopt.search.pruners import PRUNERS

    return [{"name": name, "what": summary(kind)} for name, kind in PRUNERS.items()]


def layers(model: str, target_modules: str) -> tuple[Rows, float]:
    """The layers of a model that would be adapted, with their shapes, and the share of the block weights in them."""
    from rankopt.core.trial_spec import ModelSpec
    from rankopt.tasks.problems import Classification
    from rankopt.training.skeleton import skeleton_of

    problem = Classification(("no", "yes"))  # the layers of a language model are the same
    skeleton = skeleton_of(ModelSpec(name=model, target_modules=target_modules), "unit", problem)
    rows = [
        {"layer": name, "in": layer.shape.fan_in, "out": layer.shape.fan_out, "cost of a component": layer.shape.cost}
        for name, layer in skeleton.layers.items()
    ]
    return rows, skeleton.coverage


TABLES = {"allocators": allocators, "tuners": tuners, "tasks": tasks, "searches": searches, "pruners": pruners}
KINDS = (*TABLES, "layers", "fields")


def list_(
    what: Annotated[str, typer.Argument(help=f"{', '.join(KINDS[:-1])} or {KINDS[-1]}.")],
    model: Annotated[str, typer.Option(help="For layers: a folder, a hub name, mini or mini-decoder.")] = "mini",
    target_modules: Annotated[str, typer.Option(help="For layers: which modules to adapt.")] = "all-linear",
    markdown: Annotated[bool, typer.Option("--markdown", help="For fields: print Markdown tables.")] = False,
    as_json: Json = False,
) -> None:
    """List what a study file can name, the layers of a model that would be adapted, or every field of a study file."""
    if what not in KINDS:
        from rankopt.core.errors import nearest

        raise ValueError(f"list must be given one of {', '.join(KINDS)}, got {what!r}{nearest(what, KINDS)}")
    if what == "fields":
        from rankopt.cli.fields import as_markdown, as_rows, as_text

        print(json.dumps(as_rows(), indent=2) if as_json else as_markdown() if markdown else as_text())
        return
    title = what
    if what == "layers":
        rows, coverage = layers(model, target_modules)
        title = f"layers: {coverage:.0%} of the model's block weights"
    else:
        rows = TABLES[what]()
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        printing.table(rows, title)
