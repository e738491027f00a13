"""Run a study: queue its trials, start the workers, show their progress."""

from __future__ import annotations

import queue
import shutil
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from rankopt.core.result import TrialResult
from rankopt.core.study_spec import StudySpec
from rankopt.core.text import plural
from rankopt.core.trial_spec import TrialSpec
from rankopt.core.yaml import write
from rankopt.study.attempts import keys, proposal_state
from rankopt.study.database import PATIENCE
from rankopt.study.devices import described
from rankopt.study.events import TrialEnded, WorkerStopped
from rankopt.study.followups import follow, follows
from rankopt.study.job import Job, RunOptions
from rankopt.study.live_results_file import ResultsRecorder
from rankopt.study.progress import Display
from rankopt.study.queue import enqueue, retry_failed
from rankopt.study.recovery import RETRIES, recover
from rankopt.study.storage import StudyStore
from rankopt.study.study_mirror import StudyMirror
from rankopt.study.wandb_run import check_wandb_mode, sync_command
from rankopt.study.worker_pool import WorkerPool

RESTARTS = RETRIES + 2
"""How often a crashed worker is restarted: one trial can crash it once jointly and `RETRIES` + 1 times alone."""


@dataclass(frozen=True)
class Outcome:
    """How a run of a study ended.

    Attributes:
        counts: trials of the plan that are complete, failed, running, waiting.
        interrupted: the user stopped it.
        refusal: why a worker could not go on, or "".
        results: of the plan's trials.
        synced: the command that uploads W&B's offline runs, or "".
    """

    counts: dict[str, int]
    interrupted: bool = False
    refusal: str = ""
    results: Sequence[TrialResult] = field(default=())
    synced: str = ""


def run_study(
    spec: StudySpec,
    trials: Sequence[tuple[dict[str, Any], TrialSpec]] | None,
    options: RunOptions,
    *,
    console: Console,
    pool: WorkerPool,
) -> Outcome:
    """Run the unfinished trials of a study. Running it again resumes it and repeats nothing.

    Args:
        spec: the study.
        trials: its validated trials, each with its point of the space; a search queues none of them. If None, join
            the stored study without changing it.
        options: of the run.
        console: shows the progress.
        pool: the workers; the surplus ones are dismissed.
    Raises:
        ValueError: the storage cannot be opened, wandb is missing, or the results file is damaged.
        OSError: the folder or the results file cannot be written.
    """
    folder, wandb = options.folder, options.wandb
    check_wandb_mode(wandb)
    folder.mkdir(parents=True, exist_ok=True)
    store = StudyStore(
        options.url, spec.name, folder, heartbeat=options.heartbeat, grace=options.grace,
        artifacts=options.artifacts, patience=PATIENCE,
        say=lambda text: console.print(text, highlight=False, markup=False, soft_wrap=True),
    )  # fmt: skip
    if trials is None:
        store.open()
    else:
        store.create(spec)
        keep(spec, folder)  # now that it is accepted
    record = ResultsRecorder(store, options.results)
    recover(store)
    remove_leftovers(store)
    retried = retry_failed(store) if options.retry_failed else 0
    added = 0
    if trials is not None and store.search.trials is None:  # after the retries, which then get this machine's folders
        added = follow(store, trials) if follows(store, spec) else enqueue(store, trials)
    before = store.counts()
    with Display(console, folder / "log.txt", before) as display:
        planned = plural(store.search.trials or len(store.plan()), "trial")
        planned += f", {added} new" if store.search.trials is None else f" by {spec.search.name}"
        display.say(f"study {spec.name}: {planned}, {before['complete']} complete")
        if retried:
            display.say(f"{plural(retried, 'failed trial')} queued again")
        left = before["waiting"] + before["running"]
        needed = pool.count if follows(store, spec) else min(pool.count, -(-left // options.together))
        jobs = [Job(slot, spec.name, options, pool.threads) for slot in range(needed if left else 0)]
        if jobs:
            display.say(described(options.device, len(jobs), len(pool.gpus)))
        mirror = StudyMirror(wandb, store, spec, display.say)

        def trial_ended() -> str:
            mirror.trial_ended()
            return record()

        interrupted, refusal = _run_workers(pool, jobs, display, trial_ended)
        problem = record(last=True)
        refusal = refusal or problem
        remove_leftovers(store)
        counts = store.counts()
        interrupted |= not refusal and counts["waiting"] + counts["running"] > 0  # somebody stopped a worker itself
        found, wanted = counts["complete"] + counts.get("pruned", 0), store.search.trials or 0
        if found < wanted and not counts["waiting"] + counts["running"]:
            failed = plural(counts["failed"], "failed proposal")
            display.say(f"the search gave up after {failed}, with {found} of its {plural(wanted, 'trial')}")
        if left:
            mirror.finish()
    return Outcome(counts, interrupted, refusal, store.results(), sync_command(wandb, folder))


def remove_leftovers(store: StudyStore) -> None:
    """Remove what crashes leave of finished trials: their folders, and artifacts of lost attempts."""
    groups = list(store.groups().values())
    finished = [group for group in groups if proposal_state(group) in ("complete", "pruned")]
    needed = {key for group in groups if group not in finished for attempt in group for key in keys(attempt)}
    for group in finished:
        for key in {key for attempt in group for key in keys(attempt)} - needed:
            shutil.rmtree(store.folder / "trials" / key, ignore_errors=True)
        if len(group) > 1:
            store.artifacts.remove_superseded(group)


def keep(spec: StudySpec, folder: Path) -> None:
    """Write a study as it is run, overrides applied, into its folder, so that its name alone finds it again."""
    write(
        spec.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude={"contents"}), folder / "study.yaml"
    )


def _run_workers(pool: WorkerPool, jobs: list[Job], display: Display, record: Callable[[], str]) -> tuple[bool, str]:
    """Give the workers their jobs and follow them to their end: (interrupted, refusal).

    Args:
        record: called after every trial; returns a problem to show, or "".
    """
    processes = {job.slot: pool.begin(job) for job in jobs}
    pool.dismiss()
    restarts = dict.fromkeys(processes, 0)
    interrupts, refusal = 0, ""
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while any(process.is_alive() for process in processes.values()) or not pool.events.empty():
            try:
                event = pool.events.get(timeout=0.05)
                refusal = event.text if isinstance(event, WorkerStopped) else refusal
                display.show(event)
                if isinstance(event, TrialEnded) and (problem := record()):
                    display.say(problem)
            except queue.Empty:
                pass
            except KeyboardInterrupt:
                interrupts += 1
                for process in processes.values():
                    process.terminate() if interrupts == 1 else process.kill()
                if interrupts == 1:
                    display.say("stopping after the current step; interrupt once more to stop at once")
            for slot, process in processes.items():
                died = process.exitcode not in (None, 0)
                if died and not interrupts and not refusal and restarts[slot] < RESTARTS:
                    restarts[slot] += 1
                    display.say(f"worker {slot} crashed (exit {process.exitcode}); its trial is requeued")
                    processes[slot] = pool.begin(jobs[slot])
    finally:
        signal.signal(signal.SIGTERM, previous)
    if processes and not interrupts and not refusal and all(process.exitcode for process in processes.values()):
        refusal = "every worker died; see the lines above"
    return interrupts > 0, refusal
