"""Eight workers on one PostgreSQL, one of them killed every few seconds: is every trial accounted for?

    python tests/stress_postgres.py [--trials 400] [--workers 8] [--every 3] [--search random] [--url URL]

Makes a database of its own on the server at URL, runs a search whose trainings are replaced by a sleep of about 0.1 s,
kills a worker with SIGKILL again and again and starts another one, prints what became of every trial, and drops the
database. Exit code 0 when nothing was lost or counted twice, and at most 1 % of the attempts are
duplicates.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from postgres import SERVER, database

from rankopt.core.pattern import RankPattern, Shape
from rankopt.core.result import Point, TrialResult
from rankopt.core.study_spec import StudySpec
from rankopt.core.trial_spec import TrialSpec
from rankopt.study.attempts import SKIPPED, attempt_state, by_origin, origin, proposal_state
from rankopt.study.job import Job, RunOptions
from rankopt.study.recovery import unfinished_groups
from rankopt.study.storage import StudyStore
from rankopt.study.worker import work
from rankopt.training import trial as training

NAME = "stress"
KEY_LINE = re.compile(r"\w+")
SECONDS = 0.1
SPACE = {
    "training.lr": {"float": [1e-4, 1e-2], "log": True},
    "allocator.slope": {"float": [-2.0, 2.0]},
    "budget.mean_rank": {"int": [1, 8]},
}


def stub(spec: TrialSpec, folder: Path, **_: Any) -> TrialResult:
    """A result without a training."""
    with (folder.parent.parent / "trained.txt").open("a") as log:
        log.write(f"{spec.key}\n")
    time.sleep(SECONDS * random.uniform(0.5, 1.5))
    (folder / "adapter").mkdir(parents=True, exist_ok=True)
    (folder / "adapter" / "weights").write_text(spec.key)
    (folder / "predictions.npz").write_text(spec.key)
    rank = int(spec.budget.mean_rank or 0) if spec.budget else 0
    scores = {"accuracy": 1 - 1 / (1 + rank) - abs(spec.training.lr - 1e-3)}
    pattern = RankPattern({"0.query": rank})
    point = Point(label="budget", pattern=pattern, kept=8 * rank, search=scores, report={"validation": scores})
    return TrialResult(
        key=spec.key, spec=spec.plain, status="complete",
        metrics=("accuracy",), layers={"0.query": Shape(4, 4)}, points=(point,),
    )  # fmt: skip


def be_a_worker(url: str, folder: Path) -> None:
    """What a worker process of `rankopt run` does, with the stub for the training."""
    sys.stdout = sys.stderr = (folder / "workers.txt").open("a", buffering=1)
    training.run_trial = stub

    work(Job(0, NAME, RunOptions(url, folder, heartbeat=5, grace=20)), lambda event: print(os.getpid(), event))


def start(url: str, folder: Path) -> Any:
    """A worker process. Forked, so that it need not import torch first and is hit in the middle of its work."""
    process = multiprocessing.get_context("fork").Process(target=be_a_worker, args=(url, folder))
    process.start()
    return process


def stress(url: str, folder: Path, trials: int, workers: int, every: float, search: str) -> list[str]:
    """Run the study under fire. Returns what is wrong; prints the figures."""
    base = {"task": {"name": "rte"}, "allocator": {"name": "profile"}, "budget": {"mean_rank": 2}}
    data = {"name": NAME, "base": base, "space": SPACE, "search": {"name": search, "trials": trials}}
    store = StudyStore(url, NAME, folder, heartbeat=5, grace=20)
    store.create(StudySpec.model_validate(data))
    began = last = time.monotonic()
    running = [start(url, folder) for _ in range(workers)]
    kills = 0
    while any(process.is_alive() for process in running):
        time.sleep(0.1)
        if time.monotonic() - last > every and store.counts()["waiting"]:
            last = time.monotonic()
            victim = random.randrange(workers)
            running[victim].kill()
            running[victim].join()
            running[victim] = start(url, folder)
            kills += 1
    return account(store, trials, kills, time.monotonic() - began)


def account(store: StudyStore, wanted: int, kills: int, seconds: float) -> list[str]:
    """What became of every attempt."""
    attempts = store.trials()
    states = Counter(map(attempt_state, attempts))
    proposals = Counter(map(proposal_state, by_origin(attempts).values()))
    reasons = Counter(attempt.user_attrs[SKIPPED] for attempt in attempts if SKIPPED in attempt.user_attrs)
    complete = [attempt for attempt in attempts if attempt_state(attempt) == "complete"]
    twice = [number for number, count in Counter(map(origin, complete)).items() if count > 1]
    left = unfinished_groups(store)
    trained = Counter(KEY_LINE.findall((store.folder / "trained.txt").read_text()))
    print(
        f"{wanted} trials asked for, {proposals['complete']} complete, {proposals['failed']} failed, "
        f"{proposals['running']} running, {proposals['waiting']} waiting, in {seconds:.0f} s under {kills} kills\n"
        f"{len(attempts)} attempts: {dict(states)}, skipped: {dict(reasons)}\n"
        f"{reasons['duplicate'] / len(attempts):.2%} of the attempts were duplicates; "
        f"{sum(trained.values()) - len(trained)} trainings of {len(trained)} were made more than once\n"
        f"{len(left)} lost, {len(twice)} counted twice; {len(store.results())} different trials"
    )
    wrong = []
    if proposals["complete"] != wanted or sum(proposals.values()) != wanted:
        wrong.append(f"{wanted} complete proposals were asked for, there are {dict(proposals)}")
    if reasons["duplicate"] > 0.01 * len(attempts):
        wrong.append(f"{reasons['duplicate']} of {len(attempts)} attempts are duplicates")
    return wrong + [f"lost: {group[-1].number}" for group in left] + [f"counted twice: {number}" for number in twice]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=400)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--every", type=float, default=3.0, help="seconds between two kills")
    parser.add_argument("--search", default="random")
    parser.add_argument("--url", default=SERVER, help="of any database on the server")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, database(asked.url) as url:
        wrong = stress(url, Path(folder), asked.trials, asked.workers, asked.every, asked.search)
        print((Path(folder) / "workers.txt").read_text() if wrong else "nothing lost, nothing counted twice")
    for line in wrong:
        print(line)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
