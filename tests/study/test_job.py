"""Options and jobs: one frozen value that travels to the workers."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest

from rankopt.study.job import GRACE, HEARTBEAT, Job, RunOptions

OPTIONS = RunOptions("sqlite:///s.db", Path("runs/s"))


def test_a_job_travels() -> None:
    job = Job(0, "s", replace(OPTIONS, together=4), threads=2)
    assert pickle.loads(pickle.dumps(job)) == job


def test_options_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        OPTIONS.together = 2  # type: ignore[misc]


def test_several_heartbeats_fit_into_the_grace_period() -> None:
    """Or a worker that is busy for a moment would lose its trial."""
    assert (OPTIONS.heartbeat, OPTIONS.grace) == (HEARTBEAT, GRACE)
    assert GRACE >= 5 * HEARTBEAT
