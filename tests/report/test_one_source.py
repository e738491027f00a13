"""One study, read six ways: page, Markdown, CSV, hover text, terminal and W&B show the same numbers."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import pytest
from recompute import Tables, markdown_tables
from synthetic_results import grid, make, trials
from wandb_files import Mirror, read_back

from rankopt.api.study import report_of
from rankopt.cli.results import show
from rankopt.report import headline
from rankopt.study.results_file import read_results, write_results
from rankopt.study.results_format import StudyRecord, TrialRecord
from rankopt.study.results_transfer import add_records
from rankopt.study.storage import StudyStore
from rankopt.study.storage_url import sqlite_url
from rankopt.study.study_mirror import StudyMirror

# the package ignores this warning itself; pytest resets filters before every test
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

STUDY = grid(space={"task.name": ["mini-cola"], "allocator": [{"name": n} for n in ("uniform", "random", "adalora")]})
BOTH = {"averages": "averages", "verdicts": "comparisons", "differences": "comparisons"}
"""W&B's table -> the CSV that has its rows."""


class Shown(NamedTuple):
    """What a reader sees."""

    folder: Path
    wandb: Mirror
    terminal: str
    answer: str

    def csv(self, name: str) -> list[dict[str, str]]:
        with (self.folder / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    @property
    def page(self) -> str:
        return (self.folder / "index.html").read_text(encoding="utf-8")

    @property
    def markdown(self) -> list[list[list[str]]]:
        return markdown_tables((self.folder / "report.md").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    pytest.importorskip("wandb")
    folder = tmp_path_factory.mktemp("study")
    record = StudyRecord.of(STUDY)
    results = [TrialRecord(study=record.study, result=result) for result in make(trials(STUDY))]
    write_results([record, *results], folder / "results.jsonl")
    runs = folder / "runs" / STUDY.name
    runs.mkdir(parents=True)
    (runs / "study.yaml").write_text(STUDY.model_dump_json(by_alias=True, exclude_defaults=True), encoding="utf-8")
    store = StudyStore(sqlite_url(runs), STUDY.name, runs)
    store.create(STUDY)
    add_records(store, read_results([folder / "results.jsonl"]).entries)
    report_of(store, STUDY, folder / "report")
    StudyMirror("offline", store, STUDY, pytest.fail).finish()
    (study_run,) = read_back(runs / "wandb")
    with pytest.MonkeyPatch.context() as patch:
        printed: list[str] = []
        patch.setattr("rankopt.cli.printing.console", lambda stderr=False: _console(printed))
        show(STUDY.name, directory=folder / "runs")
    return Shown(folder / "report", study_run, "".join(printed), " ".join(headline(STUDY, store.results(), 500)))


def _console(printed: list[str]) -> Any:
    from rich.console import Console

    class Kept:
        def write(self, text: str) -> int:
            printed.append(text)
            return len(text)

        def flush(self) -> None: ...

    return Console(file=Kept(), width=200)  # type: ignore[arg-type]


def test_page_and_markdown_have_the_same_tables(shown: Shown) -> None:
    """Cell by cell. Long tables are on the page only, and Markdown links to their file."""
    page = {tuple(rows[0]): rows for rows in Tables(shown.page).found}
    assert len(shown.markdown) >= 5
    for rows in shown.markdown:
        assert page[tuple(rows[0])] == rows or rows in Tables(shown.page).found


def test_means(shown: Shown) -> None:
    """Of every allocator and budget: in CSV, Markdown, W&B, the terminal and a hover text."""
    texts = set(_texts(_figures(shown.page)))
    (table,) = [rows for rows in shown.markdown if "search score" in rows[0] and "seeds" in rows[0]]
    in_markdown = [dict(zip(table[0], row, strict=True)) for row in table[1:]]
    points = shown.csv("data")
    rows = shown.csv("averages")
    assert len(rows) == len(in_markdown) == 6
    for row, told in zip(rows, in_markdown, strict=True):
        score, error, kept = float(row["score"]), float(row["error"]), float(row["kept"])
        about = row["allocator"], row["budget"], "True"
        own = [point for point in points if (point["allocator"], point["budget"], point["own"]) == about]
        assert score == pytest.approx(mean(float(point["score"]) for point in own))
        assert (told["allocator"], told["report score"], told["standard error"]) == (
            row["allocator"], f"{score:.3f}", f"{error:.3f}",
        )  # fmt: skip
        assert told["parameters kept"] == f"{kept:,.0f}"
        hover = [text for text in texts if text.startswith(f"{row['allocator']}\n{kept:,.0f} parameters")]
        assert any(f"{score:.3f} ± {error:.3f}" in text for text in hover), hover
        lines = [line.split() for line in shown.terminal.splitlines() if line.split()[:1] == [row["key"]]]
        assert len(lines) == 1
        point = next(point for point in own if point["key"] == row["key"])
        numbers = f"{float(point['score']):.4f}", f"{float(point['search']):.4f}", f"{int(point['kept']):,}"
        assert set(numbers) <= set(lines[0])


@pytest.mark.parametrize("table", BOTH)
def test_wandb_and_csv_have_the_same_numbers(shown: Shown, table: str) -> None:
    rows = shown.wandb.table(shown.wandb.summary[table]["path"])
    lines = shown.csv(BOTH[table])
    if BOTH[table] == "comparisons":
        lines = [line for line in lines if bool(line["setting"]) == (table == "differences")]
    assert len(rows) == len(lines) > 0
    for row, line in zip(rows, lines, strict=True):
        assert set(row) <= set(line)
        for column, value in row.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                assert float(line[column]) == pytest.approx(value), column
            elif value is None:
                assert line[column] == "", column
            else:
                assert line[column] == str(value), column


def test_every_trial_is_in_terminal_and_csv(shown: Shown) -> None:
    points = {point["key"]: point for point in shown.csv("data") if point["own"] == "True"}
    words = [line.split() for line in shown.terminal.splitlines()]
    found = {line[0]: line for line in words if line and line[0] in points}
    assert set(found) == set(points)
    for key, cells in found.items():
        assert f"{float(points[key]['score']):.4f}" in cells


def test_verdicts(shown: Shown) -> None:
    """In CSV, Markdown, the hover text of the figure of differences, and the answer on the terminal."""
    lines = shown.csv("comparisons")
    (table,) = [rows for rows in shown.markdown if rows[0][:1] == ["allocator"] and "verdict" in rows[0]]
    told = {row[0]: dict(zip(table[0], row, strict=True)) for row in table[1:]}
    texts = set(_texts(_figures(shown.page)))
    for line in lines:
        low, high, difference = (float(line[name] or "nan") for name in ("low", "high", "difference"))
        if not line["setting"]:
            row = told[line["allocator"]]
            assert row["difference to uniform"] == f"{difference:+z.3f}"
            assert row["interval"] == ("n/a" if math.isnan(low) else f"{low:+z.3f} to {high:+z.3f}")
            assert row["p (Holm)"] == f"{float(line['p_holm']):.2g}"
        rank = f", mean rank {float(line['budget']):g}" if line["budget"] else ""
        start = f"{line['allocator']}{rank}\n"
        hover = [text for text in texts if text.startswith(f"{start}{difference:+.3f} (")]
        assert any(line["verdict"] in text for text in hover), (start, difference)
    arms = {line["allocator"]: line for line in lines if not line["setting"]}
    found = re.findall(r"(?:Best|Worst): (\w+), (?:[a-zA-Z ]+ )?([\d.]+) (above|below)", shown.answer)
    assert found
    for allocator, size, side in found:
        assert float(size) == pytest.approx(abs(float(arms[allocator]["difference"])), abs=5e-4)
        assert (float(arms[allocator]["difference"]) > 0) == (side == "above")


def _figures(page: str) -> Any:
    (text,) = re.findall(r'<script type="application/json" id="figures">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


def _texts(node: Any) -> Iterator[str]:
    """The hover texts of the page's figures."""
    if isinstance(node, dict):
        if isinstance(node.get("text"), str):
            yield node["text"]
        for part in node.values():
            yield from _texts(part)
    elif isinstance(node, list):
        for part in node:
            yield from _texts(part)
