"""Studies run by real processes: each trial exactly once, whatever is killed, interrupted, failing or full."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import plain_environment
from optuna.trial import TrialState
from stored_study import created, record
from trial_results import without_seconds as results_without_seconds
from warm_process import Command

from rankopt.core.result import TrialResult
from rankopt.core.spec import decode
from rankopt.core.trial_spec import TrialSpec
from rankopt.study.attempts import KEY, RESULT, WORKER
from rankopt.study.queue import enqueue
from rankopt.study.run import remove_leftovers
from rankopt.study.storage import StudyStore
from rankopt.study.storage_url import sqlite_url
from rankopt.training.checkpoint import SEAL, latest, step_of
from rankopt.training.trial import run_trial

# the package ignores this warning itself; pytest resets filters before every test
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

LONG = {"steps": 200, "batch_size": 16, "lr": 5.0e-3}  # some seconds: long enough to be hit in the middle
QUICKLY = ("--wandb", "disabled", "--heartbeat", "1", "--grace", "4")


def store_in(folder: Path, name: str = "tiny") -> StudyStore:
    store = StudyStore(sqlite_url(folder / "runs" / name), name, folder / "runs" / name)
    store.open()
    return store


def complete_keys(store: StudyStore) -> Counter[str]:
    return Counter(trial.user_attrs[KEY] for trial in store.trials(TrialState.COMPLETE))


def without_seconds(result: TrialResult) -> dict[str, Any]:
    data = results_without_seconds(result)
    data["environment"]["code"] = ""  # the checkout may be edited while tests run
    return data


def wait_for(what: Callable[[], Any], process: Command, seconds: float = 120) -> Any:
    """What becomes true while a process runs."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if (found := what()) or process.poll() is not None:
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Command]]:
    """Starts a command, and ends what is left of it after the test."""
    started: list[Command] = []

    def go(*words: object) -> Command:
        started.append(Command(words, tmp_path, plain_environment(), merged=True))
        return started[-1]

    yield go
    for process in started:
        process.kill()


def running_with_checkpoint(folder: Path, name: str = "tiny") -> list[Any]:
    """The running trials that have a sealed checkpoint."""
    if not (folder / "runs" / name / "study.db").exists():
        return []
    try:
        store = store_in(folder, name)
        running = [t for t in store.trials(TrialState.RUNNING) if WORKER in t.user_attrs]
    except (ValueError, ConnectionError):  # not made yet
        return []
    trials = folder / "runs" / name / "trials"
    return [t for t in running if list(trials.glob(f"{t.user_attrs[KEY]}/checkpoints/*/{SEAL}"))]


def test_two_workers_run_everything_once(finished: tuple[Path, Any], rankopt: Callable[..., Any]) -> None:
    """Four trials, two workers: each key is complete exactly once, its artifacts are stored, both workers took part,
    nothing is left in the working folder; run once more, it runs nothing and says so."""
    folder, done = finished
    store = store_in(folder)
    assert sorted(complete_keys(store).values()) == [1, 1, 1, 1]
    assert [trial.state.name for trial in store.trials() if trial.state != TrialState.PRUNED] == ["COMPLETE"] * 4
    assert len({trial.user_attrs[WORKER]["pid"] for trial in store.trials(TrialState.COMPLETE)}) == 2
    assert all(
        len(list(os.scandir(folder / "runs" / "tiny" / name))) == n for name, n in (("trials", 0), ("artifacts", 8))
    )
    assert "study tiny: 4 trials, 4 new, 0 complete\n2 workers on cpu\n" in done.stdout
    assert "[4/4]" in done.stdout
    *_, answer, sync, counts, adapter, page = done.stdout.splitlines()
    assert "uniform" in answer
    assert sync == "W&B: wandb sync runs/tiny/wandb/offline-run-*"
    assert counts == "4 complete, 0 failed, 0 running, 0 waiting"
    assert adapter == "Adapter: rankopt export tiny --out FOLDER"
    assert page == "Page: rankopt report tiny will write reports/tiny/index.html"
    assert done.stderr == ""
    before = store.trials()
    again = rankopt("run", "tiny", "--wandb", "disabled", cwd=folder)
    assert again.returncode == 0
    assert "4 trials, 0 new, 4 complete" in again.stdout
    assert [trial.number for trial in store.trials()] == [trial.number for trial in before]


