"""The command that suggests a rank: `rankopt suggest`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from rankopt.cli import printing
from rankopt.cli.options import Completion, DataDir, Json, Label, MaxLength, Prompt, Text

if TYPE_CHECKING:
    from rankopt.api.suggest import Suggestion


def suggest(
    model: Annotated[str, typer.Option(metavar="MODEL", help="A folder, or a name on the hub.")],
    data: Annotated[str, typer.Option(metavar="FILE|TASK", help="Training rows, or a task of `rankopt list tasks`.")],
    report: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Rows whose scores are reported (default: a fifth of the training rows)."),
    ] = None,
    text: Text = None,
    label: Label = None,
    prompt: Prompt = None,
    completion: Completion = None,
    data_dir: DataDir = None,
    max_length: MaxLength = None,
    budget: Annotated[int | None, typer.Option(min=1, metavar="N", help="At most N adapter parameters.")] = None,
    minutes: Annotated[float, typer.Option(metavar="M", help="Take at most about M minutes.")] = 10.0,
    max_rank: Annotated[int, typer.Option("--max-rank", min=1, metavar="R", help="Try ranks up to R.")] = 16,
    epochs: Annotated[
        float | None, typer.Option(metavar="E", help="Epochs of a full training (default: at least 3).")
    ] = None,
    bf16: Annotated[
        bool, typer.Option("--bf16", help="Load and train the model in bfloat16: half the memory, faster on most GPUs.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Suggest a learning rate and a rank for your data, and a rank pattern where the evidence supports one.

    Three learning rates begin one nested training, and the best one is continued. The trained network gives the
    score of every rank. All of it takes 1.4 to 1.6 times as long as one full training (more for one of seconds), or
    --minutes if that is less.
    """
    from rankopt.api.suggest import suggest

    found = suggest(
        model, data, report=report, text=text or (), label=label, prompt=prompt, completion=completion,
        data_dir=data_dir, max_length=max_length, budget=budget, minutes=minutes, max_rank=max_rank, epochs=epochs,
        bf16=bf16, say=printing.warn,
    )  # fmt: skip
    if as_json:
        print(json.dumps(found.to_json(), indent=2))
        return
    printing.table(rate_rows(found), "learning rates after the first tenth of the training")
    printing.table(level_rows(found), f"{found.metric} by rank, from one nested training of {found.steps} steps")
    titles = ("more rank", found.more_rank), (f"patterns of the cost of rank {found.rank}", found.patterns)
    for title, rows in titles:
        if rows:
            against = [
                {"": one.name, "difference": f"{one.difference:+.4f}", "interval": f"{one.low:+.4f} to {one.high:+.4f}"}
                for one in rows
            ]
            where = f"against uniform rank {found.rank} on the report split; positive is better"
            printing.table(against, f"{title}, {where}")
    for note in found.notes:
        print(f"note: {note}")
    print(f"suggestion: {found.sentence}")
    if found.rank:
        print(f"learning rate {found.lr:g}; rank {found.rank} has {found.parameters:,} parameters")
    print(f"took {found.seconds:.0f} s, the time of {found.trainings:.2g} full trainings of {found.full_steps} steps")
    for program, lines in found.lines.items():
        print(f"\n# {program}\n{lines}")


def rate_rows(found: Suggestion) -> printing.Rows:
    """One row per learning rate."""
    return [
        {"learning rate": f"{lr:g}", "loss on the search split": f"{loss:.4f}", "": "used" if lr == found.lr else ""}
        for lr, loss in found.rates.items()
    ]


def level_rows(found: Suggestion) -> printing.Rows:
    """One row per rank."""
    return [
        {
            "rank": level.rank,
            "parameters": f"{level.parameters:,}",
            "search": f"{level.search:.4f}",
            "interval": f"{level.low:.4f} to {level.high:.4f}",
            "report": "" if level.report is None else f"{level.report:.4f}",
            "": "suggested" if level.rank == found.rank else "",
        }
        for level in found.levels
    ]
