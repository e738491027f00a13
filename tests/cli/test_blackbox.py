"""`rankopt blackbox`: searches replayed against a table of results."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# the package ignores this warning itself; pytest resets filters before every test
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

Rankopt = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table of six ranks by five learning rates at two seeds, as somebody would write it by hand."""
    path = tmp_path / "table.jsonl"
    rows = [
        {
            "schema": 1, "record": "row", "task": "cola", "metric": "matthews",
            "configuration": {"budget.mean_rank": rank, "training.lr": lr},
            "seed": seed, "score": 0.1 * i - 0.05 * (j - 2) ** 2 + 0.01 * seed, "parameters": 1000 * rank,
        }
        for i, rank in enumerate((1, 2, 4, 8, 16, 32))
        for j, lr in enumerate((1e-4, 3e-4, 1e-3, 3e-3, 1e-2))
        for seed in (0, 1)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_table_and_the_curves_as_json(table: Path, here: Rankopt, tmp_path: Path) -> None:
    done = here("blackbox", table, "--trials", 30, "--replays", 4, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "cola, matthews: 30 configurations, 60 trainings, 2 dimensions\nmeans of 4 replays" in done.stdout
    assert "random: 0% of the proposals not in the table; tpe: 0%" in done.stdout
    data = json.loads(here("blackbox", table, "--replays", 4, "--json", cwd=tmp_path).stdout)
    assert data["table"]["best"] == {"budget.mean_rank": 32, "training.lr": 1e-3}
    assert [each["search"] for each in data["searches"]] == ["random", "tpe"]
    for each in data["searches"]:
        regrets = [step["regret"] for step in each["trials"]]
        assert len(regrets) == 30
        assert regrets == sorted(regrets, reverse=True)
        assert f"{regrets[-1]:.4f}" in done.stdout


def test_options_of_a_search(table: Path, here: Rankopt, tmp_path: Path) -> None:
    """A search may come with options; a wrong one is named."""
    done = here("blackbox", table, "--search", "{name: tpe, startup: 3}", "--replays", 2, "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["searches"][0]["search"] == "{name: tpe, startup: 3}"
    refused = here("blackbox", table, "--search", "{name: tpe, startups: 3}", cwd=tmp_path)
    assert refused.returncode == 2
    assert refused.stderr == "rankopt: --search: startups is not a known field; did you mean 'startup'?\n"


def test_results_of_a_study_are_a_table(finished: tuple[Path, Any], here: Rankopt, tmp_path: Path) -> None:
    assert here("results", "export", "tiny", "--out", tmp_path / "r.jsonl", cwd=finished[0]).returncode == 0
    done = here("blackbox", "r.jsonl", "--trials", 4, "--replays", 2, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    dimensions = json.loads(done.stdout)["table"]["dimensions"]
    assert set(dimensions["allocator.name"]) == {"uniform", "dylora"}
    done = here("blackbox", "r.jsonl", "--by", "pattern", "--trials", 4, "--replays", 1, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_damaged_row_is_named_and_skipped(table: Path, here: Rankopt, tmp_path: Path) -> None:
    with table.open("a") as stream:
        stream.write('{"schema": 1, "record": "row", "task": "cola", "score": "high", "parameters": 1}\n')
    done = here("blackbox", table, "--trials", 2, "--replays", 1, cwd=tmp_path)
    assert done.returncode == 2
    assert "60 trainings" in done.stdout
    assert f"{table}:61: score must be a valid number, unable to parse string as a number, got 'high'" in done.stderr
