"""`show`, `report`, `best`, `importance` and `export` of finished studies."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# the package ignores this warning itself; pytest resets filters before every test
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

Rankopt = Callable[..., subprocess.CompletedProcess[str]]


def test_show(finished: tuple[Path, Any], here: Rankopt) -> None:
    """Every trial with its scores, by the study's name or file; JSON contains the full results."""
    from rankopt.core.result import TrialResult

    folder, _ = finished
    text = here("show", "tiny", cwd=folder).stdout
    assert "tiny: 4 complete, 0 failed, 0 running, 0 waiting" in text
    data = json.loads(here("show", "tiny.yaml", "--json", cwd=folder).stdout)
    assert data["counts"]["complete"] == 4
    results = [TrialResult.model_validate_json(json.dumps(result)) for result in data["results"]]
    for result in results:
        assert result.key in text
        assert f"{result.score('report'):.4f}" in text
    assert data["study"]["name"] == "tiny"


def test_show_with_a_storage_and_a_name(finished: tuple[Path, Any], here: Rankopt, tmp_path: Path) -> None:
    """From another folder, the storage URL and the study's name are enough; a wrong name lists the stored studies."""
    url = f"sqlite:///{finished[0]}/runs/tiny/study.db"
    assert "4 complete" in here("show", "tiny", "--storage", url, cwd=tmp_path).stdout
    done = here("show", "other", "--storage", url, cwd=tmp_path)
    assert done.returncode == 2
    assert "(it has: tiny)" in done.stderr


def test_report(finished: tuple[Path, Any], here: Rankopt, fresh: Callable[..., Any], tmp_path: Path) -> None:
    """Writes a page, Markdown and data, prints only the page's path, and does not import torch."""
    done = here("report", "tiny", "--out", tmp_path / "page", cwd=finished[0])
    assert done.returncode == 0, done.stderr
    page = Path(done.stdout.strip())
    assert page == tmp_path / "page" / "index.html"
    assert page.stat().st_size > 10_000
    assert {"report.md", "data.csv"} <= {path.name for path in page.parent.iterdir()}
    again = fresh("report", "tiny", "--out", tmp_path / "again", cwd=finished[0])
    assert again.code == 0
    assert not again.imported & {"torch", "transformers", "datasets", "peft"}


