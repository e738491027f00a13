"""W&B: the offline files, read back with wandb's own reader, contain every point of the study."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from wandb_files import Mirror, read_back

from rankopt.allocators import ALLOCATORS
from rankopt.core.progress import Progress
from rankopt.core.result import TrialResult
from rankopt.core.spec import decode
from rankopt.core.study_spec import WandbSpec
from rankopt.core.trial_spec import TrialSpec
from rankopt.study.rank_map import rank_map
from rankopt.study.storage import StudyStore
from rankopt.study.storage_url import sqlite_url
from rankopt.study.tracking import NullTracker, SafeTracker, make_tracker, point_rows

# the package ignores this warning itself; pytest resets filters before every test
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


@pytest.fixture(scope="module")
def mirrors(finished: tuple[Path, Any]) -> list[Mirror]:
    pytest.importorskip("wandb")
    return read_back(finished[0] / "runs" / "tiny" / "wandb")


@pytest.fixture
def results(finished: tuple[Path, Any]) -> dict[str, TrialResult]:
    folder = finished[0] / "runs" / "tiny"
    store = StudyStore(sqlite_url(folder), "tiny", folder)
    store.open()
    return {result.key: result for result in store.results()}


def test_a_run_per_trial_and_one_for_the_study(mirrors: list[Mirror], results: dict[str, TrialResult]) -> None:
    """The group is the study, the job type the allocator, the id study and key, and the config has every field."""
    assert {run.header["run_group"] for run in mirrors} == {"tiny"}
    assert {run.header["project"] for run in mirrors} == {"rankopt"}
    assert all(run.state == "finished" and run.exit_code == 0 for run in mirrors)
    trials = [run for run in mirrors if run.header["job_type"] != "study"]
    assert len(mirrors) == len(trials) + 1 == 5
    for run in trials:
        result = results[run.summary["key"]]
        assert run.header["job_type"] == result.spec["allocator"]["name"]
        assert run.header["display_name"].endswith(f"seed {result.spec.get('seed', 0)}")
        config = {key: value for key, value in run.header["config"]["update"].items() if key != "_wandb"}
        assert run.header["run_id"] == f"tiny-{result.key}"
        assert config["key"] == result.key
        assert config["seed"] == result.spec.get("seed", 0)
        spec = decode(TrialSpec, result.spec)
        assert {**config["training"]} == spec.training.model_dump(mode="json")
        assert config["allocator"] == {"name": spec.allocator.name, **ALLOCATORS[spec.allocator.name]().model_dump()}
    assert {run.summary["key"] for run in trials} == set(results)


def test_the_curves_of_a_trial(mirrors: list[Mirror], results: dict[str, TrialResult]) -> None:
    """Every step has its loss, budget, learning rate and gradient norm, equal to the recorded ones."""
    for run in mirrors:
        if run.header["job_type"] == "study":
            continue
        result = results[run.summary["key"]]
        rows = [row for row in run.history if "loss" in row]
        assert [row["step"] for row in rows] == list(range(1, 13))
        assert [row["loss"] for row in rows] == pytest.approx([event.loss for event in result.losses])
        trace = {event.step: event for event in result.ranks}
        amount = result.ranks[0].amount
        for row, event in zip(rows, result.losses, strict=True):
            amount = trace[row["step"]].amount if row["step"] in trace else amount
            assert row["budget"] == amount
            assert (row["lr"], row["gradient_norm"]) == pytest.approx((event.lr, event.gradient_norm))
            assert row["gradient_norm"] > 0
        assert max(row["lr"] for row in rows) == pytest.approx(result.spec["training"]["lr"])
        assert not [key for row in run.history for key in row if key.startswith("ranks/")]


def test_the_ranks_are_one_heat_map(mirrors: list[Mirror], results: dict[str, TrialResult]) -> None:
    for run in mirrors:
        if run.header["job_type"] != "study":
            text = (run.folder / "files" / run.summary["ranks"]["path"]).read_text()
            assert text == rank_map(results[run.summary["key"]])


def test_the_scores_over_time(mirrors: list[Mirror], results: dict[str, TrialResult], tmp_path: Path) -> None:
    """The scores of the trained model are at the last step, those of evaluations during training at their own."""
    for run in mirrors:
        if run.header["job_type"] != "study":
            result = results[run.summary["key"]]
            scored = [(row["step"], row["search_score"], row["score"]) for row in run.history if "search_score" in row]
            assert scored == [(12, result.score("search"), result.score("report"))]


def test_an_evaluation_during_training(tmp_path: Path, tiny_spec: Any) -> None:
    pytest.importorskip("wandb")
    tracker = make_tracker("offline", tmp_path, WandbSpec())
    tracker.start("tiny", 0, "sst2 uniform", tiny_spec())
    tracker.log(Progress(6, 12, "score", {"score": 0.5, "parameters": 24.0, "error": 0.1}))
    tracker.finish(None)
    ((_, history, *_),) = read_back(tmp_path / "wandb")
    assert [(row["step"], row["search_score"]) for row in history] == [(6, 0.5)]


def test_every_point_is_there(mirrors: list[Mirror], results: dict[str, TrialResult]) -> None:
    """The study's table and each trial's table have one row per point; the summary has the trial's own point."""
    expected = point_rows(list(results.values()))
    assert len(expected) == sum(len(result.points) for result in results.values()) > len(results)
    (study,) = [run for run in mirrors if run.header["job_type"] == "study"]
    assert study.table(study.summary["tradeoff_points"]["path"]) == expected
    assert (study.summary["trials"], study.summary["complete"], study.summary["failed"]) == (4, 4, 0)
    for run in mirrors:
        if run is study:
            continue
        result = results[run.summary["key"]]
        assert run.table(run.summary["points"]["path"]) == point_rows([result])
        assert run.summary["kept_parameters"] == result.own.kept
        assert run.summary["score"] == result.score("report")
        assert run.summary["search_score"] == result.score("search")
        assert run.summary["search/accuracy"] == result.own.search["accuracy"]
        assert run.summary["validation/accuracy"] == result.own.report["validation"]["accuracy"]


