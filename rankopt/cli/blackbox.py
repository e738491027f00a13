"""`rankopt blackbox`: replay searches against a table of results."""

from __future__ import annotations

import json
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rankopt.cli import printing
from rankopt.cli.options import Json
from rankopt.cli.results_file import Files, finish, tell

if TYPE_CHECKING:
    from rankopt.search.replay import Step

SHOWN = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
"""Trials that the table shows, beside the last one."""


def blackbox(
    files: Files,
    search: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SEARCH",
            help="A search, or one with options: '{name: tpe, startup: 5}'; repeatable (default: random and tpe).",
        ),
    ] = None,
    trials: Annotated[int, typer.Option(min=1, max=10_000, metavar="N", help="Run N trials of a search.")] = 30,
    replays: Annotated[
        int, typer.Option(min=1, max=1000, metavar="N", help="Replay each search N times, with different seeds.")
    ] = 10,
    objectives: Annotated[
        Literal["score", "both"], typer.Option(help="Optimise the score, or the score and the parameters.")
    ] = "score",
    by: Annotated[
        Literal["configuration", "pattern"],
        typer.Option(help="Search the fields that vary, or the rank of every layer and the training's fields."),
    ] = "configuration",
    task: Annotated[str | None, typer.Option(metavar="NAME", help="Use the rows of this task.")] = None,
    mean: Annotated[
        bool, typer.Option("--mean", help="Answer with the mean over seeds (default: one training, drawn at random).")
    ] = False,
    as_json: Json = False,
) -> None:
    """Replay searches against a table of results, in milliseconds per trial.

    FILE is a results file, or a table of row lines. A search proposes values that the table has; a combination that it
    lacks is answered by the nearest configuration. Regret is the best mean score of the table minus the mean score of
    the best configuration seen so far. Front is the hypervolume of all configurations seen so far, divided by
    the table's hypervolume.
    """
    from rankopt.analysis.blackbox import BlackBox, Row, rows_of
    from rankopt.core.spec import Named, decode
    from rankopt.core.yaml import parse_value
    from rankopt.study.results_file import read_results
    from rankopt.study.results_merge import merge

    reading = read_results(files)
    merged = merge(reading.entries)
    rows = rows_of(merged.results()) + [entry.record for entry in reading.entries if isinstance(entry.record, Row)]
    box = BlackBox([row for row in rows if task in (None, row.task)], by)
    from rankopt.search.replay import replay, replayed_search

    names = ["score", "parameters"] if objectives == "both" else ["score"]
    searches = {}
    for text in search or ["random", "tpe"]:
        value = parse_value(text)
        named = decode(Named, value if isinstance(value, dict) else {"name": str(value)})
        searches[text] = [replayed_search(named, trials, seed, names) for seed in range(replays)]
    found = {text: [replay(box, each, names, mean=mean) for each in seeds] for text, seeds in searches.items()}
    tell(reading, merged)
    table = {
        "task": box.trainings[0][0].task,
        "metric": box.trainings[0][0].metric,
        "configurations": len(box.configurations),
        "trainings": sum(map(len, box.trainings)),
        "dimensions": box.dimensions,
        "best": box.configurations[box.scores.index(max(box.scores))],
        "best_score": max(box.scores),
    }
    if as_json:
        curves = [{"search": text, "trials": _curve(runs), **_unseen(runs)} for text, runs in found.items()]
        print(json.dumps({"table": table, "replays": replays, "searches": curves}, indent=2))
    else:
        shown = sorted({n for n in SHOWN if n < trials} | {trials})
        rows_shown = [row for text, runs in found.items() for row in _rows(text, _curve(runs), shown)]
        print(
            f"{table['task']}, {table['metric']}: {table['configurations']} configurations, {table['trainings']} "
            f"trainings, {len(box.dimensions)} dimensions"
        )
        printing.table(rows_shown, f"means of {replays} replays")
        unseen = [(text, _unseen(runs)) for text, runs in found.items()]
        print("; ".join(f"{text}: {u['unseen']:.0%} of the proposals not in the table" for text, u in unseen))
    finish(reading)


def _curve(runs: list[list[Step]]) -> list[dict[str, float]]:
    """Mean regret with its standard error, and mean front share, after every trial."""
    curve = []
    for number, steps in enumerate(zip(*runs, strict=True), 1):
        regrets = [step.regret for step in steps]
        error = stdev(regrets) / len(regrets) ** 0.5 if len(regrets) > 1 else 0.0
        front = fmean(step.front_share for step in steps)
        curve.append({"trial": number, "regret": fmean(regrets), "regret_error": error, "front": front})
    return curve


def _unseen(runs: list[list[Step]]) -> dict[str, float]:
    """The share of proposals that the table lacks, and their mean distance to the configuration that answered."""
    far = [step.distance for steps in runs for step in steps if step.distance > 0]
    return {"unseen": len(far) / sum(map(len, runs)), "distance": fmean(far) if far else 0.0}


def _rows(text: str, curve: list[dict[str, float]], shown: list[int]) -> list[dict[str, Any]]:
    def row(name: str, digits: int) -> dict[str, Any]:
        values = {f"{number}": f"{curve[number - 1][name]:.{digits}f}" for number in shown}
        return {"search": text, "after trials": name, **values}

    return [row("regret", 4), row("front", 3)]