def test_bad_records_hide_no_good_one(finished: tuple[Path, Any], here: Rankopt, tmp_path: Path) -> None:
    """Broken JSON, a field of a later version and a score that is not a number: each is one line on stderr, and every
    command still gives the fourth result."""
    shutil.copytree(finished[0] / "runs", tmp_path / "runs")
    with sqlite3.connect(tmp_path / "runs" / "tiny" / "study.db") as database:
        query = "SELECT trial_id, value_json FROM trial_user_attributes WHERE key = 'result' ORDER BY trial_id"
        rows = database.execute(query).fetchall()
        texts = [json.loads(text) for _, text in rows]
        point = texts[2]["points"][0] | {"search": {"accuracy": "NaN"}}
        damaged = ["{", json.dumps(texts[1] | {"newer": 1}), json.dumps(texts[2] | {"points": [point]})]
        for (trial, _), text in zip(rows, damaged, strict=False):
            database.execute(
                "UPDATE trial_user_attributes SET value_json = ? WHERE trial_id = ? AND key = 'result'", (text, trial)
            )
    good = texts[3]["key"]
    for words, where in (
        (("show", "tiny"), ""),
        (("best", "tiny", "--budget", 10**9), ""),
        (("export", "tiny", "--out", tmp_path / "adapter"), "adapter/adapter_model.safetensors"),
        (("results", "export", "tiny", "--out", tmp_path / "results.jsonl"), "results.jsonl"),
        (("report", "tiny", "--out", tmp_path / "page"), "page/data.csv"),
    ):
        done = here(*words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        lines = done.stderr.splitlines()
        assert len([line for line in lines if "in the storage" in line]) == len(lines) == 3, done.stderr
        if where.endswith("safetensors"):
            assert (tmp_path / where).is_file()
            assert good in done.stdout
        else:
            assert good in (done.stdout if not where else (tmp_path / where).read_text())
    report = (tmp_path / "page" / "report.md").read_text()
    assert "3 stored records cannot be read" in report


def test_a_missing_artifact_is_one_line(finished: tuple[Path, Any], here: Rankopt, tmp_path: Path) -> None:
    """The export names the file and what to do; the adapters of other trials are exported."""
    shutil.copytree(finished[0] / "runs", tmp_path / "runs")
    keys = [row["key"] for row in json.loads(here("show", "tiny", "--json", cwd=tmp_path).stdout)["results"]]
    with sqlite3.connect(tmp_path / "runs" / "tiny" / "study.db") as database:
        query = "SELECT value_json FROM trial_system_attributes WHERE key LIKE 'artifacts:%'"
        metas = [json.loads(json.loads(text)) for (text,) in database.execute(query)]
    (lost,) = [meta["artifact_id"] for meta in metas if meta["filename"] == f"{keys[0]}-adapter.zip"]
    (tmp_path / "runs" / "tiny" / "artifacts" / lost).unlink()
    done = here("export", "tiny", "--trial", keys[0], "--out", tmp_path / "a", cwd=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert (
        "is missing or incomplete in runs/tiny/artifacts; remove the trial (rankopt delete) and run the study again"
        in line
    )
    assert not (tmp_path / "a").exists()
    assert here("export", "tiny", "--trial", keys[1], "--out", tmp_path / "b", cwd=tmp_path).returncode == 0


def test_results_of_an_earlier_plan(finished: tuple[Path, Any], here: Rankopt, tmp_path: Path) -> None:
    """After the plan has changed, `show` marks the results that no longer belong to it, and the report counts them."""
    shutil.copytree(finished[0], tmp_path / "copy")
    folder = tmp_path / "copy"
    done = here("run", "tiny.yaml", "--set", "seed=[1]", "--wandb", "disabled", cwd=folder)
    assert done.returncode == 0, done.stderr
    shown = here("show", "tiny", cwd=folder).stdout
    assert shown.count("complete, not in the plan") == 2
    data = json.loads(here("show", "tiny", "--json", cwd=folder).stdout)
    assert {result["spec"].get("seed", 0) for result in data["results"] if result["key"] in data["not_counted"]} == {0}
    assert here("report", "tiny", "--out", "page", cwd=folder).returncode == 0
    assert "2 results outside the study's plan" in (folder / "page" / "report.md").read_text()


def test_export(finished: tuple[Path, Any], here: Rankopt, tmp_path: Path, tiny_model: Path) -> None:
    """Exports the best trial, or the one with a given key prefix, as a folder that PEFT loads."""
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    folder, _ = finished
    results = json.loads(here("show", "tiny", "--json", cwd=folder).stdout)["results"]
    best = max(results, key=lambda result: result["points"][0]["search"]["accuracy"])
    done = here("export", "tiny", "--out", tmp_path / "best", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert best["key"] in done.stdout
    assert (
        done.stdout.splitlines()[-1] == f"Next: rankopt evaluate {tmp_path / 'best'} --model {tiny_model} --data FILE"
    )
    base = AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=2)
    model = PeftModel.from_pretrained(base, tmp_path / "best")
    assert sum(p.numel() for name, p in model.named_parameters() if "lora_" in name) == best["points"][0]["kept"]
    other = results[-1]["key"]
    done = here("export", "tiny", "--trial", other[:6], "--out", tmp_path / "deep" / "other", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert other in done.stdout
    done = here("export", "tiny", "--trial", "zzz", "--out", tmp_path / "none", cwd=folder)
    assert done.returncode == 2
    assert "--trial must be the key of a complete trial, got 'zzz'" in done.stderr
    assert not (tmp_path / "none").exists()


def test_export_of_a_missing_artifact(finished: tuple[Path, Any], here: Rankopt, tmp_path: Path) -> None:
    """One error line, and no partial folder."""
    shutil.copytree(finished[0] / "runs", tmp_path / "runs")
    shutil.rmtree(tmp_path / "runs" / "tiny" / "artifacts")
    done = here("export", "tiny", "--out", tmp_path / "out", cwd=tmp_path)
    assert done.returncode in (2, 3), done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_the_best_say_that_scores_are_means(finished: tuple[Path, Any], here: Rankopt) -> None:
    """The score beside a key is not the score of that key's training."""
    title, header, *_ = here("best", "tiny", cwd=finished[0]).stdout.splitlines()
    assert title == "tiny: Pareto front, means over seeds"
    assert "key of the best seed" in header


def test_best(searched: Path, here: Rankopt) -> None:
    """The front is sorted by parameters and score; a budget gives one pattern with its ranks, or an error."""
    front = json.loads(here("best", "look", "--json", cwd=searched).stdout)
    assert [row["kept"] for row in front] == sorted(row["kept"] for row in front)
    assert [row["search"] for row in front] == sorted(row["search"] for row in front)
    assert all(len(row["pattern"]) == 12 for row in front)
    most = front[-1]["kept"]
    (within,) = json.loads(here("best", "look", "--budget", int(most), "--json", cwd=searched).stdout)
    assert within["key"] in {row["key"] for row in front if row["search"] == front[-1]["search"]}
    shown = here("best", "look", "--budget", int(most), cwd=searched)
    assert f"ranks of {within['key']}" in shown.stdout
    refused = here("best", "look", "--budget", 1, cwd=searched)
    assert refused.returncode == 2
    assert refused.stderr == "rankopt: study 'look' has no complete trial within 1 parameters\n"


def test_export_within_a_budget(searched: Path, here: Rankopt, tmp_path: Path) -> None:
    """Exports the best pattern within the budget, from the artifact folder that the study records."""
    (within,) = json.loads(here("best", "look", "--budget", 1800, "--json", cwd=searched).stdout)
    done = here("export", "look", "--budget", 1800, "--out", tmp_path / "out", cwd=searched)
    assert done.returncode == 0, done.stderr
    assert f"trial {within['key']}" in done.stdout
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()
    assert not (searched / "runs" / "look" / "artifacts").exists()
    refused = here("export", "look", "--budget", 1, "--out", tmp_path / "other", cwd=searched)
    assert (refused.returncode, (tmp_path / "other").exists()) == (2, False)
    assert "--budget must be at least" in refused.stderr


def test_importance(searched: Path, finished: tuple[Path, Any], here: Rankopt) -> None:
    """Shares of every dimension for each objective that varies; too few trials are an error."""
    found = json.loads(here("importance", "look", "--json", cwd=searched).stdout)
    shown = json.loads(here("show", "look", "--json", cwd=searched).stdout)
    scores = {result["points"][0]["search"][result["metrics"][0]] for result in shown["results"]}
    assert set(found) == ({"front", "score", "parameters"} if len(scores) > 1 else {"parameters"})
    for shares in found.values():
        assert set(shares) == {"budget.mean_rank", "allocator.slope"}
        assert sum(shares.values()) == pytest.approx(1.0)
    table = " ".join(here("importance", "look", cwd=searched).stdout.split())
    assert table.startswith("look: importance of its dimensions")
    refused = here("importance", "tiny", cwd=finished[0])
    assert refused.returncode == 2
    assert "importance needs 10 complete trials with different results, and two dimensions" in refused.stderr


def test_report_of_a_search(searched: Path, here: Rankopt) -> None:
    page = here("report", "look", cwd=searched)
    assert page.returncode == 0, page.stderr
    text = (searched / "reports" / "look" / "report.md").read_text()
    assert "## Search" in text
    assert "## Dimension importance" in text
    assert "10 proposals: 10 complete." in text


def test_configurations_of_a_search_are_shown(searched: Path, here: Rankopt) -> None:
    """`show` and `best` print each trial's point of the space."""
    for command in ("show", "best"):
        assert "slope -" in here(command, "look", cwd=searched).stdout
    rows = json.loads(here("best", "look", "--json", cwd=searched).stdout)
    assert all(row["configuration"].startswith("slope ") for row in rows)


def test_delete(finished: tuple[Path, Any], here: Rankopt, tmp_path: Path) -> None:
    """Says what it removed; the trial is no longer shown, and its adapter is gone."""
    shutil.copytree(finished[0] / "runs", tmp_path / "runs")
    results = json.loads(here("show", "tiny", "--json", cwd=tmp_path).stdout)["results"]
    key = results[0]["key"]
    done = here("delete", "tiny", "--trial", key, cwd=tmp_path)
    assert done.stdout == f"deleted trial {key}: attempts 1, artifacts 2. Next: rankopt run tiny\n", done.stderr
    left = json.loads(here("show", "tiny", "--json", cwd=tmp_path).stdout)
    assert [result["key"] for result in left["results"]] == [result["key"] for result in results[1:]]
    assert left["counts"] == {"complete": 3, "failed": 0, "running": 0, "waiting": 1}
    assert (
        "--trial must be the key of a complete trial"
        in here("export", "tiny", "--trial", key, "--out", "x", cwd=tmp_path).stderr
    )
    assert here("delete", "tiny", cwd=tmp_path).stderr == "rankopt: delete needs --trial KEY or --attempt N\n"
