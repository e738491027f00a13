"""W&B: the offline files, read back with wandb's own reader, contain every point of the study."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import plain_environment

from rankopt.allocators import ALLOCATORS
from rankopt.analysis.averages import average
from rankopt.analysis.comparison import compare
from rankopt.analysis.frame import tidy
from rankopt.core.progress import Progress
from rankopt.core.result import TrialResult
from rankopt.core.spec import decode
from rankopt.core.study_spec import WandbSpec
from rankopt.core.trial_spec import TrialSpec
from rankopt.study.storage import StudyStore
from rankopt.study.storage_url import sqlite_url
from rankopt.study.tracking import (
    NullTracker,
    SafeTracker,
    check_wandb_mode,
    default_wandb_mode,
    make_tracker,
    point_rows,
    publish_study,
)

# the package ignores this warning itself; pytest resets filters before every test
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


class Mirror(NamedTuple):
    """An offline run as read back."""

    header: dict[str, Any]  # group, job type, name, configuration
    history: list[dict[str, Any]]
    summary: dict[str, Any]
    state: str
    exit_code: int
    folder: Path

    def table(self, name: str) -> list[dict[str, Any]]:
        """The rows of a logged table."""
        data = json.loads((self.folder / "files" / name).read_text())
        return [dict(zip(data["columns"], row, strict=True)) for row in data["data"]]


def read_back(folder: Path) -> list[Mirror]:
    """Read all offline runs under a folder with `wandb leet inspect`."""
    tool = Path(sys.executable).with_name("wandb")
    runs = []
    for run in sorted(folder.glob("offline-run-*"), key=lambda run: next(run.glob("*.wandb")).stat().st_mtime_ns):
        command = [str(tool) if tool.exists() else shutil.which("wandb") or "wandb", "leet", "inspect", "--json"]
        text = subprocess.run([*command, str(run)], capture_output=True, text=True, timeout=60, check=True).stdout
        records = [json.loads(line) for line in text.splitlines()]
        text = subprocess.run([*command, "--summary", str(run)], capture_output=True, text=True, check=True).stdout
        last = json.loads(text)
        runs.append(
            Mirror(
                header=next(record["run"] for record in records if record["type"] == "run"),
                history=[record["history"]["item"] for record in records if record["type"] == "history"],
                summary=last["summary"],
                state=last["state"],
                exit_code=last["exit_code"],
                folder=run,
            )
        )
    return runs


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
    """Every step has its loss, budget and ranks per layer, equal to the recorded ones."""
    for run in mirrors:
        if run.header["job_type"] == "study":
            continue
        result = results[run.summary["key"]]
        rows = [row for row in run.history if "loss" in row]
        assert [row["step"] for row in rows] == list(range(1, 13))
        assert [row["loss"] for row in rows] == pytest.approx([event.loss for event in result.losses])
        trace = {event.step: event for event in result.ranks}
        ranks, amount = result.ranks[0].ranks, result.ranks[0].amount
        shown: dict[str, int] = {}
        for row in rows:
            if row["step"] in trace:
                ranks, amount = trace[row["step"]].ranks, trace[row["step"]].amount
            shown |= {key.removeprefix("ranks/"): value for key, value in row.items() if key.startswith("ranks/")}
            assert shown == dict(zip(result.layers, ranks, strict=True)), row["step"]
            assert row["budget"] == amount


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


def test_the_tradeoff_curve(mirrors: list[Mirror], results: dict[str, TrialResult]) -> None:
    """The study's run plots the mean score over seeds against kept parameters, one line per allocator."""
    (study,) = [run for run in mirrors if run.header["job_type"] == "study"]
    (name,) = [row[key] for row in study.history for key in row if key == "tradeoff/sst2_table.path"]
    curves: dict[str, dict[float, float]] = {}
    for row in study.table(name):
        curves.setdefault(row["lineKey"], {})[row["step"]] = row["lineVal"]
    averages = average(tidy(results.values()))
    for allocator, rows in averages[averages["chosen"]].groupby("allocator"):
        assert curves.pop(allocator) == pytest.approx(dict(zip(rows["kept"], rows["score"], strict=True)))
        for sign, words in ((1, "+"), (-1, "-")):
            ends = dict(zip(rows["kept"], rows["score"] + sign * rows["error"], strict=True))
            assert curves.pop(f"{allocator} {words} 1 standard error") == pytest.approx(ends)
    assert curves == {}


