"""The command that scores adapters: `rankopt evaluate`."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from rankopt.cli import printing
from rankopt.cli.options import Json


def evaluate(
    adapters: Annotated[list[str], typer.Argument(metavar="ADAPTER...", help="Adapter folders or hub ids.")],
    model: Annotated[str, typer.Option(help="Base model of all of them (folder or hub id).")],
    task: Annotated[str, typer.Option(metavar="NAME", help="Score on this task of `rankopt list tasks`.")],
    data_dir: Annotated[
        str | None,
        typer.Option("--data-dir", metavar="FOLDER", help="Read <task>/<split>.parquet there (default: the hub)."),
    ] = None,
    max_length: Annotated[
        int | None, typer.Option("--max-length", min=4, metavar="N", help="Truncate inputs to N tokens (default: 128).")
    ] = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, metavar="N", help="Examples per forward pass.")
    ] = 32,
    as_json: Json = False,
) -> None:
    """Score adapters of any PEFT type on the report splits of a task, with 95 % intervals.

    Several adapters are scored on the same examples; differences to the first one are paired.
    """
    from rankopt.core.spec import decode
    from rankopt.core.task_spec import TaskSpec
    from rankopt.tasks import TASKS

    if task not in TASKS:
        raise ValueError(f"--task must be one of {', '.join(TASKS)}, got {task!r}")
    fields = {"name": task, "data_dir": data_dir, "max_length": max_length}
    spec = decode(TaskSpec, {name: value for name, value in fields.items() if value is not None})
    from rankopt.api.evaluate import evaluate

    frame = evaluate(adapters, model, spec, batch_size=batch_size)
    if as_json:
        print(json.dumps(json.loads(frame.to_json(orient="records")), indent=2))
        return
    rows: list[dict[str, Any]] = []
    for row in frame.to_dict("records"):
        cells = {"adapter": row["adapter"], "split": row["split"], row["metric"]: f"{row['score']:.4f}"}
        cells["interval"] = f"{row['low']:.4f} to {row['high']:.4f}"
        if len(adapters) > 1:
            known = row["difference"] == row["difference"]
            cells["difference"] = f"{row['difference']:+.4f}" if known else ""
            ends = f"{row['difference_low']:+.4f} to {row['difference_high']:+.4f}"
            cells["its interval"] = ends if known else ""
        rows.append(cells)
    printing.table(rows, f"{task}: {frame['examples'].iloc[0]:,} examples, 95 % intervals over examples")