def test_kills_change_no_tuned_choice(
    start: Callable[..., Command], tiny_study: Callable[..., Path], warm: Callable[..., Any], tmp_path: Path
) -> None:
    """Killed while it tunes, and once more after the choice: the same rates and results as a study without a kill."""
    for name in ("killed", "whole"):
        path = tiny_study(name, training={**LONG, "steps": 40})
        path.write_text(path.read_text() + "tune: {training.lr: [1.0e-3, 2.0e-2]}\n")
    for complete in (1, 3):  # two tuning trials, then two seeds at the better rate
        process = start("run", "killed.yaml", *QUICKLY, "--checkpoint-steps", "1")
        wait_for(
            lambda complete=complete: (
                running_with_checkpoint(tmp_path, "killed")
                and complete_keys(store_in(tmp_path, "killed")).total() >= complete
            ),
            process,
        )
        process.kill()
        assert complete_keys(store_in(tmp_path, "killed")).total() < 4, "it was killed too late"
    for name in ("killed", "whole"):
        done = warm("run", f"{name}.yaml", *QUICKLY, cwd=tmp_path)
        assert "\n4 complete, 0 failed, 0 running, 0 waiting" in done.stdout
    killed, whole = (
        {result.key: without_seconds(result) for result in store_in(tmp_path, name).results()}
        for name in ("killed", "whole")
    )
    assert killed == whole
    rates = {result["spec"]["training"]["lr"] for result in whole.values() if result["spec"].get("seed", 0) < 2}
    assert len(whole) == 4
    assert len(rates) == 1


def test_leftovers_of_finished_trials_are_removed(open_store: Any, study_of: Any, result: Any) -> None:
    """A kill between the record of a result and the clean-up leaves the trial's folder; the next run removes it, and
    keeps that of a trial that will continue."""
    study, trials = study_of({"seed": [0, 1]})
    store = created(open_store, study)
    enqueue(store, trials)
    done = record(store, result)
    other = trials[1][1].key
    for key in (done, other):
        (store.folder / "trials" / key / "checkpoints").mkdir(parents=True)
    remove_leftovers(store)
    assert [path.name for path in (store.folder / "trials").iterdir()] == [other]


def test_results_are_those_of_the_trial_alone(finished: tuple[Path, Any], tmp_path: Path) -> None:
    """What a worker process recorded is what `run_trial` gives here, but for the seconds."""
    folder, _ = finished
    stored = store_in(folder).results()[2]
    spec = decode(TrialSpec, stored.spec)
    assert without_seconds(stored) == without_seconds(run_trial(spec, tmp_path))


