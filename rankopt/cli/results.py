"""Commands that read a study's results: show, report, best, importance, export."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from rankopt.cli import printing
from rankopt.cli.options import RUNS, Artifacts, Json, Latex, Runs, Storage, Study, open_store
from rankopt.cli.results_file import From, report_files, results_files
from rankopt.core.folders import absent_path
from rankopt.core.trial_spec import method_label

HEADERS = {"search": "search score", "report": "report score", "mean_rank": "mean rank"}
"""Column -> its printed header; every score names its split."""


def show(
    study: Study, storage: Storage = None, directory: Runs = RUNS, as_json: Json = False
) -> None:  # fmt: skip
    """Show the results of a study so far."""
    store, spec = open_store(study, storage, directory)
    results = store.results(planned=False, losses=as_json)
    counted = store.counted_keys()
    if as_json:
        data = {
            "study": spec.model_dump(mode="json", by_alias=True),
            "counts": store.counts(),
            "results": [result.model_dump(mode="json") for result in results],
            "not_counted": [result.key for result in results if result.key not in counted],
        }
        print(json.dumps(data, indent=2))
        return
    from rankopt.analysis.overview import overview

    formats = {"kept": ",", "search": ".4f", "report": ".4f"}
    rows = [
        {HEADERS.get(name, name): _cell(printing.short(value), formats.get(name, "")) for name, value in row.items()}
        for row in overview(spec, results, counted)
    ]
    printing.table(rows, f"{spec.name}: {printing.counts(store.counts())}")


def _cell(value: Any, spec: str) -> Any:
    return "" if value is None else format(value, spec) if spec else value


def report(
    study: Annotated[
        str | None, typer.Argument(metavar="[STUDY]", help="A study file or a study's name; optional with --from.")
    ] = None,
    files: From = None,
    storage: Storage = None,
    directory: Runs = RUNS,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write the report to this folder (default: reports/STUDY).")
    ] = None,
    latex: Latex = False,
) -> None:
    """Write a report: HTML, Markdown, data and figures.

    Several results files end in one report: rankopt report --from a.jsonl --from b.jsonl
    """
    files, study = results_files(files, study)
    if files:
        report_files(files, study, directory, out, latex)
        return
    if study is None:
        raise ValueError("report needs a STUDY, or results files: rankopt report --from results.jsonl")
    store, spec = open_store(study, storage, directory)
    from rankopt.api.study import report_of

    print(report_of(store, spec, out or Path("reports") / spec.name, latex))


def compare(
    studies: Annotated[
        list[str],
        typer.Argument(metavar="STUDY...", help="Study files, names of studies that were run, or results files."),
    ],
    storage: Storage = None,
    directory: Runs = RUNS,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write the page to this folder (default: in reports).")
    ] = None,
    latex: Latex = False,
) -> None:
    """Put several studies on one page.

    Allocators are compared with the control of the first study. Trials are paired where task, data with its splits,
    model, budget and seed agree; the page says what is not paired and why.
    """
    from rankopt.api.compare import compare

    print(compare(studies, folder=out, directory=directory, storage=storage, latex=latex))


def best(
    study: Study,
    budget: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Keep at most N adapter parameters (default: the study's constraint)."),
    ] = None,
    storage: Storage = None,
    directory: Runs = RUNS,
    as_json: Json = False,
) -> None:
    """Print the best pattern within a budget, or the Pareto front.

    Patterns are compared by their search score. A study's constraint on the parameters is its default budget.
    """
    store, spec = open_store(study, storage, directory)
    budget = spec.constraints.get("parameters") if budget is None else budget
    from rankopt.study.best import best_patterns

    found = best_patterns(store, spec, budget)
    patterns = list(found.pop("pattern"))
    rows = found.rename(columns={"setting": "task", "n": "seeds", "score": "report"}).to_dict("records")
    if as_json:
        print(json.dumps([{**row, "pattern": pattern} for row, pattern in zip(rows, patterns, strict=True)], indent=2))
        return
    formats = {"kept": ",.0f", "mean_rank": ".2f", "search": ".4f", "report": ".4f"}
    means = any(row["seeds"] > 1 for row in rows)
    headers = {**HEADERS, **({"key": "key of the best seed"} if means else {})}
    shown = [
        {headers.get(name, name): _cell(value, formats.get(name, "")) for name, value in row.items()} for row in rows
    ]
    what = "Pareto front" if budget is None else f"best within {budget:,} parameters"
    printing.table(shown, f"{spec.name}: {what}{', means over seeds' if means else ''}")
    for row, pattern in zip(rows, patterns, strict=True) if budget is not None else ():
        printing.table([{"layer": name, "rank": rank} for name, rank in pattern.items()], f"ranks of {row['key']}")


def delete(
    study: Study,
    trial: Annotated[str | None, typer.Option(metavar="KEY", help="Delete the trial with this key.")] = None,
    attempt: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Delete the trial of attempt N; messages about a trial give N."),
    ] = None,
    storage: Storage = None,
    directory: Runs = RUNS,
) -> None:
    """Delete a trial's results, adapters and checkpoints.

    Does not ask for confirmation. A grid trains the trial again when it is run; a search makes another proposal in its
    place.
    """
    if (trial is None) == (attempt is None):
        raise ValueError("delete needs --trial KEY or --attempt N")
    store, _ = open_store(study, storage, directory)
    from rankopt.study.deletion import delete_trial

    done = delete_trial(store, trial, attempt)
    names = ", ".join(done.keys) or "without a key"
    print(
        f"deleted trial {names}: attempts {done.attempts}, artifacts {done.artifacts}. Next: rankopt run {store.name}"
    )


def importance(study: Study, storage: Storage = None, directory: Runs = RUNS, as_json: Json = False) -> None:
    """Print how much each dimension of a search matters.

    Measured by PED-ANOVA; for a one-shot search, the energy and sensitivity of each layer.
    """
    store, spec = open_store(study, storage, directory)
    from rankopt.study.dimension_importance import MIN_TRIALS, importances

    if store.search.super_network:
        from rankopt.analysis.oneshot import measured_shares

        found, needed = measured_shares(store.results()), "a complete super-network"
    else:
        found = importances(store, spec)
        needed = f"{MIN_TRIALS} complete trials with different results, and two dimensions that a search proposes"
    if not found:
        raise ValueError(f"importance needs {needed}; study {spec.name!r} does not have them yet")
    if as_json:
        print(json.dumps(found, indent=2))
        return
    names = next(iter(found.values()))
    rows = [
        {"dimension": name, **{target: f"{shares.get(name, 0.0):.1%}" for target, shares in found.items()}}
        for name in names
    ]
    printing.table(rows, f"{spec.name}: importance of its dimensions")


def export(
    study: Study,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Create this folder; it must not exist yet.")],
    trial: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Export the trial with this key (default: the best by search score)."),
    ] = None,
    point: Annotated[
        str | None, typer.Option(metavar="POINT", help="Export this pattern of the trial (default: the trial's own).")
    ] = None,
    budget: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Export the best pattern of at most N parameters.")
    ] = None,
    storage: Storage = None,
    directory: Runs = RUNS,
    artifacts: Artifacts = None,
) -> None:
    """Export a trial's adapter as a PEFT folder."""
    absent_path(out)
    if trial is not None and budget is not None:
        raise ValueError(
            "--trial and --budget cannot be combined: --trial names a trial, --budget selects the best one"
        )
    if point and trial is None:
        raise ValueError("--point needs --trial, because it names a pattern of that trial")
    store, spec = open_store(study, storage, directory, artifacts)
    from rankopt.study.export import export_adapter

    if trial is None and budget is None:
        budget = spec.constraints.get("parameters")
    result, exported = export_adapter(store, out, trial, point, budget)
    print(
        f"{out}: {method_label(result.spec)} on {result.spec['task']['name']} (trial {result.key}, "
        f"{exported.label}), {exported.kept:,} parameters, search score {result.score('search', exported):.4f}, "
        f"report score {result.score('report', exported):.4f}"
    )
    if (out / "adapter_config.json").is_file():
        task = result.spec["task"]
        columns = [
            f" --{field} {shlex.quote(task[field])}"
            for field in ("prompt", "completion")
            if isinstance(task.get(field), str) and task[field] != field
        ]
        print(f"Next: rankopt evaluate {out} --model {result.spec['model']['name']} --data FILE{''.join(columns)}")