def test_the_studys_tables_are_the_reports(mirrors: list[Mirror], results: dict[str, TrialResult]) -> None:
    """Means and verdicts are those of `analysis`, number by number."""
    (study,) = [run for run in mirrors if run.header["job_type"] == "study"]
    points = tidy(results.values())
    averages = average(points)
    arms, cells = compare(points, averages)
    for name, frame in (("averages", averages), ("verdicts", arms), ("differences", cells)):
        found = study.table(study.summary[name]["path"])
        assert len(found) == len(frame) > 0
        for row, expected in zip(found, frame.to_dict("records"), strict=True):
            for column, value in expected.items():
                assert row[column] is None if value != value else row[column] == pytest.approx(value), column


def test_a_failure_and_an_interruption(
    tmp_path: Path, result: Callable[..., TrialResult], tiny_spec: Any, study_of: Any
) -> None:
    """A failed trial's run has its reason and exit code 1; an interrupted one has no result. A study of failures only
    is published too."""
    pytest.importorskip("wandb")
    spec = tiny_spec()
    failed = result(spec, status="failed", points=(), reason="the loss became nan at step 3 of 9")
    study = study_of()[0]
    tracker = make_tracker("offline", tmp_path, study.wandb)
    for seed, outcome in enumerate((failed, None)):
        tracker.start("tiny", 3, "sst2 uniform", tiny_spec(seed=seed))
        tracker.finish(outcome)
    tracker.finish(None)  # a trial that never started
    publish_study("offline", tmp_path, study, [failed])
    runs = read_back(tmp_path / "wandb")
    assert [run.exit_code for run in runs] == [1, 1, 0]
    assert runs[0].summary["reason"] == failed.reason
    assert "key" not in runs[1].summary
    assert runs[2].summary["failed"] == 1


def test_disabled_works_without_wandb(tmp_path: Path) -> None:
    """Without wandb the default is disabled, and other modes are refused in one line."""
    code = f"""
import sys
sys.modules["wandb"] = None
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "wandb" else find(name, *rest)
from pathlib import Path
from rankopt.study.tracking import check_wandb_mode, default_wandb_mode, make_tracker, publish_study
assert default_wandb_mode() == "disabled"
tracker = make_tracker("disabled", Path({str(tmp_path)!r}), None)
tracker.start("s", 0, "l", None)
tracker.finish(None)
publish_study("disabled", Path({str(tmp_path)!r}), None, [])
try:
    check_wandb_mode("offline")
except ValueError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("--wandb offline needs the wandb package: pip install")
    assert not list(tmp_path.iterdir())


def test_modes(monkeypatch: Any) -> None:
    """With wandb installed the default is offline; online needs an API key."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert default_wandb_mode() == "offline"
    check_wandb_mode("online")
    assert isinstance(make_tracker("disabled", Path("nowhere"), WandbSpec()), NullTracker)


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


def test_online_needs_a_login(monkeypatch: Any) -> None:
    """Without a login, online is refused before anything runs."""
    import wandb

    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setattr(type(wandb.api), "api_key", property(lambda self: None))
    with pytest.raises(ValueError, match="--wandb online needs a login"):
        check_wandb_mode("online")


def test_variables_of_wandb(tiny_study: Callable[..., Path], warm: Any, tmp_path: Path) -> None:
    """Under the variables that `wandb agent` sets, every trial still has a run of its own. Project, entity and tags
    come from W&B's variables if the study leaves them out."""
    pytest.importorskip("wandb")
    variables = {"WANDB_RUN_ID": "abc123", "WANDB_SWEEP_ID": "sw1", "WANDB_RESUME_FROM": "other?_step=3"}
    variables |= {"WANDB_PROJECT": "theirs", "WANDB_ENTITY": "team", "WANDB_TAGS": "x,y"}
    path = tiny_study(training__steps=2)
    done = warm("run", path, "--wandb", "offline", cwd=tmp_path, environment=plain_environment() | variables)
    assert done.returncode == 0, done.stderr
    headers = [run.header for run in read_back(tmp_path / "runs" / "tiny" / "wandb")]
    assert len({header["run_id"] for header in headers}) == 3
    assert all(header["run_id"].startswith("tiny-") for header in headers)
    assert all(
        (header["project"], header["entity"], header["tags"]) == ("theirs", "team", ["x", "y"]) for header in headers
    )


def test_the_study_names_its_project(tmp_path: Path, tiny_spec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Project, entity and tags in the study's file override W&B's variables."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    tracker = make_tracker("offline", tmp_path, WandbSpec(project="ours", entity="us", tags=("z",)))
    tracker.start("tiny", 0, "sst2 uniform", tiny_spec())
    tracker.finish(None)
    ((header, *_),) = read_back(tmp_path / "wandb")
    assert (header["project"], header["entity"], header["tags"]) == ("ours", "us", ["z"])