@pytest.mark.slow
def test_a_failing_trial(tiny_study: Callable[..., Path], warm: Callable[..., Any], tmp_path: Path) -> None:
    """It is recorded with its reason, the others complete, the exit code is 1 and stays 1 without running anything
    again; `--retry-failed` tries the failed one only."""
    # a decay of lr * weight_decay = 1e6 per step makes the weights overflow
    path = tiny_study(space={"training.lr, training.weight_decay": [[1000.0, 1000.0], [5e-3, 0.0]]})
    done = warm("run", path, "--wandb", "disabled", cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 complete, 1 failed" in done.stdout
    assert "failed: the loss became nan at step" in done.stdout
    store = store_in(tmp_path)
    assert [result.status for result in store.results()] == ["failed", "complete"]
    count = len(store.trials())
    again = warm("run", path, "--wandb", "disabled", cwd=tmp_path)
    assert again.returncode == 1
    assert len(store.trials()) == count
    retried = warm("run", path, "--wandb", "disabled", "--retry-failed", cwd=tmp_path)
    assert retried.returncode == 1
    assert "1 failed trial queued again" in retried.stdout
    recorded = Counter(trial.user_attrs[KEY] for trial in store.trials() if RESULT in trial.user_attrs)
    assert sorted(recorded.values()) == [1, 2]
    shown = warm("show", "tiny", cwd=tmp_path)
    assert shown.returncode == 0
    assert "failed: the loss became nan at step" in shown.stdout


KILLER = """
import os, signal
import rankopt.training.trial as module

train = module.run_trial

def run_trial(spec, *others, **more):
    if spec.seed == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return train(spec, *others, **more)

module.run_trial = run_trial
"""


@pytest.mark.slow
def test_a_trial_that_kills_its_companions(
    tiny_study: Callable[..., Path], warm: Callable[..., Any], tmp_path: Path
) -> None:
    """As one that memory does not suffice for: it is tried again alone, until it is a recorded failure; the others,
    whose worker died as often, complete in the same run."""
    path = tiny_study(space={"seed": [0, 1, 2]})
    done = warm("run", path, "--wandb", "disabled", "--together", 3, cwd=tmp_path, prelude=KILLER)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "2 complete, 1 failed" in done.stdout
    assert "its worker crashed: trying again alone" in done.stdout
    failed = [result for result in store_in(tmp_path).results() if result.status == "failed"]
    assert [(result.spec["seed"], result.reason) for result in failed] == [
        (1, "its worker crashed 4 times (killed, or out of memory)")
    ]


@pytest.mark.slow
def test_a_killed_worker(tiny_study: Callable[..., Path], start: Callable[..., Any], tmp_path: Path) -> None:
    """SIGKILL for one of two workers in the middle of a trial: the study completes in the same run, every key exactly
    once; the killed try is recorded as fallen, and its second try's result is that of an undisturbed run."""
    path = tiny_study(space={"seed": [0, 1, 2]}, training=LONG, allocator={"name": "adalora"})
    run = start("run", path, "--workers", 2, "--checkpoint-steps", 20, *QUICKLY)
    victims = wait_for(lambda: running_with_checkpoint(tmp_path), run)
    assert victims, run.printed
    os.kill(victims[0].user_attrs[WORKER]["pid"], signal.SIGKILL)
    assert run.wait(200) == 0, run.printed
    text = run.printed
    assert "crashed (exit -9); its trial is requeued" in text
    store = store_in(tmp_path)
    assert sorted(complete_keys(store).values()) == [1, 1, 1]
    fallen = store.trials(TrialState.FAIL)
    assert [trial.number for trial in fallen] == [victims[0].number]
    key = victims[0].user_attrs[KEY]
    stored = next(result for result in store.results() if result.key == key)
    spec = decode(TrialSpec, stored.spec)
    assert without_seconds(stored) == without_seconds(run_trial(spec, tmp_path / "alone"))


@pytest.mark.slow
def test_an_interrupt(tiny_study: Callable[..., Path], start: Callable[..., Any], tmp_path: Path) -> None:
    """Ctrl-C (SIGINT to the whole group) ends the run with 130 after the current step, no trial failed, checkpoints of
    that step kept; the same command continues from them and ends with the result of an undisturbed run."""
    training = {**LONG, "steps": 500}  # both workers must still be at work when the interrupt comes
    path = tiny_study(space={"seed": [0, 1]}, training=training, allocator={"name": "spectral", "recovery": 0.3})
    words = ("run", path, "--workers", 2, "--checkpoint-steps", 20, *QUICKLY)
    run = start(*words)
    folder = tmp_path / "runs" / "tiny"
    wait_for(lambda: len({seal.parents[2] for seal in folder.glob(f"trials/*/checkpoints/*/{SEAL}")}) == 2, run)
    os.killpg(run.pid, signal.SIGINT)
    assert run.wait(60) == 130, run.printed
    text = run.printed
    assert "stopping after the current step" in text
    assert "interrupted; run the study again to continue from its checkpoint" in text
    assert text.splitlines()[-1] == "rankopt: interrupted; run again to continue"
    assert "Traceback" not in text
    store = store_in(tmp_path)
    assert store.counts() == {"complete": 0, "failed": 0, "running": 0, "waiting": 2}
    trial, _ = (folder / "trials").iterdir()
    checkpoint = latest(trial / "checkpoints")
    assert checkpoint is not None
    assert 0 < step_of(checkpoint) < 500
    again = start(*words)
    assert again.wait(300) == 0, again.printed
    assert sorted(complete_keys(store).values()) == [1, 1]
    stored = next(result for result in store.results() if result.key == trial.name)
    spec = decode(TrialSpec, stored.spec)
    assert without_seconds(stored) == without_seconds(run_trial(spec, tmp_path / "alone"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of half a megabyte."""
    place = tmp_path / "small"
    place.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(place)]
    if not mount or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.slow
def test_a_full_disk(
    tiny_study: Callable[..., Path], warm: Callable[..., Any], tmp_path: Path, small_disk: Path
) -> None:
    """The study's folder lies on a disk that fills up while the first checkpoint is written: exit code 3, one line that
    names the place, the trial back in the queue and not failed; with room again the same command finishes."""
    path = tiny_study(space={"seed": [0, 1]})
    words = ("run", path, "--dir", small_disk, "--storage", sqlite_url(tmp_path), "--checkpoint-steps", 5, *QUICKLY)
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * 440_000)
    done = warm(*words, cwd=tmp_path)
    assert done.returncode == 3, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    assert "fix it and run again" in line
    assert str(small_disk) in line
    store = StudyStore(sqlite_url(tmp_path), "tiny", small_disk / "tiny")
    store.open()
    assert store.counts() == {"complete": 0, "failed": 0, "running": 0, "waiting": 2}
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    done = warm(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(complete_keys(store).values()) == [1, 1]


@pytest.mark.slow
def test_a_full_disk_with_the_storage_on_it(
    tiny_study: Callable[..., Path], warm: Callable[..., Any], tmp_path: Path, small_disk: Path
) -> None:
    """With the storage on the same full disk nothing can be recorded at all: still exit code 3 and no traceback, and
    nothing is lost once there is room."""
    path = tiny_study(space={"seed": [0, 1]})
    words = ("run", path, "--dir", small_disk, *QUICKLY)
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * 250_000)
    done = warm(*words, cwd=tmp_path)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert len(done.stderr.splitlines()) == 1
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    done = warm(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
