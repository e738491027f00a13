"""The numbers in W&B's offline files, compared with those recomputed from a study's results; see `recompute.py`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from wandb_files import Mirror, read_back

Row = dict[str, Any]
Cells = Mapping[tuple[str, str, float], Row]
POINT = {
    "search_score": "search",
    "score": "score",
    "kept_parameters": "kept",
    "mean_rank": "mean_rank",
    "seed": "seed",
}


def problems(
    folder: Path,
    points: Mapping[tuple[str, str], Row],
    averages: Cells,
    arms: Mapping[tuple[str, str], Row],
    cells: Cells,
) -> Iterator[str]:
    """Every number of the runs under a folder that differs.

    Args:
        folder: with W&B's `offline-run-*` folders.
        points, averages, arms, cells: as `recompute.py` computes them.
    """
    runs = read_back(folder)
    trials = {run.summary["key"]: run for run in runs if run.header["job_type"] != "study" and "key" in run.summary}
    studies = [run for run in runs if run.header["job_type"] == "study"]
    for key, label in points:
        if label == "budget":
            yield from (
                _of_trial(trials[key], points[key, label]) if key in trials else [f"W&B: no run of trial {key}"]
            )
    if not studies:
        yield "W&B: no run of the study"
        return
    last = studies[-1]
    for row in _rows(last, "tradeoff_points"):
        expected = points[row["key"], row["point"]]
        yield from _differs(f"point {row['key']}", row, {mine: expected[theirs] for mine, theirs in POINT.items()})
    for row in _rows(last, "averages"):
        what = row["setting"], row["allocator"], row["budget"]
        yield from _differs(f"averages of {what}", row, averages[what])
    for row in _rows(last, "verdicts"):
        what = row["scope"], row["allocator"]
        yield from _differs(f"verdicts of {what}", row, arms[what], without=("error",))
    for row in _rows(last, "differences"):
        what = row["setting"], row["allocator"], row["budget"]
        yield from _differs(f"differences of {what}", row, cells[what], without=("error",))
    for task in {task for task, _, _ in averages}:
        yield from _of_curve(last, task, averages)


def _of_trial(run: Mirror, expected: Row) -> Iterator[str]:
    found = {name: value for name, value in run.summary.items() if name in POINT}
    yield from _differs(
        f"run {run.header['run_id']}", found, {mine: expected[theirs] for mine, theirs in POINT.items()}
    )


def _of_curve(run: Mirror, task: str, averages: Cells) -> Iterator[str]:
    """The lines of a trade-off chart: means, and one standard error above and below."""
    expected = {}
    for (setting, allocator, _), row in averages.items():
        if setting == task:
            expected[allocator, row["kept"]] = row["score"]
            for words, sign in (("+", 1), ("-", -1)) if row["error"] == row["error"] else ():
                expected[f"{allocator} {words} 1 standard error", row["kept"]] = row["score"] + sign * row["error"]
    path = [row[key] for row in run.history for key in row if key == f"tradeoff/{task}_table.path"][-1]
    for row in run.table(path):
        value = expected.pop((row["lineKey"], row["step"]), math.nan)
        yield from _differs(f"curve {row['lineKey']} of {task}", {"score": row["lineVal"]}, {"score": value})
    yield from (f"W&B: curve {line} of {task} lacks {kept:g} parameters" for line, kept in expected)


def _rows(run: Mirror, table: str) -> list[Row]:
    return run.table(run.summary[table]["path"])


def _differs(what: str, found: Row, expected: Row, without: Iterable[str] = ()) -> Iterator[str]:
    for name in sorted(set(found) & set(expected) - set(without)):
        value = expected[name]
        if isinstance(value, int | float) and not isinstance(value, bool):
            shown = math.nan if found[name] is None else float(found[name])
            same = math.isclose(shown, value, rel_tol=1e-9, abs_tol=1e-9)
            if not same and not (math.isnan(shown) and math.isnan(value)):
                yield f"W&B: {name} of {what} is {shown:.12g}, {value:.12g} was recomputed"
