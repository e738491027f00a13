"""Workers that wait for their jobs: they answer, end well when dismissed, and a dead one's job is not lost silently."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from rankopt.core.problems import InvalidSpecError
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


def test_a_job_without_a_question(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A worker that nobody asked works none the less; here it finds no study, and says so."""
    staff = Staff(1)
    process = staff.begin(JOB._replace(url=f"sqlite:///{tmp_path / 'none.db'}", folder=tmp_path))
    process.join(120)
    assert "which holds: none; rankopt run makes it" in capfd.readouterr().err


def refuse() -> None:
    """Two lines, as of a wrong study."""
    raise InvalidSpecError(["one", "two"])


def test_asked() -> None:
    """The worker of the first job answers from its own process, and an error travels whole, with its traceback."""
    staff = Staff(2)
    worker = staff.idle[0]
    assert staff.ask(os.getpid) == worker.process.pid
    with pytest.raises(InvalidSpecError) as caught:
        staff.ask(refuse)
    assert caught.value.lines == ["one", "two"]
    assert str(caught.value) == "one\ntwo"
    assert "in refuse" in caught.value.__notes__[0]
    assert staff.ask(os.getpid) == worker.process.pid
    assert staff.begin(JOB) is worker.process
    staff.dismiss()
    worker.process.kill()


def test_a_worker_that_dies_of_a_question() -> None:
    """One line that says how, and no wait without end."""
    staff = Staff(1)
    with pytest.raises(ChildProcessError, match=r"died \(exit -9\): nothing was run"):
        staff.ask(signal.raise_signal, signal.SIGKILL)
