"""How W&B's runs are started: modes, login, and W&B's own variables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import plain_environment
from wandb_files import read_back

from rankopt.core.study_spec import WandbSpec
from rankopt.study.tracking import NullTracker, make_tracker
from rankopt.study.wandb_run import check_wandb_mode, default_wandb_mode, sync_command

# the package ignores this warning itself; pytest resets filters before every test
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


def test_modes(monkeypatch: Any) -> None:
    """With wandb installed the default is offline; online needs an API key."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert default_wandb_mode() == "offline"
    check_wandb_mode("online")
    assert isinstance(make_tracker("disabled", Path("nowhere"), WandbSpec()), NullTracker)


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


def test_how_to_upload() -> None:
    assert sync_command("offline", Path("runs", "tiny")) == "wandb sync runs/tiny/wandb/offline-run-*"
    assert sync_command("online", Path("runs", "tiny")) == ""
