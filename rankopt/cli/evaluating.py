"""The command that scores adapters: `rankopt evaluate`."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from rankopt.cli import printing
from rankopt.cli.options import Completion, DataDir, Json, Label, MaxLength, Prompt, Text
from rankopt.core.text import plural


def evaluate(
    adapters: Annotated[list[str], typer.Argument(metavar="ADAPTER...", help="Adapter folders or hub ids.")],
    model: Annotated[str, typer.Option(help="Base model of all of them (folder or hub id).")],
    data: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Score on these rows (files as for `rankopt init --data`)."),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Score on the report splits of this task (`rankopt list tasks`)."),
    ] = None,
    text: Text = None,
    label: Label = None,
    prompt: Prompt = None,
    completion: Completion = None,
    retain: Annotated[
        str | None,
        typer.Option(metavar="FILE|TASK", help="Also score this other material, before (no adapter) and after."),
    ] = None,
    data_dir: DataDir = None,
    max_length: MaxLength = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, metavar="N", help="Examples per forward pass.")
    ] = 32,
    as_json: Json = False,
) -> None:
    """Score adapters of any PEFT type on your own rows or on a task, with 95 % intervals.

    Several adapters are scored on the same examples; differences to the first one are paired. --retain measures
    forgetting: differences are to the base model without an adapter.
    """
    from rankopt.tasks import TASKS

    if (data is None) == (task is None):
        raise ValueError(f"give one of --data and --task, got {'none' if data is None else 'both'}")
    if task is not None and task not in TASKS:
        raise ValueError(f"--task must be one of {', '.join(TASKS)}, got {task!r}")
    from rankopt.api.evaluate import evaluate

    frame = evaluate(
        adapters, model, str(data or task), retain=retain, text=text or (), label=label, prompt=prompt,
        completion=completion, data_dir=data_dir, max_length=max_length, batch_size=batch_size,
    )  # fmt: skip
    if as_json:
        print(json.dumps(json.loads(frame.to_json(orient="records")), indent=2))
        return
    for note in frame.attrs["notes"]:
        print(f"note: {note}")
    for (retained, name), part in frame.groupby(["retained", "task"], sort=False):
        rows: list[dict[str, Any]] = []
        for row in part.to_dict("records"):
            cells = {"adapter": row["adapter"], "split": row["split"], row["metric"]: f"{row['score']:.4f}"}
            cells["interval"] = f"{row['low']:.4f} to {row['high']:.4f}"
            if part["difference"].notna().any():
                known = row["difference"] == row["difference"]
                cells["difference"] = f"{row['difference']:+.4f}" if known else ""
                ends = f"{row['difference_low']:+.4f} to {row['difference_high']:+.4f}"
                cells["its interval"] = ends if known else ""
            rows.append(cells)
        title = f"retained {name}" if retained else name
        rows += [dict.fromkeys(rows[0], "") | row for row in baseline_rows(part)]
        printing.table(rows, f"{title}: {plural(part['examples'].iloc[0], 'example')}, 95 % intervals over examples")


def baseline_rows(part: Any) -> printing.Rows:
    """One row per split for the prediction that needs no model: the most frequent class, or the mean."""
    known = part[part["baseline"].notna()].drop_duplicates("split")
    return [
        {"adapter": f"({row['baseline_name']})", "split": row["split"], row["metric"]: f"{row['baseline']:.4f}"}
        for row in known.to_dict("records")
    ]
