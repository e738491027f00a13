"""Workers that wait for their jobs: they answer, end well when dismissed, and a dead one's job is not lost silently."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil
import pytest
from transformers import AutoConfig

from rankopt.core.errors import InvalidSpecError
from rankopt.core.study_file import StudyFile
from rankopt.study.devices import VISIBLE
from rankopt.study.job import Job, RunOptions
from rankopt.study.worker_pool import WorkerPool

pytestmark = pytest.mark.usefixtures("cold_workers")
JOB = Job(0, "none", RunOptions("sqlite://", Path()))


def test_dismissed() -> None:
    """A worker without a job ends by itself, and well."""
    pool = WorkerPool(1)
    (worker,) = pool.idle
    pool.dismiss()
    worker.process.join(60)
    assert worker.process.exitcode == 0
    assert pool.idle == []


def test_a_worker_that_died_while_it_waited() -> None:
    """Its job raises nothing; its exit code says that another one is needed, and the next job gets a new one."""
    pool = WorkerPool(1)
    (worker,) = pool.idle
    os.kill(worker.process.pid or 0, signal.SIGKILL)
    worker.process.join(60)
    dead = pool.begin(JOB)
    assert dead is worker.process
    assert dead.exitcode == -signal.SIGKILL
    other = pool.begin(JOB)
    assert other.is_alive()
    other.kill()


def test_a_job_without_a_question(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A worker that nobody asked works none the less; here it finds no study, and says so."""
    pool = WorkerPool(1)
    process = pool.begin(Job(0, "none", RunOptions(f"sqlite:///{tmp_path / 'none.db'}", tmp_path)))
    process.join(120)
    assert "(it has: none); create it with rankopt run" in capfd.readouterr().err


def test_asked(tmp_path: Path) -> None:
    """The worker of the first job answers from its own process, and an error travels whole, with its traceback."""
    pool = WorkerPool(2)
    worker = pool.idle[0]
    assert pool.ask(os.getpid) == worker.process.pid
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("name: x\nbase: {}\n")
    with pytest.raises(InvalidSpecError) as caught:
        pool.ask(StudyFile, wrong)
    assert [line.rpartition("base.")[2] for line in caught.value.lines] == ["task is required"]
    assert str(caught.value) == "\n".join(caught.value.lines)
    assert "in __init__" in caught.value.__notes__[0]
    assert pool.ask(os.getpid) == worker.process.pid
    assert pool.begin(JOB) is worker.process
    pool.dismiss()
    worker.process.kill()


def test_every_worker_has_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set before it starts, in turn, from the user's own list; a worker that is started again gets the same one."""
    monkeypatch.setenv(VISIBLE, "2,5")
    pool = WorkerPool(2)
    workers = [pool.begin(replace(JOB, slot=slot)) for slot in (0, 1, 1)]
    try:
        assert [_gpu_of(worker) for worker in workers] == ["2", "5", "5"]
        assert os.environ[VISIBLE] == "2,5"
    finally:
        for worker in workers:
            worker.kill()


def test_workers_on_the_cpu_see_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE, "2,5")
    pool = WorkerPool(1, "cpu")
    assert _gpu_of(pool.idle[0].process) == ""
    pool.dismiss()


def _gpu_of(process: BaseProcess) -> str:
    """As its process sees it; until it has started its own program, it shows the environment of this one's start."""
    for _ in range(200):
        if VISIBLE in (found := psutil.Process(process.pid).environ()):
            return found[VISIBLE]
        time.sleep(0.05)
    raise AssertionError(f"{VISIBLE} is not set")


def test_an_error_that_cannot_travel(tmp_path: Path) -> None:
    """What a library raises may not be made again from what it says; then its traceback comes as another."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_size": "big"}))
    pool = WorkerPool(1)
    with pytest.raises(RuntimeError, match=r"(?s)Traceback.*hidden_size.*expected int"):
        pool.ask(AutoConfig.from_pretrained, str(tmp_path))
    assert pool.ask(abs, -1) == 1
    pool.dismiss()


def test_a_worker_that_dies_of_a_question() -> None:
    """One line that says how, and no wait without end."""
    pool = WorkerPool(1)
    with pytest.raises(ChildProcessError, match=r"crashed \(exit -9\): nothing was run"):
        pool.ask(signal.raise_signal, signal.SIGKILL)


SLOW = """
import time
from rankopt.study.worker_pool import WorkerPool

pool = WorkerPool(1)
pool.ask(abs, 1)
print("asked", flush=True)
pool.ask(time.sleep, 600)
"""


def test_no_answer_outlives_its_parent(tmp_path: Path) -> None:
    """A worker that is busy with a question ends when nobody waits for the answer any more."""
    script = tmp_path / "slow.py"
    script.write_text(f"if __name__ == '__main__':{SLOW.replace(chr(10), chr(10) + '    ')}")
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "asked\n"
        parent.kill()
        parent.communicate(timeout=30)  # until nobody holds the pipe's other end
