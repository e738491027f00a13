"""Workers that wait for their jobs: dismissed they end well, and a dead one's job is not lost silently."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from rankopt.study.job import Job
from rankopt.study.staff import Staff

JOB = Job(0, "sqlite://", "none", Path(), "disabled", 1, None, 15, 90)


def test_dismissed() -> None:
    """A worker without a job ends by itself, and well."""
    staff = Staff(1)
    (worker,) = staff.idle
    staff.dismiss()
    worker.process.join(60)
    assert worker.process.exitcode == 0
    assert staff.idle == []


def test_a_worker_that_died_while_it_waited() -> None:
    """Its job raises nothing; its exit code says that another one is needed, and the next job gets a new one."""
    staff = Staff(1)
    (worker,) = staff.idle
    os.kill(worker.process.pid or 0, signal.SIGKILL)
    worker.process.join(60)
    dead = staff.begin(JOB)
    assert dead is worker.process
    assert dead.exitcode == -signal.SIGKILL
    other = staff.begin(JOB)
    assert other.is_alive()
    other.kill()
