"""What there is to choose from: one row per allocator, task, search, or layer of a model."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from rankopt.cli import printing
from rankopt.cli.options import Json
from rankopt.cli.printing import Rows


def allocators() -> Rows:
    """Name, first line of the docstring, and default options."""
    from rankopt.allocators import ALLOCATORS

    return [
        {
            "name": name,
            "what": (kind.__doc__ or "").strip().splitlines()[0],
            "options": ", ".join(f"{key}={value}" for key, value in kind().model_dump().items()),
        }
        for name, kind in ALLOCATORS.items()
    ]


def tasks() -> Rows:
    """Name, columns, labels, metrics and report splits."""
    from rankopt.tasks import TASKS

    return [
        {
            "name": name,
            "columns": ", ".join(task.columns),
            "labels": ", ".join(task.labels) or "a number",
            "metrics": ", ".join(task.metrics),
            "report splits": ", ".join(task.reports),
        }
        for name, task in TASKS.items()
    ]


def searches() -> Rows:
    """Name and first line of the docstring."""
    from rankopt.search import SEARCHES

    return [
        {"name": name, "what": (kind.__doc__ or "").strip().splitlines()[0]} for name, kind in SEARCHES.items()
    ]  # fmt: skip


def layers(model: str, target_modules: str) -> Rows:
    """The layers of a model that would be adapted, with their shapes."""
    from rankopt.core.trial_spec import ModelSpec
    from rankopt.training.model import meta_layers

    layers, _ = meta_layers(ModelSpec(name=model, target_modules=target_modules), "unit")
    return [
        {"layer": name, "in": layer.shape.fan_in, "out": layer.shape.fan_out, "cost of a component": layer.shape.cost}
        for name, layer in layers.items()
    ]


def list_(
    what: Annotated[str, typer.Argument(help="allocators, tasks, searches or layers.")],
    model: Annotated[str, typer.Option(help="For layers: a folder, a hub name or mini.")] = "mini",
    target_modules: Annotated[str, typer.Option(help="For layers.")] = "all-linear",
    as_json: Json = False,
) -> None:
    """List allocators, tasks, searches, or the layers of a model that would be adapted."""
    tables = {"allocators": allocators, "tasks": tasks, "searches": searches}
    if what not in (*tables, "layers"):
        from rankopt.core.problems import nearest

        raise ValueError(f"list must be given a known kind, got {what!r}{nearest(what, [*tables, 'layers'])}")
    rows = layers(model, target_modules) if what == "layers" else tables[what]()
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        printing.table(rows, what)