def test_a_failure_and_an_interruption(tmp_path: Path, result: Callable[..., TrialResult], tiny_spec: Any) -> None:
    """A failed trial's run has its reason and exit code 1; an interrupted one has no result."""
    pytest.importorskip("wandb")
    spec = tiny_spec()
    failed = result(spec, status="failed", points=(), reason="the loss became nan at step 3 of 9")
    tracker = make_tracker("offline", tmp_path, WandbSpec())
    for seed, outcome in enumerate((failed, None)):
        tracker.start("tiny", 3, "sst2 uniform", tiny_spec(seed=seed))
        tracker.finish(outcome)
    tracker.finish(None)  # a trial that never started
    runs = read_back(tmp_path / "wandb")
    assert [run.exit_code for run in runs] == [1, 1]
    assert runs[0].summary["reason"] == failed.reason
    assert "key" not in runs[1].summary


def test_disabled_works_without_wandb(tmp_path: Path) -> None:
    """Without wandb the default is disabled, and other modes are refused in one line."""
    code = f"""
import sys
sys.modules["wandb"] = None
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "wandb" else find(name, *rest)
from pathlib import Path
from rankopt.study.tracking import make_tracker
from rankopt.study.wandb_run import check_wandb_mode, default_wandb_mode
assert default_wandb_mode() == "disabled"
tracker = make_tracker("disabled", Path({str(tmp_path)!r}), None)
tracker.start("s", 0, "l", None)
tracker.finish(None)
try:
    check_wandb_mode("offline")
except ValueError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("--wandb offline needs the wandb package: pip install")
    assert not list(tmp_path.iterdir())


def test_a_failing_tracker_is_turned_off(tiny_spec: Any) -> None:
    """The first failure is reported once; nothing is logged or raised afterwards."""

    class Broken(NullTracker):
        def log(self, progress: Progress) -> None:
            raise ConnectionError("no route")

    told: list[str] = []
    tracker = SafeTracker(Broken(), told.append)
    tracker.start("s", 0, "l", tiny_spec())
    for step in (1, 2):
        tracker.log(Progress(step, 2, "train"))
    tracker.finish(None)
    assert told == ["W&B failed and is turned off for this worker: ConnectionError: no route"]
